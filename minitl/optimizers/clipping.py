"""Clipping: gradients are held within a bound before a step (`Optimizer`'s arguments)."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minitl.autograd import Array


def clipped(optimizer: Any, gradients: Sequence[Array]) -> Sequence[Array]:
    """The gradients within the bound that the optimizer was given."""
    if optimizer.clipvalue is not None:
        return [np.clip(g, -optimizer.clipvalue, optimizer.clipvalue) for g in gradients]
    if optimizer.clipnorm is not None:
        return [_scaled_down(g, _norm(g), optimizer.clipnorm) for g in gradients]
    together = float(np.sqrt(sum(_norm(g) ** 2 for g in gradients)))
    return [_scaled_down(g, together, optimizer.global_clipnorm) for g in gradients]


def one_each(gradients: Any, variables: Any) -> list[Array]:
    """The gradients; ValueError unless there is one of its shape for each of the variables."""
    listed = isinstance(gradients, Iterable) and isinstance(variables, Iterable)
    found, wanted = (list(a) if listed else [] for a in (gradients, variables))
    shapes = [getattr(g, "shape", None) for g in found]
    if not listed or shapes != [getattr(v, "shape", ()) for v in wanted]:
        what = "apply: gradients and variables must be lists, with a gradient for each variable"
        raise ValueError(f"{what} of its shape, got gradients of shapes {shapes}")
    return found


def _norm(g: Array) -> float:
    """The L2 norm. Not by BLAS: the bits of its sums depend on the number of its threads."""
    flat = g.reshape(-1)
    pieces = (flat[i : i + 2**16] for i in range(0, flat.size, 2**16))
    return math.sqrt(sum(float(np.square(p).sum(dtype=np.float64)) for p in pieces))


def _scaled_down(g: Array, norm: float, bound: float) -> Array:
    return g if norm <= bound else g * g.dtype.type(bound / norm)
