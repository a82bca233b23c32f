"""Activation functions: what a layer applies to its outputs, number by number.

relu, sigmoid, softmax, tanh and linear are in `ops/`, because the losses and the kernels know
them. The others are here: each computes its values and its derivative from the same formula, and
is added to the table in which layers look up names (`ops.activation`, which is `get` here).
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from minitl import ops
from minitl.autograd import Array, Tensor, as_tensor, record
from minitl.naming import attributes_of, public_names
from minitl.ops import arrays
from minitl.ops.elementwise import floats
from minitl.ops.layout import split
from minitl.ops.symbols import all_symbolic_too

__getattr__ = attributes_of(__name__)

TABLE, get = ops.ACTIVATIONS, ops.activation
linear, relu = ops.linear, ops.relu
sigmoid, silu, tanh = arrays.sigmoid, arrays.silu, arrays.tanh


def _formula(function: Callable[..., tuple[Array, Array]]) -> Callable[..., Tensor]:
    """Decorator: the activation of which `function` gives values y, and slopes dy/dx, of arrays."""

    @functools.wraps(function)
    def activation(x: Any, *args: Any, **kwargs: Any) -> Tensor:
        x = floats(x)
        y, slope = (np.asarray(a, x.dtype) for a in function(x.storage, *args, **kwargs))
        return record(function.__name__, y, (x, lambda g: g * slope))

    return activation


@_formula
def leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    """y = x where x > 0, else negative_slope * x."""
    slope = np.where(x > 0, 1, negative_slope)
    return slope * x, slope


def relu6(x: Any) -> Tensor:
    """y = min(max(x, 0), 6)."""
    return relu(x, max_value=6)


@_formula
def elu(x: Any, alpha: float = 1.0) -> Any:
    """y = x where x > 0, else alpha (e^x - 1). Clevert et al. 2016 (arXiv 1511.07289)."""
    below = alpha * np.expm1(np.minimum(x, 0))
    return np.where(x > 0, x, below), np.where(x > 0, 1, below + alpha)


@_formula
def celu(x: Any, alpha: float = 1.0) -> Any:
    """y = x where x > 0, else alpha (e^(x / alpha) - 1). Barron 2017 (arXiv 1704.07483)."""
    below = np.expm1(np.minimum(x, 0) / alpha)
    return np.maximum(x, 0) + alpha * below, below + 1


@_formula
def selu(x: Any) -> Any:
    """y = 1.0507 elu(x, 1.6733): keeps mean 0, variance 1. Klambauer et al. 2017 (1706.02515)."""
    scale, alpha = 1.0507009873554805, 1.6732632423543772
    below = scale * alpha * np.expm1(np.minimum(x, 0))
    slope = np.where(x >= 0, scale, below + scale * alpha)  # at 0, where there are two, as in Keras
    return np.where(x > 0, scale * x, below), slope


@_formula
def gelu(x: Any, approximate: bool = False) -> Any:
    """y = x P(x), P being the distribution function of the normal law.

    `approximate` takes tanh for it: P(x) ~ (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
    Hendrycks & Gimpel 2016 (arXiv 1606.08415).
    """
    if approximate:
        c = (2 / np.pi) ** 0.5
        t = np.tanh(c * (x + 0.044715 * x**3))
        p, density = (1 + t) / 2, (1 - t * t) / 2 * c * (1 + 3 * 0.044715 * x * x)
    else:
        from scipy.special import ndtr

        p, density = ndtr(x), np.exp(-x * x / 2) / (2 * np.pi) ** 0.5
    return x * p, p + x * density


@_formula
def softplus(x: Any) -> Any:
    """y = ln(1 + e^x), a smooth relu."""
    return np.logaddexp(x, 0), sigmoid(x).storage


def log_sigmoid(x: Any) -> Tensor:
    """y = ln(sigmoid(x))."""
    return -softplus(-as_tensor(x))


def mish(x: Any) -> Tensor:
    """y = x tanh(softplus(x)). Misra 2020 (arXiv 1908.08681)."""
    x = as_tensor(x)
    return x * tanh(softplus(x))


@_formula
def softsign(x: Any) -> Any:
    """y = x / (1 + |x|)."""
    part = 1 / (1 + np.abs(x))
    return x * part, part * part


def hard_tanh(x: Any) -> Tensor:
    """y = x, held within [-1, 1]."""
    return ops.clip(x, -1, 1)


def exponential(x: Any) -> Tensor:
    """y = e^x."""
    return arrays.exp(x)


def hard_sigmoid(x: Any) -> Tensor:
    """y = (x + 3) / 6, held within [0, 1]."""
    return relu6(as_tensor(x) + 3) / 6


def hard_silu(x: Any) -> Tensor:
    """y = x hard_sigmoid(x), also called hard_swish."""
    x = as_tensor(x)
    return x * hard_sigmoid(x)


def glu(x: Any, axis: int = -1) -> Tensor:
    """y = a sigmoid(b), a and b being the halves of x along the axis."""
    if np.shape(x)[axis] % 2:
        raise ValueError(f"axis {axis} of x is to be halved, and x has shape {np.shape(x)}")
    a, b = split(x, 2, axis)
    return a * sigmoid(b)


def _over(function: Any, x: Any, axis: Any) -> Tensor:
    """A function over the last axis, over other axes: one, or several together."""
    x = as_tensor(x)
    axes = [a % x.ndim for a in np.atleast_1d(axis).tolist()]
    order = [a for a in range(x.ndim) if a not in axes] + axes
    turned = arrays.transpose(x, order)
    y = function(ops.reshape(turned, (*turned.shape[: x.ndim - len(axes)], -1)))
    return arrays.transpose(ops.reshape(y, turned.shape), np.argsort(order).tolist())


def log_softmax(x: Any, axis: Any = -1) -> Tensor:
    """y_j = x_j - ln sum_k e^(x_k) over the axes; dL/dx = g - softmax(x) sum_k g_k."""
    x = as_tensor(x)
    if axis not in (-1, x.ndim - 1):
        return _over(log_softmax, x, axis)
    z = x.storage - x.storage.max(axis=-1, keepdims=True)
    y = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return record("log_softmax", y, (x, lambda g: g - np.exp(y) * g.sum(axis=-1, keepdims=True)))


def softmax(x: Any, axis: Any = -1) -> Tensor:
    """p_j = e^(x_j) / sum_k e^(x_k) over one axis, or several together."""
    return ops.softmax(x, axis) if isinstance(axis, int) else _over(ops.softmax, x, axis)


all_symbolic_too(globals())
TABLE.register(*public_names(__name__).values(), hard_swish=hard_silu, swish=silu)
TABLE["softmax"] = ops.softmax  # which the kernels of losses know
