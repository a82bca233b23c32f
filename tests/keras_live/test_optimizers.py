"""Optimizers by name, and fans. Steps, schedules and initial weights: random_cases.py."""

import pytest

from minitl import initializers, optimizers


@pytest.mark.parametrize("identifier", ["sgd", "adam", "adamw", "SGD", "Adam"])
def test_optimizer_by_name_has_keras_defaults(keras, identifier):
    mine, theirs = optimizers.get(identifier), keras.optimizers.get(identifier)
    expected = theirs.get_config()
    assert mine.name == theirs.name
    for name, value in mine.get_config().items():
        assert value == pytest.approx(expected[name]), name


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4), (3, 3, 8, 16)])
def test_fans(keras, shape):
    from keras.src.initializers.random_initializers import compute_fans

    assert initializers.fans(shape) == compute_fans(shape)
