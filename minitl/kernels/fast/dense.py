"""Dense layers: three products with a matrix of weights that may be larger than any cache.

    y       = x @ kernel + bias      (N, D) @ (D, m)
    dx      = g @ kernel.T           (N, m) @ (m, D)
    dkernel = x.T @ g                (D, N) @ (N, m)

VGG16 with a Dense(1024) on it has D = 25,088: 103 MB of weights. A BLAS, made for square matrices,
first writes them down in another order. So few rows run on the tiles of `gemm.py`, such that the
weights pass once (`benchmarks/dense_products.py` compares: 0.5 to 0.7 of OpenBLAS's time):

    y         64 by 32 numbers of the kernel at a time are copied to where the core has them at
              hand, all rows of x pass, and meanwhile the next 64 lines are sent for
    dx        as dx.T = kernel @ g.T: tiles read the kernel where it lies
    dkernel   tiles write it a few lines at a time

Sums of y are made in pieces of 64, added in order, which halves BLAS's error at D = 25,088.
"""

import numpy as np

from minitl.kernels import rows_apart, twin
from minitl.kernels.fast import gemm
from minitl.kernels.fast.pointwise import add_bias
from minitl.kernels.geometry import Array
from minitl.kernels.machine import simd
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.memory import empty, scratch
from minitl.kernels.machine.team import share, together
from minitl.kernels.machine.threads import PARTS, added_up, cut, cut_at_most, cut_product, share_out

FEW = 6 * simd.TILE_ROWS  # rows: 72 with AVX-512, 36 with AVX2
CHUNK = 64  # lines of the kernel that a panel holds at a time
WIDE = 32  # panels in a job
DEEP = 2048  # lines of the kernel in a job, at most
ALONE = 2**18  # products, up to which OpenBLAS takes one thread of itself (interface/gemm.c)
LINES = 384  # of the kernel, or of its gradient, in a job of a gradient


@twin
def dense(x, kernel, bias, activation=None):
    few = x.dtype == kernel.dtype and suits("y", len(x), *kernel.shape)
    if rows_apart.get():
        y = row_by_row(x, kernel)
    elif narrow_suits(x, kernel):
        y = narrow(x, kernel)
    else:
        y = forward(x, kernel) if few else product(x, kernel)
    add_bias(y, bias, activation, (0, y.shape[0]), (0, y.shape[1]))
    return y


@twin
def dense_input_gradient(g, kernel):
    few = g.dtype == kernel.dtype and suits("dx", len(g), *kernel.shape)
    return input_gradient(g, kernel) if few else product(g, kernel.T)


@twin
def dense_kernel_gradient(x, g):
    if narrow_suits(x, g):
        return narrow_kernel_gradient(x, g)
    few = x.dtype == g.dtype and suits("dkernel", len(x), x.shape[1], g.shape[1])
    return kernel_gradient(x, g) if few else product(x.T, g)


def suits(which: str, rows: int, d: int, m: int) -> bool:
    """Whether this file's way is the faster one, for 'y', 'dx' or 'dkernel' of a kernel (D, m).
    Fewer weights stay in the cache in whatever order, a narrow kernel gives tiles too little to do,
    and for a single row BLAS has its own function."""
    if which == "dkernel":
        return rows <= FEW and d * m >= 2**24
    return 1 < rows <= FEW and d * m >= 2**20 and m >= (128 if which == "y" else 512)


def product(a: Array, b: Array) -> Array:
    """a (rows, depth) @ b (depth, columns) by BLAS, in tiles that do not depend on the threads."""
    (rows, depth), columns = a.shape, b.shape[1]
    c = empty((rows, columns), a.dtype)
    if rows * depth * columns <= ALONE:
        return np.matmul(a, b, out=c)
    if rows == 1 and a.dtype == b.dtype and b.flags.c_contiguous:
        return _one_row(np.ascontiguousarray(a[0]), b)
    tiles = cut_product(rows, 1, depth, columns, longest=max(1, rows))

    def tile(index: int) -> None:
        first, last, left, right = tiles[index]
        np.matmul(a[first:last], b[:, left:right], out=c[first:last, left:right])

    share_out(tile, len(tiles), multiplies=True)
    return c


def _one_row(x: Array, kernel: Array) -> Array:
    """x (D,) @ kernel (D, m), (1, m): each number of the kernel is read once, so its lines are
    shared out, and pass as they lie in memory."""
    ranges = np.array(cut(len(x), PARTS), np.int64)
    sums = empty((len(ranges), kernel.shape[1]), x.dtype)
    together(_add_lines, x, kernel, ranges, sums)
    return added_up(sums)[np.newaxis]


@compiled
def _add_lines(x, kernel, ranges, sums, board):
    share(_add_some_lines, (x, kernel, ranges, sums), len(ranges), board)


@inner
def _add_some_lines(x, kernel, ranges, sums, job, _):
    """sums[job] = x @ kernel for the lines ranges[job], four at a time."""
    (first, last), total = ranges[job], sums[job]
    total[:] = 0
    for k in range(first, last - 3, 4):
        a, b, c, d = x[k], x[k + 1], x[k + 2], x[k + 3]
        for j in range(len(total)):
            near = a * kernel[k, j] + b * kernel[k + 1, j]
            total[j] += near + (c * kernel[k + 2, j] + d * kernel[k + 3, j])
    for k in range(last - (last - first) % 4, last):
        for j in range(len(total)):
            total[j] += x[k] * kernel[k, j]


def narrow_suits(x: Array, other: Array) -> bool:
    """Whether a line of the kernel, or of the output's gradient, as of a head for a few classes,
    fits into one vector, while those of x (N, D) are long."""
    plain = x.dtype == other.dtype == np.float32 and other.flags.c_contiguous
    few = 1 < len(x) <= FEW and other.shape[1] <= gemm.panel_width(x.dtype) // 2
    return plain and few and x.size * other.shape[1] >= 2**21


def narrow(x: Array, kernel: Array) -> Array:
    """x (N, D) @ kernel (D, m), shared out by D. The lines are read where they lie: what
    follows one in its vector gives columns that nobody needs."""
    (rows, depth), m = x.shape, kernel.shape[1]
    ranges, width = np.array(cut(depth, PARTS), np.int64), simd.VECTOR_BYTES // 4
    sums = np.zeros((len(ranges), gemm.round_up(rows, gemm.ROWS), width), x.dtype)
    flat = np.ascontiguousarray(x).reshape(-1), np.arange(rows) * depth, kernel.reshape(-1)
    together(_narrow, *flat, m, ranges, sums)
    return np.ascontiguousarray(added_up(sums)[:rows, :m])


@compiled
def _narrow(a, rows, b, m, ranges, sums, board):
    share(_narrow_part, (a, rows, b, m, ranges, sums), len(ranges), board)


@inner
def _narrow_part(a, rows, b, m, ranges, sums, job, _):
    """sums[job] += A @ B for the lines ranges[job] of B; the last, after which B ends too soon,
    are copied."""
    (first, last), c, width = ranges[job], sums[job].reshape(-1), simd.lanes(a)
    whole = min(last, max(first, (len(b) - width) // m + 1))
    end = np.zeros((last - whole) * m + width, a.dtype)
    for i in range((last - whole) * m):
        end[i] = b[whole * m + i]
    for k in range(first, whole, CHUNK):
        _add_tiles(a, rows, k, min(CHUNK, whole - k), b, k * m, m, c)
    for k in range(whole, last, CHUNK):
        _add_tiles(a, rows, k, min(CHUNK, last - k), end, (k - whole) * m, m, c)


@inner
def _add_tiles(a, rows, k, depth, b, at, m, c):
    """C += A[:, k : k + depth] @ the lines of B that begin at b[at], m apart."""
    r, width = 0, simd.lanes(a)
    while r + gemm.ROWS <= len(rows):
        _add_lines_of(a, simd.full_tile(rows, r), k, depth, b, at, m, c, r * width)
        r += gemm.ROWS
    for rest in range(r, len(rows), simd.SHORT_ROWS):
        _add_lines_of(a, simd.short_tile(rows, rest), k, depth, b, at, m, c, rest * width)


def narrow_kernel_gradient(x: Array, g: Array) -> Array:
    """x.T @ g (D, m), as tiles of g.T @ x, which reads x where it lies; they are turned as they are
    written."""
    depth, m = x.shape[1], g.shape[1]
    dkernel, width = empty((depth, m), x.dtype), gemm.panel_width(x.dtype)
    ranges = np.array(cut(-(-depth // width), 2 * PARTS), np.int64)
    flat = np.ascontiguousarray(x).reshape(-1), g.reshape(-1)
    together(_narrow_gradient, *flat, np.arange(m), depth, ranges, dkernel.reshape(-1))
    return dkernel


@compiled
def _narrow_gradient(x, g, columns, depth, ranges, dkernel, board):
    share(_narrow_gradient_part, (x, g, columns, depth, ranges, dkernel), len(ranges), board)


@inner
def _narrow_gradient_part(x, g, columns, depth, ranges, dkernel, job, _):
    """A tile is some columns of g by 2 vectors of each line of x. The last begins earlier, and
    computes some numbers of the one before once more."""
    m, width = len(columns), 2 * simd.lanes(x)
    tile = np.empty((m + gemm.ROWS) * width, x.dtype)
    for block in range(ranges[job, 0], ranges[job, 1]):
        at, r = min(block * width, depth - width), 0
        while m - r > 2 * simd.SHORT_ROWS:  # a full tile takes less than three short ones
            _gradient_tile(x, g, simd.full_tile(columns, r), depth, m, at, tile, r * width)
            r += gemm.ROWS
        for rest in range(r, m, simd.SHORT_ROWS):
            short = simd.short_tile(columns, rest)
            _gradient_tile(x, g, short, depth, m, at, tile, rest * width)
        for j in range(m):
            for i in range(width):
                dkernel[(at + i) * m + j] = tile[j * width + i]


@simd.inlined
def _gradient_tile(x, g, columns, depth, m, at, tile, place):
    sums = simd.zero_tile(x, columns)
    for n in range(len(g) // m):
        sums = simd.multiply_add(sums, g, columns, n * m, x, n * depth + at)
    simd.store_tile(tile, place, 2 * simd.lanes(x), sums)


@simd.inlined
def _add_lines_of(a, rows, k, depth, b, at, m, c, place):
    column = simd.zero_column(a, rows)
    for i in range(depth):
        column = simd.multiply_add(column, a, rows, k + i, b, at + i * m)
    simd.add_to(c, place, simd.lanes(a), column, rows)


def row_by_row(x: Array, kernel: Array) -> Array:
    """x @ kernel, in which no bit of a row depends on how many others there are, or its place. A
    BLAS has other loops for a few rows, and for the last ones; tiles add up each row for itself."""
    tiles = x.dtype == kernel.dtype and suits("y", 2, *kernel.shape)
    step, multiply = (FEW, forward) if tiles else (1, product)
    y = empty((len(x), kernel.shape[1]), x.dtype)
    for i in range(0, len(x), step):
        y[i : i + step] = multiply(x[i : i + step], kernel)
    return y


def forward(x: Array, kernel: Array) -> Array:
    """x @ kernel. A job is a range of the kernel's lines by a range of its panels."""
    (rows, depth), columns, width = x.shape, kernel.shape[1], gemm.panel_width(x.dtype)
    panels = -(-columns // width)
    groups = cut_at_most(panels, WIDE)
    # As many jobs as make all threads finish together.
    ranges = cut(depth, gemm.round_up(-(-depth // DEEP), max(1, PARTS // len(groups))))
    jobs = [(part, *group) for part in range(len(ranges)) for group in groups]
    # A panel more than needed: rows 4 KB apart would all fall on the same lines of the cache.
    sums = empty((len(ranges), gemm.round_up(rows, gemm.ROWS), (panels + 1) * width), x.dtype)
    flat, starts = np.ascontiguousarray(x).reshape(-1), np.arange(rows) * depth
    kernel = np.ascontiguousarray(kernel)

    def job(index: int) -> None:
        part, left, right = jobs[index]
        _multiply_chunks(flat, starts, kernel, *ranges[part], left, right, sums[part])

    share_out(job, len(jobs))
    y = sums[0, :rows, :columns].copy()
    for partial in sums[1:]:
        y += partial[:rows, :columns]
    return y


@compiled
def _multiply_chunks(a, rows, b, first, last, left, right, c):
    """C = A[:, first:last] @ B[first:last], for the panels left:right of B's columns, on one core.
    Row r of A begins at a[rows[r]]. C has rows for full tiles and columns for full panels."""
    width, columns, step = 2 * simd.lanes(a), b.shape[1], c.shape[1]
    lines, sums, panel = b.reshape(-1), c.reshape(-1), np.empty(CHUNK * width, a.dtype)
    c[:, left * width : right * width] = 0
    for k in range(first, last, CHUNK):
        depth = min(CHUNK, last - k)
        for p in range(left, right):
            _pack_panel(lines, k, depth, columns, p * width, panel)
            # The first two tiles send for two lines of the next chunk: for the whole of it, while
            # all panels pass. (What is beyond the last column, or the array, does no harm.)
            ahead = (k + CHUNK + 2 * (p - left)) * columns + left * width
            place, r = p * width, 0
            while r + gemm.ROWS <= len(rows):
                full = simd.full_tile(rows, r)
                _add_tile(a, full, k, depth, panel, sums, place, step, lines, ahead)
                ahead = ahead + columns if r == 0 else -1
                place += gemm.ROWS * step
                r += gemm.ROWS
            for rest in range(r, len(rows), simd.SHORT_ROWS):
                short = simd.short_tile(rows, rest)
                _add_tile(a, short, k, depth, panel, sums, place, step, lines, ahead)
                ahead = ahead + columns if rest == 0 else -1
                place += simd.SHORT_ROWS * step


@simd.inlined
def _add_tile(a, rows, k, depth, panel, c, place, step, b, ahead):
    """A tile of C, at `place`, += A @ panel; meanwhile b from element `ahead` on is sent for."""
    vector = simd.lanes(a)
    tile, at = simd.zero_tile(a, rows), 0
    for i in range(k, k + depth):
        tile = simd.multiply_add(tile, a, rows, i, panel, at)
        at += 2 * vector
        if ahead >= 0:
            simd.prefetch(b, ahead)
            ahead += vector
    simd.add_to(c, place, step, tile, rows)


@inner
def _pack_panel(b, first, depth, columns, left, panel):
    """panel (depth, 2 vectors) = `depth` lines of B, from column `left` on; zeros past the last."""
    vector = simd.lanes(b)
    for i in range(depth):
        at, source = 2 * i * vector, (first + i) * columns + left
        if left + 2 * vector <= columns:  # by vectors: a plain loop took three times as long
            simd.store(panel, at, simd.load(b, source))
            simd.store(panel, at + vector, simd.load(b, source + vector))
        else:
            for j in range(2 * vector):
                panel[at + j] = b[source + j] if left + j < columns else 0


def input_gradient(g: Array, kernel: Array) -> Array:
    """g @ kernel.T, as dx.T = kernel @ g.T (D, m) @ (m, N), a few lines of the kernel at a time."""
    (rows, m), depth = g.shape, kernel.shape[0]
    panels, flat = gemm.pack(g.T), np.ascontiguousarray(kernel).reshape(-1)
    dx, parts = empty((rows, depth), g.dtype), cut_at_most(depth, LINES)

    def part(index: int) -> None:
        first, last = parts[index]
        transposed = scratch((last - first) * rows, g.dtype)
        lines = gemm.Rows(flat, np.arange(first, last) * m, None, 1, 0)
        _lines_by_panels(lines, panels, transposed, rows)
        dx[:, first:last] = transposed.reshape(-1, rows).T

    share_out(part, len(parts))
    return dx


def kernel_gradient(x: Array, g: Array) -> Array:
    """x.T @ g, a few lines at a time."""
    (_, depth), m = x.shape, g.shape[1]
    panels, flat = gemm.pack(g), np.ascontiguousarray(x).reshape(-1)
    dkernel, parts = empty((depth, m), x.dtype), cut_at_most(depth, LINES)

    def part(index: int) -> None:
        first, last = parts[index]
        columns = gemm.Rows(flat, np.arange(first, last), depth, 1, 0)
        _lines_by_panels(columns, panels, dkernel[first:last].reshape(-1), m)

    share_out(part, len(parts))
    return dkernel


@compiled
def _lines_by_panels(a, panels, c, columns):
    """C = A @ B, tiles of the same rows one after the other; arguments as in `gemm.multiply`."""
    (count, depth, width), b = panels.shape, panels.reshape(-1)
    out, r = gemm.Product(c, columns, np.empty(gemm.ROWS * width, c.dtype), gemm.PARTIAL), 0
    while r + gemm.ROWS <= len(a.starts):
        places = simd.full_tile(a.starts, r)
        for p in range(count):
            panel = gemm.Panel(p * depth * width, depth, p * width, b, 0, 0)
            gemm.rows_by_panel(a, r, places, b, panel, None, 0, None, None, out)
        r += gemm.ROWS
    for rest in range(r, len(a.starts), simd.SHORT_ROWS):
        places = simd.short_tile(a.starts, rest)
        for p in range(count):
            panel = gemm.Panel(p * depth * width, depth, p * width, b, 0, 0)
            gemm.rows_by_panel(a, rest, places, b, panel, None, 0, None, None, out)
