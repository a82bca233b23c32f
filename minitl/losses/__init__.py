"""Losses: how wrong the predictions are, one number per sample, then one for the batch.

A loss is called with the true values (an array) and the predictions (a Tensor) and returns a
scalar Tensor. With the default reduction it is

    L = (1/N) sum over n of w[n] * loss[n]

where w are the sample weights. (The sum is divided by N, not by the sum of the weights, as in
Keras.) Where predictions are a softmax or sigmoid, the loss is computed from the logits beneath
it: log(softmax(z)) is exact where softmax(z) has already underflowed to 0.

That of a softmax and integer labels is here, the others in `others.py`.
"""

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from minitl import config, ops
from minitl.autograd import Array, Tensor, as_tensor
from minitl.naming import Configurable, Registry, attributes_of, look_up, snake_case

if TYPE_CHECKING:
    from minitl.losses.others import *

__getattr__ = attributes_of(__name__)

# Keras's fuzz: probabilities that are not from logits are kept this far from 0 and 1.
EPSILON = 1e-7
Average = Literal["sum_over_batch_size", "mean", "mean_with_sample_weight"]
Reduction: TypeAlias = Average | Literal["sum", "none", None]


class Loss(Configurable):
    """Base class. A subclass gives `call`: per-sample losses, shape y_pred.shape[:-1].

    `of_labels`: whether the true values are integer labels, not one number per output.
    `reduction` is 'sum_over_batch_size' (the mean, see above), 'sum', 'mean_with_sample_weight'
    (divides by the sum of the weights), or None (the losses themselves).
    """

    of_labels = False
    counted: Any = staticmethod(lambda y_pred, weight, *_: weight)  # 0 of steps that do not count

    def __init__(self, name: str | None = None, reduction: Reduction = "sum_over_batch_size"):
        same = {"mean": "sum_over_batch_size", "none": None}
        self.reduction: str | None = same.get(str(reduction), reduction)
        self.name = name or snake_case(type(self).__name__)

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        raise NotImplementedError

    def check(self, y_true: Array, output_shape: tuple[int | None, ...]) -> None:
        """Raise ValueError, in the user's words, unless y_true can be compared with the outputs."""
        found, wanted = y_true.shape[1:], output_shape[1:]
        users = not type(self).__module__.startswith("minitl.")  # which compare what they like
        if not users and wanted not in (found, (*found, 1)) and found != (*wanted, 1):
            output = f"the model's output is {output_shape}"
            raise ValueError(f"the targets have shape {y_true.shape}, but {output}")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        learned = getattr(y_true, "requires_grad", False)  # targets that weights have made
        call = __getattr__("by_both")(self, y_true) if learned else self.call
        losses = as_tensor(call(*comparable(y_true, y_pred)))
        if (weights := self.counted(y_pred, sample_weight, self.reduction)) is not None:
            weights = weight_per_number(weights, losses.shape, losses.dtype)
        losses = losses if weights is None else losses * weights
        if self.reduction is None:
            return losses
        count = float(max(losses.storage.size, 1))
        if self.reduction == "mean_with_sample_weight" and weights is not None:
            count = float(weights.sum())
        return ops.sum_over(losses, 1.0 if self.reduction == "sum" else count)


def comparable(y_true: Any, y_pred: Any) -> tuple[Array, Tensor]:
    """Both as floating-point numbers of one dtype, and of one rank where a last axis of 1 is all
    that is between them: (N,) beside (N, 1) would be stretched to (N, N)."""
    y_pred = y_pred if isinstance(y_pred, Tensor) else Tensor(np.asarray(y_pred, config.floatx()))
    if y_pred.storage.dtype.kind != "f":
        y_pred = Tensor(y_pred.storage.astype(config.floatx()))
    y_true = np.asarray(y_true, dtype=y_pred.storage.dtype)
    if y_true.shape == y_pred.storage.shape:
        return y_true, y_pred
    longer, shorter = sorted((y_true.shape, y_pred.shape), key=len, reverse=True)
    if len(longer) == len(shorter) + 1 and longer[-1] == 1:
        if y_true.size != y_pred.storage.size:
            raise ValueError(f"targets {y_true.shape} do not fit predictions {y_pred.shape}")
        shape = longer if len(shorter) == 1 else longer[:-1]
        y_true = y_true.reshape(shape) if y_true.shape != shape else y_true
        y_pred = ops.reshape(y_pred, shape) if y_pred.shape != shape else y_pred
    return y_true, y_pred


def weight_per_number(weight: Any, shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
    """Weights (N,) or (N, 1), as (N, ...): one per number of an array of that shape; None is 1."""
    w = np.asarray(1.0 if weight is None else weight, dtype)
    if not shape:  # one number for all of them, and counted for each
        return w
    if w.ndim == len(shape) + 1 and w.shape[-1] == 1:
        w = w[..., 0]
    return np.broadcast_to(w.reshape(w.shape + (1,) * (len(shape) - w.ndim)), shape)


def targets_like(y_true: Array, y_pred: Tensor, smoothing: float = 0, toward: float = 0) -> Array:
    """y_true in the dtype of y_pred, with the last axis that (N,) lacks beside (N, 1).

    With s = `smoothing`, t becomes (1 - s) t + s * toward.
    """
    if y_true.ndim == y_pred.ndim - 1 and y_pred.shape[-1] == 1:
        y_true = y_true[..., None]
    t = np.ascontiguousarray(y_true, dtype=y_pred.dtype)
    return t if smoothing == 0 else t * t.dtype.type(1 - smoothing) + smoothing * toward


def logits_beneath(y_pred: Tensor, made_by: str, from_logits: bool) -> Tensor | None:
    """The logits: those beneath an output that `made_by` ('softmax', 'sigmoid') made of them, else
    y_pred itself when it is said to be logits, else None."""
    operation, beneath = y_pred.origin or ("", y_pred)
    if operation != made_by:
        return y_pred if from_logits else None
    if from_logits:
        said = "from_logits=True, but the predictions come from a softmax or sigmoid"
        how = "The logits beneath it are used; drop from_logits=True, or the activation."
        warnings.warn(f"{said}. {how}", UserWarning, stacklevel=5)
    return beneath


def softmax_losses(logits: Tensor, targets: Array) -> Tensor:
    """The cross-entropies (...) of softmax(logits) and targets, both (..., m)."""
    if logits.ndim == 2:
        return ops.softmax_cross_entropy(logits, targets)
    flat = (-1, logits.shape[-1])
    found = ops.softmax_cross_entropy(ops.reshape(logits, flat), targets.reshape(flat))
    return ops.reshape(found, logits.shape[:-1])


class SparseCategoricalCrossentropy(Loss):
    """-log p_y, for integer labels y (N,) from 0 to m - 1. `from_logits`: y_pred is z, and p is
    softmax(z)."""

    of_labels = True

    def __init__(self, from_logits: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.from_logits = from_logits

    def check(self, y_true: Array, output_shape: tuple[int | None, ...]) -> None:
        m, rank = output_shape[-1] or 0, len(output_shape)
        if y_true.ndim == rank and y_true.shape[-1] == m and m > 1:
            takes = "sparse_categorical_crossentropy takes integer labels of shape (N,)"
            use = "Use loss='categorical_crossentropy', or y.argmax(axis=-1)."
            raise ValueError(f"{takes}, but y looks one-hot (shape {y_true.shape}). {use}")
        if y_true.ndim != rank - 1 and not (y_true.ndim == rank and y_true.shape[-1] == 1):
            raise ValueError(f"integer labels have shape (N,), y has shape {y_true.shape}")
        if not np.all(np.isfinite(y_true) & (y_true == np.floor(y_true))):
            raise ValueError(f"labels must be integers from 0 to {m - 1}, y has {y_true.dtype}")
        if not np.all((y_true >= 0) & (y_true < m)):
            what = f"labels must be from 0 to {m - 1} for an output of {m} classes"
            found = f"y has labels from {int(y_true.min())} to {int(y_true.max())}"
            raise ValueError(f"{what}; {found}")

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        labels = y_true.reshape(y_pred.shape[:-1]).astype(np.int64)
        targets = np.eye(y_pred.shape[-1], dtype=y_pred.dtype)[labels]
        logits = logits_beneath(y_pred, "softmax", self.from_logits)
        if logits is None:  # as Keras: clipped first, then divided by the sum (by the softmax)
            logits = ops.log(ops.clip(y_pred, EPSILON, 1 - EPSILON))
        return softmax_losses(logits, targets)


class _FunctionLoss(Loss, check=lambda *_: None):
    """A user's function (y_true, y_pred) -> losses, as a Loss."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__(name=getattr(function, "__name__", "loss"))
        self.function = function

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        return as_tensor(self.function(y_true, y_pred))


TABLE = Registry(__name__, SparseCategoricalCrossentropy)


def as_loss(identifier: Any) -> Any:
    """A Loss from its name, class, instance or a function (y_true, y_pred) -> losses."""
    loss = look_up(identifier, TABLE, "loss")
    if isinstance(loss, Loss) or loss is None:
        return loss
    return _FunctionLoss(loss)
