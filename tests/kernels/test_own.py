"""Kernels of the user's own: called in the place of minitl's, and no longer."""

import numba
import numpy as np
import pytest

from minitl import kernels, models, use_kernels
from minitl.kernels import reference
from minitl.kernels.geometry import sliding
from minitl.layers import Conv2D, Dense, Flatten, MaxPooling2D

rng = np.random.default_rng(0)
X = rng.standard_normal((2, 8, 8, 3)).astype(np.float32)


def network():
    conv = Conv2D(4, 3, padding="same", activation="relu")
    model = models.Sequential([conv, MaxPooling2D(), Flatten(), Dense(3)])
    model.compile("sgd", "mse")
    model.build(X.shape)
    return model


def twice(x, kernel, bias, geometry):
    return 2 * reference.conv2d(x, kernel, bias, geometry)


def test_it_is_called_within_the_block_only_and_relu_follows():
    x = rng.standard_normal((1, 5, 5, 2))
    given = (
        x,
        rng.standard_normal((3, 3, 2, 4)),
        np.ones(4),
        sliding((5, 5), (3, 3), (1, 1), "same"),
    )
    plain, positive = reference.conv2d(*given), reference.conv2d(*given, "relu")
    with use_kernels(conv2d=twice):
        assert kernels.current_kernels() == "fast"
        np.testing.assert_allclose(kernels.conv2d(*given), 2 * plain)
        np.testing.assert_allclose(kernels.conv2d(*given, "relu", {}, True), 2 * positive)
        with use_kernels("reference"):  # a word takes it out
            np.testing.assert_allclose(kernels.conv2d(*given), plain)
        with use_kernels(dense=reference.dense):  # another function does not
            np.testing.assert_allclose(kernels.conv2d(*given), 2 * plain)
    np.testing.assert_allclose(kernels.conv2d(*given), plain)
    with use_kernels("reference", conv2d=twice):
        assert kernels.current_kernels() == "reference"
        np.testing.assert_allclose(kernels.conv2d(*given), 2 * plain)


def test_a_model_uses_it_also_where_layers_are_fused():
    """`predict` makes a convolution and the pool behind it in one pass."""
    model, called = network(), []

    def noted(name):
        def function(*args):
            called.append(name)
            return getattr(reference, name)(*args)

        return function

    def conv2d(x, kernel, bias, geometry):
        return noted("conv2d")(x, kernel, bias, geometry)

    def max_pool2d_with_winners(x, geometry):
        return noted("max_pool2d_with_winners")(x, geometry)

    expected = model.predict(X, verbose=0)
    with use_kernels(conv2d=conv2d, max_pool2d_with_winners=max_pool2d_with_winners):
        np.testing.assert_allclose(model.predict(X, verbose=0), expected, atol=1e-5)
    assert called == ["conv2d", "max_pool2d_with_winners"]


def test_what_gradients_are_made_of_is_put_in_too():
    called = []

    def bias_gradient(g):
        called.append(g.shape)
        return reference.bias_gradient(g)

    with use_kernels(bias_gradient=bias_gradient):
        network().fit(X, np.zeros((2, 3)), verbose=0)
    assert sorted(called) == [(2, 3), (2, 8, 8, 4)]  # of the second, ReLU's gradient in one pass


def test_a_compiled_function_fits_and_softmax_can_be_exchanged():
    @numba.njit
    def relu(x):
        return np.maximum(x, 0)

    with use_kernels(relu=relu, softmax=lambda x: np.full_like(x, 0.25)):
        np.testing.assert_array_equal(kernels.relu(X - 1), np.maximum(X - 1, 0))
        assert (kernels.softmax(X) == 0.25).all()


def test_errors_name_what_was_expected_and_change_nothing():
    wrong = {
        "there is no kernel 'conv2D' .* Did you mean 'conv2d'?": {"conv2D": twice},
        "there is no kernel 'qqq' .* There are .*conv2d": {"qqq": twice},
        "conv2d=3: a function was expected": {"conv2d": 3},
        r"called with \(x, kernel, bias, geometry\), but yours takes \(x\)": {
            "conv2d": lambda x: x
        },
    }
    for text, given in wrong.items():
        with pytest.raises(ValueError, match=text):
            use_kernels(**given)
        assert kernels.conv2d(
            X, np.ones((1, 1, 3, 1), "f"), None, sliding((8, 8), (1, 1), (1, 1), "same")
        ).shape


def test_what_a_function_cannot_do_is_an_error_when_it_is_asked_for():
    def sgd_update(w, g, velocity, rate, momentum):
        reference.sgd_update(w, g, velocity, rate, momentum)

    w, g = np.ones(3), np.ones(3)
    with use_kernels(sgd_update=sgd_update):
        kernels.sgd_update(w, g, np.zeros(3), 0.5, 0.9)
        np.testing.assert_array_equal(w, [0.5] * 3)
        text = "nesterov=True is asked of sgd_update, but your function"
        with pytest.raises(ValueError, match=text):
            kernels.sgd_update(w, g, np.zeros(3), 0.5, 0.9, nesterov=True)
