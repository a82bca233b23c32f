"""Models and their weights to files and back, in Keras's formats.

`keras_files.py` knows files and arrays, and `keras_config.py` the description of a model as JSON.
This file puts the two together. What Keras has no place for is a file's attribute 'minitl'. Keras
loads what `Model.save` writes, and the other way round, where both know the layers.
"""

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from minitl import initializers, losses, metrics
from minitl.autograd import Array, Variable
from minitl.kernels.machine import memory
from minitl.layers.base import Layer
from minitl.layers.core import InputLayer, InputRange
from minitl.models.arguments import guard
from minitl.models.model import Model
from minitl.models.opened import named_layers
from minitl.models.sequential import Sequential
from minitl.naming import snake_case
from minitl.storage import keras_config, optimizer_state
from minitl.storage import keras_files as files
from minitl.storage.atomic import temporary_folder
from minitl.storage.door import read_json
from minitl.storage.keras_config import class_name, layer_from, to_json
from minitl.storage.keras_config import describe as describe  # for `naming.part("files")`
from minitl.storage.keras_config import from_json as from_json
from minitl.storage.keras_config import is_layer as is_layer
from minitl.storage.keras_config import model_from_config as model_from_config
from minitl.storage.keras_config import model_of_class as model_of_class
from minitl.storage.settings import CUSTOM, custom_object_scope, serialize
from minitl.storage.weight_matching import numbered, plan

# Layers that a published file calls otherwise (Keras reads by order): ResNet50's top.
PUBLISHED_AS = {"probs": "predictions", "fc1000": "predictions"}


def inventory(model: Model, frozen_last: bool = False) -> list[tuple[str, list[Any]]]:
    """The model's layers in order, each with its weights named by their path and in order: within a
    layer, what can learn comes first, as in Keras's files. With `frozen_last` it is what is
    trainable now: so Keras expects it beside a description that says what is frozen."""

    def named(layer: Layer) -> list[tuple[str, Variable]]:
        """('dense/kernel', variable) ...; each layer's own with what can learn first."""
        found = [(v.name, v) for v in sorted(layer.own_weights, key=lambda v: not v.learnable)]
        found += [item for inner in layer.sublayers() for item in named(inner)]
        return [(f"{layer.name}/{path}", v) for path, v in found]

    last = "trainable" if frozen_last else "learnable"
    return [
        (layer.name, sorted(named(layer), key=lambda item: not getattr(item[1], last)))
        for layer in model.sublayers()
    ]


def save_weights(model: Model, filepath: str | Path, overwrite: bool = True) -> None:
    """Write the model's weights as HDF5: in Keras 3's form where the name ends in `.weights.h5`,
    as Keras does, else in the older one. Keras reads both, and tells them apart by the name.
    Of the older form Keras reads the weights of a frozen model inside a model in another order,
    and refuses them: load first there, and freeze then, or use '.weights.h5'.
    """
    path = _target(filepath, overwrite)
    notes = {"minitl": _notes(model)}
    if path.name.endswith(".weights.h5"):
        files.write_keras3(path, _all_places(model), notes)
    else:
        files.write_weights(path, _arrays(inventory(model)), notes)


def load_weights(
    model: Model, filepath: str | Path, skip_mismatch: bool = False, by_name: bool = False
) -> None:
    """Read weights into the model: all of them, or none and one error with the whole list; with
    `by_name` only layers of both the file and the model, `skip_mismatch` only of equal shapes."""
    stored = files.read_weights(filepath)
    layers, wanted = stored.layers, inventory(model)
    if not by_name:
        layers = _renumbered(layers, model, as_far=skip_mismatch)
    if skip_mismatch:
        layers, wanted = _fitting(layers, wanted)
    theirs, ours = {name for name, _ in layers}, {name for name, _ in wanted}
    rename = {a: b for a, b in PUBLISHED_AS.items() if a in theirs - ours and b in ours - theirs}
    by_name = by_name or skip_mismatch
    for variable, array in plan(layers, wanted, by_name=by_name, rename=rename, source=filepath):
        variable.assign(array)
    if model.optimizer is not None and model.optimizer.states:  # as in Keras, one that has begun
        notes = _json(stored.attributes.get("minitl") or "{}", filepath)
        optimizer_state.restore(model, stored.optimizer, notes.get("optimizer"))


def _fitting(stored: Any, wanted: Any) -> tuple[Any, Any]:
    """What of both sides fits, layer by layer, those inside others too; a warning names the rest.
    A layer's weights are either all loaded or none."""

    def by_owner(side: Any) -> dict[tuple[str, str], list[Any]]:
        found: dict[tuple[str, str], list[Any]] = {}
        for layer, weights in side:
            for path, array in weights:
                owner = path.split("/")[-2] if "/" in path else layer
                found.setdefault((layer, owner), []).append((path, array))
        return found

    theirs, ours = by_owner(stored), by_owner(wanted)
    shapes = ({k: [a.shape for _, a in ws] for k, ws in side.items()} for side in (theirs, ours))
    in_file, in_model = shapes
    fits = {key for key in in_model if sorted(in_model[key]) == sorted(in_file.get(key, []))}
    if skipped := [key for key in {**in_model, **in_file} if key not in fits]:
        lines = [
            f"  {'/'.join(dict.fromkeys(key))}: {in_model.get(key, 'nothing')} in the model, "
            f"{in_file.get(key, 'nothing')} in the file"
            for key in skipped
        ]
        text = "\n".join(["skip_mismatch: these layers keep what they had:", *lines])
        warnings.warn(text, UserWarning, stacklevel=4)

    def left(side: Any, owners: dict[tuple[str, str], list[Any]]) -> list[Any]:
        kept: dict[str, list[Any]] = {layer: [] for layer, _ in side}
        for key in (key for key in owners if key in fits):
            kept[key[0]] += owners[key]
        return list(kept.items())

    return left(stored, theirs), left(wanted, ours)


def _renumbered(stored: files.Inventory, model: Model, as_far: bool = False) -> files.Inventory:
    """The file's layers under the model's names, where both are automatic and differ in number (a
    model that is built twice in one process has 'dense' and 'dense_1' at first, then 'dense_2' and
    'dense_3'). Where file and model have as many layers of a kind, they are taken in order; with
    `as_far`, those of a kind of which the model knows no name, as far as they go."""
    new_names: dict[str, str] = {}
    with_weights = [layer for layer in model.sublayers() if layer.weights]
    ours, theirs = [layer.name for layer in with_weights], [name for name, w in stored if w]
    for kind in {snake_case(class_name(layer)) for layer in with_weights}:
        of_kind = ([n for n in names if numbered(n)[0] == kind] for names in (ours, theirs))
        here, there = (sorted(names, key=numbered) for names in of_kind)
        if len(here) == len(there) or (as_far and not {*here} & {*there}):
            new_names |= dict(zip(there, here, strict=False))

    def renamed(path: str, old: str) -> str:
        return "/".join(new_names.get(old, old) if p == old else p for p in path.split("/"))

    return [
        (new_names.get(name, name), [(renamed(path, name), array) for path, array in weights])
        for name, weights in stored
    ]


def _all_places(model: Model) -> list[tuple[str, str, list[Any]]]:
    """Where Keras 3 keeps the weights of a model, and what its optimizer remembers."""
    places = list(_places(model, "", set()))
    if state := optimizer_state.arrays_of(model):
        places.append(("optimizer", model.optimizer.name, [array for _, array in state]))
    return places


def _arrays(of: list[tuple[str, list[Any]]]) -> list[tuple[str, list[tuple[str, Any]]]]:
    return [(name, [(path, v.storage) for path, v in weights]) for name, weights in of]


def _places(layer: Layer, path: str, seen: set[int]) -> Iterator[tuple[str, str, list[Any]]]:
    """Where Keras 3 keeps the weights of a model: (group, name of the layer, its own arrays).
    Groups are named by the layers' class, and numbered; a layer of several models is in the first.
    """
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
        yield from _held(layer.layers, f"{path}/layers".lstrip("/"), seen)
    else:  # a layer around others
        for attribute in getattr(layer, "inner", layer.holding):
            yield from _held(getattr(layer, attribute, None), f"{path}/{attribute}", seen)


def _held(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, str, list[Any]]]:
    """The same of a layer, and of what lists and dicts hold: 'dense', 'dense_1', 'container' ..."""
    if isinstance(value, Layer):
        yield from _places(value, path, seen)
    elif isinstance(value, (list, tuple, dict)):
        taken: Counter[str] = Counter()
        for each in value.values() if isinstance(value, dict) else value:
            name = snake_case(class_name(each)) if isinstance(each, Layer) else "container"
            if each is not value and isinstance(each, (Layer, list, tuple, dict)):
                number = f"_{taken[name]}" * (taken[name] > 0)
                yield from _held(each, f"{path}/{name}{number}", seen)
                taken[name] += 1


def _target(filepath: str | Path, overwrite: bool, *endings: str) -> Path:
    path, known = Path(filepath), (".h5", *endings)
    if path.suffix not in (".hdf5", *known):
        expected = f"the name must end in {' or '.join(known)}, got {path.name!r}"
        raise ValueError(f"minitl writes HDF5 files: {expected}")
    if not overwrite and path.exists():
        raise FileExistsError(f"{path} exists already; pass overwrite=True to replace it")
    return path


def save_model(
    model: Model, filepath: str | Path, overwrite: bool = True, include_optimizer: bool = True
) -> None:
    """Write architecture, weights and metadata to one file: HDF5 (`.h5`), or Keras 3's `.keras`.

    Without `include_optimizer` nothing of `compile` is kept.
    """
    if not model.outputs:
        raise ValueError(f"{model.name!r} has no shapes yet; build it, or fit it, before saving")
    if not include_optimizer and model.compiled is not None:
        kept, model.compiled, model.optimizer = (model.compiled, model.optimizer), None, None
        try:
            return save_model(model, filepath, overwrite)
        finally:
            model.compiled, model.optimizer = kept
    path = _target(filepath, overwrite, ".keras")
    notes = _notes(model)
    if path.suffix == ".keras":
        described = keras_config.for_keras3(json.loads(to_json(model)) | {"minitl": notes})
        if compiled := json.loads(notes)["compile"]:
            described["compile_config"] = optimizer_state.for_keras(compiled)
        files.write_archive(path, _all_places(model), json.dumps(described))
    else:
        attributes = {"model_config": to_json(model), "minitl": notes}
        if compiled := json.loads(notes)["compile"]:
            training = optimizer_state.for_keras(compiled, by_class=True)
            training["optimizer_config"] = training.pop("optimizer")
            attributes["training_config"] = json.dumps(training)
        arrays = _arrays(inventory(model, frozen_last=True))
        state = optimizer_state.arrays_of(model)
        files.write_weights(path, arrays, attributes, "model_weights", state)


def load_model(
    filepath: str | Path, custom_objects: Mapping[str, Any] | None = None, compile: bool = True
) -> Model:
    """The model in a file of `save_model`, or of Keras's `model.save` ('name.h5', 'name.keras').
    With compile=True it is compiled as it was and its optimizer goes on where it stood; where that
    names what is not known, a warning says so. `custom_objects`: {name: class or function}."""
    with custom_object_scope(custom_objects or {}):
        return _load(filepath, compile)


def _load(filepath: str | Path, compile: bool) -> Model:
    stored = files.read_weights(filepath)
    if "model_config" not in stored.attributes:
        advice = "build the model and call model.load_weights"
        raise files.WeightFileError(f"{filepath} holds weights without an architecture; {advice}")
    numbers = sum(array.size for _, weights in stored.layers for _, array in weights)
    with _described_well(filepath):
        described = _json(stored.attributes["model_config"], filepath)
        notes = _json(stored.attributes.get("minitl") or described.get("minitl", "{}"), filepath)
        with _without_values(8 * numbers):  # in float64; a description can ask for anything
            model = layer_from(described["class_name"], described["config"])
        if not isinstance(model, Model):
            raise ValueError(f"it describes a {described['class_name']}, no model")
        model.metadata = dict(notes.get("metadata", {}))
        ranges, multipliers = notes.get("input_ranges", {}), notes.get("rate_multipliers", {})
        for layer in input_layers(model):
            if layer.name in ranges:
                layer.inspect = InputRange(*ranges[layer.name])
        for place, inner in named_layers(model):
            inner.rate_multiplier = multipliers.get(place, 1.0)
        training = _json(stored.attributes.get("training_config") or "{}", filepath)
    # The layers that a user's model makes are numbered on, where they have no names.
    layers = _renumbered(stored.layers, model) if model.users else stored.layers
    for variable, array in plan(layers, inventory(model), source=filepath):
        variable.assign(array)
    settings = notes.get("compile") or described.get("compile_config") or training
    if compile and settings:
        try:
            model.compile(**_compile_settings(settings))
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            remedy = "call compile, or give load_model custom_objects={name: object}"
            text = f"the model of {filepath} is not compiled ({error}): {remedy}"
            warnings.warn(text, UserWarning, stacklevel=4)
        optimizer_state.restore(model, stored.optimizer, notes.get("optimizer"))
    return model


def _compile_settings(settings: Any) -> dict[str, Any]:
    """The arguments of `compile` in a file of minitl's or Keras's."""
    known = ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics")
    found = {name: settings[name] for name in known if settings.get(name) is not None}
    if "optimizer_config" in settings:
        found["optimizer"] = settings["optimizer_config"]

    def named(value: Any) -> Any:  # functions of the user's, which metrics look for later
        if isinstance(value, list):
            return [named(each) for each in value]
        if isinstance(value, dict) and value.get("class_name") == "function":  # of Keras's
            value = value["config"]
        if value is found.get("loss") and isinstance(value, dict) and "class_name" in value:
            return losses.get(value)  # `model.loss` is what it was
        return CUSTOM.get(value, value) if isinstance(value, str) else value

    return {name: value if name == "optimizer" else named(value) for name, value in found.items()}


def reduced(model: Model) -> Any:
    """For `copy.deepcopy` and pickle: a model is what a file of `save` holds."""
    own = {type(layer).__name__: type(layer) for layer in model.inside() if layer.users}
    return from_bytes, (to_bytes(model), own)


def to_bytes(model: Model) -> bytes:
    """The contents of a file of `save_model`."""
    with temporary_folder() as folder:
        save_model(model, folder / "model.h5")
        return (folder / "model.h5").read_bytes()


def from_bytes(data: bytes, custom_objects: Any = None) -> Model:
    """The model in the contents of such a file."""
    with temporary_folder() as folder:
        (folder / "model.h5").write_bytes(data)
        return load_model(folder / "model.h5", custom_objects)


@contextmanager
def _without_values(size: int) -> Iterator[None]:
    """Within the block weights are made without values: those of the file are to be copied there.
    A description of more than `size` bytes of weights, the file's, lies: MemoryError."""
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
    except files.WeightFileError:
        raise
    except MemoryError as error:
        text = f"{filepath} describes a model of more weights than it holds ({error})"
        raise files.WeightFileError(text) from None
    except ValueError as error:
        unknown = str(error).startswith("unknown ") and "custom_objects" not in str(error)
        remedy = " If it is yours: load_model(path, custom_objects={name: object})."
        raise files.WeightFileError(f"{filepath}: {error}{remedy * unknown}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        text = f"its description of the model is damaged ({type(error).__name__}: {error})"
        raise files.WeightFileError(f"{filepath}: {text}") from error


def _json(text: Any, filepath: str | Path) -> dict[str, Any]:
    if isinstance(text, str) and len(text) > files.LONGEST_CONFIG:
        length = f"{len(text):,} characters, more than any network needs"
        raise files.WeightFileError(f"{filepath}: its description of the model has {length}")
    value = None
    with suppress(TypeError, ValueError, AttributeError):
        value = read_json(text)
    if not isinstance(value, dict):
        raise files.WeightFileError(f"{filepath}: its description of the model is damaged")
    return value


def _notes(model: Model) -> str:
    """What minitl keeps beside what Keras's layout has a place for, as JSON."""
    found = {layer.name: layer.inspect for layer in input_layers(model)}
    known = {name: r for name, r in found.items() if isinstance(r, InputRange)}
    ranges = {name: [r.low, r.high, r.remedy] for name, r in known.items()}
    multipliers = {path: layer.rate_multiplier for path, layer in named_layers(model)}
    multipliers = {path: by for path, by in multipliers.items() if by != 1}
    compiled = None
    if model.compiled is not None:
        try:  # the optimizer as it is now: its rate may have been set
            given = model.compiled.settings | {"optimizer": model.optimizer}
            compiled = serialize(given, {*losses.TABLE, *metrics.TABLE})
        except ValueError as error:
            text = f"what compile was given is not saved, as {error}: compile the loaded model"
            warnings.warn(text, UserWarning, stacklevel=4)
    notes: dict[str, Any] = {"metadata": model.metadata, "rate_multipliers": multipliers}
    notes |= {"input_ranges": ranges, "compile": compiled}
    return json.dumps(notes | {"optimizer": optimizer_state.notes_of(model)})


def input_layers(layer: Layer) -> Iterable[InputLayer]:
    if isinstance(layer, InputLayer):
        yield layer
    for inner in layer.sublayers():
        yield from input_layers(inner)
    if isinstance(layer, Sequential):
        yield from layer.input_layers


guard(globals())
