"""Operations on arrays of any shape that the main job does without.

Extremes and roots, arrays turned or joined, the sigmoid and tanh (for two classes, and for gates),
what brings numbers to a common scale (each channel by a batch's statistics, each vector by its
length), and what disturbs them: dropout from a generator, noise from a seed per sample.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minitl import kernels
from minitl.autograd import Array, Tensor, as_tensor, record
from minitl.ops import ACTIVATIONS, Axes, once, require, together
from minitl.ops.symbols import all_symbolic_too


def exp(x: Any) -> Tensor:
    """y = e^x."""
    x = as_tensor(x)
    y = np.exp(x.storage)
    return record("exp", y, (x, lambda g: g * y))


def sqrt(x: Any) -> Tensor:
    """y = sqrt(x)."""
    x = as_tensor(x)
    y = np.sqrt(x.storage)
    return record("sqrt", y, (x, lambda g: g / (2 * y)))


def maximum(a: Any, b: Any) -> Tensor:
    """y = the larger of a and b, with broadcasting. The gradient goes to it; of equals, to a."""
    a, b = together(a, b)
    first = a.storage >= b.storage
    y = np.where(first, a.storage, b.storage)
    return record("maximum", y, (a, lambda g: g * first), (b, lambda g: g * ~first))


def max(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """y = maximum of x over `axis`. Where several places tie, they share the gradient equally."""
    x = as_tensor(x)
    a = x.storage
    y = a.max(axis=axis, keepdims=True)

    def vjp(g: Array) -> Array:
        winners = (a == y).astype(a.dtype)
        winners /= winners.sum(axis=axis, keepdims=True)
        return g.reshape(y.shape) * winners

    return record("max", np.asarray(a.max(axis=axis, keepdims=keepdims)), (x, vjp))


def concatenate(xs: Sequence[Any], axis: int = 0) -> Tensor:
    """The tensors one after the other along `axis`."""
    tensors = [as_tensor(t) for t in xs]
    ends = np.cumsum([t.shape[axis] for t in tensors])
    y = np.concatenate([t.storage for t in tensors], axis=axis)

    def piece(i: int) -> Any:
        where = [slice(None)] * y.ndim
        where[axis] = slice(ends[i] - tensors[i].shape[axis], ends[i])
        return lambda g: np.ascontiguousarray(g[tuple(where)])

    return record("concatenate", y, *((t, piece(i)) for i, t in enumerate(tensors)))


def transpose(x: Any, axes: Sequence[int] | None = None) -> Tensor:
    """The axes in another order (backwards, if None): y.shape[i] = x.shape[axes[i]]."""
    x = as_tensor(x)
    axes = range(x.ndim)[::-1] if axes is None else [a % x.ndim for a in axes]
    back = np.argsort(axes)
    y = np.ascontiguousarray(x.storage.transpose(axes))
    return record("transpose", y, (x, lambda g: np.ascontiguousarray(g.transpose(back))))


def absolute(x: Any) -> Tensor:
    """y = |x|. The derivative at 0 is taken as 0."""
    x = as_tensor(x)
    return record("absolute", np.abs(x.storage), (x, lambda g: g * np.sign(x.storage)))


def sigmoid(x: Any) -> Tensor:
    """y = 1 / (1 + e^-x), computed without overflow; dy/dx = y (1 - y)."""
    x = as_tensor(x)
    y = _logistic(x.storage)
    out = record("sigmoid", y, (x, lambda g: g * y * (1 - y)))
    out.origin = ("sigmoid", x)
    return out


def _logistic(z: Array) -> Array:
    small = np.exp(-np.abs(z))  # in (0, 1]: never overflows
    return (np.where(z >= 0, 1, small) / (1 + small)).astype(z.dtype, copy=False)


def tanh(x: Any) -> Tensor:
    """y = tanh x; dy/dx = 1 - y^2."""
    x = as_tensor(x)
    y = np.tanh(x.storage)
    return record("tanh", y, (x, lambda g: g * (1 - y * y)))


def bent(
    x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Tensor:
    """`relu` where its arguments are not the usual ones."""
    x = as_tensor(x)
    a = x.storage
    if max_value == 6 and negative_slope == 0 and threshold == 0:
        y = kernels.relu6(a)
        return record("relu", y, (x, lambda g: kernels.relu6_gradient(g, y)))
    y = np.where(a > threshold, a, 0)
    slope = (a > threshold).astype(a.dtype)
    if max_value is not None:
        # Keras takes TensorFlow's relu6 where that is what is meant; there the slope at 6 is 0.
        six = max_value == 6 and threshold == 0
        slope *= (y >= 0) & ((y < max_value) if six else (y <= max_value))
        y = np.clip(y, 0, max_value)
    if negative_slope:
        leaky = max_value is None and threshold == 0  # for which the slope at 0 is this one
        slope += negative_slope * ((a <= threshold) if leaky else (a < threshold))
        y = y - negative_slope * np.maximum(threshold - a, 0)
    slope, y = slope.astype(a.dtype, copy=False), y.astype(a.dtype, copy=False)
    return record("relu", y, (x, lambda g: g * slope))


def silu(x: Any) -> Tensor:
    """y = x sigmoid(x), also called swish; dy/dx = s + y (1 - s) for s = sigmoid(x)."""
    x = as_tensor(x)
    a = x.storage
    return record("silu", kernels.silu(a), (x, lambda g: kernels.silu_gradient(g, a)))


def sigmoid_cross_entropy(logits: Any, targets: Array) -> Tensor:
    """Binary cross-entropy of sigmoid(logits), element by element, stable for any logit.

    loss = max(z, 0) - z t + log(1 + e^-|z|)        dloss/dz = sigmoid(z) - t
    """
    logits, name = as_tensor(logits), "sigmoid_cross_entropy"
    require(targets.shape == logits.shape, name, "logits and targets of one shape", logits, targets)
    z = logits.storage
    losses = np.maximum(z, 0) - z * targets + np.log1p(np.exp(-np.abs(z)))
    return record("sigmoid_cross_entropy", losses, (logits, lambda g: g * (_logistic(z) - targets)))


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
    return record("batch_norm_inference", y, dx, (gamma, dgamma), (beta, kernels.bias_gradient))


def normalize(x: Any, axis: int = -1, order: float = 2, epsilon: float = 1e-12) -> Tensor:
    """y = x / |x| along an axis, and x / epsilon where |x| < epsilon."""
    x = as_tensor(x)
    if order != 2:
        raise ValueError(f"normalize takes order=2, got {order!r}")
    a = x.storage
    with np.errstate(divide="ignore"):
        inverse = 1 / np.sqrt((a * a).sum(axis=axis, keepdims=True))
    short = inverse > 1 / epsilon
    inverse = np.where(short, a.dtype.type(1 / epsilon), inverse)
    y = a * inverse

    def vjp(g: Array) -> Array:  # where x is not short, a change along y changes nothing
        along = np.where(short, 0, (g * y).sum(axis=axis, keepdims=True))
        return inverse * (g - y * along)

    return record("normalize", y, (x, vjp))


def dropout(x: Any, rate: float, rng: np.random.Generator) -> Tensor:
    """Sets each number to 0 with probability `rate`, and multiplies the others by 1/(1 - rate)."""
    x = as_tensor(x)
    kept = rng.random(x.shape, dtype=np.float32) >= rate
    mask = kept.astype(x.dtype) / x.dtype.type(1 - rate)
    return record("dropout", x.storage * mask, (x, lambda g: g * mask))


def gaussian_noise(x: Any, deviation: float, seeds: Array) -> Tensor:
    """y = x + deviation * (normal numbers, for each sample from its own seed)."""
    x = as_tensor(x)
    y = kernels.gaussian_noise(x.storage, deviation, seeds)
    return record("gaussian_noise", y, (x, lambda g: g))


all_symbolic_too(globals())
ACTIVATIONS.register(sigmoid, silu, tanh)
