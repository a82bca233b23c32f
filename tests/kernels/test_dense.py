"""Dense layers of few rows and many weights: another way than BLAS, the same sums."""

import numpy as np
import pytest

from minitl.kernels import reference
from minitl.kernels.fast import dense
from minitl.kernels.machine import simd, threads
from tests.kernels.cases import normal
from tests.tolerances import assert_sum

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SHAPES = [  # rows N, inputs D, outputs m: around a tile, a panel, a chunk, a job
    (1, 1, 1),
    (2, 63, 31),
    (5, 64, 33),
    (12, 65, 32),
    (13, 700, 100),
    (33, 130, 1100),
    (64, 5000, 70),
    (3, 1, 2050),
    (1, 2050, 1),
]
KERNELS = ("dense", "dense_input_gradient", "dense_kernel_gradient")


@pytest.fixture
def always(monkeypatch):
    """Whatever the shape, as if it were one of few rows and many weights; BLAS is not called."""
    monkeypatch.setattr(dense, "suits", lambda *shape: True)
    monkeypatch.setattr(dense, "product", None)


def arrays(n, d, m, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return normal(rng, (n, d), dtype), normal(rng, (d, m), dtype), normal(rng, (n, m), dtype)


def calls(x, kernel, g):
    """The arguments of each kernel, and how many terms its sums have."""
    (n, d), m = x.shape, g.shape[1]
    few = {"dense": ((x, kernel, None), d), "dense_input_gradient": ((g, kernel), m)}
    return (few if n > 1 else {}) | {"dense_kernel_gradient": ((x, g), n)}


@pytest.mark.parametrize(("n", "d", "m"), SHAPES)
@dtypes
def test_products(n, d, m, dtype, always):
    for name, (arguments, terms) in calls(*arrays(n, d, m, dtype)).items():
        actual, formula = getattr(dense, name)(*arguments), getattr(reference, name)
        wide = [a if a is None else a.astype(np.float64) for a in arguments]
        sizes = [a if a is None else abs(a) for a in wide]
        assert actual.dtype == dtype and actual.flags.c_contiguous
        assert_sum(actual, formula(*wide), formula(*sizes), terms)


@dtypes
def test_any_order_in_memory(dtype, always):
    x, kernel, g = arrays(14, 150, 90, dtype)
    for name, (arguments, _) in calls(x, kernel, g).items():
        expected = getattr(dense, name)(*arguments)
        others = [a if a is None else np.asfortranarray(a) for a in arguments]
        np.testing.assert_array_equal(getattr(dense, name)(*others), expected)
        spread = [a if a is None else np.repeat(a, 2, axis=1)[:, ::2] for a in arguments]
        np.testing.assert_array_equal(getattr(dense, name)(*spread), expected)


def test_bits_depend_neither_on_the_threads_nor_on_the_other_rows(always):
    x, kernel, g = arrays(30, 3000, 200, np.float32)
    whole = {n: getattr(dense, n)(*a) for n, (a, _) in calls(x, kernel, g).items()}
    before = threads.thread_count()
    for count in (1, 3):
        threads.set_thread_count(count)
        for name, (arguments, _) in calls(x, kernel, g).items():
            np.testing.assert_array_equal(getattr(dense, name)(*arguments), whole[name])
    threads.set_thread_count(before)
    np.testing.assert_array_equal(dense.dense(x[7:9], kernel, None), whole["dense"][7:9])
    some = dense.dense_input_gradient(g[7:9], kernel)
    np.testing.assert_array_equal(some, whole["dense_input_gradient"][7:9])


def test_nan_and_infinity_stay_in_their_rows(always):
    x, kernel, _ = arrays(6, 200, 40, np.float32)
    x[2, 5], x[4, 199] = np.nan, np.inf
    y = dense.dense(x, kernel, None)
    assert np.isnan(y[2]).all() and np.isinf(y[4]).all() and np.isfinite(y[[0, 1, 3, 5]]).all()


def test_long_sums_are_as_exact_as_those_of_blas(always):
    rng = np.random.default_rng(0)
    x = np.maximum(normal(rng, (32, 25088), np.float32), 0)
    kernel = normal(rng, (25088, 128), np.float32)
    exact = x.astype(np.float64) @ kernel.astype(np.float64)
    error = np.linalg.norm(dense.dense(x, kernel, None) - exact)
    assert error <= np.linalg.norm(x @ kernel - exact)


def test_which_way():
    for product in ("y", "dx", "dkernel"):
        assert dense.suits(product, 32, 25088, 1024), product
        assert not dense.suits(product, 73, 25088, 1024), product  # arithmetic decides
        assert not dense.suits(product, 32, 512, 1024), product  # the weights stay in the cache
        assert not dense.suits(product, 32, 25088, 64), product  # a panel has little to do
    assert dense.suits("dkernel", 1, 25088, 1024) and not dense.suits("y", 1, 25088, 1024)


@pytest.mark.parametrize(
    ("n", "d", "m"), [(2, 9, 1), (5, 64, 2), (12, 700, 3), (33, 5001, 10), (72, 4100, 15)]
)
def test_a_narrow_kernel_is_read_where_it_lies_and_not_beyond(n, d, m):
    m = min(m, simd.VECTOR_BYTES // 4)  # a line is one vector
    x, kernel, _ = arrays(n, d, m, np.float32)
    behind = np.full(d * m + 64, np.nan, np.float32)  # in memory, but no part of the kernel
    behind[: d * m] = kernel.reshape(-1)
    lying = behind[: d * m].reshape(d, m)
    expected, sizes = x.astype(float) @ kernel, abs(x.astype(float)) @ abs(kernel)
    assert_sum(dense.narrow(x, lying), expected, sizes, d)
    count = threads.thread_count()
    found = []
    for one in (1, 3):
        threads.set_thread_count(one)
        found.append(dense.narrow(x, lying))
    threads.set_thread_count(count)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize(("n", "d", "m"), [(2, 64, 1), (5, 65, 2), (33, 5001, 10), (72, 4100, 16)])
def test_the_gradient_of_a_narrow_kernel(n, d, m):
    x, _, g = arrays(n, d, m, np.float32)
    expected, sizes = x.T.astype(float) @ g, abs(x.T.astype(float)) @ abs(g)
    assert_sum(dense.narrow_kernel_gradient(x, g), expected, sizes, n)
    assert not dense.narrow_suits(x, np.ones((n, 17), np.float32))


def test_one_row_by_a_large_kernel():
    x, kernel, _ = arrays(1, 5003, 130, np.float32)
    expected, sizes = x.astype(float) @ kernel, abs(x.astype(float)) @ abs(kernel)
    assert_sum(dense.product(x, kernel), expected, sizes, 5003)


def test_mixed_dtypes_are_left_to_numpy():
    x, kernel = np.ones((2, 1024)), np.ones((1024, 1024), np.float32)
    np.testing.assert_array_equal(dense.dense(x, kernel, None), 1024)
    g = np.ones((2, 1024))
    np.testing.assert_array_equal(dense.dense_input_gradient(g, kernel), 1024)
