"""Activation functions as layers of their own; the functions are in `ops` and `activations`."""

from collections.abc import Sequence
from typing import Any

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
    """p_j = e^(x_j) / sum_k e^(x_k), over one axis, or several together."""

    def __init__(self, axis: int | Sequence[int] = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, x: Tensor) -> Tensor:
        return activations.softmax(x, self.axis)
