"""One of Keras's test files, run in this process: a line of JSON per test."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import os
import signal
import sys
import traceback
import unittest
import warnings
from pathlib import Path
from typing import Any

from benchmarks.keras_tests import sorting, stand_in

SECONDS = 240  # of a machine that does other things as well


class Slow(BaseException):
    """A test took longer than SECONDS."""


def too_long(*_: Any) -> None:
    raise Slow(f"longer than {SECONDS} s")


def source_of(test: Any) -> str:
    """The test's own text, as far as it can be found: absl's parameterized tests wrap it."""
    method = getattr(type(test), test._testMethodName)
    while hasattr(method, "__wrapped__"):
        method = method.__wrapped__
    for cell in getattr(method, "__closure__", None) or ():
        if inspect.isfunction(cell.cell_contents) and cell.cell_contents.__name__.startswith(
            "test"
        ):
            method = cell.cell_contents
    source = inspect.getsource(method)
    settings = [
        cell.cell_contents
        for cell in getattr(getattr(type(test), test._testMethodName), "__closure__", None) or ()
    ]
    return source + repr([s for s in settings if isinstance(s, (dict, tuple, list))])


def marked_out(test: Any) -> str:
    """Why pytest's marks on the test, or its class, would skip it."""
    method = getattr(type(test), test._testMethodName)
    for mark in [*getattr(method, "pytestmark", ()), *getattr(type(test), "pytestmark", ())]:
        if mark.name == "skipif" and mark.args and mark.args[0]:
            return str(mark.kwargs.get("reason", "skipif"))
        if mark.name == "skip":
            return "skip"
    return ""


def run_one(test: Any) -> dict[str, Any]:
    why = sorting.does_not_apply(source_of(test)) or marked_out(test)
    if why:
        return {"outcome": "does not apply", "why": why}
    errors: list[BaseException] = []

    class Result(unittest.TestResult):
        def addError(self, test: Any, error: Any) -> None:
            errors.append(error[1])

        addFailure = addError  # type: ignore[assignment]

        def addSubTest(self, test: Any, subtest: Any, error: Any) -> None:
            if error:
                errors.append(error[1])

    result = Result()
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            test.run(result)
    except Slow as slow:
        errors.append(slow)
    finally:
        signal.alarm(0)
    error = errors[0] if errors else None
    if result.skipped or type(error).__name__ == "Skipped":  # by unittest, or by pytest
        why = result.skipped[0][1] if result.skipped else str(error)
        return {"outcome": "does not apply", "why": f"skipped: {why}"}
    found: dict[str, Any] = {"outcome": sorting.outcome(error, getattr(test, "other_words", False))}
    if error is not None:
        frames = traceback.extract_tb(error.__traceback__)
        places = [f"{Path(f.filename).name}:{f.lineno} {f.line}" for f in frames]
        mine = [p for f, p in zip(frames, places, strict=True) if "/keras/src/" in f.filename]
        found["error"] = f"{type(error).__name__}: {str(error)[:300]}"
        found["place"] = [*mine[-1:], *places[-1:]]
    return found


def main(checkout: str, file: str) -> None:
    stand_in.install(Path(checkout))
    signal.signal(signal.SIGALRM, too_long)
    name = str(Path(file).relative_to(checkout)).removesuffix(".py").replace(os.sep, ".")
    out = sys.stdout
    try:
        module = importlib.import_module(name)
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})"
        print(json.dumps({"test": "(import)", "outcome": "bare", "error": text}), file=out)
        return
    for test in stand_in.walk(unittest.defaultTestLoader.loadTestsFromModule(module)):
        if type(test).__module__ != name:
            continue
        found = {"test": f"{type(test).__name__}.{test._testMethodName}", **run_one(test)}
        print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
