"""LSTM, GRU and the wrappers beside Keras's: forward, gradients, dropout's masks, files."""

import numpy as np
import pytest

import minitl
from minitl import layers
from minitl.autograd import Tensor, backward
from tests.keras_live.compare import (
    Results,
    assert_close,
    assert_same,
    pick,
    randomize,
    repeatable,
    run_keras,
    run_minitl,
    seeds,
)
from tests.keras_live.test_layers import agree
from tests.tolerances import SAME_FORMULA, SAME_FORMULA_FLOAT32

ACTIVATIONS = ("tanh", "tanh", "sigmoid", "relu", "linear")


def draw(rng, gates, **fixed):
    """A random sequence (N, T, D) and random settings of a recurrent layer."""
    shape = tuple(int(k) for k in rng.integers(1, (7, 9, 12)))
    settings = {
        "units": int(rng.integers(1, 10)),
        "activation": pick(rng, *ACTIVATIONS),
        "recurrent_activation": pick(rng, "sigmoid", "sigmoid", "tanh"),
        "use_bias": pick(rng, True, True, False),
        "return_sequences": pick(rng, True, False),
        "go_backwards": pick(rng, True, False),
        "unroll": pick(rng, True, False),
    }
    if gates == 3:
        settings["reset_after"] = pick(rng, True, False)
    else:
        settings["unit_forget_bias"] = pick(rng, True, False)
    return shape, settings | fixed


@pytest.mark.parametrize("name, gates", [("LSTM", 4), ("GRU", 3)])
@seeds(8)
def test_recurrent_layers(keras, name, gates, seed):
    rng = np.random.default_rng(seed)
    shape, settings = draw(rng, gates)
    with repeatable(seed, shape=shape, **settings):
        agree(keras, rng, name, [rng.standard_normal(shape)], **settings)


def several_outputs(keras, mine, theirs, x, rng):
    """`agree` for layers that return lists."""
    import tensorflow as tf

    expected = theirs(x)
    weights = randomize(rng, [w.shape for w in theirs.get_weights()])
    cotangents = [rng.standard_normal(y.shape) for y in expected]
    mine(x)
    mine.set_weights(weights)
    theirs.set_weights(weights)
    tensor = Tensor(x, requires_grad=True)
    found = mine(tensor)
    assert [y.shape for y in found] == [tuple(y.shape) for y in expected]
    loss = sum((y * Tensor(c)).sum() for y, c in zip(found, cotangents, strict=True))
    gradients = backward(loss, [tensor, *mine.trainable_weights])
    a = Results(float(loss), gradients[:1], gradients[1:], [y.storage for y in found])
    constant = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(constant)
        outputs = theirs(constant)
        loss = tf.add_n([tf.reduce_sum(y * c) for y, c in zip(outputs, cotangents, strict=True)])
    gradients = tape.gradient(loss, [constant, *[v.value for v in theirs.trainable_weights]])
    gradients = [np.asarray(g) for g in gradients]
    b = Results(float(loss), gradients[:1], gradients[1:], [np.asarray(y) for y in outputs])
    assert_same(a, b, SAME_FORMULA)


@pytest.mark.parametrize("name, gates", [("LSTM", 4), ("GRU", 3)])
@seeds(3)
def test_states(keras, name, gates, seed):
    rng = np.random.default_rng(seed)
    shape, settings = draw(rng, gates, return_state=True)
    with repeatable(seed, shape=shape, **settings):
        mine = getattr(layers, name)(**settings, dtype="float64")
        theirs = getattr(keras.layers, name)(**settings, dtype="float64")
        several_outputs(keras, mine, theirs, rng.standard_normal(shape), rng)
        symbolic = mine(layers.Input(shape[1:], dtype="float64"))
        expected = theirs(keras.Input(shape[1:], dtype="float64"))
        assert [t.shape for t in symbolic] == [t.shape for t in expected]


@pytest.mark.parametrize("name, gates", [("LSTM", 4), ("GRU", 3)])
@seeds(4)
def test_dropout_with_given_masks(keras, monkeypatch, name, gates, seed):
    """The same masks in both: what dropout does to the input and to the state."""
    rng = np.random.default_rng(seed)
    rates = pick(rng, (0.4, 0.0), (0.0, 0.4), (0.4, 0.4))
    shape, settings = draw(rng, gates, dropout=rates[0], recurrent_dropout=rates[1])
    if rates[1]:
        settings["use_bias"] = True  # Keras 3.15 fails without: "referenced before assignment"
    n, _, d = shape
    count = gates if rates[1] else 1
    for_input = rng.integers(0, 2, (count, n, d)) / 0.6
    for_state = rng.integers(0, 2, (gates, n, settings["units"])) / 0.6
    mine = getattr(layers, name)(**settings, dtype="float64")
    monkeypatch.setattr(
        type(mine),
        "_masks",
        lambda *_: (for_input if rates[0] else None, for_state if rates[1] else None),
    )
    theirs = getattr(keras.layers, name)(**settings, dtype="float64")
    given = list(for_input) if count > 1 else for_input[0]
    monkeypatch.setattr(type(theirs.cell), "get_dropout_mask", lambda *_: given)
    monkeypatch.setattr(type(theirs.cell), "get_recurrent_dropout_mask", lambda *_: list(for_state))
    with repeatable(seed, shape=shape, **settings):
        x = rng.standard_normal(shape)
        y = theirs(x, training=False)
        weights = randomize(rng, [w.shape for w in theirs.get_weights()])
        cotangent = rng.standard_normal(y.shape)
        a = run_minitl(mine, [x], weights, cotangent, training=True)
        b = run_keras(theirs, [x], weights, cotangent, training=True)
        assert_same(a, b, SAME_FORMULA)


@pytest.mark.parametrize("name, gates", [("LSTM", 4), ("GRU", 3)])
@seeds(2)
def test_float32(keras, name, gates, seed):
    rng = np.random.default_rng(seed)
    shape, settings = draw(rng, gates, activation="tanh", recurrent_activation="sigmoid")
    with repeatable(seed, shape=shape, **settings):
        mine = getattr(layers, name)(**settings)
        theirs = getattr(keras.layers, name)(**settings)
        x = rng.standard_normal(shape).astype(np.float32)
        theirs(x), mine(x)
        mine.set_weights(theirs.get_weights())
        assert_close(mine(x).storage, np.asarray(theirs(x)), SAME_FORMULA_FLOAT32)


INNER = {
    "dense": (lambda k: k.layers.Dense(3, "relu", dtype="float64"), (4,)),
    "convolution": (lambda k: k.layers.Conv2D(2, 3, padding="same", dtype="float64"), (5, 4, 3)),
    "pool": (lambda k: k.layers.MaxPooling2D(dtype="float64"), (5, 4, 3)),
    "normalization": (lambda k: k.layers.BatchNormalization(dtype="float64"), (4,)),
    "flatten": (lambda k: k.layers.Flatten(dtype="float64"), (2, 3, 2)),
    "recurrent": (lambda k: k.layers.GRU(3, dtype="float64"), (4, 2)),
}


@pytest.mark.parametrize("what", INNER)
@pytest.mark.parametrize("training", [True, False])
def test_time_distributed(keras, what, training):
    rng = np.random.default_rng(3)
    make, frame = INNER[what]
    mine = layers.TimeDistributed(make(minitl))
    theirs = keras.layers.TimeDistributed(make(keras), dtype="float64")
    x = rng.standard_normal((3, 4, *frame))
    y = theirs(x, training=False)
    weights = randomize(rng, [w.shape for w in theirs.get_weights()])
    weights = [np.abs(w) for w in weights]  # variances are among them
    cotangent = rng.standard_normal(y.shape)
    a = run_minitl(mine, [x], weights, cotangent, training)
    b = run_keras(theirs, [x], weights, cotangent, training)
    assert_same(a, b, SAME_FORMULA)
    assert tuple(mine.compute_output_shape((None, None, *frame))) == (None, None, *y.shape[2:])


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
@seeds(2)
def test_bidirectional(keras, merge_mode, seed):
    rng = np.random.default_rng(seed)
    name, gates = pick(rng, ("LSTM", 4), ("GRU", 3))
    shape, settings = draw(rng, gates, return_state=pick(rng, True, False), go_backwards=False)
    with repeatable(seed, name=name, shape=shape, **settings):

        def make(k):
            inner = getattr(k.layers, name)(**settings, dtype="float64", name="inner")
            return k.layers.Bidirectional(inner, merge_mode, dtype="float64")

        mine, theirs = make(minitl), make(keras)
        x = rng.standard_normal(shape)
        if merge_mode is None or settings["return_state"]:
            several_outputs(keras, mine, theirs, x, rng)
        else:
            y = theirs(x)
            weights = randomize(rng, [w.shape for w in theirs.get_weights()])
            cotangent = rng.standard_normal(y.shape)
            a = run_minitl(mine, [x], weights, cotangent)
            b = run_keras(theirs, [x], weights, cotangent)
            assert_same(a, b, SAME_FORMULA)


def frames_then_gru(k):
    base = k.Sequential(
        [
            k.Input((8, 8, 2)),
            k.layers.Conv2D(3, 3, activation="relu", name="conv"),
            k.layers.GlobalAveragePooling2D(name="gap"),
        ],
        name="base",
    )
    x = k.Input((5, 8, 8, 2), name="frames")
    y = k.layers.TimeDistributed(base, name="each")(x)
    y = k.layers.Bidirectional(k.layers.LSTM(4, return_sequences=True), name="both")(y)
    y = k.layers.GRU(3, reset_after=False, go_backwards=True, name="back")(y)
    y = k.layers.Dense(2, activation="softmax", name="head")(y)
    return k.Model(x, y, name="frames_to_class")


def functional_base(k):
    a = k.Input((8, 8, 2), name="image")
    b = k.layers.Conv2D(3, 3, name="conv")(a)
    b = k.layers.BatchNormalization(name="bn")(b)
    base = k.Model(a, k.layers.GlobalMaxPooling2D(name="gmp")(b), name="base")
    base.trainable = False
    layers_ = [
        k.Input((5, 8, 8, 2)),
        k.layers.TimeDistributed(base, name="each"),
        k.layers.LSTM(4, recurrent_regularizer="l2", dropout=0.1, name="lstm"),
        k.layers.Dense(2, activation="softmax", name="head"),
    ]
    return k.Sequential(layers_, name="chain")


@pytest.mark.parametrize("build", [frames_then_gru, functional_base], ids=lambda f: f.__name__)
@pytest.mark.parametrize("ending", [".weights.h5", ".h5", ".keras"])
def test_files_of_keras(keras, tmp_path, build, ending):
    theirs, mine = build(keras), build(minitl)
    rng = np.random.default_rng(0)
    theirs.set_weights([rng.uniform(0.1, 1, w.shape) for w in theirs.get_weights()])
    path = tmp_path / f"file{ending}"
    theirs.save_weights(path) if ending == ".weights.h5" else theirs.save(path)
    mine.load_weights(path)
    found = [mine, *([minitl.models.load_model(path)] if ending == ".h5" else [])]
    x = rng.standard_normal((2, 5, 8, 8, 2)).astype(np.float32)
    for model in found:
        for a, b in zip(model.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert_close(model.predict(x, verbose=0), theirs.predict(x, verbose=0), 1e-5)
        assert [v.shape for v in model.trainable_weights] == [
            tuple(v.shape) for v in theirs.trainable_weights
        ]


@pytest.mark.parametrize("build", [frames_then_gru, functional_base], ids=lambda f: f.__name__)
def test_files_of_minitl(keras, tmp_path, build):
    mine = build(minitl)
    rng = np.random.default_rng(0)
    mine.set_weights([rng.uniform(0.1, 1, w.shape) for w in mine.get_weights()])
    mine.save(tmp_path / "model.h5")
    mine.save_weights(tmp_path / "weights.h5")
    x = rng.standard_normal((2, 5, 8, 8, 2)).astype(np.float32)
    rebuilt = build(keras)
    rebuilt.load_weights(tmp_path / "weights.h5")
    for theirs in (keras.models.load_model(tmp_path / "model.h5"), rebuilt):
        for a, b in zip(mine.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
        assert_close(mine.predict(x, verbose=0), theirs.predict(x, verbose=0), 1e-5)
