"""All networks with random weights beside Keras's: outputs, gradients, files.

Random are biases and BatchNormalization's averages, too, or they would not be there. Gradients are
taken in float64: in float32 a number that lies within rounding of a ReLU's kink takes the other
side in one of the two, and its gradient with it.
"""

import json

import h5py
import numpy as np
import pytest

import minitl
from minitl import Tensor, backward
from tests.keras_live.compare import assert_close
from tests.tolerances import NETWORK, NETWORK_GRADIENTS, TRAINING_LOSS_FLOAT32

TOP = {"include_top": True, "input_shape": (32, 32, 3), "classes": 12}
LOGITS = TOP | {"classifier_activation": None, "input_shape": (40, 64, 3)}
MAPS = {"include_top": False, "input_shape": (64, 48, 3)}
OPEN = {"include_top": False, "pooling": "avg"}
MAXIMUM = {"include_top": False, "input_shape": (33, 47, 3), "pooling": "max"}


def both(keras, name, settings):
    models = [getattr(k.applications, name)(weights=None, **settings) for k in (minitl, keras)]
    weights = random_weights(models[0])
    for model in models:
        model.set_weights(weights)
    for layer in models[1].layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # which Keras's set_weights forgets
    return models


def random_weights(model, seed=0):
    """By the weights' names; kernels keep the scale of what passes them (He et al. 2015), and so do
    the gammas of networks in which nothing passes by the blocks' side: or outputs were constant."""
    rng = np.random.default_rng(seed)
    low, high = (0.6, 1.2) if model.name.startswith(("mobile", "efficient")) else (0.3, 0.9)

    def inputs(s):
        return np.prod(s[:2] if s[-1] == 1 else s[:-1])  # of a depthwise kernel, or another

    draw = {
        "kernel": lambda s: rng.standard_normal(s) * np.sqrt(2 / inputs(s)),
        "bias": lambda s: rng.normal(0, 0.1, s),
        "gamma": lambda s: rng.uniform(low, high, s),
        "beta": lambda s: rng.normal(0, 0.2, s),
        "moving_mean": lambda s: rng.normal(0, 0.3, s),
        "moving_variance": lambda s: rng.uniform(0.5, 2, s),
        "mean": lambda s: rng.uniform(0.3, 0.6, s),  # of Normalization, after division by 255
        "variance": lambda s: rng.uniform(0.04, 0.08, s),
        "count": lambda s: np.array(7),
    }
    return [draw[v.name](v.shape) for v in model.weights]


def images(model, count=2, size=(64, 64)):
    shape = [n or m for n, m in zip(model.input_shape[1:3], size, strict=True)]
    return np.random.default_rng(1).uniform(-120, 150, (count, *shape, 3))


def described(model, like=None):
    """Class, name and shapes of each layer; names that are numbers of a process as in `like`."""
    names = [layer.name for layer in (like or model).layers]
    own = [layer.name for layer in model.layers]
    automatic = ("rescaling", "normalization", "global_average_pooling2d")
    names = [
        b if b.startswith(automatic) and a.startswith(automatic) else a
        for a, b in zip(own, names, strict=True)
    ]
    return [
        (type(layer).__name__, name, [tuple(np.shape(w)) for w in layer.get_weights()])
        for layer, name in zip(model.layers, names, strict=True)
    ]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("VGG16", TOP),
        ("VGG16", OPEN),
        ("VGG19", LOGITS),
        ("VGG19", MAXIMUM),
        ("ResNet50", TOP),
        ("ResNet50", LOGITS),
        ("ResNet50", MAPS),
        ("ResNet50", OPEN),
        ("MobileNetV2", TOP),
        ("MobileNetV2", LOGITS | {"alpha": 0.35}),
        ("MobileNetV2", MAXIMUM | {"alpha": 1.4}),
        ("MobileNetV2", OPEN),
        ("EfficientNetB0", TOP),
        ("EfficientNetB0", LOGITS),
        ("EfficientNetB0", MAXIMUM),
        ("EfficientNetB0", OPEN),
    ],
)
def test_layers_and_outputs(keras, name, settings):
    mine, theirs = both(keras, name, settings)
    assert mine.name == theirs.name and described(mine, theirs) == described(theirs)
    assert mine.output_shape == theirs.output_shape
    x = images(mine).astype(np.float32)
    expected = np.asarray(theirs(x, training=False))
    scale = np.abs(expected).max()
    for kernels in ("fast", "direct"):
        with minitl.use_kernels(kernels):
            found = mine.predict(x, verbose=0)
        assert_close(found / scale, expected / scale, NETWORK, kernels)


@pytest.fixture
def in_float64(keras):
    """New layers of both compute in float64."""
    minitl.config.set_floatx("float64")
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


def gradients(model, x, cotangent, training):
    """By the input and by every trainable weight, of <cotangent, model(x)>."""
    if isinstance(model, minitl.Model):
        pixels = Tensor(x, requires_grad=True)
        return backward(
            model(pixels, training=training), [pixels, *model.trainable_weights], cotangent
        )
    import tensorflow as tf

    pixels = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        y = model(pixels, training=training)
    wanted = [pixels, *(v.value for v in model.trainable_weights)]
    return [np.asarray(g) for g in tape.gradient(y, wanted, output_gradients=cotangent)]


@pytest.mark.parametrize(
    ("name", "training"),
    [
        ("VGG16", False),
        ("VGG19", False),
        ("ResNet50", False),
        ("ResNet50", True),
        ("MobileNetV2", False),
        ("MobileNetV2", True),
        ("EfficientNetB0", False),
    ],
)
def test_gradients(keras, in_float64, name, training):
    settings = {"include_top": False, "input_shape": (40, 32, 3)}
    mine, theirs = both(keras, name, settings)
    for layer in (*mine.layers, *theirs.layers):
        if type(layer).__name__ == "Rescaling":
            layer.scale = 1 / 256  # Keras rounds it to float32, whatever it computes in
    x = images(mine, count=3)
    cotangent = np.random.default_rng(2).standard_normal((3, *mine.output_shape[1:]))
    found = gradients(mine, x, cotangent, training)
    expected = gradients(theirs, x, cotangent, training)
    assert len(found) == len(expected) == 1 + len(mine.trainable_weights)
    names = ["input", *(v.name for v in mine.trainable_weights)]
    largest = max(np.abs(g).max() for g in expected)
    for what, a, b in zip(names, found, expected, strict=True):
        # Batch normalization takes a bias away again, or a beta with a mere 1x1 convolution
        # between: its gradient is 0 but for rounding.
        scale = largest if training and what in ("bias", "beta") else np.abs(b).max()
        assert_close(a / scale, b / scale, NETWORK_GRADIENTS, what)
    for a, b in zip(mine.get_weights(), theirs.get_weights(), strict=True):  # moving averages
        assert_close(a, b, NETWORK_GRADIENTS)


def with_head(k, base):
    x = k.layers.GlobalAveragePooling2D(name="average")(base.output)
    x = k.layers.Dense(3, activation="softmax", name="head")(x)
    return k.Model(base.input, x)


def test_fine_tuning_resnet50_leaves_its_averages_alone(keras):
    """The last stack is trained, BatchNormalization frozen wherever it stands, as in Keras."""
    rng = np.random.default_rng(3)
    losses, models = [], []
    bases = both(keras, "ResNet50", {"include_top": False, "input_shape": (32, 32, 3)})
    x = images(bases[0], count=4).astype(np.float32)
    head = [rng.standard_normal((2048, 3)) * 0.01, np.zeros(3)]
    before = bases[0].get_weights()
    for k, base in zip((minitl, keras), bases, strict=True):
        for layer in base.layers:
            layer.trainable = layer.name.startswith("conv5") and not layer.name.endswith("_bn")
        model = with_head(k, base)
        model.get_layer("head").set_weights(head)
        model.compile(k.optimizers.SGD(1e-4), "categorical_crossentropy")
        history = model.fit(
            x, np.eye(3)[[0, 1, 2, 0]], batch_size=2, epochs=3, shuffle=False, verbose=0
        )
        losses.append(history.history["loss"])
        models.append(model)
    np.testing.assert_allclose(losses[0], losses[1], rtol=TRAINING_LOSS_FLOAT32)
    assert losses[0][-1] < losses[0][0]
    changed = [
        f"{layer.name}/{v.name}"
        for layer in bases[0].layers
        for v in layer.weights
        if not np.array_equal(v.numpy(), before[[w is v for w in bases[0].weights].index(True)])
    ]
    assert len(changed) == 2 * 10  # kernels and biases of the ten convolutions of conv5
    assert all(name.startswith("conv5") and "_conv/" in name for name in changed)


# --- Files ---------------------------------------------------------------------------------------


def write_as_published(model, path, top="probs"):
    """A file as the official ones are: at the root, ':0' behind the names, ResNet50's top 'probs',
    layers without weights among the others."""
    with h5py.File(path, "w") as file:
        names = {layer.name: layer.name.replace("predictions", top) for layer in model.layers}
        file.attrs["layer_names"] = [name.encode() for name in names.values()]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.2.4"
        for layer in model.layers:
            group = file.create_group(names[layer.name])
            paths = [f"{names[layer.name]}/{v.name}:0" for v in layer.weights]
            group.attrs["weight_names"] = [p.encode() for p in paths]
            for p, array in zip(paths, layer.get_weights(), strict=True):
                group.create_dataset(p, data=array)


def assert_same_weights(mine, theirs):
    assert len(mine.get_weights()) == len(theirs.get_weights())
    for a, b in zip(mine.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_resnet50_in_the_official_layout(keras, tmp_path, settings=TOP):
    theirs = keras.applications.ResNet50(weights=None, **settings)
    theirs.set_weights(random_weights(theirs))
    write_as_published(theirs, tmp_path / "published.h5")
    again = keras.applications.ResNet50(weights=str(tmp_path / "published.h5"), **settings)
    assert_same_weights(again, theirs)
    mine = minitl.applications.ResNet50(weights=tmp_path / "published.h5", **settings)
    assert_same_weights(mine, theirs)
    mine = minitl.applications.ResNet50(weights=None, **settings)
    mine.load_weights(tmp_path / "published.h5")
    assert_same_weights(mine, theirs)


@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2", "EfficientNetB0"])
def test_files_both_ways(keras, tmp_path, name):
    mine, theirs = both(keras, name, MAPS)
    mine.save_weights(tmp_path / "mine.h5")
    read = getattr(keras.applications, name)(weights=str(tmp_path / "mine.h5"), **MAPS)
    assert_same_weights(mine, read)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    theirs.save(tmp_path / "whole.h5")
    for file in ("theirs.weights.h5", "whole.h5"):
        assert_same_weights(
            getattr(minitl.applications, name)(weights=tmp_path / file, **MAPS), theirs
        )
    again = minitl.models.load_model(tmp_path / "whole.h5")
    assert described(again, mine) == described(mine)


def test_preprocessing_and_class_names(keras, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (2, 5, 5, 3)).astype(np.float32)
    index = {str(i): [f"n{i:08}", f"thing_{i}"] for i in range(1000)}
    keras.src.applications.imagenet_utils.CLASS_INDEX = index
    (tmp_path / "index.json").write_text(json.dumps(index))
    p = rng.dirichlet(np.ones(1000), 3).astype(np.float32)
    for name in ("vgg16", "vgg19", "resnet50", "mobilenet_v2", "efficientnet"):
        mine, theirs = getattr(minitl.applications, name), getattr(keras.applications, name)
        np.testing.assert_array_equal(mine.preprocess_input(x), theirs.preprocess_input(x.copy()))
        found = mine.decode_predictions(p, top=4, class_index=tmp_path / "index.json")
        assert found == theirs.decode_predictions(p, top=4)
    keras.src.applications.imagenet_utils.CLASS_INDEX = None
