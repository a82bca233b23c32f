"""The head's optimum where F is larger than memory: `transfer/optimum.py`'s, on a Dask array.

L(W, b) is a sum over rows, and so are its gradient and the rows' covariance: each chunk of F gives
its share, where it lies, and the shares are added in the chunks' order. L-BFGS walks here, on D m
numbers. It sees W along F's principal axes, each in units in which L curves by about 1: else
thousands of steps would be needed where a few dozen are.
"""

import itertools
import warnings
from typing import Any

import numpy as np

from minitl.transfer.optimum import Centred, Head, check_penalty, targets_of

AXES = 4096  # up to so many columns their principal axes are computed; else each has its own unit
HISTORY = 30  # steps that L-BFGS remembers


def solve_head(
    f: Any,
    y: Any,
    l2: float,
    sample_weight: Any = None,
    *,
    client: Any = None,
    tolerance: float = 1e-7,
    max_iterations: int = 2000,
) -> Head:
    """The W and b that minimise L(W, b) of `minitl.transfer.optimum`, in float64.

    Args:
        f: F (N, D): a Dask array, a `Rows`, or an array. A chunk of rows is a task.
        y: labels (N,), integers from 0, or (N, m), one-hot or probabilities.
        l2: positive.
        sample_weight: w (N,); 1 each when None.
        client: a `dask.distributed.Client`; None is Dask's choice: the current one, or threads.
        tolerance: the gradient's norm at the end, as a share of that at the start.
        max_iterations: of L-BFGS. A warning tells when they were not enough.

    Raises ValueError for shapes that do not fit, numbers that are not finite, and an l2 of 0.
    """
    from scipy.optimize import minimize

    check_penalty(l2)
    whole = _Shares(f, y, sample_weight, client)
    turn, unit = whole.axes(l2)
    d, m, norms = whole.width, whole.classes, list[float]()
    most = {"maxiter": max_iterations, "maxfun": 2 * max_iterations}

    def there(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        v = unit * flat.reshape(d + 1, m)
        return turn @ v[:-1] if turn is not None else v[:-1], v[-1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w, c = there(flat)
        value, dw, dc = whole.loss(w, c)
        value, dw = value + l2 * float(np.vdot(w, w)), dw + 2 * l2 * w
        norms.append(float(np.sqrt(np.vdot(dw, dw) + dc @ dc)))
        dv = np.concatenate([turn.T @ dw if turn is not None else dw, dc[None]])
        return value, (unit * dv).ravel()

    def stop(_: np.ndarray) -> None:
        if norms[-1] <= tolerance * norms[0]:
            raise StopIteration

    how: Any = {"options": most | {"ftol": 0, "gtol": 0, "maxcor": HISTORY}, "callback": stop}
    found = minimize(loss, np.zeros((d + 1) * m), method="L-BFGS-B", jac=True, **how)
    w, c = there(found.x)
    value = loss(found.x)[0]
    if norms[-1] > max(tolerance, 1e-6) * norms[0]:
        what = f"solve_head stopped after {found.nit} iterations at a gradient of {norms[-1]:.1e}"
        warnings.warn(f"{what}, {norms[-1] / norms[0]:.1e} of that at the start", stacklevel=2)
    bias = c - whole.mean @ w
    return Head(w, bias - bias.mean(), value, norms[-1], found.nit)


class _Shares:
    """F's chunks with their targets t_n w_n / N, and sums over them; F is centred by its mean."""

    def __init__(self, f: Any, y: Any, sample_weight: Any, client: Any):
        import dask
        import dask.array as da

        f = f.dask() if hasattr(f, "dask") and hasattr(f, "folder") else f
        f = f if isinstance(f, da.Array) else da.from_array(np.asarray(f))
        if np.isnan(f.shape).any():
            how = "compute_chunk_sizes() first"
            raise ValueError(f"F is of known size, got shape {f.shape}: {how}")
        targets = targets_of(f, y, sample_weight)
        n, self.width = f.shape
        self.classes = targets.shape[1]
        f = f.rechunk({1: -1})
        ends = np.cumsum([0, *f.chunks[0]])
        self.targets = [targets[a:b] for a, b in itertools.pairwise(ends)]
        self.chunks = list(f.to_delayed().ravel())
        self.delayed, self.client, self.count = dask.delayed, client, n
        self.mean = sum(self.each(np.sum, 0, np.float64)) / n
        if not np.isfinite(self.mean).all():
            raise ValueError("F has NaN or infinite numbers")

    def each(self, function: Any, *given: Any, targets: bool = False) -> list[Any]:
        """function(chunk, [targets,] *given) of each chunk, in their order."""
        import dask

        shared = [self.delayed(g) for g in given]  # each goes to a worker once
        call = self.delayed(function, pure=False)
        extra = [[t] if targets else [] for t in self.targets]
        tasks = [call(x, *t, *shared) for x, t in zip(self.chunks, extra, strict=True)]
        if self.client is not None:
            return self.client.gather(self.client.compute(tasks))
        return list(dask.compute(*tasks))

    def axes(self, l2: float) -> tuple[np.ndarray | None, np.ndarray]:
        """Principal axes (D, D), or None, and the units (D + 1, 1) at W = 0, where p = 1 / m."""
        full = self.width <= AXES
        covariance = sum(self.each(_covariance, self.mean, full)) / self.count
        squares, turn = np.linalg.eigh(covariance) if full else (covariance, None)
        curved = np.maximum(np.append(squares, 1.0), 0) * (self.classes - 1) / self.classes**2
        return turn, 1 / np.sqrt(curved + 2 * l2)[:, None]

    def loss(self, w: np.ndarray, c: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The loss without penalty, and its gradients to W and to c, on the centred rows."""
        shares = self.each(_loss, self.mean, w, c, targets=True)
        value, dw, dc = (sum(parts) for parts in zip(*shares, strict=True))
        return value, dw, dc


def _centred(f: np.ndarray, mean: Any) -> Centred:
    rows = Centred(f, centre=False)
    rows.mean = mean
    return rows


def _covariance(f: np.ndarray, mean: np.ndarray, full: bool) -> Any:
    blocks = (x for _, x in _centred(f, mean).blocks())
    return sum(x.T @ x if full else (x * x).sum(axis=0) for x in blocks)


def _loss(f: np.ndarray, targets: np.ndarray, mean: Any, w: Any, c: Any) -> tuple[Any, Any, Any]:
    return _centred(f, mean).loss(targets, w, c)
