"""The matrix product, from the registers up: what Winograd's and direct convolution run on.

A core can start two fused multiply-adds a cycle, of eight float32 each (sixteen with AVX-512),
but load only two or three vectors. A product is fast when each number, once loaded, is used
several times. So `tile` computes 6 rows by 2 vectors of C = A @ B at once and keeps all of it in
registers:

    12 accumulators + 2 vectors of B + 1 broadcast element of A = 15 of the 16 vector registers

and one step along the depth costs 8 loads for 12 multiply-adds. AVX-512 has 32 registers, for
tiles of 12 rows. B is packed beforehand into panels, 2 vectors wide, in which the tile reads
straight on; A is read where it lies, because the rows of a tile are streams that no packing would
make faster. Which tiles follow each other decides what stays in which cache: `multiply` holds a
panel of B and lets all rows pass, and meanwhile has the next panel sent from memory.

Each addition rounds by up to half a unit in the last place of the sum so far. In one sum of K
products that mounts up with sqrt(K); so a sum is made of partial sums of 64 products, whose errors
mount up with sqrt(64 + K/64). (Rows that are made of several runs have one sum.) It costs 2 per
cent of the time, up to 6 where another thread shares the core, and halves the error of Winograd's
convolution. Castaldo, Whaley & Chronopoulos 2008, 'Reducing Floating Point Error in Dot Product
Using the Superblock Family of Algorithms', is about such sums.

One core, float32, GFLOP/s of this and of single-threaded OpenBLAS 0.3.31 for (126, K) @ (K, F),
AVX2: K, F = 64, 64: 71, 53; 128, 128: 78, 67; 256, 256: 78, 71; 512, 512: 83, 75, in one sum each.
AVX-512, of this alone: 158, 165, 169, 169; in one sum each 161, 170, 173, 173. Goto & van de Geijn
2008, 'Anatomy of High-Performance Matrix Multiplication', is the source of the plan.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from minitl.kernels.geometry import Array
from minitl.kernels.machine.simd import (
    SHORT_ROWS,
    TILE_ROWS,
    VECTOR_BYTES,
    broadcast,
    inlined,
    lanes,
    load_tile,
    multiply_add,
    prefetch,
    rows_of_tile,
    store_tile,
    tile_maximum,
    tile_sum,
    zero_tile,
)
from minitl.kernels.machine.threads import cut, share_out

ROWS = TILE_ROWS  # of a tile
PARTIAL = 64  # products in a partial sum
SHALLOW = 48  # depth of products that wait for C most
MATMUL_ROWS = 96  # of A and C in one part of `matmul`


def panel_width(dtype: np.dtype) -> int:
    """Columns of a tile and of a panel: 2 vectors, that is 16 float32 or 8 float64."""
    return 2 * VECTOR_BYTES // dtype.itemsize


def round_up(size: int, step: int) -> int:
    """The smallest multiple of `step` that is not below `size`."""
    return -(-size // step) * step


def pack(b: Array) -> Array:
    """B (..., K, F) in panels (..., ceil(F / width), K, width), zeros after the last column."""
    width = panel_width(b.dtype)
    *leading, depth, columns = b.shape
    panels = np.zeros((*leading, depth, round_up(columns, width)), b.dtype)
    panels[..., :columns] = b
    panels = panels.reshape(*leading, depth, -1, width)
    return np.ascontiguousarray(np.moveaxis(panels, -2, -3))


@inlined
def tile(a, rows, first, a_step, runs, run_step, depth, b, at, ahead, pace):
    """A @ panel for the rows of one tile.

    Row r of A is made of `runs` runs of `depth` elements: a[rows[r] + first + run*run_step +
    i*a_step]. The panel begins at element `at` of b and has runs * depth rows of 2 vectors.
    Meanwhile the numbers from element `ahead` of b on, which will be needed next, are sent for,
    `pace` of them a step; not if it is 0.
    """
    vector, sums = lanes(a), zero_tile(a, rows)
    for run in range(runs):
        i = first + run * run_step
        for _ in range(depth // 4):  # four steps at a time: up to 6 per cent faster than one
            sums = multiply_add(sums, a, rows, i, b, at)
            sums = multiply_add(sums, a, rows, i + a_step, b, at + 2 * vector)
            sums = multiply_add(sums, a, rows, i + 2 * a_step, b, at + 4 * vector)
            sums = multiply_add(sums, a, rows, i + 3 * a_step, b, at + 6 * vector)
            if pace > 0:
                prefetch(b, ahead)
                prefetch(b, ahead + pace)
                prefetch(b, ahead + 2 * pace)
                prefetch(b, ahead + 3 * pace)
                ahead += 4 * pace
            i += 4 * a_step
            at += 8 * vector
        for _ in range(depth % 4):
            sums = multiply_add(sums, a, rows, i, b, at)
            i += a_step
            at += 2 * vector
    return sums


@inlined
def rows_by_panel(
    a, rows, r, places, a_step, runs, run_step, depth, b, at, left, added, added_step, floor,
    ahead, pace, c, columns, kept,
):  # fmt: skip
    """One tile of C, from row r and column `left` on; `places` are its rows. See `multiply`.

    `kept` is memory for a tile.
    """
    count, width = len(places), 2 * lanes(a)
    # The lines of C are sent for one tile ahead where they are waited for most: by shallow products
    # and by sums that go on, to which C is added (AVX-512, two cores, Winograd's gradients of
    # kernels, 256 -> 256 at 56x56 and 512 -> 512 at 28x28: 8 and 12 per cent less).
    if runs * depth <= SHALLOW or added_step > 0:
        for i in range(count):
            prefetch(c, (r + ROWS + i) * columns + left)
            prefetch(c, (r + ROWS + i) * columns + left + lanes(a))
    sums, longest = zero_tile(a, places), PARTIAL if runs == 1 else max(1, depth)
    for done in range(0, depth, longest):
        part = min(longest, depth - done)
        sums = tile(
            a, places, done * a_step, a_step, runs, run_step, part, b, at + done * width,
            ahead + done * pace, pace,
        )  # fmt: skip
        if done > 0:
            sums = tile_sum(load_tile(kept, 0, width, places), sums)
        if done + part < depth:
            store_tile(kept, 0, width, sums)
    if added is not None:
        sums = tile_sum(load_tile(added, r * added_step + left, added_step, places), sums)
    if floor is not None:
        sums = tile_maximum(sums, broadcast(floor, 0))
    if left + width <= columns and r + count <= len(rows):
        store_tile(c, r * columns + left, columns, sums)
    else:
        store_tile(kept, 0, width, sums)
        for i in range(min(count, len(rows) - r)):
            for j in range(min(width, columns - left)):
                c[(r + i) * columns + left + j] = kept[i * width + j]


@njit(nogil=True)
def multiply(
    a, rows, a_step, runs, run_step, panels, following, added, added_step, floor, c, columns
):
    """C = max(A @ B + added, floor), on one core.

    A has a row for each element of `rows`, made of runs as described in `tile`: a matrix that
    lies in memory row by row (rows = 0, K, 2K, ...; a_step 1, one run), a transposed one (rows =
    0, 1, 2, ...; a_step = its row length), or the windows of a convolution. B comes packed: panels
    (count, runs * depth, width); the panel that will be wanted after the last one is `following`
    elements from the first. C is flat, rows of `columns` elements. `added` is flat, with rows
    added_step apart (0: the same row for all, such as a bias), and must be readable up to full
    tiles; `floor` is an array of one element (0 for ReLU). Either may be None, which costs nothing:
    in products 64 deep, zeros and -inf instead took 2 per cent more. Partial sums are made of rows
    of one run only. They begin at the same products whatever tile a row is in, so the bits of C do
    not depend on how a product is cut.
    """
    count, depth, width = panels.shape
    b, run = panels.reshape(-1), depth // runs
    kept = np.empty(ROWS * width, b.dtype)
    tiles = len(rows) // ROWS + -(-(len(rows) % ROWS) // SHORT_ROWS)
    evenly = min(lanes(a), -(-width // max(1, tiles)))
    for p in range(count):
        at, left = p * depth * width, p * width
        # While the rows pass, the next panel comes from memory, a little with each: all of it
        # at once is more than may be on its way (batch 1 of VGG16: 3 per cent slower).
        last = p + 1 == count
        pace = 0 if last and following == 0 else evenly
        ahead = following if last else at + depth * width
        r = 0
        while r + ROWS <= len(rows):
            rows_by_panel(
                a, rows, r, rows_of_tile(rows, r, ROWS), a_step, runs, run_step, run, b, at, left,
                added, added_step, floor, ahead, pace, c, columns, kept,
            )  # fmt: skip
            ahead += depth * pace
            r += ROWS
        for rest in range(r, len(rows), SHORT_ROWS):
            rows_by_panel(
                a, rows, rest, rows_of_tile(rows, rest, SHORT_ROWS), a_step, runs, run_step, run, b,
                at, left, added, added_step, floor, ahead, pace, c, columns, kept,
            )  # fmt: skip
            ahead += depth * pace


def matmul(a: Array, b: Array) -> Array:
    """A @ B for a (M, K) and b (K, F), on all cores; the bits do not depend on their number."""
    (height, depth), columns = a.shape, b.shape[1]
    panels = pack(b)
    c = np.empty((height, columns), a.dtype)
    parts = cut(height, -(-height // MATMUL_ROWS))

    def part(index: int) -> None:
        first, last = parts[index]
        rows = np.arange(first, last) * depth
        out = c[first:last].reshape(-1)
        multiply(a.reshape(-1), rows, 1, 1, 0, panels, 0, None, 0, None, out, columns)

    share_out(part, len(parts))
    return c


def floor_of(activation: str | None, dtype: np.dtype) -> Array:
    """The `floor` that is this activation, None or 'relu'."""
    return np.array([0 if activation == "relu" else -np.inf], dtype)
