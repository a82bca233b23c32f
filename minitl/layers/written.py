"""Layers that a user wrote: what `call` takes, and the shape that it really returns.

Keras finds the shape by tracing `call`. Here `call` is run on zeros, twice, with two sizes in the
place of each axis that may have any: axes that come out different may have any as well. What is
found is kept by the input's shape, so that a layer is run for its shape once per shape. Running it
builds the layers inside, as a first call does, and changes no weight.
"""

import inspect
from typing import Any

import numpy as np

from minitl.autograd import Tensor, no_grad
from minitl.naming import elsewhere

__all__: list[str] = []


def describe_call(cls: Any) -> None:
    """Tell a new class of the user's what its own `call` says."""
    default = inspect.signature(cls.call).parameters.get("training")
    if default is not None and default.default is True and "_training_unless_told" not in vars(cls):
        cls._training_unless_told = True
    if "several_inputs" not in vars(cls):
        cls.several_inputs = None
    if "compute_output_shape" not in vars(cls):
        cls.compute_output_shape = elsewhere("own layers", "output_shape")


def output_shape(layer: Any, input_shape: Any) -> Any:
    """The shape of what `call` returns: a tuple, with None for an axis of any size, or a list or
    dict of them. Raises what `call` raises."""
    several = isinstance(input_shape, list)
    shapes = [(None, *shape[1:]) for shape in (input_shape if several else [input_shape])]
    known = vars(layer).setdefault("_shapes_found", {})
    key = several, *shapes
    if key not in known:
        first, second = (_trial(layer, shapes, several, size) for size in (2, 3))
        known[key] = _common(first, second)
    return known[key]


def _trial(layer: Any, shapes: list[Any], several: bool, size: int) -> Any:
    """What the layer returns for zeros of these shapes. Unknown axes of images are larger."""
    given = [
        Tensor(
            np.zeros(
                [(30 * (i > 0) + size) if n is None else n for i, n in enumerate(s)], layer.dtype
            )
        )
        for s in shapes
    ]
    kept = [(v, v.numpy(), v.version) for v in layer.weights if not v.learnable]
    try:
        with no_grad():
            return layer(given if several else given[0])
    finally:
        for variable, values, version in kept:
            if variable.version != version:
                variable.assign(values)


def _common(first: Any, second: Any) -> Any:
    """One shape from those of two trials."""
    if isinstance(first, dict):
        return {name: _common(first[name], second[name]) for name in first}
    if isinstance(first, (list, tuple)):
        return [_common(a, b) for a, b in zip(first, second, strict=True)]
    pairs = zip(np.shape(first), np.shape(second), strict=True)
    return tuple(a if a == b else None for a, b in pairs)
