"""Batch normalization: the statistics of a batch, what is done with them, and the gradients.

Channels, C of them, are the last axis; sums run over all others. Twins: `fast/normalization.py`.
"""

import numpy as np

from minitl.kernels import switching
from minitl.kernels.geometry import Array
from minitl.kernels.reference import over_channels


@switching
def batch_norm_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel, over all axes but the last.

    x (..., C) -> mean (C,), variance (C,). Both are computed in float64, the variance from the
    differences to the mean: E[x^2] - E[x]^2 loses all digits when the mean is large.
    """
    mean = over_channels(np.mean, x)
    variance = over_channels(np.mean, (x - mean) ** 2)
    return mean.astype(x.dtype), variance.astype(x.dtype)


@switching
def scale_shift(x: Array, scale: Array, shift: Array) -> Array:
    """x * scale + shift, channel by channel: x (..., C), scale and shift (C,) -> (..., C)."""
    return x * scale + shift


@switching
def batch_norm_gradient(
    g: Array, x: Array, mean: Array, inv_std: Array, gamma: Array
) -> tuple[Array, Array, Array]:
    """Gradients of y = gamma * xhat + beta in training mode, where the statistics depend on x.

        xhat   = (x - mean) * inv_std            inv_std = 1 / sqrt(variance + epsilon)
        dbeta  = sum g
        dgamma = sum g * xhat                    sums and means: all axes but the last
        dx     = gamma * inv_std * (g - mean(g) - xhat * mean(g * xhat))

    g and x (..., C), the others (C,) -> dx (..., C), dgamma (C,), dbeta (C,). Ioffe & Szegedy
    2015 (arXiv 1502.03167), section 3, with the terms collected.
    """
    count = x.size // x.shape[-1]
    xhat = (x - mean) * inv_std
    dbeta = over_channels(np.sum, g)
    dgamma = over_channels(np.sum, g * xhat)
    dx = gamma * inv_std * (g - dbeta / count - xhat * (dgamma / count))
    return dx.astype(x.dtype), dgamma.astype(x.dtype), dbeta.astype(x.dtype)
