"""Activation functions: gradients, values that can be checked by hand, names."""

import numpy as np
import pytest

from minitl import activations
from minitl.autograd import Tensor
from minitl.judging.gradients import check_gradients


@pytest.mark.parametrize("name", sorted(activations.TABLE))
def test_gradient(name):
    x = np.linspace(-4.03, 4.05, 24).reshape(4, 6)  # no kink within a step of any of them
    check_gradients(activations.get(name), [x])


def test_other_arguments():
    x = np.linspace(-4.03, 4.05, 24).reshape(4, 6)
    for f in (
        lambda t: activations.gelu(t, approximate=True),
        lambda t: activations.elu(t, alpha=0.3),
        lambda t: activations.leaky_relu(t, 0.7),
        lambda t: activations.log_softmax(t, axis=0),
    ):
        check_gradients(f, [x])


@pytest.mark.parametrize(
    "name, y",
    [
        ("leaky_relu", [-0.4, 0, 2]),
        ("relu6", [0, 0, 2]),
        ("elu", [np.exp(-2) - 1, 0, 2]),
        ("softsign", [-2 / 3, 0, 2 / 3]),
        ("hard_sigmoid", [1 / 6, 1 / 2, 5 / 6]),
        ("hard_silu", [-2 / 6, 0, 10 / 6]),
        ("exponential", [np.exp(-2), 1, np.exp(2)]),
        ("softplus", np.log1p(np.exp([-2, 0, 2]))),
        ("silu", np.array([-2, 0, 2]) / (1 + np.exp([2.0, 0, -2]))),
        ("gelu", [-2 * 0.0227501319, 0, 2 * 0.977249868]),
    ],
)
def test_by_hand(name, y):
    np.testing.assert_allclose(activations.get(name)(np.array([-2.0, 0, 2])).numpy(), y, rtol=1e-8)


@pytest.mark.parametrize("name", sorted(activations.TABLE))
def test_float32_stays_float32_and_finite(name):
    x = np.array([[-80, -1, 0, 1, 80, 2]], np.float32)
    x = Tensor(x, requires_grad=True)
    y = activations.get(name)(x)
    assert y.dtype == np.float32 and np.isfinite(y.numpy()).all()


def test_names():
    assert activations.get(None) is activations.linear
    assert activations.get("swish") is activations.silu
    with pytest.raises(ValueError, match=r"unknown activation 'gelo'. Did you mean 'gelu'\?"):
        activations.get("gelo")
