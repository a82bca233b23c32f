"""The other losses: of one-hot targets, a sigmoid, focal ones, of numbers, hinges, of vectors.

`losses/__init__.py` says what a loss is; `Model.fit` finds these by their names. Most are a formula
of one target t and one prediction y, with its derivative by y (`_Pointwise`). At the end each loss
becomes a function as well: `mean_squared_error(y_true, y_pred)`, one number per sample.
"""

import inspect
from typing import Any

import numpy as np

from minitl import losses, ops
from minitl.autograd import Array, Tensor, record
from minitl.losses import EPSILON, TABLE, Loss, Reduction, targets_like
from minitl.naming import NotNegative, Positive, Share, public_names, snake_case
from minitl.ops import arrays


class _OfProbabilities(Loss):
    """Base of losses of probabilities p. `from_logits`: y_pred is z, with p = softmax(z), or
    sigmoid(z). `label_smoothing`, s in [0, 1]: t becomes (1 - s) t + s / m (sigmoid: m = 2).
    """

    def __init__(self, from_logits: bool = False, label_smoothing: Share = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing

    def targets(self, y_true: Array, y_pred: Tensor, toward: float) -> Array:
        """Those of `targets_like`; ValueError unless there is one per prediction."""
        t = targets_like(y_true, y_pred, self.label_smoothing, toward)
        if t.shape != y_pred.shape:
            takes = f"{self.name} takes targets of the shape of the predictions, {y_pred.shape}"
            raise ValueError(f"{takes}, got {t.shape}")
        return t


class CategoricalCrossentropy(_OfProbabilities):
    """-sum_j t_j log p_j, for targets t (N, m) that are one-hot, or probabilities."""

    def check(self, y_true: Array, output_shape: tuple[int | None, ...]) -> None:
        m = output_shape[-1]
        if y_true.ndim < len(output_shape) or y_true.shape[-1] != m:
            text = f"{output_shape}, as the model's output; y has shape {y_true.shape}"
            if y_true.ndim == 1 or (y_true.ndim == 2 and y_true.shape[1] == 1 and m != 1):
                found = f"y looks like integer labels (shape {y_true.shape}, {y_true.dtype})"
                other = f"'sparse_categorical_crossentropy', or minitl.utils.to_categorical(y, {m})"
                text = f"(N, {m}), but {found}. Use loss={other}."
            raise ValueError(f"categorical_crossentropy takes one-hot targets of shape {text}")
        if not np.all((y_true >= 0) & np.isfinite(y_true)):
            raise ValueError("one-hot targets must be finite and not negative")

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        targets = self.targets(y_true, y_pred, 1 / y_pred.shape[-1])
        logits = losses.logits_beneath(y_pred, "softmax", self.from_logits)
        if logits is not None:
            return losses.softmax_losses(logits, targets)
        p = y_pred / ops.sum(y_pred, axis=-1, keepdims=True)
        return -ops.sum(ops.log(ops.clip(p, EPSILON, 1 - EPSILON)) * targets, axis=-1)


class BinaryCrossentropy(_OfProbabilities):
    """-(t log p + (1 - t) log(1 - p)), averaged over the last axis."""

    def check(self, y_true: Array, output_shape: tuple[int | None, ...]) -> None:
        super().check(y_true, output_shape)
        if not np.all((y_true >= 0) & (y_true <= 1)):
            values = f"values from {y_true.min()} to {y_true.max()}"
            raise ValueError(f"binary_crossentropy takes targets from 0 to 1, y has {values}")

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        return ops.mean(self.by_number(y_true, y_pred)[0], axis=-1)

    def by_number(self, y_true: Array, y_pred: Tensor) -> tuple[Tensor, Array, Tensor | None]:
        """The losses and the targets, of y_pred's shape, and the logits if there are any."""
        t = self.targets(y_true, y_pred, 0.5)
        logits = losses.logits_beneath(y_pred, "sigmoid", self.from_logits)
        if logits is not None:
            return arrays.sigmoid_cross_entropy(logits, t), t, logits
        p = ops.clip(y_pred, EPSILON, 1 - EPSILON)
        return -(ops.log(p) * t + ops.log(1 - p) * (1 - t)), t, None


class _Focal(_OfProbabilities):
    """Base of focal losses (Lin et al. 2017, arXiv 1708.02002). `gamma` = 0 is cross-entropy."""

    def __init__(self, alpha: float = 0.25, gamma: NotNegative = 2.0, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.alpha, self.gamma = alpha, gamma


class BinaryFocalCrossentropy(_Focal, BinaryCrossentropy):
    """Binary cross-entropy in which what is already right counts little.

        (1 - q)^gamma * -log q,    q = p where t = 1, 1 - p where t = 0

    averaged over the last axis. `apply_class_balancing` weighs ones by alpha, zeros by 1 - alpha.
    """

    def __init__(self, apply_class_balancing: bool = False, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.apply_class_balancing = apply_class_balancing

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        entropies, t, logits = self.by_number(y_true, y_pred)
        p = y_pred if logits is None else arrays.sigmoid(logits)
        q = p * t + (1 - p) * (1 - t)
        found = (1 - q) ** self.gamma * entropies
        if self.apply_class_balancing:
            found = found * (t * self.alpha + (1 - t) * (1 - self.alpha))
        return ops.mean(found, axis=-1)


class CategoricalFocalCrossentropy(_Focal, check=CategoricalCrossentropy.check):
    """-alpha sum_j (1 - p_j)^gamma t_j log p_j, for one-hot targets t (N, m). Lin et al. 2017."""

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t = self.targets(y_true, y_pred, 1 / y_pred.shape[-1])
        p = ops.softmax(y_pred) if self.from_logits else y_pred
        p = ops.clip(p / ops.sum(p, axis=-1, keepdims=True), EPSILON, 1 - EPSILON)
        return -ops.sum((1 - p) ** self.gamma * ops.log(p) * (t * self.alpha), axis=-1)


class _AlongLast(Loss):
    """Base: the constructor of losses that Keras gives their reduction first, then their name."""

    def __init__(self, reduction: Reduction = "sum_over_batch_size", name: str | None = None):
        super().__init__(name, reduction)


class _Pointwise(_AlongLast):
    """Base: a function of each target t and prediction y, averaged over the last axis."""

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        """The values, and their derivatives by y."""
        raise NotImplementedError

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        values, slopes = self.formula(targets_like(y_true, y_pred), y_pred.storage)
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
        delta: Positive = 1.0,
        reduction: Reduction = "sum_over_batch_size",
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


class Hinge(_Pointwise):
    """max(1 - t y, 0), averaged over the last axis, for targets t of -1 and 1, or 0 and 1."""

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t = targets_like(y_true, y_pred)
        return super().call(2 * t - 1 if np.isin(t, (0, 1)).all() else t, y_pred)

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        short = 1 - t * y
        return np.maximum(short, 0), np.where(short >= 0, -t, 0)


class SquaredHinge(Hinge):
    """max(1 - t y, 0)^2, averaged over the last axis, for the targets of Hinge."""

    def formula(self, t: Array, y: Array) -> tuple[Array, Array]:
        short = np.maximum(1 - t * y, 0)
        return short**2, -2 * t * short


class CategoricalHinge(_AlongLast):
    """max(1 + (largest score of the other classes) - (score of the true one), 0)."""

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t = targets_like(y_true, y_pred)
        others = ops.max(y_pred * (1 - t), axis=-1)
        return ops.maximum(others - ops.sum(y_pred * t, axis=-1) + 1, 0)


class KLDivergence(_AlongLast):
    """sum_j t_j log(t_j / p_j): how far the distribution p is from t. Both are held above 1e-7."""

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t = np.clip(targets_like(y_true, y_pred), EPSILON, 1)
        p = ops.clip(y_pred, EPSILON, 1)
        return ops.sum((np.log(t) - ops.log(p)) * t, axis=-1)


class CosineSimilarity(_AlongLast):
    """-<t, y> / (|t| |y|) along the last axis: -1 for vectors of one direction."""

    def __init__(self, axis: int = -1, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if axis != -1:
            raise ValueError(f"minitl's CosineSimilarity is along the last axis (-1), not {axis}")
        self.axis = axis

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t = ops.normalize(targets_like(y_true, y_pred), epsilon=EPSILON)
        return -ops.sum(ops.normalize(y_pred, epsilon=EPSILON) * t.storage, axis=-1)


class Dice(_AlongLast):
    """1 - 2 sum t y / (sum t + sum y) over `axis` (None: all), for segmentations."""

    def __init__(
        self,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = "dice",
        axis: Any = None,
    ):
        super().__init__(reduction, name)
        self.axis = axis

    alpha = beta = 0.5
    floor = EPSILON / 2  # Keras adds EPSILON to twice this denominator

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t, axis = targets_like(y_true, y_pred), self.axis
        both = ops.sum(y_pred * t, axis=axis)
        missed, false = ops.sum((1 - y_pred) * t, axis=axis), ops.sum(y_pred * (1 - t), axis=axis)
        return 1 - both / (both + missed * self.alpha + false * self.beta + self.floor)


class Tversky(Dice):
    """1 - B / (B + alpha M + beta F): both, missed, false. Salehi et al. 2017 (1706.05721)."""

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = "tversky",
        axis: Any = None,
    ):
        super().__init__(reduction, name, axis)
        self.alpha, self.beta, self.floor = alpha, beta, EPSILON


short: dict[str, Any] = {"mse": MeanSquaredError, "mae": MeanAbsoluteError, "kld": KLDivergence}
short |= {"bce": BinaryCrossentropy}
short |= {"mape": MeanAbsolutePercentageError, "msle": MeanSquaredLogarithmicError}
TABLE.register(*public_names(__name__).values(), **short)


def _function_of(cls: type[Loss]) -> Any:
    def function(y_true: Any, y_pred: Any, *args: Any, **settings: Any) -> Tensor:
        return cls(*args, **settings, reduction=None)(y_true, y_pred)  # type: ignore[misc]

    both, own = inspect.signature(function).parameters, inspect.signature(cls).parameters
    taken = [both["y_true"], both["y_pred"]]
    taken += [own[n] for n in own if n not in ("reduction", "name")]
    described: Any = function
    described.__signature__, described.__name__ = inspect.Signature(taken), snake_case(cls.__name__)
    described.__qualname__ = described.__name__  # where pickle looks
    described.__doc__ = f"Per-sample losses of `{cls.__name__}`, without reduction."
    return described


globals().update({snake_case(cls.__name__): _function_of(cls) for cls in set(TABLE.values())})


def get(identifier: Any) -> Any:
    """As Keras's: 'mse' is the function `mean_squared_error`, one number per sample, and
    'MeanSquaredError' an object, the mean of them; functions are themselves."""
    if callable(identifier) and not isinstance(identifier, type):
        return identifier
    loss = losses.as_loss(identifier)
    short = isinstance(identifier, str) and identifier == identifier.lower()
    return globals().get(snake_case(type(loss).__name__), loss) if short else loss


SYMMETRIC = (MeanSquaredError, MeanAbsoluteError, MeanSquaredLogarithmicError, Huber, LogCosh)


def by_both(loss: Any, targets: Tensor) -> Any:
    """`loss.call` where the targets, too, come from weights that learn: a teacher's outputs, say.

    The derivative by y_pred is the loss's own. That by y_true comes with a second term, which has
    it alone: of a symmetric loss, the loss the other way round; of cross-entropies and
    KLDivergence, their formula with y_pred held. Raises ValueError for other losses.
    """

    def second(t: Tensor, y: Array) -> Tensor:
        if isinstance(loss, SYMMETRIC) or type(loss) in (CosineSimilarity, Dice):
            return loss.call(y, t)
        if type(loss) is KLDivergence:
            t = ops.clip(t, EPSILON, 1)
            return ops.sum((ops.log(t) - np.log(np.clip(y, EPSILON, 1))) * t, axis=-1)
        if type(loss) is CategoricalCrossentropy:
            p = ops.softmax(Tensor(y)).storage if loss.from_logits else y
            costs = -np.log(np.clip(p / p.sum(-1, keepdims=True), EPSILON, 1 - EPSILON))
            return ops.sum(t * (costs * (1 - loss.label_smoothing)), axis=-1)
        if type(loss) is BinaryCrossentropy:
            p = np.clip(
                ops.sigmoid(Tensor(y)).storage if loss.from_logits else y, EPSILON, 1 - EPSILON
            )
            return ops.mean(t * ((np.log1p(-p) - np.log(p)) * (1 - loss.label_smoothing)), axis=-1)
        own = f"{loss.name} is differentiated by y_pred alone, and y_true comes from weights"
        how = "freeze what makes it (trainable = False), or take ops.stop_gradient(y_true)"
        raise ValueError(f"{own} that learn: {how}")

    def call(y_true: Array, y_pred: Tensor) -> Tensor:
        t = targets if targets.shape == y_true.shape else ops.reshape(targets, y_true.shape)
        if hasattr(loss, "function") or not type(loss).__module__.startswith("minitl."):
            return loss.call(t, y_pred)  # the user's, of minitl.ops
        added = second(t, y_pred.storage)
        return loss.call(y_true, y_pred) + (added - added.storage)

    return call
