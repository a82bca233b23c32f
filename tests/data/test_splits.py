import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitl.data.splits import (
    block_split,
    folds,
    grouped_split,
    strata,
    stratified_split,
    stratified_subset,
)

# every class at least 6 times, in any order
labelled = st.lists(st.integers(6, 30), min_size=1, max_size=5).flatmap(
    lambda counts: st.permutations([c for c, n in enumerate(counts) for _ in range(n)])
)


def assert_partition(kept, held_out, rows):
    assert np.all(np.diff(kept) > 0) and np.all(np.diff(held_out) > 0), "ascending"
    assert sorted([*kept, *held_out]) == list(range(rows))


@settings(max_examples=50)
@given(labelled, st.floats(0.1, 0.9), st.integers(0, 10**6))
def test_every_class_gives_its_share_to_the_split(labels, fraction, seed):
    labels = np.array(labels)
    kept, held_out = stratified_split(labels, fraction, seed)
    assert_partition(kept, held_out, len(labels))
    assert len(held_out) == round(fraction * len(labels))
    exact = np.bincount(labels) * len(held_out) / len(labels)
    taken = np.bincount(labels[held_out], minlength=len(exact))
    assert np.all(np.abs(taken - exact) < 1)


def test_seeds_repeat_and_differ():
    labels = np.arange(100) % 3
    first = stratified_split(labels, 0.25, 0)[1].tolist()
    assert stratified_split(labels, 0.25, 0)[1].tolist() == first
    assert stratified_split(labels, 0.25, 1)[1].tolist() != first


def test_rows_of_a_class_have_equal_chances():
    """Each of 10 rows is held out in 3 of 10 cases: 2000 seeds, five standard deviations."""
    labels = np.zeros(10, int)
    times = sum(np.bincount(stratified_split(labels, 0.3, s)[1], minlength=10) for s in range(2000))
    assert np.abs(times - 600).max() < 5 * np.sqrt(2000 * 0.3 * 0.7)


def test_a_subset_keeps_the_shares():
    labels = np.repeat(["a", "b", "c"], [60, 30, 10])
    rows = stratified_subset(labels, 20, seed=0)
    assert np.unique(labels[rows], return_counts=True)[1].tolist() == [12, 6, 2]
    assert stratified_subset(labels, 100, seed=0).tolist() == list(range(100))
    assert np.all(np.diff(rows) > 0)


def test_strata_number_the_combinations():
    label, kind = [1, 0, 1, 1, 0], ["p", "m", "m", "p", "m"]
    assert strata(label, kind).tolist() == [2, 0, 1, 2, 0]
    rows = np.random.default_rng(0).integers(0, 3, (2, 200))
    _, held = stratified_split(strata(*rows), 0.5, 0)
    for pair in np.unique(rows, axis=1).T:
        here = (rows == pair[:, np.newaxis]).all(axis=0)
        assert abs(here[held].sum() - here.sum() / 2) < 1


def test_a_group_is_on_one_side():
    rng = np.random.default_rng(0)
    for seed in range(30):
        groups = rng.integers(0, 12, 200)
        kept, held_out = grouped_split(groups, 0.25, seed)
        assert_partition(kept, held_out, 200)
        assert not set(groups[kept]) & set(groups[held_out])
        largest = np.bincount(groups).max()
        assert abs(len(held_out) - 50) <= largest / 2


def test_one_huge_group_still_leaves_both_sides():
    groups = [0] * 98 + [1, 2]
    for seed in range(10):
        for fraction in (0.01, 0.99):
            kept, held_out = grouped_split(groups, fraction, seed)
            assert len(kept) and len(held_out)


def test_blocks_of_neighbours_stay_together():
    kept, held_out = block_split(2624, 60, 0.25, seed=1)
    assert_partition(kept, held_out, 2624)
    assert not set(kept // 60) & set(held_out // 60)
    assert abs(len(held_out) - 656) <= 30


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stratified_split([0, 0, 1, 1], 0, 0), "fraction must be between 0 and 1, got 0"),
        (lambda: stratified_split([0, 0, 0, 1], 0.5, 0), r"at least 2 rows .* too few of \['1'\]"),
        (lambda: stratified_split([0, 0], 0.1, 0), "2 rows are too few: one of the two parts"),
        (lambda: stratified_split([[0, 1]], 0.5, 0), r"one label a row, .*strata\(first, second\)"),
        (lambda: stratified_split([], 0.5, 0), "one label a row"),
        (lambda: stratified_subset([0, 1], 3, 0), "size must be from 1 to 2 .*, got 3"),
        (lambda: grouped_split([4, 4], 0.5, 0), "at least 2 groups, found 1"),
        (lambda: block_split(100, 0, 0.5, 0), "block must be a positive integer, got 0"),
    ],
)
def test_what_cannot_be_split(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@settings(max_examples=50)
@given(labelled, st.integers(2, 5), st.integers(0, 10**6))
def test_folds_share_out_every_class(labels, count, seed):
    labels = np.array(labels)
    held_out = folds(labels, count, seed)
    assert held_out.shape == labels.shape and set(held_out) == set(range(count))
    sizes = np.bincount(held_out)
    assert sizes.max() - sizes.min() <= 1
    for c in set(labels):
        of_class = np.bincount(held_out[labels == c], minlength=count)
        assert of_class.max() - of_class.min() <= 1
    assert folds(labels, count, seed).tolist() == held_out.tolist()


def test_folds_of_groups_keep_them_whole_and_the_classes_even():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(30), rng.integers(2, 9, 30))
    labels = rng.integers(0, 3, 30)[groups]
    held_out = folds(labels, 5, 0, groups)
    assert all(len(set(held_out[groups == g])) == 1 for g in range(30))
    for c in range(3):
        of_class = np.bincount(held_out[labels == c], minlength=5)
        assert of_class.min() > 0 and of_class.max() < 0.45 * of_class.sum()
    with pytest.raises(ValueError, match="as many groups: there are 2"):
        folds(labels[:9] * 0, 5, 0, np.arange(9) > 4)
