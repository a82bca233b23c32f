"""Sharing a kernel's work out over the cores.

A kernel cuts its work into parts that depend on the shapes only, never on the number of threads,
and each part writes its own piece of the output: so the result is the same bits on one core and
on sixteen. The parts are plain Python functions that spend their time in NumPy, BLAS or compiled
loops, all of which let go of the interpreter lock, so ordinary threads are enough.

A BLAS brings threads of its own. Two pools on the same cores are slow (a waiting OpenBLAS thread
spins, and takes a core from whoever runs next), and the bits of its products depend on how many
threads it has. While a kernel runs, BLAS therefore gets one thread.
"""

import ctypes
import itertools
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np

from minitl.kernels.geometry import Array
from minitl.kernels.machine.memory import doing

# As many as cores, or what the environment variable of this name says, as for Numba itself.
_threads: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
_pool: ThreadPoolExecutor | None = None
_lock = threading.Lock()

# At least so many parts, where there is enough to share out. A constant, because the order in
# which partial sums are added, and the edges at which BLAS changes its inner loop, follow it.
PARTS = 8
FEWEST_NUMBERS = 2**16  # of a plain pass over memory in one part: about 20 us
FEWEST_PRODUCTS = 2**20  # multiply-adds of a matrix product in one part: about 30 us

Range = tuple[int, int]  # first, last + 1
Tile = tuple[int, int, int, int]  # a range of lines, a range of columns


def cut(size: int, count: int, first: int = 0) -> list[Range]:
    """first ... first + size in `count` consecutive ranges of almost equal length, none empty."""
    count = min(size, count)
    return [(first + size * i // count, first + size * (i + 1) // count) for i in range(count)]


def cut_at_most(size: int, longest: int, first: int = 0) -> list[Range]:
    """`cut` into as few ranges as there can be if none is longer than `longest`."""
    return cut(size, -(-size // longest), first)


def cut_falling(size: int, least: int = 1) -> list[Range]:
    """0 ... size in consecutive ranges, each a share of what is left, but at least `least`.

    Large ones first, so that there are few; small ones last, so that all threads finish together.
    Guided self-scheduling, Polychronopoulos & Kuck 1987. For work whose bits do not depend on it.
    """
    ranges, first = [], 0
    while first < size:
        last = min(size, first + max(least, -(-(size - first) // (2 * _threads))))
        ranges.append((first, last))
        first = last
    return ranges


def cut_rows(rows: int, width: int) -> list[Range]:
    """Ranges of rows of a (rows, width) array, for a pass over memory; at most PARTS."""
    return cut(rows, min(PARTS, max(1, rows * width // FEWEST_NUMBERS)))


def cut_product(lines: int, line: int, depth: int, width: int, longest: int) -> list[Tile]:
    """Cut a product (lines * line, depth) @ (depth, width) into tiles (first, last, left, right).

    None has more than `longest` lines, and there are at least PARTS, if that is worth while.
    Cutting the lines makes BLAS read the right matrix anew, the width the left: the longer is cut.
    """
    blocks, panels = max(1, -(-lines // longest)), 1
    wanted = min(PARTS, max(1, lines * line * depth * width // FEWEST_PRODUCTS))
    if blocks == wanted == 1:
        return [(0, lines, 0, width)]
    if blocks >= PARTS:
        blocks = -(-blocks // PARTS) * PARTS  # so that all threads finish together
    while blocks * panels < wanted:
        height = lines * line / blocks
        if blocks < lines and (height >= width / panels or width < 32 * panels):
            blocks *= 2
        elif width >= 32 * panels:
            panels *= 2
        else:
            break
    return [(*rows, *columns) for rows in cut(lines, blocks) for columns in cut(width, panels)]


def thread_count() -> int:
    """How many threads the kernels use; at first, as many as there are cores for this process."""
    return _threads


def set_thread_count(count: int) -> None:
    """Let the kernels use `count` threads. Changes no bit of any result."""
    global _threads, _pool
    if count < 1:
        raise ValueError(f"the kernels need at least one thread, got {count}")
    with _lock:
        _threads, _pool = count, None


def share_out(part: Callable[[int], None], count: int, multiplies: bool = False) -> None:
    """Call part(0), part(1), ... part(count - 1), several at a time, in any order, and wait for the
    last. `multiplies` says that the parts call BLAS. An exception in one is raised here."""
    if doing.routine is not None:
        doing.routine.whole = False
    if multiplies and _blas_switches():
        with OneBlasThread():
            share_out(part, count)
        return
    if count == 1:
        part(0)
        return
    # An unknown BLAS keeps its threads: we have none beside them.
    helpers = 0 if multiplies else min(_threads, count) - 1
    indices = iter(range(count))  # whoever is free takes the next: cores are seldom equally fast

    def work() -> None:
        for index in indices:
            part(index)

    running = [_workers().submit(work) for _ in range(helpers)]
    try:
        work()
    finally:
        for future in running:
            future.result()


def on_one_core(work: Callable[[], None]) -> None:
    """Call work(), whose matrix products then use the calling core alone.

    For a loop of small products, each of which needs the one before: shared out, one of 32 x 128 x
    512 takes two cores 121 us, instead of 56 on one.
    """
    share_out(lambda _: work(), 1, multiplies=True)


def added_up(partials: Array) -> Array:
    """The sum of partial sums (parts, ...), in their order."""
    total = np.zeros(partials.shape[1:], partials.dtype)
    for partial in partials:
        total += partial
    return total


def over_rows(work: Callable[[int, int], Any], rows: int, width: int = 1) -> None:
    """Share out work(first, last) over the rows of an array (rows, width): a pass over memory."""
    few = rows * width < 2 * FEWEST_NUMBERS
    if few and doing.routine is None:
        work(0, rows)
        return
    ranges = [(0, rows)] if few else cut_rows(rows, width)
    share_out(lambda index: work(*ranges[index]), len(ranges))


def _workers() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, _threads - 1), "minitl")
        return _pool


def _forget_workers() -> None:
    """A forked process has none of its parent's threads, and must start its own."""
    global _pool, _lock, _depth
    _pool, _lock, _depth = None, threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_workers)


_depth = 0  # how many kernels are inside `OneBlasThread` now
# What sets the threads of each BLAS, and how many it had before the first of them.
_before: list[tuple[Callable[[int], None], int]] = []


class OneBlasThread:
    def __enter__(self) -> None:
        global _depth, _before
        with _lock:
            if _depth == 0:
                _before = [(set_to, get()) for get, set_to in _blas_switches()]
                for set_to, _ in _before:
                    set_to(1)
            _depth += 1

    def __exit__(self, *_: Any) -> None:
        global _depth
        with _lock:
            _depth -= 1
            if _depth == 0:
                for set_to, threads in _before:
                    set_to(threads)


def _blas_switches() -> list[tuple[Callable[[], int], Callable[[int], None]]]:
    """(get, set) of the number of threads for each OpenBLAS here: NumPy's, SciPy's if imported."""
    return _find_switches("scipy.linalg._fblas" in sys.modules)


@cache
def _find_switches(with_scipy: bool) -> list[tuple[Callable[[], int], Callable[[int], None]]]:
    switches = []
    for path in _openblas_files():
        library = ctypes.CDLL(path)
        # The libraries in NumPy's and SciPy's wheels carry a prefix; 64: with 64-bit integers.
        for prefix, suffix in itertools.product(("scipy_openblas", "openblas"), ("64_", "")):
            try:
                get = getattr(library, f"{prefix}_get_num_threads{suffix}")
                set_to = getattr(library, f"{prefix}_set_num_threads{suffix}")
            except AttributeError:
                continue
            set_to.restype = None
            switches.append((get, set_to))
            break
    return switches


def _openblas_files() -> list[str]:
    maps = Path("/proc/self/maps")  # Linux: all files that are mapped into this process
    if maps.exists():
        names = {line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines()}
        return sorted(name for name in names if "openblas" in name)
    numpy = Path(np.__file__).parent  # elsewhere: where NumPy's wheels put theirs
    folders = (numpy / ".dylibs", numpy.with_name("numpy.libs"))
    return sorted(str(file) for folder in folders for file in folder.glob("*openblas*"))
