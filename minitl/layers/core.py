"""Input, Dense and Flatten: where data enter a model, and where it decides.

`Input` gives the symbolic tensor that a model starts from. `Flatten` makes rows of F out of feature
maps, and `Dense` is the head that is trained on them. `Weighted` is what Dense and Conv2D share.
`layers/base.py` says how a layer is built and called; the mathematics is in `minitl/ops`.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minitl import initializers, ops
from minitl.autograd import Array, Tensor
from minitl.layers.base import Call, Layer, Shape, SymbolicTensor, regularizer
from minitl.naming import Count, Named, check_keywords

__all__ = ["Dense", "Flatten", "Input", "InputLayer"]


def channels_last(data_format: str | None) -> None:
    """Raise ValueError for the layout (N, C, H, W), which minitl does not have."""
    if data_format not in (None, "channels_last"):
        raise ValueError(f"minitl keeps images as (N, H, W, C); data_format={data_format!r} is not")


class InputLayer(Layer):
    """Where data enters a model; the arguments are those of `Input`."""

    def __init__(
        self,
        shape: Count | Sequence[Count | None] | None = None,
        batch_size: Count | None = None,
        dtype: Any = None,
        *,
        batch_shape: Sequence[Count | None] | None = None,
        **kwargs: Any,
    ):
        whole = "int" in str(dtype) or "bool" in str(dtype)  # which layers after it compute with
        super().__init__(dtype=None if whole else dtype, **kwargs)
        self.dtype = np.dtype(dtype).name if whole else self.dtype
        if batch_shape is not None:
            if shape is not None or batch_size is not None:
                raise ValueError("batch_shape is both batch_size and shape: give it alone")
            batch_size, shape = batch_shape[0], tuple(batch_shape[1:])
        if shape is None:
            raise ValueError("Input needs a shape (without the batch axis), e.g. (224, 224, 3)")
        sizes: Any = shape if hasattr(shape, "__len__") else [shape]
        self.batch_shape: Shape = (batch_size, *sizes)
        # Called with the arrays that enter and the layer's name, to warn of what cannot be right.
        self.inspect: Callable[[Array, str], None] | None = None
        self.built = True
        self.symbolic_calls.append(call := Call(self, []))
        call.outputs.append(SymbolicTensor(self.batch_shape, self.dtype, call))

    def call(self, x: Any = None) -> Any:
        if self.inspect is not None and x is not None:
            self.inspect(x.storage, self.name)
        return x

    def get_config(self) -> dict[str, Any]:
        return {"batch_shape": list(self.batch_shape), "dtype": self.dtype, "name": self.name}


class InputRange:
    """Warns once when images cannot have been preprocessed for the weights that they meet.

    Images scaled to [0, 1] make plausible nonsense of weights that were trained on [low, high].
    The extremes of a batch tell what it is: preprocessed images are centred, others are not.
    `remedy` is a sentence that says what to call. An InputLayer calls this with its arrays.
    """

    def __init__(self, low: float, high: float, remedy: str):
        self.low, self.high, self.remedy = low, high, remedy
        self.done = False

    def __call__(self, x: Array, name: str) -> None:
        if self.done or x.size == 0 or x.min() == x.max():  # a constant image says nothing
            return
        self.done = True
        low, high = float(x.min()), float(x.max())
        scaled = low >= -1 and high <= 1 < self.high
        outside = low < self.low - 1 or high > self.high + 1
        if scaled or outside or low >= 0 > self.low:
            given = f"the images given to {name!r} have values from {low:.4g} to {high:.4g}"
            due = f"its pretrained weights expect about {self.low:.4g} to {self.high:.4g}"
            warnings.warn(f"{given}, but {due}. {self.remedy}", UserWarning, stacklevel=2)


@check_keywords
def Input(
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    *,
    batch_shape: Shape | None = None,
    name: str | None = None,
) -> SymbolicTensor:
    """A symbolic tensor for data: where a model starts.

    Args:
        shape: of one sample, without the batch axis; None where any size will do.
        batch_size: of no effect on results. `batch_shape` is (batch_size, *shape).
        dtype: data are converted to it.

    >>> Input((224, 224, 3)).shape
    (None, 224, 224, 3)
    """
    layer = InputLayer(shape, batch_size, dtype, batch_shape=batch_shape, name=name)
    return layer.symbolic_calls[0].outputs[0]


class Weighted(Layer):
    """Base of the layers y = activation(x * kernel + b), whatever product `*` is.

    Args:
        activation: a name or function; None is linear.
        use_bias: whether there is a b.
        kernel_initializer, bias_initializer: how the kernel and b start.
        kernel_regularizer, bias_regularizer: penalties on them added to the loss, e.g. 'l2'.
    """

    def __init__(
        self,
        activation: Named | None = None,
        use_bias: bool = True,
        kernel_initializer: Named = "glorot_uniform",
        bias_initializer: Named = "zeros",
        kernel_regularizer: Named | None = None,
        bias_regularizer: Named | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.activation, self.use_bias = ops.activation(activation), use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizer(kernel_regularizer)
        self.bias_regularizer = regularizer(bias_regularizer)
        self.kernel: Any = None
        self.bias: Any = None

    def add_kernel(self, shape: tuple[int, ...], outputs: int | None = None) -> None:
        """Make the kernel (..., m), and b (m,) if there is one; `outputs`: m, if not the last."""
        self.kernel = self.add_weight(
            "kernel", shape, self.kernel_initializer, regularizer=self.kernel_regularizer
        )
        if self.use_bias:
            shape, penalty = (outputs or shape[-1],), self.bias_regularizer
            self.bias = self.add_weight("bias", shape, self.bias_initializer, regularizer=penalty)

    @property
    def fused(self) -> str | None:
        """The activation, where the operation applies it itself: 'relu', or None."""
        return "relu" if self.activation is ops.relu else None


class Dense(Weighted, supports_masking=True):
    """y = activation(x W + b): every output is a weighted sum of every input.

    W is (D, m), b is (m,), and `units` is m; the other arguments are those of `Weighted`, in its
    order. An input of more than two axes (N, ..., D) is treated row by row.
    """

    def __init__(self, units: Count, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.units = int(units)

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 2 or input_shape[-1] is None:
            needs = f"{self} needs inputs (N, ..., D) with a known D, got {input_shape}"
            how = "After a base without fixed image size, put GlobalAveragePooling2D first."
            raise ValueError(f"{needs}. {how}")
        self.add_kernel((input_shape[-1], self.units))

    def call(self, x: Tensor) -> Tensor:
        rows = x if x.ndim == 2 else ops.reshape(x, (-1, x.shape[-1]))
        y = ops.dense(rows, self.kernel, self.bias, self.fused)
        y = y if x.ndim == 2 else ops.reshape(y, (*x.shape[:-1], self.units))
        return y if self.fused else self.activation(y)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def multiply_adds(self, input_shape: Shape) -> int:
        return math.prod(n or 1 for n in input_shape[1:]) * self.units


class Flatten(Layer):
    """(N, H, W, C) -> (N, H*W*C): feature maps become rows of F."""

    def __init__(self, data_format: str | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        channels_last(data_format)
        self.data_format = data_format

    def call(self, x: Tensor) -> Tensor:
        return ops.reshape(x, (x.shape[0], math.prod(x.shape[1:])))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rest = input_shape[1:]
        return (input_shape[0], None if None in rest else math.prod(n or 1 for n in rest))
