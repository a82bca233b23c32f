import numpy as np


def conv2d_kernel_gradient(x, g, geometry):
    top, bottom, left, right = geometry.pads
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    (kh, kw), (sh, sw), (oh, ow) = geometry.window, geometry.strides, geometry.out_size
    dkernel = np.zeros((kh, kw, x.shape[3], g.shape[3]), x.dtype)
    for i in range(oh):
        for j in range(ow):
            seen = padded[:, i * sh : i * sh + kh, j * sw : j * sw + kw]
            dkernel += np.tensordot(seen, g[:, i, j], axes=(0, 0))
    return dkernel
