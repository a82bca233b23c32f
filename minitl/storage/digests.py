"""Digests: short numbers that say whether two things are the same, for caches that never lie.

Arrays are told apart by all of their bytes, whole (`arrays_digest`) or sample by sample
(`sample_digests`). `digest_of` takes anything. A function is told apart by its code, its defaults,
and the values, functions and objects that it refers to, those of the user's own modules too: an
edited helper makes it another. What an installed package brings, minitl among them, is known by its
name. What a function reads from files or the environment cannot be known; that is told as well.
"""

import contextlib
import copyreg
import dis
import functools
import hashlib
import importlib.util
import io
import os
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, MappingView, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

STDLIB = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
SIZE = 16  # bytes of a sample's digest
WORKERS = os.cpu_count() or 1
# Where classes and functions of minitl once were: files with digests of the place outlive a move.
FORMER = {
    **dict.fromkeys(("GRU", "LSTM"), "minitl.layers.recurrent"),
    **dict.fromkeys(("Bidirectional", "TimeDistributed"), "minitl.layers.wrappers"),
    **dict.fromkeys(("sigmoid", "tanh"), "minitl.ops"),
    **{"silu": "minitl.activations", "preprocess_input": "minitl.applications.common"},
    **{"MaxPooling2D": "minitl.layers.pooling", "Flatten": "minitl.layers.reshaping"},
}
# Names by which a function reaches what is outside of the program, or all that is inside.
OUTSIDE = {"open", "input", "environ", "getenv", "load", "loadtxt", "genfromtxt", "fromfile"}
OUTSIDE |= {"memmap", "read_text", "read_bytes", "read_csv", "read_json", "imread", "urlopen"}
OUTSIDE |= {"urandom", "import_module", "__import__", "eval", "exec", "globals", "locals"}
OUTSIDE |= {"h5py", "subprocess", "sqlite3", "socket", "requests", "check_output", "Popen", "argv"}
OUTSIDE |= {"modules", "_getframe", "glob", "iterdir", "listdir", "scandir", "read_parquet", "File"}
OUTSIDE |= {"configparser", "ConfigParser", "zipfile", "ZipFile", "tarfile", "linecache", "getline"}
OUTSIDE |= {
    "popen",
    "runpy",
    "run_path",
    "stat",
    "getsize",
    "getmtime",
    "read_pickle",
    "read_excel",
}
OUTSIDE |= {"now", "today", "utcnow", "localtime", "gethostname"}


def digest_of(value: Any, unknown: list[str] | None = None, code_only: bool = False) -> str:
    """Hexadecimal digest of anything: numbers, arrays, containers, functions, objects.

    To `unknown` is added what cannot be known of it, in words: 'f reads what `open` gives'. With
    `code_only` a function is its code and that of the user's functions it calls, not its values.
    """
    return _Teller([] if unknown is None else unknown, code_only).digest(value)


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

    def __init__(self, unknown: list[str], code_only: bool = False) -> None:
        self.unknown, self.code_only = unknown, code_only
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
        plain = (bool, int, float, complex, str, bytes)
        if value is None or type(value) in plain:
            return value
        if isinstance(value, plain):
            known_as = next(kind for kind in plain if isinstance(value, kind)).__repr__(value)
            return self.of_class(known_as, value) if _of_user(type(value)) else value
        if isinstance(value, MappingView):
            return self.digests([*value])  # type: ignore[misc]
        if isinstance(value, (list, tuple, set, frozenset, dict, types.MappingProxyType)):
            inside = self.contents(value)
            if hasattr(value, "default_factory"):
                return inside, self.digest(value.default_factory)
            return self.of_class(inside, value)
        if isinstance(value, functools.partial):
            return "partial", self.digests([value.func, value.args, value.keywords])
        if isinstance(value, types.MethodType):
            return "method", self.digests([value.__func__, value.__self__])
        if isinstance(value, (staticmethod, classmethod)):
            return "method", self.digest(value.__func__)
        if isinstance(value, property):
            return "property", self.digests([value.fget, value.fset])
        if isinstance(value, types.CodeType):
            return value.co_code, value.co_names, self.digests(value.co_consts)
        if isinstance(value, types.ModuleType):
            version = value.__name__, str(getattr(value, "__version__", ""))
            inside = {n: v for n, v in vars(value).items() if n[:2] != "__"}
            return (version, self.digest(inside)) if _of_user(value) else version
        if isinstance(value, (types.FunctionType, type)):
            return (_place(value), self.inside(value)) if _of_user(value) else _place(value)
        if hasattr(value, "py_func"):  # compiled by Numba
            return "compiled", self.digest(value.py_func)
        if isinstance(value, types.BuiltinMethodType | types.MethodWrapperType):
            owner, of_module = value.__self__, isinstance(value.__self__, types.ModuleType)
            return value.__name__, None if of_module else self.digest(owner)
        if callable(getattr(value, "get_weights", None)):  # a model, a layer
            with contextlib.suppress(Exception):  # one that cannot be described
                return "layer", self.digests([type(value), value.get_config(), value.get_weights()])
        return self.held_by(value)

    def held_by(self, value: Any) -> Any:
        """Of an array or any object: its class, and what it holds, in Python and in C."""
        own, held = _of_user(type(value)), getattr(value, "__dict__", {})
        if isinstance(value, np.ma.MaskedArray):
            return "masked", self.digests([value.data, value.mask])
        if isinstance(value, np.ndarray) or (hasattr(value, "__array__") and not own):
            with contextlib.suppress(TypeError):  # a symbolic tensor is none yet
                array = np.asarray(value)
                objects = array.dtype.hasobject
                inside = self.digest(array.tolist()) if objects else arrays_digest([array])
                return self.of_class(("array", inside), value)
        if isinstance(value, np.ufunc) and "(vectorized)" in value.__name__:  # np.frompyfunc's
            self.unknown.append("a ufunc cannot be told from another")
        if isinstance(value, io.IOBase) and not isinstance(value, (io.BytesIO, io.StringIO)):
            self.unknown.append("what an open file holds cannot be told")
        above = type(value).__mro__
        slots = [n for c in above for n in np.ravel(getattr(c, "__slots__", ())).tolist()]
        held = {n: getattr(value, n) for n in slots if n[:2] != "__" and hasattr(value, n)} | held
        parts = [self.digest(type(value))]
        if hasattr(value, "__dict__") or (held and own):
            parts.append(self.digest(held))
            if all(c is object or _of_user(c) for c in above):
                return tuple(parts)
        text = repr(value)
        try:  # what is kept in C: a generator of random numbers, a queue, a pattern ...
            made = copyreg.dispatch_table.get(type(value), lambda v: v.__reduce_ex__(2))(value)
            if not isinstance(made, str):  # a name in its module, as of NumPy's functions
                made = made[1:3], *map(list, filter(None, made[3:]))
        except Exception:
            if " at 0x" in text and len(parts) == 1:
                self.unknown.append(f"a {type(value).__name__} cannot be told from another")
            made = "" if " at 0x" in text else text
        return *parts, self.digest(made)

    def of_class(self, inside: Any, value: Any) -> Any:
        """`inside`, of what a class of the user's may make of it."""
        if not _of_user(type(value)):
            return inside
        return inside, self.digest(type(value)), self.digest(getattr(value, "__dict__", None))

    def contents(self, value: Any) -> Any:
        """Of a container: what is in it."""
        if isinstance(value, (list, tuple)):
            return type(value).__name__, self.digests(value)
        if isinstance(value, (set, frozenset)):
            return "set", sorted(self.digests(value))
        keys = (k if isinstance(k, str) else f"{type(k).__name__} {self.digest(k)}" for k in value)
        return "dict", [(k, self.digest(v)) for k, v in zip(keys, value.values(), strict=True)]

    def inside(self, value: Any) -> list[str]:
        """Of a function: code, defaults, and whatever it refers to; of a class: its members."""
        if isinstance(value, type):
            kinds = types.FunctionType, property, staticmethod, classmethod
            own = [(n, m) for n, m in sorted(vars(value).items()) if n != "_abc_impl"]
            members = [m for n, m in own if n[:2] != "__" or isinstance(m, kinds) or callable(m)]
            if self.code_only:
                members = [m for m in members if isinstance(m, kinds)]
            above = [type(value)] if _of_user(type(value)) else []
            return self.digests([*members, *value.__bases__, *above])
        cells, known = [], value.__globals__
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):  # a variable that is not set yet
                cells.append(cell.cell_contents)
        used = []
        for name, attributes in sorted(_reads(value.__code__)):
            here, reached = known.get(name), None
            if name in known:
                used.append(reached := _reached(here, attributes))
            elif name in sys.modules and _of_user(sys.modules[name]):  # imported by the function
                used.append(sys.modules[name])
            theirs = [str(getattr(t, "__name__", "")) for t in (here, reached) if not _of_user(t)]
            if name not in known or not _of_user(here):  # of Python, or of a library
                theirs.append(name)
            come = {name} if name not in known and _will_be_imported(name) else set()
            for through in sorted({*attributes, *theirs} & OUTSIDE | come)[:1]:
                self.unknown.append(f"{value.__qualname__} reads what `{through}` gives")
        defaults = value.__defaults__, value.__kwdefaults__
        if self.code_only:
            called = [v for v in (*cells, *used) if isinstance(v, (types.FunctionType, type))]
            return self.digests([value.__code__, *called])
        own = [vars(value)] if vars(value) else []
        return self.digests([value.__code__, *defaults, *cells, *used, *own])


def _place(value: Any) -> str:
    """'minitl.layers.core.Dense': the module and name, those of former times for minitl's own."""
    module, name = value.__module__, value.__qualname__
    return f"{FORMER.get(name, module) if module.startswith('minitl.') else module}.{name}"


def _of_user(value: Any) -> bool:
    """Whether to look inside: not for what Python or an installed package brings."""
    of_module = isinstance(value, types.ModuleType)
    name = str(value.__name__ if of_module else getattr(value, "__module__", ""))
    top = name.partition(".")[0]
    if top == "minitl" or name == "builtins":
        return False
    places = (getattr(sys.modules.get(n), "__file__", None) for n in (name, top))
    file = next(filter(None, places), "")
    if not file:
        return name == "__main__" or top not in sys.stdlib_module_names
    return "-packages" not in file and not file.startswith(STDLIB)


def _will_be_imported(name: str) -> bool:
    """Whether it is a module of the user's that is not there before the function is called."""
    with contextlib.suppress(Exception):  # a name that no module can have
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        file = str(spec and spec.origin)
        return os.path.isabs(file) and "-packages" not in file and not file.startswith(STDLIB)
    return False


def _reads(code: types.CodeType) -> set[tuple[str, tuple[str, ...]]]:
    """(a global name, the attributes that are read of it one after the other), here and in the
    functions inside; a module that is imported by its name."""
    found, chain = set(), [""]
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chain.append(str(each.argval))
            continue
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME", "IMPORT_NAME"):
            found.add((chain[0], tuple(chain[1:])))
            chain = [str(each.argval)]
        elif each.opname not in ("PRECALL", "CACHE", "PUSH_NULL", "EXTENDED_ARG", "NOP"):
            found.add((chain[0], tuple(chain[1:])))
            chain = [""]
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            found |= _reads(const)
    return found | {(chain[0], tuple(chain[1:]))}


def _reached(value: Any, attributes: tuple[str, ...]) -> Any:
    """What is read of a module of the user's: an attribute, or else all that is in it."""
    while attributes and isinstance(value, types.ModuleType) and _of_user(value):
        value, attributes = getattr(value, attributes[0], None), attributes[1:]
    return value
