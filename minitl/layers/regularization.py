"""Layers that disturb their input in training, and let it pass outside: Dropout and its kin.

What is learned then cannot lean on any single number. The factors come from the generator that
`fit` passes to `call` (see `layers/randomness.py`).
"""

from typing import Any

import numpy as np

from minitl import ops
from minitl.autograd import Tensor
from minitl.layers.core import channels_last
from minitl.layers.randomness import RandomLayer


class _Disturbing(RandomLayer):
    """Base: changes its input by as much as `rate`, in [0, 1), says; 0 lets everything pass."""

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be in [0, 1), got {rate}")
        self.rate = rate

    def call(
        self, x: Tensor, training: bool = False, rng: np.random.Generator | None = None
    ) -> Tensor:
        return self.disturbed(x, self.generator(rng)) if training and self.rate else x

    def disturbed(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        raise NotImplementedError


class Dropout(_Disturbing):
    """In training, sets a fraction `rate` of the inputs to 0 and scales up the others.

    Each number is kept with probability 1 - rate and multiplied by 1 / (1 - rate), so the expected
    sum is unchanged; outside training, y = x. Srivastava et al. 2014.

    Args:
        rate: in [0, 1).
        seed: for calls outside `fit`.
    """

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(rate, **kwargs)

    def disturbed(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        return ops.dropout(x, self.rate, rng)


class _SpatialDropout(_Disturbing):
    """Drops whole channels of a sample: what lies side by side says the same."""

    def disturbed(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        one = Tensor(np.ones((x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]), x.dtype))
        return x * ops.dropout(one, self.rate, rng)

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
        **kwargs: Any,
    ):
        super().__init__(rate, seed, name=name, dtype=dtype, **kwargs)


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
        **kwargs: Any,
    ):
        super().__init__(rate, seed, name=name, dtype=dtype, **kwargs)
        channels_last(data_format)


class GaussianDropout(_Disturbing):
    """In training, multiplies by normal noise of mean 1 and variance rate / (1 - rate)."""

    def disturbed(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        spread = (self.rate / (1 - self.rate)) ** 0.5
        return x * Tensor(rng.normal(1, spread, x.shape).astype(x.dtype))
