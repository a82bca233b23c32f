"""The activations of MobileNetV2 and EfficientNet, and their gradients.

Twins: `fast/activations.py`.
"""

import numpy as np

from minitl.kernels import switching
from minitl.kernels.geometry import Array


@switching
def relu6(x: Array, out: Array | None = None) -> Array:
    """y = min(max(x, 0), 6). `out` may be x itself, which is written then if it can be."""
    return np.clip(x, 0, 6, out=out)


@switching
def relu6_gradient(g: Array, y: Array) -> Array:
    """dL/dx = g where 0 < y < 6, and 0 elsewhere."""
    return np.where((y > 0) & (y < 6), g, g.dtype.type(0))


@switching
def silu(x: Array, out: Array | None = None) -> Array:
    """y = x s, s = sigmoid(x). `out` as for `relu6`."""
    return x * _sigmoid(x)


@switching
def silu_gradient(g: Array, x: Array) -> Array:
    """dL/dx = g (s + x s (1 - s))."""
    s = _sigmoid(x)
    return g * (s + x * s * (1 - s))


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))  # in (0, 1]: never overflows
    return np.where(x >= 0, 1, small) / (1 + small)
