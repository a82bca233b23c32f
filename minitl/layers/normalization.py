"""Layers that bring numbers to a common scale: by batch, by sample, by vector, or by a constant.

BatchNormalization works in two ways: in training by the statistics of the batch; outside, or
frozen, by the averages that it has kept. The others do the same always.
"""

from typing import Any

import numpy as np

from minitl import initializers, ops
from minitl.autograd import Tensor
from minitl.layers.base import Layer, Shape
from minitl.naming import Named, NotNegative, Share


class UnitNormalization(Layer, supports_masking=True):
    """Each vector along one axis by its length: F on the unit sphere."""

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis[0] if isinstance(axis, (list, tuple)) and len(axis) == 1 else axis

    def build(self, input_shape: Shape) -> None:
        self.channels(input_shape)

    def channels(self, input_shape: Shape) -> int:
        """C, the size of the axis. Raises ValueError for one that is not there, or an open size."""
        rank = len(input_shape)
        if not -rank < self.axis < rank or self.axis == 0:
            given = f"axis={self.axis} for an input of shape {input_shape}"
            raise ValueError(f"{self} normalises an axis after the batch, got {given}")
        if (size := input_shape[self.axis]) is None:
            raise ValueError(f"{self} needs a known number of channels")
        return size

    def turned(self, x: Tensor) -> Tensor:
        """x with that axis and the last exchanged: there, and back again."""
        return x if self.axis in (-1, x.ndim - 1) else ops.swapaxes(x, self.axis, -1)

    def call(self, x: Tensor) -> Tensor:
        return ops.normalize(x, self.axis)


class LayerNormalization(UnitNormalization, idle_settings=frozenset({"rms_scaling"})):
    """Normalises each vector along the last axis by its own mean and variance.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    The same in training and outside, whatever the batch (Ba et al. 2016, arXiv 1607.06450).

    Args:
        axis: of the vectors.
        epsilon: added to the variance.
        center, scale: whether there is a beta, a gamma.
        beta_initializer, gamma_initializer: how they start.
    """

    def __init__(
        self,
        axis: int = -1,
        epsilon: NotNegative = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Named = "zeros",
        gamma_initializer: Named = "ones",
        **kwargs: Any,
    ):
        super().__init__(axis, **kwargs)
        self.epsilon, self.center, self.scale = epsilon, center, scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.gamma: Any = None
        self.beta: Any = None

    def build(self, input_shape: Shape) -> None:
        c = self.channels(input_shape)
        if self.scale:
            self.gamma = self.add_weight("gamma", (c,), self.gamma_initializer)
        if self.center:
            self.beta = self.add_weight("beta", (c,), self.beta_initializer)

    def call(self, x: Tensor) -> Tensor:
        x = self.turned(x)
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(centred * centred, axis=-1, keepdims=True)
        y = centred / ops.sqrt(variance + self.epsilon)
        y = y if self.gamma is None else y * self.gamma
        return self.turned(y if self.beta is None else y + self.beta)


class BatchNormalization(LayerNormalization, idle_settings=frozenset({"renorm_momentum"})):
    """Normalises each channel, then scales and shifts it by learned numbers.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    In training, mean and variance are those of the batch, and moving averages of them are kept:
    moving <- momentum * moving + (1 - momentum) * batch. Outside training the moving averages are
    used. A frozen layer (`trainable=False`) always works as outside training and does not touch
    its averages, so a frozen base computes the same thing for ever. Ioffe & Szegedy 2015. Arguments
    as for LayerNormalization; momentum in [0, 1], and `moving_..._initializer`: how averages start.
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: Share = 0.99,
        *args: Any,
        moving_mean_initializer: Named = "zeros",
        moving_variance_initializer: Named = "ones",
        **kwargs: Any,
    ):
        super().__init__(axis, *args, **kwargs)
        self.momentum = momentum
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.moving_mean: Any = None
        self.moving_variance: Any = None

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        c = self.channels(input_shape)
        for name in ("moving_mean", "moving_variance"):
            start = getattr(self, f"{name}_initializer")
            setattr(self, name, self.add_weight(name, (c,), start, trainable=False))

    def fixed(self, training: bool) -> bool:
        return not self.trainable  # frozen, it works as outside training

    def call(self, x: Tensor, training: bool = False, mask: Any = None) -> Tensor:
        given, x = x, self.turned(x)
        c = x.shape[-1]
        gamma = self.gamma if self.scale else Tensor(np.ones(c, x.dtype))
        beta = self.beta if self.center else Tensor(np.zeros(c, x.dtype))
        if training and self.trainable:
            if not x.storage.size:
                raise ValueError(f"{self} has no samples to take a mean of: shape {given.shape}")
            if mask is None:
                y, mean, variance = ops.batch_norm(x, gamma, beta, self.epsilon)
            else:  # the mean and variance of what counts, by channel
                counts = np.asarray(mask, x.dtype).reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
                counts = self.turned(Tensor(counts + np.zeros_like(given.storage))).storage
                axes = tuple(range(x.ndim - 1))
                share = Tensor(counts / (counts.sum(axes) + x.dtype.type(1e-7)))
                centred = x - (average := ops.sum(x * share, axes))
                spread = ops.sum(centred * centred * share, axes)
                y = centred / ops.sqrt(spread + self.epsilon) * gamma + beta
                mean, variance = average.storage, spread.storage
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                with moving.writing() as kept:
                    kept *= self.momentum
                    kept += (1 - self.momentum) * batch
            return self.turned(y)
        inv_std = 1 / np.sqrt(self.moving_variance.storage + x.dtype.type(self.epsilon))
        moving = self.moving_mean.storage
        return self.turned(ops.batch_norm_inference(x, gamma, beta, moving, inv_std))


class Rescaling(Layer, supports_masking=True):
    """y = x * scale + offset, numbers or one per channel: Rescaling(1 / 127.5, offset=-1)."""

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.scale, self.offset = scale, offset

    def call(self, x: Tensor) -> Tensor:
        return x * np.asarray(self.scale, x.dtype) + np.asarray(self.offset, x.dtype)
