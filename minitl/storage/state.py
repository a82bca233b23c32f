"""What a program has to remember, in a file: plain values and arrays, whole or not at all.

Plain is what can be written down and read again exactly: None, booleans, numbers, strings, arrays,
NumPy's random generators, and lists, tuples, sets and dictionaries of these. `state_of` reads the
plain attributes of any object and `restore` puts them back, so an object need not know that it is
being kept. `fingerprint` says in short whether two values are the same.

The file is a line that names the format, the length of a header, the header (JSON, in which an
array is a number), the arrays one after the other, and the SHA-256 of all that. One flipped bit,
or one byte too few, and `read_state` refuses it. Nothing in it is ever unpickled.
"""

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from minitl.storage.atomic import replacing
from minitl.storage.digests import arrays_digest, pour
from minitl.storage.door import open_regular, read_json

MAGIC = b"minitl state 1\n"
KINDS = "biufcSU"  # of dtypes: booleans, numbers, strings; no Python objects
TAG = "_"  # the key that tells an encoded array, tuple ... from a dictionary
GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")

# What comes of a file that was made to look right.
NONSENSE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)


class NotPlain(TypeError):
    """A value that cannot be written down exactly."""


class DamagedState(ValueError):
    """A file that is not, or no longer, what `write_state` wrote."""


def encode(value: Any, arrays: list[np.ndarray]) -> Any:
    """`value` as JSON can hold it; its arrays are appended to `arrays`. Raises NotPlain."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        array = np.asarray(value)
        if array.dtype.kind not in KINDS:
            raise NotPlain(f"an array of {array.dtype}")
        arrays.append(array)
        kind = "array" if isinstance(value, np.ndarray) else "number"
        return {TAG: kind, "at": len(arrays) - 1}
    if isinstance(value, (int, float)):  # a rate that knows its optimizer, say: its value
        return value.real
    if type(value) is list:
        return [encode(v, arrays) for v in value]
    if type(value) is tuple:
        return {TAG: "tuple", "of": [encode(v, arrays) for v in value]}
    if type(value) is set:
        return {TAG: "set", "of": sorted((encode(v, arrays) for v in value), key=repr)}
    if type(value) is dict:
        if all(type(k) is str for k in value) and TAG not in value:
            return {k: encode(v, arrays) for k, v in value.items()}
        pairs = [[encode(k, arrays), encode(v, arrays)] for k, v in value.items()]
        return {TAG: "dict", "of": pairs}
    if isinstance(value, np.random.Generator):
        return {TAG: "generator", "state": encode(value.bit_generator.state, arrays)}
    raise NotPlain(f"a {type(value).__name__}")


def decode(value: Any, arrays: list[np.ndarray]) -> Any:
    """The inverse of `encode`."""
    if isinstance(value, list):
        return [decode(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {k: decode(v, arrays) for k, v in value.items()}
    kind = value[TAG]
    if kind in ("array", "number"):
        return arrays[value["at"]] if kind == "array" else arrays[value["at"]][()]
    if kind == "generator":
        state = decode(value["state"], arrays)
        if state["bit_generator"] not in GENERATORS:
            raise DamagedState(f"there is no generator {state['bit_generator']!r}")
        generator = np.random.Generator(getattr(np.random, state["bit_generator"])())
        generator.bit_generator.state = state
        return generator
    parts = decode(value["of"], arrays)
    return dict(parts) if kind == "dict" else tuple(parts) if kind == "tuple" else set(parts)


def fingerprint(value: Any) -> str:
    """The SHA-256 of a plain value. Raises NotPlain."""
    arrays: list[np.ndarray] = []
    tree = json.dumps(encode(value, arrays)).encode()
    return arrays_digest(arrays, tree, "{dtype}{shape}")


def state_of(thing: Any, skip: Iterable[str] = (), largest: float = math.inf) -> dict[str, Any]:
    """The plain attributes but those in `skip` or of more than `largest` bytes of arrays."""
    found = {}
    for name, value in getattr(thing, "__dict__", {}).items():
        arrays: list[np.ndarray] = []
        with contextlib.suppress(NotPlain, RecursionError):
            encode(value, arrays)
            if name not in skip and sum(a.nbytes for a in arrays) <= largest:
                found[name] = value
    return found


def restore(thing: Any, state: dict[str, Any]) -> None:
    """Put attributes back: in place where that can be, since others may hold the same list."""
    for name, value in state.items():
        old = getattr(thing, name, None)
        if type(old) is type(value) is list:
            old[:] = value
        elif type(old) is type(value) is dict:
            old.clear()
            old.update(value)
        elif isinstance(old, np.random.Generator) and isinstance(value, np.random.Generator):
            old.bit_generator.state = value.bit_generator.state
        else:
            object.__setattr__(thing, name, value)


class Changes:
    """What of an object's state has changed since this was made: that alone has to be kept.
    The rest are settings, which somebody may edit between two runs."""

    def __init__(self, read: Callable[[], dict[str, Any]]):
        self.read = read
        self.start = {name: fingerprint(value) for name, value in read().items()}

    def now(self) -> dict[str, Any]:
        state = self.read()
        return {n: v for n, v in state.items() if fingerprint(v) != self.start.get(n)}


def write_state(path: str | os.PathLike[str], value: Any) -> None:
    """Write a plain value, beside its place and renamed into it, and wait until the disk has it."""
    arrays: list[np.ndarray] = []
    tree = encode(value, arrays)
    table = [[a.dtype.str, list(a.shape)] for a in arrays]
    header = json.dumps({"tree": tree, "arrays": table}).encode()
    digest = hashlib.sha256()
    with replacing(path) as part, part.open("wb") as file:

        def put(piece: Any) -> None:
            digest.update(piece)
            file.write(piece)

        put(MAGIC + len(header).to_bytes(8, "little") + header)
        for array in arrays:
            pour(array, put)
        file.write(digest.digest())


def read_state(path: str | os.PathLike[str]) -> Any:
    """Read what `write_state` wrote. Raises DamagedState, or FileNotFoundError."""
    with open_regular(path) as file:
        data = bytearray(os.fstat(file.fileno()).st_size)
        del data[file.readinto(data) :]  # type: ignore[attr-defined]
    if not is_state(data[: len(MAGIC)]):
        start = bytes(data[:8])
        raise DamagedState(f"{path} is no file of minitl's state: it begins with {start!r}")
    body = memoryview(data)[:-32]
    if len(data) < len(MAGIC) + 40 or hashlib.sha256(body).digest() != data[-32:]:
        text = f"its {len(data):,} bytes are not those that were written"
        raise DamagedState(f"{path} is damaged: {text}")
    try:
        at = len(MAGIC) + 8
        end = at + int.from_bytes(body[len(MAGIC) : at], "little")
        header = read_json(bytes(body[at:end]))
        arrays = []
        for name, shape in header["arrays"]:
            dtype = np.dtype(str(name))
            if dtype.kind not in KINDS:
                raise DamagedState(f"{path} holds an array of {dtype}")
            # Copied: its place in the file need not suit the dtype.
            arrays.append(np.ndarray(tuple(shape), dtype, body, end).copy())
            end += arrays[-1].nbytes
        return decode(header["tree"], arrays)
    except NONSENSE as error:
        raise DamagedState(f"{path} cannot be understood: {error!r}") from None


def is_state(start: bytes | bytearray) -> bool:
    """Whether a file that starts with these bytes is one of `write_state`'s."""
    return bytes(start[: len(MAGIC)]) == MAGIC
