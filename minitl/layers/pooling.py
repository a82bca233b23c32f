"""Pooling: fewer places, the same channels."""

from __future__ import annotations

from typing import Any

from minitl import ops
from minitl.autograd import Tensor
from minitl.layers.base import Layer, Shape
from minitl.layers.convolution import channels_last, one, pair, slide_shape


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

    def fused_after(self, before: Any) -> Any:
        from minitl.layers.convolution import Conv2D

        return before.call_pooled if isinstance(before, Conv2D) and before.can_pool(self) else None


class AveragePooling2D(_Pooling2D):
    """The mean under each window, channel by channel; padding does not count.

    (N, H, W, C) -> (N, OH, OW, C). Arguments as for MaxPooling2D.
    """

    def call(self, x: Tensor) -> Tensor:
        return ops.average_pool2d(x, self.pool_size, self.strides, self.padding)


class _Pooling1D(Layer):
    """Base of the two pools over sequences: those over images, of one column."""

    input_rank = 3

    def __init__(
        self,
        pool_size: Any = 2,
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
        self.pool_size, self.strides = (
            one(pool_size, "pool_size"),
            one(strides or pool_size, "strides"),
        )
        if str(padding).lower() not in ("valid", "same"):
            raise ValueError(f"padding must be 'valid' or 'same', got {padding!r}")
        self.padding = padding.lower()

    def pooled(self, pool: Any, x: Tensor) -> Tensor:
        n, t, c = x.shape
        y = pool(ops.reshape(x, (n, t, 1, c)), (self.pool_size, 1), (self.strides, 1), self.padding)
        return ops.reshape(y, (n, y.shape[1], c))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, t, c = input_shape
        window, strides = (self.pool_size, 1), (self.strides, 1)
        return (n, slide_shape((n, t, 1, c), window, strides, self.padding)[0], c)


class MaxPooling1D(_Pooling1D):
    """The largest number under each window of a sequence: (N, T, C) -> (N, OT, C)."""

    def call(self, x: Tensor) -> Tensor:
        return self.pooled(ops.max_pool2d, x)


class AveragePooling1D(_Pooling1D):
    """The mean under each window of a sequence: (N, T, C) -> (N, OT, C)."""

    def call(self, x: Tensor) -> Tensor:
        return self.pooled(ops.average_pool2d, x)


class _GlobalPooling(Layer):
    """Base: reduces all axes between the batch and the channels."""

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
        between = (1,) * (len(input_shape) - 2) if self.keepdims else ()
        return (input_shape[0], *between, input_shape[-1])

    def reduced(self, reduce: Any, x: Tensor) -> Tensor:
        y = reduce(x, axis=tuple(range(1, x.ndim - 1)))
        return ops.reshape(y, (x.shape[0], *self.compute_output_shape(x.shape)[1:]))  # type: ignore


class GlobalAveragePooling2D(_GlobalPooling):
    """The mean over all places: (N, H, W, C) -> (N, C), for any H and W."""

    input_rank = 4

    def call(self, x: Tensor) -> Tensor:
        return self.reduced(ops.mean, x)


class GlobalMaxPooling2D(_GlobalPooling):
    """The maximum over all places: (N, H, W, C) -> (N, C), for any H and W."""

    input_rank = 4

    def call(self, x: Tensor) -> Tensor:
        return self.reduced(ops.max, x)


class GlobalAveragePooling1D(_GlobalPooling):
    """The mean over all steps: (N, T, C) -> (N, C)."""

    input_rank = 3

    def call(self, x: Tensor) -> Tensor:
        return self.reduced(ops.mean, x)


class GlobalMaxPooling1D(_GlobalPooling):
    """The maximum over all steps: (N, T, C) -> (N, C)."""

    input_rank = 3

    def call(self, x: Tensor) -> Tensor:
        return self.reduced(ops.max, x)
