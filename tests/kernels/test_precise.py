"""Convolutions that are computed in float64 inside, so that ReLU decides as it does there."""

import numpy as np
import pytest

import minitl
from minitl import kernels
from minitl.kernels import reference, use_kernels
from minitl.kernels.fast import few_channels, winograd
from minitl.kernels.geometry import sliding
from minitl.kernels.machine import threads
from minitl.layers import Conv2D
from tests.kernels.cases import exactly, normal
from tests.tolerances import gamma

CASES = {  # N, H, W, C, F, window, stride
    "winograd": (2, 13, 10, 24, 40, 3, 1),
    "winograd, odd": (1, 9, 11, 19, 37, 3, 1),
    "winograd, many blocks": (3, 34, 35, 8, 16, 3, 1),
    "winograd, 2 MB": (3, 66, 64, 8, 48, 3, 1),
    "few channels": (2, 12, 9, 3, 21, 3, 1),
    "few channels, strides": (1, 15, 15, 3, 8, 7, 2),
    "im2col": (2, 8, 8, 20, 12, 1, 1),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def make(case, dtype=np.float32):
    n, h, w, c, f, window, stride = case
    rng = np.random.default_rng(0)
    geometry = sliding((h, w), (window, window), (stride, stride), "same")
    kernel = normal(rng, (window, window, c, f), dtype)
    return normal(rng, (n, h, w, c), dtype), kernel, normal(rng, f, dtype), geometry


@cases
@pytest.mark.parametrize("which", ["fast", "reference", "direct", "precise"])
def test_outputs_are_rounded_once(case, which):
    x, kernel, bias, geometry = make(case)
    exact = exactly(reference.conv2d, x, kernel, bias, geometry)
    sums = exactly(reference.conv2d, abs(x), abs(kernel), abs(bias), geometry)
    with use_kernels(which):
        y = kernels.conv2d(x, kernel, bias, geometry, precise=True)
    assert y.dtype == np.float32
    # Half a unit in the last place, and of the sums in float64, and Winograd's transforms, a trace.
    assert (abs(y - exact) <= 2.0**-24 * abs(exact) + gamma(1000, np.float64) * sums).all()


@cases
def test_only_what_is_recorded_is_precise(case):
    x, kernel, bias, geometry = make(case)
    precise = kernels.conv2d(x, kernel, bias, geometry, "relu", precise=True)
    usual = kernels.conv2d(x, kernel, bias, geometry, "relu")
    assert (precise != usual).any()
    with use_kernels("precise"):
        recorded = kernels.conv2d(x, kernel, bias, geometry, "relu", recorded=True)
        alone = kernels.conv2d(x, kernel, bias, geometry, "relu")
    np.testing.assert_array_equal(recorded, precise)
    np.testing.assert_array_equal(alone, usual)


@pytest.mark.parametrize("room", [winograd, few_channels])
def test_bits_do_not_depend_on_the_number_of_threads(room):
    x, kernel, bias, geometry = make(CASES["winograd, many blocks"])
    before = threads.thread_count()
    try:
        threads.set_thread_count(1)
        alone = room.conv2d(x, kernel, bias, geometry, precise=True)
        threads.set_thread_count(3)
        together = room.conv2d(x, kernel, bias, geometry, precise=True)
    finally:
        threads.set_thread_count(before)
    np.testing.assert_array_equal(alone, together)


def test_filters_of_both_kinds_are_kept_side_by_side():
    x, kernel, bias, geometry = make(CASES["winograd"])
    cache = {}
    usual = winograd.conv2d(x, kernel, bias, geometry, cache=cache)
    precise = winograd.conv2d(x, kernel, bias, geometry, cache=cache, precise=True)
    assert len(cache) == 2
    for wanted, expected in ((False, usual), (True, precise)):
        again = winograd.conv2d(x, kernel, bias, geometry, None, cache, False, wanted)
        np.testing.assert_array_equal(again, expected)


@cases
def test_nan_stays(case):
    x, kernel, bias, geometry = make(case)
    x[0, 4, 5, 1] = np.nan
    y = kernels.conv2d(x, kernel, bias, geometry, "relu", precise=True)
    nan = np.isnan(exactly(reference.conv2d, x, kernel, bias, geometry, "relu"))
    assert np.isnan(y[nan]).all()
    assert np.isfinite(y).any()


def outputs(dtype, which):
    minitl.config.set_floatx(dtype)
    layers = [Conv2D(f, 3, padding="same", activation="relu") for f in (16, 32, 32, 32)]
    model = minitl.Sequential([minitl.Input((32, 32, 3)), *layers])
    rng = np.random.default_rng(0)
    values = [normal(rng, w.shape, np.float32) / 5 for w in model.trainable_weights]
    model.set_weights([value.astype(dtype) for value in values])
    with use_kernels(which):
        return model(normal(rng, (2, 32, 32, 3), np.float32).astype(dtype), training=True).numpy()


def test_a_network_whose_gradient_may_be_asked_is_precise():
    """Four layers that round each output once, 2.5e-8 of it: sqrt(4) * 2.5e-8 together."""
    exact = outputs("float64", "direct")

    def error(found):
        return np.linalg.norm(found - exact) / np.linalg.norm(exact)

    assert error(outputs("float32", "precise")) < 7e-8 < error(outputs("float32", "fast"))
