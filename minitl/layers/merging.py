"""Layers with several inputs: sums, products and extremes of equal shapes, and Concatenate.

They are called on a list, `Add()([x, y])`, or as functions, `layers.add([x, y])`.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from minitl import ops
from minitl.autograd import Tensor
from minitl.layers.base import Layer, Shape
from minitl.layers.sequences.masking import merged, of_several, ones_outside, spread_mask
from minitl.naming import told


class _Several(Layer, several_inputs=True, supports_masking=True):
    """Base of the layers that are called on two or more inputs."""

    compute_mask = of_several

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        if len(input_shape) < 2:
            raise ValueError(f"{self} takes two or more inputs, got {len(input_shape)}")
        return input_shape[0]


class _Merge(_Several):
    """Base of the layers that combine inputs place by place: of one shape, but for sizes of 1."""

    combine: Callable[[Any, Any], Tensor] = ops.add

    def call(self, x: list[Tensor]) -> Tensor:
        self.compute_output_shape([t.shape for t in x])  # raises where sizes differ
        return reduce(type(self).combine, x)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        first = super().compute_output_shape(input_shape)
        if all(shape[1:] == first[1:] for shape in input_shape):
            return first
        sizes = [
            {*along} - {1} for along in zip(*(shape[1:] for shape in input_shape), strict=False)
        ]
        if len({*map(len, input_shape)}) > 1 or any(len({*along} - {None}) > 1 for along in sizes):
            raise ValueError(
                f"{self} needs inputs of one shape, but for sizes of 1, got {input_shape}"
            )
        return (first[0], *(max(along, key=lambda n: n or 0, default=1) for along in sizes))


class Add(_Merge, combine=ops.add):
    """y = x1 + x2 + ..., for a list of inputs of one shape: a residual connection."""


class Subtract(_Merge, combine=ops.subtract):
    """y = x1 - x2, for a list of two inputs of one shape."""

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        if len(input_shape) != 2:
            raise ValueError(f"{self} takes two inputs, got {len(input_shape)}")
        return super().compute_output_shape(input_shape)


class Multiply(_Merge, combine=ops.multiply):
    """y = x1 * x2 * ..., place by place."""

    def call(self, x: list[Tensor]) -> Tensor:
        return ones_outside(super().call, x)


class Average(Add):
    """y = (x1 + x2 + ...) / how many: an ensemble's vote."""

    def call(self, x: list[Tensor]) -> Tensor:
        return super().call(x) / len(x)


class _Extreme(_Merge):
    """Base: what does not count is no extreme."""

    def call(self, x: list[Tensor]) -> Tensor:
        self.compute_output_shape([t.shape for t in x])
        return merged(type(self).combine, x)


class Maximum(_Extreme, combine=ops.maximum):
    """y = the largest of x1, x2, ..., place by place. Of equal ones the first gets the gradient."""


class Minimum(_Extreme):
    """y = the smallest of x1, x2, ..., place by place; the gradient as in Maximum."""

    @staticmethod
    def combine(a: Any, b: Any) -> Tensor:
        return -ops.maximum(-a, -b)


class Concatenate(_Several):
    """The inputs side by side along `axis` (-1: channels, or features)."""

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, x: list[Tensor]) -> Tensor:
        self.compute_output_shape([t.shape for t in x])
        return ops.concatenate(x, axis=self.axis)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        first = super().compute_output_shape(input_shape)
        rank, needs = len(first), f"{self} needs inputs"
        which = f"axis {self.axis}, got {input_shape}"
        if any(len(shape) != rank for shape in input_shape) or not -rank <= self.axis < rank:
            raise ValueError(f"{needs} of as many axes, among them {which}")
        axis = self.axis % rank
        if len({(shape[:axis], shape[axis + 1 :]) for shape in input_shape}) > 1:
            raise ValueError(f"{needs} that differ only in {which}")
        sizes = [shape[axis] for shape in input_shape]
        total = None if None in sizes else sum(n or 0 for n in sizes)
        return (*first[:axis], total, *first[axis + 1 :])

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Side by side as the inputs are; what has no mask counts. A step does if a part does."""
        super().compute_mask(inputs, mask)
        if mask is None or all(each is None for each in mask):
            return None
        both = zip(inputs, mask, strict=True)
        spread = [np.ones(x.shape, bool) if m is None else spread_mask(m, x) for x, m in both]
        return np.concatenate(spread, self.axis).any(axis=-1)


def _function_of(layer: Any) -> Any:
    def function(inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return layer(*args, **kwargs)(inputs)

    function.__name__ = function.__qualname__ = layer.__name__.lower()
    function.__doc__ = f"`{layer.__name__}()(inputs)`."
    return told(function)


add, average, concatenate = map(_function_of, (Add, Average, Concatenate))
maximum, minimum, multiply = map(_function_of, (Maximum, Minimum, Multiply))
subtract = _function_of(Subtract)
