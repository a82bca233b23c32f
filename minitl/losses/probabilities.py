"""The cross-entropy of a sigmoid, and focal losses.

They compare targets t with probabilities p, as the losses of `losses/__init__.py` do, which says
what a loss is. `Model.fit` finds them by their names.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl import ops
from minitl.autograd import Array, Tensor
from minitl.losses import (
    EPSILON,
    TABLE,
    CategoricalCrossentropy,
    Crossentropy,
    logits_beneath,
    targets_like,
)
from minitl.naming import public_names


class BinaryCrossentropy(Crossentropy):
    """-(t log p + (1 - t) log(1 - p)), averaged over the last axis."""

    def check(self, y_true: Array, output_shape: tuple[int | None, ...]) -> None:
        super().check(y_true, output_shape)
        if not np.all((y_true >= 0) & (y_true <= 1)):
            raise ValueError(
                f"binary_crossentropy takes targets from 0 to 1, y has values from "
                f"{y_true.min()} to {y_true.max()}"
            )

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        return ops.mean(self.by_number(y_true, y_pred)[0], axis=-1)

    def by_number(self, y_true: Array, y_pred: Tensor) -> tuple[Tensor, Array, Tensor | None]:
        """The losses and the targets, of y_pred's shape, and the logits if there are any."""
        t = targets_like(y_true, y_pred, self.label_smoothing, 0.5)
        logits = logits_beneath(y_pred, "sigmoid", self.from_logits)
        if logits is not None:
            return ops.sigmoid_cross_entropy(logits, t), t, logits
        p = ops.clip(y_pred, EPSILON, 1 - EPSILON)
        return -(ops.log(p) * t + ops.log(1 - p) * (1 - t)), t, None


class BinaryFocalCrossentropy(BinaryCrossentropy):
    """Binary cross-entropy in which what is already right counts little.

        (1 - q)^gamma * -log q,    q = p where t = 1, 1 - p where t = 0

    averaged over the last axis; for classes of very different frequency. Lin et al. 2017 (arXiv
    1708.02002).

    Args:
        apply_class_balancing: weigh the ones by alpha, the zeros by 1 - alpha.
        gamma: 0 is plain cross-entropy.
    """

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        *args: Any,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        self.apply_class_balancing, self.alpha, self.gamma = apply_class_balancing, alpha, gamma

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        losses, t, logits = self.by_number(y_true, y_pred)
        p = y_pred if logits is None else ops.sigmoid(logits)
        q = p * t + (1 - p) * (1 - t)
        losses = (1 - q) ** self.gamma * losses
        if self.apply_class_balancing:
            losses = losses * (t * self.alpha + (1 - t) * (1 - self.alpha))
        return ops.mean(losses, axis=-1)


class CategoricalFocalCrossentropy(Crossentropy):
    """-alpha sum_j (1 - p_j)^gamma t_j log p_j, for one-hot targets t (N, m). Lin et al. 2017."""

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.alpha, self.gamma = alpha, gamma

    check = CategoricalCrossentropy.check

    def call(self, y_true: Array, y_pred: Tensor) -> Tensor:
        t = targets_like(y_true, y_pred, self.label_smoothing, 1 / y_pred.shape[-1])
        p = ops.softmax(y_pred) if self.from_logits else y_pred
        p = ops.clip(p / ops.sum(p, axis=-1, keepdims=True), EPSILON, 1 - EPSILON)
        return -ops.sum((1 - p) ** self.gamma * ops.log(p) * (t * self.alpha), axis=-1)


TABLE.register(*public_names(__name__).values())
