"""The loops over time: the formulas step by step, gradients, freezing, threads."""

import numpy as np
import pytest

from minitl import kernels, ops
from minitl.autograd import Tensor, backward
from minitl.judging.gradients import check_gradients
from minitl.kernels.fast import recurrence as compiled
from minitl.kernels.machine import threads
from minitl.ops import recurrence
from minitl.ops.recurrence import gru, gru_reset_before, lstm

T, N, U = 4, 3, 5


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def masks(gates):
    return np.random.default_rng(1).integers(0, 2, (gates, N, U)) / 0.5


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_as_written(z, kernel, masks):
    h, c, found = np.zeros((N, U)), np.zeros((N, U)), []
    for step in z:
        i, f, k, o = (
            step[:, gate * U : (gate + 1) * U] + (h * m) @ kernel[:, gate * U : (gate + 1) * U]
            for gate, m in enumerate(masks)
        )
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(k)
        h = sigmoid(o) * np.tanh(c)
        found.append(h)
    return np.stack([*found, c])


def gru_as_written(z, kernel, bias, masks, before):
    h, found = np.zeros((N, U)), []
    for step in z:
        z_u, z_r, z_k = np.split(step, 3, axis=1)
        kernels_ = np.split(kernel, 3, axis=1)
        q = [(h * m) @ k + b for m, k, b in zip(masks, kernels_, np.split(bias, 3), strict=True)]
        u, r = sigmoid(z_u + q[0]), sigmoid(z_r + q[1])
        inner = (r * h * masks[2]) @ kernels_[2] if before else r * q[2]
        h = u * h + (1 - u) * np.tanh(z_k + inner)
        found.append(h)
    return np.stack(found)


@pytest.mark.parametrize("dropped", [False, True])
def test_forward_is_the_formula(dropped):
    z, kernel, m = normal(T, N, 4 * U), normal(U, 4 * U, seed=1), masks(4)
    found = lstm(Tensor(z), Tensor(kernel), masks=m if dropped else None).storage
    expected = lstm_as_written(z, kernel, m if dropped else np.ones_like(m))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)

    z, kernel, bias, m = normal(T, N, 3 * U), normal(U, 3 * U, seed=1), normal(3 * U), masks(3)
    given = m if dropped else None
    ones = m if dropped else np.ones_like(m)
    found = gru(Tensor(z), Tensor(kernel), Tensor(bias), masks=given).storage
    expected = gru_as_written(z, kernel, bias, ones, before=False)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    found = gru_reset_before(Tensor(z), Tensor(kernel), masks=given).storage
    expected = gru_as_written(z, kernel, 0 * bias, ones, before=True)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("activation", recurrence.FORMULAS, ids=lambda f: f.__name__)
def test_gradients(activation, dropped):
    counting = normal(T, N, 1) > 0 if dropped else None
    for gate in (ops.sigmoid, ops.tanh):
        settings = (activation, gate, masks(4) if dropped else None, counting)
        inputs = [normal(T, N, 4 * U), normal(U, 4 * U, seed=1) / 3]
        check_gradients(lambda z, k, how=settings: lstm(z, k, *how), inputs)
        settings = (activation, gate, masks(3) if dropped else None, counting)
        inputs = [normal(T, N, 3 * U), normal(U, 3 * U, seed=1) / 3]
        check_gradients(lambda z, k, how=settings: gru_reset_before(z, k, *how), inputs)
        check_gradients(lambda z, k, b, how=settings: gru(z, k, b, *how), [*inputs, normal(3 * U)])


def test_a_frozen_recurrent_kernel_has_no_edge():
    z = Tensor(normal(T, N, 4 * U), requires_grad=True)
    y = lstm(z, Tensor(normal(U, 4 * U)))
    assert len(y.node.edges) == 1
    assert not lstm(Tensor(z.storage), Tensor(normal(U, 4 * U))).requires_grad


def test_long_sequences_do_not_overflow():
    z = np.full((300, 1, 4), 1e4, np.float32) * np.array([1, 1, 1, -1], np.float32)
    with np.errstate(all="raise", under="ignore"):
        y = lstm(Tensor(z), Tensor(np.ones((1, 4), np.float32)))
    assert np.isfinite(y.storage).all()


@pytest.mark.parametrize(
    ("op", "z", "kernel"),
    [(lstm, (2, 3, 12), (4, 16)), (lstm, (3, 16), (4, 16)), (gru, (2, 3, 12), (4, 16))],
)
def test_shapes_that_do_not_fit(op, z, kernel):
    with pytest.raises(ValueError, match=r"takes z \(T, N, .U\) and a recurrent kernel"):
        op(Tensor(np.zeros(z)), Tensor(np.zeros(kernel)))


def test_bits_do_not_depend_on_threads():
    z = normal(10, 32, 4 * 64).astype(np.float32)
    kernel = normal(64, 4 * 64).astype(np.float32)
    cotangent = normal(11, 32, 64).astype(np.float32)
    found = []
    before = threads.thread_count()
    try:
        for count in (1, 2, 5):
            threads.set_thread_count(count)
            leaves = [Tensor(z, requires_grad=True), Tensor(kernel, requires_grad=True)]
            y = lstm(*leaves)
            found.append([y.storage, *backward(y, leaves, cotangent)])
    finally:
        threads.set_thread_count(before)
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(("op", "gates"), [(lstm, 4), (gru, 3)])
@pytest.mark.parametrize("n", [1, 5, 33, 100])
def test_the_compiled_loops_are_the_formulas(op, gates, n, monkeypatch):
    """In float32, of units that fill vectors, the gradients and the states are as near to those of
    float64 as the formulas' in float32, but for a factor of three: their tanh is NumPy's, right to
    1.4 units in the last place, and that of the loops to 4.8."""
    units = 48
    z, kernel = normal(5, n, gates * units), normal(units, gates * units, seed=1) / 7
    given = [z, kernel, normal(gates * units, seed=2)][: 3 if op is gru else 2]
    called = []
    for name in ("_lstm", "_lstm_back", "_gru", "_gru_back"):
        run = getattr(compiled, name)
        monkeypatch.setattr(
            compiled, name, lambda *a, run=run, name=name: called.append(name) or run(*a)
        )

    def found(which, dtype):
        with kernels.use_kernels(which):
            leaves = [Tensor(a.astype(dtype), requires_grad=True) for a in given]
            y = op(*leaves)
            cotangent = normal(*y.shape, seed=3).astype(dtype)
            return [y.storage, *backward(y, leaves, cotangent)]

    exact, fast = found("reference", np.float64), found("fast", np.float32)
    assert called == [f"_{op.__name__}", f"_{op.__name__}_back"]
    for right, one, other in zip(exact, fast, found("reference", np.float32), strict=True):
        bound = max(abs(other - right).max(), np.spacing(np.float32(abs(right).max())))
        assert abs(one - right).max() <= 3 * bound
    assert called == [f"_{op.__name__}", f"_{op.__name__}_back"]


def test_not_a_number_goes_on():
    z = np.ones((3, 2, 64), np.float32)
    z[1, 0, 5] = np.nan
    y = lstm(Tensor(z), Tensor(np.full((16, 64), 0.01, np.float32))).storage
    assert np.isfinite(y[0]).all() and np.isfinite(y[:, 1]).all()
    assert np.isnan(y[1, 0, 5]) and np.isnan(y[2, 0]).all()
