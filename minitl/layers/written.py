"""Layers that a user wrote: what `call` takes, and the shape that it really returns.

A call on a dict, or on several arguments, has a `Form`: the arguments, with numbers in the places
of their tensors. The graph knows the tensors as a list, and the form puts them in their places.

Keras finds the output's shape by tracing `call`. Here `call` is run on zeros, twice, with two sizes
in the place of each axis that may have any: axes that come out different may have any as well. What
is found is kept by the input's shape, so that a layer is run for its shape once per shape. Running
it builds the layers inside, as a first call does, and changes no weight.
"""

import functools
import inspect
import warnings
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from minitl import activations, initializers, naming
from minitl.autograd import Tensor, Variable, as_tensor, no_grad, record
from minitl.layers.added_losses import add_loss  # noqa: F401
from minitl.layers.base import Call, Layer, SymbolicTensor, unbuilt
from minitl.layers.sequences.masking import begin, compute_mask, put  # noqa: F401
from minitl.naming import complain_about_unknown, did_you_mean, leaves, nearest, refuse_foreign
from minitl.ops.elementwise import cast  # noqa: F401

__all__: list[str] = []

drawn = ContextVar("drawn", default=0)  # how often `minitl.random` has been asked


def describe_call(cls: Any) -> None:
    """Tell a new class of the user's what its own `call` says."""
    default = inspect.signature(cls.call).parameters.get("training")
    if default is not None and default.default is True and "_training_unless_told" not in vars(cls):
        cls._training_unless_told = True
    if "several_inputs" not in vars(cls):
        cls.several_inputs = None
    if "compute_mask" in vars(cls):
        cls.supports_masking = vars(cls).get("supports_masking", True)
        begin()
    for method in {"build", "compute_output_shape"} & vars(cls).keys():
        setattr(cls, method, _by_argument(vars(cls)[method]))
    if "compute_output_shape" not in vars(cls):
        cls.compute_output_shape = naming.elsewhere("own layers", "output_shape")


def _by_argument(method: Any) -> Any:
    """A user's `build` or `compute_output_shape`, that has the shapes of a call on several
    arguments as Keras gives them: `x_shape` is that of `x`, and a single one that of the first."""
    names = list(inspect.signature(method).parameters)[1:]

    @functools.wraps(method)
    def told(layer: Any, *shapes: Any, **named: Any) -> Any:
        if not (len(shapes) == 1 and isinstance(shapes[0], Shapes)) or shapes[0].alone:
            return method(layer, *shapes, **named)
        of, known = shapes[0], inspect.signature(layer.call).parameters
        if len(names) == 1:
            return method(layer, next(iter(of.values())))
        for name in names:
            if not name.endswith("_shape") or name.removesuffix("_shape") not in known:
                takes = f"{layer}.{method.__name__} takes {', '.join(names)}"
                raise ValueError(f"{takes}: {name!r} is not '..._shape' of an argument of call")
        found = {name: of.get(name.removesuffix("_shape")) for name in names}
        return method(layer, **{name: shape for name, shape in found.items() if shape is not None})

    return told


def track(layer: Any, name: str, value: Any) -> None:
    """Put down what may hold layers, in `sublayers`' order, and weights that nobody added."""
    for each in value if isinstance(value, (list, tuple)) else [value]:
        refuse_foreign(each, f"{type(layer).__name__}.{name}")
    if not isinstance(value, (Layer, Variable, list, tuple, dict)):
        return
    if "holding" not in vars(layer):
        if isinstance(value, (Layer, Variable)):
            begin = f"{type(layer).__name__}.__init__ begins with super().__init__()"
            raise RuntimeError(f"{begin}: before that it cannot have the attribute {name!r}")
        return
    if not isinstance(value, Variable):
        layer.holding[name] = None
    for variable in leaves(value, Variable):
        if all(variable is not v for v in layer.own_weights):
            variable.trainable = variable.learnable and layer.trainable
            layer.own_weights.append(variable)


def activation(value: Any) -> Any:
    """The function that an activation's name, or None, stands for."""
    return activations.get(value)


def of_first_call(layer: Any, what: str) -> Any:
    """The 'inputs' or 'outputs' of the layer's first symbolic call; a list when it has several."""
    if what == "inputs" and (calls := len(layer.symbolic_calls)) > 1:
        why = f"was called {calls} times, so it has no single input"
        raise AttributeError(f"{layer.name!r} {why}")
    if not layer.symbolic_calls:
        raise AttributeError(f"{layer.name!r} has not been called on a symbolic tensor yet")
    found = list(getattr(layer.symbolic_calls[0], what))
    return found[0] if len(found) == 1 else found


def refuse_misspelt(layer: Any, name: str) -> None:
    """Raise AttributeError for a new attribute: of a user's layer where it is nearly another's."""
    if not layer.users or nearest(name, ("trainable", "rate_multiplier"), 0.8):
        hint = did_you_mean(name, [n for n in dir(layer) if not n.startswith("_")])
        raise AttributeError(f"{layer} has no attribute {name!r}. {hint}")


def set_rate_multiplier(layer: Any, value: Any) -> None:
    """That of the layer and of all inside it."""
    if not isinstance(value, (int, float, np.number)) or not 0 <= value < np.inf:
        raise ValueError(f"a rate_multiplier is a number of at least 0, got {value!r}")
    for each in layer.inside():
        each.__dict__["_rate_multiplier"] = float(value)
        for variable in each.own_weights:
            variable.rate_multiplier = float(value)


def set_weights(layer: Any, weights: Sequence[np.ndarray]) -> None:
    """Copy arrays into the weights. All are checked first; on error nothing has changed."""
    mine = layer.weights
    arrays = [np.asarray(w) for w in weights]
    wrong = [
        f"  {v.name}: expected numbers {v.shape}, found {a.dtype} {a.shape}"
        for v, a in zip(mine, arrays, strict=False)
        if v.shape != a.shape or a.dtype.kind not in "biuf"
    ]
    if len(mine) != len(arrays):
        wrong.insert(0, f"  expected {len(mine)} arrays, found {len(arrays)}")
    if wrong:
        found = "\n".join(wrong)
        raise ValueError(f"set_weights: the arrays do not fit {layer.name!r}:\n{found}")
    for v, a in zip(mine, arrays, strict=True):
        v.assign(a)


def undo_builds(layer: Any, begun: int) -> None:
    """Forget what `build` has made since `begun`, of the layer and of those inside it."""
    made = [each for each in layer.inside() if unbuilt.get(each, (-1,))[0] >= begun]
    for each in sorted(made, key=lambda each: -unbuilt[each][0]):
        each.unbuild()


def fixed(layer: Any, training: bool) -> bool:
    """Whether a call gives the same for the same input for as long as a training lasts.

    It does where nothing learns and nothing is random. A layer of the user's that takes
    `training` or `rng` is believed to behave otherwise in training than outside, and one of
    minitl's that holds layers is what these are; `random = True` says that it is not.
    """
    if any(v.trainable or (layer.trainable and not v.learnable) for v in layer.own_weights):
        return False
    if "_losses_read" in vars(layer) or (training and vars(layer).get("_draws")):
        return False
    if layer.users and "compute_mask" in vars(type(layer)):  # what is kept of it has no mask
        return False
    inner = list(layer.sublayers())
    told = layer.extra_arguments and (layer.users or not inner)
    if training and (layer.random or told):
        return False
    return all(each.fixed(training) for each in inner)


@dataclass(frozen=True)
class _Place:
    """Where a tensor belongs in a Form."""

    number: int


class Shapes(dict[str, Any]):
    """The input shapes of a call that has a form: of a dict by its keys, of arguments by name."""

    form: Any
    flat: list[Any]
    alone: bool  # whether they are those of a dict


@dataclass
class Form:
    """The arguments of a call, with places for the tensors, which `values` has at first."""

    args: tuple[Any, ...]
    named: dict[str, Any]
    names: list[str]  # of the arguments by place
    values: list[Any]

    def filled(self, values: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, with these in the places."""
        put = _mapped((self.args, self.named), _Place, lambda place: values[place.number])
        return put[0], put[1]

    def of_shapes(self, shapes: list[Any]) -> Shapes:
        args, named = self.filled(shapes)
        alone = len(args) == 1 and not named and isinstance(args[0], dict)
        found = Shapes(args[0] if alone else dict(zip(self.names, args, strict=False)) | named)
        found.form, found.flat, found.alone = self, shapes, alone
        return found

    def start(self, layer: Layer, training: bool | None, rng: Any) -> Any:
        """The call itself, on arrays or on symbolic tensors."""
        symbolic = [isinstance(value, SymbolicTensor) for value in self.values]
        values, self.values = self.values, []
        if not any(symbolic):
            return self.call(layer, values, training, rng)
        if not all(symbolic):
            raise TypeError(f"{layer.name!r} was called on symbolic tensors and arrays at once")
        return layer.connect(Call(layer, values, training, True, self))

    def call(self, layer: Layer, values: list[Any], training: bool | None, rng: Any) -> Any:
        tensors = [as_tensor(v, layer.dtype) for v in values]
        layer.prepare(self.of_shapes([t.shape for t in tensors]))
        args, named = self.filled(tensors)
        return layer.run_call(args, named, training, rng)


def form_of(layer: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """The form of a call on these arguments; TypeError for one that `call` does not have."""
    if isinstance(args[0], dict) and getattr(vars(layer).get("graph"), "inputs", None):
        by_name = _by_names(layer, args[0])
        x = by_name[0] if layer.one_input else by_name
        return SimpleNamespace(start=functools.partial(_called_on, x, args[1:], named))
    known = inspect.signature(layer.call).parameters
    if len(args) == 1 and args[0] is None:
        first = next(iter(known))
        args = (named.pop("inputs" if "inputs" in named else first, None),)
        if not named:  # layer(inputs=x)
            return SimpleNamespace(start=functools.partial(_called_on, *args, (), {}))
    if named.get("mask", named) is None and not layer.users:
        del named["mask"]
        if len(args) == 1 and not named:
            return SimpleNamespace(start=functools.partial(_called_on, *args, (), {}))
    if named.keys() == {"mask"} and not layer.users and isinstance(args[0], (np.ndarray, Tensor)):
        given = as_tensor(args[0], layer.dtype)
        masked = record("masked", given.storage, (given, lambda g: g))  # not the caller's array
        masked = put(masked, named["mask"])
        return SimpleNamespace(start=functools.partial(_called_on, masked, (), {}))
    takes_any = {p.kind for p in known.values()} & {inspect.Parameter.VAR_KEYWORD}
    if not takes_any:
        complain_about_unknown(named, known, f"{type(layer).__name__}.call")
    places = [n for n, p in known.items() if p.kind is not p.VAR_KEYWORD]
    if len(args) > len(places) and not any(p.kind is p.VAR_POSITIONAL for p in known.values()):
        raise TypeError(f"{layer}.call takes {', '.join(places)}; got {len(args)} arguments")
    values: list[Any] = []

    def place(value: Any) -> _Place:
        values.append(value)
        return _Place(len(values) - 1)

    kept = _mapped((args, named), (np.ndarray, Tensor, SymbolicTensor), place)
    return Form(kept[0], kept[1], places, values)


def _called_on(x: Any, more: Any, named: Any, layer: Any, training: Any, rng: Any) -> Any:
    return layer(x, *more, training=training, rng=rng, **named)


def _by_names(model: Any, given: dict[str, Any]) -> list[Any]:
    """What a model's inputs are given by their names. Raises ValueError where one has nothing."""
    lacking = [name for name in model.input_names if given.get(name) is None]
    if lacking:
        needs = (
            f"{model.name!r} has the inputs {', '.join(model.input_names)}, none of them optional"
        )
        raise ValueError(f"{needs}: nothing is given for {', '.join(lacking)}")
    more = sorted(set(given) - set(model.input_names))
    if more and not any(isinstance(x, SymbolicTensor) for x in given.values()):
        other = "The structure of `inputs` doesn't match the expected structure"
        known = f"{model.name!r} has no inputs {', '.join(more)}"
        warnings.warn(f"{other}: {known}", UserWarning, stacklevel=6)
    return [given[name] for name in model.input_names]


def _mapped(value: Any, kind: Any, function: Any) -> Any:
    """Lists, tuples and dicts with the things of this kind in them replaced; dicts in key order."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, dict):
        return {name: _mapped(value[name], kind, function) for name in sorted(value)}
    if isinstance(value, (list, tuple)):
        return type(value)(_mapped(each, kind, function) for each in value)
    return value


def output_shape(layer: Any, input_shape: Any) -> Any:
    """The shape of what `call` returns: a tuple, with None for an axis of any size, or a list or
    dict of them. Raises what `call` raises."""
    form = getattr(input_shape, "form", None)
    several = isinstance(input_shape, list)
    shapes = input_shape.flat if form else input_shape if several else [input_shape]
    samples, shapes = shapes[0][:1], [(None, *shape[1:]) for shape in shapes]
    known = vars(layer).setdefault("_shapes_found", {})
    key = several, str(form and (form.args, form.named)), *shapes
    if key not in known:
        first, second = (_trial(layer, shapes, several, form, size) for size in (2, 3))
        known[key] = _common(first, second)
    return _of_samples(known[key], samples)


def _of_samples(shape: Any, samples: Any) -> Any:
    """The shape for as many samples as the input has, where the first axis may have any."""
    if isinstance(shape, dict):
        return {name: _of_samples(each, samples) for name, each in shape.items()}
    if isinstance(shape, list):
        return [_of_samples(each, samples) for each in shape]
    return (*samples, *shape[1:]) if shape[:1] == (None,) else shape


def _trial(layer: Any, shapes: list[Any], several: bool, form: Any, size: int) -> Any:
    """What the layer returns for zeros of these shapes. Unknown axes of images are larger."""
    sizes = [[(30 * (i > 0) + size) if n is None else n for i, n in enumerate(s)] for s in shapes]
    given = [Tensor(np.zeros(each, layer.dtype)) for each in sizes]
    if layer.with_masks is not None and "mask" in inspect.signature(layer.call).parameters:
        given = [put(x, np.ones(x.shape[:2])) for x in given]
    kept = [(v, v.numpy(), v.version) for v in layer.weights if not v.learnable]
    before = drawn.get()
    try:
        with no_grad():
            if form:
                return form.call(layer, given, None, None)
            return layer(given if several else given[0])
    finally:
        vars(layer)["_draws"] = drawn.get() > before
        for variable, values, version in kept:
            if variable.version != version:
                variable.assign(values)


def _common(first: Any, second: Any) -> Any:
    """One shape from those of two trials."""
    if isinstance(first, dict):
        return {name: _common(first[name], second[name]) for name in first}
    if isinstance(first, (list, tuple)):
        return [_common(a, b) for a, b in zip(first, second, strict=True)]
    pairs = zip(np.shape(first), np.shape(second), strict=True)
    return tuple(a if a == b else None for a, b in pairs)


def add_to_metric(
    metric: Any,
    shape: Any = (),
    initializer: Any = "zeros",
    dtype: str | None = None,
    aggregation: str = "sum",
    name: str = "variable",
) -> Variable:
    """A variable of a user's metric, which `update_state` assigns to and `reset_state` resets."""
    values = initializers.initial_values(initializer or "zeros", tuple(shape), dtype or "float32")
    variable = Variable(values, name=name, learnable=False)
    vars(metric).setdefault("_variables", []).append(variable)
    return variable


def reset_metric(metric: Any) -> None:
    """Zero for all variables of a user's metric."""
    for variable in variables_of(metric):
        variable.assign(np.zeros(variable.shape))


def variables_of(metric: Any) -> list[Variable]:
    """Those that a metric made, that it or a list or dict of it has, and of metrics inside it."""
    held = list(vars(metric).values())
    kind = next(cls for cls in type(metric).__mro__ if cls.__name__ == "Metric")
    inner = [v for each in leaves(held, kind) for v in variables_of(each)]
    return list({id(v): v for v in [*leaves(held, Variable), *inner]}.values())
