"""The whole job beside Keras, with the real ImageNet weights: VGG16 on photographs, and the
mission's script, where nothing but the import lines differs."""

import types

import numpy as np
import pytest

import minitl
from minitl.applications import weights as pretrained
from minitl.applications.vgg16 import VGG16, preprocess_input
from minitl.data.images import resize_images
from tests.keras_live.compare import assert_close
from tests.tolerances import PHOTOGRAPHS, SCRIPT_LOSS, SCRIPT_PREDICTIONS

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def weights():
    return str(pretrained.fetch("vgg16", include_top=False))


def photographs():
    """(427, 640, 3) and (600, 512, 3) photographs of a temple, a flower and a person, 0-255."""
    from matplotlib import cbook
    from PIL import Image
    from sklearn.datasets import load_sample_images

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        person = np.asarray(Image.open(file).convert("RGB"))
    return [*load_sample_images().images, person]


def crops(count, size, seed=0):
    """Square pieces of the photographs, of random place and size, resized; (N, S, S, 3), 0-255."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        image = photographs()[i % 3]
        side = int(rng.integers(size // 2 + 32, min(image.shape[:2])))
        top, left = (int(rng.integers(0, n - side + 1)) for n in image.shape[:2])
        piece = image[top : top + side, left : left + side]
        found.append(resize_images(piece[None].astype(np.float32), (size, size))[0])
    return np.stack(found)


def in_float64(weights, size):
    """VGG16 in double precision, the truth for its float32 form."""
    minitl.config.set_floatx("float64")
    try:
        return VGG16(include_top=False, weights=weights, input_shape=(size, size, 3))
    finally:
        minitl.config.set_floatx("float32")


def test_photographs_against_float64_and_keras(keras, weights):
    x = preprocess_input(crops(3, 224))
    shape = (224, 224, 3)
    y = VGG16(include_top=False, weights=weights, input_shape=shape).predict(x, verbose=0)
    truth = in_float64(weights, 224).predict(x.astype(np.float64), verbose=0)
    theirs = keras.applications.VGG16(include_top=False, weights=weights, input_shape=shape)
    expected = theirs.predict(x, verbose=0)
    assert y.dtype == np.float32 and truth.dtype == np.float64
    assert np.abs(y - truth).max() <= PHOTOGRAPHS * np.abs(truth).max()
    assert np.abs(y - expected).max() <= PHOTOGRAPHS * np.abs(expected).max()


def test_preprocessing_is_keras_s(keras):
    x = crops(2, 40)
    mine = preprocess_input(x)
    np.testing.assert_array_equal(mine, keras.applications.vgg16.preprocess_input(x.copy()))
    np.testing.assert_array_equal(x, crops(2, 40))  # ours leaves the caller's array alone


SCRIPT = """
# Load VGG16 without its top
vgg16 = VGG16(weights={weights!r}, include_top=False, input_shape=({size}, {size}, 3))

# Own layers on top
x = Flatten()(vgg16.output)
x = Dense(1024, activation='relu')(x)
predictions = Dense(10, activation='softmax')(x)

model = Model(inputs=vgg16.input, outputs=predictions)

# Freeze the pretrained weights
for layer in vgg16.layers:
    layer.trainable = False

model.compile(optimizer='adam', loss='categorical_crossentropy', metrics=['accuracy'])
same_start(model)
history = model.fit(x_train, y_train, batch_size={batch}, epochs=3,
                    validation_data=(x_val, y_val), shuffle=False, verbose=0)
score = model.evaluate(x_test, y_test, verbose=0)
probabilities = model.predict(x_test, verbose=0)
"""
IMPORTS = """
import {0} as keras
from {0}.applications import VGG16
from {0}.layers import Dense, Flatten
from {0}.models import Model
"""


def run_script(library, start, arrays, **settings):
    """The mission's script with the head's first weights set from `start` (made when empty)."""

    def same_start(model):
        if not start:
            start.extend(model.get_weights()[-4:])
        model.set_weights([*model.get_weights()[:-4], *start])

    scope = {"same_start": same_start, **arrays}
    exec(IMPORTS.format(library) + SCRIPT.format(**settings), scope)
    return types.SimpleNamespace(**scope)


def arrays_of(size, counts):
    """Crops labelled by photograph and brightness, one-hot over ten classes, split in three."""
    x = preprocess_input(crops(sum(counts), size))
    brightness = np.argsort(np.argsort(x.mean(axis=(1, 2, 3)))) * 3 // len(x)
    labels = (np.arange(len(x)) % 3) * 3 + brightness
    y = np.eye(10, dtype=np.float32)[labels]
    cuts = np.cumsum(counts)[:2]
    names = ("train", "val", "test")
    return {
        f"{letter}_{name}": part
        for letter, whole in (("x", x), ("y", y))
        for name, part in zip(names, np.split(whole, cuts), strict=True)
    }


@pytest.mark.parametrize(
    "size, counts, batch", [(64, (20, 6, 6), 8), (224, (10, 3, 3), 5)], ids=["64", "224"]
)
def test_script(keras, compiled, weights, size, counts, batch):
    arrays, start = arrays_of(size, counts), []
    settings = {"weights": weights, "size": size, "batch": batch}
    theirs = run_script("keras", start, arrays, **settings)
    mine = run_script("minitl", start, arrays, **settings)
    a, b = mine.history.history, theirs.history.history
    assert list(a) == list(b) == ["accuracy", "loss", "val_accuracy", "val_loss"]
    for name in ("loss", "val_loss"):
        for epoch, (one, other) in enumerate(zip(a[name], b[name], strict=True)):
            assert abs(one - other) <= SCRIPT_LOSS * abs(other), (name, epoch, one, other)
    for name in ("accuracy", "val_accuracy"):
        assert_close(a[name], b[name], SCRIPT_PREDICTIONS, name)
    assert abs(mine.score[0] - theirs.score[0]) <= SCRIPT_LOSS * abs(theirs.score[0])
    assert mine.score[1] == pytest.approx(theirs.score[1], abs=1e-6)
    assert_close(mine.probabilities, theirs.probabilities, SCRIPT_PREDICTIONS)
    assert b["loss"][-1] != b["loss"][0]
    # Frozen is frozen, bit for bit.
    for one, other in zip(mine.vgg16.get_weights(), theirs.vgg16.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_block5_unfrozen(keras, weights):
    """Fine-tuning: block5 and a head, SGD with momentum, small rate; losses step by step."""
    arrays = arrays_of(64, (12, 3, 3))
    found, start = [], None
    for k in (keras, minitl):
        base = k.applications.VGG16(
            weights=weights, include_top=False, input_shape=(64, 64, 3), pooling="avg"
        )
        for layer in base.layers:
            layer.trainable = layer.name.startswith("block5")
        model = k.Model(base.input, k.layers.Dense(10, activation="softmax")(base.output))
        start = start or model.get_weights()
        model.set_weights(start)
        model.compile(k.optimizers.SGD(1e-4, momentum=0.9), "categorical_crossentropy")
        history = model.fit(
            arrays["x_train"], arrays["y_train"], batch_size=4, epochs=3, shuffle=False, verbose=0
        )
        found.append((history.history["loss"], model.get_weights()))
    theirs, mine = found
    np.testing.assert_allclose(mine[0], theirs[0], rtol=SCRIPT_LOSS)
    for i, (a, b, before) in enumerate(zip(mine[1], theirs[1], start, strict=True)):
        moved = not np.array_equal(b, before)
        assert moved == (i >= 20) == (not np.array_equal(a, before))
        # How far a weight moved, as a whole, to a thousandth.
        distance = np.linalg.norm(b - before)
        assert np.linalg.norm(a - b) <= 1e-3 * distance + 1e-7 * np.linalg.norm(b), i
