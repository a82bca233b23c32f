"""The differentiable functions: what each computes, and one vector-Jacobian product per input.

All have the same form. They take Tensors (or arrays), call a kernel or NumPy on the arrays inside,
and `record` the result with an edge (input, vjp) for each input. A vjp receives g = dL/dy, of y's
shape, and returns dL/dx; if x was broadcast, `backward` sums the extra axes away. Here are those
that VGG16, its head and their losses need; the other files of this folder have the rest, and
`minitl.ops.batch_norm` finds them. The heavy work is in `kernels/`; read `autograd.py` first.

Letters: N images or rows, H W height and width, C channels in, F filters out, KH KW the window,
D features in, m features out.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minitl import config, kernels
from minitl.autograd import Array, Symbolic, Tensor, Variable, Vjp, as_tensor, record, recording
from minitl.kernels.geometry import Geometry, Pair, sliding
from minitl.naming import Registry, attributes_of, look_up, part, told


def symbolic_too(op: Any) -> Any:
    """`op`, which on symbolic tensors computes nothing and becomes a step of a model's graph."""

    @functools.wraps(op)
    def either(*args: Any, **kwargs: Any) -> Any:
        for given in (*args, *kwargs.values()):
            if any(isinstance(x, Symbolic) for x in (given if type(given) is list else [given])):
                return part("operations").write_down(either, args, kwargs)
        try:
            return op(*args, **kwargs)
        except Exception as error:
            part("arguments").failed(op, error, args, kwargs)

    return either


def together(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both as Tensors; a plain number or array takes the dtype of the float Tensor beside it."""
    if isinstance(a, Tensor):
        return a, as_tensor(b, dtype=a.dtype if a.dtype.kind == "f" else None)
    b = as_tensor(b)
    return as_tensor(a, dtype=b.dtype if b.dtype.kind == "f" else None), b


def require(fits: bool, op: str, expected: str, *given: Tensor | Array | None) -> None:
    """Raise ValueError unless the shapes fit and all have one dtype.

    Kernels check nothing, and a compiled loop reads past the end of a bias that is too short.
    """
    there = [t for t in given if t is not None]
    if not fits or len({t.dtype for t in there}) > 1:
        got = ", ".join(f"{t.shape} {t.dtype}" for t in there)
        raise ValueError(f"{op} takes {expected}, all of one dtype; got {got}")


def add(a: Any, b: Any) -> Tensor:
    """y = a + b, with broadcasting."""
    a, b = together(a, b)
    return record("add", a.storage + b.storage, (a, lambda g: g), (b, lambda g: g))


def subtract(a: Any, b: Any) -> Tensor:
    """y = a - b, with broadcasting."""
    a, b = together(a, b)
    return record("subtract", a.storage - b.storage, (a, lambda g: g), (b, lambda g: -g))


def multiply(a: Any, b: Any) -> Tensor:
    """y = a * b, element by element, with broadcasting."""
    a, b = together(a, b)
    p, q = a.storage, b.storage
    return record("multiply", p * q, (a, lambda g: g * q), (b, lambda g: g * p))


def divide(a: Any, b: Any) -> Tensor:
    """y = a / b, element by element, with broadcasting."""
    a, b = together(a, b)
    p, q = a.storage, b.storage
    return record("divide", p / q, (a, lambda g: g / q), (b, lambda g: -g * p / (q * q)))


def negative(x: Any) -> Tensor:
    """y = -x."""
    x = as_tensor(x)
    return record("negative", -x.storage, (x, lambda g: -g))


def log(x: Any) -> Tensor:
    """y = ln x."""
    x = as_tensor(x)
    return record("log", np.log(x.storage), (x, lambda g: g / x.storage))


def clip(x: Any, x_min: Any, x_max: Any) -> Tensor:
    """y = x held within [x_min, x_max]. The gradient passes within, ends included."""
    x = as_tensor(x)
    a, low, high = x.storage, np.asarray(x_min, x.dtype), np.asarray(x_max, x.dtype)
    return record("clip", np.clip(a, low, high), (x, lambda g: g * ((a >= low) & (a <= high))))


def matmul(a: Any, b: Any) -> Tensor:
    """y = a b, for matrices a (..., N, D) and b (..., D, m)."""
    a, b = together(a, b)
    p, q = a.storage, b.storage
    fits = p.ndim >= 2 and q.ndim >= 2 and p.shape[-1] == q.shape[-2]
    require(fits, "matmul", "(..., N, D) and (..., D, m)", a, b)
    da, db = (lambda g: g @ q.swapaxes(-1, -2)), (lambda g: p.swapaxes(-1, -2) @ g)
    return record("matmul", p @ q, (a, da), (b, db))


Axes = int | tuple[int, ...] | None


def sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """y = sum of x over `axis` (all axes when None)."""
    x = as_tensor(x)
    shape = x.shape
    y = np.asarray(x.storage.sum(axis=axis, keepdims=keepdims))
    return record("sum", y, (x, lambda g: _spread(g, shape, axis, keepdims)))


def sum_over(x: Tensor, count: float) -> Tensor:
    """y = sum of x / count, a loss of a batch."""
    total = x.storage.sum()
    n = np.asarray(count, total.dtype if total.dtype.kind == "f" else None)
    return record("sum_over", total / n, (x, lambda g: np.full(x.shape, g / n)))


def mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """y = mean of x over `axis` (all axes when None)."""
    x = as_tensor(x)
    x = x if x.dtype.kind == "f" else Tensor(x.storage.astype(config.floatx()))
    shape = x.shape
    y = np.asarray(x.storage.mean(axis=axis, keepdims=keepdims, dtype=x.dtype))
    share = x.dtype.type(y.size / (x.storage.size or 1))
    return record("mean", y, (x, lambda g: _spread(g * share, shape, axis, keepdims)))


def _spread(g: Array, shape: tuple[int, ...], axis: Axes, keepdims: bool) -> Array:
    """Copy g back over the axes that a reduction removed."""
    if axis is not None and not keepdims:
        g = np.expand_dims(g, axis)
    return np.broadcast_to(g, shape).copy()


def reshape(x: Any, newshape: Any) -> Tensor:
    """The same numbers in another shape."""
    x = as_tensor(x)
    before = x.shape
    return record("reshape", x.storage.reshape(newshape), (x, lambda g: g.reshape(before)))


@symbolic_too
def relu(
    x: Any, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0
) -> Tensor:
    """y = max(x, 0). The derivative at 0 is taken as 0, as in Keras.

    With the other arguments y = x where x > threshold, held within [0, max_value], and
    negative_slope * (x - threshold) elsewhere.
    """
    x = as_tensor(x)
    a = x.storage
    if negative_slope == 0 and max_value is None and threshold == 0:
        y = kernels.relu(a)
        return record("relu", y, (x, lambda g: kernels.relu_gradient(g, y)))
    return __getattr__("bent")(x, negative_slope, max_value, threshold)


@symbolic_too
def softmax(x: Any, axis: int = -1) -> Tensor:
    """p_j = e^(x_j) / sum_k e^(x_k) over one axis; dL/dx = p * (g - <g, p>)."""
    x = as_tensor(x)

    def turned(a: Array) -> Array:  # that axis last, or back in its place
        return np.ascontiguousarray(a.swapaxes(axis, -1))

    p = kernels.softmax(turned(x.storage))
    y = record("softmax", turned(p), (x, lambda g: turned(kernels.softmax_gradient(turned(g), p))))
    if axis in (-1, x.ndim - 1):
        y.origin = ("softmax", x)
    return y


def linear(x: Any) -> Tensor:
    """y = x: no activation."""
    return as_tensor(x)


# Those of the layers that every network has; `minitl/activations.py` adds the others.
ACTIVATIONS = Registry("minitl.activations", linear, relu, softmax)


def activation(identifier: Any) -> Callable[..., Tensor]:
    """The function that a name stands for; None is `linear`; a callable is itself.

    Raises ValueError for an unknown name, showing the nearest.
    """
    return linear if identifier is None else look_up(identifier, ACTIVATIONS, "activation")


def _finished(
    op: str, y: Array, bias: Tensor | None, activation: str | None, *edges: tuple[Tensor, Vjp]
) -> Tensor:
    """The record of `op` and of what its kernel has applied already: bias, and None or 'relu', of
    which the second is a step of its own, with the same array and the bias."""
    if activation is None:
        return record(op, y, *edges, (bias, kernels.bias_gradient))
    z = record(op, y, *edges)
    if not recording(bias):
        return record("relu", y, (z, lambda g: kernels.relu_gradient(g, y)))
    both = once(lambda g: kernels.bias_relu_gradient(g, y))
    return record("relu", y, (z, lambda g: both(g)[0]), (bias, lambda g: both(g)[1]))


def once(gradients: Callable[[Array], Any]) -> Callable[[Array], Any]:
    """For a node whose gradients come from one call: the first vjp makes it, the others read it."""
    found: list[Any] = []

    def vjp(g: Array) -> Any:
        if not found:
            found.append(gradients(g))
        return found[0]

    return vjp


def dense(x: Any, kernel: Tensor, bias: Tensor | None, activation: str | None = None) -> Tensor:
    """y = x W + b, then `activation` (None or 'relu', fused into the kernel).

        dL/dx = g W^T        dL/dW = x^T g        dL/db = sum over rows of g

    x (N, D), kernel W (D, m), bias b (m,) or None -> y (N, m). ValueError where shapes do not fit.
    """
    x = as_tensor(x)
    a, w = x.storage, kernel.storage
    fits = a.ndim == w.ndim == 2 and a.shape[1] == w.shape[0]
    fits = fits and (bias is None or bias.shape == w.shape[1:])
    require(fits, "dense", "x (N, D), kernel (D, m) and bias (m,)", x, kernel, bias)
    y = kernels.dense(a, w, None if bias is None else bias.storage, activation)
    dx = (x, lambda g: kernels.dense_input_gradient(g, w))
    dw = (kernel, lambda g: kernels.dense_kernel_gradient(a, g))
    return _finished("dense", y, bias, activation, dx, dw)


def conv2d(
    x: Any,
    kernel: Tensor,
    bias: Tensor | None = None,
    strides: Pair = (1, 1),
    padding: str = "valid",
    activation: str | None = None,
) -> Tensor:
    """Convolution (strictly: correlation) of images with filters, plus bias, then `activation`.

        y[n, i, j, f] = b[f] + sum over kh, kw, c of
                        x[n, i*SH + kh - top, j*SW + kw - left, c] * kernel[kh, kw, c, f]

    with zeros where x is asked for outside the image. x (N, H, W, C), kernel (KH, KW, C, F), bias
    (F,) or None; strides (SH, SW); padding 'valid' or 'same'; activation None or 'relu', fused into
    the kernel. Returns y (N, OH, OW, F). Raises ValueError where shapes do not fit.
    """
    x, kernel = as_tensor(x), as_tensor(kernel)
    a, k, b, geometry, cache = _sliding_filters(x, kernel, bias, strides, padding)
    recorded = recording(x, kernel, bias)
    y = kernels.conv2d(a, k, b, geometry, activation, cache, recorded)
    dx = (x, lambda g: kernels.conv2d_input_gradient(g, k, geometry, cache))
    dk = (kernel, lambda g: kernels.conv2d_kernel_gradient(a, g, geometry))
    return _finished("conv2d", y, bias, activation, dx, dk)


def _sliding_filters(
    x: Tensor, kernel: Tensor, bias: Tensor | None, strides: Pair, padding: str
) -> tuple[Array, Array, Array | None, Geometry, Any]:
    """A convolution's arrays, geometry and cache; ValueError where shapes do not fit."""
    fits = x.ndim == kernel.ndim == 4 and x.shape[3] == kernel.shape[2]
    fits = fits and (bias is None or bias.shape == kernel.shape[3:])
    what = "images (N, H, W, C), kernel (KH, KW, C, F) and bias (F,)"
    require(fits, "conv2d", what, x, kernel, bias)
    geometry = sliding(x.shape[1:3], kernel.shape[:2], strides, padding)
    cache = getattr(kernel, "cache", None)  # a Variable has one
    return x.storage, kernel.storage, None if bias is None else bias.storage, geometry, cache


def max_pool2d(x: Any, window: Pair, strides: Pair, padding: str = "valid") -> Tensor:
    """The maximum under each window, channel by channel: (N, H, W, C) -> (N, OH, OW, C).

    The gradient goes to the place that won; of several equal ones, to the first in reading order.
    """
    x = as_tensor(x)
    require(x.ndim == 4, "max_pool2d", "images (N, H, W, C)", x)
    geometry = sliding(x.shape[1:3], window, strides, padding)
    if not x.requires_grad:
        return Tensor(kernels.max_pool2d(x.storage, geometry))
    y, winners = kernels.max_pool2d_with_winners(x.storage, geometry)
    return record("max_pool2d", y, (x, lambda g: kernels.max_pool2d_gradient(g, winners, geometry)))


def softmax_cross_entropy(logits: Any, targets: Array) -> Tensor:
    """Cross-entropy of softmax(logits), row by row, without ever forming log(0).

        loss[n] = -sum_j t[n, j] * log softmax(z[n])_j
                = sum_j t[n, j] * (logsumexp(z[n]) - z[n, j])
        dloss[n]/dz[n, j] = p[n, j] * sum_k t[n, k] - t[n, j]

    Logits z (N, m); targets t (N, m), probabilities of each class, constant -> losses (N,).
    """
    logits = as_tensor(logits)
    fits = logits.ndim == 2 and targets.shape == logits.shape
    require(fits, "softmax_cross_entropy", "logits (N, m) and targets (N, m)", logits, targets)
    losses, p = kernels.softmax_cross_entropy(logits.storage, targets)
    dz = (logits, lambda g: g[:, None] * (p * targets.sum(axis=1, keepdims=True) - targets))
    return record("softmax_cross_entropy", losses, dz)


__getattr__ = attributes_of(__name__)

# Tensor's operators: `a + b` is `add(a, b)`, also where only b is a Tensor.
_BINARY: dict[str, Any] = {"add": add, "sub": subtract, "mul": multiply, "truediv": divide}
for _name, _function in {**_BINARY, "matmul": matmul}.items():
    setattr(Tensor, f"__{_name}__", _function)
    setattr(Tensor, f"__r{_name}__", lambda self, other, f=_function: f(other, self))
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):  # number by number; no gradient
    _told = getattr(np.ndarray, f"__{_name}__")
    setattr(Tensor, f"__{_name}__", lambda a, b, f=_told: Tensor(f(*map(np.asarray, (a, b)))))
for _name, _python in {"bool": bool, "float": float, "int": int}.items():
    setattr(Tensor, f"__{_name}__", lambda self, f=_python: f(self.storage))
for _name, _elsewhere in {"pow": "power", "getitem": "getitem", "abs": "absolute"}.items():
    setattr(Tensor, f"__{_name}__", lambda *given, f=_elsewhere: __getattr__(f)(*given))
for _function in (*_BINARY.values(), matmul, negative, sum, mean, reshape, log, clip):
    globals()[_function.__name__] = symbolic_too(_function)
Tensor.__neg__, Tensor.reshape = negative, reshape


def _method(reduce: Any) -> Any:
    def reduced(x, axis=None, keepdims=False, dtype=None, out=None):  # as `np.sum(tensor)` calls it
        return reduce(x if dtype is None else part("own layers").cast(x, dtype), axis, keepdims)

    return reduced


Tensor.sum, Tensor.mean = _method(sum), _method(mean)
for _name in ("assign", "assign_add", "assign_sub"):
    setattr(Variable, _name, told(getattr(Variable, _name)))
