"""Which features, and how strong a penalty? The softmax head's settings, by cross-validation on F.

The best head for given features and a given penalty is known (`optimum.py`); which features tell
most about new pictures, and how large its weights may be, only pictures that were held out can say.
`choose_head` holds out each fifth of the rows in turn, solves the head on the rest for one penalty
after the other, and takes the features and the penalty with the least log loss on what was held
out. `solve_chosen` is the head of all rows; `out_of_fold` repeats the folds with new draws, for
figures (`judging/intervals.py`) and for whoever looks for wrong labels.

It takes seconds: the rows are turned into their principal axes once, which hold all that D columns
can say of N rows, and every head starts from that of the penalty before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from minitl.data import splits
from minitl.kernels.machine.threads import share_out
from minitl.models.arguments import guard
from minitl.transfer.optimum import Centred, Curve, Head, minimise, softmax, solve_head

FOLDS = 5
MOST = 1200  # pictures that a choice is made on: more would not make it another
FLOOR = 0.3  # of the typical standard deviation: see `scales`
STRONGEST, WEAKEST, STEP = 4.0, -1.0, 1.0  # log10 of the strengths, from where to where
TOLERANCE = 1e-3  # of a gradient while choosing: the log loss moves by less than 0.001


Blocks = Mapping[str, np.ndarray]  # F in parts: each layer's, or each pooling's, columns (N, D_b)
Weights = Mapping[str, float]  # of a candidate's blocks: how much each counts beside the others


class Choice(NamedTuple):
    """What `choose_head` chose."""

    name: str  # of the candidate
    strength: float  # of the penalty: strength / N is `solve_head`'s l2
    log_loss: dict[str, float]  # of each candidate at its best strength, on rows held out
    p: np.ndarray  # (N, m) of the chosen: each row's probabilities while it was held out


def scales(f: np.ndarray) -> np.ndarray:
    """(D,): what the columns of F (N, D) are multiplied with, so that a penalty is fair to all.

        1 / max(standard deviation, FLOOR * the columns' root mean square of it)

    Channels that fired for one picture in a hundred have next to no deviation there. Divided by
    that, they are a hundred times as large in a picture where they fire, and drown all others.
    """
    parts = [f[:, i : i + 512].var(axis=0, dtype=np.float64) for i in range(0, f.shape[1], 512)]
    variance = np.concatenate(parts)
    least = FLOOR * np.sqrt(variance.mean())
    return 1 / np.maximum(np.sqrt(variance), least) if least > 0 else np.ones(len(variance))


def choose_head(
    f: Any,
    y: Any,
    candidates: Mapping[str, Weights] | None = None,
    groups: Any = None,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    views: int = 1,
) -> Choice:
    """The features and the penalty with the least log loss on rows that were held out.

    Args:
        f, y: F (views * N, D), or {block: its columns}, and labels (N,), integers from 0. With
            augmented views the first N rows are the pictures, then come all in a second view, and
            so on; a picture is held out with its views, and judged by its first.
        candidates: {name: {block: weight}}: which blocks of F, scaled by `scales`, then weighted,
            stand side by side. All of F, with weight 1, when None.
        groups: (N,); rows of one group are held out together.
        folds, seed: how many parts, and of the draw. Of more pictures than MOST some are left out.

    Raises ValueError for fewer rows or groups than folds, and where less than two classes are left
    to learn from while a fold is held out.
    """
    blocks, y = _blocks(f), np.asarray(y, np.intp)
    if len(y) > MOST and groups is None:
        chosen = splits.stratified_subset(y, MOST, seed)
        rows = (np.arange(views)[:, np.newaxis] * len(y) + chosen).ravel()
        blocks, y = {name: block[rows] for name, block in blocks.items()}, y[chosen]
    held_out = splits.folds(y, _parts(folds, y, groups), seed, groups)
    best: tuple[float, str, float, np.ndarray] | None = None
    found = {}
    for name, weights in (candidates or {"F": dict.fromkeys(blocks, 1.0)}).items():
        strength, loss, z = _best_strength(_Rows(blocks, weights, y, views), held_out)
        found[name] = loss
        if best is None or loss < best[0]:
            best = loss, name, strength, softmax(z)[0]
    assert best is not None
    return Choice(best[1], best[2], found, best[3])


def solve_chosen(
    f: Any, y: Any, strength: float, weights: Weights | None = None, *, views: int = 1
) -> Head:
    """The head of all rows, W and b for the blocks of F side by side as they were given."""
    x, by = _scaled(_blocks(f), weights)
    head = solve_head(x, np.tile(y, views), strength / len(y), tolerance=1e-8)
    return head._replace(kernel=head.kernel * by[:, np.newaxis])


def out_of_fold(
    f: Any,
    y: Any,
    strength: float,
    weights: Weights | None = None,
    groups: Any = None,
    *,
    folds: int = FOLDS,
    repeats: int = 3,
    seed: int = 0,
    views: int = 1,
) -> np.ndarray:
    """P (repeats, N, m): each row's probabilities by heads that were solved without it.

    Arguments as for `choose_head`, with what it chose; every repetition draws other folds.
    """
    rows = _Rows(_blocks(f), weights, np.asarray(y, np.intp), views)
    parts = _parts(folds, rows.y, groups)
    draws = [splits.folds(rows.y, parts, [seed, i], groups) for i in range(1, repeats + 1)]
    z = np.zeros((repeats, len(rows.y), rows.classes))

    def solve(i: int) -> None:
        repeat, part = divmod(i, parts)
        _Fold(rows, draws[repeat] == part).solve(strength, z[repeat])

    share_out(solve, repeats * parts, multiplies=True)
    return np.stack([softmax(each)[0] for each in z])


def _parts(folds: int, y: np.ndarray, groups: Any) -> int:
    return min(folds, len(y) if groups is None else len(np.unique(groups)))


def _blocks(f: Any) -> dict[str, np.ndarray]:
    return dict(f) if isinstance(f, Mapping) else {"F": np.asarray(f)}


def _scaled(blocks: Blocks, weights: Weights | None) -> tuple[np.ndarray, np.ndarray]:
    """The chosen blocks side by side, scaled and weighted (N, D), and by what (D,)."""
    chosen = dict.fromkeys(blocks, 1.0) if weights is None else weights
    by = [weight * scales(blocks[name]) for name, weight in chosen.items()]
    parts = [blocks[name] * b.astype(np.float32) for name, b in zip(chosen, by, strict=True)]
    factors = np.concatenate([b.astype(np.float32) for b in by])
    return np.concatenate(parts, axis=1), factors.astype(np.float64)


class _Rows:
    """The rows of scaled F in their principal axes, X (views * N, r), and their labels (N,)."""

    def __init__(self, blocks: Blocks, weights: Weights | None, y: np.ndarray, views: int):
        x, _ = _scaled(blocks, weights)
        if len(x) != views * len(y):
            raise ValueError(f"F has {len(x)} rows for {len(y)} labels and {views} views of each")
        import scipy.linalg  # noqa: F401  # SciPy's BLAS must be there to be told its threads

        self.y, self.views, self.classes = y, views, int(y.max()) + 1
        found: list[np.ndarray] = []

        def turn(_: int) -> None:
            found.append(Centred(x).principal_axes()[0])

        share_out(turn, 1, multiplies=True)
        self.x = found[0].astype(np.float32)  # TOLERANCE asks for no more, in half the time


class _Fold:
    """The head of one fold: learned from the rows that are not held out, N' of them."""

    def __init__(self, rows: _Rows, held_out: np.ndarray):
        self.held_out, self.ahead = held_out, rows.x[: len(rows.y)][held_out]
        kept = np.tile(~held_out, rows.views)
        self.x, labels = rows.x[kept], np.tile(rows.y, rows.views)[kept]
        self.n = int((~held_out).sum())
        self.there = np.unique(labels)  # a class may be in this fold with all its rows
        if len(self.there) < 2:
            what = "all pictures of the other classes are held out together"
            raise ValueError(f"there is one class left to learn from: {what}")
        self.targets = (labels[:, np.newaxis] == self.there) / len(labels)
        self.known = np.isin(rows.y, self.there) & held_out
        self.v: np.ndarray | None = None

    def solve(self, strength: float, z: np.ndarray) -> None:
        """Write the logits of the rows held out into z (N, m)."""
        # From a stronger penalty's head: classes that can be told apart without a fault flatten
        # the loss far out, where a first step from 0 would end.
        v = self.v
        for first in (1e4, 1e2, 1.0) if v is None else (1.0,):
            curve = Curve(self.x, self.targets, first * strength / self.n)
            v, _ = minimise(curve, TOLERANCE, 300, v)
        assert v is not None
        self.v, found = v, self.ahead @ v[:-1] + v[-1]
        z[self.held_out] = found.min(axis=1, keepdims=True) - 20  # of classes that are not there
        z[np.ix_(self.held_out, self.there)] = found


def _best_strength(rows: _Rows, held_out: np.ndarray) -> tuple[float, float, np.ndarray]:
    """The strength with the least log loss out of fold, that loss, and the logits (N, m) there."""
    folds = [_Fold(rows, held_out == k) for k in range(held_out.max() + 1)]
    known = np.any([fold.known for fold in folds], axis=0)
    tried: dict[float, tuple[float, np.ndarray]] = {}

    def loss(power: float) -> float:
        z = np.zeros((len(rows.y), rows.classes))
        share_out(lambda k: folds[k].solve(10**power, z), len(folds), multiplies=True)
        p = softmax(z)[0][np.arange(len(z)), rows.y][known]
        tried[power] = float(-np.log(np.maximum(p, 1e-15)).mean()), z
        return tried[power][0]

    for power in np.arange(STRONGEST, WEAKEST - STEP / 2, -STEP).tolist():
        if loss(power) > min(each for each, _ in tried.values()) * 1.02:  # it has risen
            break
    for step in (STEP / 2, STEP / 4):
        least = min(tried, key=lambda power: tried[power][0])
        loss(least - step)
        loss(least + step)
    least = min(tried, key=lambda power: tried[power][0])
    return 10**least, *tried[least]


guard(globals())
