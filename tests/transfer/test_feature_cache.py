"""Training on F is training: a cached fit gives what an uncached one gives."""

import warnings

import numpy as np
import pytest

from minitl import Layer, Model, Sequential, callbacks, kernels
from minitl.layers import (
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    Input,
    MaxPooling2D,
    RandomFlip,
    RandomRotation,
)
from minitl.transfer import cut as cut_module
from minitl.transfer import feature_cache
from minitl.transfer.feature_file import FeatureFileError, describe
from minitl.utils import set_random_seed

RNG = np.random.default_rng(0)
X = RNG.standard_normal((23, 8, 8, 3)).astype(np.float32)
Y = np.eye(3)[RNG.integers(0, 3, 23)]


@pytest.fixture(autouse=True)
def nearly_free_reading(monkeypatch):
    """Small layers are worth keeping, too."""
    monkeypatch.setattr(cut_module, "NUMBER", 1)


@pytest.fixture
def images_computed(monkeypatch):
    """How many images went through the first convolution, call by call."""
    counts = []

    def counted(x, *args, original=kernels.conv2d):
        if x.shape[3] == 3:
            counts.append(len(x))
        return original(x, *args)

    monkeypatch.setattr(kernels, "conv2d", counted)
    return counts


def base(x):
    y = Conv2D(4, 3, padding="same", activation="relu", name="conv1")(x)
    y = MaxPooling2D(name="pool1")(BatchNormalization(name="normal1")(y))
    return Conv2D(6, 3, padding="same", activation="relu", name="conv2")(y)


def head(x):
    y = Dropout(0.3)(Dense(8, activation="relu")(Flatten()(x)))
    return Dense(3, activation="softmax", name="out")(y)


def flat():
    x = Input((8, 8, 3))
    model = Model(x, head(base(x)))
    for layer in model.layers[:5]:
        layer.trainable = False
    return model


def part_trained():
    model = flat()
    model.get_layer("conv2").trainable = True
    return model


def nested():
    x = Input((8, 8, 3))
    inner = Model(x, base(x), name="base")
    inner.trainable = False
    return Sequential(
        [Input((8, 8, 3)), inner, Flatten(), BatchNormalization(), Dense(3, "softmax")]
    )


def branches():
    x = Input((8, 8, 3))
    left = Conv2D(4, 3, trainable=False)(x)
    right = Conv2D(2, 5, trainable=False)(x)
    rows = [GlobalAveragePooling2D()(left), Flatten()(Conv2D(2, 3)(right)), Flatten()(x)]
    return Model(x, head(Concatenate()(rows)))


def between():
    x = Input((8, 8, 3))
    y = Conv2D(4, 3, trainable=False)(x)
    y = Conv2D(4, 3, trainable=False)(Conv2D(5, 3)(y))
    return Model(x, head(y))


def compiled(make, seed=1, **settings):
    set_random_seed(seed)
    model = make()
    weights = {"optimizer": "adam", "loss": "categorical_crossentropy", "metrics": ["accuracy"]}
    model.compile(**(weights | settings))
    return model


def train(make, x=X, y=Y, epochs=3, **settings):
    model = compiled(make)
    history = model.fit(x, y, epochs=epochs, batch_size=5, verbose=0, **settings)
    return model, history.history


def assert_same(one, other):
    (a, before), (b, after) = one, other
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_allclose(before[name], after[name], rtol=1e-5, err_msg=name)
    for v, w in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_allclose(v, w, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("make", [flat, part_trained, nested, branches, between])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"shuffle": False, "validation_split": 0.3},
        {"validation_data": (X[:7], Y[:7], RNG.random(7)), "validation_freq": 2},
        {"class_weight": {0: 2.0, 1: 0.5}, "sample_weight": RNG.random(23)},
    ],
    ids=["plain", "split", "validation", "weights"],
)
def test_as_without_a_cache(make, settings, images_computed):
    cached = train(make, **settings)
    once = sum(images_computed)
    assert cached[0].kept_features
    plain = train(make, cache_features=False, **settings)
    assert_same(cached, plain)
    assert sum(images_computed) - once > once  # it was worth it
    if "validation_data" not in settings and make is not branches:
        assert once == 23


def test_an_image_is_computed_once(images_computed):
    model, _ = train(flat, validation_data=(X[:7], Y[:7]))
    assert sum(images_computed) == 23  # the validation images are known from training
    model.evaluate(X, Y, verbose=0)
    model.predict(X[3:9], verbose=0)
    model.fit(X[::-1].copy(), Y[::-1], epochs=2, verbose=0)
    assert sum(images_computed) == 23
    model.evaluate(X[:4] + 1, Y[:4], verbose=0)
    assert sum(images_computed) == 27


def test_what_was_kept_is_right_after_changes(images_computed):
    model, _ = train(flat)
    fresh = compiled(flat)
    x = X.copy()
    model.fit(x, Y, verbose=0)
    x *= 2  # in place: the same array, other images
    model.get_layer("out").bias.assign(np.ones(3))

    def check():
        fresh.set_weights(model.get_weights())
        for found, expected in zip(
            model.evaluate(x, Y, verbose=0), fresh.evaluate(x, Y, verbose=0), strict=True
        ):
            assert found == pytest.approx(expected, rel=1e-5)

    check()
    model.get_layer("conv1").bias.assign(np.ones(4))
    check()
    history = model.fit(x, Y, verbose=0, epochs=1, validation_data=(x, Y)).history
    check()
    assert history["val_loss"][0] == pytest.approx(fresh.evaluate(x, Y, verbose=0)[0], rel=1e-5)
    model.get_layer("conv2").trainable = True
    model.fit(x, Y, epochs=2, verbose=0)
    check()


def test_what_was_kept_is_not_used_for_another_model(images_computed):
    model = compiled(nested)
    model.fit(X, Y, epochs=2, verbose=0)
    model.predict(X, verbose=0)
    assert sum(images_computed) == 23
    before = model.predict(X, verbose=0)
    pool = model.layers[0].get_layer("pool1")
    pool.padding = "same"  # does nothing here, but who knows
    np.testing.assert_allclose(model.predict(X, verbose=0), before, rtol=1e-5)
    assert sum(images_computed) == 2 * 23
    pool.padding = "valid"
    model.pop()
    model.add(Dense(2))
    assert model.predict(X, verbose=0).shape == (23, 2)


def test_what_is_kept_is_bounded(monkeypatch, images_computed):
    model = compiled(flat)
    monkeypatch.setattr(feature_cache, "MEMORY", 30 * 96 * 4)  # 30 rows
    for i in range(4):
        model.fit(X + np.float32(i), Y, verbose=0)
        assert [len(store) for store in model.kept_features] == [23]
    model.fit(X[:5] + np.float32(i), Y[:5], verbose=0)
    assert sum(images_computed) == 4 * 23


def test_unfrozen_in_the_middle(images_computed):
    def unfreeze(model):
        def at(epoch, logs=None):
            model.get_layer("conv2").trainable = epoch >= 1

        return at

    def in_an_epoch(model):
        def at(batch, logs=None):
            if model.optimizer.iterations == 7:
                model.get_layer("conv1").bias.assign(np.ones(4))

        return at

    for moment, make in (("on_epoch_begin", unfreeze), ("on_train_batch_end", in_an_epoch)):
        found = []
        for cache in (True, False):
            model = compiled(flat)
            callback = callbacks.LambdaCallback(**{moment: make(model)})
            history = model.fit(
                X, Y, epochs=4, batch_size=5, verbose=0, callbacks=callback, cache_features=cache
            )
            found.append((model, history.history))
        assert_same(*found)


def test_several_inputs_and_outputs():
    def make():
        a, b = Input((8, 8, 3), name="a"), Input((4,), name="b")
        y = GlobalAveragePooling2D()(Conv2D(5, 3, trainable=False)(a))
        z = Concatenate()([y, Dense(20, trainable=False)(b), b])
        return Model([a, b], [Dense(3, "softmax", name="p")(z), Dense(1, name="q")(z)])

    found = []
    x = {"a": X, "b": RNG.standard_normal((23, 4))}
    y = {"p": Y, "q": RNG.standard_normal((23, 1))}
    for cache in (True, False):
        model = compiled(make, loss={"p": "categorical_crossentropy", "q": "mse"}, metrics=None)
        history = model.fit(x, y, epochs=3, batch_size=5, verbose=0, cache_features=cache)
        found.append((model, history.history))
    assert found[0][0].kept_features
    assert_same(*found)


class Dataset:
    """Batches in a new order every epoch."""

    def __init__(self, noise=0.0):
        self.noise, self.rng = noise, np.random.default_rng(0)

    def __iter__(self):
        order = self.rng.permutation(23)
        for start in range(0, 23, 5):
            rows = order[start : start + 5]
            noise = self.noise * self.rng.standard_normal(1)
            yield (X[rows] + noise).astype(np.float32), Y[rows]


def test_a_data_set_in_a_new_order_every_epoch(images_computed):
    cached = train(flat, Dataset(), None, validation_data=(X[:7], Y[:7]))
    assert sum(images_computed) == 23
    assert_same(
        cached, train(flat, Dataset(), None, validation_data=(X[:7], Y[:7]), cache_features=False)
    )


@pytest.mark.parametrize("units", [30, 1024])  # by BLAS, and by tiles of our own
def test_rows_are_the_same_bits_whatever_is_computed_beside_them(units):
    set_random_seed(2)
    x = np.random.default_rng(2).standard_normal((60, 1100)).astype(np.float32)
    head = [Dense(2, activation="softmax")]
    model = Sequential([Input((1100,)), Dense(units, trainable=False), *head])
    found = cut_module.find_cut(model, True, [x.shape])
    together, apart = feature_cache.Store(found), feature_cache.Store(found)
    (rows,) = together.read(together.numbers([x]))
    for part in np.split(np.random.default_rng(3).permutation(60), [1, 3, 6, 11, 18, 26, 43]):
        np.testing.assert_array_equal(apart.read(apart.numbers([x[part]]))[0], rows[part])


def test_a_data_set_that_changes_its_images(capsys):
    def fit(**settings):
        model = compiled(flat)
        history = model.fit(Dataset(1.0), epochs=4, verbose=2, **settings)
        return model, history.history

    cached = fit()
    assert capsys.readouterr().out.count("yields other images in every epoch") == 1
    assert not cached[0].kept_features
    assert_same(cached, fit(cache_features=False))


def test_a_generator_that_is_walked_over_once():
    def batches():
        for _ in range(3):
            yield from Dataset()

    cached = train(flat, batches(), None, epochs=3, steps_per_epoch=5)
    plain = train(flat, batches(), None, epochs=3, steps_per_epoch=5, cache_features=False)
    assert_same(cached, plain)


def test_integer_images():
    x = RNG.integers(0, 256, X.shape, dtype=np.uint8)
    assert_same(train(flat, x), train(flat, x, cache_features=False))


def test_what_fit_and_summary_say(capsys):
    model = compiled(flat)
    model.fit(X, Y, epochs=2, verbose=2, validation_data=(X[:7] + 1, Y[:7]))
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Frozen: 350 of 1,153 parameters. ")
    assert " (96,) is computed once for each of 30 samples and kept in memory, 0.0 MB; " in first
    assert "an epoch saves 92." in first
    model.fit(X, Y, verbose=0)
    model.fit(X, Y, verbose=2, cache_features=False)
    assert "Frozen" not in capsys.readouterr().out
    model.summary()
    assert " Kept by fit: flatten" in capsys.readouterr().out


def test_more_than_fits_memory(monkeypatch, images_computed):
    plain = train(flat, cache_features=False, validation_split=0.3)
    images_computed.clear()
    monkeypatch.setattr(feature_cache, "MEMORY", 2000)  # bytes: five rows
    assert_same(train(flat, validation_split=0.3), plain)
    assert_same(train(flat, Dataset(), None), train(flat, Dataset(), None, cache_features=False))
    assert train(flat)[0].kept_features == []


def test_one_epoch_of_what_does_not_fit_is_not_written(monkeypatch, capsys):
    monkeypatch.setattr(feature_cache, "MEMORY", 2000)
    compiled(flat).fit(X, Y, verbose=2)
    assert "Frozen" not in capsys.readouterr().out


def test_a_cache_on_disk(tmp_path, images_computed):
    path = tmp_path / "F.h5"
    plain = train(flat, cache_features=False, validation_split=0.3)
    images_computed.clear()
    for _ in range(2):
        assert_same(train(flat, cache_features=path, validation_split=0.3), plain)
        assert sum(images_computed) == 23
    assert "23 rows" in describe(path)
    x = X.copy()
    x[[2, 20]] += 1
    assert_same(train(flat, x, cache_features=str(path)), train(flat, x, cache_features=False))
    assert sum(images_computed) == 23 + 2 + 3 * 23


def test_an_interrupted_fit_goes_on_where_it_was(tmp_path, images_computed, monkeypatch):
    path = tmp_path / "F.h5"
    monkeypatch.setattr(feature_cache, "CHUNK", 4)

    def interrupted(x, *args, original=kernels.conv2d):
        if x.shape[3] == 3 and sum(images_computed) >= 12:
            raise KeyboardInterrupt
        return original(x, *args)

    with monkeypatch.context() as patch:
        patch.setattr(kernels, "conv2d", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(flat, cache_features=path)
    assert sum(images_computed) == 12
    train(flat, cache_features=path)
    assert sum(images_computed) == 23


def test_a_cache_of_other_weights_is_made_anew_and_said_so(tmp_path):
    path = tmp_path / "F.h5"
    train(flat, cache_features=path)

    def other():
        model = flat()
        model.get_layer("conv1").bias.assign(np.ones(4))
        return model

    with pytest.warns(UserWarning, match="F.h5 holds features of something else .other weights."):
        cached = train(other, cache_features=path)
    assert_same(cached, train(other, cache_features=False))


def test_a_file_of_something_else_is_left_alone(tmp_path):
    from minitl import extract_features

    path = tmp_path / "F.h5"
    extract_features(flat(), X, "conv2", out=path, verbose=0)
    with pytest.raises(FeatureFileError, match="other kind"):
        train(flat, cache_features=path)
    path.write_bytes(b"my thesis")
    with pytest.raises(FeatureFileError, match="is not a feature file, or is damaged"):
        train(flat, cache_features=path)
    assert path.read_bytes() == b"my thesis"


# --- Augmentation ---------------------------------------------------------------------------------


class Shift(Layer):
    """Adds one number to an image: what an augmentation layer is to `fit`."""

    random = True

    def with_seeds(self, x, seeds):
        self.called.append((np.asarray(x).copy(), seeds))
        return x + (seeds % np.uint64(7)).astype(x.dtype)[:, None, None, None]

    def call(self, x, training=False, rng=None):
        if not training:
            return x
        seeds = rng.integers(0, 2**63, len(x.storage), dtype=np.uint64)
        return x + (seeds % np.uint64(7)).astype(x.dtype)[:, None, None, None]


def augmented():
    x = Input((8, 8, 3))
    shift = Shift(name="shift")
    object.__setattr__(shift, "called", [])
    model = Model(x, head(base(shift(x))))
    for layer in model.layers[:6]:
        layer.trainable = False
    return model


def test_random_layers_before_the_base(images_computed):
    with pytest.warns(UserWarning, match="'shift' stands before frozen layers and is random"):
        train(augmented)
    assert sum(images_computed) == 3 * 23


def test_as_many_views_as_asked_for(images_computed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, _ = train(augmented, augment_copies=2, epochs=5, validation_data=(X[:7] + 1, Y[:7]))
    assert sum(images_computed) == 2 * 23 + 7
    called = model.get_layer("shift").called
    x, seeds = (np.concatenate(parts) for parts in zip(*called, strict=True))
    np.testing.assert_array_equal(x, np.concatenate([X, X]))
    assert len(set(seeds.tolist())) == 46
    again, _ = train(augmented, augment_copies=2, epochs=5, validation_data=(X[:7] + 1, Y[:7]))
    np.testing.assert_array_equal(
        seeds, np.concatenate([s for _, s in again.get_layer("shift").called])
    )
    np.testing.assert_array_equal(model.get_weights()[-2], again.get_weights()[-2])


def test_epoch_e_trains_on_view_e_modulo_k():
    seen = []

    class Watch(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["loss"])

    model = compiled(lambda: augmented(), optimizer="sgd")
    model.optimizer.learning_rate = 0.0
    model.fit(X, Y, epochs=5, verbose=0, augment_copies=2, callbacks=Watch(), shuffle=False)
    # Dropout differs from epoch to epoch; without it, epochs of one view have one loss.
    next(layer for layer in model.layers if isinstance(layer, Dropout)).rate = 0.0
    seen.clear()
    model.fit(X, Y, epochs=5, verbose=0, augment_copies=2, callbacks=Watch(), shuffle=False)
    assert model.kept_features == []  # the next fit draws other views
    assert seen[0] == seen[2] == seen[4] != seen[1]
    assert seen[1] == seen[3]


def test_views_of_real_augmentation(images_computed):
    def make():
        x = Input((8, 8, 3))
        turned = Sequential([RandomFlip(), RandomRotation(0.1)], name="turned")
        inner = Model(x, base(x), name="base")
        inner.trainable = False
        return Model(x, head(inner(turned(x))))

    found = [train(make, augment_copies=3, epochs=4, validation_split=0.3) for _ in range(2)]
    assert sum(images_computed) == 2 * (3 * 16 + 7)
    assert_same(*found)


def test_validation_is_not_augmented():
    model = compiled(augmented)
    history = model.fit(
        X, Y, verbose=0, epochs=2, augment_copies=1, validation_data=(X[:7], Y[:7])
    ).history
    loss, accuracy = model.evaluate(X[:7], Y[:7], verbose=0)
    assert history["val_loss"][-1] == pytest.approx(loss, rel=1e-5)
    assert history["val_accuracy"][-1] == accuracy


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cache_features": 3}, "cache_features must be True or False or a string"),
        ({"augment_copies": 0}, "augment_copies must be a positive integer or None, got 0"),
        ({"x": Dataset(), "y": None, "augment_copies": 2}, "augment_copies needs arrays"),
    ],
)
def test_what_is_wrong(settings, message):
    with pytest.raises(ValueError, match=message):
        compiled(flat).fit(**({"x": X, "y": Y} | settings), verbose=0)
