"""Every layer: gradients for its input and each of its weights, shapes, dtypes, configuration.

CASES lists layers. A public layer without a case fails the suite.
"""

import json

import numpy as np
import pytest

from minitl import kernels, layers
from minitl.autograd import Tensor, backward
from minitl.judging.gradients import check_gradients
from minitl.layers import Layer

IMAGES, ROWS, STEPS = (2, 5, 4, 3), (4, 6), (3, 4, 5)


def apart(*shape):
    """Numbers at least 0.1 apart and 0.05 from 0: no tie or kink comes within a step."""
    n = int(np.prod(shape))
    return (np.random.default_rng(2).permutation(n) - n // 2 + 0.5).reshape(shape) * 0.1


def normal(*shape):
    return np.random.default_rng(1).standard_normal(shape)


# class: [(maker, shape of the input, or a list of shapes)]
CASES: dict[str, list[tuple]] = {
    "Rescaling": [(lambda: layers.Rescaling(0.5, offset=(1.0, 2.0, 3.0)), IMAGES)],
    "Resizing": [
        (lambda: layers.Resizing(3, 7), IMAGES),
        (lambda: layers.Resizing(3, 3, crop_to_aspect_ratio=True), IMAGES),
    ],
    "CenterCrop": [
        (lambda: layers.CenterCrop(2, 3), IMAGES),
        (lambda: layers.CenterCrop(9, 8), IMAGES),
    ],
    "Normalization": [
        (lambda: layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 3.0]), IMAGES),
        (lambda: layers.Normalization(axis=None, mean=1.0, variance=4.0, invert=True), ROWS),
        (lambda: layers.Normalization(), IMAGES),
    ],
    "DepthwiseConv2D": [
        (lambda: layers.DepthwiseConv2D(3, bias_initializer="random_normal"), IMAGES),
        (lambda: layers.DepthwiseConv2D(2, 2, "same", 2, activation="tanh"), IMAGES),
    ],
    "Conv2DTranspose": [
        (lambda: layers.Conv2DTranspose(2, 3, bias_initializer="random_normal"), IMAGES),
        (lambda: layers.Conv2DTranspose(2, (2, 3), (3, 2), activation="tanh"), IMAGES),
        (lambda: layers.Conv2DTranspose(4, 3, 2, "same", use_bias=False), IMAGES),
    ],
    "SeparableConv2D": [(lambda: layers.SeparableConv2D(2, 3, depth_multiplier=2), IMAGES)],
    "Conv1D": [
        (lambda: layers.Conv1D(2, 3, padding="causal"), STEPS),
        (lambda: layers.Conv1D(2, 2, 2, "same"), STEPS),
    ],
    "Activation": [
        (lambda: layers.Activation("tanh"), ROWS),
        (lambda: layers.Activation("softmax"), ROWS),
    ],
    "Add": [(lambda: layers.Add(), [ROWS, ROWS, ROWS])],
    "AveragePooling2D": [
        (lambda: layers.AveragePooling2D(), IMAGES),
        (lambda: layers.AveragePooling2D((3, 2), strides=1, padding="same"), IMAGES),
    ],
    "Bidirectional": [
        (lambda: layers.Bidirectional(layers.LSTM(2, bias_initializer="random_normal")), STEPS),
        (lambda: layers.Bidirectional(layers.GRU(2, return_sequences=True), "mul"), STEPS),
    ],
    "BatchNormalization": [
        (lambda: layers.BatchNormalization(), IMAGES),
        (lambda: layers.BatchNormalization(scale=False), ROWS),
        (lambda: layers.BatchNormalization(center=False, epsilon=0.1), ROWS),
    ],
    "Average": [(lambda: layers.Average(), [ROWS, ROWS, ROWS])],
    "AveragePooling1D": [(lambda: layers.AveragePooling1D(2, padding="same"), STEPS)],
    "Concatenate": [
        (lambda: layers.Concatenate(), [ROWS, (4, 2)]),
        (lambda: layers.Concatenate(axis=1), [IMAGES, (2, 1, 4, 3)]),
    ],
    "Conv2D": [
        (lambda: layers.Conv2D(4, 3, bias_initializer="random_normal"), IMAGES),
        (lambda: layers.Conv2D(2, (2, 3), strides=(2, 1), padding="same", use_bias=False), IMAGES),
        (lambda: layers.Conv2D(2, 1, activation="relu", bias_initializer="ones"), IMAGES),
        (lambda: layers.Conv2D(2, 1, activation="sigmoid"), IMAGES),
    ],
    "Cropping2D": [(lambda: layers.Cropping2D(((1, 0), (2, 1))), IMAGES)],
    "Dense": [
        (lambda: layers.Dense(3, bias_initializer="random_normal"), ROWS),
        (lambda: layers.Dense(3, use_bias=False), ROWS),
        (lambda: layers.Dense(3, activation="softmax"), (2, 3, 4)),
        (lambda: layers.Dense(2, activation="relu", bias_initializer="ones"), ROWS),
    ],
    "Dropout": [(lambda: layers.Dropout(0.4), ROWS)],
    "ELU": [(lambda: layers.ELU(0.5), ROWS)],
    "Flatten": [(lambda: layers.Flatten(), IMAGES)],
    "GRU": [
        (lambda: layers.GRU(3, bias_initializer="random_normal", return_sequences=True), STEPS),
        (lambda: layers.GRU(3, "relu", reset_after=False, go_backwards=True), STEPS),
        (lambda: layers.GRU(2, use_bias=False, dropout=0.3, recurrent_dropout=0.3), STEPS),
        (lambda: layers.GRU(2, reset_after=False, recurrent_dropout=0.3), STEPS),
    ],
    "GaussianNoise": [
        (lambda: layers.GaussianNoise(0.3), IMAGES),
        (lambda: layers.GaussianNoise(0), ROWS),
    ],
    "GaussianDropout": [(lambda: layers.GaussianDropout(0.4), ROWS)],
    "GlobalAveragePooling1D": [(lambda: layers.GlobalAveragePooling1D(), STEPS)],
    "GlobalMaxPooling1D": [(lambda: layers.GlobalMaxPooling1D(keepdims=True), STEPS)],
    "GlobalAveragePooling2D": [
        (lambda: layers.GlobalAveragePooling2D(), IMAGES),
        (lambda: layers.GlobalAveragePooling2D(keepdims=True), IMAGES),
    ],
    "GlobalMaxPooling2D": [
        (lambda: layers.GlobalMaxPooling2D(), IMAGES),
        (lambda: layers.GlobalMaxPooling2D(keepdims=True), IMAGES),
    ],
    "Identity": [(lambda: layers.Identity(), ROWS)],
    "InputLayer": [(lambda: layers.InputLayer((6,)), ROWS)],
    "LSTM": [
        (lambda: layers.LSTM(3, bias_initializer="random_normal", return_sequences=True), STEPS),
        (lambda: layers.LSTM(3, "sigmoid", "tanh", use_bias=False, go_backwards=True), STEPS),
        (lambda: layers.LSTM(2, unit_forget_bias=False, dropout=0.3), STEPS),
        (lambda: layers.LSTM(2, "linear", dropout=0.3, recurrent_dropout=0.3), STEPS),
    ],
    "LayerNormalization": [
        (lambda: layers.LayerNormalization(), IMAGES),
        (lambda: layers.LayerNormalization(center=False, epsilon=0.1), ROWS),
    ],
    "LeakyReLU": [(lambda: layers.LeakyReLU(), ROWS)],
    "MaxPooling1D": [(lambda: layers.MaxPooling1D(3, strides=1), STEPS)],
    "Maximum": [(lambda: layers.Maximum(), [ROWS, ROWS, ROWS])],
    "Minimum": [(lambda: layers.Minimum(), [ROWS, ROWS])],
    "Multiply": [(lambda: layers.Multiply(), [ROWS, ROWS, ROWS])],
    "MaxPooling2D": [
        (lambda: layers.MaxPooling2D(), IMAGES),
        (lambda: layers.MaxPooling2D((2, 3), strides=1, padding="same"), IMAGES),
    ],
    "RandomBrightness": [
        (lambda: layers.RandomBrightness(0.2, (-4, 5)), IMAGES),
        (lambda: layers.RandomBrightness((0.1, 0.2), ([-9, -8, -5], [9, 7, 9])), IMAGES),
    ],
    "RandomContrast": [
        (lambda: layers.RandomContrast(0.4, (-4, 5)), IMAGES),
        (lambda: layers.RandomContrast((1, 0.2), value_range=(-20, 20)), IMAGES),
    ],
    "RandomCrop": [
        (lambda: layers.RandomCrop(3, 4), IMAGES),
        (lambda: layers.RandomCrop(3, 9), IMAGES),
    ],
    "RandomFlip": [
        (lambda: layers.RandomFlip(), IMAGES),
        (lambda: layers.RandomFlip("vertical", seed=3), IMAGES),
    ],
    "RandomRotation": [
        (lambda: layers.RandomRotation(0.3), IMAGES),
        (lambda: layers.RandomRotation((0.1, 0.2), "constant", "nearest", None, 2.5), IMAGES),
    ],
    "RandomTranslation": [
        (lambda: layers.RandomTranslation(0.3, (-0.2, 0.6), "wrap"), IMAGES),
        (lambda: layers.RandomTranslation(1, 0, "constant", fill_value=[1, 2, 3]), IMAGES),
    ],
    "RandomTurn": [
        (lambda: layers.RandomTurn(), (3, 4, 4, 2)),
        (lambda: layers.RandomTurn((0, 2)), IMAGES),
    ],
    "RandomZoom": [
        (lambda: layers.RandomZoom(0.5), IMAGES),
        (lambda: layers.RandomZoom((-0.9, -0.2), 1, "nearest"), IMAGES),
    ],
    "TimeDistributed": [
        (lambda: layers.TimeDistributed(layers.Dense(3, "tanh")), STEPS),
        (lambda: layers.TimeDistributed(layers.Conv2D(2, 3)), (2, 3, 4, 4, 2)),
        (lambda: layers.TimeDistributed(layers.BatchNormalization()), STEPS),
        (lambda: layers.TimeDistributed(layers.TimeDistributed(layers.Dense(2))), (2, 2, 2, 3)),
    ],
    "Permute": [(lambda: layers.Permute((3, 1, 2)), IMAGES)],
    "ReLU": [
        (lambda: layers.ReLU(), ROWS),
        (lambda: layers.ReLU(max_value=0.7, negative_slope=0.1, threshold=0.2), ROWS),
    ],
    "RepeatVector": [(lambda: layers.RepeatVector(3), ROWS)],
    "Reshape": [(lambda: layers.Reshape((6, -1)), IMAGES)],
    "Softmax": [(lambda: layers.Softmax(), ROWS), (lambda: layers.Softmax(axis=1), IMAGES)],
    "SpatialDropout1D": [(lambda: layers.SpatialDropout1D(0.4), STEPS)],
    "SpatialDropout2D": [(lambda: layers.SpatialDropout2D(0.4), IMAGES)],
    "Subtract": [(lambda: layers.Subtract(), [ROWS, ROWS])],
    "UnitNormalization": [(lambda: layers.UnitNormalization(), ROWS)],
    "UpSampling2D": [(lambda: layers.UpSampling2D((2, 3)), IMAGES)],
    "ZeroPadding2D": [(lambda: layers.ZeroPadding2D(((1, 0), (2, 3))), IMAGES)],
}
ALL = [
    pytest.param(make, shape, id=f"{name} {i}")
    for name, cases in CASES.items()
    for i, (make, shape) in enumerate(cases)
]
PUBLIC = {
    cls.__name__
    for cls in (getattr(layers, name) for name in layers.__all__)
    if isinstance(cls, type) and issubclass(cls, Layer) and cls is not Layer
} - {"Operation", "Lambda", "Embedding", "Masking"}  # of test_ops, test_guides, test_masking


def test_every_layer_has_a_gradient_test():
    assert set(CASES) == PUBLIC


def run(layer, x, training=True):
    return layer(x, training=training, rng=np.random.default_rng(5))


def place_of(variable, layer):
    """The layer, this one or one inside it, that has the variable, and under which name."""
    names = [n for n, value in vars(layer).items() if value is variable]
    inner = [place_of(variable, each) for each in layer.sublayers()]
    found = [(layer, n) for n in names] + [place for place in inner if place]
    assert len(found) <= 1
    return found[0] if found else None


def arrays(shape):
    shapes = shape if isinstance(shape, list) else [shape]
    # The second and third turned round and shifted: inputs do not tie with each other either.
    return [apart(*s) * (-1) ** i + 0.03 * i for i, s in enumerate(shapes)]


@pytest.mark.parametrize("kind", ["fast", "reference"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("make", "shape"), ALL)
def test_gradients_of_inputs_and_weights(float64, make, shape, training, kind):
    inputs = arrays(shape)
    layer = make()
    with kernels.use_kernels(kind):
        run(layer, inputs if isinstance(shape, list) else inputs[0])
        weights = [v.numpy() for v in layer.trainable_weights]

        originals = list(layer.trainable_weights)
        places = [place_of(v, layer) for v in originals]

        def f(*tensors):
            for place, given in zip(places, tensors[len(inputs) :], strict=True):
                object.__setattr__(*place, given)
            try:
                x = list(tensors[: len(inputs)])
                return run(layer, x if isinstance(shape, list) else x[0], training)
            finally:
                for place, v in zip(places, originals, strict=True):
                    object.__setattr__(*place, v)

        for seed in range(2):
            check_gradients(f, [*inputs, *weights], seed, tolerance=1e-6)


@pytest.mark.parametrize(("make", "shape"), ALL)
def test_shape_dtype_and_configuration(make, shape):
    layer = make()
    inputs = [a.astype(np.float32) for a in arrays(shape)]
    several = isinstance(shape, list)
    y = run(layer, inputs if several else inputs[0])
    assert y.dtype == np.float32
    assert layer.compute_output_shape(shape) == y.shape
    # Symbolically, and with the sides of the image unknown.
    symbols = [layers.Input(s[1:]) for s in (shape if several else [shape])]
    assert layer(symbols if several else symbols[0]).shape == (None, *y.shape[1:])
    if not several and len(shape) == 4 and not isinstance(layer, layers.InputLayer):
        open_shape = (None, None, None, shape[3])
        found = layer.compute_output_shape(open_shape)
        assert all(n is None or n == m for n, m in zip(found, y.shape, strict=True))
    # A layer from the configuration, written as JSON, is the same layer.
    settings = layer.get_config()
    again = type(layer).from_config(json.loads(json.dumps(settings)))
    assert again.get_config() == settings
    run(again, inputs if several else inputs[0])
    again.set_weights(layer.get_weights())
    x = inputs if several else inputs[0]
    assert np.array_equal(run(again, x, False).storage, run(layer, x, False).storage)


@pytest.mark.parametrize(("make", "shape"), ALL)
def test_a_frozen_layer_is_transparent(float64, make, shape):
    """Its weights get no gradient, its input the same one as before."""
    layer = make()
    inputs = arrays(shape)

    def input_gradients():
        tensors = [Tensor(a, requires_grad=True) for a in inputs]
        y = run(layer, tensors if isinstance(shape, list) else tensors[0], training=False)
        return y, backward(y, tensors, normal(*y.shape))

    _, before = input_gradients()
    layer.trainable = False
    assert layer.trainable_weights == []
    _, frozen = input_gradients()
    for a, b in zip(before, frozen, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-15)
    x = inputs if isinstance(shape, list) else inputs[0]
    assert not run(layer, x).requires_grad


@pytest.mark.parametrize(("make", "shape"), ALL)
def test_inputs_are_left_alone(make, shape):
    inputs = [a.astype(np.float32) for a in arrays(shape)]
    copies = [a.copy() for a in inputs]
    run(make(), inputs if isinstance(shape, list) else inputs[0])
    assert all(np.array_equal(a, b) for a, b in zip(inputs, copies, strict=True))
