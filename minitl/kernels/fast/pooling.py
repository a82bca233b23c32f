"""Maximum and average pooling: one walk over the windows, channels innermost.

Only the places of a window that lie inside the image are visited, so padding needs no value.
Channels lie side by side in memory, so the compiler works on eight at a time. Forward passes are
shared out over lines (the OW windows of one row of an image); backward ones, over whole images.
"""

from typing import Any

from minitl.kernels import twin
from minitl.kernels.geometry import Array, Geometry
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.memory import empty
from minitl.kernels.machine.threads import over_rows
from minitl.kernels.reference import winner_dtype


@twin
def max_pool2d(x, geometry):
    return _over_lines(_max_pool, x, geometry)


@twin
def max_pool2d_with_winners(x, geometry):
    winners = _output(x, geometry, winner_dtype(geometry))
    return _over_lines(_max_pool_with_winners, x, geometry, winners), winners


@twin
def max_pool2d_gradient(g, winners, geometry):
    apart = geometry.window == geometry.strides and not any(geometry.pads)
    work = _max_pool_gradient_apart if apart else _max_pool_gradient
    return _over_images(work, g, geometry, winners)


@twin
def average_pool2d(x, geometry):
    return _over_lines(_average_pool, x, geometry)


@twin
def average_pool2d_gradient(g, geometry):
    return _over_images(_average_pool_gradient, g, geometry)


def _output(x: Array, geometry: Geometry, dtype: Any) -> Array:
    return empty((x.shape[0], *geometry.out_size, x.shape[3]), dtype)


def _over_lines(work, x: Array, geometry: Geometry, *outputs: Array) -> Array:
    """y: share out work(x, geometry, first, last, y, *outputs) over the N*OH lines."""
    lines, y = x.shape[0] * geometry.out_size[0], _output(x, geometry, x.dtype)
    over_rows(lambda *part: work(x, geometry, *part, y, *outputs), lines, x.size // max(1, lines))
    return y


def _over_images(work, g: Array, geometry: Geometry, *inputs: Array) -> Array:
    """dx, from zeros: work(g, geometry, first, last, dx, *inputs) shared out over images."""
    images, oh = g.shape[:2]
    dx = empty((images, *geometry.size, g.shape[3]), g.dtype)

    def part(first: int, last: int) -> None:
        dx[first:last] = 0
        work(g, geometry, first * oh, last * oh, dx, *inputs)

    over_rows(part, images, dx[:1].size)
    return dx


@inner
def _inside(line, ow, geometry):
    """The window at (line, ow): its image n, row oh, first row and column of the image, top and
    left, and the ranges of its places kh and kw that lie inside the image."""
    n, oh = divmod(line, geometry.out_size[0])
    top = oh * geometry.strides[0] - geometry.pads[0]
    left = ow * geometry.strides[1] - geometry.pads[2]
    rows = max(0, -top), min(geometry.window[0], geometry.size[0] - top)
    columns = max(0, -left), min(geometry.window[1], geometry.size[1] - left)
    return n, oh, top, left, rows, columns


@compiled
def _max_pool(x, geometry, first, last, y):
    for line in range(first, last):
        for ow in range(geometry.out_size[1]):
            n, oh, top, left, rows, columns = _inside(line, ow, geometry)
            best = y[n, oh, ow]
            for c in range(x.shape[3]):
                best[c] = x[n, top + rows[0], left + columns[0], c]
            for kh in range(*rows):
                for kw in range(*columns):
                    seen = x[n, top + kh, left + kw]
                    for c in range(x.shape[3]):
                        # A NaN compares as False: it gets into the maximum, and it stays there.
                        keep = seen[c] <= best[c] or best[c] != best[c]
                        best[c] = best[c] if keep else seen[c]


@compiled
def _max_pool_with_winners(x, geometry, first, last, y, winners):
    for line in range(first, last):
        for ow in range(geometry.out_size[1]):
            n, oh, top, left, rows, columns = _inside(line, ow, geometry)
            best, winner = y[n, oh, ow], winners[n, oh, ow]
            start = winners.dtype.type(rows[0] * geometry.window[1] + columns[0])
            for c in range(x.shape[3]):
                best[c] = x[n, top + rows[0], left + columns[0], c]
                winner[c] = start
            for kh in range(*rows):
                for kw in range(*columns):
                    seen = x[n, top + kh, left + kw]
                    place = winners.dtype.type(kh * geometry.window[1] + kw)
                    for c in range(x.shape[3]):
                        keep = seen[c] <= best[c] or best[c] != best[c]  # ties: the first stays
                        best[c] = best[c] if keep else seen[c]
                        winner[c] = winner[c] if keep else place


@compiled
def _max_pool_gradient(g, geometry, first, last, dx, winners):
    for line in range(first, last):
        for ow in range(geometry.out_size[1]):
            n, oh, top, left, _, _ = _inside(line, ow, geometry)
            for c in range(g.shape[3]):
                kh, kw = divmod(int(winners[n, oh, ow, c]), geometry.window[1])
                dx[n, top + kh, left + kw, c] += g[n, oh, ow, c]


@compiled
def _max_pool_gradient_apart(g, geometry, first, last, dx, winners):
    """For windows that neither overlap nor are padded: without indices that depend on winners."""
    for line in range(first, last):
        for ow in range(geometry.out_size[1]):
            n, oh, top, left, rows, columns = _inside(line, ow, geometry)
            for kh in range(*rows):
                for kw in range(*columns):
                    place = winners.dtype.type(kh * geometry.window[1] + kw)
                    target, source = dx[n, top + kh, left + kw], g[n, oh, ow]
                    winner = winners[n, oh, ow]
                    for c in range(g.shape[3]):
                        value = source[c]
                        target[c] = value if winner[c] == place else 0


@compiled
def _average_pool(x, geometry, first, last, y):
    for line in range(first, last):
        for ow in range(geometry.out_size[1]):
            n, oh, top, left, rows, columns = _inside(line, ow, geometry)
            places = x.dtype.type((rows[1] - rows[0]) * (columns[1] - columns[0]))
            for c in range(x.shape[3]):
                y[n, oh, ow, c] = 0
            for kh in range(*rows):
                for kw in range(*columns):
                    for c in range(x.shape[3]):
                        y[n, oh, ow, c] += x[n, top + kh, left + kw, c]
            for c in range(x.shape[3]):
                y[n, oh, ow, c] /= places


@compiled
def _average_pool_gradient(g, geometry, first, last, dx):
    for line in range(first, last):
        for ow in range(geometry.out_size[1]):
            n, oh, top, left, rows, columns = _inside(line, ow, geometry)
            places = g.dtype.type((rows[1] - rows[0]) * (columns[1] - columns[0]))
            for kh in range(*rows):
                for kw in range(*columns):
                    for c in range(g.shape[3]):
                        dx[n, top + kh, left + kw, c] += g[n, oh, ow, c] / places
