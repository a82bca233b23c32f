"""`minitl.random`: random numbers as scripts for Keras draw them, in layers of their own say.

`seed` is an integer, which gives the same numbers every time, a SeedGenerator, or None: what comes
next after `minitl.utils.set_random_seed`. They are other numbers than Keras's.
"""

from typing import Any

import numpy as np

from minitl import config, ops
from minitl.autograd import Tensor, as_tensor
from minitl.layers import written
from minitl.models.arguments import guard
from minitl.naming import Fraction, Natural, attributes_of

__all__ = ["SeedGenerator", "categorical", "dropout", "normal", "randint", "shuffle"]
__all__ += ["truncated_normal", "uniform"]

__getattr__ = attributes_of("minitl.random", {})


class SeedGenerator:
    """A row of seeds, which begins with `seed`; each is used once."""

    def __init__(self, seed: Natural | None = None, name: str | None = None):
        self.seed = config.next_seed() if seed is None else int(seed)
        self._numbers = np.random.default_rng(self.seed)

    def next(self) -> int:
        """The next seed."""
        return int(self._numbers.integers(2**31))


def _drawn(seed: Any, dtype: Any, draw: Any) -> Tensor:
    """What `draw` makes of a generator with this seed."""
    seed = seed.next() if isinstance(seed, SeedGenerator) else seed
    written.drawn.set(written.drawn.get() + 1)  # what draws in a layer of the user's is not kept
    found = draw(np.random.default_rng(config.next_seed() if seed is None else int(seed)))
    return Tensor(np.asarray(found, dtype or config.floatx()))


def normal(
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None
) -> Tensor:
    """Normal numbers."""
    return _drawn(seed, dtype, lambda rng: rng.normal(mean, stddev, shape))


def truncated_normal(
    shape: Any, mean: float = 0.0, stddev: float = 1.0, dtype: Any = None, seed: Any = None
) -> Tensor:
    """Normal numbers, drawn anew where they are more than two deviations from the mean."""

    def draw(rng: np.random.Generator) -> Any:
        x = rng.normal(size=shape)
        while (far := np.abs(x) > 2).any():
            x = np.where(far, rng.normal(size=shape), x)
        return mean + stddev * x

    return _drawn(seed, dtype, draw)


def uniform(
    shape: Any, minval: float = 0.0, maxval: float = 1.0, dtype: Any = None, seed: Any = None
) -> Tensor:
    """Numbers from `minval` to below `maxval`, all as likely."""
    if "int" in str(dtype):
        return randint(shape, int(minval), int(maxval), dtype, seed)
    return _drawn(seed, dtype, lambda rng: rng.uniform(minval, maxval, shape))


def randint(shape: Any, minval: int, maxval: int, dtype: Any = "int32", seed: Any = None) -> Tensor:
    """Integers from `minval` to below `maxval`."""
    return _drawn(seed, dtype, lambda rng: rng.integers(minval, maxval, shape))


def categorical(logits: Any, num_samples: int, dtype: Any = "int32", seed: Any = None) -> Tensor:
    """Classes (N, num_samples), drawn by logits (N, m)."""
    z = np.asarray(logits)[:, None]

    def draw(rng: np.random.Generator) -> Any:
        return (z + rng.gumbel(size=(len(z), num_samples, z.shape[-1]))).argmax(-1)

    return _drawn(seed, dtype, draw)


def shuffle(x: Any, axis: int = 0, seed: Any = None) -> Tensor:
    """The parts of x along an axis in another order."""
    order = _drawn(seed, "int64", lambda rng: rng.permutation(np.shape(x)[axis]))
    return ops.take(as_tensor(x), order, axis)


def dropout(inputs: Any, rate: Fraction, noise_shape: Any = None, seed: Any = None) -> Tensor:
    """A share `rate` of the numbers becomes 0, and the others as much larger."""
    x = as_tensor(inputs)
    shape = [n if m is None else m for n, m in zip(x.shape, noise_shape or x.shape, strict=True)]
    return x * (uniform(shape, dtype=x.dtype, seed=seed).storage >= rate) / (1 - rate)


guard(globals())
