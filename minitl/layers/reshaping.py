"""Layers that compute nothing: they put the same numbers into another shape.

Rows, sequences and images are reshaped, padded, cropped and repeated; Flatten is in `core.py`.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np

from minitl import ops
from minitl.autograd import Tensor
from minitl.kernels.geometry import Pair
from minitl.layers.base import Layer, Shape
from minitl.layers.convolution import pair
from minitl.layers.core import channels_last
from minitl.naming import Count, Sides

Margins: TypeAlias = Annotated[Any, "n, (n, n) or ((n, n), (n, n))"]


class Identity(Layer, supports_masking=True):
    """y = x."""

    def call(self, x: Tensor) -> Tensor:
        return x


class Reshape(Layer):
    """(N, ...) -> (N, *target_shape); one -1 in it stands for what remains."""

    def __init__(self, target_shape: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.target_shape = tuple(int(n) for n in target_shape)
        if self.target_shape.count(-1) > 1 or any(n < 1 and n != -1 for n in self.target_shape):
            allowed = "positive sizes and at most one -1"
            raise ValueError(f"target_shape has {allowed}, got {target_shape!r}")

    def call(self, x: Tensor) -> Tensor:
        return ops.reshape(x, (x.shape[0], *self.compute_output_shape(x.shape)[1:]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, rest = input_shape[0], input_shape[1:]
        if None in rest:
            return (n, *(None if size == -1 else size for size in self.target_shape))
        total = math.prod(size or 1 for size in rest)
        known = math.prod(size for size in self.target_shape if size != -1)
        target = tuple(total // known if size == -1 else size for size in self.target_shape)
        if math.prod(target) != total:
            raise ValueError(f"{self} cannot put {rest} ({total} numbers) into {self.target_shape}")
        return (n, *target)


class Permute(Layer):
    """The axes in another order: dims = (2, 1) exchanges the two after the batch."""

    def __init__(self, dims: Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.dims = tuple(dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            raise ValueError(f"dims must be the numbers from 1 on in some order, got {dims!r}")

    def call(self, x: Tensor) -> Tensor:
        self.compute_output_shape(x.shape)
        return ops.transpose(x, (0, *self.dims))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != (count := len(self.dims)) + 1:
            raise ValueError(f"{self} orders {count} axes after the batch, got shape {input_shape}")
        return (input_shape[0], *(input_shape[d] for d in self.dims))


class RepeatVector(Layer, input_rank=2):
    """(N, D) -> (N, n, D): the same row n times."""

    def __init__(self, n: Count, **kwargs: Any):
        super().__init__(**kwargs)
        self.n = int(n)

    def call(self, x: Tensor) -> Tensor:
        rows = ops.reshape(x, (x.shape[0], 1, x.shape[1]))
        return rows * Tensor(np.ones((1, self.n, 1), x.dtype))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.n, input_shape[1])


def _sides(value: Any) -> tuple[Pair, Pair]:
    """n, (rows, columns) or ((top, bottom), (left, right)) as the last of these."""
    both = (value, value) if isinstance(value, int) else tuple(value)
    rows, columns = ((n, n) if isinstance(n, int) else tuple(n) for n in both)
    return rows, columns


class ZeroPadding2D(Layer, input_rank=4):
    """Rows and columns of zeros around images (N, H, W, C).

    `padding` is n (all four sides), (rows, columns), or ((top, bottom), (left, right)).
    """

    def __init__(self, padding: Margins = (1, 1), data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        channels_last(data_format)
        self.padding = _sides(padding)

    def call(self, x: Tensor) -> Tensor:
        return ops.zero_pad2d(x, (*self.padding[0], *self.padding[1]))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, h, w, c = input_shape
        return (n, h and h + sum(self.padding[0]), w and w + sum(self.padding[1]), c)


class Cropping2D(Layer, input_rank=4):
    """Takes rows and columns away from images (N, H, W, C): as many as ZeroPadding2D would add."""

    def __init__(
        self, cropping: Margins = ((0, 0), (0, 0)), data_format: str | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        channels_last(data_format)
        self.cropping = _sides(cropping)

    def call(self, x: Tensor) -> Tensor:
        _, h, w, _ = self.compute_output_shape(x.shape)
        (top, _), (left, _) = self.cropping
        return x[:, top : top + (h or 0), left : left + (w or 0)]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, h, w, c = input_shape
        rows, columns = (sum(side) for side in self.cropping)
        if (h is not None and h <= rows) or (w is not None and w <= columns):
            away = f"{rows} rows and {columns} columns away, which leaves nothing of {input_shape}"
            raise ValueError(f"{self} takes {away}")
        return (n, h and h - rows, w and w - columns, c)


class UpSampling2D(Layer, input_rank=4):
    """Every place of images (N, H, W, C) becomes a block of size[0] x size[1] equal ones."""

    def __init__(
        self,
        size: Sides = (2, 2),
        data_format: str | None = None,
        interpolation: Literal["nearest"] = "nearest",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        channels_last(data_format)
        self.size, self.interpolation = pair(size, "size"), interpolation

    def call(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        rows, columns = self.size
        blocks = ops.reshape(x, (n, h, 1, w, 1, c))
        blocks = blocks * Tensor(np.ones((1, 1, rows, 1, columns, 1), x.dtype))
        return ops.reshape(blocks, (n, h * rows, w * columns, c))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        n, h, w, c = input_shape
        return (n, h and h * self.size[0], w and w * self.size[1], c)
