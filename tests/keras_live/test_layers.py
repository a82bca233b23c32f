"""Every layer: forward, and gradients to inputs and weights, for random configurations.

In float64 both sides compute the same formula, so they must agree to rounding. In float32 the
linear layers are judged elementwise by the bound of the sums they are (Higham's gamma_K), with
Keras in float64 as the truth.
"""

import numpy as np
import pytest

from minitl import layers
from tests.keras_live.compare import (
    assert_close,
    assert_same,
    pick,
    randomize,
    repeatable,
    run_keras,
    run_minitl,
    seeds,
)
from tests.tolerances import SAME_FORMULA, WINOGRAD, assert_sum

ACTIVATIONS = (None, "linear", "relu", "sigmoid", "tanh", "softmax")


def both(keras, name, dtype="float64", **settings):
    return (
        getattr(layers, name)(**settings, dtype=dtype),
        getattr(keras.layers, name)(**settings, dtype=dtype),
    )


def agree(keras, rng, name, inputs, training=None, **settings):
    """Run a layer in both in float64, on the same random weights and cotangent."""
    mine, theirs = both(keras, name, **settings)
    argument = list(inputs) if len(inputs) > 1 else inputs[0]
    y = theirs(argument, training=False)
    weights = randomize(rng, [w.shape for w in theirs.get_weights()])
    for i, v in enumerate(theirs.weights):
        if v.name == "moving_variance":
            weights[i] = rng.uniform(0.5, 2, v.shape)
    cotangent = rng.standard_normal(y.shape)
    a = run_minitl(mine, inputs, weights, cotangent, training)
    b = run_keras(theirs, inputs, weights, cotangent, training)
    assert_same(a, b, SAME_FORMULA)
    symbolic = [(None, *x.shape[1:]) for x in inputs]
    expected = theirs.compute_output_shape(symbolic if len(inputs) > 1 else symbolic[0])
    assert tuple(mine.compute_output_shape(symbolic if len(inputs) > 1 else symbolic[0])) == tuple(
        expected
    )
    assert [v.name for v in mine.weights] == [v.name for v in theirs.weights]
    return a, b


def linear_in_float32(keras, rng, name, x, terms, **settings):
    """A linear layer in float32 against Keras in float64, elementwise by gamma_K."""
    mine, theirs = both(keras, name, "float32", **settings)[0], None
    theirs = getattr(keras.layers, name)(**settings, dtype="float64")
    y = theirs(x)
    weights = [
        w.astype(np.float32) for w in randomize(rng, [w.shape for w in theirs.get_weights()])
    ]
    x32, g32 = x.astype(np.float32), rng.standard_normal(y.shape).astype(np.float32)
    exact = run_keras(theirs, [x32.astype(np.float64)], weights, g32.astype(np.float64))
    size = run_keras(
        theirs,
        [np.abs(x32).astype(np.float64)],
        [np.abs(w) for w in weights],
        np.abs(g32).astype(np.float64),
    )
    found = run_minitl(mine, [x32], weights, g32)
    for (what, a, b), (_, magnitude, _) in zip(found.pairs(exact), size.pairs(size), strict=True):
        if what.startswith("state"):
            continue
        try:
            assert_sum(a, b, magnitude, terms[what] + 2)
        except AssertionError:
            if settings.get("kernel_size") != (3, 3) or settings.get("strides") != (1, 1):
                raise
            assert_close(a, b, WINOGRAD, what)


@seeds(24)
def test_dense(keras, seed):
    rng = np.random.default_rng(seed)
    n, d, m = (int(rng.integers(1, 9)), int(rng.integers(1, 60)), int(rng.integers(1, 30)))
    shape = pick(rng, (n, d), (n, d), (n, 3, d), (n, 2, 3, d))
    settings = {
        "units": m,
        "activation": pick(rng, *ACTIVATIONS),
        "use_bias": pick(rng, True, False),
    }
    with repeatable(seed, shape=shape, **settings):
        agree(keras, rng, "Dense", [rng.standard_normal(shape)], **settings)


@seeds(8)
def test_dense_in_float32(keras, seed):
    rng = np.random.default_rng(seed)
    n, d, m = (int(k) for k in rng.integers(1, 200, 3))
    with repeatable(seed, n=n, d=d, m=m):
        terms = {"y": d, "inputs[0]": m, "weights[0]": n, "weights[1]": n}
        x = rng.standard_normal((n, d))
        linear_in_float32(keras, rng, "Dense", x, terms, units=m)


def draw_window(rng):
    window = pick(rng, (1, 1), (2, 2), (3, 3), (3, 3), (5, 5), (2, 3), (7, 7), (4, 1))
    strides = pick(rng, (1, 1), (1, 1), (2, 2), (1, 2), (3, 2))
    padding = pick(rng, "valid", "same")
    low = max(window) if padding == "valid" else 1
    h, w = (int(k) for k in rng.integers(low, low + 9, 2))
    n, c = int(rng.integers(1, 4)), int(rng.integers(1, 7))
    return (n, h, w, c), window, strides, padding


@seeds(40)
def test_conv2d(keras, seed):
    rng = np.random.default_rng(seed)
    shape, window, strides, padding = draw_window(rng)
    settings = {
        "filters": int(rng.integers(1, 9)),
        "kernel_size": window,
        "strides": strides,
        "padding": padding,
        "activation": pick(rng, *ACTIVATIONS),
        "use_bias": pick(rng, True, True, False),
    }
    with repeatable(seed, shape=shape, **settings):
        agree(keras, rng, "Conv2D", [rng.standard_normal(shape)], **settings)


@seeds(20)
def test_conv2d_in_float32(keras, seed):
    rng = np.random.default_rng(1000 + seed)
    shape, window, strides, padding = draw_window(rng)
    filters = int(rng.integers(1, 33))
    settings = {
        "filters": filters,
        "kernel_size": window,
        "strides": strides,
        "padding": padding,
    }
    with repeatable(seed, shape=shape, **settings):
        x = rng.standard_normal(shape)
        places = shape[0] * shape[1] * shape[2]
        window_size = window[0] * window[1]
        terms = {
            "y": window_size * shape[3],
            "inputs[0]": window_size * filters,
            "weights[0]": places,
            "weights[1]": places,
        }
        linear_in_float32(keras, rng, "Conv2D", x, terms, **settings)


@pytest.mark.parametrize("name", ["MaxPooling2D", "AveragePooling2D"])
@seeds(24)
def test_pooling(keras, name, seed):
    rng = np.random.default_rng(seed)
    shape, window, strides, padding = draw_window(rng)
    settings = {
        "pool_size": pick(rng, window, window, max(window)),
        "strides": pick(rng, None, strides, strides[0]),
        "padding": padding,
    }
    ties = pick(rng, False, False, True)
    x = rng.integers(0, 3, shape).astype(float) if ties else rng.standard_normal(shape)
    with repeatable(seed, shape=shape, ties=ties, **settings):
        agree(keras, rng, name, [x], **settings)


@pytest.mark.parametrize("name", ["GlobalAveragePooling2D", "GlobalMaxPooling2D"])
@seeds(8)
def test_global_pooling(keras, name, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(k) for k in rng.integers(1, 8, 4))
    ties = pick(rng, True, False)
    x = rng.integers(0, 3, shape).astype(float) if ties else rng.standard_normal(shape)
    keepdims = pick(rng, True, False)
    with repeatable(seed, shape=shape, ties=ties, keepdims=keepdims):
        agree(keras, rng, name, [x], keepdims=keepdims)


@seeds(6)
def test_flatten(keras, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(k) for k in rng.integers(1, 6, int(rng.integers(1, 6))))
    with repeatable(seed, shape=shape):
        agree(keras, rng, "Flatten", [rng.standard_normal(shape)])


@seeds(12)
def test_zero_padding(keras, seed):
    rng = np.random.default_rng(seed)
    p = [int(k) for k in rng.integers(0, 4, 4)]
    padding = pick(rng, p[0], (p[0], p[1]), ((p[0], p[1]), (p[2], p[3])), [[p[0], p[1]], p[2:]])
    shape = tuple(int(k) for k in rng.integers(1, 6, 4))
    with repeatable(seed, shape=shape, padding=padding):
        agree(keras, rng, "ZeroPadding2D", [rng.standard_normal(shape)], padding=padding)


@pytest.mark.parametrize("activation", [a for a in ACTIVATIONS if a])
@seeds(4)
def test_activation_layer(keras, activation, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(k) for k in rng.integers(1, 6, int(rng.integers(2, 5))))
    scale = pick(rng, 1, 20, 800)  # up to where e^x overflows
    with repeatable(seed, shape=shape, scale=scale):
        x = rng.standard_normal(shape) * scale
        x.flat[0] = 0.0
        agree(keras, rng, "Activation", [x], activation=activation)


@pytest.mark.parametrize("name", ["ReLU", "Softmax"])
@seeds(4)
def test_relu_and_softmax_layers(keras, name, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(k) for k in rng.integers(1, 6, int(rng.integers(2, 5))))
    with repeatable(seed, shape=shape):
        agree(keras, rng, name, [rng.standard_normal(shape) * pick(rng, 1, 50)])


@seeds(8)
def test_add(keras, seed):
    rng = np.random.default_rng(seed)
    shape = tuple(int(k) for k in rng.integers(1, 6, int(rng.integers(2, 5))))
    count = int(rng.integers(2, 5))
    with repeatable(seed, shape=shape, count=count):
        agree(keras, rng, "Add", [rng.standard_normal(shape) for _ in range(count)])


@seeds(12)
def test_concatenate(keras, seed):
    rng = np.random.default_rng(seed)
    shape = [int(k) for k in rng.integers(1, 6, int(rng.integers(2, 5)))]
    axis = int(rng.integers(1, len(shape)))
    shapes = []
    for _ in range(int(rng.integers(2, 5))):
        shape[axis] = int(rng.integers(1, 6))
        shapes.append(tuple(shape))
    axis = pick(rng, axis, axis - len(shape))
    with repeatable(seed, shapes=shapes, axis=axis):
        agree(keras, rng, "Concatenate", [rng.standard_normal(s) for s in shapes], axis=axis)


@seeds(30)
def test_batch_normalization(keras, seed):
    """Training (with the moving averages that it leaves), inference, and frozen."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(k) for k in rng.integers(2, 7, pick(rng, 2, 3, 4)))
    settings = {
        "momentum": pick(rng, 0.99, 0.9, 0.5),
        "epsilon": pick(rng, 1e-3, 1e-5, 1.0),
        "center": pick(rng, True, True, False),
        "scale": pick(rng, True, True, False),
        "trainable": pick(rng, True, True, False),
    }
    training = pick(rng, True, False)
    with repeatable(seed, shape=shape, training=training, **settings):
        x = rng.standard_normal(shape) * 3 + rng.standard_normal(shape[-1]) * 5
        agree(keras, rng, "BatchNormalization", [x], training, **settings)


@seeds(4)
def test_dropout(keras, seed):
    """Off outside training; in training the same distribution (the numbers differ)."""
    rng = np.random.default_rng(seed)
    rate = pick(rng, 0.0, 0.2, 0.5, 0.9)
    with repeatable(seed, rate=rate):
        agree(keras, rng, "Dropout", [rng.standard_normal((3, 4))], training=False, rate=rate)
        x = np.ones((200, 250), np.float32)
        mine, theirs = both(keras, "Dropout", "float32", rate=rate, seed=seed)
        a, b = np.asarray(mine(x, training=True)), np.asarray(theirs(x, training=True))
        np.testing.assert_allclose(np.unique(a), np.unique(b), rtol=2**-23)
        spread = 5 * np.sqrt(rate * (1 - rate) / x.size)
        assert abs(np.mean(a == 0) - rate) <= spread
