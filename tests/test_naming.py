"""Names: near misses, look-up, automatic names, settings."""

import inspect

import numpy as np
import pytest

from minitl import activations, layers, losses, regularizers
from minitl.naming import (
    Configurable,
    Registry,
    check_keywords,
    did_you_mean,
    forget_names,
    look_up,
    snake_case,
    unique_name,
)
from minitl.storage.settings import serialize


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("trainabel", ["trainable", "name"], "Did you mean 'trainable'?"),
        ("ADAM", ["adam", "sgd"], "Did you mean 'adam'?"),
        ("xyz", ["adam", "sgd"], "Known: adam, sgd."),
        ("x", [f"layer_{i:02}" for i in range(50)], "layer_39, ...."),
    ],
)
def test_did_you_mean(word, known, expected):
    assert did_you_mean(word, known).endswith(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Dense", "dense"),
        ("Conv2D", "conv2d"),
        ("MaxPooling2D", "max_pooling2d"),
        ("GlobalAveragePooling2D", "global_average_pooling2d"),
        ("ZeroPadding2D", "zero_padding2d"),
        ("BatchNormalization", "batch_normalization"),
        ("ReLU", "re_lu"),
        ("InputLayer", "input_layer"),
        ("AUC", "auc"),
        ("F1Score", "f1_score"),
    ],
)
def test_snake_case(name, expected):
    assert snake_case(name) == expected


def test_names_count_up():
    assert [unique_name("dense") for _ in range(3)] == ["dense", "dense_1", "dense_2"]
    assert unique_name("conv2d") == "conv2d"
    forget_names()
    assert unique_name("dense") == "dense"
    assert layers.Dense(1).name == "dense_1" and layers.Conv2D(1, 1).name == "conv2d"


def test_look_up():
    class A:
        def __init__(self, n=1):
            self.n = n

    table = Registry("minitl.config", glorot_uniform=A, f=len)
    assert look_up("GlorotUniform", table, "thing").n == 1
    assert look_up({"class_name": "GlorotUniform", "config": {"n": 2}}, table, "thing").n == 2
    assert look_up("f", table, "thing") is len
    assert look_up(A, table, "thing").n == 1
    assert look_up(None, table, "thing") is None
    with pytest.raises(ValueError, match="not a thing: 7"):
        look_up(7, table, "thing")
    with pytest.raises(
        ValueError, match=r"unknown thing 'glorot_unifrom'. Did you mean 'glorot_un"
    ):
        look_up("glorot_unifrom", table, "thing")


def test_check_keywords():
    @check_keywords
    def fit(x, epochs=1, *, verbose=0):
        """Docs."""
        return x, epochs, verbose

    assert fit(1, epochs=2, verbose=3) == (1, 2, 3) and fit.__doc__ == "Docs."
    with pytest.raises(TypeError, match=r"^fit\(\) has no argument 'epoch'. Did you mean 'epochs'"):
        fit(1, epoch=3)


class Thing(Configurable):
    def __init__(self, size, parts=(), function=None, ignored=0):
        self.size, self.parts, self.function = size, parts, function


class Special(Thing):
    """Inherits the constructor."""


def test_configurable():
    inner = Thing(np.float32(0.5))
    thing = Special(3, (inner, None), activations.get("relu"))
    assert thing.get_config() == {
        "size": 3,
        "parts": [
            {"class_name": "Thing", "config": {"size": 0.5, "parts": [], "function": None}},
            None,
        ],
        "function": "relu",
    }
    with pytest.raises(TypeError, match=r"Special\(\) has no argument 'sice'. Did you mean 'size'"):
        Special(sice=1)


def test_functions_of_ones_own_cannot_be_saved():
    with pytest.raises(ValueError, match="no part of minitl and cannot be saved by name"):
        serialize([1, lambda x: x])
    with pytest.raises(ValueError, match="no part of minitl"):
        layers.Activation(lambda x: x).get_config()
    assert serialize(losses.mean_squared_error) == "mean_squared_error"


def test_regularizers():
    assert regularizers.get(None) is None
    assert regularizers.get("l2").l2 == 0.01 and regularizers.get("L2").l2 == 0.01
    assert regularizers.get({"class_name": "L2", "config": {"l2": 0.5}}).l2 == 0.5
    with pytest.raises(ValueError, match="l2 must be a finite number of at least 0, got -1"):
        regularizers.L2(-1)


def test_activations():
    assert activations.get(None)(np.ones(2)).storage.tolist() == [1, 1]
    for name, function in activations.TABLE.items():
        assert activations.get(name) is function
        assert serialize(function) == {"hard_swish": "hard_silu", "swish": "silu"}.get(name, name)


class Base(Configurable):
    def __init__(self, a=1, b=2, *, name=None):
        self.a, self.b, self.name = a, b, name


def test_arguments_that_are_passed_on_are_known_by_name():
    class ByPlace(Base):
        def __init__(self, first, *args, last=3, **kwargs):
            super().__init__(*args, **kwargs)
            self.first, self.last = first, last

    class ByName(Base):
        def __init__(self, first, **kwargs):
            super().__init__(**kwargs)
            self.first = first

    expected = "(self, first, a=1, b=2, *, name=None, last=3)"
    assert str(inspect.signature(ByPlace.__init__)) == expected
    assert str(inspect.signature(ByName.__init__)) == "(self, first, *, a=1, b=2, name=None)"
    assert ByPlace(0, 7, b=8).get_config() == dict(first=0, a=7, b=8, last=3, name=None)
    with pytest.raises(TypeError, match=r"ByPlace\(\) has no argument 'nmae'. Did you mean 'name'"):
        ByPlace(0, nmae="x")
