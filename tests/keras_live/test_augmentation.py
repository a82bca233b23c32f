"""Augmentation beside Keras, with ranges of no width, so that nothing is left to chance."""

import numpy as np
import pytest

import minitl
from tests.keras_live.compare import assert_close, pick, repeatable, run_keras, run_minitl, seeds
from tests.tolerances import RESAMPLED, SAME_FORMULA_FLOAT32


def images(rng):
    n, h, w, c = (int(rng.integers(*ends)) for ends in ((1, 4), (2, 30), (2, 30), (1, 4)))
    return rng.uniform(0, 255, (n, h, w, c)).astype(np.float32)


def geometric(rng):
    """A layer's name and settings with everything fixed."""
    name = pick(rng, "RandomRotation", "RandomTranslation", "RandomZoom")
    factors = {"RandomRotation": ["factor"]}.get(name, ["height_factor", "width_factor"])
    settings = {}
    for factor in factors:
        value = float(rng.uniform(-0.9, 0.9))
        settings[factor] = (value, value)
    if name == "RandomZoom" and rng.random() < 0.3:
        settings["width_factor"] = None
    settings["fill_mode"] = pick(rng, "reflect", "constant", "nearest")
    settings["interpolation"] = pick(rng, "bilinear", "nearest")
    settings["fill_value"] = float(rng.uniform(0, 255))
    return name, settings


@seeds(60)
def test_geometry(keras, seed):
    rng = np.random.default_rng(seed)
    x, (name, settings) = images(rng), geometric(rng)
    with repeatable(seed, shape=x.shape, name=name, **settings):
        theirs = np.asarray(getattr(keras.layers, name)(**settings)(x, training=True))
        mine = getattr(minitl.layers, name)(**settings)(x, training=True).numpy()
        difference = abs(mine - theirs)
        if settings["interpolation"] == "nearest":
            # A place within rounding of the middle between two pixels may fall to either.
            assert (difference > 0).mean() < 0.02
        elif settings["fill_mode"] == "constant":
            # ... and a place within rounding of the border, inside or outside.
            assert (difference > RESAMPLED).mean() < 0.02
        else:
            assert difference.max() <= RESAMPLED


@seeds(10)
def test_wrap(keras, seed):
    """Away from the seam; there Keras on TensorFlow shows one of the two pixels, not their mean,
    and its period is a pixel short."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 255, (2, 12, 15, 3)).astype(np.float32)
    down, right = (float(v) for v in rng.uniform(-0.9, 0.9, 2))
    settings = {"height_factor": (down, down), "width_factor": (right, right), "fill_mode": "wrap"}
    theirs = np.asarray(keras.layers.RandomTranslation(**settings)(x, training=True))
    mine = minitl.layers.RandomTranslation(**settings)(x, training=True).numpy()
    wrong = (abs(mine - theirs) > RESAMPLED).any(axis=(0, 3))
    seam = (wrong.all(axis=1).sum() <= 1, wrong.all(axis=0).sum() <= 1)
    rest = wrong[~wrong.all(axis=1)][:, ~wrong.all(axis=0)]
    assert all(seam) and not rest.any()


@pytest.mark.parametrize("name", ["RandomBrightness", "RandomContrast"])
@seeds(15)
def test_tones(keras, name, seed):
    rng = np.random.default_rng(seed)
    x, value = images(rng), float(rng.uniform(-0.9, 0.9))
    low, high = pick(rng, (0, 255), (0, 1), (-123.68, 151.061))
    x = (x / 255 * (high - low) + low).astype(np.float32)
    factor = (value, value) if name == "RandomBrightness" else (-abs(value), abs(value))
    settings = {"factor": factor, "value_range": (low, high)}
    with repeatable(seed, shape=x.shape, **settings):
        g = rng.standard_normal(x.shape).astype(np.float32)
        theirs = run_keras(getattr(keras.layers, name)(**settings), [x], [], g, training=True)
        mine = run_minitl(getattr(minitl.layers, name)(**settings), [x], [], g, training=True)
        assert_close(mine.y, theirs.y, SAME_FORMULA_FLOAT32)
        # Where a value comes to lie on the limit to rounding, it may be clipped in one of them.
        limits = (abs(theirs.y - low) < 1e-3) | (abs(theirs.y - high) < 1e-3)
        if not limits.any():
            assert_close(mine.inputs[0], theirs.inputs[0], SAME_FORMULA_FLOAT32)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("RandomFlip", {"mode": "vertical", "seed": 3}),
        ("RandomRotation", {"factor": 0.1, "fill_mode": "wrap", "fill_value": 3.0}),
        ("RandomTranslation", {"height_factor": 0.1, "width_factor": (-0.2, 0.3)}),
        ("RandomZoom", {"height_factor": 0.1, "interpolation": "nearest"}),
        ("RandomCrop", {"height": 4, "width": 5}),
        ("RandomBrightness", {"factor": 0.1, "value_range": (0, 1)}),
        ("RandomContrast", {"factor": (0.3, 0.4)}),
        ("GaussianNoise", {"stddev": 0.5}),
    ],
)
def test_configurations_go_both_ways(keras, name, settings):
    theirs = getattr(keras.layers, name)(**settings)
    mine = getattr(minitl.layers, name).from_config(theirs.get_config())
    assert plain(mine) == plain(theirs)
    again = getattr(keras.layers, name).from_config(mine.get_config())
    assert plain(again) == plain(theirs)


def plain(layer):
    """The configuration without types, and pairs as lists."""
    settings = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in layer.get_config().items()
        if key not in ("dtype", "data_format", "fill_value")
    }
    return settings | {"fill": float(getattr(layer, "fill_value", 0))}


def test_a_model_of_keras_with_augmentation_is_read(keras, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomRotation(0.1),
            keras.layers.RandomContrast(0.2),
            keras.layers.GaussianNoise(0.1),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    model.save(tmp_path / "model.h5")
    mine = minitl.models.load_model(tmp_path / "model.h5")
    x = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype(np.float32)
    assert_close(mine.predict(x, verbose=0), model.predict(x, verbose=0), 1e-5)
    mine.save(tmp_path / "back.h5")
    back = keras.models.load_model(tmp_path / "back.h5")
    assert_close(back.predict(x, verbose=0), model.predict(x, verbose=0), 1e-5)


def test_the_same_calls_augment(keras):
    """Called directly and as model(x): yes. In predict and with training=False: no."""
    x = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 3)).astype(np.float32)
    found = []
    for k in (keras, minitl):
        layer = k.layers.RandomRotation((0.1, 0.1))
        model = k.Sequential([k.Input((8, 8, 3)), layer])
        found.append(
            [
                np.array_equal(np.asarray(y), x)
                for y in (
                    layer(x) if k is keras else layer(x).numpy(),
                    model(x) if k is keras else model(x).numpy(),
                    layer(x, training=False) if k is keras else layer(x, training=False).numpy(),
                    model.predict(x, verbose=0),
                )
            ]
        )
    assert found[0] == found[1] == [False, False, True, True]
