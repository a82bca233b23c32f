"""The best softmax head there is: on F, its loss is convex, so its optimum is known.

    L(W, b) = (1/N) sum_n w_n * cross_entropy(t_n, softmax(W^T f_n + b)) + l2 * sum(W^2)

is what `fit` minimises for Dense(m, activation='softmax', kernel_regularizer=L2(l2)) on frozen
features. Where a convex function's gradient vanishes is its optimum, whatever the way there.
`solve_head` takes F and the labels, goes there with L-BFGS (Liu & Nocedal 1989) and Newton's
method, and shows the gradient that is left. The callback `OptimumGap` tells, while SGD or Adam
train the same head, how far above the optimum they still are.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from minitl import kernels, losses, ops
from minitl.callbacks import Callback
from minitl.kernels.machine.threads import share_out
from minitl.layers import Dense
from minitl.models import Model
from minitl.models.arguments import guard
from minitl.naming import Count, NotNegative, Positive
from minitl.regularizers import L2

ROWS = 256  # of F that are float64 at a time
HISTORY = 20  # steps that L-BFGS remembers
NEWTON, CG = 30, 500  # steps of Newton's method, and products for each of them


class Head(NamedTuple):
    """What `solve_head` found. `dense.set_weights(head[:2])` puts it into a layer."""

    kernel: np.ndarray  # W (D, m)
    bias: np.ndarray  # b (m,); its mean is 0, for a number added to all of it changes nothing
    loss: float  # L(W, b), the penalty included
    gradient_norm: float  # |grad L|, which is 0 at the optimum
    iterations: int

    def predict(self, f: Any) -> np.ndarray:
        """P (N, m) = softmax(W^T F + b) for F (N, D)."""
        return softmax(np.asarray(f) @ self.kernel + self.bias)[0]


def solve_head(
    f: Any,
    y: Any,
    l2: NotNegative,
    sample_weight: Any = None,
    *,
    standardize: bool = False,
    tolerance: Positive = 1e-10,
    max_iterations: Count = 300,
) -> Head:
    """The W and b that minimise L(W, b), see above, in float64.

    Args:
        f, y: F (N, D); labels (N,), integers from 0, or (N, m), one-hot or probabilities.
        l2: positive. scikit-learn's C is 1 / (2 * l2 * N).
        sample_weight: w (N,); 1 each when None.
        standardize: measure each feature in its standard deviations; W is for F as it was given.
        tolerance: the gradient's norm at the end, as a share of that at W = 0, b = 0.
        max_iterations: of L-BFGS; Newton's method follows. A warning tells when both failed.

    L - l2 * sum(W^2) is convex: with b at its best, L - optimum <= |dL/dW|^2 / (4 * l2).

    Raises ValueError for shapes that do not fit, numbers that are not finite, labels that are not
    whole numbers from 0, one class, or an l2 of 0: the loss of separable classes falls for ever.
    """
    f = np.asarray(f)
    targets = targets_of(f, y, sample_weight)
    check_penalty(l2)
    if not np.isfinite(f.sum(dtype=np.float64)):
        raise ValueError("F has NaN or infinite numbers")
    # With one thread of BLAS, else their number would show in bits; SciPy has a BLAS of its own,
    # which must be there to be told.
    import scipy.linalg  # noqa: F401

    found: list[Head] = []

    def solve(_: int) -> None:
        found.append(_solve(Centred(f, standardize), targets, l2, tolerance, max_iterations))

    share_out(solve, 1, multiplies=True)
    return found[0]


def _solve(f: Centred, targets: np.ndarray, l2: float, tolerance: float, most: int) -> Head:
    x, back = f.principal_axes()
    curve = Curve(x, targets, l2)
    v, iterations = minimise(curve, tolerance, most)
    w, c = back(v[:-1]), v[-1]
    value, norm = f.loss_and_norm(targets, w, c, l2)
    if not norm <= 2 * tolerance * curve.norms[0]:
        how = f"{norm:.1e}, which is {norm / curve.norms[0]:.1e} of that at the start"
        text = f"solve_head stopped after {iterations} iterations at a gradient of {how}"
        warnings.warn(f"{text}; tolerance is {tolerance:.0e}", UserWarning, stacklevel=6)
    kernel = f.scale[:, None] * w
    bias = c - f.mean @ kernel
    return Head(kernel, bias - bias.mean(), value, norm, iterations)


def head_loss(
    f: Any, y: Any, kernel: Any, bias: Any, l2: NotNegative = 0.0, sample_weight: Any = None
) -> float:
    """L(W, b) in float64, for F (N, D), y (N,) or (N, m), W (D, m), b (m,)."""
    f, w, b = np.asarray(f), np.asarray(kernel, np.float64), np.asarray(bias, np.float64)
    targets = targets_of(f, y, sample_weight, len(b))
    return Centred(f, centre=False).loss_and_norm(targets, w, b, l2)[0]


def check_penalty(l2: float) -> None:
    """Raise ValueError unless l2 is positive."""
    if not 0 < l2 < np.inf:
        why = "without it there need not be an optimum"
        raise ValueError(f"l2 must be positive, got {l2!r}: {why}")


def targets_of(f: Any, y: Any, sample_weight: Any, classes: int | None = None) -> np.ndarray:
    """(N, m): the targets t_n, each times w_n / N."""
    y = np.asarray(y)
    if f.ndim != 2 or f.dtype.kind not in "fiu":
        raise ValueError(f"F is a matrix (N, D) of numbers, got {f.dtype} {f.shape}")
    if y.ndim not in (1, 2) or len(y) != len(f) or len(f) == 0:
        raise ValueError(f"y has one row for each of F's: got shapes {y.shape} and {f.shape}")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim == 1:
        labels = y.astype(np.int64)
        if not np.array_equal(labels, y) or labels.min() < 0:
            raise ValueError("labels are whole numbers from 0")
        y = np.eye(int(labels.max()) + 1 if classes is None else classes)[labels]
    if y.shape[1] < 2:
        raise ValueError("a softmax head needs at least two classes")
    if not np.isfinite(y).all() or y.min() < 0:
        raise ValueError("targets must be finite and not negative")
    n = len(f)
    weights = np.ones(n) if sample_weight is None else np.asarray(sample_weight, np.float64)
    if weights.shape != (n,) or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(f"sample_weight has one finite number, not negative, for each of {n} rows")
    return y * (weights / n)[:, None]


def softmax(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """softmax(z) (N, m), and log sum_j e^(z_j) (N, 1)."""
    top = z.max(axis=1, keepdims=True)
    p = np.exp(z - top)
    total = p.sum(axis=1, keepdims=True)
    return p / total, top + np.log(total)


def cross_entropy(z: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """-sum_nj t_nj log softmax(z_n)_j, and its gradient to z (N, m)."""
    p, log_sum = softmax(z)
    of_row = targets.sum(axis=1, keepdims=True)
    return float((of_row * log_sum).sum() - np.vdot(targets, z)), of_row * p - targets


class Centred:
    """F (N, D) with each column's mean taken off, and its standard deviation divided out if wanted;
    in float64 block by block, so that there is no copy of all of F."""

    def __init__(self, f: np.ndarray, standardize: bool = False, centre: bool = True):
        self.f, d = f, f.shape[1]
        self.mean = f.mean(axis=0, dtype=np.float64) if centre else np.zeros(d)
        self.scale = np.ones(d)
        if standardize:
            parts = (f[:, i : i + 4 * ROWS] for i in range(0, d, 4 * ROWS))
            deviation = np.concatenate([part.std(axis=0, dtype=np.float64) for part in parts])
            self.scale[deviation > 0] = 1 / deviation[deviation > 0]

    def columns(self) -> Iterator[np.ndarray]:
        for part in (slice(i, i + 4 * ROWS) for i in range(0, self.f.shape[1], 4 * ROWS)):
            yield (self.f[:, part] - self.mean[part]) * self.scale[part]

    def blocks(self) -> Iterator[tuple[slice, Any]]:
        """Ranges of rows, with these rows."""
        for part in (slice(i, i + ROWS) for i in range(0, len(self.f), ROWS)):
            yield part, (self.f[part] - self.mean) * self.scale

    def principal_axes(self) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """The rows' coordinates X (N, r) along their principal axes, r <= min(N, D), and the way
        back from a W (r, m) on X to that on all D columns.

        Moving F moves b alone, turning it turns W and leaves the penalty: L is the same function,
        without long narrow valleys. With F = U S V^T, centred: X = F V = U S, W = V w. Where D > N,
        N axes are enough: a part of W at right angles to all rows costs penalty and changes no
        output (Hastie & Tibshirani 2004, section 2). The smaller of F^T F, F F^T gives V or U, S^2.
        """
        from scipy.linalg import eigh

        n, d = self.f.shape
        gram = np.zeros((min(n, d), min(n, d)))
        if d <= n:
            for _, x in self.blocks():
                gram += kernels.dense_kernel_gradient(x, x)  # (d, rows) x (rows, d)
            v = eigh(gram)[1]
            return np.concatenate([x @ v for _, x in self.blocks()]), lambda w: v @ w
        for columns in self.columns():
            x = np.ascontiguousarray(columns.T)
            gram += kernels.dense_kernel_gradient(x, x)  # (n, columns) x (columns, n)
        squares, u = eigh(gram)
        kept = squares > squares[-1] * n * np.finfo(float).eps
        u, s = u[:, kept], np.sqrt(squares[kept])

        def back(w: np.ndarray) -> np.ndarray:
            a = u @ (w / s[:, None])  # (n, r) x (r, m)
            return np.concatenate([columns.T @ a for columns in self.columns()])

        return u * s, back

    def loss_and_norm(
        self, targets: np.ndarray, w: np.ndarray, c: np.ndarray, l2: NotNegative
    ) -> tuple[float, float]:
        """L and the norm of its gradient for W (D, m) and c (m,) on these rows."""
        value, dw, dc = self.loss(targets, w, c)
        dw += 2 * l2 * w
        return value + l2 * float(np.vdot(w, w)), float(np.sqrt(np.vdot(dw, dw) + dc @ dc))

    def loss(self, targets: np.ndarray, w: np.ndarray, c: np.ndarray) -> tuple[float, Any, Any]:
        """L without its penalty, and its gradients to W (D, m) and c (m,)."""
        value, dw, dc = 0.0, np.zeros_like(w), np.zeros_like(c)
        for part, x in self.blocks():
            each, g = cross_entropy(x @ w + c, targets[part])
            value += each
            dw += x.T @ g
            dc += g.sum(axis=0)
        return value, dw, dc


class Curve:
    """L of W and c as one V = unit * flat (r + 1, m), on X (N, r), in whose precision the large
    products are. V is measured in units in which
    L curves by 1 at a given place; `norms` are those of the gradient to V, one per evaluation."""

    def __init__(self, x: np.ndarray, targets: np.ndarray, l2: NotNegative):
        self.ones = np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)
        self.targets, self.of_row = targets, targets.sum(axis=1, keepdims=True)
        self.l2, r = l2, x.shape[1]
        self.penalty = 2 * l2 * (np.arange(r + 1) < r)[:, None]
        self.norms: list[float] = []
        self.measure_at(np.zeros((r + 1, targets.shape[1])))

    def measure_at(self, v: np.ndarray) -> None:
        """Take the units from the Hessian's diagonal at V."""
        p = softmax(self._logits(v))[0]
        diagonal = self._back(self.of_row * p * (1 - p), self.ones * self.ones)
        self.unit = 1 / np.sqrt(diagonal + 2 * self.l2)

    def loss(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """L and its gradient to `flat`."""
        v = self.unit * flat.reshape(self.unit.shape)
        value, g = cross_entropy(self._logits(v), self.targets)
        dv = self._back(g) + self.penalty * v
        self.norms.append(float(np.sqrt(np.vdot(dv, dv))))
        return value + np.vdot(self.penalty * v, v) / 2, (self.unit * dv).ravel()

    def curvature(self, v: np.ndarray, step: np.ndarray) -> np.ndarray:
        """How the gradient at V changes along a step: the Hessian times it."""
        dv = self.unit * step.reshape(self.unit.shape)
        p = softmax(self._logits(v))[0]
        dp = p * self._logits(dv)
        dp -= p * dp.sum(axis=1, keepdims=True)
        return (self.unit * (self._back(self.of_row * dp) + self.penalty * dv)).ravel()

    def _logits(self, v: np.ndarray) -> np.ndarray:
        z = self.ones @ v.astype(self.ones.dtype, copy=False)  # (N, r + 1) x (r + 1, m)
        return z.astype(np.float64, copy=False)

    def _back(self, g: np.ndarray, x: np.ndarray | None = None) -> np.ndarray:
        x = self.ones if x is None else x
        return (x.T @ g.astype(x.dtype, copy=False)).astype(np.float64, copy=False)


def minimise(
    curve: Curve, tolerance: float, most: int, v: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """V (r + 1, m) at the minimum, and the number of iterations. It starts at `v`, or at 0.

    Rounding of losses ends L-BFGS at a gradient of about sqrt(1e-16) of the first one; where l2 is
    small, it creeps. So Newton's method goes on, with gradients alone and steps by conjugate ones.
    """
    from scipy.optimize import minimize
    from scipy.sparse.linalg import LinearOperator, cg

    def there() -> bool:
        return curve.norms[-1] <= tolerance * curve.norms[0]

    def stop(_: np.ndarray) -> None:
        if there():
            raise StopIteration

    start, shape = np.zeros(curve.unit.size), curve.unit.shape
    if v is not None:
        curve.loss(start)  # whose gradient `tolerance` is a share of
        start = (v / curve.unit).ravel()
    settings: Any = {"options": {"maxiter": most, "ftol": 0, "gtol": 0, "maxcor": HISTORY}}
    result = minimize(curve.loss, start, method="L-BFGS-B", jac=True, callback=stop, **settings)
    v, steps = curve.unit * result.x.reshape(shape), result.nit
    curve.loss(result.x)
    for _ in range(NEWTON):
        if there():
            break
        before = curve.norms[-1]
        curve.measure_at(v)
        flat = (v / curve.unit).ravel()
        gradient, product = curve.loss(flat)[1], partial(curve.curvature, v)
        hessian = LinearOperator((v.size, v.size), product, dtype=np.float64)
        step = cg(hessian, gradient, maxiter=CG, atol=1e-3 * float(np.linalg.norm(gradient)))[0]
        for _ in range(10):
            curve.loss(flat - step)
            if curve.norms[-1] < before:
                break
            step /= 2
        else:  # rounding has the last word
            break
        v, steps = curve.unit * (flat - step).reshape(shape), steps + 1
    return v, steps


class OptimumGap(Callback):
    """While a softmax head trains: how far its loss is above the optimum, in the logs as 'gap'.

        gap = L(W, b) - min L,    over all of x, after each epoch

    x, y and sample_weight are those given to `fit`; verbose=1 prints the optimum at the beginning.
    The model ends in Dense(m, activation='softmax', kernel_regularizer=L2(l2)); what comes before
    is frozen. `fit` raises ValueError when the model or its loss is another.
    """

    def __init__(self, x: Any, y: Any, sample_weight: Any = None, verbose: int = 0):
        self.x, self.y, self.sample_weight, self.verbose = x, y, sample_weight, verbose
        self.optimum: Head | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.head, before = _head_of(self.model)
        self.f = self.x if before is None else before.predict(self.x, verbose=0)
        self.l2 = self.head.kernel_regularizer.l2
        self.optimum = solve_head(self.f, self.y, self.l2, self.sample_weight)
        if self.verbose:
            _, _, loss, norm, iterations = self.optimum
            text = f"loss {loss:.6f}, gradient {norm:.1e} after {iterations} iterations"
            print(f"Optimum of the head: {text}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        kernel, bias = self.head.kernel.storage, self.head.bias.storage
        now = head_loss(self.f, self.y, kernel, bias, self.l2, self.sample_weight)
        if logs is not None and self.optimum is not None:
            logs["gap"] = now - self.optimum.loss


def _head_of(model: Any) -> tuple[Dense, Model | None]:
    """The softmax head at the model's end, and the model of what comes before it, if anything."""
    call, loss = model.outputs[0].call, model.compiled.losses[0]
    head, below = call.layer, call.inputs[0]
    softmax = isinstance(head, Dense) and head.activation is ops.softmax and head.use_bias
    penalty = getattr(head, "kernel_regularizer", None)
    learns, own = ({id(v) for v in found} for found in (model.trainable_weights, head.weights))
    known = (losses.CategoricalCrossentropy, losses.SparseCategoricalCrossentropy)
    mean = isinstance(loss, known) and loss.reduction == "sum_over_batch_size"
    plain = mean and not getattr(loss, "label_smoothing", 0)
    right = {
        "one output": len(model.outputs) == 1,
        "Dense(m, activation='softmax') at its end": softmax and len(below.shape) == 2,
        "a kernel_regularizer L2(l2) on it": isinstance(penalty, L2),
        "nothing else that learns": learns == own,
        "the loss categorical_crossentropy, with its defaults": plain,
    }
    if missing := [what for what, there in right.items() if not there]:
        what = f"{model.name!r} lacks {'; '.join(missing)}"
        raise ValueError(f"the optimum is known for a convex loss only: {what}")
    if any(below is t for t in model.inputs):
        return head, None
    return head, Model(model.input, below, name=f"{model.name}_below_head")


guard(globals())
