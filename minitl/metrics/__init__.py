"""Metrics: numbers for people, gathered batch by batch.

A metric has three verbs: `update_state` with the true values and the predictions of a batch,
`result` for all batches so far, `reset_state` for a new epoch. Keeping sums and counts (rather
than averaging the averages of batches) makes a partial last batch count as it should.

Predictions of classes are (N, m) probabilities. The formulae and defaults are Keras's. Accuracy
and F1 are here, the others in `others.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from minitl import losses
from minitl.autograd import Array, as_tensor, no_grad
from minitl.naming import Configurable, Registry, attributes_of, look_up, snake_case

if TYPE_CHECKING:
    from minitl.metrics.others import *

__getattr__ = attributes_of(__name__)


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

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """The numbers: of a mean they are given; a subclass computes one per sample."""
        return y_true

    def reset_state(self) -> None:
        self.total, self.count = 0.0, 0.0

    def update_state(self, y_true: Any, y_pred: Any = None, sample_weight: Any = None) -> None:
        found = self.values(np.asarray(y_true), np.asarray(y_pred))
        values = np.asarray(found, dtype=np.float64)
        weights = losses.weight_per_number(sample_weight, values.shape)
        self.total += float((values * weights).sum())
        self.count += float(weights.sum())

    def result(self) -> float:
        return self.total / self.count if self.count else 0.0


class LossMetric(Mean):
    """A loss, as a metric."""

    def __init__(self, loss: losses.Loss, name: str | None = None):
        self.loss = loss
        super().__init__(name or loss.name)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        with no_grad():
            return self.loss.call(y_true, as_tensor(y_pred)).storage


class _FunctionMetric(Mean):
    """A user's function of two arrays (y_true, y_pred) -> values, as a metric."""

    def __init__(self, function: Callable[[Array, Array], Any]):
        self.values = function  # type: ignore[method-assign, assignment]
        super().__init__(getattr(function, "__name__", "metric"))


def true_labels(y_true: Array, y_pred: Array) -> Array:
    """Integer labels from labels (N,), (N, 1) or one-hot rows (N, m)."""
    if y_true.ndim == y_pred.ndim and y_true.shape[-1] == y_pred.shape[-1] > 1:
        return y_true.argmax(axis=-1)
    return y_true.reshape(y_pred.shape[:-1]).astype(np.int64)


class CategoricalAccuracy(Mean):
    """How often the largest of m outputs is the true class (one-hot, or an integer)."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        return true_labels(y_true, y_pred) == y_pred.argmax(axis=-1)


class SparseCategoricalAccuracy(CategoricalAccuracy):
    """The same, under the name that goes with integer labels."""


class FBetaScore(Metric):
    """(1 + beta^2) P R / (beta^2 P + R) for each class, of precision P and recall R.

    Args:
        average: None (one number per class), 'macro' (their mean), 'weighted' (their mean, by the
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
            return float((f * there).sum() / (there.sum() + tiny))
        return f if self.average is None else float(f.mean())


class F1Score(FBetaScore):
    """2 P R / (P + R) for each class: the harmonic mean of precision and recall.

    The arguments are those of FBetaScore.
    """

    def __init__(
        self, average: str | None = None, threshold: float | None = None, name: str | None = None
    ):
        super().__init__(average, 1.0, threshold, name)


TABLE = Registry(__name__, CategoricalAccuracy, SparseCategoricalAccuracy, FBetaScore, F1Score)


def get(
    identifier: Any, loss: losses.Loss | None = None, output_shape: tuple[Any, ...] = ()
) -> Metric:
    """A metric from its name, class, instance, or a function (y_true, y_pred) -> values.

    'accuracy' (or 'acc') means the accuracy that goes with the loss and the output: sparse
    categorical for a loss of integer labels, else binary for one output, else categorical. A
    metric that is given by name keeps that name in the logs, as in Keras.
    """
    name = identifier
    if identifier in ("accuracy", "acc"):
        of_labels = isinstance(loss, losses.SparseCategoricalCrossentropy)
        kind = "sparse_categorical" if of_labels else "categorical"
        name = f"{'binary' if output_shape[-1:] == (1,) and not of_labels else kind}_accuracy"
    metric = look_up(name, TABLE, "metric")
    if isinstance(metric, losses.Loss):
        metric = LossMetric(metric)
    elif not isinstance(metric, Metric):
        if not callable(metric):
            raise ValueError(f"not a metric: {identifier!r}")
        metric = _FunctionMetric(metric)
    if isinstance(identifier, str):
        metric.name = identifier
    return metric
