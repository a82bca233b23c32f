"""`Layer`: weights, freezing, names, calls, and what it says about wrong ones."""

import numpy as np
import pytest

from minitl import layers
from minitl.autograd import Tensor, backward
from minitl.layers import Conv2D, Dense, Dropout, Input, Layer
from minitl.layers.core import InputRange


def unchanged(layer, before):
    return all(np.array_equal(a, b) for a, b in zip(layer.get_weights(), before, strict=True))


# --- A layer of the user's own -------------------------------------------------------------------


class Scale(Layer):
    """y = x * scale."""

    def __init__(self, start=1.0, **kwargs):
        super().__init__(**kwargs)
        self.start = start
        self.scale = None

    def build(self, input_shape):
        self.scale = self.add_weight("scale", (input_shape[-1],), "ones")
        self.counter = 0  # build may declare attributes
        with self.scale.writing() as values:
            values *= self.start

    def call(self, x):
        return x * self.scale


def test_a_layer_of_ones_own(float64):
    layer = Scale(2.0, name="mine")
    x = Tensor([[1.0, 2.0]], requires_grad=True)
    y = layer(x)
    assert y.storage.tolist() == [[2, 4]]
    assert backward(y, [x, layer.scale], [[1.0, 1.0]])[1].tolist() == [1, 2]
    assert layer.get_config() == {
        "name": "mine",
        "trainable": True,
        "dtype": "float64",
        "start": 2.0,
    }
    assert layer(Input((2,))).shape == (None, 2)


def test_call_that_is_missing():
    class Empty(Layer):
        pass

    with pytest.raises(NotImplementedError, match="Empty does not define call"):
        Empty()(np.ones((1, 2)))


# --- Names that are misspelt ---------------------------------------------------------------------


def test_misspelt_attribute():
    layer = Dense(2, name="head")
    with pytest.raises(AttributeError, match=r"Dense 'head' has no attribute 'trainabel'.*'train"):
        layer.trainabel = False
    assert layer.trainable


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Dense(2, actvation="relu"),
            r"Dense\(\) has no argument 'actvation'.*'activation'",
        ),
        (lambda: Conv2D(2, 3, stride=2), r"Conv2D\(\) has no argument 'stride'. .*'strides'"),
        (lambda: Dropout(0.5, sed=1), r"Dropout\(\) has no argument 'sed'. Did you mean 'seed'"),
        (lambda: layers.ReLU(nam="x"), r"has no argument 'nam'. Did you mean 'name'"),
        (lambda: Dense(2, name=3), "Dense: name must be a string or None, got 3"),
    ],
)
def test_misspelt_arguments(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(0), "units must be a positive integer, got 0"),
        (lambda: Dense(2.5), r"units must be a positive integer, got 2\.5"),
        (lambda: Dense(2, activation="rleu"), "unknown activation 'rleu'. Did you mean 'relu'"),
        (lambda: Dense(2, activation=3), "activation must be a name, .* got 3"),
        (
            lambda: Dense(2, kernel_initializer="he_norml"),
            "unknown initializer 'he_norml'. Did you mean 'he_normal'",
        ),
        (lambda: Dense(2, kernel_regularizer="l3"), "unknown regularizer 'l3'"),
        (lambda: Conv2D(0, 3), "filters must be a positive integer, got 0"),
        (lambda: Conv2D(2, (3, 3, 3)), r"kernel_size must be a positive integer or two"),
        (lambda: Conv2D(2, 3, strides=0), "strides must be a positive integer"),
        (lambda: Conv2D(2, 3, padding="smae"), "padding must be 'valid' or 'same', got 'smae'"),
        (lambda: Conv2D(2, 3, data_format="channels_first"), r"\(N, H, W, C\).*channels_first"),
        (lambda: layers.MaxPooling2D(0), "pool_size must be a positive integer"),
        (lambda: layers.MaxPooling2D(padding="full"), "padding must be 'valid' or 'same'"),
        (lambda: layers.ZeroPadding2D(-1), "padding must be n, "),
        (lambda: Dropout(1), r"rate must be in \[0, 1\), got 1"),
        (lambda: Dropout(-0.1), r"rate must be in \[0, 1\)"),
        (lambda: Input((0, 3)), r"shape must be a positive integer or .*, got \(0, 3\)"),
        (lambda: Input(), "Input needs a shape"),
        (lambda: Dense(2, dtype="float16"), "'float32' or 'float64', got 'float16'"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- Inputs that do not fit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (
            Conv2D(2, 3, name="c"),
            (4, 5),
            r"Conv2D 'c' takes an input of 4 axes \(N, H, W, C\), got",
        ),
        (Conv2D(2, 3), (1, 2, 2, 3), "window of 3x3 does not fit into an image of 2x2"),
        (layers.MaxPooling2D(3), (1, 2, 2, 3), "window of 3x3 does not fit into an image of 2x2"),
        (layers.GlobalMaxPooling2D(), (4, 5), "takes an input of 4 axes"),
        (Dense(2, name="d"), (4,), r"Dense 'd'.*\(4,\)"),
    ],
)
def test_wrong_rank_or_size(layer, shape, message):
    with pytest.raises(ValueError, match=message):
        layer(np.ones(shape, np.float32))


def test_other_channels_than_built_for():
    layer = Dense(2, name="head")
    layer(np.ones((1, 5)))
    before = layer.get_weights()
    with pytest.raises(ValueError, match=r"'head' was built for inputs whose last axis is 5, got"):
        layer(np.ones((1, 4)))
    assert unchanged(layer, before)


def test_build_that_fails_can_be_tried_again():
    class Twice(Layer):
        def build(self, input_shape):
            self.add_weight("a", (input_shape[-1],), "ones")
            if input_shape[-1] != 3:
                raise ValueError("three, please")

        def call(self, x):
            return x

    layer = Twice()
    with pytest.raises(ValueError, match="three, please"):
        layer(np.ones((1, 2)))
    assert layer.weights == [] and not layer.built
    layer(np.ones((1, 3)))
    assert [v.shape for v in layer.weights] == [(3,)]


@pytest.mark.parametrize("layer", [Dense(2), Conv2D(2, 3), layers.Flatten()])
def test_a_list_where_one_input_is_due(layer):
    with pytest.raises(TypeError, match="is called on one input, got a list of 2"):
        layer([np.ones((1, 4, 4, 2))] * 2)


@pytest.mark.parametrize("layer", [layers.Add(), layers.Concatenate()])
def test_one_input_where_a_list_is_due(layer):
    x = np.ones((2, 3), np.float32)
    for _ in range(2):  # at the first call, and when it is built
        with pytest.raises(TypeError, match="is called on a list of inputs, got one input"):
            layer(x)
        layer([x, x])
    with pytest.raises(ValueError, match="takes two or more inputs, got 1"):
        layer([x])


@pytest.mark.parametrize(
    ("layer", "shapes", "message"),
    [
        (layers.Add(name="sum"), [(2, 3), (2, 2)], r"Add 'sum' needs inputs of one shape"),
        (layers.Concatenate(name="cat"), [(2, 3, 4), (2, 2, 4)], "that differ only in axis -1"),
        (layers.Concatenate(), [(2, 3), (2, 3, 1)], "inputs of as many axes"),
        (layers.Concatenate(axis=4), [(2, 3), (2, 3)], "among them axis 4"),
    ],
)
def test_merging_what_does_not_fit(layer, shapes, message):
    with pytest.raises(ValueError, match=message):
        layer([np.ones(s, np.float32) for s in shapes])
    with pytest.raises(ValueError, match=message):
        layer([Input(s[1:]) for s in shapes])


def test_tensor_of_another_dtype():
    layer, x = Dense(2, name="head"), Tensor(np.ones((1, 2)), requires_grad=True)
    y = layer(x)
    assert y.dtype == layer(np.ones((1, 2), int)).dtype == np.float32
    (gradient,) = backward(y.sum(), [x])  # in its own dtype
    assert gradient.dtype == np.float64 and gradient[0] == pytest.approx(layer.kernel.data.sum(1))


def test_symbolic_tensors_are_no_arrays():
    x = Input((3,))
    with pytest.raises(TypeError, match="stands for an array that is not there yet"):
        np.asarray(x)
    with pytest.raises(TypeError, match="symbolic tensors and arrays at once"):
        layers.Add()([x, np.ones((1, 3))])


# --- Weights -------------------------------------------------------------------------------------


def test_order_of_weights_does_not_change_on_freezing():
    layer = layers.BatchNormalization()
    layer(np.ones((2, 3)))
    names = ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [v.name for v in layer.weights] == names
    layer.trainable = False
    assert [v.name for v in layer.weights] == names
    assert layer.trainable_weights == [] and len(layer.non_trainable_weights) == 4
    layer.trainable = True
    assert [v.name for v in layer.trainable_weights] == ["gamma", "beta"]
    assert layer.count_params() == 12


def test_what_learns_stands_first_frozen_or_not():
    class Counter(Layer):
        def build(self, input_shape):
            self.add_weight("count", (1,), "zeros", trainable=False)
            self.add_weight("w", (2,), "ones")

        def call(self, x):
            return x

    layer = Counter()
    layer(np.ones((1, 2)))
    for frozen in (False, True):
        layer.trainable = not frozen
        assert [v.name for v in layer.weights] == ["w", "count"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([np.ones((3, 2))], "expected 2 arrays, found 1"),
        ([np.ones((3, 2)), np.ones(3)], r"bias: expected numbers \(2,\), found float64 \(3,\)"),
        ([np.ones((2, 3)), np.ones(3)], r"(?s)kernel: expected numbers \(3, 2\).*bias: expected"),
        ([np.ones((3, 2)), np.array(["a", "b"])], r"bias: expected numbers \(2,\), found <U1"),
    ],
)
def test_set_weights_is_all_or_nothing(weights, message):
    layer = Dense(2, name="head")
    layer(np.ones((1, 3)))
    before = layer.get_weights()
    with pytest.raises(ValueError, match=message):
        layer.set_weights(weights)
    assert unchanged(layer, before)


def test_get_weights_gives_copies():
    layer = Dense(2)
    layer(np.ones((1, 3)))
    layer.get_weights()[0][:] = 7
    assert not np.any(layer.get_weights()[0] == 7)


def test_only_trained_weights_are_regularized():
    layer = Dense(2, kernel_initializer="ones", kernel_regularizer="l2")
    layer(np.ones((1, 3)))
    assert [float(t) for t in layer.regularization()] == [pytest.approx(0.06)]
    layer.trainable = False
    assert layer.regularization() == []


def test_single_input_and_output():
    layer = Dense(2, name="shared")
    with pytest.raises(AttributeError, match="has not been called on a symbolic tensor"):
        _ = layer.output
    x = Input((3,))
    y = layer(x)
    assert layer.input is x and layer.output is y
    layer(Input((3,)))
    with pytest.raises(AttributeError, match="was called 2 times, so it has no single input"):
        _ = layer.input


# --- Layers with a state of their own ------------------------------------------------------------


def test_dropout():
    x = np.ones((4, 50), np.float32)
    layer = Dropout(0.5, seed=3)
    assert np.array_equal(layer(x).storage, x)
    first, second = layer(x, training=True).storage, layer(x, training=True).storage
    assert set(np.unique(first)) == {0, 2} and not np.array_equal(first, second)
    assert np.array_equal(Dropout(0.5, seed=3)(x, training=True).storage, first)
    rng = np.random.default_rng
    with_rng = [layer(x, training=True, rng=rng(0)).storage for _ in range(2)]
    assert np.array_equal(*with_rng)
    assert np.array_equal(Dropout(0)(x, training=True).storage, x)


def test_batch_normalization_moves_its_averages_in_training_only():
    layer = layers.BatchNormalization(momentum=0.9)
    x = np.random.default_rng(0).normal(3, 2, (50, 4)).astype(np.float32)
    layer(x)
    before = layer.get_weights()
    layer(x, training=False)
    assert unchanged(layer, before)
    y = layer(x, training=True).storage
    np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(layer.moving_mean.data, 0.1 * x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.data, 0.9 + 0.1 * x.var(axis=0), rtol=1e-5)
    after = layer.get_weights()
    layer.trainable = False
    frozen = layer(x, training=True).storage
    assert unchanged(layer, after)
    assert np.array_equal(frozen, layer(x, training=False).storage)


def test_batch_normalization_of_another_axis():
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    y = layers.BatchNormalization(axis=1)(x, training=True).storage
    last = layers.BatchNormalization()(np.moveaxis(x, 1, -1), training=True).storage
    np.testing.assert_allclose(y, np.moveaxis(last, -1, 1), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="normalises an axis after the batch, got axis=0"):
        layers.BatchNormalization(axis=0)(x)


@pytest.mark.parametrize("groups", [1, 2])
def test_gaps_and_groups_of_convolutions(groups):
    """A window with gaps is a wide one with zeros; each group is a convolution of its own."""
    x = np.random.default_rng(0).standard_normal((2, 9, 8, 4)).astype(np.float32)
    layer = Conv2D(6, (3, 2), padding="same", dilation_rate=(2, 3), groups=groups)
    y, kernel = layer(x).storage, layer.kernel.data
    wide = np.zeros((5, 4, 4 // groups, 6), np.float32)
    wide[::2, ::3] = kernel
    for i in range(groups):
        f, c = 6 // groups, 4 // groups
        plain = Conv2D(f, (5, 4), padding="same", use_bias=False)
        share = x[..., i * c : (i + 1) * c]
        plain.build(share.shape)
        plain.set_weights([wide[..., i * f : (i + 1) * f]])
        found = y[..., i * f : (i + 1) * f]
        np.testing.assert_allclose(found, plain(share).storage, rtol=1e-4, atol=1e-5)
    assert layer.compute_output_shape(x.shape) == y.shape


def test_flatten_of_an_open_shape():
    assert layers.Flatten()(Input((None, None, 3))).shape == (None, None)


def test_dense_needs_a_known_width():
    with pytest.raises(ValueError, match="Dense"):
        Dense(2, name="head")(Input((None,)))


def test_input_range_warns_once_and_says_what_it_saw():
    layer = layers.InputLayer((2,))
    layer.inspect = InputRange(-124, 151, "Call preprocess_input.")
    layer(np.zeros((1, 2)))  # a constant image says nothing
    with pytest.warns(UserWarning, match=r"from 0 to 1, .* about -124 to 151. Call preprocess"):
        layer(np.array([[0.0, 1.0]]))
    layer(np.array([[0.0, 1.0]]))  # only once


@pytest.mark.parametrize(
    ("values", "warns"),
    [([-1, 1], True), ([0, 255], True), ([-100, 300], True), ([-120, 140], False)],
)
def test_input_range(values, warns):
    import warnings

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        InputRange(-124, 151, "")(np.array(values, np.float32), "x")
    assert bool(seen) is warns


def test_the_input_by_its_name():
    layer = Dense(2)
    assert np.array_equal(layer(inputs=np.ones((1, 3))), layer(np.ones((1, 3))))
