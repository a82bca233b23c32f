"""Running one configuration in minitl and in Keras, and saying which one it was when they differ.

Every random configuration follows from a seed. When a case fails, the seed and what was drawn
from it stand under the traceback; `pytest -k` with the test's name repeats just that case.
"""

from contextlib import contextmanager

import numpy as np
import pytest

from minitl.autograd import Tensor, backward
from minitl.naming import public_names


def names_in(module):
    """What a module of minitl has by name, with what it would find in its files when asked."""
    lazy = public_names(module.__name__) if "__getattr__" in vars(module) else {}
    named = {name: getattr(module, name) for name in vars(module).get("__all__", ())}
    return lazy | named | vars(module)


def seeds(count):
    """Parametrize a test over `count` seeds; minitl's developers and CI run the same ones."""
    return pytest.mark.parametrize("seed", range(count), ids=lambda seed: f"seed{seed}")


@contextmanager
def repeatable(seed, **configuration):
    """Adds the seed and the configuration to whatever goes wrong inside."""
    try:
        yield
    except Exception as error:
        drawn = ", ".join(f"{name}={value!r}" for name, value in configuration.items())
        error.add_note(f"repeat with seed {seed}: {drawn}")
        raise


def pick(rng, *choices):
    """One of the choices, as the Python object that it is."""
    return choices[int(rng.integers(len(choices)))]


def randomize(rng, shapes):
    """Arrays for these weights' shapes, float64, scaled so that outputs stay around one."""
    return [rng.standard_normal(s) / np.sqrt(max(np.prod(s[:-1]), 1)) for s in shapes]


class Results:
    """Output and gradients of one run: y, one array an input, one a trainable weight, and all
    weights as the run left them (moving averages change)."""

    def __init__(self, y, inputs, weights, state):
        self.y, self.inputs, self.weights, self.state = y, inputs, weights, state

    def pairs(self, other):
        yield "y", self.y, other.y
        for what in ("inputs", "weights", "state"):
            mine, theirs = getattr(self, what), getattr(other, what)
            assert len(mine) == len(theirs), f"{len(mine)} {what}, Keras has {len(theirs)}"
            for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
                yield f"{what}[{i}]", a, b


def run_minitl(layer, inputs, weights, cotangent, training=None):
    """Forward and backward through a minitl layer; `inputs` is a list of arrays."""
    tensors = [Tensor(x, requires_grad=True) for x in inputs]
    argument = tensors if len(tensors) > 1 else tensors[0]
    if not layer.built:
        layer(argument, training=False)
    layer.set_weights(weights)
    y = layer(argument, training=training)
    assert y.dtype == inputs[0].dtype
    learned = layer.trainable_weights
    found = backward(y, [*tensors, *learned], cotangent)
    n = len(tensors)
    return Results(y.numpy(), found[:n], found[n:], layer.get_weights())


def run_keras(layer, inputs, weights, cotangent, training=None):
    """The same through a Keras layer, with TensorFlow's tape."""
    import tensorflow as tf

    tensors = [tf.constant(x) for x in inputs]
    argument = tensors if len(tensors) > 1 else tensors[0]
    if not layer.built:
        layer(argument, training=False)
    layer.set_weights(weights)
    with tf.GradientTape() as tape:
        for t in tensors:
            tape.watch(t)
        y = layer(argument, training=training)
    learned = [v.value for v in layer.trainable_weights]
    found = tape.gradient(
        y,
        [*tensors, *learned],
        output_gradients=tf.constant(cotangent),
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    found = [np.asarray(tf.convert_to_tensor(g)) for g in found]
    n = len(tensors)
    return Results(np.asarray(y), found[:n], found[n:], layer.get_weights())


def assert_close(actual, expected, fraction, what=""):
    """|actual - expected| at most `fraction` of the largest |expected| (or of 1, if smaller)."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, Keras {expected.shape}"
    if not expected.size:
        return
    scale = max(float(np.abs(expected).max()), 1.0)
    error = float(np.abs(actual.astype(np.float64) - expected).max())
    assert error <= fraction * scale, (  # a NaN fails
        f"{what} differs from Keras by {error:.3g}; allowed {fraction:.3g} x {scale:.3g}"
    )


def assert_same(mine, theirs, fraction):
    for what, a, b in mine.pairs(theirs):
        assert_close(a, b, fraction, what)
