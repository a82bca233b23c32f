"""Names: what to say when one is misspelt, how a string finds its class, how a layer gets its own.

A misspelt name that is silently accepted (`layer.trainabel = False`) freezes nothing and costs a
day. So every name that a user can write is checked, and the error shows the nearest right one.

Names are also how the spine (the files of `spine.txt`, which do the main job alone) finds what
stands around it, without importing it: `PARTS` lists what a method such as `Model.save` opens when
it is first called, and a `Registry` finds the classes in the other files of its package.
"""

import contextlib
import functools
import importlib
import inspect
import pkgutil
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import FunctionType, MethodType, ModuleType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, dataclass_transform

F = TypeVar("F", bound=Callable[..., Any])

# What an argument may be, beside its type: these words stand for a test in `models/arguments.py`.
Count: TypeAlias = Annotated[int, "a positive integer"]
Natural: TypeAlias = Annotated[int, "an integer of at least 0"]
Sides: TypeAlias = Annotated[Any, "a positive integer or a list or tuple (each a positive integer)"]
NotNegative: TypeAlias = Annotated[float, "a finite number of at least 0"]
Positive: TypeAlias = Annotated[float, "a finite number above 0"]
Share: TypeAlias = Annotated[float, "in [0, 1]"]
Fraction: TypeAlias = Annotated[float, "in [0, 1)"]
Named: TypeAlias = Annotated[Any, "a name, a function or an object that its class made"]
Truth: TypeAlias = Annotated[bool, "True or False, no number"]
Verbose: TypeAlias = Literal["auto", 0, 1, 2]  # True and False are 1 and 0


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence naming the nearest of `known`, or listing them when none is near.

    >>> did_you_mean("adm", ["adam", "sgd"])
    "Did you mean 'adam'?"
    """
    known = sorted(set(known))
    if near := nearest(word, known):
        return f"Did you mean {near!r}?"
    if len(known) > 40:
        known = [*known[:40], "..."]
    return f"Known: {', '.join(known)}."


def nearest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The one of `known` that is nearest to `word`, whatever the case; '' when none is near."""
    lower = {name.lower(): name for name in known}
    near = get_close_matches(str(word).lower(), lower, n=1, cutoff=cutoff)
    return lower[near[0]] if near else ""


def snake_case(name: str) -> str:
    """'MaxPooling2D' -> 'max_pooling2d', the way Keras derives names from classes.

    >>> snake_case("BatchNormalization"), snake_case("Conv2D"), snake_case("ReLU")
    ('batch_normalization', 'conv2d', 're_lu')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


# What a method of the spine opens when it is first called, and for what. Nothing else in minitl
# imports a module of its own inside a function, but for the fast kernels (`kernels/__init__.py`).
PARTS = {
    "Keras's names": "minitl.keras_names",  # what stands elsewhere here, or is not there, and why
    "arguments": "minitl.models.arguments",  # whether values are what the annotations say
    "cautions": "minitl.models.cautions",  # a word on settings that cannot work
    "chains": "minitl.models.chains",  # what of a graph runs at once
    "clipping": "minitl.optimizers.clipping",  # gradients within a bound
    "feature cache": "minitl.transfer.feature_cache",  # fit keeps F of what is frozen
    "files": "minitl.storage.keras_models",  # Model.save, load_weights, load_model ...
    "memory": "minitl.storage.state",  # what a callback remembers in a backup
    "networks": "minitl.applications.common",  # unusual arguments; the images that a file expects
    "onnx": "minitl.storage.onnx_layers",  # Model.export
    "one batch": "minitl.models.one_batch",  # train_on_batch, class_weight
    "own layers": "minitl.layers.written",  # what a user's layer is called with, and gives
    "operations": "minitl.layers.operations",  # arithmetic of symbolic tensors
    "opened": "minitl.models.opened",  # the layers inside a model
    "outputs": "minitl.models.several_outputs",  # losses and metrics of several outputs
    "progress": "minitl.callbacks.loggers",  # progress bars, numbers as text
    "notebook": "minitl.report.tables",  # how models, histories and evaluations are shown
    "settings": "minitl.storage.settings",  # what a file says of a layer, a loss, an optimizer ...
    "stages": "minitl.transfer.stages",  # Model.freeze_until, unfreeze_from
    "steps": "minitl.models.steps",  # models that a user wrote, and what they override
    "streams": "minitl.data.streams",  # data that are iterables of batches, not arrays
    "summary": "minitl.judging.summary",  # Model.summary
    "weight files": "minitl.storage.keras_files",  # a reader that trusts nothing it reads
    "weights": "minitl.applications.weights",  # published weights that are not in their place
}


def part(name: str) -> ModuleType:
    """The module that does what `PARTS` says, imported when it is first asked for."""
    return importlib.import_module(PARTS[name])


def leaves(value: Any, kind: Any) -> Iterator[Any]:
    """The things of this kind that `value` is, or that lists, tuples and dicts in it hold."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            if each is not value:  # a list may hold itself
                yield from leaves(each, kind)
    elif isinstance(value, dict):
        yield from leaves(list(value.values()), kind)


class elsewhere:
    """A method that stands in a room around the spine: a function there takes the object first.

    `save = elsewhere("files", "save_model")` in a class makes `model.save(path)` the call
    `part("files").save_model(model, path)`. With `of_class` the function takes the class.
    """

    def __init__(self, room: str, function: str, of_class: bool = False):
        self.room, self.function, self.of_class = room, function, of_class

    def __get__(self, instance: Any, owner: type) -> Any:
        function = part("arguments").door(getattr(part(self.room), self.function))
        if self.of_class:
            return MethodType(function, owner)
        return function if instance is None else MethodType(function, instance)


class Registry(dict[str, Any]):
    """What the names of one kind stand for, 'adam' for Adam, say: in snake case, and aliases.

    A file adds its own classes with `register`. A name that is not there is looked for once more
    after the other files of the `package` have been imported.
    """

    def __init__(self, package: str, *classes: Any, **aliases: Any):
        super().__init__()
        self.package = package
        self.register(*classes, **aliases)

    def register(self, *classes: Any, **aliases: Any) -> None:
        """Add classes or functions under their own names, and some under others as well."""
        self.update({snake_case(each.__name__): each for each in classes} | aliases)

    def find(self, name: str, what: str) -> Any:
        """What `name` stands for. Raises ValueError, showing the nearest name."""
        for complete in (False, True):
            if complete:
                public_names(self.package)
            for key in (name, name.lower(), snake_case(name)):
                if key in self:
                    return self[key]
        if (own := part("settings").CUSTOM.get(name)) is not None:
            return own
        raise ValueError(f"unknown {what} {name!r}. {did_you_mean(name, self)}")


def look_up(identifier: Any, table: Registry, what: str) -> Any:
    """The entry of `table` that the string names; classes are instantiated; others pass through.

    Strings are compared in snake case, so 'GlorotUniform' and 'glorot_uniform' are one. A
    dictionary {'class_name': ..., 'config': {...}}, as found in saved models, works as well.

    Raises ValueError for an unknown name, showing the nearest.
    """
    if isinstance(identifier, dict) and "class_name" in identifier:
        return part("settings").configured(identifier, table, what)
    if isinstance(identifier, str):
        identifier = table.find(identifier, what)
    refuse_foreign(identifier, what)
    if not (identifier is None or callable(identifier) or hasattr(identifier, "get_config")):
        raise ValueError(f"not {'an' if what[0] in 'aeiou' else 'a'} {what}: {identifier!r}")
    return identifier() if inspect.isclass(identifier) else identifier


def refuse_foreign(value: Any, what: str) -> None:
    """TypeError for what Keras made. Looks closer only where a class or module says Keras."""
    if "keras" in f"{getattr(value, '__module__', '')} {type(value)}":
        part("Keras's names").refuse_foreign(value, what)


def check_keywords(
    function: F, parameters: Mapping[str, inspect.Parameter] | None = None, cls: type | None = None
) -> F:
    """Decorator: misspelt keywords are errors, and values that `models/arguments.py` refuses.

    `parameters` are those of the constructor of `cls`, with what goes through its **kwargs."""
    known = parameters or inspect.signature(function).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in known.values())
    rules: Any = None

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        nonlocal rules
        if rules is None:  # read late: annotations may name what is defined further down
            with contextlib.suppress(ImportError):  # the spine alone does without
                rules = part("arguments").Rules(function, known, cls)
        # As users call it: 'SGD', not 'SGD.__init__', inherited or not; 'fit', not 'Model.fit'.
        what = function.__qualname__.removesuffix(".__init__").rsplit(".")[-1]
        if cls is not None and args:
            what = type(args[0]).__name__
        if not takes_any and not kwargs.keys() <= known.keys():
            kwargs = part("Keras's names").without_idle_arguments(kwargs, known, what, args)
        begun = rules.begin(what, args, kwargs) if rules else None
        try:
            return function(*args, **kwargs)
        except Exception as error:
            if not rules:
                raise
            rules.fail(error, what, args, kwargs, begun)

    if parameters is not None:
        checked.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore
    return checked  # type: ignore[return-value]


# Methods that users call as well: whose arguments are checked first, and, where that would cost too
# much, those whose errors show them.
CHECKED = {"on_epoch_begin", "on_epoch_end", "add_weight", "set_state", "adapt"}
TOLD = {"__call__", "update_state", "apply", "build", "compute_output_shape"}


def told(function: F) -> F:
    """Decorator: an error that names no argument shows them (`models/arguments.py`)."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            part("arguments").failed(function, error, args, kwargs)

    return called  # type: ignore[return-value]


def constructor_parameters(cls: type) -> dict[str, inspect.Parameter]:
    """The arguments of a class's constructor, with those that it passes on, by their own names.

    What goes through its **kwargs is given by name; through *args and **kwargs, by place as well.
    """
    own = dict(inspect.signature(cls.__init__).parameters)  # type: ignore[misc]
    kinds = {p.kind: name for name, p in own.items()}
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        return own
    above = next((c for c in cls.__mro__[1:] if "__init__" in vars(c)), object)
    inherited = {} if above is object else constructor_parameters(above)
    if not inherited or set(inherited) == {"self"}:
        return own
    del own[kinds[inspect.Parameter.VAR_KEYWORD]]
    by_place = own.pop(kinds.get(inspect.Parameter.VAR_POSITIONAL, ""), None) is not None
    passed_on = {
        name: p if by_place or p.kind is p.VAR_KEYWORD else p.replace(kind=p.KEYWORD_ONLY)
        for name, p in inherited.items()
        if name not in own and (by_place or p.kind is not p.VAR_POSITIONAL)
    }
    by_name = {n: p for n, p in own.items() if by_place and p.kind is p.KEYWORD_ONLY}
    found = {n: p for n, p in own.items() if n not in by_name} | passed_on | by_name
    return dict(sorted(found.items(), key=lambda item: item[1].kind))


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

    def __init_subclass__(cls, **attributes: Any) -> None:
        """`class HeNormal(Scaled, factor=2)` is short for a body that says `factor = 2`."""
        complain_about_unknown(attributes, dir(cls), cls.__name__)
        for name, value in attributes.items():
            setattr(cls, name, value)
        if "__init__" in vars(cls):
            check_arguments(cls)
        for name in (CHECKED | TOLD) & vars(cls).keys():
            if isinstance(vars(cls)[name], FunctionType) and cls.__module__.startswith("minitl."):
                how = check_keywords if name in CHECKED else told
                setattr(cls, name, how(vars(cls)[name]))

    get_config: Any = elsewhere("settings", "settings_of")
    from_config: Any = elsewhere("settings", "made_of_config", of_class=True)


Configurable.__getattr__ = lambda self, name: part("Keras's names").attribute(self, name)  # type: ignore


def check_arguments(cls: F) -> F:
    cls.__init__ = check_keywords(cls.__init__, constructor_parameters(cls), cls)  # type: ignore
    return cls


@dataclass_transform(eq_default=False)
def with_fields(cls: F) -> F:
    """Decorator of a Configurable: its fields are its arguments; `__post_init__` checks them."""
    return check_arguments(dataclass(eq=False, repr=False)(cls))  # type: ignore


_names_given: Counter[str] = Counter()


def unique_name(prefix: str) -> str:
    """'dense', then 'dense_1', 'dense_2' ... within this process."""
    count = _names_given[prefix]
    _names_given[prefix] += 1
    return f"{prefix}_{count}" if count else prefix


def forget_names() -> None:
    """Start counting from the beginning again (`minitl.utils.clear_session`)."""
    _names_given.clear()


def public_names(module: str) -> dict[str, Any]:
    """The public classes and functions that a module defines, and their other names.

    Of a package, those of its files, all of which are imported, and of the packages inside it. A
    file that defines helpers as well says by `__all__` what is public.
    """
    place = importlib.import_module(module)
    found: dict[str, Any] = {}
    for file in pkgutil.iter_modules(getattr(place, "__path__", ())):
        found |= public_names(f"{module}.{file.name}")
    if not hasattr(place, "__path__"):
        for key, value in vars(place).items():
            public = key in vars(place).get("__all__", (key,)) and not key.startswith("_")
            if public and getattr(value, "__module__", "") == module:
                found[key] = value
    return found


def attributes_of(package: str, elsewhere: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """The `__getattr__` of a package: names that its `__init__` does not import, found when asked.

    They are its modules and what `public_names` finds, or what `elsewhere` says: {name: module}.
    """

    @functools.cache  # `ops.batch_norm`, say, is asked for at every call of a layer
    def find(name: str) -> Any:
        error = AttributeError(f"module {package!r} has no attribute {name!r}")
        if name.startswith("_") and name != "__all__":
            raise error
        if elsewhere is not None and name in elsewhere:
            return getattr(importlib.import_module(elsewhere[name]), name)
        try:
            return importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as missing:
            if missing.name != f"{package}.{name}":
                raise
        place = sys.modules[package]
        found = public_names(package) if elsewhere is None else dict.fromkeys(elsewhere)
        if name == "__all__":
            ours = {key for key, value in vars(place).items() if _is_ours(key, value)}
            return sorted({*found, *ours})
        if name in found:
            return found[name]
        files = [file.name for file in pkgutil.iter_modules(getattr(place, "__path__", ()))]
        hint = did_you_mean(name, [*found, *files, *vars(place)])
        return part("Keras's names").answer(package, name, f"{error}. {hint}")

    return find


def _is_ours(name: str, value: Any) -> bool:
    return name[0].isupper() and str(getattr(value, "__module__", "")).startswith("minitl.")
