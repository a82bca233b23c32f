"""The matrix product, from the registers up: what convolutions and dense layers run on.

A core can start two fused multiply-adds per cycle, of eight float32 each (sixteen with AVX-512),
but load only two or three vectors. So each number, once loaded, is used several times: `tile`
computes 6 rows by 2 vectors of C = A @ B at once and keeps all of it in registers:

    12 accumulators + 2 vectors of B + 1 broadcast element of A = 15 of the 16 vector registers

and one step along the depth costs 8 loads for 12 multiply-adds. AVX-512 has 32 registers, for
tiles of 12 rows. B is packed beforehand into panels, 2 vectors wide, in which the tile reads
straight on; A is read where it lies. `multiply` holds a panel of B in the cache and lets all rows
pass, and meanwhile has the next panel sent from memory. Goto & van de Geijn 2008, 'Anatomy of
High-Performance Matrix Multiplication', is the source of the plan.

Rounding errors of one sum of K products mount up with sqrt(K); so a sum is made of partial sums of
64, whose errors mount up with sqrt(64 + K/64): half for Winograd's convolution (Castaldo, Whaley &
Chronopoulos 2008, 'Reducing Floating Point Error in Dot Product Using the Superblock Family of
Algorithms').
"""

from typing import NamedTuple

import numpy as np

from minitl.kernels.geometry import Array
from minitl.kernels.machine import simd
from minitl.kernels.machine.compiling import inner

ROWS = simd.TILE_ROWS  # of a tile
PARTIAL = 64  # products in a partial sum
BOUNDS = {None: (-np.inf, np.inf), "relu": (0, np.inf), "relu6": (0, 6)}  # of y
SHALLOW = 48  # depth of products that wait for C most


class Rows(NamedTuple):
    """A, where it lies: number i of run k of row r is values[starts[r] + k*run_step + i*step].

    A matrix row by row has starts 0, K, 2K ..., step None, which is 1, and one run; a transposed
    one starts 0, 1, 2 ... and its row length as step; a convolution's windows have a run for each
    of their rows. (A step that the compiler knows makes `tile` 1.3 times as fast with AVX-512: the
    places of 12 rows just fit into the registers, those of the three steps ahead do not.)
    """

    values: Array
    starts: Array
    step: int | None
    runs: int
    run_step: int


class Panel(NamedTuple):
    """2 vectors of columns of B, packed, and what is to be sent for while they are used."""

    at: int  # the element of B's panels where it begins
    depth: int  # products in a run
    left: int  # its first column in C
    soon: Array  # what will be wanted next,
    ahead: int  # from this element on:
    pace: int  # so many at each step are sent for; 0 for none


class Product(NamedTuple):
    """C, flat, its row length, memory for a tile, and how many products a partial sum has."""

    values: Array
    columns: int
    kept: Array
    partial: int


def panel_width(dtype: np.dtype) -> int:
    """Columns of a tile and of a panel: 2 vectors, that is 16 float32 or 8 float64."""
    return 2 * simd.VECTOR_BYTES // dtype.itemsize


def round_up(size: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `size`."""
    return -(-size // step) * step


def pack(b: Array) -> Array:
    """B (K, F) in panels (ceil(F / width), K, width), zeros after the last column."""
    width, (depth, columns) = panel_width(b.dtype), b.shape
    panels = np.zeros((depth, round_up(columns, width)), b.dtype)
    panels[:, :columns] = b
    return np.ascontiguousarray(panels.reshape(depth, -1, width).swapaxes(0, 1))


def packed(b: Array, dtype: np.dtype, cache: dict | None) -> Array:
    """`pack` of B in this precision, kept in the cache of the kernel that it comes from."""
    key = ("panels", dtype)
    if cache is None:
        return pack(b.astype(dtype, copy=False))
    if key not in cache:
        cache[key] = pack(b.astype(dtype, copy=False))
    return cache[key]


def bounds_of(activation: str | None, dtype: np.dtype) -> Array:
    """The `bounds` of a product that is this activation, None, 'relu' or 'relu6'."""
    return np.array(BOUNDS.get(activation, BOUNDS[None]), dtype)


def shift_of(bias: Array | None, columns: int, dtype: np.dtype) -> Array:
    """What is `added` to a product of so many columns, with zeros up to full panels."""
    shift = np.zeros(round_up(columns, panel_width(dtype)), dtype)
    shift[:columns] = 0 if bias is None else bias
    return shift


@simd.inlined
def tile(a, places, first, depth, b, at, soon, ahead, pace):
    """A @ panel for the rows of one tile, which begin at `places`, from number `first` of their
    runs on; `at`, `soon`, `ahead` and `pace` as in `Panel`."""
    vector, step, sums = simd.lanes(b), simd.distance(a.step), simd.zero_tile(b, places)
    for run in range(a.runs):
        i = first + run * a.run_step
        for _ in range(depth // 4):  # four steps at a time: up to 6 per cent faster than one
            sums = simd.multiply_add(sums, a.values, places, i, b, at)
            sums = simd.multiply_add(sums, a.values, places, i + step, b, at + 2 * vector)
            sums = simd.multiply_add(sums, a.values, places, i + 2 * step, b, at + 4 * vector)
            sums = simd.multiply_add(sums, a.values, places, i + 3 * step, b, at + 6 * vector)
            if pace > 0:
                simd.prefetch(soon, ahead)
                simd.prefetch(soon, ahead + pace)
                simd.prefetch(soon, ahead + 2 * pace)
                simd.prefetch(soon, ahead + 3 * pace)
                ahead += 4 * pace
            i += 4 * step
            at += 8 * vector
        for _ in range(depth % 4):
            sums = simd.multiply_add(sums, a.values, places, i, b, at)
            i += step
            at += 2 * vector
    return sums


@simd.inlined
def rows_by_panel(a, r, places, b, panel, added, added_step, residual, bounds, out):
    """One tile of C, from row r on; `places` are its rows in A. `residual` is an array like C that
    is added too, or has no element, or None; the others as in `multiply`."""
    count, width, left = len(places), 2 * simd.lanes(b), panel.left
    c, columns = out.values, out.columns
    # The lines of C are sent for one tile ahead where they are waited for most: by shallow products
    # and sums that go on, to which C is added (Winograd's gradients of kernels: 10 per cent), and
    # by 1x1 convolutions, whose maps are large (64 -> 256 channels, with `residual`'s: a third).
    if residual is not None or a.runs * panel.depth <= SHALLOW or added_step > 0:
        for i in range(count):
            soon = (r + ROWS + i) * columns + left
            simd.prefetch(c, soon)
            simd.prefetch(c, soon + simd.lanes(b))
    # Rows of several runs have one sum.
    sums, longest = simd.zero_tile(b, places), out.partial if a.runs == 1 else max(1, panel.depth)
    for done in range(0, panel.depth, longest):
        part, at = min(longest, panel.depth - done), panel.at + done * width
        first, ahead = done * simd.distance(a.step), panel.ahead + done * panel.pace
        sums = tile(a, places, first, part, b, at, panel.soon, ahead, panel.pace)
        if done > 0:
            sums = simd.tile_sum(simd.load_tile(out.kept, 0, width, places), sums)
        if done + part < panel.depth:
            simd.store_tile(out.kept, 0, width, sums)
    if added is not None:
        sums = simd.tile_sum(simd.load_tile(added, r * added_step + left, added_step, places), sums)
    whole = left + width <= columns and r + count <= len(a.starts)
    if residual is not None:
        if len(residual) > 0 and whole:
            at = r * columns + left
            sums = simd.tile_sum(simd.load_tile(residual, at, columns, places), sums)
            for i in range(count):
                simd.prefetch(residual, at + (ROWS + i) * columns)
                simd.prefetch(residual, at + (ROWS + i) * columns + simd.lanes(b))
        elif len(residual) > 0:
            for i in range(min(count, len(a.starts) - r)):
                for j in range(min(width, columns - left)):
                    out.kept[i * width + j] = residual[(r + i) * columns + left + j]
            sums = simd.tile_sum(simd.load_tile(out.kept, 0, width, places), sums)
    if bounds is not None:
        sums = simd.tile_within(sums, simd.broadcast(bounds, 0), simd.broadcast(bounds, 1))
    if whole:
        simd.store_tile(c, r * columns + left, columns, sums)
    else:
        simd.store_tile(out.kept, 0, width, sums)
        for i in range(min(count, len(a.starts) - r)):
            for j in range(min(width, columns - left)):
                c[(r + i) * columns + left + j] = out.kept[i * width + j]


@inner
def multiply(a, panels, following, added, added_step, bounds, c, columns):
    """C = A @ B + added, held within bounds, on one core.

    A is `Rows`. B comes packed: panels (count, runs * depth, width); the panel that will be wanted
    after the last one is `following` elements from the first. C is flat, rows of `columns`
    elements; so is `added`, with rows added_step apart (0: the same for all, such as a bias), and
    readable up to full tiles; `bounds` is of two elements, see `bounds_of`. Either may be None.
    The bits of C do not depend on how a product is cut: partial sums begin at the same products.
    """
    count, depth, width = panels.shape
    b, run, rows = panels.reshape(-1), depth // a.runs, a.starts
    out = Product(c, columns, np.empty(ROWS * width, b.dtype), PARTIAL)
    tiles = len(rows) // ROWS + -(-(len(rows) % ROWS) // simd.SHORT_ROWS)
    evenly = min(simd.lanes(b), -(-width // max(1, tiles)))
    for p in range(count):
        # While the rows pass, the next panel comes from memory, a little with each: all of it
        # at once is more than may be on its way (batch 1 of VGG16: 3 per cent slower).
        last, at = p + 1 == count, p * depth * width
        pace = 0 if last and following == 0 else evenly
        ahead, r = following if last else at + depth * width, 0
        while r + ROWS <= len(rows):
            places = simd.full_tile(rows, r)
            panel = Panel(at, run, p * width, b, ahead, pace)
            rows_by_panel(a, r, places, b, panel, added, added_step, None, bounds, out)
            ahead += depth * pace
            r += ROWS
        for rest in range(r, len(rows), simd.SHORT_ROWS):
            places = simd.short_tile(rows, rest)
            panel = Panel(at, run, p * width, b, ahead, pace)
            rows_by_panel(a, rest, places, b, panel, added, added_step, None, bounds, out)
            ahead += depth * pace
