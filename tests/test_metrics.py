"""Metrics: against scikit-learn, in one batch and in several."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl import losses, metrics

sk = pytest.importorskip("sklearn.metrics")

rng = np.random.default_rng(0)
N, M = 50, 4
SCORES = rng.dirichlet(np.ones(M), N).astype(np.float32)
LABELS = np.where(rng.random(N) < 0.5, SCORES.argmax(axis=1), rng.integers(0, M, N))
ONE_HOT = np.eye(M)[LABELS]
WEIGHTS = rng.uniform(0.1, 2, N)
P1 = rng.random((N, 1)).astype(np.float32)
Y1 = (P1[:, 0] + rng.normal(0, 0.4, N) > 0.5).astype(int)
GUESS, GUESS1 = SCORES.argmax(axis=1), P1[:, 0] > 0.5
COUNTS = (ONE_HOT.ravel(), SCORES.ravel() > 0.5)
WIDE = np.repeat(WEIGHTS, M)


def top_k(k, weight):
    return sk.top_k_accuracy_score(LABELS, SCORES, k=k, sample_weight=weight)


def f1(average):
    return lambda w: sk.f1_score(LABELS, GUESS, average=average, sample_weight=w)


# metric, true values, predictions, the value by scikit-learn for given weights
CASES = {
    "accuracy one-hot": (
        metrics.CategoricalAccuracy(),
        ONE_HOT,
        SCORES,
        lambda w: sk.accuracy_score(LABELS, GUESS, sample_weight=w),
    ),
    "accuracy sparse": (
        metrics.SparseCategoricalAccuracy(),
        LABELS,
        SCORES,
        lambda w: sk.accuracy_score(LABELS, GUESS, sample_weight=w),
    ),
    "accuracy binary": (
        metrics.BinaryAccuracy(),
        Y1,
        P1,
        lambda w: sk.accuracy_score(Y1, GUESS1, sample_weight=w),
    ),
    "accuracy equal": (
        metrics.Accuracy(),
        LABELS,
        GUESS,
        lambda w: sk.accuracy_score(LABELS, GUESS, sample_weight=w),
    ),
    "top 2": (metrics.TopKCategoricalAccuracy(2), ONE_HOT, SCORES, lambda w: top_k(2, w)),
    "precision": (
        metrics.Precision(),
        Y1,
        P1,
        lambda w: sk.precision_score(Y1, GUESS1, sample_weight=w),
    ),
    "precision one-hot": (
        metrics.Precision(),
        ONE_HOT,
        SCORES,
        lambda w: sk.precision_score(*COUNTS, sample_weight=None if w is None else WIDE),
    ),
    "recall": (metrics.Recall(), Y1, P1, lambda w: sk.recall_score(Y1, GUESS1, sample_weight=w)),
    "recall of class 2": (
        metrics.Recall(class_id=2, thresholds=0.3),
        ONE_HOT,
        SCORES,
        lambda w: sk.recall_score(LABELS == 2, SCORES[:, 2] > np.float32(0.3), sample_weight=w),
    ),
    "f1": (metrics.F1Score(), ONE_HOT, SCORES, f1(None)),
    "f1 sparse": (metrics.F1Score(), LABELS, SCORES, f1(None)),
    "f1 macro": (metrics.F1Score("macro"), ONE_HOT, SCORES, f1("macro")),
    "f1 micro": (metrics.F1Score("micro"), ONE_HOT, SCORES, f1("micro")),
    "f1 weighted": (metrics.F1Score("weighted"), ONE_HOT, SCORES, f1("weighted")),
    "f1 threshold": (
        metrics.F1Score(threshold=0.5),
        Y1,
        P1,
        lambda w: [sk.f1_score(Y1, GUESS1, sample_weight=w)],
    ),
    "auc": (metrics.AUC(5000), Y1, P1, lambda w: sk.roc_auc_score(Y1, P1[:, 0], sample_weight=w)),
    "auc pr": (
        metrics.AUC(20_000, curve="PR"),
        Y1,
        P1,
        lambda w: sk.average_precision_score(Y1, P1[:, 0], sample_weight=w),
    ),
    "mse": (
        metrics.MeanSquaredError(),
        ONE_HOT,
        SCORES,
        lambda w: sk.mean_squared_error(ONE_HOT, SCORES, sample_weight=w),
    ),
}


@pytest.mark.parametrize("weight", [None, WEIGHTS], ids=["", "weighted"])
@pytest.mark.parametrize("name", CASES)
def test_equals_scikit_learn(name, weight):
    metric, y, p, expected = CASES[name]
    metric.reset_state()
    # Interpolating in counts (Davis & Goadrich) is not average precision: close, not equal.
    rtol = 0.02 if name == "auc pr" else 1e-5
    np.testing.assert_allclose(metric(y, p, weight), expected(weight), rtol=rtol)


@pytest.mark.parametrize("name", CASES)
@given(cuts=st.lists(st.integers(0, N), max_size=4))
def test_batches_of_any_size_give_the_same(name, cuts):
    metric, y, p, _ = CASES[name]
    metric.reset_state()
    whole = metric(y, p, WEIGHTS)
    metric.reset_state()
    for part in np.split(np.arange(N), sorted(cuts)):
        metric.update_state(y[part], p[part], WEIGHTS[part])
    np.testing.assert_allclose(metric.result(), whole, rtol=1e-6)


def test_mean_of_nothing_and_reset():
    mean = metrics.Mean()
    assert mean.result() == 0
    mean.update_state([1.0, 2.0], sample_weight=[3.0, 1.0])
    assert mean.result() == 1.25
    mean.reset_state()
    mean.update_state(7.0, sample_weight=2)
    assert mean.result() == 7


def test_auc_of_perfect_and_useless_scores():
    y = np.array([0, 0, 1, 1])
    assert metrics.AUC()(y, np.array([0.0, 0.1, 0.9, 1.0])) == pytest.approx(1, abs=1e-6)
    assert metrics.AUC()(y, np.array([0.5, 0.5, 0.5, 0.5])) == pytest.approx(0.5, abs=1e-6)
    assert metrics.AUC()(1 - y, np.array([0.0, 0.1, 0.9, 1.0])) == pytest.approx(0, abs=1e-6)


def test_auc_counts_what_is_above_a_threshold():
    """At the thresholds 0-, 0.5, 1+ a score of 0.5 is above the first only, as in Keras."""
    assert metrics.AUC(3)(np.array([1, 0]), np.array([0.5, 0.0])) == pytest.approx(0.5)


def test_auc_of_scores_that_are_no_numbers():
    """NaN is above no threshold, as in Keras, whose results these are; bincount got -2^63 of it."""
    y, p = np.array([0, 1, 1, 0, 1.0]), np.array([0.1, 0.9, np.nan, 0.4, 0.3])
    assert metrics.AUC()(y, p) == pytest.approx(0.5, abs=1e-6)
    assert metrics.AUC(thresholds=[0.2, 0.5])(y, p) == pytest.approx(0.5833334, abs=1e-6)
    assert metrics.AUC(curve="PR")(y, p) == pytest.approx(0.5315117, abs=1e-6)
    both = np.stack([y, 1 - y], 1), np.stack([p, 1 - p], 1)
    assert metrics.AUC(multi_label=True)(*both) == pytest.approx(0.5, abs=1e-6)
    assert metrics.AUC()(y, np.full(5, np.nan)) == 0


def test_nothing_found_is_zero():
    nothing = np.zeros((3, 1))
    assert metrics.Precision()(nothing, nothing) == 0
    assert metrics.Recall()(nothing, nothing) == 0


@pytest.mark.parametrize("word", ["accuracy", "acc"])
@pytest.mark.parametrize(
    ("loss", "shape", "expected"),
    [
        (losses.CategoricalCrossentropy(), (None, 3), metrics.CategoricalAccuracy),
        (losses.SparseCategoricalCrossentropy(), (None, 3), metrics.SparseCategoricalAccuracy),
        (losses.BinaryCrossentropy(), (None, 1), metrics.BinaryAccuracy),
        (losses.MeanSquaredError(), (None, 1), metrics.BinaryAccuracy),
    ],
)
def test_accuracy_is_the_one_that_fits(word, loss, shape, expected):
    metric = metrics.get(word, loss, shape)
    assert type(metric) is expected and metric.name == word


def test_get():
    assert isinstance(metrics.get("AUC"), metrics.AUC)
    assert metrics.get("mse").name == "mse"
    assert metrics.get("categorical_crossentropy").name == "categorical_crossentropy"
    own = metrics.get(lambda y, p: (y == p).mean(axis=-1))
    assert own(np.ones((2, 2)), np.array([[1.0, 1.0], [1.0, 0.0]])) == 0.75
    f1_again = metrics.get({"class_name": "F1Score", "config": {"average": "macro"}})
    assert f1_again.average == "macro"


def test_a_metric_that_is_a_loss():
    metric = metrics.get("categorical_crossentropy")
    expected = sk.log_loss(LABELS, SCORES, labels=range(M))
    assert metric(ONE_HOT, SCORES) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: metrics.get("acuracy"), ValueError, "unknown metric 'acuracy'. Did you mean 'acc"),
        (lambda: metrics.get(3), ValueError, "not a metric: 3"),
        (lambda: metrics.F1Score("mean"), ValueError, "average must be .*, got 'mean'"),
        (
            lambda: metrics.AUC(curve="roc"),
            ValueError,
            "curve must be one of 'ROC', 'PR', got 'roc'",
        ),
        (lambda: metrics.AUC(1), ValueError, "num_thresholds must be at least 2"),
        (lambda: metrics.Precision(thresholds=[0.1, 2]), ValueError, r"thresholds are in \[0, 1\]"),
        (lambda: metrics.Precision(treshold=1), TypeError, "no argument 'treshold'.*'thresholds'"),
        (lambda: metrics.Precision()(LABELS, SCORES), ValueError, "takes one-hot targets"),
    ],
)
def test_what_is_wrong(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_mean_and_sum_take_values_and_weights():
    mean, total = metrics.Mean(), metrics.Sum()
    for metric in (mean, total):
        metric.update_state([1.0, 3.0, 5.0, 7.0], [1, 1, 0, 0])
        metric.update_state(values=[4.0], sample_weight=[2.0])
    assert (mean.result(), total.result()) == (3.0, 12.0)
    assert metrics.Mean()([1.0, 3.0]) == 2.0


def test_integers_and_a_missing_axis_in_metrics():
    squares = metrics.MeanSquaredError()
    squares.update_state([[0, 1], [0, 0]], [[1, 1], [0, 0]])
    assert squares.result() == 0.25
    own = metrics.get(lambda t, p: np.abs(t - p))
    own.update_state(np.array([1, 2, 3]), np.zeros((3, 1), np.float32), [1, 1, 0])
    assert own.result() == 1.5


@pytest.mark.parametrize("name", ["Poisson", "KLDivergence", "Hinge", "SquaredHinge"])
def test_a_loss_as_a_metric_of_its_name(name):
    truth, predictions = np.array([[0, 1.0], [1, 0]]), np.array([[0.2, 0.8], [0.7, 0.3]])
    found = getattr(metrics, name)()(truth, predictions)
    assert found == pytest.approx(float(getattr(losses, name)()(truth, predictions).storage))
