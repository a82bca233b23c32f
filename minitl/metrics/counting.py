"""Metrics of counts and sums: the best of one rate under a bound on another, shares of variance.

`others.py` has the counts of true and false positives at many thresholds, which the first kind
reads. Names, arguments and formulae are Keras's.
"""

from typing import Any, Literal, TypeAlias

import numpy as np

from minitl import losses
from minitl.metrics import TABLE, Metric, Value
from minitl.metrics.others import Counts, ratio
from minitl.naming import Count, Natural, Share, public_names


class _Best(Counts):
    """Base: the largest value of one rate among the thresholds at which another is high enough."""

    under: tuple[str, ...] = ()  # the counts of the bound rate: the first as a share of both
    bound: float

    def __init__(
        self, num_thresholds: Count = 200, class_id: Natural | None = None, name: str | None = None
    ):
        self.num_thresholds, self.class_id = num_thresholds, class_id
        even = [0.5] if num_thresholds == 1 else np.linspace(0, 1, num_thresholds).tolist()
        super().__init__(even, name)

    def result(self) -> float:
        rates = []
        for first, second in (self.under, self.of):
            a, b = getattr(self, first), getattr(self, second)
            rates.append(ratio(a, a + b))
        return Value(np.max(rates[1], initial=0, where=rates[0] >= self.bound))


SENSITIVITY = ("true_positives", "false_negatives")
SPECIFICITY = ("true_negatives", "false_positives")
PRECISION = ("true_positives", "false_positives")


class SensitivityAtSpecificity(_Best, under=SPECIFICITY, of=SENSITIVITY):
    """The best TP / (TP + FN) of the thresholds with TN / (TN + FP) >= specificity."""

    def __init__(self, specificity: Share, *args: Any, **kwargs: Any):
        self.bound = self.specificity = specificity
        super().__init__(*args, **kwargs)


class SpecificityAtSensitivity(_Best, under=SENSITIVITY, of=SPECIFICITY):
    """The best TN / (TN + FP) of the thresholds with TP / (TP + FN) >= sensitivity."""

    def __init__(self, sensitivity: Share, *args: Any, **kwargs: Any):
        self.bound = self.sensitivity = sensitivity
        super().__init__(*args, **kwargs)


class PrecisionAtRecall(_Best, under=SENSITIVITY, of=PRECISION):
    """The best TP / (TP + FP) of the thresholds with TP / (TP + FN) >= recall."""

    def __init__(self, recall: Share, *args: Any, **kwargs: Any):
        self.bound = self.recall = recall
        super().__init__(*args, **kwargs)


class RecallAtPrecision(_Best, under=PRECISION, of=SENSITIVITY):
    """The best TP / (TP + FN) of the thresholds with TP / (TP + FP) >= precision."""

    def __init__(self, precision: Share, *args: Any, **kwargs: Any):
        self.bound = self.precision = precision
        super().__init__(*args, **kwargs)


Aggregation: TypeAlias = Literal["uniform_average", "variance_weighted_average", None]


class R2Score(Metric):
    """1 - sum (t - y)^2 / sum (t - mean t)^2 per output, for y and t (N, m).

    `class_aggregation` is 'uniform_average' (the outputs' mean), 'variance_weighted_average' or
    None (one number per output). `num_regressors` p adjusts it: 1 - (1 - R2)(N - 1) / (N - p - 1).
    """

    def __init__(
        self,
        class_aggregation: Aggregation = "uniform_average",
        num_regressors: Natural = 0,
        name: str | None = "r2_score",
    ):
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
            found = Value(np.average(scores, weights=spread if by_spread else None))
        n, p = self.num_samples, self.num_regressors
        if p and p < n - 1:
            found = 1 - (1 - found) * (n - 1) / (n - p - 1)
        return Value(found) if isinstance(found, float) else found


TABLE.register(*public_names(__name__).values())
