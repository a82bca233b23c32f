"""The sigmoid, its cross-entropy, and tanh: for two classes, and for gates."""

from typing import Any

import numpy as np

from minitl.autograd import Array, Tensor, as_tensor, record
from minitl.ops import ACTIVATIONS, require


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


def sigmoid_cross_entropy(logits: Any, targets: Array) -> Tensor:
    """Binary cross-entropy of sigmoid(logits), element by element, stable for any logit.

    loss = max(z, 0) - z t + log(1 + e^-|z|)        dloss/dz = sigmoid(z) - t
    """
    logits = as_tensor(logits)
    fits = targets.shape == logits.shape
    require(fits, "sigmoid_cross_entropy", "logits and targets of one shape", logits, targets)
    z = logits.storage
    losses = np.maximum(z, 0) - z * targets + np.log1p(np.exp(-np.abs(z)))
    return record("sigmoid_cross_entropy", losses, (logits, lambda g: g * (_logistic(z) - targets)))


ACTIVATIONS.register(sigmoid, tanh)
