"""Layers that disturb their input in training, and let it pass outside."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl import config, ops
from minitl.autograd import Tensor
from minitl.layers.base import Layer
from minitl.layers.convolution import channels_last


class _Disturbing(Layer):
    """Base: keeps a generator for calls outside `fit`, which passes its own.

    `amount` is what the layer's argument says, and 0 means: let everything pass.
    """

    random = True

    def __init__(
        self,
        amount: float,
        seed: int | None,
        name: str | None,
        dtype: str | None,
        trainable: bool = True,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        self.seed = seed
        self._amount = amount
        self._own_rng: np.random.Generator | None = None

    def call(
        self, x: Tensor, training: bool = False, rng: np.random.Generator | None = None
    ) -> Tensor:
        if not training or self._amount == 0:
            return x
        if rng is None:
            if self._own_rng is None:
                seed = config.next_seed() if self.seed is None else self.seed
                self._own_rng = np.random.default_rng(seed)
            rng = self._own_rng
        return self.disturbed(x, rng)

    def disturbed(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        raise NotImplementedError


def _checked_rate(rate: float) -> float:
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be in [0, 1), got {rate}")
    return rate


class Dropout(_Disturbing):
    """In training, sets a fraction `rate` of the inputs to 0 and scales up the others.

    Each number is kept with probability 1 - rate and multiplied by 1 / (1 - rate), so the expected
    sum is unchanged; outside training, y = x. Srivastava et al. 2014.

    Args:
        rate: in [0, 1).
        seed: for calls outside `fit`; `fit` passes its own seeded generator, so that a training
            can be repeated and resumed.
    """

    def __init__(
        self,
        rate: float,
        *,
        seed: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ):
        super().__init__(_checked_rate(rate), seed, name, dtype, trainable)
        self.rate = rate

    def disturbed(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        return ops.dropout(x, self.rate, rng)


class _SpatialDropout(_Disturbing):
    """Drops whole channels of a sample: what lies side by side says the same."""

    def disturbed(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        one = Tensor(np.ones((x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]), x.dtype))
        return x * ops.dropout(one, self._amount, rng)

    def get_config(self) -> dict[str, Any]:
        """Without `trainable`, which Keras's do not take."""
        return {k: v for k, v in super().get_config().items() if k != "trainable"}


class SpatialDropout1D(_SpatialDropout):
    """Dropout of whole features of a sequence (N, T, C)."""

    input_rank = 3

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
        *,
        trainable: bool = True,
    ):
        super().__init__(_checked_rate(rate), seed, name, dtype, trainable)
        self.rate = rate


class SpatialDropout2D(_SpatialDropout):
    """Dropout of whole channels of images (N, H, W, C). Tompson et al. 2015 (arXiv 1411.4280)."""

    input_rank = 4

    def __init__(
        self,
        rate: float,
        data_format: str | None = None,
        seed: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
        *,
        trainable: bool = True,
    ):
        super().__init__(_checked_rate(rate), seed, name, dtype, trainable)
        channels_last(data_format)
        self.rate = rate


class GaussianDropout(_Disturbing):
    """In training, multiplies by normal noise of mean 1 and variance rate / (1 - rate)."""

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        *,
        name: str | None = None,
        dtype: str | None = None,
        trainable: bool = True,
    ):
        super().__init__(_checked_rate(rate), seed, name, dtype, trainable)
        self.rate = rate

    def disturbed(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        spread = (self.rate / (1 - self.rate)) ** 0.5
        return x * Tensor(rng.normal(1, spread, x.shape).astype(x.dtype))
