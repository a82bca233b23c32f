"""Convolution channel by channel: its formula and its gradients.

A window slides over images as in `reference.py`, with its letters; M is the filters per channel,
and the output's channels are c * M + m. Twins: `fast/depthwise.py`.
"""

from typing import Any

import numpy as np

from minitl.kernels import activations, reference, switching
from minitl.kernels.geometry import Array, Geometry
from minitl.kernels.reference import pad, padded_zeros, seen_from, unpad, window_places

FORMULAS: dict[str, Any] = {
    "relu": reference.relu,
    "relu6": activations.relu6.formula,  # type: ignore[attr-defined]
    "silu": activations.silu.formula,  # type: ignore[attr-defined]
}


@switching
def depthwise_conv2d(
    x: Array,
    kernel: Array,
    geometry: Geometry,
    bias: Array | None = None,
    activation: str | None = None,
) -> Array:
    """y[n, i, j, c M + m] = b + sum over kh, kw of (x under the window)[c] * kernel[kh, kw, c, m].

    x (N, H, W, C), kernel (KH, KW, C, M), bias (C * M,) -> y (N, OH, OW, C * M). The activation is
    None, 'relu', 'relu6' or 'silu'.
    """
    padded, (c, m) = pad(x, geometry), kernel.shape[2:]
    y = np.zeros((x.shape[0], *geometry.out_size, c, m), x.dtype)
    for kh, kw in window_places(geometry):
        y += seen_from(padded, geometry, kh, kw)[..., None] * kernel[kh, kw]
    y = y.reshape(*y.shape[:3], c * m) + (0 if bias is None else bias)
    return y if activation is None else FORMULAS[activation](y).astype(y.dtype, copy=False)


@switching
def depthwise_conv2d_input_gradient(g: Array, kernel: Array, geometry: Geometry) -> Array:
    """dL/dx: every place of x gets, from each window that sees it, g times the kernel there.

    g (N, OH, OW, C * M) -> dx (N, H, W, C).
    """
    c, m = kernel.shape[2:]
    apart = g.reshape(*g.shape[:3], c, m)
    dpadded = padded_zeros(geometry, len(g), c, g.dtype)
    for kh, kw in window_places(geometry):
        seen_from(dpadded, geometry, kh, kw)[...] += (apart * kernel[kh, kw]).sum(axis=-1)
    return unpad(dpadded, geometry)


@switching
def depthwise_conv2d_kernel_gradient(x: Array, g: Array, geometry: Geometry) -> Array:
    """dL/dkernel[kh, kw, c, m]: over n, i, j the sum of x under the window times g."""
    padded, c = pad(x, geometry), x.shape[3]
    apart = g.reshape(*g.shape[:3], c, -1)
    dk = np.zeros((*geometry.window, c, apart.shape[-1]), g.dtype)
    for kh, kw in window_places(geometry):
        seen = seen_from(padded, geometry, kh, kw)
        dk[kh, kw] = np.einsum("nijc,nijcm->cm", seen, apart)
    return dk
