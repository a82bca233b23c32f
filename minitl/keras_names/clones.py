"""Functions of Keras's that have no other place: `clone_model`, and settings that are fixed."""

import copy
from collections.abc import Callable
from typing import Any

from minitl.layers.base import Call, listed
from minitl.layers.core import Input

__all__ = ["clone_model"]

backend, epsilon = lambda: "numpy", lambda: 1e-7
image_data_format = lambda: "channels_last"  # noqa: E731


def clone_model(
    model: Any,
    input_tensors: Any = None,
    clone_function: Callable[[Any], Any] | None = None,
    call_function: None = None,
    recursive: bool = False,
) -> Any:
    """A model of the same layers, made anew of their configurations, with new weights.

    `clone_function` makes the new layer of an old one; the clone begins at `input_tensors`, if
    there are any, whose shapes may be others. Raises ValueError for a model that is not made of
    layers' calls, and NotImplementedError for other ways to call them.
    """
    if not hasattr(model, "layers"):
        raise TypeError(f"clone_model: model must be a Model, got {model!r}")
    if call_function is not None or recursive:
        raise NotImplementedError("clone_model calls the layers as they were: call the clone")
    if model.as_graph() is None:
        raise ValueError(f"{model!r} has a call of its own: make another of its class")
    make = clone_function or (lambda layer: type(layer).from_config(layer.get_config()))
    made = {id(layer): make(layer) for layer in model.layers if layer not in model.input_layers}
    if hasattr(model, "pop"):  # a Sequential
        first = [Input(model.input_shape[1:], dtype=model.inputs[0].dtype)] if model.inputs else []
        return _compiled(type(model)([*first, *made.values()], name=model.name), model)
    fresh = [Input(t.shape[1:], dtype=t.dtype, name=t.name) for t in model.inputs]
    inputs = fresh if input_tensors is None else listed(input_tensors)
    tensors = {id(t): new for t, new in zip(model.inputs, inputs, strict=True)}
    for call in model.graph.calls:
        given, layer = [tensors[id(t)] for t in call.inputs], made[id(call.layer)]
        found = listed(layer.connect(Call(layer, given, call.training, call.as_list, call.form)))
        tensors |= {id(t): new for t, new in zip(call.outputs, found, strict=True)}
    outputs = [tensors[id(t)] for t in model.outputs]
    one = inputs[0] if model.one_input else inputs
    return _compiled(type(model)(one, model.packed(outputs), name=model.name), model)


def _compiled(clone: Any, model: Any) -> Any:
    """The clone, compiled as the model is, with an optimizer of its own."""
    if model.compiled is not None:
        settings = model.compiled.settings
        optimizer = type(model.optimizer).from_config(model.optimizer.get_config())
        clone.compile(**copy.deepcopy({**settings, "optimizer": optimizer}))
    return clone
