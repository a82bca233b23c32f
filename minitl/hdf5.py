"""Keras's weight files, read and written whole or not at all.

A file is an *inventory*: the layers in order, each with its arrays in order,

    [("block1_conv1", [("block1_conv1/kernel", array), ("block1_conv1/bias", array)]), ...]

`read_weights` reads it from the three layouts that Keras has used: legacy `.h5` (the official
files and `model.save("m.h5")`), `.weights.h5`, and the one inside `.keras`. `write_weights`
writes the legacy layout, which Keras, Keras 2 and minitl all read. `plan` lays an inventory over
a model's layers and checks everything before anything is assigned.

The legacy layout is a group a layer, an attribute `layer_names` that gives their order and in
each group an attribute `weight_names`; both are split into `layer_names0`, `layer_names1`, ...
past 64,512 bytes. A whole-model file has all this in a group `model_weights`.

A weight file comes from strangers. Nothing in it is unpickled, no link and no data set leads out
of it, and what it declares is held against its size before memory is taken.
"""

from __future__ import annotations

import difflib
import math
import mmap
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

import numpy as np

from minitl.files import replacing

Layers = Sequence[tuple[str, Sequence[tuple[str, Any]]]]

ATTRIBUTE_LIMIT = 64512  # bytes: an HDF5 object header holds no larger attribute
SPARE_MEMORY = 200_000_000  # bytes that a file may ask for beyond its own size


class WeightFileError(ValueError):
    """A weight file that cannot be read or does not fit; `problems` has one line for each."""

    def __init__(self, headline: str, problems: Sequence[str] = ()):
        super().__init__("\n  - ".join([headline, *problems]))
        self.problems = list(problems)


@dataclass
class WeightFile:
    """What a weight file holds: `layers` in order, the root's `attributes`, and its `layout`."""

    path: Path
    layers: list[tuple[str, list[tuple[str, np.ndarray]]]]
    attributes: dict[str, Any] = field(default_factory=dict)
    layout: str = "legacy"  # or "keras3"


# ---------------------------------------------------------------------------------- reading


def read_weights(path: str | os.PathLike[str]) -> WeightFile:
    """Read every array of a Keras weight file: `.h5`, `.weights.h5` or `.keras`.

    The layout is told by the contents, not by the name. Layers without weights are listed, with
    an empty list. In the `.weights.h5` layout arrays have numbers for names ('dense/0').

    Raises FileNotFoundError, or WeightFileError for a file that is truncated, damaged, of
    another kind, that leads out of itself, or that declares more than it holds.
    """
    path = Path(path)
    if path.is_dir():
        raise WeightFileError(f"{path} is a folder; expected a weight file (.h5)")
    if not path.exists():
        raise FileNotFoundError(f"there is no weight file {path}{_similar_files(path)}")
    with path.open("rb") as file:
        start = file.read(512)
    if start[:4] == b"PK\x03\x04":
        return _read_keras_archive(path)
    _expect_hdf5(path, start)
    with path.open("rb") as file:
        return _read_hdf5(path, path.stat().st_size, file)


def _read_hdf5(path: Path, size: int, source: IO[bytes]) -> WeightFile:
    """Take the inventory of an open file of `size` bytes."""
    import h5py

    try:
        _check_string_heaps(source)
        # A temporary file has a number for a name; h5py can read it through Python.
        named = isinstance(source.name, str | bytes | os.PathLike)
        with h5py.File(source.name if named else source, "r", locking=False) as file:
            reader = _Reader(file, size)
            if reader.has_names(file, "layer_names"):
                layers, layout = reader.legacy(file), "legacy"
            elif reader.has(file, "model_weights"):
                layers, layout = reader.legacy(reader.group(file, "model_weights")), "legacy"
            elif reader.has(file, "layers") or reader.has(file, "_layer_checkpoint_dependencies"):
                layers, layout = reader.keras3(file), "keras3"
            else:
                found = ", ".join(repr(name) for name in list(file)[:5]) or "nothing"
                raise WeightFileError(
                    f"{path} is an HDF5 file, but not one of Keras's weights: expected the "
                    f"attribute 'layer_names' or a group 'model_weights' or 'layers', "
                    f"found {found}"
                )
            return WeightFile(path, layers, reader.attributes(file), layout)
    except WeightFileError as error:
        if str(path) in str(error):
            raise
        raise WeightFileError(f"{path}: {error}") from None
    except Exception as error:
        # The HDF5 library reports damage through nearly every exception there is: OSError,
        # RuntimeError, KeyError, ValueError, TypeError, UnicodeDecodeError, MemoryError ...
        raise WeightFileError(_explain_damage(path, size, error)) from error


class _Reader:
    """Takes arrays out of one open file; every way into the file goes through here."""

    def __init__(self, file: Any, size: int):
        self.size = size
        self.left = size + SPARE_MEMORY  # bytes that all arrays together may still take

    def legacy(self, root: Any) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
        names = self.names(root, "layer_names")
        _refuse_twice(names, "layer")
        layers = [(name, self.weights(self.group(root, name), name)) for name in names]
        # Weights that belong to no layer: Keras keeps them beside the layers, unlisted.
        if self.has(root, "top_level_model_weights") and "top_level_model_weights" not in names:
            extra = self.weights(self.group(root, "top_level_model_weights"), "the model itself")
            if extra:
                layers.append(("top_level_model_weights", extra))
        return layers

    def weights(self, group: Any, layer: str) -> list[tuple[str, np.ndarray]]:
        names = self.names(group, "weight_names")
        _refuse_twice(names, f"weight of layer {layer!r}")
        return [(name, self.array(group, name)) for name in names]

    def keras3(self, root: Any) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
        """Read `.weights.h5`: layers/<class name>/vars/0, 1, ...; the layer's name is an attribute.

        Nothing in the file tells the order of the layers. They are taken in the order in which
        their arrays lie in it, in which Keras 3.15 writes the model's layers (a test looks);
        `plan` needs no order.
        """
        import h5py

        seen: set[int] = set()

        def children(group: Any) -> Iterator[tuple[str, Any]]:
            for name in group:
                child = self.member(group, name)
                if isinstance(child, h5py.Group):
                    address = _address(child)
                    if address in seen:
                        raise WeightFileError(f"group {child.name} is reached twice")
                    seen.add(address)
                    yield name, child

        def collect(group: Any, owner: str) -> tuple[int, list[tuple[str, np.ndarray]]]:
            """Where the weights of `group` and of all inside it begin, and the weights."""
            blocks = []
            for name, child in children(group):
                if name == "vars":
                    numbers = sorted(child, key=int)
                    weights = [(f"{owner}/{i}", self.array(child, i)) for i in numbers]
                    blocks.append((_address(child[numbers[0]]) if numbers else 0, weights))
                elif name == "layers":
                    for inner, inner_group in children(child):
                        inner = layer_name(inner_group, inner)
                        blocks.append(collect(inner_group, f"{owner}/{inner}"))
                elif name != "seed_generator":  # the state of a dropout, not a weight
                    blocks.append(collect(child, f"{owner}/{layer_name(child, name)}"))
            blocks = sorted((block for block in blocks if block[1]), key=lambda block: block[0])
            place = blocks[0][0] if blocks else 0
            return place, [weight for _, weights in blocks for weight in weights]

        def layer_name(group: Any, fallback: str | None) -> str:
            values = self.group(group, "vars") if self.has(group, "vars") else group
            if "name" in values.attrs:
                return self.strings(values, "name")[0]
            if fallback is None:
                raise WeightFileError(
                    "this .weights.h5 keeps no layer names (an early Keras 3 wrote it), so its "
                    "arrays cannot be told apart; load it in Keras and write it again with "
                    "model.save('weights.h5')"
                )
            return fallback

        if not self.has(root, "layers"):
            layer_name(self.group(root, "_layer_checkpoint_dependencies"), None)
        found = []
        for _, group in children(self.group(root, "layers")):
            name = layer_name(group, None)
            place, weights = collect(group, name)
            found.append((place, name, weights))
        _refuse_twice([name for _, name, _ in found], "layer")
        return [(name, weights) for _, name, weights in sorted(found, key=lambda layer: layer[0])]

    def array(self, group: Any, name: str) -> np.ndarray:
        """Read one data set, after everything it declares has been held against the file."""
        import h5py

        dataset = self.member(group, name)
        if not isinstance(dataset, h5py.Dataset):
            raise WeightFileError(f"{dataset.name} is not an array")
        where = dataset.name
        made_with = dataset.id.get_create_plist()
        if made_with.get_layout() == h5py.h5d.VIRTUAL or made_with.get_external_count():
            raise WeightFileError(
                f"{where} keeps its values in another file (a virtual or external data set); "
                f"expected the values themselves"
            )
        if made_with.get_nfilters():
            # Inflating can take a thousand times the file's size; Keras never compresses.
            raise WeightFileError(
                f"{where} is compressed; unpack the file with: h5repack -f NONE in.h5 out.h5"
            )
        if dataset.dtype.kind not in "fiub":
            raise WeightFileError(f"{where}: expected an array of numbers, found {dataset.dtype}")
        if dataset.shape is None:
            raise WeightFileError(f"{where} has no values")
        declared = math.prod(dataset.shape) * dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        if declared > min(stored, self.size):
            raise WeightFileError(
                f"{where} declares {declared:,} bytes (shape {_shape(dataset.shape)}), but the "
                f"file holds {min(stored, self.size):,} of them"
            )
        self.left -= declared
        if self.left < 0:
            raise WeightFileError(
                f"its arrays declare more than the {self.size:,} bytes of the file"
            )
        return np.asarray(dataset[()], dtype=dataset.dtype.newbyteorder("="))

    def group(self, parent: Any, name: str) -> Any:
        import h5py

        child = self.member(parent, name)
        if not isinstance(child, h5py.Group):
            raise WeightFileError(f"{child.name} is not a group")
        return child

    def member(self, group: Any, name: str) -> Any:
        """`group[name]`, one step at a time, and only along links that stay in this file."""
        import h5py

        for step in name.split("/"):
            if not self.has(group, step):
                raise WeightFileError(f"expected {name!r} in {group.name}, found nothing there")
            if group.id.links.get_info(step.encode()).type != h5py.h5l.TYPE_HARD:
                raise WeightFileError(
                    f"{name!r} in {group.name} is a link to somewhere else; links are not followed"
                )
            group = group[step]
        return group

    def has(self, group: Any, name: str) -> bool:
        """Whether `group` has a member of this name; unlike `in`, opens nothing to find out."""
        return name not in ("", ".") and group.id.links.exists(name.encode())

    def has_names(self, group: Any, attribute: str) -> bool:
        return attribute in group.attrs or f"{attribute}0" in group.attrs

    def names(self, group: Any, attribute: str) -> list[str]:
        """A list of names from an attribute, or from its pieces `<attribute>0`, `..1`, ..."""
        if attribute in group.attrs:
            pieces = [attribute]
        else:
            pieces = []
            while f"{attribute}{len(pieces)}" in group.attrs:
                pieces.append(f"{attribute}{len(pieces)}")
        if not pieces:
            raise WeightFileError(f"{group.name} has no attribute {attribute!r}")
        return [name for piece in pieces for name in self.strings(group, piece)]

    def attribute(self, group: Any, name: str) -> np.ndarray | None:
        """An attribute of strings or numbers as a 1-D array; None when it is anything else.

        The library crashes on damaged attributes of the other types (lists, references ...).
        """
        import h5py

        attribute = h5py.h5a.open(group.id, name.encode())
        kind = attribute.get_type().get_class()
        plain = kind in (h5py.h5t.STRING, h5py.h5t.INTEGER, h5py.h5t.FLOAT)
        if not plain or attribute.shape is None:
            return None
        if math.prod(attribute.shape) * attribute.dtype.itemsize > self.size:
            raise WeightFileError(f"attribute {name!r} of {group.name} is larger than the file")
        return np.ravel(group.attrs[name])

    def strings(self, group: Any, name: str) -> list[str]:
        values = self.attribute(group, name)
        if values is None:
            raise WeightFileError(f"attribute {name!r} of {group.name}: expected strings")
        return [_text(value) for value in values]

    def attributes(self, file: Any) -> dict[str, Any]:
        """The root's attributes that are one string or number (versions, provenance ...)."""
        found: dict[str, Any] = {}
        for name in file.attrs:
            values = self.attribute(file, name)
            if values is not None and values.size == 1 and not name.startswith("layer_names"):
                value = values[0]
                found[name] = _text(value) if isinstance(value, bytes | str) else value.item()
        return found


def _address(member: Any) -> int:
    """Where in the file a group or a data set begins."""
    import h5py

    return h5py.h5o.get_info(member.id).addr


def _text(name: Any) -> str:
    """Old h5py and old Keras give bytes, new ones str."""
    if isinstance(name, bytes):
        return name.decode("utf-8")
    if isinstance(name, str):
        return str(name)
    raise WeightFileError(f"expected a name, found {name!r}")


def _read_keras_archive(path: Path) -> WeightFile:
    """A `.keras` file: a zip archive with config.json and model.weights.h5."""
    try:
        with zipfile.ZipFile(path) as archive:
            if "model.weights.h5" not in archive.namelist():
                raise WeightFileError(
                    f"{path} is a zip archive without 'model.weights.h5', so not a .keras file"
                )
            info = archive.getinfo("model.weights.h5")
            if info.file_size > path.stat().st_size + SPARE_MEMORY:
                raise WeightFileError(f"{path} declares {info.file_size:,} bytes of weights")
            with archive.open(info) as member, tempfile.TemporaryFile() as file:
                shutil.copyfileobj(member, file)
                file.seek(0)
                _expect_hdf5(path, file.read(512))
                return _read_hdf5(path, info.file_size, file)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise WeightFileError(f"{path} is a damaged zip archive ({error})") from error


def _expect_hdf5(path: Path, start: bytes) -> None:
    """Raise with what the file seems to be instead, by its first bytes."""
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return
    if not start:
        kind = "is empty"
    elif start.lstrip()[:1] == b"<":
        kind = "is a web page (a login or error page saved under this name?)"
    elif start.startswith(b"version https://git-lfs"):
        kind = "is a Git LFS pointer; fetch the file itself with: git lfs pull"
    elif start[:1] == b"\x80":
        kind = "is a Python pickle (PyTorch, perhaps), which minitl never loads"
    elif start.startswith(b"\x93NUMPY"):
        kind = "is a NumPy array"
    else:
        kind = f"begins with {start[:8]!r}"
    raise WeightFileError(f"{path} is not an HDF5 file: it {kind}")


def _check_string_heaps(file: IO[bytes]) -> None:
    """Raise for damaged strings, before the HDF5 library (1.14.6) hangs or runs out of memory.

    Variable-length strings, such as layer names, lie in collections: 'GCOL', version 1, three
    bytes, the collection's size, then objects of index (2 bytes), count (2), 4 bytes, size (8)
    and data, padded to 8. Index 0 is free space, whose size includes its 16 bytes. The library
    steps from object to object by size, and never gets past a step of zero. A string is kept as
    a reference: length (4 bytes), address of the collection (8), index (4). The library takes
    memory for the length before it looks whether the object is so long.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:

        def number(at: int, size: int) -> int:
            return int.from_bytes(data[at : at + size], "little")

        version = data[8]
        if (data[13:15] if version < 2 else data[9:11]) != b"\x08\x08":
            raise WeightFileError("expected offsets and lengths of 8 bytes, found others")
        declared = 0
        heap = data.find(b"GCOL\x01")
        while heap >= 0:
            sizes = {}
            end, at = heap + number(heap + 8, 8), heap + 16
            while end <= len(data) and at + 16 <= end:
                index, size = number(at, 2), number(at + 8, 8)
                step = 16 + -(-size // 8) * 8 if index else size
                if not 16 <= step <= end - at:
                    raise WeightFileError(f"the strings at byte {at:,} are damaged")
                sizes[index] = size
                at += step
            address = heap.to_bytes(8, "little")
            reference = data.find(address)
            while reference >= 0:
                length, index = number(reference - 4, 4), number(reference + 8, 4)
                # The mapping of a virtual data set is kept here too (layout version 4, class 3).
                if index and index in sizes and length >> 16 != 0x0304:
                    declared += length
                    if length > sizes[index] or declared > len(data) + SPARE_MEMORY:
                        raise WeightFileError(f"the string at byte {reference:,} is damaged")
                reference = data.find(address, reference + 1)
            heap = data.find(b"GCOL\x01", heap + 5)


def _explain_damage(path: Path, size: int, error: Exception) -> str:
    stored = re.search(r"truncated file:.*stored_eof = (\d+)", str(error))
    if stored:
        return (
            f"{path} is truncated: expected {int(stored[1]):,} bytes, found {size:,}; "
            f"copy or download it again"
        )
    return f"{path} is damaged ({type(error).__name__}: {error}); copy or download it again"


def _similar_files(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" (nor a folder {folder})"
    return _did_you_mean(path.name, (other.name for other in folder.iterdir()))


# ---------------------------------------------------------------------------------- writing


def write_weights(
    path: str | os.PathLike[str],
    layers: Layers,
    attributes: Mapping[str, Any] | None = None,
    group: str | None = None,
) -> None:
    """Write an inventory as Keras's legacy HDF5, beside its place and renamed into it.

    Keras reads such a file by the order of `layers`: give them in the model's order, those
    without weights as an empty list or not at all. Weight names are kept as they are; Keras's
    own are 'layer/kernel'. `attributes` (strings, numbers) are put on the root. A whole-model file
    has its weights in a `group` 'model_weights'; alone they are at the root.

    Raises WeightFileError for a name that is given twice or is not a path inside the file, and
    for arrays that are not finite numbers; nothing is written then.
    """
    import h5py

    _check_writable(layers)
    with replacing(path) as part, h5py.File(part, "w") as file:
        root = file.create_group(group) if group else file
        _write_names(root, "layer_names", [name for name, _ in layers])
        for place in (file, root) if group else (file,):
            # Keras 2 converts what older versions wrote, and takes a file without this for one.
            place.attrs["keras_version"] = "3.0.0"
            place.attrs["backend"] = "tensorflow"  # the layout of kernels: HWIO, not flipped
        for name, weights in layers:
            inside = root.require_group(name)  # 'a' may be there already, because of 'a/b'
            _write_names(inside, "weight_names", [weight for weight, _ in weights])
            for weight, array in weights:
                inside.create_dataset(weight, data=np.asarray(array))
        for name, value in (attributes or {}).items():
            file.attrs[name] = value


def _write_names(group: Any, attribute: str, names: Sequence[str]) -> None:
    encoded = np.array([name.encode("utf-8") for name in names] or [b""], dtype=np.bytes_)
    encoded = encoded[: len(names)]
    pieces = 1
    while any(p.nbytes > ATTRIBUTE_LIMIT for p in np.array_split(encoded, pieces)):
        pieces += 1
    if pieces == 1:
        group.attrs[attribute] = encoded
    for i, piece in enumerate(np.array_split(encoded, pieces) if pieces > 1 else ()):
        group.attrs[f"{attribute}{i}"] = piece


def _check_writable(layers: Layers) -> None:
    problems = []
    _refuse_twice([name for name, _ in layers], "layer")
    for layer, weights in layers:
        _refuse_twice([name for name, _ in weights], f"weight of layer {layer!r}")
        for name in (layer, *(weight for weight, _ in weights)):
            if any(step in ("", ".") for step in name.split("/")) or "\0" in name:
                problems.append(f"{name!r} cannot be a name in an HDF5 file")
            elif len(name.encode("utf-8")) > ATTRIBUTE_LIMIT:
                problems.append(f"the name {name[:40]!r}... is longer than {ATTRIBUTE_LIMIT} bytes")
        problems += [
            f"{layer}: {name}: {wrong}"
            for name, array in weights
            if (wrong := _not_finite_numbers(np.asarray(array)))
        ]
    if problems:
        raise WeightFileError("these weights cannot be written:", problems)


def _refuse_twice(names: Sequence[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise WeightFileError(f"the same {what} twice: {', '.join(map(repr, twice))}")


# --------------------------------------------------------------------------------- planning


def plan(
    file_layers: Layers,
    model_layers: Layers,
    *,
    skip: Sequence[str] = (),
    keep: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    by_name: bool = False,
    source: str | os.PathLike[str] = "the file",
) -> list[tuple[Any, np.ndarray]]:
    """Pair every weight of a model with its array; check all of it; return (slot, array) pairs.

    `file_layers`  what `read_weights` gave: [(layer, [(weight, array), ...]), ...].
    `model_layers` the same with slots for arrays: anything with `shape` and `dtype`, or a tuple
                   that is the shape (float32 then). Layers without weights are not in question.
    `skip`         layers of the file that may go unused, as names or patterns ('fc*').
    `keep`         layers of the model that may keep what they have, likewise.
    `rename`       {name in the file: name in the model}.
    `by_name`      as in Keras: only layers that both sides have; short for skip='*', keep='*'.

    Layers are matched by name. Inside a layer weights are matched by position and must have the
    same shape; a nested model's weights are first sorted by the inner layer that owns them, where
    both sides name the same owners. Neither the order of layers nor freezing matters.

    The arrays come in the slot's dtype, finite and C-contiguous; where nothing had to be
    converted they are the inventory's own, so copy them into the slots. Raises ONE
    WeightFileError with all that is missing, surplus, misshapen or not finite.
    """
    skip, keep = ("*",) if by_name else skip, ("*",) if by_name else keep
    renamed = [((rename or {}).get(name, name), weights) for name, weights in file_layers]
    _refuse_twice([name for name, _ in renamed], "layer in the file")
    _refuse_twice([name for name, _ in model_layers], "layer in the model")
    in_file = {name: weights for name, weights in renamed if weights}
    in_model = {name: weights for name, weights in model_layers if weights}
    problems: list[str] = []
    pairs: list[tuple[Any, np.ndarray]] = []

    missing = [n for n in in_model if n not in in_file and not _matches(n, keep)]
    surplus = [n for n in in_file if n not in in_model and not _matches(n, skip)]
    for name in missing:
        wanted = ", ".join(_shape(_shape_of(slot)) for _, slot in in_model[name])
        hint = _did_you_mean(name, surplus, " Then pass rename={{{0!r}: {1!r}}}")
        problems.append(f"layer {name!r}: expected in the file ({wanted}), found nothing{hint}")
    for name in surplus:
        found = ", ".join(_shape(_shape_of(array)) for _, array in in_file[name])
        hint = _did_you_mean(name, missing)
        problems.append(f"layer {name!r}: found in the file ({found}), not in the model{hint}")
    if hint := _explain_top(missing, surplus):
        problems.append(hint)

    for name in in_model:
        if name in in_file:
            _match_layer(name, in_file[name], in_model[name], pairs, problems)
    if not pairs and not problems and (in_file or in_model):  # else there is nothing to load
        problems.append("not one layer of the file is in the model")
    if problems:
        raise WeightFileError(
            f"the weights in {source} do not fit the model; nothing was changed:", problems
        )
    return pairs


def _match_layer(
    layer: str,
    stored: Sequence[tuple[str, Any]],
    slots: Sequence[tuple[str, Any]],
    pairs: list[tuple[Any, np.ndarray]],
    problems: list[str],
) -> None:
    """Match the weights of one layer; add to `pairs` what fits and to `problems` what does not."""
    if {_owner(name) for name, _ in stored} == {_owner(name) for name, _ in slots}:
        # Sorting is stable, so within an owner the position decides. Keras writes a nested
        # model's frozen weights behind the others, but a layer's own always in one order.
        stored = sorted(stored, key=lambda item: _owner(item[0]))
        slots = sorted(slots, key=lambda item: _owner(item[0]))
    if len(stored) != len(slots):
        problems.append(
            f"layer {layer!r}: expected {_listing(slots)}, found {_listing(stored)} in the file"
        )
        return
    for (name, slot), (stored_name, array) in zip(slots, stored, strict=True):
        expected, found = _shape_of(slot), _shape_of(array)
        where = f"{layer}: {name}"
        if stored_name != name:
            where += f" ({stored_name} in the file)"
        if expected != found:
            cause = _likely_cause(expected, found)
            problems.append(
                f"{where}: expected shape {_shape(expected)}, found {_shape(found)}{cause}"
            )
        elif array.dtype.kind != "f":
            problems.append(f"{where}: expected floating-point numbers, found {array.dtype}")
        else:
            dtype = np.dtype(getattr(slot, "dtype", np.float32))
            with np.errstate(over="ignore"):  # an overflow is found as 'not finite'
                cast = np.asarray(array, dtype=dtype, order="C")
            if wrong := _not_finite_numbers(cast):
                problems.append(f"{where}: {wrong}")
            pairs.append((slot, cast))


def _owner(weight_name: str) -> str:
    """'head/dense/kernel:0' -> 'dense': the inner layer that a weight belongs to.

    Keras's recurrent layers keep theirs in a cell: 'both/forward_lstm/lstm_cell/kernel' is
    forward_lstm's.
    """
    path = weight_name.split("/")[:-1]
    while len(path) > 1 and path[-1] in ("lstm_cell", "gru_cell"):
        path.pop()
    return path[-1] if path else ""


def _not_finite_numbers(array: np.ndarray) -> str:
    if array.dtype.kind not in "fiub":
        return f"expected numbers, found {array.dtype}"
    finite = np.isfinite(array)
    if finite.all():
        return ""
    first = tuple(int(i) for i in np.argwhere(~finite)[0])
    return (
        f"expected finite numbers, found {np.count_nonzero(~finite):,} of {array.size:,} that "
        f"are not (the first, {array[first]}, at {_shape(first)})"
    )


def _likely_cause(expected: tuple[int, ...], found: tuple[int, ...]) -> str:
    """What usually lies behind two shapes that differ."""
    if len(expected) == len(found) == 4:
        if expected == (found[2], found[3], found[1], found[0]):
            return " (OIHW, as PyTorch and ONNX keep it; minitl wants HWIO: transpose(2, 3, 1, 0))"
        if expected[:2] == found[:2] and expected[3] == found[3]:
            return f" (the input has {expected[2]} channels here, {found[2]} in the file)"
    if len(expected) == len(found) == 2:
        if expected == found[::-1]:
            return " (transposed, as PyTorch keeps dense kernels)"
        if expected[1] == found[1]:
            return " (another number of inputs: was the model built with another input_shape?)"
        if expected[0] == found[0]:
            return " (another number of units or classes)"
    return ""


def _explain_top(missing: Sequence[str], surplus: Sequence[str]) -> str:
    """Say so when the two sides differ by the classifier of a published network."""
    tops = {"fc1", "fc2", "fc1000", "predictions"}
    if tops & set(surplus):
        names = ", ".join(repr(name) for name in surplus)
        return (
            f"likely cause: the file has the classifier on top and the model was built with "
            f"include_top=False; take the file without top ('_notop'), or pass skip=({names},)"
        )
    if tops & set(missing):
        return (
            "likely cause: the file has no classifier on top and the model was built with "
            "include_top=True; take the file with top, or build with include_top=False"
        )
    return ""


def _matches(name: str, patterns: Iterable[str]) -> bool:
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _did_you_mean(name: str, others: Iterable[str], advice: str = "") -> str:
    close = difflib.get_close_matches(name, list(others), n=1, cutoff=0.7)
    if not close:
        return ""
    return f"; is it {close[0]!r}?{advice.format(close[0], name)}"


def _shape_of(slot: Any) -> tuple[int, ...]:
    return tuple(int(n) for n in (slot if isinstance(slot, tuple | list) else slot.shape))


def _shape(shape: Sequence[int]) -> str:
    return "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"


def _listing(weights: Sequence[tuple[str, Any]]) -> str:
    names = ", ".join(f"{name} {_shape(_shape_of(slot))}" for name, slot in weights)
    return f"{len(weights)} weights ({names})" if len(weights) != 1 else f"1 weight ({names})"
