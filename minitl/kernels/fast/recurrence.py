"""LSTM and GRU along time, and back: each job is some samples, and walks all steps with them.

A step needs the one before, but no other sample. So samples are shared out, once for all steps, and
nobody waits within: the product with R runs on the tiles of `gemm.py`, onto the input's share of
the gates, and the gates' functions follow with vectors while the numbers are in the first cache.
A step's 32 samples of 128 units by NumPy took 160 us, here 30. For float32, the usual activations,
and units that fill vectors; the others go by the formulas of `ops/recurrence.py`.

tanh is a quotient of polynomials; the coefficients are those of Eigen's `generic_fast_tanh_float`.
The logistic function is (1 + tanh(x / 2)) / 2.
"""

import numpy as np

from minitl.kernels import twin
from minitl.kernels.fast import gemm
from minitl.kernels.machine import simd
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.team import share, together
from minitl.kernels.machine.threads import cut, on_one_core, thread_count

MOST = 4 * gemm.ROWS  # samples in a job
END = np.array([-7.90531, 7.90531], np.float32)  # beyond, tanh is -1 or 1


@twin
def walk_forward(walk):
    if not suits(walk):
        on_one_core(walk.forward)
        return
    run, bias = (_lstm, None) if walk.gates == 4 else (_gru, walk.bias)
    shift = gemm.shift_of(bias, walk.z.shape[2], walk.z.dtype)
    more = walk.h, walk.c, walk.parts, samples(walk.n)
    together(run, walk.z, gemm.pack(walk.kernel), shift, *more)


@twin
def walk_backward(walk, g):
    if not suits(walk):
        on_one_core(lambda: walk.backward(g))
        return
    run, dz = _lstm_back if walk.gates == 4 else _gru_back, walk.room_for_dz()
    more = walk.h, walk.c, walk.parts, dz, walk.dq, samples(walk.n)
    together(run, np.ascontiguousarray(g), gemm.pack(walk.kernel.T), *more)


def suits(walk):
    """Whether it has the precision and the width of vectors, and nothing that is unusual."""
    whole = walk.units % (simd.VECTOR_BYTES // 4) == 0
    plain = walk.z.dtype == walk.kernel.dtype == np.float32 and walk.z.flags.c_contiguous
    return walk.usual and whole and plain and walk.masks is None and walk.counting is None


def samples(n):
    """Ranges of samples, one per thread, but of no more than stay in a core's cache. Their bits do
    not depend on it."""
    tiles = -(-n // simd.SHORT_ROWS)
    parts = cut(tiles, max(thread_count(), -(-n // MOST)))
    return np.array([(a * simd.SHORT_ROWS, min(b * simd.SHORT_ROWS, n)) for a, b in parts])


@simd.inlined
def tanh(x):
    """Of a vector of float32; NaN stays NaN."""
    x = simd.within(x, simd.broadcast(END, 0), simd.broadcast(END, 1))
    z = x * x
    p = z * -2.76076847742355e-16 + 2.00018790482477e-13
    p = ((p * z + -8.60467152213735e-11) * z + 5.12229709037114e-08) * z + 1.48572235717979e-05
    p = (p * z + 6.37261928875436e-04) * z + 4.89352455891786e-03
    q = (z * 1.19825839466702e-06 + 1.18534705686654e-04) * z + 2.26843463243900e-03
    return x * p / (q * z + 4.89352518554385e-03)


@simd.inlined
def sigmoid(x):
    return 0.5 * tanh(0.5 * x) + 0.5


@inner
def _multiply(values, starts, panels, added, step, out, width):
    """out (len(starts), width) = added + rows of `values` @ panels; `added` may be `out`."""
    rows = gemm.Rows(values.reshape(-1), starts, None, 1, 0)
    gemm.multiply(rows, panels, 0, added, step, None, out, width)


@compiled
def _lstm(z, panels, shift, h, c, parts, ranges, board):
    share(_lstm_samples, (z, panels, h, c, parts, ranges), len(ranges), board)


@inner
def _lstm_samples(z, panels, h, c, parts, ranges, job, _):
    (first, last), (steps, n, width), units = ranges[job], z.shape, h.shape[2]
    starts = np.empty(last - first, np.int64)
    gates = np.empty(gemm.ROWS * width + len(starts) * width, z.dtype)  # readable up to a tile
    for t in range(steps):
        for i in range(first, last):
            starts[i - first] = (t * n + i) * units
            gates[(i - first) * width : (i - first + 1) * width] = z[t, i]
        _multiply(h, starts, panels, gates, width, gates, width)
        for i in range(len(starts)):
            row, before, kept = i * width, starts[i], 5 * starts[i]
            for j in range(0, units, simd.lanes(z)):
                to_add = sigmoid(simd.load(gates, row + j))
                to_keep = sigmoid(simd.load(gates, row + units + j))
                new = tanh(simd.load(gates, row + 2 * units + j))
                to_show = sigmoid(simd.load(gates, row + 3 * units + j))
                memory = to_keep * simd.load(c, before + j) + to_add * new
                shown = tanh(memory)
                simd.store(c, before + n * units + j, memory)
                simd.store(h, before + n * units + j, to_show * shown)
                simd.store(parts, kept + j, to_add)
                simd.store(parts, kept + units + j, to_keep)
                simd.store(parts, kept + 2 * units + j, new)
                simd.store(parts, kept + 3 * units + j, to_show)
                simd.store(parts, kept + 4 * units + j, shown)


@compiled
def _lstm_back(g, panels, h, c, parts, dz, dq, ranges, board):
    share(_lstm_samples_back, (g, panels, c, parts, dz, ranges), len(ranges), board)


@inner
def _lstm_samples_back(g, panels, c, parts, dz, ranges, job, _):
    (first, last), (steps, n, _, units) = ranges[job], dz.shape
    starts, rows = np.empty(last - first, np.int64), last - first
    dh = np.zeros((rows + gemm.ROWS) * units, g.dtype)
    dc = g[steps, first:last].copy().reshape(-1)
    for t in range(steps - 1, -1, -1):
        for i in range(rows):
            row = (t * n + first + i) * units
            kept, starts[i] = 5 * row, 4 * row
            for j in range(0, units, simd.lanes(g)):
                to_add, to_keep = simd.load(parts, kept + j), simd.load(parts, kept + units + j)
                new = simd.load(parts, kept + 2 * units + j)
                to_show = simd.load(parts, kept + 3 * units + j)
                shown = simd.load(parts, kept + 4 * units + j)
                d = simd.load(dh, i * units + j) + simd.load(g, row + j)
                m = simd.load(dc, i * units + j) + d * to_show * (1.0 - shown * shown)
                simd.store(dz, starts[i] + j, m * new * to_add * (1.0 - to_add))
                forgotten = simd.load(c, row + j) * to_keep * (1.0 - to_keep)
                simd.store(dz, starts[i] + units + j, m * forgotten)
                simd.store(dz, starts[i] + 2 * units + j, m * to_add * (1.0 - new * new))
                simd.store(dz, starts[i] + 3 * units + j, d * shown * to_show * (1.0 - to_show))
                simd.store(dc, i * units + j, m * to_keep)
        _multiply(dz, starts, panels, None, 0, dh, units)


@compiled
def _gru(z, panels, shift, h, c, parts, ranges, board):
    share(_gru_samples, (z, panels, shift, h, parts, ranges), len(ranges), board)


@inner
def _gru_samples(z, panels, shift, h, parts, ranges, job, _):
    (first, last), (steps, n, width), units = ranges[job], z.shape, h.shape[2]
    starts = np.empty(last - first, np.int64)
    q = np.empty((gemm.ROWS + len(starts)) * width, z.dtype)
    for t in range(steps):
        for i in range(len(starts)):
            starts[i] = (t * n + first + i) * units
        _multiply(h, starts, panels, shift, 0, q, width)
        for i in range(len(starts)):
            row, before = i * width, starts[i]
            given, kept = 3 * before, 4 * before
            for j in range(0, units, simd.lanes(z)):
                u = sigmoid(simd.load(z, given + j) + simd.load(q, row + j))
                r = sigmoid(simd.load(z, given + units + j) + simd.load(q, row + units + j))
                q_k = simd.load(q, row + 2 * units + j)
                new = tanh(simd.load(z, given + 2 * units + j) + r * q_k)
                old = simd.load(h, before + j)
                simd.store(h, before + n * units + j, u * old + (1.0 - u) * new)
                simd.store(parts, kept + j, u)
                simd.store(parts, kept + units + j, r)
                simd.store(parts, kept + 2 * units + j, new)
                simd.store(parts, kept + 3 * units + j, q_k)


@compiled
def _gru_back(g, panels, h, c, parts, dz, dq, ranges, board):
    share(_gru_samples_back, (g, panels, h, parts, dz, dq, ranges), len(ranges), board)


@inner
def _gru_samples_back(g, panels, h, parts, dz, dq, ranges, job, _):
    (first, last), (steps, n, _, units) = ranges[job], dz.shape
    starts, rows = np.empty(last - first, np.int64), last - first
    back, kept_dh = np.zeros((rows + gemm.ROWS) * units, g.dtype), np.zeros(rows * units, g.dtype)
    for t in range(steps - 1, -1, -1):
        for i in range(rows):
            row = (t * n + first + i) * units
            kept, starts[i] = 4 * row, 3 * row
            for j in range(0, units, simd.lanes(g)):
                u, r = simd.load(parts, kept + j), simd.load(parts, kept + units + j)
                new = simd.load(parts, kept + 2 * units + j)
                q_k = simd.load(parts, kept + 3 * units + j)
                d = simd.load(kept_dh, i * units + j) + simd.load(back, i * units + j)
                d = d + simd.load(g, row + j)
                du = d * (simd.load(h, row + j) - new) * u * (1.0 - u)
                dk = d * (1.0 - u) * (1.0 - new * new)
                dr = dk * q_k * r * (1.0 - r)
                at = starts[i] + j
                simd.store(dz, at, du)
                simd.store(dz, at + units, dr)
                simd.store(dz, at + 2 * units, dk)
                simd.store(dq, at, du)
                simd.store(dq, at + units, dr)
                simd.store(dq, at + 2 * units, dk * r)
                simd.store(kept_dh, i * units + j, d * u)
        _multiply(dq, starts, panels, None, 0, back, units)
