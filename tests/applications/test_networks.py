"""Networks beside VGG16, without Keras: structure, what frozen means, files, arguments, names."""

import json

import numpy as np
import pytest

import minitl
from minitl import Model, applications
from minitl.applications import VGG16, VGG19, EfficientNetB0, MobileNetV2, ResNet50, resnet50, vgg16
from minitl.applications import weights as pretrained
from minitl.layers import BatchNormalization, Dense
from minitl.storage import keras_files as hdf5
from tests.keras_live.test_networks import random_weights

SMALL = {"weights": None, "include_top": False, "input_shape": (32, 32, 3)}
rng = np.random.default_rng(0)
IMAGES = rng.uniform(-120, 150, (4, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def resnet():
    return ResNet50(pooling="avg", **SMALL)


@pytest.mark.parametrize(
    ("network", "with_top", "without", "multiply_adds", "maps"),
    [
        (VGG19, 143_667_240, 20_024_384, 19.6e9, (None, 7, 7, 512)),
        (ResNet50, 25_636_712, 23_587_712, 3.86e9, (None, 7, 7, 2048)),
        (MobileNetV2, 3_538_984, 2_257_984, 300.8e6, (None, 7, 7, 1280)),
        (EfficientNetB0, 5_330_571, 4_049_571, 385.8e6, (None, 7, 7, 1280)),
    ],
)
def test_size_and_work_as_in_the_papers(network, with_top, without, multiply_adds, maps):
    whole = network(weights=None)
    assert whole.count_params() == with_top and whole.output_shape == (None, 1000)
    assert whole.multiply_adds() == pytest.approx(multiply_adds, rel=2e-3)
    base = network(weights=None, include_top=False, input_shape=(224, 224, 3))
    assert base.count_params() == without and base.output_shape == maps


def test_a_block_of_resnet50_is_what_it_is_given_plus_a_correction(resnet):
    """With gamma and beta 0 the last normalization adds nothing: y = relu(x) = x."""
    name = "conv3_block2"
    block = Model(
        resnet.get_layer("conv3_block1_out").output, resnet.get_layer(f"{name}_out").output
    )
    x = rng.uniform(0, 2, (2, 4, 4, 512)).astype(np.float32)
    assert not np.array_equal(block.predict(x, verbose=0), x)
    last = resnet.get_layer(f"{name}_3_bn")
    before = last.get_weights()
    last.set_weights([np.zeros(512), np.zeros(512), *before[2:]])
    np.testing.assert_array_equal(block.predict(x, verbose=0), x)
    last.set_weights(before)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_normalization_works_as_published(resnet, frozen):
    """Frozen, a training of what stands behind changes neither its averages nor its outputs."""
    resnet.trainable = not frozen
    model = Model(resnet.input, Dense(2, activation="softmax")(resnet.output))
    model.compile("sgd", "sparse_categorical_crossentropy")
    norms = [layer for layer in resnet.layers if isinstance(layer, BatchNormalization)]
    assert len(norms) == 53 and {layer.epsilon for layer in norms} == {1.001e-5}
    before = [a for layer in norms for a in layer.get_weights()[2:]]
    F = resnet.predict(IMAGES, verbose=0)
    model.fit(IMAGES, [0, 1, 0, 1], cache_features=False, verbose=0)
    after = [a for layer in norms for a in layer.get_weights()[2:]]
    same = [np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
    assert all(same) if frozen else not any(same)
    assert np.array_equal(resnet.predict(IMAGES, verbose=0), F) == frozen
    resnet.trainable = True


def test_the_published_file_of_resnet50_calls_its_top_otherwise(tmp_path):
    """'probs': Keras reads by order and does not see it."""
    settings = {"weights": None, "input_shape": (32, 32, 3), "classes": 5}
    model = ResNet50(**settings)
    model.save_weights(tmp_path / "own.h5")
    layers = hdf5.read_weights(tmp_path / "own.h5").layers
    published = [(name.replace("predictions", "probs"), weights) for name, weights in layers]
    hdf5.write_weights(tmp_path / "published.h5", published)
    again = ResNet50(**settings | {"weights": tmp_path / "published.h5"})
    for a, b in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(
        hdf5.WeightFileError, match=r"do not fit the model; nothing was changed"
    ) as e:
        ResNet50(**SMALL | {"weights": tmp_path / "published.h5"})
    assert "layer 'probs': found in the file ((2048, 5), (5,)), not in the model" in str(e.value)
    assert "likely cause: the file has the classifier on top" in str(e.value)


@pytest.mark.parametrize("network", [VGG16, VGG19, ResNet50])
def test_weights_that_cannot_be_fetched(network, monkeypatch, tmp_path):
    monkeypatch.setenv("MINITL_HOME", str(tmp_path))

    def no_network(name, include_top):
        raise pretrained.FetchError(f"could not get the weights of {name}, {include_top}")

    monkeypatch.setattr(pretrained, "fetch", no_network)
    name = network.__name__.lower()
    with pytest.raises(OSError, match=f"could not get the weights of {name}, False"):
        network(include_top=False)


@pytest.mark.parametrize("network", [VGG16, VGG19, ResNet50, MobileNetV2, EfficientNetB0])
def test_a_top_with_weights_has_the_activation_it_was_trained_with(network):
    with pytest.raises(
        ValueError, match=r"trained with classifier_activation='softmax'.*'sigmoid'"
    ):
        network(classifier_activation="sigmoid")
    model = network(
        weights=None, classifier_activation="sigmoid", input_shape=(32, 32, 3), classes=2
    )
    assert model.output_shape == (None, 2)


def test_class_names_from_a_file_of_ones_own(tmp_path):
    path = tmp_path / "index.json"
    path.write_text(json.dumps({str(i): [f"n{i:08}", f"thing_{i}"] for i in range(1000)}))
    p = np.zeros((1, 1000))
    p[0, [7, 9]] = 0.75, 0.25
    expected = [[("n00000007", "thing_7", 0.75), ("n00000009", "thing_9", 0.25)]]
    assert resnet50.decode_predictions(p, top=2, class_index=path) == expected
    for content in ("{", "[]", '{"0": ["n01440764", "tench"]}', '{"0": 3}'):
        path.write_text(content)
        with pytest.raises(
            ValueError, match=r"index.json is not an ImageNet class index: expected"
        ):
            vgg16.decode_predictions(p, class_index=path)
    with pytest.raises(FileNotFoundError, match=r"no\.json"):
        vgg16.decode_predictions(p, class_index=tmp_path / "no.json")


# --- MobileNetV2 and EfficientNetB0 ---------------------------------------------------------------

MOBILE = [(MobileNetV2, "mobilenet_v2"), (EfficientNetB0, "efficientnet")]


@pytest.mark.parametrize(
    ("network", "settings", "expected"),
    [
        (
            MobileNetV2,
            {"alpha": 0.35},
            [
                [0.9406755, 0.0087940, 0.0027121, 0.0360745, 0.0117439],
                [0.9649223, 0.0051931, 0.0012635, 0.0197175, 0.0089036],
            ],
        ),
        (
            EfficientNetB0,
            {},
            [
                [0.1397542, 0.2350067, 0.2208974, 0.1198674, 0.2844744],
                [0.1397550, 0.2350267, 0.2208871, 0.1198779, 0.2844533],
            ],
        ),
    ],
)
def test_outputs_as_keras_had_them(network, settings, expected):
    """Keras 3.15 on the same weights and images, float32."""
    model = network(weights=None, input_shape=(48, 64, 3), classes=5, **settings)
    model.set_weights(random_weights(model))
    rows, columns, colours = np.ogrid[:48, :64, :3]
    x = 127.5 + 127.5 * np.sin(0.1 * rows + 0.07 * columns * (1 + colours))
    x = np.stack([x, 255 - x]).astype(np.float32)
    if network is MobileNetV2:
        x = applications.mobilenet_v2.preprocess_input(x)
    np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=2e-6)


@pytest.mark.parametrize(("side", "alpha"), [(160, 1.0), (224, 0.35), (None, 1.0), (300, 1.0)])
@pytest.mark.parametrize("top", [True, False])
def test_which_file_of_mobilenet(monkeypatch, tmp_path, side, alpha, top):
    if top and side not in (160, 224):
        return
    asked = []

    def fetch(entry):
        asked.append(entry)
        raise pretrained.FetchError("no network")

    monkeypatch.setattr(pretrained, "fetch", fetch)
    shape = None if side is None else (side, side, 3)
    with pytest.raises(OSError, match="no network"):
        MobileNetV2(shape, alpha=alpha, include_top=top)
    (entry,) = asked
    size = 160 if side == 160 else 224
    ending = "" if top else "_no_top"
    file = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{size}{ending}.h5"
    folder = "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2"
    assert entry.url == f"{folder}/{file}" and entry.file == file
    assert bool(entry.md5) == ((size, alpha) == (224, 1.0))


def test_arguments_of_mobilenet():
    with pytest.raises(ValueError, match=r"alpha in \(0.35, 0.5, .*\), not for 0.6"):
        MobileNetV2(alpha=0.6)
    with pytest.raises(ValueError, match=r"takes \(96, 96, 3\) or .*got \(100, 100, 3\)"):
        MobileNetV2((100, 100, 3))
    with pytest.raises(ValueError, match="alpha must be a finite number above 0, got -1"):
        MobileNetV2(alpha=-1, weights=None)
    assert MobileNetV2((96, 96, 3), 0.5, weights=None, include_top=False).name == (
        "mobilenetv2_0.50_96"
    )


def test_one_layer_more_for_the_published_weights_of_efficientnet(monkeypatch, tmp_path):
    """Its Rescaling has no weights: the same file fits, and the images are scaled once more."""
    small = {"include_top": False, "input_shape": (32, 32, 3), "pooling": "avg"}
    plain = EfficientNetB0(weights=None, **small)
    plain.save_weights(tmp_path / "w.h5")
    monkeypatch.setattr(pretrained, "fetch", lambda entry: tmp_path / "w.h5")
    published = EfficientNetB0(**small)
    assert len(published.layers) == len(plain.layers) + 1
    x = rng.uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
    more = x / np.sqrt(np.array([0.229, 0.224, 0.225], np.float32))
    f = published.predict(x, verbose=0)
    np.testing.assert_allclose(f, plain.predict(more, verbose=0), rtol=1e-4, atol=1e-5)
    with pytest.warns(UserWarning, match="values from .* Give it RGB images from 0 to 255"):
        EfficientNetB0(**small).predict(x / 255, verbose=0)


@pytest.mark.parametrize(("network", "file"), MOBILE)
def test_preprocessing_of_the_small_networks(network, file):
    own = getattr(applications, file)
    x = rng.integers(0, 256, (2, 4, 4, 3)).astype(np.uint8)
    before, found = x.copy(), own.preprocess_input(x)
    expected = x / 127.5 - 1 if file == "mobilenet_v2" else x
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32 and np.array_equal(x, before)
    floats = x.astype(np.float32)
    assert own.preprocess_input(floats) is not floats
    with pytest.raises(ValueError, match=r"RGB images \(N, H, W, 3\)"):
        own.preprocess_input(x[..., :1])
    with pytest.warns(UserWarning, match="divided by 255 already"):
        own.preprocess_input(x / 255)


@pytest.mark.parametrize(("network", "file"), MOBILE)
def test_transfer_on_the_small_networks(network, file, tmp_path):
    """Frozen they give F, and keep their averages; the top blocks are trained without those."""
    base = network(weights=None, include_top=False, input_shape=(64, 64, 3), pooling="avg")
    base.set_weights(random_weights(base))
    base.trainable = False
    x = rng.uniform(-1, 1, (6, 64, 64, 3)).astype(np.float32)
    name = "block_16_project" if network is MobileNetV2 else "block7a_project_conv"
    f = minitl.extract_features(base, x, layers=name, pooling="avg", verbose=0)
    assert f.shape == (6, 320)
    inputs = minitl.layers.Input((64, 64, 3))
    f = base(inputs, training=False)  # no block is left out
    model = Model(inputs, Dense(2, activation="softmax", name="head")(f))
    model.compile("adam", "sparse_categorical_crossentropy")
    before = [v.numpy() for v in base.weights]
    model.fit(x, np.arange(6) % 2, verbose=0)
    stage = name.rsplit("_project", 1)[0]
    minitl.transfer.fine_tune(
        model, (x, np.arange(6) % 2), stages=[stage], head_epochs=0, epochs=1, verbose=0
    )
    moved = {
        layer.name
        for layer in base.layers
        if any(
            not np.array_equal(v.numpy(), b)
            for v, b in zip(base.weights, before, strict=True)
            if any(v is own for own in layer.weights)
        )
    }
    above = "Conv_1" if network is MobileNetV2 else "top_conv"
    assert name in moved and above in moved
    assert all(n.startswith((stage, above)) and "bn" not in n.lower() for n in moved)
    model.save(tmp_path / "m.keras")
    again = minitl.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
