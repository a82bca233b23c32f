"""What Keras takes and minitl refuses, and the reverse: the whole list, each with its message.

A refusal is an error where the user wrote it, never another result.
"""

import tempfile
from pathlib import Path

import numpy as np
import pytest

import minitl
from minitl.layers import Dense


def fit(k, x, y, **settings):
    model = k.Sequential([k.Input((2,)), k.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model.fit(x, y, verbose=0, **settings)


X, Y = np.ones((4, 2), np.float32), np.ones((4, 1), np.float32)
SEQUENCE = np.ones((2, 3, 2), np.float32)
IMAGE = np.ones((1, 4, 4, 2), np.float32)
BAD = np.where(np.arange(4)[:, None] == 2, np.nan, X).astype(np.float32)

REFUSED = {
    "channels first": (lambda k: k.layers.MaxPooling2D(data_format="channels_first"), "N, H, W, C"),
    "recurrent layers that remember the last batch": (
        lambda k: k.layers.LSTM(2, stateful=True),
        "stateful=True is not there",
    ),
    "a first state": (
        lambda k: k.layers.GRU(2)(SEQUENCE, initial_state=[X[:2]]),
        "takes no 'initial_state'",
    ),
    "other activations of gates": (
        lambda k: k.layers.LSTM(2, recurrent_activation="softmax"),
        "must be one of 'tanh', 'sigmoid', 'relu', 'linear'",
    ),
    "a wrapped layer that is no LSTM or GRU": (
        lambda k: k.layers.Bidirectional(k.layers.SimpleRNN(2) if k is not minitl else Dense(2)),
        "layer must be a Recurrent, got <Dense",
    ),
    "other optimizers": (lambda k: k.optimizers.get("ftrl"), "unknown optimizer"),
    "other losses": (lambda k: k.losses.get("ctc"), "unknown loss"),
    "NaN in the data": (lambda k: fit(k, BAD, Y), "NaN"),
    "an input under another name": (
        lambda k: k.Model({"a": (x := k.Input((2,), name="b"))}, k.layers.Dense(1)(x)),
        "'a' has the name 'b'",
    ),
    "a model as a folder": (
        lambda k: k.Sequential([k.Input((2,)), k.layers.Dense(1)]).save(
            Path(tempfile.mkdtemp()) / "model", zipped=False
        ),
        "'zipped'",
    ),
    "weights in several files": (
        lambda k: k.Sequential([k.Input((2,)), k.layers.Dense(1)]).save_weights(
            Path(tempfile.mkdtemp()) / "model.weights.json", max_shard_size=1
        ),
        "'max_shard_size'",
    ),
    "no epochs": (lambda k: fit(k, X, Y, epochs=0), "epochs"),
}
ACCEPTED = {
    "a metric without a list": lambda k: k.Sequential([k.Input((2,)), k.layers.Dense(1)]).compile(
        "sgd", "mse", metrics="accuracy"
    ),
    "Constant by name": lambda k: k.initializers.get("constant")((2,)),
    "noise in the units of pixels": lambda k: k.layers.GaussianNoise(10.0),
    "zoom as far as one pixel": lambda k: k.layers.RandomZoom(-1.0),
    "average pooling without a size": lambda k: k.layers.AveragePooling2D(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_minitl(keras, what):
    run, message = REFUSED[what]
    run(keras)
    with pytest.raises((ValueError, TypeError), match=message):
        run(minitl)


@pytest.mark.parametrize("what", ACCEPTED)
def test_refused_by_keras(keras, what):
    ACCEPTED[what](minitl)
    with pytest.raises((ValueError, TypeError, KeyError)):
        ACCEPTED[what](keras)
