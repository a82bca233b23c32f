"""`Layer`: weights with names, and a function that uses them.

A layer is called in two ways. On arrays or Tensors it computes. On a `SymbolicTensor`, which has a
shape but no numbers, it computes nothing and writes down that it was called: a `Call` (Keras says
Node). A graph is made of Calls, not layers: a layer's calls, if several, share its weights.

A subclass defines `build` (make the weights, once the input's shape is known), `call` (compute),
and `compute_output_shape`. `layers/core.py` has the simplest ones; `models/graph.py` runs them.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Set
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import numpy as np

from minitl import config, initializers, naming
from minitl.autograd import Array, Symbolic, Tensor, Variable, as_tensor

__all__ = ["Layer", "SymbolicTensor"]

Shape = tuple[int | None, ...]
Rng = np.random.Generator | None
# What the call around the present one was told: its layers get it where nobody says otherwise.
around: ContextVar[tuple[bool | None, Rng]] = ContextVar("around", default=(None, None))
# When each layer was built, and what there was before: its weights, penalties, the seeds' state.
ticks, unbuilt = itertools.count(), WeakKeyDictionary[Any, tuple[int, list[Any], list[Any], Any]]()
REGULARIZERS = naming.Registry("minitl.regularizers")  # which registers its own


def regularizer(identifier: Any) -> Any:
    """The penalty that a name, class or configuration stands for; None stays None."""
    return naming.look_up(identifier, REGULARIZERS, "regularizer")


def listed(found: Any) -> list[Any]:
    """What a layer gave, or the shapes of that: one, several, or a dict by name, in their order."""
    if isinstance(found, dict):
        return [found[name] for name in sorted(found)]
    kinds = (Tensor, SymbolicTensor, tuple)  # a tuple of others is one shape
    several = isinstance(found, tuple) and any(isinstance(each, kinds) for each in found)
    return list(found) if several or isinstance(found, list) else [found]


@dataclass(eq=False, repr=False, slots=True)
class SymbolicTensor(Symbolic):
    """A place in a model's graph: a shape and dtype, and the call that fills it with numbers.

    Its first axis, the batch, is None; H and W may be None too.
    """

    shape: Shape
    dtype: str
    call: Call
    index: int = 0  # which of the call's outputs

    name = property(lambda self: self.call.layer.name)
    ndim = property(lambda self: len(self.shape))

    def __repr__(self) -> str:
        return f"<SymbolicTensor {self.name!r}, shape={self.shape}, dtype={self.dtype}>"

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise TypeError(
            f"{self!r} stands for an array that is not there yet; pass it to a layer of minitl's "
            f"(if it was, is that layer Keras's?), or build a Model and call predict"
        )


OPERATORS = "add sub mul truediv pow radd rsub rmul rtruediv rpow neg getitem lt le gt ge"
for _name in OPERATORS.split():
    _operate = lambda *given, op=_name: naming.part("operations").operate(op, *given)  # noqa: E731
    setattr(SymbolicTensor, f"__{_name}__", _operate)


@dataclass(eq=False, repr=False, slots=True)
class Call:
    """One call of one layer on symbolic tensors: a step of a model's graph."""

    layer: Layer
    inputs: list[SymbolicTensor]
    training: bool | None = None  # a fixed mode for this call, or None: that of the model's run
    as_list: bool = False  # called on a list of tensors, even if of only one
    form: Any = None  # of a call on a dict, or on several arguments: `layers/written.py`
    outputs: list[SymbolicTensor] = field(default_factory=list)

    def shaped(self, shapes: list[Any]) -> Any:
        """What the layer's methods take as input shape: one, or a list where it has several."""
        if self.form is not None:
            return self.form.of_shapes(shapes)
        return shapes if self.as_list else shapes[0]

    def run(self, arguments: list[Any], training: bool | None, rng: Rng) -> Any:
        """Compute, on what came from the calls before."""
        if self.form is not None:
            return self.form.call(self.layer, arguments, training, rng)
        # The list must not keep alive what the layer has read.
        x = arguments if self.as_list else arguments.pop()
        return self.layer(x, training=training, rng=rng)

    def multiply_adds(self) -> int:
        """Multiply-adds of the call for one sample, as far as its layer says."""
        return self.layer.multiply_adds(self.shaped([t.shape for t in self.inputs]))


class LayerType(type):
    """Lets a layer know when its constructor is done: from then on, a new attribute is an error."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        layer = super().__call__(*args, **kwargs)
        if "own_weights" not in vars(layer):
            raise RuntimeError(f"{cls.__name__}.__init__ does not call super().__init__()")
        if not layer._trainable:  # the layers inside came after the flag
            layer.trainable = False
        object.__setattr__(layer, "_sealed", True)
        return layer


def _building(build: Callable[..., Any]) -> Callable[..., Any]:
    """A class's `build`, so that it holds whoever calls it; `super().build` is a part of it."""

    @functools.wraps(build)
    def built(layer: Layer, *given: Any, **named: Any) -> None:
        input_shape = given[0] if given else named.get("input_shape")
        given = given if given or named else (None,)
        if not layer._sealed:  # within the class's constructor, or the build of a class below
            build(layer, *given, **named)
            return
        if layer.built:
            return
        begun, state = next(ticks), config.random_state().bit_generator.state
        unbuilt[layer] = begun, layer.own_weights[:], layer.regularized[:], state
        object.__setattr__(layer, "_sealed", False)  # build may declare attributes
        try:
            build(layer, *given, **named)
        except BaseException:
            layer.undo_builds(begun)
            raise
        finally:
            object.__setattr__(layer, "_sealed", True)
        layer.built = True
        if isinstance(input_shape, tuple) and layer.own_weights and input_shape:
            layer._channels = input_shape[-1]
        if not layer._trainable:
            layer.trainable = False

    return built


class Layer(naming.Configurable, metaclass=LayerType):
    """Base class of all layers.

    Args:
        name: unique within a model; made from the class name when None.
        trainable: False freezes the layer: its weights are neither updated nor differentiated,
            but gradients pass through it to trainable layers before it. May be changed at any
            time and holds from the next `fit` on, without compiling again.
        dtype: 'float32' or 'float64'; None is `minitl.config.floatx()`.

    `layer.rate_multiplier = 0.1` makes its weights learn at a tenth of the optimizer's rate; of a
    model it sets those of all layers inside. 0 lets them stand still.
    """

    input_rank: ClassVar[int | None] = None  # axes of the input, batch included; None: any number
    several_inputs: ClassVar[bool | None] = False  # called on a list of them; None: on either
    random: ClassVar[bool] = False  # whether `call` draws random numbers in training
    # What `training` is where nobody says; None leaves it to the layers inside.
    _training_unless_told: ClassVar[bool | None] = False
    extra_arguments: ClassVar[Set[str]] = frozenset()
    # Settings in Keras's configurations that do nothing unless another is on; see from_config.
    idle_settings: ClassVar[frozenset[str]] = frozenset()
    users: ClassVar[bool] = False  # written outside of minitl
    forget_losses: ClassVar[Any] = None  # what `add_loss` added to an earlier call
    with_masks: ClassVar[Any] = None  # `call`, where masks are looked for: sequences/masking.py
    _sealed = False
    changes: ClassVar[int] = 0  # how often a layer has got other layers inside
    times_set: ClassVar[int] = 0  # how often any attribute of a layer was set
    _known_inside: tuple[int, list[Layer]] = (-1, [])

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Which of these this class's `call` wants to be told.
        cls.extra_arguments = inspect.signature(cls.call).parameters.keys() & {"training", "rng"}
        cls.users = not cls.__module__.startswith("minitl.")
        if cls.users and "call" in vars(cls):
            naming.part("own layers").describe_call(cls)
        if "build" in vars(cls):
            cls.build = _building(cls.build)  # type: ignore[method-assign]

    def __init__(
        self, *, name: str | None = None, trainable: naming.Truth = True, dtype: Any = None
    ):
        self.name = name or naming.unique_name(naming.snake_case(type(self).__name__))
        self.dtype = config.checked_dtype(dtype or config.floatx())
        self.built, self._trainable, self._rate_multiplier = False, bool(trainable), 1.0
        self.own_weights: list[Variable] = []
        self.regularized: list[tuple[Variable, Any]] = []
        self.symbolic_calls: list[Call] = []
        self._channels: int | None = None  # the last axis of the input that it was built for
        self.holding: dict[str, None] = {}  # the attributes that may hold layers, in order

    def __setattr__(self, name: str, value: Any) -> None:
        if self._sealed and not hasattr(self, name):
            naming.part("own layers").refuse_misspelt(self, name)
        if name == "activation" and self._sealed and not self.users:
            value = naming.part("own layers").activation(value)  # as the constructor takes it
        object.__setattr__(self, name, value)
        Layer.times_set += 1
        if isinstance(value, (Layer, list)):
            Layer.changes += 1
        if isinstance(value, Layer) or (self.users and not isinstance(value, (int, float, str))):
            naming.part("own layers").track(self, name, value)

    @_building
    def build(self, input_shape: Any) -> None:
        """Make the weights for inputs of this shape (a list of shapes for several inputs)."""

    def call(self, x: Any) -> Tensor:
        """Compute. May also take `training` (bool) and `rng` (a NumPy Generator)."""
        raise NotImplementedError(f"{type(self).__name__} does not define call")

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape that `call` returns for an input of this shape; the same unless overridden."""
        return input_shape

    def multiply_adds(self, input_shape: Any) -> int:
        """Multiply-adds of matrix products and convolutions for one sample."""
        return 0

    def largest_step(self, input_shapes: Any) -> int:
        """The numbers that one call reads and writes, for one sample, where it is most."""
        flat = getattr(input_shapes, "flat", input_shapes)  # of a call that has a form
        several = len(flat) > 1 or flat is not input_shapes
        found = self.compute_output_shape(input_shapes if several else flat[0])
        return sum(math.prod(n or 1 for n in shape[1:]) for shape in [*flat, *listed(found)])

    supports_masking = False  # True where Keras's layer hands a mask on
    compute_mask = naming.elsewhere("own layers", "compute_mask")
    add_loss = naming.elsewhere("own layers", "add_loss")
    get_config = naming.elsewhere("settings", "layer_settings")
    from_config = naming.elsewhere("settings", "layer_configured", of_class=True)

    def add_weight(
        self,
        name: Any = None,
        shape: Any = (),
        initializer: Any = None,
        trainable: bool = True,
        regularizer: Any = None,
        dtype: str | None = None,
    ) -> Variable:
        """Make a weight and register it. The order of these calls is the order in files.

        Where the first argument is no string, it is the shape, and what follows the initializer.
        """
        if name is not None and not isinstance(name, str):
            name, shape, initializer = None, name, shape if shape != () else initializer
        name = name or f"variable_{len(self.own_weights)}"
        if self._sealed and self.built:
            raise ValueError(f"{self} is built: make {name!r} in build or __init__, once")
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if not all(type(n) in (int, np.int64, np.int32) and 0 <= n < 2**40 for n in shape):
            raise ValueError(f"shape must be integers of at least 0, below 2**40, got {shape!r}")
        dtype = dtype or self.dtype
        start = initializer or ("glorot_uniform" if np.dtype(dtype).kind == "f" else "zeros")
        penalty = naming.look_up(regularizer, REGULARIZERS, "regularizer")
        values = initializers.initial_values(start, shape, dtype)
        variable = Variable(values, name=name, learnable=trainable, copy=False)
        variable.trainable = trainable and self._trainable
        variable.rate_multiplier = self._rate_multiplier
        self.own_weights.append(variable)
        if penalty is not None:
            self.regularized.append((variable, penalty))
        return variable

    @property
    def trainable(self) -> bool:
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self.inside():
            layer.mark_trainable(value)
            for variable in layer.own_weights:
                variable.trainable = variable.learnable and bool(value)

    def mark_trainable(self, value: bool) -> None:
        """Set the flag of this layer alone, not those of its weights and of layers inside."""
        self._trainable = bool(value)

    rate_multiplier = property(
        lambda self: self._rate_multiplier,
        lambda self, value: naming.part("own layers").set_rate_multiplier(self, value),
    )

    def sublayers(self) -> Iterable[Layer]:
        """Layers inside this one: those that are attributes, or in lists and dicts that are."""
        held = naming.leaves([getattr(self, n, None) for n in self.holding], Layer)
        return {id(layer): layer for layer in held}.values()

    def inside(self) -> list[Layer]:
        """This layer and all that are inside it, each once, the outer ones first."""
        when, known = self._known_inside
        if when == Layer.changes and known[0] is self:
            return known
        found: dict[int, Layer] = {}
        waiting: list[Layer] = [self]
        while waiting:
            layer = waiting.pop()
            if id(layer) not in found:
                found[id(layer)] = layer
                waiting += reversed(list(layer.sublayers()))
        known = list(found.values())
        if not any(layer.users for layer in known):  # in whose lists anything may change
            self._known_inside = Layer.changes, known
        return known

    def as_graph(self) -> Any:
        """The layer itself where it is nothing but a graph of layers: a Model is one."""
        return None

    undo_builds = naming.elsewhere("own layers", "undo_builds")  # of a call that was refused
    # Whether a call gives the same for the same input for as long as a training lasts.
    fixed = naming.elsewhere("own layers", "fixed")

    @property
    def weights(self) -> list[Variable]:
        """All weights, in the order of files: those that learn first. Freezing changes nothing."""
        found: dict[int, Variable] = {}  # a shared weight counts once
        for layer in self.inside():
            for learnable in (True, False) if layer.own_weights else ():
                found |= {id(v): v for v in layer.own_weights if v.learnable is learnable}
        return list(found.values())

    trainable_weights = property(lambda self: [v for v in self.weights if v.trainable])

    def count_params(self) -> int:
        """The number of numbers in all weights."""
        return sum(v.storage.size for v in self.weights)

    def get_weights(self) -> list[Array]:
        """Copies of all weights, in the order of `weights`."""
        return [v.numpy() for v in self.weights]

    set_weights = naming.elsewhere("own layers", "set_weights")

    def regularization(self) -> list[Tensor]:
        """The penalties of the weights that are being trained, as scalars."""
        pairs = [pair for layer in self.inside() for pair in layer.regularized]
        return [penalty(v) for v, penalty in pairs if v.trainable]

    def __call__(
        self, x: Any = None, *more: Any, training: bool | None = None, rng: Rng = None, **named: Any
    ) -> Any:
        """Compute on arrays or Tensors, or extend a graph from symbolic tensors."""
        begun = next(ticks)
        try:
            if more and isinstance(more[0], bool):
                training, more = more[0], more[1:]
            if more or named or isinstance(x, dict):
                form = naming.part("own layers").form_of(self, (x, *more), named)
                return form.start(self, training, rng)
            several = isinstance(x, (list, tuple))
            inputs = list(x) if several else [x]
            if SymbolicTensor in map(type, inputs):
                for t in inputs:
                    if not isinstance(t, SymbolicTensor):
                        naming.refuse_foreign(t, str(self))
                        raise TypeError(f"{self} was called on symbolic tensors and arrays at once")
                return self.connect(Call(self, inputs, training, several))
            tensors = [self.as_input(t) for t in inputs]
            self.prepare([t.shape for t in tensors] if several else tensors[0].shape)
            return self.run_call((tensors if several else tensors[0],), {}, training, rng)
        except BaseException:  # what was refused has built nothing
            self.undo_builds(begun)
            raise

    def run_call(self, args: tuple[Any, ...], named: Any, training: bool | None, rng: Rng) -> Any:
        """`call`, told what it wants to know; layers inside it are told the same."""
        told = around.get()
        training = told[0] if training is None else bool(training)
        rng = told[1] if rng is None else rng
        if self.extra_arguments:
            mode = self._training_unless_told if training is None else training
            extra = {"training": mode, "rng": rng}
            named = named | {k: extra[k] for k in self.extra_arguments}
        if training is told[0] and rng is told[1]:
            return (self.with_masks or self.call)(*args, **named)
        token = around.set((training, rng))
        try:
            return (self.with_masks or self.call)(*args, **named)
        finally:
            around.reset(token)

    def as_input(self, x: Any) -> Tensor:
        if not isinstance(x, (Tensor, Array)):
            naming.refuse_foreign(x, str(self))
        x = as_tensor(x, self.dtype)
        if x.storage.dtype != self.dtype:
            x = naming.part("own layers").cast(x, self.dtype)
        return x

    def prepare(self, shape: Any) -> None:
        """Check the input's shape, and build on the first call."""
        if isinstance(shape, dict):
            return self.build(shape)
        single = not isinstance(shape, list)
        if single is self.several_inputs:
            expected = "a list of inputs" if self.several_inputs else "one input"
            found = "one input" if single else f"a list of {len(shape)}"
            raise TypeError(f"{self} is called on {expected}, got {found}")
        if shape == ():
            raise ValueError(f"{self} takes an array with an axis of samples, got one number")
        if single and self.input_rank not in (None, len(shape)):
            axes = {2: "(N, D)", 3: "(N, T, D)", 4: "(N, H, W, C)"}.get(self.input_rank, "")
            axes = f"{self.input_rank} axes {axes}"
            raise ValueError(f"{self} takes an input of {axes}, got shape {shape}")
        if not self.built:
            self.build(shape)
        elif single and self._channels is not None and shape[-1] != self._channels:
            last = f"{self._channels}, got shape {shape}"
            raise ValueError(f"{self} was built for inputs whose last axis is {last}")

    def unbuild(self) -> None:
        """As before `build`: the next call builds anew."""
        _, self.own_weights[:], self.regularized[:], state = unbuilt.pop(self)
        config.random_state().bit_generator.state = state
        self.symbolic_calls.clear()
        self.built, self._channels = False, None

    def connect(self, call: Call) -> Any:
        """Write down a call on symbolic tensors, and make its outputs."""
        shape = call.shaped([t.shape for t in call.inputs])
        self.prepare(shape)
        out_shape = self.compute_output_shape(shape)
        for i, shape in enumerate(listed(out_shape)):
            call.outputs.append(SymbolicTensor(tuple(shape), self.dtype, call, i))
        self.symbolic_calls.append(call)
        if isinstance(out_shape, dict):
            return dict(zip(sorted(out_shape), call.outputs, strict=True))
        one = listed(out_shape) == [out_shape]
        return call.outputs[0] if one else type(out_shape)(call.outputs)

    def __str__(self) -> str:
        """Its class and name, for messages: "Dense 'dense_1'"."""
        return f"{type(self).__name__} {self.name!r}"

    def __repr__(self) -> str:
        return f"<{self!s}{'' if self.trainable else ', frozen'}>"
