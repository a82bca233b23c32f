"""The matrix product, from the registers up: what Winograd's and direct convolution run on.

A core can start two fused multiply-adds a cycle, of eight float32 each, but load only two or
three vectors. A product is fast when each number, once loaded, is used several times. So `tile`
computes 6 rows by 2 vectors of C = A @ B at once and keeps all of it in registers:

    12 accumulators + 2 vectors of B + 1 broadcast element of A = 15 of the 16 vector registers

and one step along the depth costs 8 loads for 12 multiply-adds. B is packed beforehand into
panels, 2 vectors wide, in which the tile reads straight on; A is read where it lies, because six
rows are six streams that no packing would make faster. Which tiles follow each other decides
what stays in which cache: `multiply` holds a panel of B and lets all rows pass.

One core, float32, GFLOP/s of this and of single-threaded OpenBLAS 0.3.31 for (126, K) @ (K, F):
K, F = 64, 64: 71, 53; 128, 128: 78, 67; 256, 256: 78, 71; 512, 512: 83, 75. Goto & van de Geijn
2008, 'Anatomy of High-Performance Matrix Multiplication', is the source of the plan.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from minitl.kernels.reference import Array
from minitl.kernels.simd import VECTOR_BYTES, broadcast, lanes, load, maximum, store
from minitl.kernels.threads import cut, share_out

ROWS = 6  # of a tile
MATMUL_ROWS = 96  # of A and C in one part of `matmul`: of A and C in one part


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


@njit(forceinline=True)
def tile(a, rows, a_step, runs, run_step, depth, panel, start, start_at, start_step):
    """Start + A @ panel for 6 rows of A, as 6 pairs of vectors.

    Row r of A is made of `runs` runs of `depth` elements: a[rows[r] + run*run_step + i*a_step].
    The panel has runs * depth rows of 2 vectors. Row r of the sum starts from the 2 vectors at
    start[start_at + r*start_step]. The sum is made in the order of the depth, whatever tile a row
    is in: so the bits of a product do not depend on how it is cut.
    """
    vector = lanes(a)
    r0, r1, r2, r3, r4, r5 = rows
    c00, c01 = load(start, start_at), load(start, start_at + vector)
    start_at += start_step
    c10, c11 = load(start, start_at), load(start, start_at + vector)
    start_at += start_step
    c20, c21 = load(start, start_at), load(start, start_at + vector)
    start_at += start_step
    c30, c31 = load(start, start_at), load(start, start_at + vector)
    start_at += start_step
    c40, c41 = load(start, start_at), load(start, start_at + vector)
    start_at += start_step
    c50, c51 = load(start, start_at), load(start, start_at + vector)
    j = 0
    for run in range(runs):
        i = run * run_step
        for _ in range(depth):
            left, right = load(panel, j), load(panel, j + vector)
            s = broadcast(a, r0 + i)
            c00, c01 = c00 + s * left, c01 + s * right
            s = broadcast(a, r1 + i)
            c10, c11 = c10 + s * left, c11 + s * right
            s = broadcast(a, r2 + i)
            c20, c21 = c20 + s * left, c21 + s * right
            s = broadcast(a, r3 + i)
            c30, c31 = c30 + s * left, c31 + s * right
            s = broadcast(a, r4 + i)
            c40, c41 = c40 + s * left, c41 + s * right
            s = broadcast(a, r5 + i)
            c50, c51 = c50 + s * left, c51 + s * right
            i += a_step
            j += 2 * vector
    return (c00, c01), (c10, c11), (c20, c21), (c30, c31), (c40, c41), (c50, c51)


@njit(forceinline=True)
def _store_row(c, at, pair, floor):
    """A pair of vectors, not below `floor`, to c[at : at + 2 vectors]."""
    store(c, at, maximum(pair[0], floor))
    store(c, at + lanes(c), maximum(pair[1], floor))


@njit(forceinline=True)
def _store_tile(c, at, step, result, floor):
    """The 6 pairs of `tile` to 6 rows of c, `step` elements apart."""
    _store_row(c, at, result[0], floor)
    _store_row(c, at + step, result[1], floor)
    _store_row(c, at + 2 * step, result[2], floor)
    _store_row(c, at + 3 * step, result[3], floor)
    _store_row(c, at + 4 * step, result[4], floor)
    _store_row(c, at + 5 * step, result[5], floor)


@njit(nogil=True)
def multiply(a, rows, a_step, runs, run_step, panels, start, start_step, floor, c, columns):
    """C = max(start + A @ B, floor), on one core.

    A has a row for each element of `rows`, made of runs as described in `tile`: a matrix that
    lies in memory row by row (rows = 0, K, 2K, ...; a_step 1, one run), a transposed one (rows =
    0, 1, 2, ...; a_step = its row length), or the windows of a convolution. B comes packed: panels
    (count, runs * depth, width). C is flat, rows of `columns` elements. `start` is flat, with rows
    start_step apart (0: the same row for all, such as a bias), and must be readable up to full
    tiles; `floor` is an array of one element (0 for ReLU, -inf for none).
    """
    count, depth, width = panels.shape
    last = len(rows) - 1
    lowest = broadcast(floor, 0)
    edge = np.empty(ROWS * width, c.dtype)
    for p in range(count):
        panel, left = panels[p], p * width
        whole = left + width <= columns
        for r in range(0, len(rows), ROWS):
            six = (
                rows[r],
                rows[min(r + 1, last)],
                rows[min(r + 2, last)],
                rows[min(r + 3, last)],
                rows[min(r + 4, last)],
                rows[min(r + 5, last)],
            )
            begin = r * start_step + left
            result = tile(
                a, six, a_step, runs, run_step, depth // runs, panel, start, begin, start_step
            )
            if whole and r + ROWS <= len(rows):
                _store_tile(c, r * columns + left, columns, result, lowest)
            else:
                _store_tile(edge, 0, width, result, lowest)
                for i in range(min(ROWS, len(rows) - r)):
                    for j in range(min(width, columns - left)):
                        c[(r + i) * columns + left + j] = edge[i * width + j]


def matmul(a: Array, b: Array) -> Array:
    """A @ B for a (M, K) and b (K, F), on all cores; the bits do not depend on their number."""
    (height, depth), columns = a.shape, b.shape[1]
    panels = pack(b)
    c = np.empty((height, columns), a.dtype)
    zeros, floor = np.zeros(panels.shape[0] * panels.shape[2], a.dtype), no_floor(a.dtype)
    parts = cut(height, -(-height // MATMUL_ROWS))

    def part(index: int) -> None:
        first, last = parts[index]
        rows = np.arange(first, last) * depth
        out = c[first:last].reshape(-1)
        multiply(a.reshape(-1), rows, 1, 1, 0, panels, zeros, 0, floor, out, columns)

    share_out(part, len(parts))
    return c


def no_floor(dtype: np.dtype) -> Array:
    """The `floor` of `multiply` that changes nothing."""
    return np.array([-np.inf], dtype)
