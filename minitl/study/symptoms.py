"""What wrong numbers are: recognised by what they equal, and by where they are right.

Every sentence that is found here is a fact about the results: they are those of a wrong version
that the stage's text lists; or the right ones with another sign, order of axes, factor; or they do
not depend on an argument; or they are right wherever something holds, and wrong elsewhere.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minitl.kernels.geometry import Geometry
from minitl.study.results import Array, Finding, Part, Run, copied, same

Known = list[tuple[str, str, str]]  # a result, a wrong version of it, what is then told


def symptoms_of(
    part: Part, name: str, runs: list[Run], function: Callable[..., Any], known: Known
) -> list[Finding]:
    """What is wrong with one result of a function, [] when it is right in every run."""
    fits = [same(run.found[name], run.right[name], part.tolerance) for run in runs]
    if all(fits):
        return []
    wrong = [run for run, fit in zip(runs, fits, strict=True) if not fit]
    what = f"{name} of {part.name} is wrong in {len(wrong)} of {len(runs)} random cases"
    found = list(_versions(part, name, runs, known))
    if name in part.meaning:
        told = f"{what}; {_example(name, wrong[0])}: {part.meaning[name]}"
        return [Finding(told), *dict.fromkeys(found)]
    if not found:  # what is known for certain needs no guesses beside it
        found = [*_nothing(name, wrong), *_turned(name, wrong, part.tolerance)]
        found = found or list(_ignored(part, name, runs, function))
        found += _where(runs, fits, bool(found))
    found += _entries(part, name, wrong)
    return [Finding.plain(f"{what}; {_example(name, wrong[0])}"), *dict.fromkeys(found)]


def _example(name: str, run: Run) -> str:
    right, found = run.right[name], run.found[name]
    if isinstance(right, list) and isinstance(found, (list, tuple)) and right and found:
        pairs = zip(found, right, strict=False)
        first = next((i for i, (f, r) in enumerate(pairs) if not same(f, r, 1e-6)), None)
        if first is None:
            return f"{name} has length {len(found)}, expected {len(right)}"
        both = right[first], found[first]
        should, is_ = (f"{v:.6g}" if type(v) is float else f"{v!r:.200}" for v in both)
        return f"{name}[{first}] should be {should} and is {is_}, for example"
    if not isinstance(right, Array) or right.dtype.kind not in "fiub":
        return f"expected {right!r:.300}, got {found!r:.300}"
    gap = np.abs(np.asarray(found, np.float64) - right)
    worst = np.unravel_index(np.argmax(np.where(np.isnan(gap), np.inf, gap)), gap.shape)
    at = tuple(map(int, worst))
    return f"{name}{list(at)} should be {right[at]:.6g} and is {found[at]:.6g}, for example"


def _versions(part: Part, name: str, runs: list[Run], known: Known) -> Iterator[Finding]:
    for result, version, told in known:
        if result == name and (expected := versions(part, version, runs)) is not None:
            pairs = list(zip(runs, expected, strict=True))
            if all(same(run.found[name], e, 10 * part.tolerance) for run, e in pairs):
                yield Finding(told)


def versions(part: Part, version: str, runs: list[Run]) -> list[Any] | None:
    """What a wrong version, an expression of arguments and right results, gives in every run.

    None where it cannot be computed. In it `right(...)` is the right function, called as in `part`,
    and `of(function)` what another gives, which may call the right one as `minitl(...)`.
    """
    found = []

    def right(*args: Any, **kwargs: Any) -> Any:
        given = dict(zip(runs[0].given, map(copied, args), strict=False)) | kwargs
        return part.call(part.right, **given)

    for run in runs:
        given = {n: copied(v) for n, v in run.given.items()}
        minitl = {"minitl": part.right, "of": lambda f, given=given: part.call(f, **given)}
        space = {"np": np, "right": right, **minitl, **given, **run.right}
        try:
            with np.errstate(all="ignore"):
                found.append(eval(version, space))
        except (ValueError, IndexError, TypeError, AttributeError, ZeroDivisionError):
            return None
    return found


def _pairs(name: str, runs: list[Run]) -> Iterator[tuple[Array, Array]]:
    """What was found and what is right, where both are arrays or numbers of one shape."""
    for run in runs:
        found, right = run.found[name], run.right[name]
        if np.isscalar(right) or (isinstance(right, Array) and np.shape(found) == right.shape):
            yield np.asarray(found), np.asarray(right)


def _nothing(name: str, wrong: list[Run]) -> Iterator[Finding]:
    """Not a number, or all zeros."""
    arrays = [found for found, _ in _pairs(name, wrong)]
    if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in arrays):
        labels = [run.label or "ordinary numbers" for run in wrong]
        yield Finding(f"{name} is not finite for {labels[0]}: something overflows, or divides by 0")
    elif arrays and all(a.dtype.kind in "fi" and not a.any() for a in arrays):
        yield Finding(f"{name} is all zeros: nothing is written into it")


# What may have become of right numbers, each number for itself.
CHANGED: dict[str, Callable[[Array], Array]] = {
    "has the wrong sign": np.negative,
    "is right, but its numbers below zero have become 0": lambda r: np.maximum(r, 0),
    "is right, but its numbers have lost their signs": np.abs,
    "is right, but upside down: 1 / x in place of x": lambda r: 1 / r,
    "is right, but squared": np.square,
    "is right, but its square root": np.sqrt,
}


def _turned(name: str, wrong: list[Run], tolerance: float) -> Iterator[Finding]:
    """The right result with another sign, order or direction of axes, factor, summand."""
    pairs = list(_pairs(name, wrong))
    kinds = {array.dtype.kind for pair in pairs for array in pair}
    if not pairs or not kinds <= {"f", "i"} or not all(np.isfinite(f).all() for f, _ in pairs):
        return
    wide = tolerance * 10

    def all_are(change: Callable[..., Array], *how: Any, exact: float = wide) -> bool:
        with np.errstate(all="ignore"):
            return all(same(f, change(r, *how), exact) for f, r in pairs)

    for what, change in CHANGED.items():
        if all_are(change):
            yield Finding(f"{name} {what}")
            return
    if wide < 1e-6 and all_are(np.asarray, exact=1e-6):
        yield Finding(f"{name} is right to 6 digits and no more: is something in it float32?")
        return
    ndim = pairs[0][1].ndim if len({r.ndim for _, r in pairs}) == 1 else 0
    for order in list(itertools.permutations(range(ndim)))[1:] if ndim <= 4 else []:
        if all_are(np.transpose, order):
            yield Finding(f"{name} is right but for the order of its axes, {order}: transposed")
    for count in range(1, min(ndim, 4) + 1):
        for axes in itertools.combinations(range(ndim), count):
            if all_are(np.flip, axes):
                yield Finding(f"{name} is right but flipped along axes {axes}")
    for axis, step in itertools.product(range(ndim), (1, -1)):
        if all_are(np.roll, step, axis):
            yield Finding(f"{name} is right but moved by one place along axis {axis}")
    with np.errstate(all="ignore"):
        ratios = [np.vdot(r, f) / np.vdot(r, r) for f, r in pairs]
    if all(same(f, c * r, wide) and abs(c) > 1e-6 for c, (f, r) in zip(ratios, pairs, strict=True)):
        yield Finding(_factor(name, ratios, wrong))
    differences = [f - r for f, r in pairs]
    if all(d.size > 1 and same(d, np.full_like(d, d.flat[0]), 1e-6) for d in differences):
        yield Finding(f"{name} is right but for a number that is added to all of it")


def _factor(name: str, ratios: list[float], wrong: list[Run]) -> str:
    if np.allclose(ratios, ratios[0]):
        return f"{name} is {ratios[0]:.4g} times what it should be: a factor too many or too few"
    for key, value in wrong[0].given.items():
        for axis in range(np.ndim(value) if isinstance(value, Array) else 0):
            if not all(np.ndim(run.given[key]) > axis for run in wrong):
                break
            sizes = np.array([run.given[key].shape[axis] for run in wrong])
            for text, factor in (("divided", 1 / sizes), ("multiplied", sizes)):
                if np.allclose(ratios, factor):
                    mean = "a mean where a sum is due" if text == "divided" else "a sum, not a mean"
                    return f"{name} is {text} by {key}.shape[{axis}]: {mean}"
    cases = f"{ratios[0]:.4g} in one case, {ratios[-1]:.4g} in another"
    return f"{name} is right but for a factor, {cases}"


def _ignored(
    part: Part, name: str, runs: list[Run], function: Callable[..., Any]
) -> Iterator[Finding]:
    """Arguments that the right result depends on, and the learner's does not."""
    for key in runs[0].given:
        idle = []
        for run in runs:
            value = run.given[key]
            if not isinstance(value, Array) or value.dtype.kind != "f":
                continue
            factors: Any = np.random.default_rng(7).uniform(0.5, 2, value.shape)
            other = value * np.asarray(factors, value.dtype)
            given = [{n: copied(v) for n, v in (run.given | {key: other}).items()} for _ in "ab"]
            try:
                right, found = (
                    part.results(f, g)[name]
                    for f, g in zip((part.right, function), given, strict=True)
                )
            except Exception:
                return
            if not same(right, run.right[name], 1e-6):
                idle.append(same(found, run.found[name], 1e-12))
        if idle and all(idle):
            yield Finding(f"{name} does not depend on {key}, but it should")


def features(run: Run) -> dict[str, Any]:
    """What tells cases apart, with a word for each."""
    found: dict[str, Any] = {}
    for key, value in run.given.items():
        if isinstance(value, Geometry):
            found["strides are (1, 1)"] = value.strides == (1, 1)
            found["there is no padding"] = not any(value.pads)
            found["padding is as wide at both ends"] = value.pads[::2] == value.pads[1::2]
            found["the window is 1 x 1"] = value.window == (1, 1)
            found["windows do not overlap"] = all(
                s >= w for s, w in zip(value.strides, value.window, strict=True)
            )
        elif isinstance(value, Array):
            for axis, size in enumerate(value.shape):
                found[f"{key}.shape[{axis}] is 1"] = size == 1
                found[f"{key}.shape[{axis}] is even"] = size % 2 == 0
                found[f"{key}.shape[{axis}] is odd"] = size % 2 == 1
            found[f"{key} has {value.ndim} axes"] = value.ndim != 1
        else:
            found[f"{key} is None"] = value is None
    label = {f"of '{run.label}'": True} if run.label else {}
    return label | {f"where {key}": holds for key, holds in found.items()}


def _where(runs: list[Run], fits: list[bool], known: bool) -> Iterator[Finding]:
    """What the cases that are right have, and those that are wrong have not, or the reverse.

    What holds for most only may be chance: it is left out where something else is known."""
    told = [features(run) for run in runs]
    keys = dict.fromkeys(key for each in told for key in each) if any(fits) else {}
    holds = {key: [bool(each.get(key)) for each in told] for key in keys}
    for key, held in holds.items():
        for word, wanted in (("right", fits), ("wrong", [not fit for fit in fits])):
            if held == wanted:
                cases = f"all {sum(held)} cases" if sum(held) > 1 else "the one case"
                yield Finding(f"it is {word} in {cases} {key}, and in no other")
                return
    for key, held in holds.items() if not known else ():
        inside = [fit for hold, fit in zip(held, fits, strict=True) if hold]
        others = [fit for hold, fit in zip(held, fits, strict=True) if not hold]
        if len(inside) > 2 and all(inside) and 3 * sum(others) <= len(others):  # no chance
            yield Finding(f"it is right in all {len(inside)} cases {key}; it fails in others")
            return


def _entries(part: Part, name: str, wrong: list[Run]) -> Iterator[Finding]:
    """Whether the wrong numbers stand at one end of an axis."""
    places: dict[int, set[str]] = {}
    all_bad = []
    for run in wrong:
        right, found = run.right[name], run.found[name]
        if not isinstance(right, Array) or right.dtype.kind not in "fiub" or not right.ndim:
            return
        largest = np.abs(right[np.isfinite(right)]).max(initial=1e-30)
        bad = ~np.isclose(found, right, rtol=0, atol=10 * part.tolerance * largest)
        all_bad.append(bad)
        for axis, size in enumerate(right.shape):
            at = set(np.nonzero(bad)[axis].tolist())
            ends = "first" if at <= {0} else "last" if at <= {size - 1} else "first and last"
            rest = at == set(range(1, size))
            ends = ends if at <= {0, size - 1} else "rest" if rest else "all"
            places.setdefault(axis, set()).add(ends if size > 2 else "small")
    names = part.outputs[name].split()
    for axis in (axis for axis, letters in enumerate(names) if letters == "4U"):
        gates = {
            int(i) * 4 // run.right[name].shape[axis]
            for run, b in zip(wrong, all_bad, strict=True)
            for i in np.nonzero(b)[axis]
        }
        if len(gates) < 4:
            which = ", ".join("ifko"[gate] for gate in sorted(gates))
            yield Finding(f"{name} is wrong only in the columns of gate {which}, of i, f, k, o")
    for axis, seen in places.items():
        if "all" not in seen and seen != {"small"}:
            which = " or ".join(sorted(seen - {"small"}))
            along = names[axis] if axis < len(names) else f"axis {axis}"
            if which == "rest":
                yield Finding(f"{name} is right at the first place along {along} alone")
                continue
            yield Finding(f"{name} is wrong only at the {which} place along {along}: off by one?")
