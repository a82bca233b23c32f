"""Right solutions pass, wrong ones do not, and most of those are told what they are.

The solutions in `solutions/` are written as a learner would. `mutants.py` makes wrong ones of them.
"""

import linecache
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minitl.kernels.geometry import sliding
from minitl.study import all_texts, arithmetic, training
from minitl.study.checks import check
from minitl.study.results import Run, copied, same
from minitl.study.symptoms import versions
from tests.study.mutants import mutants

SOLUTIONS = {int(p.name[1:3]): p for p in sorted(Path(__file__).parent.glob("solutions/s*.py"))}
PARTS = arithmetic.PARTS | training.PARTS
WRONG = 20  # per stage


class Endless(BaseException):
    pass


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Endless

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def names_of(source: str, path: str) -> dict:
    """What a learner's file defines. Numba does not compile it: that takes seconds per mutant."""
    source = source.replace("@numba.njit", "@compiled")
    linecache.cache[path] = len(source), None, source.splitlines(True), path

    def compiled(function):
        function.py_func = function
        return function

    names: dict = {"compiled": compiled}
    exec(compile(source, path, "exec"), names)
    return names


def found_in(number: int, source: str, seed: int = 0, parts=None) -> list:
    text = all_texts()[number]
    try:
        with within(12), np.errstate(all="ignore"):
            names = names_of(source, f"solution_{number}.py")
            return [
                finding
                for part in parts or PARTS[number]
                for finding in check(part, names, text.examples(part.name), text.symptoms, seed)
            ]
    except Endless:
        return ["it does not end"]
    except Exception as error:  # the file itself cannot be read
        return [repr(error)]


def wide(rng):
    """Windows of all kinds, other ones than those of the checks."""
    for _ in range(60):
        size, window = rng.integers(3, 10, 2), rng.integers(1, 4, 2)
        geometry = sliding(
            tuple(map(int, size)),
            tuple(map(int, window)),
            tuple(map(int, rng.integers(1, 4, 2))),
            str(rng.choice(["same", "valid"])),
        )
        yield geometry, *map(int, rng.integers(1, 4, 3))


def wider(part):
    """The part with `wide` cases, if it is one of windows."""
    names = next(iter(part.cases(np.random.default_rng(0))))[1]

    def cases(rng):
        for geometry, n, c, f in wide(rng):
            shapes = {
                "x": (n, *geometry.size, c),
                "kernel": (*geometry.window, c, f),
                "bias": (f,),
                "g": (n, *geometry.out_size, c if "winners" in names else f),
            }
            drawn = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
            drawn["geometry"] = geometry
            if "winners" in names:
                x = drawn["x"]
                drawn["winners"] = arithmetic.reference.max_pool2d_with_winners(x, geometry)[1]
            yield "", {name: drawn[name] for name in names}

    return replace(part, cases=cases) if "geometry" in names else part


@pytest.mark.parametrize("number", SOLUTIONS)
def test_a_right_solution_passes(number):
    assert found_in(number, SOLUTIONS[number].read_text()) == []


@pytest.mark.parametrize("number", SOLUTIONS)
def test_no_wrong_solution_passes_and_most_are_told_what_they_are(number):
    wrong, named, passed = 0, 0, []
    for source in mutants(SOLUTIONS[number].read_text()):
        found = found_in(number, source)
        if not found:
            parts = tuple(map(wider, PARTS[number]))
            if any(found_in(number, source, seed, parts) for seed in (1, 2)):
                passed.append(source)
            continue  # else it is right as well
        wrong += 1
        named += any(getattr(finding, "symptom", True) for finding in found)
        if wrong == WRONG:
            break
    assert passed == []
    assert named >= 0.75 * wrong


@pytest.mark.parametrize("number", PARTS)
def test_listed_symptoms_are_wrong_versions(number):
    """Each can be computed, and differs from what is right."""
    for result, version, told in all_texts()[number].symptoms:
        parts = [part for part in PARTS[number] if result in part.outputs]
        assert parts, result
        found = []
        for part in parts:
            runs = []
            for label, given in part.cases(np.random.default_rng(0)):
                of_their_own = {name: copied(value) for name, value in given.items()}
                run = Run(label, given, part.results(part.right, of_their_own), {})
                runs.append(run)
            values = versions(part, version, runs)
            found.append(
                values is not None
                and not all(
                    same(v, run.right[result], 1e-6) for v, run in zip(values, runs, strict=True)
                )
            )
        assert any(found), (version, told)
