import numpy as np


def fit(gradient, shape):
    extra = gradient.ndim - len(shape)
    for _ in range(extra):
        gradient = gradient.sum(axis=0)
    for axis, size in enumerate(shape):
        if size == 1:
            gradient = gradient.sum(axis=axis, keepdims=True)
    return gradient


def multiply(a, b):
    y = a * b

    def gradient(g):
        da = fit(g * b, np.shape(a))
        db = fit(g * a, np.shape(b))
        return da, db

    return y, gradient
