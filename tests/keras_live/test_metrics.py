"""Metrics by name within a model. Streams of batches: random_cases.py."""

import numpy as np
import pytest

from tests.keras_live.compare import assert_close, pick
from tests.tolerances import METRIC


def draw(rng, kind, n, m):
    if kind == "labels":
        return rng.integers(0, m, n)
    if kind == "one-hot":
        return np.eye(m, dtype=np.float32)[rng.integers(0, m, n)]
    if kind == "binary":
        return rng.integers(0, 2, (n, 1)).astype(np.float32)
    if kind == "probabilities":
        p = rng.dirichlet(np.ones(m), n).astype(np.float32)
        return pick(rng, p, np.round(p, 1))  # rounded: ties
    if kind == "sigmoid":
        p = rng.uniform(0, 1, (n, 1)).astype(np.float32)
        return pick(rng, p, np.round(p, 1), (p > 0.5).astype(np.float32))
    return rng.standard_normal((n, m)).astype(np.float32)


@pytest.mark.parametrize(
    "identifier, loss, outputs, labels",
    [
        ("accuracy", "categorical_crossentropy", 3, "one-hot"),
        ("accuracy", "sparse_categorical_crossentropy", 3, "labels"),
        ("accuracy", "binary_crossentropy", 1, "binary"),
        ("accuracy", "binary_crossentropy", 3, "one-hot"),
        ("accuracy", "mse", 3, "one-hot"),
        ("accuracy", "mse", 1, "binary"),
        ("acc", "categorical_crossentropy", 3, "one-hot"),
        ("mse", "categorical_crossentropy", 3, "one-hot"),
        ("categorical_accuracy", "categorical_crossentropy", 3, "one-hot"),
        ("AUC", "binary_crossentropy", 1, "binary"),
        ("Precision", "binary_crossentropy", 1, "binary"),
        ("binary_crossentropy", "binary_crossentropy", 1, "binary"),
    ],
)
def test_metric_by_name(keras, identifier, loss, outputs, labels):
    """'accuracy' means the same kind, and the log has the same name."""
    import minitl

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((23, 4)).astype(np.float32), draw(rng, labels, 23, outputs)
    found = []
    weights = [rng.standard_normal((4, outputs)), np.zeros(outputs)]
    for k in (minitl, keras):
        activation = "softmax" if "categorical" in loss else "sigmoid"
        model = k.Sequential([k.Input((4,)), k.layers.Dense(outputs, activation)])
        model.set_weights(weights)
        model.compile("sgd", loss, metrics=[identifier])
        found.append(model.evaluate(x, y, batch_size=5, verbose=0, return_dict=True))
    assert sorted(found[0]) == sorted(found[1])
    for name in found[1]:
        assert_close(found[0][name], found[1][name], METRIC, name)
