import numpy as np


def max_pool2d_with_winners(x, geometry):
    top, bottom, left, right = geometry.pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=-np.inf)
    (kh, kw), (sh, sw), (oh, ow) = geometry.window, geometry.strides, geometry.out_size
    y = np.full((len(x), oh, ow, x.shape[3]), -np.inf, x.dtype)
    winners = np.zeros(y.shape, np.uint8)
    for i in range(kh):
        for j in range(kw):
            seen = padded[:, i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw]
            better = seen > y
            y = np.where(better, seen, y)
            winners[better] = i * kw + j
    return y, winners


def max_pool2d_gradient(g, winners, geometry):
    (height, width), (kh, kw) = geometry.size, geometry.window
    (sh, sw), (oh, ow) = geometry.strides, geometry.out_size
    top, bottom, left, right = geometry.pads
    shape = (len(g), top + height + bottom, left + width + right, g.shape[3])
    dpadded = np.zeros(shape, g.dtype)
    for i in range(kh):
        for j in range(kw):
            won = np.where(winners == i * kw + j, g, 0)
            dpadded[:, i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw] += won
    return dpadded[:, top : top + height, left : left + width].copy()
