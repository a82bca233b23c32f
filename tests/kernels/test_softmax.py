"""The compiled softmax has the bits of the formula, also where nothing is finite."""

import numpy as np
import pytest

from minitl.kernels import reference
from minitl.kernels.fast import softmax as fast


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (32, 10), (2, 16), (5, 129), (7,), (2, 3, 8)])
def test_same_bits_as_the_formula(shape):
    rng = np.random.default_rng(1)
    for scale in (0.01, 1, 30):
        x = (rng.standard_normal(shape) * scale).astype(np.float32)
        np.testing.assert_array_equal(fast.softmax(x), reference.softmax(x))
        if x.ndim == 2:
            targets = np.eye(shape[1], dtype="f4")[rng.integers(0, shape[1], shape[0])]
            for found, expected in zip(
                fast.softmax_cross_entropy(x, targets),
                reference.softmax_cross_entropy(x, targets),
                strict=True,
            ):
                np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_not_finite():
    x = np.array([[0, np.nan, 1], [np.nan, 0, 1], [np.inf, 0, 1], [-np.inf, 0, 1], [1, 2, np.nan]])
    x = x.astype(np.float32)
    np.testing.assert_array_equal(fast.softmax(x), reference.softmax(x))
    assert np.isnan(fast.softmax(x)[[0, 1, 2, 4]]).any(axis=1).all()


def test_rows_that_do_not_lie_one_after_the_other():
    x = np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32).T
    np.testing.assert_array_equal(fast.softmax(x), reference.softmax(x))
