"""Grad-CAM: the formula, on inlined and nested bases, whatever is frozen."""

import numpy as np
import pytest

from minitl import Model
from minitl.data import resize_images
from minitl.judging.grad_cam import grad_cam
from minitl.layers import (
    Add,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    Input,
    MaxPooling2D,
)

rng = np.random.default_rng(0)
X = rng.standard_normal((3, 8, 8, 3)).astype(np.float32)


def base():
    first = Input((8, 8, 3))
    x = Conv2D(4, 3, padding="same", activation="relu", name="conv1")(first)
    x = MaxPooling2D(2, name="pool")(x)
    x = BatchNormalization(name="norm")(x)
    x = Conv2D(5, 3, padding="same", name="conv2")(x)
    return Model(first, x, name="base")


def classifier(net, nested, activation="softmax", units=4):
    start = Input((8, 8, 3)) if nested else net.input
    x = GlobalAveragePooling2D(name="gap")(net(start) if nested else net.output)
    x = Dropout(0.5)(x)
    return Model(start, Dense(units, activation=activation, name="head")(x), name="net")


def by_hand(net, kernel, x, c):
    """With a pool over places and one linear layer, dz_c/dA_k is W[k, c] / (h w) everywhere."""
    a = net.predict(x, verbose=0).astype(float)
    return np.maximum((a * kernel[:, c] / 16).sum(axis=-1), 0)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_formula(nested, frozen):
    net = base()
    net.trainable = not frozen
    model = classifier(net, nested)
    expected = by_hand(net, model.get_layer("head").kernel.numpy(), X, 2)
    heat = grad_cam(model, X, 2, batch_size=2)
    assert heat.shape == (3, 8, 8) and heat.dtype == np.float32
    large = resize_images(expected[..., np.newaxis], (8, 8))[..., 0]
    np.testing.assert_allclose(heat, large / large.max(axis=(1, 2), keepdims=True), atol=1e-5)
    assert heat.min() >= 0 and (heat.max(axis=(1, 2)) == 1).all()
    at_size = grad_cam(model, X, 2, layer="conv2")
    assert np.array_equal(at_size, heat)


def test_nested_and_inlined_are_the_same():
    net = base()
    inlined, nested = classifier(net, False), classifier(net, True)
    nested.set_weights(inlined.get_weights())
    for layer in ("conv1", "pool", "norm", None):
        a, b = (grad_cam(m, X, [0, 1, 2], layer) for m in (inlined, nested))
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_the_largest_class_by_default():
    model = classifier(base(), True)
    best = model.predict(X, verbose=0).argmax(axis=1)
    assert np.array_equal(grad_cam(model, X), grad_cam(model, X, best))


def test_a_softmax_that_is_sure_is_explained_by_its_logits():
    """Where softmax is flat, its gradient is nothing; that of the logits is not."""
    net = base()
    soft, linear = classifier(net, True), classifier(net, True, None)
    weights = [w * 1000 for w in soft.get_weights()[-2:]]
    soft.get_layer("head").set_weights(weights)
    linear.get_layer("head").set_weights(weights)
    assert np.array_equal(grad_cam(soft, X, 1), grad_cam(linear, X, 1))
    sigmoid = classifier(net, True, "sigmoid", units=1)
    assert grad_cam(sigmoid, X).shape == (3, 8, 8)


def test_a_layer_beside_which_there_is_a_shortcut():
    first = Input((8, 8, 3))
    x = Conv2D(3, 3, padding="same", name="branch")(first)
    out = Dense(2, name="out")(Flatten()(Add()([x, first])))
    model = Model(first, out)
    heat = grad_cam(model, X, 0, "branch")
    a = Model(first, x).predict(X, verbose=0).astype(float)
    kernel = model.get_layer("out").kernel.numpy().reshape(8, 8, 3, 2)[..., 0]
    expected = np.maximum((a * kernel.mean(axis=(0, 1))).sum(axis=-1), 0)
    expected /= expected.max(axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(heat, expected, atol=1e-4)


def test_a_head_that_reads_several_layers_lets_each_run_once():
    ran = []

    class Counted(Conv2D):
        def call(self, inputs):
            ran.append(self.name)
            return super().call(inputs)

    first = Input((8, 8, 3))
    low = Counted(4, 3, padding="same", activation="relu", name="low")(first)
    high = Counted(5, 3, padding="same", activation="relu", name="high")(MaxPooling2D(2)(low))
    pools = [GlobalAveragePooling2D()(low), GlobalAveragePooling2D()(high)]
    model = Model(first, Dense(2, name="out")(Concatenate()(pools)))
    ran.clear()
    heat = grad_cam(model, X, 1, "high")
    assert ran == ["low", "high"]
    small = by_hand(Model(first, high), model.get_layer("out").kernel.numpy()[4:], X, 1)
    large = resize_images(small[..., np.newaxis], (8, 8))[..., 0]
    np.testing.assert_allclose(heat, large / large.max(axis=(1, 2), keepdims=True), atol=1e-4)


def test_nothing_speaks_for_the_class():
    model = classifier(base(), True)
    head = model.get_layer("head")
    head.set_weights([np.zeros_like(w) for w in head.get_weights()])
    assert not grad_cam(model, X, 1).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": "conv3"}, r"'net' has no layer or block 'conv3'. Did you mean 'conv"),
        ({"layer": "gap"}, r"'gap' of 'net' gives maps \(N, h, w, K\)"),
        ({"classes": 4}, "classes are integers from 0 to 3, got"),
        ({"classes": 0.5}, "classes are integers from 0 to 3, got"),
    ],
)
def test_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        grad_cam(classifier(base(), True), X, **arguments)
