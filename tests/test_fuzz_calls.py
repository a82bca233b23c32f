"""A few of the bad calls of `tests/fuzz_calls.py`: none may change anything or hang."""

import re

import numpy as np
import pytest

import minitl
from minitl import callbacks, layers, metrics, optimizers
from tests import fuzz_calls

X = np.zeros((6, 8, 8, 3), "f4")


@pytest.mark.parametrize("only", ["w.model", "layers.R", "minitl.metrics", "callbacks.E"])
def test_bad_calls_change_nothing(only, capsys):
    failures = fuzz_calls.main(["--seed", "7", "--calls", "25", "--only", only])
    assert [f for f in failures if not f[0].startswith("bare")] == [], capsys.readouterr().out
    assert len(failures) <= 4, capsys.readouterr().out


def mistaken_calls():
    layer, early = layers.Dense(3, name="d"), callbacks.EarlyStopping()
    scaling, best = layers.Normalization(), callbacks.ModelCheckpoint("m.h5")
    yield lambda: layer(7), "Dense 'd' takes an array with an axis of samples, got one number"
    yield lambda: layer.build(7), "(in Dense.build(input_shape=7))"
    yield lambda: layer.add_weight(shape="2"), "shape must be integers of at least 0"
    yield lambda: scaling.adapt(X, batch_size=[1]), "adapt: batch_size must be a positive integer"
    yield lambda: layers.Add()([X, X[:2]]), "(in Add(x=a list of 2 (ndarray (6, 8, 8, 3) of floa"
    yield lambda: optimizers.Adam().apply([1], [2]), "gradients and variables must be lists"
    yield lambda: optimizers.CosineDecay(0.1, 5)([1]), "(in CosineDecay(step=[1]))"
    yield lambda: metrics.F1Score().update_state(0, X), "(in F1Score.update_state(y_true=0, "
    yield lambda: early.on_epoch_end(0, (0, 0)), "logs must be a dictionary"
    yield lambda: early.set_state((1, 2)), "state must be a dictionary"
    yield lambda: best.on_epoch_end(0, X), "logs must be a dictionary"
    yield lambda: minitl.Tensor(X).sum(axis="x"), "(in sum(x=Tensor (6, 8, 8, 3) of float32, ax"
    yield lambda: minitl.ops.outer(np.array([None]), 2.0), "(in outer(x1=ndarray (1,) of object"
    yield lambda: minitl.models.clone_model(3), "clone_model: model must be a Model, got 3"


@pytest.mark.parametrize("call, said", [*mistaken_calls()])
def test_methods_tell_of_their_arguments_too(call, said):
    before = minitl.config.random_state().bit_generator.state
    with pytest.raises((TypeError, ValueError), match=re.escape(said)):
        call()
    assert minitl.config.random_state().bit_generator.state == before
