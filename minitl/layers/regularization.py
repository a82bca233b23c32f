"""Layers that disturb their input in training, and let it pass outside: Dropout and its kin.

What is learned then cannot lean on any single number. Their numbers come from the generator that
`fit` passes to `call`, so that a training can be repeated and resumed; outside `fit` a layer has a
generator of its own. `RandomLayer`, the base of the augmentation and the recurrent layers too, sees
to that. Augmentation goes further and draws a seed for each sample: what `draw` and `choose` make
of it depends on that sample alone, not on the batch that it comes in.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minitl import config, ops
from minitl.autograd import Array, Tensor
from minitl.layers.base import Layer, Rng
from minitl.layers.core import channels_last
from minitl.naming import Count, Fraction, Natural

__all__ = ["Dropout", "GaussianDropout", "SpatialDropout1D", "SpatialDropout2D"]


class RandomLayer(Layer, random=True):
    """Base of the layers that draw random numbers in training.

    `seed` is that of the layer's own generator, for calls outside `fit`; None takes the next one
    of `minitl.utils.set_random_seed`.
    """

    def __init__(self, seed: Natural | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed
        self._own_rng: Any = None

    def generator(self, rng: Rng) -> np.random.Generator:
        """`rng` where it is given, else the layer's own."""
        if rng is None and self._own_rng is None:
            seed = config.next_seed() if self.seed is None else self.seed
            self._own_rng = np.random.default_rng(seed)
        return self._own_rng if rng is None else rng


class _Disturbing(RandomLayer, supports_masking=True):
    """Base: changes its input by as much as `rate`, in [0, 1), says; 0 lets everything pass."""

    disturbed: Callable[[Tensor, np.random.Generator], Tensor]  # what becomes of it in training

    def __init__(self, rate: Fraction, seed: Natural | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        self.rate = rate

    def call(self, x: Tensor, training: bool = False, rng: Rng = None) -> Tensor:
        return self.disturbed(x, self.generator(rng)) if training and self.rate else x


class Dropout(_Disturbing):
    """In training, sets a fraction `rate` of the inputs to 0 and scales up the others.

    Each number is kept with probability 1 - rate and multiplied by 1 / (1 - rate), so the expected
    sum is unchanged; outside training, y = x. The rate is in [0, 1). Srivastava et al. 2014.
    `noise_shape`, as long as x's shape, has a 1 for an axis along which all or none are kept and
    None for any other: (None, 1, 1, 1) takes away whole images.
    """

    def __init__(
        self,
        rate: Fraction,
        noise_shape: Sequence[Count | None] | None = None,
        seed: Natural | None = None,
        **kwargs: Any,
    ):
        super().__init__(rate, seed, **kwargs)
        self.noise_shape = noise_shape if noise_shape is None else tuple(noise_shape)

    def disturbed(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        if self.noise_shape is None:
            return ops.dropout(x, self.rate, rng)
        pairs = zip(self.noise_shape, x.shape, strict=True)
        one = Tensor(np.ones([size if n is None else n for n, size in pairs], x.dtype))
        return x * ops.dropout(one, self.rate, rng)


class SpatialDropout1D(_Disturbing, input_rank=3):
    """Dropout of whole features of a sequence (N, T, C): what lies side by side says the same."""

    def disturbed(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        one = Tensor(np.ones((x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]), x.dtype))
        return x * ops.dropout(one, self.rate, rng)

    def get_config(self) -> dict[str, Any]:
        """Without `trainable`, which Keras's do not take."""
        return {k: v for k, v in super().get_config().items() if k != "trainable"}


class SpatialDropout2D(SpatialDropout1D, input_rank=4):
    """Dropout of whole channels of images (N, H, W, C). Tompson et al. 2015 (arXiv 1411.4280)."""

    def __init__(self, rate: Fraction, data_format: str | None = None, *args: Any, **kwargs: Any):
        super().__init__(rate, *args, **kwargs)
        channels_last(data_format)


class GaussianDropout(_Disturbing):
    """In training, multiplies by normal noise of mean 1 and variance rate / (1 - rate)."""

    def disturbed(self, x: Tensor, rng: np.random.Generator) -> Tensor:
        spread = (self.rate / (1 - self.rate)) ** 0.5
        return x * Tensor(rng.normal(1, spread, x.shape).astype(x.dtype))


def view_seeds(seed: int, view: int, samples: Any, place: int) -> Array:
    """A seed, uint64, for each of these samples (N,), in the layer at this place, of this view.

    Depends on the four numbers and on their order, as each is mixed in before the next.
    """
    mixed = _mix(np.asarray(samples, np.uint64))
    for number in (place, view, seed):
        mixed = _mix(mixed ^ np.uint64(number))
    return mixed


def _mix(x: Array) -> Array:
    """The output function of splitmix64 (Steele, Lea & Flood 2014): near numbers become far."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def draw(seeds: Array, *ranges: tuple[float, float]) -> list[Array]:
    """For each range (low, high) one uniform number per seed, (N,)."""
    drawn = np.array([np.random.default_rng(s).random(len(ranges)) for s in seeds])
    drawn = drawn.reshape(len(seeds), len(ranges))  # also for no seeds
    return [low + (high - low) * u for (low, high), u in zip(ranges, drawn.T, strict=True)]


def choose(seeds: Array, *choices: int) -> list[Array]:
    """For each number of choices one of 0 ... choices - 1 per seed, (N,)."""
    drawn = zip(draw(seeds, *((0, count) for count in choices)), choices, strict=True)
    return [np.minimum(number.astype(np.intp), count - 1) for number, count in drawn]
