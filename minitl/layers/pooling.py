"""Pooling: fewer places, the same channels."""

from __future__ import annotations

from typing import Any

from minitl import ops
from minitl.autograd import Tensor
from minitl.layers.base import Layer, Shape
from minitl.layers.convolution import channels_last, pair, slide_shape


class _Pooling2D(Layer):
    """Base of the two pools with a window; see MaxPooling2D for the arguments."""

    input_rank = 4

    def __init__(
        self,
        pool_size: Any = (2, 2),
        strides: Any = None,
        padding: str = "valid",
        data_format: str | None = None,
        name: str | None = None,
        *,
        trainable: bool = True,
        dtype: str | None = None,
    ):
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        channels_last(data_format)
        if str(padding).lower() not in ("valid", "same"):
            raise ValueError(f"padding must be 'valid' or 'same', got {padding!r}")
        self.pool_size = pair(pool_size, "pool_size")
        self.strides = self.pool_size if strides is None else pair(strides, "strides")
        self.padding = padding.lower()

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        out = slide_shape(input_shape, self.pool_size, self.strides, self.padding)
        return (input_shape[0], *out, input_shape[3])


class MaxPooling2D(_Pooling2D):
    """The largest number under each window, channel by channel.

    (N, H, W, C) -> (N, OH, OW, C). The gradient goes to the number that won; of equal ones, to
    the first in reading order.

    Args:
        pool_size: rows and columns of the window, one integer or two.
        strides: rows and columns that it moves at a time; None means its own size.
        padding: 'valid' or 'same'; padding never wins.
    """

    def call(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.pool_size, self.strides, self.padding)


class AveragePooling2D(_Pooling2D):
    """The mean under each window, channel by channel; padding does not count.

    (N, H, W, C) -> (N, OH, OW, C). Arguments as for MaxPooling2D.
    """

    def call(self, x: Tensor) -> Tensor:
        return ops.average_pool2d(x, self.pool_size, self.strides, self.padding)


class _GlobalPooling2D(Layer):
    input_rank = 4

    def __init__(
        self,
        data_format: str | None = None,
        keepdims: bool = False,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
    ):
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        channels_last(data_format)
        self.keepdims = keepdims

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, c = input_shape[0], input_shape[3]
        return (n, 1, 1, c) if self.keepdims else (n, c)

    def _shaped(self, y: Tensor) -> Tensor:
        return ops.reshape(y, (y.shape[0], 1, 1, y.shape[1])) if self.keepdims else y


class GlobalAveragePooling2D(_GlobalPooling2D):
    """The mean over all places: (N, H, W, C) -> (N, C), for any H and W."""

    def call(self, x: Tensor) -> Tensor:
        return self._shaped(ops.mean(x, axis=(1, 2)))


class GlobalMaxPooling2D(_GlobalPooling2D):
    """The maximum over all places: (N, H, W, C) -> (N, C), for any H and W."""

    def call(self, x: Tensor) -> Tensor:
        return self._shaped(ops.max(x, axis=(1, 2)))
