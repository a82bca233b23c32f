"""Vectors inside compiled loops: eight float32 or four float64 at once, sixteen with AVX-512.

A processor multiplies and adds eight float32 in one instruction. Numba lets LLVM find such
instructions in plain loops, which works for y[i] = a * x[i] + b and fails for a loop that must
keep a whole tile of a matrix in registers. This file gives compiled code a type for one register,
so that a kernel can say what it means: `load` and `store` move a vector between an array and a
register, `broadcast` fills one with copies of a single element, and + - * act on all lanes (a
plain number stands for a vector full of it).

Arrays are C-contiguous and addressed flat, whatever their shape, and an index is not checked.
LLVM may turn a * b + c into one instruction that rounds once (the flag 'contract' below). Each
instruction says beside its LLVM code what it does to NumPy arrays: with NUMBA_DISABLE_JIT=1 a
vector is a short array, and every kernel can be stepped through.
"""

import functools
import itertools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import binding, ir
from numba import extending, types
from numba.core import cgutils
from numba.extending import models, overload, register_model

from minitl.kernels.machine.compiling import part

intrinsic: Any = extending.intrinsic

# Inlined, and without counting who holds an array: Numba counts by calls, and before a call all
# vectors must leave their registers. 3x3 windows of 3 channels, to 64 filters, took twice as long.
inlined = part(forceinline=True, _nrt=False)

# AVX2 has 32-byte registers, and so many are also a good fit for the 32 half as wide ones of ARM.
VECTOR_BYTES = 64 if binding.get_host_cpu_features().get("avx512f") else 32
PLAIN: bool = numba.config.DISABLE_JIT  # type: ignore[attr-defined]
MAY_FUSE = ("contract",)
ROUNDER = 3.0 * 2**22  # x + ROUNDER - ROUNDER, in float32, is x rounded to a whole number


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


class Value(NamedTuple):
    """An argument of an instruction: its Numba type, and LLVM's value."""

    type: Any
    value: Any


class Code(NamedTuple):
    """Where LLVM code is being written, and the lines of it that several instructions need."""

    context: Any
    builder: Any

    def kind(self, type: Any) -> Any:
        """LLVM's type for one of Numba's."""
        return self.context.get_value_type(type)

    def address(self, array: Value, index: Any) -> Any:
        """Pointer to element `index` of a C-contiguous array."""
        assert array.type.layout == "C", "vectors are loaded from contiguous arrays only"
        data = self.context.make_array(array.type)(self.context, self.builder, array.value).data
        return self.builder.gep(data, [index])

    def vector_address(self, array: Value, index: Any, lanes: int) -> Any:
        stored = ir.VectorType(self.kind(array.type.dtype), lanes)
        return self.builder.bitcast(self.address(array, index), stored.as_pointer()), stored

    def read(self, vector: Vector, array: Value, index: Any) -> Any:
        """The vector of elements of an array from `index` on, in the vector's precision."""
        pointer, _ = self.vector_address(array, index, vector.lanes)
        value = self.builder.load(pointer, align=array.type.dtype.bitwidth // 8)
        return self.converted(value, self.kind(vector))

    def write(self, array: Value, index: Any, value: Any, aligned: bool = False) -> Any:
        """Store a vector in an array's precision; `aligned`: at a multiple of what it takes."""
        pointer, stored = self.vector_address(array, index, value.type.count)
        size = array.type.dtype.bitwidth // 8 * (stored.count if aligned else 1)
        return self.builder.store(self.converted(value, stored), pointer, align=size)

    def converted(self, value: Any, kind: Any) -> Any:
        """A vector in the precision of another kind of vector."""
        if value.type == kind:
            return value
        wider = isinstance(kind.element, ir.DoubleType)
        return self.builder.fpext(value, kind) if wider else self.builder.fptrunc(value, kind)

    def filled(self, kind: Any, scalar: Any) -> Any:
        """A vector whose lanes all hold `scalar`."""
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.IntType(32)(0))
        lane_0_for_all = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), None)
        return self.builder.shuffle_vector(first, undefined, lane_0_for_all)

    def parts(self, values: Value) -> list[Any]:
        """The elements of a tuple."""
        return [self.builder.extract_value(values.value, i) for i in range(values.type.count)]

    def joined(self, type: Any, parts: list[Any]) -> Any:
        """The tuple of these elements."""
        values = ir.Constant(self.kind(type), ir.Undefined)
        for i, one in enumerate(parts):
            values = self.builder.insert_value(values, one, i)
        return values

    def larger(self, a: Any, b: Any) -> Any:
        """b where a < b, else a."""
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), b, a)

    def held(self, a: Any, low: Any, high: Any) -> Any:
        """low where a < low, high where high < a, else a."""
        a = self.larger(a, low)
        return self.builder.select(self.builder.fcmp_ordered("<", high, a), high, a)


def instruction(result: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: what compiled code may call, from the function that writes LLVM code for it.
    result(*types) is the Numba type of what it returns, types.void for nothing; integers among its
    arguments become indices. `plain` takes its place where nothing is compiled."""

    def decorate(write: Callable[..., Any]) -> Any:
        @functools.wraps(write)
        def definition(typingctx: Any, *kinds: Any) -> Any:
            def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
                values = map(Value, signature.args, args)
                written = write(Code(context, builder), *values)
                empty = signature.return_type == types.void
                return context.get_dummy_value() if empty else written

            known = [types.intp if isinstance(kind, types.Integer) else kind for kind in kinds]
            return result(*kinds)(*known), build

        return plain if PLAIN else intrinsic(definition)

    return decorate


def _vector_of(array: Any, *others: Any) -> Vector:
    return Vector(array.dtype)


def _nothing(*kinds: Any) -> Any:
    return types.void


@instruction(lambda array: types.intp, lambda array: VECTOR_BYTES // array.itemsize)
def lanes(code, array):
    """How many elements of the array's dtype one vector holds (a constant to the compiler)."""
    return code.context.get_constant(types.intp, Vector(array.type.dtype).lanes)


@instruction(_vector_of, lambda array, i: array.reshape(-1)[i : i + lanes(array)].copy())
def load(code, array, index):
    """The vector at array.ravel()[index : index + lanes]."""
    return code.read(Vector(array.type.dtype), array, index.value)


@instruction(
    lambda array, index, other: Vector(other.dtype),
    lambda array, i, other: array.reshape(-1)[i : i + lanes(other)].astype(other.dtype),
)
def load_as(code, array, index, other):
    """`load`, as a vector of the precision, and so with the lanes, of another array."""
    return code.read(Vector(other.type.dtype), array, index.value)


def _plain_store(array, index, value):
    array.reshape(-1)[index : index + len(value)] = value


@instruction(_nothing, _plain_store)
def store(code, array, index, value):
    """array.ravel()[index : index + lanes] = value, rounded to the array's precision."""
    code.write(array, index.value, value.value)


@instruction(_nothing, _plain_store)
def stream(code, array, index, value):
    """`store`, past the caches to memory, at an address that is a multiple of what it takes. Other
    threads see it for certain after a lock was taken or given back, as `share_out` does."""
    written = code.write(array, index.value, value.value, aligned=True)
    written.set_metadata("nontemporal", code.builder.module.add_metadata([ir.IntType(32)(1)]))


@instruction(_vector_of, lambda array, i: np.full(lanes(array), array.reshape(-1)[i]))
def broadcast(code, array, index):
    """A vector whose lanes all hold array.ravel()[index]."""
    scalar = code.builder.load(code.address(array, index.value))
    return code.filled(code.kind(Vector(array.type.dtype)), scalar)


@instruction(lambda a, b: a, lambda a, b: np.where(a < b, b, a))
def maximum(code, a, b):
    """Lane by lane, b where a < b, else a; so a NaN in a stays."""
    return code.larger(a.value, b.value)


@instruction(
    lambda a, low, high: a, lambda a, low, high: np.where(high < a, high, np.where(a < low, low, a))
)
def within(code, a, low, high):
    """Lane by lane, low where a < low, high where high < a, else a; so a NaN in a stays."""
    return code.held(a.value, low.value, high.value)


@instruction(lambda a, b: a, np.maximum)
def larger(code, a, b):
    """Lane by lane, the larger of a and b, and NaN where one of them is."""
    kind = a.value.type
    name = f"llvm.maximum.v{kind.count}f{a.type.scalar.bitwidth}"
    function = ir.FunctionType(kind, [kind, kind])
    function = cgutils.get_or_insert_function(code.builder.module, function, name)
    return code.builder.call(function, [a.value, b.value])


@instruction(_nothing, lambda array, index: None)
def prefetch(code, array, index):
    """Ask for the cache line of element `index`, which need not exist, before it is needed."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    function = code.builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
    pointer = code.builder.bitcast(code.address(array, index.value), byte)
    code.builder.call(function, [pointer, number(0), number(2), number(1)])  # read; near; data


def _lane_by_lane(operation, name):
    """Teach Numba `operation` for vectors; one operand may be a number."""

    @instruction(lambda a, b: a if isinstance(a, Vector) else b, operation)
    def apply(code, a, b):
        vector, operands = a.type if isinstance(a.type, Vector) else b.type, []
        for kind, value in (a, b):
            if not isinstance(kind, Vector):
                value = code.context.cast(code.builder, value, kind, vector.scalar)
                value = code.filled(code.kind(vector), value)
            operands.append(value)
        return getattr(code.builder, name)(*operands, flags=MAY_FUSE)

    @overload(operation, inline="always")
    def choose(a, b):
        if Vector in (type(a), type(b)) and isinstance(a, Vector | types.Number):
            return lambda a, b: apply(a, b)
        return None


if not PLAIN:
    _lane_by_lane(operator.add, "fadd")
    _lane_by_lane(operator.sub, "fsub")
    _lane_by_lane(operator.mul, "fmul")
    _lane_by_lane(operator.truediv, "fdiv")


@instruction(lambda n: n, lambda n: np.exp2(n - n.dtype.type(ROUNDER)))
def power_of_two(code, n):
    """2 to the power of each lane's whole number -126 ... 128 (infinity), in float32, to which
    ROUNDER was added: so it stands in the last bits, and is moved to where the exponent is."""
    whole = ir.VectorType(ir.IntType(32), n.value.type.count)
    bits = code.builder.shl(
        code.builder.bitcast(n.value, whole), ir.Constant(whole, [23] * whole.count)
    )
    bits = code.builder.add(bits, ir.Constant(whole, [127 << 23] * whole.count))
    return code.builder.bitcast(bits, n.value.type)


# A tile is what a matrix product keeps in registers: some rows by 2 vectors, a tuple of vectors row
# after row. So many rows of accumulators, the 2 vectors of B and a broadcast element of A fit into
# the 16 registers of AVX2, or the 32 of AVX-512.
TILE_ROWS = 12 if VECTOR_BYTES == 64 else 6
SHORT_ROWS = TILE_ROWS // 3  # of the tiles for what is left over


def _tile_of(array: Any, rows: Any) -> Any:
    return types.UniTuple(Vector(array.dtype), 2 * rows.count)


def _pair(code: Code, vector: Vector, at: Any) -> list[Any]:
    """Where the 2 vectors that begin at element `at` of an array lie."""
    return [code.builder.add(at, ir.Constant(at.type, lane)) for lane in (0, vector.lanes)]


def _rows_of_tile(count: int) -> Callable[..., Any]:
    """f(rows, first): the tuple of `count` elements rows[first], rows[first + 1] ..., the last one
    repeated where `rows` ends."""
    result = types.UniTuple(types.intp, count)

    def plain(rows, first):
        return tuple(rows[np.minimum(np.arange(first, first + count), len(rows) - 1)])

    @instruction(lambda rows, first: result, plain)
    def rows_of_tile(code, rows, first):
        builder, first = code.builder, first.value
        array, places = code.context.make_array(rows.type)(code.context, builder, rows.value), []
        last = builder.sub(builder.extract_value(array.shape, 0), ir.Constant(first.type, 1))
        for r in range(count):
            at = builder.add(first, ir.Constant(first.type, r))
            at = builder.select(builder.icmp_signed("<", at, last), at, last)
            places.append(builder.load(builder.gep(array.data, [at])))
        return code.joined(result, places)

    return rows_of_tile


full_tile = _rows_of_tile(TILE_ROWS)
short_tile = _rows_of_tile(SHORT_ROWS)


@instruction(_tile_of, lambda a, rows: [np.zeros(lanes(a), a.dtype)] * (2 * len(rows)))
def zero_tile(code, array, rows):
    """A tile of zeros, of the array's dtype; as many rows as `rows`."""
    return ir.Constant(code.kind(_tile_of(array.type, rows.type)), None)


def _plain_load_tile(array, at, step, rows):
    pair = (0, lanes(array))
    return [load(array, at + r * step + vector) for r in range(len(rows)) for vector in pair]


@instruction(
    lambda a, rows: types.UniTuple(Vector(a.dtype), rows.count),
    lambda a, rows: [np.zeros(lanes(a), a.dtype)] * len(rows),
)
def zero_column(code, array, rows):
    """`zero_tile` of one vector in each row."""
    return ir.Constant(code.kind(types.UniTuple(Vector(array.type.dtype), rows.type.count)), None)


@instruction(lambda array, at, step, rows: _tile_of(array, rows), _plain_load_tile)
def load_tile(code, array, at, step, rows):
    """The tile whose rows begin at elements at, at + step, ... of the array; as many as `rows`."""
    result, start, parts = _tile_of(array.type, rows.type), at.value, []
    for _ in range(rows.type.count):
        places = _pair(code, result.dtype, start)
        parts += [code.read(result.dtype, array, place) for place in places]
        start = code.builder.add(start, step.value)
    return code.joined(result, parts)


def _plain_store_tile(array, at, step, tile):
    for i, one in enumerate(tile):
        store(array, at + i // 2 * step + i % 2 * len(one), one)


@instruction(_nothing, _plain_store_tile)
def store_tile(code, array, at, step, tile):
    """The opposite of `load_tile`."""
    parts, start = code.parts(tile), at.value
    for pair in zip(parts[::2], parts[1::2], strict=True):
        for place, one in zip(_pair(code, tile.type.dtype, start), pair, strict=True):
            code.write(array, place, one)
        start = code.builder.add(start, step.value)


def _plain_multiply_add(tile, a, rows, step, b, at):
    count = len(tile) // len(rows)
    line = [load(b, at + i * lanes(b)) for i in range(count)]
    return [one + a[rows[i // count] + step] * line[i % count] for i, one in enumerate(tile)]


@instruction(lambda tile, *others: tile, _plain_multiply_add)
def multiply_add(code, tile, a, rows, step, b, at):
    """tile + a column of A times a row of B: a[rows[r] + step] * (its vectors of b, from `at`)."""
    builder, vector, parts = code.builder, tile.type.dtype, code.parts(tile)
    count = tile.type.count // rows.type.count
    line = [code.read(vector, b, place) for place in _pair(code, vector, at.value)[:count]]
    for r, row in enumerate(code.parts(rows)):
        scalar = builder.load(code.address(a, builder.add(row, step.value)))
        left = code.filled(code.kind(vector), scalar)
        for i, right in enumerate(line, start=count * r):
            product = builder.fmul(left, right, flags=MAY_FUSE)
            parts[i] = builder.fadd(parts[i], product, flags=MAY_FUSE)
    return code.joined(tile.type, parts)


def _plain_add_to(array, at, step, tile, rows):
    count = len(tile) // len(rows)
    for i, one in enumerate(tile):
        place = at + i // count * step + i % count * len(one)
        store(array, place, load(array, place) + one)


@instruction(_nothing, _plain_add_to)
def add_to(code, array, at, step, tile, rows):
    """Add a tile to the one whose rows begin at elements at, at + step, ... of the array."""
    vector, start, parts = tile.type.dtype, at.value, code.parts(tile)
    count = tile.type.count // rows.type.count
    for r in range(rows.type.count):
        for i, place in enumerate(_pair(code, vector, start)[:count], start=count * r):
            total = code.builder.fadd(code.read(vector, array, place), parts[i])
            code.write(array, place, total)
        start = code.builder.add(start, step.value)


@instruction(lambda step: types.intp, lambda step: 1 if step is None else step)
def distance(code, step):
    """`step`, or 1 for None: then the compiler knows it, and four steps share one pointer a row."""
    return ir.Constant(code.kind(types.intp), 1) if step.type == types.none else step.value


@instruction(
    lambda tile, other: tile, lambda tile, other: [a + b for a, b in zip(tile, other, strict=True)]
)
def tile_sum(code, tile, other):
    """The sum of two tiles."""
    pairs = zip(code.parts(tile), code.parts(other), strict=True)
    return code.joined(tile.type, [code.builder.fadd(a, b) for a, b in pairs])


@instruction(
    lambda tile, low, high: tile, lambda tile, low, high: [within(one, low, high) for one in tile]
)
def tile_within(code, tile, low, high):
    """`within` of each vector of a tile."""
    parts = code.parts(tile)
    return code.joined(tile.type, [code.held(one, low.value, high.value) for one in parts])


def linear(matrices):
    """Compiled code for constant matrices, by a key: f(key, x, at, step, y, out, out_step) stores
    the vectors y[out + i*out_step] = sum over j of matrices[key][i, j] * x[at + j*step], summed in
    y's precision. A key that is not there means the last.

    What is zero costs nothing: no multiplication, and for a whole row no store, for a whole column
    no load. Two rows or columns that are equal but for signs share their sums, see `steps`.
    """
    *keys, _ = matrices
    plans = [(matrix, *steps(matrix)) for matrix in matrices.values()]

    def plain(key, x, at, step, y, out, out_step):
        matrix = matrices[key if key in keys else [*matrices][-1]]
        rows = [[(j, y.dtype.type(c)) for j, c in enumerate(row) if c] for row in matrix]
        done = [sum(c * load_as(x, at + j * step, y) for j, c in row) for row in rows]
        for i, row in enumerate(rows):
            if row:
                store(y, out + i * out_step, done[i])

    @instruction(_nothing, plain)
    def apply(code, key, x, at, step, y, out, out_step):
        def choose(number):
            if number == len(keys):
                write(*plans[number])
                return
            wanted = ir.Constant(key.value.type, keys[number])
            is_it = code.builder.icmp_signed("==", key.value, wanted)
            with code.builder.if_else(is_it) as (here, elsewhere):
                with here:
                    write(*plans[number])
                with elsewhere:
                    choose(number + 1)

        def write(matrix, sums, results):
            vector, values = Vector(y.type.dtype), {}
            for j in map(int, np.flatnonzero(matrix.any(axis=0))):
                values[j] = code.read(vector, x, place(at, step, j))
            for number, terms in enumerate(sums, start=matrix.shape[1]):
                values[number] = _weighted_sum(code.builder, code.kind(vector), terms, values)
            for i, number in results.items():
                code.write(y, place(out, out_step, i), values[number])

        def place(start, step, i):
            offset = code.builder.mul(step.value, ir.Constant(step.value.type, i))
            return code.builder.add(start.value, offset)

        choose(0)

    return apply


def _weighted_sum(builder, kind, terms, values):
    """The sum of coefficient * value for the terms {number of a value: coefficient}."""
    total = None
    for number, c in sorted(terms.items(), key=lambda term: term[1] != 1):
        value = values[number]
        if abs(c) != 1 or (total is None and c == -1):
            constant = ir.Constant(kind, [ir.Constant(kind.element, c)] * kind.count)
            value, c = builder.fmul(constant, value, flags=MAY_FUSE), 1
        if total is None:
            total = value
        else:
            total = (builder.fadd if c == 1 else builder.fsub)(total, value, flags=MAY_FUSE)
    return total


def steps(matrix):
    """How matrix @ x is computed: a list of sums, and {row: number of the value that it gets}.

    Values 0, 1 ... are the elements of x, and each sum makes the next: it is {number of a value:
    coefficient}. Where two columns are equal but for signs, x[a] + x[b] and x[a] - x[b] are made
    once, for all rows. If there are none, of two rows that are equal but for signs the sum of what
    they agree in and that of the rest are made once: one row is their sum, one their difference.

    >>> sums, results = steps(np.array([[2, 2], [3, -3]]))
    >>> [{number: int(c) for number, c in terms.items()} for terms in sums], results
    ([{0: 1, 1: 1}, {0: 1, 1: -1}, {2: 2}, {3: 3}], {0: 4, 1: 5})
    """
    rows, sums = [{j: c for j, c in enumerate(row) if c} for row in matrix], []

    def number_of(terms):
        sums.append(terms)
        return matrix.shape[1] + len(sums) - 1

    for a, b in _mirrored(matrix.T):
        total, difference = number_of({a: 1, b: 1}), number_of({a: 1, b: -1})
        for row in rows:
            if a in row:
                c = row.pop(a)
                row[total if row.pop(b) == c else difference] = c
    if not sums:
        for a, b in _mirrored(matrix):
            agreed = number_of({j: c for j, c in rows[a].items() if rows[b][j] == c})
            others = number_of({j: c for j, c in rows[a].items() if rows[b][j] != c})
            rows[a], rows[b] = {agreed: 1, others: 1}, {agreed: 1, others: -1}
    return sums, {i: number_of(row) for i, row in enumerate(rows) if row}


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
