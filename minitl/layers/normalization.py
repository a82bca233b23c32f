"""BatchNormalization."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl import initializers, ops
from minitl.autograd import Tensor
from minitl.layers.base import Layer, Shape


class BatchNormalization(Layer):
    """Normalises each channel, then scales and shifts it by learned numbers.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    In training, mean and variance are those of the batch, and moving averages of them are kept:
    moving <- momentum * moving + (1 - momentum) * batch. Outside training the moving averages are
    used. A frozen layer (`trainable=False`) always works as outside training and does not touch
    its averages, so a frozen base computes the same thing for ever. Ioffe & Szegedy 2015.

    Args:
        axis: the channels' axis; only the last one (-1) is there.
        momentum: in [0, 1].
        epsilon: added to the variance.
        center, scale: whether there is a beta, a gamma.
    """

    _idle_settings = frozenset({"renorm_momentum"})

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
    ):
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        self.axis = axis[0] if isinstance(axis, (list, tuple)) else axis
        self.momentum, self.epsilon = momentum, epsilon
        self.center, self.scale = center, scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.gamma: Any = None
        self.beta: Any = None
        self.moving_mean: Any = None
        self.moving_variance: Any = None

    def build(self, input_shape: Shape) -> None:
        if self.axis not in (-1, len(input_shape) - 1):
            raise ValueError(
                f"BatchNormalization {self.name!r} normalises the last axis only, got axis="
                f"{self.axis} for an input of shape {input_shape}"
            )
        c = input_shape[-1]
        if c is None:
            raise ValueError(f"BatchNormalization {self.name!r} needs a known number of channels")
        if self.scale:
            self.gamma = self.add_weight("gamma", (c,), self.gamma_initializer)
        if self.center:
            self.beta = self.add_weight("beta", (c,), self.beta_initializer)
        self.moving_mean = self.add_weight(
            "moving_mean", (c,), self.moving_mean_initializer, trainable=False
        )
        self.moving_variance = self.add_weight(
            "moving_variance", (c,), self.moving_variance_initializer, trainable=False
        )

    def fixed(self, training: bool) -> bool:
        return not self.trainable  # frozen, it works as outside training

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        c = x.shape[-1]
        gamma = self.gamma if self.scale else Tensor(np.ones(c, x.dtype))
        beta = self.beta if self.center else Tensor(np.zeros(c, x.dtype))
        if training and self.trainable:
            y, mean, variance = ops.batch_norm(x, gamma, beta, self.epsilon)
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                with moving.writing() as average:
                    average *= self.momentum
                    average += (1 - self.momentum) * batch
            return y
        inv_std = 1 / np.sqrt(self.moving_variance.storage + x.dtype.type(self.epsilon))
        offset = -self.moving_mean.storage * inv_std
        if gamma.requires_grad or beta.requires_grad:
            normalised = ops.scale_shift(x, Tensor(inv_std), Tensor(offset))
            return ops.scale_shift(normalised, gamma, beta)
        # Frozen: both steps are one multiply-add a number.
        scale = gamma.storage * inv_std
        return ops.scale_shift(x, Tensor(scale), Tensor(gamma.storage * offset + beta.storage))
