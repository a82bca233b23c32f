"""Every op: its value, its gradient by random directions, its Jacobian, its ties and kinks.

CASES lists inputs for ops. One that no layer uses and that has no case here fails the suite.
"""

import inspect
import re
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from minitl import kernels, layers, ops
from minitl.autograd import Tensor, Variable, backward, no_grad
from minitl.judging.gradients import check_gradients


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def positive(*shape):
    return np.random.default_rng(1).uniform(0.5, 2.0, shape)


def apart(*shape):
    """Numbers at least 0.1 apart and at least 0.05 from 0: no tie or kink comes within a step."""
    n = int(np.prod(shape))
    return (np.random.default_rng(2).permutation(n) - n // 2 + 0.5).reshape(shape) * 0.1


TARGETS = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
MAPS, MAPPED = normal(2, 2, 3, seed=3), normal(2, 3, 5, 2)

OF_NUMBERS = (
    "square rsqrt reciprocal log1p log2 log10 expm1 sin cos tan arctan sinh cosh erf "
    "abs copy convert_to_tensor array floats ravel sort amax amin tril triu flip prod "
    "var std logsumexp cumsum norm "
)

# op: [(name of the case, function of the differentiable inputs, those inputs)]
CASES: dict[str, list[tuple]] = {
    "add": [("", ops.add, [normal(2, 3), normal(3)]), ("scalar", ops.add, [normal(2), normal()])],
    "subtract": [("", ops.subtract, [normal(2, 3), normal(2, 1)])],
    "multiply": [("", ops.multiply, [normal(2, 3), normal(1, 3)])],
    "divide": [("", ops.divide, [normal(2, 3), positive(3)])],
    "negative": [("", ops.negative, [normal(2, 3)])],
    "power": [
        ("3", lambda x: ops.power(x, 3), [normal(2, 3)]),
        ("-0.5", lambda x: ops.power(x, -0.5), [positive(2, 3)]),
        ("tensor", ops.power, [positive(2, 3), normal(3)]),
    ],
    "exp": [("", ops.exp, [normal(2, 3)])],
    "log": [("", ops.log, [positive(2, 3)])],
    "sqrt": [("", ops.sqrt, [positive(2, 3)])],
    "clip": [("", lambda x: ops.clip(x, -0.2, 0.2), [apart(3, 4)])],
    "matmul": [
        ("", ops.matmul, [normal(2, 3), normal(3, 4)]),
        ("stacks", ops.matmul, [normal(2, 2, 3), normal(3, 4)]),
    ],
    "sum": [
        ("all", ops.sum, [normal(2, 3)]),
        ("axis", lambda x: ops.sum(x, axis=-1), [normal(2, 3)]),
        ("axes", lambda x: ops.sum(x, axis=(0, 2)), [normal(2, 3, 2)]),
        ("keepdims", lambda x: ops.sum(x, axis=1, keepdims=True), [normal(2, 3)]),
    ],
    "mean": [
        ("all", ops.mean, [normal(2, 3)]),
        ("axes", lambda x: ops.mean(x, axis=(1, 2)), [normal(2, 3, 2, 2)]),
        ("keepdims", lambda x: ops.mean(x, axis=0, keepdims=True), [normal(2, 3)]),
    ],
    "max": [
        ("all", ops.max, [apart(2, 3)]),
        ("axes", lambda x: ops.max(x, axis=(1, 2)), [apart(2, 3, 2, 2)]),
    ],
    "absolute": [("", ops.absolute, [apart(2, 3)])],
    "maximum": [
        ("", ops.maximum, [apart(2, 3), apart(2, 3)[::-1] + 0.03]),
        ("a number", lambda x: ops.maximum(x, 0.2), [apart(2, 3)]),
    ],
    "normalize": [
        ("", lambda x: ops.normalize(x, epsilon=1e-7), [normal(2, 3)]),
        ("short", lambda x: ops.normalize(x, epsilon=10.0), [normal(2, 3)]),
    ],
    "transpose": [("", lambda x: ops.transpose(x, (2, 0, 1)), [normal(2, 3, 4)])],
    "reshape": [("", lambda x: ops.reshape(x, (3, -1)), [normal(2, 3)])],
    "getitem": [
        ("slice", lambda x: x[1:, ::2], [normal(3, 4)]),
        ("reversed", lambda x: x[:, ::-1], [normal(3, 4)]),
        ("repeated", lambda x: ops.getitem(x, np.array([0, 2, 0])), [normal(3, 2)]),
        ("mask", lambda x: x[np.array([True, False, True])], [normal(3, 2)]),
        ("one", lambda x: x[1, 2], [normal(3, 4)]),
    ],
    "concatenate": [
        ("", lambda a, b: ops.concatenate([a, b], -1), [normal(2, 3), normal(2, 1)]),
        ("axis 0", lambda a, b: ops.concatenate([a, b, a], 0), [normal(2, 3), normal(1, 3)]),
    ],
    "zero_pad2d": [("", lambda x: ops.zero_pad2d(x, (1, 0, 2, 3)), [normal(1, 2, 2, 2)])],
    "relu": [
        ("", ops.relu, [apart(3, 4)]),
        ("leaky", lambda x: ops.relu(x, 0.1), [apart(3, 4)]),
        ("all", lambda x: ops.relu(x, 0.1, 0.4, 0.2), [apart(3, 4) + 0.01]),
    ],
    "sigmoid": [("", ops.sigmoid, [normal(2, 3)])],
    "tanh": [("", ops.tanh, [normal(2, 3)])],
    "softmax": [
        ("", ops.softmax, [normal(2, 3)]),
        ("three axes", ops.softmax, [normal(2, 2, 3)]),
        ("another axis", lambda x: ops.softmax(x, axis=0), [normal(2, 3)]),
    ],
    "linear": [("", ops.linear, [normal(2, 3)])],
    "dense": [
        ("", ops.dense, [normal(2, 3), normal(3, 4), normal(4)]),
        ("no bias", lambda x, w: ops.dense(x, w, None), [normal(2, 3), normal(3, 4)]),
        (
            "relu",
            lambda x, w, b: ops.dense(x, w, b, "relu"),
            [apart(3, 2), np.eye(2), np.array([0.02, -0.03])],
        ),
    ],
    "conv2d": [
        ("", ops.conv2d, [normal(2, 4, 5, 2), normal(3, 2, 2, 3, seed=1), normal(3)]),
        (
            "same, strides",
            lambda x, k, b: ops.conv2d(x, k, b, (2, 1), "same"),
            [normal(1, 4, 3, 2), normal(3, 3, 2, 2, seed=1), normal(2)],
        ),
        (
            "3x3 same",
            lambda x, k: ops.conv2d(x, k, None, (1, 1), "same"),
            [normal(1, 5, 6, 3), normal(3, 3, 3, 4, seed=1)],
        ),
        (
            "relu",
            lambda x, k, b: ops.conv2d(x, k, b, activation="relu"),
            [apart(1, 3, 3, 1), np.ones((1, 1, 1, 1)), np.array([0.02])],
        ),
    ],
    "max_pool2d": [
        ("", lambda x: ops.max_pool2d(x, (2, 2), (2, 2)), [apart(1, 4, 4, 2)]),
        ("overlap", lambda x: ops.max_pool2d(x, (3, 2), (1, 1), "same"), [apart(1, 3, 4, 2)]),
    ],
    "average_pool2d": [
        ("", lambda x: ops.average_pool2d(x, (2, 2), (2, 2)), [normal(1, 4, 4, 2)]),
        ("overlap", lambda x: ops.average_pool2d(x, (3, 2), (1, 1), "same"), [normal(1, 3, 4, 2)]),
    ],
    "batch_norm": [
        (
            "",
            lambda x, gamma, beta: ops.batch_norm(x, gamma, beta, 1e-3)[0],
            [normal(3, 2, 2, 2), positive(2), normal(2)],
        ),
        ("rows", lambda *a: ops.batch_norm(*a, 1e-3)[0], [normal(4, 3), positive(3), normal(3)]),
    ],
    "batch_norm_inference": [
        (
            "",
            lambda x, gamma, beta: ops.batch_norm_inference(
                x, gamma, beta, normal(3), np.array([2, 1, 0.5])
            ),
            [normal(2, 2, 3), normal(3), normal(3, seed=1)],
        )
    ],
    "dropout": [("", lambda x: ops.dropout(x, 0.4, np.random.default_rng(3)), [normal(3, 4)])],
    "affine_transform": [
        (mode, lambda x, m=mode: ops.affine_transform(x, MAPS, (3, 4), fill_mode=m), [MAPPED])
        for mode in ("reflect", "wrap", "constant", "nearest")
    ],
    "adjust_tone": [
        (
            "",
            lambda x: ops.adjust_tone(
                x, np.array([0.5, 1.3]), normal(2, 3), np.full(3, -0.6), np.full(3, 0.7)
            ),
            [normal(2, 3, 2, 3)],
        )
    ],
    "gaussian_noise": [
        ("", lambda x: ops.gaussian_noise(x, 0.5, np.array([3, 4])), [normal(2, 3)])
    ],
    "sum_over": [("", lambda x: ops.sum_over(x, 7.0), [normal(2, 3)])],
    "softmax_cross_entropy": [
        ("", lambda z: ops.softmax_cross_entropy(z, TARGETS.astype(z.dtype)), [normal(2, 3)])
    ],
    "sigmoid_cross_entropy": [
        ("", lambda z: ops.sigmoid_cross_entropy(z, TARGETS.astype(z.dtype)), [normal(2, 3)])
    ],
}
CASES |= {name: [("", getattr(ops, name), [positive(2, 3)])] for name in OF_NUMBERS.split()}
CASES |= {
    name: [("", getattr(ops, name), [apart(2, 3), apart(2, 3) + 0.05])]
    for name in ["minimum", "append"]
}
CASES |= {
    "gelu": [("", ops.gelu, [normal(2, 3)])],
    "silu": [("", ops.silu, [normal(2, 3)])],
    "bent": [  # what `relu` takes for arguments that are not the usual ones
        ("6", lambda x: ops.bent(x, max_value=6), [8 * apart(3, 4)]),
        ("leaky", lambda x: ops.bent(x, 0.1, 0.4, 0.2), [apart(3, 4) + 0.01]),
    ],
    "binary_crossentropy": [
        ("", lambda p: ops.binary_crossentropy([[0.2, 1.0, 0.0]], p), [positive(1, 3) / 3]),
        ("logits", lambda z: ops.binary_crossentropy([[0.2, 1, 0]], z, True), [normal(1, 3)]),
    ],
    "true_divide": [("", ops.true_divide, [normal(2, 3), positive(3)])],
    "cast": [("", lambda x: ops.cast(x, x.dtype), [normal(2, 3)])],
    "where": [("", lambda a, b: ops.where(apart(2, 3) > 0, a, b), [normal(2, 3), normal(2, 3)])],
    "expand_dims": [("", lambda x: ops.expand_dims(x, 1), [normal(2, 3)])],
    "squeeze": [("", lambda x: ops.squeeze(x, 1), [normal(2, 1, 3)])],
    "swapaxes": [("", lambda x: ops.swapaxes(x, 0, 2), [normal(2, 1, 3)])],
    "moveaxis": [("", lambda x: ops.moveaxis(x, 0, -1), [normal(2, 1, 3)])],
    "roll": [("", lambda x: ops.roll(x, 1, 1), [normal(2, 3)])],
    "repeat": [("", lambda x: ops.repeat(x, 2, 1), [normal(2, 3)])],
    "tile": [("", lambda x: ops.tile(x, (1, 2)), [normal(2, 3)])],
    "broadcast_to": [("", lambda x: ops.broadcast_to(x, (2, 2, 3)), [normal(2, 3)])],
    "take": [("", lambda x: ops.take(x, [0, 2, 0], 1), [normal(2, 3)])],
    "take_along_axis": [("", lambda x: ops.take_along_axis(x, [[1], [1]], 1), [normal(2, 3)])],
    "diagonal": [("", ops.diagonal, [normal(3, 3)])],
    "diag": [("", ops.diag, [normal(3)]), ("of", lambda x: ops.diag(x, 1), [normal(3, 3)])],
    "top_k": [("", lambda x: ops.top_k(x, 2)[0], [apart(2, 3)])],
    "split": [("", lambda x: ops.split(x, 3, 1)[1], [normal(2, 3)])],
    "stack": [("", lambda a, b: ops.stack([a, b], 1), [normal(2, 3), normal(2, 3)])],
    "unstack": [("", lambda x: ops.unstack(x)[1], [normal(2, 3)])],
    "hstack": [("", lambda a, b: ops.hstack([a, b]), [normal(2, 3), normal(2, 1)])],
    "vstack": [("", lambda a, b: ops.vstack([a, b]), [normal(2, 3), normal(3)])],
    "pad": [
        ("", lambda x: ops.pad(x, ((1, 0), (2, 1))), [normal(2, 3)]),
        ("reflect", lambda x: ops.pad(x, ((1, 0), (2, 1)), "reflect"), [normal(2, 3)]),
    ],
    "min": [("", lambda x: ops.min(x, axis=1, keepdims=True), [apart(3, 4)])],
    "average": [("", lambda a, w: ops.average(a, 1, w), [normal(2, 3), positive(2, 3)])],
    "dot": [("", ops.dot, [normal(2, 3), normal(3, 2)]), ("1", ops.dot, [normal(3), normal(3)])],
    "tensordot": [("", lambda a, b: ops.tensordot(a, b, 1), [normal(2, 3), normal(3, 2)])],
    "outer": [("", ops.outer, [normal(2), normal(3)])],
    "einsum": [("", lambda a, b: ops.einsum("bij,kj->bik", a, b), [normal(2, 2, 3), normal(2, 3)])],
    "map": [("", lambda x: ops.map(lambda row: row * row, x), [normal(2, 3)])],
    "vectorized_map": [("", lambda x: ops.vectorized_map(ops.sum, x), [normal(2, 3)])],
    "cond": [("", lambda x: ops.cond(True, lambda: x * x, lambda: x), [normal(2, 3)])],
}
ALL = [
    pytest.param(f, inputs, id=f"{op} {name}".strip())
    for op, cases in CASES.items()
    for name, f, inputs in cases
]
FILES = [ops, *(getattr(ops, file.name) for file in iter_modules(ops.__path__))]
PUBLIC = {
    name
    for file in FILES
    for name, f in inspect.getmembers(file, inspect.isfunction)
    if f.__module__ == file.__name__ and not name.startswith("_")
}
# What keeps no record, and helpers.
OTHERS = {"activation", "once", "require", "together", "compared"}
OTHERS |= {"symbolic_too", "all_symbolic_too", "enlarged"}
# What tells, counts or makes, in NumPy's words: `tests/keras_live/test_ops.py` compares them.
TOLD = (
    "all any arange argmax argmin argsort bincount ceil convert_to_numpy "
    "count_nonzero digitize equal eye identity floor floor_divide full full_like "
    "greater greater_equal histogram is_tensor isclose isfinite isin isinf isnan less "
    "less_equal linspace logical_and logical_not logical_or logical_xor logspace "
    "meshgrid mod ndim not_equal one_hot ones ones_like round searchsorted shape sign "
    "size stop_gradient zeros zeros_like "
)
OTHERS |= set(TOLD.split())
# What layers do: `tests/layers/test_gradients.py` has a case of each of them.
IN_LAYERS = {
    name
    for file in Path(layers.__file__).parent.rglob("*.py")
    for name in re.findall(r"\b(?:ops|recurrence)\.(\w+)", file.read_text("utf-8"))
}


# Other names of the very same functions.
ALIASES = {"abs": "absolute", "amax": "max", "copy": "convert_to_tensor", "true_divide": "divide"}


def test_every_op_has_a_gradient_test():
    assert CASES.keys() - ALIASES.keys() <= PUBLIC
    assert CASES.keys() | IN_LAYERS >= PUBLIC - OTHERS
    for name, op in ALIASES.items():
        assert name not in PUBLIC and op in PUBLIC, name
        assert getattr(ops, name) is getattr(ops, op), name


@pytest.mark.parametrize("kind", ["fast", "reference"])
@pytest.mark.parametrize(("f", "inputs"), ALL)
def test_gradient(f, inputs, kind):
    with kernels.use_kernels(kind):
        for seed in range(3):
            check_gradients(f, inputs, seed, tolerance=1e-6)


def jacobian(f, inputs, i=0):
    """The full matrix d f / d inputs[i], shape (y.size, inputs[i].size), one row at a time.

    Each row is one `backward` with a unit cotangent, so this is for tiny shapes.
    """
    arrays = [np.array(a, dtype=np.float64) for a in inputs]
    rows, size = [], 1
    while len(rows) < size:
        tensors = [Tensor(a, requires_grad=j == i) for j, a in enumerate(arrays)]
        y = f(*tensors)
        size = y.storage.size
        unit = np.eye(1, size, len(rows)).reshape(y.shape)
        rows.append(backward(y, [tensors[i]], unit)[0].ravel())
    return np.stack(rows)


def test_jacobian():
    a, b = np.array([[1.0, 2.0]]), np.array([[3.0, 4.0], [5.0, 6.0]])
    assert jacobian(ops.matmul, [a, b]).tolist() == b.T.tolist()
    assert jacobian(ops.matmul, [a, b], 1).tolist() == [[1, 0, 2, 0], [0, 1, 0, 2]]


@pytest.mark.parametrize(("f", "inputs"), ALL)
def test_full_jacobian(f, inputs):
    with no_grad():
        size = f(*map(Tensor, inputs)).storage.size
    for i, a in enumerate(inputs):
        columns = []
        for place in np.ndindex(a.shape):
            step = np.zeros(a.shape)
            step[place] = 1e-6
            with no_grad():
                ahead, behind = (
                    f(*(Tensor(b + s * step if j == i else b) for j, b in enumerate(inputs)))
                    for s in (1, -1)
                )
            columns.append((ahead.storage - behind.storage).ravel() / 2e-6)
        expected = np.stack(columns, axis=1).reshape(size, a.size)
        np.testing.assert_allclose(jacobian(f, inputs, i), expected, atol=2e-8, rtol=2e-8)


@pytest.mark.parametrize(("f", "inputs"), ALL)
def test_float32_stays_float32_in_value_and_gradient(f, inputs):
    tensors = [Tensor(a.astype(np.float32), requires_grad=True) for a in inputs]
    y = f(*tensors)
    assert y.dtype == np.float32
    assert all(g.dtype == np.float32 for g in backward(y, tensors, np.ones(y.shape)))


@pytest.mark.parametrize(("f", "inputs"), ALL)
def test_inputs_are_left_alone(f, inputs):
    copies = [a.copy() for a in inputs]
    tensors = [Tensor(a, requires_grad=True) for a in inputs]
    y = f(*tensors)
    backward(y, tensors, normal(*y.shape))
    assert all(np.array_equal(a, b) for a, b in zip(inputs, copies, strict=True))


@pytest.mark.parametrize(("f", "inputs"), [p for p in ALL if len(p.values[1]) > 1])
def test_a_frozen_input_changes_no_other_gradient(f, inputs):
    def gradients(wanted):
        tensors = [Tensor(a, requires_grad=i in wanted) for i, a in enumerate(inputs)]
        y = f(*tensors)
        return dict(
            zip(wanted, backward(y, [tensors[i] for i in wanted], normal(*y.shape)), strict=True)
        )

    together = gradients(range(len(inputs)))
    for i in range(len(inputs)):
        np.testing.assert_array_equal(gradients([i])[i], together[i])


# --- Values --------------------------------------------------------------------------------------

x34 = normal(3, 4)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (ops.sigmoid(x34), scipy.special.expit(x34)),
        (ops.softmax(x34), scipy.special.softmax(x34, axis=-1)),
        (ops.max(x34, axis=0), x34.max(axis=0)),
        (ops.mean(x34, axis=1), x34.mean(axis=1)),
        (ops.power(positive(3), -2), positive(3) ** -2.0),
        (ops.clip(x34, -0.5, 0.5), np.clip(x34, -0.5, 0.5)),
        (ops.dense(x34, Tensor(x34.T), Tensor(normal(3))), x34 @ x34.T + normal(3)),
        (
            ops.dense(x34, Tensor(x34.T), Tensor(normal(3)), "relu"),
            np.maximum(x34 @ x34.T + normal(3), 0),
        ),
        (ops.zero_pad2d(np.ones((1, 1, 1, 1)), (0, 1, 1, 0)), [[[[0], [1]], [[0], [0]]]]),
        (ops.getitem(x34, (slice(None), 1)), x34[:, 1]),
        (ops.concatenate([x34, x34[:, :1]], -1), np.concatenate([x34, x34[:, :1]], axis=-1)),
        (
            ops.batch_norm_inference(
                x34, Tensor(normal(4)), Tensor(np.ones(4)), normal(4), np.full(4, 0.5)
            ),
            normal(4) * (x34 - normal(4)) * 0.5 + 1,
        ),
    ],
)
def test_value(tensor, expected):
    np.testing.assert_allclose(tensor.storage, expected, rtol=1e-14)


def test_batch_norm_value_and_statistics():
    x = normal(4, 3)
    y, mean, variance = ops.batch_norm(x, Tensor(np.full(3, 2.0)), Tensor(np.ones(3)), 1e-3)
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(variance, x.var(axis=0), rtol=1e-12)
    expected = 2 * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-3) + 1
    np.testing.assert_allclose(y.storage, expected, rtol=1e-12)


def test_dropout_keeps_the_expected_sum_and_repeats_with_its_generator():
    x = np.ones((100, 200), np.float32)
    y = ops.dropout(x, 0.25, np.random.default_rng(0)).storage
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    # 20,000 draws: the fraction dropped has a standard deviation of 0.003.
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.015)
    assert np.array_equal(y, ops.dropout(x, 0.25, np.random.default_rng(0)).storage)
    assert not np.array_equal(y, ops.dropout(x, 0.25, np.random.default_rng(1)).storage)


@given(st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=5))
@settings(max_examples=50)
def test_cross_entropies_are_finite_for_any_logit(logits):
    z = np.array([logits])
    targets = np.zeros_like(z)
    targets[0, 0] = 1
    for op in (ops.softmax_cross_entropy, ops.sigmoid_cross_entropy):
        t = Tensor(z, requires_grad=True)
        loss = op(t, targets)
        assert np.all(np.isfinite(loss.storage)) and np.all(loss.storage >= 0)
        (g,) = backward(loss, [t], np.ones(loss.shape))
        assert np.all(np.isfinite(g)) and np.all(np.abs(g) <= 1)


def test_softmax_cross_entropy_is_minus_log_softmax():
    z = normal(2, 3)
    expected = -(TARGETS * scipy.special.log_softmax(z, axis=1)).sum(axis=1)
    np.testing.assert_allclose(ops.softmax_cross_entropy(z, TARGETS).storage, expected, rtol=1e-14)


def test_sigmoid_does_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        assert ops.sigmoid(np.array([-1e4, 0.0, 1e4])).storage.tolist() == [0, 0.5, 1]


def test_a_convolution_tells_its_kernel_whether_gradients_will_be_asked(monkeypatch):
    told, convolve = [], kernels.conv2d
    monkeypatch.setattr(kernels, "conv2d", lambda *a: told.append(a[-1]) or convolve(*a))
    x, frozen = Tensor(np.ones((1, 4, 4, 2))), Tensor(np.ones((3, 3, 2, 2)))
    trained = Tensor(frozen.storage, requires_grad=True)
    ops.conv2d(x, frozen)
    ops.conv2d(x, trained)
    ops.conv2d(ops.conv2d(x, trained), Tensor(np.ones((1, 1, 2, 2))))  # what is below is trained
    with no_grad():
        ops.conv2d(x, trained)
    assert told == [False, True, True, True, False]


# --- Ties and kinks: one rule each ---------------------------------------------------------------


def gradient_of(f, x):
    t = Tensor(np.asarray(x, dtype=np.float64), requires_grad=True)
    y = f(t)
    return backward(y, [t], np.ones(y.shape))[0].tolist()


@pytest.mark.parametrize("kind", ["fast", "reference"])
def test_rules_for_ties_and_kinks(kind):
    with kernels.use_kernels(kind):
        assert gradient_of(ops.relu, [-1, 0, 1]) == [0, 0, 1]
        assert gradient_of(lambda x: ops.clip(x, 0, 1), [-1, 0, 0.5, 1, 2]) == [0, 1, 1, 1, 0]
        assert gradient_of(ops.max, [1, 3, 3]) == [0, 0.5, 0.5]
        tie = np.ones((1, 2, 2, 1))
        first = gradient_of(lambda x: ops.max_pool2d(x, (2, 2), (2, 2)), tie)
        assert np.ravel(first).tolist() == [1, 0, 0, 0]
        fused = gradient_of(lambda x: ops.dense(x, Tensor(np.eye(2)), None, "relu"), [[0, 1]])
        assert fused == [[0, 1]]
        assert gradient_of(lambda x: x**0, [0, 2]) == [0, 0]
        assert gradient_of(lambda x: x**1, [0, 2]) == [1, 1]
        assert gradient_of(lambda x: x**2, [0, 2]) == [0, 4]


# --- Edges that are not there cost nothing -------------------------------------------------------


WITH_GRADIENTS = (
    "conv2d_input_gradient",
    "conv2d_kernel_gradient",
    "bias_gradient",
    "relu_gradient",
    "bias_relu_gradient",
)


def test_only_the_gradients_that_are_wanted_are_computed(monkeypatch):
    calls = []
    for name in WITH_GRADIENTS:
        original = getattr(kernels, name)

        def counted(*args, name=name, original=original):
            calls.append(name)
            return original(*args)

        monkeypatch.setattr(kernels, name, counted)
    x = Tensor(normal(1, 4, 4, 2))
    kernel, bias = Variable(normal(3, 3, 2, 2)), Variable(normal(2))
    kernel.trainable = False
    y = ops.conv2d(x, kernel, bias)
    backward(y, [bias], np.ones(y.shape))
    assert calls == ["bias_gradient"]

    calls.clear()
    y = ops.conv2d(x, kernel, bias, activation="relu")
    backward(y, [bias], np.ones(y.shape))
    assert calls == ["bias_relu_gradient"]

    calls.clear()
    kernel.trainable = True
    y = ops.conv2d(x, kernel, bias, activation="relu")
    backward(y, [kernel, bias], np.ones(y.shape))
    assert calls == ["bias_relu_gradient", "conv2d_kernel_gradient"]

    calls.clear()
    bias.trainable = False
    y = ops.conv2d(x, kernel, bias, activation="relu")
    backward(y, [kernel], np.ones(y.shape))
    assert calls == ["relu_gradient", "conv2d_kernel_gradient"]


def test_pool_without_gradient_looks_for_no_winners(monkeypatch):
    def forbidden(*_):
        raise AssertionError("the winners are not needed")

    monkeypatch.setattr(kernels, "max_pool2d_with_winners", forbidden)
    ops.max_pool2d(Tensor(normal(1, 4, 4, 2)), (2, 2), (2, 2))


# --- Bad input -----------------------------------------------------------------------------------

T = Tensor


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ops.matmul(T(x34), T(x34)),
            r"matmul takes \(..., N, D\) and \(..., D, m\).*\(3, 4\)",
        ),
        (
            lambda: ops.dense(x34, T(np.ones((3, 2))), None),
            r"dense takes x \(N, D\), kernel \(D, m\).*\(3, 4\) float64, \(3, 2\) float64",
        ),
        (lambda: ops.dense(x34, T(np.ones((4, 2))), T(np.ones(1))), r"dense takes.*\(1,\)"),
        (lambda: ops.dense(x34, T(np.ones((4, 2), np.float32)), None), "one dtype; got.*float32"),
        (lambda: ops.conv2d(x34, T(np.ones((3, 3, 4, 2)))), r"conv2d takes images.*\(3, 4\)"),
        (
            lambda: ops.conv2d(np.ones((1, 4, 4, 3)), T(np.ones((3, 3, 2, 2)))),
            r"\(KH, KW, C, F\).*\(1, 4, 4, 3\) float64, \(3, 3, 2, 2\)",
        ),
        (
            lambda: ops.conv2d(np.ones((1, 4, 4, 2)), T(np.ones((3, 3, 2, 2))), T(np.ones(1))),
            r"bias \(F,\).*\(1,\)",
        ),
        (
            lambda: ops.conv2d(np.ones((1, 2, 2, 2)), T(np.ones((3, 3, 2, 2)))),
            "window of 3x3 does not fit into an image of 2x2",
        ),
        (lambda: ops.max_pool2d(x34, (2, 2), (2, 2)), r"max_pool2d takes images.*\(3, 4\)"),
        (lambda: ops.average_pool2d(x34, (2, 2), (2, 2)), "average_pool2d takes images"),
        (
            lambda: ops.affine_transform(x34, np.zeros((3, 2, 3)), (2, 2)),
            r"affine_transform takes images .* matrix \(2, 3\) for each",
        ),
        (
            lambda: ops.affine_transform(np.ones((1, 2, 2, 1)), np.full((1, 2, 3), np.nan), (2, 2)),
            "matrices of finite, moderate numbers",
        ),
        (
            lambda: ops.adjust_tone(np.ones((1, 2, 2, 1)), *[np.ones(1)] * 4),
            "adjust_tone takes images",
        ),
        (lambda: ops.zero_pad2d(x34, (1, 1, 1, 1)), "zero_pad2d takes images"),
        (
            lambda: ops.batch_norm_inference(
                x34, T(np.ones(3)), T(np.ones(3)), np.ones(4), np.ones(4)
            ),
            r"batch_norm_inference takes x \(..., C\)",
        ),
        (lambda: ops.batch_norm(x34, T(np.ones(3)), T(np.ones(3)), 0.1), "batch_norm takes"),
        (lambda: ops.softmax_cross_entropy(x34, np.ones((3, 1))), r"targets \(N, m\).*\(3, 1\)"),
        (lambda: ops.sigmoid_cross_entropy(x34, np.ones((3, 1))), "targets of one shape"),
    ],
)
def test_shapes_that_do_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pad_takes_a_mode_that_there_is():
    with pytest.raises(ValueError, match=r"^pad: mode is one of constant, edge.*got '\\x1b\[31m'"):
        ops.pad(np.zeros((2, 2)), 1, "\x1b[31m")
