"""Whole trainings from the same weights, in the same order: losses step by step, final weights;
the options of `fit`; what callbacks do.

Every training is run in float64, where the two must agree to 1e-9 after all steps (so that the
rest is rounding), and the main ones in float32 as users do.
"""

import numpy as np
import pytest

import minitl
from tests.keras_live.compare import assert_close
from tests.tolerances import (
    SAME_FORMULA_FLOAT32,
    TRAINING_FLOAT64,
    TRAINING_LOSS_FLOAT32,
    TRAINING_WEIGHTS_FLOAT32,
)


@pytest.fixture(params=["float64", "float32"])
def dtype(keras, request):
    both = (minitl.config, keras.config)
    for config in both:
        config.set_floatx(request.param)
    yield request.param
    for config in both:
        config.set_floatx("float32")


@pytest.fixture
def float64(keras):
    for config in (minitl.config, keras.config):
        config.set_floatx("float64")
    yield "float64"
    for config in (minitl.config, keras.config):
        config.set_floatx("float32")


def convolutional(k):
    return k.Sequential(
        [
            k.Input((8, 8, 2)),
            k.layers.Conv2D(4, 3, activation="relu", name="first"),
            k.layers.MaxPooling2D(),
            k.layers.Conv2D(6, 3, padding="same", activation="relu", name="second"),
            k.layers.Flatten(),
            k.layers.Dense(8, activation="relu", name="third"),
            k.layers.Dense(3, activation="softmax"),
        ]
    )


def frozen(k):
    model = convolutional(k)
    for name in ("first", "second"):
        model.get_layer(name).trainable = False
    return model


def partly_frozen(k):
    """A trainable layer beneath a frozen one: gradients pass through."""
    model = convolutional(k)
    model.get_layer("second").trainable = False
    return model


def normalized(k):
    x = a = k.Input((8, 8, 2))
    for i in range(2):
        y = k.layers.Conv2D(4, 3, padding="same", use_bias=False, name=f"conv{i}")(x)
        y = k.layers.BatchNormalization(momentum=0.9, name=f"bn{i}")(y)
        x = k.layers.ReLU()(y) if i == 0 else k.layers.Add()([x, y])
    x = k.layers.GlobalAveragePooling2D()(x)
    return k.Model(a, k.layers.Dense(3, activation="softmax")(x))


def normalized_and_frozen(k):
    model = normalized(k)
    model.get_layer("bn0").trainable = False
    return model


def nested(k):
    """The usual way to fine-tune: a base with BatchNormalization, called with training=False."""
    x = k.Input((8, 8, 2))
    y = k.layers.Conv2D(4, 3, name="conv")(x)
    y = k.layers.BatchNormalization(name="bn")(y)
    base = k.Model(x, k.layers.ReLU()(y), name="base")
    # Frozen as well: Keras 3 forgets training=False of the call (see the test below).
    base.get_layer("bn").trainable = False
    a = k.Input((8, 8, 2))
    y = base(a, training=False)
    y = k.layers.GlobalMaxPooling2D()(y)
    return k.Model(a, k.layers.Dense(3, activation="softmax")(y))


def regularized(k):
    penalty = k.regularizers.L2(0.0625)
    return k.Sequential(
        [
            k.Input((8, 8, 2)),
            k.layers.Flatten(),
            k.layers.Dense(5, "relu", kernel_regularizer=penalty),
            k.layers.Dense(3, "softmax", kernel_regularizer=penalty),
        ]
    )


def data(n=22, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    x = rng.standard_normal((n, 8, 8, 2)) + labels[:, None, None, None] * 0.3
    return x, np.eye(3)[labels]


def optimizer(k, name):
    """Settings that float32 holds exactly: Keras keeps rates and betas in it."""
    decay = k.optimizers.schedules.ExponentialDecay(2**-6, 4, 0.5, staircase=True)
    return {
        "sgd": lambda: k.optimizers.SGD(0.0625, momentum=0.875, nesterov=True),
        "adam": lambda: k.optimizers.Adam(2**-8, 0.875, 1 - 2**-10, 2**-23),
        "adamw": lambda: k.optimizers.AdamW(
            decay, 0.125, 0.875, 1 - 2**-10, 2**-23, global_clipnorm=0.5
        ),
        "clipped": lambda: k.optimizers.SGD(0.125, clipnorm=0.25, weight_decay=2**-7),
    }[name]()


class Steps:
    """A callback's worth of losses: what `fit` logs after each batch."""

    def __new__(cls, k):
        class Recorder(k.callbacks.Callback):
            losses = ()

            def on_train_batch_end(self, batch, logs=None):
                self.losses = (*self.losses, float(logs["loss"]))

        return Recorder()


def train_both(keras, build, how, epochs=3, **fit_settings):
    """Train in both; returns for each (losses after each step, history, final weights)."""
    found = []
    start = None
    x, y = data()
    for k in (keras, minitl):
        model = build(k)
        if start is None:
            rng = np.random.default_rng(1)
            start = model.get_weights()
            for v, w in zip(model.weights, start, strict=True):
                if not v.name.startswith(("moving", "gamma")):
                    w += 0.1 * rng.standard_normal(w.shape)
        model.set_weights(start)
        model.compile(optimizer(k, how), "categorical_crossentropy", metrics=["accuracy"])
        steps = Steps(k)
        history = model.fit(
            x,
            y,
            batch_size=8,
            epochs=epochs,
            shuffle=False,
            verbose=0,
            callbacks=[steps],
            **fit_settings,
        )
        predictions = model.predict(x, verbose=0)
        found.append((steps.losses, history.history, model.get_weights(), predictions))
    return found[1], found[0], start


def assert_same_training(mine, theirs, loss, weights):
    assert len(mine[0]) == len(theirs[0]) > 0
    for step, (a, b) in enumerate(zip(mine[0], theirs[0], strict=True)):
        assert abs(a - b) <= loss * max(abs(b), 1), f"loss after step {step + 1}: {a}, Keras {b}"
    assert list(mine[1]) == list(theirs[1])
    for name, values in theirs[1].items():
        assert_close(mine[1][name], values, max(loss, 1e-6), name)  # Keras's metrics are float32
    for i, (a, b) in enumerate(zip(mine[2], theirs[2], strict=True)):
        assert_close(a, b, weights, f"weight {i}")
    assert_close(mine[3], theirs[3], weights, "predictions")


NETWORKS = [
    convolutional,
    frozen,
    partly_frozen,
    normalized,
    normalized_and_frozen,
    nested,
    regularized,
]


@pytest.mark.parametrize("build", NETWORKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("how", ["sgd", "adam"])
def test_training(keras, float64, build, how):
    mine, theirs, start = train_both(keras, build, how)
    assert_same_training(mine, theirs, TRAINING_FLOAT64, TRAINING_FLOAT64)
    moved = [not np.array_equal(a, b) for a, b in zip(mine[2], start, strict=True)]
    assert moved == [not np.array_equal(a, b) for a, b in zip(theirs[2], start, strict=True)]


@pytest.mark.parametrize("build", [convolutional, normalized], ids=lambda f: f.__name__)
@pytest.mark.parametrize("how", ["sgd", "adam", "adamw", "clipped"])
def test_training_in_both_precisions(keras, dtype, build, how):
    if dtype == "float64" and how in ("sgd", "adam"):
        pytest.skip("is in test_training")
    mine, theirs, _ = train_both(keras, build, how)
    if dtype == "float64":
        assert_same_training(mine, theirs, TRAINING_FLOAT64, TRAINING_FLOAT64)
    else:
        assert_same_training(mine, theirs, TRAINING_LOSS_FLOAT32, TRAINING_WEIGHTS_FLOAT32)


def test_call_with_training_false_is_remembered(keras, float64):
    """`base(x, training=False)` keeps BatchNormalization in inference mode while the rest trains:
    so says Keras's guide to transfer learning, and so does minitl. Keras 3.15 itself lets the
    mode of the outer call win."""
    x = data()[0]
    both = [nested(k) for k in (minitl, keras)]
    rng = np.random.default_rng(0)
    weights = [np.abs(rng.standard_normal(w.shape)) for w in both[0].get_weights()]
    for model in both:
        model.get_layer("base").get_layer("bn").trainable = True
        model.set_weights(weights)
    inference = np.asarray(both[1](x, training=False))
    assert_close(both[0](x, training=True).numpy(), inference, TRAINING_FLOAT64)
    assert np.abs(np.asarray(both[1](x, training=True)) - inference).max() > 0.01


OPTIONS = {
    "validation_split": {"validation_split": 0.3},
    "validation_data": {"validation_data": data(7, 1), "validation_batch_size": 3},
    "validation_with_weights": {"validation_data": (*data(7, 1), np.linspace(0, 2, 7))},
    "validation_freq": {"validation_data": data(7, 1), "validation_freq": 2},
    "class_weight": {"class_weight": {0: 1.0, 1: 0.25, 2: 3.0}},
    "partial_class_weight": {"class_weight": {1: 0.25}},
    "sample_weight": {"sample_weight": np.linspace(0, 2, 22)},
    "initial_epoch": {"initial_epoch": 1},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_option_of_fit(keras, float64, option):
    mine, theirs, _ = train_both(keras, regularized, "sgd", **OPTIONS[option])
    assert_same_training(mine, theirs, TRAINING_FLOAT64, TRAINING_FLOAT64)


def test_class_and_sample_weights_multiply(keras, float64):
    """minitl takes both at once, as Keras 2 did; Keras 3 refuses."""
    weight, by_class = np.linspace(0, 2, 22), {0: 1.0, 1: 0.5, 2: 2.0}
    labels = data()[1].argmax(1)
    product = weight * np.array([by_class[label] for label in labels])
    found = []
    for settings in (
        {"class_weight": by_class, "sample_weight": weight},
        {"sample_weight": product},
    ):
        model = regularized(minitl)
        model.set_weights([np.full(w.shape, 0.1) for w in model.get_weights()])
        model.compile("sgd", "categorical_crossentropy")
        model.fit(*data(), shuffle=False, verbose=0, **settings)
        found.append(np.concatenate([w.ravel() for w in model.get_weights()]))
    np.testing.assert_array_equal(*found)
    model = regularized(keras)
    model.compile("sgd", "categorical_crossentropy")
    with pytest.raises(ValueError, match="class_weight"):
        model.fit(*data(), class_weight=by_class, sample_weight=weight, verbose=0)


def test_evaluate_and_predict(keras, float64):
    x, y = data()
    w = np.linspace(0, 2, len(x))
    found = []
    for k in (minitl, keras):
        model = regularized(k)
        rng = np.random.default_rng(0)
        model.set_weights([rng.standard_normal(v.shape) * 0.2 for v in model.get_weights()])
        model.compile("sgd", "categorical_crossentropy")
        found.append(
            [
                model.evaluate(x, y, batch_size=5, verbose=0),
                model.evaluate(x, y, batch_size=5, verbose=0, sample_weight=w),
                *np.ravel(model.predict(x, batch_size=5, verbose=0)),
            ]
        )
    assert_close(*found, 1e-6, "evaluate, predict")


@pytest.mark.parametrize(
    "loss, m",
    [
        ("sparse_categorical_crossentropy", 3),
        ("binary_crossentropy", 1),
        ("binary_crossentropy", 3),
        ("mse", 3),
    ],
)
def test_other_losses_and_their_accuracy(keras, float64, loss, m):
    x, one_hot = data()
    y = one_hot.argmax(1) if loss.startswith("sparse") else one_hot[:, :m]
    found = []
    for k in (minitl, keras):
        activation = "softmax" if loss.startswith("sparse") else "sigmoid"
        layers = [k.Input((8, 8, 2)), k.layers.Flatten(), k.layers.Dense(m, activation)]
        model = k.Sequential(layers)
        rng = np.random.default_rng(0)
        model.set_weights([rng.standard_normal(v.shape) * 0.1 for v in model.get_weights()])
        model.compile(k.optimizers.SGD(0.125, 0.875), loss, metrics=["accuracy"])
        history = model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0)
        found.append((history.history, model.get_weights()))
    assert list(found[0][0]) == list(found[1][0])
    for name in found[1][0]:
        assert_close(found[0][0][name], found[1][0][name], 1e-6, name)
    for a, b in zip(found[0][1], found[1][1], strict=True):
        assert_close(a, b, TRAINING_FLOAT64, "weights")


# --- Callbacks -----------------------------------------------------------------------------------


def test_callbacks_within_fit(keras, float64):
    """All three at once, on a training that gets worse: the same epochs, rates and weights."""
    x, y = data()
    found = []
    for k in (minitl, keras):
        model = regularized(k)
        rng = np.random.default_rng(3)
        model.set_weights([rng.standard_normal(v.shape) * 0.3 for v in model.get_weights()])
        model.compile(
            k.optimizers.SGD(0.25, 0.875), "categorical_crossentropy", metrics=["accuracy"]
        )
        c = k.callbacks
        history = model.fit(
            x,
            y,
            batch_size=8,
            epochs=12,
            shuffle=False,
            verbose=0,
            validation_data=data(9, 5),
            callbacks=[
                c.ReduceLROnPlateau(factor=0.5, patience=1),
                c.EarlyStopping(monitor="val_accuracy", patience=4, restore_best_weights=True),
            ],
        )
        found.append((history.history, history.epoch, model.get_weights()))
    mine, theirs = found
    assert mine[1] == theirs[1]
    assert list(mine[0]) == list(theirs[0])
    for name, values in theirs[0].items():
        assert_close(mine[0][name], values, SAME_FORMULA_FLOAT32, name)
    for a, b in zip(mine[2], theirs[2], strict=True):
        assert_close(a, b, TRAINING_FLOAT64, "weights")
