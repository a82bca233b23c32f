"""Metrics that are a mean over the samples: other accuracies, and losses as metrics.

`metrics/__init__.py` says what a metric is. A loss that has no metric here is one all the same:
`metrics.get` finds it by its name.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minitl import losses
from minitl.autograd import Array
from minitl.losses import probabilities, regression
from minitl.metrics import TABLE, LossMetric, Mean, MeanOf, true_labels
from minitl.naming import snake_case


class Sum(Mean):
    """The weighted sum of numbers: sum w v."""

    def result(self) -> float:
        return self.total


class Accuracy(MeanOf):
    """How often y_pred equals y_true."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        return y_true.reshape(y_pred.shape) == y_pred


class BinaryAccuracy(MeanOf):
    """How often y_pred > threshold agrees with y_true (0 or 1); mean over the last axis."""

    def __init__(self, name: str | None = None, *, threshold: float = 0.5):
        self.threshold = threshold
        super().__init__(name)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        return (y_true.reshape(y_pred.shape) == (y_pred > self.threshold)).mean(axis=-1)


class TopKCategoricalAccuracy(MeanOf):
    """How often the true class (one-hot, or an integer) is among the k largest outputs."""

    def __init__(self, k: int = 5, name: str | None = None):
        self.k = k
        super().__init__(name)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        score = np.take_along_axis(y_pred, true_labels(y_true, y_pred)[..., None], axis=-1)
        return (y_pred > score).sum(axis=-1) < self.k


class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """The same, under the name that goes with integer labels."""


class _OfLoss(LossMetric):
    """Base: a loss with its defaults, under the metric's name."""

    loss_type: type[losses.Loss]

    def __init__(self, name: str | None = None):
        super().__init__(self.loss_type(), name or snake_case(type(self).__name__))


class MeanSquaredError(_OfLoss):
    """The mean of (t - y)^2."""

    loss_type = regression.MeanSquaredError


class RootMeanSquaredError(_OfLoss):
    """The root of the mean of (t - y)^2, in the targets' own unit."""

    loss_type = regression.MeanSquaredError

    def result(self) -> float:
        return super().result() ** 0.5


class MeanAbsoluteError(_OfLoss):
    """The mean of |t - y|."""

    loss_type = regression.MeanAbsoluteError


class CosineSimilarity(_OfLoss):
    """The mean of <t, y> / (|t| |y|): 1 for vectors of one direction. The loss has a minus."""

    loss_type = regression.CosineSimilarity

    def values(self, y_true: Array, y_pred: Array) -> Array:
        return -super().values(y_true, y_pred)


class _SmoothedCrossentropy(LossMetric):
    """Base: the loss of the same name, as a metric."""

    loss_type: Callable[[bool, float], losses.Loss]

    def __init__(
        self, name: str | None = None, *, from_logits: bool = False, label_smoothing: float = 0
    ):
        self.from_logits, self.label_smoothing = from_logits, label_smoothing
        super().__init__(type(self).loss_type(from_logits, label_smoothing), name)


class BinaryCrossentropy(_SmoothedCrossentropy):
    """The loss of that name, as a metric."""

    loss_type = probabilities.BinaryCrossentropy


class CategoricalCrossentropy(_SmoothedCrossentropy):
    """The loss of that name, as a metric."""

    loss_type = losses.CategoricalCrossentropy


class SparseCategoricalCrossentropy(LossMetric):
    """The loss of that name, as a metric."""

    def __init__(self, name: str | None = None, *, from_logits: bool = False):
        self.from_logits = from_logits
        super().__init__(losses.SparseCategoricalCrossentropy(from_logits), name)


TABLE.register(
    Accuracy,
    BinaryAccuracy,
    TopKCategoricalAccuracy,
    SparseTopKCategoricalAccuracy,
    MeanSquaredError,
    RootMeanSquaredError,
    MeanAbsoluteError,
    CosineSimilarity,
    mse=MeanSquaredError,
    mae=MeanAbsoluteError,
)
for name, loss in losses.TABLE.items():
    TABLE.setdefault(name, loss)
