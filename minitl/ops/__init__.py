"""Every differentiable function: what it computes, and one vector-Jacobian product an input.

All functions have the same form. They take Tensors (or arrays), call a kernel or NumPy on the
arrays inside, and `record` the result with an edge (input, vjp) for each input. A vjp receives
g = dL/dy, of y's shape, and returns dL/dx; if x was broadcast, `backward` sums the extra axes
away. The heavy work is in `kernels/`; this file is where it becomes differentiable.

Letters: N images or rows, H W height and width, C channels in, F filters out, KH KW the window,
D features in, m features out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minitl import kernels
from minitl.autograd import Array, Tensor, Variable, Vjp, as_tensor, record, recording
from minitl.kernels.geometry import Geometry, Pair, sliding
from minitl.naming import Registry, look_up

# --- Arithmetic ----------------------------------------------------------------------------------


def _pair(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both as Tensors; a plain number or array takes the dtype of the Tensor beside it."""
    if isinstance(a, Tensor):
        return a, as_tensor(b, dtype=a.dtype)
    b = as_tensor(b)
    return as_tensor(a, dtype=b.dtype), b


def _check(fits: bool, op: str, expected: str, *given: Tensor | Array | None) -> None:
    """Raise ValueError unless the shapes fit and all have one dtype.

    Kernels check nothing, and a compiled loop reads past the end of a bias that is too short.
    """
    there = [t for t in given if t is not None]
    if not fits or len({t.dtype for t in there}) > 1:
        got = ", ".join(f"{t.shape} {t.dtype}" for t in there)
        raise ValueError(f"{op} takes {expected}, all of one dtype; got {got}")


def add(a: Any, b: Any) -> Tensor:
    """y = a + b, with broadcasting."""
    a, b = _pair(a, b)
    return record("add", a.storage + b.storage, (a, lambda g: g), (b, lambda g: g))


def subtract(a: Any, b: Any) -> Tensor:
    """y = a - b, with broadcasting."""
    a, b = _pair(a, b)
    return record("subtract", a.storage - b.storage, (a, lambda g: g), (b, lambda g: -g))


def multiply(a: Any, b: Any) -> Tensor:
    """y = a * b, element by element, with broadcasting."""
    a, b = _pair(a, b)
    p, q = a.storage, b.storage
    return record("multiply", p * q, (a, lambda g: g * q), (b, lambda g: g * p))


def divide(a: Any, b: Any) -> Tensor:
    """y = a / b, element by element, with broadcasting."""
    a, b = _pair(a, b)
    p, q = a.storage, b.storage
    return record("divide", p / q, (a, lambda g: g / q), (b, lambda g: -g * p / (q * q)))


def negative(x: Any) -> Tensor:
    """y = -x."""
    x = as_tensor(x)
    return record("negative", -x.storage, (x, lambda g: -g))


def power(x: Any, exponent: float) -> Tensor:
    """y = x ** exponent, for a constant exponent."""
    if not isinstance(exponent, (int, float, np.integer, np.floating)):
        raise TypeError(f"power takes a number as exponent, got {type(exponent).__name__}")
    x = as_tensor(x)
    base = x.storage

    def vjp(g: Array) -> Array:
        if exponent == 0:  # also at 0, where the formula below says 0 * inf
            return np.zeros_like(g)
        return g * exponent * base ** (exponent - 1)

    return record("power", np.asarray(base**exponent), (x, vjp))


def exp(x: Any) -> Tensor:
    """y = e^x."""
    x = as_tensor(x)
    y = np.exp(x.storage)
    return record("exp", y, (x, lambda g: g * y))


def log(x: Any) -> Tensor:
    """y = ln x."""
    x = as_tensor(x)
    a = x.storage
    return record("log", np.log(a), (x, lambda g: g / a))


def sqrt(x: Any) -> Tensor:
    """y = sqrt(x)."""
    x = as_tensor(x)
    y = np.sqrt(x.storage)
    return record("sqrt", y, (x, lambda g: g / (2 * y)))


def absolute(x: Any) -> Tensor:
    """y = |x|. The derivative at 0 is taken as 0."""
    x = as_tensor(x)
    a = x.storage
    return record("absolute", np.abs(a), (x, lambda g: g * np.sign(a)))


def maximum(a: Any, b: Any) -> Tensor:
    """y = the larger of a and b, with broadcasting. The gradient goes to it; of equals, to a."""
    a, b = _pair(a, b)
    first = a.storage >= b.storage
    y = np.where(first, a.storage, b.storage)
    return record("maximum", y, (a, lambda g: g * first), (b, lambda g: g * ~first))


def normalize(x: Any, epsilon: float) -> Tensor:
    """y = x / |x| along the last axis, and x / epsilon where |x| < epsilon."""
    x = as_tensor(x)
    a = x.storage
    with np.errstate(divide="ignore"):
        inverse = 1 / np.sqrt((a * a).sum(axis=-1, keepdims=True))
    short = inverse > 1 / epsilon
    inverse = np.where(short, a.dtype.type(1 / epsilon), inverse)
    y = a * inverse

    def vjp(g: Array) -> Array:  # where x is not short, a change along y changes nothing
        along = np.where(short, 0, (g * y).sum(axis=-1, keepdims=True))
        return inverse * (g - y * along)

    return record("normalize", y, (x, vjp))


def clip(x: Any, low: float, high: float) -> Tensor:
    """y = x held within [low, high]. The gradient passes where low <= x <= high (ends included)."""
    x = as_tensor(x)
    a = x.storage
    return record("clip", np.clip(a, low, high), (x, lambda g: g * ((a >= low) & (a <= high))))


def matmul(a: Any, b: Any) -> Tensor:
    """y = a b, for matrices a (N, D) and b (D, m)."""
    a, b = _pair(a, b)
    p, q = a.storage, b.storage
    fits = p.ndim == q.ndim == 2 and p.shape[1] == q.shape[0]
    _check(fits, "matmul", "(N, D) and (D, m)", a, b)
    return record("matmul", p @ q, (a, lambda g: g @ q.T), (b, lambda g: p.T @ g))


# --- Sums and shapes -----------------------------------------------------------------------------

Axes = int | tuple[int, ...] | None


def sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """y = sum of x over `axis` (all axes when None)."""
    x = as_tensor(x)
    shape = x.shape
    y = np.asarray(x.storage.sum(axis=axis, keepdims=keepdims))
    return record("sum", y, (x, lambda g: _spread(g, shape, axis, keepdims)))


def mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """y = mean of x over `axis` (all axes when None)."""
    x = as_tensor(x)
    shape = x.shape
    y = np.asarray(x.storage.mean(axis=axis, keepdims=keepdims, dtype=x.dtype))
    share = x.dtype.type(y.size / (x.storage.size or 1))
    return record("mean", y, (x, lambda g: _spread(g * share, shape, axis, keepdims)))


def max(x: Any, axis: Axes = None) -> Tensor:
    """y = maximum of x over `axis`. Where several places tie, they share the gradient equally."""
    x = as_tensor(x)
    a = x.storage
    y = a.max(axis=axis, keepdims=True)

    def vjp(g: Array) -> Array:
        winners = (a == y).astype(a.dtype)
        winners /= winners.sum(axis=axis, keepdims=True)
        return g.reshape(y.shape) * winners

    return record("max", np.asarray(a.max(axis=axis)), (x, vjp))


def _spread(g: Array, shape: tuple[int, ...], axis: Axes, keepdims: bool) -> Array:
    """Copy g back over the axes that a reduction removed."""
    if axis is not None and not keepdims:
        g = np.expand_dims(g, axis)
    return np.broadcast_to(g, shape).copy()


def reshape(x: Any, shape: tuple[int, ...]) -> Tensor:
    """The same numbers in another shape."""
    x = as_tensor(x)
    before = x.shape
    return record("reshape", x.storage.reshape(shape), (x, lambda g: g.reshape(before)))


def swap_axes(x: Any, first: int, second: int) -> Tensor:
    """The same numbers with two axes exchanged: (N, T, D) -> (T, N, D), say."""
    x = as_tensor(x)
    return record(
        "swap_axes",
        x.storage.swapaxes(first, second),
        (x, lambda g: np.ascontiguousarray(g.swapaxes(first, second))),
    )


def getitem(x: Any, index: Any) -> Tensor:
    """y = x[index], for slices, integers and integer arrays. Repeated places add up."""
    x = as_tensor(x)
    shape, dtype = x.shape, x.dtype

    parts = index if isinstance(index, tuple) else (index,)
    simple = all(isinstance(part, (int, slice)) for part in parts)  # no place comes twice

    def vjp(g: Array) -> Array:
        dx = np.zeros(shape, dtype)
        if simple:
            dx[index] = g
        else:
            np.add.at(dx, index, g)
        return dx

    return record("getitem", np.asarray(x.storage[index]), (x, vjp))


def concatenate(tensors: Sequence[Any], axis: int = -1) -> Tensor:
    """The tensors one after the other along `axis`."""
    tensors = [as_tensor(t) for t in tensors]
    ends = np.cumsum([t.shape[axis] for t in tensors])
    y = np.concatenate([t.storage for t in tensors], axis=axis)

    def piece(i: int) -> Any:
        where = [slice(None)] * y.ndim
        where[axis] = slice(ends[i] - tensors[i].shape[axis], ends[i])
        return lambda g: np.ascontiguousarray(g[tuple(where)])

    return record("concatenate", y, *((t, piece(i)) for i, t in enumerate(tensors)))


def transpose(x: Any, axes: Sequence[int]) -> Tensor:
    """The same numbers with the axes in another order: y.shape[i] = x.shape[axes[i]]."""
    x = as_tensor(x)
    back = np.argsort(axes)
    y = np.ascontiguousarray(x.storage.transpose(axes))
    return record("transpose", y, (x, lambda g: np.ascontiguousarray(g.transpose(back))))


def zero_pad2d(x: Any, pads: tuple[int, int, int, int]) -> Tensor:
    """x (N, H, W, C) with `pads` = (top, bottom, left, right) rows and columns of zeros around."""
    x = as_tensor(x)
    _check(x.ndim == 4, "zero_pad2d", "images (N, H, W, C)", x)
    top, bottom, left, right = pads
    _, h, w, _ = x.shape
    y = np.pad(x.storage, ((0, 0), (top, bottom), (left, right), (0, 0)))
    return record(
        "zero_pad2d", y, (x, lambda g: np.ascontiguousarray(g[:, top : top + h, left : left + w]))
    )


# --- Activations ---------------------------------------------------------------------------------


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
    y = np.where(a > threshold, a, 0)
    slope = (a > threshold).astype(a.dtype)
    if max_value is not None:
        # Keras takes TensorFlow's relu6 where that is what is meant; there the slope at 6 is 0.
        six = max_value == 6 and threshold == 0
        slope *= (y >= 0) & ((y < max_value) if six else (y <= max_value))
        y = np.clip(y, 0, max_value)
    if negative_slope:
        leaky = max_value is None and threshold == 0  # for which the slope at 0 is this one
        slope += negative_slope * ((a <= threshold) if leaky else (a < threshold))
        y = y - negative_slope * np.maximum(threshold - a, 0)
    slope, y = slope.astype(a.dtype, copy=False), y.astype(a.dtype, copy=False)
    return record("relu", y, (x, lambda g: g * slope))


def sigmoid(x: Any) -> Tensor:
    """y = 1 / (1 + e^-x), computed without overflow; dy/dx = y (1 - y)."""
    x = as_tensor(x)
    y = _logistic(x.storage)
    out = record("sigmoid", y, (x, lambda g: g * y * (1 - y)))
    out.origin = ("sigmoid", x)
    return out


def _logistic(z: Array) -> Array:
    small = np.exp(-np.abs(z))  # in (0, 1]: never overflows
    return (np.where(z >= 0, 1, small) / (1 + small)).astype(z.dtype, copy=False)


def tanh(x: Any) -> Tensor:
    """y = tanh x; dy/dx = 1 - y^2."""
    x = as_tensor(x)
    y = np.tanh(x.storage)
    return record("tanh", y, (x, lambda g: g * (1 - y * y)))


def softmax(x: Any, axis: int = -1) -> Tensor:
    """p_j = e^(x_j) / sum_k e^(x_k) over one axis; dL/dx = p * (g - <g, p>)."""
    x = as_tensor(x)
    if axis not in (-1, x.ndim - 1):
        return along_last(softmax, x, axis)
    p = kernels.softmax(x.storage)
    out = record("softmax", p, (x, lambda g: kernels.softmax_gradient(g, p)))
    out.origin = ("softmax", x)
    return out


def along_last(function: Callable[[Tensor], Tensor], x: Tensor, axis: int) -> Tensor:
    """A function of the last axis, applied along another one."""
    order = list(range(x.ndim))
    order[axis], order[-1] = order[-1], order[axis]  # its own inverse
    return transpose(function(transpose(x, order)), order)


def linear(x: Any) -> Tensor:
    """y = x: no activation."""
    return as_tensor(x)


# Those of the layers that every network has; `minitl/activations.py` adds the others.
ACTIVATIONS = Registry("minitl.activations", linear, relu, sigmoid, softmax, tanh)


def activation(identifier: Any) -> Callable[..., Tensor]:
    """The function that a name stands for; None is `linear`; a callable is itself.

    Raises ValueError for an unknown name, showing the nearest.
    """
    function = linear if identifier is None else look_up(identifier, ACTIVATIONS, "activation")
    if not callable(function):
        raise ValueError(f"not an activation: {identifier!r}")
    return function


# --- Layers' work --------------------------------------------------------------------------------


def _finished(
    op: str,
    y: Array,
    edges: Sequence[tuple[Tensor, Vjp]],
    bias: Tensor | None,
    activation: str | None,
) -> Tensor:
    """The record of `op` and of what its kernel has applied already: bias, and None or 'relu'.

    With ReLU there are two steps, of one array; the second has the bias.
    """
    if activation is None:
        return record(op, y, *edges, (bias, kernels.bias_gradient))
    z = record(op, y, *edges)
    if not recording(bias):
        return record("relu", y, (z, lambda g: kernels.relu_gradient(g, y)))
    dz, dbias = _parts(lambda g: kernels.bias_relu_gradient(g, y), 2)
    return record("relu", y, (z, dz), (bias, dbias))


def _parts(gradients: Callable[[Array], tuple[Array, ...]], count: int) -> list[Vjp]:
    """The vjps of an operation whose gradients all come from one call: the first vjp makes it."""
    kept: dict[int, Array] = {}

    def part(i: int) -> Vjp:
        def vjp(g: Array) -> Array:
            if i not in kept:
                kept.update(enumerate(gradients(g)))
            return kept.pop(i)

        return vjp

    return [part(i) for i in range(count)]


def _array(t: Tensor | None) -> Array | None:
    return None if t is None else t.storage


def _cache(kernel: Tensor) -> dict | None:
    return kernel.cache if isinstance(kernel, Variable) else None


def dense(x: Any, kernel: Tensor, bias: Tensor | None, activation: str | None = None) -> Tensor:
    """y = x W + b, then `activation` (None or 'relu', fused into the kernel).

        dL/dx = g W^T        dL/dW = x^T g        dL/db = sum over rows of g

    Args:
        x: (N, D).
        kernel: W (D, m).
        bias: b (m,) or None.
    """
    x = as_tensor(x)
    a, w = x.storage, kernel.storage
    fits = a.ndim == w.ndim == 2 and a.shape[1] == w.shape[0]
    fits = fits and (bias is None or bias.shape == w.shape[1:])
    _check(fits, "dense", "x (N, D), kernel (D, m) and bias (m,)", x, kernel, bias)
    y = kernels.dense(a, w, _array(bias), activation)
    edges = (
        (x, lambda g: kernels.dense_input_gradient(g, w)),
        (kernel, lambda g: kernels.dense_kernel_gradient(a, g)),
    )
    return _finished("dense", y, edges, bias, activation)


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

    with zeros where x is asked for outside the image.

    Args:
        x: (N, H, W, C).
        kernel: (KH, KW, C, F).
        bias: (F,) or None.
        strides: (SH, SW).
        padding: 'valid' or 'same'.
        activation: None or 'relu', fused into the kernel.

    Returns y (N, OH, OW, F). Raises ValueError where shapes do not fit.
    """
    x = as_tensor(x)
    a, k = x.storage, kernel.storage
    geometry = _sliding_filters(x, kernel, bias, strides, padding)
    cache, recorded = _cache(kernel), recording(x, kernel, bias)
    y = kernels.conv2d(a, k, _array(bias), geometry, activation, cache, recorded)
    edges = (
        (x, lambda g: kernels.conv2d_input_gradient(g, k, geometry, cache)),
        (kernel, lambda g: kernels.conv2d_kernel_gradient(a, g, geometry)),
    )
    return _finished("conv2d", y, edges, bias, activation)


def _sliding_filters(
    x: Tensor, kernel: Tensor, bias: Tensor | None, strides: Pair, padding: str
) -> Geometry:
    """The geometry of a convolution; raises ValueError where shapes do not fit."""
    fits = x.ndim == kernel.ndim == 4 and x.shape[3] == kernel.shape[2]
    fits = fits and (bias is None or bias.shape == kernel.shape[3:])
    what = "images (N, H, W, C), kernel (KH, KW, C, F) and bias (F,)"
    _check(fits, "conv2d", what, x, kernel, bias)
    _, height, width, _ = x.shape
    return sliding((height, width), (kernel.shape[0], kernel.shape[1]), strides, padding)


def conv2d_max_pool2d(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    padding: str = "valid",
    activation: str | None = None,
) -> Tensor:
    """`max_pool2d` with 2x2 windows of `conv2d` with stride 1, in one pass that keeps no record.

    Arguments as for `conv2d`. For values that no gradient will be asked of.
    """
    geometry = _sliding_filters(x, kernel, bias, (1, 1), padding)
    return Tensor(
        kernels.conv2d_max_pool2d(
            x.storage, kernel.storage, _array(bias), geometry, activation, _cache(kernel)
        )
    )


def max_pool2d(x: Any, window: Pair, strides: Pair, padding: str = "valid") -> Tensor:
    """The maximum under each window, channel by channel: (N, H, W, C) -> (N, OH, OW, C).

    The gradient goes to the place that won; of several equal ones, to the first in reading order.
    """
    x = as_tensor(x)
    _check(x.ndim == 4, "max_pool2d", "images (N, H, W, C)", x)
    geometry = sliding(x.shape[1:3], window, strides, padding)
    if not x.requires_grad:
        return Tensor(kernels.max_pool2d(x.storage, geometry))
    y, winners = kernels.max_pool2d_with_winners(x.storage, geometry)
    return record("max_pool2d", y, (x, lambda g: kernels.max_pool2d_gradient(g, winners, geometry)))


def average_pool2d(x: Any, window: Pair, strides: Pair, padding: str = "valid") -> Tensor:
    """The mean under each window, channel by channel; padding does not count, as in Keras."""
    x = as_tensor(x)
    _check(x.ndim == 4, "average_pool2d", "images (N, H, W, C)", x)
    geometry = sliding(x.shape[1:3], window, strides, padding)
    y = kernels.average_pool2d(x.storage, geometry)
    return record("average_pool2d", y, (x, lambda g: kernels.average_pool2d_gradient(g, geometry)))


def batch_norm(x: Any, gamma: Tensor, beta: Tensor, epsilon: float) -> tuple[Tensor, Array, Array]:
    """Normalise each channel by the statistics of this batch (training mode).

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    Mean and (biased) variance run over all axes but the last, and the gradient takes account of
    their dependence on x. Ioffe & Szegedy 2015 (arXiv 1502.03167), Algorithm 1.

    Returns (y, mean, variance), the last two as arrays (C,).
    """
    x = as_tensor(x)
    _per_channel("batch_norm", x, gamma, beta)
    a, scale = x.storage, gamma.storage
    mean, variance = kernels.batch_norm_statistics(a)
    inv_std = 1 / np.sqrt(variance + a.dtype.type(epsilon))
    y = kernels.scale_shift(a, scale * inv_std, beta.storage - mean * scale * inv_std)
    dx, dgamma, dbeta = _parts(lambda g: kernels.batch_norm_gradient(g, a, mean, inv_std, scale), 3)
    return record("batch_norm", y, (x, dx), (gamma, dgamma), (beta, dbeta)), mean, variance


def _per_channel(op: str, x: Tensor, *parameters: Tensor) -> None:
    fits = x.ndim > 0 and all(p.shape == x.shape[-1:] for p in parameters)
    _check(fits, op, "x (..., C) and two parameters (C,)", x, *parameters)


def batch_norm_inference(
    x: Any, gamma: Tensor, beta: Tensor, mean: Array, inv_std: Array
) -> Tensor:
    """Normalise each channel by given statistics (C,): what `batch_norm` does outside training.

    y = gamma * (x - mean) * inv_std + beta,    computed as x * scale + shift
    dL/dx = g * scale        dL/dgamma = sum of g * (x - mean) * inv_std        dL/dbeta = sum of g
    """
    x = as_tensor(x)
    _per_channel("batch_norm_inference", x, gamma, beta)
    a, scale = x.storage, gamma.storage * inv_std
    return record(
        "batch_norm_inference",
        kernels.scale_shift(a, scale, beta.storage - mean * scale),
        (x, lambda g: kernels.scale_shift(g, scale, np.zeros_like(scale))),
        (
            gamma,
            lambda g: kernels.bias_gradient(g * kernels.scale_shift(a, inv_std, -mean * inv_std)),
        ),
        (beta, kernels.bias_gradient),
    )


def dropout(x: Any, rate: float, rng: np.random.Generator) -> Tensor:
    """Sets each number to 0 with probability `rate`, and multiplies the others by 1/(1 - rate)."""
    x = as_tensor(x)
    kept = rng.random(x.shape, dtype=np.float32) >= rate
    mask = kept.astype(x.dtype) / x.dtype.type(1 - rate)
    return record("dropout", x.storage * mask, (x, lambda g: g * mask))


# --- Augmentation's work -------------------------------------------------------------------------


def affine_transform(
    x: Any,
    matrices: Array,
    size: Pair,
    interpolation: str = "bilinear",
    fill_mode: str = "reflect",
    fill_value: Any = 0.0,
) -> Tensor:
    """Images (N, H, W, C) seen through affine maps, each its own: (N, OH, OW, C).

    matrices (N, 2, 3) lead from a pixel of the output to its place in the input, rows before
    columns; see `kernels.affine_transform`. fill_value is a number, or one a channel.
    """
    x = as_tensor(x)
    m = np.ascontiguousarray(matrices, np.float64)
    fits = x.ndim == 4 and m.shape == (len(x.storage), 2, 3) and 0 not in x.shape[1:3]
    _check(fits, "affine_transform", "images (N, H, W, C) and a matrix (2, 3) for each", x)
    if not (abs(m) < 1e9).all():  # a NaN too: the compiled loops would read anywhere
        raise ValueError("affine_transform takes matrices of finite, moderate numbers")
    fill = np.broadcast_to(np.asarray(fill_value, np.float64), x.shape[3:]).copy()
    y = kernels.affine_transform(x.storage, m, size, interpolation, fill_mode, fill)
    before = x.shape[1:3]

    def vjp(g: Array) -> Array:
        return kernels.affine_transform_gradient(g, m, before, interpolation, fill_mode)

    return record("affine_transform", y, (x, vjp))


def adjust_tone(x: Any, contrast: Array, shift: Array, low: Array, high: Array) -> Tensor:
    """Contrast (N,) and brightness (N, C) of images (N, H, W, C), held in [low, high], (C,) each.

    See `kernels.adjust_tone`. As for `clip`, the gradient passes where nothing was cut off.
    """
    x = as_tensor(x)
    n, c = x.shape[0], x.shape[-1]
    fits = x.ndim == 4 and [a.shape for a in (contrast, shift, low)] == [(n,), (n, c), (c,)]
    _check(fits and high.shape == (c,), "adjust_tone", "images (N, H, W, C) and their settings", x)
    a = x.storage
    y = kernels.adjust_tone(a, contrast, shift, low, high)
    return record(
        "adjust_tone",
        y,
        (x, lambda g: kernels.adjust_tone_gradient(g, a, contrast, shift, low, high)),
    )


def gaussian_noise(x: Any, deviation: float, seeds: Array) -> Tensor:
    """y = x + deviation * (normal numbers, for each sample from its own seed)."""
    x = as_tensor(x)
    y = kernels.gaussian_noise(x.storage, deviation, seeds)
    return record("gaussian_noise", y, (x, lambda g: g))


# --- Losses' work --------------------------------------------------------------------------------


def softmax_cross_entropy(logits: Any, targets: Array) -> Tensor:
    """Cross-entropy of softmax(logits), row by row, without ever forming log(0).

        loss[n] = -sum_j t[n, j] * log softmax(z[n])_j
                = sum_j t[n, j] * (logsumexp(z[n]) - z[n, j])
        dloss[n]/dz[n, j] = p[n, j] * sum_k t[n, k] - t[n, j]

    Args:
        logits: z (N, m).
        targets: t (N, m), probabilities of each class; constant.

    Returns losses (N,).
    """
    logits = as_tensor(logits)
    fits = logits.ndim == 2 and targets.shape == logits.shape
    _check(fits, "softmax_cross_entropy", "logits (N, m) and targets (N, m)", logits, targets)
    losses, p = kernels.softmax_cross_entropy(logits.storage, targets)

    def vjp(g: Array) -> Array:
        return g[:, None] * (p * targets.sum(axis=1, keepdims=True) - targets)

    return record("softmax_cross_entropy", losses, (logits, vjp))


def sigmoid_cross_entropy(logits: Any, targets: Array) -> Tensor:
    """Binary cross-entropy of sigmoid(logits), element by element, stable for any logit.

    loss = max(z, 0) - z t + log(1 + e^-|z|)        dloss/dz = sigmoid(z) - t
    """
    logits = as_tensor(logits)
    fits = targets.shape == logits.shape
    _check(fits, "sigmoid_cross_entropy", "logits and targets of one shape", logits, targets)
    z = logits.storage
    losses = np.maximum(z, 0) - z * targets + np.log1p(np.exp(-np.abs(z)))
    return record("sigmoid_cross_entropy", losses, (logits, lambda g: g * (_logistic(z) - targets)))


def _swapped(f: Any) -> Any:
    return lambda self, other: f(other, self)


# Tensor's operators: `a + b` is `add(a, b)`.
for _name, _function in {
    "__add__": add,
    "__radd__": _swapped(add),
    "__sub__": subtract,
    "__rsub__": _swapped(subtract),
    "__mul__": multiply,
    "__rmul__": _swapped(multiply),
    "__truediv__": divide,
    "__rtruediv__": _swapped(divide),
    "__neg__": negative,
    "__pow__": power,
    "__matmul__": matmul,
    "__getitem__": getitem,
    "sum": sum,
    "mean": mean,
    "reshape": reshape,
}.items():
    setattr(Tensor, _name, _function)
