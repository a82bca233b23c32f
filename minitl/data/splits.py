"""Dividing rows into a part to learn from and a part held out to judge by.

All functions return row numbers, in ascending order, and draw from `seed` alone. Stratified
means: every stratum (a class, or a class and a type: see `strata`) gives the same share.
Grouped means: a group goes whole to one side. Cells of one solar module, or photographs of one
plant, look alike: a random split puts their like on both sides and flatters the result. Report
both kinds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Rows = np.ndarray


def strata(*columns: Any) -> np.ndarray:
    """Number the combinations of several labels: columns (N,), ... -> (N,) integers.

    >>> strata([0, 0, 1, 1], ["mono", "poly", "poly", "poly"]).tolist()
    [0, 1, 2, 2]
    """
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
    codes, names = _codes(labels)
    _check_fraction(fraction)
    held_out = _draw(codes, names, round(fraction * len(codes)), seed, at_least=2)
    return _both_sides(len(codes), held_out)


def stratified_subset(labels: Any, size: int, seed: Any) -> Rows:
    """Choose `size` rows, from every stratum of `labels` (N,) its share.

    Raises ValueError when there are fewer than `size` rows, or `size` is not positive.
    """
    codes, names = _codes(labels)
    if not 0 < size <= len(codes):
        raise ValueError(f"size must be from 1 to {len(codes)} (the rows there are), got {size}")
    return _draw(codes, names, size, seed, at_least=1)


def repeated_stratified_splits(
    labels: Any, fraction: float, repeats: int, seed: int
) -> Iterator[tuple[Rows, Rows]]:
    """`repeats` independent `stratified_split`s, for a mean and a spread."""
    for child in np.random.SeedSequence(seed).spawn(repeats):
        yield stratified_split(labels, fraction, child)


def stratified_folds(labels: Any, folds: int, seed: Any) -> list[tuple[Rows, Rows]]:
    """`folds` pairs (kept, held out); every row is held out exactly once.

    The sizes of the folds differ by at most one, and so does each stratum's share in them: the
    rows of one stratum after the other are dealt out like cards.

    Raises ValueError for fewer than 2 folds and for a stratum with fewer rows than folds.
    """
    codes, names = _codes(labels)
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    _check_members(codes, names, folds, f"{folds} folds")
    shuffled = np.random.default_rng(seed).permutation(len(codes))
    by_stratum = shuffled[np.argsort(codes[shuffled], kind="stable")]
    return [_both_sides(len(codes), np.sort(by_stratum[k::folds])) for k in range(folds)]


def random_folds(rows: int, folds: int, seed: Any) -> list[tuple[Rows, Rows]]:
    """`stratified_folds` of `rows` rows without labels: plain k-fold."""
    return stratified_folds(np.zeros(rows, np.intp), folds, seed)


def repeated_stratified_folds(
    labels: Any, folds: int, repeats: int, seed: int
) -> Iterator[tuple[Rows, Rows]]:
    """`repeats` times `stratified_folds`, each dealt out anew: folds * repeats pairs."""
    for child in np.random.SeedSequence(seed).spawn(repeats):
        yield from stratified_folds(labels, folds, child)


def grouped_split(groups: Any, fraction: float, seed: Any) -> tuple[Rows, Rows]:
    """Split into (kept, held out) so that no group of `groups` (N,) is on both sides.

    Groups are held out in random order until the number of rows is as near to fraction N as it
    gets; at least one group stays on either side.

    Raises ValueError for fewer than 2 groups and when `fraction` is not between 0 and 1.
    """
    codes, names = _codes(groups)
    _check_fraction(fraction)
    if len(names) < 2:
        raise ValueError("a grouped split needs at least 2 groups, found 1")
    order = np.random.default_rng(seed).permutation(len(names))
    rows_so_far = np.cumsum(np.bincount(codes)[order])[:-1]
    chosen = order[: np.argmin(np.abs(rows_so_far - fraction * len(codes))) + 1]
    return _both_sides(len(codes), np.flatnonzero(np.isin(codes, chosen)))


def grouped_folds(groups: Any, folds: int, seed: Any) -> list[tuple[Rows, Rows]]:
    """`folds` pairs (kept, held out); every group of `groups` (N,) is held out whole, once.

    Groups go, the largest first and equals in random order, to the fold with the fewest rows so
    far. With as many folds as groups each is held out alone.

    Raises ValueError for fewer than 2 folds and for fewer groups than folds.
    """
    codes, names = _codes(groups)
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    if len(names) < folds:
        raise ValueError(f"{folds} folds need at least {folds} groups, found {len(names)}")
    sizes = np.bincount(codes)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    fold_of, rows_in = np.empty(len(names), np.intp), np.zeros(folds, np.intp)
    for group in order:
        fold_of[group] = rows_in.argmin()
        rows_in[fold_of[group]] += sizes[group]
    place = fold_of[codes]
    return [_both_sides(len(codes), np.flatnonzero(place == k)) for k in range(folds)]


def block_split(rows: int, block: int, fraction: float, seed: Any) -> tuple[Rows, Rows]:
    """`grouped_split` with blocks of `block` neighbouring rows as the groups."""
    if block < 1:
        raise ValueError(f"block must be at least 1 row, got {block}")
    return grouped_split(np.arange(rows) // block, fraction, seed)


def _codes(labels: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) of any kind as integers 0..m-1, and the m names."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) == 0:
        raise ValueError(
            f"expected one label a row, (N,), got shape {labels.shape}; for several labels a "
            "row use strata(first, second)"
        )
    names, codes = np.unique(labels, return_inverse=True)
    return codes, names


def _draw(codes: np.ndarray, names: np.ndarray, size: int, seed: Any, at_least: int) -> Rows:
    """`size` random rows, every stratum with its share: floors first, then largest remainders."""
    _check_members(codes, names, at_least, "a split")
    counts = np.bincount(codes)
    exact = counts * (size / len(codes))
    take = np.floor(exact).astype(np.intp)
    largest = np.argsort(-(exact - take), kind="stable")
    take[largest[: size - take.sum()]] += 1
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(codes == code))[:n] for code, n in enumerate(take)]
    return np.sort(np.concatenate(drawn))


def _both_sides(rows: int, held_out: Rows) -> tuple[Rows, Rows]:
    kept = np.setdiff1d(np.arange(rows), held_out)
    if len(kept) == 0 or len(held_out) == 0:
        raise ValueError(f"{rows} rows are too few: one of the two parts would be empty")
    return kept, held_out


def _check_members(codes: np.ndarray, names: np.ndarray, least: int, purpose: str) -> None:
    few = [str(names[code]) for code in np.flatnonzero(np.bincount(codes) < least)]
    if few:
        raise ValueError(f"{purpose} needs at least {least} rows of every label; too few of {few}")


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must be between 0 and 1, got {fraction}")
