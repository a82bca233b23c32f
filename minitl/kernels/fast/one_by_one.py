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
took 1.3 times as long for 256 channels and 1024 filters. Large maps come from memory: the rows of
the next tile are sent for while the first panel passes over this one (256 -> 64 channels at 56x56,
8 images: 19 per cent less).

The first cache finds a line by the last 12 bits of its address. Rows that begin a multiple of 4096
bytes apart, as with 1024 channels, would all want the same 8 places in it, and a tile reads 12 rows
side by side: such rows are copied, block by block, to where they lie apart (a fifth less).
"""

from functools import lru_cache

import numpy as np

from minitl.kernels.fast import gemm
from minitl.kernels.machine import simd
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.memory import empty, scratch_arrays
from minitl.kernels.machine.team import share, together
from minitl.kernels.machine.threads import PARTS, cut, cut_falling, thread_count
from minitl.kernels.reference import in_float64

BLOCK = 384  # places, at most; a multiple of a tile's rows
GROUP = 2**18  # bytes of panels that stay in the second cache; with 2**14 some layers are slower
CROWDED = 4096  # bytes from row to row, or a multiple: their numbers get into each other's way
HELD = 2**19  # bytes of such rows that are copied at a time, each
GAP = 16  # numbers farther apart than they are long
PARTIAL = 256  # products in a partial sum; with 64, which Winograd needs, 3 per cent slower
LARGE = 2**22  # bytes of maps from which on they are sent for


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
    channels, filters = kernel.shape[2:]
    panels = gemm.packed(kernel.reshape(kernel.shape[2:]), x.dtype, cache)
    shift, bounds = gemm.shift_of(bias, filters, x.dtype), gemm.bounds_of(activation, x.dtype)
    y = empty((len(x), *geometry.out_size, filters), x.dtype)
    more = y[:0] if added is None else added
    length, width = channels * x.itemsize, gemm.panel_width(x.dtype)
    crowded = length * geometry.strides[1] % CROWDED == 0 and channels % width == 0
    step = max(1, HELD // length // gemm.ROWS) * gemm.ROWS if crowded else BLOCK
    plan = _plan(y.size // filters, len(panels), filters % width == 0, min(step, BLOCK))
    threads = thread_count() if crowded else 0
    (held,) = scratch_arrays(x.dtype, (threads, plan[0] * (channels + GAP)))
    by_rows = x.nbytes >= LARGE and geometry.strides == (1, 1) and not crowded
    soon, pace = (x.reshape(-1), gemm.ROWS) if by_rows else (panels.reshape(-1), 0)
    end = shift, more.reshape(-1), bounds, soon, pace
    together(_multiply, x, geometry, plan, panels, end, y.reshape(-1), filters, held)
    return y


@lru_cache(1024)
def _plan(places, panels, whole, step):
    """How many places a job does at a time; jobs (n, 4): a range of places, of panels."""
    width = gemm.panel_width(np.dtype(np.float32))
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
def _multiply(x, geometry, plan, panels, end, y, columns, held, board):
    """All of y, flat, rows of `columns`; `end` is what comes after the products,
    and what is sent for meanwhile: the next places, or the next panels."""
    given = x, geometry, plan, panels, end, y, columns, held
    share(_multiply_rows, given, len(plan[1]), board)


@inner
def _multiply_rows(x, geometry, plan, kernel, end, flat, columns, held, job, who):
    """y for the places and panels of one job, `step` places at a time."""
    step, (first, last, a, b), (shifts, more, bounds, soon, pace) = plan[0], plan[1][job], end
    panels, left = kernel[a:b], a * kernel.shape[2]
    y, added, shift = flat[left:], more[left:], shifts[left:]
    (oh, ow), (sh, sw) = geometry.out_size, geometry.strides
    (_, height, width, channels), values = x.shape, x.reshape(-1)
    starts, kept = np.empty(step, np.int64), np.empty(gemm.ROWS * panels.shape[2], y.dtype)
    sent = soon, a * kernel[0].size, pace
    for start in range(first, last, step):
        count, at = min(step, last - start), start * columns
        for i in range(count):
            if sh == sw == 1:  # without the divisions, which would take a tenth of the time
                starts[i] = (start + i) * channels
                continue
            line, j = divmod(start + i, ow)
            starts[i] = ((line // oh * height + line % oh * sh) * width + j * sw) * channels
        out = gemm.Product(y[at:], columns, kept, PARTIAL)
        if len(held) == 0:
            rows = gemm.Rows(values, starts[:count], None, 1, 0)
            _multiply_block(rows, panels, shift, added[at:], bounds, out, sent)
            continue
        for i in range(count):
            for k in range(0, channels, simd.lanes(x)):
                simd.store(held[who], i * (channels + GAP) + k, simd.load(values, starts[i] + k))
            starts[i] = i * (channels + GAP)
        rows = gemm.Rows(held[who], starts[:count], None, 1, 0)
        _multiply_block(rows, panels, shift, added[at:], bounds, out, sent)


@inner
def _multiply_block(a, panels, shift, added, bounds, out, sent):
    """A @ B + shift + added, within bounds, a group of panels after the other, tile after tile.

    `sent` are numbers that are sent for meanwhile, where these panels begin among them, and a pace:
    so many at each step of the first panel, of the next tile's rows; or 0: of the next group.
    """
    (count, depth, width), b, rows = panels.shape, panels.reshape(-1), len(a.starts)
    (soon, here, by_rows), group = sent, max(1, GROUP // (depth * width * b.itemsize))
    tiles = rows // gemm.ROWS + -(-(rows % gemm.ROWS) // simd.SHORT_ROWS)
    evenly = min(simd.lanes(b), -(-width // max(1, tiles)))
    for first in range(0, count, group):
        last, r = min(first + group, count), 0
        ahead = here + last * depth * width
        while r + gemm.ROWS <= rows:
            places = simd.full_tile(a.starts, r)
            for p in range(first, last):
                pace = evenly if last < count else 0
                if by_rows > 0:
                    ahead, pace = a.starts[min(r + gemm.ROWS, rows - 1)], by_rows if p == 0 else 0
                panel = gemm.Panel(p * depth * width, depth, p * width, soon, ahead, pace)
                gemm.rows_by_panel(a, r, places, b, panel, shift, 0, added, bounds, out)
                ahead += depth * pace
            r += gemm.ROWS
        for rest in range(r, rows, simd.SHORT_ROWS):
            places = simd.short_tile(a.starts, rest)
            for p in range(first, last):
                pace = evenly if last < count and by_rows == 0 else 0
                panel = gemm.Panel(p * depth * width, depth, p * width, soon, ahead, pace)
                gemm.rows_by_panel(a, rest, places, b, panel, shift, 0, added, bounds, out)
                ahead += depth * pace
