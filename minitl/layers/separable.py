"""Convolutions channel by channel, over sequences, and back to larger images (Conv2DTranspose).

A separable convolution looks at places by channel and then mixes channels at each place, with far
fewer weights than Conv2D: MobileNet's and Xception's. Conv1D is Conv2D on an image of one column.
"""

import math
from typing import Any

from minitl import initializers, ops
from minitl.autograd import Tensor
from minitl.layers.base import Layer, Shape, regularizer
from minitl.layers.convolution import Conv2D, pair, slide_shape, valid_or_same
from minitl.layers.core import Weighted, channels_last
from minitl.layers.pooling import positive
from minitl.naming import Count, Named, Sides
from minitl.ops.images import enlarged

__all__ = ["Conv1D", "Conv2DTranspose", "Convolution1D", "Convolution2DTranspose"]
__all__ += ["DepthwiseConv2D", "SeparableConv2D", "SeparableConvolution2D"]


def _channels_of(layer: Layer, input_shape: Shape) -> int:
    if input_shape[-1] is None:
        raise ValueError(f"{layer} needs a known number of channels")
    return input_shape[-1]


class DepthwiseConv2D(Weighted, input_rank=4):
    """Every channel by filters of its own: (N, H, W, C) -> (N, OH, OW, C * depth_multiplier).

    y[..., c * M + m] = x[..., c] * kernel[:, :, c, m] + b; kernel (KH, KW, C, M), M being
    `depth_multiplier`. The others are those of Conv2D.
    """

    def __init__(
        self,
        kernel_size: Sides,
        strides: Sides = (1, 1),
        padding: str = "valid",
        depth_multiplier: Count = 1,
        data_format: str | None = None,
        dilation_rate: Sides = (1, 1),
        activation: Named | None = None,
        use_bias: bool = True,
        depthwise_initializer: Named = "glorot_uniform",
        bias_initializer: Named = "zeros",
        depthwise_regularizer: Named | None = None,
        bias_regularizer: Named | None = None,
        **kwargs: Any,
    ):
        starts = (depthwise_initializer, bias_initializer, depthwise_regularizer, bias_regularizer)
        super().__init__(activation, use_bias, *starts, **kwargs)
        channels_last(data_format)
        self.dilation_rate = pair(dilation_rate, "dilation_rate")
        self.kernel_size, self.strides = pair(kernel_size, "kernel_size"), pair(strides, "strides")
        self.padding = valid_or_same(padding)
        self.depth_multiplier = positive(depth_multiplier, "depth_multiplier")
        self.depthwise_initializer = self.kernel_initializer
        self.depthwise_regularizer = self.kernel_regularizer

    def get_config(self) -> dict[str, Any]:
        """Without the arguments of `Weighted` that have other names here."""
        others = ("kernel_initializer", "kernel_regularizer")
        return {k: v for k, v in super().get_config().items() if k not in others}

    def made(self, name: str, shape: Shape, of: str) -> Any:
        """A weight, with the initializer and the penalty of depthwise or pointwise kernels."""
        start, penalty = getattr(self, f"{of}_initializer"), getattr(self, f"{of}_regularizer")
        return self.add_weight(name, shape, start, regularizer=penalty)

    def build(self, input_shape: Shape) -> None:
        c, m = _channels_of(self, input_shape), self.depth_multiplier
        self.kernel = self.made("kernel", (*self.kernel_size, c, m), "depthwise")
        self.bias = self.made("bias", (c * m,), "bias") if self.use_bias else None

    def call(self, x: Tensor) -> Tensor:
        y = self.by_channel(x)
        return self.activation(y if self.bias is None else y + self.bias)

    def by_channel(self, x: Tensor) -> Tensor:
        kernel = ops.with_gaps(self.kernel, self.dilation_rate)
        return ops.depthwise_conv2d(x, kernel, self.strides, self.padding)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        how = (self.kernel_size, self.strides, self.padding, self.dilation_rate)
        out = slide_shape(input_shape, *how)
        return (input_shape[0], *out, _channels_of(self, input_shape) * self.depth_multiplier)

    def multiply_adds(self, input_shape: Shape) -> int:
        places = (*self.compute_output_shape(input_shape)[1:], *self.kernel_size)
        return math.prod(n or 1 for n in places)


class SeparableConv2D(DepthwiseConv2D):
    """A DepthwiseConv2D without bias, then filters of 1x1: (N, H, W, C) -> (N, OH, OW, F)."""

    def __init__(
        self,
        filters: Count,
        kernel_size: Sides,
        strides: Sides = (1, 1),
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sides = (1, 1),
        depth_multiplier: Count = 1,
        activation: Named | None = None,
        use_bias: bool = True,
        depthwise_initializer: Named = "glorot_uniform",
        pointwise_initializer: Named = "glorot_uniform",
        bias_initializer: Named = "zeros",
        depthwise_regularizer: Named | None = None,
        pointwise_regularizer: Named | None = None,
        bias_regularizer: Named | None = None,
        **kwargs: Any,
    ):
        first = (kernel_size, strides, padding, depth_multiplier, data_format, dilation_rate)
        starts = (depthwise_initializer, bias_initializer, depthwise_regularizer, bias_regularizer)
        super().__init__(*first, activation, use_bias, *starts, **kwargs)
        self.filters = positive(filters, "filters")
        self.pointwise_initializer = initializers.get(pointwise_initializer)
        self.pointwise_regularizer = regularizer(pointwise_regularizer)

    def build(self, input_shape: Shape) -> None:
        c, m, f = _channels_of(self, input_shape), self.depth_multiplier, self.filters
        self.kernel = self.made("depthwise_kernel", (*self.kernel_size, c, m), "depthwise")
        self.pointwise_kernel = self.made("pointwise_kernel", (1, 1, c * m, f), "pointwise")
        self.bias = self.made("bias", (f,), "bias") if self.use_bias else None

    def call(self, x: Tensor) -> Tensor:
        return self.activation(ops.conv2d(self.by_channel(x), self.pointwise_kernel, self.bias))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*super().compute_output_shape(input_shape)[:-1], self.filters)

    def multiply_adds(self, input_shape: Shape) -> int:
        places = super().compute_output_shape(input_shape)[1:]
        return math.prod(n or 1 for n in places) * (math.prod(self.kernel_size) + self.filters)


class Conv2DTranspose(Conv2D):
    """Conv2D the other way round, to larger images: (N, H, W, C) -> (N, OH, OW, F).

    See `ops.conv2d_transpose`; the kernel is (KH, KW, F, C). With padding 'same' an image becomes
    `strides` times as large. The arguments are those of Conv2D, without gaps and groups.
    """

    def get_config(self) -> dict[str, Any]:
        return {name: value for name, value in super().get_config().items() if name != "groups"}

    def build(self, input_shape: Shape) -> None:
        if (self.groups, self.dilation_rate) != (1, (1, 1)):
            raise ValueError(f"{self} takes groups and dilation_rate of 1 only")
        c = _channels_of(self, input_shape)
        self.add_kernel((*self.kernel_size, self.filters, c), self.filters)

    def call(self, x: Tensor) -> Tensor:
        y = ops.conv2d_transpose(x, self.kernel, self.strides, self.padding)
        return self.activation(y if self.bias is None else y + self.bias)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        how = (self.kernel_size, self.strides, self.padding)
        return (input_shape[0], *enlarged(input_shape[1:3], *how), self.filters)

    def multiply_adds(self, input_shape: Shape) -> int:
        return math.prod(n or 1 for n in (*input_shape[1:], *self.kernel_size, self.filters))


class Conv1D(Weighted, input_rank=3):
    """Slides F filters of K steps over sequences (N, T, C): y (N, OT, F); kernel (K, C, F).

    padding 'causal' puts K - 1 steps of zeros before, so that no step sees a later one.
    """

    def __init__(
        self,
        filters: Count,
        kernel_size: Sides,
        strides: Sides = 1,
        padding: str = "valid",
        data_format: str | None = None,
        dilation_rate: Sides = 1,
        groups: Count = 1,
        *args: Any,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        channels_last(data_format)
        self.kernel_size, self.strides, self.dilation_rate = (
            positive(value[0] if isinstance(value, (list, tuple)) else value, "sizes in Conv1D")
            for value in (kernel_size, strides, dilation_rate)
        )
        self.filters, self.groups = positive(filters, "filters"), positive(groups, "groups")
        self.padding = padding if padding == "causal" else valid_or_same(padding)

    def build(self, input_shape: Shape) -> None:
        c = _channels_of(self, input_shape)
        self.add_kernel((self.kernel_size, c // self.groups, self.filters))

    def _causal(self) -> int:
        """Steps of zeros before the first."""
        return (self.kernel_size - 1) * self.dilation_rate if self.padding == "causal" else 0

    def call(self, x: Tensor) -> Tensor:
        x = ops.pad(x, ((0, 0), (self._causal(), 0), (0, 0))) if self._causal() else x
        padding = "valid" if self.padding == "causal" else self.padding
        how = (self.strides, 1), padding, (self.dilation_rate, 1), self.groups
        kernel = ops.expand_dims(self.kernel, 1)
        y = ops.conv2d_wide(ops.expand_dims(x, 2), kernel, self.bias, *how)
        return self.activation(ops.squeeze(y, 2))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, t, c = input_shape
        padding = "valid" if self.padding == "causal" else self.padding
        padded = (n, None if t is None else t + self._causal(), 1, c)
        how = (self.kernel_size, 1), (self.strides, 1), padding, (self.dilation_rate, 1)
        return (n, slide_shape(padded, *how)[0], self.filters)

    def multiply_adds(self, input_shape: Shape) -> int:
        steps = self.compute_output_shape(input_shape)[1] or 1
        return steps * self.kernel_size * (input_shape[-1] or 1) // self.groups * self.filters


Convolution1D, SeparableConvolution2D = Conv1D, SeparableConv2D
Convolution2DTranspose = Conv2DTranspose
