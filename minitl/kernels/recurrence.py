"""A walk along time, and back: the formulas are the methods of `ops/recurrence.py`.

A `Walk` is its arrays, and so what these kernels are given and fill. Twins: `fast/recurrence.py`.
"""

from typing import Any

from minitl.kernels import switching
from minitl.kernels.geometry import Array


@switching
def walk_forward(walk: Any) -> None:
    """Fill its h and parts."""
    walk.forward()


@switching
def walk_backward(walk: Any, g: Array) -> None:
    """Make its dz and dq of g, dL/d(output)."""
    walk.backward(g)
