"""Every kernel as its formula: the text to learn from, and what all faster kernels must equal.

A kernel is plain arithmetic on arrays. It knows no tensor, no layer and no gradient tape; it
checks nothing (`geometry.py` and `ops.py` have done so), never changes what it is given (the two
updates of weights excepted) and never returns a view of it. Arrays are C-contiguous, float32 or
float64, and the result has the dtype of the input.

Letters used in all shapes: N images, H x W places, C channels, a window of KH x KW, OH x OW
places of the window, F filters; D inputs and m outputs of a dense layer. For a function
y = K(x) and a loss L, `g` is dL/dy, and the kernel `K_gradient` returns dL/dx from it. Where K
is linear, that gradient is its adjoint: <g, K x> = <K_gradient g, x>.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np

from minitl.kernels.geometry import Geometry, Pair, sliding

Array = np.ndarray


# --- Windows -------------------------------------------------------------------------------------


def window_places(geometry: Geometry) -> Iterator[Pair]:
    """All (kh, kw) of the window, row by row."""
    return product(range(geometry.window[0]), range(geometry.window[1]))


def pad(x: Array, geometry: Geometry, value: float = 0.0) -> Array:
    """A copy of `x` (N, H, W, C) with the padding around it: (N, top+H+bottom, left+W+right, C)."""
    top, bottom, left, right = geometry.pads
    border = ((0, 0), (top, bottom), (left, right), (0, 0))
    return np.pad(x, border, constant_values=value)


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


# --- Convolution ---------------------------------------------------------------------------------


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
    `activation` is None or 'relu'. `cache` is None or a dict that belongs to this very kernel
    array and is emptied by its owner whenever the kernel is written: faster kernels keep
    transformed filters there. Nothing is kept here. `recorded` says that gradients will be asked
    of y. They follow what passes ReLU, and what is the largest under a window: where y decides
    that, faster kernels round less if they can. With `precise`, all is computed in float64 and y is
    rounded to the dtype of x, once.

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
    return _bias_and_activation(y, bias, activation)


def conv2d_input_gradient(
    g: Array, kernel: Array, geometry: Geometry, cache: dict | None = None
) -> Array:
    """dL/dx of `conv2d` (before its activation): every output hands its share back to its inputs.

        dpadded[n, oh*SH + kh, ow*SW + kw, c] += sum over f of
                          g[n, oh, ow, f] * kernel[kh, kw, c, f]      for all oh, ow, kh, kw

    g (N, OH, OW, F), kernel (KH, KW, C, F) -> dx (N, H, W, C). `cache` as in `conv2d`.
    """
    (height, width), (top, bottom, left, right) = geometry.size, geometry.pads
    padded_shape = (g.shape[0], top + height + bottom, left + width + right, kernel.shape[2])
    dpadded = np.zeros(padded_shape, g.dtype)
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


# --- Pooling -------------------------------------------------------------------------------------


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

    One pass, for when nobody else asks for the convolution's output: a fast kernel need not
    write it. A last row or column without a partner is dropped.
    """
    y = conv2d(x, kernel, bias, geometry, activation, cache)
    return max_pool2d(y, sliding(geometry.out_size, (2, 2), (2, 2), "valid"))


def max_pool2d_with_winners(x: Array, geometry: Geometry) -> tuple[Array, Array]:
    """`max_pool2d`, and where in its window each maximum stood.

    x (N, H, W, C) -> y (N, OH, OW, C) and winners (N, OH, OW, C), holding kh*KW + kw of the FIRST
    maximum in the window, row by row: that is the rule for ties, so that the gradient goes to one
    place only. A NaN wins over every number. Winners are uint8, or int32 for windows of more than
    256 places.

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
    (height, width), (top, bottom, left, right) = geometry.size, geometry.pads
    padded_shape = (g.shape[0], top + height + bottom, left + width + right, g.shape[3])
    dpadded = np.zeros(padded_shape, g.dtype)
    for kh, kw in window_places(geometry):
        won = winners == kh * geometry.window[1] + kw
        seen_from(dpadded, geometry, kh, kw)[...] += np.where(won, g, 0)
    return unpad(dpadded, geometry)


def average_pool2d(x: Array, geometry: Geometry) -> Array:
    """The mean of each window, channel by channel, over the places inside the image.

    x (N, H, W, C) -> y (N, OH, OW, C). Padding counts neither in the sum nor in the number of
    places, as in Keras.
    """
    padded = pad(x, geometry)
    total = np.zeros((x.shape[0], *geometry.out_size, x.shape[3]), x.dtype)
    for kh, kw in window_places(geometry):
        total += seen_from(padded, geometry, kh, kw)
    return total / places_inside(geometry).astype(x.dtype)


def average_pool2d_gradient(g: Array, geometry: Geometry) -> Array:
    """dL/dx of `average_pool2d`: every place of the window gets the same share.

    g (N, OH, OW, C) -> dx (N, H, W, C).
    """
    (height, width), (top, bottom, left, right) = geometry.size, geometry.pads
    padded_shape = (g.shape[0], top + height + bottom, left + width + right, g.shape[3])
    dpadded = np.zeros(padded_shape, g.dtype)
    share = g / places_inside(geometry).astype(g.dtype)
    for kh, kw in window_places(geometry):
        seen_from(dpadded, geometry, kh, kw)[...] += share
    return unpad(dpadded, geometry)


def places_inside(geometry: Geometry) -> Array:
    """How many places of each window lie inside the image: (OH, OW, 1)."""
    inside = pad(np.ones((1, *geometry.size, 1)), geometry)
    return sum(seen_from(inside, geometry, kh, kw)[0] for kh, kw in window_places(geometry))


# --- Dense layer, bias, activations --------------------------------------------------------------


def dense(x: Array, kernel: Array, bias: Array | None, activation: str | None = None) -> Array:
    """y = x @ kernel + bias, then activation (None or 'relu').

    x (N, D), kernel (D, m), bias (m,) or None -> y (N, m).
    """
    return _bias_and_activation(x @ kernel, bias, activation)


def dense_input_gradient(g: Array, kernel: Array) -> Array:
    """dL/dx of `dense` (before its activation): g (N, m) @ kernel.T (m, D) -> (N, D)."""
    return g @ kernel.T


def dense_kernel_gradient(x: Array, g: Array) -> Array:
    """dL/dkernel of `dense`: x.T (D, N) @ g (N, m) -> (D, m)."""
    return x.T @ g


def bias_gradient(g: Array) -> Array:
    """dL/dbias: g (..., F) summed over all axes but the last -> (F,).

    The sum has N*OH*OW terms, so it runs in float64 whatever the dtype of g.
    """
    return _over_channels(np.sum, g).astype(g.dtype)


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

    Where p is nearly 1, p - 1 is its last few bits. Adam, which divides gradients by their own
    size, makes a difference in these bits one in the weights: so p is computed with care, and in
    the order in which TensorFlow adds. (100 steps of a head, largest relative difference between
    the losses of minitl and Keras: 1.4e-4 with NumPy's exponential and sum, 1.2e-5 with these.)
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
    lanes = x[..., :full].reshape(*x.shape[:-1], full // 8, 8).sum(axis=-2)
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    rest = np.zeros_like(lanes)
    for i in range(full, x.shape[-1]):
        rest += x[..., i : i + 1]
    return rest + lanes


# --- Batch normalization -------------------------------------------------------------------------


def batch_norm_statistics(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of each channel, over all axes but the last.

    x (..., C) -> mean (C,), variance (C,). Both are computed in float64, the variance from the
    differences to the mean: E[x^2] - E[x]^2 loses all digits when the mean is large.
    """
    mean = _over_channels(np.mean, x)
    variance = _over_channels(np.mean, (x - mean) ** 2)
    return mean.astype(x.dtype), variance.astype(x.dtype)


def scale_shift(x: Array, scale: Array, shift: Array) -> Array:
    """x * scale + shift, channel by channel: x (..., C), scale and shift (C,) -> (..., C)."""
    return x * scale + shift


def batch_norm_gradient(
    g: Array, x: Array, mean: Array, inv_std: Array, gamma: Array
) -> tuple[Array, Array, Array]:
    """Gradients of y = gamma * xhat + beta in training mode, where the statistics depend on x.

        xhat   = (x - mean) * inv_std            inv_std = 1 / sqrt(variance + epsilon)
        dbeta  = sum g
        dgamma = sum g * xhat                    sums and means: all axes but the last
        dx     = gamma * inv_std * (g - mean(g) - xhat * mean(g * xhat))

    g and x (..., C), the others (C,) -> dx (..., C), dgamma (C,), dbeta (C,). Ioffe & Szegedy
    2015 (arXiv 1502.03167), section 3, with the terms collected.
    """
    count = x.size // x.shape[-1]
    xhat = (x - mean) * inv_std
    dbeta = _over_channels(np.sum, g)
    dgamma = _over_channels(np.sum, g * xhat)
    dx = gamma * inv_std * (g - dbeta / count - xhat * (dgamma / count))
    return dx.astype(x.dtype), dgamma.astype(x.dtype), dbeta.astype(x.dtype)


# --- Optimizer steps, the only kernels that write into their arguments ---------------------------


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
    rate * sqrt(1 - beta_2^t) / (1 - beta_1^t). Kingma & Ba 2014 (arXiv 1412.6980), the form
    before section 2.1, in which epsilon is 'epsilon hat'; Keras does the same.
    """
    m += (g - m) * (1 - beta_1)
    v += (g * g - v) * (1 - beta_2)
    w -= rate * m / (np.sqrt(v) + epsilon)


def all_finite(a: Array) -> bool:
    """Whether no number of `a` (any shape) is NaN or infinite."""
    return bool(np.isfinite(a).all())


# --- Augmentation --------------------------------------------------------------------------------

FILL_MODES = ("reflect", "wrap", "constant", "nearest")


def affine_transform(
    x: Array,
    matrices: Array,
    size: Pair,
    interpolation: str,
    fill_mode: str,
    fill: Array,
) -> Array:
    """Images seen through an affine map: where each output pixel lies in the input, and its value.

        (r, s) = M[n] (i, j, 1)        y[n, i, j, c] = x[n, r, s, c]

    and between the pixels, with a = r - floor(r) and b = s - floor(s), the bilinear mean of the
    four around: (1-a)(1-b) x[r, s] + (1-a) b x[r, s+1] + a (1-b) x[r+1, s] + a b x[r+1, s+1].

    x              (N, H, W, C)
    matrices       M (N, 2, 3), float64: from output to input, rows before columns
    size           (OH, OW) of the output
    interpolation  'bilinear', or 'nearest': the pixel whose centre is nearest
    fill_mode      what lies outside: d c b a | a b c d | d c b a for 'reflect', a b c d | a b c d
                   for 'wrap', a a a | a b c d | d d d for 'nearest', `fill` for 'constant'
    fill           (C,)
    """
    places, weights = _seen_pixels(x.shape, matrices, size, interpolation, fill_mode)
    flat = x.reshape(-1, x.shape[3])
    y = np.zeros((len(x), *size, x.shape[3]), x.dtype)
    for place, weight in zip(places, weights, strict=True):
        inside = (place >= 0)[..., np.newaxis]
        seen = np.where(inside, flat[place], fill.astype(x.dtype)) if len(flat) else y
        y += weight.astype(x.dtype)[..., np.newaxis] * seen
    return y


def affine_transform_gradient(
    g: Array, matrices: Array, size: Pair, interpolation: str, fill_mode: str
) -> Array:
    """dL/dx (N, H, W, C), `size` = (H, W): each pixel gets back what it gave, times its weight."""
    shape = (len(g), *size, g.shape[3])
    places, weights = _seen_pixels(shape, matrices, g.shape[1:3], interpolation, fill_mode)
    dx = np.zeros(shape, g.dtype)
    for place, weight in zip(places, weights, strict=True):
        inside = place >= 0
        given = weight.astype(g.dtype)[..., np.newaxis] * g
        np.add.at(dx.reshape(-1, g.shape[3]), place[inside], given[inside])
    return dx


def _seen_pixels(
    shape: tuple[int, ...], matrices: Array, size: Pair, interpolation: str, fill_mode: str
) -> tuple[list[Array], list[Array]]:
    """The input pixels that each output pixel is mixed of, each (N, OH, OW): their places in
    x.reshape(N*H*W, C), -1 outside, and their weights."""
    i, j = np.arange(size[0])[:, np.newaxis], np.arange(size[1])
    m = matrices[:, :, :, np.newaxis, np.newaxis]  # (N, 2, 3, 1, 1)
    axes = []
    for axis, length in enumerate(shape[1:3]):
        at = _folded(m[:, axis, 0] * i + m[:, axis, 1] * j + m[:, axis, 2], length, fill_mode)
        if interpolation == "nearest":  # halves go away from zero, as in TensorFlow
            nearest = np.trunc(at + np.copysign(0.5, at))
            axes.append([(_index(nearest, length, fill_mode), np.ones_like(at))])
        else:
            low = np.floor(at)
            above = at - low
            axes.append(
                [
                    (_index(low, length, fill_mode), 1 - above),
                    (_index(low + 1, length, fill_mode), above),
                ]
            )
    start = np.arange(shape[0])[:, np.newaxis, np.newaxis] * (shape[1] * shape[2])
    places, weights = [], []
    for (row, a), (column, b) in product(*axes):
        inside = (row >= 0) & (column >= 0)
        places.append(np.where(inside, start + row * shape[2] + column, -1))
        weights.append(a * b)
    return places, weights


def _folded(at: Array, length: int, fill_mode: str) -> Array:
    """Coordinates outside [0, length - 1] moved to where the same is seen inside."""
    if fill_mode == "reflect":  # the image and its mirror image repeat every 2 length
        at = np.mod(at + 0.5, 2 * length)
        at = np.minimum(at, 2 * length - at) - 0.5
    if fill_mode == "wrap":
        return np.mod(at, length)
    return at if fill_mode == "constant" else np.clip(at, 0, length - 1)


def _index(at: Array, length: int, fill_mode: str) -> Array:
    """Whole folded coordinates as indices; -1 outside."""
    if fill_mode == "wrap":
        at = np.mod(at, length)
    elif fill_mode == "constant":
        at = np.where((at >= 0) & (at < length), at, -1)
    else:
        at = np.minimum(at, length - 1)
    return at.astype(np.intp)


def adjust_tone(x: Array, contrast: Array, shift: Array, low: Array, high: Array) -> Array:
    """Contrast and brightness, each image and channel by itself; mean is that over its pixels.

        y = clip((x - mean) * contrast[n] + mean + shift[n, c], low[c], high[c])

    x (N, H, W, C), contrast (N,), shift (N, C), low and high (C,).
    """
    z = _toned(x, contrast, shift)
    return np.clip(z, low.astype(x.dtype), high.astype(x.dtype))


def adjust_tone_gradient(
    g: Array, x: Array, contrast: Array, shift: Array, low: Array, high: Array
) -> Array:
    """dL/dx: g where nothing was clipped, times contrast, and what came through the mean."""
    z = _toned(x, contrast, shift)
    passed = np.where((z >= low.astype(x.dtype)) & (z <= high.astype(x.dtype)), g, 0)
    through = passed.mean(axis=(1, 2), dtype=np.float64) * (1 - contrast[:, np.newaxis])  # (N, C)
    scale = contrast[:, np.newaxis, np.newaxis, np.newaxis].astype(x.dtype)
    return passed * scale + through[:, np.newaxis, np.newaxis].astype(x.dtype)


def _toned(x: Array, contrast: Array, shift: Array) -> Array:
    """Before clipping: x * contrast + (mean * (1 - contrast) + shift)."""
    rest = x.mean(axis=(1, 2), dtype=np.float64) * (1 - contrast[:, np.newaxis]) + shift  # (N, C)
    scale = contrast[:, np.newaxis, np.newaxis, np.newaxis].astype(x.dtype)
    return x * scale + rest[:, np.newaxis, np.newaxis].astype(x.dtype)


def gaussian_noise(x: Array, deviation: float, seeds: Array) -> Array:
    """y[n] = x[n] + deviation * (independent normal numbers, drawn from seeds[n]); x (N, ...)."""
    y = np.empty_like(x)
    for sample, seed, result in zip(x, seeds, y, strict=True):
        noise = np.random.default_rng(seed).standard_normal(sample.shape, x.dtype)
        result[:] = sample + x.dtype.type(deviation) * noise
    return y


# --- Shared lines --------------------------------------------------------------------------------


def _bias_and_activation(y: Array, bias: Array | None, activation: str | None) -> Array:
    if bias is not None:
        y = y + bias
    return relu(y) if activation == "relu" else y


def _over_channels(reduction, x: Array) -> Array:
    """np.sum or np.mean of x (..., C) over all axes but the last, in float64 -> (C,)."""
    return reduction(x.reshape(-1, x.shape[-1]), axis=0, dtype=np.float64)


# --- Convolution with fewer multiplications ------------------------------------------------------
# Winograd's F(M x M, 3x3) as its formulas: `winograd.py` derives them, and must equal these. Only
# for a 3x3 window with stride 1. TH x TW are the tiles of M x M places that y is cut into, all of
# them whole; i and j run over the P x P pairs of points, P = M + 2.

POINTS = {  # by M; and infinity, the last row of G and A and column of B
    4: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2),
    6: (0, 1 / 2, -1 / 2, 1, -1, 2, -2),
}


def winograd_matrices(points: tuple[float, ...]) -> tuple[Array, Array, Array]:
    """G (P, 3), A (P, M), B (P, P): values of k and g at the points, coefficients from values."""
    P, M = len(points) + 1, len(points) - 1
    G, A, B = np.zeros((P, 3)), np.zeros((P, M)), np.zeros((P, P))
    for row, point in enumerate(points):
        others = [other for other in points if other != point]
        G[row] = point ** np.arange(3) / np.prod([point - other for other in others])
        A[row] = point ** np.arange(M)
        B[:-1, row] = np.poly(others)[::-1]  # coefficients of prod (z - other), lowest first
    G[-1, -1] = A[-1, -1] = 1
    B[:, -1] = np.poly(points)[::-1]
    return G, A, B


def winograd_conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
    size: int = 4,
) -> Array:
    """`conv2d`: y = A^T ((G k G^T) * (B^T d B)) A, tile by tile, summed over channels; M = size."""
    G, A, B = (matrix.astype(x.dtype) for matrix in winograd_matrices(POINTS[size]))
    u = G @ kernel.transpose(2, 3, 0, 1) @ G.T  # (C, F, P, P)
    v = B.T @ _input_pieces(x, geometry, size) @ B  # (N, TH, TW, C, P, P)
    m = np.einsum("nhwcij,cfij->nhwfij", v, u)  # P * P matrix products
    y = A.T @ m @ A  # (N, TH, TW, F, M, M)
    images, rows, columns, filters = y.shape[:4]
    y = y.transpose(0, 1, 4, 2, 5, 3).reshape(images, size * rows, size * columns, filters)
    y = y[:, : geometry.out_size[0], : geometry.out_size[1]].copy()
    return _bias_and_activation(y, bias, activation)


def winograd_conv2d_input_gradient(
    g: Array, kernel: Array, geometry: Geometry, cache: dict | None = None, size: int = 4
) -> Array:
    """`conv2d_input_gradient`: convolution of g with the kernel turned, C and F swapped."""
    top, bottom, left, right = geometry.pads
    pads = (2 - top, 2 - bottom, 2 - left, 2 - right)
    back = Geometry(geometry.out_size, (3, 3), (1, 1), pads, geometry.size)
    return winograd_conv2d(g, kernel[::-1, ::-1].swapaxes(2, 3), None, back, size=size)


def winograd_conv2d_kernel_gradient(x: Array, g: Array, geometry: Geometry, size: int = 4) -> Array:
    """`conv2d_kernel_gradient`: G^T (sum over tiles of (B^T d B) * (A g A^T)) G."""
    G, A, B = (matrix.astype(x.dtype) for matrix in winograd_matrices(POINTS[size]))
    images, oh, ow, filters = g.shape
    rows, columns = -(-oh // size), -(-ow // size)
    g = np.pad(g, ((0, 0), (0, size * rows - oh), (0, size * columns - ow), (0, 0)))
    g = g.reshape(images, rows, size, columns, size, filters).transpose(0, 1, 3, 5, 2, 4)
    z = A @ g @ A.T  # (N, TH, TW, F, P, P)
    v = B.T @ _input_pieces(x, geometry, size) @ B  # (N, TH, TW, C, P, P)
    u = np.einsum("nhwcij,nhwfij->cfij", v, z)  # P * P matrix products
    return np.ascontiguousarray((G.T @ u @ G).transpose(2, 3, 0, 1))


def _input_pieces(x: Array, geometry: Geometry, size: int) -> Array:
    """The P x P piece of padded x that each tile of y sees: (N, TH, TW, C, P, P), M apart."""
    (height, width), (top, _, left, _) = geometry.size, geometry.pads
    rows, columns = -(-geometry.out_size[0] // size), -(-geometry.out_size[1] // size)
    below, right = size * rows + 2 - top - height, size * columns + 2 - left - width
    padded = np.pad(x, ((0, 0), (top, below), (left, right), (0, 0)))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, (size + 2, size + 2), (1, 2))
    return pieces[:, ::size, ::size]
