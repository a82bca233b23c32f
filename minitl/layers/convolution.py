"""Conv2D and MaxPooling2D: the layers that VGG16's base is made of.

Both slide a window over images (N, H, W, C), as `minitl/ops` says. Read `layers/base.py` first.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from minitl import ops
from minitl.autograd import Tensor
from minitl.kernels.geometry import Pair, sliding
from minitl.layers.base import Layer, Shape
from minitl.layers.core import Weighted, channels_last
from minitl.naming import Count, Sides

__all__ = ["Conv2D", "MaxPool2D", "MaxPooling2D"]


def pair(value: Any, what: str) -> Pair:
    """An integer n as (n, n); a pair as it is. Raises ValueError for anything else."""
    both = (value, value) if isinstance(value, (int, np.integer)) else tuple(value)
    if len(both) != 2 or any(not isinstance(n, (int, np.integer)) or n < 1 for n in both):
        raise ValueError(f"{what} must be a positive integer or two of them, got {value!r}")
    return int(both[0]), int(both[1])


def valid_or_same(padding: Any) -> str:
    """The padding's name in small letters. Raises ValueError for any other."""
    if str(padding).lower() not in ("valid", "same"):
        raise ValueError(f"padding must be 'valid' or 'same', got {padding!r}")
    return padding.lower()


def slide_shape(
    input_shape: Shape, window: Pair, strides: Pair, padding: str, *rate: Pair
) -> Shape:
    """(OH, OW) for an input (N, H, W, C) of which H and W may be unknown; rate: of dilation."""
    size: Any = tuple((n - 1) * r + 1 for n, r in zip(window, *(rate or [(1, 1)]), strict=True))
    _, h, w, _ = input_shape
    # An unknown side takes no part: any size that fits the window stands in for it.
    known = (h or max(size), w or max(size))
    oh, ow = sliding(known, size, strides, padding).out_size
    return (oh if h else None, ow if w else None)


class Conv2D(Weighted, input_rank=4):
    """Slides F filters of KH x KW over images (N, H, W, C): y (N, OH, OW, F).

    y = activation(x * kernel + b), see `ops.conv2d`; the kernel is (KH, KW, C, F), b is (F,).

    Args:
        filters, kernel_size: F; and KH x KW, one integer or two.
        strides, padding: how far the window moves at a time; 'valid', or 'same' (zeros around).
        data_format, dilation_rate, groups: channels last; gaps in the window; shares of channels.
        The others are those of `Weighted`, in its order; 'relu' is fused into the convolution.
    """

    def __init__(
        self,
        filters: Count,
        kernel_size: Sides,
        strides: Sides = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sides = (1, 1),
        groups: Count = 1,
        *args: Any,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        channels_last(data_format)
        self.filters, self.groups = int(filters), int(groups)
        self.dilation_rate = pair(dilation_rate, "dilation_rate")
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.strides = pair(strides, "strides")
        self.padding = valid_or_same(padding)
        if self.filters % self.groups or max(self.strides) > 1 < max(self.dilation_rate):
            raise ValueError(f"{self}: groups divide filters; strides or dilation_rate are 1")
        self._how = (self.strides, self.padding, self.dilation_rate)

    def build(self, input_shape: Shape) -> None:
        if input_shape[-1] is None:
            raise ValueError(f"{self} needs a known number of channels")
        self.add_kernel((*self.kernel_size, input_shape[-1] // self.groups, self.filters))

    def call(self, x: Tensor) -> Tensor:
        if (self.dilation_rate, self.groups) != ((1, 1), 1):
            y = ops.conv2d_wide(x, self.kernel, self.bias, *self._how, self.groups)
            return self.activation(y)
        y = ops.conv2d(x, self.kernel, self.bias, self.strides, self.padding, self.fused)
        return y if self.fused else self.activation(y)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        sides = slide_shape(input_shape, self.kernel_size, *self._how)
        return (input_shape[0], *sides, self.filters)

    def multiply_adds(self, input_shape: Shape) -> int:
        shape = (*self.compute_output_shape(input_shape)[1:], *self.kernel_size, input_shape[-1])
        return math.prod(n or 1 for n in shape) // self.groups


class Pooling2D(Layer, input_rank=4):
    """Base of the pools with a window; see MaxPooling2D for the arguments."""

    sides: ClassVar[Callable[[Any, str], Any]] = pair
    pool: ClassVar[Callable[..., Tensor]] = ops.max_pool2d  # of images

    def __init__(
        self,
        pool_size: Sides = (2, 2),
        strides: Sides | None = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        channels_last(data_format)
        self.pool_size = type(self).sides(pool_size, "pool_size")
        self.strides = self.pool_size if strides is None else type(self).sides(strides, "strides")
        self.padding = valid_or_same(padding)

    def call(self, x: Tensor) -> Tensor:
        return type(self).pool(x, self.pool_size, self.strides, self.padding)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        out = slide_shape(input_shape, self.pool_size, self.strides, self.padding)
        return (input_shape[0], *out, input_shape[3])


class MaxPooling2D(Pooling2D):
    """The largest number under each window, channel by channel: (N, H, W, C) -> (N, OH, OW, C).

    Args:
        pool_size: rows and columns of the window, one integer or two.
        strides, padding: how far it moves at a time (its own size); 'same' padding never wins.
    """


MaxPool2D = MaxPooling2D
