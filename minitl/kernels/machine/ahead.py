"""Compiling on two cores: a second process compiles what this one will call soon.

Numba compiles one function at a time, so threads do not help; but what a process has compiled it
keeps on disk for all. Before a model runs for the first time, `expect` is told what its layers will
call. As long as all machine code is found, nothing comes of it. When a kernel must be compiled, a
process is started that makes the same calls, the last one first, while this one goes through them
from the first, until they meet; before all others it makes those with 3x3 windows, whose kernels
take longest. There, kernels are compiled and not run, so arrays may hold anything. It ends with
this process, or when nothing is left to do.

Two processes do not compile the same: who begins holds a lock (`Turn`), and when the other one
wants that kernel, it waits and finds it on disk; the helper passes on to its next. The system drops
the lock of a process that ends. So where no process can be started, or it fails at anything, or
stands still, kernels are compiled when they are called, as if there were none.
"""

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from minitl import kernels
from minitl.kernels.geometry import Geometry

if sys.platform != "win32":  # where no process is started, and nobody waits
    import fcntl

PATIENCE = 30.0  # seconds to wait for another process that compiles the same
PROGRAM = """
import json, sys
path, calls = json.loads(sys.stdin.readline())
sys.path[:] = path
from minitl.kernels.machine import ahead
ahead.compile_all(calls)
"""

Call = tuple[str, str, tuple[Any, ...], Geometry]  # kernel, dtype, the arrays' shapes, geometry

helping = False  # whether this process is the second one
_expected: list[Call] = []
_helpers: list[subprocess.Popen[str]] = []


class Elsewhere(Exception):
    """Another process compiles it."""


def expect(calls: list[Call]) -> None:
    """What will be called soon, in this order."""
    if calls:
        _expected[:] = dict.fromkeys(calls)


def call_for_help(threads: int) -> None:
    """A kernel must be compiled: start a process for what is expected, if there is a core for it.
    (A program that Python is only a part of may call itself `sys.executable`.)"""
    calls, _expected[:] = list(_expected), []
    python = Path(sys.executable or "").name.startswith("python") and not hasattr(sys, "frozen")
    if not calls or threads < 2 or not python or sys.platform == "win32":
        return
    with contextlib.suppress(OSError, ValueError):
        helper = subprocess.Popen(
            [sys.executable, "-I", "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"NUMBA_NUM_THREADS": "1"},
            text=True,
        )
        _helpers.append(helper)
        assert helper.stdin is not None
        helper.stdin.write(json.dumps((sys.path, calls)) + "\n")
        helper.stdin.flush()  # and it stays open: its end says that this process has ended


@atexit.register
def _end() -> None:
    for helper in _helpers:
        helper.kill()
        helper.wait()


def compile_all(calls: list[Any]) -> None:
    """What the second process does."""
    global helping
    helping = True
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name, dtype, shapes, geometry in sorted(reversed(calls), key=lambda c: c[3][1] != [3, 3]):
        with contextlib.suppress(Exception):
            arrays = [np.empty(shape, dtype) for shape in shapes]
            getattr(kernels, name)(*arrays, Geometry(*map(tuple, geometry)))


def _end_with_parent() -> None:
    sys.stdin.read()
    signal.raise_signal(signal.SIGTERM)


class Turn:
    """The right to compile something, of which this file is the sign. `wait` ends when another
    process has ended, or has had PATIENCE; Elsewhere is raised where this process helps."""

    def __init__(self, place: Path):
        self.place = place
        self.file: Any = None

    def wait(self) -> None:
        end = time.monotonic() + PATIENCE
        with contextlib.suppress(OSError):
            self.place.parent.mkdir(parents=True, exist_ok=True)
            self.file = self.place.open("wb")
            while not self._taken() and time.monotonic() < end:
                if helping:
                    raise Elsewhere
                time.sleep(0.01)

    def _taken(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            if sys.platform != "win32":
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

    def end(self) -> None:
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.place.unlink(missing_ok=True)
                self.file.close()
