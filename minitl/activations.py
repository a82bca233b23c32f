"""Activation functions by name, as layers take them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minitl.autograd import Tensor
from minitl.naming import look_up
from minitl.ops import linear, relu, sigmoid, softmax, tanh

TABLE: dict[str, Callable[[Any], Tensor]] = {
    "linear": linear,
    "relu": relu,
    "sigmoid": sigmoid,
    "softmax": softmax,
    "tanh": tanh,
}


def get(identifier: Any) -> Callable[[Any], Tensor]:
    """The function that a name stands for; None is 'linear'; a callable is itself."""
    function = linear if identifier is None else look_up(identifier, TABLE, "activation")
    if not callable(function):
        raise ValueError(f"not an activation: {identifier!r}")
    return function
