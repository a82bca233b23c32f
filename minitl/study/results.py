"""What a learner's function is compared with: a `Part`, random cases, their right results.

`checks.py` says in which order things are looked at; the parts are in `arithmetic.py` (stages 1 to
12) and `training.py`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray
Arguments = dict[str, Any]
Case = tuple[str, Arguments]  # what is particular about it, or ''; the arguments by their names


class Finding(str):
    """A sentence on what is wrong; `symptom` tells whether it says what, not only that."""

    symptom = True

    @classmethod
    def plain(cls, text: str) -> "Finding":
        found = cls(text)
        found.symptom = False
        return found


def plainly(function: Callable[..., Any], **arguments: Any) -> Any:
    """The usual call."""
    return function(*arguments.values())


@dataclass(frozen=True)
class Part:
    """One function that a learner writes.

    Attributes:
        name: of the function.
        right: minitl's, or what does the same with minitl's.
        cases: makes random cases out of a generator.
        outputs: the names of the results, each with those of its axes: {'y': 'N OH OW F'}.
        call: makes the results of a function and the arguments.
        changes: arguments that the function is to change.
        meaning: what a number of a result tells: there a wrong number is a symptom.
        source: the function to read, or 'file name' if its file is slow to import; else `right`.
        tolerance: relative to the largest number, in float64.
    """

    name: str
    right: Callable[..., Any]
    cases: Callable[[np.random.Generator], Iterable[Case]]
    outputs: dict[str, str]
    call: Callable[..., Any] = plainly
    changes: tuple[str, ...] = ()
    meaning: dict[str, str] = field(default_factory=dict)
    source: Any = None
    tolerance: float = 1e-9

    def results(self, function: Callable[..., Any], arguments: Arguments) -> dict[str, Any]:
        """What a function gives, by the names of the results; ValueError for another number."""
        found = self.call(function, **arguments)
        several = isinstance(found, tuple) or (isinstance(found, list) and len(self.outputs) > 1)
        found = found if several else (found,)
        if len(found) != len(self.outputs):
            raise WrongNumber(f"returned {len(found)} results, expected {', '.join(self.outputs)}")
        return dict(zip(self.outputs, found, strict=True))


class WrongNumber(ValueError):
    """A function gave more or fewer results than it should."""


@dataclass
class Run:
    """One case, done: what was given, what is right, what the learner's function gave."""

    label: str
    given: Arguments
    right: dict[str, Any]
    found: dict[str, Any]
    kept: dict[str, Any] = field(default_factory=dict)  # copies of what was found


def copied(value: Any) -> Any:
    """An array's or list's copy; all else as it is."""
    return value.copy() if isinstance(value, (Array, list)) else value


def same(found: Any, right: Any, tolerance: float) -> bool:
    """Whether two results are equal to rounding."""
    if isinstance(right, (list, tuple)) and not np.isscalar(right):
        both = isinstance(found, (list, tuple)) and len(found) == len(right)
        return both and all(same(f, r, tolerance) for f, r in zip(found, right, strict=True))
    found, right = np.asarray(found), np.asarray(right)
    if found.shape != right.shape:
        return False
    if right.dtype.kind not in "fc" or found.dtype.kind not in "fiubc":
        return bool(np.array_equal(found, right))
    largest = np.abs(right[np.isfinite(right)]).max(initial=1e-30)
    scale = tolerance if right.dtype != np.float32 else max(tolerance, 2e-5)
    with np.errstate(all="ignore"):
        return bool(np.allclose(found, right, rtol=0, atol=scale * largest, equal_nan=True))
