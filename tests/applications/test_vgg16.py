"""VGG16 without its ImageNet weights: structure, arguments, preprocessing, a training step."""

import numpy as np
import pytest

from minitl import Model, Sequential, config
from minitl.applications import VGG16, vgg16
from minitl.applications import weights as pretrained
from minitl.layers import Conv2D, Dense, Flatten, Input
from minitl.layers.core import InputRange

rng = np.random.default_rng(0)
IMAGES = rng.uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)

NOTOP = [
    f"block{b}_{layer}"
    for b, count in enumerate((2, 2, 3, 3, 3), start=1)
    for layer in [*(f"conv{i}" for i in range(1, count + 1)), "pool"]
]


@pytest.fixture(scope="module")
def base():
    return VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))


def test_layers_of_the_base(base):
    assert [layer.name for layer in base.layers][1:] == NOTOP
    assert base.count_params() == 14_714_688 and base.name == "vgg16"
    assert base.output_shape == (None, 1, 1, 512)
    kernels = [v.shape for v in base.weights if v.name == "kernel"]
    assert kernels[0] == (3, 3, 3, 64) and kernels[-1] == (3, 3, 512, 512) and len(kernels) == 13


def test_the_whole_network_as_in_the_paper():
    model = VGG16(weights=None)
    assert model.count_params() == 138_357_544
    assert [layer.name for layer in model.layers][-4:] == ["flatten", "fc1", "fc2", "predictions"]
    assert model.output_shape == (None, 1000)
    convolutions = Model(model.input, model.get_layer("block5_pool").output)
    assert 2 * convolutions.multiply_adds() == pytest.approx(30.69e9, rel=1e-3)  # flops


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({"input_shape": (224, 224, 3)}, (None, 7, 7, 512)),
        ({"input_shape": (150, 300, 3)}, (None, 4, 9, 512)),
        ({}, (None, None, None, 512)),
        ({"pooling": "avg"}, (None, 512)),
        ({"pooling": "max", "input_shape": (48, 48, 1)}, (None, 512)),
    ],
)
def test_output_shapes(arguments, shape):
    assert VGG16(include_top=False, weights=None, **arguments).output_shape == shape


def test_a_head_trains_on_the_frozen_base(base):
    """The mission's script in small: freeze, train the head, unfreeze block 5, go on."""
    config.set_random_seed(1)
    x = Flatten()(base.output)
    x = Dense(8, activation="relu")(x)
    model = Model(inputs=base.input, outputs=Dense(2, activation="softmax")(x))
    for layer in base.layers:
        layer.trainable = False
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    y = np.eye(2)
    frozen = base.get_weights()
    x_train = vgg16.preprocess_input(IMAGES)
    first = model.fit(x_train, y, batch_size=2, epochs=3, verbose=0).history["loss"]
    assert all(np.array_equal(a, b) for a, b in zip(base.get_weights(), frozen, strict=True))
    assert first[-1] < first[0]
    for layer in base.layers:
        layer.trainable = layer.name.startswith("block5")
    model.compile("sgd", "categorical_crossentropy")
    model.fit(x_train, y, verbose=0)
    place = {id(weight): i for i, weight in enumerate(base.weights)}
    changed = [
        layer.name
        for layer in base.layers
        if layer.weights
        and not all(
            np.array_equal(a, b)
            for a, b in zip(
                layer.get_weights(), frozen[place[id(layer.weights[0])] :], strict=False
            )
        )
    ]
    assert changed == ["block5_conv1", "block5_conv2", "block5_conv3"]
    base.trainable = True


def test_in_a_sequential(base):
    model = Sequential([base, Flatten(), Dense(3)])
    assert model.output_shape == (None, 3)
    assert model.predict(IMAGES, verbose=0).shape == (2, 3)


def test_input_tensor():
    x = Input((32, 32, 3), name="pixels")
    model = VGG16(include_top=False, weights=None, input_tensor=x)
    assert model.input is x and model.layers[0].name == "pixels"
    gray = Input((32, 32, 1))
    coloured = VGG16(
        include_top=False, weights=None, input_tensor=Conv2D(3, 1, name="colour")(gray)
    )
    assert coloured.input is gray and coloured.layers[1].name == "colour"


def test_weights_from_a_path(tmp_path, base):
    base.save_weights(tmp_path / "own.h5")
    again = VGG16(include_top=False, weights=tmp_path / "own.h5", input_shape=(32, 32, 3))
    x = vgg16.preprocess_input(IMAGES)
    assert np.array_equal(again.predict(x, verbose=0), base.predict(x, verbose=0))


def test_images_that_were_not_preprocessed_get_one_warning(tmp_path, monkeypatch, base):
    base.save_weights(tmp_path / "official.h5")
    monkeypatch.setenv("MINITL_HOME", str(tmp_path))
    monkeypatch.setattr(pretrained, "fetch", lambda *a, **k: tmp_path / "official.h5")
    model = VGG16(include_top=False, input_shape=(32, 32, 3))
    with pytest.warns(UserWarning, match=r"values from 0\.\d+ to 25.*preprocess_input") as seen:
        model.predict(IMAGES, verbose=0)
        model.predict(IMAGES, verbose=0)
    assert len(seen) == 1
    allowed = model.layers[0].inspect
    assert isinstance(allowed, InputRange)
    preprocessed = vgg16.preprocess_input(IMAGES)
    assert allowed.low <= preprocessed.min() and preprocessed.max() <= allowed.high


# --- Preprocessing and class names ---------------------------------------------------------------


def test_preprocess_input():
    x = np.array([[[255, 0, 10]]], dtype=np.uint8)
    expected = [[[10 - 103.939, -116.779, 255 - 123.68]]]
    found = vgg16.preprocess_input(x)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32 and x.tolist() == [[[255, 0, 10]]]
    images = IMAGES.copy()
    y = vgg16.preprocess_input(images)
    assert np.array_equal(images, IMAGES) and y.shape == IMAGES.shape
    assert vgg16.preprocess_input(images.astype(np.float64)).dtype == np.float64
    assert not np.shares_memory(y, images)


@pytest.mark.parametrize(
    ("x", "kind", "message"),
    [
        (np.zeros((2, 8, 8, 1)), ValueError, r"RGB images \(N, H, W, 3\), got .*to_rgb"),
        (np.zeros((8, 8)), ValueError, r"got \(8, 8\)"),
        (np.zeros((2, 3, 8, 8)), ValueError, r"got \(2, 3, 8, 8\)"),
    ],
)
def test_what_cannot_be_preprocessed(x, kind, message):
    with pytest.raises(kind, match=message):
        vgg16.preprocess_input(x)


def test_images_divided_by_255_are_noticed():
    with pytest.warns(UserWarning, match=r"these go from .* to .*: were the images divided by 255"):
        vgg16.preprocess_input(IMAGES / 255)


def test_decode_predictions(monkeypatch):
    classes = [(f"n{i:08}", f"thing_{i}") for i in range(1000)]
    monkeypatch.setattr(pretrained, "imagenet_classes", lambda path: classes)
    p = np.zeros((2, 1000))
    p[0, [3, 700]], p[1, 5] = [0.75, 0.25], 1
    found = vgg16.decode_predictions(p, top=2)
    assert found[0] == [("n00000003", "thing_3", 0.75), ("n00000700", "thing_700", 0.25)]
    assert found[1][0] == ("n00000005", "thing_5", 1.0)
    with pytest.raises(ValueError, match=r"takes the \(N, 1000\) outputs .* got shape \(2, 10\)"):
        vgg16.decode_predictions(p[:, :10])


# --- Wrong arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"weights": "imagnet"}, ValueError, "weights must be 'imagenet', None, or the path"),
        ({"classes": 10}, ValueError, "the ImageNet top has 1000 classes, not 10"),
        ({"input_shape": (100, 100, 3)}, ValueError, r"takes \(224, 224, 3\), got \(100, 100, 3\)"),
        (
            {"include_top": False, "input_shape": (224, 224, 1)},
            ValueError,
            r"take 3 channels \(RGB\), .*to_rgb",
        ),
        (
            {"include_top": False, "weights": None, "input_shape": (31, 64, 3)},
            ValueError,
            "images of at least 32x32, got",
        ),
        (
            {"include_top": False, "weights": None, "input_shape": (64, 64)},
            ValueError,
            r"VGG16: input_shape must be 3 values .*, got \(64, 64\)",
        ),
        (
            {"weights": None, "input_shape": (None, None, 3)},
            ValueError,
            "needs a fixed input_shape",
        ),
        (
            {"include_top": False, "weights": None, "pooling": "mean"},
            ValueError,
            "pooling must be None, 'avg' or 'max', got 'mean'",
        ),
        ({"input_tensor": np.zeros((1, 224, 224, 3))}, TypeError, "input_tensor must be a Symb"),
        (
            {"weigths": None},
            TypeError,
            r"VGG16\(\) has no argument 'weigths'. Did you mean 'weights",
        ),
    ],
)
def test_wrong_arguments(arguments, kind, message):
    with pytest.raises(kind, match=message):
        VGG16(**arguments)
