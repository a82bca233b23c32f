"""What is wrong with a learner's function, in the order in which one would look.

First the example to check by hand, then what the call does, shapes, numbers of random cases (in
float64, gradients for random cotangents, against minitl's, which the tests hold against differences
in random directions). `check` returns `Finding`s, none when all is right. Where numbers are wrong,
`symptoms.py` looks for what they are instead.
"""

import doctest
import itertools
import linecache
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minitl.study.results import (
    Arguments,
    Array,
    Finding,
    Part,
    Run,
    WrongNumber,
    copied,
    plainly,
    same,
)
from minitl.study.symptoms import Known, symptoms_of

# Where code is not the learner's: minitl, Python's own modules, installed packages.
NOT_THEIRS = (str(Path(__file__).parents[1]), *sysconfig.get_paths().values(), "<frozen", "<string")


def check(
    part: Part, names: dict[str, Any], examples: str, known: Known, seed: int = 0
) -> list[Finding]:
    """All that is wrong with the part's function among `names`, the learner's file's."""
    function = names.get(part.name)
    if not callable(function):
        return [Finding(f"there is no function {part.name} in the file")]
    early = list(by_hand(part.name, examples, names))
    runs, wrong = _runs(part, function, seed, [])
    if wrong:
        return early + wrong
    told_of = {name: symptoms_of(part, name, runs, function, known) for name in part.outputs}
    early += [finding for each in told_of.values() for finding in each]
    if right_ones := [name for name, each in told_of.items() if early and not each]:
        early.append(Finding.plain(f"right: {', '.join(right_ones)}"))
    if early:
        return early
    more, wrong = _runs(part, function, seed + 1, runs)  # other numbers of the same shapes
    fits = all(same(r.found[n], r.right[n], part.tolerance) for r in more for n in part.outputs)
    if not (wrong or fits):
        return [
            Finding(f"{part.name} is right at first, and wrong when called again: what is kept?")
        ]
    return wrong


def _runs(
    part: Part, function: Any, seed: int, earlier: list[Run]
) -> tuple[list[Run], list[Finding]]:
    """All cases, done; or what is wrong with a call, whatever the numbers."""
    runs: list[Run] = []
    for number, (label, given) in enumerate(part.cases(np.random.default_rng(seed)), 1):
        right = part.results(part.right, {n: copied(v) for n, v in given.items()})
        run = Run(label, given, right, {})
        case = ", ".join(filter(None, [label, described(given)]))
        if found := list(_called(part, function, run, f"(random case {number}: {case})")):
            return [], found
        run.kept = {name: copied(value) for name, value in run.found.items()}
        runs.append(run)
    if all(same(r.found[n], r.kept[n], 1e-12) for r in earlier + runs for n in part.outputs):
        return runs, []
    text = f"{part.name} returns an array that its next call writes into: make new ones"
    return [], [Finding(text)]


def described(arguments: Arguments) -> str:
    """'x (2, 5, 4, 3), bias None, geometry ...': what a case is made of."""
    told = {n: v.shape if isinstance(v, Array) else v for n, v in arguments.items()}
    return ", ".join(f"{n} {v}" for n, v in told.items() if not callable(v))


def by_hand(name: str, examples: str, names: dict[str, Any]) -> Iterator[Finding]:
    """The examples of the docstrings, by value: 2 and 2.0 are the same."""
    space = {"np": np, **names}
    for example in doctest.DocTestParser().get_examples(examples):
        source, want = example.source.strip(), example.want.strip()
        try:
            if not want:
                exec(source, space)
                continue
            found = eval(source, space)
        except NotImplementedError:  # that is told once, by its name
            return
        except Exception as error:
            if name in source:
                yield Finding(f"the example to check by hand, {source}, ends in {told(error)}")
                return
            continue
        expected = eval(want, {"array": np.array, "np": np})
        if name in source and not same(found, expected, 1e-6):
            text = f"the example to check by hand is not right: {source}\n    should be {want}"
            yield Finding.plain(f"{text}\n    but is    {found!r}")


def told(error: BaseException) -> str:
    """An error in the learner's words: the last line of their own file, and what it raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(NOT_THEIRS)]
    where = f"line {own[-1].lineno}, `{_source(own[-1])}`: " if own else ""
    return f"{where}{type(error).__name__}: {error}"


def _source(frame: traceback.FrameSummary) -> str:
    return linecache.getline(frame.filename, frame.lineno or 0).strip()


def _called(part: Part, function: Any, run: Run, where: str) -> Iterator[Finding]:
    """What is wrong with a call, whatever the numbers; fills run.found."""
    given = {n: copied(v) for n, v in run.given.items()}
    try:
        run.found = part.results(function, given)
    except NotImplementedError:
        yield Finding(f"{part.name} is not written yet")
        return
    except WrongNumber as error:
        yield Finding(f"{part.name} {error} {where}")
        return
    except Exception as error:
        yield Finding(f"{told(error)}\n    {where}")
        return
    except BaseException as error:  # its time was over
        error.add_note(where)
        raise
    for name, value in run.given.items():
        if name not in part.changes and not _unchanged(value, given[name]):
            yield Finding(f"{part.name} changed its argument {name}, which belongs to the caller")
            return
    for name, found in run.found.items():
        yield from _looks(part, name, found, run, given, where)


def _unchanged(before: Any, after: Any) -> bool:
    if isinstance(before, list):
        return before == after
    return not isinstance(before, Array) or bool(np.array_equal(before, after, equal_nan=True))


def _looks(
    part: Part, name: str, found: Any, run: Run, given: Arguments, where: str
) -> Iterator[Finding]:
    right, axes = run.right[name], part.outputs[name]
    if not isinstance(right, Array):
        return
    if not isinstance(found, Array):
        found = run.found[name] = np.asarray(found) if np.ndim(right) == 0 else found
        if not isinstance(found, Array):
            yield Finding(f"{part.name} gave a {type(found).__name__} for {name}, not an array")
            return
    if found.shape != right.shape:
        text = f"{name} has shape {found.shape}, expected {right.shape}{axes and f' = ({axes})'}"
        turned = [o for o in _orders(right.ndim) if right.transpose(o).shape == found.shape]
        match = [o for o in turned if same(found, right.transpose(o), part.tolerance)]
        if match:
            text += f"; the numbers are right, but in the order of axes {match[0]}: transposed"
        yield Finding(f"{text} {where}")
    elif found.dtype != right.dtype and right.dtype.kind in "fiub":
        yield Finding(f"{name} has dtype {found.dtype}, expected {right.dtype} {where}")
    elif part.call is plainly and found.size > 1:
        for n, value in given.items():
            if isinstance(value, Array) and np.shares_memory(found, value):
                yield Finding(f"{name} is a view of {n}: who changes one changes the other; copy")


def _orders(ndim: int) -> list[tuple[int, ...]]:
    return list(itertools.permutations(range(ndim)))[1:] if ndim <= 4 else []
