"""Random changes of images, as augmentation makes them: geometry, tone and noise.

What is drawn (angles, contrasts, seeds) comes in as arrays, one number per image, from the layers
in `layers/augmentation.py`. Images are (N, H, W, C). The fast twins stand in `fast/images.py`.
"""

from itertools import product

import numpy as np

from minitl.kernels import switching
from minitl.kernels.geometry import Array, Pair

FILL_MODES = ("reflect", "wrap", "constant", "nearest")


@switching
def affine_transform(
    x: Array, matrices: Array, size: Pair, interpolation: str, fill_mode: str, fill: Array
) -> Array:
    """Images seen through an affine map: where each output pixel lies in the input, and its value.

        (r, s) = M[n] (i, j, 1)        y[n, i, j, c] = x[n, r, s, c]

    and between the pixels, with a = r - floor(r) and b = s - floor(s), the bilinear mean of the
    four around: (1-a)(1-b) x[r, s] + (1-a) b x[r, s+1] + a (1-b) x[r+1, s] + a b x[r+1, s+1].

    x              (N, H, W, C)
    matrices       M (N, 2, 3), float64: from output to input, rows before columns
    size           (OH, OW) of the output
    interpolation  'bilinear', or 'nearest': the pixel whose centre is nearest
    fill_mode      what lies outside: d c b a | a b c d | d c b a for 'reflect', a b c d | a b c d
                   for 'wrap', a a a | a b c d | d d d for 'nearest', `fill` for 'constant'
    fill           (C,)
    """
    places, weights = _seen_pixels(x.shape, matrices, size, interpolation, fill_mode)
    flat = x.reshape(-1, x.shape[3])
    y = np.zeros((len(x), *size, x.shape[3]), x.dtype)
    for place, weight in zip(places, weights, strict=True):
        inside = (place >= 0)[..., np.newaxis]
        seen = np.where(inside, flat[place], fill.astype(x.dtype)) if len(flat) else y
        y += weight.astype(x.dtype)[..., np.newaxis] * seen
    return y


def affine_transform_gradient(
    g: Array, matrices: Array, size: Pair, interpolation: str, fill_mode: str
) -> Array:
    """dL/dx (N, H, W, C), `size` = (H, W): each pixel gets back what it gave, times its weight."""
    shape = (len(g), *size, g.shape[3])
    places, weights = _seen_pixels(shape, matrices, g.shape[1:3], interpolation, fill_mode)
    dx = np.zeros(shape, g.dtype)
    for place, weight in zip(places, weights, strict=True):
        inside = place >= 0
        given = weight.astype(g.dtype)[..., np.newaxis] * g
        np.add.at(dx.reshape(-1, g.shape[3]), place[inside], given[inside])
    return dx


def _seen_pixels(
    shape: tuple[int, ...], matrices: Array, size: Pair, interpolation: str, fill_mode: str
) -> tuple[list[Array], list[Array]]:
    """The input pixels that each output pixel is mixed of, each (N, OH, OW): their places in
    x.reshape(N*H*W, C), -1 outside, and their weights."""
    i, j = np.arange(size[0])[:, np.newaxis], np.arange(size[1])
    m = matrices[:, :, :, np.newaxis, np.newaxis]  # (N, 2, 3, 1, 1)
    axes = []
    for axis, length in enumerate(shape[1:3]):
        at = _folded(m[:, axis, 0] * i + m[:, axis, 1] * j + m[:, axis, 2], length, fill_mode)
        if interpolation == "nearest":  # halves go away from zero, as in TensorFlow
            nearest = np.trunc(at + np.copysign(0.5, at))
            axes.append([(_index(nearest, length, fill_mode), np.ones_like(at))])
        else:
            low = np.floor(at)
            below, above = (_index(pixel, length, fill_mode) for pixel in (low, low + 1))
            axes.append([(below, 1 - (at - low)), (above, at - low)])
    start = np.arange(shape[0])[:, np.newaxis, np.newaxis] * (shape[1] * shape[2])
    places, weights = [], []
    for (row, a), (column, b) in product(*axes):
        inside = (row >= 0) & (column >= 0)
        places.append(np.where(inside, start + row * shape[2] + column, -1))
        weights.append(a * b)
    return places, weights


def _folded(at: Array, length: int, fill_mode: str) -> Array:
    """Coordinates outside [0, length - 1] moved to where the same is seen inside."""
    if fill_mode == "reflect":  # the image and its mirror image repeat every 2 length
        at = np.mod(at + 0.5, 2 * length)
        at = np.minimum(at, 2 * length - at) - 0.5
    if fill_mode == "wrap":
        return np.mod(at, length)
    return at if fill_mode == "constant" else np.clip(at, 0, length - 1)


def _index(at: Array, length: int, fill_mode: str) -> Array:
    """Whole folded coordinates as indices; -1 outside."""
    if fill_mode == "wrap":
        at = np.mod(at, length)
    elif fill_mode == "constant":
        at = np.where((at >= 0) & (at < length), at, -1)
    else:
        at = np.minimum(at, length - 1)
    return at.astype(np.intp)


@switching
def adjust_tone(x: Array, contrast: Array, shift: Array, low: Array, high: Array) -> Array:
    """Contrast and brightness, each image and channel by itself; mean is that over its pixels.

        y = clip((x - mean) * contrast[n] + mean + shift[n, c], low[c], high[c])

    x (N, H, W, C), contrast (N,), shift (N, C), low and high (C,).
    """
    return np.clip(_toned(x, contrast, shift), low.astype(x.dtype), high.astype(x.dtype))


def adjust_tone_gradient(
    g: Array, x: Array, contrast: Array, shift: Array, low: Array, high: Array
) -> Array:
    """dL/dx: g where nothing was clipped, times contrast, and what came through the mean."""
    z = _toned(x, contrast, shift)
    passed = np.where((z >= low.astype(x.dtype)) & (z <= high.astype(x.dtype)), g, 0)
    through = passed.mean(axis=(1, 2), dtype=np.float64) * (1 - contrast[:, np.newaxis])  # (N, C)
    scale = contrast[:, np.newaxis, np.newaxis, np.newaxis].astype(x.dtype)
    return passed * scale + through[:, np.newaxis, np.newaxis].astype(x.dtype)


def _toned(x: Array, contrast: Array, shift: Array) -> Array:
    """Before clipping: x * contrast + (mean * (1 - contrast) + shift)."""
    rest = x.mean(axis=(1, 2), dtype=np.float64) * (1 - contrast[:, np.newaxis]) + shift  # (N, C)
    scale = contrast[:, np.newaxis, np.newaxis, np.newaxis].astype(x.dtype)
    return x * scale + rest[:, np.newaxis, np.newaxis].astype(x.dtype)


@switching
def gaussian_noise(x: Array, deviation: float, seeds: Array) -> Array:
    """y[n] = x[n] + deviation * (independent normal numbers, drawn from seeds[n]); x (N, ...)."""
    y = np.empty_like(x)
    for sample, seed, result in zip(x, seeds, y, strict=True):
        noise = np.random.default_rng(seed).standard_normal(sample.shape, x.dtype)
        result[:] = sample + x.dtype.type(deviation) * noise
    return y
