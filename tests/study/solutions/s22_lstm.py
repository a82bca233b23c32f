import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_step(z, h, c, R):
    i, f, k, o = np.split(z + h @ R, 4, axis=1)
    i, f, k, o = sigmoid(i), sigmoid(f), np.tanh(k), sigmoid(o)
    c_next = f * c + i * k
    shown = np.tanh(c_next)

    def gradient(dh, dc):
        dc = dc + dh * o * (1 - shown * shown)
        da_i = dc * k * i * (1 - i)
        da_f = dc * c * f * (1 - f)
        da_k = dc * i * (1 - k * k)
        da_o = dh * shown * o * (1 - o)
        da = np.concatenate([da_i, da_f, da_k, da_o], axis=1)
        return da, da @ R.T, dc * f, h.T @ da

    return o * shown, c_next, gradient
