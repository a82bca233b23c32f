"""Winograd's F(4x4, 3x3) as its formulas: `winograd.py` derives them, and must equal these.

For a 3x3 window with stride 1. Letters as in `reference.py`; TH x TW are the tiles of 4x4 places
that y is cut into, i and j run over the 6x6 pairs of points.
"""

from __future__ import annotations

import numpy as np

from minitl.kernels.geometry import Geometry
from minitl.kernels.reference import Array, _bias_and_activation

POINTS = (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2)  # and infinity, the last row of G and A and column of B


def winograd_matrices() -> tuple[Array, Array, Array]:
    """G (6, 3), A (6, 4), B (6, 6): values of k and g at the points, coefficients from values."""
    G, A, B = np.zeros((6, 3)), np.zeros((6, 4)), np.zeros((6, 6))
    for row, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        G[row] = point ** np.arange(3) / np.prod([point - other for other in others])
        A[row] = point ** np.arange(4)
        B[:5, row] = np.poly(others)[::-1]  # coefficients of prod (z - other), lowest first
    G[5, 2] = A[5, 3] = 1
    B[:, 5] = np.poly(POINTS)[::-1]
    return G, A, B


def winograd_conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
) -> Array:
    """`conv2d`: y = A^T ((G k G^T) * (B^T d B)) A, tile by tile, summed over channels."""
    G, A, B = (matrix.astype(x.dtype) for matrix in winograd_matrices())
    u = G @ kernel.transpose(2, 3, 0, 1) @ G.T  # (C, F, 6, 6)
    v = B.T @ _input_pieces(x, geometry) @ B  # (N, TH, TW, C, 6, 6)
    m = np.einsum("nhwcij,cfij->nhwfij", v, u)  # 36 matrix products
    y = A.T @ m @ A  # (N, TH, TW, F, 4, 4)
    images, rows, columns, filters = y.shape[:4]
    y = y.transpose(0, 1, 4, 2, 5, 3).reshape(images, 4 * rows, 4 * columns, filters)
    y = y[:, : geometry.out_size[0], : geometry.out_size[1]].copy()
    return _bias_and_activation(y, bias, activation)


def winograd_conv2d_input_gradient(
    g: Array, kernel: Array, geometry: Geometry, cache: dict | None = None
) -> Array:
    """`conv2d_input_gradient`: convolution of g with the kernel turned, C and F swapped."""
    top, bottom, left, right = geometry.pads
    pads = (2 - top, 2 - bottom, 2 - left, 2 - right)
    back = Geometry(geometry.out_size, (3, 3), (1, 1), pads, geometry.size)
    return winograd_conv2d(g, kernel[::-1, ::-1].swapaxes(2, 3), None, back)


def winograd_conv2d_kernel_gradient(x: Array, g: Array, geometry: Geometry) -> Array:
    """`conv2d_kernel_gradient`: G^T (sum over tiles of (B^T d B) * (A g A^T)) G."""
    G, A, B = (matrix.astype(x.dtype) for matrix in winograd_matrices())
    (images, oh, ow, filters), rows, columns = g.shape, -(-g.shape[1] // 4), -(-g.shape[2] // 4)
    g = np.pad(g, ((0, 0), (0, 4 * rows - oh), (0, 4 * columns - ow), (0, 0)))
    g = g.reshape(images, rows, 4, columns, 4, filters).transpose(0, 1, 3, 5, 2, 4)
    z = A @ g @ A.T  # (N, TH, TW, F, 6, 6)
    v = B.T @ _input_pieces(x, geometry) @ B  # (N, TH, TW, C, 6, 6)
    u = np.einsum("nhwcij,nhwfij->cfij", v, z)  # 36 matrix products
    return np.ascontiguousarray((G.T @ u @ G).transpose(2, 3, 0, 1))


def _input_pieces(x: Array, geometry: Geometry) -> Array:
    """The 6x6 piece of padded x that each tile of y sees: (N, TH, TW, C, 6, 6), 4 apart."""
    (height, width), (top, _, left, _) = geometry.size, geometry.pads
    rows, columns = -(-geometry.out_size[0] // 4), -(-geometry.out_size[1] // 4)
    below, right = 4 * rows + 2 - top - height, 4 * columns + 2 - left - width
    padded = np.pad(x, ((0, 0), (top, below), (left, right), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (6, 6), (1, 2))[:, ::4, ::4]
