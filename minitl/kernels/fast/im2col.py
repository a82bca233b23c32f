"""Convolution as a matrix product (im2col), for any window, stride and padding.

Write the KH*KW*C numbers that a window sees as one row, for all places of the window one below
the other, and convolution is `columns @ kernel`: a product that BLAS runs at the speed of the
machine. (The matrix got its name where each window was a column.) All of it would be KH*KW times
the size of the input, so it is made and used up in blocks of a few MB, which stay in the cache.
Both gradients are products with the same matrix or into it:

    y       = columns(x) @ kernel              (rows, K) @ (K, F)       rows = N*OH*OW
    dkernel = columns(x).T @ g                 (K, rows) @ (rows, F)    K = KH*KW*C
    dx      = columns_adjoint(g @ kernel.T)    (rows, F) @ (F, K)

Work is shared out in tiles: a range of lines (a line is the OW windows of one row of one image;
there are N*OH) by a range of filters or channels. Chellapilla, Puri & Simard 2006, 'High
Performance Convolutional Neural Networks for Document Processing', section 3.
"""

from __future__ import annotations

import numpy as np

from minitl.kernels.fast.pointwise import add_bias
from minitl.kernels.geometry import Array, Geometry
from minitl.kernels.machine.compiling import compiled
from minitl.kernels.machine.memory import empty, scratch
from minitl.kernels.machine.threads import (
    FEWEST_PRODUCTS,
    PARTS,
    Range,
    cut,
    cut_product,
    share_out,
)
from minitl.kernels.reference import in_float64

# Block of columns, for each thread. Measured on VGG16, batch 8, ms an image: 1 MiB 259, 4 MiB 246,
# 8 MiB 243; memory is worth more than the last per cent.
BLOCK_BYTES = 4 * 2**20


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
    """`reference.conv2d`; `cache` and `recorded` are not used, and `precise` makes copies."""
    if precise:
        return in_float64(conv2d, x, kernel, bias, geometry, activation)
    filters, (oh, ow) = kernel.shape[3], geometry.out_size
    weights = kernel.reshape(-1, filters)  # (K, F)
    lines = x.shape[0] * oh
    y = empty((x.shape[0], oh, ow, filters), x.dtype)
    rows = y.reshape(-1, filters)  # (N*OH*OW, F), a view
    longest = _longest_block(geometry, weights.shape[0] * x.itemsize)
    tiles = cut_product(lines, ow, weights.shape[0], filters, longest)

    def tile(index: int) -> None:
        first, last, left, right = tiles[index]
        columns = _columns(x, geometry, first, last)
        out = rows[first * ow : last * ow, left:right]
        np.matmul(columns, weights[:, left:right], out=out)  # (rows, K) @ (K, F)
        add_bias(rows, bias, activation, first * ow, last * ow, left, right)

    share_out(tile, len(tiles), multiplies=True)
    return y


def conv2d_input_gradient(
    g: Array, kernel: Array, geometry: Geometry, cache: dict | None = None
) -> Array:
    """`reference.conv2d_input_gradient`; `cache` is not used.

    Windows overlap, so a tile has whole images (or a range of their channels) to itself.
    """
    (images, oh, ow, filters), channels = g.shape, kernel.shape[2]
    dx = np.zeros((images, *geometry.size, channels), g.dtype)
    rows = g.reshape(-1, filters)  # (N*OH*OW, F), a view
    longest = _longest_block(geometry, kernel[..., 0].size * g.itemsize)
    depth = filters * geometry.window[0] * geometry.window[1]
    tiles = cut_product(images, oh * ow, depth, channels, max(1, longest // oh))

    def tile(index: int) -> None:
        first_image, last_image, left, right = tiles[index]
        weights = kernel[:, :, left:right].reshape(-1, filters)  # (K, F); a copy if not all of C
        for first, last in _blocks(first_image * oh, last_image * oh, longest):
            size = (last - first) * ow * weights.shape[0]
            dcolumns = scratch(size, g.dtype).reshape(-1, weights.shape[0])
            np.matmul(rows[first * ow : last * ow], weights.T, out=dcolumns)  # (rows, F) @ (F, K)
            places = dcolumns.reshape(-1, *geometry.window, right - left)
            _add_columns(places, geometry, first, last, left, dx)

    share_out(tile, len(tiles), multiplies=True)
    return dx


def conv2d_kernel_gradient(x: Array, g: Array, geometry: Geometry) -> Array:
    """`reference.conv2d_kernel_gradient`.

    The sum over all rows is cut into a few ranges of lines, each with a sum of its own, which are
    added in a fixed order at the end.
    """
    (images, oh, ow, filters), channels = g.shape, x.shape[3]
    rows = g.reshape(-1, filters)  # (N*OH*OW, F), a view
    depth = geometry.window[0] * geometry.window[1] * channels  # K
    longest = _longest_block(geometry, depth * x.itemsize)
    panels = cut(filters, -(-filters // 128))
    parts = max(1, min(PARTS // len(panels), rows.size * depth // FEWEST_PRODUCTS))
    ranges = cut(images * oh, parts)
    tiles = [(part, left, right) for part in range(len(ranges)) for left, right in panels]
    sums = np.zeros((len(ranges), depth, filters), x.dtype)

    def tile(index: int) -> None:
        part, left, right = tiles[index]
        for first, last in _blocks(*ranges[part], longest):
            columns = _columns(x, geometry, first, last)
            share = rows[first * ow : last * ow, left:right]
            sums[part, :, left:right] += columns.T @ share  # (K, rows) @ (rows, F)

    share_out(tile, len(tiles), multiplies=True)
    total = np.zeros((depth, filters), x.dtype)
    for partial in sums:
        total += partial
    return total.reshape(*geometry.window, channels, filters)


# --- Columns -------------------------------------------------------------------------------------


def _columns(x: Array, geometry: Geometry, first: int, last: int) -> Array:
    """What the windows of the lines first ... last-1 see, one row each: (lines*OW, KH*KW*C).

    The array is this thread's scratch, good until the next call; for a 1x1 window with stride 1
    it is a view of x, which needs no copy.
    """
    ow, channels = geometry.out_size[1], x.shape[3]
    if geometry.window == (1, 1) and geometry.out_size == geometry.size:
        return x.reshape(-1, channels)[first * ow : last * ow]
    shape = ((last - first) * ow, *geometry.window, channels)
    columns = scratch(int(np.prod(shape)), x.dtype).reshape(shape)
    _copy_columns(x, geometry, first, last, columns)
    return columns.reshape(shape[0], -1)


@compiled
def _copy_columns(x, geometry, first, last, columns):
    """columns[row, kh, kw, c] = padded[n, oh*SH + kh, ow*SW + kw, c], row = one (n, oh, ow).

    Plain loops with all indices written out: the compiler turns the innermost into one block
    copy, at 20-30 GB/s; copying slices of flat arrays was five times slower.
    """
    (height, width), (sh, sw) = geometry.size, geometry.strides
    top, left = geometry.pads[0], geometry.pads[2]
    row = 0
    for line in range(first, last):
        n, oh = divmod(line, geometry.out_size[0])
        for ow in range(geometry.out_size[1]):
            for kh in range(geometry.window[0]):
                h = oh * sh + kh - top
                for kw in range(geometry.window[1]):
                    w = ow * sw + kw - left
                    if 0 <= h < height and 0 <= w < width:
                        for c in range(x.shape[3]):
                            columns[row, kh, kw, c] = x[n, h, w, c]
                    else:
                        for c in range(x.shape[3]):
                            columns[row, kh, kw, c] = 0
            row += 1


@compiled
def _add_columns(columns, geometry, first, last, channel, dx):
    """The adjoint: dx[n, oh*SH + kh - top, ow*SW + kw - left, channel + c] += columns[row, ...]."""
    (height, width), (sh, sw) = geometry.size, geometry.strides
    top, left = geometry.pads[0], geometry.pads[2]
    row = 0
    for line in range(first, last):
        n, oh = divmod(line, geometry.out_size[0])
        for ow in range(geometry.out_size[1]):
            for kh in range(geometry.window[0]):
                h = oh * sh + kh - top
                for kw in range(geometry.window[1]):
                    w = ow * sw + kw - left
                    if 0 <= h < height and 0 <= w < width:
                        target = dx[n, h, w, channel:]
                        for c in range(columns.shape[3]):
                            target[c] += columns[row, kh, kw, c]
            row += 1


# --- Blocks --------------------------------------------------------------------------------------


def _longest_block(geometry: Geometry, row_bytes: int) -> int:
    """How many lines of columns, at `row_bytes` a row, fit into a block; at least one."""
    return max(1, BLOCK_BYTES // (geometry.out_size[1] * row_bytes))


def _blocks(first: int, last: int, longest: int) -> list[Range]:
    """first ... last in equal ranges, none longer than `longest`."""
    count = -(-(last - first) // longest)
    return [(first + a, first + b) for a, b in cut(last - first, count)]
