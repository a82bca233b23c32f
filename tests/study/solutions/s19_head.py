import numpy as np
from scipy.optimize import minimize


def head(kernel, bias, F, targets, l2):
    z = F @ kernel + bias
    z = z - z.max(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    n = len(F)
    loss = -(targets * log_p).sum() / n + l2 * (kernel * kernel).sum()
    dz = (np.exp(log_p) - targets) / n
    dkernel = F.T @ dz + 2 * l2 * kernel
    return np.array(loss), dkernel, dz.sum(axis=0)


def solve(F, targets, l2):
    d, m = F.shape[1], targets.shape[1]

    def f(both):
        kernel, bias = both[: d * m].reshape(d, m), both[d * m :]
        loss, dkernel, dbias = head(kernel, bias, F, targets, l2)
        return float(loss), np.concatenate([dkernel.ravel(), dbias])

    found = minimize(f, np.zeros(d * m + m), jac=True, method="L-BFGS-B", tol=1e-12).x
    return found[: d * m].reshape(d, m), found[d * m :]
