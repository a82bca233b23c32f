"""Layers that bring data to what a network takes: sizes, ranges, statistics; and Lambda.

`Resizing` and `CenterCrop` take one image (H, W, C) as well as a batch. `Normalization`
learns its mean and variance from data, by `adapt`, before training.
"""

from typing import Any, Literal

import numpy as np

from minitl import ops
from minitl.autograd import Array, Tensor, as_tensor
from minitl.layers.base import Layer, Shape
from minitl.layers.core import channels_last
from minitl.layers.pooling import positive
from minitl.naming import Count, elsewhere, part

__all__ = ["CenterCrop", "Lambda", "Normalization", "Resizing"]


class _Sized(Layer):
    """Base of layers that give images another size."""

    def __init__(self, height: Count, width: Count, data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        channels_last(data_format)
        self.height, self.width = positive(height, "height"), positive(width, "width")
        self.data_format = data_format

    def call(self, x: Tensor) -> Tensor:
        if x.ndim not in (3, 4):
            raise ValueError(f"{self} takes images (N, H, W, C) or (H, W, C), got {x.shape}")
        images = x if x.ndim == 4 else ops.expand_dims(x, 0)
        y = self.sized(images)
        return y if x.ndim == 4 else ops.squeeze(y, 0)

    def sized(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, height, width, C)."""
        raise NotImplementedError

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-3], self.height, self.width, input_shape[-1])


def resized(x: Tensor, height: Count, width: Count, interpolation: str = "bilinear") -> Tensor:
    """Images (N, H, W, C) in another size; pixels are squares, and the border's go on outside."""
    ratios = np.array([x.shape[1] / height, x.shape[2] / width])
    matrix = np.concatenate([np.diag(ratios), ratios[:, None] / 2 - 0.5], axis=1)
    matrices = np.broadcast_to(matrix, (x.shape[0], 2, 3))
    return ops.affine_transform(x, matrices, (height, width), interpolation, "nearest")


def resize(
    images: Any, size: Any, interpolation: Any = "bilinear", crop_to_aspect_ratio: bool = False
) -> Any:
    """`ops.image.resize`: what the layer Resizing does, to (height, width)."""
    height, width = size
    return Resizing(height, width, interpolation, crop_to_aspect_ratio)(images)


def middle(x: Tensor, height: Count, width: Count) -> Tensor:
    """The middle of images (N, H, W, C)."""
    top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
    return x[:, top : top + height, left : left + width]


def widest(x: Tensor, height: Count, width: Count) -> Tensor:
    """The largest middle part of images that has the proportions height : width."""
    h, w = x.shape[1:3]
    return middle(x, min(h, int(w * height / width)) or 1, min(w, int(h * width / height)) or 1)


class Resizing(_Sized):
    """Images in another size: (N, H, W, C) -> (N, height, width, C).

    Args:
        interpolation: 'bilinear' or 'nearest', without smoothing before, as in Keras.
        crop_to_aspect_ratio: take the largest middle part of the new proportions first.
    """

    def __init__(
        self,
        height: Count,
        width: Count,
        interpolation: Literal["bilinear", "nearest"] = "bilinear",
        crop_to_aspect_ratio: bool = False,
        **kwargs: Any,
    ):
        super().__init__(height, width, **kwargs)
        self.interpolation, self.crop_to_aspect_ratio = interpolation, crop_to_aspect_ratio

    def sized(self, x: Tensor) -> Tensor:
        x = widest(x, self.height, self.width) if self.crop_to_aspect_ratio else x
        return resized(x, self.height, self.width, self.interpolation)


class CenterCrop(_Sized):
    """The middle of images; of smaller ones, the largest middle part of these proportions, resized.

    (N, H, W, C) -> (N, height, width, C).
    """

    def sized(self, x: Tensor) -> Tensor:
        if x.shape[1] >= self.height and x.shape[2] >= self.width:
            return middle(x, self.height, self.width)
        return resized(widest(x, self.height, self.width), self.height, self.width)


class Normalization(Layer, supports_masking=True):
    """y = (x - mean) / sqrt(variance), for each place of `axis` by itself.

    Args:
        axis: the axes that keep statistics of their own (-1: channels, or features; None: one for
            all). `adapt` finds mean and variance.
        mean, variance: given instead.
        invert: undo it, y = x sqrt(variance) + mean.
    """

    def __init__(
        self,
        axis: Any = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if (mean is None) != (variance is None):
            raise ValueError("Normalization takes both mean and variance, or neither (then adapt)")
        self.axis = axis if axis is None or isinstance(axis, int) else tuple(axis)
        self.input_mean, self.input_variance, self.invert = mean, variance, invert
        self.adapted: Any = None  # the three weights: mean, variance, count
        self._sizes: list[int] = []  # of mean and variance, 1 for an axis that is not kept

    def get_config(self) -> dict[str, Any]:
        told = {"mean": self.input_mean, "variance": self.input_variance}
        given = part("settings").serialize(told)
        return super().get_config() | given

    def _kept(self, rank: int) -> tuple[int, ...]:
        axes = () if self.axis is None else np.atleast_1d(self.axis).tolist()
        if any(not -rank <= a < rank or a % rank == 0 for a in axes):
            what = f"axis {self.axis} for an input of {rank} axes, the first being the batch"
            raise ValueError(f"{self} cannot keep {what}")
        return tuple(sorted(a % rank for a in axes))

    def build(self, input_shape: Shape) -> None:
        kept = self._kept(len(input_shape))
        shape = tuple(input_shape[a] for a in kept)
        if None in shape:
            raise ValueError(f"{self} needs to know the size of axis {self.axis}: {input_shape}")
        self._sizes = [n or 1 if a in kept else 1 for a, n in enumerate(input_shape)]
        if self.input_mean is None:
            starts: Any = {"mean": ("zeros", shape), "variance": ("ones", shape)}
            self.adapted = [
                self.add_weight(name, size, start, trainable=False)
                for name, (start, size) in (starts | {"count": ("zeros", ())}).items()
            ]

    def _spread(self, which: int) -> Array | None:
        """Mean or variance, with an axis for each of the input's; None before it is built."""
        if not self.built:
            return None
        given = self.adapted or (self.input_mean, self.input_variance)
        a = np.asarray(given[which], self.dtype)
        places = [
            i for i, n in enumerate(self._sizes) if n > 1 or i in self._kept(len(self._sizes))
        ]
        shape = [1] * len(self._sizes)
        for place, n in zip(places[::-1], a.shape[::-1], strict=False):
            shape[place] = n
        return np.broadcast_to(a.reshape(shape), self._sizes)

    mean = property(lambda self: self._spread(0))
    variance = property(lambda self: self._spread(1))

    def adapt(self, data: Any, batch_size: Count | None = None, steps: Count | None = None) -> None:
        """Find mean and variance of data: an array (N, ...), or an iterable of batches of x."""
        if self.input_mean is not None:
            raise ValueError(f"{self} was given its mean and variance: there is nothing to adapt")
        first = data[0] if isinstance(data, (list, tuple)) and data else 0
        listed = isinstance(data, (list, tuple)) and not hasattr(first, "__array__")
        plain = listed and not isinstance(data[0] if data else (), tuple)
        batches = [np.asarray(data)] if hasattr(data, "shape") or (plain and data) else data
        count, total, squares, shift = 0, 0.0, 0.0, None
        for number, batch in enumerate(batches):
            if steps is not None and number >= steps:
                break
            x = np.asarray(batch[0] if isinstance(batch, tuple) else batch, np.float64)
            x = x[:, None] if x.ndim == 1 else x
            self.prepare(x.shape)
            others = tuple(a for a in range(x.ndim) if a not in self._kept(x.ndim))
            shift = x.mean(axis=others, keepdims=True) if shift is None else shift
            total = total + (x - shift).sum(axis=others)
            squares = squares + ((x - shift) ** 2).sum(axis=others)
            count += int(np.prod([x.shape[a] for a in others]))
        if shift is None or count == 0:
            raise ValueError(f"{self} was adapted to no data")
        mean = total / count
        found = (mean + shift.reshape(np.shape(mean)), squares / count - mean**2, count)
        for variable, value in zip(self.adapted, found, strict=True):
            variable.assign(value)

    def call(self, x: Tensor) -> Tensor:
        mean, variance = self.mean, self.variance
        deviation = np.maximum(np.sqrt(variance), x.dtype.type(1e-7))
        return x * deviation + mean if self.invert else (x - mean) / deviation


class Lambda(Layer, several_inputs=None):
    """y = function(x): a function of minitl.ops as a layer. No code is written into a file: a
    function with a name is found again by `custom_objects`, a lambda is not saved."""

    def __init__(
        self,
        function: Any,
        output_shape: Any = None,
        mask: Any = None,
        arguments: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if isinstance(function, str):  # of a file
            function = part("settings").CUSTOM.get(function, function)
        if not callable(function):
            hint = "; a file's is found in custom_objects" if isinstance(function, str) else ""
            raise TypeError(f"Lambda takes a function, got {function!r}{hint}")
        self.function, self.output_shape, self.mask = function, output_shape, mask
        self.arguments = arguments or {}

    _found_shape = elsewhere("own layers", "output_shape")

    def call(self, x: Any) -> Tensor:
        return as_tensor(self.function(x, **self.arguments))

    def compute_output_shape(self, input_shape: Any) -> Any:
        if self.output_shape is None:
            return self._found_shape(input_shape)
        if callable(self.output_shape):
            return self.output_shape(input_shape)
        first = input_shape[0] if isinstance(input_shape, list) else input_shape
        return (first[0], *self.output_shape)
