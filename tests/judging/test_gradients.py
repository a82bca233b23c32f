"""The tools that check gradients: what is right passes, what is wrong is found and named."""

import numpy as np
import pytest

from minitl import ops
from minitl.autograd import Tensor, backward, record
from minitl.judging.gradients import check_gradients, gradient_errors


def test_check_gradients_finds_a_permuted_gradient():
    """Permuted entries have the right sum: a cotangent of ones would let them pass."""

    def permuted(x):
        return record("permuted", x.storage * 2, (x, lambda g: 2 * g[::-1].copy()))

    x = np.arange(4.0)
    with pytest.raises(AssertionError, match=r"the gradient for input 0 is off by"):
        check_gradients(permuted, [x])
    ones = backward(permuted(t := Tensor(x, requires_grad=True)), [t], np.ones(4))[0]
    assert ones.tolist() == [2.0] * 4


def test_check_gradients_finds_nan():
    def broken(x):
        return record("broken", x.storage * 2, (x, lambda g: g * np.nan))

    with pytest.raises(AssertionError, match="off by nan"):
        check_gradients(broken, [np.ones(2)])


def test_gradient_errors_of_a_right_gradient_are_small():
    errors = gradient_errors(lambda a, b: a * ops.exp(b), [np.ones((2, 3)), np.ones(3)])
    assert len(errors) == 2 and max(errors) < 1e-9
