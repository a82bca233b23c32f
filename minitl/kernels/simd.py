"""Vectors inside compiled loops: eight float32 or four float64 at once.

A processor multiplies and adds eight float32 in one instruction. Numba lets LLVM find such
instructions in plain loops, which works for y[i] = a * x[i] + b and fails for a loop that must
keep a whole tile of a matrix in registers. This file gives compiled code a type for one register,
so that a kernel can say what it means: `load` and `store` move a vector between an array and a
register, `broadcast` fills one with copies of a single element, and + - * act on all lanes (a
plain number stands for a vector full of it).

Arrays are C-contiguous and addressed flat, whatever their shape, and an index is not checked.
LLVM may turn a * b + c into one instruction that rounds once (the flag 'contract' below). With
NUMBA_DISABLE_JIT=1 a vector is a short NumPy array, so that every kernel can be stepped through.
"""

from __future__ import annotations

import operator
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import extending, types
from numba.extending import models, overload, register_model

intrinsic: Any = extending.intrinsic

# AVX2 has 32-byte registers, and so many are also a good fit for the 32 half as wide ones of ARM.
VECTOR_BYTES = 64 if binding.get_host_cpu_features().get("avx512f") else 32


class Vector(types.Type):
    """One register full of `scalar` (types.float32 or types.float64), to Numba."""

    def __init__(self, scalar: Any) -> None:
        self.scalar = scalar
        self.lanes = VECTOR_BYTES * 8 // scalar.bitwidth
        super().__init__(name=f"vector({self.lanes} x {scalar})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: Vector) -> None:
        element = manager.lookup(vector.scalar).get_value_type()
        super().__init__(manager, vector, ir.VectorType(element, vector.lanes))


def _address(context, builder, array_type, array, index):
    """Pointer to element `index` of a C-contiguous array."""
    assert array_type.layout == "C", "vectors are loaded from contiguous arrays only"
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [index])


def _filled(builder, vector, scalar):
    """A vector whose lanes all hold `scalar`."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.IntType(32)(0))
    lane_0_for_all = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(first, undefined, lane_0_for_all)


@intrinsic
def lanes(typingctx, array):
    """How many elements of the array's dtype one vector holds (a constant to the compiler)."""
    count = Vector(array.dtype).lanes

    def build(context, builder, signature, args):
        return context.get_constant(types.intp, count)

    return types.intp(array), build


@intrinsic
def load(typingctx, array, index):
    """The vector at array.ravel()[index : index + lanes]."""
    result = Vector(array.dtype)

    def build(context, builder, signature, args):
        pointer = _address(context, builder, signature.args[0], *args)
        pointer = builder.bitcast(pointer, context.get_value_type(result).as_pointer())
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return result(array, types.intp), build


@intrinsic
def store(typingctx, array, index, value):
    """array.ravel()[index : index + lanes] = value."""

    def build(context, builder, signature, args):
        pointer = _address(context, builder, signature.args[0], *args[:2])
        pointer = builder.bitcast(pointer, args[2].type.as_pointer())
        builder.store(args[2], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), build


@intrinsic
def broadcast(typingctx, array, index):
    """A vector whose lanes all hold array.ravel()[index]."""
    result = Vector(array.dtype)

    def build(context, builder, signature, args):
        scalar = builder.load(_address(context, builder, signature.args[0], *args))
        return _filled(builder, context.get_value_type(result), scalar)

    return result(array, types.intp), build


@intrinsic
def maximum(typingctx, a, b):
    """Lane by lane, b where a < b, else a; so a NaN in a stays."""

    def build(context, builder, signature, args):
        return builder.select(builder.fcmp_ordered("<", *args), args[1], args[0])

    return a(a, b), build


def _lane_by_lane(operation, instruction):
    """Teach Numba `operation` for vectors; one operand may be a number."""

    @intrinsic
    def apply(typingctx, a, b):
        vector = a if isinstance(a, Vector) else b

        def build(context, builder, signature, args):
            operands = []
            for value, kind in zip(args, signature.args, strict=True):
                if not isinstance(kind, Vector):
                    value = context.cast(builder, value, kind, vector.scalar)
                    value = _filled(builder, context.get_value_type(vector), value)
                operands.append(value)
            return getattr(builder, instruction)(*operands, flags=("contract",))

        return vector(a, b), build

    @overload(operation, inline="always")
    def choose(a, b):
        if Vector in (type(a), type(b)) and isinstance(a, Vector | types.Number):
            return lambda a, b: apply(a, b)
        return None


if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]

    def lanes(array):
        return VECTOR_BYTES // array.itemsize

    def load(array, index):
        return array.reshape(-1)[index : index + lanes(array)].copy()

    def store(array, index, value):
        array.reshape(-1)[index : index + lanes(array)] = value

    def broadcast(array, index):
        return np.full(lanes(array), array.reshape(-1)[index])

    def maximum(a, b):
        return np.where(a < b, b, a)

else:
    _lane_by_lane(operator.add, "fadd")
    _lane_by_lane(operator.sub, "fsub")
    _lane_by_lane(operator.mul, "fmul")
