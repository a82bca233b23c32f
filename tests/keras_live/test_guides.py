"""Small scripts as guides print them, with Keras and with minitl: the imports alone differ."""

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


SCRIPTS = [scaling_within_the_model, preprocessing_layers, adapted, a_residual, a_lambda, words]
SCRIPTS += [a_py_dataset]


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


def test_arguments_that_ask_for_nothing_are_taken():
    minitl.layers.Dense(2, kernel_constraint=None, activity_regularizer=None)
    minitl.metrics.BinaryAccuracy(dtype="float32")
    with pytest.raises(TypeError, match=r"'kernel_constraint'.*weights are not projected"):
        minitl.layers.Dense(2, kernel_constraint="max_norm")
