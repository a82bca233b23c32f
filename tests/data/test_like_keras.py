"""The same files and arrays given to Keras and to minitl.

Measured differences that are not zero, in gray levels of 0-255, and where they come from:

    resized PNG, BMP, GIF       0.006   TensorFlow computes the centres in float32
    'bicubic'                   0.2     TensorFlow looks its weights up in a table of 1,024
    one channel from colours    1.1     TensorFlow's PNG reader weighs the colours in integers
    JPEG                        15 (mean 1.3)  another decoder: chroma upsampling, fast cosines
"""

import inspect
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from minitl import utils
from minitl.data import images

pytestmark = pytest.mark.keras
PHOTOS = Path(sklearn.datasets.__file__).parent / "images"


@pytest.fixture(scope="module")
def keras():
    if os.environ.get("CI") == "true":  # there a missing Keras is a failure
        import keras

        return keras
    return pytest.importorskip("keras")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Two classes of one photograph each, as every kind of file."""
    root = tmp_path_factory.mktemp("zoo")
    for name in ("china", "flower"):
        folder = root / name
        folder.mkdir()
        shutil.copy(PHOTOS / f"{name}.jpg", folder / "photo.jpg")
        img = Image.open(PHOTOS / f"{name}.jpg").resize((160, 107))
        gray = img.convert("L")
        img.save(folder / "rgb.png")
        img.save(folder / "RGB.BMP")
        img.convert("P").save(folder / "palette.png")
        img.convert("P").save(folder / "palette.gif")
        img.convert("CMYK").save(folder / "cmyk.jpg")
        gray.save(folder / "gray.png")
        gray.save(folder / "gray.jpeg")
        rgba = img.convert("RGBA")
        rgba.putalpha(gray)
        rgba.save(folder / "rgba.png")
        deep = np.asarray(gray).astype(np.uint16) * 256 + 17
        Image.fromarray(deep).save(folder / "deep.png")
    return root


def difference(a, b):
    return np.abs(np.asarray(a, float) - np.asarray(b, float))


@pytest.mark.parametrize("name", [n for n in utils.__all__])
def test_arguments_and_defaults_are_keras_s(keras, name):
    ours = inspect.signature(getattr(utils, name)).parameters
    theirs = inspect.signature(getattr(keras.utils, name)).parameters
    # `format` chooses between TensorFlow's and Grain's data sets
    expected = {n: p.default for n, p in theirs.items() if n != "format"}
    assert {n: p.default for n, p in ours.items()} == expected
    assert list(ours) == list(expected)


# --- load_img and its kin: identical ---


@pytest.mark.parametrize("color_mode", ["rgb", "rgba", "grayscale"])
@pytest.mark.parametrize("target_size", [None, (64, 64), (30, 200)])
@pytest.mark.parametrize("keep_aspect_ratio", [False, True])
def test_load_img(keras, zoo, color_mode, target_size, keep_aspect_ratio):
    for path in sorted((zoo / "china").iterdir()):
        if path.name == "deep.png" and color_mode != "grayscale":
            continue  # Keras clips 16 bits at 255; see the next test
        for interpolation in images.PILLOW_FILTERS if target_size else ["nearest"]:
            options = {
                "color_mode": color_mode,
                "target_size": target_size,
                "interpolation": interpolation,
                "keep_aspect_ratio": keep_aspect_ratio,
            }
            want = keras.utils.load_img(path, **options)
            got = utils.load_img(path, **options)
            assert got.mode == want.mode
            np.testing.assert_array_equal(
                utils.img_to_array(got), keras.utils.img_to_array(want), err_msg=str(path)
            )


def test_16_bit_gray_as_rgb_is_white_in_keras_and_right_here(keras, zoo):
    path = zoo / "china" / "deep.png"
    gray = np.asarray(utils.load_img(zoo / "china" / "gray.png"))
    assert np.asarray(keras.utils.load_img(path)).mean() > 250
    np.testing.assert_array_equal(np.asarray(utils.load_img(path)), gray)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("scale", [False, True])
def test_array_to_img_and_save_img(keras, tmp_path, channels, scale):
    rng = np.random.default_rng(channels)
    for low, high in ((0, 255), (0, 200)) if not scale else ((-3, 4), (5, 5), (0, 1e6)):
        x = rng.uniform(low, high, (9, 7, channels))
        want = keras.utils.array_to_img(x, scale=scale)
        got = utils.array_to_img(x, scale=scale)
        assert got.mode == want.mode
        np.testing.assert_array_equal(np.asarray(got), np.asarray(want))
        utils.save_img(tmp_path / "ours.png", x, scale=scale)
        keras.utils.save_img(tmp_path / "theirs.png", x, scale=scale)
        assert (tmp_path / "ours.png").read_bytes() == (tmp_path / "theirs.png").read_bytes()


# --- resize_images ---


# Not ("gaussian", True): that kernel ends in a step, and rounding decides which pixels still count.
@pytest.mark.parametrize(
    ("interpolation", "antialias"),
    [(name, False) for name in images.INTERPOLATIONS]
    + [(name, True) for name in images.KERNELS if name != "gaussian"],
)
def test_resize_images(keras, interpolation, antialias):
    tf = pytest.importorskip("tensorflow")
    photo = sklearn.datasets.load_sample_image("china.jpg")[np.newaxis]
    for size in ((224, 224), (500, 700), (1, 1)):
        want = tf.image.resize(photo, size, method=interpolation, antialias=antialias).numpy()
        got = images.resize_images(photo, size, interpolation, antialias)
        assert got.dtype == want.dtype
        bound = 0.2 if interpolation == "bicubic" and not antialias else 0.02
        assert difference(got, want).max() < bound


# --- image_dataset_from_directory ---


def both(keras, directory, **options):
    options = {"image_size": (64, 48), "seed": 11, **options}
    return (
        utils.image_dataset_from_directory(directory, **options),
        keras.utils.image_dataset_from_directory(directory, **options),
    )


@pytest.mark.parametrize("fit", [None, "crop_to_aspect_ratio", "pad_to_aspect_ratio"])
@pytest.mark.parametrize("size", [(64, 48), (50, 301)])
def test_the_pixels_of_a_folder(keras, zoo, fit, size):
    options = {fit: True} if fit else {}
    ours, theirs = both(
        keras, zoo, shuffle=False, batch_size=None, image_size=size, verbose=False, **options
    )
    assert ours.file_paths == theirs.file_paths and len(ours) == 20
    for path, (x, y), (their_x, their_y) in zip(ours.file_paths, ours, theirs, strict=True):
        gap = difference(x, their_x)
        assert y == int(their_y)
        if path.endswith(("jpg", "jpeg")):
            assert gap.mean() < 2, path
        else:
            assert gap.max() < 0.02, path


def test_the_pixels_in_one_channel_and_in_four(keras, zoo, tmp_path):
    for mode in ("grayscale", "rgba"):
        folder = tmp_path / mode / "a"
        folder.mkdir(parents=True)
        for name in ("rgb.png", "rgba.png", "gray.png", "deep.png"):
            shutil.copy(zoo / "china" / name, folder)
        ours, theirs = both(
            keras, tmp_path / mode, labels=None, color_mode=mode, batch_size=4, shuffle=False
        )
        ((x,), (their_x,)) = list(ours), list(theirs)
        assert difference(x, their_x).max() < (1.1 if mode == "grayscale" else 0.02)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("subset", [None, "training", "validation", "both"])
def test_files_labels_splits_and_prints(keras, zoo, shuffle, subset, capsys):
    options = {"validation_split": 0.3, "subset": subset} if subset else {}
    if subset and not shuffle:
        options["class_names"] = ["flower", "china"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minitl.data.images.decode", None)  # nothing is read to find this out
        capsys.readouterr()
        ours = utils.image_dataset_from_directory(zoo, shuffle=shuffle, seed=5, **options)
        our_prints = capsys.readouterr().out
    theirs = keras.utils.image_dataset_from_directory(zoo, shuffle=shuffle, seed=5, **options)
    their_prints = capsys.readouterr().out
    assert our_prints == their_prints
    pairs = list(zip(ours, theirs, strict=True)) if subset == "both" else [(ours, theirs)]
    for mine, other in pairs:
        assert mine.class_names == other.class_names
        assert mine.file_paths == other.file_paths
        names = [mine.class_names[label] for label in mine.labels]
        assert names == [Path(path).parent.name for path in other.file_paths]


@pytest.mark.parametrize("label_mode", ["int", "categorical", "binary", None])
@pytest.mark.parametrize("batch_size", [6, None])
def test_label_modes_and_batches(keras, zoo, label_mode, batch_size):
    ours, theirs = both(
        keras, zoo, shuffle=False, label_mode=label_mode, batch_size=batch_size, verbose=False
    )
    assert len(ours) == int(theirs.cardinality())
    for mine, other in zip(ours, theirs, strict=True):
        if label_mode is None:
            mine, other = (mine, None), (other, None)
        else:
            np.testing.assert_array_equal(mine[1], other[1])
            assert mine[1].dtype == other[1].numpy().dtype
        assert mine[0].shape == other[0].shape and mine[0].dtype == other[0].numpy().dtype


# --- the rest of utils ---


@pytest.mark.parametrize(
    ("labels", "classes"),
    [([0, 2, 1], None), ([[1], [0]], 4), (np.arange(6).reshape(2, 3), 6), ([1.0, 0.0], 2), (1, 3)],
)
def test_to_categorical(keras, labels, classes):
    want = keras.utils.to_categorical(labels, classes)
    got = utils.to_categorical(labels, classes)
    np.testing.assert_array_equal(got, want)
    assert got.dtype == want.dtype and got.shape == want.shape


@pytest.mark.parametrize("order", [1, 2, np.inf])
def test_normalize(keras, order):
    x = np.random.default_rng(0).standard_normal((4, 5))
    x[2] = 0
    want = keras.utils.normalize(x, axis=-1, order=order)
    np.testing.assert_allclose(utils.normalize(x, axis=-1, order=order), want, rtol=1e-15)
