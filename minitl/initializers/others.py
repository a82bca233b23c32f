"""The other initializers: draws of a given spread, draws scaled by a weight's size, matrices.

`initializers/__init__.py` says what an initializer is, and how a seed decides what is drawn.
"""

from typing import Any, Literal

import numpy as np

from minitl.autograd import Array
from minitl.initializers import TABLE, Initializer, Random, Shape, fans, room, scaled
from minitl.naming import Natural, NotNegative, Positive, public_names, with_fields


class Ones(Initializer):
    """All ones."""

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        return np.ones(shape, dtype)


class Constant(Initializer):
    """All numbers equal `value`, or an array of numbers that fits the shape."""

    def __init__(self, value: Any = 0.0):
        if not np.isfinite(np.asarray(value, float)).all():
            raise ValueError(f"value must be finite numbers, got {value!r}")
        self.value = value

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        return np.full(shape, np.asarray(self.value), dtype)


def _normal(drawn_by: Random, shape: Shape, dtype: np.dtype, truncated: bool = False) -> Array:
    """Standard normal numbers; `truncated`: drawn again where beyond -2 or 2."""
    z, rng = room(shape, dtype), drawn_by.rng()
    rng.standard_normal(dtype=z.dtype, out=z)
    while truncated and (far := np.abs(z) > 2).any():
        z[far] = rng.standard_normal(int(far.sum()), z.dtype)
    return z


class RandomNormal(Random):
    """Normal with `mean` and standard deviation `stddev`."""

    truncated = False

    def __init__(self, mean: float = 0.0, stddev: NotNegative = 0.05, seed: Natural | None = None):
        self.mean, self.stddev = mean, stddev
        super().__init__(seed)

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        return scaled(_normal(self, shape, dtype, self.truncated), self.stddev, self.mean)


class TruncatedNormal(RandomNormal, truncated=True):
    """Normal, drawn again where a number is more than two standard deviations from the mean."""


class RandomUniform(Random):
    """Uniform in [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: Natural | None = None):
        self.minval, self.maxval = minval, maxval
        super().__init__(seed)

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        return self.uniform(shape, dtype, self.minval, self.maxval)


@with_fields
class VarianceScaling(Random):
    """Zero mean and variance scale / n, so that signals keep their size from layer to layer.

    n is the number of inputs of a unit ('fan_in'), of its outputs ('fan_out'), or their mean
    ('fan_avg'). For a kernel (D, m) these are D and m; for (KH, KW, C, F) they are KH*KW*C and
    KH*KW*F. `distribution` is 'truncated_normal', 'untruncated_normal' or 'uniform'.

    Scale 2, fan_in (after ReLU): He et al. 2015, arXiv 1502.01852; 1, fan_avg: Glorot 2010.
    """

    scale: Positive = 1.0
    mode: Literal["fan_in", "fan_out", "fan_avg"] = "fan_in"
    distribution: Literal["truncated_normal", "untruncated_normal", "uniform"] = "truncated_normal"
    seed: Natural | None = None

    def __post_init__(self) -> None:
        super().__init__(self.seed)

    def values(self, shape: Shape, dtype: np.dtype) -> Array:
        fan_in, fan_out = fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(n, 1.0)
        if self.distribution == "uniform":  # variance of U(-a, a) is a^2 / 3
            limit = np.sqrt(3 * variance)
            return self.uniform(shape, dtype, -limit, limit)
        # A normal cut at two standard deviations has standard deviation 0.8796...: make up for it.
        cut = self.distribution == "truncated_normal"
        deviation = np.sqrt(variance) / (0.87962566103423978 if cut else 1)
        return scaled(_normal(self, shape, dtype, cut), deviation)


class _Scaled(VarianceScaling):
    """Base: a VarianceScaling of which only the seed is free."""

    settings: Any = (1.0, "fan_in", "truncated_normal")

    def __init__(self, seed: Natural | None = None):
        super().__init__(*self.settings, seed)  # type: ignore


class GlorotNormal(_Scaled, settings=(1.0, "fan_avg", "truncated_normal")):
    """Truncated normal with variance 2 / (fan_in + fan_out)."""


class HeNormal(_Scaled, settings=(2.0, "fan_in", "truncated_normal")):
    """Truncated normal with variance 2 / fan_in."""


class HeUniform(_Scaled, settings=(2.0, "fan_in", "uniform")):
    """Uniform with variance 2 / fan_in."""


class LecunNormal(_Scaled, settings=(1.0, "fan_in", "truncated_normal")):
    """Truncated normal with variance 1 / fan_in."""


class LecunUniform(_Scaled, settings=(1.0, "fan_in", "uniform")):
    """Uniform with variance 1 / fan_in."""


class Orthogonal(Random):
    """`gain` times a matrix with orthonormal rows or columns: for recurrent kernels.

    Saxe et al. 2014 (arXiv 1312.6120). All axes but the last are flattened to one.
    """

    def __init__(self, gain: float = 1.0, seed: Natural | None = None):
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


short = {"uniform": RandomUniform, "normal": RandomNormal, "one": Ones}
TABLE.register(*public_names(__name__).values(), **short)
