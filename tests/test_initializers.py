"""Initializers: moments, ranges, seeds, names."""

import numpy as np
import pytest

from minitl import config, initializers
from minitl.layers import Dense
from minitl.naming import public_names
from minitl.storage.settings import serialize

SHAPE = (40, 30, 10, 20)  # fan_in 40*30*10, fan_out 40*30*20
FAN_IN, FAN_OUT = 12_000, 24_000


@pytest.mark.parametrize(
    ("name", "variance", "uniform"),
    [
        ("glorot_uniform", 2 / (FAN_IN + FAN_OUT), True),
        ("glorot_normal", 2 / (FAN_IN + FAN_OUT), False),
        ("he_normal", 2 / FAN_IN, False),
        ("he_uniform", 2 / FAN_IN, True),
        ("lecun_normal", 1 / FAN_IN, False),
        ("lecun_uniform", 1 / FAN_IN, True),
        ("random_normal", 0.05**2, False),
        ("random_uniform", 0.1**2 / 12, True),
    ],
)
def test_moments(name, variance, uniform):
    x = initializers.get(name)(SHAPE, "float64")
    n = x.size
    sd = np.sqrt(variance)
    assert abs(x.mean()) < 5 * sd / np.sqrt(n)
    assert x.var() == pytest.approx(variance, rel=5 * np.sqrt(2 / n) + 1e-3)
    if uniform:
        assert np.abs(x).max() <= np.sqrt(3 * variance)
    elif name != "random_normal":  # cut at two standard deviations of the uncut normal
        assert np.abs(x).max() <= 2 * sd / 0.87962566103423978


def test_truncated_normal_is_cut_not_scaled():
    x = initializers.TruncatedNormal(1.0, 0.5)((100, 100), "float64")
    assert np.abs(x - 1).max() <= 1 and x.std() == pytest.approx(0.5 * 0.8796, rel=0.03)


def test_variance_scaling_modes():
    make = initializers.VarianceScaling
    for mode, n in (("fan_in", FAN_IN), ("fan_out", FAN_OUT), ("fan_avg", 18_000)):
        x = make(3.0, mode, "untruncated_normal")(SHAPE, "float64")
        assert x.var() == pytest.approx(3 / n, rel=0.02)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (2, 3, 5)])
def test_orthogonal(shape):
    q = initializers.Orthogonal(2.0)(shape, "float64").reshape(-1, shape[-1])
    small = q.T @ q if q.shape[0] >= q.shape[1] else q @ q.T
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-12)


def test_constants():
    assert initializers.get("zeros")((2,)).tolist() == [0, 0]
    assert initializers.get("ones")((2,)).tolist() == [1, 1]
    assert initializers.Constant(0.25)((2,)).tolist() == [0.25, 0.25]
    assert initializers.get("zeros")((2,)).dtype == np.float32


def test_fans():
    assert initializers.fans((5,)) == (5, 5) and initializers.fans(()) == (1, 1)
    assert initializers.fans((4, 3)) == (4, 3) and initializers.fans((3, 3, 2, 5)) == (18, 45)


public_names("minitl.initializers")  # completes the table


@pytest.mark.parametrize("name", initializers.TABLE)
def test_seeds_and_configuration(name):
    settings = serialize(initializers.get(name))
    if "seed" in settings["config"]:
        assert settings["config"]["seed"] is None  # what was drawn instead is not written down
        settings["config"]["seed"] = 3
    first, again = initializers.get(settings), initializers.get(settings)
    shape = (5, 4)
    assert np.array_equal(first(shape), again(shape)) and serialize(again) == serialize(first)
    assert np.array_equal(first(shape), first(shape))  # an instance repeats itself
    assert first(shape).dtype == np.float32 and first(shape, "float64").dtype == np.float64


def test_random_seed_makes_layers_reproducible():
    def kernels():
        config.set_random_seed(7)
        layers = [Dense(3), Dense(3)]
        return [layer(np.ones((1, 4))) is not None and layer.get_weights()[0] for layer in layers]

    a, b = kernels()
    again, _ = kernels()
    assert np.array_equal(a, again) and not np.array_equal(a, b)


def test_values_in_the_place_of_all_initializers():
    """In the place of a user's function, too."""
    asked = []

    def instead(shape, dtype):
        asked.append((shape, dtype))
        return np.full(shape, 7, dtype)

    token = initializers.replacement.set(instead)
    layer = Dense(3, kernel_initializer=lambda shape, dtype: 1 / 0, bias_initializer="ones")
    layer(np.ones((1, 4)))
    initializers.replacement.reset(token)
    assert asked == [((4, 3), np.float32), ((3,), np.float32)]
    assert all((w == 7).all() for w in layer.get_weights())
    fresh = Dense(3, bias_initializer="ones")
    fresh(np.ones((1, 4)))
    assert fresh.get_weights()[1].tolist() == [1, 1, 1]


def test_a_shared_array_of_an_initializer_is_copied():
    same = np.zeros((2, 2), np.float32)
    assert not np.shares_memory(initializers.initial_values(lambda *_: same, (2, 2), "f4"), same)


@pytest.mark.parametrize("seed", [-1, 1.5, "a", None])
def test_wrong_seed(seed):
    with pytest.raises(ValueError, match="a seed is a non-negative integer, got"):
        config.set_random_seed(seed)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: initializers.get("glorot"), "unknown initializer 'glorot'. Did you mean"),
        (lambda: initializers.get(3), "not an initializer: 3"),
        (lambda: initializers.VarianceScaling(0), "scale must be a finite number above 0, got 0"),
        (lambda: initializers.VarianceScaling(mode="fan"), "mode must be one of 'fan_in'"),
        (lambda: initializers.VarianceScaling(distribution="x"), "distribution must be"),
        (lambda: initializers.Orthogonal()((3,)), r"at least two axes, got shape \(3,\)"),
    ],
)
def test_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_set_floatx():
    with pytest.raises(ValueError, match="dtype must be 'float32' or 'float64', got 'float16'"):
        config.set_floatx("float16")
    assert config.floatx() == "float32"
    config.set_floatx("float64")
    assert Dense(2)(np.ones((1, 2))).dtype == np.float64
