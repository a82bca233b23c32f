"""Convolutions channel by channel, and over sequences: Depthwise-, SeparableConv2D, Conv1D.

A separable convolution looks at places by channel and then mixes channels at each place, with far
fewer weights than Conv2D: MobileNet's and Xception's. Conv1D is Conv2D on an image of one column.
"""

import math
from typing import Any

from minitl import initializers, ops
from minitl.autograd import Tensor
from minitl.layers.base import Layer, Shape, regularizer
from minitl.layers.convolution import pair, slide_shape, valid_or_same
from minitl.layers.core import Weighted, channels_last
from minitl.layers.pooling import positive
from minitl.naming import Count, Named, Sides

__all__ = ["Conv1D", "Convolution1D", "Cropping1D", "DepthwiseConv2D", "Embedding"]
__all__ += ["SeparableConv2D", "SeparableConvolution2D", "ZeroPadding1D"]


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
        given = {"bias_initializer": bias_initializer, "bias_regularizer": bias_regularizer}
        super().__init__(activation, use_bias, **given, **kwargs)
        channels_last(data_format)
        if pair(dilation_rate, "dilation_rate") != (1, 1):
            raise ValueError(f"minitl's {type(self).__name__} has dilation_rate=1 only")
        self.kernel_size, self.strides = pair(kernel_size, "kernel_size"), pair(strides, "strides")
        self.padding = valid_or_same(padding)
        self.depth_multiplier = positive(depth_multiplier, "depth_multiplier")
        self.depthwise_initializer = initializers.get(depthwise_initializer)
        self.depthwise_regularizer = regularizer(depthwise_regularizer)

    def get_config(self) -> dict[str, Any]:
        """Without the arguments of `Weighted` that have other names here."""
        return {
            k: v
            for k, v in super().get_config().items()
            if not k.startswith("kernel_in") and k != "kernel_regularizer"
        }

    def build(self, input_shape: Shape) -> None:
        c = _channels_of(self, input_shape)
        self.kernel = self.add_weight(
            "kernel",
            (*self.kernel_size, c, self.depth_multiplier),
            self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                (c * self.depth_multiplier,),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
            )

    def call(self, x: Tensor) -> Tensor:
        y = ops.depthwise_conv2d(x, self.kernel, self.strides, self.padding)
        return self.activation(y if self.bias is None else y + self.bias)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        out = slide_shape(input_shape, self.kernel_size, self.strides, self.padding)
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
        c = _channels_of(self, input_shape)
        m = self.depth_multiplier
        self.kernel = self.add_weight(
            "depthwise_kernel",
            (*self.kernel_size, c, m),
            self.depthwise_initializer,
            regularizer=self.depthwise_regularizer,
        )
        self.pointwise_kernel = self.add_weight(
            "pointwise_kernel",
            (1, 1, c * m, self.filters),
            self.pointwise_initializer,
            regularizer=self.pointwise_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                "bias", (self.filters,), self.bias_initializer, regularizer=self.bias_regularizer
            )

    def call(self, x: Tensor) -> Tensor:
        y = ops.depthwise_conv2d(x, self.kernel, self.strides, self.padding)
        return self.activation(ops.conv2d(y, self.pointwise_kernel, self.bias))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*super().compute_output_shape(input_shape)[:-1], self.filters)

    def multiply_adds(self, input_shape: Shape) -> int:
        places = super().compute_output_shape(input_shape)[1:]
        return math.prod(n or 1 for n in places) * (math.prod(self.kernel_size) + self.filters)


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
        sizes = [v[0] if isinstance(v, (list, tuple)) else v for v in (kernel_size, strides)]
        if dilation_rate not in (1, (1,), [1]) or groups != 1:
            raise ValueError("minitl's Conv1D has dilation_rate=1 and groups=1 only")
        self.filters = positive(filters, "filters")
        self.kernel_size = positive(sizes[0], "kernel_size")
        self.strides = positive(sizes[1], "strides")
        self.padding = padding if padding == "causal" else valid_or_same(padding)

    def build(self, input_shape: Shape) -> None:
        self.add_kernel((self.kernel_size, _channels_of(self, input_shape), self.filters))

    def call(self, x: Tensor) -> Tensor:
        if self.padding == "causal":
            x = ops.pad(x, ((0, 0), (self.kernel_size - 1, 0), (0, 0)))
        padding = "valid" if self.padding == "causal" else self.padding
        kernel = ops.expand_dims(self.kernel, 1)
        y = ops.conv2d(ops.expand_dims(x, 2), kernel, self.bias, (self.strides, 1), padding)
        return self.activation(ops.squeeze(y, 2))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, t, c = input_shape
        before = self.kernel_size - 1 if self.padding == "causal" else 0
        padding = "valid" if before or self.padding == "causal" else self.padding
        padded = (n, None if t is None else t + before, 1, c)
        out = slide_shape(padded, (self.kernel_size, 1), (self.strides, 1), padding)
        return (n, out[0], self.filters)

    def multiply_adds(self, input_shape: Shape) -> int:
        steps = self.compute_output_shape(input_shape)[1] or 1
        return steps * self.kernel_size * (input_shape[-1] or 1) * self.filters


class ZeroPadding1D(Layer, input_rank=3):
    """Steps of zeros around sequences (N, T, C): `padding` at both ends, or (before, after)."""

    def __init__(self, padding: Any = 1, data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        channels_last(data_format)
        self.padding = _ends(padding, "padding")

    def call(self, x: Tensor) -> Tensor:
        return ops.pad(x, ((0, 0), self.padding, (0, 0)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, t, c = input_shape
        return (n, None if t is None else t + sum(self.padding), c)


def _ends(value: Any, what: str) -> tuple[int, int]:
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or any(not isinstance(n, int) or n < 0 for n in both):
        raise ValueError(f"{what} is a number of steps or two of them, got {value!r}")
    return both[0], both[1]


class Cropping1D(Layer, input_rank=3):
    """Takes steps away from sequences (N, T, C): as many at both ends, or (before, after)."""

    def __init__(self, cropping: Any = (1, 1), **kwargs: Any):
        super().__init__(**kwargs)
        self.cropping = _ends(cropping, "cropping")

    def call(self, x: Tensor) -> Tensor:
        return x[:, self.cropping[0] : self.compute_output_shape(x.shape)[1] + self.cropping[0]]  # type: ignore[operator]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, t, c = input_shape
        left = None if t is None else t - sum(self.cropping)
        if left is not None and left <= 0:
            raise ValueError(f"{self} takes {sum(self.cropping)} steps away, {input_shape} has {t}")
        return (n, left, c)


class Embedding(Layer):
    """Integers from 0 to input_dim - 1 as vectors that are learned: (N, ...) -> (N, ..., D).

    The weight `embeddings` is (input_dim, output_dim). `mask_zero` is refused.
    """

    def __init__(
        self,
        input_dim: Count,
        output_dim: Count,
        embeddings_initializer: Named = "uniform",
        embeddings_regularizer: Named | None = None,
        *,
        mask_zero: bool = False,
        weights: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.input_dim = positive(input_dim, "input_dim")
        self.output_dim = positive(output_dim, "output_dim")
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizer(embeddings_regularizer)
        if mask_zero:
            what = "mask_zero=True would have to hide steps from the LSTM or GRU after it"
            raise ValueError(f"{what}, which minitl does not: make sequences of one length")
        self.mask_zero = mask_zero
        self._start = weights
        self.embeddings: Any = None

    def build(self, input_shape: Shape) -> None:
        self.embeddings = self.add_weight(
            "embeddings",
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
        )
        if self._start is not None:
            start = self._start[0] if isinstance(self._start, list) else self._start
            self.embeddings.assign(start)

    def call(self, x: Tensor) -> Tensor:
        index = x.storage.astype("int64")
        if index.size and not (index.min() >= 0 and index.max() < self.input_dim):
            found = f"integers from {index.min()} to {index.max()}"
            raise ValueError(f"{self} takes integers from 0 to {self.input_dim - 1}, got {found}")
        return ops.take(self.embeddings, index, 0)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.output_dim)


Convolution1D, SeparableConvolution2D = Conv1D, SeparableConv2D
