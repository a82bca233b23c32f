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
        return entry(**identifier.get("config", {})) if inspect.isclass(entry) else entry
    if isinstance(identifier, str):
        identifier = _entry(identifier, table, what)
    return identifier() if inspect.isclass(identifier) else identifier


def _entry(name: str, table: Mapping[str, Any], what: str) -> Any:
    for key in (name, name.lower(), snake_case(name)):
        if key in table:
            return table[key]
    raise ValueError(f"unknown {what} {name!r}. {did_you_mean(name, table)}")


def check_keywords(function: F) -> F:
    """Decorator: a misspelt keyword argument is a TypeError that names the right one."""
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        complain_about_unknown(kwargs, parameters, function.__qualname__)
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


def complain_about_unknown(
    kwargs: Iterable[str], parameters: Mapping[str, inspect.Parameter], what: str
) -> None:
    """Raise TypeError for the first of `kwargs` that is not among `parameters`."""
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for name in kwargs:
        if name not in parameters:
            known = [p for p in parameters if p not in ("self", "cls")]
            raise TypeError(f"{what}() has no argument {name!r}. {did_you_mean(name, known)}")


_names_given: Counter[str] = Counter()


def unique_name(prefix: str) -> str:
    """'dense', then 'dense_1', 'dense_2' ... within this process."""
    count = _names_given[prefix]
    _names_given[prefix] += 1
    return f"{prefix}_{count}" if count else prefix


def forget_names() -> None:
    """Start counting from the beginning again (`minitl.utils.clear_session`)."""
    _names_given.clear()
