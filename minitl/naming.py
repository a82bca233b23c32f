"""Names: what to say when one is misspelt, how a string finds its class, how a layer gets its own.

A misspelt name that is silently accepted (`layer.trainabel = False`) freezes nothing and costs a
day. So every name that a user can write is checked, and the error shows the nearest right one.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence naming the nearest of `known`, or listing them when none is near.

    >>> did_you_mean("adm", ["adam", "sgd"])
    "Did you mean 'adam'?"
    """
    known = sorted(set(known))
    lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {lower[near[0]]!r}?"
    if len(known) > 40:
        known = [*known[:40], "..."]
    return f"Known: {', '.join(known)}."


def snake_case(name: str) -> str:
    """'MaxPooling2D' -> 'max_pooling2d', the way Keras derives names from classes.

    >>> snake_case("BatchNormalization"), snake_case("Conv2D"), snake_case("ReLU")
    ('batch_normalization', 'conv2d', 're_lu')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def look_up(identifier: Any, table: Mapping[str, Any], what: str) -> Any:
    """The entry of `table` that the string names; classes are instantiated; others pass through.

    Strings are compared in snake case, so 'GlorotUniform' and 'glorot_uniform' are one. A
    dictionary {'class_name': ..., 'config': {...}}, as found in saved models, works as well.

    Raises ValueError for an unknown name, showing the nearest.
    """
    if isinstance(identifier, dict) and "class_name" in identifier:
        entry = _entry(identifier["class_name"], table, what)
        if not inspect.isclass(entry):
            return entry
        parameters = inspect.signature(entry).parameters
        return entry(**without_idle(identifier.get("config", {}), parameters, entry.__name__))
    if isinstance(identifier, str):
        identifier = _entry(identifier, table, what)
    return identifier() if inspect.isclass(identifier) else identifier


def without_idle(
    settings: Mapping[str, Any], known: Iterable[str], what: str, idle: Iterable[str] = ()
) -> dict[str, Any]:
    """The settings that are known. Keras's files hold others; those that do nothing are dropped.

    A setting does nothing when it is None, False, 0 or empty, or is named in `idle`. Raises
    ValueError for one that would do something.
    """
    known = set(known)
    for name, value in settings.items():
        if name not in known and value and name not in idle:
            raise ValueError(f"minitl's {what} has no {name!r} (here {value!r}); cannot load it")
    return {name: value for name, value in settings.items() if name in known}


def _entry(name: str, table: Mapping[str, Any], what: str) -> Any:
    for key in (name, name.lower(), snake_case(name)):
        if key in table:
            return table[key]
    raise ValueError(f"unknown {what} {name!r}. {did_you_mean(name, table)}")


def check_keywords(function: F) -> F:
    """Decorator: a misspelt keyword argument is a TypeError that names the right one."""
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        # As users call it: 'SGD', not 'SGD.__init__'; 'fit', not 'Trainer.fit'.
        what = function.__qualname__.removesuffix(".__init__").rsplit(".")[-1]
        if not takes_any:
            complain_about_unknown(kwargs, parameters, what)
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


def complain_about_unknown(kwargs: Iterable[str], parameters: Iterable[str], what: str) -> None:
    """Raise TypeError for the first of `kwargs` that is not among `parameters`."""
    known = [name for name in parameters if name not in ("self", "cls")]
    for name in kwargs:
        if name not in known:
            raise TypeError(f"{what}() has no argument {name!r}. {did_you_mean(name, known)}")


class Configurable:
    """Base of what a user configures: layers, losses, metrics, optimizers, and their parts.

    A constructor keeps each argument in an attribute of the same name. So the arguments can be
    read back, for a file, and a misspelt one is a TypeError that names the right one.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = check_keywords(cls.__init__)  # type: ignore[method-assign]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments as JSON can hold them."""
        names = inspect.signature(type(self).__init__).parameters
        return {n: serialize(getattr(self, n)) for n in names if n != "self" and hasattr(self, n)}


def serialize(value: Any) -> Any:
    """`value` as JSON can hold it and `look_up` understands it: functions of minitl by name.

    Raises ValueError for other functions: a file could not bring them back.

    >>> serialize((1, None, len))
    Traceback (most recent call last):
    ValueError: <built-in function len> is no part of minitl and cannot be saved by name
    """
    if isinstance(value, (list, tuple)):
        return [serialize(v) for v in value]
    if isinstance(value, dict):
        return {key: serialize(v) for key, v in value.items()}
    if isinstance(value, Configurable):
        return {"class_name": type(value).__name__, "config": value.get_config()}
    if callable(value):
        if not str(getattr(value, "__module__", "")).startswith("minitl."):
            raise ValueError(f"{value!r} is no part of minitl and cannot be saved by name")
        return value.__name__
    return value.item() if hasattr(value, "item") else value  # NumPy's numbers as Python's


_names_given: Counter[str] = Counter()


def unique_name(prefix: str) -> str:
    """'dense', then 'dense_1', 'dense_2' ... within this process."""
    count = _names_given[prefix]
    _names_given[prefix] += 1
    return f"{prefix}_{count}" if count else prefix


def forget_names() -> None:
    """Start counting from the beginning again (`minitl.utils.clear_session`)."""
    _names_given.clear()
