"""The formulas against oracles that share no line with them: SciPy's correlation, einsum over
sliding_window_view, hand-made numbers, all in float64."""

import doctest
import importlib

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from scipy import signal, special

from minitl.kernels.geometry import sliding
from tests.kernels.cases import WINDOWS, geometry_of, name, normal, reference
from tests.tolerances import assert_adjoint, assert_sum, assert_ulps

windows = pytest.mark.parametrize("case", WINDOWS, ids=name)


def padded_windows(x, geometry, value=0.0):
    """All windows of the padded x: (N, OH, OW, C, KH, KW)."""
    top, bottom, left, right = geometry.pads
    n, height, width, c = x.shape
    padded = np.full((n, top + height + bottom, left + width + right, c), value)
    padded[:, top : top + height, left : left + width] = x
    views = sliding_window_view(padded, geometry.window, axis=(1, 2))
    sh, sw = geometry.strides
    return views[:, ::sh, ::sw]


def test_examples_in_the_text():
    result = doctest.testmod(importlib.import_module(reference.__name__))
    assert result.attempted > 0 and result.failed == 0


@windows
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conv2d_is_a_contraction_of_windows(case, dtype):
    rng = np.random.default_rng(1)
    geometry = geometry_of(case)
    x = normal(rng, case[0], dtype)
    kernel = normal(rng, (*case[1], case[0][3], 4), dtype)
    bias = normal(rng, 4, dtype)

    def oracle(x, kernel, bias):
        seen = padded_windows(x.astype(np.float64), geometry)
        return np.einsum("nijcuv,uvcf->nijf", seen, kernel.astype(np.float64)) + bias

    y = reference.conv2d(x, kernel, bias, geometry)
    assert y.dtype == dtype
    terms = kernel[..., 0].size + 1
    assert_sum(y, oracle(x, kernel, bias), oracle(abs(x), abs(kernel), abs(bias)), terms)
    rectified = reference.conv2d(x, kernel, bias, geometry, "relu")
    np.testing.assert_array_equal(rectified, np.where(y > 0, y, 0))


def test_conv2d_is_scipys_correlation():
    rng = np.random.default_rng(2)
    x, kernel = normal(rng, (1, 9, 8, 3)), normal(rng, (4, 3, 3, 2))
    y = reference.conv2d(x, kernel, None, sliding((9, 8), (4, 3), (1, 1), "valid"))
    for f in range(2):
        expected = signal.correlate(x[0], kernel[..., f], mode="valid")[..., 0]
        np.testing.assert_allclose(y[0, ..., f], expected, rtol=1e-13, atol=1e-13)


@windows
def test_conv2d_gradients_are_its_adjoints(case):
    rng = np.random.default_rng(3)
    geometry = geometry_of(case)
    x, kernel = normal(rng, case[0]), normal(rng, (*case[1], case[0][3], 3))
    y = reference.conv2d(x, kernel, None, geometry)
    g = normal(rng, y.shape)
    assert_adjoint(g, y, reference.conv2d_input_gradient(g, kernel, geometry), x)
    assert_adjoint(g, y, reference.conv2d_kernel_gradient(x, g, geometry), kernel)


@windows
def test_pools_are_reductions_of_windows(case):
    rng = np.random.default_rng(4)
    geometry = geometry_of(case)
    x = normal(rng, case[0])
    x[0, 0, 0, 0] = -np.inf  # a real place may hold what padding is often made of

    seen = padded_windows(x, geometry, -np.inf)
    expected = seen.max(axis=(4, 5))
    y, winners = reference.max_pool2d_with_winners(x, geometry)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(reference.max_pool2d(x, geometry), expected)
    assert winners.dtype == np.uint8
    flat = seen.reshape(*y.shape, -1)
    at_winner = np.take_along_axis(flat, winners[..., None].astype(int), axis=-1)[..., 0]
    np.testing.assert_array_equal(at_winner, expected)

    x = normal(rng, case[0])
    seen = padded_windows(x, geometry, np.nan)  # NaN: padding, does not count
    y = reference.average_pool2d(x, geometry)
    np.testing.assert_allclose(y, np.nanmean(seen, axis=(4, 5)), rtol=1e-12, atol=1e-14)


def test_max_pool_ties_go_to_the_first_place_and_padding_never_wins():
    geometry = sliding((3, 3), (3, 3), (1, 1), "same")
    x = np.full((1, 3, 3, 1), -7.0)
    y, winners = reference.max_pool2d_with_winners(x, geometry)
    assert (y == -7.0).all()
    # Top left window: its first place inside the image is (1, 1), number 4 of 0 ... 8.
    np.testing.assert_array_equal(winners[0, :, :, 0], [[4, 3, 3], [1, 0, 0], [1, 0, 0]])

    lowest = np.full((1, 3, 3, 1), -np.inf)  # not even against the lowest of all numbers
    np.testing.assert_array_equal(reference.max_pool2d_with_winners(lowest, geometry)[1], winners)


def test_max_pool_hands_nan_on_and_its_winner_is_the_first_nan():
    x = np.array([1.0, np.nan, 3.0, np.nan]).reshape(1, 2, 2, 1)
    geometry = sliding((2, 2), (2, 2), (1, 1), "valid")
    y, winners = reference.max_pool2d_with_winners(x, geometry)
    assert np.isnan(y.item()) and winners.item() == 1


def test_winners_of_huge_windows_are_int32():
    x = np.zeros((1, 17, 16, 1))
    x[0, 16, 15] = 1
    geometry = sliding((17, 16), (17, 16), (1, 1), "valid")
    _, winners = reference.max_pool2d_with_winners(x, geometry)
    assert winners.dtype == np.int32 and winners.item() == 17 * 16 - 1
    geometry = sliding((16, 16), (16, 16), (1, 1), "valid")
    assert reference.max_pool2d_with_winners(x[:, 1:].copy(), geometry)[1].dtype == np.uint8


@windows
def test_pool_gradients_are_adjoints(case):
    """A maximum is linear as long as the winners stay; the derivative of y in direction d is d at
    the winners."""
    rng = np.random.default_rng(5)
    geometry = geometry_of(case)
    x, direction = normal(rng, case[0]), normal(rng, case[0])
    y, winners = reference.max_pool2d_with_winners(x, geometry)
    g = normal(rng, y.shape)

    seen = padded_windows(direction, geometry).reshape(*y.shape, -1)
    dy = np.take_along_axis(seen, winners[..., None].astype(int), axis=-1)[..., 0]
    assert_adjoint(g, dy, reference.max_pool2d_gradient(g, winners, geometry), direction)

    y = reference.average_pool2d(x, geometry)
    assert_adjoint(g, y, reference.average_pool2d_gradient(g, geometry), x)


def test_dense():
    rng = np.random.default_rng(6)
    x, kernel, bias = normal(rng, (5, 7)), normal(rng, (7, 3)), normal(rng, 3)
    y = reference.dense(x, kernel, bias)
    expected = np.einsum("nd,dm->nm", x, kernel) + bias
    assert_sum(y, expected, np.einsum("nd,dm->nm", abs(x), abs(kernel)) + abs(bias), 8)
    np.testing.assert_array_equal(reference.dense(x, kernel, bias, "relu"), np.where(y > 0, y, 0))
    linear, g = reference.dense(x, kernel, None), normal(rng, (5, 3))
    assert_adjoint(g, linear, reference.dense_input_gradient(g, kernel), x)
    assert_adjoint(g, linear, reference.dense_kernel_gradient(x, g), kernel)


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4, 3), (2, 5, 3)])
def test_bias_gradient(shape):
    g = normal(np.random.default_rng(7), shape)
    expected = [g[..., f].sum() for f in range(3)]
    np.testing.assert_allclose(reference.bias_gradient(g), expected, rtol=1e-12)


def test_bias_gradient_sums_in_float64():
    """A float32 sum that has reached 2^24 stays there, however many ones are added."""
    g = np.ones((101, 2), np.float32)
    g[0] = 2**24
    np.testing.assert_array_equal(reference.bias_gradient(g), [2**24 + 100] * 2)


def test_softmax_looks_at_each_row_by_itself():
    x = np.array([[1e4, 1e4], [-1e4, -1e4]])
    np.testing.assert_array_equal(reference.softmax(x), np.full((2, 2), 0.5))
    losses, p = reference.softmax_cross_entropy(x, np.eye(2))
    np.testing.assert_array_equal(p, np.full((2, 2), 0.5))
    np.testing.assert_allclose(losses, np.log(2))


def test_softmax_and_cross_entropy():
    rng = np.random.default_rng(8)
    logits = 5 * normal(rng, (6, 4))
    targets = special.softmax(normal(rng, (6, 4)), axis=-1)
    p = reference.softmax(logits)
    assert_ulps(p, special.softmax(logits, axis=-1), 100)
    losses, same_p = reference.softmax_cross_entropy(logits, targets)
    assert_ulps(same_p, p, 100)
    expected = -(targets * special.log_softmax(logits, axis=-1)).sum(axis=-1)
    assert_ulps(losses, expected, 100)


def test_softmax_cross_entropy_of_extreme_logits():
    logits = np.array([[1e4, 0.0, -1e4], [0.0, -np.inf, 0.0]])
    targets = np.array([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    losses, p = reference.softmax_cross_entropy(logits, targets)
    np.testing.assert_allclose(losses, [1e4, np.log(2)])
    np.testing.assert_allclose(p, [[1, 0, 0], [0.5, 0, 0.5]])


def test_batch_norm_statistics():
    x = normal(np.random.default_rng(9), (3, 4, 5, 2)) + [3.0, 0.0]
    mean, variance = reference.batch_norm_statistics(x)
    np.testing.assert_allclose(mean, x.reshape(-1, 2).mean(0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(variance, x.reshape(-1, 2).var(0), rtol=1e-12)


def test_batch_norm_statistics_of_a_large_mean():
    """E[x^2] - E[x]^2 would lose all digits: the mean is 4,096 standard deviations away."""
    x = (4096 + np.array([-1, 1] * 500)).astype(np.float32).reshape(-1, 1)
    mean, variance = reference.batch_norm_statistics(x)
    assert mean.item() == 4096 and variance.item() == 1


def test_updates_by_hand():
    w, g, velocity = np.array([1.0, 2.0]), np.array([0.5, -1.0]), np.array([1.0, 0.0])
    reference.sgd_update(w, g, None, 0.1, 0.0, False)
    np.testing.assert_allclose(w, [0.95, 2.1])
    reference.sgd_update(w, g, velocity, 0.1, 0.9, False)  # v = 0.9 v - 0.1 g; w += v
    np.testing.assert_allclose(velocity, [0.85, 0.1])
    np.testing.assert_allclose(w, [1.8, 2.2])
    reference.sgd_update(w, g, velocity, 0.1, 0.9, True)  # w += 0.9 v - 0.1 g, v = [0.715, 0.19]
    np.testing.assert_allclose(velocity, [0.715, 0.19])
    np.testing.assert_allclose(w, [1.8 + 0.6435 - 0.05, 2.2 + 0.171 + 0.1])

    w, m, v = np.array([1.0]), np.array([2.0]), np.array([4.0])
    reference.adam_update(w, np.array([4.0]), m, v, 0.1, 0.75, 0.5, 1.0)
    np.testing.assert_allclose(m, [2.5])  # 2 + (4 - 2) / 4
    np.testing.assert_allclose(v, [10.0])  # 4 + (16 - 4) / 2
    np.testing.assert_allclose(w, [1 - 0.1 * 2.5 / (np.sqrt(10) + 1)])
