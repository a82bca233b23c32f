"""Compiling: how the kernels' loops become machine code, and what is said when that takes long.

Numba compiles a function when it is first called with a dtype, and keeps the machine code on disk
(beside the source, or in the user's cache folder where that cannot be written; `NUMBA_CACHE_DIR`
overrides). A second process starts warm. `minitl warmup` compiles everything ahead.

What is on disk holds as long as neither the file of a function changes nor the kernel files that
it imports. Numba by itself looks at the function's file only, and would go on with pieces of
`kernels/fast/gemm.py` that were inlined long ago. Nor is what is on disk believed (`Kept`): a power
cut leaves empty files, two processes write at once, disks are full, or cannot be written at all.
"""

import contextlib
import hashlib
import logging
import pickle
import re
import secrets
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import event, types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.registry import CPUDispatcher
from numba.core.serialize import dumps

from minitl.kernels.machine import ahead
from minitl.kernels.machine.threads import thread_count

PATIENCE = 2.0  # seconds of compiling before something is said
KERNELS = Path(__file__).parents[1]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of the loops that Python calls.

    Kept on disk for the next process; without the interpreter lock, so that threads run side by
    side; and x / 0 is inf, as in NumPy: the check that Numba otherwise makes for Python's
    ZeroDivisionError keeps a loop from using vector instructions (Adam took three times as long).
    """
    kernel: Any = numba.njit(nogil=True, error_model="numpy")(function)
    if ahead.helping and isinstance(kernel, CPUDispatcher):
        kernel.__class__ = _NotRun
    with contextlib.suppress(OSError, RuntimeError):  # no folder can be written: kept in memory
        kernel._cache = Kept(function)
    return kernel


class _NotRun(CPUDispatcher):
    """Called in a process that helps another one, it is compiled only (`ahead.py`)."""

    def __call__(self, *arguments: Any) -> None:
        with contextlib.suppress(ahead.Elsewhere):
            self.compile(tuple(map(numba.typeof, arguments)))


class Kept(FunctionCache):
    """Compiled code on disk that is used when it is whole, and otherwise as if it were not there;
    nor does it matter whether it can be written. (Numba's own has tracebacks for these cases.)"""

    def __init__(self, function: Callable[..., Any]):
        super().__init__(function)
        place = Path(self.cache_path, self._impl.filename_base)
        self._cache_file = _Files(place, stamp(Path(function.__code__.co_filename)))
        self.place, self.turns = place, {}  # type: ignore[var-annotated]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        kept = self._found(sig, target_context)
        if kept is None:
            ahead.call_for_help(thread_count())
            name = f"{self.place.name}.{hashlib.sha256(repr(sig).encode()).hexdigest()[:8]}.lock"
            turn = self.turns[sig] = ahead.Turn(self.place.with_name(name))
            turn.wait()
            kept = self._found(sig, target_context)  # which another process may have compiled
            if kept is not None:
                turn.end()
        return kept

    def _found(self, sig: Any, target_context: Any) -> Any:
        with contextlib.suppress(Exception):
            return super().load_overload(sig, target_context)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)
        if sig in self.turns:
            self.turns.pop(sig).end()


class _Files(IndexDataCacheFile):
    """Numba's two kinds of files, each behind the SHA-256 of what it holds. The code says itself of
    which signature it is: processes that write at once can give one name to two of them."""

    def __init__(self, place: Path, stamp: str):
        super().__init__(str(place.parent), place.name, stamp)
        self.place, self.made_for = place, (numba.__version__, stamp)

    def save(self, key: Any, data: Any) -> None:
        super().save(key, (key, data))

    def load(self, key: Any) -> Any:
        found = super().load(key)
        return found[1] if found is not None and found[0] == key else None

    def _save_index(self, overloads: Any) -> None:
        self._save_data(f"{self.place.name}.nbi", (self.made_for, overloads))

    def _load_index(self) -> Any:
        made_for, overloads = self._load_data(f"{self.place.name}.nbi") or (None, {})
        return overloads if made_for == self.made_for else {}

    def _save_data(self, name: str, data: Any) -> None:
        packed, part = dumps(data), self.place.with_name(f"{name}.{secrets.token_hex(6)}.tmp")
        try:
            part.write_bytes(hashlib.sha256(packed).digest() + packed)
            part.replace(part.with_name(name))
        finally:
            part.unlink(missing_ok=True)

    def _load_data(self, name: str) -> Any:
        with contextlib.suppress(OSError):
            data = self.place.with_name(name).read_bytes()
            if hashlib.sha256(data[32:]).digest() == data[:32]:
                return pickle.loads(data[32:])
        return None


class _Part(JITCodeLibrary):
    """LLVM's code of a function that becomes a part of others: nothing is made of it alone.

    Numba would optimise it, make machine code and a wrapper for Python, and do all of it once more
    for what it is a part of: half of the time of compiling.
    """

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0

    @property
    def codegen(self) -> Any:
        return self

    def set_env(self, name: str, env: Any) -> None:
        pass


class _PartCompiler(Compiler):
    def __init__(self, typing: Any, target: Any, library: Any, *others: Any):
        library = _Part(target.codegen(), "part")
        library.enable_object_caching()
        super().__init__(typing, target, library, *others)


class _PartDispatcher(CPUDispatcher):
    """Called by Python, it is compiled as a whole after all: by tests, and by who is curious.

    Numba would compile it once more for an argument that is a constant, though most of them are no
    faster for it: a loop's first index is one, to begin with."""

    constants = False  # whether it is to know them

    def __call__(self, *arguments: Any) -> Any:
        return _alone(self.py_func)(*arguments)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        if not self.constants:
            args = tuple(map(types.unliteral, args))
        return super().get_call_template(args, kws)


@cache
def _alone(function: Callable[..., Any]) -> Callable[..., Any]:
    return numba.njit(nogil=True, error_model="numpy")(function)


def part(constants: bool = False, **settings: Any) -> Callable[[Callable[..., Any]], Any]:
    """Decorator of the loops that other loops call, and of which these become a part."""
    settings |= {"pipeline_class": _PartCompiler}
    settings |= {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

    def decorate(function: Callable[..., Any]) -> Any:
        made: Any = numba.njit(**settings)(function)
        if hasattr(made, "py_func"):  # with NUMBA_DISABLE_JIT=1 it is the function
            made.__class__ = _PartDispatcher
            made.constants = constants
        return made

    return decorate


inner = part(nogil=True, error_model="numpy")


@cache
def stamp(file: Path) -> str:
    """A digest of a kernel file and of all kernel files on which it depends."""
    sources = [each.read_bytes() for each in sorted(needed(file))]
    return hashlib.sha256(b"".join(sources)).hexdigest()


def needed(file: Path) -> set[Path]:
    """The file, the kernel files that it imports, those that these import, and so on. (The
    `__init__` of a package is none of them: it holds no loop and no number that one uses.)"""
    found, new = set(), {file}
    while new:
        found |= new
        new = {imported for each in new for imported in imports(each)} - found
    return found


@cache
def imports(file: Path) -> set[Path]:
    """The kernel files that a file imports."""
    statement = r"^from minitl\.kernels([\w.]*) import (\([^)]*\)|.*)"
    files = set()
    for package, names in re.findall(statement, file.read_text("utf-8"), re.M):
        place = KERNELS.joinpath(*package.split("."))
        files |= {place.with_suffix(".py"), *(place / f"{n}.py" for n in re.findall(r"\w+", names))}
    return {each for each in files if each.exists()}


def announce() -> None:
    """Say what is going on, once, when compiling takes longer than `PATIENCE`."""

    class Notice(event.Listener):
        spent, depth, said = 0.0, 0, False

        def on_start(self, what: event.Event) -> None:
            if self.depth == 0:
                self.started = time.perf_counter()
            self.depth += 1

        def on_end(self, what: event.Event) -> None:
            self.depth -= 1
            if self.depth == 0:
                self.spent += time.perf_counter() - self.started
            if self.spent > PATIENCE and not self.said:
                self.said = True
                text = "compiling the kernels; where they can be kept, this happens once "
                text += "(`minitl warmup` does it ahead)"
                logging.getLogger("minitl.kernels").warning(text)

    event.register("numba:compile", Notice())
