"""ReLU that ends at 6, and swish: one pass over memory, as in `pointwise.py`.

What swish costs is its exponential. With vectors, in float32, it is a polynomial on
|r| <= ln(2) / 2 times a power of two: exp(z) = 2^n exp(r), z = n ln(2) + r (Cody & Waite 1980).
Measured against float64, swish is right to 3 units in the last place (NumPy in float32: the same).
"""

import numpy as np

from minitl.kernels import activations as formulas
from minitl.kernels import twin
from minitl.kernels.fast.pointwise import where_within
from minitl.kernels.geometry import Array
from minitl.kernels.machine import simd
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.memory import empty
from minitl.kernels.machine.team import share, together
from minitl.kernels.machine.threads import cut_rows, over_rows

COST = 4  # numbers of a plain pass that take as long as one exponential
# Below, exp(-x) is infinity, and sigmoid 0; and the least exponent that counts.
LOWEST, LEAST = np.array([-88.8], np.float32), np.array([-87.0], np.float32)
# exp(r) = 1 + r + r^2 (C0 + C1 r + ...): the least relative error on |r| <= ln(2) / 2, 3e-9.
C0, C1, C2, C3, C4 = 0.49999994, 0.16666521, 0.041668393, 0.0083687464, 0.0013814531
LN2, LN2_REST = 0.693359375, -2.12194440e-4  # their sum is ln(2), the first has few digits


@twin
def relu6(x, out=None):
    y = empty(x.shape, x.dtype) if out is None else out
    source, target = x.reshape(-1), y.reshape(-1)
    over_rows(lambda a, b: np.clip(source[a:b], 0, 6, out=target[a:b]), x.size)
    return y


@twin
def relu6_gradient(g, y):
    return where_within(g, y, np.nextafter(y.dtype.type(6), 0))


@twin
def silu(x, out=None):
    if not vectors(x):
        return formulas.silu.formula(x)  # type: ignore[attr-defined]
    step = simd.VECTOR_BYTES // 4
    whole = x.size % step == 0  # else the last vector computes some numbers twice
    y = empty(x.shape, x.dtype) if out is None or not whole else out
    ranges = np.array(cut_rows(-(-x.size // step), step * COST), np.int64)
    together(_silu_all, x.reshape(-1), y.reshape(-1), ranges)
    return y


@twin
def silu_gradient(g, x):
    if not vectors(x):
        return formulas.silu_gradient.formula(g, x)  # type: ignore[attr-defined]
    dx = empty(x.shape, x.dtype)
    arrays = g.reshape(-1), x.reshape(-1), dx.reshape(-1)
    over_rows(lambda *part: _silu_gradient(*arrays, *part), x.size, COST)
    return dx


def vectors(x: Array) -> bool:
    """Whether there is a vector of float32 in it at all."""
    return x.dtype == np.float32 and x.size >= simd.VECTOR_BYTES // 4


@simd.inlined
def sigmoid(x):
    """1 / (1 + exp(-x)) of a vector of float32; NaN stays NaN."""
    z = simd.maximum(0.0 - simd.maximum(x, simd.broadcast(LOWEST, 0)), simd.broadcast(LEAST, 0))
    shifted = z * 1.4426950408889634 + simd.ROUNDER
    n = shifted - simd.ROUNDER
    r = (z - n * LN2) - n * LN2_REST
    p = (((C4 * r + C3) * r + C2) * r + C1) * r + C0
    return 1.0 / ((p * r * r + r + 1.0) * simd.power_of_two(shifted) + 1.0)


@compiled
def _silu_all(x, y, ranges, board):
    share(_silu, (x, y, ranges), len(ranges), board)


@inner
def _silu(x, y, ranges, job, _):
    step, (first, last) = simd.lanes(x), ranges[job]
    for i in range(first * step, min(last * step, len(x)), step):
        # The last vector begins earlier, and computes some numbers of the one before once more.
        at = min(i, len(x) - step)
        value = simd.load(x, at)
        simd.store(y, at, value * sigmoid(value))


@compiled
def _silu_gradient(g, x, dx, first, last):
    step = simd.lanes(x)
    for i in range(first, last, step):
        at = min(i, len(x) - step)
        value = simd.load(x, at)
        s = sigmoid(value)
        simd.store(dx, at, simd.load(g, at) * (s + value * s * (1.0 - s)))
