"""Activation functions as layers of their own; the functions are in `ops` and `activations`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minitl import activations, ops
from minitl.autograd import Tensor
from minitl.layers.base import Layer
from minitl.naming import Named


class Activation(Layer, supports_masking=True):
    """y = activation(x)."""

    def __init__(self, activation: Named | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, x: Tensor) -> Tensor:
        return self.activation(x)


def _not_negative(**settings: Any) -> None:
    for name, value in settings.items():
        if value is not None and not value >= 0:
            raise ValueError(f"{name} must not be negative, got {value!r}")


class ReLU(Layer, supports_masking=True):
    """y = max(x, 0); the arguments are those of `ops.relu`."""

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        _not_negative(max_value=max_value, negative_slope=negative_slope, threshold=threshold)
        self.max_value, self.negative_slope, self.threshold = max_value, negative_slope, threshold

    def call(self, x: Tensor) -> Tensor:
        return ops.relu(x, self.negative_slope, self.max_value, self.threshold)


class LeakyReLU(Layer, supports_masking=True):
    """y = x where x > 0, else negative_slope * x."""

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any):
        super().__init__(**kwargs)
        _not_negative(negative_slope=negative_slope)
        self.negative_slope = negative_slope

    def call(self, x: Tensor) -> Tensor:
        return activations.leaky_relu(x, self.negative_slope)


class ELU(Layer, supports_masking=True):
    """y = x where x > 0, else alpha (e^x - 1)."""

    def __init__(self, alpha: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.alpha = alpha

    def call(self, x: Tensor) -> Tensor:
        return activations.elu(x, self.alpha)


class Softmax(Layer, supports_masking=True):
    """p_j = e^(x_j) / sum_k e^(x_k), over one axis, or several together.

    Where `mask`, which broadcasts to x, is False (not above 1/2), p is 0 and x takes no part.
    """

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, x: Tensor, mask: Any = None) -> Tensor:
        if mask is None:
            return activations.softmax(x, self.axis)
        sides = list(zip(np.shape(mask)[::-1], x.shape[::-1], strict=False))
        if np.ndim(mask) > x.ndim or any(m not in (1, n) for m, n in sides):
            raise ValueError(f"{self}: a mask {np.shape(mask)} does not broadcast to {x.shape}")
        counts = np.broadcast_to(np.asarray(mask) > 0.5, x.shape)
        y = activations.softmax(ops.where(counts, x, np.full((), -1e9, x.dtype)), self.axis)
        return ops.where(counts, y, np.zeros((), x.dtype))
