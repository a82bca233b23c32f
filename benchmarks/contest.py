"""Measuring contenders against each other fairly.

Runtimes in one process disturb each other: each brings threads, and the waiting threads of one
spin on the cores that the other is measured on. So every contender lives in a process of its own
from beginning to end, and does nothing unless it is asked, over a pipe, for one repetition; it
then takes its own time, so the pipe does not count. They take turns, A B C A B C ..., so whatever
else happens to the machine happens to all of them, and each turn is preceded by a short rest in
which the threads of the one before fall asleep.

Nobody's time is reported unless all give the same results: the warm-up calls of every contender
return their outputs, and these are compared first.
"""

from __future__ import annotations

import importlib.util
import math
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import Report

REST = 0.2  # seconds before each repetition; OpenBLAS's threads, say, spin for some 0.03
SHORTEST = 0.2  # seconds; what takes less is called several times in one repetition


class Ready(NamedTuple):
    """A contender that is prepared: `run` does it once; `note` says what it turned out to be."""

    run: Callable[[], Any]
    note: str = ""


@dataclass(frozen=True)
class Contender:
    """Who, and how: `prepare(**settings)`, called in the contender's process, gives a `Ready`.

    `prepare` is a function of a module (its process imports it). `needs` are the packages without
    which it is missing. `checked` is False for one whose results are not comparable.
    """

    name: str
    prepare: Callable[..., Ready]
    settings: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    checked: bool = True

    @property
    def installed(self) -> bool:
        return all(importlib.util.find_spec(package) for package in self.needs)


class Result(NamedTuple):
    name: str
    seconds: list[float]  # one call, for each repetition
    note: str


class Disagreement(AssertionError):
    """Two contenders computed different things: their times must not be compared."""


def contest(
    contenders: Iterable[Contender], repetitions: int, warm_up: int = 2, tolerance: float = 2e-5
) -> tuple[list[Result], list[str]]:
    """Let the contenders run in turns. Returns their results, and the names of the missing.

    Args:
        repetitions: measured calls of each contender.
        warm_up: calls before, not measured; their outputs must agree.
        tolerance: how much: max |a - b| / max |b|, b being the first contender's output.

    Raises Disagreement, and RuntimeError with the contender's traceback when one fails.
    """
    contenders = list(contenders)
    present = [contender for contender in contenders if contender.installed]
    missing = [contender.name for contender in contenders if not contender.installed]
    processes = [_Process(contender) for contender in present]
    try:
        expected = None
        for process in processes:  # one at a time: preparing takes memory and threads, too
            outputs, calls = process.ask("prepare", warm_up)
            process.calls = calls
            if process.contender.checked:
                expected = outputs if expected is None else expected
                check_agreement(process.contender.name, outputs, expected, tolerance)
        runs = {process.contender.name: process.time for process in processes}
        seconds = alternate(runs, repetitions)
        notes = {process.contender.name: process.ask("note") for process in processes}
    finally:
        for process in processes:
            process.close()
    return [Result(name, seconds[name], notes[name]) for name in runs], missing


def compete(
    report: Report,
    case: str,
    contenders: Iterable[Contender],
    repetitions: int,
    unit: str = "s",
    tolerance: float = 1e-4,
) -> None:
    """A `contest`, with 3 calls to warm up, whose times become rows of a report, in 's' or 'ms'."""
    results, report.missing = contest(contenders, repetitions, warm_up=3, tolerance=tolerance)
    for result in results:
        times = [seconds * {"s": 1, "ms": 1e3}[unit] for seconds in result.seconds]
        report.add(case, result.name, unit, times, result.note)


def alternate(
    runs: Mapping[str, Callable[[], float]], repetitions: int, rest: float = REST
) -> dict[str, list[float]]:
    """Call all `runs` in turns; each returns its own time. A rest before each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repetitions):
        for name, run in runs.items():
            time.sleep(rest)
            seconds[name].append(run())
    return seconds


def alone(function: Callable[..., Any], **settings: Any) -> tuple[Any, float]:
    """Call a module's function in a fresh process; what it returns, and the peak memory in bytes.

    Such functions serve `memory.py`, and whatever else should not share this process.
    """
    process = _Process(Contender(function.__name__, function, settings))
    try:
        return process.ask("alone")
    finally:
        process.close()


def timed(run: Callable[[], Any], calls: int = 1) -> float:
    """Seconds that one call takes, on average over `calls` in a row."""
    started = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - started) / calls


def timer(run: Callable[[], Any]) -> Callable[[], float]:
    """For `alternate` within one process: warmed up, and called as often as worth measuring."""
    run()
    calls = calls_for(timed(run))
    return lambda: timed(run, calls)


def calls_for(seconds: float) -> int:
    return max(1, math.ceil(SHORTEST / max(seconds, 1e-9)))


def check_agreement(name: str, outputs: list[Any], expected: list[Any], tolerance: float) -> None:
    """Raise Disagreement unless every output is within tolerance of the expected one."""
    for call, (output, other) in enumerate(zip(outputs, expected, strict=True)):
        a, b = np.asarray(output, np.float64), np.asarray(other, np.float64)
        if a.shape != b.shape:
            raise Disagreement(f"{name} gives {a.shape}, the first contender {b.shape}")
        error = np.abs(a - b).max() / np.abs(b).max()
        if not error <= tolerance:
            raise Disagreement(
                f"call {call + 1} of {name} differs from the first contender's by {error:.1e} of "
                f"the maximum; allowed are {tolerance:.0e}. No times are reported."
            )


def peak_memory() -> int:
    """The most memory in bytes that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss begins with the parent's memory at the fork
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


# --- The processes -------------------------------------------------------------------------------


class _Process:
    """A contender's process, seen from here."""

    def __init__(self, contender: Contender):
        self.contender = contender
        self.calls = 1
        context = multiprocessing.get_context("spawn")
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(far_end, contender.prepare, contender.settings), daemon=True
        )
        self.process.start()
        far_end.close()

    def ask(self, question: str, argument: Any = None) -> Any:
        try:
            self.pipe.send((question, argument))
            failed, answer = self.pipe.recv()
        except (EOFError, BrokenPipeError):
            self.process.join()
            code = self.process.exitcode
            raise RuntimeError(f"{self.contender.name} died with exit code {code}") from None
        if failed:
            raise RuntimeError(f"{self.contender.name} failed:\n{answer}")
        return answer

    def time(self) -> float:
        return self.ask("time", self.calls)

    def close(self) -> None:
        self.pipe.close()  # the other side reads the end, and ends
        self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(pipe: Any, prepare: Callable[..., Any], settings: dict[str, Any]) -> None:
    """The contender's side: answer until the pipe is closed."""
    os.dup2(2, 1)  # what a runtime has to say goes to stderr, and never between the results
    ready = Ready(lambda: None)
    while True:
        try:
            question, argument = pipe.recv()  # idle here, without any thread spinning
        except EOFError:
            return
        try:
            answer: Any = None
            if question == "prepare":
                ready = prepare(**settings)
                # In full copies: a runtime may write into the same array at every call.
                outputs = [np.array(ready.run()) for _ in range(argument)]
                answer = outputs, calls_for(timed(ready.run))
            elif question == "time":
                answer = timed(ready.run, argument)
            elif question == "note":
                answer = ready.note
            elif question == "alone":
                answer = prepare(**settings), peak_memory()
            pipe.send((False, answer))
        except Exception:
            pipe.send((True, traceback.format_exc()))
