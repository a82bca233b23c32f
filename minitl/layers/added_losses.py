"""`layer.add_loss(value)`: what a layer adds to the loss, the KL term of a VAE say.

It is one of the penalties of the layer (`Layer.regularization`), until the model, or the layer
itself once somebody has looked, is called again.
"""

from contextvars import ContextVar
from typing import Any

import numpy as np

from minitl import ops
from minitl.autograd import Variable, as_tensor
from minitl.layers.base import Layer
from minitl.layers.sequences import masking

__all__: list[str] = []

ADDED = Variable(np.zeros(()))  # stands where the weight of a penalty does
within: ContextVar[bool] = ContextVar("within", default=False)  # a call that was begun here


def add_loss(layer: Any, loss: Any) -> None:
    """Add to the loss of this call: a number, or a Tensor (its sum), or a list of them."""
    for each in loss if isinstance(loss, (list, tuple)) else [loss]:
        value = ops.sum(as_tensor(each))

        def penalty(_: Any, value: Any = value) -> Any:
            vars(layer)["_losses_read"] = True
            return value

        layer.regularized.append((ADDED, penalty))
    vars(layer)["_losses_read"] = False
    if Layer.forget_losses is None:
        masking.begin()
        Layer.forget_losses, Layer.with_masks = forget, called


def forget(layer: Any) -> None:
    """Begin anew, for the layer and all inside it."""
    for each in layer.inside():
        if vars(each).pop("_losses_read", None) is not None:
            each.regularized[:] = [pair for pair in each.regularized if pair[0] is not ADDED]
            vars(each)["_losses_read"] = False


def called(layer: Any, *args: Any, **named: Any) -> Any:
    """A call that is in no other begins anew."""
    if within.get():
        return masking.called(layer, *args, **named)
    if hasattr(layer, "all_layers") or any(
        vars(each).get("_losses_read") for each in layer.inside()
    ):
        forget(layer)
    token = within.set(True)
    try:
        return masking.called(layer, *args, **named)
    finally:
        within.reset(token)
