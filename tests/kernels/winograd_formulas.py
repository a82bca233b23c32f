"""Winograd's convolution as formulas, against which its fast form is tested.

TH x TW are the tiles of M x M places that y is cut into, all of them whole; i and j run over the
P x P pairs of points, P = M + 2.
"""

import numpy as np

from minitl.kernels.fast.winograd_matrices import POINTS, edge_matrices, winograd_matrices
from minitl.kernels.geometry import Array, Geometry
from minitl.kernels.reference import bias_and_activation

__all__ = [
    "POINTS",
    "edge_matrices",
    "winograd_conv2d",
    "winograd_conv2d_input_gradient",
    "winograd_conv2d_kernel_gradient",
    "winograd_matrices",
]


def winograd_conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
    size: int = 4,
) -> Array:
    """`conv2d`: y = A^T ((G k G^T) * (B^T d B)) A, tile by tile, summed over channels; M = size."""
    G, A, B = (matrix.astype(x.dtype) for matrix in winograd_matrices(POINTS[size]))
    u = G @ kernel.transpose(2, 3, 0, 1) @ G.T  # (C, F, P, P)
    v = B.T @ _input_pieces(x, geometry, size) @ B  # (N, TH, TW, C, P, P)
    m = np.einsum("nhwcij,cfij->nhwfij", v, u)  # P * P matrix products
    y = A.T @ m @ A  # (N, TH, TW, F, M, M)
    images, rows, columns, filters = y.shape[:4]
    y = y.transpose(0, 1, 4, 2, 5, 3).reshape(images, size * rows, size * columns, filters)
    y = y[:, : geometry.out_size[0], : geometry.out_size[1]].copy()
    return bias_and_activation(y, bias, activation)


def winograd_conv2d_input_gradient(
    g: Array, kernel: Array, geometry: Geometry, cache: dict | None = None, size: int = 4
) -> Array:
    """`conv2d_input_gradient`: convolution of g with the kernel turned, C and F swapped."""
    top, bottom, left, right = geometry.pads
    pads = (2 - top, 2 - bottom, 2 - left, 2 - right)
    back = Geometry(geometry.out_size, (3, 3), (1, 1), pads, geometry.size)
    return winograd_conv2d(g, kernel[::-1, ::-1].swapaxes(2, 3), None, back, size=size)


def winograd_conv2d_kernel_gradient(x: Array, g: Array, geometry: Geometry, size: int = 4) -> Array:
    """`conv2d_kernel_gradient`: G^T (sum over tiles of (B^T d B) * (A g A^T)) G."""
    G, A, B = (matrix.astype(x.dtype) for matrix in winograd_matrices(POINTS[size]))
    images, oh, ow, filters = g.shape
    rows, columns = -(-oh // size), -(-ow // size)
    g = np.pad(g, ((0, 0), (0, size * rows - oh), (0, size * columns - ow), (0, 0)))
    g = g.reshape(images, rows, size, columns, size, filters).transpose(0, 1, 3, 5, 2, 4)
    z = A @ g @ A.T  # (N, TH, TW, F, P, P)
    v = B.T @ _input_pieces(x, geometry, size) @ B  # (N, TH, TW, C, P, P)
    u = np.einsum("nhwcij,nhwfij->cfij", v, z)  # P * P matrix products
    return np.ascontiguousarray((G.T @ u @ G).transpose(2, 3, 0, 1))


def _input_pieces(x: Array, geometry: Geometry, size: int) -> Array:
    """The P x P piece of padded x that each tile of y sees: (N, TH, TW, C, P, P), M apart."""
    (height, width), (top, _, left, _) = geometry.size, geometry.pads
    rows, columns = -(-geometry.out_size[0] // size), -(-geometry.out_size[1] // size)
    below, right = size * rows + 2 - top - height, size * columns + 2 - left - width
    padded = np.pad(x, ((0, 0), (top, below), (left, right), (0, 0)))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, (size + 2, size + 2), (1, 2))
    return pieces[:, ::size, ::size]
