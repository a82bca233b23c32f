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
from minitl.naming import Configurable, look_up, snake_case

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


class _Counts(Metric):
    """Counts true and false positives and negatives at one threshold.

    A prediction is positive when y_pred > threshold. One-hot targets are counted place by place;
    `class_id` looks at one column only.
    """

    def __init__(
        self,
        thresholds: float | None = None,
        *,
        class_id: int | None = None,
        name: str | None = None,
    ):
        if isinstance(thresholds, (list, tuple)):
            raise ValueError(f"{type(self).__name__} takes one threshold, got {thresholds}")
        self.thresholds = 0.5 if thresholds is None else float(thresholds)
        self.class_id = class_id
        super().__init__(name)

    def reset_state(self) -> None:
        self.true_positives = self.false_positives = self.false_negatives = 0.0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = np.asarray(y_pred)
        truth = np.asarray(y_true)
        if truth.ndim == 1 and y_pred.ndim == 2 and y_pred.shape[1] > 1:
            raise ValueError(
                f"{type(self).__name__} takes one-hot targets {y_pred.shape} or class_id; "
                f"y_true has shape {truth.shape}"
            )
        truth = truth.reshape(y_pred.shape) > 0.5
        guess = y_pred > self.thresholds
        if self.class_id is not None:
            truth, guess = truth[..., self.class_id], guess[..., self.class_id]
        w = 1.0 if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
        if np.ndim(w):
            w = np.broadcast_to(
                np.reshape(w, np.shape(w) + (1,) * (truth.ndim - np.ndim(w))), truth.shape
            )
        self.true_positives += float((truth & guess).astype(float).ravel() @ _flat(w, truth))
        self.false_positives += float((~truth & guess).astype(float).ravel() @ _flat(w, truth))
        self.false_negatives += float((truth & ~guess).astype(float).ravel() @ _flat(w, truth))


def _flat(w: Any, like: Array) -> Array:
    return np.broadcast_to(w, like.shape).ravel()


class Precision(_Counts):
    """TP / (TP + FP): how many of the positives found are ones."""

    def result(self) -> float:
        found = self.true_positives + self.false_positives
        return self.true_positives / found if found else 0.0


class Recall(_Counts):
    """TP / (TP + FN): how many of the positives were found."""

    def result(self) -> float:
        there = self.true_positives + self.false_negatives
        return self.true_positives / there if there else 0.0


class F1Score(Metric):
    """2 P R / (P + R) for each class: the harmonic mean of precision and recall.

    Args:
        average: None (one number a class), 'macro' (their mean), 'weighted' (their mean, by the
            number of true samples), 'micro' (over all classes' counts together).
        threshold: None takes the largest output as the prediction; else every output above it.
    """

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = "f1_score",
    ):
        if average not in (None, "macro", "micro", "weighted"):
            raise ValueError(
                f"average must be None, 'macro', 'micro' or 'weighted', got {average!r}"
            )
        self.average, self.threshold = average, threshold
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
        if self.threshold is None:
            guess = y_pred == y_pred.max(axis=-1, keepdims=True)
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
        f1 = 2 * tp / (found + there + EPSILON)
        if self.average == "weighted":
            return float((f1 * there).sum() / max(there.sum(), EPSILON))
        return f1 if self.average is None else float(f1.mean())


class AUC(Metric):
    """Area under the ROC curve (or the precision-recall curve), from counts at fixed thresholds.

    Keras's approximation: `num_thresholds` thresholds evenly spaced in [0, 1], trapezoids between
    them. `minitl.evaluation.roc_auc` gives the exact area.

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
        inner = (np.arange(num_thresholds - 2) + 1) / (num_thresholds - 1)
        # The outer two are just outside [0, 1], so that 0 and 1 themselves are counted.
        self.thresholds = np.concatenate([[-EPSILON], inner, [1 + EPSILON]])
        super().__init__(name)

    def reset_state(self) -> None:
        self.positives = np.zeros(len(self.thresholds))  # true positives at each threshold
        self.negatives = np.zeros(len(self.thresholds))  # false positives
        self.all_positives = self.all_negatives = 0.0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = np.asarray(y_pred, dtype=np.float64)
        truth = np.asarray(y_true).reshape(y_pred.shape).ravel() > 0.5
        w = np.ones(y_pred.shape)
        if sample_weight is not None:
            weights = np.asarray(sample_weight, dtype=float)
            w = w * weights.reshape(weights.shape + (1,) * (y_pred.ndim - weights.ndim))
        w, scores = w.ravel(), y_pred.ravel()
        for side, counts in ((truth, self.positives), (~truth, self.negatives)):
            order = np.argsort(scores[side])
            weights_from = np.append(np.cumsum(w[side][order][::-1])[::-1], 0.0)
            counts += weights_from[np.searchsorted(scores[side][order], self.thresholds, "right")]
        self.all_positives += float(w[truth].sum())
        self.all_negatives += float(w[~truth].sum())

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


TABLE: dict[str, Any] = {
    snake_case(cls.__name__): cls
    for cls in (
        CategoricalAccuracy,
        SparseCategoricalAccuracy,
        BinaryAccuracy,
        TopKCategoricalAccuracy,
        Precision,
        Recall,
        F1Score,
        AUC,
        MeanSquaredError,
    )
} | {"mse": MeanSquaredError, "auc": AUC}


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
    known = losses.TABLE | TABLE | {"accuracy": Accuracy}
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
