"""Metrics: numbers for people, gathered batch by batch.

A metric has three verbs: `update_state` with the true values and the predictions of a batch,
`result` for all batches so far, `reset_state` for a new epoch. Keeping sums and counts (rather
than averaging the averages of batches) makes a partial last batch count as it should.

Predictions of classes are (N, m) probabilities. Formulae and defaults are Keras's.
"""

# mypy: disable-error-code="override"
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from minitl import losses
from minitl.autograd import Array, Tensor, as_tensor, no_grad
from minitl.naming import Configurable, Registry, attributes_of, elsewhere, look_up, snake_case

if TYPE_CHECKING:
    from minitl.metrics.others import *

__getattr__ = attributes_of(__name__)


class Metric(Configurable):
    """Base class: a name, and a running state, in a user's class what `add_weight` makes."""

    def __init__(self, name: str | None = None):
        self.name = name or snake_case(type(self).__name__)
        with suppress(AttributeError):  # a user's class makes what it resets after this
            self.reset_state()

    reset_state: Any = elsewhere("own layers", "reset_metric")
    add_weight = add_variable = elsewhere("own layers", "add_to_metric")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Gather one batch."""
        raise NotImplementedError

    def result(self) -> Any:
        """The value over all that was gathered."""
        raise NotImplementedError

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.update_state(*args, **kwargs)
        return self.result()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.result()}>"


class Value(float):
    """What `result` gives: a number, with what scripts for TensorFlow ask of theirs."""

    numpy = float.__float__


class Mean(Metric):
    """The weighted mean of numbers: sum w v / sum w."""

    def reset_state(self) -> None:
        self.total, self.count = 0.0, 0.0

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        values = np.asarray(values, np.float64)
        if sample_weight is None:
            self.gather(float(values.sum()), values.size)
            return
        weights = losses.weight_per_number(sample_weight, values.shape)
        self.gather(float((values * weights).sum()), float(weights.sum()))

    def gather(self, total: float, count: float) -> None:
        """Add a sum of numbers, and how many they are."""
        self.total += total
        self.count += count

    def result(self) -> float:
        return Value(self.total / self.count if self.count else 0.0)


class MeanPerSample(Mean):
    """The weighted mean of what a subclass computes: one number per sample, or several."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        """The numbers (N, ...)."""
        raise NotImplementedError

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        sample_weight = losses.Loss.counted(y_pred, sample_weight)
        y_pred = y_pred if isinstance(y_pred, Tensor) else Tensor(y_pred)
        y_true, y_pred = losses.comparable(y_true, y_pred)
        super().update_state(self.values(y_true, y_pred.storage), sample_weight)


class LossMetric(MeanPerSample):
    """A loss, as a metric."""

    def __init__(self, loss: losses.Loss, name: str | None = None):
        self.loss = loss
        super().__init__(name or loss.name)

    def values(self, y_true: Array, y_pred: Array) -> Array:
        with no_grad():
            return self.loss.call(y_true, as_tensor(y_pred)).storage


class _FunctionMetric(MeanPerSample):
    """A user's function of two arrays (y_true, y_pred) -> values, as a metric."""

    def __init__(self, function: Any):
        self.values = function  # type: ignore[method-assign]
        super().__init__(getattr(function, "__name__", "metric"))


def true_labels(y_true: Array, y_pred: Array) -> Array:
    """Integer labels from labels (N,), (N, 1) or one-hot rows (N, m)."""
    if y_true.ndim == y_pred.ndim and y_true.shape[-1] == y_pred.shape[-1] > 1:
        return y_true.argmax(axis=-1)
    return y_true.reshape(y_pred.shape[:-1]).astype(np.int64)


class CategoricalAccuracy(MeanPerSample):
    """How often the largest of m outputs is the true class (one-hot, or an integer)."""

    def values(self, y_true: Array, y_pred: Array) -> Array:
        return true_labels(y_true, y_pred) == y_pred.argmax(axis=-1)


class SparseCategoricalAccuracy(CategoricalAccuracy):
    """The same, under the name that goes with integer labels."""


TABLE = Registry(__name__, CategoricalAccuracy, SparseCategoricalAccuracy)


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
        of_labels = loss is not None and loss.of_labels
        kind = "sparse_categorical" if of_labels else "categorical"
        name = f"{'binary' if output_shape[-1:] == (1,) and not of_labels else kind}_accuracy"
    metric = look_up(name, TABLE, "metric")
    if isinstance(metric, losses.Loss):
        metric = LossMetric(metric)
    elif not isinstance(metric, Metric | None):
        metric = _FunctionMetric(metric)
    if isinstance(identifier, str):
        metric.name = identifier
    return metric
