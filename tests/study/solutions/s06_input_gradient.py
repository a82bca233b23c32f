import numpy as np


def conv2d_input_gradient(g, kernel, geometry):
    (height, width), (sh, sw) = geometry.size, geometry.strides
    top, bottom, left, right = geometry.pads
    oh, ow = geometry.out_size
    shape = (len(g), top + height + bottom, left + width + right, kernel.shape[2])
    dpadded = np.zeros(shape, g.dtype)
    for kh in range(geometry.window[0]):
        for kw in range(geometry.window[1]):
            share = g @ kernel[kh, kw].T
            for i in range(oh):
                for j in range(ow):
                    dpadded[:, i * sh + kh, j * sw + kw] += share[:, i, j]
    return dpadded[:, top : top + height, left : left + width].copy()
