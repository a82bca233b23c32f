"""Convolution channel by channel, compiled.

There are few multiplications for each number that comes from memory, so what counts is that each is
fetched once: four places of a row are computed together, two vectors of channels at a time, in
registers, and bias and activation are applied there. Forward passes are shared out over lines (the
OW windows of one row), gradients over images; each image has a sum of its own for the kernel's
gradient, and these are added in their order, so no bit depends on the number of threads.

The gradient to the input is such a convolution itself: of g, with zeros between its places where
there are strides, and the kernel turned by 180 degrees. What vectors do not fit, several filters
per channel or few channels, goes the plain way (`_walk`), forward and back.
"""

import numpy as np

from minitl.kernels import TWINS, twin
from minitl.kernels.fast.activations import sigmoid
from minitl.kernels.fast.gemm import bounds_of
from minitl.kernels.machine import simd
from minitl.kernels.machine.compiling import compiled, inner
from minitl.kernels.machine.memory import empty
from minitl.kernels.machine.team import share, together
from minitl.kernels.machine.threads import cut_rows, over_rows

FORWARD, TO_INPUT, TO_KERNEL = 0, 1, 2


@twin
def depthwise_conv2d(x, kernel, geometry, bias=None, activation=None):
    c, m = kernel.shape[2:]
    shape = (x.shape[0], *geometry.out_size, c * m)
    lines, window = shape[0] * shape[1], kernel.shape[0] * kernel.shape[1]
    soft = True if activation == "silu" else None
    if m > 1 or c * x.itemsize < 2 * simd.VECTOR_BYTES or (soft and x.itemsize > 4):
        y = np.zeros(shape, x.dtype)
        y += 0 if bias is None else bias
        over_rows(lambda *part: _walk(FORWARD, x, y, kernel[None], geometry, *part), lines)
        return y if activation is None else TWINS[activation](y)
    y = empty(shape, x.dtype)
    shift = np.zeros(c, x.dtype) if bias is None else bias
    given = x, kernel.reshape(-1), shift, bounds_of(activation, x.dtype), soft, geometry, y
    ranges = cut_rows(lines, y.size * window // max(1, lines))
    together(_all_lines, *given, np.array(ranges, np.int64).reshape(-1, 2))
    return y


@twin
def depthwise_conv2d_input_gradient(g, kernel, geometry):
    (n, oh, ow, _), (kh, kw, c, m) = g.shape, kernel.shape
    if m > 1:
        dx = np.zeros((n, *geometry.size, c), g.dtype)

        def part(*images):
            lines = (end * oh for end in images)
            _walk(TO_INPUT, dx, g, kernel[None], geometry, *lines)

        over_rows(part, n, g[:1].size * kh * kw)
        return dx
    sh, sw = geometry.strides
    if max(sh, sw) > 1:
        apart = np.zeros((n, (oh - 1) * sh + 1, (ow - 1) * sw + 1, c), g.dtype)
        apart[:, ::sh, ::sw] = g
        g = apart
    top, _, left, _ = geometry.pads
    around = (kh - 1 - top, 0, kw - 1 - left, 0)
    back = geometry._replace(size=g.shape[1:3], strides=(1, 1), pads=around, out_size=geometry.size)
    return depthwise_conv2d(g, np.ascontiguousarray(kernel[::-1, ::-1]), back)


@twin
def depthwise_conv2d_kernel_gradient(x, g, geometry):
    (n, _, _, c), oh = x.shape, g.shape[1]
    sums = np.zeros((n, *geometry.window, c, g.shape[3] // c), g.dtype)
    fits = g.shape[3] == c and c * x.itemsize % simd.VECTOR_BYTES == 0

    def part(first, last):
        if fits:
            _kernel_vectors(x, g, geometry, first, last, sums)
        else:
            _walk(TO_KERNEL, x, g, sums, geometry, first * oh, last * oh)

    over_rows(part, n, g[:1].size * geometry.window[0] * geometry.window[1])
    return sums.sum(axis=0)


@compiled
def _walk(what, x, y, kernels, geometry, first, last):
    """For each place under each window of some lines: y += x * kernel, x += y * kernel, or
    kernel += x * y; `kernels` has one for each image, or one for all."""
    channels, m = kernels.shape[3:]
    for line in range(first, last):
        n, oh = divmod(line, geometry.out_size[0])
        top = oh * geometry.strides[0] - geometry.pads[0]
        for ow in range(geometry.out_size[1]):
            left = ow * geometry.strides[1] - geometry.pads[2]
            for kh in range(max(0, -top), min(geometry.window[0], geometry.size[0] - top)):
                for kw in range(max(0, -left), min(geometry.window[1], geometry.size[1] - left)):
                    out, taps = y[n, oh, ow], kernels[n % len(kernels), kh, kw]
                    seen = x[n, top + kh, left + kw]
                    for c in range(channels):
                        for j in range(m):
                            if what == FORWARD:
                                out[c * m + j] += seen[c] * taps[c, j]
                            elif what == TO_INPUT:
                                seen[c] += out[c * m + j] * taps[c, j]
                            else:
                                taps[c, j] += seen[c] * out[c * m + j]


@simd.inlined
def _finish(y, at, a, b, bounds, soft):
    """Store two vectors after the activation; `soft` is None where that is not swish."""
    simd.store(y, at, _activated(a, bounds, soft))
    simd.store(y, at + simd.lanes(y), _activated(b, bounds, soft))


@simd.inlined
def _activated(value, bounds, soft):
    if soft is not None:
        return value * sigmoid(value)
    return simd.within(value, simd.broadcast(bounds, 0), simd.broadcast(bounds, 1))


@inner
def _taps(geometry, c, top, start, taps):
    """Fill `taps` with where a window reads: for each place of it that lies within the image, how
    far from its first column x is, and where the kernel. Returns how many there are."""
    count, (height, width), (kh, kw) = 0, geometry.size, geometry.window
    for row in range(max(0, -top), min(kh, height - top)):
        for tap in range(max(0, -start), min(kw, width - start)):
            taps[count, 0], taps[count, 1] = ((top + row) * width + tap) * c, (row * kw + tap) * c
            count += 1
    return count


@compiled
def _all_lines(x, kernel, shift, bounds, soft, geometry, y, ranges, board):
    share(_vectors, (x, kernel, shift, bounds, soft, geometry, y, ranges), len(ranges), board)


@inner
def _vectors(x, kernel, shift, bounds, soft, geometry, y, ranges, job, _):
    """The lines ranges[job] of y (N, OH, OW, C), M being 1 and C at least two vectors. Four places
    and two vectors at a time, where the four windows lie within a row. The last vectors of channels
    begin earlier where C is no multiple, and compute some once more."""
    (_, height, width, c), (oh, ow), step = x.shape, geometry.out_size, simd.lanes(x)
    kw, (sh, sw), (pad, _, left, _) = geometry.window[1], geometry.strides, geometry.pads
    x, y, aside, (first, last) = x.reshape(-1), y.reshape(-1), sw * c, ranges[job]
    inner_first, inner_end = -(-left // sw), (width - kw + left) // sw + 1
    within, border = np.empty((2, geometry.window[0] * kw, 2), np.int64)
    for line in range(first, last):
        n, i = divmod(line, oh)
        top, j = i * sh - pad, 0
        whole = _taps(geometry, c, top, 0, within)
        while j < ow:
            start = j * sw - left
            four, taps, count = inner_first <= j and j + 4 <= min(inner_end, ow), within, whole
            if j < inner_first or j >= inner_end:
                taps, count = border, _taps(geometry, c, top, start, border)
            for channel in range(0, c, 2 * step):
                at = min(channel, c - 2 * step)
                place, out = (n * height * width + start) * c + at, (line * ow + j) * c + at
                a0, b0 = simd.load(shift, at), simd.load(shift, at + step)
                if four:
                    a1, a2, a3, b1, b2, b3 = a0, a0, a0, b0, b0, b0
                    for t in range(count):
                        p, q = place + taps[t, 0], at + taps[t, 1]
                        k, m = simd.load(kernel, q), simd.load(kernel, q + step)
                        a0, b0 = a0 + simd.load(x, p) * k, b0 + simd.load(x, p + step) * m
                        p += aside
                        a1, b1 = a1 + simd.load(x, p) * k, b1 + simd.load(x, p + step) * m
                        p += aside
                        a2, b2 = a2 + simd.load(x, p) * k, b2 + simd.load(x, p + step) * m
                        p += aside
                        a3, b3 = a3 + simd.load(x, p) * k, b3 + simd.load(x, p + step) * m
                    _finish(y, out + c, a1, b1, bounds, soft)
                    _finish(y, out + 2 * c, a2, b2, bounds, soft)
                    _finish(y, out + 3 * c, a3, b3, bounds, soft)
                else:
                    for t in range(count):
                        p, q = place + taps[t, 0], at + taps[t, 1]
                        a0 = a0 + simd.load(x, p) * simd.load(kernel, q)
                        b0 = b0 + simd.load(x, p + step) * simd.load(kernel, q + step)
                _finish(y, out, a0, b0, bounds, soft)
            j += 4 if four else 1


@compiled
def _kernel_vectors(x, g, geometry, first, last, sums):
    """The kernel's gradient of some images, one sum for each: M is 1, and C whole vectors."""
    (_, height, width, c), (oh, ow), step = x.shape, geometry.out_size, simd.lanes(x)
    (kh, kw), (sh, sw), (pad, _, left, _) = geometry.window, geometry.strides, geometry.pads
    x, g, sums = x.reshape(-1), g.reshape(-1), sums.reshape(-1)
    for line in range(first * oh, last * oh):
        n, i = divmod(line, oh)
        top = i * sh - pad
        for row in range(max(0, -top), min(kh, height - top)):
            for tap in range(kw):
                begin = max(0, -((tap - left) // sw))
                end = min(ow, (width - 1 - tap + left) // sw + 1)
                for channel in range(0, c, step):
                    out = ((n * kh + row) * kw + tap) * c + channel
                    place = ((n * height + top + row) * width + begin * sw + tap - left) * c
                    place, share = place + channel, (line * ow + begin) * c + channel
                    total = simd.load(sums, out)
                    for _ in range(begin, end):
                        total = total + simd.load(x, place) * simd.load(g, share)
                        place += sw * c
                        share += c
                    simd.store(sums, out, total)
