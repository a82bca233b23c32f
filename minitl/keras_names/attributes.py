"""Attributes that Keras's layers, models, optimizers and metrics have, and minitl's have not.

Asked when an attribute is not found (`naming.Configurable`). Some have a value here; others are an
error that says why they are not there: `not_here.txt` has the reasons, under `Layer`, `Optimizer`,
`Metric` and `Loss`. What is nobody's is Python's own error, with the nearest name.
"""

from collections.abc import Callable
from typing import Any

from minitl.keras_names.reasons import not_here
from minitl.naming import did_you_mean, part


class NotThere(AttributeError, NotImplementedError):
    """A name that Keras has and minitl has not; `hasattr` says no."""


# What they are, for a layer or model.
VALUES: dict[str, Callable[[Any], Any]] = {
    "compute_dtype": lambda layer: layer.dtype,
    "compute_mask": lambda layer: lambda inputs=None, previous_mask=None: previous_mask,
    "input": lambda layer: part("own layers").of_first_call(layer, "inputs"),
    "input_dtype": lambda layer: layer.dtype,
    "jit_compile": lambda layer: False,
    "losses": lambda layer: layer.regularization(),
    "metrics_names": lambda model: [metric.name for metric in model.metrics],
    "non_trainable_variables": lambda layer: layer.non_trainable_weights,
    "non_trainable_weights": lambda layer: [v for v in layer.weights if not v.trainable],
    "output": lambda layer: part("own layers").of_first_call(layer, "outputs"),
    "run_eagerly": lambda layer: False,
    "trainable_variables": lambda layer: layer.trainable_weights,
    "variable_dtype": lambda layer: layer.dtype,
    "variables": lambda layer: layer.weights,
}

# And for a model that has a graph.
OF_MODELS: dict[str, Callable[[Any], Any]] = {
    "input": lambda model: model.inputs[0] if model.one_input else list(model.inputs),
    "input_shape": lambda m: m.inputs[0].shape if m.one_input else [t.shape for t in m.inputs],
    "output": lambda model: model.packed(list(model.outputs)),
    "output_shape": lambda model: model.packed([t.shape for t in model.outputs]),
}


class Unknown(AttributeError):
    """Looks for the nearest name when it is shown: `getattr(x, name, None)` has no use for it."""

    def __str__(self) -> str:
        what, name, owner = self.args
        return f"{what}. {did_you_mean(name, [n for n in dir(owner) if n[0] != '_'])}"


def attribute(owner: Any, name: str) -> Any:
    """The attribute of Keras's that `owner` was asked for. Raises AttributeError, with a reason."""
    if hasattr(type(owner), name):  # a property that raised AttributeError: let it say so again
        return object.__getattribute__(owner, name)
    what = f"{type(owner).__name__} object has no attribute {name!r}"
    if name.startswith("_"):
        raise AttributeError(what)
    if name in OF_MODELS and "all_layers" in vars(owner):
        if not owner.outputs:
            raise AttributeError(f"{owner.name!r} has no {name} yet: build it, or call it on data")
        return OF_MODELS[name](owner)
    if name == "variables" and "_variables" in vars(owner):  # of a user's metric
        return part("own layers").variables_of(owner)
    if name in VALUES and "own_weights" in vars(owner):
        return VALUES[name](owner)
    reason = not_here().get((_kind_of(owner), name))
    if reason is not None:
        raise NotThere(f"{what}, which Keras's has: {reason}")
    raise Unknown(what, name, owner)


def _kind_of(owner: Any) -> str:
    """The public base of the object's class, as `not_here.txt` names it."""
    for cls in type(owner).__mro__:
        if cls.__name__ in ("Layer", "Optimizer", "Metric", "Loss"):
            return cls.__name__
    return ""


def refuse_foreign(value: Any, what: str) -> None:
    """Raise TypeError for what is Keras's: a tensor, a layer, a loss ... given to minitl."""
    kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
    if not any(_of_keras(each) for each in (value, *kinds)):
        return
    if hasattr(value, "__array__") and not type(value).__name__.startswith("KerasTensor"):
        return  # numbers
    name = getattr(value, "__name__", type(value).__name__)
    raise TypeError(f"{what}: this {name} is Keras's, not minitl's: was an import line forgotten?")


def _of_keras(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] in ("keras", "tf_keras")
