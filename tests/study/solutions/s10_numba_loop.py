import numba
import numpy as np


@numba.njit
def correlate(padded, kernel, sh, sw):
    n, h, w, channels = padded.shape
    kh, kw, _, filters = kernel.shape
    oh, ow = (h - kh) // sh + 1, (w - kw) // sw + 1
    y = np.zeros((n, oh, ow, filters), padded.dtype)
    for image in range(n):
        for i in range(oh):
            for j in range(ow):
                for a in range(kh):
                    for b in range(kw):
                        for c in range(channels):
                            number = padded[image, i * sh + a, j * sw + b, c]
                            for f in range(filters):
                                y[image, i, j, f] += number * kernel[a, b, c, f]
    return y
