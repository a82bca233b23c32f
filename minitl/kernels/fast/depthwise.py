"""Convolution channel by channel, compiled: one walk over the windows, channels innermost.

Forward passes are shared out over lines (the OW windows of one row), gradients over images; each
image has a sum of its own for the kernel's gradient, and these are added in their order, so no bit
depends on the number of threads.
"""

import numpy as np

from minitl.kernels import twin
from minitl.kernels.machine.compiling import compiled
from minitl.kernels.machine.memory import empty
from minitl.kernels.machine.threads import over_rows


@twin
def depthwise_conv2d(x, kernel, geometry):
    c, m = kernel.shape[2:]
    y = empty((x.shape[0], *geometry.out_size, c * m), x.dtype)
    lines = x.shape[0] * geometry.out_size[0]
    work = y.size * kernel.shape[0] * kernel.shape[1] // max(1, lines)
    over_rows(lambda *part: _forward(x, kernel, geometry, *part, y), lines, work)
    return y


@twin
def depthwise_conv2d_input_gradient(g, kernel, geometry):
    dx = empty((len(g), *geometry.size, kernel.shape[2]), g.dtype)

    def part(first, last):
        dx[first:last] = 0
        _input_gradient(g, kernel, geometry, first, last, dx)

    over_rows(part, len(g), dx[:1].size * kernel.shape[0] * kernel.shape[1])
    return dx


@twin
def depthwise_conv2d_kernel_gradient(x, g, geometry):
    c = x.shape[3]
    sums = np.zeros((len(x), *geometry.window, c, g.shape[3] // c), g.dtype)
    work = g[:1].size * geometry.window[0] * geometry.window[1]
    over_rows(lambda *part: _kernel_gradient(x, g, geometry, *part, sums), len(x), work)
    return sums.sum(axis=0)


@compiled
def _forward(x, kernel, geometry, first, last, y):
    channels, m = kernel.shape[2:]
    for line in range(first, last):
        n, oh = divmod(line, geometry.out_size[0])
        top = oh * geometry.strides[0] - geometry.pads[0]
        for ow in range(geometry.out_size[1]):
            left = ow * geometry.strides[1] - geometry.pads[2]
            out = y[n, oh, ow]
            for i in range(channels * m):
                out[i] = 0
            for kh in range(max(0, -top), min(geometry.window[0], geometry.size[0] - top)):
                for kw in range(max(0, -left), min(geometry.window[1], geometry.size[1] - left)):
                    seen, taps = x[n, top + kh, left + kw], kernel[kh, kw]
                    if m == 1:
                        for c in range(channels):
                            out[c] += seen[c] * taps[c, 0]
                    else:
                        for c in range(channels):
                            for j in range(m):
                                out[c * m + j] += seen[c] * taps[c, j]


@compiled
def _input_gradient(g, kernel, geometry, first, last, dx):
    channels, m = kernel.shape[2:]
    for n in range(first, last):
        for oh in range(geometry.out_size[0]):
            top = oh * geometry.strides[0] - geometry.pads[0]
            for ow in range(geometry.out_size[1]):
                left = ow * geometry.strides[1] - geometry.pads[2]
                share = g[n, oh, ow]
                for kh in range(max(0, -top), min(geometry.window[0], geometry.size[0] - top)):
                    for kw in range(
                        max(0, -left), min(geometry.window[1], geometry.size[1] - left)
                    ):
                        there, taps = dx[n, top + kh, left + kw], kernel[kh, kw]
                        for c in range(channels):
                            for j in range(m):
                                there[c] += share[c * m + j] * taps[c, j]


@compiled
def _kernel_gradient(x, g, geometry, first, last, sums):
    channels, m = sums.shape[3:]
    for n in range(first, last):
        for oh in range(geometry.out_size[0]):
            top = oh * geometry.strides[0] - geometry.pads[0]
            for ow in range(geometry.out_size[1]):
                left = ow * geometry.strides[1] - geometry.pads[2]
                share = g[n, oh, ow]
                for kh in range(max(0, -top), min(geometry.window[0], geometry.size[0] - top)):
                    for kw in range(
                        max(0, -left), min(geometry.window[1], geometry.size[1] - left)
                    ):
                        seen, total = x[n, top + kh, left + kw], sums[n, kh, kw]
                        for c in range(channels):
                            for j in range(m):
                                total[c, j] += seen[c] * share[c * m + j]
