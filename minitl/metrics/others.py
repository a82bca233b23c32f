"""The other metrics: means over the samples, losses as metrics, precision and recall, AUC.

`metrics/__init__.py` says what a metric is. A loss that has no metric here is one all the same:
`metrics.get` finds it by its name. The exact area under the ROC curve, from all predictions at
once, is in `minitl.judging.evaluation`.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np

from minitl import losses
from minitl.autograd import Array
from minitl.losses import EPSILON
from minitl.metrics import TABLE, LossMetric, Mean, MeanPerSample, Metric, Value, true_labels
from minitl.naming import Count, Natural, Positive, Share, public_names, snake_case
from minitl.ops import arrays


class Sum(Mean):
    """The weighted sum of numbers: sum w v."""

    def result(self) -> float:
        return Value(self.total)


class Accuracy(MeanPerSample):
    """How often y_pred equals y_true."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        return y_true.reshape(y_pred.shape) == y_pred


class BinaryAccuracy(MeanPerSample):
    """How often y_pred > threshold agrees with y_true (0 or 1); mean over the last axis."""

    def __init__(self, name: str | None = None, *, threshold: float = 0.5):
        self.threshold = threshold
        super().__init__(name)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        return y_true.reshape(y_pred.shape) == (y_pred > self.threshold)


class TopKCategoricalAccuracy(MeanPerSample):
    """How often the true class (one-hot, or an integer) is among the k largest outputs."""

    def __init__(self, k: Count = 5, name: str | None = None):
        self.k = k
        super().__init__(name)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        score = np.take_along_axis(y_pred, true_labels(y_true, y_pred)[..., None], axis=-1)
        return (y_pred > score).sum(axis=-1) < self.k


class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """The same, under the name that goes with integer labels."""


class _OfLoss(LossMetric):
    """Base: a loss with its defaults, under the metric's name."""

    loss_type: Any = losses.Loss

    def __init__(self, name: str | None = None):
        super().__init__(self.loss_type(), name or snake_case(type(self).__name__))


class RootMeanSquaredError(_OfLoss, loss_type=losses.MeanSquaredError):
    """The root of the mean of (t - y)^2, in the targets' own unit."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        return (y_true.reshape(y_pred.shape) - y_pred) ** 2

    def result(self) -> float:
        return Value(super().result() ** 0.5)


AS_LOSSES = "CategoricalHinge Hinge KLDivergence MeanAbsolutePercentageError Poisson SquaredHinge"
AS_LOSSES += " MeanSquaredLogarithmicError MeanSquaredError MeanAbsoluteError"
for _name in AS_LOSSES.split():
    said = {"__module__": __name__, "__doc__": "The loss of that name, as a metric."}
    globals()[_name] = type(_name, (_OfLoss,), said | {"loss_type": getattr(losses, _name)})


class CosineSimilarity(_OfLoss, loss_type=losses.CosineSimilarity):
    """The mean of <t, y> / (|t| |y|): 1 for vectors of one direction. The loss has a minus."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        return -super().values(y_true, y_pred)


class _SmoothedCrossentropy(LossMetric):
    """Base: the loss of the same name, as a metric."""

    loss_type: Any = losses.Loss

    def __init__(
        self, name: str | None = None, *, from_logits: bool = False, label_smoothing: Share = 0
    ):
        self.from_logits, self.label_smoothing = from_logits, label_smoothing
        super().__init__(self.loss_type(from_logits, label_smoothing), name)


class BinaryCrossentropy(_SmoothedCrossentropy, loss_type=losses.BinaryCrossentropy):
    """The loss of that name, as a metric."""


class CategoricalCrossentropy(_SmoothedCrossentropy, loss_type=losses.CategoricalCrossentropy):
    """The loss of that name, as a metric."""


class SparseCategoricalCrossentropy(LossMetric):
    """The loss of that name, as a metric."""

    def __init__(self, name: str | None = None, *, from_logits: bool = False):
        self.from_logits = from_logits
        super().__init__(losses.SparseCategoricalCrossentropy(from_logits), name)


def ratio(a: Array, b: Any) -> Array:
    """a / b, and 0 where b is 0."""
    b = np.broadcast_to(b, a.shape)
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)


class Counts(Metric):
    """Base: counts true and false positives and negatives, at one threshold or several.

    A prediction is positive when y_pred > threshold. One-hot targets are counted place by place.
    The result is one number, or for a list of thresholds an array.
    """

    top_k: Count | None = None
    class_id: Natural | None = None
    of: tuple[str, ...] = ()  # which count is the result; of two, the first as a share of both

    def __init__(self, thresholds: float | Sequence[float] | None = None, name: str | None = None):
        self.thresholds = thresholds
        single = (-np.inf if self.top_k else 0.5) if thresholds is None else thresholds
        self.levels = np.atleast_1d(np.asarray(single, np.float64))
        if thresholds is not None and not np.all((self.levels >= 0) & (self.levels <= 1)):
            raise ValueError(f"thresholds are in [0, 1], got {thresholds!r}")
        super().__init__(name)

    def reset_state(self) -> None:
        zeros = np.zeros(len(self.levels))
        self.true_positives, self.false_positives = zeros, zeros
        self.false_negatives, self.true_negatives = zeros, zeros

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred = np.asarray(y_pred)
        y_pred = y_pred if y_pred.dtype.kind == "f" else y_pred.astype(np.float32)
        truth = np.asarray(y_true)
        if self.class_id is not None and y_pred.ndim != 2:
            raise ValueError(f"class_id is a column of y_pred (N, m), which has {y_pred.shape}")
        if truth.ndim == 1 and y_pred.ndim == 2 and y_pred.shape[1] > 1:
            takes = f"{type(self).__name__} takes one-hot targets {y_pred.shape} or class_id"
            raise ValueError(f"{takes}; y_true has shape {truth.shape}")
        truth = truth.reshape(y_pred.shape) != 0
        w = losses.weight_per_number(sample_weight, truth.shape)
        if self.top_k:
            best = np.argsort(-y_pred, axis=-1, kind="stable")[..., : self.top_k]
            chosen = np.zeros(y_pred.shape, bool)
            np.put_along_axis(chosen, best, True, axis=-1)
            y_pred = np.where(chosen, y_pred, -np.inf)
        if self.class_id is not None:
            truth, y_pred, w = (a[..., self.class_id] for a in (truth, y_pred, w))
        # (thresholds, places), compared in the dtype of the predictions
        guess: Any = y_pred.reshape(1, -1) > self.levels.astype(y_pred.dtype)[:, None]
        positive, negative = (w * truth).ravel(), (w * np.logical_not(truth)).ravel()
        self.true_positives = self.true_positives + guess @ positive
        self.false_positives = self.false_positives + guess @ negative
        self.false_negatives = self.false_negatives + ~guess @ positive
        self.true_negatives = self.true_negatives + ~guess @ negative

    def result(self) -> Any:
        first, *others = (getattr(self, name) for name in self.of)
        found = ratio(first, first + others[0]) if others else first
        return Value(found[0]) if len(found) == 1 else found


for _what, _doc in {
    "TruePositives": "How many positives were found.",
    "TrueNegatives": "How many negatives were left alone.",
    "FalsePositives": "How many negatives were taken for positives.",
    "FalseNegatives": "How many positives were missed.",
}.items():
    counted: dict[str, Any] = {"__module__": __name__, "__doc__": _doc, "of": (snake_case(_what),)}
    globals()[_what] = type(_what, (Counts,), counted)


class _Retrieval(Counts):
    """Base of Precision and Recall, at one threshold (0.5 by default) or several.

    With `top_k` the k largest outputs of a sample are its positives (above the threshold, if any).
    `class_id` looks at one column only.
    """

    def __init__(
        self,
        thresholds: float | Sequence[float] | None = None,
        top_k: Count | None = None,
        class_id: Natural | None = None,
        name: str | None = None,
    ):
        self.top_k, self.class_id = top_k, class_id
        super().__init__(thresholds, name)


class Precision(_Retrieval, of=("true_positives", "false_positives")):
    """TP / (TP + FP): how many of the positives found are ones."""


class Recall(_Retrieval, of=("true_positives", "false_negatives")):
    """TP / (TP + FN): how many of the positives were found."""


Averages: TypeAlias = Literal["macro", "micro", "weighted", None]


class FBetaScore(Metric):
    """(1 + beta^2) P R / (beta^2 P + R) for each class, of precision P and recall R.

    `average` is None (one number per class), 'macro' (their mean), 'weighted' (their mean, by the
    number of true samples) or 'micro' (over all classes' counts together). Recall counts `beta`
    times as much as precision. Predicted is every output above the `threshold`, or the largest.
    """

    def __init__(
        self,
        average: Averages = None,
        beta: Positive = 1.0,
        threshold: float | None = None,
        name: str | None = "fbeta_score",
    ):
        if not isinstance(beta, float):
            raise ValueError(f"beta must be a float, 1.0 say, got {beta!r}")
        if threshold is not None and not (isinstance(threshold, float) and 0 < threshold <= 1):
            raise ValueError(f"threshold must be a float above 0, at most 1, got {threshold!r}")
        self.average, self.beta, self.threshold = average, beta, threshold
        super().__init__(name)

    def reset_state(self) -> None:
        zeros: Any = (0.0, 0.0, 0.0)  # arrays (m,) after the first batch
        self.true_positives, self.found, self.there = zeros

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        y_pred, y_true = np.asarray(y_pred), np.asarray(y_true)
        m = y_pred.shape[-1]
        if y_true.shape != y_pred.shape:
            y_true = np.eye(m)[true_labels(y_true, y_pred)] if m > 1 else y_true.reshape(-1, 1)
        if self.threshold is None:  # the largest, unless it is 0
            guess = (y_pred == y_pred.max(axis=-1, keepdims=True)) & (np.abs(y_pred) > 1e-9)
        else:
            guess = y_pred > self.threshold
        w = losses.weight_per_number(sample_weight, y_pred.shape)
        truth = y_true.astype(float) * w
        self.true_positives = self.true_positives + (truth * guess).sum(axis=0)
        self.found = self.found + (guess * w).sum(axis=0)
        self.there = self.there + truth.sum(axis=0)

    def result(self) -> Any:
        tp, found, there = map(np.asarray, (self.true_positives, self.found, self.there))
        if self.average == "micro":
            tp, found, there = tp.sum(), found.sum(), there.sum()
        tiny, square = losses.EPSILON, self.beta**2
        precision, recall = tp / (found + tiny), tp / (there + tiny)
        f = (1 + square) * precision * recall / (square * precision + recall + tiny)
        if self.average == "weighted":
            return Value((f * there).sum() / (there.sum() + tiny))
        return f if self.average is None else Value(f.mean())


class F1Score(FBetaScore):
    """2 P R / (P + R) for each class, the harmonic mean of the two. Arguments as for FBetaScore."""

    def __init__(
        self, average: Averages = None, threshold: float | None = None, name: str | None = None
    ):
        super().__init__(average, 1.0, threshold, name)


class AUC(Metric):
    """Area under the ROC curve (or the precision-recall curve), from counts at fixed thresholds.

    Keras's approximation: `num_thresholds` thresholds evenly spaced in [0, 1] (the outer two just
    outside, so that 0 and 1 are counted), or those of `thresholds`; between them trapezoids
    ('interpolation'), or the lower ('minoring') or higher ('majoring') end. `curve` is 'ROC' or
    'PR'. With `multi_label` each column has a curve, and the mean of the areas is the result,
    weighted by `label_weights`. `from_logits`: y_pred are numbers before the sigmoid.
    """

    def __init__(
        self,
        num_thresholds: Count = 200,
        curve: Literal["ROC", "PR"] = "ROC",
        summation_method: Literal["interpolation", "minoring", "majoring"] = "interpolation",
        *,
        name: str | None = None,
        thresholds: Any = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Any = None,
        from_logits: bool = False,
    ):
        if num_thresholds < 2:
            raise ValueError(f"num_thresholds must be at least 2, got {num_thresholds}")
        self.levels: Any = None  # None: evenly spaced
        if thresholds is not None:
            inner = np.sort(np.asarray(thresholds, np.float32))
            if not np.all((inner >= 0) & (inner <= 1)):
                raise ValueError(f"thresholds are in [0, 1], got {thresholds!r}")
            self.levels = np.concatenate([[-EPSILON], inner, [1 + EPSILON]]).astype(np.float32)
            num_thresholds, thresholds = len(self.levels), [0.0, *inner.tolist(), 1.0]
        self.num_thresholds, self.curve, self.thresholds = num_thresholds, curve, thresholds
        self.summation_method, self.from_logits = summation_method, from_logits
        self.multi_label, self.num_labels, self.label_weights = (
            multi_label,
            num_labels,
            label_weights,
        )
        super().__init__(name)

    def get_config(self) -> dict[str, Any]:
        """With the thresholds as they were given, without the outer two."""
        return super().get_config() | {"thresholds": self.thresholds and self.thresholds[1:-1]}

    def reset_state(self) -> None:
        self.positives = np.zeros((self.num_thresholds, self.num_labels or 1))  # true, of each
        self.negatives = np.zeros((self.num_thresholds, self.num_labels or 1))  # false
        self.all_positives: Any = 0.0
        self.all_negatives: Any = 0.0

    def _above(self, scores: Array) -> Array:
        """The number of the last threshold that each score is above; -1 for NaN, above none."""
        if self.levels is not None:
            place = np.searchsorted(self.levels, scores) - 1
        else:  # above how many, less one: 0.5 of three (0, 0.5, 1) is above the first only
            place = np.maximum(np.ceil(scores * np.float32(self.num_thresholds - 1)) - 1, 0)
        return np.where(np.isnan(scores), -1, place).astype(np.int64)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        # In float32, as Keras does: which side of a threshold a number falls on must not differ.
        scores = np.asarray(y_pred, dtype=np.float32)
        if self.from_logits:
            scores = arrays.sigmoid(scores).storage
        scores = np.clip(scores, 0, 1)
        truth: Array = np.asarray(y_true, dtype=np.float64).reshape(scores.shape)
        w = losses.weight_per_number(sample_weight, scores.shape)
        if self.label_weights is not None and not self.multi_label:
            w = w * np.asarray(self.label_weights)
        labels = scores.shape[-1] if self.multi_label else 1
        scores, truth = scores.reshape(-1, labels), truth.reshape(-1, labels)
        w, counts = w.reshape(-1, labels), []
        # A target between 0 and 1 counts as a part of each side.
        for side in (truth * w, (1 - truth) * w):
            columns = [
                np.bincount(self._above(scores[:, i]) + 1, side[:, i], self.num_thresholds + 1)[1:]
                for i in range(labels)
            ]
            counts.append(np.cumsum(np.stack(columns, axis=1)[::-1], axis=0)[::-1])
        self.positives, self.negatives = self.positives + counts[0], self.negatives + counts[1]
        self.all_positives = self.all_positives + (truth * w).sum(axis=0)
        self.all_negatives = self.all_negatives + ((1 - truth) * w).sum(axis=0)

    def result(self) -> float:
        areas = self._areas()
        if self.label_weights is None or not self.multi_label:
            return Value(areas.mean())
        weights = np.asarray(self.label_weights, float)
        return Value((areas * weights).sum() / weights.sum())

    def _areas(self) -> Array:
        tp, fp = self.positives, self.negatives
        p = tp + fp
        recall = ratio(tp, self.all_positives)
        if self.curve == "ROC" or self.summation_method != "interpolation":
            roc = self.curve == "ROC"
            x: Array = ratio(fp, self.all_negatives) if roc else recall
            y: Array = recall if roc else ratio(tp, p)
            ends: dict[str, Any] = {
                "interpolation": lambda a, b: (a + b) / 2,
                "minoring": np.minimum,
            }
            between = ends.get(self.summation_method, np.maximum)
            return ((x[:-1] - x[1:]) * between(y[:-1], y[1:])).sum(axis=0)
        # interpolated in counts, not in precision: Davis & Goadrich 2006
        d_tp, d_p = tp[:-1] - tp[1:], p[:-1] - p[1:]
        slope = ratio(d_tp, np.maximum(d_p, 0))
        intercept = tp[1:] - slope * p[1:]
        both = (p[:-1] > 0) & (p[1:] > 0)
        quotient = np.where(both, ratio(p[:-1], np.maximum(p[1:], 0)), 1.0)
        area = slope * (d_tp + intercept * np.log(quotient))
        return ratio(area, self.all_positives).sum(axis=0)


ours = public_names(__name__).values()
TABLE.register(*(c for c in ours if c is not Sum))
TABLE |= {a: TABLE[b] for a, b in (("mse", "mean_squared_error"), ("mae", "mean_absolute_error"))}
TABLE.update({name: loss for name, loss in losses.TABLE.items() if name not in TABLE})
