"""Metrics: numbers for people, gathered batch by batch.

A metric has three verbs: `update_state` with the true values and the predictions of a batch,
`result` for all batches so far, `reset_state` for a new epoch. Keeping sums and counts (rather
than averaging the averages of batches) makes a partial last batch count as it should.

Predictions of classes are (N, m) probabilities. The formulae and defaults are Keras's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minitl import losses
from minitl.autograd import Array, no_grad
from minitl.naming import Configurable, Registry, look_up, snake_case

EPSILON = 1e-7


def _true_labels(y_true: Array, y_pred: Array) -> Array:
    """Integer labels from labels (N,), (N, 1) or one-hot rows (N, m)."""
    if y_true.ndim == y_pred.ndim and y_true.shape[-1] == y_pred.shape[-1] > 1:
        return y_true.argmax(axis=-1)
    return y_true.reshape(y_pred.shape[:-1]).astype(np.int64)


class Metric(Configurable):
    """Base class: a name, and a running state."""

    def __init__(self, name: str | None = None):
        self.name = name or snake_case(type(self).__name__)
        self.reset_state()

    def reset_state(self) -> None:
        """Forget everything gathered."""
        raise NotImplementedError

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Gather one batch."""
        raise NotImplementedError

    def result(self) -> Any:
        """The value over all that was gathered."""
        raise NotImplementedError

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        self.update_state(y_true, y_pred, sample_weight)
        return self.result()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.result()}>"


class Mean(Metric):
    """The weighted mean of numbers: sum w v / sum w."""

    def reset_state(self) -> None:
        self.total, self.count = 0.0, 0.0

    def update_state(self, y_true: Any, y_pred: Any = None, sample_weight: Any = None) -> None:
        """Gather numbers, given as the first argument; there is nothing to compare them with."""
        values = np.asarray(y_true, dtype=np.float64)
        weights = np.asarray(1.0 if sample_weight is None else sample_weight, dtype=np.float64)
        weights = weights.reshape(weights.shape + (1,) * (values.ndim - weights.ndim))
        weights = np.broadcast_to(weights, values.shape)
        self.total += float((values * weights).sum())
        self.count += float(weights.sum())

    def result(self) -> float:
        return self.total / self.count if self.count else 0.0


class Sum(Mean):
    """The weighted sum of numbers: sum w v."""

    def result(self) -> float:
        return self.total


class _MeanOf(Mean):
    """The mean of a function of (y_true, y_pred) that gives one number a sample."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        raise NotImplementedError

    def update_state(self, y_true: Any, y_pred: Any = None, sample_weight: Any = None) -> None:
        values = self.values(np.asarray(y_true), np.asarray(y_pred))
        super().update_state(values, sample_weight=sample_weight)


class Accuracy(_MeanOf):
    """How often y_pred equals y_true."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        return y_true.reshape(y_pred.shape) == y_pred


class CategoricalAccuracy(_MeanOf):
    """How often the largest of m outputs is the true class (one-hot, or an integer)."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        return _true_labels(y_true, y_pred) == y_pred.argmax(axis=-1)


class SparseCategoricalAccuracy(CategoricalAccuracy):
    """The same, under the name that goes with integer labels."""


class BinaryAccuracy(_MeanOf):
    """How often y_pred > threshold agrees with y_true (0 or 1); mean over the last axis."""

    def __init__(self, name: str | None = "binary_accuracy", *, threshold: float = 0.5):
        self.threshold = threshold
        super().__init__(name)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        y_true = y_true.reshape(y_pred.shape)
        return (y_true == (y_pred > self.threshold)).mean(axis=-1)


class TopKCategoricalAccuracy(_MeanOf):
    """How often the true class (one-hot, or an integer) is among the k largest outputs."""

    def __init__(self, k: int = 5, name: str | None = "top_k_categorical_accuracy"):
        self.k = k
        super().__init__(name)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        labels = _true_labels(y_true, y_pred)
        score = np.take_along_axis(y_pred, labels[..., None], axis=-1)
        return (y_pred > score).sum(axis=-1) < self.k


class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """The same, under the name that goes with integer labels."""

    def __init__(self, k: int = 5, name: str | None = "sparse_top_k_categorical_accuracy"):
        super().__init__(k, name)


class _LossMetric(_MeanOf):
    """A loss, as a metric."""

    def __init__(self, loss: losses.Loss, name: str | None = None):
        self.loss = loss
        super().__init__(name or loss.name)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        with no_grad():
            return self.loss.call(y_true, losses.as_tensor(y_pred)).storage


class _FunctionMetric(_MeanOf):
    """A user's function of two arrays (y_true, y_pred) -> values, as a metric."""

    def __init__(self, function: Callable[[Array, Array], Any]):
        self.values = function  # type: ignore[method-assign, assignment]
        super().__init__(getattr(function, "__name__", "metric"))


class MeanSquaredError(_LossMetric):
    """The mean of (t - y)^2."""

    def __init__(self, name: str | None = "mean_squared_error"):
        super().__init__(losses.MeanSquaredError(), name)


class RootMeanSquaredError(_LossMetric):
    """The root of the mean of (t - y)^2, in the targets' own unit."""

    def __init__(self, name: str | None = "root_mean_squared_error"):
        super().__init__(losses.MeanSquaredError(), name)

    def result(self) -> float:
        return super().result() ** 0.5


class MeanAbsoluteError(_LossMetric):
    """The mean of |t - y|."""

    def __init__(self, name: str | None = "mean_absolute_error"):
        super().__init__(losses.MeanAbsoluteError(), name)


class CosineSimilarity(_LossMetric):
    """The mean of <t, y> / (|t| |y|): 1 for vectors of one direction. The loss has a minus."""

    def __init__(self, name: str | None = "cosine_similarity"):
        super().__init__(losses.CosineSimilarity(), name)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        return -super().values(y_true, y_pred)


class BinaryCrossentropy(_LossMetric):
    """The loss of that name, as a metric."""

    def __init__(
        self,
        name: str | None = "binary_crossentropy",
        *,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ):
        self.from_logits, self.label_smoothing = from_logits, label_smoothing
        super().__init__(losses.BinaryCrossentropy(from_logits, label_smoothing), name)


class CategoricalCrossentropy(_LossMetric):
    """The loss of that name, as a metric."""

    def __init__(
        self,
        name: str | None = "categorical_crossentropy",
        *,
        from_logits: bool = False,
        label_smoothing: float = 0,
    ):
        self.from_logits, self.label_smoothing = from_logits, label_smoothing
        super().__init__(losses.CategoricalCrossentropy(from_logits, label_smoothing), name)


class SparseCategoricalCrossentropy(_LossMetric):
    """The loss of that name, as a metric."""

    def __init__(
        self,
        name: str | None = "sparse_categorical_crossentropy",
        *,
        from_logits: bool = False,
    ):
        self.from_logits = from_logits
        super().__init__(losses.SparseCategoricalCrossentropy(from_logits), name)


class _Counts(Metric):
    """Base: counts true and false positives and negatives, at one threshold or several.

    A prediction is positive when y_pred > threshold. One-hot targets are counted place by place.
    The result is one number, or for a list of thresholds an array.
    """

    top_k: int | None = None
    class_id: int | None = None

    def __init__(self, thresholds: Any = None, name: str | None = None):
        self.thresholds = thresholds
        single = (-np.inf if self.top_k else 0.5) if thresholds is None else thresholds
        self._levels = np.atleast_1d(np.asarray(single, np.float64))
        if thresholds is not None and not np.all((self._levels >= 0) & (self._levels <= 1)):
            raise ValueError(f"thresholds are in [0, 1], got {thresholds!r}")
        super().__init__(name)

    def reset_state(self) -> None:
        zeros = np.zeros(len(self._levels))
        self.true_positives, self.false_positives = zeros, zeros
        self.false_negatives, self.true_negatives = zeros, zeros

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = np.asarray(y_pred)
        y_pred = y_pred if y_pred.dtype.kind == "f" else y_pred.astype(np.float32)
        truth = np.asarray(y_true)
        if truth.ndim == 1 and y_pred.ndim == 2 and y_pred.shape[1] > 1:
            raise ValueError(
                f"{type(self).__name__} takes one-hot targets {y_pred.shape} or class_id; "
                f"y_true has shape {truth.shape}"
            )
        truth = truth.reshape(y_pred.shape) != 0
        w = np.asarray(1.0 if sample_weight is None else sample_weight, dtype=np.float64)
        w = np.broadcast_to(w.reshape(w.shape + (1,) * (truth.ndim - w.ndim)), truth.shape)
        if self.top_k:
            best = np.argsort(-y_pred, axis=-1, kind="stable")[..., : self.top_k]
            chosen = np.zeros(y_pred.shape, bool)
            np.put_along_axis(chosen, best, True, axis=-1)
            y_pred = np.where(chosen, y_pred, -np.inf)
        if self.class_id is not None:
            truth, y_pred, w = (a[..., self.class_id] for a in (truth, y_pred, w))
        # (thresholds, places), compared in the dtype of the predictions
        guess: Any = y_pred.reshape(1, -1) > self._levels.astype(y_pred.dtype)[:, None]
        positive, negative = (w * truth).ravel(), (w * np.logical_not(truth)).ravel()
        self.true_positives = self.true_positives + guess @ positive
        self.false_positives = self.false_positives + guess @ negative
        self.false_negatives = self.false_negatives + ~guess @ positive
        self.true_negatives = self.true_negatives + ~guess @ negative

    def counted(self) -> Array:
        """The result at each threshold."""
        raise NotImplementedError

    def result(self) -> Any:
        found = self.counted()
        return float(found[0]) if len(found) == 1 else found


class TruePositives(_Counts):
    """How many positives were found."""

    def counted(self) -> Array:
        return self.true_positives


class TrueNegatives(_Counts):
    """How many negatives were left alone."""

    def counted(self) -> Array:
        return self.true_negatives


class FalsePositives(_Counts):
    """How many negatives were taken for positives."""

    def counted(self) -> Array:
        return self.false_positives


class FalseNegatives(_Counts):
    """How many positives were missed."""

    def counted(self) -> Array:
        return self.false_negatives


class _Retrieval(_Counts):
    """Base of Precision and Recall.

    Args:
        thresholds: one or several; 0.5 by default.
        top_k: the k largest outputs of a sample are its positives (above the threshold, if any).
        class_id: look at one column only.
    """

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
    ):
        self.top_k, self.class_id = top_k, class_id
        super().__init__(thresholds, name)


class Precision(_Retrieval):
    """TP / (TP + FP): how many of the positives found are ones."""

    def counted(self) -> Array:
        return _ratio(self.true_positives, self.true_positives + self.false_positives)


class Recall(_Retrieval):
    """TP / (TP + FN): how many of the positives were found."""

    def counted(self) -> Array:
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)


class FBetaScore(Metric):
    """(1 + beta^2) P R / (beta^2 P + R) for each class, of precision P and recall R.

    Args:
        average: None (one number a class), 'macro' (their mean), 'weighted' (their mean, by the
            number of true samples), 'micro' (over all classes' counts together).
        beta: how many times as much recall counts as precision.
        threshold: None takes the largest output as the prediction; else every output above it.
    """

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = "fbeta_score",
    ):
        if average not in (None, "macro", "micro", "weighted"):
            raise ValueError(
                f"average must be None, 'macro', 'micro' or 'weighted', got {average!r}"
            )
        if not beta > 0:
            raise ValueError(f"beta must be positive, got {beta}")
        self.average, self.beta, self.threshold = average, beta, threshold
        super().__init__(name)

    def reset_state(self) -> None:
        self.true_positives: Any = 0.0  # arrays (m,) after the first batch
        self.found: Any = 0.0
        self.there: Any = 0.0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred, y_true = np.asarray(y_pred), np.asarray(y_true)
        m = y_pred.shape[-1]
        if y_true.shape != y_pred.shape:
            y_true = np.eye(m)[_true_labels(y_true, y_pred)] if m > 1 else y_true.reshape(-1, 1)
        if self.threshold is None:  # the largest, unless it is 0
            guess = (y_pred == y_pred.max(axis=-1, keepdims=True)) & (np.abs(y_pred) > 1e-9)
        else:
            guess = y_pred > self.threshold
        w = np.ones(len(y_pred)) if sample_weight is None else np.asarray(sample_weight, float)
        truth, guess = y_true.astype(float) * w[:, None], guess.astype(float)
        self.true_positives = self.true_positives + (truth * guess).sum(axis=0)
        self.found = self.found + (guess * w[:, None]).sum(axis=0)
        self.there = self.there + truth.sum(axis=0)

    def result(self) -> Any:
        tp, found, there = map(np.asarray, (self.true_positives, self.found, self.there))
        if self.average == "micro":
            tp, found, there = tp.sum(), found.sum(), there.sum()
        precision, recall, square = tp / (found + EPSILON), tp / (there + EPSILON), self.beta**2
        f = (1 + square) * precision * recall / (square * precision + recall + EPSILON)
        if self.average == "weighted":
            return float((f * there).sum() / (there.sum() + EPSILON))
        return f if self.average is None else float(f.mean())


class F1Score(FBetaScore):
    """2 P R / (P + R) for each class: the harmonic mean of precision and recall.

    The arguments are those of FBetaScore.
    """

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = "f1_score",
    ):
        super().__init__(average, 1.0, threshold, name)


class AUC(Metric):
    """Area under the ROC curve (or the precision-recall curve), from counts at fixed thresholds.

    Keras's approximation: `num_thresholds` thresholds evenly spaced in [0, 1] (the outer two just
    outside, so that 0 and 1 themselves are counted), trapezoids between them.
    `minitl.evaluation.roc_auc` gives the exact area.

    Args:
        num_thresholds: at least 2.
        curve: 'ROC' or 'PR'.
    """

    def __init__(self, num_thresholds: int = 200, curve: str = "ROC", *, name: str | None = None):
        if curve not in ("ROC", "PR"):
            raise ValueError(f"curve must be 'ROC' or 'PR', got {curve!r}")
        if num_thresholds < 2:
            raise ValueError(f"num_thresholds must be at least 2, got {num_thresholds}")
        self.num_thresholds, self.curve = num_thresholds, curve
        super().__init__(name)

    def reset_state(self) -> None:
        self.positives = np.zeros(self.num_thresholds)  # true positives at each threshold
        self.negatives = np.zeros(self.num_thresholds)  # false positives
        self.all_positives = self.all_negatives = 0.0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        # In float32, as Keras does: which side of a threshold a number falls on must not differ.
        scores = np.clip(np.asarray(y_pred, dtype=np.float32), 0, 1)
        truth = np.asarray(y_true, dtype=np.float64).reshape(scores.shape).ravel()
        w: Array = np.ones(scores.shape)
        if sample_weight is not None:
            weights = np.asarray(sample_weight, dtype=float)
            w = w * weights.reshape(weights.shape + (1,) * (scores.ndim - weights.ndim))
        w, levels = w.ravel(), self.num_thresholds
        # Above how many thresholds, less one: 0.5 of three (0, 0.5, 1) is above the first only.
        bucket = np.ceil(scores.ravel() * np.float32(levels - 1)).astype(np.int64) - 1
        bucket = np.maximum(bucket, 0)
        # A target between 0 and 1 counts as a part of each side.
        for side, counts in ((truth * w, self.positives), ((1 - truth) * w, self.negatives)):
            counts += np.cumsum(np.bincount(bucket, side, levels)[::-1])[::-1]
        self.all_positives += float((truth * w).sum())
        self.all_negatives += float(((1 - truth) * w).sum())

    def result(self) -> float:
        tp, fp = self.positives, self.negatives
        if self.curve == "PR":
            return self._area_pr(tp, fp)
        recall = _ratio(tp, self.all_positives)
        false_rate = _ratio(fp, self.all_negatives)
        return float(((false_rate[:-1] - false_rate[1:]) * (recall[:-1] + recall[1:]) / 2).sum())

    def _area_pr(self, tp: Array, fp: Array) -> float:
        """Interpolated in counts, not in precision: Davis & Goadrich 2006."""
        p = tp + fp
        d_tp, d_p = tp[:-1] - tp[1:], p[:-1] - p[1:]
        slope = _ratio(d_tp, np.maximum(d_p, 0))
        intercept = tp[1:] - slope * p[1:]
        both = (p[:-1] > 0) & (p[1:] > 0)
        ratio = np.where(both, _ratio(p[:-1], np.maximum(p[1:], 0)), 1.0)
        return float(_ratio(slope * (d_tp + intercept * np.log(ratio)), self.all_positives).sum())


def _ratio(a: Array, b: Any) -> Array:
    """a / b, and 0 where b is 0."""
    b = np.broadcast_to(b, a.shape)
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


TABLE = Registry(
    __name__,
    CategoricalAccuracy,
    SparseCategoricalAccuracy,
    BinaryAccuracy,
    TopKCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    TruePositives,
    TrueNegatives,
    FalsePositives,
    FalseNegatives,
    Precision,
    Recall,
    FBetaScore,
    F1Score,
    AUC,
    MeanSquaredError,
    RootMeanSquaredError,
    MeanAbsoluteError,
    CosineSimilarity,
    mse=MeanSquaredError,
    mae=MeanAbsoluteError,
    auc=AUC,
)


def get(
    identifier: Any, loss: losses.Loss | None = None, output_shape: tuple[Any, ...] = ()
) -> Metric:
    """A metric from its name, class, instance, or a function (y_true, y_pred) -> values.

    'accuracy' (or 'acc') means the accuracy that goes with the loss and the output: sparse
    categorical for a loss of integer labels, else binary for one output, else categorical. A
    metric that is given by name keeps that name in the logs, as in Keras.
    """
    if identifier in ("accuracy", "acc"):
        if isinstance(loss, losses.SparseCategoricalCrossentropy):
            return SparseCategoricalAccuracy("accuracy" if identifier == "accuracy" else "acc")
        if output_shape[-1:] == (1,):
            return BinaryAccuracy(identifier)
        return CategoricalAccuracy(identifier)
    if isinstance(identifier, str) and identifier in losses.TABLE and identifier not in TABLE:
        return _LossMetric(losses.get(identifier), identifier)
    known = Registry(__name__, **(losses.TABLE | TABLE | {"accuracy": Accuracy}))
    metric = look_up(identifier, known, "metric")
    if isinstance(metric, Metric):
        if isinstance(identifier, str):
            metric.name = identifier
        return metric
    if isinstance(metric, losses.Loss):
        return _LossMetric(metric)
    if not callable(metric):
        raise ValueError(f"not a metric: {identifier!r}")
    return _FunctionMetric(metric)
