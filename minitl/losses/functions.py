"""Losses as functions of (y_true, y_pred) and their settings: one number per sample.

There is one for each class of loss, `mean_squared_error` for MeanSquaredError and so on.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from minitl.autograd import Tensor
from minitl.losses import TABLE, Loss, probabilities, regression  # noqa: F401 (they fill TABLE)
from minitl.naming import snake_case


def _function_of(cls: type[Loss]) -> Callable[..., Tensor]:
    def losses(y_true: Any, y_pred: Any, *args: Any, **settings: Any) -> Tensor:
        return cls(*args, **settings, reduction=None)(y_true, y_pred)  # type: ignore[misc]

    both, own = inspect.signature(losses).parameters, inspect.signature(cls).parameters
    settings = [own[n] for n in own if n not in ("reduction", "name")]
    losses.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [both["y_true"], both["y_pred"], *settings]
    )
    losses.__name__ = snake_case(cls.__name__)
    losses.__doc__ = f"Per-sample losses of `{cls.__name__}`, without reduction."
    return losses


globals().update({snake_case(cls.__name__): _function_of(cls) for cls in set(TABLE.values())})
