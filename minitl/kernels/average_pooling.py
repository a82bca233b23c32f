"""Average pooling: its formula and its gradient.

A window slides over images as in `reference.py`, with its letters; twins: `fast/pooling.py`.
"""

import numpy as np

from minitl.kernels import switching
from minitl.kernels.geometry import Array, Geometry
from minitl.kernels.reference import pad, padded_zeros, seen_from, unpad, window_places


@switching
def average_pool2d(x: Array, geometry: Geometry) -> Array:
    """The mean of each window, channel by channel, over the places inside the image; padding counts
    neither in the sum nor in the number of places, as in Keras.
    x (N, H, W, C) -> y (N, OH, OW, C)."""
    padded = pad(x, geometry)
    total = np.zeros((x.shape[0], *geometry.out_size, x.shape[3]), x.dtype)
    for kh, kw in window_places(geometry):
        total += seen_from(padded, geometry, kh, kw)
    return total / places_inside(geometry).astype(x.dtype)


@switching
def average_pool2d_gradient(g: Array, geometry: Geometry) -> Array:
    """dL/dx of `average_pool2d`: every place of the window gets the same share.

    g (N, OH, OW, C) -> dx (N, H, W, C).
    """
    dpadded = padded_zeros(geometry, len(g), g.shape[3], g.dtype)
    share = g / places_inside(geometry).astype(g.dtype)
    for kh, kw in window_places(geometry):
        seen_from(dpadded, geometry, kh, kw)[...] += share
    return unpad(dpadded, geometry)


def places_inside(geometry: Geometry) -> Array:
    """How many places of each window lie inside the image: (OH, OW, 1)."""
    inside = pad(np.ones((1, *geometry.size, 1)), geometry)
    return sum(seen_from(inside, geometry, kh, kw)[0] for kh, kw in window_places(geometry))
