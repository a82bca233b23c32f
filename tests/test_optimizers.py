"""Optimizers and schedules: the formulae step by step, state, clipping, names."""

import math

import numpy as np
import pytest

from minitl import kernels, optimizers
from minitl.autograd import Variable
from minitl.optimizers import SGD, Adam, AdamW, schedules
from minitl.storage.settings import serialize


def steps(optimizer, gradients, start=1.0):
    """The weight after each of the steps."""
    w = Variable(np.full(3, start), name="w")
    found = []
    for g in gradients:
        optimizer.apply([np.full(3, g)], [w])
        assert np.ptp(w.data) == 0
        found.append(float(w.data[0]))
    return found


GRADIENTS = [1.0, -0.5, 2.0, 0.25]


def expected_sgd(rate, momentum=0.0, nesterov=False, decay=0.0):
    w, v, found = 1.0, 0.0, []
    for g in GRADIENTS:
        w *= 1 - rate * decay
        v = momentum * v - rate * g
        w += momentum * v - rate * g if nesterov else v
        found.append(w)
    return found


def expected_adam(rate, b1=0.9, b2=0.999, epsilon=1e-7, decay=0.0):
    w, m, v, found = 1.0, 0.0, 0.0, []
    for t, g in enumerate(GRADIENTS, start=1):
        w *= 1 - rate * decay
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        w -= rate * math.sqrt(1 - b2**t) / (1 - b1**t) * m / (math.sqrt(v) + epsilon)
        found.append(w)
    return found


@pytest.mark.parametrize("kind", ["fast", "reference"])
@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (lambda: SGD(0.1), expected_sgd(0.1)),
        (lambda: SGD(), expected_sgd(0.01)),
        (lambda: SGD(0.1, momentum=0.9), expected_sgd(0.1, 0.9)),
        (lambda: SGD(0.1, momentum=0.9, nesterov=True), expected_sgd(0.1, 0.9, True)),
        (lambda: SGD(0.1, weight_decay=0.2), expected_sgd(0.1, decay=0.2)),
        (lambda: Adam(), expected_adam(0.001)),
        (lambda: Adam(0.1, 0.8, 0.9, 1e-2), expected_adam(0.1, 0.8, 0.9, 1e-2)),
        (lambda: Adam(0.1, weight_decay=0.3), expected_adam(0.1, decay=0.3)),
        (lambda: AdamW(), expected_adam(0.001, decay=0.004)),
    ],
)
def test_formula(optimizer, expected, kind):
    with kernels.use_kernels(kind):
        np.testing.assert_allclose(steps(optimizer(), GRADIENTS), expected, rtol=1e-13)


def test_a_weight_that_comes_late_starts_with_its_first_step():
    """Unfrozen after ten steps of others, its moments are corrected as those of step 1."""
    old, late = Variable(np.ones(2)), Variable(np.ones(2))
    optimizer = Adam(0.1)
    for _ in range(10):
        optimizer.apply([np.ones(2)], [old])
    optimizer.apply([np.ones(2), np.ones(2)], [old, late])
    np.testing.assert_allclose(late.data, 1 - 0.1, rtol=1e-6)
    assert optimizer.iterations == 11


def test_state_is_kept_while_a_weight_is_frozen():
    a, b = Variable(np.ones(2)), Variable(np.ones(2))
    optimizer = SGD(0.1, momentum=0.9)
    optimizer.apply([np.ones(2), np.ones(2)], [a, b])
    velocity = optimizer.state_of(a)["velocity"].copy()
    optimizer.apply([np.ones(2)], [b])
    assert np.array_equal(optimizer.state_of(a)["velocity"], velocity)
    optimizer.apply([np.zeros(2)], [a])
    np.testing.assert_allclose(optimizer.state_of(a)["velocity"], 0.9 * velocity)


def test_forget():
    optimizer = Adam(0.1)
    first = steps(optimizer, GRADIENTS)
    optimizer.forget()
    assert steps(optimizer, GRADIENTS) == first


def test_apply_gradients_takes_pairs():
    w = Variable(np.ones(2))
    SGD(0.5).apply_gradients([(np.ones(2), w)])
    assert w.data.tolist() == [0.5, 0.5]


def test_float32_weights_stay_float32():
    w = Variable(np.ones(2, np.float32))
    for optimizer in (SGD(0.1, 0.9, weight_decay=0.1), Adam(clipnorm=0.5)):
        optimizer.apply([np.ones(2, np.float32)], [w])
        assert all(s.dtype in (np.float32, np.int64) for s in optimizer.state_of(w).values())
    assert w.dtype == np.float32


def test_weights_cache_is_emptied():
    w = Variable(np.ones(2))
    w.cache["filters"] = "old"
    SGD(0.1).apply([np.ones(2)], [w])
    assert w.cache == {}


# --- Rate multipliers ---


@pytest.mark.parametrize("multiplier", [1.0, 0.1, 3.0])
@pytest.mark.parametrize(
    "make",
    [
        lambda rate: SGD(rate),
        lambda rate: SGD(rate, 0.9, nesterov=True, weight_decay=0.1),
        lambda rate: Adam(rate),
        lambda rate: AdamW(rate, weight_decay=0.1, clipnorm=0.7),
    ],
)
def test_a_multiplier_is_another_rate_to_the_bit(make, multiplier):
    scaled, plain, beside = Variable(np.ones(3)), Variable(np.ones(3)), Variable(np.ones(3))
    scaled.rate_multiplier = multiplier
    together, alone, usual = make(0.03), make(0.03 * multiplier), make(0.03)
    untouched = Variable(np.ones(3))
    for g in np.random.default_rng(0).standard_normal((5, 3)):
        together.apply([g, g], [scaled, beside])
        alone.apply([g], [plain])
        usual.apply([g], [untouched])
    assert scaled.data.tobytes() == plain.data.tobytes()
    assert beside.data.tobytes() == untouched.data.tobytes()


def test_adam_moves_by_the_multiplied_rate():
    """Its first step is the rate in the direction of -g, whatever the size of g: to scale the
    gradient instead would change nothing."""
    w = Variable(np.zeros(2))
    w.rate_multiplier = 0.25
    Adam(0.1, epsilon=0.0).apply([np.array([1e-3, -7.0])], [w])
    np.testing.assert_allclose(w.data, [-0.025, 0.025], rtol=1e-12)


@pytest.mark.parametrize("make", [lambda: SGD(0.1, 0.9), lambda: AdamW(0.1)])
def test_a_multiplier_of_zero_is_no_move_even_with_momentum_left(make):
    w, optimizer = Variable(np.array([1.0, -0.0])), make()
    optimizer.apply([np.array([1.0, 0.0])], [w])
    before, state = w.data.tobytes(), {k: a.tobytes() for k, a in optimizer.state_of(w).items()}
    w.rate_multiplier = 0
    optimizer.apply([np.array([2.0, -1.0])], [w])
    assert w.data.tobytes() == before
    assert {k: a.tobytes() for k, a in optimizer.state_of(w).items()} == state


def test_a_clone_goes_its_own_way():
    for one in (SGD(0.1, 0.9), Adam(0.1)):
        w = Variable(np.ones(2))
        one.apply([np.ones(2)], [w])
        state = {k: a.copy() for k, a in one.state_of(w).items()}
        other = one.clone()
        other.learning_rate = 5.0
        other.apply([np.ones(2)], [w])
        assert one.iterations == 1 and other.iterations == 2 and one.learning_rate == 0.1
        for k, a in one.state_of(w).items():
            assert np.array_equal(a, state[k]) and not np.array_equal(other.state_of(w)[k], a)


# --- Clipping ------------------------------------------------------------------------------------


def moved(**settings):
    """By how much SGD with rate 1 moves two weights with gradients (3, 4) and (0.3, 0)."""
    a, b = Variable(np.zeros(2)), Variable(np.zeros(2))
    gradients = [np.array([3.0, 4.0]), np.array([0.3, 0.0])]
    SGD(1.0, **settings).apply(gradients, [a, b])
    assert gradients[0].tolist() == [3, 4]  # not clipped in place
    return [(-a.data).tolist(), (-b.data).tolist()]


def test_clipping():
    assert moved() == [[3, 4], [0.3, 0]]
    assert moved(clipvalue=3.5) == [[3, 3.5], [0.3, 0]]
    assert moved(clipnorm=1.0) == [pytest.approx([0.6, 0.8]), [0.3, 0]]
    norm = math.hypot(5, 0.3)
    assert moved(global_clipnorm=1.0) == [
        pytest.approx([3 / norm, 4 / norm]),
        pytest.approx([0.3 / norm, 0]),
    ]
    assert moved(global_clipnorm=9.0) == [[3, 4], [0.3, 0]]


# --- Schedules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (schedules.ExponentialDecay(0.1, 10, 0.5), {0: 0.1, 10: 0.05, 5: 0.1 * 0.5**0.5}),
        (schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True), {9: 0.1, 10: 0.05, 19: 0.05}),
        (schedules.InverseTimeDecay(0.1, 10, 0.5), {0: 0.1, 10: 0.1 / 1.5, 5: 0.08}),
        (schedules.InverseTimeDecay(0.1, 10, 0.5, staircase=True), {9: 0.1, 10: 0.1 / 1.5}),
        (schedules.PolynomialDecay(0.1, 10, 0.0), {0: 0.1, 5: 0.05, 10: 0.0, 99: 0.0}),
        (schedules.PolynomialDecay(1.0, 10, 0.0, power=2), {5: 0.25}),
        (schedules.PolynomialDecay(1.0, 10, 0.0, cycle=True), {5: 0.5, 10: 0.0, 15: 0.25}),
        (schedules.PiecewiseConstantDecay([2, 4], [3, 2, 1]), {0: 3, 2: 3, 3: 2, 4: 2, 5: 1}),
        (schedules.CosineDecay(1.0, 10), {0: 1.0, 5: 0.5, 10: 0.0, 20: 0.0}),
        (schedules.CosineDecay(1.0, 10, alpha=0.2), {10: 0.2, 5: 0.6}),
        (
            schedules.CosineDecay(0.0, 10, warmup_target=1.0, warmup_steps=4),
            {0: 0.0, 2: 0.5, 4: 1.0, 9: 0.5, 14: 0.0},
        ),
    ],
)
def test_schedule(schedule, values):
    for step, rate in values.items():
        assert schedule(step) == pytest.approx(rate, abs=1e-12)


def test_the_rate_follows_the_schedule():
    optimizer = SGD(schedules.PiecewiseConstantDecay([1], [0.5, 0.25]))
    assert steps(optimizer, [1.0, 1.0, 1.0]) == [0.5, 0.0, -0.25]
    assert optimizer.learning_rate == 0.25
    with pytest.raises(TypeError, match="follows PiecewiseConstantDecay, so it cannot be set"):
        optimizer.learning_rate = 1.0
    optimizer.learning_rate = schedules.PolynomialDecay(1.0, 10)
    assert steps(optimizer, [1.0]) == pytest.approx([1 - 0.70003], abs=1e-6)


def test_the_rate_is_set_as_a_variable_of_keras():
    optimizer = SGD(0.5)
    assert optimizer.learning_rate.numpy() == np.float32(0.5)
    assert f"{optimizer.learning_rate:.2f}, {optimizer.learning_rate * 2}" == "0.50, 1.0"
    optimizer.learning_rate.assign(0.25)
    assert steps(optimizer, [1.0]) == [0.75] and optimizer.iterations.numpy() == 1
    optimizer.iterations.assign(7)
    assert optimizer.iterations == 7


def test_a_rate_that_is_a_function():
    assert steps(SGD(lambda: 0.25), [1.0, 1.0]) == [0.75, 0.5]
    assert steps(SGD(lambda step: 0.25 * step), [1.0, 1.0]) == [1.0, 0.75]


# --- Names and settings --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(0.2, 0.9, nesterov=True, weight_decay=0.1, clipvalue=3.0),
        Adam(0.2, 0.8, 0.99, 1e-3, clipnorm=2.0),
        AdamW(schedules.CosineDecay(0.1, 100, warmup_target=0.2, warmup_steps=7)),
        SGD(schedules.PiecewiseConstantDecay([1, 2], [3, 2, 1])),
    ],
)
def test_configuration_makes_the_same_optimizer(optimizer):
    settings = serialize(optimizer)
    again = optimizers.get(settings)
    assert type(again) is type(optimizer) and serialize(again) == settings
    assert steps(again, GRADIENTS) == steps(optimizer, GRADIENTS)


def test_get():
    assert isinstance(optimizers.get("adam"), Adam) and isinstance(optimizers.get("SGD"), SGD)
    assert isinstance(optimizers.get(AdamW), AdamW)
    one = SGD()
    assert optimizers.get(one) is one


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: optimizers.get("adma"),
            ValueError,
            "unknown optimizer 'adma'. Did you mean 'adam",
        ),
        (lambda: optimizers.get(3), ValueError, "not an optimizer: 3"),
        (lambda: SGD(lerning_rate=1), TypeError, r"SGD\(\) has no .*'learning_rate'"),
        (lambda: Adam(beta1=0.9), TypeError, r"Adam\(\) has no argument 'beta1'. .*'beta_1'"),
        (
            lambda: SGD(-0.1),
            ValueError,
            "learning_rate must be a finite number of at least 0 or .* got -0.1",
        ),
        (lambda: SGD("fast"), ValueError, "unknown learning rate schedule 'fast'"),
        (lambda: SGD(momentum=2), ValueError, r"momentum must be in \[0, 1\], got 2"),
        (lambda: Adam(beta_2=1.0), ValueError, r"beta_2 must be in \[0, 1\), got 1.0"),
        (lambda: optimizers.RMSprop(rho=1), ValueError, r"rho must be in \[0, 1\), got 1"),
        (lambda: SGD(clipnorm=1, clipvalue=1), ValueError, "only one of clipnorm, clipvalue"),
        (
            lambda: SGD(clipnorm=0),
            ValueError,
            "clipnorm must be a finite number above 0 or None, got 0",
        ),
        (
            lambda: schedules.PiecewiseConstantDecay([1], [1]),
            ValueError,
            "one value more than boundaries",
        ),
    ],
)
def test_what_is_wrong(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
