"""`augment`: views of arrays, composed into one resampling where that is the same."""

import numpy as np
import pytest
from scipy import ndimage

from minitl import layers
from minitl.data import augment, augmentation_layers
from minitl.layers.regularization import view_seeds

X = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
STACK = [
    layers.RandomFlip(),
    layers.RandomRotation(0.2),
    layers.RandomZoom(0.2),
    layers.RandomTurn(),
    layers.RandomCrop(6, 6),
    layers.RandomBrightness(0.2),
    layers.GaussianNoise(5),
]


def test_a_view_of_an_image_is_the_same_in_any_company():
    whole = augment(X, STACK, seed=3, view=2)
    assert whole.shape == (40, 6, 6, 3) and whole.dtype == np.uint8
    np.testing.assert_array_equal(augment(X[35:], STACK, seed=3, view=2, first=35), whole[35:])
    np.testing.assert_array_equal(augment(X[7:8], STACK, seed=3, view=2, first=7), whole[7:8])
    for other in ({"seed": 4}, {"view": 1}, {"first": 1}):
        assert not np.array_equal(augment(X, STACK, **({"seed": 3, "view": 2} | other)), whole)


def test_seeds_differ_by_each_of_their_four_numbers():
    seeds = [
        view_seeds(seed, view, np.arange(50), place)
        for seed in range(3)
        for view in range(3)
        for place in range(3)
    ]
    assert len(np.unique(seeds)) == 27 * 50
    np.testing.assert_array_equal(view_seeds(1, 2, [7], 3), view_seeds(1, 2, np.arange(9), 3)[7:8])


def test_the_dtype_stays():
    for dtype in (np.uint8, np.int16, np.float32, np.float64):
        y = augment(X.astype(dtype), STACK)
        assert y.dtype == dtype
        wide = augment(X.astype(np.float64), STACK)
        wide = wide.clip(0, 255) if dtype == np.uint8 else wide
        np.testing.assert_allclose(y, wide, atol=0.51)
    assert augment(X, layers.GaussianNoise(300)).max() == 255  # held, not wrapped around
    gray = augment(X[..., 0], STACK)
    np.testing.assert_array_equal(gray, augment(X[..., :1], STACK)[..., 0])
    assert augment(X[:0], STACK).shape == (0, 6, 6, 3)


def test_what_is_given_stays_as_it_is():
    before = X.copy()
    augment(X, STACK)
    np.testing.assert_array_equal(X, before)


def test_composed_is_one_resampling_by_the_product_of_the_maps():
    stack = [
        layers.RandomFlip("horizontal", dtype="float64"),
        layers.RandomRotation(0.1, "wrap", dtype="float64"),
        layers.RandomTranslation(0.2, 0.1, "wrap", dtype="float64"),
        layers.RandomCrop(5, 6, dtype="float64"),
    ]
    x = X[:3].astype(np.float64)
    y = augment(x, stack, seed=1)
    size = [(8, 8), (8, 8), (8, 8), (8, 8)]
    maps = [
        layer.matrices(view_seeds(1, 0, np.arange(3), place), size[place])
        for place, layer in enumerate(stack)
    ]
    for n in range(3):
        m = maps[0][n] @ maps[1][n] @ maps[2][n] @ maps[3][n]
        for c in range(3):
            expected = ndimage.affine_transform(
                x[n, ..., c], m[:2, :2], m[:2, 2], (5, 6), order=1, mode="grid-wrap"
            )
            np.testing.assert_allclose(y[n, ..., c], expected, atol=1e-10)


def test_whole_pixels_move_the_same_composed_or_not():
    stack = [layers.RandomFlip(), layers.RandomTurn(), layers.RandomFlip(), layers.RandomCrop(5, 4)]
    np.testing.assert_array_equal(augment(X, stack), augment(X, stack, compose=False))


def test_smooth_images_hardly_differ_composed_or_not():
    rows, columns = np.mgrid[:64, :64] / 20
    x = (np.sin(rows) * np.cos(columns) * 100 + 128)[np.newaxis, ..., np.newaxis].repeat(20, 0)
    stack = [
        layers.RandomFlip(),
        layers.RandomRotation(0.1),
        layers.RandomZoom(0.1),
        layers.RandomTranslation(0.05, 0.05),
    ]
    one, each = augment(x, stack), augment(x, stack, compose=False)
    inside = np.s_[:, 20:44, 20:44]  # towards the border, what lies beyond is reflected otherwise
    assert abs(one - each)[inside].max() < 0.5 and abs(one - x)[inside].max() > 20


def test_layers_that_see_other_borders_are_not_composed():
    stack = [
        layers.RandomTranslation((0.5, 0.5), 0.0, "constant", fill_value=7.0),
        layers.RandomTranslation((0.5, 0.5), 0.0, "reflect"),
        layers.RandomCrop(8, 4),
        layers.RandomTranslation((0.5, 0.5), 0.0, "reflect"),
        layers.RandomCrop(16, 16),
    ]
    x = X[:4].astype(np.float32)
    np.testing.assert_array_equal(augment(x, stack), augment(x, stack, compose=False))


def test_uncomposed_is_what_the_layers_give_in_a_row():
    x = X.astype(np.float32)
    y = augment(x, STACK, seed=9, view=4, compose=False)
    for place, layer in enumerate(STACK):
        x = layer.with_seeds(x, view_seeds(9, 4, np.arange(40), place))
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize(
    ("images", "stack", "error", "message"),
    [
        (X[0, 0], STACK, ValueError, "takes images \\(N, H, W, C\\) or .*, got uint8 \\(8, 3\\)"),
        (X, [layers.Dense(3)], TypeError, "augmentation layers, such as RandomFlip"),
        (X, ["flip"], TypeError, "got 'flip'"),
        (np.array([["a"]]), STACK, ValueError, "takes images"),
    ],
)
def test_errors(images, stack, error, message):
    with pytest.raises(error, match=message):
        augment(images, stack)


def test_numbers_are_not_negative():
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, got -1"):
        augment(X, STACK, seed=-1)
    with pytest.raises(ValueError, match=r"view must be an integer of at least 0, got 0\.5"):
        augment(X, STACK, view=0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotate": 400}, "rotate must be from 0 to 360 degrees, got 400"),
        ({"zoom": -0.1}, "zoom must be from 0 to 1, got -0.1"),
        ({"noise": -1}, "noise must be at least 0, got -1"),
        ({"shift": float("nan")}, "shift must be a finite number, got nan"),
        ({"flip": "up"}, "mode must be one of 'horizontal', 'vertical'"),
    ],
)
def test_words_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        augmentation_layers(**settings)


def test_layers_from_the_words_of_the_command_line():
    made = augmentation_layers(
        flip="both", turn=True, rotate=9, shift=0.1, zoom=0.2, crop=(5, 6), brightness=0.3,
        contrast=0.4, noise=2, fill_mode="constant", fill_value=4, value_range=(0, 1),
    )  # fmt: skip
    assert [type(layer).__name__ for layer in made] == [
        "RandomFlip", "RandomTurn", "RandomRotation", "RandomZoom", "RandomTranslation",
        "RandomCrop", "RandomBrightness", "RandomContrast", "GaussianNoise",
    ]  # fmt: skip
    flip, _, rotation, zoom, shift, crop, brightness, contrast, noise = made
    assert flip.mode == "horizontal_and_vertical" and rotation.factor == (-0.025, 0.025)
    assert {layer.fill_value for layer in (rotation, zoom, shift)} == {4}
    assert (crop.height, crop.width) == (5, 6) and noise.stddev == 2
    assert brightness.value_range == contrast.value_range == (0, 1)
    assert augmentation_layers() == []
