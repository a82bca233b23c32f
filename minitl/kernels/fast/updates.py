"""Optimizer steps, and the look at gradients before them, in one pass over memory each.

Written in NumPy, Adam walks through the memory some fifteen times; here each number is loaded once.
The arrays are changed IN PLACE and shared out over the cores in consecutive pieces.
"""

import numpy as np

from minitl.kernels import twin
from minitl.kernels.geometry import Array
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.team import alone, share, together
from minitl.kernels.machine.threads import FEWEST_NUMBERS, cut_rows, over_rows


@twin
def sgd_update(w, g, velocity, rate, momentum=0.0, nesterov=False):
    if velocity is None:
        _in_pieces(_sgd, (w, g), float(rate))
    else:
        _in_pieces(_momentum, (w, g, velocity), float(rate), float(momentum), bool(nesterov))


@twin
def adam_update(w, g, m, v, rate, beta_1, beta_2, epsilon):
    flat = _flat(w, g, m, v)
    numbers = float(rate), 1.0 - beta_1, 1.0 - beta_2, float(epsilon)
    ranges = np.array(cut_rows(w.size, 1), np.int64)
    (together if len(ranges) > 1 else alone)(_adam, flat, numbers, ranges)


@twin
def all_finite(a):
    flat, found = np.ascontiguousarray(a).reshape(-1), []
    if flat.size < 2 * FEWEST_NUMBERS:
        return _finite(flat)
    over_rows(lambda first, last: found.append(_finite(flat[first:last])), flat.size)
    return all(found)


def _in_pieces(step, arrays: tuple[Array, ...], *numbers: float) -> None:
    """Share out step(*pieces, *numbers), the pieces being parts of equally large arrays."""
    flat = _flat(*arrays)
    if flat[0].size < 2 * FEWEST_NUMBERS:
        step(*flat, *numbers)
        return
    over_rows(lambda a, b: step(*[array[a:b] for array in flat], *numbers), flat[0].size)


def _flat(*arrays: Array) -> tuple[Array, ...]:
    """Raises ValueError if one is not C-contiguous: its flat form would be a copy, and the step be
    lost."""
    if not all(array.flags.c_contiguous for array in arrays):
        raise ValueError("an update needs C-contiguous arrays: it writes into them")
    return tuple([array.reshape(-1) for array in arrays])


# The numbers arrive as float64; they are rounded to the dtype of the weights first, as NumPy does,
# or all arithmetic on float32 arrays would run in float64.


@compiled
def _sgd(w, g, rate):
    rate = w.dtype.type(rate)
    for i in range(w.size):
        w[i] -= rate * g[i]


@compiled
def _momentum(w, g, velocity, rate, momentum, nesterov):
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
    (w, g, m, v), (rate, share_1, share_2, epsilon), (first, last) = arrays, numbers, ranges[job]
    rate, epsilon = w.dtype.type(rate), w.dtype.type(epsilon)
    share_1, share_2 = w.dtype.type(share_1), w.dtype.type(share_2)
    for i in range(first, last):
        m[i] += (g[i] - m[i]) * share_1
        v[i] += (g[i] * g[i] - v[i]) * share_2
        w[i] -= rate * m[i] / (np.sqrt(v[i]) + epsilon)


@compiled
def _finite(a):
    largest, fine = np.finfo(a.dtype).max, True
    for i in range(a.size):
        fine &= abs(a[i]) <= largest  # without a way out of the loop: many numbers at a time
    return fine
