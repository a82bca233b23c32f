"""F in R^(N x D): the numbers, their order, and what is not computed."""

import os

import numpy as np
import pytest

from minitl import Model, Sequential, extract_features, kernels
from minitl.layers import Concatenate, Conv2D, Dense, Flatten, Input, MaxPooling2D
from minitl.transfer.features import feature_model

IMAGES = np.random.default_rng(0).standard_normal((5, 8, 8, 3)).astype(np.float32)


@pytest.fixture
def net():
    x = Input((8, 8, 3))
    y = Conv2D(4, 3, padding="same", activation="relu", name="conv1")(x)
    y = MaxPooling2D(name="pool1")(y)
    y = Conv2D(6, 3, padding="same", activation="relu", name="conv2")(y)
    y = Flatten(name="flat")(y)
    return Model(x, Dense(2, name="top")(y), name="net")


def at(model, name):
    return Model(model.input, model.get_layer(name).output).predict(IMAGES, verbose=0)


def test_every_place_or_one_number_a_channel(net):
    maps = at(net, "conv2")
    for pooling, expected in (
        (None, maps.reshape(5, -1)),
        ("avg", maps.mean(axis=(1, 2))),
        ("max", maps.max(axis=(1, 2))),
    ):
        for layer in ("conv2", net.get_layer("conv2"), ["conv2"]):
            found = extract_features(net, IMAGES, layer, pooling, verbose=0)
            np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_several_layers_side_by_side(net):
    found = extract_features(net, IMAGES, ["pool1", "flat", "conv2"], "max", verbose=0)
    parts = [at(net, "pool1").max(axis=(1, 2)), at(net, "flat"), at(net, "conv2").max(axis=(1, 2))]
    np.testing.assert_array_equal(found, np.concatenate(parts, axis=1))


def test_the_output_when_no_layer_is_named(net):
    np.testing.assert_array_equal(
        extract_features(net, IMAGES, verbose=0), net.predict(IMAGES, verbose=0)
    )


@pytest.mark.parametrize("batch_size", [1, 2, 5, 32])
def test_the_batch_size_does_not_matter(net, batch_size):
    whole = extract_features(net, IMAGES, "conv2", verbose=0)
    found = extract_features(net, IMAGES, "conv2", batch_size=batch_size, verbose=0)
    np.testing.assert_allclose(found, whole, rtol=1e-5, atol=1e-7)
    batches = (IMAGES[i : i + batch_size] for i in range(0, 5, batch_size))
    np.testing.assert_allclose(
        extract_features(net, batches, "conv2", verbose=0), whole, rtol=1e-5, atol=1e-7
    )


def test_what_lies_above_is_not_computed(net, monkeypatch):
    calls = []

    def counting(original):
        return lambda *args: calls.append(1) or original(*args)

    for name in ("conv2d", "conv2d_max_pool2d"):
        monkeypatch.setattr(kernels, name, counting(getattr(kernels, name)))
    extract_features(net, IMAGES, "pool1", verbose=0)
    assert len(calls) == 1


def test_weights_are_shared(net):
    features = feature_model(net, "conv2", "avg")
    before = features.predict(IMAGES, verbose=0)
    net.get_layer("conv1").set_weights([np.zeros((3, 3, 3, 4)), np.zeros(4)])
    assert not np.array_equal(features.predict(IMAGES, verbose=0), before)
    assert features.name == "net_features"


def test_features_of_features(net):
    features = feature_model(net, ["pool1", "conv2"], "avg")
    again = feature_model(features, ["conv2_rows", "net_features"], "max")
    assert again.output_shape == (None, 6 + 10)


def test_a_sequential_that_has_not_met_data():
    model = Sequential([Conv2D(2, 3), Flatten()])
    assert extract_features(model, IMAGES, verbose=0).shape == (5, 72)


def test_several_inputs():
    a, b = Input((2,)), Input((3,))
    model = Model([a, b], Concatenate()([Dense(2)(a), b]))
    x = [np.ones((4, 2)), np.ones((4, 3))]
    with pytest.raises(ValueError, match=r"features need a model of one input"):
        extract_features(model, x, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"layers": "conv3"}, ValueError, "'net' has no layer 'conv3'. Did you mean 'conv2'"),
        ({"layers": []}, ValueError, "layers is empty"),
        ({"layers": "input_layer"}, ValueError, "is an input: there is nothing to extract"),
        ({"layers": "conv2", "pooling": "mean"}, ValueError, "pooling must be .*, got 'mean'"),
        ({"layer": "conv2"}, TypeError, r"extract_features\(\) has no .* Did you mean 'layers'"),
        (
            {"layers": Conv2D(1, 1, name="conv1")},
            ValueError,
            "'conv1'> is not the layer of that name in 'net'",
        ),
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer"),
    ],
)
def test_what_is_wrong(net, arguments, kind, message):
    with pytest.raises(kind, match=message):
        extract_features(net, IMAGES, verbose=0, **arguments)


@pytest.mark.parametrize("out", [None, "F.h5"])
def test_preprocessing_gives_a_row_for_each_image(out, tmp_path):
    image = Input((8, 8, 3))
    model = Model(image, Flatten()(image))
    x, out = np.zeros((5, 8, 8, 3), np.float32), out and tmp_path / out
    for wrong in (lambda b: b[:-1], lambda b: np.concatenate([b, b]), lambda b: 3):
        with pytest.raises(ValueError, match="it must return as many as it is given"):
            extract_features(model, x, preprocess=wrong, out=out, verbose=0)


def test_preprocessing_that_cannot_be_known_is_computed_anew(tmp_path, monkeypatch):
    image = Input((2, 2, 1))
    model = Model(image, Flatten()(image))
    x = np.ones((3, 2, 2, 1), np.float32)
    for scale in ("2", "3"):
        monkeypatch.setenv("SCALE", scale)
        with pytest.warns(UserWarning, match="reads what `environ` gives: .* cannot be known"):
            f = extract_features(
                model, x, preprocess=lambda b: b * float(os.environ["SCALE"]), out=tmp_path / "F.h5"
            )
        assert (f == float(scale)).all()
