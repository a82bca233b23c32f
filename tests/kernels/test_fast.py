"""The fast kernels against the formulas, which `test_reference.py` holds against oracles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitl.kernels.fast import dense, im2col, normalization, pointwise, pooling, updates
from minitl.kernels.geometry import sliding
from minitl.kernels.machine import team, threads
from tests.kernels.cases import WINDOWS, exactly, geometry_of, name, normal, reference
from tests.tolerances import assert_adjoint, assert_sum, assert_ulps

windows = pytest.mark.parametrize("case", WINDOWS, ids=name)
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(autouse=True, params=["compiled", "plain", "shredded"])
def way(request, monkeypatch):
    """Every test runs three times: as it is; with all loops as plain Python; and with the work cut
    into as many parts as it can be, which otherwise only happens to large arrays."""
    if request.param == "plain":
        for module in (im2col, pooling, pointwise, normalization, dense, updates):
            for key, value in vars(module).items():
                if hasattr(value, "py_func"):
                    monkeypatch.setattr(module, key, value.py_func)
            if hasattr(module, "share"):
                monkeypatch.setattr(module, "share", team.in_turn)
    if request.param == "shredded":
        monkeypatch.setattr(im2col, "BLOCK_BYTES", 256)
        monkeypatch.setattr(im2col, "FEWEST_PRODUCTS", 1)
        monkeypatch.setattr(threads, "FEWEST_PRODUCTS", 1)
        monkeypatch.setattr(threads, "FEWEST_NUMBERS", 1)
    return request.param


def magnitudes(kernel, *arguments):
    """The same formula on absolute values, where it is a sum of products."""
    return exactly(kernel, *[abs(a) if isinstance(a, np.ndarray) else a for a in arguments])


def assert_is_sum(name, module, terms, *arguments):
    actual, formula = getattr(module, name)(*arguments), getattr(reference, name)
    assert actual.dtype == arguments[0].dtype and actual.flags.c_contiguous
    assert_sum(actual, exactly(formula, *arguments), magnitudes(formula, *arguments), terms)
    return actual


# --- Convolution ---------------------------------------------------------------------------------


def check_convolution(shape, geometry, filters, dtype, seed=0):
    rng = np.random.default_rng(seed)
    x = normal(rng, shape, dtype)
    kernel = normal(rng, (*geometry.window, shape[3], filters), dtype)
    bias = normal(rng, filters, dtype)
    depth = kernel[..., 0].size
    y = assert_is_sum("conv2d", im2col, depth + 1, x, kernel, bias, geometry)
    np.testing.assert_array_equal(im2col.conv2d(x, kernel, bias, geometry, "relu"), y * (y > 0))
    linear = assert_is_sum("conv2d", im2col, depth, x, kernel, None, geometry)
    np.testing.assert_array_equal(
        im2col.conv2d(x, kernel, None, geometry, "relu"), linear * (linear > 0)
    )
    g = normal(rng, y.shape, dtype)
    terms = geometry.window[0] * geometry.window[1] * filters
    dx = assert_is_sum("conv2d_input_gradient", im2col, terms, g, kernel, geometry)
    terms = y[..., 0].size
    dkernel = assert_is_sum("conv2d_kernel_gradient", im2col, terms, x, g, geometry)
    if dtype == np.float64:
        assert_adjoint(g, linear, dx, x)
        assert_adjoint(g, linear, dkernel, kernel)


@windows
@dtypes
def test_convolution(case, dtype):
    check_convolution(case[0], geometry_of(case), 5, dtype)


@dtypes
def test_convolution_with_many_channels_and_few_lines(dtype):
    """Here the width is cut, not the lines: filters forward, channels backward."""
    check_convolution((1, 2, 3, 70), sliding((2, 3), (3, 3), (1, 1), "same"), 70, dtype)


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)),
    window=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.sampled_from(["valid", "same"]),
    filters=st.integers(1, 40),
)
@settings(max_examples=40)
def test_convolution_of_any_shape(shape, window, strides, padding, filters):
    if padding == "valid":
        window = min(window[0], shape[1]), min(window[1], shape[2])
    geometry = sliding(shape[1:3], window, strides, padding)
    check_convolution(shape, geometry, filters, np.float32)


def test_convolution_hands_nan_on(way):
    geometry = sliding((4, 4), (3, 3), (1, 1), "same")
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 0, 0, 0] = np.nan
    kernel = np.ones((3, 3, 1, 2), np.float32)
    for bias in (None, np.ones(2, np.float32)):
        y = im2col.conv2d(x, kernel, bias, geometry, "relu")
        assert np.isnan(y[0, :2, :2]).all() and np.isfinite(y[0, 2:]).all()


# --- Pooling -------------------------------------------------------------------------------------


@windows
@dtypes
def test_pools(case, dtype):
    rng = np.random.default_rng(0)
    geometry = geometry_of(case)
    places = case[1][0] * case[1][1]
    x = normal(rng, case[0], dtype)

    y, winners = pooling.max_pool2d_with_winners(x, geometry)
    expected = reference.max_pool2d_with_winners(x, geometry)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(winners, expected[1])
    assert (y.dtype, winners.dtype) == (dtype, np.uint8)
    np.testing.assert_array_equal(pooling.max_pool2d(x, geometry), y)

    g = normal(rng, y.shape, dtype)
    assert_is_sum("max_pool2d_gradient", pooling, places, g, winners, geometry)
    average = assert_is_sum("average_pool2d", pooling, places + 1, x, geometry)
    dx = assert_is_sum("average_pool2d_gradient", pooling, places + 1, g, geometry)
    if dtype == np.float64:
        assert_adjoint(g, average, dx, x)


# From few values, so that most windows hold ties; with the awkward ones among them.
awkward = st.sampled_from([0.0, -0.0, 1.0, -1.0, np.nan, -np.inf, np.inf])


@given(data=st.data(), case=st.sampled_from(WINDOWS))
@settings(max_examples=40)
def test_max_pool_with_ties_and_nan(data, case):
    values = data.draw(st.lists(awkward, min_size=1, max_size=12))
    x = np.resize(np.array(values, np.float32), case[0])
    geometry = geometry_of(case)
    y, winners = pooling.max_pool2d_with_winners(x, geometry)
    expected_y, expected_winners = reference.max_pool2d_with_winners(x, geometry)
    np.testing.assert_array_equal(winners, expected_winners)
    np.testing.assert_array_equal(y, expected_y)
    np.testing.assert_array_equal(pooling.max_pool2d(x, geometry), expected_y)


def test_winners_of_huge_windows():
    x = np.zeros((1, 17, 16, 2), np.float32)
    x[0, 16, 15] = 1
    geometry = sliding((17, 16), (17, 16), (1, 1), "valid")
    y, winners = pooling.max_pool2d_with_winners(x, geometry)
    assert winners.dtype == np.int32 and (winners == 17 * 16 - 1).all() and (y == 1).all()
    np.testing.assert_array_equal(pooling.max_pool2d_gradient(y, winners, geometry), x)


# --- Dense layer, bias, activations --------------------------------------------------------------


@pytest.mark.parametrize(("n", "d", "m"), [(1, 1, 1), (3, 7, 5), (33, 5, 70), (2, 90, 64)])
@dtypes
def test_dense(n, d, m, dtype):
    rng = np.random.default_rng(0)
    x, kernel, bias = normal(rng, (n, d), dtype), normal(rng, (d, m), dtype), normal(rng, m, dtype)
    g = normal(rng, (n, m), dtype)
    y = assert_is_sum("dense", dense, d + 1, x, kernel, bias)
    np.testing.assert_array_equal(dense.dense(x, kernel, bias, "relu"), y * (y > 0))
    linear = assert_is_sum("dense", dense, d, x, kernel, None)
    np.testing.assert_array_equal(dense.dense(x, kernel, None, "relu"), linear * (linear > 0))
    dx = assert_is_sum("dense_input_gradient", dense, m, g, kernel)
    dkernel = assert_is_sum("dense_kernel_gradient", dense, n, x, g)
    if dtype == np.float64:
        assert_adjoint(g, linear, dx, x)
        assert_adjoint(g, linear, dkernel, kernel)


@pytest.mark.parametrize("shape", [(1, 1), (6, 3), (2, 3, 4, 9), (2, 5, 3)])
@dtypes
def test_bias_gradient_is_a_sum_in_float64(shape, dtype):
    g = normal(np.random.default_rng(0), shape, dtype)
    total = assert_is_sum("bias_gradient", pointwise, g[..., 0].size, g)
    exact = exactly(reference.bias_gradient, g)
    if dtype == np.float32:  # one rounding, at the end
        np.testing.assert_array_equal(total, exact.astype(np.float32))


@dtypes
def test_relu(dtype):
    rng = np.random.default_rng(0)
    x, g = normal(rng, (3, 4, 5), dtype), normal(rng, (3, 4, 5), dtype)
    x[0, 0] = [0, -0.0, np.inf, -np.inf, np.nan]
    g[0, 0, :2] = np.inf  # inf * 0 would be NaN
    y = pointwise.relu(x)
    np.testing.assert_array_equal(y, reference.relu(x))
    assert np.isnan(y[0, 0, 4])
    dx = pointwise.relu_gradient(g, y)
    np.testing.assert_array_equal(dx, reference.relu_gradient(g, y))
    np.testing.assert_array_equal(dx, np.where(x > 0, g, 0))
    assert y.dtype == dx.dtype == dtype


@pytest.mark.parametrize("shape", [(1, 1), (6, 3), (2, 3, 4, 9), (80, 50, 60)])
@dtypes
def test_bias_and_relu_have_their_gradients_in_one_pass(shape, dtype):
    rng = np.random.default_rng(0)
    g, y = normal(rng, shape, dtype), np.maximum(normal(rng, shape, dtype), 0)
    g.flat[0], y.flat[0] = np.inf, 0  # inf * 0 would be NaN
    dz, dbias = pointwise.bias_relu_gradient(g, y)
    np.testing.assert_array_equal(dz, pointwise.relu_gradient(g, y))
    np.testing.assert_array_equal(dbias, pointwise.bias_gradient(dz))
    assert dz.dtype == dbias.dtype == dtype


@dtypes
def test_softmax_family(dtype):
    rng = np.random.default_rng(0)
    logits = normal(rng, (6, 5), dtype) * dtype(10)
    targets = np.eye(5, dtype=dtype)[[0, 1, 2, 3, 4, 0]]
    # The difference to the maximum is rounded, and the exponential turns that into a relative
    # error of as many roundings as the difference is large; then 5 additions, a division, exp.
    roundings = np.ptp(logits) + 5 + 8
    p = reference.softmax(logits)
    assert p.dtype == dtype
    assert_ulps(p, exactly(reference.softmax, logits), roundings)
    losses, same = reference.softmax_cross_entropy(logits, targets)
    np.testing.assert_array_equal(same, p)
    assert losses.dtype == dtype
    expected, _ = exactly(reference.softmax_cross_entropy, logits, targets)
    assert_ulps(losses, expected, roundings, scale=np.abs(logits).max() + expected)
    g = normal(rng, p.shape, dtype)
    dx = reference.softmax_gradient(g, p)
    assert_ulps(dx, exactly(reference.softmax_gradient, g, p), 20, p * np.abs(g).sum())


# --- Batch normalization -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 1), (40, 3), (2, 3, 4, 9)])
@dtypes
def test_batch_norm(shape, dtype):
    rng = np.random.default_rng(0)
    x, g = normal(rng, shape, dtype) + dtype(2), normal(rng, shape, dtype)
    gamma = normal(rng, shape[-1], dtype)
    count = x[..., 0].size
    mean, variance = normalization.batch_norm_statistics(x)
    exact_mean, exact_variance = exactly(reference.batch_norm_statistics, x)
    assert mean.dtype == variance.dtype == dtype
    extra = 4 * count if dtype == np.float64 else 1  # float32 sums run in float64
    assert_ulps(mean, exact_mean, extra, np.abs(exact_mean) + 3)
    assert_ulps(variance, exact_variance, extra, exact_variance + 1e-3)

    inv_std = 1 / np.sqrt(variance + dtype(1e-3))
    y = normalization.scale_shift(x, gamma, mean)
    assert y.dtype == dtype
    assert_sum(y, exactly(reference.scale_shift, x, gamma, mean), abs(x * gamma) + abs(mean), 2)

    actual = normalization.batch_norm_gradient(g, x, mean, inv_std, gamma)
    expected = exactly(reference.batch_norm_gradient, g, x, mean, inv_std, gamma)
    xhat = np.abs(x.astype(np.float64) - mean) * inv_std
    sum_g, sum_products = np.abs(g).reshape(count, -1).sum(0), 0.0
    sum_products = (np.abs(g) * xhat).reshape(count, -1).sum(0)
    scale = np.abs(gamma) * inv_std * (np.abs(g) + (sum_g + xhat * sum_products) / count)
    x_scale = (np.abs(x) + np.abs(mean)) * inv_std * np.abs(gamma) * inv_std * sum_products / count
    assert_ulps(actual[0], expected[0], 12 + extra, scale + x_scale)
    assert_ulps(actual[1], expected[1], 4 * extra + 4, sum_products + sum_g * 10)
    assert_ulps(actual[2], expected[2], 2 * extra, sum_g)
    assert all(a.dtype == dtype for a in actual)


def test_batch_norm_statistics_of_a_large_mean():
    x = (4096 + np.array([-1, 1] * 500)).astype(np.float32).reshape(-1, 1)
    mean, variance = normalization.batch_norm_statistics(x)
    assert mean.item() == 4096 and variance.item() == 1


# --- Updates -------------------------------------------------------------------------------------


def both(update, formula, arrays, *numbers):
    fast, slow = [a.copy() for a in arrays], [a.copy() for a in arrays]
    padding = [None] * numbers.count(None)
    numbers = numbers[len(padding) :]
    assert update(*fast, *padding, *numbers) is None
    formula(*slow, *padding, *numbers)
    return fast, slow


@dtypes
def test_updates_are_the_formulas_bit_by_bit(dtype):
    """Element by element there is one order of operations, each correctly rounded."""
    rng = np.random.default_rng(0)
    w, g, m = (normal(rng, (13, 7), dtype) for _ in range(3))
    v = normal(rng, (13, 7), dtype) ** 2
    steps = [
        both(updates.sgd_update, reference.sgd_update, (w, g), None, 0.1, 0.0, False),
        both(updates.sgd_update, reference.sgd_update, (w, g, m), 0.1, 0.9, False),
        both(updates.sgd_update, reference.sgd_update, (w, g, m), 0.1, 0.9, True),
        both(updates.adam_update, reference.adam_update, (w, g, m, v), 0.01, 0.9, 0.999, 1e-7),
    ]
    for fast, slow in steps:
        for a, b in zip(fast, slow, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(fast[1], g)  # the gradient is only read
        assert not np.array_equal(fast[0], w)


def test_updates_take_whole_numbers():
    w = np.ones(3)
    updates.sgd_update(w, np.ones(3), None, 1, 0)
    updates.sgd_update(w, np.ones(3), np.zeros(3), 1, 1)
    np.testing.assert_array_equal(w, -1)


def test_an_update_that_would_be_lost_is_an_error():
    w = np.ones((4, 3)).T
    with pytest.raises(ValueError, match="an update needs C-contiguous arrays: it writes into"):
        updates.sgd_update(w, np.ones((3, 4)), None, 0.1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 7, 300_000])
def test_all_finite(dtype, size):
    a = np.full(size, np.finfo(dtype).max, dtype)
    assert updates.all_finite(a) and updates.all_finite(-a) and updates.all_finite(a[:0])
    for place in {0, size // 2, size - 1}:
        for value in (np.nan, np.inf, -np.inf):
            b = a.copy()
            b[place] = value
            assert not updates.all_finite(b) and not reference.all_finite(b)
            assert not updates.all_finite(np.stack([a, b], axis=1)[:, 1])
