"""Digests: short numbers that say whether two things are the same, for caches that never lie.

Arrays are told apart by all of their bytes, whole (`arrays_digest`) or sample by sample
(`sample_digests`). `digest_of` takes anything. A function is told apart by its code, its defaults,
and the values, functions and objects that it refers to: an edited helper makes it another. Only
what an installed package brings, minitl among them, is known by its name.
"""

import contextlib
import functools
import hashlib
import os
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

SIZE = 16  # bytes of a sample's digest
WORKERS = os.cpu_count() or 1
# Where classes and functions of minitl once were: files with digests of the place outlive a move.
FORMER_PLACES = {
    "minitl.applications.common": ["preprocess_input"],
    "minitl.layers.pooling": ["MaxPooling2D"],
    "minitl.ops": ["sigmoid", "tanh"],
    "minitl.layers.recurrent": ["GRU", "LSTM"],
    "minitl.layers.reshaping": ["Flatten"],
    "minitl.layers.wrappers": ["Bidirectional", "TimeDistributed"],
}
FORMER = {name: place for place, names in FORMER_PLACES.items() for name in names}


def digest_of(value: Any) -> str:
    """Hexadecimal digest of anything: numbers, arrays, containers, functions, objects."""
    return _Teller().digest(value)


def arrays_digest(
    arrays: Iterable[np.ndarray], start: bytes = b"", head: str = "{shape}{dtype}"
) -> str:
    """sha256 of `start` and of arrays in this order, each after its `head`, as a hexadecimal."""
    digest = hashlib.sha256(start)
    for a in arrays:
        digest.update(head.format(shape=a.shape, dtype=a.dtype.str).encode())
        pour(a, digest.update)
    return digest.hexdigest()


def pour(array: np.ndarray, into: Callable[[Any], Any]) -> None:
    """Give away the bytes of an array in C order, in pieces: no copy of the whole."""
    if array.flags.c_contiguous or array.ndim < 2:
        flat = np.ascontiguousarray(array).reshape(-1)
        into(flat.view(np.uint8).data if flat.size else b"")
    else:
        for row in array:
            pour(row, into)


def sample_digests(arrays: Sequence[np.ndarray], tags: Sequence[bytes] | None = None) -> np.ndarray:
    """(N, SIZE) uint8: of each sample's rows in all arrays, and its tag, the sha256 cut to SIZE."""
    n = len(arrays[0])
    found = np.empty((n, SIZE), np.uint8)
    # Shape and dtype of a sample, not of the batch that it happens to come in.
    heads = "".join(f"{a[:0].shape}{a.dtype.str}" for a in arrays).encode()

    def every(first: int) -> None:
        for i in range(first, n, WORKERS):
            digest = hashlib.sha256(heads)
            for a in arrays:
                digest.update(np.ascontiguousarray(a[i]).data)
            if tags is not None:
                digest.update(tags[i])
            found[i] = np.frombuffer(digest.digest(), np.uint8, SIZE)

    with ThreadPoolExecutor(WORKERS) as pool:  # a digest lets go of the interpreter lock
        list(pool.map(every, range(min(n, WORKERS))))
    return found


class _Teller:
    """Digests of values and of what they refer to; each object is looked at once."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[Any, str]] = {}  # the object is kept, so that its id is

    def digest(self, value: Any) -> str:
        if id(value) not in self.known:
            self.known[id(value)] = value, "above"  # what a cycle finds
            text = repr(self.parts(value))
            self.known[id(value)] = value, hashlib.sha256(text.encode()).hexdigest()
        return self.known[id(value)][1]

    def digests(self, values: Iterable[Any]) -> list[str]:
        return [self.digest(v) for v in values]

    def parts(self, value: Any) -> Any:
        """What tells `value` apart, as something whose repr is the same in every process."""
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
            return value
        if isinstance(value, (list, tuple)):
            return type(value).__name__, self.digests(value)
        if isinstance(value, (set, frozenset)):
            return "set", sorted(self.digests(value))
        if isinstance(value, dict):
            return "dict", [(str(k), self.digest(v)) for k, v in value.items()]
        if isinstance(value, functools.partial):
            return "partial", self.digests([value.func, value.args, value.keywords])
        if isinstance(value, types.MethodType):
            return "method", self.digests([value.__func__, value.__self__])
        if isinstance(value, (staticmethod, classmethod)):
            return "method", self.digest(value.__func__)
        if isinstance(value, types.CodeType):
            return value.co_code, value.co_names, self.digests(value.co_consts)
        if isinstance(value, types.ModuleType):
            return value.__name__, str(getattr(value, "__version__", ""))
        if isinstance(value, (types.FunctionType, type)):
            return (_place(value), self.inside(value)) if _of_user(value) else _place(value)
        if hasattr(value, "py_func"):  # compiled by Numba
            return "compiled", self.digest(value.py_func)
        if hasattr(value, "__array__"):
            return "array", arrays_digest([np.asarray(value)])
        if hasattr(value, "__dict__"):
            return self.digest(type(value)), self.digest(vars(value))
        text = repr(value)
        return self.digest(type(value)), "" if " at 0x" in text else text

    def inside(self, value: Any) -> list[str]:
        """Of a function: code, defaults, and whatever it refers to; of a class: its members."""
        if isinstance(value, type):
            own = ("__init__", "__call__")
            members = [m for n, m in sorted(vars(value).items()) if n[:2] != "__" or n in own]
            return self.digests([*members, *value.__bases__])
        cells, known = [], value.__globals__
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # a variable that is not set yet
                cells.append(cell.cell_contents)
        used = [known[name] for name in _names(value.__code__) if name in known]
        defaults = value.__defaults__, value.__kwdefaults__
        return self.digests([value.__code__, *defaults, *cells, *used])


def _place(value: Any) -> str:
    """'minitl.layers.core.Dense': the module and name, those of former times for minitl's own."""
    module, name = value.__module__, value.__qualname__
    return f"{FORMER.get(name, module) if module.startswith('minitl.') else module}.{name}"


def _of_user(value: Any) -> bool:
    """Whether to look inside: not for what an installed package brings."""
    top = str(getattr(value, "__module__", "")).partition(".")[0]
    if top == "minitl" or (top in sys.stdlib_module_names and top != "__main__"):
        return False
    file = str(getattr(sys.modules.get(top), "__file__", "") or "")
    return "site-packages" not in file


def _names(code: types.CodeType) -> list[str]:
    """The global names that code and the functions inside it use."""
    inside = [const for const in code.co_consts if isinstance(const, types.CodeType)]
    return sorted({*code.co_names, *(name for each in inside for name in _names(each))})
