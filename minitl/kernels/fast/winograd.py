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

Lavin & Gray 2016 (arXiv 1509.09308) saw this. The gradients are the same kind of sum. dL/dx is
the convolution of g with the kernel turned around, C and F swapped. dL/dkernel is the third way to
read the trilinear form above:

    dkernel = G^T (sum over tiles of (B^T d B) * (A g A^T)) G        again 36 matrix products

**Larger tiles.** Nothing above depends on the 4: M outputs want M + 2 points. With M = 6, 64
multiplications give 36 outputs, 1.78 an output instead of 2.25. The price is rounding, and filters
u that are 64/36 as large and have to be read for each block of tiles. So tiles of 6 are for large
maps, which have many tiles and few filters, see `tile_size`; and not for outputs of which a
gradient will be asked, because rounding decides what passes ReLU: one in so many places that goes
the other way moves a gradient by more than all other rounding. (So a large map that is recorded
and the same one in `predict` differ by rounding.) Gradients to the input decide nothing.

**Precise.** To decide as float64 does, u, v and m can be float64: x is widened where its transform
loads it, y is rounded where it is stored (`simd.py`), and that convolution takes twice the time.

**Edges.** 14 places are three and a half tiles of 4. Where only n places of a tile are wanted along
an axis, n even, n + 2 points do: 0, the first pairs +-p and infinity. The filters that are there
serve as they are: G divided k(p) by the product over the points q that are left out of (p - q) as
well, so the columns of B for the finite points p are multiplied by it. At 14x14 that saves about a
sixth of the products. (The gradient to the kernel has whole tiles of 4 only.)

**Accuracy.** The price is rounding. Large terms cancel in A^T, and most of what is left is the
rounding of the sums over channels, not of the transforms; so `gemm.py` makes the sums of partial
sums, which halves the error. It depends on the points, too. Points 0, +-1, +-2 of the paper need no
multiplications in B, but in float32 and for C = 256 err by 1.5e-6 (root mean square, relative); 0,
+-5/8, +-3/2, infinity, used here for tiles of 4, by 7e-7; direct summation by 2e-7. All are exact
in binary. Alam et al. 2022 (arXiv 2201.10369) search for such points. For tiles of 6, 0, +-1/2,
+-1, +-2, infinity are about the best: 2.8e-6. Most of that is gone two layers on, where sums
average it: at the end of VGG16 the relative error (L2) is 1.3e-6 (five photographs), that of Keras
1.1e-6.

**Speed.** A job takes a block of tiles all the way: transform (`transforms.py`), products
(`gemm.py`), transform back, all within one compiled loop, so that nothing but x, u and y passes
through memory. The planes lie off multiples of 4 KiB, or their rows would fall on the same
cache sets. Milliseconds an image of VGG16 at 224x224, batch 8, two cores with AVX-512: 34.4 with
tiles of 4 alone, of which products are about 26 (23 would be the peak), transforms 7, the first
layer, which is not Winograd's, 1.1; ONNX Runtime 93 in all. Tiles of 6 take about a tenth off.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt, prod
from typing import NamedTuple

import numpy as np

from minitl.kernels.fast.gemm import ROWS, SHORT_ROWS, floor_of, multiply, panel_width, round_up
from minitl.kernels.fast.winograd_tiles import (
    STRIP_MEMORY,
    WORK_MEMORY,
    Tiling,
    both_axes,
    filter_axis,
    gradient_tiles,
    in_order,
    input_tiles,
    kernel_axis,
    output_tiles,
    tiles_of_plane,
)
from minitl.kernels.geometry import Array, Geometry
from minitl.kernels.machine.compiling import compiled
from minitl.kernels.machine.memory import empty, scratch
from minitl.kernels.machine.simd import lanes
from minitl.kernels.machine.threads import (
    Range,
    cut,
    cut_falling,
    share_out,
    thread_count,
)

# Measured on VGG16's layers with AVX-512 and 2 MB of second cache a core: 48 to 108 tiles of 4 at a
# time differ by less than 5 per cent, and so do 128 to 512 filters; 24 to 72 tiles of 6 by no more
# than the noise.
TILES = {4: 72, 6: 48}  # by their size
FEW_TILES = 96  # of which there are no blocks: the filters are shared out instead
FILTERS = 256  # whose products are kept before they are transformed back
SIDE = 256  # channels, and filters, of the kernel gradient that a job sums up
LARGE_MAP = 56  # places along each axis at least, of maps that are cut into tiles of 6
FEW_FILTERS = 256 * 256  # channels * filters at most, of such
PARTS = 8  # at least, of the kernel gradient's sum; a constant, for its bits depend on it


# --- Blocks: all the way from x to y, on one core ------------------------------------------------


@compiled
def _correlate_blocks(x, tiling, blocks, v_plane, m_plane, u, slices, bias, floor, side, y, memory):
    """y for some blocks of tiles and, slice after slice, for the panels in `slices`.

    `v_plane` and `m_plane` are the sizes of a plane of v and of m, in `memory`; see `_Plan`.
    """
    planes, _, channels, width = u.shape
    padded = -(-channels // lanes(u)) * lanes(u)
    v, rest = memory[: planes * v_plane].reshape(planes, v_plane), memory[planes * v_plane :]
    m, rest = rest[: planes * m_plane].reshape(planes, m_plane), rest[planes * m_plane :]
    work, strip = rest[: WORK_MEMORY * lanes(u)], rest[WORK_MEMORY * lanes(u) :]
    for start, stop in blocks:
        places, starts = in_order(tiling, start, stop)
        input_tiles(x, tiling, start, stop, places, 0, channels, v, padded, strip)
        rows = np.arange(stop - start) * padded
        for left, right in slices:
            columns = (right - left) * width
            for plane in range(planes):
                first, last = tiles_of_plane(tiling, plane, starts)
                multiply(
                    v[plane], rows[first:last], 1, 1, 0, u[plane][left:right], u[plane].size, None,
                    0, None, m[plane][first * columns :], columns,
                )  # fmt: skip
            f, filters = left * width, min(columns, y.shape[3] - left * width)
            output_tiles(
                m, columns, tiling, start, stop, places, f, filters, bias, floor, side, y, work
            )


@compiled
def _kernel_block(
    x, tiling, first, last, step, g, c, channels, f, filters, dkernel, v, z, u, strip, work
):
    """dkernel (3, 3, C, F) from some tiles, for channels c ... and filters f ... of it."""
    vector = lanes(x)
    deep = -(-channels // vector) * vector + 2 * vector
    wide = -(-filters // (2 * vector)) * 2 * vector
    rows = np.arange(channels)
    plain = Tiling(4, tiling.rows, tiling.columns, 0, 0, 4, 4)
    u[:] = 0
    for start in range(first, last, step):
        stop = min(start + step, last)
        places = np.arange(stop - start)
        input_tiles(x, tiling, start, stop, places, c, channels, v, deep, strip)
        gradient_tiles(g, plain, start, stop, places, f, filters, z, strip)
        for plane in range(36):
            panels = z[plane][: (stop - start) * wide]
            panels = panels.reshape(wide // (2 * vector), stop - start, 2 * vector)
            multiply(v[plane], rows, deep, 1, 0, panels, 0, u[plane], wide, None, u[plane], wide)
    plane, done = u.shape[1], work[36 * vector :]
    for i in range(channels):
        for k in range(0, filters, vector):
            at = i * wide + k
            both_axes(
                kernel_axis, 4, 6, 3, u, at, 6 * plane, plane, done, 0, 3 * vector, vector, work
            )
            for tap in range(9):
                for lane in range(min(vector, filters - k)):
                    dkernel[tap // 3, tap % 3, c + i, f + k + lane] = done[tap * vector + lane]


@compiled
def _filter_block(kernel, turned, size, first, last, u, patch, work):
    """Panels first ... last-1 of u (planes, panels, C, width) = G k G^T for tiles of `size`.

    `turned`: of the kernel turned by 180 degrees, with C and F swapped.
    """
    _, _, channels, width = u.shape
    filters = kernel.shape[2] if turned else kernel.shape[3]
    plane = u[0].size
    patch[:] = 0
    for panel in range(first, last):
        used = min(width, filters - panel * width)
        for c in range(channels):
            for i in range(3):
                for j in range(3):
                    for k in range(used):
                        f, at = panel * width + k, (3 * i + j) * width + k
                        patch[at] = kernel[2 - i, 2 - j, f, c] if turned else kernel[i, j, c, f]
            for k in range(0, width, lanes(u)):
                out = (panel * channels + c) * width + k
                both_axes(
                    filter_axis, size, 3, size + 2, patch, k, 3 * width, width,
                    u, out, (size + 2) * plane, plane, work,
                )  # fmt: skip


# --- The three kernels ---------------------------------------------------------------------------


def conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
    recorded: bool = False,
    precise: bool = False,
) -> Array:
    """`reference.conv2d` for 3x3 windows, stride 1; keeps the transformed filters in `cache`."""
    dtype = np.dtype(np.float64) if precise else x.dtype
    floor = floor_of(activation, dtype)
    size = 4 if recorded or precise else tile_size(geometry.out_size, *kernel.shape[2:])
    u = _transformed(kernel, dtype, size, cache, lasting=not recorded)
    return _correlate(x, u, bias, floor, geometry.pads, geometry.out_size, kernel.shape[3])


def conv2d_max_pool2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
) -> Array:
    """`reference.conv2d_max_pool2d`: of a tile, only the maxima are ever written."""
    floor = floor_of(activation, x.dtype)
    size = tile_size(geometry.out_size, *kernel.shape[2:])
    u = _transformed(kernel, x.dtype, size, cache, lasting=True)
    return _correlate(x, u, bias, floor, geometry.pads, geometry.out_size, kernel.shape[3], 2)


def conv2d_input_gradient(
    g: Array, kernel: Array, geometry: Geometry, cache: dict | None = None
) -> Array:
    """`reference.conv2d_input_gradient` for a 3x3 window with stride 1; `cache` as in `conv2d`."""
    top, bottom, left, right = geometry.pads
    pads = (2 - top, 2 - bottom, 2 - left, 2 - right)
    size = tile_size(geometry.size, *kernel.shape[2:])
    u = _transformed(kernel, g.dtype, size, cache, turned=True)
    return _correlate(g, u, None, floor_of(None, g.dtype), pads, geometry.size, kernel.shape[2])


def conv2d_kernel_gradient(x: Array, g: Array, geometry: Geometry) -> Array:
    """`reference.conv2d_kernel_gradient` for a 3x3 window with stride 1.

    The sum over tiles is cut into parts that depend on the shapes only, and C and F into sides; a
    part and two sides make a job, with its own sum in the transformed domain.
    """
    channels, filters, width = x.shape[3], g.shape[3], panel_width(x.dtype)
    tiling, tiles = _tiling(x.shape[0], geometry.out_size, geometry.pads, 4)
    tiling = tiling._replace(last_row=4, last_column=4)
    side = SIDE if tiles >= 4 * TILES[4] else SIDE // 2  # few tiles: more sides, fewer parts
    sides = [(c, f) for c in _cut_side(channels, side) for f in _cut_side(filters, side)]
    parts = cut(tiles, min(-(-PARTS // len(sides)), -(-tiles // TILES[4])))
    jobs = [(part, *side) for part in range(len(parts)) for side in sides]
    sums = [empty((3, 3, channels, filters), x.dtype) for _ in parts]

    def job(index: int) -> None:
        part, (c, c_end), (f, f_end) = jobs[index]
        first, last = parts[part]
        step = min(TILES[4], last - first)
        deep, wide = round_up(c_end - c, width // 2), round_up(f_end - f, width)
        v, z, u, strip, work = _memory(
            x.dtype,
            (36, _plane(step * (deep + width))),
            (36, _plane(step * wide)),
            (36, _plane(round_up(deep, ROWS) * wide)),
            (STRIP_MEMORY * max(deep, wide),),
            (WORK_MEMORY * width // 2,),
        )
        _kernel_block(
            x, tiling, first, last, step, g, c, c_end - c, f, f_end - f, sums[part],
            v, z, u, strip, work,
        )  # fmt: skip

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


def _correlate(
    x: Array,
    u: Array,
    bias: Array | None,
    floor: Array,
    pads: tuple[int, int, int, int],
    out_size: tuple[int, int],
    filters: int,
    pool: int = 1,
) -> Array:
    """max(x slid over with the transformed filters u + bias, floor): (N, *out_size, F).

    With pool=2, the maximum of each 2x2 of that.
    """
    plan = _plan(len(x), out_size, pads, u.shape, thread_count())
    y = empty((len(x), out_size[0] // pool, out_size[1] // pool, filters), x.dtype)
    panels, _, width = u.shape[1:]
    side = plan.tiling.size // pool
    shift = np.zeros(panels * width, u.dtype)
    if bias is not None:
        shift[:filters] = bias

    def job(index: int) -> None:
        blocks, slices = plan.jobs[index]
        memory = scratch(plan.memory, u.dtype)
        _correlate_blocks(
            x, plan.tiling, blocks, plan.v_plane, plan.m_plane, u, slices, shift, floor, side, y,
            memory,
        )  # fmt: skip

    share_out(job, len(plan.jobs))
    return y


class _Plan(NamedTuple):
    """How a correlation is cut, and how many numbers of memory a job takes."""

    tiling: Tiling
    jobs: list[tuple[Array, Array]]  # blocks of tiles, slices of panels: ranges (n, 2)
    v_plane: int  # the tiles of a block by all channels
    m_plane: int  # the tiles of a block by the filters of a slice
    memory: int  # all planes, and what the transforms need


@lru_cache(1024)
def _plan(
    images: int,
    out_size: tuple[int, int],
    pads: tuple[int, int, int, int],
    u_shape: tuple[int, int, int, int],
    threads: int,
) -> _Plan:
    """Made once for each shape: Python makes it, while all cores wait."""
    planes, panels, channels, width = u_shape
    tiling, tiles = _tiling(images, out_size, pads, isqrt(planes) - 2)
    blocks = _blocks(tiles, threads, TILES[tiling.size])
    groups = [  # of panels: as many as it takes to give each thread something to do
        [
            (start + a, start + b)
            for a, b in cut(stop - start, -(-(stop - start) * width // FILTERS))
        ]
        for start, stop in cut(panels, -(-threads // max(1, len(blocks))))
    ]
    ranges = [np.array(blocks[first:last]) for first, last in cut_falling(len(blocks))]
    step = max((stop - start for start, stop in blocks), default=0)
    padded = round_up(channels, width // 2)
    columns = width * max((b - a for slices in groups for a, b in slices), default=0)
    v, m = _plane(step * padded), _plane(step * columns)
    return _Plan(
        tiling,
        [(some, slices) for slices in map(np.array, groups) for some in ranges],
        v,
        m,
        planes * (v + m) + WORK_MEMORY * width // 2 + STRIP_MEMORY * padded,
    )


def _transformed(
    kernel: Array,
    dtype: np.dtype,
    size: int,
    cache: dict | None,
    turned: bool = False,
    lasting: bool = False,
) -> Array:
    """u (planes, panels, C, width) of the kernel, or of the turned one, kept in the cache.

    `lasting`: for many calls, as in predicting; those of trained layers, until the next update.
    """
    key = ("winograd", turned, size, dtype)
    if cache is not None and key in cache:
        return cache[key]
    filters, channels = kernel.shape[2:] if turned else kernel.shape[:1:-1]
    width = panel_width(dtype)
    shape = ((size + 2) ** 2, -(-filters // width), channels, width)
    u = empty(shape, dtype, lasting and cache is not None)
    jobs = cut(u.shape[1], PARTS)

    def job(index: int) -> None:
        patch, work = _memory(dtype, (9 * width,), (WORK_MEMORY * width // 2,))
        _filter_block(kernel, turned, size, *jobs[index], u, patch, work)

    share_out(job, len(jobs))
    if cache is not None:
        cache[key] = u
    return u


# --- Cutting -------------------------------------------------------------------------------------


def tile_size(out_size: tuple[int, int], channels: int, filters: int) -> int:
    """6 or 4: of the tiles that y (N, OH, OW, F) is cut into.

    It does not depend on N: an image has the same bits alone and in a batch. Filters u for tiles of
    6 are read for each block of tiles; 512 -> 512 would take 67 MB, instead of 38. Milliseconds an
    image in tiles of 4 and of 6, batch 8, two cores with AVX-512, the best of 20, in a slow hour:

        224, 64 -> 64, pool     7.75   6.50
        112, 64 -> 128          3.98   3.07
        112, 128 -> 128, pool   5.56   4.97
        56, 128 -> 256          2.92   2.60
        56, 256 -> 256          5.79   4.79

    At the end of VGG16 the last two lines raise the error from 1.2e-6 of the largest value to
    1.75e-6; Keras has 1.4e-6. In gradients to the input, which transform u after each update, they
    save a tenth for 16 images (256 -> 256: 4.2, 3.8) and cost a tenth for one (7.9, 8.7).
    """
    large = min(out_size) >= LARGE_MAP and channels * filters <= FEW_FILTERS
    return 6 if large else 4


def _tiling(
    images: int, out_size: tuple[int, int], pads: tuple[int, ...], size: int
) -> tuple[Tiling, int]:
    """The tiling of y, and how many tiles it has."""
    rows, columns = (-(-places // size) for places in out_size)
    last = [size - -places % size // 2 * 2 for places in out_size]  # even, and enough
    return Tiling(size, rows, columns, pads[0], pads[2], *last), images * rows * columns


def _blocks(tiles: int, threads: int, step: int) -> list[Range]:
    """All tiles in blocks of about `step`, as many for each thread; in one, if there are few.

    All filters are read for every block. Where there are few tiles, sharing out the filters
    instead reads them once.
    """
    count = round_up(-(-tiles // step), threads) if tiles >= FEW_TILES else 1
    fours = cut(-(-tiles // SHORT_ROWS), count)
    return [(first * SHORT_ROWS, min(last * SHORT_ROWS, tiles)) for first, last in fours]


def _cut_side(size: int, side: int) -> list[Range]:
    """Channels or filters in ranges of at most `side`."""
    return cut(size, -(-size // side))


def _plane(size: int) -> int:
    """`size`, and some more, so that planes do not begin at multiples of 4 KiB."""
    return round_up(size, 1024) + 16


def _memory(dtype: np.dtype, *shapes: tuple[int, ...]) -> list[Array]:
    """Arrays of these shapes and any content, from this thread's scratch."""
    flat, arrays = scratch(sum(map(prod, shapes)), dtype), []
    for shape in shapes:
        arrays.append(flat[: prod(shape)].reshape(shape))
        flat = flat[prod(shape) :]
    return arrays
