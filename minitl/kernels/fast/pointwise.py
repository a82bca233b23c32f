"""Bias and ReLU: one pass over memory each.

What counts is how often the arrays travel through the memory: the loops below are fused where
NumPy would write an intermediate result. Passes are shared out over the cores by rows; sums run in
float64, in a number of parts that depends on the shape only, which are added in order.
"""

from collections.abc import Callable

import numpy as np

from minitl.kernels import twin
from minitl.kernels.geometry import Array
from minitl.kernels.machine.compiling import compiled
from minitl.kernels.machine.memory import empty
from minitl.kernels.machine.threads import Range, added_up, cut_rows, over_rows, share_out


def add_bias(
    y: Array, bias: Array | None, activation: str | None, rows: Range, columns: Range
) -> None:
    """Bias and activation, IN PLACE, on a piece of y (rows, F), while it is in a thread's cache."""
    if bias is not None:
        _add_bias(y, bias, activation == "relu", *rows, *columns)
    elif activation == "relu":
        piece = y[slice(*rows), slice(*columns)]
        np.maximum(piece, 0, out=piece)


@compiled
def _add_bias(y, bias, relu, first, last, left, right):
    zero = y.dtype.type(0)
    shift = bias[left:right]
    for row in range(first, last):
        piece = y[row, left:right]
        for f in range(right - left):
            value = piece[f] + shift[f]
            piece[f] = zero if relu and value < zero else value  # this way round, NaN stays NaN


def add_onto(y: Array, added: Array, activation: str | None) -> None:
    """y += added, then the activation, IN PLACE."""
    target, other, relu = y.reshape(-1), added.reshape(-1), activation == "relu"
    over_rows(lambda *part: _add_onto(target, other, relu, *part), y.size)


@compiled
def _add_onto(y, added, relu, first, last):
    zero = y.dtype.type(0)
    for i in range(first, last):
        value = y[i] + added[i]
        y[i] = zero if relu and value < zero else value


@twin
def bias_gradient(g):
    (total,) = channel_sums(g.reshape(-1, g.shape[-1]), 1, add_rows)
    return total.astype(g.dtype)


@compiled
def add_rows(g, first, last, sums):
    """sums[0, c] += g[first:last, c]: what `channel_sums` needs for plain sums."""
    for row in range(first, last):
        for c in range(g.shape[1]):
            sums[0, c] += g[row, c]


def channel_sums(rows: Array, count: int, add: Callable[..., None], *others: Array) -> Array:
    """`count` sums for each channel over the rows of an array (rows, C), in float64: (count, C).

    add(rows, *others, first, last, sums) adds what rows first:last contribute to sums (count, C).
    """
    ranges = cut_rows(*rows.shape)
    if len(ranges) == 1:
        add(rows, *others, 0, len(rows), sums := np.zeros((count, rows.shape[1])))
        return sums
    sums = np.zeros((len(ranges), count, rows.shape[1]))
    share_out(lambda i: add(rows, *others, *ranges[i], sums[i]), len(ranges))
    return added_up(sums)


@twin
def relu(x):
    y = empty(x.shape, x.dtype)
    source, target = x.reshape(-1), y.reshape(-1)
    over_rows(lambda a, b: np.maximum(source[a:b], 0, out=target[a:b]), x.size)
    return y


@twin
def relu_gradient(g, y):
    return where_within(g, y, np.inf)


def where_within(g: Array, y: Array, top: float) -> Array:
    """g where 0 < y <= top, and 0 elsewhere."""
    dx = empty(g.shape, g.dtype)
    arrays = g.reshape(-1), y.reshape(-1), dx.reshape(-1)
    over_rows(lambda *part: _where_within(*arrays, g.dtype.type(top), *part), g.size)
    return dx


@compiled
def _where_within(g, y, dx, top, first, last):
    zero = g.dtype.type(0)
    for i in range(first, last):
        value = g[i]  # read in any case: a loop without branches runs on vector instructions
        value = value if y[i] > zero else zero
        dx[i] = value if y[i] <= top else zero


@twin
def bias_relu_gradient(g, y):
    dz = empty(g.shape, g.dtype)  # summed as it is written, not read once more for it
    rows_y, rows_dz = y.reshape(-1, y.shape[-1]), dz.reshape(-1, dz.shape[-1])
    (total,) = channel_sums(g.reshape(rows_y.shape), 1, _relu_and_add_rows, rows_y, rows_dz)
    return dz, total.astype(g.dtype)


@compiled
def _relu_and_add_rows(g, y, dz, first, last, sums):
    zero = g.dtype.type(0)
    for row in range(first, last):
        for c in range(g.shape[1]):
            value = g[row, c]
            value = value if y[row, c] > zero else zero
            dz[row, c] = value
            sums[0, c] += value
