"""Operations on images (N, H, W, C) beside convolution and max pooling.

Padding with zeros and average pooling, and what augmentation does: seeing an image through an
affine map, and changing its contrast and brightness. Their loops are in `minitl/kernels`.
"""

from typing import Any

import numpy as np

from minitl import kernels, ops
from minitl.autograd import Array, Tensor, as_tensor, record
from minitl.kernels.geometry import Pair, sliding
from minitl.ops import require
from minitl.ops.symbols import all_symbolic_too


def zero_pad2d(x: Any, pads: tuple[int, int, int, int]) -> Tensor:
    """x (N, H, W, C) with `pads` = (top, bottom, left, right) rows and columns of zeros around."""
    x = as_tensor(x)
    require(x.ndim == 4, "zero_pad2d", "images (N, H, W, C)", x)
    top, bottom, left, right = pads
    y = np.pad(x.storage, ((0, 0), (top, bottom), (left, right), (0, 0)))
    inside = np.s_[:, top : top + x.shape[1], left : left + x.shape[2]]
    return record("zero_pad2d", y, (x, lambda g: np.ascontiguousarray(g[inside])))


def average_pool2d(x: Any, window: Pair, strides: Pair, padding: str = "valid") -> Tensor:
    """The mean under each window, channel by channel; padding does not count, as in Keras."""
    x = as_tensor(x)
    require(x.ndim == 4, "average_pool2d", "images (N, H, W, C)", x)
    geometry = sliding(x.shape[1:3], window, strides, padding)
    y = kernels.average_pool2d(x.storage, geometry)
    return record("average_pool2d", y, (x, lambda g: kernels.average_pool2d_gradient(g, geometry)))


def with_gaps(kernel: Any, rate: Pair) -> Tensor:
    """A kernel (KH, KW, C, F) with rate - 1 rows and columns of zeros between its own."""
    (kh, kw, *rest), (rows, columns) = kernel.shape, rate
    if (rows, columns) == (1, 1):
        return kernel
    apart = ops.reshape(kernel, (kh, 1, kw, 1, *rest))
    apart = ops.pad(apart, ((0, 0), (0, rows - 1), (0, 0), (0, columns - 1), (0, 0), (0, 0)))
    wide = ops.reshape(apart, (kh * rows, kw * columns, *rest))
    return wide[: (kh - 1) * rows + 1, : (kw - 1) * columns + 1]


def conv2d_wide(
    x: Any, kernel: Any, bias: Any, strides: Pair, padding: str, rate: Pair, groups: int = 1
) -> Tensor:
    """`conv2d` with gaps in its window (dilation), or in groups: each share of the filters sees its
    own share of the channels, kernel (KH, KW, C / groups, F)."""
    x, kernel, g = as_tensor(x), with_gaps(kernel, rate), groups
    if g == 1:
        return ops.conv2d(x, kernel, bias, strides, padding)
    c, f = x.shape[-1] // g, kernel.shape[-1] // g
    require(c * g == x.shape[-1] and f * g == kernel.shape[-1], "conv2d", "whole groups", x, kernel)
    cuts = [(x[..., i * c : i * c + c], kernel[..., i * f : i * f + f]) for i in range(g)]
    y = ops.concatenate([ops.conv2d(a, k, None, strides, padding) for a, k in cuts], -1)
    return y if bias is None else y + bias


def conv2d_transpose(x: Any, kernel: Any, strides: Pair = (1, 1), padding: str = "valid") -> Tensor:
    """The adjoint of `conv2d`: x (N, H, W, C) is spread as a gradient of its output would be.

        y[n, i*SH + kh - top, j*SW + kw - left, f] += sum over c of x[n, i, j, c] k[kh, kw, f, c]

    kernel (KH, KW, F, C) -> y (N, OH, OW, F), OH = H SH, and KH - SH more where that is positive
    and padding 'valid'. A convolution is linear: dx is `conv2d` of g, and dkernel that of g and x.
    """
    x, kernel = as_tensor(x), as_tensor(kernel)
    fits = x.ndim == kernel.ndim == 4 and x.shape[3] == kernel.shape[3]
    require(fits, "conv2d_transpose", "images (N, H, W, C) and kernel (KH, KW, F, C)", x, kernel)
    window: Any = kernel.shape[:2]
    size: Any = enlarged(x.shape[1:3], window, strides, padding)
    how, a, k = sliding(size, window, strides, padding), x.storage, kernel.storage
    dx = (x, lambda g: kernels.conv2d(g, k, None, how))
    dk = (kernel, lambda g: kernels.conv2d_kernel_gradient(g, a, how))
    return record("conv2d_transpose", kernels.conv2d_input_gradient(a, k, how), dx, dk)


def enlarged(size: Any, window: Pair, strides: Pair, padding: str) -> tuple[Any, ...]:
    """The size (OH, OW) of what `conv2d_transpose` gives; None stays unknown."""
    more = [
        max(w - s, 0) if padding == "valid" else 0 for w, s in zip(window, strides, strict=True)
    ]
    return tuple(n and n * s + m for n, s, m in zip(size, strides, more, strict=True))


def depthwise_conv2d(x: Any, kernel: Any, strides: Pair, padding: str = "valid") -> Tensor:
    """Every channel by filters of its own: x (N, H, W, C), kernel (KH, KW, C, M) -> (..., C * M).

    See `kernels.depthwise_conv2d`.
    """
    x, kernel = as_tensor(x), as_tensor(kernel)
    fits = x.ndim == kernel.ndim == 4 and x.shape[3] == kernel.shape[2]
    require(fits, "depthwise_conv2d", "images (N, H, W, C), kernel (KH, KW, C, M)", x, kernel)
    window = (kernel.shape[0], kernel.shape[1])
    how = sliding((x.shape[1], x.shape[2]), window, strides, padding)
    a, k = x.storage, kernel.storage
    dx = (x, lambda g: kernels.depthwise_conv2d_input_gradient(g, k, how))
    dk = (kernel, lambda g: kernels.depthwise_conv2d_kernel_gradient(a, g, how))
    return record("depthwise_conv2d", kernels.depthwise_conv2d(a, k, how), dx, dk)


def affine_transform(
    x: Any,
    matrices: Array,
    size: Pair,
    interpolation: str = "bilinear",
    fill_mode: str = "reflect",
    fill_value: Any = 0.0,
) -> Tensor:
    """Images (N, H, W, C) seen through affine maps, each its own: (N, OH, OW, C).

    matrices (N, 2, 3) lead from a pixel of the output to its place in the input, rows before
    columns; see `kernels.affine_transform`. fill_value is a number, or one per channel.
    """
    x = as_tensor(x)
    m = np.ascontiguousarray(matrices, np.float64)
    fits = x.ndim == 4 and m.shape == (len(x.storage), 2, 3) and 0 not in x.shape[1:3]
    require(fits, "affine_transform", "images (N, H, W, C) and a matrix (2, 3) for each", x)
    if not (abs(m) < 1e9).all():  # a NaN too: the compiled loops would read anywhere
        raise ValueError("affine_transform takes matrices of finite, moderate numbers")
    fill = np.broadcast_to(np.asarray(fill_value, np.float64), x.shape[3:]).copy()
    y = kernels.affine_transform(x.storage, m, size, interpolation, fill_mode, fill)
    how = (m, x.shape[1:3], interpolation, fill_mode)
    dx = (x, lambda g: kernels.affine_transform_gradient(g, *how))
    return record("affine_transform", y, dx)


def adjust_tone(x: Any, contrast: Array, shift: Array, low: Array, high: Array) -> Tensor:
    """Contrast (N,) and brightness (N, C) of images (N, H, W, C), held in [low, high], (C,) each.

    See `kernels.adjust_tone`. As for `clip`, the gradient passes where nothing was cut off.
    """
    x = as_tensor(x)
    n, c = x.shape[0], x.shape[-1]
    fits = x.ndim == 4 and [a.shape for a in (contrast, shift, low)] == [(n,), (n, c), (c,)]
    require(fits and high.shape == (c,), "adjust_tone", "images (N, H, W, C) and their settings", x)
    given = (x.storage, contrast, shift, low, high)
    dx = (x, lambda g: kernels.adjust_tone_gradient(g, *given))
    return record("adjust_tone", kernels.adjust_tone(*given), dx)


all_symbolic_too(globals())
