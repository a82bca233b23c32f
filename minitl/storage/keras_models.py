"""Models to files and back: the architecture as Keras's JSON, the weights as Keras's HDF5.

`hdf5.py` knows files and arrays; this file knows models. A file that `Model.save` writes can be
loaded by `keras.models.load_model`, and the other way round, as long as both know the layers.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minitl import initializers
from minitl import layers as layers_module
from minitl.applications.preprocessing import InputRange
from minitl.autograd import Array, Variable
from minitl.kernels.machine import memory
from minitl.layers.base import Layer, SymbolicTensor
from minitl.layers.core import InputLayer
from minitl.models.model import Model
from minitl.models.sequential import Sequential
from minitl.naming import did_you_mean, snake_case, without_idle
from minitl.storage import keras_files as hdf5
from minitl.storage.describing_tmp import class_name, describe, from_json, to_json  # noqa: F401

Inventory = list[tuple[str, list[tuple[str, Variable]]]]

# Layers that a published file calls otherwise than the network does now: ResNet50's top. (Keras,
# which reads by order, does not see it.)
PUBLISHED_AS = {"probs": "predictions", "fc1000": "predictions"}


def inventory(model: Model) -> Inventory:
    """The model's layers in order, each with its weights named by their path and in order.

    Within a layer, what can learn comes first, as in Keras's files; freezing changes nothing.
    """
    return [
        (layer.name, sorted(_named_weights(layer), key=lambda item: not item[1].learnable))
        for layer in model.all_layers
    ]


def inventory_as_frozen(model: Model) -> Inventory:
    """The same in the order that Keras expects beside a description of the model that says what
    is frozen: within a layer (a nested base, say) what is trainable comes first."""
    return [
        (layer.name, sorted(_named_weights(layer), key=lambda item: not item[1].trainable))
        for layer in model.all_layers
    ]


def _named_weights(layer: Layer) -> list[tuple[str, Variable]]:
    """('dense/kernel', variable) ...; each layer's own with what can learn first."""
    own = sorted(layer.own_weights, key=lambda v: not v.learnable)
    found = [(f"{layer.name}/{v.name}", v) for v in own]
    for inner in layer.sublayers():
        found += [(f"{layer.name}/{path}", v) for path, v in _named_weights(inner)]
    return found


# --- Weights -------------------------------------------------------------------------------------


def save_weights(model: Model, filepath: str | Path, overwrite: bool = True) -> None:
    """Write the model's weights as HDF5: in Keras 3's form where the name ends in `.weights.h5`,
    as Keras does, else in the older one. Keras reads both, and tells them apart by the name."""
    path = _target(filepath, overwrite)
    notes = {"minitl": json.dumps(_notes(model))}
    if path.name.endswith(".weights.h5"):
        hdf5.write_keras3(path, keras3_places(model), notes)
    else:
        hdf5.write_weights(path, _arrays(inventory(model)), notes)


def load_weights(
    model: Model, filepath: str | Path, skip_mismatch: bool = False, by_name: bool = False
) -> None:
    """Read weights into the model: all of them, or none and one error with the whole list.

    Args:
        by_name: load only the layers that both the file and the model have.
        skip_mismatch: the same, and layers whose shapes differ keep what they have.
    """
    stored = hdf5.read_weights(filepath)
    wanted = inventory(model)
    if skip_mismatch:
        fits = {name: [v.shape for _, v in weights] for name, weights in wanted}
        layers = [
            (name, weights)
            for name, weights in stored.layers
            if sorted(a.shape for _, a in weights) == sorted(fits.get(name, []))
        ]
        by_name = True
    else:
        layers = stored.layers
        if not by_name:
            layers = _renumbered(layers, model)
    theirs, ours = {name for name, _ in layers}, {name for name, _ in wanted}
    rename = {
        old: new
        for old, new in PUBLISHED_AS.items()
        if old in theirs - ours and new in ours - theirs
    }
    pairs = hdf5.plan(layers, wanted, by_name=by_name, rename=rename, source=filepath)
    for variable, array in pairs:
        variable.assign(array)


def _renumbered(stored: hdf5.Inventory, model: Model) -> hdf5.Inventory:
    """The file's layers under the model's names, where both are automatic and differ in number.

    A model that is built twice in one process has 'dense' and 'dense_1' at first, then 'dense_2'
    and 'dense_3'. Where file and model have as many layers of a kind, they are taken in order.
    """
    new_names: dict[str, str] = {}
    with_weights = [layer for layer in model.all_layers if layer.weights]
    for kind in {snake_case(class_name(layer)) for layer in with_weights}:
        automatic = re.compile(re.escape(kind) + r"(?:_(\d+))?")
        here, there = (
            sorted(
                (name for name in names if automatic.fullmatch(name)),
                key=lambda name: int(automatic.fullmatch(name)[1] or 0),  # type: ignore[index]
            )
            for names in (
                [layer.name for layer in with_weights],
                [name for name, weights in stored if weights],
            )
        )
        if len(here) == len(there):
            new_names |= dict(zip(there, here, strict=True))
    return [(new_names.get(name, name), weights) for name, weights in stored]


def _arrays(of: Inventory) -> list[tuple[str, list[tuple[str, Any]]]]:
    return [(name, [(path, v.storage) for path, v in weights]) for name, weights in of]


def keras3_places(layer: Layer, path: str = "") -> list[tuple[str, str, list[Any]]]:
    """Where Keras 3 keeps the weights of a model: (group, name of the layer, its own arrays).

    The groups of a model's layers are named by their class and numbered in order. A layer that
    belongs to several models is kept in the first.
    """
    return list(_places(layer, path, set()))


def _places(layer: Layer, path: str, seen: set[int]) -> Iterator[tuple[str, str, list[Any]]]:
    if id(layer) in seen:
        return
    seen.add(id(layer))
    own = [v.storage for v in sorted(layer.own_weights, key=lambda v: not v.learnable)]
    if type(layer).__name__ in ("LSTM", "GRU"):  # which keep theirs in a part of their own
        yield path, layer.name, []
        yield f"{path}/cell", f"{snake_case(type(layer).__name__)}_cell", own
    else:
        yield path, layer.name, own
    if isinstance(layer, Model):
        taken: Counter[str] = Counter()
        for each in layer.layers:
            name = snake_case(class_name(each))
            number = f"_{taken[name]}" if taken[name] else ""
            taken[name] += 1
            yield from _places(each, f"{path}/layers/{name}{number}".lstrip("/"), seen)
    else:  # a layer around others
        for attribute in getattr(layer, "inner", ()):
            yield from _places(getattr(layer, attribute), f"{path}/{attribute}", seen)


def _target(filepath: str | Path, overwrite: bool, *endings: str) -> Path:
    path = Path(filepath)
    if path.suffix not in (".h5", ".hdf5", *endings):
        known = " or ".join((".h5", *endings))
        raise ValueError(
            f"minitl writes HDF5 files: the name must end in {known}, got {path.name!r}"
        )
    if not overwrite and path.exists():
        raise FileExistsError(f"{path} exists already; pass overwrite=True to replace it")
    return path


# --- Whole models --------------------------------------------------------------------------------


def save_model(model: Model, filepath: str | Path, overwrite: bool = True) -> None:
    """Write architecture, weights and metadata to one file: HDF5 (`.h5`), or Keras 3's `.keras`."""
    if not model.outputs:
        raise ValueError(f"{model.name!r} has no shapes yet; build it, or fit it, before saving")
    path = _target(filepath, overwrite, ".keras")
    notes = json.dumps(_notes(model))
    if path.suffix == ".keras":
        described = json.loads(model.to_json()) | {"minitl": notes}
        versions = json.dumps({"keras_version": "3.0.0"})
        hdf5.write_archive(path, keras3_places(model), json.dumps(_for_keras3(described)), versions)
        return
    attributes = {"model_config": model.to_json(), "minitl": notes}
    arrays = _arrays(inventory_as_frozen(model))
    hdf5.write_weights(path, arrays, attributes, group="model_weights")


def _for_keras3(described: dict[str, Any]) -> dict[str, Any]:
    """The description of a layer or model, and of all inside it, with the modules in which Keras 3
    looks for the classes."""
    name = described["class_name"]
    module = {"Functional": "keras.src.models.functional", "Sequential": "keras"}
    settings = dict(described["config"])
    if "layers" in settings:
        settings["layers"] = [each | _for_keras3(each) for each in settings["layers"]]
    if name == "Sequential":  # it knows its input from the first layer
        settings.setdefault("build_input_shape", None)
    return described | {
        "module": module.get(name, "keras.layers"),
        "registered_name": name if name == "Functional" else None,
        "config": settings,
    }


def load_model(filepath: str | Path, compile: bool = True) -> Model:
    """The model in a file of `save_model`, or of Keras's `model.save` ('name.h5', 'name.keras').

    With compile=True it is compiled as it was, except that the optimizer starts afresh; what
    cannot be named (a function as loss) is left for the user to compile.
    """
    stored = hdf5.read_weights(filepath)
    if "model_config" not in stored.attributes:
        raise hdf5.WeightFileError(
            f"{filepath} holds weights without an architecture; build the model and call "
            f"model.load_weights"
        )
    numbers = sum(array.size for _, weights in stored.layers for _, array in weights)
    with _described_well(filepath):
        described = _json(stored.attributes["model_config"], filepath)
        notes = _json(stored.attributes.get("minitl") or described.get("minitl", "{}"), filepath)
        with _without_values(8 * numbers):  # in float64; a description can ask for anything
            model = layer_from(described["class_name"], described["config"])
        if not isinstance(model, Model):
            raise ValueError(f"it describes a {described['class_name']}, no model")
        model.metadata = dict(notes.get("metadata", {}))
        for layer in input_layers(model):
            if layer.name in notes.get("input_ranges", {}):
                layer.inspect = InputRange(*notes["input_ranges"][layer.name])
        multipliers = notes.get("rate_multipliers", {})
        for place, inner in named_layers(model):
            inner.rate_multiplier = multipliers.get(place, 1.0)
        settings = notes.get("compile")
        if compile and settings and settings["loss"] is not None:
            model.compile(**settings)
    for variable, array in hdf5.plan(stored.layers, inventory(model), source=filepath):
        variable.assign(array)
    return model


def to_bytes(model: Model) -> bytes:
    """The contents of a file of `save_model`."""
    with tempfile.TemporaryDirectory(prefix="minitl-") as folder:
        save_model(model, Path(folder) / "model.h5")
        return (Path(folder) / "model.h5").read_bytes()


def from_bytes(data: bytes) -> Model:
    """The model in the contents of such a file."""
    with tempfile.TemporaryDirectory(prefix="minitl-") as folder:
        (Path(folder) / "model.h5").write_bytes(data)
        return load_model(Path(folder) / "model.h5")


@contextmanager
def _without_values(size: int) -> Iterator[None]:
    """Within the block weights are made without values: those of the file are to be copied there.

    A file that describes a model has its weights, too: a description of more than `size` bytes of
    them lies. Raises MemoryError then.
    """
    left = size

    def make(shape: tuple[int, ...], dtype: np.dtype) -> Array:
        nonlocal left
        wanted = math.prod(shape) * dtype.itemsize
        if wanted > left:
            raise MemoryError(f"a weight of {wanted:,} bytes, where {left:,} are left")
        left -= wanted
        return memory.empty(shape, dtype)

    token = initializers.replacement.set(make)
    try:
        yield
    finally:
        initializers.replacement.reset(token)


@contextmanager
def _described_well(filepath: str | Path) -> Iterator[None]:
    """Whatever goes wrong in building what a file describes is the file's fault."""
    try:
        yield
    except hdf5.WeightFileError:
        raise
    except MemoryError as error:
        raise hdf5.WeightFileError(
            f"{filepath} describes a model of more weights than it holds ({error})"
        ) from None
    except ValueError as error:
        raise hdf5.WeightFileError(f"{filepath}: {error}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise hdf5.WeightFileError(
            f"{filepath}: its description of the model is damaged ({type(error).__name__}: {error})"
        ) from error


def _json(text: Any, filepath: str | Path) -> dict[str, Any]:
    if isinstance(text, str) and len(text) > hdf5.LONGEST_CONFIG:
        raise hdf5.WeightFileError(
            f"{filepath}: its description of the model has {len(text):,} characters, more than "
            f"any network needs"
        )
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise hdf5.WeightFileError(f"{filepath}: its description of the model is damaged")
    return value


def _notes(model: Model) -> dict[str, Any]:
    """What minitl keeps beside what Keras's layout has a place for."""
    ranges = {
        layer.name: [layer.inspect.low, layer.inspect.high, layer.inspect.remedy]
        for layer in input_layers(model)
        if isinstance(layer.inspect, InputRange)
    }
    multipliers = {
        path: layer.rate_multiplier
        for path, layer in named_layers(model)
        if layer.rate_multiplier != 1
    }
    return {
        "metadata": model.metadata,
        "rate_multipliers": multipliers,
        "input_ranges": ranges,
        "compile": (model.compiled.settings if model.compiled else None),
    }


def named_layers(layer: Layer, path: str = "") -> Iterable[tuple[str, Layer]]:
    """('vgg16/block1_conv1', layer) ... of the layers that hold no others."""
    for inner in layer.sublayers():
        yield from named_layers(inner, f"{path}{inner.name}/")
    if path and not list(layer.sublayers()):
        yield path[:-1], layer


def input_layers(layer: Layer) -> Iterable[InputLayer]:
    if isinstance(layer, InputLayer):
        yield layer
    for inner in layer.sublayers():
        yield from input_layers(inner)
    if isinstance(layer, Sequential):
        yield from layer.input_layers


# --- Architectures -------------------------------------------------------------------------------


def layer_from(class_name: str, settings: dict[str, Any]) -> Layer:
    """A layer or a model from its class name and configuration."""
    if class_name in ("Functional", "Model"):
        return model_from_config(settings)
    if class_name == "Sequential":
        return _sequential_from(settings)
    known = {n: getattr(layers_module, n) for n in layers_module.__all__ if n[0].isupper()}
    if class_name not in known:
        raise ValueError(
            f"the file uses the layer {class_name!r}, which minitl does not have. "
            f"{did_you_mean(class_name, known)}"
        )
    return known[class_name].from_config(settings)


def _sequential_from(settings: dict[str, Any]) -> Sequential:
    layers = [layer_from(each["class_name"], each["config"]) for each in settings["layers"]]
    model = Sequential(layers, name=settings["name"])
    if settings.get("build_input_shape") and not model.outputs:
        model.build(settings["build_input_shape"])
    return model


def model_from_config(settings: dict[str, Any]) -> Model:
    """A functional model from the description of `Model.get_config`, or of Keras 2 or 3.

    Layers are made first. Then the calls are repeated, each as soon as its inputs are there.
    """
    if isinstance(settings["output_layers"], dict):
        raise ValueError(
            f"its model gives its outputs as a dict, by the names "
            f"{', '.join(sorted(settings['output_layers']))}; minitl's give a list. Build the "
            f"model with a list of outputs, and load the weights"
        )
    layers: dict[str, Layer] = {}
    pending: list[tuple[Layer, int, Any]] = []
    made: dict[tuple[str, int], list[SymbolicTensor]] = {}
    for each in settings["layers"]:
        name = each.get("name") or each["config"]["name"]
        layer = layer_from(each["class_name"], each["config"])
        layers[name] = layer
        if isinstance(layer, InputLayer):
            made[name, 0] = [layer.output]
        pending += [(layer, i, call) for i, call in enumerate(each["inbound_nodes"])]

    def look(reference: Any) -> SymbolicTensor:
        name, node, index = reference[:3]
        return made[name, node - first_output[name]][index]

    first, first_output = _first_calls(settings)
    while pending:
        later = []
        for layer, i, call in pending:
            references, as_list, training = _read_call(call)
            places = [(name, node - first[name]) for name, node, *_ in references]
            if not all(place in made for place in places):
                later.append((layer, i, call))
                continue
            inputs = [made[p][r[2]] for p, r in zip(places, references, strict=True)]
            result = layer(inputs if as_list else inputs[0], training=training)
            made[layer.name, i] = result if isinstance(result, list) else [result]
        if len(later) == len(pending):
            names = sorted({layer.name for layer, _, _ in later})
            raise ValueError(f"graph disconnected: no inputs for the layers {', '.join(names)}")
        pending = later
    model = Model(
        _read_places(settings["input_layers"], look),
        _read_places(settings["output_layers"], look),
        name=settings["name"],
    )
    # Whether each layer learns came with the layer; this is the flag of the model itself.
    model._trainable = bool(settings.get("trainable", True))
    return model


def _first_calls(settings: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """The number of each layer's first call, among the calls' inputs and among the outputs.

    It is 0, but 1 of a functional model within the model: in Keras 3 among the outputs only, in
    Keras 2 always (and of a Sequential too).
    """
    calls: dict[str, int] = {}
    functional: set[str] = set()
    of_inputs: dict[str, list[int]] = {}
    of_outputs: dict[str, list[int]] = {}
    for each in settings["layers"]:
        name = each.get("name") or each["config"]["name"]
        calls[name], of_inputs[name], of_outputs[name] = len(each["inbound_nodes"]), [], []
        if each["class_name"] in ("Functional", "Model"):
            functional.add(name)
    for each in settings["layers"]:
        for call in each["inbound_nodes"]:
            for reference in _read_call(call)[0]:
                of_inputs[reference[0]].append(reference[1])
    for reference in _references(settings["output_layers"]):
        of_outputs[reference[0]].append(reference[1])

    def first(name: str, numbers: list[int], usual: int) -> int:
        if 0 in numbers:
            return 0
        return 1 if numbers and max(numbers) >= max(calls[name], 1) else usual

    return (
        {name: first(name, numbers, 0) for name, numbers in of_inputs.items()},
        {name: first(name, n, int(name in functional)) for name, n in of_outputs.items()},
    )


def _read_call(call: Any) -> tuple[list[Any], bool, bool | None]:
    """One call as (references to its inputs, whether they came as a list, training)."""
    if isinstance(call, dict):  # Keras 3: {'args': [tensor or list of tensors], 'kwargs': {...}}
        inputs = call["args"][0]
        as_list = isinstance(inputs, list)
        references = [t["config"]["keras_history"] for t in (inputs if as_list else [inputs])]
        return references, as_list, _training(call.get("kwargs", {}))
    settings = call[0][3] if len(call[0]) > 3 else {}  # Keras 2: [[name, node, index, kwargs] ...]
    return call, len(call) > 1, _training(settings)


def _training(settings: dict[str, Any]) -> bool | None:
    """The only argument of a call beside its inputs that minitl has; others must do nothing."""
    return without_idle(settings, ("training",), "layers' calls").get("training")


def _read_places(places: Any, look: Any) -> Any:
    """The model's inputs or outputs."""
    if isinstance(places, dict):
        return {name: look(place) for name, place in places.items()}
    found = [look(place) for place in _references(places)]
    return found[0] if len(found) == 1 else found


def _references(places: Any) -> list[Any]:
    """[[layer, call, index] ...]: Keras 3 writes a single one without a list around it."""
    return [places] if places and isinstance(places[0], str) else places
