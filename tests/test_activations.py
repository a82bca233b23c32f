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


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    """Martins & Astudillo 2016: y >= 0, its sum is 1, and no such point is nearer to x. A row does
    not depend on the others, not even where its numbers are equal."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 2, (40, 5)), rng.integers(-2, 3, (40, 5))])
    y = activations.sparsemax(Tensor(x)).numpy()
    assert (y >= 0).all() and (y == 0).any()
    np.testing.assert_allclose(y.sum(axis=-1), 1, rtol=1e-12)
    for other in (rng.dirichlet(np.ones(5), (200, 1)), np.eye(5)[:, None]):
        assert (((y - x) ** 2).sum(-1) <= ((other - x) ** 2).sum(-1) + 1e-12).all()
    np.testing.assert_array_equal(activations.sparsemax(Tensor(x[:1])).numpy(), y[:1])
