"""Keras's description of a model, as JSON can hold it: made of a model, and made into one.

It names each layer's class and the arguments of its constructor. A chain needs no more. In a graph
each layer also has its `inbound_nodes`, one per call: where the call's inputs come from, as [layer,
number of that layer's call, number of that call's output, arguments]:

    {"class_name": "Functional", "config": {"name": "net", "trainable": true, "layers": [
        {"class_name": "InputLayer", "config": {...}, "name": "pixels", "inbound_nodes": []},
        {"class_name": "Dense", "config": {"units": 3, ...}, "name": "head",
         "inbound_nodes": [[["pixels", 0, 0, {}]]]}],
     "input_layers": [["pixels", 0, 0]], "output_layers": [["head", 0, 0]]}}

minitl writes the form of Keras 2, which Keras 3 reads too, and reads what both write. The weights
are no part of it: `keras_models.py` keeps the two together in files.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minitl import layers
from minitl.layers import InputLayer, Layer, SymbolicTensor
from minitl.models.arguments import door
from minitl.models.model import Model
from minitl.models.sequential import Sequential
from minitl.naming import did_you_mean
from minitl.storage.settings import CUSTOM, custom_object_scope, settings_of, without_idle

MOST = 30_000  # layers of a model: some seconds. Published networks have up to 2,000.
KNOWN = {"name", "trainable", "layers", "input_layers", "output_layers", "dtype"}
Place = tuple[str, int]  # a layer's name, and which of its calls


def class_name(layer: Layer) -> str:
    """The name of a layer's class in Keras's files: 'Functional' for a Model."""
    return "Functional" if type(layer) is Model else type(layer).__name__


def model_of_class(
    cls: type, settings: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
) -> Layer:
    """`Model.from_config`: the model that `get_config` described, also as Keras writes it."""
    with custom_object_scope(custom_objects or {}):
        return _model_of_class(cls, settings)


def _model_of_class(cls: type, settings: Mapping[str, Any]) -> Layer:
    if cls.__module__.startswith("minitl."):
        return layer_from(cls.__name__, settings)
    if "layers" in settings:
        return model_from_config(settings, cls)
    shape = settings.get("build_input_shape")
    settings = {n: v for n, v in settings.items() if n not in ("build_input_shape", "trainable")}
    model = cls(**{n: v for n, v in settings.items() if n != "dtype"})
    if isinstance(shape, dict):
        model.build({name: tuple(each) for name, each in shape.items()})
    elif shape is not None:
        several = isinstance(shape[0], list)
        model.build([tuple(each) for each in shape] if several else tuple(shape))
    return model


def _described(layer: Layer) -> dict[str, Any]:
    return {"class_name": class_name(layer), "config": layer.get_config()}


def to_json(model: Model) -> str:
    """The description of a model or a Sequential, with its class, as text."""
    return json.dumps(_described(model))


@door
def from_json(json_string: str, custom_objects: Mapping[str, Any] | None = None) -> Layer:
    """The model that `to_json` described, with fresh weights."""
    described = json.loads(json_string)
    with custom_object_scope(custom_objects or {}):
        return layer_from(described["class_name"], described["config"])


def describe(model: Model) -> dict[str, Any]:
    """The settings of a model, from which `model_from_config` makes it again."""
    settings: dict[str, Any] = {"name": model.name, "trainable": model.trainable}
    if type(model).call is not Model.call and not isinstance(model, Sequential):
        shapes: Any = [list(t.shape) for t in model.inputs]
        if model.input_keys is not None:
            shapes = dict(zip(model.input_keys, shapes, strict=True))
        elif model.one_input:
            shapes = shapes[0]
        own = settings_of(model, skip=("inputs", "outputs"))
        return settings | own | {"build_input_shape": shapes}
    if isinstance(model, Sequential):
        start = [] if model.start is None else [model.start.call.layer]
        return settings | {"layers": [_described(layer) for layer in [*start, *model.layers]]}
    starts = zip(model.input_layers, model.inputs, strict=True)
    places: dict[int, list[Any]] = {id(tensor): [layer.name, 0, 0] for layer, tensor in starts}
    inbound: dict[str, list[Any]] = {layer.name: [] for layer in model.layers}
    for call in model.graph.calls:
        # Only the calls inside this model count: a layer's first call in it has the number 0.
        of_layer = inbound[call.layer.name]
        for tensor in call.outputs:
            places.setdefault(id(tensor), [call.layer.name, len(of_layer), tensor.index])
        arguments = {} if call.training is None else {"training": call.training}
        of_layer.append([[*places[id(t)], arguments] for t in call.inputs])
    # Among the outputs, and only there, Keras counts the calls of a functional model from 1 on.
    functional = {layer.name for layer in model.layers if class_name(layer) == "Functional"}
    outputs = [places[id(t)] for t in model.outputs]
    outputs = [[name, i + (name in functional), at] for name, i, at in outputs]
    return settings | {
        "layers": [
            _described(layer) | {"name": layer.name, "inbound_nodes": inbound[layer.name]}
            for layer in model.layers
        ],
        "input_layers": [places[id(t)] for t in model.inputs],
        "output_layers": outputs if model.one_output else model.packed(outputs),
    }


def for_keras3(described: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a layer or model with the modules in which Keras 3 looks for classes."""
    name, settings = described["class_name"], dict(described["config"])
    if "layers" in settings:
        settings["layers"] = [for_keras3(each) for each in settings["layers"]]
    if name == "Sequential":  # it knows its input from the first layer
        settings.setdefault("build_input_shape", None)
    modules = {"Functional": "keras.src.models.functional", "Sequential": "keras"}
    registered = name if name == "Functional" else None
    place = {"module": modules.get(name, "keras.layers"), "registered_name": registered}
    return {**described, **place, "config": settings}


def layer_from(kind: str, settings: Mapping[str, Any]) -> Layer:
    """A layer or a model from its class name and its settings. Raises ValueError for a class, or a
    setting that minitl does not have; LookupError, TypeError, AttributeError for no description."""
    if kind in ("Functional", "Model", "Sequential"):
        return model_from_config(settings)
    if kind in CUSTOM:
        return CUSTOM[kind].from_config(dict(settings))
    if not is_layer(kind):
        hint = did_you_mean(kind, [name for name in layers.__all__ if is_layer(name)])
        how = f"If it is yours: load_model(path, custom_objects={{{kind!r}: {kind}}})."
        raise ValueError(f"it uses the layer {kind!r}, which minitl does not have. {hint} {how}")
    return getattr(layers, kind).from_config(dict(settings))


def is_layer(kind: Any) -> bool:
    """Whether a class's name is a layer's, or a model's, of minitl's or the user's."""
    if kind in ("Functional", "Model", "Sequential"):
        return True
    found = CUSTOM.get(kind) or (kind in layers.__all__ and getattr(layers, kind))
    return isinstance(found, type) and issubclass(found, Layer)


def model_from_config(settings: Mapping[str, Any], cls: type[Model] = Model) -> Model:
    """A model from the settings that `describe` gives, or Keras 2 or 3. Raises as `layer_from`.
    Of a graph the layers are made first; then calls are repeated, once their inputs are there.
    """
    if len(settings["layers"]) > MOST:
        raise ValueError(f"a model of {len(settings['layers']):,} layers, more than {MOST:,}")
    if "output_layers" not in settings:
        chain = [layer_from(each["class_name"], each["config"]) for each in settings["layers"]]
        model = Sequential(chain, name=settings["name"])
        if settings.get("build_input_shape") and not model.outputs:
            model.build(settings["build_input_shape"])
        return model
    tensors: dict[Place, list[SymbolicTensor]] = {}  # what the layers' calls gave
    waiting, calls, functional = list[_Call](), dict[str, int](), set[str]()
    for each in settings["layers"]:
        name = each.get("name") or each["config"]["name"]
        layer = layer_from(each["class_name"], each["config"])
        if isinstance(layer, InputLayer):
            tensors[name, 0] = [layer.symbolic_calls[0].outputs[0]]
        calls[name] = len(each["inbound_nodes"])
        waiting += [_Call.read(layer, (name, i), c) for i, c in enumerate(each["inbound_nodes"])]
        if each["class_name"] in ("Functional", "Model"):
            functional.add(name)
    if (count := sum(1 + len(call.references) for call in waiting)) > 2 * MOST:
        raise ValueError(f"a graph of {count:,} calls and inputs, more than {2 * MOST:,}")
    first = _first_numbers((r for call in waiting for r in call.references), calls)
    _repeat_all(waiting, tensors, first)
    first_output = _first_numbers(_references(settings["output_layers"]), calls, functional)

    def look(reference: Any) -> SymbolicTensor:
        name, number, index = reference[:3]
        return tensors[name, number - first_output.get(name, 0)][index]

    def ends(places: Any) -> Any:
        if isinstance(places, dict):
            return {name: look(place) for name, place in places.items()}
        found = [look(place) for place in _references(places)]
        many = tuple if isinstance(places, tuple) else list
        return found[0] if len(found) == 1 else many(found)

    inputs, outputs = ends(settings["input_layers"]), ends(settings["output_layers"])
    more = {n: v for n, v in settings.items() if n not in KNOWN} if cls is not Model else {}
    graph = cls(inputs, outputs, name=settings["name"], **more)
    # Whether each layer learns came with the layer; this is the flag of the model itself.
    graph.mark_trainable(bool(settings.get("trainable", True)))
    return graph


def _repeat_all(
    calls: list[_Call], tensors: dict[Place, list[SymbolicTensor]], first: Mapping[str, int]
) -> None:
    """Repeat calls once their inputs are there, in the order of passes through the list in which
    those that are ready are repeated: (pass, place in the list). Each call is looked at once per
    input, so that the order in which a file lists them costs nothing."""
    readers: dict[Place, list[int]] = {}
    missing, ready = [0] * len(calls), list[tuple[int, int]]()
    for i, call in enumerate(calls):
        places = {place for place in call.inputs(first) if place not in tensors}
        missing[i] = len(places)
        for place in places:
            readers.setdefault(place, []).append(i)
        if not places:
            ready.append((0, i))
    done = 0
    while ready:
        turn, i = heapq.heappop(ready)
        calls[i].repeat(tensors, first)
        done += 1
        for reader in readers.pop(calls[i].place, ()):
            missing[reader] -= 1
            if missing[reader] == 0:  # this pass comes to it yet, or has been there
                heapq.heappush(ready, (turn + (reader < i), reader))
    if done < len(calls):
        lost = sorted({call.place[0] for call, n in zip(calls, missing, strict=True) if n})
        raise ValueError(f"graph disconnected: no inputs for the layers {', '.join(lost)}")


@dataclass
class _Call:
    """One call of a layer, to be repeated."""

    layer: Layer
    place: Place
    references: list[Any]  # to its inputs: [layer, number of the call, number of the output, ...]
    as_list: bool  # whether it was called on a list
    training: bool | None

    @classmethod
    def read(cls, layer: Layer, place: Place, call: Any) -> _Call:
        if isinstance(call, dict):  # Keras 3: {'args': [tensor or list of tensors], 'kwargs': {}}
            inputs, arguments = call["args"][0], call.get("kwargs", {})
            as_list = isinstance(inputs, list)
            tensors = inputs if as_list else [inputs]
            references = [tensor["config"]["keras_history"] for tensor in tensors]
        else:  # Keras 2: [[layer, call, output, arguments], ...]
            arguments = call[0][3] if len(call[0]) > 3 else {}
            as_list, references = len(call) > 1, call
        # The only argument beside the inputs that minitl has; others must do nothing.
        training = without_idle(arguments, ("training",), "layers' calls").get("training")
        return cls(layer, place, references, as_list, training)

    def inputs(self, first: Mapping[str, int]) -> list[Place]:
        """What its inputs are the outputs of."""
        return [(name, number - first[name]) for name, number, *_ in self.references]

    def repeat(self, tensors: dict[Place, list[SymbolicTensor]], first: Mapping[str, int]) -> None:
        """Call the layer, whose inputs are there, and put down what it gives."""
        places = zip(self.inputs(first), self.references, strict=True)
        inputs = [tensors[place][reference[2]] for place, reference in places]
        result = self.layer(inputs if self.as_list else inputs[0], training=self.training)
        tensors[self.place] = result if isinstance(result, list) else [result]


def _first_numbers(
    references: Iterable[Any], calls: Mapping[str, int], from_1: Container[str] = ()
) -> dict[str, int]:
    """The number that references give to a layer's first call, by the layer's name: 0, but 1 of a
    functional model within the model, in Keras 3 among the outputs only, in Keras 2 always (and of
    a Sequential too). `calls` has how many calls each layer has; the layers in `from_1` are counted
    so unless a 0 shows that they are not."""
    numbers: dict[str, set[int]] = {}
    for name, number, *_ in references:
        numbers.setdefault(name, set()).add(number)
    return {
        name: int(0 not in found and (name in from_1 or max(found) >= max(calls[name], 1)))
        for name, found in numbers.items()
    }


def _references(places: Any) -> list[Any]:
    """[[layer, call, index] ...]: Keras 3 writes a single one without a list, or a dict."""
    places = list(places.values()) if isinstance(places, dict) else places
    return [places] if places and isinstance(places[0], str) else places
