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

import itertools
import operator
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba import extending, njit, types
from numba.core import cgutils
from numba.extending import models, overload, register_model

intrinsic: Any = extending.intrinsic

# Inlined, and without counting who holds an array: Numba counts by calls, and before a call all
# vectors must leave their registers. 3x3 windows of 3 channels, to 64 filters, took twice as long.
inlined = njit(forceinline=True, _nrt=False)  # type: ignore[call-overload]

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


def _read(context, builder, vector, array_type, array, index):
    """The vector of elements of an array from `index` on, in the vector's precision."""
    stored = ir.VectorType(context.get_value_type(array_type.dtype), vector.lanes)
    pointer = _address(context, builder, array_type, array, index)
    pointer = builder.bitcast(pointer, stored.as_pointer())
    value = builder.load(pointer, align=array_type.dtype.bitwidth // 8)
    return _converted(builder, value, context.get_value_type(vector))


def _write(context, builder, array_type, array, index, value, aligned=False):
    """Store a vector in an array's precision; `aligned`: at a multiple of what it takes there."""
    stored = ir.VectorType(context.get_value_type(array_type.dtype), value.type.count)
    pointer = _address(context, builder, array_type, array, index)
    pointer = builder.bitcast(pointer, stored.as_pointer())
    size = array_type.dtype.bitwidth // 8
    align = stored.count * size if aligned else size
    return builder.store(_converted(builder, value, stored), pointer, align=align)


def _converted(builder, value, kind):
    if value.type == kind:
        return value
    wider = isinstance(kind.element, ir.DoubleType)
    return builder.fpext(value, kind) if wider else builder.fptrunc(value, kind)


@intrinsic
def load(typingctx, array, index):
    """The vector at array.ravel()[index : index + lanes]."""
    result = Vector(array.dtype)

    def build(context, builder, signature, args):
        return _read(context, builder, result, signature.args[0], *args)

    return result(array, types.intp), build


@intrinsic
def load_as(typingctx, array, index, other):
    """`load`, as a vector of the precision, and so with the lanes, of another array."""
    result = Vector(other.dtype)

    def build(context, builder, signature, args):
        return _read(context, builder, result, signature.args[0], *args[:2])

    return result(array, types.intp, other), build


@intrinsic
def store(typingctx, array, index, value):
    """array.ravel()[index : index + lanes] = value, rounded to the array's precision."""

    def build(context, builder, signature, args):
        _write(context, builder, signature.args[0], *args)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), build


@intrinsic
def stream(typingctx, array, index, value):
    """`store`, past the caches to memory, at an address that is a multiple of what it takes.

    Other threads see it for certain after a lock was taken or given back, as `share_out` does.
    """

    def build(context, builder, signature, args):
        array, index, value = args
        instruction = _write(context, builder, signature.args[0], array, index, value, aligned=True)
        yes = builder.module.add_metadata([ir.IntType(32)(1)])
        instruction.set_metadata("nontemporal", yes)
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


# --- Tiles: what a matrix product keeps in registers ----------------------------------------------

# A tile is some rows by 2 vectors, a tuple of vectors row after row. So many rows of accumulators,
# the 2 vectors of B and a broadcast element of A fit into the 16 registers of AVX2, or the 32 of
# AVX-512.
TILE_ROWS = 12 if VECTOR_BYTES == 64 else 6
SHORT_ROWS = TILE_ROWS // 3  # of the tiles for what is left over


def _pair_at(builder, vector, at):
    """Where the 2 vectors that begin at element `at` of an array lie."""
    return [builder.add(at, ir.Constant(at.type, lane)) for lane in (0, vector.lanes)]


@intrinsic(prefer_literal=True)
def rows_of_tile(typingctx, rows, first, count):
    """The tuple of `count` elements rows[first], rows[first + 1] ..., the last one repeated where
    `rows` ends. `count` is a constant."""
    result = types.UniTuple(types.intp, count.literal_value)

    def build(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        last = builder.sub(builder.extract_value(array.shape, 0), ir.Constant(args[1].type, 1))
        places = ir.Constant(context.get_value_type(result), ir.Undefined)
        for r in range(result.count):
            at = builder.add(args[1], ir.Constant(args[1].type, r))
            at = builder.select(builder.icmp_signed("<", at, last), at, last)
            places = builder.insert_value(places, builder.load(builder.gep(array.data, [at])), r)
        return places

    return result(rows, types.intp, count), build


@intrinsic
def zero_tile(typingctx, array, rows):
    """A tile of zeros, of the array's dtype; as many rows as `rows`."""
    result = types.UniTuple(Vector(array.dtype), 2 * rows.count)

    def build(context, builder, signature, args):
        return ir.Constant(context.get_value_type(result), None)

    return result(array, rows), build


@intrinsic
def load_tile(typingctx, array, at, step, rows):
    """The tile whose rows begin at elements at, at + step, ... of the array; as many as `rows`."""
    result = types.UniTuple(Vector(array.dtype), 2 * rows.count)

    def build(context, builder, signature, args):
        array, at, step, _ = args
        i, tile = 0, ir.Constant(context.get_value_type(result), ir.Undefined)
        for _ in range(rows.count):
            for place in _pair_at(builder, result.dtype, at):
                one = _read(context, builder, result.dtype, signature.args[0], array, place)
                tile = builder.insert_value(tile, one, i)
                i += 1
            at = builder.add(at, step)
        return tile

    return result(array, types.intp, types.intp, rows), build


@intrinsic
def store_tile(typingctx, array, at, step, tile):
    """The opposite of `load_tile`."""

    def build(context, builder, signature, args):
        array, at, step, tile = args
        for row in range(0, signature.args[3].count, 2):
            for i, place in enumerate(_pair_at(builder, signature.args[3].dtype, at), row):
                one = builder.extract_value(tile, i)
                _write(context, builder, signature.args[0], array, place, one)
            at = builder.add(at, step)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, tile), build


@intrinsic
def multiply_add(typingctx, tile, a, rows, step, b, at):
    """tile + a column of A times a row of B: a[rows[r] + step] * (2 vectors of b from `at` on)."""

    def build(context, builder, signature, args):
        tile, a, rows, step, b, at = args
        vector = signature.args[0].dtype
        pair = [
            _read(context, builder, vector, signature.args[4], b, place)
            for place in _pair_at(builder, vector, at)
        ]
        for r in range(signature.args[2].count):
            where = builder.add(builder.extract_value(rows, r), step)
            scalar = builder.load(_address(context, builder, signature.args[1], a, where))
            left = _filled(builder, context.get_value_type(vector), scalar)
            for i, right in enumerate(pair, start=2 * r):
                product = builder.fmul(left, right, flags=("contract",))
                total = builder.fadd(builder.extract_value(tile, i), product, flags=("contract",))
                tile = builder.insert_value(tile, total, i)
        return tile

    return tile(tile, a, rows, types.intp, b, types.intp), build


@intrinsic
def tile_sum(typingctx, tile, other):
    """The sum of two tiles."""

    def build(context, builder, signature, args):
        total, other = args
        for i in range(signature.args[0].count):
            one = builder.extract_value(total, i)
            one = builder.fadd(one, builder.extract_value(other, i))
            total = builder.insert_value(total, one, i)
        return total

    return tile(tile, other), build


@intrinsic
def tile_maximum(typingctx, tile, floor):
    """`maximum` of each vector of a tile and `floor`."""

    def build(context, builder, signature, args):
        tile, floor = args
        for i in range(signature.args[0].count):
            one = builder.extract_value(tile, i)
            one = builder.select(builder.fcmp_ordered("<", one, floor), floor, one)
            tile = builder.insert_value(tile, one, i)
        return tile

    return tile(tile, floor), build


@intrinsic
def prefetch(typingctx, array, index):
    """Ask for the cache line of element `index`, which need not exist, before it is needed."""

    def build(context, builder, signature, args):
        pointer = _address(context, builder, signature.args[0], *args)
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        read, near, data = (number(i) for i in (0, 2, 1))
        builder.call(function, [builder.bitcast(pointer, byte), read, near, data])
        return context.get_dummy_value()

    return types.void(array, types.intp), build


@intrinsic
def larger(typingctx, a, b):
    """Lane by lane, the larger of a and b, and NaN where one of them is."""

    def build(context, builder, signature, args):
        kind = args[0].type
        name = f"llvm.maximum.v{kind.count}f{signature.args[0].scalar.bitwidth}"
        function = ir.FunctionType(kind, [kind, kind])
        return builder.call(cgutils.get_or_insert_function(builder.module, function, name), args)

    return a(a, b), build


# --- Constant matrices ----------------------------------------------------------------------------


def linear(matrix):
    """Compiled code for a constant matrix: f(x, at, step, y, out, out_step) stores the vectors
    y[out + i*out_step] = sum over j of matrix[i, j] * x[at + j*step], summed in y's precision.

    What is zero costs nothing: no multiplication, and for a whole row no store, for a whole column
    no load. Two rows or columns that are equal but for signs share their sums, see `_steps`.
    """
    sums, results = _steps(matrix)

    @intrinsic
    def apply(typingctx, x, at, step, y, out, out_step):
        vector = Vector(y.dtype)

        def build(context, builder, signature, args):
            x, at, step, y, out, out_step = args
            kind = context.get_value_type(vector)

            def place(start, step, i):
                return builder.add(start, builder.mul(step, ir.Constant(step.type, i)))

            values: dict[int, Any] = {}
            for j in map(int, np.flatnonzero(matrix.any(axis=0))):
                values[j] = _read(context, builder, vector, x_type, x, place(at, step, j))
            for number, terms in enumerate(sums, start=matrix.shape[1]):
                values[number] = _weighted_sum(builder, kind, terms, values)
            for i, number in results.items():
                _write(context, builder, y_type, y, place(out, out_step, i), values[number])
            return context.get_dummy_value()

        x_type, y_type = x, y
        return types.void(x, types.intp, types.intp, y, types.intp, types.intp), build

    @inlined
    def linear_map(x, at, step, y, out, out_step):
        apply(x, at, step, y, out, out_step)

    return linear_map


def _weighted_sum(builder, kind, terms, values):
    """The sum of coefficient * value for the terms {number of a value: coefficient}."""
    total = None
    for number, c in sorted(terms.items(), key=lambda term: term[1] != 1):
        value = values[number]
        if abs(c) != 1 or (total is None and c == -1):
            constant = ir.Constant(kind, [ir.Constant(kind.element, c)] * kind.count)
            value, c = builder.fmul(constant, value, flags=("contract",)), 1
        if total is None:
            total = value
        else:
            total = (builder.fadd if c == 1 else builder.fsub)(total, value, flags=("contract",))
    return total


def _steps(matrix):
    """How matrix @ x is computed: sums {number of a value: coefficient}, and {row: its number}.

    Values 0, 1 ... are the elements of x, and a sum has the next number. Of two columns that are
    equal but for signs, the sum and the difference of their elements is made once; of two such
    rows, the sum over the columns in which they agree, and that over the others.
    """
    rows, sums = [{j: c for j, c in enumerate(row) if c} for row in matrix], []

    def add(terms):
        sums.append(terms)
        return matrix.shape[1] + len(sums) - 1

    for a, b in _mirrored(matrix.T):
        total, difference = add({a: 1, b: 1}), add({a: 1, b: -1})
        for row in rows:
            if a in row:
                c = row.pop(a)
                row[total if row.pop(b) == c else difference] = c
    for a, b in [] if sums else _mirrored(matrix):
        alike = {j: c for j, c in rows[a].items() if rows[b][j] == c}
        even, odd = add(alike), add({j: c for j, c in rows[a].items() if j not in alike})
        rows[a], rows[b] = {even: 1, odd: 1}, {even: 1, odd: -1}
    return sums, {i: add(row) for i, row in enumerate(rows) if row}


def _mirrored(rows):
    """Pairs of rows that are equal but for some signs; a row is in one of them at most."""
    pairs, free = [], set(range(len(rows)))
    for a, b in itertools.combinations(range(len(rows)), 2):
        product = rows[a] * rows[b]
        alike = (abs(rows[a]) == abs(rows[b])).all() and product.min() < 0 < product.max()
        if alike and {a, b} <= free:
            pairs.append((a, b))
            free -= {a, b}
    return pairs


# --- Operators, and everything as plain Python ---------------------------------------------------


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

    def load_as(array, index, other):
        return array.reshape(-1)[index : index + lanes(other)].astype(other.dtype)

    def store(array, index, value):
        array.reshape(-1)[index : index + len(value)] = value

    stream = store

    def broadcast(array, index):
        return np.full(lanes(array), array.reshape(-1)[index])

    def maximum(a, b):
        return np.where(a < b, b, a)

    def larger(a, b):
        return np.maximum(a, b)

    def rows_of_tile(rows, first, count):
        return tuple(rows[np.minimum(np.arange(first, first + count), len(rows) - 1)])

    def zero_tile(array, rows):
        return [np.zeros(lanes(array), array.dtype)] * (2 * len(rows))

    def load_tile(array, at, step, rows):
        vector = lanes(array)
        return [load(array, at + r * step + v) for r in range(len(rows)) for v in (0, vector)]

    def store_tile(array, at, step, tile):
        for i, one in enumerate(tile):
            store(array, at + i // 2 * step + i % 2 * len(one), one)

    def multiply_add(tile, a, rows, step, b, at):
        pair = load(b, at), load(b, at + lanes(b))
        return [one + a[rows[i // 2] + step] * pair[i % 2] for i, one in enumerate(tile)]

    def tile_sum(tile, other):
        return [a + b for a, b in zip(tile, other, strict=True)]

    def tile_maximum(tile, floor):
        return [maximum(one, floor) for one in tile]

    def prefetch(array, index):
        pass

    def linear(matrix):
        def apply(x, at, step, y, out, out_step):
            rows = [[(j, y.dtype.type(c)) for j, c in enumerate(row) if c] for row in matrix]
            done = [sum(c * load_as(x, at + j * step, y) for j, c in row) for row in rows]
            for i, row in enumerate(rows):
                if row:
                    store(y, out + i * out_step, done[i])

        return apply

else:
    _lane_by_lane(operator.add, "fadd")
    _lane_by_lane(operator.sub, "fsub")
    _lane_by_lane(operator.mul, "fmul")
