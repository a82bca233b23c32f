import json

import numpy as np
import pytest
import sklearn.metrics as sk

from minitl.judging.evaluation import (
    accuracy,
    calibration_error,
    confusion_matrix,
    evaluate_predictions,
    precision_recall_f1,
    reliability_bins,
    roc_auc,
)


def random_case(seed):
    """Labels and probabilities with ties, empty classes and classes that nobody predicts."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 7))
    rows = int(rng.integers(3, 200))
    y = rng.integers(0, int(rng.integers(1, classes + 1)), rows)
    p = rng.dirichlet(np.full(classes, rng.choice([0.1, 1.0, 5.0])), rows)
    if seed % 2:
        p = np.round(p, 1) + 1e-6  # many ties
        p /= p.sum(axis=1, keepdims=True)
    return y, p, rng.random(rows)


@pytest.mark.parametrize("seed", range(60))
def test_against_scikit_learn(seed):
    y, p, weight = random_case(seed)
    classes = range(p.shape[1])
    predicted = p.argmax(axis=1)
    e = evaluate_predictions(y, p, sample_weight=weight)
    np.testing.assert_array_equal(e.confusion, sk.confusion_matrix(y, predicted, labels=classes))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        y, predicted, labels=classes, zero_division=0
    )
    np.testing.assert_allclose(e.precision, precision)
    np.testing.assert_allclose(e.recall, recall)
    np.testing.assert_allclose(e.f1, f1)
    np.testing.assert_array_equal(e.support, support)
    assert e.accuracy == pytest.approx(sk.accuracy_score(y, predicted))
    assert e.weighted_accuracy == pytest.approx(
        sk.accuracy_score(y, predicted, sample_weight=weight)
    )
    options = {"labels": classes, "zero_division": 0}
    assert e.macro_f1 == pytest.approx(sk.f1_score(y, predicted, average="macro", **options))
    assert e.weighted_f1 == pytest.approx(sk.f1_score(y, predicted, average="weighted", **options))
    if len(set(y)) < p.shape[1]:
        assert np.isnan(e.auc)
    elif p.shape[1] == 2:
        assert e.auc == pytest.approx(sk.roc_auc_score(y, p[:, 1]), abs=1e-12)
    else:
        assert e.auc == pytest.approx(sk.roc_auc_score(y, p, multi_class="ovr"), abs=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_with_weights_against_scikit_learn(seed):
    """Some weights are 0, and sometimes all of a class."""
    y, p, weight = random_case(seed)
    weight[np.random.default_rng(seed).random(len(y)) < 0.3] = 0
    if seed % 4 == 0:
        weight[y == y[0]] = 0
    if weight.sum() == 0:
        weight[0] = 1
    classes, predicted = range(p.shape[1]), p.argmax(axis=1)
    options = {"labels": classes, "sample_weight": weight}
    matrix = confusion_matrix(y, predicted, p.shape[1], weight)
    np.testing.assert_allclose(matrix, sk.confusion_matrix(y, predicted, **options))
    expected = sk.precision_recall_fscore_support(y, predicted, zero_division=0, **options)
    for mine, theirs in zip(precision_recall_f1(matrix), expected, strict=False):
        np.testing.assert_allclose(mine, theirs, atol=1e-12)
    assert accuracy(y, predicted, weight) == pytest.approx(
        sk.accuracy_score(y, predicted, sample_weight=weight)
    )


def test_one_class_only():
    e = evaluate_predictions([1, 1, 1], [0.9, 0.2, 0.7])
    assert np.isnan(e.auc) and np.isnan(e.auc_by_class).all()
    assert e.confusion.tolist() == [[0, 0], [1, 2]]
    assert e.f1[0] == 0 and e.f1[1] == pytest.approx(0.8) and e.macro_f1 == pytest.approx(0.4)


def test_auc_by_class():
    y, p, _ = random_case(12)
    e = evaluate_predictions(y, p)
    for c, area in enumerate(e.auc_by_class):
        both = 0 < (y == c).sum() < len(y)
        assert area == pytest.approx(sk.roc_auc_score(y == c, p[:, c])) if both else np.isnan(area)


def test_the_random_cases_reach_every_branch():
    kinds = set()
    for seed in range(60):
        y, p, _ = random_case(seed)
        kinds.add((len(set(y)) == p.shape[1], p.shape[1] == 2))
    assert {(True, True), (True, False), (False, False)} <= kinds


# --- by hand ---


def test_a_case_by_hand():
    #  class      0    0    1    1    1      predicted 0 1 1 1 0
    y = [0, 0, 1, 1, 1]
    p = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7], [0.8, 0.2]]
    e = evaluate_predictions(y, p, ["sound", "defective"], sample_weight=[1, 1, 1, 1, 4])
    assert e.confusion.tolist() == [[1, 1], [1, 2]]
    assert e.accuracy == pytest.approx(3 / 5)
    assert e.weighted_accuracy == pytest.approx(3 / 8)
    np.testing.assert_allclose(e.precision, [1 / 2, 2 / 3])
    np.testing.assert_allclose(e.recall, [1 / 2, 2 / 3])
    assert e.macro_f1 == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert e.weighted_f1 == pytest.approx((2 * 1 / 2 + 3 * 2 / 3) / 5)
    # pairs (positive, negative): 0.8, 0.7 and 0.2 against 0.1 and 0.6: five of six in order
    assert e.auc == pytest.approx(5 / 6)


def test_auc_by_hand():
    assert roc_auc([0, 1], [0.2, 0.9]) == 1
    assert roc_auc([1, 0], [0.2, 0.9]) == 0
    assert roc_auc([1, 0, 1, 0], [0.5, 0.5, 0.5, 0.5]) == 0.5
    assert np.isnan(roc_auc([1, 1], [0.1, 0.2]))
    # of two classes it is class 1 that counts: beside 1.0 its small probabilities still differ
    assert evaluate_predictions([1, 0], np.float32([[1, 1e-9], [1, 1e-12]])).auc == 1


def test_calibration_by_hand():
    # two bins of width 1/2: confidences 0.5 (in the first, which ends there), 0.8 and 1.0
    p = [[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]]
    y = [0, 0, 0]  # right, wrong, right
    low, high = reliability_bins(y, p, bins=2)
    assert (low.images, low.confidence, low.accuracy) == (1, 0.5, 1.0)
    assert (high.images, high.accuracy) == (2, 0.5)
    assert high.confidence == pytest.approx(0.9)
    assert calibration_error([low, high]) == pytest.approx((1 * 0.5 + 2 * 0.4) / 3)


@pytest.mark.parametrize("seed", range(10))
def test_calibration_against_a_plain_loop(seed):
    y, p, _ = random_case(seed)
    bins = 7
    confidence, right = p.max(axis=1), p.argmax(axis=1) == y
    want = 0.0
    for k in range(bins):
        here = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if here.any():
            want += here.mean() * abs(right[here].mean() - confidence[here].mean())
    table = reliability_bins(y, p, bins)
    assert calibration_error(table) == pytest.approx(want)
    assert sum(item.images for item in table) == len(y)


def test_a_class_never_predicted_and_one_without_images_count_as_zero():
    precision, recall, f1 = precision_recall_f1(np.array([[2, 0, 0], [3, 0, 0], [0, 0, 0]]))
    assert precision.tolist() == [0.4, 0, 0]
    assert recall.tolist() == [1, 0, 0]
    np.testing.assert_allclose(f1, [4 / 7, 0, 0])


# --- the forms of the input ---


def test_one_hot_and_integers_and_a_sigmoid_say_the_same():
    y = np.array([0, 1, 1, 0])
    p1 = np.array([0.2, 0.9, 0.4, 0.6], np.float32)
    forms = [
        evaluate_predictions(truth, p)
        for truth in (y, y[:, np.newaxis], np.eye(2)[y], y.astype(float), y.tolist())
        for p in (p1, p1[:, np.newaxis], np.stack([1 - p1, p1], axis=1))
    ]
    assert len({str(form) for form in forms}) == 1
    assert forms[0].confusion.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("y", "p", "message"),
    [
        ([0, 1, 1], [[1, 0], [0, 1]], "y_true and predictions differ in length: 3 and 2"),
        ([0, 2], [[1, 0], [0, 1]], "y_true must be 0 to 1 for 2 classes, got 0 to 2"),
        ([-1, 1], [[1, 0], [0, 1]], "got -1 to 1"),
        ([0.5, 1], [[1, 0], [0, 1]], "whole numbers, got fractions"),
        ([float("nan"), 1], [[1, 0], [0, 1]], "whole numbers, got fractions or NaN"),
        (["a", "b"], [[1, 0], [0, 1]], "integers or one-hot, got <U1"),
        ([[1, 0, 0], [0, 1, 0]], [[1, 0], [0, 1]], "one-hot with 3 columns for 2 classes"),
        ([[1, 1], [0, 1]], [[1, 0], [0, 1]], "is not one-hot: one 1 in each row"),
        ([[0.5, 0.5], [0, 1]], [[1, 0], [0, 1]], "is not one-hot"),
        ([[[0]], [[1]]], [[1, 0], [0, 1]], r"got shape \(2, 1, 1\)"),
        ([0, 1], [[2.0, -1.0], [0, 1]], "must be 0 to 1, got -1 to 2; if these are logits"),
        ([0, 1], [[0.5, 0.1], [0, 1]], "row 0 adds up to 0.6"),
        ([0, 1], [[np.nan, 0], [0, 1]], "NaN or infinity in 1 rows, first 0"),
        ([], np.zeros((0, 2)), r"must be \(N, m\).* got shape \(0, 2\)"),
        (0, [[1, 0]], "a single number and 1"),
    ],
)
def test_input_that_does_not_fit(y, p, message):
    with pytest.raises(ValueError, match=message):
        evaluate_predictions(y, p)


def test_other_errors():
    good = ([0, 1], [[1, 0], [0, 1]])
    with pytest.raises(ValueError, match="3 class names for 2 classes"):
        evaluate_predictions(*good, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"sample_weight has shape \(3,\) for 2 labels"):
        evaluate_predictions(*good, sample_weight=[1, 1, 1])
    for weight in ([-1, 1], [0, 0], [np.nan, 1]):
        with pytest.raises(ValueError, match="finite, not negative, and not all zero"):
            evaluate_predictions(*good, sample_weight=weight)
    with pytest.raises(ValueError, match="bins must be a positive integer, got 0"):
        evaluate_predictions(*good, bins=0)
    with pytest.raises(ValueError, match="predicted labels must be 0 to 1"):
        confusion_matrix([0, 1], [0, 2], 2)
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        roc_auc([0, 1], [0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match="2 labels and 1 predictions"):
        accuracy([0, 1], [0])


# --- what it says ---


def test_the_table():
    e = evaluate_predictions([0, 0, 1], [0.1, 0.8, 0.9], ["sound", "defective"], [1, 2, 1])
    assert str(e) == "\n".join(
        [
            "              precision  recall      F1  images",
            "sound            1.0000  0.5000  0.6667       2",
            "defective        0.5000  1.0000  0.6667       1",
            "macro mean       0.7500  0.7500  0.6667       3",
            "",
            "accuracy           0.6667",
            "weighted accuracy  0.5000",
            "weighted F1        0.6667",
            "ROC AUC            1.0000",
            "calibration error  0.3333",
            "",
            "true / predicted      sound  defective",
            "sound                     1          1",
            "defective                 0          1",
        ]
    )


def test_the_table_without_weights_or_auc():
    text = str(evaluate_predictions([0, 0], [0.1, 0.2]))
    assert "weighted accuracy" not in text
    assert "ROC AUC            undefined: a class has no images" in text


def test_the_table_of_many_classes_leaves_the_confusion_matrix_out():
    y = np.arange(30)
    assert "true / predicted" in str(evaluate_predictions(y[:20], np.eye(20)))
    assert "true / predicted" not in str(evaluate_predictions(y, np.eye(30)))


def test_the_dict_is_strict_json():
    e = evaluate_predictions([0, 0], [0.1, 0.2], ["a", "b"])
    data = json.loads(json.dumps(e.to_dict(), allow_nan=False))
    assert data["accuracy"] == 1.0
    assert data["auc"] is None and data["weighted_accuracy"] is None
    assert data["per_class"]["a"] == {
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
        "auc": None,
        "support": 2,
    }
    assert data["confusion"] == [[2, 0], [0, 0]]
    assert data["reliability"][0] == {
        "low": 0.0,
        "high": 0.1,
        "images": 0,
        "confidence": None,
        "accuracy": None,
    }
