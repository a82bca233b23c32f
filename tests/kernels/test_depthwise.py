"""Depthwise convolution and the small networks' activations, compiled, against their formulas."""

import numpy as np
import pytest

from minitl import kernels
from minitl.kernels import activations, depthwise
from minitl.kernels.geometry import sliding
from tests.tolerances import UNIT_ROUNDOFF, assert_sum

# Fewer channels than two vectors, whole vectors, and some over; several filters per channel.
CHANNELS = [(3, 1), (16, 1), (32, 1), (40, 1), (19, 1), (16, 2)]
SIZES = [(7, 6), (9, 14), (3, 2)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("c", "m"), CHANNELS)
@pytest.mark.parametrize("window", [(3, 3), (5, 5), (1, 3)])
def test_windows_strides_and_paddings(dtype, c, m, window):
    rng = np.random.default_rng(0)
    for size, strides in [(s, t) for s in SIZES for t in ((1, 1), (2, 2), (2, 1))]:
        x = rng.standard_normal((2, *size, c)).astype(dtype)
        k = rng.standard_normal((*window, c, m)).astype(dtype)
        bias = rng.standard_normal(c * m).astype(dtype)
        for pads in ("same", "valid", (0, 1, 0, 1)):  # the last as ZeroPadding2D before 'valid'
            top, bottom, left, right = pads if isinstance(pads, tuple) else (0, 0, 0, 0)
            padded = (size[0] + top + bottom, size[1] + left + right)
            if pads != "same" and (padded[0] < window[0] or padded[1] < window[1]):
                continue
            how = sliding(padded, window, strides, "same" if pads == "same" else "valid")
            if isinstance(pads, tuple):
                how = how._replace(size=size, pads=pads)
            g = rng.standard_normal((2, *how.out_size, c * m)).astype(dtype)
            for name, terms, arrays in (
                ("depthwise_conv2d", window[0] * window[1] + 1, (x, k, how, bias)),
                ("depthwise_conv2d_input_gradient", window[0] * window[1] * m, (g, k, how)),
                ("depthwise_conv2d_kernel_gradient", g.shape[1] * g.shape[2] * 2, (x, g, how)),
            ):
                formula, wide = getattr(depthwise, name).formula, []
                for f in (np.asarray, np.abs):
                    given = [a if a is how else f(a.astype(np.float64)) for a in arrays]
                    wide.append(formula(*given))
                found = getattr(kernels, name)(*arrays)
                assert found.dtype == dtype
                assert_sum(found, *wide, terms + 2)


@pytest.mark.parametrize("activation", ["relu", "relu6", "silu"])
@pytest.mark.parametrize(("dtype", "c"), [(np.float32, 32), (np.float32, 3), (np.float64, 32)])
def test_activation_in_the_same_pass(activation, dtype, c):
    rng = np.random.default_rng(1)
    how = sliding((9, 8), (3, 3), (1, 1), "same")
    x, k = 3 * rng.standard_normal((2, 9, 8, c)).astype(dtype), rng.standard_normal((3, 3, c, 1))
    given = x, k.astype(dtype), how, np.linspace(-1, 1, c, dtype=dtype)
    found = kernels.depthwise_conv2d(*given, activation)
    expected = depthwise.depthwise_conv2d.formula(*given, activation)
    atol = 200 * UNIT_ROUNDOFF[np.dtype(dtype)]
    np.testing.assert_allclose(found, expected, rtol=atol, atol=atol)
    assert (found.max() == 6) == (activation == "relu6")


def test_swish_is_right_to_three_units():
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.uniform(-87, 100, 100_003), rng.standard_normal(100_000)])
    x = x.astype(np.float32)
    exact = x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64)))
    error = np.abs(kernels.silu(x) - exact) / np.spacing(np.abs(exact).astype(np.float32))
    assert error.max() < 3
    g = rng.standard_normal(x.shape).astype(np.float32)
    wide = activations.silu_gradient.formula(g.astype(np.float64), x.astype(np.float64))
    np.testing.assert_allclose(kernels.silu_gradient(g, x), wide, rtol=0, atol=2e-5)


@pytest.mark.parametrize("size", [5, 17, 64])
def test_what_is_not_finite(size):
    x = np.zeros(size, np.float32)
    x[:5] = np.nan, np.inf, -1e30, 95, -95
    y = kernels.silu(x)
    assert np.isnan(y[0]) and y[1] == np.inf and y[3] == 95
    assert abs(y[2]) < 1e-30 and abs(y[4]) < 1e-30 and not y[5:].any()
    clipped = kernels.relu6(x)
    assert np.isnan(clipped[0]) and clipped[1] == 6 and not clipped[2:3].any()
