"""Losses at their edges: probabilities of 0 and 1, extreme logits. The rest: random_cases.py."""

import warnings

import numpy as np
import pytest

from minitl import losses
from minitl.autograd import Tensor, backward
from minitl.layers import Dense
from tests.keras_live.compare import assert_close
from tests.tolerances import SAME_FORMULA_FLOAT32

PROBABILITIES = np.array(
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [1e-7, 1e-8, 1 - 1e-7], [0.2, 0.3, 0.5]], np.float32
)


@pytest.mark.parametrize("row", range(len(PROBABILITIES)))
@pytest.mark.parametrize("label", range(3))
def test_probabilities_of_zero_and_one(keras, row, label):
    """Probabilities that are not from logits are clipped by 1e-7 in both."""
    p, one_hot = PROBABILITIES[row : row + 1], np.eye(3, dtype=np.float32)[[label]]
    for name, y in (
        ("CategoricalCrossentropy", one_hot),
        ("SparseCategoricalCrossentropy", np.array([label])),
        ("BinaryCrossentropy", one_hot),
    ):
        mine = getattr(losses, name)()(y, p).numpy()
        theirs = np.asarray(getattr(keras.losses, name)()(y, p))
        assert_close(mine, theirs, SAME_FORMULA_FLOAT32, name)


EXTREME = np.array(
    [[0, 0, 0], [30, 0, -30], [200, -200, 0], [-1e3, 1e3, 1e3], [5e4, -5e4, 1e4]], np.float32
)


@pytest.mark.parametrize(
    "activation, name",
    [
        ("softmax", "CategoricalCrossentropy"),
        ("softmax", "SparseCategoricalCrossentropy"),
        ("sigmoid", "BinaryCrossentropy"),
    ],
)
@pytest.mark.parametrize("label", range(3))
@pytest.mark.parametrize("from_logits", [False, True])
def test_output_layer_at_extreme_logits(keras, activation, name, label, from_logits):
    """A Dense with softmax or sigmoid, then the loss: both find the logits beneath, even with
    from_logits=True by mistake (both warn). Loss and gradient to the layer's input."""
    import tensorflow as tf

    y = np.eye(3, dtype=np.float32)[[label] * len(EXTREME)]
    if name.startswith("Sparse"):
        y = np.full(len(EXTREME), label)
    identity = [np.eye(3, dtype=np.float32), np.zeros(3, np.float32)]
    mine, theirs = Dense(3, activation), keras.layers.Dense(3, activation)
    x = tf.constant(EXTREME)
    for layer in (mine, theirs):
        layer(EXTREME)
        layer.set_weights(identity)
    leaf = Tensor(EXTREME, requires_grad=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        a = getattr(losses, name)(from_logits=from_logits)(y, mine(leaf))
    assert any("from_logits" in str(w.message) for w in caught) == from_logits
    with warnings.catch_warnings(), tf.GradientTape() as tape:
        warnings.simplefilter("ignore")
        tape.watch(x)
        b = getattr(keras.losses, name)(from_logits=from_logits)(y, theirs(x))
    assert_close(a.numpy(), np.asarray(b), SAME_FORMULA_FLOAT32, "loss")
    assert_close(backward(a, [leaf])[0], tape.gradient(b, x), SAME_FORMULA_FLOAT32, "gradient")


def test_one_weight_a_sample_spreads_over_its_losses():
    """minitl takes (N,) weights for (N, T) losses; Keras multiplies (N, T) by (N,) and fails."""
    rng = np.random.default_rng(0)
    y, p, w = rng.random((4, 3, 2)), rng.random((4, 3, 2)), rng.random(4)
    loss = losses.MeanSquaredError()
    np.testing.assert_allclose(
        loss(y, p, w).numpy(), loss(y, p, np.repeat(w[:, None], 3, axis=1)).numpy(), rtol=1e-14
    )


def test_sigmoid_is_not_a_softmax(keras):
    """A loss takes the logits beneath an output only when they are its own: Keras keeps them for
    softmax and sigmoid alike, so that its categorical cross-entropy of a sigmoid layer is that of
    the softmax of the layer's logits. minitl computes what the formula says."""
    x, y = EXTREME[1:2] / 30, np.array([[1.0, 0, 0]], np.float32)
    p = 1 / (1 + np.exp(-x))
    layer = Dense(3, "sigmoid")
    layer(x)
    layer.set_weights([np.eye(3), np.zeros(3)])
    mine = losses.CategoricalCrossentropy()(y, layer(x)).numpy()
    assert_close(mine, -np.log(p[0, 0] / p.sum()), SAME_FORMULA_FLOAT32)
    other = keras.layers.Dense(3, "sigmoid")
    other(x)
    other.set_weights([np.eye(3), np.zeros(3)])
    theirs = np.asarray(keras.losses.CategoricalCrossentropy()(y, other(x)))
    assert_close(theirs, -np.log(np.exp(x[0, 0]) / np.exp(x).sum()), SAME_FORMULA_FLOAT32)
