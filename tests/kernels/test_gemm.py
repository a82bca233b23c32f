"""Vectors in registers, and the matrix product made of them."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numba import njit

from minitl.kernels.fast import gemm
from minitl.kernels.machine import simd
from tests.kernels.cases import normal
from tests.tolerances import assert_sum

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def product(a, b, rows=None, added=None, bounds=None, step=None):
    """C = A @ B + added, within bounds, by `multiply`, from its own rows unless told otherwise."""
    panels = gemm.pack(b)
    rows = np.arange(len(a)) * a.shape[1] if rows is None else rows
    c = np.full((len(rows), b.shape[1]), np.nan, b.dtype)
    left = gemm.Rows(a.reshape(-1), rows, step, 1, 0)
    gemm.multiply(left, panels, 0, added, 0, bounds, c.reshape(-1), b.shape[1])
    return c


def assert_product(c, a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    assert_sum(c, a @ b, abs(a) @ abs(b), a.shape[1])


# --- Vectors -------------------------------------------------------------------------------------


@njit
def _arithmetic(x, y):
    vector = simd.lanes(x)
    for i in range(0, x.size, vector):
        a, b = simd.load(x, i), simd.load(y, i)
        simd.store(y, i, simd.maximum(2.5 * a - b * simd.broadcast(x, 1), b + 1))
    return vector


@dtypes
def test_vectors_are_arrays_of_lanes(dtype):
    rng = np.random.default_rng(0)
    x, y = normal(rng, (4, 16), dtype), normal(rng, (4, 16), dtype)
    expected = np.maximum(dtype(2.5) * x - y * x[0, 1], y + 1)
    vector = _arithmetic(x, y)
    assert vector == simd.VECTOR_BYTES // x.itemsize
    # One fused instruction may round once where NumPy rounds twice.
    np.testing.assert_allclose(y, expected, rtol=0, atol=8 * np.finfo(dtype).eps)


@njit
def _not_below(x, floor):
    simd.store(x, 0, simd.maximum(simd.load(x, 0), simd.broadcast(floor, 0)))


def test_maximum_keeps_nan_as_relu_must():
    x = np.zeros(16, np.float64)
    x[:3] = np.nan, -1, 2
    _not_below(x, np.zeros(1))
    np.testing.assert_array_equal(x[:3], [np.nan, 0, 2])


@njit
def _load_from_a_view(x):
    return simd.lanes(x), simd.store(x, 0, simd.load(x, 0))


def test_vectors_refuse_arrays_with_gaps():
    with pytest.raises(Exception, match="contiguous arrays only"):
        _load_from_a_view(np.zeros((8, 16))[:, ::2])


# --- The product ---------------------------------------------------------------------------------


@dtypes
@pytest.mark.parametrize(
    "height, depth, width",
    [(1, 1, 1), (6, 5, 16), (6, 1, 8), (7, 3, 17), (5, 64, 15), (13, 9, 33), (97, 131, 50)],
)
def test_product_of_any_size(height, depth, width, dtype):
    rng = np.random.default_rng(height)
    a, b = normal(rng, (height, depth), dtype), normal(rng, (depth, width), dtype)
    assert_product(product(a, b), a, b)


@dtypes
def test_rows_start_anywhere_and_may_overlap(dtype):
    rng = np.random.default_rng(1)
    line, b = normal(rng, 40, dtype), normal(rng, (7, 20), dtype)
    rows = np.array([0, 1, 2, 33, 5, 5, 12, 30])
    windows = np.lib.stride_tricks.sliding_window_view(line, 7)[rows]
    assert_product(product(line[None], b, rows), windows, b)


@dtypes
@pytest.mark.parametrize("depth", [4, 70])
def test_rows_of_several_runs_and_steps(depth, dtype):
    """Row r, run k, step i: a[r + 10 k + 3 i], as the windows of an image lie."""
    rng = np.random.default_rng(2)
    a, b = normal(rng, 50 + 3 * depth, dtype), normal(rng, (3 * depth, 9), dtype)
    rows = np.arange(11)
    index = rows[:, None, None] + 10 * np.arange(3)[:, None] + 3 * np.arange(depth)
    panels, c = gemm.pack(b), np.empty((11, 9), dtype)
    gemm.multiply(gemm.Rows(a, rows, 3, 3, 10), panels, 0, None, 0, None, c.reshape(-1), 9)
    assert_product(c, a[index].reshape(11, 3 * depth), b)


@dtypes
@pytest.mark.parametrize("depth", [9, 70])
def test_transposed_and_added_to_what_was_there(depth, dtype):
    rng = np.random.default_rng(3)
    a, b = normal(rng, (depth, 12), dtype), normal(rng, (depth, 32), dtype)
    before = normal(rng, (12, 32), dtype)
    c = before.copy().reshape(-1)
    columns = gemm.Rows(a.reshape(-1), np.arange(12), 12, 1, 0)
    gemm.multiply(columns, gemm.pack(b), 0, c, 32, None, c, 32)
    joined_a = np.concatenate([a.T, before], 1)
    joined_b = np.concatenate([b, np.eye(32, dtype=dtype)])
    assert_product(c.reshape(12, 32), joined_a, joined_b)


@dtypes
def test_a_step_that_the_compiler_knows_changes_no_bit(dtype):
    rng = np.random.default_rng(5)
    a, b = normal(rng, (13, 70), dtype), normal(rng, (70, 19), dtype)
    np.testing.assert_array_equal(product(a, b), product(a, b, step=1))


@dtypes
def test_adds_a_bias_and_stays_within_bounds(dtype):
    rng = np.random.default_rng(4)
    a, b = normal(rng, (8, 5), dtype), normal(rng, (5, 19), dtype)
    bias = normal(rng, gemm.round_up(19, gemm.panel_width(b.dtype)), dtype)
    with_bias = product(a, b, added=bias)
    ones = np.ones((8, 1), dtype)
    assert_product(with_bias, np.concatenate([a, ones], 1), np.concatenate([b, bias[None, :19]]))
    with_bias *= 6
    for activation, within in (("relu", (0, np.inf)), ("relu6", (0, 6)), (None, (-np.inf, np.inf))):
        found = product(a * 6, b, added=bias * 6, bounds=gemm.bounds_of(activation, b.dtype))
        np.testing.assert_allclose(found, np.clip(with_bias, *within), rtol=1e-5, atol=1e-5)
    assert (with_bias < 0).any() and (with_bias > 6).any()
    a[3, 2] = np.nan
    found = product(a, b, added=bias, bounds=gemm.bounds_of("relu6", b.dtype))
    assert np.isnan(found[3]).all() and not np.isnan(found[:3]).any()


def test_nothing_is_written_beyond_the_last_column_and_row():
    a, b = np.ones((7, 3), np.float32), np.ones((3, 5), np.float32)
    c = np.full(7 * 5 + 40, 9, np.float32)
    panels = gemm.pack(b)
    rows = gemm.Rows(a.reshape(-1), np.arange(7) * 3, 1, 1, 0)
    gemm.multiply(rows, panels, 0, None, 0, None, c, 5)
    np.testing.assert_array_equal(c[: 7 * 5], 3)
    np.testing.assert_array_equal(c[7 * 5 :], 9)


def test_pack_lays_columns_into_panels():
    b = np.arange(3 * 20, dtype=np.float64).reshape(3, 20)
    panels = gemm.pack(b)
    width = gemm.panel_width(b.dtype)
    assert panels.shape == (-(-20 // width), 3, width)
    unpacked = panels.swapaxes(0, 1).reshape(3, -1)
    np.testing.assert_array_equal(unpacked[:, :20], b)
    np.testing.assert_array_equal(unpacked[:, 20:], 0)


@dtypes
def test_bits_do_not_depend_on_the_cut(dtype):
    rng = np.random.default_rng(5)
    a, b = normal(rng, (200, 70), dtype), normal(rng, (70, 40), dtype)
    whole = product(a, b)
    for first, last in ((0, 1), (5, 12), (199, 200)):
        np.testing.assert_array_equal(product(a[first:last], b), whole[first:last])
    np.testing.assert_array_equal(product(a, b[:, :3].copy()), whole[:, :3])


def test_sums_are_made_of_partial_sums():
    """Products in one sum err more than three times as much."""
    rng = np.random.default_rng(6)
    a, b = normal(rng, (24, 4096), np.float32), normal(rng, (4096, 40), np.float32)
    exact = a.astype(np.float64) @ b
    one_sum = np.zeros((24, 40), np.float32)
    for k in range(4096):
        one_sum += a[:, k : k + 1] * b[k]

    def error(c):
        return np.linalg.norm(c - exact)

    assert error(one_sum) > 3 * error(product(a, b))


def test_what_is_added_comes_last():
    """A sum of small numbers is not lost, one by one, beside a large one."""
    a, b = np.full((12, 64), 2**-12, np.float32), np.full((64, 32), 2**-12, np.float32)
    c = np.ones((12, 32), np.float32)
    rows, flat = gemm.Rows(a.reshape(-1), np.arange(12) * 64, 1, 1, 0), c.reshape(-1)
    gemm.multiply(rows, gemm.pack(b), 0, flat, 32, None, flat, 32)
    np.testing.assert_array_equal(c, np.float32(1 + 64 * 2.0**-24))


PLAIN = """
import numpy as np
from minitl import kernels
from minitl.kernels.fast import gemm
from minitl.kernels.fast import few_channels
from minitl.kernels.fast import dense
from minitl.kernels.fast import winograd
from minitl.kernels.geometry import sliding
a, b = np.random.default_rng(0).normal(size=(2, 7, 7))
dense.suits = lambda *shape: True
assert abs(dense.dense(a, b, None) - a @ b).max() < 1e-14
assert abs(dense.dense_input_gradient(a, b) - a @ b.T).max() < 1e-14
assert abs(dense.dense_kernel_gradient(a, b) - a.T @ b).max() < 1e-14
x, k = np.ones((1, 5, 4, 3), np.float32), np.ones((3, 3, 3, 2), np.float32)
y = winograd.conv2d(x, k, None, sliding((5, 4), (3, 3), (1, 1), "valid"))
assert y.dtype == np.float32 and abs(y - 27).max() < 1e-4, y
for room in (winograd, few_channels):
    y = room.conv2d(x, k, None, sliding((5, 4), (3, 3), (1, 1), "valid"), precise=True)
    assert y.dtype == np.float32 and (y == 27).all(), y
winograd.LARGE_MAP = winograd.LARGE_GRADIENT = 0  # tiles of 6: a whole one, and edges of 4 and of 2
x, geometry = np.ones((1, 12, 10, 3), np.float32), sliding((12, 10), (3, 3), (1, 1), "valid")
y = winograd.conv2d(x, k, None, geometry)
assert y.shape == (1, 10, 8, 2) and abs(y - 27).max() < 1e-3, y
pooled = winograd.conv2d_max_pool2d(x, k, None, geometry)
assert pooled.shape == (1, 5, 4, 2) and abs(pooled - 27).max() < 1e-3, pooled
assert abs(winograd.conv2d_input_gradient(y, k, geometry)[0, 2:-2, 2:-2] - 486).max() < 0.05
assert abs(winograd.conv2d_kernel_gradient(x, y, geometry) - 27 * 80).max() < 0.1
from minitl.autograd import Tensor, backward
from minitl.ops.recurrence import gru, lstm
for op, gates in (lstm, 4), (gru, 3):
    z, kernel = np.ones((2, 5, 16 * gates), np.float32), np.full((16, 16 * gates), 0.1, np.float32)
    leaves = [Tensor(z, requires_grad=True), Tensor(kernel, requires_grad=True)]
    y = op(*leaves)
    found = [y.storage, *backward(y, leaves, np.ones(y.shape, np.float32))]
    with kernels.use_kernels("reference"):
        y = op(*leaves)
        right = [y.storage, *backward(y, leaves, np.ones(y.shape, np.float32))]
    assert all(np.allclose(a, b, 1e-5, 1e-6) for a, b in zip(found, right)), op
"""


@pytest.mark.parametrize(
    "environment, before",
    [
        ({"NUMBA_DISABLE_JIT": "1"}, ""),
        ({}, "from minitl.kernels.machine import simd; simd.VECTOR_BYTES = 64"),
    ],
    ids=["plain Python", "64 bytes"],
)
def test_kernels_run_as_plain_python_and_with_longer_vectors(environment, before, tmp_path):
    """The first can be read along in a debugger; the second is what an AVX-512 machine does."""
    variables = {**os.environ, **environment, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", before + PLAIN], env=variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
