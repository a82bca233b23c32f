"""Softmax of a few rows: the exponentials and their sums in one pass.

NumPy takes nine calls for them, which at 32 rows of 10 classes, a step of a small head, are most
of the time. Each is rounded once and the sums are made in the same order, so the bits are those of
the formula; of many numbers NumPy's vectors are faster.
"""

import math

import numpy as np

from minitl.kernels import reference, twin
from minitl.kernels.machine.compiling import compiled

FEW = 2**12  # numbers


@twin
def softmax(x):
    if not _few(x):
        return reference.softmax(x)
    _, e, total = exponentials(np.ascontiguousarray(x).reshape(-1, x.shape[-1]))
    return (e / total).reshape(x.shape)


@twin
def softmax_cross_entropy(logits, targets):
    if not _few(logits):
        return reference.softmax_cross_entropy(logits, targets)
    shifted, e, total = exponentials(np.ascontiguousarray(logits))
    log_p = np.where(targets == 0, 0, shifted - np.log(total))
    return -(targets * log_p).sum(axis=-1), e / total


def _few(x) -> bool:
    return x.dtype == np.float32 and x.ndim > 0 and 0 < x.size <= FEW


def exponentials(x):
    """x - max, their exponentials (N, m), and the sums of these (N, 1): see `_sum_in_lanes`."""
    made = np.empty_like(x), np.empty_like(x), np.empty((len(x), 1), x.dtype)
    _exponentials(x, *made)  # which returns nothing: Ctrl-C while arrays are boxed is a SystemError
    return made


@compiled
def _exponentials(x, shifted, e, total):
    (rows, m), full, lanes = x.shape, x.shape[1] // 8 * 8, np.empty(8, x.dtype)
    for n in range(rows):
        largest = x[n, 0]
        for j in range(1, m):
            if x[n, j] > largest or x[n, j] != x[n, j]:  # NaN, which then stays
                largest = x[n, j]
        for j in range(m):
            shifted[n, j] = x[n, j] - largest
            e[n, j] = math.exp(np.float64(shifted[n, j]))
        lanes[:] = 0
        for j in range(full):
            lanes[j % 8] += e[n, j]
        for half in (4, 2, 1):
            for lane in range(half):
                lanes[lane] += lanes[lane + half]
        rest = x.dtype.type(0)
        for j in range(full, m):
            rest += e[n, j]
        total[n, 0] = rest + lanes[0]
