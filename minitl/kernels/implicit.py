"""Direct convolution without columns: the matrix product reads the windows where they lie.

im2col writes down what every window sees, KH*KW*C numbers each, only for a matrix product to read
it once. But a window lies in memory as KH runs of KW*C neighbouring numbers, one in each row of
the padded image, and the product in `gemm.py` takes rows that are made of runs. So this file only
pads a few lines of an image at a time, tells the product where each window begins, and has the
convolution; bias and ReLU happen while the sums are still in registers.

    y[place, f]   = bias[f] + sum over k of window[place, k] * kernel[k, f]      k = (kh, kw, c)
    dkernel[k, f] = sum over places of window[place, k] * g[place, f]
    dx            = convolution of g, stretched by the strides, with the kernel turned by 180
                    degrees, C and F swapped

In the second, A of the product is transposed: row k starts at the k-th number of the first window
and steps from window to window. In the third, stride S puts S - 1 zeros between neighbours of g,
and S*S times too many products are made. Zhang, Franchetti & Low 2018 (arXiv 1809.10170), 'High
Performance Zero-Memory Overhead Direct Convolutions', makes the case for convolving in place.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from minitl.kernels.gemm import multiply, no_floor, pack, panel_width, round_up
from minitl.kernels.geometry import Geometry
from minitl.kernels.reference import Array
from minitl.kernels.simd import lanes
from minitl.kernels.threads import cut, scratch, share_out

# Numbers of y, or of g, in a block: 32k float32 are 128 KiB and stay in the second cache while
# panel after panel of the kernel passes.
BLOCK = 2**16
JOBS = 16  # at least, of whole lines: the last to finish is late by less than 1/16


def conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
) -> Array:
    """`reference.conv2d`; `cache` is not used."""
    floor = np.array([0.0 if activation == "relu" else -np.inf], x.dtype)
    return _correlate(x, kernel, bias, floor, geometry, (1, 1))


def conv2d_input_gradient(
    g: Array, kernel: Array, geometry: Geometry, cache: dict | None = None
) -> Array:
    """`reference.conv2d_input_gradient`; `cache` is not used."""
    (kh, kw), (top, _, left, _) = geometry.window, geometry.pads
    pads = (kh - 1 - top, 0, kw - 1 - left, 0)  # as much as is needed follows at the other ends
    backwards = Geometry(geometry.out_size, (kh, kw), (1, 1), pads, geometry.size)
    turned = np.ascontiguousarray(kernel[::-1, ::-1].swapaxes(2, 3))  # (KH, KW, F, C)
    return _correlate(g, turned, None, no_floor(g.dtype), backwards, geometry.strides)


def conv2d_kernel_gradient(x: Array, g: Array, geometry: Geometry) -> Array:
    """`reference.conv2d_kernel_gradient`.

    The lines are cut into a few ranges that depend on the shapes only; each has a sum of its own,
    and these are added in their order.
    """
    filters = g.shape[3]
    depth = geometry.window[0] * geometry.window[1] * x.shape[3]
    padded = round_up(filters, panel_width(x.dtype))
    lines = _lines_a_block(geometry, padded)
    ranges = cut(x.shape[0] * geometry.out_size[0], JOBS)
    sums = np.zeros((len(ranges), round_up(depth, 6), padded), x.dtype)

    def job(index: int) -> None:
        first, last = ranges[index]
        space = _padded_size(geometry, lines) * x.shape[3]
        memory = scratch(space + lines * geometry.out_size[1] * padded, x.dtype)
        image, panels = memory[:space], memory[space:]
        _kernel_block(x, g, geometry, first, last, lines, image, panels, sums[index])

    share_out(job, len(ranges))
    total = np.zeros(sums.shape[1:], x.dtype)
    for partial in sums:
        total += partial
    return total[:depth, :filters].reshape(*geometry.window, x.shape[3], filters)


def _correlate(x, kernel, bias, floor, geometry, stretch):
    """Convolution of x, with stretch - 1 zeros between its neighbours along H and W."""
    filters = kernel.shape[3]
    panels = pack(kernel.reshape(-1, filters))
    start = np.zeros(panels.shape[0] * panels.shape[2], x.dtype)
    if bias is not None:
        start[:filters] = bias
    y = np.empty((x.shape[0], *geometry.out_size, filters), x.dtype)
    lines = _lines_a_block(geometry, filters)
    ranges = cut(x.shape[0] * geometry.out_size[0], JOBS)

    def job(index: int) -> None:
        image = scratch(_padded_size(geometry, lines) * x.shape[3], x.dtype)
        first, last = ranges[index]
        _correlate_block(x, panels, start, floor, geometry, stretch, first, last, lines, image, y)

    share_out(job, len(ranges))
    return y


def _lines_a_block(geometry: Geometry, filters: int) -> int:
    """How many lines (of OW windows) a block may have: its share of y has about BLOCK numbers."""
    rows, columns = geometry.out_size
    return min(rows, max(1, BLOCK // (columns * filters)))


def _padded_size(geometry: Geometry, lines: int) -> int:
    """Places (H x W) of the padded image that `lines` lines of windows see."""
    (kh, kw), (sh, sw) = geometry.window, geometry.strides
    return ((lines - 1) * sh + kh) * ((geometry.out_size[1] - 1) * sw + kw)


@njit(nogil=True, cache=True)
def _correlate_block(x, panels, start, floor, geometry, stretch, first, last, lines, image, y):
    """y for the lines first ... last-1; `image` is memory for the padded image."""
    (oh, ow), (kh, kw), (sh, sw) = geometry.out_size, geometry.window, geometry.strides
    channels, filters = x.shape[3], y.shape[3]
    row = ((ow - 1) * sw + kw) * channels  # of the padded image
    out = y.reshape(-1)
    line = first
    while line < last:
        n, h = line // oh, line % oh
        count = min(lines, last - line, oh - h)
        _pad(x, n, h, count, geometry, stretch, image)
        places = _window_places(count, ow, sh * row, sw * channels)
        piece = out[line * ow * filters : (line + count) * ow * filters]
        multiply(image, places, 1, kh, row, panels, start, 0, floor, piece, filters)
        line += count


@njit(nogil=True, cache=True)
def _kernel_block(x, g, geometry, first, last, lines, image, panels, dkernel):
    """Add the share of the lines first ... last-1 to dkernel (K rounded up, F rounded up)."""
    (oh, ow), (kh, kw), (sh, sw) = geometry.out_size, geometry.window, geometry.strides
    channels, padded = x.shape[3], dkernel.shape[1]
    width = 2 * lanes(x)
    row = ((ow - 1) * sw + kw) * channels
    places = _window_places(kh, kw * channels, row, 1)
    none = np.full(1, -np.inf, x.dtype)
    total = dkernel.reshape(-1)
    line = first
    while line < last:
        n, h = line // oh, line % oh
        count = min(lines, last - line, oh - h)
        _pad(x, n, h, count, geometry, (1, 1), image)
        right = panels[: count * ow * padded].reshape(padded // width, count * ow, width)
        _pack_lines(g, n, h, count, right)
        multiply(
            image, places, sw * channels, count, sh * row, right, total, padded, none, total, padded
        )
        line += count


@njit
def _window_places(lines, columns, row_step, column_step):
    """Where window (line, column) begins, for all of them."""
    places = np.empty(lines * columns, np.int64)
    for i in range(lines):
        for j in range(columns):
            places[i * columns + j] = i * row_step + j * column_step
    return places


@njit
def _pad(x, n, line, lines, geometry, stretch, image):
    """What the windows of some lines of image n see, zeros included, as rows of `image`."""
    (kh, kw), (sh, sw) = geometry.window, geometry.strides
    height, width, channels = x.shape[1:]
    at = 0
    for i in range((lines - 1) * sh + kh):
        h = line * sh + i - geometry.pads[0]
        for j in range((geometry.out_size[1] - 1) * sw + kw):
            w = j - geometry.pads[2]
            seen = h % stretch[0] == 0 and w % stretch[1] == 0
            if seen and 0 <= h // stretch[0] < height and 0 <= w // stretch[1] < width:
                for c in range(channels):
                    image[at + c] = x[n, h // stretch[0], w // stretch[1], c]
            else:
                for c in range(channels):
                    image[at + c] = 0
            at += channels


@njit
def _pack_lines(g, n, line, lines, panels):
    """Lines of g[n] as panels (count, lines * OW, width), zeros after the last filter."""
    width, filters = panels.shape[2], g.shape[3]
    for p in range(panels.shape[0]):
        for i in range(lines):
            for j in range(g.shape[2]):
                for k in range(width):
                    f = p * width + k
                    panels[p, i * g.shape[2] + j, k] = g[n, line + i, j, f] if f < filters else 0
