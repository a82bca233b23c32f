"""Optimizer steps, and the look at gradients before them, in one pass over memory each.

Written in NumPy, Adam walks through the memory some fifteen times; here each number is loaded once.
The arrays are changed IN PLACE and shared out over the cores in consecutive pieces.
"""

from functools import lru_cache

import numpy as np

from minitl.kernels import reference, twin
from minitl.kernels.geometry import Array
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.team import alone, share, together
from minitl.kernels.machine.threads import PARTS, cut

PIECE = 2**14  # numbers, at least, that another thread is asked for: about 5 us


@twin
def sgd_update(w, g, velocity, rate, momentum=0.0, nesterov=False):
    if velocity is None:
        _shared(_sgd, _flat(w, g), float(rate))
    else:
        numbers = float(rate), float(momentum), bool(nesterov)
        _shared(_momentum, _flat(w, g, velocity), numbers)


@twin
def adam_update(w, g, m, v, rate, beta_1, beta_2, epsilon):
    numbers = float(rate), 1.0 - beta_1, 1.0 - beta_2, float(epsilon)
    _shared(_adam, _flat(w, g, m, v), numbers)


@twin
def all_finite(a):
    if a.dtype not in (np.float32, np.float64):
        return reference.all_finite(a)
    found = np.ones(PARTS, np.bool_)
    _shared(_finite, (np.ascontiguousarray(a).reshape(-1),), found)
    return bool(found.all())


def _shared(kernel, arrays, numbers):
    """kernel(arrays, numbers, pieces of arrays that are equally large, board)."""
    ranges = _pieces(arrays[0].size)
    (together if len(ranges) > 1 else alone)(kernel, arrays, numbers, ranges)


@lru_cache(1024)
def _pieces(size):
    return np.array(cut(size, min(PARTS, max(1, size // PIECE))), np.int64).reshape(-1, 2)


def _flat(*arrays: Array) -> tuple[Array, ...]:
    """Raises ValueError if one is not C-contiguous: its flat form would be a copy, and the step be
    lost."""
    if not all(array.flags.c_contiguous for array in arrays):
        raise ValueError("an update needs C-contiguous arrays: it writes into them")
    return tuple([array.reshape(-1) for array in arrays])


# The numbers arrive as float64; they are rounded to the dtype of the weights first, as NumPy does,
# or all arithmetic on float32 arrays would run in float64. Pieces are cut out before the loop: with
# indices from `first` to `last` the compiler finds no vectors, and Adam takes 2.8 times as long.


@compiled
def _sgd(arrays, rate, ranges, board):
    share(_sgd_piece, (arrays, rate, ranges), len(ranges), board)


@inner
def _sgd_piece(arrays, rate, ranges, job, _):
    first, last = ranges[job]
    w, g = arrays[0][first:last], arrays[1][first:last]
    rate = w.dtype.type(rate)
    for i in range(w.size):
        w[i] -= rate * g[i]


@compiled
def _momentum(arrays, numbers, ranges, board):
    share(_momentum_piece, (arrays, numbers, ranges), len(ranges), board)


@inner
def _momentum_piece(arrays, numbers, ranges, job, _):
    (first, last), (rate, momentum, nesterov) = ranges[job], numbers
    w, g, velocity = arrays[0][first:last], arrays[1][first:last], arrays[2][first:last]
    rate, momentum = w.dtype.type(rate), w.dtype.type(momentum)
    for i in range(w.size):
        step = rate * g[i]
        velocity[i] = momentum * velocity[i] - step
        if nesterov:
            w[i] += momentum * velocity[i] - step
        else:
            w[i] += velocity[i]


@compiled
def _adam(arrays, numbers, ranges, board):
    share(_adam_piece, (arrays, numbers, ranges), len(ranges), board)


@inner
def _adam_piece(arrays, numbers, ranges, job, _):
    """share_1 = 1 - beta_1 and share_2 = 1 - beta_2: how much of the new goes into the means."""
    (rate, share_1, share_2, epsilon), (first, last) = numbers, ranges[job]
    w, g = arrays[0][first:last], arrays[1][first:last]
    m, v = arrays[2][first:last], arrays[3][first:last]
    rate, epsilon = w.dtype.type(rate), w.dtype.type(epsilon)
    share_1, share_2 = w.dtype.type(share_1), w.dtype.type(share_2)
    for i in range(w.size):
        m[i] += (g[i] - m[i]) * share_1
        v[i] += (g[i] * g[i] - v[i]) * share_2
        w[i] -= rate * m[i] / (np.sqrt(v[i]) + epsilon)


@compiled
def _finite(arrays, found, ranges, board):
    share(_finite_piece, (arrays, found, ranges), len(ranges), board)


@inner
def _finite_piece(arrays, found, ranges, job, _):
    first, last = ranges[job]
    a = arrays[0][first:last]
    largest, fine = np.finfo(a.dtype).max, True
    for i in range(a.size):
        fine &= abs(a[i]) <= largest  # without a way out of the loop: many numbers at a time
    found[job] = fine
