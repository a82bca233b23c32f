"""Convolution of few channels: the matrix product reads the windows where they lie.

im2col writes down what every window sees, KH*KW*C numbers each, only for a matrix product to read
it. Where C is small, as for images of 3 colours, that costs more than the product. But a window
lies in memory as KH runs of KW*C neighbouring numbers, one in each row of the padded image, and
the product in `gemm.py` takes rows that are made of runs. So this file only pads a few lines of
an image at a time, and tells the product where each window begins.

    y[place, f] = bias[f] + sum over k of window[place, k] * kernel[k, f]      k = (kh, kw, c)

The gradient to the kernel is the transposed product, in which the same numbers are other rows: row
k begins at number k of the first window, and steps from window to window. Zhang, Franchetti & Low
2018 (arXiv 1809.10170), 'High Performance Zero-Memory Overhead Direct Convolutions', argue for it.
"""

import numpy as np

from minitl.kernels.fast import gemm
from minitl.kernels.geometry import Geometry
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.memory import empty, scratch_arrays
from minitl.kernels.machine.simd import lanes
from minitl.kernels.machine.team import share, together
from minitl.kernels.machine.threads import (
    FEWEST_PRODUCTS,
    PARTS,
    added_up,
    cut,
    cut_falling,
    share_out,
    thread_count,
)

BLOCK = 2**16  # numbers of y or g in a block: they stay in the cache while panel after panel passes


def conv2d(x, kernel, bias, geometry, activation=None, cache=None, recorded=False, precise=False):
    """`reference.conv2d`; keeps the packed kernel in `cache`, and does not use `recorded`."""
    filters, dtype = kernel.shape[3], np.dtype(np.float64) if precise else x.dtype
    panels = gemm.packed(kernel.reshape(-1, filters), dtype, cache)
    shift, bounds = gemm.shift_of(bias, filters, dtype), gemm.bounds_of(activation, dtype)
    y = empty((x.shape[0], *geometry.out_size, filters), x.dtype)
    lines, size = _block(geometry, x.shape[3], filters)
    ranges = cut_falling(x.shape[0] * geometry.out_size[0], lines)
    (images,) = scratch_arrays(dtype, (thread_count(), size))
    jobs = np.array(ranges, np.int64).reshape(-1, 2)
    together(_convolve, x, panels, (shift, bounds), geometry, lines, jobs, images, y)
    return y


def conv2d_kernel_gradient(x, g, geometry):
    """`reference.conv2d_kernel_gradient`: dkernel[k, f] = sum over places of window[place, k] *
    g[place, f], cut into ranges of lines that depend on the shapes only, and those into blocks."""
    (images, oh, ow, filters), (kh, kw), channels = g.shape, geometry.window, x.shape[3]
    taps, columns = kh * kw * channels, gemm.round_up(filters, gemm.panel_width(x.dtype))
    lines, size = _block(geometry, channels, columns)
    ranges = cut(images * oh, max(1, min(PARTS, g.size * taps // FEWEST_PRODUCTS)))
    sums, rows_of_g = np.zeros((len(ranges), taps, columns), x.dtype), g.reshape(-1, filters)

    def job(index: int) -> None:
        memory = scratch_arrays(x.dtype, (size,), (lines * ow * columns,), (taps * columns,))
        _sum_lines(x, rows_of_g, geometry, *ranges[index], lines, memory, sums[index])

    share_out(job, len(ranges))
    return added_up(sums)[:, :filters].reshape(kh, kw, channels, filters).copy()


@compiled
def _sum_lines(x, g, geometry, first, last, lines, memory, total):
    """total (K, columns) += windows.T @ g, for g (places, F), over the lines first ... last-1;
    `memory` is for rows of the padded image, a block of g in panels, and what it adds."""
    ow, kw, (sh, sw) = geometry.out_size[1], geometry.window[1], geometry.strides
    channels, filters, (taps, columns) = x.shape[3], g.shape[1], total.shape
    row, width = _row_length(geometry, channels), 2 * lanes(g)
    rows = np.empty(taps, np.int64)  # where each tap of the first window lies
    for i in range(taps):
        rows[i] = i // (kw * channels) * row + i % (kw * channels)
    (image, packed, share), line = memory, first
    while line < last:
        count = _pad(x, line, min(lines, last - line), geometry, image)
        places = count * ow
        panels = packed[: places * columns].reshape(columns // width, places, width)
        for p in range(columns // width):
            used = min(width, filters - p * width)
            for i in range(places):
                for f in range(used):
                    panels[p, i, f] = g[line * ow + i, p * width + f]
                for f in range(used, width):
                    panels[p, i, f] = 0
        a = gemm.Rows(image, rows, sw * channels, count, sh * row)
        gemm.multiply(a, panels, 0, None, 0, None, share, columns)
        for k in range(taps):
            for f in range(columns):
                total[k, f] += share[k * columns + f]
        line += count


def _block(geometry: Geometry, channels: int, width: int) -> tuple[int, int]:
    """How many lines of y to compute at a time, so that they fit BLOCK; and how many numbers of the
    padded image they need."""
    oh, ow = geometry.out_size
    lines = max(1, min(oh, BLOCK // (ow * width)))
    rows = (lines - 1) * geometry.strides[0] + geometry.window[0]
    return lines, rows * row_length(geometry, channels)


def row_length(geometry, channels):
    """Numbers in a row of the padded image, as far as windows reach."""
    return ((geometry.out_size[1] - 1) * geometry.strides[1] + geometry.window[1]) * channels


_row_length = inner(row_length)  # Python calls the other: what is not kept, each process compiles


@compiled
def _convolve(x, panels, end, geometry, lines, jobs, images, y, board):
    given = x, panels, end, geometry, lines, jobs, images, y
    share(_convolve_lines, given, len(jobs), board)


@inner
def _convolve_lines(x, panels, end, geometry, lines, jobs, images, y, job, who):
    """y for the lines jobs[job]; `images` are memory for rows of the padded image."""
    (first, last), image, (shift, bounds) = jobs[job], images[who], end
    ow, kh, (sh, sw) = geometry.out_size[1], geometry.window[0], geometry.strides
    channels, filters, out = x.shape[3], y.shape[3], y.reshape(-1)
    row, line = _row_length(geometry, channels), first
    while line < last:
        count = _pad(x, line, min(lines, last - line), geometry, image)
        places = np.empty(count * ow, np.int64)  # where each window begins
        for i in range(count):
            for j in range(ow):
                places[i * ow + j] = i * sh * row + j * sw * channels
        piece = out[line * ow * filters : (line + count) * ow * filters]
        windows = gemm.Rows(image, places, None, kh, row)
        gemm.multiply(windows, panels, 0, shift, 0, bounds, piece, filters)
        line += count


@inner
def _pad(x, line, lines, geometry, image):
    """What the windows of lines see, zeros included; returns how many, up to the image's end."""
    (_, height, width, channels), oh = x.shape, geometry.out_size[0]
    n, first, at, row = line // oh, line % oh, 0, _row_length(geometry, channels)
    count = min(lines, oh - first)
    for i in range((count - 1) * geometry.strides[0] + geometry.window[0]):
        h = first * geometry.strides[0] + i - geometry.pads[0]
        begin = end = 0  # of the numbers that are pixels
        if 0 <= h < height:
            begin = min(row, geometry.pads[2] * channels)
            end = min(row, begin + width * channels)
        image[at : at + begin] = 0
        image[at + end : at + row] = 0
        pixels = x[n, h].reshape(-1)
        for j in range(end - begin):
            image[at + begin + j] = pixels[j]
        at += row
    return count
