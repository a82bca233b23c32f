"""`minitl.random`: random numbers as scripts for Keras draw them, in layers of their own say.

`seed` is an integer, which gives the same numbers every time, a SeedGenerator, or None: what comes
next after `minitl.utils.set_random_seed`. They are other numbers than Keras's.
"""

from typing import Any

import numpy as np

from minitl import config, initializers, ops
from minitl.layers import written
from minitl.layers.regularization import Dropout
from minitl.naming import Fraction, attributes_of

__all__ = ["SeedGenerator", "dropout", "normal", "randint", "truncated_normal", "uniform"]

__getattr__ = attributes_of("minitl.random", {})


class SeedGenerator:
    """A row of seeds, which begins with `seed`; each is used once."""

    def __init__(self, seed: int | None = None, name: str | None = None):
        self.seed = config.next_seed() if seed is None else int(seed)
        self._numbers = np.random.default_rng(self.seed)

    def next(self) -> int:
        """The next seed."""
        return int(self._numbers.integers(2**31))


def _seed(seed: Any) -> int:
    """The number that is meant; what draws in a layer of the user's is not kept."""
    seed = seed.next() if isinstance(seed, SeedGenerator) else seed
    written.drawn.set(written.drawn.get() + 1)
    return config.next_seed() if seed is None else int(seed)


def dropout(inputs: Any, rate: Fraction, noise_shape: Any = None, seed: Any = None) -> Any:
    """What the layer Dropout does in training."""
    layer = Dropout(rate, noise_shape, _seed(seed))
    return layer(inputs, training=True, rng=layer.generator(None))


def _drawn(kind: str, low: Any, high: Any, shape: Any, dtype: Any, seed: Any) -> Any:
    """What an initializer draws of this shape."""
    draw = getattr(initializers, kind)(float(low), float(high), _seed(seed))
    return ops.convert_to_tensor(draw(tuple(shape), dtype or config.floatx()))


def normal(
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None
) -> Any:
    """Normal numbers."""
    return _drawn("RandomNormal", mean, stddev, shape, dtype, seed)


def truncated_normal(
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None
) -> Any:
    """Normal numbers, none farther from the mean than two deviations."""
    return _drawn("TruncatedNormal", mean, stddev, shape, dtype, seed)


def uniform(
    shape: Any, minval: float = 0.0, maxval: float = 1.0, dtype: Any = None, seed: Any = None
) -> Any:
    """Numbers from `minval` to below `maxval`, all as likely."""
    return _drawn("RandomUniform", minval, maxval, shape, dtype, seed)


def randint(shape: Any, minval: int, maxval: int, dtype: Any = "int32", seed: Any = None) -> Any:
    """Integers from `minval` to below `maxval`."""
    return ops.cast(ops.floor(uniform(shape, minval, maxval, "float64", seed)), dtype)
