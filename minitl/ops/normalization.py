"""Operations that bring numbers to a common scale: each channel by a batch's statistics, and each
vector by its length. `layers/normalization.py` has the layers that use them.
"""

from typing import Any

import numpy as np

from minitl import kernels
from minitl.autograd import Array, Tensor, as_tensor, record
from minitl.ops import once, require


def batch_norm(x: Any, gamma: Tensor, beta: Tensor, epsilon: float) -> tuple[Tensor, Array, Array]:
    """Normalise each channel by the statistics of this batch (training mode).

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    Mean and (biased) variance run over all axes but the last, and the gradient takes account of
    their dependence on x. Ioffe & Szegedy 2015 (arXiv 1502.03167), Algorithm 1.

    Returns (y, mean, variance), the last two as arrays (C,).
    """
    x = as_tensor(x)
    _per_channel("batch_norm", x, gamma, beta)
    a, scale = x.storage, gamma.storage
    mean, variance = kernels.batch_norm_statistics(a)
    inv_std = 1 / np.sqrt(variance + a.dtype.type(epsilon))
    y = kernels.scale_shift(a, scale * inv_std, beta.storage - mean * scale * inv_std)
    both = once(lambda g: kernels.batch_norm_gradient(g, a, mean, inv_std, scale))
    edges = [(t, lambda g, i=i: both(g)[i]) for i, t in enumerate((x, gamma, beta))]
    return record("batch_norm", y, *edges), mean, variance


def _per_channel(op: str, x: Tensor, *parameters: Tensor) -> None:
    fits = x.ndim > 0 and all(p.shape == x.shape[-1:] for p in parameters)
    require(fits, op, "x (..., C) and two parameters (C,)", x, *parameters)


def batch_norm_inference(
    x: Any, gamma: Tensor, beta: Tensor, mean: Array, inv_std: Array
) -> Tensor:
    """Normalise each channel by given statistics (C,): what `batch_norm` does outside training.

    y = gamma * (x - mean) * inv_std + beta,    computed as x * scale + shift
    dL/dx = g * scale        dL/dgamma = sum of g * (x - mean) * inv_std        dL/dbeta = sum of g
    """
    x = as_tensor(x)
    _per_channel("batch_norm_inference", x, gamma, beta)
    a, scale = x.storage, gamma.storage * inv_std
    y = kernels.scale_shift(a, scale, beta.storage - mean * scale)

    def dgamma(g: Array) -> Array:
        return kernels.bias_gradient(g * kernels.scale_shift(a, inv_std, -mean * inv_std))

    dx = (x, lambda g: kernels.scale_shift(g, scale, np.zeros_like(scale)))
    edges = [dx, (gamma, dgamma), (beta, kernels.bias_gradient)]
    return record("batch_norm_inference", y, *edges)


def normalize(x: Any, epsilon: float) -> Tensor:
    """y = x / |x| along the last axis, and x / epsilon where |x| < epsilon."""
    x = as_tensor(x)
    a = x.storage
    with np.errstate(divide="ignore"):
        inverse = 1 / np.sqrt((a * a).sum(axis=-1, keepdims=True))
    short = inverse > 1 / epsilon
    inverse = np.where(short, a.dtype.type(1 / epsilon), inverse)
    y = a * inverse

    def vjp(g: Array) -> Array:  # where x is not short, a change along y changes nothing
        along = np.where(short, 0, (g * y).sum(axis=-1, keepdims=True))
        return inverse * (g - y * along)

    return record("normalize", y, (x, vjp))
