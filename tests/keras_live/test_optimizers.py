"""Optimizers step by step on the same gradients, schedules at every step, initial weights."""

import numpy as np
import pytest

from minitl import initializers, optimizers
from minitl.autograd import Variable
from tests.keras_live.compare import assert_close, pick, repeatable, seeds
from tests.tolerances import METRIC, SAME_FORMULA_FLOAT32, STATISTICS

STEPS = 12
# Every step rounds a few operations of float32; the errors of 12 steps add up.
AFTER_STEPS = STEPS * SAME_FORMULA_FLOAT32 / 10


def schedule(rng):
    """(class name, arguments) of a schedule that visibly changes within a dozen steps."""
    return pick(
        rng,
        ("ExponentialDecay", (0.1, 5, 0.5, pick(rng, True, False))),
        ("InverseTimeDecay", (0.1, 4, 0.7, pick(rng, True, False))),
        ("PolynomialDecay", (0.1, 7, 0.01, pick(rng, 1.0, 2.0), pick(rng, True, False))),
        ("PiecewiseConstantDecay", ([3, 7], [0.1, 0.05, 0.01])),
        ("CosineDecay", (0.1, 8, 0.1)),
        ("CosineDecay", (0.0, 8, 0.1, "CosineDecay", 0.2, 4)),
    )


def draw(rng):
    name = pick(rng, "SGD", "SGD", "Adam", "AdamW")
    settings = {}
    if name == "SGD":
        settings["momentum"] = pick(rng, 0.0, 0.5, 0.9)
        settings["nesterov"] = pick(rng, True, False)
    else:
        settings["beta_1"] = pick(rng, 0.9, 0.5)
        settings["beta_2"] = pick(rng, 0.999, 0.9)
        settings["epsilon"] = pick(rng, 1e-7, 1e-3)
    if pick(rng, True, False):
        settings["weight_decay"] = pick(rng, 0.004, 0.5)
    clip = pick(rng, None, "clipnorm", "clipvalue", "global_clipnorm")
    if clip:
        settings[clip] = pick(rng, 0.1, 1.0, 100.0)
    return name, settings


@seeds(40)
def test_optimizer_step_by_step(keras, seed):
    rng = np.random.default_rng(seed)
    name, settings = draw(rng)
    rate = pick(rng, 0.1, 0.001, schedule(rng))
    with repeatable(seed, name=name, rate=rate, **settings):
        found = []
        for k in (optimizers, keras.optimizers):
            r = getattr(k.schedules, rate[0])(*rate[1]) if isinstance(rate, tuple) else rate
            found.append(getattr(k, name)(learning_rate=r, **settings))
        mine, theirs = found
        start = [rng.standard_normal(s).astype(np.float32) for s in ((4, 3), (3,), (2, 2, 1, 5))]
        my_weights = [Variable(w) for w in start]
        their_weights = [keras.Variable(w) for w in start]
        for _ in range(STEPS):
            scale = pick(rng, 0.01, 1.0, 10.0)
            gradients = [(rng.standard_normal(w.shape) * scale).astype(np.float32) for w in start]
            assert_close(mine.learning_rate, np.asarray(theirs.learning_rate), METRIC, "rate")
            mine.apply(gradients, my_weights)
            theirs.apply([keras.ops.convert_to_tensor(g) for g in gradients], their_weights)
            for i, (a, b) in enumerate(zip(my_weights, their_weights, strict=True)):
                assert_close(a.numpy(), b.numpy(), AFTER_STEPS, f"weight {i}")
        assert mine.iterations == int(theirs.iterations)


@seeds(12)
def test_schedule(keras, seed):
    rng = np.random.default_rng(seed)
    name, arguments = schedule(rng)
    mine = getattr(optimizers.schedules, name)(*arguments)
    theirs = getattr(keras.optimizers.schedules, name)(*arguments)
    with repeatable(seed, name=name, arguments=arguments):
        for step in range(30):
            # Keras counts in float32: a step at the edge of a staircase is exact in both.
            a, b = mine(step), float(theirs(step))
            assert abs(a - b) <= SAME_FORMULA_FLOAT32 * max(abs(b), 1e-3), f"step {step}: {a} {b}"


@pytest.mark.parametrize("identifier", ["sgd", "adam", "adamw", "SGD", "Adam"])
def test_optimizer_by_name_has_keras_defaults(keras, identifier):
    mine, theirs = optimizers.get(identifier), keras.optimizers.get(identifier)
    expected = theirs.get_config()
    assert mine.name == theirs.name
    for name, value in mine.get_config().items():
        assert value == pytest.approx(expected[name]), name


SHAPES = [(300, 400), (3, 3, 100, 120), (5, 2, 60, 200), (100_000,)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", sorted(set(initializers.TABLE) - {"orthogonal", "constant"}))
def test_initial_weights_have_keras_distribution(keras, name, shape):
    """Mean, standard deviation and extremes of some 1e5 numbers, within five standard errors."""
    mine = np.asarray(initializers.get(name)(shape), np.float64)
    theirs = np.asarray(keras.initializers.get(name)(shape), np.float64)
    assert mine.shape == theirs.shape
    spread, root_n = theirs.std(), np.sqrt(theirs.size)
    assert abs(mine.mean() - theirs.mean()) <= STATISTICS * spread * np.sqrt(2) / root_n
    # The standard error of a standard deviation is at most that of the normal, s / sqrt(2n).
    assert abs(mine.std() - spread) <= STATISTICS * spread / root_n
    # Both ends of a bounded distribution are nearly reached by 1e5 draws; a normal has none.
    if name != "random_normal":
        assert np.abs(mine).max() == pytest.approx(np.abs(theirs).max(), rel=1e-3)


@seeds(12)
def test_variance_scaling(keras, seed):
    rng = np.random.default_rng(seed)
    settings = {
        "scale": pick(rng, 1.0, 2.0, 0.5),
        "mode": pick(rng, "fan_in", "fan_out", "fan_avg"),
        "distribution": pick(rng, "truncated_normal", "untruncated_normal", "uniform"),
    }
    shape = pick(rng, *SHAPES)
    with repeatable(seed, shape=shape, **settings):
        mine = initializers.VarianceScaling(**settings, seed=seed)(shape)
        theirs = np.asarray(keras.initializers.VarianceScaling(**settings, seed=seed)(shape))
        assert abs(mine.std() - theirs.std()) <= STATISTICS * theirs.std() / np.sqrt(mine.size)


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (3, 2, 5)])
def test_orthogonal(keras, shape):
    """The same shape is orthonormal in both, along the same axis."""
    for k in (initializers, keras.initializers):
        q = np.asarray(k.Orthogonal(gain=2.0, seed=1)(shape)).reshape(-1, shape[-1]) / 2
        q = q if q.shape[0] >= q.shape[1] else q.T
        np.testing.assert_allclose(q.T @ q, np.eye(q.shape[1]), atol=SAME_FORMULA_FLOAT32)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 4), (3, 3, 8, 16)])
def test_fans(keras, shape):
    from keras.src.initializers.random_initializers import compute_fans

    assert initializers.fans(shape) == compute_fans(shape)
