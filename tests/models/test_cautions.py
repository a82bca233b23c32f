"""A word on settings that cannot work, and none on those that can."""

import warnings

import numpy as np
import pytest

from minitl import Input, Sequential
from minitl.layers import Dense

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
Y = np.arange(12) % 2


def net(units, activation):
    return Sequential([Input((4,)), Dense(units, activation=activation, name="out")])


@pytest.mark.parametrize(
    ("activation", "loss", "message"),
    [
        ("softmax", "binary_crossentropy", "'out' is a softmax over one number, which is always 1"),
        ("softmax", "mse", "'out' is a softmax over one number"),
        ("sigmoid", "categorical_crossentropy", r"of one output \('out'\) is always 0: use loss="),
    ],
)
def test_one_output_that_cannot_learn(activation, loss, message):
    with pytest.warns(UserWarning, match=message):
        net(1, activation).compile("adam", loss)


@pytest.mark.parametrize("targets", [np.repeat([0, 1, 2], 4), np.eye(3)[np.repeat([0, 1, 2], 4)]])
def test_a_split_of_labels_in_order(targets):
    model = net(3, "softmax")
    model.compile("sgd", f"{'' if targets.ndim == 2 else 'sparse_'}categorical_crossentropy")
    message = r"holds out the last 4 samples, in order, with the classes \[2\], none of which is"
    with pytest.warns(UserWarning, match=message):
        model.fit(X, targets, validation_split=1 / 3, verbose=0)


def test_validation_data_that_are_the_training_data():
    model = net(1, "sigmoid")
    model.compile("sgd", "binary_crossentropy")
    for x in (X, X.copy()):
        with pytest.warns(UserWarning, match="the validation data are the training data"):
            model.fit(X, Y, validation_data=(x, Y), verbose=0)


def test_settings_that_work_get_no_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = net(1, "sigmoid")
        model.compile("sgd", "binary_crossentropy")
        model.fit(X, Y, validation_split=0.5, verbose=0)
        model.fit(X[:6], Y[:6], validation_data=(X[6:], Y[6:]), verbose=0)
        regression = net(1, None)
        regression.compile("sgd", "mse")
        regression.fit(X, np.arange(12.0) / 7, validation_split=0.5, verbose=0)
