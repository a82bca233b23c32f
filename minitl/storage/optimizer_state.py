"""What an optimizer remembers, in Keras's files: its steps, its rate, and its moments.

Keras keeps a list of arrays: the number of steps, the learning rate (unless it follows a schedule),
then the moments of each weight that is trainable, in the order of the weights. Its files have the
list under `optimizer/vars` (`.weights.h5`, `.keras`) or `optimizer_weights` (`.h5`).
"""

import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from minitl import losses, metrics
from minitl.autograd import Array
from minitl.naming import snake_case
from minitl.optimizers import SGD, Adam, Optimizer
from minitl.optimizers.others import RMSprop
from minitl.storage.settings import serialize


def slots(optimizer: Optimizer) -> list[tuple[str, ...]]:
    """The names of a weight's arrays, in groups: of each group all weights stand together."""
    if isinstance(optimizer, Adam):
        return [("momentum", "velocity"), *([("velocity_hat",)] if optimizer.amsgrad else [])]
    if isinstance(optimizer, RMSprop):
        more = ("momentum", optimizer.momentum), ("average_gradient", optimizer.centered)
        return [("velocity",), *((name,) for name, there in more if there)]
    if isinstance(optimizer, SGD):
        return [("velocity",)] if optimizer.momentum else []
    return [(name,) for name in sorted({n for state in optimizer.states.values() for n in state})]


def arrays_of(model: Any) -> list[tuple[str, Array]]:
    """(name, array) ... of the model's optimizer; none before its first step."""
    optimizer = model.optimizer
    if optimizer is None or not optimizer.iterations:
        return []
    found: list[tuple[str, Any]] = [("iteration", np.int64(optimizer.iterations))]
    if not has_schedule(optimizer):
        found.append(("learning_rate", np.float32(optimizer.learning_rate)))
    for number, (variable, name) in enumerate(_places(model)):
        state = optimizer.states.get(variable, {})
        array = state.get(name, np.zeros_like(variable.storage))
        found.append((f"{number}_{variable.name}_{name}", array))
    prefix = snake_case(type(optimizer).__name__)
    return [(f"{prefix}/{name}", np.asarray(array)) for name, array in found]


def notes_of(model: Any) -> dict[str, Any]:
    """What Keras's list has no place for: Adam's steps of each weight, which unfreezing parts."""
    states = {} if model.optimizer is None else model.optimizer.states
    return {"steps": [int(states.get(v, {}).get("steps", 0)) for v in model.trainable_weights]}


def restore(model: Any, arrays: Sequence[Array], notes: Any = None) -> bool:
    """Give the model's optimizer what a file has; whether it fits. Else a warning says so."""
    optimizer = model.optimizer
    if optimizer is None or not arrays:
        return False
    places, head = _places(model), 1 if has_schedule(optimizer) else 2
    wanted = [variable.shape for variable, _ in places]
    if [a.shape for a in arrays[head:]] != wanted or arrays[0].shape != ():
        why = f"it has {len(wanted)} arrays for them, the file {max(len(arrays) - head, 0)}"
        text = "the optimizer's state in the file does not fit what is trainable in the model"
        warnings.warn(f"{text} ({why}): it starts afresh", UserWarning, stacklevel=3)
        return False
    optimizer.forget()
    optimizer.iterations = int(arrays[0])
    if head == 2 and np.float32(optimizer.learning_rate) != np.float32(arrays[1]):
        optimizer.learning_rate = float(arrays[1])
    for (variable, name), array in zip(places, arrays[head:], strict=True):
        optimizer.state_of(variable)[name] = np.array(array, variable.dtype)
    if isinstance(optimizer, Adam):
        weights = model.trainable_weights
        steps = (notes or {}).get("steps") or [int(arrays[0])] * len(weights)
        for variable, count in zip(weights, steps, strict=False):
            optimizer.state_of(variable)["steps"] = np.array(int(count), np.int64)
    return True


def has_schedule(optimizer: Any) -> bool:
    return isinstance(optimizer.get_config()["learning_rate"], dict)


def _places(model: Any) -> list[tuple[Any, str]]:
    """(weight, name of the array) in the order of Keras's list."""
    weights, groups = model.trainable_weights, slots(model.optimizer)
    return [(v, name) for group in groups for v in weights for name in group]


MODULES = {"optimizer": "keras.optimizers", "learning_rate": "keras.optimizers.schedules"}


def for_keras(compiled: dict[str, Any], by_class: bool = False) -> dict[str, Any]:
    """The settings of `compile` as Keras 3 reads them: with the modules of their classes. With
    `by_class` no loss or metric is a short name: in `.h5` files Keras 3 cannot read 'mse'."""

    def placed(value: Any, module: str, find: Any = None) -> Any:
        if isinstance(value, (list, tuple)):
            return [placed(each, module, find) for each in value]
        if isinstance(value, str) and find is not None and value not in ("accuracy", "acc"):
            with suppress(ValueError):  # of a function of the user's
                value = serialize(find(value))
        if not isinstance(value, dict):
            return value
        described = "class_name" in value
        inside = {
            key: placed(each, MODULES.get(key, module), None if described else find)
            for key, each in value.items()
        }
        return inside | ({"module": module, "registered_name": None} if described else {})

    kinds = {"optimizer": ("optimizers", None), "loss": ("losses", losses.get)}
    found = {}
    for name, value in compiled.items():
        module, find = kinds.get(name, ("metrics", metrics.get))
        find = find if by_class and name != "loss_weights" else None
        found[name] = placed(value, f"keras.{module}", find)
    return found
