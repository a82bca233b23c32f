"""Batch normalization: as in `pointwise.py`, one pass over memory for each sum and each result."""

import numpy as np

from minitl.kernels import twin
from minitl.kernels.fast.pointwise import add_rows, channel_sums
from minitl.kernels.machine.compiling import compiled
from minitl.kernels.machine.memory import empty
from minitl.kernels.machine.threads import over_rows


@twin
def batch_norm_statistics(x):
    rows = x.reshape(-1, x.shape[-1])
    mean = channel_sums(rows, 1, add_rows)[0] / len(rows)
    variance = channel_sums(rows, 1, _add_squares, mean)[0] / len(rows)
    return mean.astype(x.dtype), variance.astype(x.dtype)


@compiled
def _add_squares(x, mean, first, last, sums):
    for row in range(first, last):
        for c in range(x.shape[1]):
            difference = x[row, c] - mean[c]
            sums[0, c] += difference * difference


@twin
def scale_shift(x, scale, shift):
    y = empty(x.shape, x.dtype)
    source, target = x.reshape(-1, x.shape[-1]), y.reshape(-1, x.shape[-1])
    over_rows(lambda *rows: _scale_shift(source, scale, shift, target, *rows), *source.shape)
    return y


@compiled
def _scale_shift(x, scale, shift, y, first, last):
    for row in range(first, last):
        for c in range(x.shape[1]):
            y[row, c] = x[row, c] * scale[c] + shift[c]


@twin
def batch_norm_gradient(g, x, mean, inv_std, gamma):
    """`reference.batch_norm_gradient`, dx being written as  a * g + b * (x - mean) + c.

    a = gamma * inv_std,   b = -a * inv_std * dgamma / count,   c = -a * dbeta / count
    """
    rows_g, rows_x = g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1])
    count = len(rows_x)
    dbeta, products = channel_sums(rows_g, 2, _add_products, rows_x, mean)
    dgamma = products * inv_std
    a = gamma * inv_std.astype(np.float64)
    b, c = -a * inv_std * dgamma / count, -a * dbeta / count
    a, b, c = (factor.astype(x.dtype) for factor in (a, b, c))
    dx = empty(x.shape, x.dtype)
    arrays = rows_g, rows_x, mean, a, b, c, dx.reshape(rows_x.shape)
    over_rows(lambda *rows: _batch_norm_dx(*arrays, *rows), *rows_x.shape)
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
