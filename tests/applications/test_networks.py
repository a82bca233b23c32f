"""VGG19 and ResNet50 without Keras: structure, what frozen means, files, arguments, class names."""

import json

import numpy as np
import pytest

from minitl import Model
from minitl.applications import VGG16, VGG19, ResNet50, resnet50, vgg16
from minitl.applications import weights as pretrained
from minitl.layers import BatchNormalization, Dense
from minitl.storage import keras_files as hdf5

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


@pytest.mark.parametrize("network", [VGG16, VGG19, ResNet50])
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
