"""Keras's weight files: what one looks like, and how its arrays get into a model.

An HDF5 file is a tree of groups, like folders, with arrays at its ends and attributes on both.
The ImageNet weights are published in Keras's older layout, which has one group per layer:

    /                                   layer_names = ["block1_conv1", "block1_conv2", ...]
    /block1_conv1                       weight_names = ["block1_conv1/kernel", ...]
    /block1_conv1/block1_conv1/kernel   an array (KH, KW, C, F), here (3, 3, 3, 64), of float32
    /block1_conv1/block1_conv1/bias     an array (F,), here (64,)

`read` takes an inventory of it, [(layer, [(weight, array), ...]), ...]; `assign` copies the arrays
into a model's weights, once it has seen that all of them fit.

The HDF5 library can crash on a damaged file, and follows links that lead out of one. So it is shown
only what minitl put into its own cache folder, and that only where the spine is alone: else files
are read by `keras_files.py`, which trusts none.
"""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl.naming import part

Inventory = list[tuple[str, list[tuple[str, np.ndarray]]]]


class WeightFileError(ValueError):
    """A weight file that cannot be read or does not fit; `problems` has one line for each."""

    def __init__(self, headline: str, problems: Sequence[str] = ()):
        super().__init__("\n  - ".join([headline, *problems]))
        self.problems = list(problems)


def read(path: str | os.PathLike[str]) -> Inventory:
    """The layers of a weight file in their order, each with its arrays in their order."""
    import h5py

    def names(holder: Any, attribute: str) -> list[str]:
        return [n if isinstance(n, str) else n.decode() for n in holder.attrs[attribute]]

    def weights(layer: Any) -> list[tuple[str, np.ndarray]]:
        return [(name, layer[name][()]) for name in names(layer, "weight_names")]

    with h5py.File(path) as file:
        return [(layer, weights(file[layer])) for layer in names(file, "layer_names")]


def assign(model: Any, layers: Inventory, source: str | os.PathLike[str]) -> None:
    """Copy the arrays of an inventory into a model: all of them, or none. Layers are matched by
    name, the weights of one layer by position; shapes must be equal. Raises ONE WeightFileError
    with a line for all that is missing, surplus or misshapen."""
    stored = {name: [array for _, array in weights] for name, weights in layers if weights}
    wanted = {layer.name: layer.weights for layer in model.layers if layer.weights}
    problems = []
    for name in [*wanted, *(name for name in stored if name not in wanted)]:
        expected, found = ([a.shape for a in side.get(name, [])] for side in (wanted, stored))
        if expected != found:
            problems.append(f"layer {name!r}: expected {expected} in the file, found {found}")
    if problems:
        headline = f"the weights in {source} do not fit the model; nothing was changed:"
        raise WeightFileError(headline, problems)
    for name, variables in wanted.items():
        for variable, array in zip(variables, stored[name], strict=True):
            variable.assign(array)


def array_digest(array: np.ndarray) -> str:
    """sha256 of an array's values as little-endian float32 in C order (its shape left out)."""
    return hashlib.sha256(np.ascontiguousarray(array, dtype="<f4").data).hexdigest()


def read_manifest(path: Path) -> dict[str, dict[str, tuple[tuple[int, ...], str]]]:
    """What published weights are: {layer: {'kernel': (shape, digest), 'bias': (shape, digest)}}."""
    return {
        layer: {kind: (tuple(entry["shape"]), entry["sha256"]) for kind, entry in arrays.items()}
        for layer, arrays in json.loads(path.read_text("utf-8"))["layers"].items()
    }


def load_published(model: Any, file: str, manifest: Path) -> bool:
    """Load a file of the cache folder if each of its arrays is the published one; whether it is."""
    path = cache_folder("weights") / file
    expected = {layer: list(arrays.values()) for layer, arrays in read_manifest(manifest).items()}
    try:
        try:
            layers = part("weight files").read_weights(path).layers
        except ImportError:
            layers = read(path)
        found = {n: [(a.shape, array_digest(a)) for _, a in ws] for n, ws in layers if ws}
    except (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError):
        return False  # not there, or damaged
    if found != expected:
        return False
    assign(model, layers, path)
    return True


def cache_folder(*parts: str) -> Path:
    """Where minitl keeps what it fetched or computed; made when first asked for.

    `MINITL_HOME` where it is set, else the user's cache folder: `$XDG_CACHE_HOME/minitl` or
    `~/.cache/minitl`, on macOS `~/Library/Caches/minitl`, on Windows `%LOCALAPPDATA%\\minitl`.
    `parts` name a folder inside it. Raises OSError, naming `MINITL_HOME`, when it cannot be made.
    """
    chosen, local, xdg = map(os.environ.get, ("MINITL_HOME", "LOCALAPPDATA", "XDG_CACHE_HOME"))
    try:
        if chosen:
            home = Path(chosen).expanduser().absolute()
        elif sys.platform == "win32":
            home = (Path(local) if local else Path.home() / "AppData" / "Local") / "minitl"
        elif sys.platform == "darwin":
            home = Path.home() / "Library" / "Caches" / "minitl"
        else:  # the XDG specification says to ignore a relative path
            home = Path(xdg if xdg and os.path.isabs(xdg) else Path.home() / ".cache") / "minitl"
        folder = home.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: nobody's home is known
        remedy = "set MINITL_HOME to a folder that can be written"
        text = f"cannot make the cache folder {Path(*parts)} ({error}); {remedy}"
        raise OSError(text) from error
    return folder
