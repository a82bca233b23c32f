"""Names that Keras has: what stands elsewhere here, and what is not there, with the reason.

Asked when a name is not found (`naming.attributes_of`). A name that Keras has is never answered by
a bare AttributeError: it is another place's (`elsewhere.txt`), or the reason why it is not there is
an error, with what to do instead (`not_here.txt`).
"""

import importlib
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np

from minitl.initializers import TABLE as INITIALIZERS
from minitl.keras_names.attributes import attribute, refuse_foreign
from minitl.keras_names.reasons import elsewhere, not_here
from minitl.layers.base import REGULARIZERS, Layer
from minitl.naming import complain_about_unknown, look_up, part, snake_case

__all__ = ["answer", "attribute", "not_here", "refuse_foreign"]


def _elsewhere(room: str, name: str) -> list[Any]:
    """What Keras's name stands for where it has another place, or another name, here; or []."""
    if name == "deserialize" and room:
        return [partial(_deserialize, room)]
    for package, module, names in elsewhere():
        there = dict(each.partition("=")[::2] for each in names)
        if package == room and (name in there or "*" in there) and not name.startswith("_"):
            place = importlib.import_module(f"minitl.{module}".strip("."))
            known = there.get(name) or name
            if known == "." or hasattr(place, known):
                return [place if known == "." else getattr(place, known)]
    if room not in ("initializers", "regularizers"):
        return []
    table: Any = REGULARIZERS if room == "regularizers" else INITIALIZERS
    if name in {snake_case(name), "l1_l2"} and name not in table:  # Keras has short names as well
        importlib.import_module(f"minitl.{room}.others" if room[0] == "i" else f"minitl.{room}")
    found = table.get(name) or table.get(snake_case(name.removesuffix("Initializer")))
    return [found] if found else []


def _deserialize(room: str, config: Any, custom_objects: Any = None) -> Any:
    """What `serialize` of the same package, or Keras's, has written down."""
    with part("settings").custom_object_scope(custom_objects or {}):
        if room == "layers":
            return part("files").layer_from(config["class_name"], config["config"])
        package = importlib.import_module(f"minitl.{room.partition('.')[0]}")
        if room == "optimizers.schedules":
            return look_up(config, package.SCHEDULES, "schedule")
        return package.get(config)


def without_idle_arguments(
    kwargs: dict[str, Any], known: Iterable[str], what: str, args: tuple[Any, ...] = ()
) -> dict[str, Any]:
    """The arguments that a function has. Others of Keras's are dropped where they ask for nothing.

    Raises TypeError, with the reason, where they ask for something, or are nobody's.
    """
    left = dict(kwargs)
    new = args and isinstance(args[0], Layer) and "own_weights" not in vars(args[0])
    if new and (said := {*left} & {"input_shape", "input_dim"}):
        shape = left.pop(said.pop())  # for the Sequential that begins with it
        object.__setattr__(args[0], "first_shape", shape if np.ndim(shape) else (shape,))
        kwargs = dict(left)
    for name in kwargs.keys() - set(known):
        reason, _, idle = not_here().get(("arguments", name), "").partition("; left alone: ")
        if reason and str(kwargs[name]) not in idle.split(", "):
            value = f"{what}() has no argument {name!r} (here {kwargs[name]!r})"
            raise TypeError(f"{value}, which Keras's has: {reason}")
        if reason:
            del left[name]
    complain_about_unknown(left, known, what)
    return left


def answer(package: str, name: str, error: str) -> Any:
    """What stands elsewhere. Raises NotImplementedError, with the reason, for what Keras has and
    minitl has not, and AttributeError for what neither has."""
    room = package.removeprefix("minitl").lstrip(".")
    if found := _elsewhere(room, name):
        return found[0]
    reason = not_here().get((room, name))
    if reason is None:
        raise AttributeError(error)
    where = f"{package}.{name}"
    raise NotImplementedError(f"there is no {where}, which Keras has: {reason}")
