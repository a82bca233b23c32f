"""Augmentation: one walk over the output's pixels, shared out over lines or images.

A pixel's place in the input is computed in float64, its value in the dtype of the images. Nearly
all pixels lie inside and take the short way. Gradients have no twins: no training asks for them.
"""

import math

import numpy as np

from minitl.kernels import twin
from minitl.kernels.images import FILL_MODES
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.threads import over_rows, share_out

REFLECT, WRAP, CONSTANT, NEAREST = range(len(FILL_MODES))


@twin
def affine_transform(x, matrices, size, interpolation, fill_mode, fill):
    images, _, _, channels = x.shape
    y = np.empty((images, *size, channels), x.dtype)
    arguments = x, matrices, FILL_MODES.index(fill_mode), fill.astype(x.dtype), y
    work = _nearest if interpolation == "nearest" else _bilinear
    over_rows(lambda *lines: work(*arguments, *lines), images * size[0], size[1] * channels)
    return y


@twin
def adjust_tone(x, contrast, shift, low, high):
    y = np.empty_like(x)
    arguments = x, contrast, shift, low.astype(x.dtype), high.astype(x.dtype), y
    over_rows(lambda *images: _tone(*arguments, *images), len(x), x[:1].size)
    return y


@twin
def gaussian_noise(x, deviation, seeds):
    y = np.empty_like(x)

    def add(i: int) -> None:  # NumPy draws without the interpreter lock
        np.random.default_rng(seeds[i]).standard_normal(dtype=x.dtype, out=y[i])
        y[i] *= x.dtype.type(deviation)
        y[i] += x[i]

    share_out(add, len(x))
    return y


@inner
def _folded(at, length, mode):
    """`kernels.images._folded`, for a coordinate that is not in [0, length - 1]."""
    if mode == REFLECT:
        at = (at + 0.5) % (2 * length)
        at = min(at, 2 * length - at) - 0.5
    if mode == WRAP:
        return at % length
    return at if mode == CONSTANT else min(max(at, 0.0), length - 1.0)


@inner
def _index(at, length, mode):
    """`kernels.images._index`."""
    if mode == WRAP:
        return int(at % length)
    if mode == CONSTANT:
        return int(at) if 0 <= at < length else -1
    return int(min(at, length - 1.0))


@inner
def _pixels(at, length, mode):
    """The two pixels around a coordinate, -1 outside, and the weight of the second."""
    if not 0 <= at <= length - 1:
        at = _folded(at, length, mode)
    low = math.floor(at)
    return _index(low, length, mode), _index(low + 1.0, length, mode), at - low


@inner
def _pixel(at, length, mode):
    """The pixel nearest to a coordinate, -1 outside."""
    if 0 <= at <= length - 1:
        return int(at + 0.5)
    at = _folded(at, length, mode)
    return _index(math.trunc(at + math.copysign(0.5, at)), length, mode)


@compiled
def _bilinear(x, matrices, mode, fill, y, first, last):
    (_, h, w, channels), (_, oh, ow, _) = x.shape, y.shape
    one = x.dtype.type(1)
    for line in range(first, last):
        n, i = divmod(line, oh)
        m = matrices[n]
        for j in range(ow):
            r = m[0, 0] * i + m[0, 1] * j + m[0, 2]
            s = m[1, 0] * i + m[1, 1] * j + m[1, 2]
            if 0 <= r < h - 1 and 0 <= s < w - 1:
                top, left = int(r), int(s)
                a, b = x.dtype.type(r - top), x.dtype.type(s - left)
                for c in range(channels):
                    above = (one - b) * x[n, top, left, c] + b * x[n, top, left + 1, c]
                    below = (one - b) * x[n, top + 1, left, c] + b * x[n, top + 1, left + 1, c]
                    y[n, i, j, c] = (one - a) * above + a * below
                continue
            top, bottom, down = _pixels(r, h, mode)
            left, right, along = _pixels(s, w, mode)
            a, b = x.dtype.type(down), x.dtype.type(along)
            for c in range(channels):
                p = x[n, top, left, c] if top >= 0 and left >= 0 else fill[c]
                q = x[n, top, right, c] if top >= 0 and right >= 0 else fill[c]
                u = x[n, bottom, left, c] if bottom >= 0 and left >= 0 else fill[c]
                v = x[n, bottom, right, c] if bottom >= 0 and right >= 0 else fill[c]
                above, below = (one - b) * p + b * q, (one - b) * u + b * v
                y[n, i, j, c] = (one - a) * above + a * below


@compiled
def _nearest(x, matrices, mode, fill, y, first, last):
    (_, h, w, channels), (_, oh, ow, _) = x.shape, y.shape
    for line in range(first, last):
        n, i = divmod(line, oh)
        m = matrices[n]
        for j in range(ow):
            row = _pixel(m[0, 0] * i + m[0, 1] * j + m[0, 2], h, mode)
            column = _pixel(m[1, 0] * i + m[1, 1] * j + m[1, 2], w, mode)
            inside = row >= 0 and column >= 0
            for c in range(channels):
                y[n, i, j, c] = x[n, row, column, c] if inside else fill[c]


@compiled
def _tone(x, contrast, shift, low, high, y, first, last):
    for n in range(first, last):
        scale, rest = _line(x[n], contrast[n], shift[n])
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                for c in range(x.shape[3]):
                    z = x[n, i, j, c] * scale + rest[c]
                    z = low[c] if z < low[c] else z  # a NaN stays
                    y[n, i, j, c] = high[c] if z > high[c] else z


@inner
def _line(image, contrast, shift):
    """z = x * scale + rest[c] for one image (H, W, C); rest = mean * (1 - contrast) + shift."""
    mean = np.zeros(image.shape[2])
    if contrast != 1:
        for i in range(image.shape[0]):
            for j in range(image.shape[1]):
                for c in range(image.shape[2]):
                    mean[c] += image[i, j, c]
        mean /= image.shape[0] * image.shape[1]
    rest = mean * (1 - contrast) + shift
    return image.dtype.type(contrast), rest.astype(image.dtype)
