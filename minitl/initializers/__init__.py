"""Initial values of weights.

An initializer is called with a shape and returns an array. One that draws random numbers holds a
seed, so calling it twice gives the same numbers twice; a layer that is given a name such as
'glorot_uniform' makes an initializer of its own, with a seed from `minitl.utils.set_random_seed`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import numpy as np

from minitl import config, kernels
from minitl.autograd import Array
from minitl.naming import Configurable, Registry, look_up

Shape = tuple[int, ...]


class Initializer(Configurable):
    """Base: `initializer(shape, dtype)` returns an array."""

    def __call__(self, shape: Shape, dtype: str | None = None) -> Array:
        kind = np.dtype(dtype or config.floatx())
        return self.values(tuple(shape), kind).astype(kind, copy=False)

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        """A new array, in this dtype if that is less work."""
        raise NotImplementedError


class Constant(Initializer):
    """All numbers equal `value`."""

    def __init__(self, value: float = 0.0):
        self.value = value

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        return np.full(shape, self.value, dtype)


class Zeros(Initializer):
    """All zeros: what biases start from."""

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        return np.zeros(shape, dtype)


class Ones(Initializer):
    """All ones."""

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        return np.ones(shape, dtype)


class _Random(Initializer):
    """Base of those that draw: the same instance always draws the same numbers."""

    def __init__(self, seed: int | None = None):
        self.seed = seed  # as given: a saved model does not depend on what was drawn instead
        self._start = config.next_seed() if seed is None else seed

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(self._start)


class RandomNormal(_Random):
    """Normal with `mean` and standard deviation `stddev`."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None):
        self.mean, self.stddev = mean, stddev
        super().__init__(seed)

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        return _normal(self.rng(), shape, dtype, self.stddev, self.mean)


class TruncatedNormal(RandomNormal):
    """Normal, drawn again where a number is more than two standard deviations from the mean."""

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        z = _truncated_normal(self.rng(), shape, dtype, self.stddev)
        z += z.dtype.type(self.mean)
        return z


class RandomUniform(_Random):
    """Uniform in [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None):
        self.minval, self.maxval = minval, maxval
        super().__init__(seed)

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        return _uniform(self.rng(), shape, dtype, self.minval, self.maxval)


class VarianceScaling(_Random):
    """Zero mean and variance scale / n, so that signals keep their size from layer to layer.

    n is the number of inputs of a unit ('fan_in'), of its outputs ('fan_out'), or their mean
    ('fan_avg'). For a kernel (D, m) these are D and m; for (KH, KW, C, F) they are KH*KW*C and
    KH*KW*F. `distribution` is 'truncated_normal', 'untruncated_normal' or 'uniform'.

    He et al. 2015 (arXiv 1502.01852) for scale = 2, fan_in (after ReLU); Glorot & Bengio 2010
    for scale = 1, fan_avg.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ):
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(f"mode must be 'fan_in', 'fan_out' or 'fan_avg', got {mode!r}")
        if distribution not in ("truncated_normal", "untruncated_normal", "uniform"):
            raise ValueError(
                "distribution must be 'truncated_normal', 'untruncated_normal' or 'uniform', "
                f"got {distribution!r}"
            )
        self.scale, self.mode, self.distribution = scale, mode, distribution
        super().__init__(seed)

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        fan_in, fan_out = fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(n, 1.0)
        if self.distribution == "uniform":  # variance of U(-a, a) is a^2 / 3
            limit = np.sqrt(3 * variance)
            return _uniform(self.rng(), shape, dtype, -limit, limit)
        if self.distribution == "untruncated_normal":
            return _normal(self.rng(), shape, dtype, np.sqrt(variance))
        # A normal cut at two standard deviations has standard deviation 0.8796...: make up for it.
        deviation = np.sqrt(variance) / 0.87962566103423978
        return _truncated_normal(self.rng(), shape, dtype, deviation)


class _Scaled(VarianceScaling):
    """A VarianceScaling with fixed scale, mode and distribution; only the seed is free."""

    settings: tuple[float, str, str]

    def __init__(self, seed: int | None = None):
        super().__init__(*self.settings, seed=seed)


class GlorotUniform(_Scaled):
    """Uniform with variance 2 / (fan_in + fan_out): the default of Dense and Conv2D."""

    settings = (1.0, "fan_avg", "uniform")


class GlorotNormal(_Scaled):
    """Truncated normal with variance 2 / (fan_in + fan_out)."""

    settings = (1.0, "fan_avg", "truncated_normal")


class HeNormal(_Scaled):
    """Truncated normal with variance 2 / fan_in."""

    settings = (2.0, "fan_in", "truncated_normal")


class HeUniform(_Scaled):
    """Uniform with variance 2 / fan_in."""

    settings = (2.0, "fan_in", "uniform")


class LecunNormal(_Scaled):
    """Truncated normal with variance 1 / fan_in."""

    settings = (1.0, "fan_in", "truncated_normal")


class LecunUniform(_Scaled):
    """Uniform with variance 1 / fan_in."""

    settings = (1.0, "fan_in", "uniform")


class Orthogonal(_Random):
    """`gain` times a matrix with orthonormal rows or columns: for recurrent kernels.

    Saxe et al. 2014 (arXiv 1312.6120). A shape of more than two axes is flattened to
    (product of all but the last, last).
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None):
        self.gain = gain
        super().__init__(seed)

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        if len(shape) < 2:
            raise ValueError(f"an orthogonal matrix needs at least two axes, got shape {shape}")
        rows, columns = int(np.prod(shape[:-1])), shape[-1]
        a = self.rng().standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(a)
        q *= np.sign(np.diag(r))  # makes the distribution uniform over orthogonal matrices
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


class Identity(Initializer):
    """`gain` times the identity matrix: a square layer that at first changes nothing."""

    def __init__(self, gain: float = 1.0):
        self.gain = gain

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        if len(shape) != 2:
            raise ValueError(f"an identity matrix has two axes, got shape {shape}")
        return self.gain * np.eye(*shape)


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


# Numbers are drawn in the weight's own dtype and scaled in place: the 25.7 million of a Dense(1024)
# on VGG16 took 0.7 s in float64 and rounded, and take 0.1 s.


def _room(shape: Shape, dtype: np.dtype) -> Array:
    return kernels.empty(shape, dtype if dtype == np.float32 else np.dtype(np.float64))


def _uniform(
    rng: np.random.Generator, shape: Shape, dtype: np.dtype, low: float, high: float
) -> Array:
    u = _room(shape, dtype)
    rng.random(dtype=u.dtype, out=u)
    u *= u.dtype.type(high - low)
    u += u.dtype.type(low)
    return u


def _normal(
    rng: np.random.Generator, shape: Shape, dtype: np.dtype, deviation: float, mean: float = 0.0
) -> Array:
    z = _room(shape, dtype)
    rng.standard_normal(dtype=z.dtype, out=z)
    z *= z.dtype.type(deviation)
    z += z.dtype.type(mean)
    return z


def _truncated_normal(
    rng: np.random.Generator, shape: Shape, dtype: np.dtype, deviation: float
) -> Array:
    """Normal with mean 0, drawn again beyond two deviations."""
    z = _normal(rng, shape, dtype, 1.0)
    while (far := np.abs(z) > 2).any():
        z[far] = rng.standard_normal(int(far.sum()), z.dtype)
    z *= z.dtype.type(deviation)
    return z


TABLE = Registry(
    __name__,
    Constant,
    Zeros,
    Ones,
    RandomNormal,
    TruncatedNormal,
    RandomUniform,
    VarianceScaling,
    GlorotUniform,
    GlorotNormal,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    Orthogonal,
    Identity,
    uniform=RandomUniform,
    normal=RandomNormal,
    zero=Zeros,
    one=Ones,
)


def get(identifier: Any) -> Any:
    """An initializer from its name, class, configuration, or itself; any callable will do."""
    initializer = look_up(identifier, TABLE, "initializer")
    if not callable(initializer):
        raise ValueError(f"not an initializer: {identifier!r}")
    return initializer


# What makes the values of new weights in the place of their initializers, while a file is read
# that has those of all of them; None at other times.
replacement: ContextVar[Callable[[Shape, np.dtype], Array] | None] = ContextVar(
    "replacement", default=None
)


def initial_values(initializer: Any, shape: Shape, dtype: str) -> Array:
    """A new array: what a weight of this shape starts from, by `initializer` (see `get`)."""
    instead = replacement.get()
    if instead is not None:
        return instead(shape, np.dtype(dtype))
    return kernels.copy(np.asarray(get(initializer)(shape, dtype)))
