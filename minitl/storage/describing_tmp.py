"""Temporary: the description of models, until keras_models has it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from minitl.layers.base import Call, SymbolicTensor
from minitl.models.model import Model
from minitl.models.sequential import Sequential


def class_name(layer: Any) -> str:
    """The name of a layer's class in Keras's files: 'Functional' for a Model."""
    return "Functional" if type(layer) is Model else type(layer).__name__


def to_json(model: Model) -> str:
    """The architecture as JSON."""
    return json.dumps({"class_name": class_name(model), "config": model.get_config()})


def from_json(text: str) -> Any:
    """The model that `to_json` wrote."""
    from minitl.storage.keras_models import layer_from

    described = json.loads(text)
    return layer_from(described["class_name"], described["config"])


def describe(model: Any) -> dict[str, Any]:
    """Keras's description of a functional graph: layers, and where each call's inputs come
    from."""
    if isinstance(model, Sequential):
        first = [] if model.start is None else [model.start.call.layer]
        return {
            "name": model.name,
            "trainable": model.trainable,
            "layers": [
                {"class_name": class_name(layer), "config": layer.get_config()}
                for layer in [*first, *model.layers]
            ],
        }
    places = {id(t): (t.call, t.index) for t in model.inputs}
    number: dict[int, int] = {}
    seen: Counter[int] = Counter()
    for call in model.graph.calls:
        number[id(call)] = seen[id(call.layer)]
        seen[id(call.layer)] += 1

    def reference(tensor: SymbolicTensor) -> list[Any]:
        if id(tensor) in places:
            position = next(i for i, t in enumerate(model.inputs) if t is tensor)
            return [model.input_layers[position].name, 0, 0]
        return [tensor.call.layer.name, number[id(tensor.call)], tensor.index]

    def output_reference(tensor: SymbolicTensor) -> list[Any]:
        name, which, index = reference(tensor)
        # Here, and only here, Keras counts the calls of a functional model from 1 on.
        return [name, which + (class_name(tensor.call.layer) == "Functional"), index]

    def arguments(call: Call) -> dict[str, Any]:
        return {} if call.training is None else {"training": call.training}

    described = []
    for layer in model.all_layers:
        calls = [n for n in model.graph.calls if n.layer is layer]
        described.append(
            {
                "class_name": class_name(layer),
                "config": layer.get_config(),
                "name": layer.name,
                "inbound_nodes": [[[*reference(t), arguments(n)] for t in n.inputs] for n in calls],
            }
        )
    return {
        "name": model.name,
        "trainable": model.trainable,
        "layers": described,
        "input_layers": [reference(t) for t in model.inputs],
        "output_layers": [output_reference(t) for t in model.outputs],
    }
