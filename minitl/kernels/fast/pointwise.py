"""Bias, activations and batch normalization: one pass over memory each.

These kernels compute little on each number that they read, so what counts is how often the
arrays travel through the memory: the loops below are fused where NumPy would write an
intermediate result. Passes are shared out over the cores by rows; sums run in float64, in a
number of parts that depends on the shape only, which are added in order.

`softmax` and `softmax_cross_entropy` are the formulas themselves: 32 rows of 1,000 classes take 280
us, which is nothing beside the layers before. (In float32 alone it would be 50; see there why not.)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minitl.kernels.machine.memory import empty
from minitl.kernels.machine.threads import compiled, cut_rows, share_out
from minitl.kernels.reference import Array, softmax, softmax_cross_entropy, softmax_gradient

__all__ = [
    "add_bias",
    "batch_norm_gradient",
    "batch_norm_statistics",
    "bias_gradient",
    "bias_relu_gradient",
    "relu",
    "relu_gradient",
    "scale_shift",
    "softmax",
    "softmax_cross_entropy",
    "softmax_gradient",
]


# --- Bias ----------------------------------------------------------------------------------------


def add_bias(
    y: Array,
    bias: Array | None,
    activation: str | None,
    first: int,
    last: int,
    left: int,
    right: int,
) -> None:
    """Bias and activation, IN PLACE, on rows first:last and columns left:right of y (rows, F).

    A piece of y is best finished by the thread that has just computed it, while it is in its
    cache.
    """
    if bias is not None:
        _add_bias(y, bias, activation == "relu", first, last, left, right)
    elif activation == "relu":
        piece = y[first:last, left:right]
        np.maximum(piece, 0, out=piece)


@compiled
def _add_bias(y, bias, relu, first, last, left, right):
    zero = y.dtype.type(0)
    shift = bias[left:right]
    for row in range(first, last):
        piece = y[row, left:right]
        for f in range(right - left):
            value = piece[f] + shift[f]
            piece[f] = zero if relu and value < zero else value  # this way round, NaN stays NaN


def bias_gradient(g: Array) -> Array:
    """`reference.bias_gradient`."""
    (total,) = _channel_sums(g.reshape(-1, g.shape[-1]), 1, _add_rows)
    return total.astype(g.dtype)


@compiled
def _add_rows(g, first, last, sums):
    for row in range(first, last):
        for c in range(g.shape[1]):
            sums[0, c] += g[row, c]


def _channel_sums(rows: Array, count: int, add: Callable[..., None], *others: Array) -> Array:
    """`count` sums for each channel over the rows of an array (rows, C), in float64: (count, C).

    add(rows, *others, first, last, sums) adds what rows first:last contribute to sums (count, C).
    """
    ranges = cut_rows(*rows.shape)
    sums = np.zeros((len(ranges), count, rows.shape[1]))

    def part(index: int) -> None:
        add(rows, *others, *ranges[index], sums[index])

    share_out(part, len(ranges))
    total = np.zeros(sums.shape[1:])
    for partial in sums:
        total += partial
    return total


# --- Activations ---------------------------------------------------------------------------------


def relu(x: Array) -> Array:
    """`reference.relu`."""
    y = empty(x.shape, x.dtype)
    source, target = x.reshape(-1), y.reshape(-1)

    def piece(first: int, last: int) -> None:
        np.maximum(source[first:last], 0, out=target[first:last])

    _over_rows(piece, x.size)
    return y


def relu_gradient(g: Array, y: Array) -> Array:
    """`reference.relu_gradient`."""
    dx = empty(g.shape, g.dtype)
    arrays = g.reshape(-1), y.reshape(-1), dx.reshape(-1)
    _over_rows(lambda first, last: _relu_gradient(*arrays, first, last), g.size)
    return dx


@compiled
def _relu_gradient(g, y, dx, first, last):
    zero = g.dtype.type(0)
    for i in range(first, last):
        value = g[i]  # read in any case: a loop without branches runs on vector instructions
        dx[i] = value if y[i] > zero else zero


def bias_relu_gradient(g: Array, y: Array) -> tuple[Array, Array]:
    """`reference.bias_relu_gradient`: dz is summed as it is written, not read once more for it."""
    dz = empty(g.shape, g.dtype)
    rows_y, rows_dz = y.reshape(-1, y.shape[-1]), dz.reshape(-1, dz.shape[-1])
    (total,) = _channel_sums(g.reshape(rows_y.shape), 1, _relu_and_add_rows, rows_y, rows_dz)
    return dz, total.astype(g.dtype)


@compiled
def _relu_and_add_rows(g, y, dz, first, last, sums):
    zero = g.dtype.type(0)
    for row in range(first, last):
        for c in range(g.shape[1]):
            value = g[row, c]
            value = value if y[row, c] > zero else zero
            dz[row, c] = value
            sums[0, c] += value


def _over_rows(work: Callable[[int, int], None], rows: int, width: int = 1) -> None:
    """Share out work(first, last) over the rows of an array (rows, width)."""
    ranges = cut_rows(rows, width)
    share_out(lambda index: work(*ranges[index]), len(ranges))


# --- Batch normalization -------------------------------------------------------------------------


def batch_norm_statistics(x: Array) -> tuple[Array, Array]:
    """`reference.batch_norm_statistics`."""
    rows = x.reshape(-1, x.shape[-1])
    mean = _channel_sums(rows, 1, _add_rows)[0] / len(rows)
    variance = _channel_sums(rows, 1, _add_squares, mean)[0] / len(rows)
    return mean.astype(x.dtype), variance.astype(x.dtype)


@compiled
def _add_squares(x, mean, first, last, sums):
    for row in range(first, last):
        for c in range(x.shape[1]):
            difference = x[row, c] - mean[c]
            sums[0, c] += difference * difference


def scale_shift(x: Array, scale: Array, shift: Array) -> Array:
    """`reference.scale_shift`."""
    y = empty(x.shape, x.dtype)
    source, target = x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1])
    _over_rows(
        lambda first, last: _scale_shift(source, scale, shift, target, first, last), *source.shape
    )
    return y


@compiled
def _scale_shift(x, scale, shift, y, first, last):
    for row in range(first, last):
        for c in range(x.shape[1]):
            y[row, c] = x[row, c] * scale[c] + shift[c]


def batch_norm_gradient(
    g: Array, x: Array, mean: Array, inv_std: Array, gamma: Array
) -> tuple[Array, Array, Array]:
    """`reference.batch_norm_gradient`, dx being written as  a * g + b * (x - mean) + c.

    a = gamma * inv_std,   b = -a * inv_std * dgamma / count,   c = -a * dbeta / count
    """
    rows_g, rows_x = g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1])
    count = len(rows_x)
    dbeta, products = _channel_sums(rows_g, 2, _add_products, rows_x, mean)
    dgamma = products * inv_std

    a = gamma * inv_std.astype(np.float64)
    b, c = -a * inv_std * dgamma / count, -a * dbeta / count
    a, b, c = (factor.astype(x.dtype) for factor in (a, b, c))
    dx = empty(x.shape, x.dtype)
    target = dx.reshape(rows_x.shape)
    _over_rows(
        lambda first, last: _batch_norm_dx(rows_g, rows_x, mean, a, b, c, target, first, last),
        *rows_x.shape,
    )
    return dx, dgamma.astype(x.dtype), dbeta.astype(x.dtype)


@compiled
def _add_products(g, x, mean, first, last, sums):
    for row in range(first, last):
        for c in range(g.shape[1]):
            sums[0, c] += g[row, c]
            sums[1, c] += g[row, c] * (x[row, c] - mean[c])


@compiled
def _batch_norm_dx(g, x, mean, a, b, c, dx, first, last):
    for row in range(first, last):
        for i in range(x.shape[1]):
            dx[row, i] = a[i] * g[row, i] + b[i] * (x[row, i] - mean[i]) + c[i]
