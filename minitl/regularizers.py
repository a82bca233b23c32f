"""Penalties on large weights, added to the loss."""

from __future__ import annotations

from typing import Any

from minitl.autograd import Tensor
from minitl.naming import Configurable, look_up


class L2(Configurable):
    """l2 * sum(w^2): pulls every weight towards zero in proportion to its size."""

    def __init__(self, l2: float = 0.01):
        if l2 < 0:
            raise ValueError(f"l2 must not be negative, got {l2}")
        self.l2 = float(l2)

    def __call__(self, weight: Tensor) -> Tensor:
        return (weight * weight).sum() * self.l2


def get(identifier: Any) -> Any:
    """A regularizer from its name, configuration, or itself; None stays None."""
    return None if identifier is None else look_up(identifier, {"l2": L2, "L2": L2}, "regularizer")
