"""Losses: values against formulas, gradients, weights and reductions, and wrong targets."""

import numpy as np
import pytest
import scipy.special

from minitl import losses, ops
from minitl.autograd import Tensor, backward
from minitl.judging.gradients import check_gradients

Z = np.random.default_rng(0).standard_normal((4, 3))
P = scipy.special.softmax(Z, axis=1)
Q = scipy.special.expit(Z)
LABELS = np.array([0, 2, 1, 1])
ONE_HOT = np.eye(3)[LABELS]
BITS = np.array([[0, 1, 1], [1, 1, 0], [0, 0, 0], [1, 0, 1]])

CROSS = -np.log(P[np.arange(4), LABELS])
BINARY = -(BITS * np.log(Q) + (1 - BITS) * np.log(1 - Q)).mean(axis=1)

# loss, true values, what its logits become before they are given to it, expected per sample
CASES = {
    "categorical": (losses.CategoricalCrossentropy(), ONE_HOT, ops.softmax, CROSS),
    "categorical logits": (
        losses.CategoricalCrossentropy(from_logits=True),
        ONE_HOT,
        ops.linear,
        CROSS,
    ),
    "sparse": (losses.SparseCategoricalCrossentropy(), LABELS, ops.softmax, CROSS),
    "sparse (N, 1)": (
        losses.SparseCategoricalCrossentropy(from_logits=True),
        LABELS[:, None],
        ops.linear,
        CROSS,
    ),
    "binary": (losses.BinaryCrossentropy(), BITS, ops.sigmoid, BINARY),
    "binary logits": (losses.BinaryCrossentropy(from_logits=True), BITS, ops.linear, BINARY),
    "mse": (losses.MeanSquaredError(), BITS, ops.linear, ((Z - BITS) ** 2).mean(axis=1)),
}


@pytest.mark.parametrize("name", CASES)
def test_value_reductions_and_weights(name):
    loss, y, activation, expected = CASES[name]
    made = type(loss)

    def value(reduction, weight=None):
        settings = loss.get_config() | {"reduction": reduction}
        return made(**settings)(y, activation(Tensor(Z)), weight).storage

    w = np.array([1.0, 0.0, 2.0, 0.5])
    close = {"rtol": 1e-12}
    np.testing.assert_allclose(value(None), expected, **close)
    np.testing.assert_allclose(value("sum_over_batch_size"), expected.mean(), **close)
    np.testing.assert_allclose(value("sum"), expected.sum(), **close)
    np.testing.assert_allclose(value(None, w), expected * w, **close)
    np.testing.assert_allclose(value("sum_over_batch_size", w), (expected * w).sum() / 4, **close)
    np.testing.assert_allclose(value("sum", w), (expected * w).sum(), **close)
    np.testing.assert_allclose(
        value("mean_with_sample_weight", w), (expected * w).sum() / w.sum(), **close
    )


@pytest.mark.parametrize("name", CASES)
def test_gradient(name):
    loss, y, activation, _ = CASES[name]
    weight = np.array([1.0, 0.0, 2.0, 0.5])
    check_gradients(lambda z: loss(y, activation(z), weight), [Z])


@pytest.mark.parametrize("name", ["categorical", "sparse", "binary"])
def test_probabilities_that_remember_no_logits(name):
    """The same value and gradient from bare probabilities as from their logits."""
    loss, y, activation, expected = CASES[name]
    p = activation(Tensor(Z)).storage
    assert float(loss(y, Tensor(p))) == pytest.approx(expected.mean(), rel=1e-12)
    check_gradients(lambda p: loss(y, p), [p])


def test_softmax_that_has_underflowed():
    """Probability exactly 0: from the logits the loss is 800 and has a gradient."""
    z = Tensor([[0.0, 800.0]], requires_grad=True)
    p = ops.softmax(z)
    assert p.storage[0, 0] == 0
    loss = losses.CategoricalCrossentropy()(np.array([[1.0, 0.0]]), p)
    assert float(loss) == 800
    assert backward(loss, [z])[0].tolist() == [[-1, 1]]
    s = Tensor([[800.0]], requires_grad=True)
    loss = losses.BinaryCrossentropy()(np.array([[0.0]]), ops.sigmoid(s))
    assert float(loss) == 800 and backward(loss, [s])[0].tolist() == [[1]]


def test_label_smoothing():
    smooth = 0.7 * ONE_HOT + 0.1
    expected = -(smooth * np.log(P)).sum(axis=1).mean()
    loss = losses.CategoricalCrossentropy(label_smoothing=0.3)
    assert float(loss(ONE_HOT, ops.softmax(Z))) == pytest.approx(expected, rel=1e-12)
    targets = 0.7 * BITS + 0.15
    expected = -(targets * np.log(Q) + (1 - targets) * np.log(1 - Q)).mean()
    loss = losses.BinaryCrossentropy(label_smoothing=0.3)
    assert float(loss(BITS, ops.sigmoid(Z))) == pytest.approx(expected, rel=1e-12)


def test_outputs_of_more_axes():
    z = np.random.default_rng(1).standard_normal((2, 3, 4))
    y = np.eye(4)[[[0, 1, 2], [3, 0, 1]]]
    expected = -(y * scipy.special.log_softmax(z, axis=-1)).sum(axis=-1)
    loss = losses.CategoricalCrossentropy(reduction=None)
    np.testing.assert_allclose(loss(y, ops.softmax(z)).storage, expected, rtol=1e-12)
    w = np.array([1.0, 3.0])
    np.testing.assert_allclose(loss(y, ops.softmax(z), w).storage, expected * w[:, None])


def test_a_column_of_targets_may_lack_its_axis():
    y = np.array([0, 1, 1, 0])
    p = ops.sigmoid(Z[:, :1])
    loss = losses.BinaryCrossentropy()
    assert float(loss(y, p)) == float(loss(y[:, None], p))


def test_functions_give_a_loss_a_sample():
    found = losses.categorical_crossentropy(ONE_HOT, ops.softmax(Z))
    np.testing.assert_allclose(found.storage, CROSS, rtol=1e-12)
    assert losses.mean_squared_error(BITS, Z).dtype == np.float32  # as Keras's of NumPy's float64
    found = losses.mean_squared_error(BITS, Tensor(Z))
    np.testing.assert_allclose(found.storage, ((Z - BITS) ** 2).mean(axis=1), rtol=1e-12)


# --- Names ---------------------------------------------------------------------------------------


def test_get():
    assert isinstance(losses.as_loss("mse"), losses.MeanSquaredError)
    assert isinstance(losses.as_loss("CategoricalCrossentropy"), losses.CategoricalCrossentropy)
    assert isinstance(losses.as_loss(losses.BinaryCrossentropy), losses.BinaryCrossentropy)
    assert losses.as_loss(None) is None
    own = losses.as_loss(lambda y, p: (p - y) * (p - y))
    assert float(own(np.zeros((2, 1)), Tensor([[1.0], [3.0]]))) == 5.0
    smooth = losses.CategoricalCrossentropy(label_smoothing=0.1)
    again = losses.as_loss({"class_name": "CategoricalCrossentropy", "config": smooth.get_config()})
    assert again.label_smoothing == 0.1


@pytest.mark.parametrize(
    ("identifier", "message"),
    [
        ("categorical_crossentrpy", "unknown loss.*Did you mean 'categorical_crossentropy'"),
        ("adam", "unknown loss 'adam'. Known: "),
        (3, "not a loss: 3"),
    ],
)
def test_unknown_names(identifier, message):
    with pytest.raises(ValueError, match=message):
        losses.as_loss(identifier)


def test_misspelt_argument_and_reduction():
    with pytest.raises(TypeError, match=r"CategoricalCrossentropy\(\) has no .*'from_logits'"):
        losses.CategoricalCrossentropy(from_logit=True)
    with pytest.raises(ValueError, match=r"reduction must be one of .*, got 'average'"):
        losses.MeanSquaredError(reduction="average")


# --- Targets that do not fit ---------------------------------------------------------------------

OUT = (None, 3)


@pytest.mark.parametrize(
    ("name", "y", "message"),
    [
        ("categorical_crossentropy", LABELS, r"looks like integer labels \(shape \(4,\), int64\)"),
        ("categorical_crossentropy", LABELS[:, None], r"to_categorical\(y, 3\)"),
        ("categorical_crossentropy", np.eye(4), r"of shape \(None, 3\), as the model's output; y"),
        ("categorical_crossentropy", -ONE_HOT, "must be finite and not negative"),
        ("sparse_categorical_crossentropy", ONE_HOT, r"y looks one-hot \(shape \(4, 3\)\)"),
        ("sparse_categorical_crossentropy", np.array([0, 3]), "from 0 to 2 .* labels from 0 to 3"),
        ("sparse_categorical_crossentropy", np.array([-1, 0]), "y has labels from -1 to 0"),
        ("sparse_categorical_crossentropy", np.array([0.5]), "must be integers from 0 to 2"),
        ("sparse_categorical_crossentropy", np.zeros((2, 2)), r"have shape \(N,\), y has .*2, 2"),
        ("binary_crossentropy", np.full((2, 3), 2), "targets from 0 to 1, y has values from 2 to"),
        ("binary_crossentropy", np.zeros((2, 4)), r"shape \(2, 4\), but the model's output is"),
        ("mse", np.zeros(2), r"the targets have shape \(2,\), but the model's output is \(None, 3"),
    ],
)
def test_targets_that_do_not_fit(name, y, message):
    with pytest.raises(ValueError, match=message):
        losses.as_loss(name).check(y, OUT)


@pytest.mark.parametrize(
    ("name", "y", "shape"),
    [
        ("categorical_crossentropy", ONE_HOT, OUT),
        ("categorical_crossentropy", P, OUT),
        ("sparse_categorical_crossentropy", LABELS, OUT),
        ("sparse_categorical_crossentropy", LABELS[:, None].astype(float), OUT),
        ("binary_crossentropy", np.array([0, 1]), (None, 1)),
        ("mse", np.zeros((2, 1)), (None, 1)),
    ],
)
def test_targets_that_fit(name, y, shape):
    losses.as_loss(name).check(y, shape)


# --- Shapes and dtypes of a user's own -----------------------------------------------------------


class Squared(losses.Loss):
    def call(self, y_true, y_pred):
        assert y_true.shape == y_pred.shape and y_true.dtype == y_pred.dtype
        return ops.mean((y_pred - y_true) ** 2, axis=-1)


@pytest.mark.parametrize(
    ("true", "predicted"),
    [((4,), (4, 1)), ((4, 1), (4,)), ((4, 3), (4, 3, 1)), ((4, 3, 1), (4, 3)), ((4, 1), (4, 1))],
)
def test_a_last_axis_of_one_never_stretches(true, predicted):
    t = np.arange(np.prod(true)).reshape(true)  # integers
    p = Tensor(np.zeros(predicted, np.float32), requires_grad=True)
    for loss in (Squared(), losses.as_loss(lambda a, b: ops.mean((b - a) ** 2, axis=-1))):
        value = loss(t, p)
        assert float(value) == pytest.approx(np.mean(t.astype(float) ** 2))
        (g,) = backward(value, [p])
        np.testing.assert_allclose(g.ravel(), -2 * t.ravel() / t.size, rtol=1e-6)


@pytest.mark.parametrize("weight", [[1.0, 0.0, 2.0], [[1.0], [0.0], [2.0]]])
def test_weights_of_either_shape(weight):
    loss = losses.MeanAbsoluteError()([1.0, 5.0, 2.0], np.zeros((3, 1)), sample_weight=weight)
    assert float(loss) == pytest.approx((1 + 4) / 3)
    whole = losses.as_loss(
        lambda t, p: ops.mean(ops.absolute(p - t))
    )  # one number for the whole batch
    assert float(whole([1.0, 5.0, 3.0], np.zeros((3, 1)), weight)) == pytest.approx(3.0)


def test_integer_predictions_are_numbers():
    assert float(losses.MeanSquaredError()([[1.5], [2.5]], [[1], [2]])) == 0.25


@pytest.mark.parametrize("loss", ["binary_crossentropy", "categorical_crossentropy"])
def test_cross_entropies_do_not_stretch_targets(loss):
    with pytest.raises(ValueError, match=r"takes targets of the shape of .* \(3, 3\), got \(3, 1"):
        losses.as_loss(loss)(np.array([[0], [1], [1]]), np.full((3, 3), 0.5))


def test_one_loss_for_all_samples_counts_as_often_as_it_is_weighed():
    """Keras multiplies it by every weight, and adds or averages after that."""
    half, weight = np.full((2, 2), 0.5), np.array([[1.0, 3.0], [0.0, 2.0]])
    for reduction, times in (("sum", 6.0), ("sum_over_batch_size", 1.5)):
        found = losses.Dice(reduction)(np.ones((2, 2)), half, weight)
        assert float(found) == pytest.approx(times / 3, rel=1e-6)  # Dice is 1 - 2 * 2 / (4 + 2)
