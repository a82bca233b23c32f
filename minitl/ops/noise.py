"""Operations that disturb their input: dropout from a generator, noise from a seed per sample."""

from typing import Any

import numpy as np

from minitl import kernels
from minitl.autograd import Array, Tensor, as_tensor, record


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
