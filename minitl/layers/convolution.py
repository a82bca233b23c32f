"""Conv2D, and what layers on images have in common."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minitl import initializers, ops, regularizers
from minitl.autograd import Tensor
from minitl.kernels.geometry import Pair, sliding
from minitl.layers.base import Layer, Shape


def pair(value: Any, what: str) -> Pair:
    """An integer n as (n, n); a pair as it is."""
    both = (value, value) if isinstance(value, (int, np.integer)) else tuple(value)
    if len(both) != 2 or any(not isinstance(n, (int, np.integer)) or n < 1 for n in both):
        raise ValueError(f"{what} must be a positive integer or two of them, got {value!r}")
    return int(both[0]), int(both[1])


def one(value: Any, what: str) -> int:
    """A positive integer, perhaps within a tuple of its own."""
    n = value[0] if isinstance(value, (tuple, list)) and len(value) == 1 else value
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"{what} must be a positive integer, got {value!r}")
    return int(n)


def slide_shape(input_shape: Shape, window: Pair, strides: Pair, padding: str) -> Shape:
    """(OH, OW) for an input (N, H, W, C) of which H and W may be unknown (None)."""
    _, h, w, _ = input_shape
    # An unknown side takes no part: any size that fits the window stands in for it.
    known = (h or max(window), w or max(window))
    oh, ow = sliding(known, window, strides, padding).out_size
    return (oh if h else None, ow if w else None)


def sides(value: Any, what: str) -> tuple[Pair, Pair]:
    """n, (rows, columns) or ((top, bottom), (left, right)) as the last of these."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    found = [(n, n) if isinstance(n, int) else tuple(n) for n in both]
    if len(found) != 2 or any(len(side) != 2 or min(side) < 0 for side in found):
        raise ValueError(f"{what} must be n, (n, n) or ((n, n), (n, n)), got {value!r}")
    return found[0], found[1]


def channels_last(data_format: str | None) -> None:
    if data_format not in (None, "channels_last"):
        raise ValueError(f"minitl keeps images as (N, H, W, C); data_format={data_format!r} is not")


class Conv2D(Layer):
    """Slides F filters of KH x KW over images (N, H, W, C): y (N, OH, OW, F).

    y = activation(x * kernel + b); the equation stands at `ops.conv2d`. The kernel is
    (KH, KW, C, F), b is (F,).

    Args:
        filters: F.
        kernel_size: KH x KW, one integer or two.
        strides: rows and columns that the window moves at a time.
        padding: 'valid' (none) or 'same' (zeros around).
        activation: a name or function; None is linear; 'relu' is fused into the kernel.
        use_bias: whether there is a b.
        kernel_initializer, bias_initializer: how the kernel and b start.
        kernel_regularizer, bias_regularizer: penalties on the kernel and b added to the loss.
        data_format, dilation_rate, groups: only Keras's defaults are there.
    """

    input_rank = 4

    def __init__(
        self,
        filters: int,
        kernel_size: Any,
        strides: Any = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Any = (1, 1),
        groups: int = 1,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
    ):
        super().__init__(name=name, trainable=trainable, dtype=dtype)
        if not isinstance(filters, (int, np.integer)) or filters < 1:
            raise ValueError(f"filters must be a positive integer, got {filters!r}")
        channels_last(data_format)
        if pair(dilation_rate, "dilation_rate") != (1, 1) or groups != 1:
            raise ValueError("minitl's Conv2D has dilation_rate=1 and groups=1 only")
        if str(padding).lower() not in ("valid", "same"):
            raise ValueError(f"padding must be 'valid' or 'same', got {padding!r}")
        self.filters = int(filters)
        self.kernel_size = pair(kernel_size, "kernel_size")
        self.strides = pair(strides, "strides")
        self.padding = padding.lower()
        self.activation = ops.activation(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel: Any = None
        self.bias: Any = None

    def build(self, input_shape: Shape) -> None:
        c = input_shape[-1]
        if c is None:
            raise ValueError(f"Conv2D {self.name!r} needs a known number of channels")
        self.kernel = self.add_weight(
            "kernel",
            (*self.kernel_size, c, self.filters),
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                "bias", (self.filters,), self.bias_initializer, regularizer=self.bias_regularizer
            )

    def call(self, x: Tensor) -> Tensor:
        fused = "relu" if self.activation is ops.relu else None
        y = ops.conv2d(x, self.kernel, self.bias, self.strides, self.padding, fused)
        return y if fused else self.activation(y)

    def can_pool(self, pool: Layer) -> bool:
        """Whether `call_pooled` gives what `pool`, the only reader of this layer, would."""
        from minitl.layers.pooling import MaxPooling2D

        return (
            type(self) is Conv2D
            and type(pool) is MaxPooling2D
            and (pool.pool_size, pool.strides, pool.padding) == ((2, 2), (2, 2), "valid")
            and (self.kernel_size, self.strides) == ((3, 3), (1, 1))
            and self.activation in (ops.relu, ops.linear)
            and pool.dtype == self.dtype
        )

    def call_pooled(self, x: Tensor) -> Tensor:
        """`call`, and 2x2 max pooling, in one pass; for values that no gradient is asked of."""
        fused = "relu" if self.activation is ops.relu else None
        return ops.conv2d_max_pool2d(x, self.kernel, self.bias, self.padding, fused)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        out = slide_shape(input_shape, self.kernel_size, self.strides, self.padding)
        return (input_shape[0], *out, self.filters)

    def multiply_adds(self, input_shape: Shape) -> int:
        places = math.prod(n or 1 for n in self.compute_output_shape(input_shape)[1:])
        return places * self.kernel_size[0] * self.kernel_size[1] * (input_shape[-1] or 1)
