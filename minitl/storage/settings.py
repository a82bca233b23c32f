"""What a file says of whatever a user configures: a layer, a loss, an optimizer, an initializer.

`serialize` makes it JSON, {'class_name': 'Adam', 'config': {'learning_rate': 0.001, ...}};
`configured` makes the thing again, from minitl's own files or from Keras's. A constructor keeps
each argument in an attribute of the same name, so its settings are its arguments.
"""

import copy
import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from minitl import activations, initializers
from minitl.layers.base import REGULARIZERS
from minitl.naming import Configurable, Registry, constructor_parameters, part

# Classes and functions of the user's that files may name; see `register_keras_serializable`.
CUSTOM: dict[str, Any] = {}
# What Keras's configurations say beside minitl's arguments, and what does nothing here.
IDLE = frozenset({"name", "ema_momentum", "dtype", "jit_compile", "is_legacy_optimizer", "fn"})


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Any:
    """Decorator: files may name this class or function of the user's."""

    def register(thing: Any) -> Any:
        if inspect.isclass(thing) and not hasattr(thing, "get_config"):
            raise ValueError(f"{thing.__name__} needs a get_config: files say by it how it is made")
        CUSTOM[name or thing.__name__] = CUSTOM[f"{package}>{name or thing.__name__}"] = thing
        return thing

    return register


@contextmanager
def custom_object_scope(custom_objects: Mapping[str, Any]) -> Iterator[None]:
    """Within the block files may name these classes and functions."""
    before = dict(CUSTOM)
    CUSTOM.update(custom_objects)
    try:
        yield
    finally:
        CUSTOM.clear()
        CUSTOM.update(before)


def get_custom_objects() -> dict[str, Any]:
    """The classes and functions that files may name now, to be added to."""
    return CUSTOM


def settings_of(thing: Any, skip: Iterable[str] = ()) -> dict[str, Any]:
    """The arguments of its constructor, as JSON can hold them. Raises ValueError where a class of
    the user's does not keep one: it could not be made again."""
    known = inspect.signature(type(thing).__init__).parameters
    plain = [n for n, p in known.items() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = [n for n in plain[1:] if n not in skip]
    lost = [n for n in names if not hasattr(thing, n) and n not in ("name", "trainable", "dtype")]
    own = [c for c in type(thing).__mro__ if not c.__module__.startswith("minitl.")]
    if lost and getattr(thing, "users", False) and all("get_config" not in vars(c) for c in own):
        keep = f"keep it as self.{lost[0]}, or define get_config"
        cannot = f"the argument {lost[0]!r} of {type(thing).__name__} is not to be found again"
        raise ValueError(f"{cannot}: {keep}")
    taken = {*activations.TABLE, *initializers.TABLE, *REGULARIZERS}
    return {n: serialize(getattr(thing, n), taken) for n in names if hasattr(thing, n)}


def made_of_config(cls: type, config: Mapping[str, Any]) -> Any:
    """`from_config` of losses, metrics, optimizers ...: one with these settings."""
    known = constructor_parameters(cls)
    if any(p.kind is p.VAR_KEYWORD for p in known.values()):
        return cls(**config)
    config = {n: v for n, v in config.items() if (n, v) != ("axis", -1) or n in known}
    idle = {*IDLE, *getattr(cls, "idle_settings", ())}
    return cls(**without_idle(config, known, cls.__name__, idle))


def serialize(value: Any, taken: Any = None) -> Any:
    """`value` as JSON can hold it and `look_up` understands it: functions of minitl by name, and
    the user's own where names that are `taken` are given, which theirs must not be.

    >>> serialize((1, None, len))
    Traceback (most recent call last):
    ValueError: <built-in function len> is no part of minitl and cannot be saved by name
    """
    if isinstance(value, (list, tuple)):
        return [serialize(v, taken) for v in value]
    if isinstance(value, dict):
        return {key: serialize(v, taken) for key, v in value.items()}
    if isinstance(value, Configurable):
        return {"class_name": type(value).__name__, "config": value.get_config()}
    if callable(value):
        if value in CUSTOM.values():
            return next(name for name, each in CUSTOM.items() if each is value)
        name = getattr(value, "__name__", "")
        known = str(getattr(value, "__module__", "")).startswith("minitl.")
        if not known and (taken is None or name in taken or not name.isidentifier()):
            raise ValueError(f"{value!r} is no part of minitl and cannot be saved by name")
        return value.__name__
    return value.tolist() if hasattr(value, "tolist") else value  # NumPy's numbers as Python's


class _Settable:
    """A number, with what scripts call on Keras's variables: `learning_rate.assign(0.1)`."""

    owner: tuple[Any, str]

    def assign(self, value: Any) -> None:
        setattr(*self.owner, value)

    def numpy(self) -> Any:
        return np.asarray(self, np.float32 if isinstance(self, float) else np.int64)[()]

    @property
    def value(self) -> Any:
        return self


class _Number(_Settable, float):
    pass


class _Count(_Settable, int):
    pass


def apply_gradients(optimizer: Any, grads_and_vars: Any) -> None:
    """Keras's form of `apply`: pairs (gradient, variable)."""
    pairs = [(getattr(g, "storage", g), v) for g, v in grads_and_vars]  # Tensors as well
    optimizer.apply(*zip(*pairs, strict=True))


def clone_optimizer(optimizer: Any) -> Any:
    """Another one with the same settings, and a copy of this one's state."""
    other = copy.copy(optimizer)
    other.states = {v: {n: a.copy() for n, a in s.items()} for v, s in optimizer.states.items()}
    return other


def refuse_schedule(rate: Any, value: Any) -> None:
    """Raise TypeError where a number would take the place of a schedule."""
    if isinstance(rate, Configurable) and not callable(value):
        follows = f"the rate follows {type(rate).__name__}, so it cannot be set"
        raise TypeError(f"{follows}; give the optimizer a number as learning_rate for that")


def of_steps(rate: Any) -> Any:
    """A rate as a function of the number of steps done; Keras's callables take nothing."""
    if isinstance(rate, Configurable) or inspect.signature(rate).parameters:
        return rate
    return lambda step: rate()


def settable(value: Any, owner: Any, name: str) -> Any:
    """A number that is the attribute `name` of its owner, and sets it."""
    number = _Number(value) if isinstance(value, float) else _Count(value)
    number.owner = owner, name
    return number


def configured(described: Mapping[str, Any], table: Registry, what: str) -> Any:
    """What {'class_name': ..., 'config': {...}} describes, by the names of a table."""
    if described["class_name"] == "function":  # of Keras's files: the config is its name
        return table.find(described["config"], what)
    entry: Any = CUSTOM.get(described["class_name"]) or table.find(described["class_name"], what)
    if not inspect.isclass(entry):
        return entry
    make = getattr(entry, "from_config", partial(made_of_config, entry))
    return make(dict(described.get("config", {})))


def layer_settings(layer: Any) -> dict[str, Any]:
    """`Layer.get_config`: the constructor's arguments, from which `from_config` makes it again."""
    return {n: getattr(layer, n) for n in ("name", "trainable", "dtype")} | settings_of(layer)


def layer_configured(cls: type, settings: Mapping[str, Any]) -> Any:
    """`Layer.from_config`: a layer from a configuration of minitl's or Keras's."""
    settings = dict(settings)
    if isinstance(settings.get("dtype"), dict):  # Keras 3: a DTypePolicy
        settings["dtype"] = settings["dtype"]["config"]["name"]
    if not cls.__module__.startswith("minitl."):
        for name, value in settings.items():
            if isinstance(value, dict) and part("files").is_layer(value.get("class_name")):
                settings[name] = part("files").layer_from(value["class_name"], value["config"])
    known = inspect.signature(cls.__init__).parameters  # type: ignore[misc]
    return cls(**without_idle(settings, known, cls.__name__, getattr(cls, "idle_settings", ())))


def without_idle(
    settings: Mapping[str, Any], known: Iterable[str], what: str, idle: Iterable[str] = ()
) -> dict[str, Any]:
    """The settings that are known. Keras's files hold others: they are dropped if they do nothing,
    being None, False, 0, empty, or named in `idle`, and else raise ValueError."""
    known = set(known)
    for name, value in settings.items():
        if name not in known and value and name not in idle:
            raise ValueError(f"minitl's {what} has no {name!r} (here {value!r}); cannot load it")
    return {name: value for name, value in settings.items() if name in known}
