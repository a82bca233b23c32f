"""Intervals of figures: how often they cover a rate that is known."""

import numpy as np
import pytest

from minitl.judging.intervals import figures, wilson
from minitl.transfer.choosing import out_of_fold, solve_chosen


def normal(rng, n, separation, columns=20):
    """Two classes, normal around two centres."""
    y = np.arange(n) % 2
    f = rng.normal(size=(n, columns)).astype(np.float32)
    f[:, 0] += separation * (y - 0.5)
    return f, y


def covered(intervals, rate):
    return np.mean([low <= rate <= high for low, high in intervals])


@pytest.mark.parametrize(("n", "rate"), [(40, 0.83), (200, 0.83), (200, 0.95), (1000, 0.6)])
def test_the_interval_of_a_split_covers_a_known_rate(n, rate):
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        y = rng.integers(0, 3, n)
        right = rng.random(n) < rate
        p = np.eye(3)[np.where(right, y, (y + 1) % 3)] * 0.7 + 0.1
        accuracy = figures(y, p)["accuracy"]
        assert accuracy["value"] == right.mean()
        found.append((accuracy["low"], accuracy["high"]))
    assert 0.92 <= covered(found, rate) <= 0.98


@pytest.mark.parametrize(("n", "separation"), [(80, 1.5), (200, 2.5)])
def test_the_interval_of_repeated_folds_covers_a_known_rate(n, separation):
    rng, found, rates = np.random.default_rng(1), [], []
    many = normal(rng, 8000, separation)
    for i in range(200):
        f, y = normal(rng, n, separation)
        rates.append((solve_chosen(f, y, 30.0).predict(many[0]).argmax(1) == many[1]).mean())
        accuracy = figures(y, out_of_fold(f, y, 30.0, repeats=2, seed=i))["accuracy"]
        found.append((accuracy["low"], accuracy["high"]))
    assert 0.92 <= covered(found, np.mean(rates)) <= 0.98


def test_repeating_the_folds_narrows_no_interval():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 100)
    p = rng.dirichlet([2, 1], 100)
    once, often = figures(y, p[None])["accuracy"], figures(y, np.stack([p] * 9))["accuracy"]
    assert once == often
    assert figures(y, p)["accuracy"]["low"] > once["low"]


def test_rows_of_one_group_count_as_few():
    rng = np.random.default_rng(0)
    y, groups = np.zeros(400, int), np.repeat(np.arange(40), 10)
    right = np.repeat(rng.random(40) < 0.8, 10)
    p = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    alone, grouped = (figures(y, p, g)["accuracy"] for g in (None, groups))
    low, high = wilson(right.mean(), 40)
    assert alone["high"] - alone["low"] < 0.4 * (grouped["high"] - grouped["low"])
    assert grouped["high"] - grouped["low"] == pytest.approx(high - low, rel=0.1)


def test_calibration_and_log_loss():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 2000)
    y = (rng.random(2000) > sure).astype(int)  # calibrated
    found = figures(y, np.stack([sure, 1 - sure], axis=1))
    assert found["calibration_error"]["low"] < 0.02
    expected = -np.log(np.where(y == 0, sure, 1 - sure)).mean()
    assert found["log_loss"]["value"] == pytest.approx(expected)
    assert found["log_loss"]["low"] < expected < found["log_loss"]["high"]
    too_sure = figures(y, np.stack([0.5 + 0 * sure + 0.49, 0.01 + 0 * sure], axis=1))
    assert too_sure["calibration_error"]["low"] > 0.15


def test_a_rate_of_no_trials_is_refused():
    with pytest.raises(ValueError, match="of more than 0 trials"):
        wilson(0.5, 0)
