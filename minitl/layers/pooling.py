"""Pooling beside MaxPooling2D (in `layers/convolution.py`): fewer places, the same channels.

Average pooling of images, pools of sequences (N, T, C), and pools over all places at once.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from minitl import ops
from minitl.autograd import Tensor
from minitl.layers.base import Layer, Shape
from minitl.layers.convolution import Pooling2D, slide_shape
from minitl.layers.core import channels_last
from minitl.naming import Sides


class AveragePooling2D(Pooling2D, pool=ops.average_pool2d):
    """The mean under each window, channel by channel; padding does not count.

    (N, H, W, C) -> (N, OH, OW, C). Arguments as for MaxPooling2D.
    """


def positive(value: Any, what: str) -> int:
    """`value` if it is an integer of at least 1; ValueError if not."""
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{what} must be a positive integer, got {value!r}")
    return int(value)


def _single(value: Any, what: str) -> int:
    """A positive integer, perhaps within a tuple of its own."""
    alone = isinstance(value, (tuple, list)) and len(value) == 1
    return positive(value[0] if alone else value, what)


class _Pooling1D(Pooling2D, input_rank=3, sides=_single):
    """Base of the two pools over sequences (N, T, C): those over images, of one column."""

    def __init__(self, pool_size: Sides = 2, *args: Any, **kwargs: Any):
        super().__init__(pool_size, *args, **kwargs)

    def call(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        image = ops.reshape(x, (n, t, 1, c))
        y = type(self).pool(image, (self.pool_size, 1), (self.strides, 1), self.padding)
        return ops.reshape(y, (n, y.shape[1], c))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, t, c = input_shape
        how = (self.pool_size, 1), (self.strides, 1), self.padding
        return (n, slide_shape((n, t, 1, c), *how)[0], c)


class MaxPooling1D(_Pooling1D, pool=ops.max_pool2d):
    """The largest number under each window of a sequence: (N, T, C) -> (N, OT, C)."""


class AveragePooling1D(_Pooling1D, pool=ops.average_pool2d):
    """The mean under each window of a sequence: (N, T, C) -> (N, OT, C)."""


class _GlobalPooling(Layer):
    """Base: reduces all axes between the batch and the channels."""

    reduce: ClassVar[Callable[..., Tensor]] = ops.mean

    def __init__(self, data_format: str | None = None, keepdims: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        channels_last(data_format)
        self.keepdims = keepdims

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        between = (1,) * (len(input_shape) - 2) if self.keepdims else ()
        return (input_shape[0], *between, input_shape[-1])

    def call(self, x: Tensor) -> Tensor:
        y = type(self).reduce(x, axis=tuple(range(1, x.ndim - 1)))
        return ops.reshape(y, (x.shape[0], *self.compute_output_shape(x.shape)[1:]))


class GlobalAveragePooling2D(_GlobalPooling, input_rank=4, reduce=ops.mean):
    """The mean over all places: (N, H, W, C) -> (N, C), for any H and W."""


class GlobalMaxPooling2D(_GlobalPooling, input_rank=4, reduce=ops.max):
    """The maximum over all places: (N, H, W, C) -> (N, C), for any H and W."""


class GlobalAveragePooling1D(_GlobalPooling, input_rank=3, reduce=ops.mean, supports_masking=True):
    """The mean over all steps, or those that count: (N, T, C) -> (N, C)."""

    def call(self, x: Tensor, mask: Any = None) -> Tensor:
        if mask is None:
            return super().call(x)
        counts = np.asarray(mask)[..., None].astype(x.dtype)
        return super().call(x * (counts / counts.mean(axis=1, keepdims=True)))

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """None: there are no steps any more."""


class GlobalMaxPooling1D(_GlobalPooling, input_rank=3, reduce=ops.max):
    """The maximum over all steps: (N, T, C) -> (N, C)."""


MaxPool1D = MaxPooling1D
AvgPool1D, AvgPool2D = AveragePooling1D, AveragePooling2D
GlobalAvgPool1D, GlobalAvgPool2D = GlobalAveragePooling1D, GlobalAveragePooling2D
GlobalMaxPool1D, GlobalMaxPool2D = GlobalMaxPooling1D, GlobalMaxPooling2D
