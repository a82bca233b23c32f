"""Losses: how wrong the predictions are, one number a sample, then one for the batch.

A loss is called with the true values (an array) and the predictions (a Tensor) and returns a
scalar Tensor. With the default reduction it is

    L = (1/N) sum over n of w[n] * loss[n]

where w are the sample weights. (The sum is divided by N, not by the sum of the weights, as in
Keras.) Where predictions are a softmax or sigmoid, the loss is computed from the logits beneath
it: log(softmax(z)) is exact where softmax(z) has already underflowed to 0.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from minitl import ops
from minitl.autograd import Array, Tensor, as_tensor, record
from minitl.naming import Configurable, Registry, look_up, snake_case

# Keras's fuzz: probabilities that are not from logits are kept this far from 0 and 1.
EPSILON = 1e-7


class Loss(Configurable):
    """Base class. A subclass gives `call`: per-sample losses, shape y_pred.shape[:-1].

    Args:
        name: shown in logs.
        reduction: 'sum_over_batch_size' (the mean, see above), 'sum', 'mean_with_sample_weight'
            (divides by the sum of the weights), or None (the losses themselves).
    """

    def __init__(self, name: str | None = None, reduction: str | None = "sum_over_batch_size"):
        known = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)
        if reduction not in known:
            raise ValueError(f"reduction must be one of {known}, got {reduction!r}")
        self.reduction = {"mean": "sum_over_batch_size", "none": None}.get(
            str(reduction), reduction
        )
        self.name = name or snake_case(type(self).__name__)

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        raise NotImplementedError

    def check(self, y_true: Array, output_shape: tuple[int | None, ...]) -> None:
        """Raise ValueError, in the user's words, unless y_true can be compared with the outputs."""
        wanted = output_shape[1:]
        if y_true.shape[1:] != wanted and not (wanted[-1:] == (1,) and y_true.ndim == len(wanted)):
            raise ValueError(
                f"the targets have shape {y_true.shape}, but the model's output is {output_shape}"
            )

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        y_pred = as_tensor(y_pred)
        losses = self.call(np.asarray(y_true), y_pred)
        if sample_weight is not None:
            given = np.asarray(sample_weight, dtype=losses.dtype)
            if given.ndim == losses.ndim + 1 and given.shape[-1] == 1:
                given = given[..., 0]
            given = given.reshape(given.shape + (1,) * (losses.ndim - given.ndim))
            weights = np.broadcast_to(given, losses.shape)
            losses = losses * weights
        if self.reduction is None:
            return losses
        total = losses.sum()
        if self.reduction == "sum":
            return total
        if self.reduction == "mean_with_sample_weight" and sample_weight is not None:
            return total / float(weights.sum())
        return total / float(max(losses.storage.size, 1))


def _in_rows(function: Callable[[Tensor, Array], Tensor], y_pred: Tensor, y_true: Array) -> Tensor:
    """Apply a function of (rows, m) to (..., m), and shape its result as (...)."""
    if y_pred.ndim == 2:
        return function(y_pred, y_true)
    rows = function(
        ops.reshape(y_pred, (-1, y_pred.shape[-1])), y_true.reshape(-1, y_true.shape[-1])
    )
    return ops.reshape(rows, y_pred.shape[:-1])


def _like(y_true: Array, y_pred: Tensor) -> Array:
    """y_true in the dtype of y_pred, with the last axis that (N,) lacks beside (N, 1)."""
    if y_true.ndim == y_pred.ndim - 1 and y_pred.shape[-1] == 1:
        y_true = y_true[..., None]
    return np.ascontiguousarray(y_true, dtype=y_pred.dtype)


def _smoothed(targets: Array, amount: float, toward: float) -> Array:
    return targets if amount == 0 else targets * targets.dtype.type(1 - amount) + amount * toward


def _logits(y_pred: Tensor, made_by: str, from_logits: bool) -> Tensor | None:
    """The logits: those beneath an output that `made_by` ('softmax', 'sigmoid') made of them, else
    y_pred itself when it is said to be logits, else None."""
    operation, beneath = y_pred.origin or ("", y_pred)
    if operation != made_by:
        return y_pred if from_logits else None
    if from_logits:
        warnings.warn(
            "from_logits=True, but the predictions come from a softmax or sigmoid. The logits "
            "beneath it are used; drop from_logits=True, or the activation.",
            UserWarning,
            stacklevel=5,
        )
    return beneath


def _categorical(targets: Array, y_pred: Tensor, from_logits: bool) -> Tensor:
    """-sum_j t_j log p_j for each row."""
    logits = _logits(y_pred, "softmax", from_logits)
    if logits is not None:
        return _in_rows(ops.softmax_cross_entropy, logits, targets)
    p = y_pred / ops.sum(y_pred, axis=-1, keepdims=True)
    return -ops.sum(ops.log(ops.clip(p, EPSILON, 1 - EPSILON)) * targets, axis=-1)


class CategoricalCrossentropy(Loss):
    """-sum_j t_j log p_j, for targets t (N, m) that are one-hot, or probabilities.

    Args:
        from_logits: the predictions are logits z, with p = softmax(z).
        label_smoothing: s in [0, 1]: t becomes (1 - s) t + s / m.
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_crossentropy",
    ):
        super().__init__(name, reduction)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    def check(self, y_true: Array, output_shape: tuple[int | None, ...]) -> None:
        m = output_shape[-1]
        if y_true.ndim < len(output_shape) or y_true.shape[-1] != m:
            if y_true.ndim == 1 or (y_true.ndim == 2 and y_true.shape[1] == 1 and m != 1):
                raise ValueError(
                    f"categorical_crossentropy takes one-hot targets of shape (N, {m}), but y "
                    f"looks like integer labels (shape {y_true.shape}, {y_true.dtype}). Use "
                    f"loss='sparse_categorical_crossentropy', or "
                    f"minitl.utils.to_categorical(y, {m})."
                )
            raise ValueError(
                f"categorical_crossentropy takes one-hot targets of shape {output_shape}, as the "
                f"model's output; y has shape {y_true.shape}"
            )
        if y_true.size and (y_true.min() < 0 or not np.all(np.isfinite(y_true))):
            raise ValueError("one-hot targets must be finite and not negative")

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        targets = _smoothed(_like(y_true, y_pred), self.label_smoothing, 1 / y_pred.shape[-1])
        return _categorical(targets, y_pred, self.from_logits)


class SparseCategoricalCrossentropy(Loss):
    """-log p_y, for integer labels y (N,) from 0 to m - 1."""

    def __init__(
        self,
        from_logits: bool = False,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "sparse_categorical_crossentropy",
    ):
        super().__init__(name, reduction)
        self.from_logits = from_logits

    def check(self, y_true: Array, output_shape: tuple[int | None, ...]) -> None:
        m = output_shape[-1] or 0
        rank = len(output_shape)
        if y_true.ndim == rank and y_true.shape[-1] == m and m > 1:
            raise ValueError(
                f"sparse_categorical_crossentropy takes integer labels of shape (N,), but y looks "
                f"one-hot (shape {y_true.shape}). Use loss='categorical_crossentropy', or "
                f"y.argmax(axis=-1)."
            )
        if y_true.ndim != rank - 1 and not (y_true.ndim == rank and y_true.shape[-1] == 1):
            raise ValueError(f"integer labels have shape (N,), y has shape {y_true.shape}")
        if y_true.size == 0:
            return
        if not np.all(np.isfinite(y_true)) or np.any(y_true != np.floor(y_true)):
            raise ValueError(f"labels must be integers from 0 to {m - 1}, y has {y_true.dtype}")
        low, high = int(y_true.min()), int(y_true.max())
        if low < 0 or high >= m:
            raise ValueError(
                f"labels must be from 0 to {m - 1} for an output of {m} classes; "
                f"y has labels from {low} to {high}"
            )

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        labels = y_true.reshape(y_pred.shape[:-1]).astype(np.int64)
        targets = np.eye(y_pred.shape[-1], dtype=y_pred.dtype)[labels]
        logits = _logits(y_pred, "softmax", self.from_logits)
        if logits is None:  # as Keras: clipped first, then divided by the sum (by the softmax)
            logits = ops.log(ops.clip(y_pred, EPSILON, 1 - EPSILON))
        return _in_rows(ops.softmax_cross_entropy, logits, targets)


class BinaryCrossentropy(Loss):
    """-(t log p + (1 - t) log(1 - p)), averaged over the last axis.

    Args:
        from_logits: the predictions are logits z, with p = sigmoid(z).
        label_smoothing: s in [0, 1]: t becomes (1 - s) t + s / 2.
    """

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_crossentropy",
    ):
        super().__init__(name, reduction)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    def check(self, y_true: Array, output_shape: tuple[int | None, ...]) -> None:
        super().check(y_true, output_shape)
        if y_true.size and (
            not np.all(np.isfinite(y_true)) or y_true.min() < 0 or y_true.max() > 1
        ):
            raise ValueError(
                f"binary_crossentropy takes targets from 0 to 1, y has values from "
                f"{y_true.min()} to {y_true.max()}"
            )

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        targets = _smoothed(_like(y_true, y_pred), self.label_smoothing, 0.5)
        logits = _logits(y_pred, "sigmoid", self.from_logits)
        if logits is not None:
            return ops.mean(ops.sigmoid_cross_entropy(logits, targets), axis=-1)
        p = ops.clip(y_pred, EPSILON, 1 - EPSILON)
        return -ops.mean(ops.log(p) * targets + ops.log(1 - p) * (1 - targets), axis=-1)


class BinaryFocalCrossentropy(Loss):
    """Binary cross-entropy in which what is already right counts little.

        (1 - q)^gamma * -log q,    q = p where t = 1, 1 - p where t = 0

    averaged over the last axis; for classes of very different frequency. Lin et al. 2017 (arXiv
    1708.02002).

    Args:
        apply_class_balancing: weigh the ones by alpha, the zeros by 1 - alpha.
        gamma: 0 is plain cross-entropy.
        from_logits, label_smoothing: as in BinaryCrossentropy.
    """

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "binary_focal_crossentropy",
    ):
        super().__init__(name, reduction)
        self.apply_class_balancing, self.alpha, self.gamma = apply_class_balancing, alpha, gamma
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    check = BinaryCrossentropy.check

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t = _smoothed(_like(y_true, y_pred), self.label_smoothing, 0.5)
        logits = _logits(y_pred, "sigmoid", self.from_logits)
        if logits is None:
            held = ops.clip(y_pred, EPSILON, 1 - EPSILON)
            losses = -(ops.log(held) * t + ops.log(1 - held) * (1 - t))
        else:
            losses = ops.sigmoid_cross_entropy(logits, t)
            y_pred = ops.sigmoid(logits)
        q = y_pred * t + (1 - y_pred) * (1 - t)
        losses = (1 - q) ** self.gamma * losses
        if self.apply_class_balancing:
            losses = losses * (t * self.alpha + (1 - t) * (1 - self.alpha))
        return ops.mean(losses, axis=-1)


class CategoricalFocalCrossentropy(Loss):
    """-alpha sum_j (1 - p_j)^gamma t_j log p_j, for one-hot targets t (N, m).

    The arguments are those of BinaryFocalCrossentropy; the source, too.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        *,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_focal_crossentropy",
    ):
        super().__init__(name, reduction)
        self.alpha, self.gamma = alpha, gamma
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    check = CategoricalCrossentropy.check

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t = _smoothed(_like(y_true, y_pred), self.label_smoothing, 1 / y_pred.shape[-1])
        p = ops.softmax(y_pred) if self.from_logits else y_pred
        p = p / ops.sum(p, axis=-1, keepdims=True)
        p = ops.clip(p, EPSILON, 1 - EPSILON)
        return -ops.sum((1 - p) ** self.gamma * ops.log(p) * (t * self.alpha), axis=-1)


class _Pointwise(Loss):
    """Base: a function of each target t and prediction y, averaged over the last axis."""

    def __init__(self, reduction: str | None = "sum_over_batch_size", name: str | None = None):
        super().__init__(name, reduction)

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        """The values, and their derivatives by y."""
        raise NotImplementedError

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        values, slopes = self.formula(_like(y_true, y_pred), y_pred.storage)
        values, slopes = (a.astype(y_pred.dtype, copy=False) for a in (values, slopes))
        return ops.mean(record(self.name, values, (y_pred, lambda g: g * slopes)), axis=-1)


class MeanSquaredError(_Pointwise):
    """(t - y)^2, averaged over the last axis."""

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        return (y - t) ** 2, 2 * (y - t)


class MeanAbsoluteError(_Pointwise):
    """|t - y|, averaged over the last axis."""

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        return np.abs(y - t), np.sign(y - t)


class MeanAbsolutePercentageError(_Pointwise):
    """100 |t - y| / |t|, averaged over the last axis."""

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        share = 100 / np.maximum(np.abs(t), t.dtype.type(EPSILON))
        return np.abs(y - t) * share, np.sign(y - t) * share


class MeanSquaredLogarithmicError(_Pointwise):
    """(log(1 + t) - log(1 + y))^2, averaged over the last axis; negative numbers count as 0."""

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        held, target = np.maximum(y, EPSILON), np.maximum(t, EPSILON)
        difference = np.log(held + 1) - np.log(target + 1)
        return difference**2, np.where(y >= EPSILON, 2 * difference / (held + 1), 0)


class Huber(_Pointwise):
    """d^2 / 2 where |d| <= delta, else delta |d| - delta^2 / 2, for d = y - t; averaged.

    Huber 1964: the squared error of small differences, the absolute one of large.
    """

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "huber_loss",
    ):
        super().__init__(reduction, name)
        self.delta = delta

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        d = y - t
        near, far = d * d / 2, self.delta * np.abs(d) - self.delta**2 / 2
        small = np.abs(d) <= self.delta
        return np.where(small, near, far), np.clip(d, -self.delta, self.delta)


class LogCosh(_Pointwise):
    """log cosh(y - t), averaged over the last axis: like Huber's, without a seam."""

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        d = y - t
        return d + np.logaddexp(-2 * d, 0) - np.log(2), np.tanh(d)


class Poisson(_Pointwise):
    """y - t log y, averaged over the last axis: for counts t and predicted means y."""

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        return y - t * np.log(y + EPSILON), 1 - t / (y + EPSILON)


class _Hinge(_Pointwise):
    """Base: a function of how far t y falls short of 1, for targets -1 and 1 (or 0 and 1)."""

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t = _like(y_true, y_pred)
        return super().call(2 * t - 1 if np.isin(t, (0, 1)).all() else t, y_pred)


class Hinge(_Hinge):
    """max(1 - t y, 0), averaged over the last axis: what a support vector machine minimises."""

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        short = 1 - t * y
        return np.maximum(short, 0), np.where(short >= 0, -t, 0)


class SquaredHinge(_Hinge):
    """max(1 - t y, 0)^2, averaged over the last axis."""

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        short = np.maximum(1 - t * y, 0)
        return short**2, -2 * t * short


class CategoricalHinge(Loss):
    """max(1 + (largest score of the other classes) - (score of the true one), 0)."""

    def __init__(
        self,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "categorical_hinge",
    ):
        super().__init__(name, reduction)

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t = _like(y_true, y_pred)
        others = ops.max(y_pred * (1 - t), axis=-1)
        return ops.maximum(others - ops.sum(y_pred * t, axis=-1) + 1, 0)


class KLDivergence(Loss):
    """sum_j t_j log(t_j / p_j): how far the distribution p is from t. Both are held above 1e-7."""

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = "kl_divergence"
    ):
        super().__init__(name, reduction)

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t = np.clip(_like(y_true, y_pred), EPSILON, 1)
        p = ops.clip(y_pred, EPSILON, 1)
        return ops.sum((np.log(t) - ops.log(p)) * t, axis=-1)


class CosineSimilarity(Loss):
    """-<t, y> / (|t| |y|) along the last axis: -1 for vectors of one direction."""

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "cosine_similarity",
    ):
        super().__init__(name, reduction)
        if axis != -1:
            raise ValueError(f"minitl's CosineSimilarity is along the last axis (-1), not {axis}")
        self.axis = axis

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t = ops.normalize(_like(y_true, y_pred), EPSILON)
        return -ops.sum(ops.normalize(y_pred, EPSILON) * t.storage, axis=-1)


TABLE = Registry(
    __name__,
    CategoricalCrossentropy,
    SparseCategoricalCrossentropy,
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalFocalCrossentropy,
    MeanSquaredError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredLogarithmicError,
    Huber,
    LogCosh,
    Poisson,
    Hinge,
    SquaredHinge,
    CategoricalHinge,
    KLDivergence,
    CosineSimilarity,
    mse=MeanSquaredError,
    mae=MeanAbsoluteError,
    mape=MeanAbsolutePercentageError,
    msle=MeanSquaredLogarithmicError,
    kld=KLDivergence,
)


class _FunctionLoss(Loss):
    """A user's function (y_true, y_pred) -> losses, as a Loss."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__(name=getattr(function, "__name__", "loss"))
        self.function = function

    def check(self, y_true: Array, output_shape: tuple[int | None, ...]) -> None:
        pass

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        return as_tensor(self.function(y_true, y_pred))


def get(identifier: Any) -> Any:
    """A loss from its name, class, instance or a function (y_true, y_pred) -> losses."""
    loss = look_up(identifier, TABLE, "loss")
    if isinstance(loss, Loss) or loss is None:
        return loss
    if not callable(loss):
        raise ValueError(f"not a loss: {identifier!r}")
    return _FunctionLoss(loss)


def _function(cls: type[Loss]) -> Callable[..., Tensor]:
    def losses(y_true: Any, y_pred: Any, *args: Any, **settings: Any) -> Tensor:
        return cls(*args, **settings, reduction=None)(y_true, y_pred)  # type: ignore[misc]

    both = inspect.signature(losses).parameters
    own = inspect.signature(cls).parameters
    settings_only = [own[n] for n in own if n not in ("reduction", "name")]
    signature = inspect.Signature([both["y_true"], both["y_pred"], *settings_only])
    losses.__signature__ = signature  # type: ignore[attr-defined]
    losses.__name__ = snake_case(cls.__name__)
    losses.__doc__ = f"Per-sample losses of `{cls.__name__}`, without reduction."
    return losses


categorical_crossentropy = _function(CategoricalCrossentropy)
sparse_categorical_crossentropy = _function(SparseCategoricalCrossentropy)
binary_crossentropy = _function(BinaryCrossentropy)
binary_focal_crossentropy = _function(BinaryFocalCrossentropy)
categorical_focal_crossentropy = _function(CategoricalFocalCrossentropy)
mean_squared_error = _function(MeanSquaredError)
mean_absolute_error = _function(MeanAbsoluteError)
mean_absolute_percentage_error = _function(MeanAbsolutePercentageError)
mean_squared_logarithmic_error = _function(MeanSquaredLogarithmicError)
huber = _function(Huber)
log_cosh = _function(LogCosh)
poisson = _function(Poisson)
hinge = _function(Hinge)
squared_hinge = _function(SquaredHinge)
categorical_hinge = _function(CategoricalHinge)
kl_divergence = _function(KLDivergence)
cosine_similarity = _function(CosineSimilarity)
