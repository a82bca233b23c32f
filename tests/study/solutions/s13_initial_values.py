import numpy as np


def fans(shape):
    window = int(np.prod(shape[:-2]))
    return window * shape[-2], window * shape[-1]


def glorot_uniform(shape, rng):
    fan_in, fan_out = fans(shape)
    a = np.sqrt(6 / (fan_in + fan_out))
    return rng.uniform(-a, a, shape)


def he_uniform(shape, rng):
    fan_in, _ = fans(shape)
    a = np.sqrt(6 / fan_in)
    return rng.uniform(-a, a, shape)
