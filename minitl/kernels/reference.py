"""The kernels of VGG16 and its head as formulas: to learn from, and to hold faster ones against.

A kernel is plain arithmetic on arrays. It knows no tensor, no layer and no gradient tape; it
checks nothing (`geometry.py` and `ops` have done so), never changes what it is given (the two
updates of weights excepted) and never returns a view of it. Arrays are C-contiguous, float32 or
float64, and the result has the dtype of the input.

Letters used in all shapes: N images, H x W places, C channels, a window of KH x KW, OH x OW
places of the window, F filters; D inputs and m outputs of a dense layer. For a function
y = K(x) and a loss L, `g` is dL/dy, and the kernel `K_gradient` returns dL/dx from it. Where K
is linear, that gradient is its adjoint: <g, K x> = <K_gradient g, x>.
"""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from minitl.kernels.geometry import Array, Geometry, Pair, sliding


def window_places(geometry: Geometry) -> Iterator[Pair]:
    """All (kh, kw) of the window, row by row."""
    return product(range(geometry.window[0]), range(geometry.window[1]))


def pad(x: Array, geometry: Geometry) -> Array:
    """A copy of `x` (N, H, W, C) with zeros around it: (N, top+H+bottom, left+W+right, C)."""
    top, bottom, left, right = geometry.pads
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def padded_zeros(geometry: Geometry, images: int, channels: int, dtype: np.dtype) -> Array:
    """Zeros of the shape that `pad` returns, for gradients to be added up in."""
    (height, width), (top, bottom, left, right) = geometry.size, geometry.pads
    return np.zeros((images, top + height + bottom, left + width + right, channels), dtype)


def unpad(padded: Array, geometry: Geometry) -> Array:
    """The image (N, H, W, C) without its padding, as a copy. The adjoint of `pad`."""
    (height, width), (top, _, left, _) = geometry.size, geometry.pads
    return padded[:, top : top + height, left : left + width].copy()


def seen_from(padded: Array, geometry: Geometry, kh: int, kw: int) -> Array:
    """What place (kh, kw) of the window sees while the window slides: a VIEW (N, OH, OW, C).

        seen[n, oh, ow, c] = padded[n, oh*SH + kh, ow*SW + kw, c]

    A convolution is a sum, and a pool a maximum or mean, of these KH*KW views.
    """
    (sh, sw), (oh, ow) = geometry.strides, geometry.out_size
    return padded[:, kh : kh + (oh - 1) * sh + 1 : sh, kw : kw + (ow - 1) * sw + 1 : sw]


def in_float64(
    convolve: Callable[..., Array], x: Array, kernel: Array, bias: Array | None, *settings: Any
) -> Array:
    """convolve(x, kernel, bias, *settings) in float64, rounded to the dtype of x."""
    wide = [None if a is None else a.astype(np.float64, copy=False) for a in (x, kernel, bias)]
    return convolve(*wide, *settings).astype(x.dtype, copy=False)


def conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
    recorded: bool = False,
    precise: bool = False,
) -> Array:
    """Convolution (cross-correlation, as in all of deep learning), then bias, then activation.

        y[n, oh, ow, f] = bias[f] + sum over kh, kw, c of
                          padded[n, oh*SH + kh, ow*SW + kw, c] * kernel[kh, kw, c, f]

    x (N, H, W, C), kernel (KH, KW, C, F), bias (F,) or None -> y (N, OH, OW, F).
    `activation` is None, 'relu' or 'relu6'. With `precise`, all is computed in float64 and y is
    rounded to the dtype of x, once. Faster kernels need to know more: `cache` is a dict of this
    array, emptied whenever that is written, in which they keep transformed filters; `recorded`
    says that gradients will be asked of y, which decides what passes ReLU: they round less then.

    >>> from minitl.kernels.geometry import sliding
    >>> x = np.arange(9.0).reshape(1, 3, 3, 1)
    >>> ones = np.ones((2, 2, 1, 1))
    >>> conv2d(x, ones, None, sliding((3, 3), (2, 2), (1, 1), "valid"))[0, :, :, 0]
    array([[ 8., 12.],
           [20., 24.]])
    """
    if precise:
        return in_float64(conv2d, x, kernel, bias, geometry, activation)
    padded = pad(x, geometry)
    y = np.zeros((x.shape[0], *geometry.out_size, kernel.shape[3]), x.dtype)
    for kh, kw in window_places(geometry):
        y += seen_from(padded, geometry, kh, kw) @ kernel[kh, kw]  # (N,OH,OW,C) @ (C,F)
    return bias_and_activation(y, bias, activation)


def conv2d_input_gradient(
    g: Array, kernel: Array, geometry: Geometry, cache: dict | None = None
) -> Array:
    """dL/dx of `conv2d` (before its activation): every output hands its share back to its inputs.

        dpadded[n, oh*SH + kh, ow*SW + kw, c] += sum over f of
                          g[n, oh, ow, f] * kernel[kh, kw, c, f]      for all oh, ow, kh, kw

    g (N, OH, OW, F), kernel (KH, KW, C, F) -> dx (N, H, W, C). `cache` as in `conv2d`.
    """
    dpadded = padded_zeros(geometry, len(g), kernel.shape[2], g.dtype)
    for kh, kw in window_places(geometry):
        seen_from(dpadded, geometry, kh, kw)[...] += g @ kernel[kh, kw].T  # (N,OH,OW,F) @ (F,C)
    return unpad(dpadded, geometry)


def conv2d_kernel_gradient(x: Array, g: Array, geometry: Geometry) -> Array:
    """dL/dkernel of `conv2d`: input against gradient, summed over all images and places.

        dkernel[kh, kw, c, f] = sum over n, oh, ow of
                                padded[n, oh*SH + kh, ow*SW + kw, c] * g[n, oh, ow, f]

    x (N, H, W, C), g (N, OH, OW, F) -> dkernel (KH, KW, C, F).
    """
    padded = pad(x, geometry)
    dkernel = np.empty((*geometry.window, x.shape[3], g.shape[3]), x.dtype)
    for kh, kw in window_places(geometry):
        seen = seen_from(padded, geometry, kh, kw)
        dkernel[kh, kw] = np.einsum("nijc,nijf->cf", seen, g)
    return dkernel


def winner_dtype(geometry: Geometry) -> type:
    """The smallest dtype that numbers the places of the window: uint8 up to 16x16, else int32."""
    return np.uint8 if geometry.window[0] * geometry.window[1] <= 256 else np.int32


def max_pool2d(x: Array, geometry: Geometry) -> Array:
    """The largest value in each window, channel by channel; padding never wins.

    x (N, H, W, C) -> y (N, OH, OW, C). A NaN in the window makes the output NaN.
    """
    return max_pool2d_with_winners(x, geometry)[0]


def conv2d_max_pool2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
) -> Array:
    """The maximum of each 2x2 of what `conv2d` with these arguments returns: (N, OH//2, OW//2, F).

    A fast kernel need not write the convolution's output. A last row or column alone is dropped.
    """
    y = conv2d(x, kernel, bias, geometry, activation, cache)
    return max_pool2d(y, sliding(geometry.out_size, (2, 2), (2, 2), "valid"))


def max_pool2d_with_winners(x: Array, geometry: Geometry) -> tuple[Array, Array]:
    """`max_pool2d`, and where in its window each maximum stood.

    x (N, H, W, C) -> y (N, OH, OW, C) and winners (N, OH, OW, C), of `winner_dtype`: kh*KW + kw of
    the FIRST maximum in the window, row by row, so that the gradient goes to one place only. A NaN
    wins over every number.

    >>> from minitl.kernels.geometry import sliding
    >>> x = np.array([[1.0, 4.0], [4.0, 3.0]]).reshape(1, 2, 2, 1)
    >>> y, winners = max_pool2d_with_winners(x, sliding((2, 2), (2, 2), (2, 2), "valid"))
    >>> y.item(), winners.item()
    (4.0, 1)
    """
    padded = pad(x, geometry)
    inside = pad(np.ones_like(x), geometry)
    y = np.zeros((x.shape[0], *geometry.out_size, x.shape[3]), x.dtype)
    winners = np.full(y.shape, -1)  # -1: no place of the image seen yet
    for kh, kw in window_places(geometry):
        seen = seen_from(padded, geometry, kh, kw)
        wins = (winners < 0) | (seen > y) | (np.isnan(seen) & ~np.isnan(y))
        wins &= seen_from(inside, geometry, kh, kw) > 0
        y[wins] = seen[wins]
        winners[wins] = kh * geometry.window[1] + kw
    return y, winners.astype(winner_dtype(geometry))


def max_pool2d_gradient(g: Array, winners: Array, geometry: Geometry) -> Array:
    """dL/dx of `max_pool2d`: each gradient goes, whole, to the place that won its window.

    g and winners (N, OH, OW, C) -> dx (N, H, W, C). Where windows overlap, gradients add up.
    """
    dpadded = padded_zeros(geometry, len(g), g.shape[3], g.dtype)
    for kh, kw in window_places(geometry):
        won = winners == kh * geometry.window[1] + kw
        seen_from(dpadded, geometry, kh, kw)[...] += np.where(won, g, 0)
    return unpad(dpadded, geometry)


def dense(x: Array, kernel: Array, bias: Array | None, activation: str | None = None) -> Array:
    """y = x @ kernel + bias, then activation (None or 'relu').

    x (N, D), kernel (D, m), bias (m,) or None -> y (N, m).
    """
    return bias_and_activation(x @ kernel, bias, activation)


def dense_input_gradient(g: Array, kernel: Array) -> Array:
    """dL/dx of `dense` (before its activation): g (N, m) @ kernel.T (m, D) -> (N, D)."""
    return g @ kernel.T


def dense_kernel_gradient(x: Array, g: Array) -> Array:
    """dL/dkernel of `dense`: x.T (D, N) @ g (N, m) -> (D, m)."""
    return x.T @ g


def bias_gradient(g: Array) -> Array:
    """dL/dbias: g (..., F) summed over all axes but the last -> (F,).

    The sum has N*OH*OW terms, so it runs in float64.
    """
    return over_channels(np.sum, g).astype(g.dtype)


def relu(x: Array) -> Array:
    """max(x, 0), element by element. NaN stays NaN."""
    return np.maximum(x, 0)


def relu_gradient(g: Array, y: Array) -> Array:
    """dL/dx of y = relu(x), from y alone: g where y > 0, else 0. At the kink x = 0 it is 0."""
    return np.where(y > 0, g, 0)


def bias_relu_gradient(g: Array, y: Array) -> tuple[Array, Array]:
    """dL/dz and dL/dbias of y = relu(z + bias), from y alone: (..., F) -> (..., F) and (F,)."""
    dz = relu_gradient(g, y)
    return dz, bias_gradient(dz)


def softmax(x: Array) -> Array:
    """p = exp(x) / sum of exp(x) over the last axis.

    x (..., m) -> p (..., m). The row's maximum is subtracted first: that changes nothing in the
    quotient, and no exponential overflows.
    """
    e = _exp(x - x.max(axis=-1, keepdims=True))
    return e / _sum_in_lanes(e)


def softmax_gradient(g: Array, p: Array) -> Array:
    """dL/dx of p = softmax(x): p * (g - <g, p>), the scalar product taken over the last axis."""
    return p * (g - (g * p).sum(axis=-1, keepdims=True))


def softmax_cross_entropy(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Softmax and its cross-entropy in one, because the logarithm undoes the exponential.

        log p = logits - logsumexp(logits)
        losses[n] = -sum over m of targets[n, m] * log p[n, m]

    logits and targets (N, m), targets being probabilities -> losses (N,) and p (N, m). Finite
    for all finite logits, where log(softmax(x)) is not. A class with target 0 adds nothing, not
    even if its logit is -inf. The gradient dL/dlogits is p * sum(targets) - targets.

    Where p is nearly 1, p - 1 is its last few bits, and Adam, which divides gradients by their own
    size, carries them into the weights. So p is computed with care, in the order in which
    TensorFlow adds: losses of 100 steps then differ from Keras's by 1.2e-5, not 1.4e-4.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    e = _exp(shifted)
    total = _sum_in_lanes(e)
    log_p = np.where(targets == 0, 0, shifted - np.log(total))
    return -(targets * log_p).sum(axis=-1), e / total


def _exp(x: Array) -> Array:
    """exp(x), rounded once: NumPy's own in float32 is up to 3 units in the last place off."""
    return np.exp(x.astype(np.float64)).astype(x.dtype)


def _sum_in_lanes(x: Array) -> Array:
    """The sum over the last axis, as a processor adds vectors of 8 and halves what is left, plus
    the rest that fills no vector: (..., m) -> (..., 1)."""
    full = x.shape[-1] // 8 * 8
    lanes = np.add.reduce(x[..., :full].reshape(*x.shape[:-1], full // 8, 8), axis=-2)
    for half in (4, 2, 1):
        lanes = lanes[..., :half] + lanes[..., half:]
    return np.add.reduce(x[..., full:], axis=-1, keepdims=True) + lanes  # these one by one


def sgd_update(
    w: Array,
    g: Array,
    velocity: Array | None,
    rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> None:
    """One step of gradient descent, IN PLACE in w and velocity, as Keras defines it.

        velocity <- momentum * velocity - rate * g
        w        <- w + velocity                              plain
        w        <- w + momentum * velocity - rate * g        nesterov: look ahead once more

    All arrays have the shape of w; `velocity` is None when momentum is 0.
    """
    if velocity is None:
        w -= rate * g
        return
    velocity *= momentum
    velocity -= rate * g
    if nesterov:
        w += momentum * velocity - rate * g
    else:
        w += velocity


def adam_update(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    rate: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> None:
    """One step of Adam, IN PLACE in w, m and v (all of one shape).

        m <- m + (g - m) * (1 - beta_1)
        v <- v + (g*g - v) * (1 - beta_2)
        w <- w - rate * m / (sqrt(v) + epsilon)

    `rate` already carries the correction for the zeros that m and v start from, after t steps:
    rate * sqrt(1 - beta_2^t) / (1 - beta_1^t). Kingma & Ba 2014 (arXiv 1412.6980), end of
    section 2, where epsilon is 'epsilon hat'; Keras does the same.
    """
    m += (g - m) * (1 - beta_1)
    v += (g * g - v) * (1 - beta_2)
    w -= rate * m / (np.sqrt(v) + epsilon)


def all_finite(a: Array) -> bool:
    """Whether no number of `a` (any shape) is NaN or infinite."""
    return bool(np.isfinite(a).all())


def bias_and_activation(y: Array, bias: Array | None, activation: str | None) -> Array:
    """y + bias, and then ReLU, or ReLU up to 6, where they are wanted."""
    if bias is not None:
        y = y + bias
    y = relu(y) if activation else y
    return np.minimum(y, y.dtype.type(6)) if activation == "relu6" else y


def over_channels(reduction, x: Array) -> Array:
    """np.sum or np.mean of x (..., C) over all axes but the last, in float64 -> (C,)."""
    return reduction(x.reshape(-1, x.shape[-1]), axis=0, dtype=np.float64)


def empty(shape: int | tuple[int, ...], dtype: np.dtype, lasting: bool = False) -> Array:
    """An array with any content, which takes no more memory than it needs if it is `lasting`."""
    return np.empty(shape, dtype)


def copy(a: Array) -> Array:
    """A copy of an array, C-contiguous."""
    return np.array(a, order="C")


def zeros_like(a: Array) -> Array:
    """Zeros of an array's shape and dtype."""
    return np.zeros_like(a)
