"""Winograd's transforms: from some tiles of x to their planes, and from planes to y.

`winograd.py` derives them. Here they are at work: a matrix acts on vectors of channels, each tile
has a place in the planes, and what lies outside of x counts as zero.
"""

from typing import Any, NamedTuple

import numpy as np

from minitl.kernels.fast.winograd_matrices import POINTS, edge_matrices, winograd_matrices
from minitl.kernels.geometry import Array
from minitl.kernels.machine import simd
from minitl.kernels.machine.compiling import inner, part
from minitl.kernels.machine.memory import ALIGNMENT

STRIP = 32  # places side by side whose tiles are transformed together
STREAMED = 2**21  # bytes of a y from which on it is written past the caches
# Memory that callers bring along:
STRIP_MEMORY = 2 * 8 * (STRIP + 2)  # numbers per channel: a strip, and what it is made from
WORK_MEMORY = 64 + 64  # vectors: between the two axes, and a tile that is done

# As a part of its caller, a function knows the axis and the size of tiles while it is compiled.
within = part(constants=True, forceinline=True, error_model="numpy")


def _at_edges(size: int, which: int) -> Any:
    """The axis of tiles of `size`, by how many of their outputs are wanted: A^T (0) or B^T (1)."""
    return simd.linear({n: edge_matrices(size, n)[which].T for n in range(size, 0, -2)})


_G, _A, _ = winograd_matrices(POINTS[4])
_LARGE_G, _, _ = winograd_matrices(POINTS[6])

# axis(key, x, at, step, y, out, out_step): a matrix acts on vectors along a line, `step` apart.
# By how many of a tile's outputs are wanted: A^T m, P -> M, and B^T d, P -> P.
output_axis, input_axis = _at_edges(4, 0), _at_edges(4, 1)
large_output_axis, large_input_axis = _at_edges(6, 0), _at_edges(6, 1)
# By the size of the tiles: G k, 3 -> P; A g, M -> P; G^T u, P -> 3.
filter_axis = simd.linear({4: _G, 6: _LARGE_G})
gradient_axis, kernel_axis = simd.linear({4: _A}), simd.linear({4: _G.T})


@within
def both_axes(axis, key, sizes, x, at, step, y, out, out_step, work):
    """`axis` along each column of a square of vectors in x, then along each row, into y; `sizes`
    are places along a side of it in x and y, and neighbours in a row are a step apart."""
    (inputs, outputs), vector = sizes, simd.lanes(y)
    for j in range(inputs):
        axis(key, x, at + j * step, inputs * step, work, j * vector, inputs * vector)
    for i in range(outputs):
        axis(key, work, i * inputs * vector, vector, y, out + i * outputs * out_step, out_step)


class Tiling(NamedTuple):
    """y (N, OH, OW, F) in square tiles, numbered row by row through all images."""

    size: int  # of a tile, 4 or 6
    rows: int  # of tiles in an image
    columns: int
    top: int  # padding of x, which a tile's piece of it may reach into
    left: int
    last_row: int  # how many places of the last row of tiles are computed: 2, 4 ... size
    last_column: int  # and of the last column


class Tiles(NamedTuple):
    """The tiles first ... last-1 of a tiling, and the place that each has in the planes."""

    tiling: Tiling
    first: int
    last: int
    places: Array


class Channels(NamedTuple):
    """Some channels of x, or filters of y."""

    first: int
    size: int


class Planes(NamedTuple):
    """Numbers (P * P, ...): in each plane, number k of the tile at `place` is element place *
    tile_step + k // panel * panel_step + k % panel, a panel being 2 vectors."""

    values: Array
    tile_step: int
    panel_step: int


@within
def _place(tiling, tile, side):
    """Image, and first row and column in it, of a tile that has side x side places there."""
    line = tile // tiling.columns
    return line // tiling.rows, line % tiling.rows * side, tile % tiling.columns * side


@within
def _computed(tiling, tile):
    """How many places of a tile are computed, along its columns and along its rows."""
    row, column = tile // tiling.columns % tiling.rows, tile % tiling.columns
    high = tiling.last_row if row == tiling.rows - 1 else tiling.size
    wide = tiling.last_column if column == tiling.columns - 1 else tiling.size
    return high, wide


@inner
def in_order(tiling, first, last):
    """A place for each of the tiles, by kind, and the places at which the kinds begin and the last
    ends: low and narrow (a tile at the edge that is not computed whole), narrow, whole, low. So the
    tiles that have a certain plane lie side by side; see `tiles_of_plane`."""
    kinds, starts = np.empty(last - first, np.int64), np.zeros(5, np.int64)
    for i in range(last - first):
        high, wide = _computed(tiling, first + i)
        low, narrow = high < tiling.size, wide < tiling.size
        kinds[i] = (0 if low else 1) if narrow else (3 if low else 2)
        starts[kinds[i] + 1] += 1
    for kind in range(4):
        starts[kind + 1] += starts[kind]
    places, free = np.empty(last - first, np.int64), np.zeros(4, np.int64)
    for i in range(last - first):
        places[i] = starts[kinds[i]] + free[kinds[i]]
        free[kinds[i]] += 1
    return places, starts


@within
def tiles_of_plane(tiling, plane, starts):
    """The places of the tiles that have this plane: those at an edge lack some points."""
    points = tiling.size + 2
    row = tiling.last_row < plane // points < points - 1  # whether low tiles lack it
    column = tiling.last_column < plane % points < points - 1  # whether narrow tiles lack it
    return starts[2 if column else 1 if row else 0], starts[3 if row else 4]


@inner
def _fetch(x, n, h, w, channels, rows, columns, patch, padded):
    """patch[i, j, :channels] = x[n, h + i, w + j, those channels], with zeros outside of x; by
    vectors, because of a plain loop Numba makes gathers, element by element."""
    _, height, width, depth = x.shape
    vector, c, count = simd.lanes(patch), channels.first, channels.size
    whole = count // vector * vector
    for i in range(rows):
        for j in range(columns):
            at = (i * columns + j) * padded
            if 0 <= h + i < height and 0 <= w + j < width:
                source = ((n * height + h + i) * width + w + j) * depth + c
                for k in range(0, whole, vector):
                    simd.store(patch, at + k, simd.load_as(x, source + k, patch))
                for k in range(whole, count):
                    patch[at + k] = x[n, h + i, w + j, c + k]
                patch[at + count : at + padded] = 0
            else:
                patch[at : at + padded] = 0


@within
def _to_planes(axis, size, side, x, tiles, channels, planes, memory):
    """planes = `axis` along both axes of each tile's side x side piece of x, for some channels;
    `size` is the tiling's, but a constant to the compiler.

    Tiles that lie side by side share columns, and rows of x are read fastest straight on: so a
    strip of them is transformed along its columns first, then tile by tile along the rows. What a
    tile at an edge leaves in the planes that it lacks is anything, and nobody reads it.
    """
    tiling, places, v = tiles.tiling, tiles.places, planes.values
    vector, plane, panel = simd.lanes(v), v.shape[1], 2 * simd.lanes(v)
    (_, height, width, depth), padded = x.shape, -(-channels.size // vector) * vector
    half = STRIP_MEMORY // 2 * padded
    strip, patch, flat = memory[:half], memory[half : 2 * half], x.reshape(-1)
    tile = tiles.first
    while tile < tiles.last:
        count = min(STRIP // size, tiles.last - tile, tiling.columns - tile % tiling.columns)
        columns = size * (count - 1) + side
        n, h, w = _place(tiling, tile, size)
        h, w, row = h - tiling.top, w - tiling.left, columns * padded
        high, _ = _computed(tiling, tile)
        # The short way, straight from x, is for whole tiles.
        inside = h >= 0 and h + side <= height and channels.size == padded and high == size
        if not inside:
            _fetch(x, n, h, w, channels, side, columns, patch, padded)
        for j in range(columns):
            at = j * padded
            if not inside:
                for k in range(at, at + padded, vector):
                    axis(high, patch, k, row, strip, k, row)
            elif 0 <= w + j < width:
                source = ((n * height + h) * width + w + j) * depth + channels.first
                for k in range(0, padded, vector):
                    axis(size, flat, source + k, width * depth, strip, at + k, row)
            else:
                for i in range(size + 2):
                    strip[i * row + at : i * row + at + padded] = 0
        for t in range(tile, tile + count):
            _, wide = _computed(tiling, t)
            start = places[t - tiles.first] * planes.tile_step
            for i in range(size + 2):
                at = i * row + size * (t - tile) * padded
                for k in range(0, padded, vector):
                    out = start + k // panel * planes.panel_step + k % panel
                    axis(wide, strip, at + k, padded, v, (size + 2) * i * plane + out, plane)
        tile += count


@inner
def input_tiles(x, tiles, four, six, channels, planes, strip):
    """planes = B^T d B for some tiles and channels of x, in one panel. Of `four` and `six`, the one
    that is not the tiles' size is None: so it is no part of what is compiled."""
    # Its step is a constant to the compiler: nothing is left to compute of it.
    planes = Planes(planes.values, planes.tile_step, 2 * simd.lanes(planes.values))
    if four is not None:
        _to_planes(input_axis, 4, 6, x, tiles, channels, planes, strip)
    if six is not None:
        _to_planes(large_input_axis, 6, 8, x, tiles, channels, planes, strip)


@inner
def gradient_tiles(g, tiles, filters, planes, strip):
    """planes = A g A^T for some tiles of 4 and filters of g."""
    _to_planes(gradient_axis, 4, 4, g, tiles, filters, planes, strip)


@within
def _largest_of_four(places, size):
    """Of size x size vectors, the largest of each 2x2, IN PLACE: they are the first ones then."""
    vector = simd.lanes(places)
    row = size * vector
    for i in range(size // 2):
        for j in range(size // 2):
            at = 2 * i * row + 2 * j * vector
            above = simd.larger(simd.load(places, at), simd.load(places, at + vector))
            below = simd.larger(simd.load(places, at + row), simd.load(places, at + row + vector))
            simd.store(places, (size // 2 * i + j) * vector, simd.larger(above, below))


@within
def _from_planes(axis, size, planes, tiles, filters, bias, floor, side, y, work):
    """See `output_tiles`; `axis` is A^T for tiles of `size`, a constant to the compiler.

    A store waits until its cache line has come from memory. So a large y of whole cache lines, each
    of which a vector fills, is written past the caches (64 -> 128 channels at 112x112: 9 per cent
    less). A tile's lines lie scattered, which no processor foresees: otherwise they are sent for
    one tile ahead (64 channels at 224x224: 0.67 ms per image instead of 1.11).
    """
    _, height, width, depth = y.shape
    tiling, places, m = tiles.tiling, tiles.places, planes.values
    vector, plane, points, lowest = simd.lanes(m), m.shape[1], size + 2, simd.broadcast(floor, 0)
    lines = vector * y.itemsize == ALIGNMENT and y.ctypes.data % ALIGNMENT == 0
    streaming = lines and depth % vector == 0 and y.size * y.itemsize >= STREAMED
    done = work[points * points * vector :]
    for tile in range(tiles.first, tiles.last):
        n, h, w = _place(tiling, tile, side)
        rows, places_in_row = min(side, height - h), min(side, width - w)
        high, wide = _computed(tiling, tile)
        next_n, next_h, next_w = _place(tiling, tile + 1, side)
        ahead = ((next_n * height + next_h) * width + next_w) * depth + filters.first
        for k in range(0, filters.size, vector):
            at, f = places[tile - tiles.first] * planes.tile_step + k, filters.first + k
            for j in range(points):
                axis(high, m, at + j * plane, points * plane, work, j * vector, points * vector)
            for i in range(size):
                axis(wide, work, i * points * vector, vector, done, i * size * vector, vector)
            if side < size:
                _largest_of_four(done, size)
            shift = simd.load(bias, f)
            for i in range(rows):
                for j in range(places_in_row):
                    from_ = (side * i + j) * vector
                    result = simd.maximum(simd.load(done, from_) + shift, lowest)
                    out = ((n * height + h + i) * width + w + j) * depth + f
                    if streaming:
                        simd.stream(y, out, result)
                        continue
                    simd.prefetch(y, ahead + (i * width + j) * depth + k)
                    if k + vector <= filters.size:
                        simd.store(y, out, result)
                    else:
                        simd.store(done, from_, result)
                        for lane in range(filters.size - k):
                            y[n, h + i, w + j, f + lane] = done[from_ + lane]


@inner
def output_tiles(planes, tiles, four, six, filters, bias, floor, side, y, work):
    """y = max(A^T m A + bias, floor) for some tiles and filters, of which the planes m are; side x
    side of a tile's places go to y: all, or half as many each way for the maxima of 2x2. `four` and
    `six` are those of `input_tiles`."""
    if four is not None:
        _from_planes(output_axis, 4, planes, tiles, filters, bias, floor, side, y, work)
    if six is not None:
        _from_planes(large_output_axis, 6, planes, tiles, filters, bias, floor, side, y, work)
