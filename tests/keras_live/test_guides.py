"""Small scripts as guides print them, with Keras and with minitl: the imports alone differ."""

import importlib
import tempfile

import numpy as np
import pytest

import minitl
from tests.keras_live.compare import assert_close
from tests.tolerances import SAME_FORMULA_FLOAT32

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(0, 255, (8, 12, 12, 3)).astype(np.float32)
ROWS = RNG.standard_normal((12, 4)).astype(np.float32)
LABELS = np.arange(12) % 3


def weighted(model):
    """The model with weights that both can have."""
    rng = np.random.default_rng(1)
    model.set_weights([rng.standard_normal(w.shape) / 3 for w in model.get_weights()])
    return model


def scaling_within_the_model(k):
    x = k.Input((12, 12, 3))
    y = k.layers.Conv2D(4, 3, activation="relu")(x / 127.5 - 1)
    y = k.layers.GlobalAveragePooling2D()(y)
    return weighted(k.Model(x, k.layers.Dense(2)(y))).predict(IMAGES, verbose=0)


def preprocessing_layers(k):
    model = k.Sequential([
        k.Input((12, 12, 3)),
        k.layers.Resizing(8, 8),
        k.layers.CenterCrop(6, 6),
        k.layers.Rescaling(1 / 127.5, offset=-1),
        k.layers.SeparableConv2D(5, 3, activation="relu"),
        k.layers.DepthwiseConv2D(3, padding="same"),
        k.layers.Flatten(),
        k.layers.Dense(2),
    ])  # fmt: skip
    return weighted(model).predict(IMAGES, verbose=0)


def adapted(k):
    layer = k.layers.Normalization()
    layer.adapt(ROWS)
    return np.asarray(layer(ROWS))


def a_residual(k):
    x = k.Input((4,))
    y = k.layers.Dense(4, activation="relu")(x)
    z = k.ops.concatenate([x + y, x[:, :2] * 2], axis=-1)
    return weighted(k.Model(x, k.layers.Dense(1)(z))).predict(ROWS, verbose=0)


def a_lambda(k):
    x = k.Input((4,))
    y = k.layers.Lambda(lambda t: t * 2 + 1)(x)
    return weighted(k.Model(x, k.layers.Dense(1)(y))).predict(ROWS, verbose=0)


def words(k):
    model = k.Sequential([
        k.Input((5,)),
        k.layers.Embedding(10, 3),
        k.layers.Conv1D(4, 2, activation="relu"),
        k.layers.GlobalAveragePooling1D(),
        k.layers.Dense(2),
    ])  # fmt: skip
    return weighted(model).predict(np.arange(15).reshape(3, 5) % 10, verbose=0)


def trained(k, data, loss="sparse_categorical_crossentropy", **settings):
    model = weighted(k.Sequential([k.Input((4,)), k.layers.Dense(3, activation="softmax")]))
    model.compile("sgd", loss)
    history = model.fit(data, epochs=2, verbose=0, **settings)
    return np.concatenate([model.get_weights()[0].ravel(), history.history["loss"]])


def a_sequence(k):
    class Batches(k.utils.PyDataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return ROWS[4 * i : 4 * i + 4], LABELS[4 * i : 4 * i + 4, None]

    return Batches()


def a_py_dataset(k):
    return trained(k, a_sequence(k), shuffle=False, class_weight={0: 2.0, 1: 0.5, 2: 1.0})


def a_decoder(k):
    x = k.Input((12, 12, 3))
    y = k.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    y = k.layers.Conv2DTranspose(5, 3, strides=2, padding="same", activation="relu")(y)
    y = k.layers.Conv2DTranspose(2, (2, 4), strides=(3, 2))(y)
    return weighted(k.Model(x, y)).predict(IMAGES / 255, verbose=0)


def a_decoder_in_a_file(k):
    model = k.Sequential([k.Input((3, 3, 2)), k.layers.Conv2DTranspose(3, 3, strides=2)])
    with tempfile.TemporaryDirectory() as folder:
        weighted(model).save(f"{folder}/model.keras")
        other = minitl if k is not minitl else importlib.import_module("keras")
        read = other.models.load_model(f"{folder}/model.keras")
    return np.asarray(read.predict(IMAGES[:, :3, :3, :2] / 255, verbose=0))


def an_average_of_three(k):
    x = k.Input((4,))
    several = [k.layers.Dense(3)(x) for _ in range(3)]
    y = k.layers.average(several) + k.layers.maximum(several) * k.layers.multiply(several[:2])
    return weighted(k.Model(x, y)).predict(ROWS, verbose=0)


def an_axis_of_one_that_is_missing(k):
    model = weighted(k.Sequential([k.Input((4, 1)), k.layers.Flatten(), k.layers.Dense(2)]))
    model.compile("sgd", "mse")
    model.fit(ROWS, ROWS[:, :2], shuffle=False, verbose=0)
    return np.concatenate([model.predict(ROWS, verbose=0), np.asarray(model(ROWS[..., None]))])


def steps_of_arrays(k):
    """Three batches, of which an epoch takes two: the second begins with the third."""
    model = weighted(k.Sequential([k.Input((4,)), k.layers.Dense(3, activation="softmax")]))
    model.compile("sgd", "sparse_categorical_crossentropy")
    how = {"batch_size": 4, "steps_per_epoch": 2, "epochs": 3, "shuffle": False, "verbose": 0}
    history = model.fit(ROWS, LABELS, **how)
    return np.concatenate([model.get_weights()[0].ravel(), history.history["loss"]])


def sums_by_numpy(k):
    y = k.ops.softmax(k.ops.convert_to_tensor(ROWS))
    return np.concatenate([np.sum(y, axis=-1), np.mean(y, axis=0), [np.sum(y, dtype="float64")]])


SCRIPTS = [scaling_within_the_model, preprocessing_layers, adapted, a_residual, a_lambda, words]
SCRIPTS += [a_py_dataset, a_decoder, a_decoder_in_a_file, an_average_of_three, steps_of_arrays]
SCRIPTS += [an_axis_of_one_that_is_missing, sums_by_numpy]


@pytest.mark.parametrize("script", SCRIPTS)
def test_same(keras, script):
    mine, theirs = script(minitl), script(keras)
    assert_close(mine, theirs, 10 * SAME_FORMULA_FLOAT32)


def test_a_loss_of_ops(keras):
    found = []
    for k in (minitl, keras):

        def focal(y_true, y_pred, k=k):
            hot = k.ops.one_hot(k.ops.cast(k.ops.reshape(y_true, (-1,)), "int32"), 3)
            p = k.ops.sum(hot * k.ops.clip(y_pred, 1e-7, 1.0), axis=-1)
            return -k.ops.square(1 - p) * k.ops.log(p)

        found.append(trained(k, a_sequence(k), focal, shuffle=False))
    assert_close(*found, 10 * SAME_FORMULA_FLOAT32)


def test_a_metric_of_ones_own(keras):
    """Its variables begin anew in every epoch, and the history has numbers."""
    found = []
    for k in (minitl, keras):

        class Largest(k.metrics.Metric):
            def __init__(self, name="largest", **kwargs):
                super().__init__(name=name, **kwargs)
                self.top = self.add_weight(name="top", initializer="zeros")
                self.seen = self.add_variable(shape=(), initializer="zeros", name="seen")

            def update_state(self, y_true, y_pred, sample_weight=None, k=k):
                self.top.assign(k.ops.maximum(self.top, k.ops.max(y_pred)))
                self.seen.assign(self.seen + 1.0)

            def result(self):
                return self.top + self.seen

        model = weighted(k.Sequential([k.Input((4,)), k.layers.Dense(3, activation="softmax")]))
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=[Largest()])
        history = model.fit(a_sequence(k), epochs=3, shuffle=False, verbose=0).history["largest"]
        assert all(isinstance(number, float) for number in history)
        found.append(history)
    assert_close(*found, 10 * SAME_FORMULA_FLOAT32)


def test_steps_of_a_data_set():
    Dataset = minitl.data.Dataset
    numbers = Dataset.from_tensor_slices((np.arange(10.0), np.arange(10)))
    assert len(numbers) == 10 and len(numbers.batch(4)) == 3 and len(numbers.skip(3).take(4)) == 4
    doubled = numbers.map(lambda x, y: (x * 2, y)).batch(4, drop_remainder=True)
    assert [x.tolist() for x, _ in doubled] == [[0, 2, 4, 6], [8, 10, 12, 14]]
    assert [int(y) for _, y in doubled.unbatch()] == list(range(8))
    mixed = numbers.shuffle(10, seed=3)
    orders = [[int(y) for _, y in mixed] for _ in range(2)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == list(range(10))
    made = []
    kept = numbers.map(lambda x, y: (made.append(y), y)[1:] * 2).cache().prefetch(2)
    assert len(list(kept)) == len(list(kept)) == len(made) == 10
    assert len(list(numbers.take(2).repeat(3))) == 6
    assert [int(y) for _, y in numbers.filter(lambda x, y: y > 7)] == [8, 9]


def test_lists_are_batches_as_a_data_loader_of_pytorch_yields_them():
    torch_data = pytest.importorskip("torch.utils.data")
    import torch

    data = torch_data.TensorDataset(torch.tensor(ROWS), torch.tensor(LABELS))
    loader = torch_data.DataLoader(data, batch_size=4)
    same = trained(minitl, minitl.data.Dataset.from_tensor_slices((ROWS, LABELS)).batch(4))
    np.testing.assert_array_equal(trained(minitl, loader), same)


def test_what_keras_has_alone_is_answered_in_words(keras):
    """No name of Keras's is a bare AttributeError or ImportError."""
    bare = []
    for room in (
        "",
        *[
            "layers",
            "losses",
            "metrics",
            "optimizers",
            "callbacks",
            "utils",
            "models",
            "initializers",
            "regularizers",
            "activations",
            "applications",
            "ops",
            "optimizers.schedules",
            "ops.image",
            "ops.nn",
            "ops.linalg",
            "random",
            "config",
            "backend",
            "saving",
            "preprocessing.image",
            "preprocessing.sequence",
            "applications.efficientnet",
        ],
    ):
        mine, theirs = minitl, keras
        for part in filter(None, room.split(".")):
            mine, theirs = getattr(mine, part), getattr(theirs, part)
        for name in dir(theirs):
            if name.startswith("_") or (room == "" and name in ("api", "src")):
                continue
            try:
                getattr(mine, name)
            except AttributeError:
                bare.append(f"{room}.{name}")
            except NotImplementedError as error:
                assert "which Keras has: " in str(error)
    assert not bare, bare


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_loss_of_the_users_is_found_again_by_its_name(keras, tmp_path, suffix):
    """As Keras's: by custom_objects; a name that is one of minitl's own is not given away."""

    def doubled(y_true, y_pred):
        return 2 * (y_true - y_pred) ** 2

    def huber(y_true, y_pred):
        return y_true - y_pred

    for k in (minitl, keras):
        model = weighted(k.Sequential([k.Input((4,)), k.layers.Dense(1)]))
        model.compile("sgd", doubled, metrics=[doubled])
        model.save(tmp_path / f"model{suffix}")
        found = minitl.models.load_model(
            tmp_path / f"model{suffix}", custom_objects={"doubled": doubled}
        )
        same = model.evaluate(ROWS, ROWS[:, :1], verbose=0)
        assert_close(found.evaluate(ROWS, ROWS[:, :1], verbose=0), same, SAME_FORMULA_FLOAT32)
    model = minitl.Sequential([minitl.Input((4,)), minitl.layers.Dense(1)])
    model.compile("sgd", huber)
    with pytest.warns(UserWarning, match=r"huber.*cannot be saved by name"):
        model.save(tmp_path / f"model{suffix}")


def test_names_of_tensorflow_that_stand_beside_keras():
    """Grad-CAM as it is printed, with `import minitl as tf`."""
    import minitl as tf

    x = tf.keras.Input((8, 8, 3))
    y = tf.keras.layers.Conv2D(4, 3, activation="relu", name="last")(x)
    y = tf.keras.layers.Dense(2)(tf.keras.layers.GlobalAveragePooling2D()(y))
    model = tf.keras.Model(x, y)
    both = tf.keras.Model(model.inputs, [model.get_layer("last").output, model.output])

    @tf.function
    def seen(image):
        with tf.GradientTape() as tape:
            maps, scores = both(image)
            best = scores[:, tf.argmax(scores[0])]
        weights = tf.reduce_mean(tape.gradient(best, maps), axis=(0, 1, 2))
        heat = tf.squeeze(maps[0] @ weights[..., tf.newaxis])
        return (tf.maximum(heat, 0) / tf.math.reduce_max(heat)).numpy()

    image = IMAGES[:1, :8, :8] / 255
    found = seen(image)
    maps = both(image)[0].numpy()[0]
    w = model.layers[-1].get_weights()[0][:, int(np.argmax(model(image)[0]))] / 36
    expected = np.maximum(maps @ w, 0) / (maps @ w).max()
    assert_close(found, expected, 10 * SAME_FORMULA_FLOAT32)
    assert tf.data.AUTOTUNE == -1 and tf.nn.softmax(np.ones((1, 2))).shape == (1, 2)
    assert tf.clip_by_value(np.arange(3.0), 0.0, 1.0).numpy().tolist() == [0, 1, 1]
    model.trainable = False
    with tf.GradientTape() as tape, pytest.raises(ValueError, match=r"frozen.*tape\.watch"):
        maps, scores = both(image)
        tape.gradient(scores, maps)
    with tf.GradientTape() as tape:
        watched = tf.convert_to_tensor(image)
        tape.watch(watched)
        maps, scores = both(watched)
        assert tape.gradient(scores, maps).shape == maps.shape


def test_modules_that_older_scripts_import():
    from minitl.preprocessing import image
    from minitl.preprocessing.image import load_img
    from minitl.preprocessing.sequence import pad_sequences

    from minitl import backend as K

    assert image.load_img is load_img and pad_sequences([[1], [2, 3]]).shape == (2, 2)
    assert K.floatx() == "float32" and K.mean(np.ones(3)) == 1 and K.epsilon() == 1e-7
    with pytest.raises(NotImplementedError, match=r"minitl\.config has what can be set"):
        K.set_epsilon(1e-3)


def test_descriptions_of_objects_are_made_and_read(keras):
    """`serialize` and `deserialize`, Keras's descriptions too."""
    for k in (minitl, keras):
        for room, thing in (
            ("layers", k.layers.Dense(3, activation="relu")),
            ("losses", k.losses.Huber(delta=2.0)),
            ("metrics", k.metrics.Precision(name="p")),
            ("optimizers", k.optimizers.Adam(0.25)),
            ("optimizers.schedules", k.optimizers.schedules.ExponentialDecay(0.1, 3, 0.5)),
            ("initializers", k.initializers.HeNormal(seed=3)),
            ("regularizers", k.regularizers.L2(0.125)),
        ):
            theirs, mine = k, minitl
            for name in room.split("."):
                theirs, mine = getattr(theirs, name), getattr(mine, name)
            again = mine.deserialize(theirs.serialize(thing))
            assert type(again).__name__ == type(thing).__name__
            for name in ("units", "delta", "initial_learning_rate", "seed", "l2"):
                if hasattr(thing, name):
                    assert getattr(again, name) == getattr(thing, name)


def test_a_model_is_drawn(tmp_path):
    x = minitl.Input((4,))
    y = minitl.layers.Dense(4, name="a_longer_name")(x)
    model = minitl.Model(x, minitl.layers.Add()([x, minitl.layers.Dense(4)(y)]))
    how = {"show_shapes": True, "show_layer_names": True}
    plain = minitl.utils.plot_model(model, tmp_path / "plain.png")
    told = minitl.utils.plot_model(model, tmp_path / "told.png", **how)
    assert (tmp_path / "told.png").stat().st_size > 0 and told.width > plain.width
    rows = np.asarray(plain.convert("L")).min(axis=1) < 30  # black: frames and letters
    assert np.count_nonzero(np.diff(rows.astype(int)) == 1) == 4  # input, Dense, Dense, Add
    with pytest.raises(ValueError, match="has no graph yet"):
        minitl.utils.plot_model(minitl.Sequential([minitl.layers.Dense(2)]))


def test_what_a_callback_sees_of_predictions():
    seen = []
    callback = minitl.callbacks.LambdaCallback(
        on_predict_batch_end=lambda i, logs: seen.append(logs)
    )
    model = weighted(minitl.Sequential([minitl.Input((4,)), minitl.layers.Dense(2)]))
    found = model.predict(ROWS, batch_size=5, callbacks=[callback], verbose=0)
    np.testing.assert_array_equal(np.concatenate([logs["outputs"] for logs in seen]), found)


def test_batches_are_asked_for_numbers_as_tensors_are(tmp_path):
    """`images[0].numpy()`, in data sets of every kind."""
    for x, _ in minitl.data.Dataset.from_tensor_slices((IMAGES, np.arange(8))).batch(4).take(1):
        assert x[0].numpy().astype("uint8").shape == (12, 12, 3)
        assert type(x.numpy()) is np.ndarray and isinstance(x, np.ndarray)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        minitl.utils.save_img(tmp_path / name / "0.png", IMAGES[0])
    for x, _ in minitl.utils.image_dataset_from_directory(tmp_path, image_size=(12, 12)):
        assert x[0].numpy().shape == (12, 12, 3)


def test_dropout_by_a_function():
    y = minitl.random.dropout(np.ones((50, 40), np.float32), 0.25, seed=3).numpy()
    assert set(np.unique(y)) == {0, np.float32(4 / 3)} and abs((y == 0).mean() - 0.25) < 0.04
    again = minitl.random.dropout(np.ones((50, 40), np.float32), 0.25, seed=3)
    np.testing.assert_array_equal(y, again)
    rows = minitl.random.dropout(np.ones((50, 40)), 0.5, noise_shape=(50, 1)).numpy()
    assert (rows == rows[:, :1]).all()


def test_arguments_that_ask_for_nothing_are_taken():
    minitl.layers.Dense(2, kernel_constraint=None, activity_regularizer=None)
    minitl.metrics.BinaryAccuracy(dtype="float32")
    with pytest.raises(TypeError, match=r"'kernel_constraint'.*weights are not projected"):
        minitl.layers.Dense(2, kernel_constraint="max_norm")
