"""The two settings of the whole process: the default dtype, and where random numbers start."""

import numpy as np

_floatx = "float32"
_seeds = np.random.default_rng()


def floatx() -> str:
    """The dtype of layers that are not given one: 'float32' unless changed."""
    return _floatx


def set_floatx(dtype: str) -> None:
    """Set the default dtype, 'float32' or 'float64' (for checking gradients)."""
    global _floatx
    _floatx = checked_dtype(dtype)


def checked_dtype(dtype: object) -> str:
    """The name of `dtype`; ValueError unless it is one that minitl computes in."""
    if (dtype := getattr(dtype, "__name__", str(dtype))) not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', got {dtype!r}")
    return dtype


def set_random_seed(seed: int) -> None:
    """Make everything that follows reproducible: initial weights, shuffling, dropout."""
    global _seeds
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"a seed is a non-negative integer, got {seed!r}")
    _seeds = np.random.default_rng(int(seed))


def next_seed() -> int:
    """A fresh seed, drawn from the sequence that `set_random_seed` started."""
    return int(_seeds.integers(2**31))


def random_state() -> np.random.Generator:
    """The generator that `next_seed` draws from, for whoever has to bring it back later."""
    return _seeds


def set_random_state(generator: np.random.Generator) -> None:
    """Go on from a generator that `random_state` gave."""
    global _seeds
    _seeds = generator
