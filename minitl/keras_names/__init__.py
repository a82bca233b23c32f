"""Names that Keras has: what stands elsewhere here, and what is not there, with the reason.

Asked when a name is not found (`naming.attributes_of`). A name that Keras has is never answered by
a bare AttributeError: it is another place's (`ELSEWHERE`), or the reason why it is not there is an
error, with what to do instead (`not_here.txt`).
"""

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from minitl.initializers import TABLE as INITIALIZERS
from minitl.keras_names.attributes import attribute, refuse_foreign
from minitl.keras_names.reasons import not_here
from minitl.layers.base import REGULARIZERS, Layer
from minitl.naming import complain_about_unknown, snake_case

__all__ = ["answer", "attribute", "not_here", "refuse_foreign"]

# {package: {names: the module that has them}}. A star: any name of that module; an equals sign: the
# name that it has there, and a dot the module.
ELSEWHERE = {
    "": {"Initializer": "initializers", "Loss": "losses", "Metric": "metrics"}
    | {"Optimizer": "optimizers"},
    "layers": {"Convolution2D=Conv2D": "layers"},
    "ops": {
        "swish=silu hard_swish=hard_silu": "activations",
        "*": "activations",
        "categorical_crossentropy sparse_categorical_crossentropy": "losses.others",
        "image=ops linalg=ops nn=ops numpy=ops": "",
        "random=.": "random",
    },
    "config": {"backend epsilon image_data_format": "keras_names.clones"},
    "models": {"clone_model": "keras_names.clones", "save_model": "storage.keras_models"},
    "utils": {  # which is minitl.saving as well
        "load_model load_weights save_model save_weights": "storage.keras_models",
        "CustomObjectScope=custom_object_scope": "utils",
    },
    "activations": {"swish=silu hard_swish=hard_silu": "activations"},
    "metrics": {
        "binary_crossentropy binary_focal_crossentropy categorical_crossentropy hinge huber "
        "categorical_focal_crossentropy categorical_hinge kl_divergence log_cosh "
        "mean_absolute_error mean_absolute_percentage_error mean_squared_error poisson "
        "mean_squared_logarithmic_error sparse_categorical_crossentropy squared_hinge": (
            "losses.others"
        )
    },
}


def _elsewhere(room: str, name: str) -> Any:
    """What Keras's name stands for where it has another place, or another name, here; or None."""
    if room in ("initializers", "regularizers"):  # Keras has their short names as well
        table: Any = REGULARIZERS if room == "regularizers" else INITIALIZERS
        if name in {snake_case(name), "l1_l2"} and name not in table:
            importlib.import_module(f"minitl.{room}.others" if room[0] == "i" else f"minitl.{room}")
        return table.get(name) or table.get(snake_case(name.removesuffix("Initializer")))
    for names, module in ELSEWHERE.get(room, {}).items():
        there = dict(each.partition("=")[::2] for each in names.split())
        if name in there or "*" in there:
            place = importlib.import_module(f"minitl.{module}".strip("."))
            known = there.get(name) or name
            found = place if known == "." else vars(place).get(known)
            if found is not None and not name.startswith("_"):
                return found
    return None


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
    found = _elsewhere(room, name)
    if found is not None:
        return found
    reason = not_here().get((room, name))
    if reason is None:
        raise AttributeError(error)
    where = f"{package}.{name}"
    raise NotImplementedError(f"there is no {where}, which Keras has: {reason}")
