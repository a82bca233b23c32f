"""compile, fit, evaluate, predict: what they compute, what freezing saves, what they refuse."""

import warnings

import numpy as np
import pytest

from minitl import Model, Sequential, TrainingDiverged, config, kernels, losses, metrics
from minitl.callbacks import Callback
from minitl.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, Input
from minitl.optimizers import SGD, Adam

rng = np.random.default_rng(0)
X = rng.standard_normal((10, 4)).astype(np.float32)
LABELS = rng.integers(0, 3, 10)
Y = np.eye(3, dtype=np.float32)[LABELS]


def classifier(loss="categorical_crossentropy", optimizer=None, **settings):
    """Softmax regression from fixed weights."""
    model = Sequential([Input((4,)), Dense(3, activation="softmax", name="head")], name="net")
    w = np.random.default_rng(1).standard_normal((4, 3)) * 0.5
    model.set_weights([w, np.zeros(3)])
    model.compile(optimizer or SGD(0.1), loss, **settings)
    return model


def same(a, b):
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def softmax_step(w, b, x, y, weights, rate=0.1):
    """One step of gradient descent on the weighted mean cross-entropy, by hand."""
    z = x @ w + b
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    g = (p - y) * weights[:, None] / len(x)
    loss = -(weights * np.log((p * y).sum(axis=1))).sum() / len(x)
    return w - rate * x.T @ g, b - rate * g.sum(axis=0), loss


def by_hand(batches, weights=None, epochs=1):
    """Weights and loss of the last epoch after plain gradient descent over the batches."""
    w, b = (a.astype(float) for a in classifier().get_weights())
    weights = np.ones(len(X)) if weights is None else weights
    for _ in range(epochs):
        total = 0.0
        for part in batches:
            w, b, loss = softmax_step(w, b, X[part], Y[part], weights[part])
            total += loss * len(X[part])
    return [w, b], total / sum(len(X[part]) for part in batches)


BATCHES = [slice(0, 4), slice(4, 8), slice(8, 10)]


# --- What fit computes ---------------------------------------------------------------------------


def check_fit(expected, **arguments):
    model = classifier()
    history = model.fit(X, Y, shuffle=False, verbose=0, **arguments)
    weights, loss = expected
    for a, b in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert history.history["loss"][-1] == pytest.approx(loss, rel=1e-5)


def test_partial_last_batch_counts_by_its_size():
    check_fit(by_hand(BATCHES, epochs=2), batch_size=4, epochs=2)
    check_fit(by_hand([slice(0, 10)]))  # 32 by default


def test_sample_and_class_weights():
    w = rng.uniform(0, 2, 10)
    check_fit(by_hand(BATCHES, w), batch_size=4, sample_weight=w)
    by_class = np.where(LABELS == 1, 3.0, 1.0)
    check_fit(by_hand(BATCHES, by_class), batch_size=4, class_weight={1: 3.0})
    check_fit(by_hand(BATCHES, w * by_class), batch_size=4, sample_weight=w, class_weight={1: 3.0})


def test_validation_split_is_the_last_part_and_knows_no_class_weights():
    model = classifier(metrics=["accuracy"])
    history = model.fit(
        X, Y, batch_size=3, validation_split=0.4, class_weight={0: 5.0}, verbose=0, shuffle=False
    )
    other = classifier(metrics=["accuracy"])
    other.fit(X[:6], Y[:6], batch_size=3, class_weight={0: 5.0}, verbose=0, shuffle=False)
    assert same(model.get_weights(), other.get_weights())
    expected = other.evaluate(X[6:], Y[6:], verbose=0)
    found = [history.history[k][-1] for k in ("val_loss", "val_accuracy")]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "validation", [(X, Y), [X, Y], (X, Y, np.ones(10)), [(X[:7], Y[:7]), (X[7:], Y[7:])]]
)
def test_validation_data(validation):
    validation = iter(validation) if len(validation[0]) == 2 else validation
    model = classifier(metrics=["accuracy"])
    history = model.fit(X, Y, validation_data=validation, verbose=0)
    expected = model.evaluate(X, Y, verbose=0)
    found = [history.history[k][0] for k in ("val_loss", "val_accuracy")]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_validation_every_other_epoch():
    history = classifier().fit(X, Y, epochs=4, validation_data=(X, Y), validation_freq=2, verbose=0)
    assert len(history.history["loss"]) == 4 and len(history.history["val_loss"]) == 2


def test_history_has_keras_s_keys_in_keras_s_order():
    model = classifier(metrics=["accuracy", "mse"])
    history = model.fit(X, Y, epochs=2, validation_data=(X, Y), verbose=0)
    assert list(history.history) == [
        "accuracy",
        "loss",
        "mse",
        "val_accuracy",
        "val_loss",
        "val_mse",
    ]
    assert history.epoch == [0, 1] and model.history is history
    assert all(isinstance(v, float) for values in history.history.values() for v in values)


def test_initial_epoch():
    history = classifier().fit(X, Y, epochs=5, initial_epoch=3, verbose=0)
    assert history.epoch == [3, 4]


def test_data_sets_of_batches():
    class Batches:
        def __len__(self):
            return len(BATCHES)

        def __iter__(self):
            return ((X[part], Y[part]) for part in BATCHES)

    expected, _ = by_hand(BATCHES, epochs=2)
    endless = (pair for _ in range(99) for pair in Batches())
    for data, options in ((Batches(), {}), (endless, {"steps_per_epoch": 3})):
        model = classifier()
        model.fit(data, epochs=2, verbose=0, **options)
        for a, b in zip(model.get_weights(), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    model = classifier(metrics=["accuracy"])
    np.testing.assert_allclose(
        model.evaluate(Batches(), verbose=0), model.evaluate(X, Y, verbose=0), rtol=1e-6
    )
    np.testing.assert_allclose(
        model.predict(Batches(), verbose=0), model.predict(X, verbose=0), rtol=1e-6
    )
    weighted = ((X[part], Y[part], np.full(len(X[part]), 2.0)) for part in BATCHES)
    assert model.evaluate(weighted, verbose=0)[0] == pytest.approx(
        2 * model.evaluate(X, Y, verbose=0)[0], rel=1e-6
    )


def test_shuffling_is_reproducible_and_new_every_epoch():
    def orders(seed, epochs=3, initial_epoch=0):
        seen = []

        class Spy(Dense):
            def call(self, x):
                seen.append(x.storage[:, 0].copy())
                return super().call(x)

        config.set_random_seed(seed)
        model = Sequential([Input((4,)), Spy(3, activation="softmax")])
        model.compile(SGD(0.0), "categorical_crossentropy")
        seen.clear()  # of the runs that found the shapes
        model.fit(X, Y, 4, epochs, verbose=0, initial_epoch=initial_epoch)
        walks = np.concatenate(seen).reshape(-1, 10)
        assert all(np.array_equal(np.sort(w), np.sort(X[:, 0])) for w in walks)
        return walks

    a = orders(3)
    assert np.array_equal(a, orders(3)) and not np.array_equal(a, orders(4))
    assert not np.array_equal(a[0], a[1]) and not np.array_equal(a[1], a[2])
    # An epoch's order depends on its number alone: a training can go on where it stopped.
    assert np.array_equal(orders(3, initial_epoch=2)[0], a[2])


def test_dropout_is_reproducible():
    def train():
        config.set_random_seed(1)
        model = Sequential([Input((4,)), Dropout(0.5), Dense(3, activation="softmax")])
        model.compile("adam", "categorical_crossentropy")
        return model.fit(X, Y, 4, 3, verbose=0).history["loss"], model.get_weights()

    (a, wa), (b, wb) = train(), train()
    assert a == b and same(wa, wb)


def test_it_learns():
    model = classifier("sparse_categorical_crossentropy", Adam(0.1), metrics=["accuracy"])
    labels = (X @ rng.standard_normal((4, 3))).argmax(axis=1)
    history = model.fit(X, labels, epochs=60, verbose=0).history
    assert history["loss"][-1] < 0.2 * history["loss"][0] and history["accuracy"][-1] == 1


def test_weight_penalties_are_in_the_loss():
    model = Sequential([Input((4,)), Dense(1, kernel_regularizer="l2", use_bias=False)])
    model.compile(SGD(0.1), "mse", metrics=["mse"])
    w = model.get_weights()[0].astype(float)
    loss, mse = model.evaluate(X, np.zeros((10, 1)), verbose=0)
    assert loss - mse == pytest.approx(0.01 * (w**2).sum(), rel=1e-3)
    model.fit(np.zeros((10, 4)), np.zeros((10, 1)), verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], w * (1 - 0.1 * 2 * 0.01), rtol=1e-5)


# --- evaluate and predict ------------------------------------------------------------------------


def test_evaluate_returns_loss_then_metrics():
    model = classifier(metrics=["accuracy", metrics.F1Score("macro")])
    before = model.get_weights()
    p = model.predict(X, verbose=0)
    loss, accuracy, f1 = model.evaluate(X, Y, batch_size=3, verbose=0)
    assert loss == pytest.approx(-np.log((p * Y).sum(axis=1)).mean(), rel=1e-5)
    assert accuracy == pytest.approx((p.argmax(axis=1) == LABELS).mean())
    assert model.evaluate(X, Y, return_dict=True, verbose=0) == pytest.approx(
        {"loss": loss, "accuracy": accuracy, "f1_score": f1}
    )
    assert same(model.get_weights(), before)
    assert isinstance(classifier().evaluate(X, Y, verbose=0), float)


def test_weighted_and_plain_metrics():
    model = classifier(metrics=["accuracy"], weighted_metrics=[metrics.CategoricalAccuracy("wa")])
    right = model.predict(X, verbose=0).argmax(axis=1) == LABELS
    w = np.linspace(0, 1, 10)
    _, plain, weighted = model.evaluate(X, Y, sample_weight=w, verbose=0)
    assert plain == pytest.approx(right.mean())
    assert weighted == pytest.approx((right * w).sum() / w.sum())


@pytest.mark.parametrize("batch_size", [1, 3, 10, 64])
def test_predict_in_batches_of_any_size(batch_size):
    model = classifier()
    whole = model(X).storage
    np.testing.assert_allclose(model.predict(X, batch_size=batch_size, verbose=0), whole, rtol=1e-6)
    uncompiled = Model(model.input, model.output)
    assert uncompiled.predict(X.tolist(), verbose=0).shape == (10, 3)


def test_several_outputs():
    x = Input((4,))
    hidden = Dense(5, activation="tanh")(x)
    model = Model(x, [Dense(3, "softmax", name="kind")(hidden), Dense(1, name="size")(hidden)])
    size = X[:, :1] * 2
    model.compile(
        SGD(0.1),
        loss={"kind": "categorical_crossentropy", "size": "mse"},
        loss_weights={"size": 0.5},
        metrics={"kind": ["accuracy"]},
    )
    found = model.evaluate(X, [Y, size], verbose=0, return_dict=True)
    assert list(found) == ["kind_accuracy", "kind_loss", "loss", "size_loss"]  # as Keras has it
    p, s = model.predict(X, verbose=0)
    cross, squares = -np.log((p * Y).sum(axis=1)).mean(), ((s - size) ** 2).mean()
    expected = {"kind_loss": cross, "size_loss": squares, "loss": cross + 0.5 * squares}
    for key, value in expected.items():
        assert found[key] == pytest.approx(value, rel=1e-5)
    history = model.fit(X, {"size": size, "kind": Y}, epochs=3, verbose=0).history
    assert history["loss"][2] < history["loss"][0]
    with pytest.raises(ValueError, match=r"2 outputs \['kind', 'size'\], but y has 1 arrays"):
        model.fit(X, [Y], verbose=0)
    batches = [(X, (Y, size))]
    again = model.evaluate(iter([([X], [Y, size])]), verbose=0)
    assert again[0] == pytest.approx(model.evaluate(X, [Y, size], verbose=0)[0], rel=1e-6)
    assert model.evaluate(iter(batches), verbose=0)[0] == pytest.approx(again[0], rel=1e-6)


# --- Freezing ------------------------------------------------------------------------------------


def convolutions(count=3):
    config.set_random_seed(2)
    x = y = Input((6, 6, 2))
    for i in range(count):
        y = Conv2D(2, 3, padding="same", activation="relu", name=f"conv{i}")(y)
    y = Dense(2, activation="softmax", name="head")(Flatten()(y))
    model = Model(x, y)
    model.compile(SGD(0.1), "categorical_crossentropy")
    return model


IMAGES = rng.standard_normal((4, 6, 6, 2)).astype(np.float32)
TWO = np.eye(2)[[0, 1, 1, 0]]


@pytest.fixture
def calls(monkeypatch):
    """How often each kernel of convolution ran."""
    counts = dict.fromkeys(("conv2d", "conv2d_input_gradient", "conv2d_kernel_gradient"), 0)
    originals = {name: getattr(kernels, name) for name in counts}
    for name in counts:

        def counted(*args, name=name, original=originals[name]):
            counts[name] += 1
            return original(*args)

        monkeypatch.setattr(kernels, name, counted)
    return counts


@pytest.mark.parametrize(
    ("frozen", "to_input", "to_kernel"),
    [
        ([], 2, 3),  # nothing below the lowest layer needs its input's gradient
        (["conv0"], 1, 2),
        (["conv0", "conv1"], 0, 1),
        (["conv0", "conv1", "conv2"], 0, 0),
        (["conv1"], 2, 2),  # transparent between trainable layers
        (["conv1", "conv2"], 2, 1),
    ],
)
def test_gradients_stop_at_the_lowest_trainable_layer(calls, frozen, to_input, to_kernel):
    model = convolutions()
    for name in frozen:
        model.get_layer(name).trainable = False
    before = {layer.name: layer.get_weights() for layer in model.layers}
    model.fit(IMAGES, TWO, verbose=0)
    assert calls == {
        "conv2d": 3,
        "conv2d_input_gradient": to_input,
        "conv2d_kernel_gradient": to_kernel,
    }
    for layer in model.layers:
        if layer.weights:
            assert same(layer.get_weights(), before[layer.name]) is (layer.name in frozen)


def test_trainable_changed_after_compile_holds_from_the_next_fit():
    model = convolutions()
    layer = model.get_layer("conv0")
    layer.trainable = False
    before = layer.get_weights()
    model.fit(IMAGES, TWO, verbose=0)
    assert same(layer.get_weights(), before)
    layer.trainable = True
    model.fit(IMAGES, TWO, verbose=0)
    assert not same(layer.get_weights(), before)


def test_training_above_a_frozen_base_equals_training_on_its_features():
    model = convolutions()
    for layer in model.layers[:-1]:
        layer.trainable = False
    head = model.layers[-1]
    features = Model(model.input, model.layers[-2].output).predict(IMAGES, verbose=0)
    alone = Sequential([Input(features.shape[1:]), Dense(2, activation="softmax")])
    alone.set_weights(head.get_weights())
    alone.compile(SGD(0.1), "categorical_crossentropy")
    model.fit(IMAGES, TWO, 3, 4, verbose=0, shuffle=False)
    alone.fit(features, TWO, 3, 4, verbose=0, shuffle=False)
    for a, b in zip(head.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_frozen_batch_normalization_does_not_drift():
    model = Sequential(
        [Input((4,)), Dense(4), BatchNormalization(name="bn"), Dense(3, activation="softmax")]
    )
    model.compile(SGD(0.1), "categorical_crossentropy")
    bn = model.get_layer("bn")
    model.fit(X, Y, verbose=0)
    moved = bn.get_weights()
    assert not np.allclose(moved[2], 0)
    bn.trainable = False
    below = model.layers[0].get_weights()
    model.fit(X, Y, epochs=3, verbose=0)
    assert same(bn.get_weights(), moved)
    assert not same(model.layers[0].get_weights(), below)  # gradients pass through


def test_everything_frozen_warns_and_only_measures():
    model = classifier()
    model.trainable = False
    before = model.get_weights()
    with pytest.warns(UserWarning, match=r"'net' has no trainable weights: fit only measures"):
        history = model.fit(X, Y, verbose=0)
    assert same(model.get_weights(), before)
    assert history.history["loss"][0] == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-6)


# --- Divergence ----------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_and_restores():
    class Poison(Callback):
        """Spoils a weight in the middle of the second epoch."""

        def on_train_batch_end(self, batch, logs=None):
            if self.epoch == 1 and batch == 0:
                self.model.layers[0].kernel.assign(np.full((4, 3), np.nan))

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch
            if epoch == 1:
                self.good = self.model.get_weights()

    model, poison = classifier(optimizer=Adam(0.1)), Poison()
    message = r"the loss became nan at epoch 2, step 2\..* smaller learning_rate \(it was 0.1\)"
    with pytest.raises(TrainingDiverged, match=message):
        model.fit(X, Y, 4, 3, verbose=0, callbacks=[poison])
    assert same(model.get_weights(), poison.good)
    assert model.optimizer.iterations == 0
    assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"][0])


def test_a_rate_that_is_too_high_is_caught_with_moving_averages_restored():
    model = Sequential([Input((4,)), BatchNormalization(), Dense(1)], name="net")
    model.compile(SGD(1e30), "mse")
    before = model.get_weights()
    with np.errstate(all="ignore"), pytest.raises(TrainingDiverged, match=r"epoch 1, step \d"):
        model.fit(X, X[:, :1], 2, 3, verbose=0)
    assert same(model.get_weights(), before)


def test_an_epoch_that_began_with_spoilt_weights_is_not_what_comes_back():
    """One step an epoch: epoch 2 begins with weights that have no finite loss any more."""
    model = Sequential([Input((4,)), Dense(1)], name="net")
    model.compile(SGD(1e30), "mse")
    before = model.get_weights()
    with np.errstate(all="ignore"), pytest.raises(TrainingDiverged, match=r"at epoch 2, step 1"):
        model.fit(X, X[:, :1] + 1, epochs=3, verbose=0)
    assert same(model.get_weights(), before)


def test_an_infinite_gradient_is_named():
    def root(y, p):  # finite at 0, with an infinite slope
        return (p * p) ** 0.25

    model = Sequential([Input((4,)), Dense(1, use_bias=False, name="d")])
    model.set_weights([np.zeros((4, 1))])
    model.compile(SGD(0.1), root)
    with np.errstate(all="ignore"), pytest.raises(TrainingDiverged, match=r"gradient of 'kernel'"):
        model.fit(X, Y[:, :1], verbose=0)
    assert np.all(model.get_weights()[0] == 0)


# --- Bad input: an error in the user's words, and everything as it was ---------------------------

NAN = X.copy()
NAN[7, 2] = np.nan
INF = X.copy()
INF[3, 0] = np.inf
sparse = "sparse_categorical_crossentropy"


@pytest.mark.parametrize(
    ("loss", "arguments", "kind", "message"),
    [
        (None, {"x": X}, ValueError, "y is missing"),
        (None, {"x": X, "y": Y[:9]}, ValueError, r"x has 10 samples, but y has 9 \(shapes"),
        (None, {"x": X[:0], "y": Y[:0]}, ValueError, r"x is empty: shape \(0, 4\)"),
        (
            None,
            {"x": X[:, :3], "y": Y},
            ValueError,
            r"takes inputs of shape \(None, 4\), got \(10, 3",
        ),
        (None, {"x": X[0], "y": Y[:4]}, ValueError, "A single sample needs a batch axis"),
        (None, {"x": NAN, "y": Y}, ValueError, "x has NaN or infinite numbers, first in sample 7"),
        (None, {"x": INF, "y": Y}, ValueError, "x has NaN or infinite numbers, first in sample 3"),
        (None, {"x": X, "y": NAN[:, :3]}, ValueError, "y has NaN or infinite .* sample 7"),
        (
            None,
            {"x": X.astype(str), "y": Y},
            TypeError,
            "x must hold numbers or be an iterable of batches, got <U",
        ),
        (
            None,
            {"x": X.astype(complex), "y": Y},
            TypeError,
            "x must hold numbers or be an iterable .*, got comp",
        ),
        (None, {"x": [[1, 2], [3]], "y": Y}, ValueError, "x is not one array"),
        (None, {"x": 3, "y": Y}, ValueError, "must have a batch axis, got a single number"),
        (None, {"x": X, "y": LABELS}, ValueError, r"looks like integer labels.*to_categorical"),
        (None, {"x": X, "y": Y[:, :2]}, ValueError, r"one-hot targets of shape \(None, 3\)"),
        (sparse, {"x": X, "y": Y}, ValueError, "y looks one-hot"),
        (sparse, {"x": X, "y": LABELS + 1}, ValueError, "labels must be from 0 to 2 for an output"),
        (sparse, {"x": X, "y": LABELS - 1}, ValueError, "y has labels from -1 to 1"),
        (sparse, {"x": X, "y": LABELS + 0.5}, ValueError, "labels must be integers from 0 to 2"),
        ("mse", {"x": X, "y": LABELS}, ValueError, r"targets have shape \(10,\), but the model"),
        ("binary_crossentropy", {"x": X, "y": Y * 2}, ValueError, "values from 0.0 to 2.0"),
        (None, {"x": X, "y": Y, "batch_size": 0}, ValueError, "batch_size must be a positive int"),
        (None, {"x": X, "y": Y, "batch_size": 2.5}, ValueError, "batch_size must be a positive"),
        (
            None,
            {"x": X, "y": Y, "epochs": 0},
            ValueError,
            "epochs must be a positive integer, got 0",
        ),
        (None, {"x": X, "y": Y, "epochs": 1.5}, ValueError, "epochs must be .*, got 1.5"),
        (None, {"x": X, "y": Y, "initial_epoch": -1}, ValueError, "initial_epoch must be"),
        (
            None,
            {"x": X, "y": Y, "epoch": 3},
            TypeError,
            r"fit\(\) has no argument 'epoch'.*'epochs'",
        ),
        (
            None,
            {"x": X, "y": Y, "sample_weight": np.ones(9)},
            ValueError,
            r"sample_weight must have shape \(10,\), got \(9,\)",
        ),
        (
            None,
            {"x": X, "y": Y, "sample_weight": np.full(10, np.nan)},
            ValueError,
            "sample_weight has NaN",
        ),
        (
            None,
            {"x": X, "y": Y, "class_weight": {"0": 2}},
            ValueError,
            "class_weight must be a dictionary.*'0': 2",
        ),
        (
            None,
            {"x": X, "y": Y, "class_weight": {0: -2}},
            ValueError,
            "class_weight must be .*0: -2",
        ),
        (
            None,
            {"x": X, "y": Y, "validation_split": 1.0},
            ValueError,
            "validation_split must be in \\[0, 1\\) or None, got 1.0",
        ),
        (None, {"x": X, "y": Y, "validation_split": 0.95}, ValueError, "leaves one side empty"),
        (
            None,
            {"x": X, "y": Y, "validation_data": X},
            ValueError,
            r"validation_data must be \(x, y\) or",
        ),
        (
            None,
            {"x": X, "y": Y, "validation_data": (X, LABELS)},
            ValueError,
            "validation_data: .* looks like integer labels",
        ),
        (None, {"x": X, "y": Y, "validation_data": (NAN, Y)}, ValueError, "validation_data: x has"),
        (None, {"x": X, "y": Y, "callbacks": [print]}, TypeError, "not a callback: <built-in"),
        (None, {"x": iter([(X, Y)]), "y": Y}, ValueError, "y must not be given as well"),
        (None, {"x": iter([])}, ValueError, "yielded no batch"),
        (None, {"x": iter([X])}, ValueError, "yields x without y"),
        (None, {"x": iter([(X, Y, None, 3)])}, ValueError, "got a tuple of 4"),
        (None, {"x": iter([(X, LABELS)])}, ValueError, "looks like integer labels"),
        (None, {"x": iter([(NAN, Y)])}, ValueError, "x has NaN or infinite"),
        (
            None,
            {"x": iter([(X, Y)]), "validation_split": 0.5},
            ValueError,
            "validation_split needs arrays",
        ),
    ],
)
def test_bad_input_changes_nothing(loss, arguments, kind, message):
    model = classifier(loss or "categorical_crossentropy", Adam(0.1))
    before = model.get_weights()
    with pytest.raises(kind, match=message):
        model.fit(**arguments, **{} if "verbose" in arguments else {"verbose": 0})
    assert same(model.get_weights(), before)
    assert model.optimizer.iterations == 0 and model.optimizer.states == {}


@pytest.mark.parametrize("use", ["evaluate", "predict"])
def test_bad_input_of_evaluate_and_predict(use):
    model = classifier()
    call = (lambda x: model.evaluate(x, Y, verbose=0)) if use == "evaluate" else model.predict
    for x, message in ((NAN, "first in sample 7"), (X[:, :2], r"got \(10, 2\)"), (X[:0], "empty")):
        with pytest.raises(ValueError, match=message):
            call(x)


def test_a_generator_that_is_used_up():
    model = classifier()
    with pytest.warns(UserWarning, match=r"ran out after 1 batches.* can be walked over once only"):
        history = model.fit(iter([(X, Y)]), epochs=3, verbose=0)
    assert history.epoch == [0] and len(history.history["loss"]) == 1


def test_fit_before_compile():
    model = Sequential([Input((4,)), Dense(1)])
    for use in (model.fit, model.evaluate):
        with pytest.raises(RuntimeError, match=r"needs a compiled model: call model.compile\("):
            use(X, Y)


def test_fit_without_a_loss():
    model = Sequential([Input((4,)), Dense(1)])
    model.compile("sgd")  # for metrics alone, say
    with pytest.raises(ValueError, match="there is no loss: compile with one"):
        model.fit(X, Y, verbose=0)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"optimizer": "adm"}, ValueError, "unknown optimizer 'adm'. Did you mean 'adam'"),
        ({"loss": "categorical_crosentropy"}, ValueError, "unknown loss .*'categorical_crossent"),
        ({"metrics": ["acuracy"]}, ValueError, "unknown metric 'acuracy'. Did you mean 'accuracy'"),
        ({"metrics": {"heads": "mse"}}, ValueError, "metrics names the output 'heads'.*'head'"),
        ({"loss": {"heads": "mse"}}, ValueError, "loss names the output 'heads'.*'head'"),
        ({"loss": ["mse", "mse"]}, ValueError, "loss has 2 entries for 1 outputs"),
        ({"metric": ["accuracy"]}, TypeError, r"compile\(\) has no argument 'metric'.*'metrics'"),
    ],
)
def test_compile_with_wrong_settings_keeps_the_old_ones(settings, kind, message):
    model = classifier()
    before = model.optimizer, model.compiled
    with pytest.raises(kind, match=message):
        model.compile(**({"optimizer": "sgd", "loss": "mse"} | settings))
    assert (model.optimizer, model.compiled) == before


def test_the_users_arrays_are_left_alone():
    x, y = X.copy(), Y.copy()
    classifier().fit(x, y, 3, 2, verbose=0)
    assert np.array_equal(x, X) and np.array_equal(y, Y)


def test_integer_images_are_taken():
    model = convolutions(1)
    images = rng.integers(0, 255, (4, 6, 6, 2)).astype(np.uint8)
    np.testing.assert_array_equal(
        model.predict(images, verbose=0), model.predict(images.astype(np.float32), verbose=0)
    )


# --- What is shown -------------------------------------------------------------------------------


def test_verbose(capsys, monkeypatch):
    model = classifier(metrics=["accuracy"])
    model.fit(X, Y, epochs=2, verbose=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("Epoch 1/2 - accuracy: 0.")
    model.fit(X, Y, 4, epochs=2, verbose=1)  # into a log file: lines, no bar
    seen = capsys.readouterr()
    assert seen.err == "" and len(seen.out.splitlines()) == 2
    assert seen.out.startswith("Epoch 1/2 - accuracy: 0.")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    model.fit(X, Y, 4, epochs=1, verbose=1)
    bar = capsys.readouterr().err
    assert "Epoch 1/1" in bar and "3/3" in bar and "loss: " in bar
    model.fit(X, Y, verbose=0)
    model.evaluate(X, Y, verbose=0)
    model.predict(X, verbose=0)
    seen = capsys.readouterr()
    assert seen.out == seen.err == ""


def test_losses_of_a_users_own():
    def absolute(y, p):
        return ((p - y) ** 2 + 1e-12) ** 0.5

    model = classifier(absolute)
    expected = np.abs(model.predict(X, verbose=0) - Y).mean()
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(expected, rel=1e-4)
    assert isinstance(losses.as_loss(absolute), losses.Loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X, Y, verbose=0)


# --- Single batches ------------------------------------------------------------------------------


def test_train_on_batch_is_a_step_of_fit():
    x, y = np.random.default_rng(0).standard_normal((2, 8, 3))
    models = []
    for _ in range(2):
        config.set_random_seed(1)
        models.append(Sequential([Input((3,)), Dense(3)]))
        models[-1].compile("sgd", "mse", metrics=["mse"])
    history = models[0].fit(x, y, batch_size=8, epochs=2, verbose=0, shuffle=False).history
    steps = [models[1].train_on_batch(x, y) for _ in range(2)]
    np.testing.assert_array_equal(steps, np.transpose([history["loss"], history["mse"]]))
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    assert models[1].test_on_batch(x, y) == models[0].evaluate(x, y, verbose=0)
    assert models[1].test_on_batch(x, y, return_dict=True).keys() == {"loss", "mse"}
    np.testing.assert_array_equal(models[1].predict_on_batch(x), models[0].predict(x, verbose=0))
    weighted = models[0].train_on_batch(x, y, sample_weight=np.zeros(8))
    assert weighted[0] == 0
    with pytest.raises(ValueError, match="sample_weight or class_weight, not both"):
        models[0].train_on_batch(x, y, sample_weight=np.ones(8), class_weight={0: 1.0})


def test_a_stream_of_images_of_several_sizes_is_refused():
    """The smaller output, 1x1, could be stretched to the larger one's 3x3 without a word."""
    model = Sequential([Input((None, None, 1)), Conv2D(2, 3)])
    batches = [np.ones((2, size, size, 1), np.float32) for size in (5, 3)]
    with pytest.raises(ValueError, match=r"came, for \d+ samples, \(\d, 1, 1, 2"):
        model.predict(iter(batches), verbose=0)
