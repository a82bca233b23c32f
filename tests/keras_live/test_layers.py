"""The linear layers in float32, number by number.

In float64 both sides compute the same formula, so they must agree to rounding. In float32 the
linear layers are judged elementwise by the bound of the sums they are (Higham's gamma_K), with
Keras in float64 as the truth.
"""

import numpy as np

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


@seeds(20)
def test_conv2d_in_float32(keras, seed):
    rng = np.random.default_rng(1000 + seed)
    shape, window, strides, padding = draw_window(rng)
    filters = int(rng.integers(1, 33))
    settings = {"filters": filters, "kernel_size": window, "strides": strides, "padding": padding}
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
