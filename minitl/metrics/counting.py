"""Metrics of counts and sums: overlaps of segmentations, the best of one rate under a bound on
another, shares of variance, correlations.

`others.py` has the counts of true and false positives at many thresholds, which the second kind
reads. Names, arguments and formulae are Keras's.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minitl import losses
from minitl.autograd import Array
from minitl.losses import EPSILON
from minitl.metrics import TABLE, MeanPerSample, Metric
from minitl.metrics.others import Counts, ratio
from minitl.naming import Count, Natural, Share, public_names


class MeanIoU(Metric):
    """Intersection over union, TP / (TP + FP + FN) per class, and its mean over the classes.

    Args:
        num_classes: m; other labels are left out.
        ignore_class: a true label that is left out as well.
        sparse_y_true, sparse_y_pred: False where labels come as m numbers along `axis`.
    """

    targets: Any = None  # the classes whose mean it is; None: all

    def __init__(
        self,
        num_classes: Count,
        name: str | None = None,
        *,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ):
        self.num_classes, self.ignore_class, self.axis = num_classes, ignore_class, axis
        self.sparse_y_true, self.sparse_y_pred = sparse_y_true, sparse_y_pred
        super().__init__(name)

    def reset_state(self) -> None:
        self.total_cm = np.zeros((self.num_classes, self.num_classes))  # by true, found class

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        truth, guess = (
            (np.asarray(y) if sparse else np.argmax(y, self.axis)).astype(int).ravel()
            for y, sparse in ((y_true, self.sparse_y_true), (y_pred, self.sparse_y_pred))
        )
        weight = 1.0 if sample_weight is None else np.asarray(sample_weight).ravel()
        weight, m = np.broadcast_to(weight, truth.shape), self.num_classes
        known = (truth >= 0) & (truth < m) & (guess >= 0) & (guess < m)
        known &= truth != (-1 if self.ignore_class is None else self.ignore_class)
        cells = truth[known] * m + guess[known]
        self.total_cm = self.total_cm + np.bincount(cells, weight[known], m * m).reshape(m, m)

    def result(self) -> float:
        both = self.total_cm.diagonal()
        union = self.total_cm.sum(axis=0) + self.total_cm.sum(axis=1) - both
        chosen = slice(None) if self.targets is None else list(self.targets)
        both, there = ratio(both, union)[chosen], (union > 0)[chosen]
        return float(both.sum() / max(there.sum(), 1))


class IoU(MeanIoU):
    """Intersection over union, TP / (TP + FP + FN): the mean of the classes `target_class_ids`."""

    def __init__(
        self,
        num_classes: Count,
        target_class_ids: Sequence[int],
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(num_classes, name, **kwargs)
        self.target_class_ids = self.targets = list(target_class_ids)
        if self.targets and max(self.targets) >= num_classes:
            raise ValueError(f"target_class_ids are below {num_classes}, got {target_class_ids!r}")


class BinaryIoU(IoU):
    """`IoU` of two classes: y_pred of at least the `threshold` is 1."""

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
    ):
        super().__init__(2, target_class_ids, name)
        self.threshold = threshold

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        above = np.asarray(y_pred, np.float32) >= np.float32(self.threshold)
        super().update_state(y_true, above, sample_weight)


class OneHotMeanIoU(MeanIoU):
    """`MeanIoU` of targets, and predictions unless `sparse_y_pred`, that are m numbers."""

    def __init__(
        self,
        num_classes: Count,
        name: str | None = None,
        *,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ):
        how: Any = {"ignore_class": ignore_class, "sparse_y_pred": sparse_y_pred, "axis": axis}
        super().__init__(num_classes, name, sparse_y_true=False, **how)


class OneHotIoU(IoU):
    """`IoU` of targets, and predictions unless `sparse_y_pred`, that are m numbers."""

    def __init__(
        self,
        num_classes: Count,
        target_class_ids: Sequence[int],
        name: str | None = None,
        *,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ):
        how: Any = {"ignore_class": ignore_class, "sparse_y_pred": sparse_y_pred, "axis": axis}
        super().__init__(num_classes, target_class_ids, name, sparse_y_true=False, **how)


class _Best(Counts):
    """Base: the largest value of one rate among the thresholds at which another is high enough."""

    under: tuple[
        str, ...
    ] = ()  # the counts of the rate that has a bound: the first as a share of both

    def __init__(self, bound: Any, num_thresholds: Count, class_id: Any, name: str | None):
        self.bound, self.num_thresholds, self.class_id = bound, num_thresholds, class_id
        one = num_thresholds == 1
        super().__init__([0.5] if one else np.linspace(0, 1, num_thresholds).tolist(), name)
        if not one:
            self.levels[0] = -EPSILON  # all are above the first, as in Keras

    def result(self) -> float:
        rates = []
        for first, second in (self.under, self.of):
            a, b = getattr(self, first), getattr(self, second)
            rates.append(ratio(a, a + b))
        return float(np.max(rates[1], initial=0, where=rates[0] >= self.bound))


SENSITIVITY = ("true_positives", "false_negatives")
SPECIFICITY = ("true_negatives", "false_positives")
PRECISION = ("true_positives", "false_positives")


class SensitivityAtSpecificity(_Best, under=SPECIFICITY, of=SENSITIVITY):
    """The best TP / (TP + FN) of the thresholds with TN / (TN + FP) >= specificity."""

    def __init__(
        self,
        specificity: Share,
        num_thresholds: Count = 200,
        class_id: Natural | None = None,
        name: str | None = None,
    ):
        super().__init__(specificity, num_thresholds, class_id, name)
        self.specificity = specificity


class SpecificityAtSensitivity(_Best, under=SENSITIVITY, of=SPECIFICITY):
    """The best TN / (TN + FP) of the thresholds with TP / (TP + FN) >= sensitivity."""

    def __init__(
        self,
        sensitivity: Share,
        num_thresholds: Count = 200,
        class_id: Natural | None = None,
        name: str | None = None,
    ):
        super().__init__(sensitivity, num_thresholds, class_id, name)
        self.sensitivity = sensitivity


class PrecisionAtRecall(_Best, under=SENSITIVITY, of=PRECISION):
    """The best TP / (TP + FP) of the thresholds with TP / (TP + FN) >= recall."""

    def __init__(
        self,
        recall: Share,
        num_thresholds: Count = 200,
        class_id: Natural | None = None,
        name: str | None = None,
    ):
        super().__init__(recall, num_thresholds, class_id, name)
        self.recall = recall


class RecallAtPrecision(_Best, under=PRECISION, of=SENSITIVITY):
    """The best TP / (TP + FN) of the thresholds with TP / (TP + FP) >= precision."""

    def __init__(
        self,
        precision: Share,
        num_thresholds: Count = 200,
        class_id: Natural | None = None,
        name: str | None = None,
    ):
        super().__init__(precision, num_thresholds, class_id, name)
        self.precision = precision


class R2Score(Metric):
    """1 - sum (t - y)^2 / sum (t - mean t)^2 per output, for y and t (N, m).

    `class_aggregation` is 'uniform_average' (the outputs' mean), 'variance_weighted_average' or
    None (one number per output). `num_regressors` p adjusts it: 1 - (1 - R2)(N - 1) / (N - p - 1).
    """

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: Natural = 0,
        name: str | None = "r2_score",
    ):
        if class_aggregation not in (None, "uniform_average", "variance_weighted_average"):
            known = "None, 'uniform_average' or 'variance_weighted_average'"
            raise ValueError(f"class_aggregation is {known}, got {class_aggregation!r}")
        self.class_aggregation, self.num_regressors = class_aggregation, num_regressors
        super().__init__(name)

    def reset_state(self) -> None:
        self.count, self.total, self.squares, self.missed = (np.zeros(1) for _ in range(4))
        self.num_samples = 0

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        truth, guess = losses.comparable(y_true, y_pred)
        if truth.ndim != 2 or truth.shape != guess.shape:
            raise ValueError(f"R2Score takes (N, m) twice, got {truth.shape} and {guess.shape}")
        t, w = truth.astype(float), losses.weight_per_number(sample_weight, truth.shape)
        sums = (w, w * t, w * t * t, w * (t - guess.storage) ** 2)
        known = (self.count, self.total, self.squares, self.missed)
        new = [a + b.sum(axis=0) for a, b in zip(known, sums, strict=True)]
        self.count, self.total, self.squares, self.missed = new
        self.num_samples += truth.size

    def result(self) -> Any:
        spread = self.squares - self.total * ratio(self.total, self.count)
        scores = np.where(spread == 0, 0, 1 - ratio(self.missed, spread))
        found: Any = scores
        if self.class_aggregation is not None:
            by_spread = self.class_aggregation == "variance_weighted_average"
            found = float(np.average(scores, weights=spread if by_spread else None))
        n, p = self.num_samples, self.num_regressors
        return found if p == 0 or p >= n - 1 else 1 - (1 - found) * (n - 1) / (n - p - 1)


class PearsonCorrelation(MeanPerSample):
    """The mean over the samples of the correlation of y and t along the `axis`."""

    def __init__(self, name: str | None = None, *, axis: int = -1):
        self.axis = axis
        super().__init__(name)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        t, y = (a - a.mean(self.axis, keepdims=True) for a in (y_true, y_pred))
        return (t * y).mean(self.axis) / (t.std(self.axis) * y.std(self.axis))


class ConcordanceCorrelation(PearsonCorrelation):
    """2 cov(t, y) / (var t + var y + (mean t - mean y)^2): correlation on the line y = t."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        t, y = (a.mean(self.axis, keepdims=True) for a in (y_true, y_pred))
        norm = y_true.var(self.axis, keepdims=True) + y_pred.var(self.axis, keepdims=True)
        return (2 * (y_true - t) * (y_pred - y) / (norm + (t - y) ** 2 + EPSILON)).mean(self.axis)


TABLE.register(*public_names(__name__).values())
