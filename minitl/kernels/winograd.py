"""draft docstring"""

from __future__ import annotations

import numpy as np
from numba import njit

from minitl.kernels.gemm import multiply, no_floor, panel_width, round_up
from minitl.kernels.geometry import Geometry
from minitl.kernels.reference import Array
from minitl.kernels.simd import VECTOR_BYTES, broadcast, lanes, load, maximum, store
from minitl.kernels.threads import Range, cut, scratch, share_out

# The points, and the powers and products of them that the transforms consist of.
P, Q = 5 / 8, 3 / 2
P2, Q2, P3, Q3 = P**2, Q**2, P**3, Q**3
SUM, PRODUCT = P2 + Q2, P2 * Q2
P_SCALE, Q_SCALE = 1 / (2 * P2 * (P2 - Q2)), 1 / (2 * Q2 * (Q2 - P2))
G = np.array(
    [
        [1 / PRODUCT, 0, 0],
        [P_SCALE, P_SCALE * P, P_SCALE * P2],
        [P_SCALE, -P_SCALE * P, P_SCALE * P2],
        [Q_SCALE, Q_SCALE * Q, Q_SCALE * Q2],
        [Q_SCALE, -Q_SCALE * Q, Q_SCALE * Q2],
        [0, 0, 1],
    ]
)

BLOCK_BYTES = 2**21  # of transformed input in a block of tiles
FILTERS = 64  # whose products are kept at once
JOBS = 8  # at least, so that all cores have work to the end
SIDE = 256  # channels, and filters, of the piece of the kernel gradient that a job sums up


# --- One axis: six numbers in registers ----------------------------------------------------------


@njit(forceinline=True)
def _input_axis(d0, d1, d2, d3, d4, d5):
    """B^T d."""
    even_p, odd_p = d4 - Q2 * d2, P * (d3 - Q2 * d1)
    even_q, odd_q = d4 - P2 * d2, Q * (d3 - P2 * d1)
    return (
        d4 - SUM * d2 + PRODUCT * d0,
        even_p + odd_p,
        even_p - odd_p,
        even_q + odd_q,
        even_q - odd_q,
        d5 - SUM * d3 + PRODUCT * d1,
    )


@njit(forceinline=True)
def _output_axis(m0, m1, m2, m3, m4, m5):
    """A^T m."""
    sum_p, difference_p = m1 + m2, m1 - m2
    sum_q, difference_q = m3 + m4, m3 - m4
    return (
        m0 + sum_p + sum_q,
        P * difference_p + Q * difference_q,
        P2 * sum_p + Q2 * sum_q,
        P3 * difference_p + Q3 * difference_q + m5,
    )


@njit(forceinline=True)
def _gradient_axis(g0, g1, g2, g3):
    """A g."""
    even_p, odd_p = g0 + P2 * g2, P * g1 + P3 * g3
    even_q, odd_q = g0 + Q2 * g2, Q * g1 + Q3 * g3
    return g0, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, g3


# --- Both axes of a tile, a vector of channels at a time -----------------------------------------


@njit(forceinline=True)
def _load_six(a, at, step):
    return (
        load(a, at),
        load(a, at + step),
        load(a, at + 2 * step),
        load(a, at + 3 * step),
        load(a, at + 4 * step),
        load(a, at + 5 * step),
    )


@njit(forceinline=True)
def _store_six(a, at, step, six):
    store(a, at, six[0])
    store(a, at + step, six[1])
    store(a, at + 2 * step, six[2])
    store(a, at + 3 * step, six[3])
    store(a, at + 4 * step, six[4])
    store(a, at + 5 * step, six[5])


@njit
def _input_tile(x, at, row, column, channels, v, out, plane, work):
    """B^T d B of the 6x6 places from x[at], `row` and `column` apart, into 36 planes."""
    vector = lanes(x)
    for c in range(0, channels, vector):
        for j in range(6):
            six = _load_six(x, at + j * column + c, row)
            _store_six(work, j * vector, 6 * vector, _input_axis(*six))
        for i in range(6):
            six = _load_six(work, i * 6 * vector, vector)
            _store_six(v, out + 6 * i * plane + c, plane, _input_axis(*six))


@njit
def _output_tile(m, at, plane, filters, bias, floor, y, out, row, column, work):
    """A^T m A of 36 planes, plus bias, not below the floor, to 4x4 places of y."""
    vector = lanes(m)
    lowest = broadcast(floor, 0)
    for f in range(0, filters, vector):
        for j in range(6):
            four = _output_axis(*_load_six(m, at + j * plane + f, 6 * plane))
            store(work, j * vector, four[0])
            store(work, (6 + j) * vector, four[1])
            store(work, (12 + j) * vector, four[2])
            store(work, (18 + j) * vector, four[3])
        shift = load(bias, f)
        for i in range(4):
            four = _output_axis(*_load_six(work, i * 6 * vector, vector))
            place = out + i * row + f
            store(y, place, maximum(four[0] + shift, lowest))
            store(y, place + column, maximum(four[1] + shift, lowest))
            store(y, place + 2 * column, maximum(four[2] + shift, lowest))
            store(y, place + 3 * column, maximum(four[3] + shift, lowest))


@njit
def _gradient_tile(g, at, row, column, filters, z, out, plane, depth, work):
    """A g A^T of 4x4 places into 36 planes of panels."""
    vector = lanes(g)
    width = 2 * vector
    for f in range(0, filters, vector):
        for j in range(4):
            place = at + j * column + f
            six = _gradient_axis(load(g, place), load(g, place + row), load(g, place + 2 * row), load(g, place + 3 * row))
            _store_six(work, j * vector, 4 * vector, six)
        panel = out + f // width * depth * width + f % width
        for i in range(6):
            r = 4 * i * vector
            six = _gradient_axis(load(work, r), load(work, r + vector), load(work, r + 2 * vector), load(work, r + 3 * vector))
            _store_six(z, panel + 6 * i * plane, plane, six)


# --- Blocks of tiles -----------------------------------------------------------------------------


@njit
def _fetch(x, n, h, w, c, channels, side, patch, padded):
    """patch[i, j, :] = x[n, h + i, w + j, c : c + channels], zero outside of x."""
    for i in range(side):
        for j in range(side):
            at = (i * side + j) * padded
            if 0 <= h + i < x.shape[1] and 0 <= w + j < x.shape[2]:
                for k in range(channels):
                    patch[at + k] = x[n, h + i, w + j, c + k]
                for k in range(channels, padded):
                    patch[at + k] = 0
            else:
                for k in range(padded):
                    patch[at + k] = 0


@njit
def _input_tiles(x, top, left, tiles, first, last, c, channels, v, plane, patch, work):
    height, width, row_channels = x.shape[1:]
    padded = -(-channels // lanes(x)) * lanes(x)
    for t in range(first, last):
        n, h, w = t // (tiles[0] * tiles[1]), t // tiles[1] % tiles[0] * 4 - top, t % tiles[1] * 4 - left
        out = (t - first) * padded
        inside = h >= 0 and w >= 0 and h + 6 <= height and w + 6 <= width
        if inside and padded == channels:
            at = ((n * height + h) * width + w) * row_channels + c
            _input_tile(x, at, width * row_channels, row_channels, channels, v, out, plane, work)
        else:
            _fetch(x, n, h, w, c, channels, 6, patch, padded)
            _input_tile(patch, 0, 6 * padded, padded, padded, v, out, plane, work)


@njit
def _gradient_tiles(g, tiles, first, last, f, filters, z, plane, patch, work):
    height, width, row_filters = g.shape[1:]
    vector = lanes(g)
    padded = -(-filters // (2 * vector)) * 2 * vector
    for t in range(first, last):
        n, h, w = t // (tiles[0] * tiles[1]), t // tiles[1] % tiles[0] * 4, t % tiles[1] * 4
        out = (t - first) * 2 * vector
        if h + 4 <= height and w + 4 <= width and padded == filters:
            at = ((n * height + h) * width + w) * row_filters + f
            _gradient_tile(g, at, width * row_filters, row_filters, filters, z, out, plane, last - first, work)
        else:
            _fetch(g, n, h, w, f, filters, 4, patch, padded)
            _gradient_tile(patch, 0, 4 * padded, padded, padded, z, out, plane, last - first, work)


@njit
def _output_tiles(m, plane, columns, tiles, first, last, f, filters, bias, floor, y, patch, work):
    height, width, row_filters = y.shape[1:]
    for t in range(first, last):
        n, h, w = t // (tiles[0] * tiles[1]), t // tiles[1] % tiles[0] * 4, t % tiles[1] * 4
        at = (t - first) * columns
        if h + 4 <= height and w + 4 <= width and columns == filters:
            out = ((n * height + h) * width + w) * row_filters + f
            _output_tile(m, at, plane, filters, bias[f:], floor, y, out, width * row_filters, row_filters, work)
        else:
            _output_tile(m, at, plane, columns, bias[f:], floor, patch, 0, 4 * columns, columns, work)
            for i in range(min(4, height - h)):
                for j in range(min(4, width - w)):
                    for k in range(filters):
                        y[n, h + i, w + j, f + k] = patch[(4 * i + j) * columns + k]


WHAT = 0

@njit(nogil=True)
def _correlate_block(x, top, left, u, bias, floor, y, tiles, first, last, slices, kept, memory, what):
    channels = x.shape[3]
    vector = lanes(x)
    width = 2 * vector
    count = last - first
    padded = -(-channels // vector) * vector
    plane = plane_size(count * padded)
    mplane = plane_size(count * kept)
    work, patch, v, m = cut_memory(memory, 36 * vector, 36 * max(padded, kept), 36 * plane, 36 * mplane)
    _input_tiles(x, top, left, tiles, first, last, 0, channels, v, plane, patch, work)
    if what == 1: return
    v = v.reshape(36, plane)
    rows = np.arange(count) * padded
    zeros = np.zeros(kept, x.dtype)
    none = np.full(1, -np.inf, x.dtype)
    m36 = m.reshape(36, mplane)
    for s in range(len(slices)):
        p0, p1 = slices[s]
        columns = (p1 - p0) * width
        for k in range(36):
            multiply(v[k], rows, 1, 1, 0, u[k][p0:p1], zeros, 0, none, m36[k], columns)
        if what == 2: continue
        filters = min(columns, y.shape[3] - p0 * width)
        _output_tiles(m, mplane, columns, tiles, first, last, p0 * width, filters, bias, floor, y, patch, work)


@njit
def plane_size(n):
    """no multiple of 4096 bytes"""
    return -(-n // 1024) * 1024 + 16


@njit(forceinline=True)
def cut_memory(memory, a, b, c, d):
    return memory[:a], memory[a:a + b], memory[a + b:a + b + c], memory[a + b + c:a + b + c + d]


def conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
) -> Array:
    cache = {} if cache is None else cache
    if "winograd" not in cache:
        cache["winograd"] = transform_filters(kernel)
    y = np.empty((x.shape[0], *geometry.out_size, kernel.shape[3]), x.dtype)
    floor = np.array([0.0 if activation == "relu" else -np.inf], x.dtype)
    return _correlate(x, cache["winograd"], bias, floor, geometry.pads, y)


def conv2d_input_gradient(g, kernel, geometry, cache=None):
    cache = {} if cache is None else cache
    if "winograd_input_gradient" not in cache:
        cache["winograd_input_gradient"] = transform_filters(np.ascontiguousarray(kernel[::-1, ::-1].swapaxes(2, 3)))
    dx = np.empty((g.shape[0], *geometry.size, kernel.shape[2]), g.dtype)
    top, _, left, _ = geometry.pads
    return _correlate(g, cache["winograd_input_gradient"], None, no_floor(g.dtype), (2 - top, 0, 2 - left, 0), dx)


def _correlate(x, u, bias, floor, pads, y):
    channels, filters = x.shape[3], y.shape[3]
    panels, width = u.shape[1], u.shape[3]
    shift = np.zeros(panels * width, x.dtype)
    if bias is not None:
        shift[:filters] = bias
    padded = round_up(channels, width // 2)
    tiles = (-(-y.shape[1] // 4), -(-y.shape[2] // 4))
    total = x.shape[0] * tiles[0] * tiles[1]
    longest = max(24, BLOCK_BYTES // (36 * padded * x.itemsize))
    blocks = cut(total, -(-total // longest))
    groups = cut(panels, -(-JOBS // len(blocks)))
    jobs = [(block, group) for group in groups for block in blocks]
    kept = FILTERS

    def job(index):
        (first, last), (start, stop) = jobs[index]
        count = last - first
        slices = np.array(cut(stop - start, -(-(stop - start) * width // kept))) + start
        k = min(kept, (stop-start) * width)
        size = width * 18 + 36 * max(padded, k) + 36 * plane_size(count * padded) + 36 * plane_size(count * k)
        _correlate_block(x, pads[0], pads[2], u, shift, floor, y, tiles, first, last, slices, k, scratch(size, x.dtype), WHAT)

    share_out(job, len(jobs))
    return y


def conv2d_kernel_gradient(x, g, geometry):
    channels, filters = x.shape[3], g.shape[3]
    width = panel_width(x.dtype)
    tiles = (-(-g.shape[1] // 4), -(-g.shape[2] // 4))
    total = x.shape[0] * tiles[0] * tiles[1]
    pieces = [(a, b) for a in cut(channels, -(-channels // SIDE)) for b in cut(filters, -(-filters // SIDE))]
    parts = cut(total, -(-JOBS // len(pieces)))
    jobs = [(i, *piece) for i in range(len(parts)) for piece in pieces]
    sums = np.empty((len(parts), 3, 3, channels, filters), x.dtype)

    def job(index):
        part, (c, c1), (f, f1) = jobs[index]
        first, last = parts[part]
        cc, ff = round_up(c1 - c, width // 2), round_up(f1 - f, width)
        longest = max(24, BLOCK_BYTES // (36 * (cc + ff) * x.itemsize))
        n = -(-(last - first) // longest)
        longest = -(-(last - first) // n)
        blocks = np.array(cut(last - first, n)) + first
        size = 36 * (width // 2 + max(cc, ff) + plane_size(longest * cc) + plane_size(longest * ff) + plane_size(round_up(cc, 6) * ff))
        _kernel_block(x, geometry.pads[0], geometry.pads[2], g, tiles, blocks, longest, c, c1 - c, f, f1 - f, G, sums[part], scratch(size, x.dtype))

    share_out(job, len(jobs))
    total_ = np.zeros((3, 3, channels, filters), x.dtype)
    for partial in sums:
        total_ += partial
    return total_


@njit(nogil=True)
def _kernel_block(x, top, left, g, tiles, blocks, longest, c, channels, f, filters, gm, dk, memory):
    vector = lanes(x)
    width = 2 * vector
    cc = -(-channels // vector) * vector
    ff = -(-filters // width) * width
    vplane, zplane, uplane = plane_size(longest * cc), plane_size(longest * ff), plane_size((cc + 5) // 6 * 6 * ff)
    work, patch, v, rest = cut_memory(memory, 36 * vector, 36 * max(cc, ff), 36 * vplane, 36 * (zplane + uplane))
    z = rest[:36 * zplane]
    u = rest[36 * zplane:]
    u[:] = 0
    v36, z36, u36 = v.reshape(36, vplane), z.reshape(36, zplane), u.reshape(36, uplane)
    rows = np.arange(channels)
    none = np.full(1, -np.inf, x.dtype)
    for b in range(len(blocks)):
        first, last = blocks[b]
        count = last - first
        _input_tiles(x, top, left, tiles, first, last, c, channels, v, vplane, patch, work)
        _gradient_tiles(g, tiles, first, last, f, filters, z, zplane, patch, work)
        for k in range(36):
            panels = z36[k][:count * ff].reshape(ff // width, count, width)
            multiply(v36[k], rows, cc, 1, 0, panels, u36[k], ff, none, u36[k], ff)
    # G^T u G
    for ch in range(channels):
        for a in range(3):
            for b_ in range(3):
                for k in range(filters):
                    dk[a, b_, c + ch, f + k] = 0
                for i in range(6):
                    for j in range(6):
                        s = gm[i, a] * gm[j, b_]
                        if s != 0:
                            for k in range(filters):
                                dk[a, b_, c + ch, f + k] += s * u36[6 * i + j, ch * ff + k]


def transform_filters(kernel: Array) -> Array:
    channels, filters = kernel.shape[2:]
    width = panel_width(kernel.dtype)
    u = np.empty((36, -(-filters // width), channels, width), kernel.dtype)
    jobs = cut(u.shape[1], JOBS)
    share_out(lambda i: _filter_panels(kernel, G, *jobs[i], u), len(jobs))
    return u


@njit(nogil=True)
def _filter_panels(kernel, gm, first, last, u):
    channels, filters = kernel.shape[2:]
    width = u.shape[3]
    half = np.zeros((6, 3, width))
    for p in range(first, last):
        used = min(width, filters - p * width)
        half[:] = 0
        for c in range(channels):
            for i in range(6):
                for b in range(3):
                    for f in range(used):
                        k = p * width + f
                        half[i, b, f] = gm[i, 0] * kernel[0, b, c, k] + gm[i, 1] * kernel[1, b, c, k] + gm[i, 2] * kernel[2, b, c, k]
            for i in range(6):
                for j in range(6):
                    for f in range(width):
                        u[6 * i + j, p, c, f] = half[i, 0, f] * gm[j, 0] + half[i, 1, f] * gm[j, 1] + half[i, 2, f] * gm[j, 2]
