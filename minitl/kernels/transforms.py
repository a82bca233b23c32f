"""Winograd's transforms: from some tiles of x to their 36 planes, and from planes to y.

`winograd.py` derives them. Here they are at work: a matrix is a handful of additions on vectors
of channels, each tile has a place in the planes, and what lies outside of x counts as zero.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from minitl.kernels.simd import broadcast, lanes, larger, load, maximum, prefetch, store

# The points are 0, P, -P, Q, -Q and infinity. Points of opposite sign share their even and their
# odd part, which halves the work of a transform.
P, Q = 5 / 8, 3 / 2
P2, Q2, P3, Q3 = P**2, Q**2, P**3, Q**3
SUM, PRODUCT = P2 + Q2, P2 * Q2
P_SCALE, Q_SCALE = 1 / (2 * P2 * (P2 - Q2)), 1 / (2 * Q2 * (Q2 - P2))

STRIP = 8  # tiles side by side that are transformed together

# What callers bring along, for the time of a call.
STRIP_MEMORY = 2 * 6 * (4 * STRIP + 2)  # numbers a channel: a strip, and what it is made from
WORK_MEMORY = 36 + 36  # vectors: between the two axes, and a tile that is done


# --- One axis: vectors along a column or row, from `step` to `step` ------------------------------


@njit(forceinline=True)
def input_axis(x, at, step, y, out, out_step):
    """B^T d: 6 -> 6."""
    d0, d1, d2 = load(x, at), load(x, at + step), load(x, at + 2 * step)
    d3, d4, d5 = load(x, at + 3 * step), load(x, at + 4 * step), load(x, at + 5 * step)
    even_p, odd_p = d4 - Q2 * d2, P * (d3 - Q2 * d1)
    even_q, odd_q = d4 - P2 * d2, Q * (d3 - P2 * d1)
    store(y, out, d4 - SUM * d2 + PRODUCT * d0)
    store(y, out + out_step, even_p + odd_p)
    store(y, out + 2 * out_step, even_p - odd_p)
    store(y, out + 3 * out_step, even_q + odd_q)
    store(y, out + 4 * out_step, even_q - odd_q)
    store(y, out + 5 * out_step, d5 - SUM * d3 + PRODUCT * d1)


@njit(forceinline=True)
def half_input_axis(x, at, step, y, out, out_step):
    """B^T d of half a tile: 4 -> 4, which go to their places among the 6."""
    d0, d1, d2, d3 = load(x, at), load(x, at + step), load(x, at + 2 * step), load(x, at + 3 * step)
    even, odd = (P2 - Q2) * d2, (P2 - Q2) * P * d1
    store(y, out, PRODUCT * d0 - Q2 * d2)
    store(y, out + out_step, even + odd)
    store(y, out + 2 * out_step, even - odd)
    store(y, out + 5 * out_step, d3 - P2 * d1)


@njit(forceinline=True)
def output_axis(x, at, step, y, out, out_step):
    """A^T m: 6 -> 4."""
    p, minus_p = load(x, at + step), load(x, at + 2 * step)
    q, minus_q = load(x, at + 3 * step), load(x, at + 4 * step)
    even_p, odd_p, even_q, odd_q = p + minus_p, p - minus_p, q + minus_q, q - minus_q
    store(y, out, load(x, at) + even_p + even_q)
    store(y, out + out_step, P * odd_p + Q * odd_q)
    store(y, out + 2 * out_step, P2 * even_p + Q2 * even_q)
    store(y, out + 3 * out_step, P3 * odd_p + Q3 * odd_q + load(x, at + 5 * step))


@njit(forceinline=True)
def half_output_axis(x, at, step, y, out, out_step):
    """A^T m of half a tile: 4, at their places among the 6 -> 2."""
    p, minus_p = load(x, at + step), load(x, at + 2 * step)
    store(y, out, load(x, at) + (p + minus_p))
    store(y, out + out_step, P * (p - minus_p) + load(x, at + 5 * step))


@njit(forceinline=True)
def gradient_axis(x, at, step, y, out, out_step):
    """A g: 4 -> 6."""
    g0, g1, g2, g3 = load(x, at), load(x, at + step), load(x, at + 2 * step), load(x, at + 3 * step)
    even_p, odd_p = g0 + P2 * g2, P * g1 + P3 * g3
    even_q, odd_q = g0 + Q2 * g2, Q * g1 + Q3 * g3
    store(y, out, g0)
    store(y, out + out_step, even_p + odd_p)
    store(y, out + 2 * out_step, even_p - odd_p)
    store(y, out + 3 * out_step, even_q + odd_q)
    store(y, out + 4 * out_step, even_q - odd_q)
    store(y, out + 5 * out_step, g3)


@njit(forceinline=True)
def filter_axis(x, at, step, y, out, out_step):
    """G k: 3 -> 6."""
    k0, k1, k2 = load(x, at), load(x, at + step), load(x, at + 2 * step)
    even_p, odd_p = P_SCALE * (k0 + P2 * k2), P_SCALE * P * k1
    even_q, odd_q = Q_SCALE * (k0 + Q2 * k2), Q_SCALE * Q * k1
    store(y, out, 1 / PRODUCT * k0)
    store(y, out + out_step, even_p + odd_p)
    store(y, out + 2 * out_step, even_p - odd_p)
    store(y, out + 3 * out_step, even_q + odd_q)
    store(y, out + 4 * out_step, even_q - odd_q)
    store(y, out + 5 * out_step, k2)


@njit(forceinline=True)
def kernel_axis(x, at, step, y, out, out_step):
    """G^T u: 6 -> 3."""
    p, minus_p = P_SCALE * load(x, at + step), P_SCALE * load(x, at + 2 * step)
    q, minus_q = Q_SCALE * load(x, at + 3 * step), Q_SCALE * load(x, at + 4 * step)
    even_p, odd_p, even_q, odd_q = p + minus_p, p - minus_p, q + minus_q, q - minus_q
    store(y, out, 1 / PRODUCT * load(x, at) + even_p + even_q)
    store(y, out + out_step, P * odd_p + Q * odd_q)
    store(y, out + 2 * out_step, P2 * even_p + Q2 * even_q + load(x, at + 5 * step))


@njit(forceinline=True)
def _either(axis, half_axis, half, x, at, step, y, out, out_step):
    """`half_axis` if `half`, else `axis`."""
    if half:
        half_axis(x, at, step, y, out, out_step)
    else:
        axis(x, at, step, y, out, out_step)


@njit(forceinline=True)
def both_axes(axis, inputs, outputs, x, at, row, column, y, out, out_row, out_column, work):
    """`axis` along each column of inputs x inputs places of x, then along each row, into y."""
    vector = lanes(x)
    for j in range(inputs):
        axis(x, at + j * column, row, work, j * vector, 6 * vector)
    for i in range(outputs):
        axis(work, i * 6 * vector, vector, y, out + i * out_row, out_column)


# --- Tiles ---------------------------------------------------------------------------------------


class Tiling(NamedTuple):
    """y (N, OH, OW, F) in tiles of 4x4, numbered row by row through all images."""

    rows: int  # of tiles in an image
    columns: int
    top: int  # padding of x, which a tile's 6x6 piece may reach into
    left: int
    half_row: bool  # whether the last row of tiles is computed as half tiles
    half_column: bool  # and the last column


@njit(forceinline=True)
def _place(tiling, tile):
    """Image, and first row and column in y, of a tile."""
    line = tile // tiling.columns
    return line // tiling.rows, line % tiling.rows * 4, tile % tiling.columns * 4


@njit(forceinline=True)
def _halves(tiling, tile):
    """Whether a tile is half as high, and half as wide, as others."""
    row, column = tile // tiling.columns % tiling.rows, tile % tiling.columns
    half_high = tiling.half_row and row == tiling.rows - 1
    half_wide = tiling.half_column and column == tiling.columns - 1
    return half_high, half_wide


@njit
def in_order(tiling, first, last):
    """A place for each of the tiles, by their kind, and the places at which the kinds begin and,
    last, their number.

    The kinds are: half high and half wide, half wide, whole, half high. So the tiles that have
    a certain plane lie side by side; see `tiles_of_plane`.
    """
    kinds, starts = np.empty(last - first, np.int64), np.zeros(5, np.int64)
    for i in range(last - first):
        half_high, half_wide = _halves(tiling, first + i)
        if half_wide:
            kinds[i] = 0 if half_high else 1
        else:
            kinds[i] = 3 if half_high else 2
        starts[kinds[i] + 1] += 1
    starts = np.cumsum(starts)
    free, places = starts.copy(), np.empty(last - first, np.int64)
    for i in range(last - first):
        places[i] = free[kinds[i]]
        free[kinds[i]] += 1
    return places, starts


@njit(forceinline=True)
def tiles_of_plane(plane, starts):
    """The places of tiles that have this plane: half tiles have none for the points Q and -Q."""
    row, column = 3 <= plane // 6 < 5, 3 <= plane % 6 < 5
    first = 2 if column else 1 if row else 0  # kinds: without half wide ones, or those half both
    last = 3 if row else 4  # without half high ones
    return starts[first], starts[last]


@njit
def _fetch(x, n, h, w, c, channels, rows, columns, patch, padded):
    """patch[i, j, :channels] = x[n, h + i, w + j, c : ...], with zeros outside of x."""
    for i in range(rows):
        for j in range(columns):
            at = (i * columns + j) * padded
            seen = channels if 0 <= h + i < x.shape[1] and 0 <= w + j < x.shape[2] else 0
            for k in range(seen):
                patch[at + k] = x[n, h + i, w + j, c + k]
            patch[at + seen : at + padded] = 0


@njit(forceinline=True)
def _to_planes(
    axis, half_axis, side, x, tiling, first, last, places, c, channels, v, tile_step, panel_step,
    memory,
):  # fmt: skip
    """v[plane, place, k] = `axis` along both axes of a tile's side x side piece of x, for some
    tiles and channels; `half_axis` along an axis on which a tile is a half one.

    Tiles that lie side by side share columns, and rows of x are read fastest straight on: so a
    strip of up to STRIP tiles is transformed along its columns first, then tile by tile along the
    rows. Element k of a tile goes to place * tile_step + k // panel * panel_step + k % panel.
    What a half tile leaves in the planes of Q and -Q is anything, and nobody reads it.
    """
    _, height, width, depth = x.shape
    vector, plane, panel = lanes(x), v.shape[1], 2 * lanes(x)
    padded = -(-channels // vector) * vector
    size = STRIP_MEMORY // 2 * padded
    strip, patch, flat = memory[:size], memory[size : 2 * size], x.reshape(-1)
    tile = first
    while tile < last:
        n, h, w = _place(tiling, tile)
        h, w = h - tiling.top, w - tiling.left
        half_high, _ = _halves(tiling, tile)
        count = min(STRIP, last - tile, tiling.columns - tile % tiling.columns)
        columns = 4 * (count - 1) + side
        row = columns * padded  # of the strip
        # The short way, straight from x, is for whole tiles.
        inside = h >= 0 and h + side <= height and channels == padded and not half_high
        if not inside:
            _fetch(x, n, h, w, c, channels, side, columns, patch, padded)
        for j in range(columns):
            at = j * padded
            if not inside:
                for k in range(at, at + padded, vector):
                    _either(axis, half_axis, half_high, patch, k, row, strip, k, row)
            elif 0 <= w + j < width:
                source = ((n * height + h) * width + w + j) * depth + c
                for k in range(0, padded, vector):
                    axis(flat, source + k, width * depth, strip, at + k, row)
            else:
                for i in range(6):
                    strip[i * row + at : i * row + at + padded] = 0
        for t in range(count):
            _, half_wide = _halves(tiling, tile + t)
            for i in range(6):
                at, out = i * row + 4 * t * padded, places[tile - first + t] * tile_step
                for k in range(0, padded, vector):
                    place = 6 * i * plane + out + k // panel * panel_step + k % panel
                    _either(axis, half_axis, half_wide, strip, at + k, padded, v, place, plane)
        tile += count


@njit
def input_tiles(x, tiling, first, last, places, c, channels, v, row, strip):
    """v[plane, place] = B^T d B, rows of `row` elements, for some tiles and channels of x."""
    _to_planes(
        input_axis, half_input_axis, 6, x, tiling, first, last, places, c, channels, v, row,
        2 * lanes(x), strip,
    )  # fmt: skip


@njit
def gradient_tiles(g, tiling, first, last, places, f, filters, z, strip):
    """z[plane] = A g A^T, packed in panels (panel, place, f), for some tiles and filters of g."""
    row = 2 * lanes(g)
    _to_planes(
        gradient_axis, gradient_axis, 4, g, tiling, first, last, places, f, filters, z, row,
        row * (last - first), strip,
    )  # fmt: skip


@njit(forceinline=True)
def _largest_of_four(places):
    """Of 4x4 vectors, the largest of each 2x2, IN PLACE: the first four are what is left."""
    vector = lanes(places)
    for i in range(2):
        for j in range(2):
            a = load(places, (8 * i + 2 * j) * vector)
            b = load(places, (8 * i + 2 * j + 1) * vector)
            c = load(places, (8 * i + 2 * j + 4) * vector)
            d = load(places, (8 * i + 2 * j + 5) * vector)
            store(places, (2 * i + j) * vector, larger(larger(a, b), larger(c, d)))


@njit(forceinline=True)
def _output_tile(m, at, plane, half_high, half_wide, done, work):
    """A^T m A of one tile, 4x4 vectors side by side; of half a tile, only 2 rows or columns of
    them mean something."""
    vector = lanes(m)
    for j in range(6):
        _either(
            output_axis, half_output_axis, half_high,
            m, at + j * plane, 6 * plane, work, j * vector, 6 * vector,
        )  # fmt: skip
    for i in range(4):
        _either(
            output_axis, half_output_axis, half_wide,
            work, i * 6 * vector, vector, done, i * 4 * vector, vector,
        )  # fmt: skip


@njit
def output_tiles(m, columns, tiling, first, last, places, f, filters, bias, floor, side, y, work):
    """y = max(A^T m A + bias, floor) for some tiles and filters; m[plane] has rows of `columns`.

    Side by side of a tile's places go to y: 4, or 2 if y is to have the maximum of each 2x2.

    A store waits until its cache line has come from memory. A tile's lines lie scattered over 4
    rows, which no processor foresees: so each is sent for one tile ahead (64 channels at 224x224:
    0.67 ms an image instead of 1.11; 128 at 112x112: 0.42 instead of 1.07).
    """
    _, height, width, depth = y.shape
    vector, plane, lowest = lanes(y), m.shape[1], broadcast(floor, 0)
    done = work[36 * vector :]
    for tile in range(first, last):
        n, h, w = _place(tiling, tile)
        h, w = h // 4 * side, w // 4 * side
        high, wide = min(side, height - h), min(side, width - w)
        half_high, half_wide = _halves(tiling, tile)
        next_n, next_h, next_w = _place(tiling, tile + 1)
        ahead = ((next_n * height + next_h // 4 * side) * width + next_w // 4 * side) * depth + f
        for k in range(0, filters, vector):
            at = places[tile - first] * columns + k
            _output_tile(m, at, plane, half_high, half_wide, done, work)
            if side == 2:
                _largest_of_four(done)
            shift = load(bias, f + k)
            for i in range(high):
                for j in range(wide):
                    prefetch(y, ahead + (i * width + j) * depth + k)
                    from_ = (side * i + j) * vector
                    result = maximum(load(done, from_) + shift, lowest)
                    if k + vector <= filters:
                        out = ((n * height + h + i) * width + w + j) * depth + f + k
                        store(y, out, result)
                    else:
                        store(done, from_, result)
                        for lane in range(filters - k):
                            y[n, h + i, w + j, f + k + lane] = done[from_ + lane]
