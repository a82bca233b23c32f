"""How sure is a figure? Intervals for accuracy, log loss, calibration, by rows that were held out.

`figures` takes the labels (N,) and the probabilities that each row got while it was held out:
(N, m) of one split, or (R, N, m) of R repetitions of cross-validation (`transfer/choosing.py`). A
figure is a dict of `value`, `low` and `high`, the ends of an interval that covers the truth in
about 95 of 100 draws of the pictures. Repeating the folds makes the value steadier, but no new
pictures: the interval is that of N rows, not of R N, and a little wider, for the heads of the folds
have learned from one another's rows. Rows of one group (one person, one day) tell less than as many
single ones: then the spread between the groups decides.
"""

import math
from typing import Any

import numpy as np

from minitl.judging.evaluation import calibration_error, check_labels, reliability_bins
from minitl.models.arguments import guard

Figure = dict[str, float]
Z = 1.959963984540054  # of a normal distribution, 95 of 100 lie within so many standard deviations
# The variance of cross-validated accuracies over that of N independent rows: 0.9 to 1.27 in draws
# of 60 to 400 rows from normal distributions, in 10 to 100 columns (Bengio & Grandvalet 2004: it
# cannot be estimated from the rows themselves).
SHARED = 1.2


def wilson(rate: float, n: float, z: float = Z) -> tuple[float, float]:
    """The interval of a rate that was found in n trials (Wilson 1927); n may be a fraction.

        (rate + z^2 / 2n  +-  z sqrt(rate (1 - rate) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    >>> [round(end, 3) for end in wilson(1.0, 20)]
    [0.839, 1.0]
    """
    if not n > 0 or not 0 <= rate <= 1:
        raise ValueError(f"a rate is from 0 to 1, of more than 0 trials; got {rate} of {n}")
    middle = rate + z * z / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return (0.0 if rate == 0 else max(low, 0.0)), (1.0 if rate == 1 else min(high, 1.0))


def figures(y: Any, p: Any, groups: Any = None, seed: int = 0) -> dict[str, Figure]:
    """{'accuracy', 'log_loss', 'calibration_error': each a dict of value, low, high}.

    y (N,) labels from 0; p (N, m), or (R, N, m) of R repetitions; groups (N,). The interval of the
    accuracy is Wilson's, that of the log loss is normal, the calibration error's are percentiles of
    400 draws of the rows, or groups, with replacement (Efron 1979); `seed` says which.
    """
    p = np.asarray(p, float)
    folds = p.ndim == 3
    p = p if folds else p[np.newaxis]
    y = check_labels(y, p.shape[1], p.shape[2])
    codes = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
    right = (p.argmax(axis=2) == y).mean(axis=0)  # (N,), over the repetitions
    loss = -np.log(np.maximum(p[:, np.arange(len(y)), y], 1e-15)).mean(axis=0)
    accuracy, of_loss = float(right.mean()), float(loss.mean())
    count, more = int(codes.max()) + 1, SHARED if folds else 1.0
    z = Z if groups is None else _student(count - 1)
    low, high = wilson(accuracy, _trials(right, codes) / more, z)
    half = z * _standard_error(loss, codes) * math.sqrt(more)
    return {
        "accuracy": {"value": accuracy, "low": low, "high": high},
        "log_loss": {"value": of_loss, "low": max(of_loss - half, 0.0), "high": of_loss + half},
        "calibration_error": _calibration(y, p, codes, seed),
    }


def _student(freedom: int) -> float:
    """What Z is where the variance was estimated from freedom + 1 groups."""
    from scipy.special import stdtrit

    return float(stdtrit(max(freedom, 1), 0.975))


def _standard_error(values: np.ndarray, codes: np.ndarray) -> float:
    """Of the mean of values (N,), of which those with one code depend on one another."""
    sums = np.bincount(codes, values - values.mean())
    count = len(sums)
    return float(np.sqrt((sums**2).sum() * count / max(count - 1, 1)) / len(values))


def _trials(right: np.ndarray, codes: np.ndarray) -> float:
    """How many independent rows would tell as much: N, or fewer where groups differ."""
    rate, n, count = right.mean(), len(right), int(codes.max()) + 1
    if count == n:
        return n
    if not 0 < rate < 1:
        return count
    return float(np.clip(rate * (1 - rate) / _standard_error(right, codes) ** 2, 1, n))


def _calibration(y: np.ndarray, p: np.ndarray, codes: np.ndarray, seed: int) -> Figure:
    """The expected calibration error, and between what ends drawing anew leaves it."""
    value = float(np.mean([calibration_error(reliability_bins(y, each)) for each in p]))
    rng, count = np.random.default_rng(seed), codes.max() + 1
    draws = rng.multinomial(count, np.full(count, 1 / count), 400)[:, codes]  # (400, N) how often
    found = []
    for each in p:
        sure = each.max(axis=1)
        place = np.clip(np.ceil(sure * 10).astype(int) - 1, 0, 9)
        gap = np.zeros((len(y), 10))
        gap[np.arange(len(y)), place] = (each.argmax(axis=1) == y) - sure
        found.append(np.abs(draws @ gap).sum(axis=1) / draws.sum(axis=1))
    low, high = np.percentile(np.mean(found, axis=0), [2.5, 97.5])
    # Drawing anew adds noise of its own to every bin: the interval is moved back by what it adds.
    moved = np.mean(found) - value
    return {"value": value, "low": max(float(low - moved), 0.0), "high": float(high - moved)}


guard(globals())
