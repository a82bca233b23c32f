"""Metrics over streams of batches, the last one partial, with and without sample weights."""

import numpy as np
import pytest

from minitl import metrics
from tests.keras_live.compare import assert_close, pick, repeatable, seeds
from tests.tolerances import METRIC

# name, settings to draw from, kind of targets, kind of predictions
CASES = {
    "Accuracy": ({}, "labels", "labels"),
    "CategoricalAccuracy": ({}, "one-hot", "probabilities"),
    "SparseCategoricalAccuracy": ({}, "labels", "probabilities"),
    "BinaryAccuracy": ({"threshold": (0.5, 0.3)}, "binary", "sigmoid"),
    "TopKCategoricalAccuracy": ({"k": (1, 2, 5)}, "one-hot", "probabilities"),
    "Precision": ({"thresholds": (None, 0.3), "class_id": (None, 1)}, "one-hot", "probabilities"),
    "Recall": ({"thresholds": (None, 0.3), "class_id": (None, 1)}, "one-hot", "probabilities"),
    "F1Score": (
        {"average": (None, "macro", "micro", "weighted"), "threshold": (None, 0.3)},
        "one-hot",
        "probabilities",
    ),
    "AUC": ({"num_thresholds": (200, 20, 3), "curve": ("ROC", "PR")}, "binary", "sigmoid"),
    "MeanSquaredError": ({}, "numbers", "numbers"),
    "Mean": ({}, None, "numbers"),
}


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


@pytest.mark.parametrize("name", CASES)
@seeds(16)
def test_stream(keras, name, seed):
    rng = np.random.default_rng(seed)
    choices, truth, guess = CASES[name]
    settings = {key: pick(rng, *values) for key, values in choices.items()}
    weighted = pick(rng, True, False)
    m = int(rng.integers(2, 8))
    sizes = [int(k) for k in (*rng.integers(2, 40, 3), 1)]
    mine, theirs = getattr(metrics, name)(**settings), getattr(keras.metrics, name)(**settings)
    assert mine.name == theirs.name
    with repeatable(seed, m=m, sizes=sizes, weighted=weighted, **settings):
        for n in sizes:
            given = [draw(rng, kind, n, m) for kind in (truth, guess) if kind]
            weight = rng.uniform(0, 2, n).astype(np.float32) if weighted else None
            for metric in (mine, theirs):
                metric.update_state(*given, sample_weight=weight)
            assert_close(mine.result(), np.asarray(theirs.result()), METRIC)
        for metric in (mine, theirs):
            metric.reset_state()
            metric.update_state(*given)
        assert_close(mine.result(), np.asarray(theirs.result()), METRIC)


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
