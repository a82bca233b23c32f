"""Input and Dense: where data enter a model, and where it decides."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minitl import initializers, ops, regularizers
from minitl.autograd import Array, Tensor
from minitl.layers.base import Call, Layer, Shape, SymbolicTensor


class InputLayer(Layer):
    """Where data enters a model.

    Args:
        shape: of one sample, without the batch axis; None where any size will do.
        batch_size: of no effect on results; accepted as Keras does.
        dtype: data are converted to it.
        name: of the layer.
    """

    def __init__(
        self,
        shape: Shape | None = None,
        batch_size: int | None = None,
        dtype: str | None = None,
        *,
        batch_shape: Shape | None = None,
        name: str | None = None,
        trainable: bool = True,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        if batch_shape is not None:
            batch_size, shape = batch_shape[0], tuple(batch_shape[1:])
        if shape is None:
            raise ValueError("Input needs a shape (without the batch axis), e.g. (224, 224, 3)")
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if any(n is not None and (not isinstance(n, (int, np.integer)) or n < 1) for n in shape):
            raise ValueError(f"an input shape has positive sizes or None, got {shape}")
        self.batch_shape: Shape = (batch_size, *shape)
        # Called with the arrays that enter and the layer's name, to warn of what cannot be right.
        self.inspect: Callable[[Array, str], None] | None = None
        self.built = True
        call = Call(self, [])
        call.outputs.append(SymbolicTensor(self.batch_shape, self.dtype, call))
        self.symbolic_calls.append(call)

    def call(self, x: Any) -> Tensor:
        if self.inspect is not None:
            self.inspect(x.storage, self.name)
        return x

    def get_config(self) -> dict[str, Any]:
        return {"batch_shape": list(self.batch_shape), "dtype": self.dtype, "name": self.name}


def Input(
    shape: Shape | None = None,
    batch_size: int | None = None,
    dtype: str | None = None,
    *,
    batch_shape: Shape | None = None,
    name: str | None = None,
) -> SymbolicTensor:
    """A symbolic tensor for data of `shape` (without the batch axis): where a model starts.

    >>> Input((224, 224, 3)).shape
    (None, 224, 224, 3)
    """
    return InputLayer(shape, batch_size, dtype, batch_shape=batch_shape, name=name).output


class Dense(Layer):
    """y = activation(x W + b): every output is a weighted sum of every input.

    W is (D, m), b is (m,). An input of more than two axes (N, ..., D) is treated row by row.

    Args:
        units: m.
        activation: a name or function; None is linear.
        use_bias: whether there is a b.
        kernel_initializer, bias_initializer: how W and b start.
        kernel_regularizer, bias_regularizer: penalties on W and b added to the loss, e.g. 'l2'.
    """

    def __init__(
        self,
        units: int,
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
        if not isinstance(units, (int, np.integer)) or units < 1:
            raise ValueError(f"units must be a positive integer, got {units!r}")
        self.units = int(units)
        self.activation = ops.activation(activation)
        self.use_bias = use_bias
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel: Any = None
        self.bias: Any = None

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise ValueError(
                f"Dense {self.name!r} needs inputs (N, ..., D) with a known D, got {input_shape}. "
                f"After a base without fixed image size, put GlobalAveragePooling2D first."
            )
        d = input_shape[-1]
        self.kernel = self.add_weight(
            "kernel", (d, self.units), self.kernel_initializer, regularizer=self.kernel_regularizer
        )
        if self.use_bias:
            self.bias = self.add_weight(
                "bias", (self.units,), self.bias_initializer, regularizer=self.bias_regularizer
            )

    def call(self, x: Tensor) -> Tensor:
        fused = "relu" if self.activation is ops.relu else None
        rows = x if x.ndim == 2 else ops.reshape(x, (-1, x.shape[-1]))
        y = ops.dense(rows, self.kernel, self.bias, fused)
        if x.ndim != 2:
            y = ops.reshape(y, (*x.shape[:-1], self.units))
        return y if fused else self.activation(y)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.units)

    def multiply_adds(self, input_shape: Shape) -> int:
        return math.prod(n or 1 for n in input_shape[1:]) * self.units
