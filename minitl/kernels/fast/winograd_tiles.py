"""Winograd's transforms: from some tiles of x to their planes, and from planes to y.

`winograd.py` derives them. Here they are at work: a matrix acts on vectors of channels, each tile
has a place in the planes, and what lies outside of x counts as zero.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from minitl.kernels.geometry import Array
from minitl.kernels.machine.memory import ALIGNMENT
from minitl.kernels.machine.simd import (
    broadcast,
    inlined,
    lanes,
    larger,
    linear,
    load,
    load_as,
    maximum,
    prefetch,
    store,
    stream,
)
from minitl.kernels.winograd_formulas import POINTS, winograd_matrices

STRIP = 32  # places side by side whose tiles are transformed together
STREAMED = 2**21  # bytes of a y from which on it is written past the caches

# What callers bring along, for the time of a call.
STRIP_MEMORY = 2 * 8 * (STRIP + 2)  # numbers a channel: a strip, and what it is made from
WORK_MEMORY = 64 + 64  # vectors: between the two axes, and a tile that is done


# --- One axis: vectors along a column or row, from `step` to `step` ------------------------------


def edge_matrices(size: int, count: int) -> tuple[Array, Array]:
    """A (P, M) and B (P, P) where only `count` of a tile's M = size outputs are wanted.

    The filters are those of whole tiles. The points after the first count + 1 are left out: their
    rows of A and columns of B are zeros, and so is what lies behind the outputs and inputs used.
    """
    kept, left_out = POINTS[size][: count + 1], POINTS[size][count + 1 :]
    places = [*range(count + 1), size + 1]
    A, B = np.zeros((size + 2, size)), np.zeros((size + 2, size + 2))
    _, A[places, :count], B[: count + 2, places] = winograd_matrices(kept)
    B[:, : count + 1] *= [np.prod([point - other for other in left_out]) for point in kept]
    return A, B


def _one_of(axes: dict[int, Any]) -> Any:
    """axis(key, ...), which does axes[key](...), or the last of them for any other key."""
    (key, chosen), *others = axes.items()
    other = _one_of(dict(others)) if others else None

    @inlined
    def axis(wanted, x, at, step, y, out, out_step):
        if other is None or wanted == key:
            chosen(x, at, step, y, out, out_step)
        else:
            other(wanted, x, at, step, y, out, out_step)

    return axis


_G, _A, _ = winograd_matrices(POINTS[4])
_LARGE_G, _, _ = winograd_matrices(POINTS[6])

# By how many of a tile's outputs are wanted: B^T d, P -> P, and A^T m, P -> M.
input_axis = _one_of({n: linear(edge_matrices(4, n)[1].T) for n in (4, 2)})
output_axis = _one_of({n: linear(edge_matrices(4, n)[0].T) for n in (4, 2)})
large_input_axis = _one_of({n: linear(edge_matrices(6, n)[1].T) for n in (6, 4, 2)})
large_output_axis = _one_of({n: linear(edge_matrices(6, n)[0].T) for n in (6, 4, 2)})
# By the size of the tiles: G k, 3 -> P; A g, M -> P; G^T u, P -> 3.
filter_axis = _one_of({4: linear(_G), 6: linear(_LARGE_G)})
gradient_axis = _one_of({4: linear(_A)})
kernel_axis = _one_of({4: linear(_G.T)})


@njit(forceinline=True)
def both_axes(axis, key, inputs, outputs, x, at, row, column, y, out, out_row, out_column, work):
    """`axis` along each column of inputs x inputs places of x, then along each row, into y."""
    vector = lanes(y)
    for j in range(inputs):
        axis(key, x, at + j * column, row, work, j * vector, inputs * vector)
    for i in range(outputs):
        axis(key, work, i * inputs * vector, vector, y, out + i * out_row, out_column)


# --- Tiles ---------------------------------------------------------------------------------------


class Tiling(NamedTuple):
    """y (N, OH, OW, F) in square tiles, numbered row by row through all images."""

    size: int  # of a tile, 4 or 6
    rows: int  # of tiles in an image
    columns: int
    top: int  # padding of x, which a tile's piece of it may reach into
    left: int
    last_row: int  # how many places of the last row of tiles are computed: 2, 4 ... size
    last_column: int  # and of the last column


@njit(forceinline=True)
def _place(tiling, tile):
    """Image, and first row and column in y, of a tile."""
    line, size = tile // tiling.columns, tiling.size
    return line // tiling.rows, line % tiling.rows * size, tile % tiling.columns * size


@njit(forceinline=True)
def _computed(tiling, tile):
    """How many places of a tile are computed, along its columns and along its rows."""
    row, column = tile // tiling.columns % tiling.rows, tile % tiling.columns
    high = tiling.last_row if row == tiling.rows - 1 else tiling.size
    wide = tiling.last_column if column == tiling.columns - 1 else tiling.size
    return high, wide


@njit
def in_order(tiling, first, last):
    """A place for each of the tiles, by their kind, and the places at which the kinds begin and,
    last, their number.

    The kinds are: low and narrow (a tile at the edge that is not computed whole), narrow, whole,
    low. So the tiles that have a certain plane lie side by side; see `tiles_of_plane`.
    """
    kinds, starts = np.empty(last - first, np.int64), np.zeros(5, np.int64)
    for i in range(last - first):
        high, wide = _computed(tiling, first + i)
        if wide < tiling.size:
            kinds[i] = 0 if high < tiling.size else 1
        else:
            kinds[i] = 3 if high < tiling.size else 2
        starts[kinds[i] + 1] += 1
    starts = np.cumsum(starts)
    free, places = starts.copy(), np.empty(last - first, np.int64)
    for i in range(last - first):
        places[i] = free[kinds[i]]
        free[kinds[i]] += 1
    return places, starts


@njit(forceinline=True)
def tiles_of_plane(tiling, plane, starts):
    """The places of the tiles that have this plane: those at an edge lack some points."""
    points = tiling.size + 2
    row = tiling.last_row < plane // points < points - 1  # whether low tiles lack it
    column = tiling.last_column < plane % points < points - 1  # whether narrow tiles lack it
    first = 2 if column else 1 if row else 0
    last = 3 if row else 4
    return starts[first], starts[last]


@njit
def _fetch(x, n, h, w, c, channels, rows, columns, patch, padded):
    """patch[i, j, :channels] = x[n, h + i, w + j, c : ...], with zeros outside of x.

    By vectors: of a plain loop Numba makes gathers, element by element.
    """
    _, height, width, depth = x.shape
    vector = lanes(patch)
    whole = channels // vector * vector
    for i in range(rows):
        for j in range(columns):
            at = (i * columns + j) * padded
            if 0 <= h + i < height and 0 <= w + j < width:
                source = ((n * height + h + i) * width + w + j) * depth + c
                for k in range(0, whole, vector):
                    store(patch, at + k, load_as(x, source + k, patch))
                for k in range(whole, channels):
                    patch[at + k] = x[n, h + i, w + j, c + k]
                patch[at + channels : at + padded] = 0
            else:
                patch[at : at + padded] = 0


@njit(forceinline=True)
def _to_planes(
    axis, size, side, x, tiling, first, last, places, c, channels, v, tile_step, panel_step, memory
):
    """v[plane, place, k] = `axis` along both axes of a tile's side x side piece of x, for some
    tiles of `size` (the tiling's, but a constant to the compiler) and channels.

    Tiles that lie side by side share columns, and rows of x are read fastest straight on: so a
    strip of them is transformed along its columns first, then tile by tile along the rows.
    Element k of a tile goes to place * tile_step + k // panel * panel_step + k % panel. What a
    tile at an edge leaves in the planes that it lacks is anything, and nobody reads it.
    """
    _, height, width, depth = x.shape
    vector, plane, panel = lanes(v), v.shape[1], 2 * lanes(v)
    padded = -(-channels // vector) * vector
    half = STRIP_MEMORY // 2 * padded
    strip, patch, flat = memory[:half], memory[half : 2 * half], x.reshape(-1)
    tile = first
    while tile < last:
        n, h, w = _place(tiling, tile)
        h, w = h - tiling.top, w - tiling.left
        high, _ = _computed(tiling, tile)
        count = min(STRIP // size, last - tile, tiling.columns - tile % tiling.columns)
        columns = size * (count - 1) + side
        row = columns * padded  # of the strip
        # The short way, straight from x, is for whole tiles.
        inside = h >= 0 and h + side <= height and channels == padded and high == size
        if not inside:
            _fetch(x, n, h, w, c, channels, side, columns, patch, padded)
        for j in range(columns):
            at = j * padded
            if not inside:
                for k in range(at, at + padded, vector):
                    axis(high, patch, k, row, strip, k, row)
            elif 0 <= w + j < width:
                source = ((n * height + h) * width + w + j) * depth + c
                for k in range(0, padded, vector):
                    axis(size, flat, source + k, width * depth, strip, at + k, row)
            else:
                for i in range(size + 2):
                    strip[i * row + at : i * row + at + padded] = 0
        for t in range(count):
            _, wide = _computed(tiling, tile + t)
            for i in range(size + 2):
                at, out = i * row + size * t * padded, places[tile - first + t] * tile_step
                for k in range(0, padded, vector):
                    place = (size + 2) * i * plane + out + k // panel * panel_step + k % panel
                    axis(wide, strip, at + k, padded, v, place, plane)
        tile += count


@njit
def input_tiles(x, tiling, first, last, places, c, channels, v, row, strip):
    """v[plane, place] = B^T d B, rows of `row` elements, for some tiles and channels of x."""
    panel = 2 * lanes(v)
    if tiling.size == 4:
        _to_planes(
            input_axis, 4, 6, x, tiling, first, last, places, c, channels, v, row, panel, strip
        )
    else:
        _to_planes(
            large_input_axis, 6, 8, x, tiling, first, last, places, c, channels, v, row, panel,
            strip,
        )  # fmt: skip


@njit
def gradient_tiles(g, tiling, first, last, places, f, filters, z, strip):
    """z[plane] = A g A^T, packed in panels (panel, place, f), for some tiles and filters of g."""
    row = 2 * lanes(z)
    _to_planes(
        gradient_axis, 4, 4, g, tiling, first, last, places, f, filters, z, row,
        row * (last - first), strip,
    )  # fmt: skip


@njit(forceinline=True)
def _largest_of_four(places, size):
    """Of size x size vectors, the largest of each 2x2, IN PLACE: they are the first ones then."""
    vector = lanes(places)
    row = size * vector
    for i in range(size // 2):
        for j in range(size // 2):
            at = 2 * i * row + 2 * j * vector
            above = larger(load(places, at), load(places, at + vector))
            below = larger(load(places, at + row), load(places, at + row + vector))
            store(places, (size // 2 * i + j) * vector, larger(above, below))


@njit(forceinline=True)
def _from_planes(
    axis, size, m, columns, tiling, first, last, places, f, filters, bias, floor, side, y, work
):
    """See `output_tiles`; `axis` is A^T for tiles of `size`, a constant to the compiler.

    A store waits until its cache line has come from memory. A tile's lines lie scattered over its
    rows, which no processor foresees: so each is sent for one tile ahead (64 channels at 224x224:
    0.67 ms an image instead of 1.11; 128 at 112x112: 0.42 instead of 1.07). Where a vector is a
    whole line, as with AVX-512, a large y is written past the caches, and no line has to come first
    (64 -> 128 channels at 112x112, the whole layer: 9 per cent less for 8 images, 5 for one).
    """
    _, height, width, depth = y.shape
    vector, plane, points, lowest = lanes(m), m.shape[1], size + 2, broadcast(floor, 0)
    vectors_are_lines = vector * y.itemsize == ALIGNMENT and y.ctypes.data % ALIGNMENT == 0
    streaming = vectors_are_lines and depth % vector == 0 and y.size * y.itemsize >= STREAMED
    done = work[points * points * vector :]
    for tile in range(first, last):
        n, h, w = _place(tiling, tile)
        h, w = h // size * side, w // size * side
        rows, places_in_row = min(side, height - h), min(side, width - w)
        high, wide = _computed(tiling, tile)
        next_n, next_h, next_w = _place(tiling, tile + 1)
        next_h, next_w = next_h // size * side, next_w // size * side
        ahead = ((next_n * height + next_h) * width + next_w) * depth + f
        for k in range(0, filters, vector):
            at = places[tile - first] * columns + k
            for j in range(points):
                axis(high, m, at + j * plane, points * plane, work, j * vector, points * vector)
            for i in range(size):
                axis(wide, work, i * points * vector, vector, done, i * size * vector, vector)
            if side < size:
                _largest_of_four(done, size)
            shift = load(bias, f + k)
            for i in range(rows):
                for j in range(places_in_row):
                    from_ = (side * i + j) * vector
                    result = maximum(load(done, from_) + shift, lowest)
                    out = ((n * height + h + i) * width + w + j) * depth + f + k
                    if streaming:
                        stream(y, out, result)
                        continue
                    prefetch(y, ahead + (i * width + j) * depth + k)
                    if k + vector <= filters:
                        store(y, out, result)
                    else:
                        store(done, from_, result)
                        for lane in range(filters - k):
                            y[n, h + i, w + j, f + k + lane] = done[from_ + lane]


@njit
def output_tiles(m, columns, tiling, first, last, places, f, filters, bias, floor, side, y, work):
    """y = max(A^T m A + bias, floor) for some tiles and filters; m[plane] has rows of `columns`.

    Side by side of a tile's places go to y: all, or half as many along each axis if y is to have
    the maximum of each 2x2.
    """
    if tiling.size == 4:
        _from_planes(
            output_axis, 4, m, columns, tiling, first, last, places, f, filters, bias, floor, side,
            y, work,
        )  # fmt: skip
    else:
        _from_planes(
            large_output_axis, 6, m, columns, tiling, first, last, places, f, filters, bias, floor,
            side, y, work,
        )  # fmt: skip
