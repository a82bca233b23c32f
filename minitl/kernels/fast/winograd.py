"""Convolution with a 3x3 window and a quarter of the multiplications, or a fifth: Winograd's
F(4x4, 3x3) and F(6x6, 3x3).

**Polynomials.** Write a filter of 3 taps as k(z) = k0 + k1 z + k2 z^2 and 4 numbers as g(z) = g0 +
... + g3 z^3. The coefficients of the product k(z) g(z) are their full convolution, 3 * 4 = 12
multiplications. But a polynomial of degree 5 is known from its values at 6 points, and its value
at a point p is k(p) * g(p), one multiplication: 6 do (Toom 1963, Cook 1966). One of the points may
be infinity, which reads off the leading coefficients, k2 * g3. Evaluation is linear, and so is
finding the coefficients from the values. With a row for each point,

    G row p = [1, p, p^2] / prod over other points q of (p - q)      evaluates k      (6, 3)
    A row p = [1, p, p^2, p^3]                                       evaluates g      (6, 4)
    B column p = coefficients of the prod over q of (z - q)          interpolates     (6, 6)

(at infinity: [0, 0, 1], [0, 0, 0, 1] and the product over all points), the full convolution is
B ((G k) * (A g)), where * multiplies element by element.

**Correlation.** Layers do not need that product but its adjoint: `y = filter slid over d`, with 6
numbers in and 4 out. <d, B((G k) * (A g))> = <A^T ((G k) * (B^T d)), g> for all g, so

    y = A^T ((G k) * (B^T d))             one axis:  6 multiplications for 4 outputs, not 12
    y = A^T ((G k G^T) * (B^T d B)) A     two axes: 36 multiplications for 16 outputs, not 144

**Layers.** y is cut into tiles of 4x4, d is the 6x6 piece of x that a tile sees. Summing over
channels commutes with A^T, so for each of the 36 planes the sum of products over C for all tiles
and filters is one matrix product, (tiles, C) @ (C, F):

    u[plane] = G k G^T (C, F)    v[plane] = B^T d B (tiles, C)    m[plane] = v[plane] @ u[plane]

Lavin & Gray 2016 (arXiv 1509.09308) saw this. dL/dx is the convolution of g with the kernel turned
around, C and F swapped. dL/dkernel is the third way to read the trilinear form above:

    dkernel = G^T (sum over tiles of (B^T d B) * (A g A^T)) G        again 36 matrix products

**Larger tiles.** M outputs want M + 2 points. With M = 6, 64 multiplications give 36 outputs, 1.78
per output instead of 2.25. The price is rounding, and filters u that are 64/36 as large and are
read for each block of tiles. So tiles of 6 are for maps of 28 places and more, which have many
tiles and few filters (512 -> 512 channels at 28x28: an eighth less time; at VGG16's end the
relative error is 1.8e-6 instead of 1.4e-6); and not for outputs of which a gradient will be asked,
because rounding decides what passes ReLU. (So a large map that is recorded and the same one in
`predict` differ by rounding.)

**Edges.** 14 places are three and a half tiles of 4. Where only n places of a tile are wanted along
an axis, n even, n + 2 points do: 0, the first pairs +-p and infinity. The filters stay as they are:
G divided k(p) by the product over the points q that are left out of (p - q) as well, so the columns
of B for the finite points p are multiplied by it. (The kernel's gradient has whole tiles only.)

**Accuracy.** Large terms cancel in A^T, and how much is lost depends on the points. 0, +-1, +-2 of
the paper need no multiplications in B, but in float32 and for C = 256 err by 1.5e-6 (root mean
square, relative); 0, +-5/8, +-3/2, infinity, used here for tiles of 4, by 7e-7; tiles of 6 by
2.8e-6; direct summation by 2e-7. Alam et al. 2022 (arXiv 2201.10369) search for such points. To
decide as float64 does (`precise`), u, v and m can be float64: x is widened where its transform
loads it, y is rounded where it is stored.
"""

import itertools
from functools import lru_cache
from math import isqrt
from typing import NamedTuple

import numpy as np

from minitl.kernels.fast import gemm
from minitl.kernels.fast import winograd_tiles as tiles
from minitl.kernels.geometry import Array, Geometry, Pair
from minitl.kernels.machine import simd
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.memory import empty, scratch_arrays
from minitl.kernels.machine.team import share, together
from minitl.kernels.machine.threads import cut, cut_at_most, cut_falling, share_out, thread_count

# With 1 or 2 MB of second cache per core, 48 to 108 tiles of 4 at a time differ by less than 5 per
# cent. With 1 MB, products of 64 filters are still there when they are transformed back: 5 to 10
# per cent less than with 256. (Few channels have few of them, and y is written in longer pieces.)
TILES = {4: 72, 6: 48}  # by their size
FEW_TILES = 96  # of which there are no blocks: the filters are shared out instead
FILTERS, OF_FEW = 64, 256  # whose products are kept before they are transformed back
FEW_CHANNELS = 64  # at most
SIDE = 256  # channels, and filters, of the kernel gradient that a job sums up
LARGE_MAP = 28  # places along each axis at least, of maps that are cut into tiles of 6
LARGE_GRADIENT = 56  # and of gradients: for these the filters are transformed each time
FEW_FILTERS = 512 * 512  # channels * filters at most, of such
PARTS = 8  # at least, of the kernel gradient's sum; a constant, for its bits depend on it


class Plan(NamedTuple):
    """Of a convolution: jobs (n, 4), a range of `blocks` and one of `slices`; blocks (b, 2), ranges
    of tiles; slices (s, 2), ranges of the panels of filters."""

    jobs: Array
    blocks: Array
    slices: Array


@compiled
def _correlate_all(x, tiling, plan, u, end, side, y, memory, board):
    given = x, tiling, plan, u, end, side, y, memory
    share(_correlate_blocks, given, len(plan.jobs), board)


@inner
def _correlate_blocks(x, tiling, plan, u, end, side, y, memory, job, who):
    """y for some blocks of tiles and, slice after slice, for some panels; a block goes all the way
    at once, so that nothing but x, u and y passes through memory."""
    (planes, _, channels, width), (a, b, c, d) = u.shape, plan.jobs[job]
    blocks, slices, (bias, floor, four, six) = plan.blocks[a:b], plan.slices[c:d], end
    v, m, work, strip = memory[0][who], memory[1][who], memory[2][who], memory[3][who]
    padded = -(-channels // simd.lanes(u)) * simd.lanes(u)
    for start, stop in blocks:
        places, starts = tiles.in_order(tiling, start, stop)
        block, seen = tiles.Tiles(tiling, start, stop, places), tiles.Planes(v, padded, width)
        tiles.input_tiles(x, block, four, six, tiles.Channels(0, channels), seen, strip)
        rows = np.empty(stop - start, np.int64)
        for i in range(stop - start):
            rows[i] = i * padded
        for left, right in slices:
            columns = (right - left) * width
            for plane in range(planes):
                first, last = tiles.tiles_of_plane(tiling, plane, starts)
                a, b = gemm.Rows(v[plane], rows[first:last], None, 1, 0), u[plane][left:right]
                c = m[plane][first * columns :]
                gemm.multiply(a, b, u[plane].size, None, 0, None, c, columns)
            filters = tiles.Channels(left * width, min(columns, y.shape[3] - left * width))
            done = tiles.Planes(m, columns, width)
            tiles.output_tiles(done, block, four, six, filters, bias, floor, side, y, work)


@compiled
def _kernel_block(x, g, tiling, first, last, step, channels, filters, dkernel, memory):
    """dkernel (3, 3, C, F) of the tiles first ... last-1, `step` at a time, for some C and F."""
    vector, (v, z, u, strip, work) = simd.lanes(x), memory
    deep = -(-channels.size // vector) * vector + 2 * vector
    wide = -(-filters.size // (2 * vector)) * 2 * vector
    rows, width = np.arange(channels.size), 2 * vector
    plain = tiles.Tiling(4, tiling.rows, tiling.columns, 0, 0, 4, 4)
    u[:] = 0
    for start in range(first, last, step):
        stop = min(start + step, last)
        count, places = stop - start, np.arange(stop - start)
        seen, packed = tiles.Planes(v, deep, width), tiles.Planes(z, width, width * count)
        block = tiles.Tiles(tiling, start, stop, places)
        tiles.input_tiles(x, block, 4, None, channels, seen, strip)
        tiles.gradient_tiles(g, tiles.Tiles(plain, start, stop, places), filters, packed, strip)
        for plane in range(36):
            panels = z[plane][: count * wide].reshape(wide // width, count, width)
            a = gemm.Rows(v[plane], rows, deep, 1, 0)
            gemm.multiply(a, panels, 0, u[plane], wide, None, u[plane], wide)
    plane, done = u.shape[1], work[36 * vector :]
    for i in range(channels.size):
        for k in range(0, filters.size, vector):
            at, c, f = i * wide + k, channels.first + i, filters.first + k
            tiles.both_axes(tiles.kernel_axis, 4, (6, 3), u, at, plane, done, 0, vector, work)
            for tap in range(9):
                for lane in range(min(vector, filters.size - k)):
                    dkernel[tap // 3, tap % 3, c, f + lane] = done[tap * vector + lane]


@compiled
def _filter_block(kernel, turned, size, first, last, u, patch, work):
    """Panels first ... last-1 of u (planes, panels, C, width) = G k G^T for tiles of `size`;
    `turned`: of the kernel turned by 180 degrees, with C and F swapped."""
    (_, _, channels, width), sizes, plane = u.shape, (3, size + 2), u[0].size
    filters = kernel.shape[2] if turned else kernel.shape[3]
    patch[:] = 0
    for panel in range(first, last):
        used = min(width, filters - panel * width)
        for c in range(channels):
            for i in range(3):
                for j in range(3):
                    for k in range(used):
                        f, at = panel * width + k, (3 * i + j) * width + k
                        patch[at] = kernel[2 - i, 2 - j, f, c] if turned else kernel[i, j, c, f]
            for k in range(0, width, simd.lanes(u)):
                axis, out = tiles.filter_axis, (panel * channels + c) * width + k
                tiles.both_axes(axis, size, sizes, patch, k, width, u, out, plane, work)


def conv2d(x, kernel, bias, geometry, activation=None, cache=None, recorded=False, precise=False):
    """`reference.conv2d` for 3x3 windows, stride 1; keeps the transformed filters in `cache`."""
    dtype = np.dtype(np.float64) if precise else x.dtype
    size = 4 if recorded or precise else tile_size(geometry.out_size, *kernel.shape[2:])
    u = _transformed(kernel, dtype, size, cache, lasting=not recorded)
    return _correlate(x, u, bias, activation, geometry, kernel.shape[3])


def conv2d_max_pool2d(x, kernel, bias, geometry, activation=None, cache=None):
    """`reference.conv2d_max_pool2d`: of a tile, only the maxima are ever written."""
    size = tile_size(geometry.out_size, *kernel.shape[2:])
    u = _transformed(kernel, x.dtype, size, cache, lasting=True)
    return _correlate(x, u, bias, activation, geometry, kernel.shape[3], pool=2)


def conv2d_input_gradient(g, kernel, geometry, cache=None):
    """`reference.conv2d_input_gradient` for a 3x3 window with stride 1. Nothing is kept in `cache`:
    in training the kernel is another one after each step."""
    pads = tuple(2 - pad for pad in geometry.pads)
    back = geometry._replace(size=geometry.out_size, pads=pads, out_size=geometry.size)
    size = tile_size(back.out_size, kernel.shape[2], kernel.shape[3], LARGE_GRADIENT)
    u = _transformed(kernel, g.dtype, size, turned=True)
    return _correlate(g, u, None, None, back, kernel.shape[2])


def conv2d_kernel_gradient(x, g, geometry):
    """`reference.conv2d_kernel_gradient` for a 3x3 window with stride 1: the sum over tiles is cut
    into parts that depend on the shapes only, and C and F into sides; a part and two sides make a
    job, with its own sum in the transformed domain."""
    channels, filters, width = x.shape[3], g.shape[3], gemm.panel_width(x.dtype)
    tiling, count = _tiling(x.shape[0], geometry, 4)
    tiling = tiling._replace(last_row=4, last_column=4)
    side = SIDE if count >= 4 * TILES[4] else SIDE // 2  # few tiles: more sides, fewer parts
    sides = [(c, f) for c in cut_at_most(channels, side) for f in cut_at_most(filters, side)]
    parts = cut(count, min(-(-PARTS // len(sides)), -(-count // TILES[4])))
    jobs = [(part, *side) for part in range(len(parts)) for side in sides]
    sums = [empty((3, 3, channels, filters), x.dtype) for _ in parts]

    def job(index: int) -> None:
        part, (c, c_end), (f, f_end) = jobs[index]
        first, last = parts[part]
        step = min(TILES[4], last - first)
        deep, wide = gemm.round_up(c_end - c, width // 2), gemm.round_up(f_end - f, width)
        v, z = (36, _plane(step * (deep + width))), (36, _plane(step * wide))
        u = (36, _plane(gemm.round_up(deep, gemm.ROWS) * wide))
        strip, work = (tiles.STRIP_MEMORY * max(deep, wide),), (tiles.WORK_MEMORY * width // 2,)
        memory = scratch_arrays(x.dtype, v, z, u, strip, work)
        some, others = tiles.Channels(c, c_end - c), tiles.Channels(f, f_end - f)
        _kernel_block(x, g, tiling, first, last, step, some, others, sums[part], memory)

    share_out(job, len(jobs))
    if not sums:  # no images
        return np.zeros((3, 3, channels, filters), x.dtype)
    total, ranges = sums[0].reshape(-1), cut(sums[0].size, PARTS)

    def add(index: int) -> None:
        piece = slice(*ranges[index])
        for partial in sums[1:]:
            total[piece] += partial.reshape(-1)[piece]

    if len(sums) > 1:
        share_out(add, len(ranges))
    return sums[0]


def _correlate(x, u, bias, activation, geometry, filters, pool=1):
    """The convolution with transformed filters u, bias, activation, and 2x2 maxima if pool=2."""
    tiling, plan, shapes = _plan(len(x), geometry, u.shape, thread_count())
    (oh, ow), floor = geometry.out_size, gemm.bounds_of(activation, u.dtype)[:1]
    y = empty((len(x), oh // pool, ow // pool, filters), x.dtype)
    side, shift = tiling.size // pool, gemm.shift_of(bias, filters, u.dtype)
    memory = scratch_arrays(u.dtype, *((thread_count(), *shape) for shape in shapes))
    end = shift, floor, *((4, None) if tiling.size == 4 else (None, 6))
    together(_correlate_all, x, tiling, plan, u, end, side, y, memory)
    return y


@lru_cache(1024)
def _plan(images, geometry, u_shape, threads):
    """The tiling, the jobs, the shapes of a job's memory. Made once for each shape, because all
    cores wait while Python makes it."""
    planes, panels, channels, width = u_shape
    tiling, count = _tiling(images, geometry, isqrt(planes) - 2)
    # Every block reads all filters; where there are few tiles, the filters are shared out instead.
    wanted = gemm.round_up(-(-count // TILES[tiling.size]), threads) if count >= FEW_TILES else 1
    fours = cut(-(-count // simd.SHORT_ROWS), wanted)
    blocks = [(a * simd.SHORT_ROWS, min(b * simd.SHORT_ROWS, count)) for a, b in fours]
    most = OF_FEW if channels <= FEW_CHANNELS else FILTERS
    groups = [  # of panels: as many as it takes to give each thread something to do
        cut(stop - start, -(-(stop - start) * width // most), start)
        for start, stop in cut(panels, -(-threads // max(1, len(blocks))))
    ]
    step = max((stop - start for start, stop in blocks), default=0)
    padded = gemm.round_up(channels, width // 2)
    columns = width * max((b - a for slices in groups for a, b in slices), default=0)
    v, m = (planes, _plane(step * padded)), (planes, _plane(step * columns))
    work, strip = (tiles.WORK_MEMORY * width // 2,), (tiles.STRIP_MEMORY * padded,)
    ends = list(itertools.accumulate(map(len, groups), initial=0))
    jobs = [(*some, *few) for few in itertools.pairwise(ends) for some in cut_falling(len(blocks))]
    arrays = (np.array(a, np.int64) for a in (jobs, blocks, [*itertools.chain(*groups)]))
    plan = Plan(*(a.reshape(len(a), k) for a, k in zip(arrays, (4, 2, 2), strict=True)))
    return tiling, plan, (v, m, work, strip)


def _transformed(kernel, dtype, size, cache=None, lasting=False, turned=False):
    """u (planes, panels, C, width) of the kernel, or of the turned one; kept in the cache if it is
    `lasting`, for many calls, as in predicting. (In training, all layers' would be 470 MB.)"""
    key = ("winograd", size, dtype)
    if cache is not None and key in cache:
        return cache[key]
    filters, channels = kernel.shape[2:] if turned else kernel.shape[:1:-1]
    width = gemm.panel_width(dtype)
    shape = ((size + 2) ** 2, -(-filters // width), channels, width)
    u, jobs = empty(shape, dtype, lasting and cache is not None), cut(shape[1], PARTS)

    def job(index: int) -> None:
        memory = scratch_arrays(dtype, (9 * width,), (tiles.WORK_MEMORY * width // 2,))
        _filter_block(kernel, turned, size, *jobs[index], u, *memory)

    share_out(job, len(jobs))
    if cache is not None and lasting:
        cache[key] = u
    return u


def tile_size(out_size: Pair, channels: int, filters: int, large: int = -1) -> int:
    """6 or 4: of the tiles of y. Without N: an image has the same bits alone and in a batch."""
    return (
        6
        if min(out_size) >= (LARGE_MAP if large < 0 else large)
        and channels * filters <= FEW_FILTERS
        else 4
    )


def _tiling(images: int, geometry: Geometry, size: int) -> tuple[tiles.Tiling, int]:
    """The tiling of y, and how many tiles it has."""
    rows, columns = (-(-places // size) for places in geometry.out_size)
    last = [size - -places % size // 2 * 2 for places in geometry.out_size]  # even, and enough
    top, _, left, _ = geometry.pads
    return tiles.Tiling(size, rows, columns, top, left, *last), images * rows * columns


def _plane(size: int) -> int:
    """`size`, and some more, so that planes do not begin at multiples of 4 KiB."""
    return gemm.round_up(size, 1024) + 16
