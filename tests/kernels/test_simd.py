"""Constant matrices acting on vectors: against the product of matrices."""

import numpy as np
import pytest

from minitl.kernels.fast.winograd_matrices import POINTS, winograd_matrices
from minitl.kernels.machine import simd

MATRICES = [one for points in POINTS.values() for one in winograd_matrices(points)]
MATRICES += [matrix.T for matrix in MATRICES]
MATRICES += [
    np.array([[0, 0, 0], [-1, 0, 2.5], [0, 0, -1]]),
    np.array([[1.0, 1], [1, -1]]),
    np.random.default_rng(0).normal(size=(5, 4)),
]


@pytest.mark.parametrize("matrix", MATRICES, ids=lambda matrix: f"{len(matrix)}x{matrix.shape[1]}")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_linear_is_the_product_with_the_matrix(matrix, dtype):
    lanes = simd.VECTOR_BYTES // np.dtype(dtype).itemsize
    outputs, inputs = matrix.shape
    x = np.random.default_rng(1).normal(size=(inputs, 2, lanes)).astype(dtype)
    x[~matrix.any(axis=0)] = np.nan  # is not read
    y = np.full((3 * outputs + 1, lanes), np.nan, dtype)
    axis = simd.linear({2: -matrix, 0: matrix})

    @simd.inlined
    def run(key, given, y):
        axis(key, given, lanes, 2 * lanes, y, lanes, 3 * lanes)

    minus = y.copy()
    run(5, x, y)  # a key that is not there: the last
    run(2, x, minus)

    expected, used = np.full_like(y, np.nan), matrix.any(axis=1)
    product = matrix @ np.nan_to_num(x[:, 1].astype(np.float64))
    expected[1::3][used] = product[used]
    bound = 8 * np.finfo(dtype).eps * np.max(abs(matrix) @ abs(np.nan_to_num(x[:, 1])))
    np.testing.assert_allclose(y, expected, rtol=0, atol=bound)
    np.testing.assert_allclose(minus, -expected, rtol=0, atol=bound)


@pytest.mark.parametrize(
    ("matrix", "products", "additions"),
    [
        (winograd_matrices(POINTS[4])[2].T, 10, 12),  # B^T: row by row, 16 and 16
        (winograd_matrices(POINTS[4])[1].T, 6, 10),  # A^T: 12 and 14
    ],
    ids=["rows", "columns"],
)
def test_mirrored_rows_and_columns_share_their_sums(matrix, products, additions):
    sums, _ = simd.steps(matrix)
    assert sum(abs(c) != 1 for terms in sums for c in terms.values()) == products
    assert sum(len(terms) - 1 for terms in sums) == additions
