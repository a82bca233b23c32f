"""What an argument may be: said once, in the signature, and checked when the function is called.

`Rules` reads the annotations of a function: plain ones (`int`, `str | None`, `Sequence[str]`,
`Literal["min", "max"]`, `Layer`), and those of `naming.py` that have a range: `filters: Count` is
an integer of at least 1. `check` raises an ArgumentError for the first value that is against its
rule: it names the argument, what was expected and what was found. Nothing has been done by then.
`naming.check_keywords` is the decorator that does this at the entry of a public function.
"""

import dataclasses
import functools
import inspect
import math
import os
import re
import sys
import types
from collections import abc
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin

import numpy as np

from minitl import config
from minitl.layers.base import Layer, ticks
from minitl.naming import Configurable, check_arguments, check_keywords, leaves, refuse_foreign


class ArgumentError(TypeError, ValueError):
    """An argument of a wrong type or out of range: of both kinds, for whoever catches either."""

    words: Any  # of an error to which `tell` has added the arguments: what it said by itself


class Rule(NamedTuple):
    """What a value may be: the words after 'must be', and a test."""

    words: str
    fits: Callable[[Any], Any]


def whole(value: Any) -> bool:
    """Whether it is an integer, NumPy's too; True and False are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def number(words: str, low: float, high: float = float(np.finfo(float).max)) -> Rule:
    """A number from `low` to `high`; the `high` of most is finite, and so is the number."""
    kinds = (int, float, np.integer, np.floating)
    return Rule(words, lambda v: isinstance(v, kinds) and type(v) is not bool and low <= v <= high)


def several(*rules: Rule) -> Rule:
    """A list, tuple or the like: of any length, all by the one rule, or one by each."""
    text, count = f"each {rules[0].words}", len(rules)
    words = f"a list or tuple ({text})" if count == 1 else f"{count} values ({text})"

    def fits(value: Any) -> bool:
        listed = hasattr(value, "__len__") and hasattr(value, "__getitem__")
        if (
            not listed
            or isinstance(value, (str, bytes, abc.Mapping, type))
            or getattr(value, "ndim", 1) == 0
        ):
            return False
        by = rules * len(value) if count == 1 else rules
        return len(by) == len(value) and all(r.fits(v) for r, v in zip(by, value, strict=True))

    return Rule(words, fits)


def either(*rules: Rule) -> Rule:
    text = " or ".join(rule.words for rule in rules)
    return Rule(text, lambda v: any(rule.fits(v) for rule in rules))


REAL = number("a finite number", -float(np.finfo(float).max))
NAMED = Rule(
    "a name, a function or an object that its class made",
    lambda v: isinstance(v, (str, dict)) or callable(v) or hasattr(v, "get_config"),
)
COUNT = Rule("a positive integer", lambda v: whole(v) and 1 <= v < 2**63)
NATURAL = Rule("an integer of at least 0", lambda v: whole(v) and v >= 0)
MARGIN = either(NATURAL, several(NATURAL, NATURAL))
# What an `Annotated` says in words, in `naming.py` or beside the one class that has it.
KINDS = {
    rule.words: rule
    for rule in (
        COUNT,
        NATURAL,
        Rule("an integer of at least 3", lambda v: whole(v) and v >= 3),
        Rule("n, (n, n) or ((n, n), (n, n))", either(NATURAL, several(MARGIN, MARGIN)).fits),
        Rule("an array of images", lambda v: isinstance(v, np.ndarray)),
        either(REAL, several(REAL, REAL)),
        number("a number", -math.inf, math.inf),
        either(COUNT, several(COUNT)),
        number("a finite number of at least 0", 0),
        number("a finite number above 0", math.nextafter(0, 1)),
        number("in [0, 1]", 0, 1),
        number("in [0, 1)", 0, math.nextafter(1, 0)),
        NAMED,
        Rule("True or False, no number", lambda v: isinstance(v, (bool, np.bool_))),
    )
}
PLAIN: dict[Any, Rule] = {
    int: Rule("an integer", whole),
    float: REAL,
    bool: Rule("True or False", lambda v: isinstance(v, (int, np.bool_)) and v in (0, 1)),
    str: Rule("a string", lambda v: isinstance(v, str)),
    types.NoneType: Rule("None", lambda v: v is None),
    np.ndarray: Rule("a NumPy array", lambda v: isinstance(v, (np.ndarray, np.generic))),
    os.PathLike: Rule("a path", lambda v: isinstance(v, os.PathLike)),
    abc.Callable: Rule("a function", callable),
    abc.Iterable: Rule("iterable", lambda v: hasattr(v, "__iter__") and not isinstance(v, str)),
}
ANYTHING = Rule("anything", lambda v: True)


def rule_of(annotation: Any) -> Rule:
    """The rule that an annotation stands for; ANYTHING where it has none."""
    kind, inside = get_origin(annotation) or annotation, get_args(annotation)
    if kind is Annotated:
        rules = [KINDS.get(each, each) for each in inside[1:]]
        return next(each for each in (*rules, rule_of(inside[0])) if isinstance(each, Rule))
    if kind in PLAIN:
        return PLAIN[kind]
    if kind in (Union, types.UnionType):
        rules = [rule_of(each) for each in inside]
        return ANYTHING if ANYTHING in rules else either(*rules)
    if kind is Literal:
        words = "one of " + ", ".join(map(repr, inside))
        return Rule(words, lambda v: isinstance(v, (str, int, types.NoneType)) and v in inside)
    if kind in (list, tuple, abc.Sequence):
        rules = [rule_of(each) for each in inside if each is not ...]
        return several(*(rules or [ANYTHING]))
    if kind in (dict, abc.Mapping):
        key, value = [rule_of(each) for each in inside] or (ANYTHING, ANYTHING)
        each = f", {{{key.words}: {value.words}}}" if inside else ""
        return Rule(
            f"a dictionary{each}",
            lambda d: (
                isinstance(d, abc.Mapping)
                and all(key.fits(k) and value.fits(v) for k, v in d.items())
            ),
        )
    if isinstance(kind, type) and kind not in (Any, object):
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        return Rule(f"{article} {kind.__name__}", lambda v: isinstance(v, kind))
    return ANYTHING


class Rules:
    """Those of a function's arguments; of a constructor, of `cls`, also what it passes on."""

    def __init__(self, function: Callable[..., Any], known: Mapping[str, Any], cls: type | None):
        above = [vars(c)["__init__"] for c in cls.__mro__ if "__init__" in vars(c)] if cls else []
        found: dict[str, Rule] = {}
        for each in map(inspect.unwrap, above or [function]):
            space = getattr(each, "__globals__", {})
            if str(getattr(each, "__module__", "")).startswith("minitl."):
                for name, annotation in getattr(each, "__annotations__", {}).items():
                    if name not in found:
                        found[name] = _read(annotation, space)
        self.rules = {n: rule for n, rule in found.items() if n in known and rule is not ANYTHING}
        kinds = {p.kind for p in known.values()}
        self.cls, self.known, self.fits = cls, known, {"self", "x", "epochs"} <= known.keys()
        self.takes_more = inspect.Parameter.VAR_POSITIONAL in kinds
        self.by_place = [n for n, p in known.items() if p.kind <= p.POSITIONAL_OR_KEYWORD]

    def check(self, what: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise ArgumentError for the first value that is against its rule."""
        if len(args) > len(self.by_place) and not self.takes_more:
            most = ", ".join(name for name in self.by_place if name != "self") or "nothing"
            raise TypeError(f"{what}() takes by place {most}; got {len(args)} values")
        rules = self.rules
        for name, value in (*zip(self.by_place, args, strict=False), *kwargs.items()):
            if name in rules and not rules[name].fits(value):
                refuse_foreign(value, f"{what}: {name}")
                found = f"must be {rules[name].words}, got {shown(value)}"
                raise ArgumentError(f"{what}: {name} {found}")

    def begin(self, what: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Before the call: its arguments are checked. Returned is what `fail` takes."""
        self.check(what, args, kwargs)
        state = config.random_state().bit_generator.state if self.cls or self.fits else None
        return state if self.cls else (next(ticks), state, self.fits and _past(args[0]))

    def fail(self, error: Exception, what: str, args: Any, kwargs: Any, begun: Any) -> NoReturn:
        """After a call that failed: `tell`. A constructor that fails has drawn no seed, and what is
        told of arguments before a step of training was done has built no model, nor begun a fit."""
        if self.cls:
            config.random_state().bit_generator.state = begun
        elif isinstance(error, (TypeError, ValueError)):
            tick, state, past = begun
            for model in leaves(args[:1], Layer):
                if not getattr(vars(model).get("optimizer"), "iterations", 0):
                    model.undo_builds(tick)
                if self.fits and past[0] == _past(model)[0]:
                    config.random_state().bit_generator.state = state
                    model.history, model.stop_training = past[1:]
        tell(error, what, self.given(args, kwargs))

    def given(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call by their names."""
        more: dict[str, Any] = {}
        if len(args) > len(self.by_place):
            more = {p.name: args[len(self.by_place) :] for p in self.known.values() if p.kind == 2}
        return {**dict(zip(self.by_place, args, strict=False)), **more, **kwargs}


def _past(model: Any) -> tuple[int, Any, bool]:
    """The steps of training that a model has seen, and what the last `fit` left."""
    return getattr(model.optimizer, "iterations", 0), model.history, model.stop_training


@functools.cache
def door(function: Any) -> Any:
    """The function, with its arguments checked (`naming.check_keywords`)."""
    return function if hasattr(function, "__wrapped__") else check_keywords(function)


def check_methods(cls: Any) -> Any:
    """Decorator: the public methods that a class defines check their arguments."""
    for name, value in [*vars(cls).items()]:
        if name[0] != "_" and isinstance(value, types.FunctionType):
            setattr(cls, name, door(value))
        elif isinstance(value, classmethod):
            setattr(cls, name, classmethod(door(value.__func__)))
    return cls


def tell(error: Exception, what: str, given: Mapping[str, Any]) -> NoReturn:
    """Raise it, or, where it names none of the arguments, one that shows them after its words."""
    shows = dict(given)
    if (owner := shows.pop("self", None)) is not None:
        if (name := getattr(owner, "name", "")) and repr(name) in str(error):  # a layer's words
            raise error
        if (name := type(owner).__name__) != what:
            what = name if what == "__call__" else f"{name}.{what}"
    kinds = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)
    if not isinstance(error, kinds) or not _is_bare(error, shows):
        raise error
    call = ", ".join(f"{name}={shown(value)}" for name, value in shows.items())
    words = getattr(error, "words", error)  # without the arguments of a function further down
    outer = ArgumentError(f"{words} (in {what}({call}))")
    outer.words = words
    raise outer from error


def failed(
    function: Any, error: Exception, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> NoReturn:
    """`tell` of a call's error."""
    rules = Rules(function, inspect.signature(function).parameters, None)
    tell(error, function.__name__, rules.given(args, kwargs))


def _is_bare(error: Exception, known: Iterable[str]) -> bool:
    """Whether it names no argument, is no error of minitl's own kind, and not of user's code."""
    of_ours = type(error).__module__.startswith(("minitl", "sklearn")) and not hasattr(
        error, "words"
    )
    if of_ours or set(re.findall(r"\w+", str(error))) & {*known}:
        return False
    trace = error.__traceback__
    ours = ("minitl", "numpy", "PIL", "scipy", "h5py", "matplotlib", "sklearn")
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if name not in (*ours, *sys.stdlib_module_names) or name == "__main__":
            return False
        trace = trace.tb_next
    return True


def guard(space: dict[str, Any]) -> None:
    """At a module's end, `guard(globals())`: its public functions check their arguments, and so do
    the constructors of its public classes, but for `Configurable` ones and dataclasses."""
    for name, value in list(space.items()):
        if name[0] == "_" or getattr(value, "__module__", "") != space["__name__"]:
            continue
        if isinstance(value, types.FunctionType):
            space[name] = door(value)
        plain = isinstance(value, type) and not issubclass(value, (Configurable, Exception, tuple))
        if plain and "__init__" in vars(value) and not dataclasses.is_dataclass(value):
            check_arguments(value)


def _read(annotation: Any, space: dict[str, Any]) -> Rule:
    try:
        return rule_of(eval(annotation, space) if isinstance(annotation, str) else annotation)
    except NameError:  # a name that is there for type checkers alone
        return ANYTHING


def shown(value: Any) -> str:
    """A value as a message can show it: arrays by shape and dtype, the rest in 80 characters."""
    arrays = hasattr(value, "shape") and hasattr(value, "dtype")
    if arrays and not isinstance(value, type) and value.shape:
        return f"{type(value).__name__} {tuple(value.shape)} of {value.dtype}"
    if isinstance(value, (list, tuple)) and any(hasattr(v, "dtype") for v in value[:9]):
        inside = (shown(v) if hasattr(v, "dtype") else repr(v) for v in value[:3])
        return f"a {type(value).__name__} of {len(value)} ({', '.join(inside)})"
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
