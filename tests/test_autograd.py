"""The engine: order, sums, broadcasting, memory, and what it says when something is wrong."""

import contextlib
import gc
import io
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl import ops
from minitl.autograd import Tensor, Variable, backward, no_grad, record
from minitl.judging.gradients import print_graph


def leaf(value, dtype=np.float64):
    return Tensor(np.asarray(value, dtype), requires_grad=True)


# --- Order and sums ------------------------------------------------------------------------------


def test_shared_node_waits_for_all_its_consumers():
    a = leaf(3.0)
    b = a + a
    c = b + b
    assert backward(c, [a])[0] == 4


def test_diamonds_cost_one_visit_each():
    """60 diamonds in a row have 2^60 paths; each node is visited once."""
    visits = 0

    def counted(g):
        nonlocal visits
        visits += 1
        return g

    x = top = leaf(1.0)
    for _ in range(60):
        x = record("double", x.storage * 2, (x, counted), (x, counted))
    assert backward(x, [top])[0] == 2.0**60
    assert visits == 120


def test_long_and_short_way_to_one_tensor():
    a = leaf(2.0)
    long = a
    for _ in range(5):
        long = long * 1.5
    assert backward(long * a + a, [a])[0] == pytest.approx(2 * 1.5**5 * 2 + 1)


def test_twenty_thousand_chained_ops():
    x = top = leaf([1.0, 2.0])
    for _ in range(20_000):
        x = x + 1.0
    assert backward(x, [top], [3.0, 4.0])[0].tolist() == [3.0, 4.0]
    del x  # and the record of a chain as long can be dropped, used up or not
    y = top
    for _ in range(20_000):
        y = y + 1.0
    del y


def test_intermediate_tensors_and_the_start_can_be_inputs():
    a = leaf([1.0, 2.0])
    b = a * 3.0
    c = (b * b).sum()
    da, db, dc = backward(c, [a, b, c])
    assert da.tolist() == [18.0, 36.0] and db.tolist() == [6.0, 12.0] and dc == 1


def test_what_does_not_reach_y_gets_zeros():
    a, b = leaf([1.0, 2.0]), leaf([[1.0]])
    da, db = backward((a * 2.0).sum(), [a, b])
    assert da.tolist() == [2.0, 2.0] and db.tolist() == [[0.0]]


@given(st.data())
def test_random_graphs_equal_finite_differences(data):
    """Random expressions of a few ops over three inputs, with sharing and broadcasting."""
    seed = data.draw(st.integers(0, 2**20))
    picks = data.draw(st.lists(st.tuples(*[st.integers(0, 99)] * 3), min_size=1, max_size=8))

    def f(*inputs):
        known = list(inputs)
        for op, i, j in picks:
            a, b = known[i % len(known)], known[j % len(known)]
            known.append([a + b, a - b, a * b, ops.tanh(a), ops.sigmoid(a) * b][op % 5])
        return known[-1] + 0.5 * known[-1]

    rng = np.random.default_rng(seed)
    inputs = [rng.standard_normal(shape) * 0.5 for shape in [(2, 3), (3,), (2, 1)]]
    tensors = [Tensor(a, requires_grad=True) for a in inputs]
    y = f(*tensors)
    used = [t for t in tensors if y.requires_grad]
    gradients = backward(y, used, np.ones(y.shape)) if used else []
    for i, gradient in enumerate(gradients):
        h = rng.standard_normal(inputs[i].shape)
        with no_grad():
            ahead, behind = (
                f(*(a + s * 1e-5 * h if i == j else a for j, a in enumerate(map(Tensor, inputs))))
                for s in (1, -1)
            )
        slope = (ahead.storage - behind.storage).sum() / 2e-5
        assert slope == pytest.approx((gradient * h).sum(), rel=1e-5, abs=1e-6)


# --- Broadcasting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shapes",
    [
        [(3, 4), (4,)],
        [(4,), (3, 4)],
        [(3, 1), (1, 4)],
        [(), (2, 3)],
        [(1,), (5,)],
        [(2, 1, 3), (4, 1)],
        [(1, 1), (1, 1, 1)],
        [(0, 3), (1, 3)],
    ],
)
def test_broadcasting_is_undone(shapes):
    a, b = (leaf(np.ones(s)) for s in shapes)
    y = a * b
    da, db = backward(y, [a, b], np.ones(y.shape))
    assert da.shape == a.shape and db.shape == b.shape
    assert np.all(da == y.storage.size / max(a.storage.size, 1))
    assert np.all(db == y.storage.size / b.storage.size)


# --- What goes wrong is named --------------------------------------------------------------------


def test_used_up_record():
    a = leaf(2.0)
    y = a * a
    backward(y, [a])
    with pytest.raises(ValueError, match=r"'multiply' has been used up by an earlier backward"):
        backward(y, [a])


def test_a_record_that_is_partly_used_up_changes_nothing():
    a = leaf(2.0)
    b = ops.exp(a)
    y = b * 3.0
    backward(b, [a])
    with pytest.raises(ValueError, match="'exp' has been used up"):
        backward(y, [a])
    assert y.node.edges is not None  # found before the walk began


def test_wrong_cotangents():
    a = leaf([1.0, 2.0])
    with pytest.raises(ValueError, match=r"shape \(2,\) needs a cotangent of that shape"):
        backward(a * 2.0, [a])
    with pytest.raises(ValueError, match=r"cotangent has shape \(3,\), but y has shape \(2,\)"):
        backward(a * 2.0, [a], np.ones(3))


def test_input_without_gradient():
    a, b = leaf(1.0), Tensor(1.0)
    with pytest.raises(ValueError, match=r"input 1 of backward does not require a gradient"):
        backward(a * b, [a, b])


@pytest.mark.parametrize("bad", [np.ones((3, 2)), np.ones(5), np.ones((2, 3), np.float32)])
def test_wrong_vjp_is_named(bad):
    a, b = leaf(np.ones((2, 3))), leaf(np.ones((2, 3)))
    y = record("faulty", np.ones((2, 3)), (a, lambda g: g), (b, lambda g: bad))
    with pytest.raises(ValueError, match=r"'faulty' returned a gradient of shape .* input 1"):
        backward(y, [a, b], np.ones((2, 3)))


def test_integers_have_no_gradients():
    with pytest.raises(TypeError, match="requires_grad: only floats have gradients, not int64"):
        Tensor([1, 2], requires_grad=True)


# --- Memory --------------------------------------------------------------------------------------


def kept_alive(x, drop):
    """A copy of x's numbers as the output of an op that keeps it, and a weak reference to it.

    `drop` gets the numbers of living references, each time a gradient passes.
    """
    kept = x.storage * 1.0
    reference = weakref.ref(kept)

    def vjp(g):
        drop.append(reference)
        return g + 0 * kept

    return record("keeper", kept, (x, vjp)), reference


def test_activations_are_freed_as_backward_proceeds():
    passed, references, seen = [], [], []
    x = top = leaf(np.ones(10))
    for _ in range(6):
        x, reference = kept_alive(x, passed)
        references.append(reference)

        def count(g, references=references):
            seen.append(sum(r() is not None for r in references))
            return g

        x = record("count", x.storage + 0, (x, count))
    y = x.sum()
    del x
    assert all(r() is not None for r in references)
    backward(y, [top])
    # When the i-th counter runs, what the steps above it kept is gone already.
    assert seen == [6, 5, 4, 3, 2, 1]
    assert all(r() is None for r in references)


@pytest.mark.parametrize("how", ["no_grad", "frozen"])
def test_nothing_is_kept_when_no_gradient_is_wanted(how):
    gc.disable()  # it must not need the collector
    try:
        w = Variable(np.ones((3, 3)))
        w.trainable = how != "frozen"
        with no_grad() if how == "no_grad" else contextlib.nullcontext():
            hidden = ops.dense(Tensor(np.ones((2, 3))), w, None)
            kept = weakref.ref(hidden.storage)
            y = ops.relu(hidden)
        del hidden
        assert y.node is None and not y.requires_grad
        assert kept() is None
    finally:
        gc.enable()


def test_no_grad_ends_with_its_block_and_after_an_error():
    a = leaf(1.0)
    with pytest.raises(RuntimeError), no_grad():
        raise RuntimeError
    assert (a * 2.0).requires_grad


def test_adds_in_place_only_into_its_own_arrays():
    """The first gradient that reaches a tensor may be somebody else's array."""
    a = leaf([1.0, 2.0])
    given_to_a = np.array([10.0, 20.0])
    cotangent = np.array([1.0, 1.0])
    y = record("f", a.storage + 0, (a, lambda g: given_to_a)) + a + a + a
    (gradient,) = backward(y, [a], cotangent)
    assert gradient.tolist() == [13.0, 23.0]
    assert given_to_a.tolist() == [10.0, 20.0] and cotangent.tolist() == [1.0, 1.0]


def test_many_consumers_share_one_sum():
    """A hundred gradients for one tensor are summed into one new array, not into a hundred."""
    a = leaf(np.zeros(4))
    total = a * 1.0
    for _ in range(100):
        total = total + a
    assert backward(total, [a], np.ones(4))[0].tolist() == [101.0] * 4


# --- Tensors and variables -----------------------------------------------------------------------


def test_operators_from_both_sides():
    a = leaf([2.0, 4.0])
    pairs = [
        (a + 1, [3, 5]),
        (1 + a, [3, 5]),
        (a - 1, [1, 3]),
        (1 - a, [-1, -3]),
        (a * 3, [6, 12]),
        (3 * a, [6, 12]),
        (a / 2, [1, 2]),
        (8 / a, [4, 2]),
        (-a, [-2, -4]),
        (a**2, [4, 16]),
        (np.array([1.0, 2.0]) * a, [2, 8]),
        (np.float64(3) * a, [6, 12]),
        (np.array([8.0, 8.0]) / a, [4, 2]),
        (np.array([1.0, 1.0]) - a, [-1, -3]),
        (a[1], 4),
        (a.reshape((2, 1)) @ Tensor(np.ones((1, 1))), [[2], [4]]),
        (a.mean(), 3),
        (a.sum(), 6),
    ]
    for tensor, value in pairs:
        assert isinstance(tensor, Tensor) and tensor.requires_grad
        assert tensor.storage.tolist() == value


def test_plain_numbers_take_the_dtype_beside_them():
    x = leaf([1.0], np.float32)
    for y in (x * 2.5, 2.5 / x, x + np.arange(1), x - np.float64(1)):
        assert y.dtype == np.float32


def test_variable_is_read_only_and_empties_its_cache():
    v = Variable(np.zeros(3), name="w")
    with pytest.raises(ValueError, match="read-only"):
        v.data[0] = 1
    v.cache["filters"] = "old"
    v.assign([1, 2, 3])
    assert v.cache == {} and v.data.tolist() == [1, 2, 3]
    v.cache["filters"] = "old"
    with v.writing() as w:
        w += 1
    assert v.cache == {} and v.numpy().tolist() == [2, 3, 4]
    with pytest.raises(ValueError, match=r"shape \(1,\) to 'w' of \(3,\)"):
        v.assign([1.0])
    assert v.numpy().tolist() == [2, 3, 4]


def test_variable_owns_its_numbers():
    given_array = np.zeros(3)
    v = Variable(given_array)
    given_array[:] = 7
    v.numpy()[:] = 7
    assert v.data.tolist() == [0, 0, 0]


# --- Looking and checking ------------------------------------------------------------------------


def test_print_graph():
    a = leaf([1.0, 2.0])
    w = Variable(np.ones(2), name="kernel")
    b = a * w
    y = (b + b).sum()
    out = io.StringIO()
    print_graph(y, out)
    assert out.getvalue().splitlines() == [
        "#0 leaf (2,)",
        "#1 kernel (2,)",
        "#2 multiply (2,) <- #0, #1",
        "#3 add (2,) <- #2, #2",
        "#4 sum () <- #3",
    ]
    backward(y, [a])
    out = io.StringIO()
    print_graph(y, out)
    assert out.getvalue() == "#0 sum () (used up)\n"


def test_an_array_that_is_changed_later_does_not_change_a_gradient():
    v = np.array([2.0, 3.0])
    a = Tensor(v, requires_grad=True)
    y = (a * a).sum()
    v[:] = 0  # a buffer that is used again
    assert backward(y, [a])[0].tolist() == [4, 6]
    w = Variable(np.array([1.0, 2.0]))
    x = np.array([5.0, 7.0])
    y = (w * x).sum()
    x[:] = 0
    assert backward(y, [w])[0].tolist() == [5, 7]
