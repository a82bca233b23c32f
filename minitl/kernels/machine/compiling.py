"""Compiling: how the kernels' loops become machine code, and what is said when that takes long.

Numba compiles a function when it is first called with a dtype, and keeps the machine code on disk
(beside the source, or in the user's cache folder where that cannot be written; `NUMBA_CACHE_DIR`
overrides). A second process starts warm. `minitl warmup` compiles everything ahead.

What is on disk holds as long as neither the file of a function changes nor the kernel files that
it imports. Numba by itself looks at the function's file only, and would go on with pieces of
`kernels/fast/gemm.py` that were inlined long ago.
"""

import hashlib
import logging
import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core import event

PATIENCE = 2.0  # seconds of compiling before something is said
KERNELS = Path(__file__).parents[1]


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator of the loops that Python calls.

    Kept on disk for the next process; without the interpreter lock, so that threads run side by
    side; and x / 0 is inf, as in NumPy: the check that Numba otherwise makes for Python's
    ZeroDivisionError keeps a loop from using vector instructions (Adam took three times as long).
    """
    kernel = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    file = getattr(getattr(kernel, "_cache", None), "_cache_file", None)
    if file is not None:
        file._source_stamp = stamp(Path(function.__code__.co_filename))
    return kernel


# Decorator of the loops that other loops call, and of which these become a part.
inner = numba.njit(nogil=True, error_model="numpy")


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
                text = "compiling the kernels; they are kept, so this happens once "
                text += "(`minitl warmup` does it ahead)"
                logging.getLogger("minitl.kernels").warning(text)

    event.register("numba:compile", Notice())
