"""A model as one flat graph: the models inside it are opened up.

So it can be cut anywhere, also in the middle of a base that is one layer of a larger model
(`transfer/cut.py`), and questions about all calls have one answer (`transfer/stages.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from minitl.autograd import Variable
from minitl.layers.base import Call, Layer, SymbolicTensor, listed
from minitl.models.graph import Graph
from minitl.naming import did_you_mean


class OpenedGraph(Graph):
    """A graph whose calls are all of layers that are no graphs themselves."""

    @property
    def layers(self) -> list[Layer]:
        """Each layer once, in the order of its first call."""
        return list({id(call.layer): call.layer for call in self.calls}.values())

    @property
    def weights(self) -> list[Variable]:
        """Each weight once, in the order of the layers."""
        return list({id(v): v for layer in self.layers for v in layer.weights}.values())

    def between(
        self, inputs: Sequence[SymbolicTensor], outputs: Sequence[SymbolicTensor]
    ) -> OpenedGraph:
        """The part that leads from `inputs` to `outputs`; of the inputs only those it reads."""
        given = {id(t) for t in inputs}
        makers = {id(t): call for call in self.calls for t in call.outputs}
        needed: set[int] = set()
        read: set[int] = set()
        stack = list(outputs)
        while stack:
            tensor = stack.pop()
            read.add(id(tensor))
            call = makers.get(id(tensor))
            if id(tensor) in given or call is None or id(call) in needed:
                continue
            needed.add(id(call))
            stack += call.inputs
        calls = [call for call in self.calls if id(call) in needed]
        return OpenedGraph([t for t in inputs if id(t) in read], calls, outputs)


def open_up(model: Any, input_shapes: Sequence[Any] | None = None) -> OpenedGraph:
    """The model's graph, nested models opened up, with its shapes for inputs of `input_shapes`.

    The symbolic tensors and calls are new ones: the layers know nothing of them.
    """
    calls: list[Call] = []

    def repeat(
        layer: Layer, inputs: list[SymbolicTensor], as_list: bool, training: bool | None, form: Any
    ) -> list[SymbolicTensor]:
        inner = layer.as_graph()
        if inner is not None:
            return enter(inner, inputs, training)
        call = Call(layer, inputs, training, as_list, form)
        found = layer.compute_output_shape(call.shaped([t.shape for t in inputs]))
        call.outputs += [
            SymbolicTensor(tuple(shape), layer.dtype, call, i)
            for i, shape in enumerate(listed(found))
        ]
        calls.append(call)
        return call.outputs

    def enter(
        inner: Any, inputs: list[SymbolicTensor], training: bool | None
    ) -> list[SymbolicTensor]:
        tensors = {}
        for symbolic, start, entered in zip(inner.inputs, inner.input_layers, inputs, strict=True):
            tensors[id(symbolic)] = repeat(start, [entered], False, None, None)[0]
        for call in inner.graph.calls:
            mode = training if call.training is None else call.training
            given = [tensors[id(t)] for t in call.inputs]
            made = repeat(call.layer, given, call.as_list, mode, call.form)
            tensors.update((id(t), s) for t, s in zip(call.outputs, made, strict=True))
        return [tensors[id(t)] for t in inner.outputs]

    roots = []
    shapes = input_shapes or [t.shape for t in model.inputs]
    for start, shape in zip(model.input_layers, shapes, strict=True):
        call = Call(start, [])
        call.outputs.append(SymbolicTensor((None, *shape[1:]), start.dtype, call))
        roots += call.outputs
    outputs = enter(model, roots, None)
    return OpenedGraph(roots, calls, outputs)


def get_layer(model: Any, name: str | None = None, index: int | None = None) -> Layer:
    """The layer of that name, or at that index in `layers`."""
    if (name is None) == (index is None):
        raise ValueError("get_layer takes either a name or an index")
    if index is not None:
        count = len(model.layers)
        if not -count <= index < count:
            raise ValueError(f"{model.name!r} has {count} layers, no index {index}")
        return model.layers[index]
    layers = list(model.sublayers())
    for layer in layers:
        if layer.name == name:
            return layer
    raise ValueError(f"{model.name!r} has no layer {name!r}. {where_else(model, str(name))}")


def where_else(model: Any, name: str) -> str:
    """A sentence on a layer that a model does not have: where it is inside, or the nearest."""
    for outer in model.inside()[1:]:
        if name in (layer.name for layer in outer.sublayers()):
            return f"It is inside {outer.name!r}: get_layer({outer.name!r}).get_layer({name!r})."
    return did_you_mean(name, [layer.name for layer in model.sublayers()])


def walk(layer: Layer) -> list[Layer]:
    """The layer and all layers inside it."""
    return [layer, *(each for inner in layer.sublayers() for each in walk(inner))]


def named_layers(layer: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """('vgg16/block1_conv1', layer) ... of the layers inside that hold no others."""
    for inner in layer.sublayers():
        yield from named_layers(inner, f"{path}{inner.name}/")
    if path and not list(layer.sublayers()):
        yield path[:-1], layer


def numbers(tensor: SymbolicTensor) -> int:
    """How many numbers one sample of the tensor has; sizes that are not known count 1."""
    return math.prod(n or 1 for n in tensor.shape[1:])


def work(call: Call) -> int:
    """Multiply-adds of the call per sample; where a user's layer does not say, one per weight."""
    found = call.multiply_adds()
    if not found and type(call.layer).multiply_adds is Layer.multiply_adds:
        return call.layer.count_params()
    return found
