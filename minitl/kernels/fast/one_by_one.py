"""Convolution with a 1x1 window: one matrix product that reads the places where they lie.

Every place of an image is a row of C numbers, and the convolution is rows @ kernel: half of the
work of ResNet50, nine tenths of MobileNetV2's. Nothing is copied for it, not even with strides,
where every other place is a row: `gemm.py` takes rows wherever they begin. Bias, a sum with what
another branch computed, and ReLU (up to 6) are applied to each tile while it is in registers.

    y[place, f] = activation(bias[f] + added[place, f] + sum over c of x[place, c] * kernel[c, f])

The work is cut into blocks of places, or, where these are fewer than the filters, into panels of
filters: whichever is longer, so that less of the other is read twice. Within a block, some panels
stay in the second cache, and all of them pass over a tile's places before the next tile's: so y is
written, and `added` read, along its rows. Panel after panel over all places, as in `gemm.multiply`,
took 1.3 times as long for 256 channels and 1024 filters.
"""

from functools import lru_cache

import numpy as np

from minitl.kernels.fast import gemm
from minitl.kernels.machine import simd
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.memory import empty
from minitl.kernels.machine.team import share, together
from minitl.kernels.machine.threads import PARTS, cut, cut_falling
from minitl.kernels.reference import in_float64

BLOCK = 384  # places, at most; a multiple of a tile's rows
GROUP = (
    2**17
)  # bytes of panels that stay in the cache; with 2**14, or 2**18, some layers are slower


def conv2d(
    x,
    kernel,
    bias,
    geometry,
    activation=None,
    cache=None,
    recorded=False,
    precise=False,
    added=None,
):
    """`reference.conv2d` for 1x1 windows without padding; keeps the packed kernel in `cache`, and
    `added` (N, OH, OW, F) is added before the activation."""
    if precise:
        return in_float64(conv2d, x, kernel, bias, geometry, activation)
    filters = kernel.shape[3]
    panels = gemm.packed(kernel.reshape(kernel.shape[2:]), x.dtype, cache)
    shift, bounds = gemm.shift_of(bias, filters, x.dtype), gemm.bounds_of(activation, x.dtype)
    y = empty((len(x), *geometry.out_size, filters), x.dtype)
    more = y[:0] if added is None else added
    plan = _plan(y.size // filters, len(panels), filters % gemm.panel_width(x.dtype) == 0)
    end = shift, more.reshape(-1), bounds
    together(_multiply, x, geometry, plan, panels, end, y.reshape(-1), filters)
    return y


@lru_cache(1024)
def _plan(places, panels, whole):
    """How many places a job does at a time, at most; jobs (n, 4): a range of places, of panels."""
    width, step = gemm.panel_width(np.dtype(np.float32)), BLOCK
    if places < panels * width and whole:
        ranges, groups = [(0, places)], cut(panels, PARTS)
    else:
        step = min(step, gemm.round_up(max(1, -(-places // PARTS)), gemm.ROWS))
        blocks = cut_falling(-(-places // step))
        ranges = [(first * step, min(last * step, places)) for first, last in blocks]
        groups = [(0, panels)]
    jobs = [(*some, *group) for some in ranges for group in groups]
    return step, np.array(jobs, np.int64).reshape(-1, 4)


@compiled
def _multiply(x, geometry, plan, panels, end, y, columns, board):
    """All of y, flat, rows of `columns`; `end` is what comes after the products."""
    share(_multiply_rows, (x, geometry, plan, panels, end, y, columns), len(plan[1]), board)


@inner
def _multiply_rows(x, geometry, plan, kernel, end, flat, columns, job, _):
    """y for the places and panels of one job, `step` places at a time."""
    step, (first, last, a, b), (shifts, more, bounds) = plan[0], plan[1][job], end
    panels, left = kernel[a:b], a * kernel.shape[2]
    y, added, shift = flat[left:], more[left:], shifts[left:]
    (oh, ow), (sh, sw) = geometry.out_size, geometry.strides
    (_, height, width, channels), values = x.shape, x.reshape(-1)
    starts, kept = np.empty(step, np.int64), np.empty(gemm.ROWS * panels.shape[2], y.dtype)
    for start in range(first, last, step):
        count, at = min(step, last - start), start * columns
        for i in range(count):
            if sh == sw == 1:  # without the divisions, which would take a tenth of the time
                starts[i] = (start + i) * channels
                continue
            line, j = divmod(start + i, ow)
            starts[i] = ((line // oh * height + line % oh * sh) * width + j * sw) * channels
        a, out = gemm.Rows(values, starts[:count], None, 1, 0), gemm.Product(y[at:], columns, kept)
        _multiply_block(a, panels, shift, added[at:], bounds, out)


@inner
def _multiply_block(a, panels, shift, added, bounds, out):
    """A @ B + shift + added, within bounds, a group of panels after the other, tile after tile."""
    (count, depth, width), b, rows = panels.shape, panels.reshape(-1), len(a.starts)
    group = max(1, GROUP // (depth * width * b.itemsize))
    for first in range(0, count, group):
        last, r = min(first + group, count), 0
        while r + gemm.ROWS <= rows:
            places = simd.full_tile(a.starts, r)
            for p in range(first, last):
                panel = gemm.Panel(p * depth * width, depth, p * width, 0, 0)
                gemm.rows_by_panel(a, r, places, b, panel, shift, 0, added, bounds, out)
            r += gemm.ROWS
        for rest in range(r, rows, simd.SHORT_ROWS):
            places = simd.short_tile(a.starts, rest)
            for p in range(first, last):
                panel = gemm.Panel(p * depth * width, depth, p * width, 0, 0)
                gemm.rows_by_panel(a, rest, places, b, panel, shift, 0, added, bounds, out)
