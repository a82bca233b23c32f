"""Convolution as a matrix product (im2col), for any window, stride and padding.

Write the KH*KW*C numbers that a window sees as one row, for all places of the window one below
the other (or as columns, hence the name), and convolution is `columns @ kernel`. That is KH*KW
times the size of the input, so it is made and used up in blocks that stay in the cache. Both
gradients are products with the same matrix or into it:

    y       = columns(x) @ kernel              (rows, K) @ (K, F)       rows = N*OH*OW
    dkernel = columns(x).T @ g                 (K, rows) @ (rows, F)    K = KH*KW*C
    dx      = columns_adjoint(g @ kernel.T)    (rows, F) @ (F, K)

Work is shared out in tiles: a range of lines (a line is the OW windows of one row of one image;
there are N*OH) by a range of filters or channels. Chellapilla, Puri & Simard 2006, 'High
Performance Convolutional Neural Networks for Document Processing', section 3.
"""

import numpy as np

from minitl.kernels.fast.pointwise import add_bias
from minitl.kernels.geometry import Array, Geometry
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.memory import empty, scratch
from minitl.kernels.machine.threads import (
    FEWEST_PRODUCTS,
    PARTS,
    added_up,
    cut,
    cut_at_most,
    cut_product,
    share_out,
)
from minitl.kernels.reference import in_float64

BLOCK_BYTES = 4 * 2**20  # of columns, for each thread; with 1 MiB VGG16 takes 5 per cent longer


def conv2d(x, kernel, bias, geometry, activation=None, cache=None, recorded=False, precise=False):
    """`reference.conv2d`; `cache` and `recorded` are not used, and `precise` makes copies."""
    if precise:
        return in_float64(conv2d, x, kernel, bias, geometry, activation)
    filters, (oh, ow) = kernel.shape[3], geometry.out_size
    weights = kernel.reshape(-1, filters)  # (K, F)
    y = empty((x.shape[0], oh, ow, filters), x.dtype)
    rows = y.reshape(-1, filters)  # (N*OH*OW, F), a view
    longest = _longest_block(geometry, weights.shape[0] * x.itemsize)
    tiles = cut_product(x.shape[0] * oh, ow, weights.shape[0], filters, longest)

    def tile(index: int) -> None:
        first, last, left, right = tiles[index]
        columns = _columns(x, geometry, first, last)
        out = rows[first * ow : last * ow, left:right]
        np.matmul(columns, weights[:, left:right], out=out)  # (rows, K) @ (K, F)
        add_bias(rows, bias, activation, (first * ow, last * ow), (left, right))

    share_out(tile, len(tiles), multiplies=True)
    return y


def conv2d_input_gradient(g, kernel, geometry, cache=None):
    """As windows overlap, a tile has whole images (or a range of their channels) to itself."""
    (images, oh, ow, filters), channels = g.shape, kernel.shape[2]
    dx = np.zeros((images, *geometry.size, channels), g.dtype)
    rows = g.reshape(-1, filters)  # (N*OH*OW, F), a view
    longest = _longest_block(geometry, kernel[..., 0].size * g.itemsize)
    tiles = cut_product(images, oh * ow, kernel[:, :, 0].size, channels, max(1, longest // oh))

    def tile(index: int) -> None:
        first_image, last_image, left, right = tiles[index]
        weights = kernel[:, :, left:right].reshape(-1, filters)  # (K, F); a copy if not all of C
        for first, last in cut_at_most((last_image - first_image) * oh, longest, first_image * oh):
            size = (last - first) * ow * weights.shape[0]
            dcolumns = scratch(size, g.dtype).reshape(-1, weights.shape[0])
            np.matmul(rows[first * ow : last * ow], weights.T, out=dcolumns)  # (rows, F) @ (F, K)
            places = dcolumns.reshape(-1, *geometry.window, right - left)
            _add_columns(places, geometry, first, last, left, dx)

    share_out(tile, len(tiles), multiplies=True)
    return dx


def conv2d_kernel_gradient(x, g, geometry):
    """The sum over all rows is cut into ranges of lines, whose sums are added in a fixed order."""
    (images, oh, ow, filters), channels = g.shape, x.shape[3]
    rows = g.reshape(-1, filters)  # (N*OH*OW, F), a view
    depth = geometry.window[0] * geometry.window[1] * channels  # K
    longest = _longest_block(geometry, depth * x.itemsize)
    panels = cut_at_most(filters, 128)
    parts = max(1, min(PARTS // len(panels), rows.size * depth // FEWEST_PRODUCTS))
    ranges = cut(images * oh, parts)
    tiles = [(part, left, right) for part in range(len(ranges)) for left, right in panels]
    sums = np.zeros((len(ranges), depth, filters), x.dtype)

    def tile(index: int) -> None:
        part, left, right = tiles[index]
        start, stop = ranges[part]
        for first, last in cut_at_most(stop - start, longest, start):
            columns = _columns(x, geometry, first, last)
            share = rows[first * ow : last * ow, left:right]
            sums[part, :, left:right] += columns.T @ share  # (K, rows) @ (rows, F)

    share_out(tile, len(tiles), multiplies=True)
    return added_up(sums).reshape(*geometry.window, channels, filters)


def _columns(x: Array, geometry: Geometry, first: int, last: int) -> Array:
    """What the windows of the lines first ... last-1 see, one row each: (lines*OW, KH*KW*C); this
    thread's scratch, good until the next call, or, for a 1x1 window with stride 1, a view of x."""
    ow, channels = geometry.out_size[1], x.shape[3]
    if geometry.window == (1, 1) and geometry.out_size == geometry.size:
        return x.reshape(-1, channels)[first * ow : last * ow]
    shape = ((last - first) * ow, *geometry.window, channels)
    columns = scratch(int(np.prod(shape)), x.dtype).reshape(shape)
    _copy_columns(x, geometry, first, last, columns)
    return columns.reshape(shape[0], -1)


@compiled
def _copy_columns(x, geometry, first, last, columns):
    """columns[row, kh, kw, c] = padded[n, oh*SH + kh, ow*SW + kw, c], row = one (n, oh, ow); with
    all indices written out, the innermost loop becomes one block copy, five times as fast."""
    for line in range(first, last):
        for ow in range(geometry.out_size[1]):
            row = (line - first) * geometry.out_size[1] + ow
            n, top, left = _corner(line, ow, geometry)
            for kh in range(geometry.window[0]):
                for kw in range(geometry.window[1]):
                    h, w = top + kh, left + kw
                    if 0 <= h < geometry.size[0] and 0 <= w < geometry.size[1]:
                        for c in range(x.shape[3]):
                            columns[row, kh, kw, c] = x[n, h, w, c]
                    else:
                        for c in range(x.shape[3]):
                            columns[row, kh, kw, c] = 0


@compiled
def _add_columns(columns, geometry, first, last, channel, dx):
    """The adjoint: dx[n, oh*SH + kh - top, ow*SW + kw - left, channel + c] += columns[row, ...]."""
    for line in range(first, last):
        for ow in range(geometry.out_size[1]):
            row = (line - first) * geometry.out_size[1] + ow
            n, top, left = _corner(line, ow, geometry)
            for kh in range(geometry.window[0]):
                for kw in range(geometry.window[1]):
                    h, w = top + kh, left + kw
                    if 0 <= h < geometry.size[0] and 0 <= w < geometry.size[1]:
                        target = dx[n, h, w, channel:]
                        for c in range(columns.shape[3]):
                            target[c] += columns[row, kh, kw, c]


@inner
def _corner(line, ow, geometry):
    """Image, and first row and column in it, of the window at (line, ow)."""
    n, oh = divmod(line, geometry.out_size[0])
    top, left = geometry.pads[0], geometry.pads[2]
    return n, oh * geometry.strides[0] - top, ow * geometry.strides[1] - left


def _longest_block(geometry: Geometry, row_bytes: int) -> int:
    """How many lines of columns, at `row_bytes` a row, fit into a block; at least one."""
    return max(1, BLOCK_BYTES // (geometry.out_size[1] * row_bytes))
