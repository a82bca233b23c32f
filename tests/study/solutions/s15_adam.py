import numpy as np


def adam_update(w, g, m, v, t, rate, beta_1, beta_2, epsilon):
    m += (1 - beta_1) * (g - m)
    v += (1 - beta_2) * (g * g - v)
    corrected = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
    w -= corrected * m / (np.sqrt(v) + epsilon)
