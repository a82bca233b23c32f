"""Dividing rows into a part to learn from and a part held out to judge by.

What comes in is one label per row; what goes out are row numbers in ascending order, drawn from
`seed` alone. Stratified means that every stratum (a class, or a class and a type: see `strata`)
gives the same share. Grouped means that a group goes whole to one side: cells of one solar module
look alike, and a random split puts their like on both sides and flatters the result. Report both
kinds. `folds` cuts rows into parts of which each is held out once.
"""

from typing import Any

import numpy as np

from minitl.models.arguments import guard
from minitl.naming import Count

Rows = np.ndarray


def strata(*columns: Any) -> np.ndarray:
    """Number the combinations of several labels: columns (N,), ... -> (N,) integers.

    >>> strata([0, 0, 1, 1], ["mono", "poly", "poly", "poly"]).tolist()
    [0, 1, 2, 2]
    """
    if not columns:
        raise TypeError("strata needs columns of labels, one at least")
    combined = np.zeros(len(columns[0]), np.intp)
    for column in columns:
        values, codes = np.unique(np.asarray(column), return_inverse=True)
        combined = combined * len(values) + codes
    return np.unique(combined, return_inverse=True)[1]


def stratified_split(labels: Any, fraction: float, seed: Any) -> tuple[Rows, Rows]:
    """Split into (kept, held out) with `fraction` of every stratum of `labels` (N,) held out.

    round(fraction N) rows are held out; what is left after rounding down in every stratum goes
    to the strata with the largest remainders, so each is within one row of its exact share.
    `seed` is an integer or a `numpy.random.SeedSequence`.

    Raises ValueError when `fraction` is not between 0 and 1, when a part would be empty, and
    for a stratum with a single row, which cannot be on both sides.
    """
    codes, names = _codes(labels, fraction)
    few = [str(names[code]) for code in np.flatnonzero(np.bincount(codes) < 2)]
    if few:
        raise ValueError(f"a split needs at least 2 rows of every label; too few of {few}")
    return _both_sides(len(codes), _draw(codes, round(fraction * len(codes)), seed))


def stratified_subset(labels: Any, size: int, seed: Any) -> Rows:
    """Choose `size` rows, from every stratum of `labels` (N,) its share.

    Raises ValueError when there are fewer than `size` rows, or `size` is not positive.
    """
    codes, _ = _codes(labels)
    if not 0 < size <= len(codes):
        raise ValueError(f"size must be from 1 to {len(codes)} (the rows there are), got {size}")
    return _draw(codes, size, seed)


def grouped_split(groups: Any, fraction: float, seed: Any) -> tuple[Rows, Rows]:
    """Split into (kept, held out) so that no group of `groups` (N,) is on both sides.

    Groups are held out in random order up to about fraction N rows; either side has one or more.

    Raises ValueError for fewer than 2 groups and when `fraction` is not between 0 and 1.
    """
    codes, names = _codes(groups, fraction)
    if len(names) < 2:
        raise ValueError("a grouped split needs at least 2 groups, found 1")
    order = np.random.default_rng(seed).permutation(len(names))
    rows_so_far = np.cumsum(np.bincount(codes)[order])[:-1]
    chosen = order[: np.argmin(np.abs(rows_so_far - fraction * len(codes))) + 1]
    return _both_sides(len(codes), np.flatnonzero(np.isin(codes, chosen)))


def folds(labels: Any, count: int, seed: Any, groups: Any = None) -> np.ndarray:
    """(N,): which of the folds 0 ... count - 1 holds each row out.

    Every class of `labels` (N,) is shared out evenly; a class of fewer rows than `count` lacks in
    some folds. With `groups` (N,) a group stays whole: in random order, large ones first, each goes
    to the fold that this leaves most even in all classes.

    Raises ValueError for fewer than 2 folds, and for fewer rows, or groups, than folds.
    """
    codes, _ = _codes(labels)
    members = np.arange(len(codes)) if groups is None else _codes(groups)[0]
    there = len(np.unique(members))
    if len(members) != len(codes) or not 2 <= count <= there:
        what = "rows" if groups is None else "groups"
        raise ValueError(f"{count} folds need 2 or more, and as many {what}: there are {there}")
    rng = np.random.default_rng(seed)
    if groups is None:
        order = rng.permutation(len(codes))
        order = order[np.argsort(codes[order], kind="stable")]
        held_out = np.empty(len(codes), np.intp)
        held_out[order] = rng.permutation(count)[np.arange(len(codes)) % count]
        return held_out
    table = np.zeros((there, codes.max() + 1))  # of each group: rows by class
    np.add.at(table, (members, codes), 1)
    order = rng.permutation(there)
    order = order[np.argsort(-table[order].max(axis=1), kind="stable")]
    share, so_far = table.sum(axis=0), np.zeros((count, table.shape[1]))
    place = np.empty(there, np.intp)
    for group in order:
        after = so_far[np.newaxis] + np.eye(count)[..., np.newaxis] * table[group]
        uneven = ((after / share).std(axis=1)).mean(axis=1)  # (folds,), if the group went there
        tied = uneven + 1e-9 * so_far.sum(axis=1) / len(codes)
        place[group] = tied.argmin()
        so_far[place[group]] += table[group]
    return place[members]


def block_split(rows: int, block: Count, fraction: float, seed: Any) -> tuple[Rows, Rows]:
    """`grouped_split` with blocks of `block` neighbouring rows as the groups."""
    return grouped_split(np.arange(rows) // block, fraction, seed)


def _codes(labels: Any, fraction: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) of any kind as integers 0..m-1, and the m names; checks the fraction, too."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0:
        advice = "for several labels a row use strata(first, second)"
        raise ValueError(f"expected one label a row, (N,), got shape {labels.shape}; {advice}")
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
    names, codes = np.unique(labels, return_inverse=True)
    return codes, names


def _draw(codes: np.ndarray, size: int, seed: Any) -> Rows:
    """`size` random rows, every stratum with its share: floors first, then largest remainders."""
    exact = np.bincount(codes) * (size / len(codes))
    take = np.floor(exact).astype(np.intp)
    largest = np.argsort(-(exact - take), kind="stable")
    take[largest[: size - take.sum()]] += 1
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(codes == code))[:n] for code, n in enumerate(take)]
    return np.sort(np.concatenate(drawn))


def _both_sides(rows: int, held_out: Rows) -> tuple[Rows, Rows]:
    """(kept, held out); ValueError where one of the two is empty."""
    kept = np.setdiff1d(np.arange(rows), held_out)
    if len(kept) == 0 or len(held_out) == 0:
        raise ValueError(f"{rows} rows are too few: one of the two parts would be empty")
    return kept, held_out


guard(globals())
