"""Keras's weight files, read and written: `.h5`, `.weights.h5` and `.keras`.

Whichever it is, it becomes an *inventory*: the layers, each with its arrays in their order,

    [("conv", [("conv/kernel", array), ("conv/bias", array)]), ...]

The first two are HDF5, trees of groups with arrays at their ends and attributes on both:

    legacy `.h5`    /                   layer_names = ["conv", ...]: which layers, in which order
                    /conv               weight_names = ["conv/kernel", "conv/bias"]
                    /conv/conv/kernel   an array; the group that has the layers is the root, or
                                        `model_weights` in a file of `model.save("m.h5")`
    `.weights.h5`   /layers/conv2d/vars     name = "conv"; the group is named by the class
                    /layers/conv2d/vars/0   an array; 0 is the kernel, 1 the bias
    `.keras`        a zip archive: the latter as `model.weights.h5`, beside `config.json`

A list of names of more than 64,512 bytes is split into `layer_names0`, `layer_names1`, ... Files
come from strangers: nothing is unpickled, and `hdf5_reader.py` trusts nothing.
"""

import itertools
import json
import lzma
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from minitl.naming import nearest
from minitl.storage.atomic import hdf5_file, replacing
from minitl.storage.door import SPARE, Bounded, open_regular
from minitl.storage.hdf5_reader import SIGNATURE, File, Hdf5Error, Object
from minitl.storage.keras_weights import Inventory, WeightFileError
from minitl.storage.weight_matching import Layers, Weights, not_finite_numbers, refuse_twice
from minitl.storage.weight_matching import plan as plan

ATTRIBUTE_LIMIT = 64512  # bytes: an HDF5 object header holds no larger attribute
DEEPEST = 64  # models within models: what is nested deeper is no model
LONGEST_CONFIG = 8_000_000  # characters of JSON, which take 25 times the memory when they are read
# What reading a damaged archive raises: RuntimeError where it is encrypted.
BROKEN_ARCHIVE = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError),
    *(RuntimeError, NotImplementedError, OverflowError),
)
Target = str | os.PathLike[str]
About = Mapping[str, Any]  # attributes
Arrays = list[tuple[str, np.ndarray]]
CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"


@dataclass
class WeightFile:
    """What a weight file holds: `layers` in order, the root's `attributes` (those of a `.keras`
    archive hold its `config.json`, as 'model_config'), and its `layout`."""

    path: Path
    layers: Inventory
    attributes: dict[str, Any]
    layout: str  # "legacy" or "keras3"
    optimizer: list[np.ndarray] = field(default_factory=list)  # its state, in Keras's order


def read_weights(path: Target) -> WeightFile:
    """Read every array of a Keras weight file: `.h5`, `.weights.h5` or `.keras`, by its contents.

    Layers without weights are listed, with an empty list. In the `.weights.h5` layout arrays have
    numbers for names ('dense/0'). Raises FileNotFoundError, or WeightFileError for a file that is
    damaged, of another kind, that leads out of itself, or declares more than it holds.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightFileError(f"{path} is a folder; expected a weight file (.h5)")
    if not path.exists():
        hint = f" (nor a folder {path.parent})"
        if path.parent.is_dir():
            names = (other.name for other in path.parent.iterdir())
            near = nearest(path.name, names, cutoff=0.7)
            hint = f"; is it {near!r}?" if near else ""
        raise FileNotFoundError(f"there is no weight file {path}{hint}")
    with open_regular(path) as file:
        archived = file.read(4) == b"PK\x03\x04"
        return _read_archive(path, file) if archived else _read_hdf5(path, file)


def _read_hdf5(path: Path, source: IO[bytes]) -> WeightFile:
    """Take the inventory of an open file."""
    source.seek(0)
    _expect_hdf5(path, source.read(512))
    layout, reader = "legacy", _Reader()
    try:
        root = File(source).root
        attributes = root.attributes
        if _split_names(attributes, "layer_names"):
            layers = reader.legacy(root)
        elif "model_weights" in root:
            layers = reader.legacy(root["model_weights"])
        elif "layers" in root or "_layer_checkpoint_dependencies" in root:
            layers, layout = reader.keras3(root), "keras3"
        else:
            found = ", ".join(repr(name) for name in list(root.links)[:5]) or "nothing"
            expected = "the attribute 'layer_names' or a group 'model_weights' or 'layers'"
            text = f"{path} is an HDF5 file, but not one of Keras's weights: expected {expected}"
            raise WeightFileError(f"{text}, found {found}")
        optimizer = reader.optimizer(root)
    except Hdf5Error as error:
        if str(error).startswith("truncated"):
            raise WeightFileError(f"{path} is {error}; copy or download it again") from None
        raise WeightFileError(f"{path}: {error}") from None
    single = {
        name: values[0] if isinstance(values[0], str) else values[0].item()
        for name, values in attributes.items()
        if values is not None and values.size == 1 and not name.startswith("layer_names")
    }
    return WeightFile(path, layers, single, layout, optimizer)


class _Reader:
    """Takes the arrays out of one file, each only once: a second way to one is a trap."""

    def __init__(self) -> None:
        self.seen: set[int] = set()

    def once(self, found: Object) -> Object:
        if found.address in self.seen:
            raise Hdf5Error(f"{found.path} is reached twice")
        self.seen.add(found.address)
        return found

    def legacy(self, root: Object) -> Inventory:
        names = _names(root, "layer_names")
        refuse_twice(names, "layer")
        layers = [(name, self.weights(root[name], name)) for name in names]
        # Weights that belong to no layer: Keras keeps them beside the layers, unlisted.
        extra = "top_level_model_weights"
        if extra in root and extra not in names and (more := self.weights(root[extra], extra)):
            layers.append((extra, more))
        return layers

    def optimizer(self, root: Object) -> list[np.ndarray]:
        """What the optimizer remembers, if the file has it."""
        if "optimizer_weights" in root:
            return [a for _, a in self.weights(root["optimizer_weights"], "optimizer")]
        if "optimizer" not in root or "vars" not in root["optimizer"]:
            return []
        places = root["optimizer"]["vars"]
        if not all(name.isdecimal() for name in places.links):
            raise Hdf5Error("expected numbers for the names of the optimizer's arrays")
        return [self.once(places[name]).read() for name in sorted(places.links, key=int)]

    def weights(self, group: Object, layer: str) -> Arrays:
        names = _names(self.once(group), "weight_names")
        refuse_twice(names, f"weight of layer {layer!r}")
        return [(name, self.once(group[name]).read()) for name in names]

    def keras3(self, root: Object) -> Inventory:
        """Read `.weights.h5`: layers/<class name>/vars/0, 1, ...; the layer's name is an attribute.

        Nothing tells the order of the layers. They are taken in the order in which their arrays lie
        in the file: Keras 3.15 writes them in the model's (a test looks); `plan` needs no order.
        """
        if "layers" not in root:
            _layer_name(root["_layer_checkpoint_dependencies"], None)
        layers = root["layers"]
        found = []
        for key in layers.links:
            name = _layer_name(layers[key], None)
            found.append((*self.collect(layers[key], name), name))
        refuse_twice([name for _, _, name in found], "layer")
        return [(name, weights) for _, weights, name in sorted(found, key=lambda f: f[0])]

    def collect(self, group: Object, owner: str, depth: int = 0) -> tuple[int, Arrays]:
        """Where the weights of `group` and of all inside it begin, and the weights."""
        if depth > DEEPEST:
            raise Hdf5Error(f"{group.path[:80]}... is nested too deeply")
        blocks = []
        for name in self.once(group).links:
            child = group[name]
            if child.is_array or name == "seed_generator":  # a dropout's state, no weight
                continue
            if name == "vars":
                if wrong := [n for n in child.links if not n.isdecimal()]:
                    raise Hdf5Error(f"expected numbers for the names of arrays, found {wrong[0]!r}")
                arrays = {n: self.once(child[n]) for n in sorted(child.links, key=int)}
                weights = [(f"{owner}/{n}", array.read()) for n, array in arrays.items()]
                blocks.append((next((a.address for a in arrays.values()), 0), weights))
                continue
            for key in child.links if name == "layers" else (name,):
                inner = child[key] if name == "layers" else child
                path = f"{owner}/{_layer_name(inner, key)}"
                blocks.append(self.collect(inner, path, depth + 1))
        blocks = sorted((block for block in blocks if block[1]), key=lambda block: block[0])
        place = blocks[0][0] if blocks else 0
        return place, [weight for _, weights in blocks for weight in weights]


def _layer_name(group: Object, fallback: str | None) -> str:
    holder = "vars" if "vars" in group else ""
    name = (group[holder] if holder else group).attributes.get("name")
    if name is not None and name.size == 1 and isinstance(name[0], str):
        return str(name[0])
    if fallback is None:
        what = "this .weights.h5 keeps no layer names (an early Keras 3 wrote it), so its arrays "
        remedy = "load it in Keras and write it again with model.save('weights.h5')"
        raise Hdf5Error(f"{what}cannot be told apart; {remedy}")
    return fallback


def _split_names(attributes: Mapping[str, Any], attribute: str) -> list[str]:
    """The attributes in which a list of names is kept: itself, or `<attribute>0`, `..1`, ..."""
    pieces = (f"{attribute}{i}" for i in itertools.count())
    found = list(itertools.takewhile(attributes.__contains__, pieces))
    return [attribute] if attribute in attributes else found


def _names(group: Object, attribute: str) -> list[str]:
    attributes = group.attributes
    pieces = _split_names(attributes, attribute)
    if not pieces:
        raise Hdf5Error(f"{group.path} has no attribute {attribute!r}")
    names: list[str] = []
    for piece in pieces:
        values = attributes[piece]
        if values is None or (values.size and values.dtype != object):
            raise Hdf5Error(f"attribute {piece!r} of {group.path}: expected strings")
        names += map(str, values)
    return names


def _read_archive(path: Path, file: IO[bytes]) -> WeightFile:
    """A `.keras` file: a zip archive with config.json and model.weights.h5."""
    limit = path.stat().st_size + SPARE
    # In memory while it is small: in a container nothing may be writable.
    with tempfile.SpooledTemporaryFile(SPARE // 2) as weights:
        try:
            archive = zipfile.ZipFile(Bounded(file))
            members = archive.namelist()
            if WEIGHTS not in members:
                kind = f"a zip archive without {WEIGHTS!r}, so not a .keras file"
                raise WeightFileError(f"{path} is {kind}")
            for name in {WEIGHTS, CONFIG} & set(members):
                member = archive.getinfo(name)
                if member.file_size > (limit if name == WEIGHTS else LONGEST_CONFIG):
                    raise WeightFileError(f"{path} declares {member.file_size:,} bytes of {name}")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise WeightFileError(f"{path} is packed in a way that Keras does not use")
            with archive.open(WEIGHTS) as source:
                shutil.copyfileobj(source, weights)
            text = archive.read(CONFIG).decode("utf-8", "replace") if CONFIG in members else None
        except BROKEN_ARCHIVE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # a full disk, say: not the file's contents
            raise WeightFileError(f"{path} is a damaged zip archive ({error})") from error
        found = _read_hdf5(path, weights)
    if text is not None:
        found.attributes["model_config"] = text
    return found


def _expect_hdf5(path: Path, start: bytes) -> None:
    """Raise with what the file seems to be instead, by its first bytes."""
    if start.startswith(SIGNATURE):
        return
    kinds = {
        b"<": "is a web page (a login or error page saved under this name?)",
        b"version https://git-lfs": "is a Git LFS pointer; fetch the file with: git lfs pull",
        b"\x80": "is a Python pickle (PyTorch, perhaps), which minitl never loads",
        b"\x93NUMPY": "is a NumPy array",
    }
    found = [kind for begin, kind in kinds.items() if start.lstrip().startswith(begin)]
    kind = found[0] if found else f"begins with {start[:8]!r}" if start else "is empty"
    raise WeightFileError(f"{path} is not an HDF5 file: it {kind}")


# A place in a `.weights.h5`: the path of its group, the name of what it belongs to, its arrays.
Places = Sequence[tuple[str, str, Sequence[Any]]]
# A group of a file: its path, its attributes, its arrays by name.
Group = tuple[str, About, Mapping[str, Any]]


def write_weights(
    path: Target,
    layers: Layers,
    attributes: About | None = None,
    group: str | None = None,
    optimizer: Weights = (),
) -> None:
    """Write an inventory as Keras's legacy HDF5, beside its place and renamed into it.

    Keras reads such a file by the order of `layers`: give them in the model's order. Weight names
    are kept as they are; Keras's own are 'layer/kernel'. `attributes` (strings, numbers) are put on
    the root. A whole-model file has its weights in a `group` 'model_weights'.

    Raises WeightFileError for a name that is given twice or is not a path inside the file, and
    for arrays that are not finite numbers; nothing is written then.
    """
    problems = []
    refuse_twice([name for name, _ in layers], "layer")
    for layer, weights in layers:
        refuse_twice([name for name, _ in weights], f"weight of layer {layer!r}")
        for name in (layer, *(weight for weight, _ in weights)):
            if any(step in ("", ".") for step in name.split("/")) or "\0" in name:
                problems.append(f"{name!r} cannot be a name in an HDF5 file")
            elif len(name.encode("utf-8")) > ATTRIBUTE_LIMIT:
                problems.append(f"the name {name[:40]!r}... is longer than {ATTRIBUTE_LIMIT} bytes")
    named = [(f"{layer}: {name}", a) for layer, weights in layers for name, a in weights]
    _refuse_unless_finite(named, problems)
    root = group or ""
    # Keras 2 converts older versions' files, as those without one. The backend: kernels are HWIO.
    about = {"keras_version": "3.0.0", "backend": "tensorflow"}
    groups: list[Group] = [(f"{root}/", _split("layer_names", [name for name, _ in layers]), {})]
    groups += [(place, about, {}) for place in dict.fromkeys(("/", f"{root}/"))]
    for layer, weights in layers:
        names = _split("weight_names", [name for name, _ in weights])
        groups.append((f"{root}/{layer}", names, dict(weights)))
    if optimizer:
        names = _split("weight_names", [name for name, _ in optimizer])
        groups.append(("optimizer_weights", names, dict(optimizer)))
    _write(path, [*groups, ("/", attributes or {}, {})])


def write_keras3(path: Target, places: Places, attributes: About | None = None) -> None:
    """Write `.weights.h5`, where `places` say what lies where: ('layers/dense', 'fc1', arrays).
    Raises WeightFileError for arrays that are not finite numbers; nothing is written then."""
    _refuse_unless_finite([(name, array) for _, name, arrays in places for array in arrays])
    groups: list[Group] = [
        (f"{inside}/vars", {"name": name}, {str(i): array for i, array in enumerate(arrays)})
        for inside, name, arrays in places
    ]
    _write(path, [*groups, ("/", attributes or {}, {})])


def write_archive(path: Target, places: Places, config: str) -> None:
    """Write `.keras`: a zip archive, nothing compressed, of the model's description and weights."""
    with replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
        weights = Path(f"{part}.h5")
        try:
            write_keras3(weights, places)
            about = json.dumps({"keras_version": "3.0.0"})
            for name, text in ((METADATA, about), (CONFIG, config)):
                # Dated 1980, so that the same model gives the same file.
                archive.writestr(zipfile.ZipInfo(name), text)
            member = zipfile.ZipInfo(WEIGHTS)
            with weights.open("rb") as source, archive.open(member, "w") as target:
                shutil.copyfileobj(source, target)
        finally:
            weights.unlink(missing_ok=True)


def _write(path: Target, groups: Sequence[Group]) -> None:
    with replacing(path) as part, hdf5_file(part) as file:
        for name, attributes, arrays in groups:
            group = file.require_group(name)  # 'a' may be there already, because of 'a/b'
            group.attrs.update(attributes)
            for key, array in arrays.items():
                group.create_dataset(key, data=np.asarray(array))


def _split(attribute: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """A list of names as attributes: one, or as many as it takes for each to be small enough."""
    encoded = np.array([name.encode("utf-8") for name in names] or [b""], dtype=np.bytes_)
    for count in itertools.count(1):
        pieces = np.array_split(encoded[: len(names)], count)
        if all(piece.nbytes <= ATTRIBUTE_LIMIT for piece in pieces):
            break
    split = {f"{attribute}{i}": piece for i, piece in enumerate(pieces)}
    return split if count > 1 else {attribute: pieces[0]}


def _refuse_unless_finite(named: Sequence[tuple[str, Any]], problems: Sequence[str] = ()) -> None:
    wrong = [(name, not_finite_numbers(np.asarray(array))) for name, array in named]
    problems = [*problems, *(f"{name}: {text}" for name, text in wrong if text)]
    if problems:
        raise WeightFileError("these weights cannot be written:", problems)
