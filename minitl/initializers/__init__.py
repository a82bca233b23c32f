"""Initial values of weights.

An initializer is called with a shape and returns an array. One that draws random numbers holds a
seed, so calling it twice gives the same numbers twice; a layer that is given a name such as
'glorot_uniform' makes an initializer of its own, with a seed from `minitl.utils.set_random_seed`.
Layers make their weights with `initial_values`. `others.py` has what VGG16 does not need.
"""

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minitl import config, kernels
from minitl.autograd import Array
from minitl.naming import Configurable, Natural, Registry, attributes_of, look_up

if TYPE_CHECKING:
    from minitl.initializers.others import *

__getattr__ = attributes_of(__name__)

Shape: TypeAlias = tuple[int, ...]


class Initializer(Configurable):
    """Base: `initializer(shape, dtype)` returns an array."""

    def __call__(self, shape: Shape, dtype: str | None = None) -> Array:
        kind = np.dtype(dtype or config.floatx())
        return self.values(tuple(shape), kind).astype(kind, copy=False)

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        """A new array, in this dtype if that is less work."""
        raise NotImplementedError


class Zeros(Initializer):
    """All zeros: what biases start from."""

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        return np.zeros(shape, dtype)


class Random(Initializer):
    """Base of those that draw: the same instance always draws the same numbers.

    They are drawn in the weight's own dtype and scaled in place: the 25.7 million of a Dense(1024)
    on VGG16 took 0.7 s in float64 and rounded, and take 0.1 s.
    """

    def __init__(self, seed: Natural | None = None):
        self.seed = seed  # as given: a saved model does not depend on what was drawn instead
        self._start = config.next_seed() if seed is None else seed

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self._start)

    def uniform(self, shape: Shape, dtype: np.dtype, low: float, high: float) -> Array:
        """Uniform in [low, high)."""
        u = room(shape, dtype)
        self.rng().random(dtype=u.dtype, out=u)
        return scaled(u, high - low, low)


def room(shape: Shape, dtype: np.dtype) -> Array:
    """An array to draw numbers into, of any content: float32, or float64 for all other dtypes."""
    return kernels.empty(shape, dtype if dtype == np.float32 else np.dtype(np.float64))


def scaled(numbers: Array, factor: float, shift: float = 0.0) -> Array:
    """numbers * factor + shift, in place and in their own dtype."""
    numbers *= numbers.dtype.type(factor)
    numbers += numbers.dtype.type(shift)
    return numbers


class GlorotUniform(Random):
    """Uniform in [-a, a) with variance a^2 / 3 = 2 / (fan_in + fan_out): the default of Dense and
    Conv2D. Signals keep their size from layer to layer, and so do gradients on the way back.

    Glorot & Bengio 2010.
    """

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        limit = np.sqrt(3 * (1 / max(sum(fans(shape)) / 2, 1.0)))
        return self.uniform(shape, dtype, -limit, limit)


def fans(shape: Shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight: how many numbers feed one output, and are fed by one input.

    >>> fans((3, 3, 64, 128))
    (576, 1152)
    """
    if len(shape) < 2:
        n = shape[0] if shape else 1
        return n, n
    window = int(np.prod(shape[:-2]))
    return window * shape[-2], window * shape[-1]


TABLE = Registry(__name__, Zeros, GlorotUniform, zero=Zeros)


def get(identifier: Any) -> Any:
    """An initializer from its name, class, configuration, or itself; any callable will do."""
    return look_up(identifier, TABLE, "initializer")


# What makes the values of new weights in the place of their initializers, while a file is read
# that has those of all of them; None at other times.
replacement: ContextVar[Callable[..., Array] | None] = ContextVar("replacement", default=None)


def initial_values(initializer: Any, shape: Shape, dtype: str) -> Array:
    """A new array: what a weight of this shape starts from, by `initializer` (see `get`)."""
    instead = replacement.get()
    if instead is not None:
        return instead(shape, np.dtype(dtype))
    return kernels.copy(np.asarray(get(initializer)(shape, dtype)))
