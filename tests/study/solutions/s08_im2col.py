import numpy as np


def im2col(x, geometry):
    top, bottom, left, right = geometry.pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    (kh, kw), (sh, sw), (oh, ow) = geometry.window, geometry.strides, geometry.out_size
    columns = np.zeros((len(x), oh, ow, kh, kw, x.shape[3]), x.dtype)
    for i in range(kh):
        for j in range(kw):
            seen = padded[:, i : i + (oh - 1) * sh + 1 : sh, j : j + (ow - 1) * sw + 1 : sw]
            columns[:, :, :, i, j] = seen
    return columns.reshape(len(x) * oh * ow, kh * kw * x.shape[3])
