"""Activation functions: what a layer applies to its outputs, number by number.

relu, sigmoid, softmax, tanh and linear are in `ops/`, because the losses and the kernels know
them. The others are here: each computes its values and its derivative from the same formula, and
is added to the table in which layers look up names (`ops.activation`, which is `get` here).
"""

from typing import Any

import numpy as np

from minitl import ops
from minitl.autograd import Array, Tensor, as_tensor, record
from minitl.naming import attributes_of, public_names
from minitl.ops import arrays
from minitl.ops.symbols import all_symbolic_too

__getattr__ = attributes_of(__name__)

TABLE, get = ops.ACTIVATIONS, ops.activation
linear, relu, softmax = ops.linear, ops.relu, ops.softmax
sigmoid, silu, tanh = arrays.sigmoid, arrays.silu, arrays.tanh


def _elementwise(name: str, x: Tensor, y: Array, slope: Array) -> Tensor:
    """y, whose derivative by x is `slope`, in x's dtype."""
    y, slope = (a.astype(x.dtype, copy=False) for a in (y, slope))
    return record(name, y, (x, lambda g: g * slope))


def leaky_relu(x: Any, negative_slope: float = 0.2) -> Tensor:
    """y = x where x > 0, else negative_slope * x."""
    x = as_tensor(x)
    slope = np.where(x.storage > 0, 1, negative_slope)
    return _elementwise("leaky_relu", x, slope * x.storage, slope)


def relu6(x: Any) -> Tensor:
    """y = min(max(x, 0), 6)."""
    return relu(x, max_value=6)


def elu(x: Any, alpha: float = 1.0) -> Tensor:
    """y = x where x > 0, else alpha (e^x - 1). Clevert et al. 2016 (arXiv 1511.07289)."""
    x = as_tensor(x)
    a = x.storage
    below = alpha * np.expm1(np.minimum(a, 0))
    return _elementwise("elu", x, np.where(a > 0, a, below), np.where(a > 0, 1, below + alpha))


def selu(x: Any) -> Tensor:
    """y = 1.0507 elu(x, 1.6733): keeps mean 0, variance 1. Klambauer et al. 2017 (1706.02515)."""
    x = as_tensor(x)
    a, scale, alpha = x.storage, 1.0507009873554805, 1.6732632423543772
    below = scale * alpha * np.expm1(np.minimum(a, 0))
    slope = np.where(a >= 0, scale, below + scale * alpha)  # at 0, where there are two, as in Keras
    return _elementwise("selu", x, np.where(a > 0, scale * a, below), slope)


def gelu(x: Any, approximate: bool = False) -> Tensor:
    """y = x P(x), P being the distribution function of the normal law.

    `approximate` takes tanh for it: P(x) ~ (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
    Hendrycks & Gimpel 2016 (arXiv 1606.08415).
    """
    x = as_tensor(x)
    a = x.storage
    if approximate:
        c = (2 / np.pi) ** 0.5
        t = np.tanh(c * (a + 0.044715 * a**3))
        p, density = (1 + t) / 2, (1 - t * t) / 2 * c * (1 + 3 * 0.044715 * a * a)
    else:
        from scipy.special import ndtr

        p, density = ndtr(a), np.exp(-a * a / 2) / (2 * np.pi) ** 0.5
    return _elementwise("gelu", x, a * p, p + a * density)


def softplus(x: Any) -> Tensor:
    """y = ln(1 + e^x), a smooth relu."""
    x = as_tensor(x)
    slope = sigmoid(x.storage).storage
    return _elementwise("softplus", x, np.logaddexp(x.storage, 0), slope)


def softsign(x: Any) -> Tensor:
    """y = x / (1 + |x|)."""
    x = as_tensor(x)
    part = 1 / (1 + np.abs(x.storage))
    return _elementwise("softsign", x, x.storage * part, part * part)


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


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """y_j = x_j - ln sum_k e^(x_k) over one axis; dL/dx = g - softmax(x) sum_k g_k."""
    x = as_tensor(x)
    if axis not in (-1, x.ndim - 1):
        order = list(range(x.ndim))
        order[axis], order[-1] = order[-1], order[axis]  # its own inverse
        return arrays.transpose(log_softmax(arrays.transpose(x, order)), order)
    z = x.storage - x.storage.max(axis=-1, keepdims=True)
    y = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    return record("log_softmax", y, (x, lambda g: g - np.exp(y) * g.sum(axis=-1, keepdims=True)))


all_symbolic_too(globals())
TABLE.register(*public_names(__name__).values(), hard_swish=hard_silu, swish=silu)
