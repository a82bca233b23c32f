"""Where random layers take their numbers from: a generator for a batch, or a seed per sample.

`RandomLayer` is the base of Dropout, of the augmentation layers and of the recurrent ones: `fit`
passes a seeded generator to `call`, so that a training can be repeated and resumed; outside `fit`
a layer has a generator of its own. Augmentation goes further and draws a seed for each sample: what
`draw` and `choose` make of it depends on that sample alone, not on the batch that it comes in.
"""

from typing import Any

import numpy as np

from minitl import config
from minitl.autograd import Array
from minitl.layers.base import Layer

__all__: list[str] = []


class RandomLayer(Layer):
    """Base of the layers that draw random numbers in training.

    Args:
        seed: of the layer's own generator, for calls outside `fit`; None takes the next one of
            `minitl.utils.set_random_seed`.
    """

    random = True

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.seed = seed
        self._own_rng: np.random.Generator | None = None

    def generator(self, rng: np.random.Generator | None) -> np.random.Generator:
        """`rng` where it is given, else the layer's own."""
        if rng is not None:
            return rng
        if self._own_rng is None:
            seed = config.next_seed() if self.seed is None else self.seed
            self._own_rng = np.random.default_rng(seed)
        return self._own_rng


def view_seeds(seed: int, view: int, samples: Any, place: int) -> Array:
    """A seed, uint64, for each of these samples (N,), in the layer at this place, of this view.

    Depends on the four numbers only; each is mixed in before the next, so that no two of them can
    stand for each other.
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
    numbers = draw(seeds, *((0, count) for count in choices))
    return [
        np.minimum(number.astype(np.intp), count - 1)
        for number, count in zip(numbers, choices, strict=True)
    ]
