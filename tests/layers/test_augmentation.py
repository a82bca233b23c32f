"""What the augmentation layers show, and how they draw. (Gradients: `test_gradients.py`; the
resampling itself: `kernels/test_augmentation.py`.)"""

import warnings

import numpy as np
import pytest
from scipy import ndimage

import minitl
from minitl import layers

X = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3)).astype(np.float32)
SEEDS = np.arange(400, dtype=np.uint64)
EVERY = {
    "flip": lambda: layers.RandomFlip(),
    "turn": lambda: layers.RandomTurn(),
    "rotation": lambda: layers.RandomRotation(0.3),
    "translation": lambda: layers.RandomTranslation(0.3, 0.2),
    "zoom": lambda: layers.RandomZoom(0.4, 0.2),
    "crop": lambda: layers.RandomCrop(5, 6),
    "brightness": lambda: layers.RandomBrightness(0.3),
    "contrast": lambda: layers.RandomContrast(0.5),
    "noise": lambda: layers.GaussianNoise(9.0),
}
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


def many(image, layer):
    """400 views of one image (H, W, C)."""
    return layer.with_seeds(np.repeat(image[np.newaxis], len(SEEDS), 0), SEEDS)


def kinds(views):
    """The different views, and how often each came."""
    found, counts = np.unique(views.reshape(len(views), -1), axis=0, return_counts=True)
    return found.reshape(-1, *views.shape[1:]), counts


# --- Drawing -------------------------------------------------------------------------------------


@every
def test_a_view_depends_on_its_sample_and_seed_alone(make):
    layer = make()
    whole = layer.with_seeds(X, SEEDS[:6])
    for i in (0, 3, 5):
        np.testing.assert_array_equal(layer.with_seeds(X[i : i + 1], SEEDS[i : i + 1])[0], whole[i])
    order = np.array([4, 1, 1, 0])
    np.testing.assert_array_equal(make().with_seeds(X[order], SEEDS[order]), whole[order])
    assert not np.array_equal(layer.with_seeds(X, SEEDS[6:12]), whole)


@every
def test_in_training_it_augments_from_the_generator_that_it_is_given(make):
    layer = make()
    y = layer(X, training=True, rng=np.random.default_rng(3)).numpy()
    again = make()(X, training=True, rng=np.random.default_rng(3)).numpy()
    np.testing.assert_array_equal(y, again)
    seeds = np.random.default_rng(3).integers(2**64, size=6, dtype=np.uint64)
    np.testing.assert_array_equal(y, layer.with_seeds(X, seeds))
    assert layer.random


@every
def test_outside_training_it_is_the_identity(make):
    layer = make()
    y = layer(X, training=False).numpy()
    if isinstance(layer, layers.RandomCrop):
        assert y.shape == (6, 5, 6, 3)
    else:
        np.testing.assert_array_equal(y, X)
    model = minitl.Sequential([layers.Input((8, 8, 3)), layer])
    np.testing.assert_array_equal(model.predict(X, verbose=0), y)


def test_called_directly_it_augments_as_keras_does():
    turned = layers.RandomTurn(turns=1)
    np.testing.assert_array_equal(turned(X).numpy(), np.rot90(X, axes=(1, 2)))
    model = minitl.Sequential([layers.Input((8, 8, 3)), turned])
    np.testing.assert_array_equal(model(X).numpy(), np.rot90(X, axes=(1, 2)))
    np.testing.assert_array_equal(model(X, training=False).numpy(), X)
    np.testing.assert_array_equal(layers.GaussianNoise(1.0)(X).numpy(), X)  # as in Keras
    np.testing.assert_array_equal(layers.Dropout(0.5)(X).numpy(), X)


def test_the_seed_of_a_layer_is_for_calls_without_a_generator():
    a, b = layers.RandomRotation(0.3, seed=5), layers.RandomRotation(0.3, seed=5)
    first, second = a(X).numpy(), a(X).numpy()
    np.testing.assert_array_equal(b(X).numpy(), first)
    assert not np.array_equal(first, second)
    minitl.utils.set_random_seed(1)
    one = layers.RandomRotation(0.3)(X).numpy()
    minitl.utils.set_random_seed(1)
    np.testing.assert_array_equal(layers.RandomRotation(0.3)(X).numpy(), one)


def test_seeds_must_be_one_integer_a_sample():
    with pytest.raises(ValueError, match="one integer a sample: 6 samples, seeds uint64 \\(5,\\)"):
        layers.RandomFlip().with_seeds(X, SEEDS[:5])
    with pytest.raises(ValueError, match="seeds float64"):
        layers.RandomFlip().with_seeds(X, np.zeros(6))


def test_training_with_augmentation_is_repeatable():
    def train(seed):
        minitl.utils.set_random_seed(seed)
        model = minitl.Sequential(
            [
                layers.Input((8, 8, 3)),
                layers.RandomFlip("horizontal"),
                layers.RandomRotation(0.1),
                layers.GaussianNoise(3),
                layers.Flatten(),
                layers.Dense(2, activation="softmax"),
            ]
        )
        model.compile(minitl.optimizers.SGD(1e-4), "sparse_categorical_crossentropy")
        model.fit(X, np.arange(6) % 2, epochs=3, batch_size=4, verbose=0)
        return model.layers[-1].get_weights()[0]

    np.testing.assert_array_equal(train(0), train(0))
    assert not np.array_equal(train(0), train(1))


def test_a_model_with_augmentation_is_saved_and_loaded(tmp_path):
    model = minitl.Sequential([layers.Input((8, 8, 3)), *(make() for make in EVERY.values())])
    model.add(layers.RandomRotation((-0.1, 0.2), "constant", fill_value=(1, 2, 3)))
    model.add(layers.RandomBrightness(0.1, value_range=([0, 0, 0], [255, 255, 250])))
    model.save(tmp_path / "model.h5")
    again = minitl.models.load_model(tmp_path / "model.h5")
    settings = [layer.get_config() for layer in model.layers]
    assert [layer.get_config() for layer in again.layers] == settings
    both = [m(X, training=True, rng=np.random.default_rng(0)).numpy() for m in (model, again)]
    np.testing.assert_array_equal(*both)


# --- Geometry ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "axes"),
    [
        ("horizontal", [(), (1,)]),
        ("vertical", [(), (0,)]),
        ("horizontal_and_vertical", [(), (0,), (1,), (0, 1)]),
    ],
)
def test_flip(mode, axes):
    image = X[0, :, :5]
    found, counts = kinds(many(image, layers.RandomFlip(mode)))
    expected, _ = kinds(np.stack([np.flip(image, each) for each in axes]))
    np.testing.assert_array_equal(found, expected)
    share = 1 / len(axes)
    assert (abs(counts - 400 * share) < 5 * np.sqrt(400 * share * (1 - share))).all()


@pytest.mark.parametrize("turns", [(0, 1, 2, 3), (0, 2), (3,), 1])
def test_turn(turns):
    found, counts = kinds(many(X[0], layers.RandomTurn(turns)))
    expected, _ = kinds(np.stack([np.rot90(X[0], k) for k in np.atleast_1d(turns)]))
    np.testing.assert_array_equal(found, expected)
    share = 1 / len(found)
    assert (abs(counts - 400 * share) <= 5 * np.sqrt(400 * share * (1 - share))).all()


def test_quarter_turns_need_square_images():
    message = "images must be square, got 8 x 5 pixels; turns=\\(0, 2\\) suits any"
    with pytest.raises(ValueError, match=message):
        layers.RandomTurn()(X[:, :, :5])
    with pytest.raises(ValueError, match=message):
        layers.RandomTurn()(layers.Input((8, 5, 3)))
    layer = layers.RandomTurn()
    layer(layers.Input((None, None, 3)))
    with pytest.raises(ValueError, match=message):
        layer(X[:, :, :5], training=True)
    half = layers.RandomTurn((2,))(X[:, :, :5]).numpy()
    np.testing.assert_array_equal(half, np.rot90(X[:, :, :5], 2, axes=(1, 2)))


def linear(image):
    """What the layers see of the map (row, column) -> value, of which they know the result."""
    rows, columns = np.mgrid[: image[0], : image[1]].astype(np.float64)
    return np.stack([rows, columns], -1)


def places(layer, size=(40, 50)):
    """Where each output pixel of 400 views looks, by an image whose values are its places."""
    image = linear(size)
    layer = type(layer).from_config(layer.get_config() | {"dtype": "float64"})
    return many(image, layer)


MIDDLE = np.array([39 / 2, 49 / 2])


def test_rotation_turns_counter_clockwise_about_the_centre():
    at = places(layers.RandomRotation((0.05, 0.15)))[:, 20, 25]  # near the centre: inside
    step = np.array([20.0, 25.0]) - MIDDLE
    found = at - MIDDLE
    np.testing.assert_allclose(np.hypot(*found.T), np.hypot(*step))
    turned = np.arctan2(-step[0], step[1]) - np.arctan2(-found[:, 0], found[:, 1])
    turned = turned / (2 * np.pi) % 1
    assert turned.min() >= 0.05 and turned.max() <= 0.15
    assert turned.min() < 0.051 and turned.max() > 0.149
    # A mark above the centre goes to the left.
    image = np.zeros((9, 9, 1))
    image[0, 4] = 1
    y = layers.RandomRotation((0.25, 0.25), dtype="float64").with_seeds(
        image[np.newaxis], SEEDS[:1]
    )
    np.testing.assert_array_equal(y[0], np.rot90(image))


def test_shift_goes_down_and_right():
    at = places(layers.RandomTranslation((0.1, 0.2), (-0.3, -0.2)))[:, 20, 25]
    down, right = 20 - at[:, 0], 25 - at[:, 1]
    assert 4 <= down.min() < 4.1 and 7.9 < down.max() <= 8
    assert -15 <= right.min() < -14.9 and -10.1 < right.max() <= -10
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.2  # 400 independent pairs: four deviations


def test_zoom_keeps_the_proportions_unless_told():
    at = places(layers.RandomZoom((-0.5, -0.2)))
    span = at[:, 21, 26] - at[:, 20, 25]
    np.testing.assert_allclose(span[:, 0], span[:, 1])
    assert 0.5 <= span.min() < 0.51 and 0.79 < span.max() <= 0.8
    np.testing.assert_allclose((at[:, 19, 24] + at[:, 20, 25]) / 2, np.tile(MIDDLE, (400, 1)))
    at = places(layers.RandomZoom((0.1, 0.2), (-0.2, -0.1)))
    span = at[:, 21, 26] - at[:, 20, 25]
    assert span[:, 0].min() >= 1.1 and span[:, 0].max() <= 1.2
    assert span[:, 1].min() >= 0.8 and span[:, 1].max() <= 0.9


def test_crops_come_from_everywhere():
    views = many(X[0], layers.RandomCrop(7, 8))
    found, counts = kinds(views)
    expected, _ = kinds(np.stack([X[0, :7], X[0, 1:]]))
    np.testing.assert_array_equal(found, expected)
    assert abs(counts - 200).max() < 50
    assert len(kinds(many(X[0], layers.RandomCrop(6, 6)))[0]) == 9
    np.testing.assert_array_equal(many(X[0], layers.RandomCrop(8, 8))[0], X[0])


def test_a_crop_outside_training_is_the_centre_scaled():
    x = X[:, :, :6].astype(np.float64)
    y = layers.RandomCrop(4, 4, dtype="float64")(x, training=False).numpy()
    middle = x[:, 1:7]  # 6 x 6, the largest square, seen at 4 x 4
    expected = minitl.data.resize_images(middle, (4, 4), "bilinear")
    np.testing.assert_allclose(y, expected)
    small = layers.RandomCrop(16, 8, dtype="float64")(x, training=True).numpy()
    np.testing.assert_allclose(small, minitl.data.resize_images(x[:, :, 1:5], (16, 8), "bilinear"))


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("mode", ["reflect", "wrap", "constant", "nearest"])
def test_a_rotated_image_is_scipys(mode, interpolation):
    x = X[:1].astype(np.float64)
    layer = layers.RandomRotation(
        (0.07, 0.07), mode, interpolation, fill_value=[1, 2, 3], dtype="float64"
    )
    y = layer.with_seeds(x, SEEDS[:1])[0]
    angle = 2 * np.pi * 0.07
    m = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = np.full(2, 3.5)
    names = {"wrap": "grid-wrap", "constant": "grid-constant"}
    for c in range(3):
        expected = ndimage.affine_transform(
            x[0, ..., c],
            m,
            centre - m @ centre,
            order=int(interpolation == "bilinear"),
            mode=names.get(mode, mode),
            cval=c + 1,
        )
        np.testing.assert_allclose(y[..., c], expected, atol=1e-11)


# --- Tones ---------------------------------------------------------------------------------------


def test_brightness_adds_a_part_of_the_range_and_clips():
    gray = np.full((1, 1, 1), 100, np.float32)
    y = many(gray, layers.RandomBrightness(0.2)).ravel()
    assert 49 <= y.min() < 50 and 150 < y.max() <= 151
    assert (many(gray, layers.RandomBrightness((1, 1))) == 255).all()
    assert (many(gray, layers.RandomBrightness((-1, -1))) == 0).all()
    y = many(gray, layers.RandomBrightness((0.1, 0.1), value_range=(100, 200)))
    np.testing.assert_allclose(y, 110)


def test_contrast_spreads_around_the_mean_of_each_channel():
    image = np.array([[[90, 10]], [[110, 30]]], np.float32)  # means 100 and 20
    y = many(image, layers.RandomContrast((0.5, 0.2)))
    spread = y[:, 1] - y[:, 0]
    np.testing.assert_allclose(spread[..., 0], spread[..., 1], rtol=1e-5)
    assert 10 <= spread.min() < 10.1 and 23.9 < spread.max() <= 24
    np.testing.assert_allclose(y.mean(axis=(1, 2)), np.tile([100, 20], (400, 1)), rtol=1e-6)
    y = many(image, layers.RandomContrast(0.5))[:, 1, 0, 0] - 100
    assert 5 <= y.min() < 5.1 and 14.9 < y.max() <= 15
    extreme = layers.RandomContrast((-1, 1), value_range=(5, 100)).with_seeds(
        image[None], SEEDS[:1]
    )
    np.testing.assert_allclose(extreme[0, :, 0], [[80, 5], [100, 40]])


LOW, HIGH = (-103.939, -116.779, -123.68), (151.061, 138.221, 131.32)


def test_preprocessed_images_have_a_range_of_each_channel():
    """Augmented before preprocessing or after it: the same."""
    preprocess = minitl.applications.vgg16.preprocess_input
    for cls, factor in ((layers.RandomBrightness, 0.4), (layers.RandomContrast, 0.7)):
        before = preprocess(cls(factor).with_seeds(X, SEEDS[:6]))
        after = cls(factor, value_range=(LOW, HIGH)).with_seeds(preprocess(X), SEEDS[:6])
        np.testing.assert_allclose(after, before, atol=1e-4)
        assert after.min() < -100  # nothing was clipped at 0


@pytest.mark.parametrize(
    ("images", "found"),
    [(X - 120, "-120 to 134"), (X / 255, "3.4e-05 to 0.9992"), (X * 2, "0.01736 to 509.6")],
    ids=["centred", "scaled", "too large"],
)
def test_a_wrong_value_range_is_said_once(images, found):
    layer = layers.RandomBrightness(0.1)
    with pytest.warns(UserWarning, match="from 0 to 255, but its images have") as caught:
        layer.with_seeds(images, SEEDS[:6])
        layer.with_seeds(images, SEEDS[:6])
    assert len(caught) == 1
    assert "value_range, or augment before preprocessing" in str(caught[0].message)
    lowest, highest = (f"{n:.4g}" for n in (images.min(), images.max()))
    assert f"have {lowest} to {highest}" in str(caught[0].message)


def test_noise_on_pixels_raises_no_alarm():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        noisy = layers.GaussianNoise(10).with_seeds(X, SEEDS[:6])
        layers.RandomBrightness(0.1).with_seeds(noisy, SEEDS[:6])
        layers.RandomContrast(0.1, (0, 1)).with_seeds(X / 255, SEEDS[:6])


def test_noise_of_any_rank():
    rows = np.zeros((400, 1000), np.float32)
    y = layers.GaussianNoise(2.0).with_seeds(rows, SEEDS)
    assert abs(y.std() - 2) < 5 * 2 / np.sqrt(2 * y.size)
    assert layers.GaussianNoise(0).with_seeds(rows, SEEDS).any() == 0


# --- Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.RandomFlip("both"), "mode must be one of 'horizontal'.* got 'both'"),
        (lambda: layers.RandomRotation(1.5), "factor is a number f from -1 to 1.* got 1.5"),
        (lambda: layers.RandomRotation("x"), "got 'x'"),
        (
            lambda: layers.RandomZoom((0.1, 0.2, 0.3)),
            "height_factor must be a finite number or 2 values",
        ),
        (lambda: layers.RandomTranslation(0.1, np.nan), "width_factor .* got nan"),
        (lambda: layers.RandomRotation(0.1, "mirror"), "fill_mode is one of 'reflect'.* 'mirror'"),
        (lambda: layers.RandomZoom(0.1, interpolation="cubic"), "interpolation is one of"),
        (
            lambda: layers.RandomZoom(0.1, fill_value="black"),
            "fill_value must be a finite number or a list",
        ),
        (lambda: layers.RandomZoom(0.1, fill_value=[1, 2])(X), "2 fill values .* 3 channels"),
        (lambda: layers.RandomTurn(5), "0, 1, 2, 3 quarters of a circle; got 5"),
        (lambda: layers.RandomTurn(()), "got \\(\\)"),
        (lambda: layers.RandomCrop(0, 5), "height must be a positive integer, got 0"),
        (lambda: layers.RandomBrightness(0.1, 255), "value_range is .* got 255"),
        (lambda: layers.RandomBrightness(0.1, (255, 0)), "value_range"),
        (lambda: layers.RandomBrightness(0.1, ([0, 0], [1, 1]))(X), "images of 3 channels"),
        (lambda: layers.RandomContrast(1.5), "factor is a number from 0 to 1.* got 1.5"),
        (lambda: layers.RandomContrast((0.1, -0.2)), "got \\(0.1, -0.2\\)"),
        (lambda: layers.GaussianNoise(-1), "stddev must be a finite number of at least 0, got -1"),
        (lambda: layers.RandomFlip(data_format="channels_first"), "(N, H, W, C)"),
        (lambda: layers.RandomFlip()(X[0, 0]), "takes an input of 4 axes \\(N, H, W, C\\)"),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_misspelt_argument_is_named():
    with pytest.raises(TypeError, match="Did you mean 'fill_mode'"):
        layers.RandomRotation(0.1, fillmode="wrap")


@pytest.mark.parametrize("training", [True, False])
def test_one_image_is_a_batch_of_one(training):
    made = [lambda: layers.RandomCrop(2, 3, seed=1), lambda: layers.RandomBrightness(0.5, seed=1)]
    for make in made:
        alone, batch = (make()(x, training=training) for x in (X[0], X[:1]))
        assert np.array_equal(alone, batch[0])
