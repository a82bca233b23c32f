"""LSTM, GRU and the wrappers: what they refuse, what they keep, and how they fit into models."""

import numpy as np
import pytest

import minitl
from minitl import layers
from minitl.autograd import Tensor, no_grad
from minitl.layers import GRU, LSTM, Bidirectional, Dense, Input, TimeDistributed
from minitl.layers.sequences import wrappers

STEPS = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)


@pytest.mark.parametrize("cls", [LSTM, GRU])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units": 0}, "units must be a positive integer, got 0"),
        ({"stateful": True}, "start every batch from a state of zeros: stateful=True is not there"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"recurrent_dropout": -0.1}, r"recurrent_dropout must be in \[0, 1\), got -0.1"),
        ({"activation": "softmax"}, "activation within a recurrent layer must be one of 'tanh'"),
        ({"recurrent_activation": np.tanh}, "recurrent_activation within a recurrent layer must"),
    ],
)
def test_refused_arguments(cls, settings, message):
    with pytest.raises(ValueError, match=message):
        cls(**{"units": 2} | settings)


def test_misspelt_arguments():
    with pytest.raises(TypeError, match="Did you mean 'return_sequences'"):
        LSTM(2, return_sequence=True)


def test_states_are_refused():
    layer = LSTM(2, name="reader")
    with pytest.raises(TypeError, match="LSTM 'reader' takes no 'initial_state': it starts from"):
        layer(STEPS, initial_state=[np.ones((3, 2))])
    assert layer(STEPS, initial_state=None).shape == (3, 2)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"takes an input of 3 axes \(N, T, D\), got shape"):
        LSTM(2)(np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"needs inputs \(N, T, D\) with a known D"):
        GRU(2, name="g")(Input((4, None)))
    with pytest.raises(ValueError, match="without a single step"):
        GRU(2)(np.ones((3, 0, 5)))
    with pytest.raises(ValueError, match=r"TimeDistributed 't' takes a sequence .* got shape"):
        TimeDistributed(Dense(2), name="t")(np.ones((3, 4)))


def test_weights_have_keras_shapes_and_start():
    layer = LSTM(3)
    layer(STEPS)
    assert [(v.name, v.shape) for v in layer.weights] == [
        ("kernel", (5, 12)),
        ("recurrent_kernel", (3, 12)),
        ("bias", (12,)),
    ]
    kernel, recurrent, bias = layer.get_weights()
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(3), atol=1e-6)
    assert bias.tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert abs(kernel).max() <= np.sqrt(6 / 17)  # Glorot's limit
    for reset_after, shape in ((True, (2, 9)), (False, (9,))):
        layer = GRU(3, reset_after=reset_after)
        layer(STEPS)
        assert layer.get_weights()[2].shape == shape and not layer.get_weights()[2].any()


def test_any_number_of_steps():
    layer = GRU(3, return_sequences=True)
    assert layer(Input((None, 5))).shape == (None, None, 3)
    whole = layer(STEPS).storage
    np.testing.assert_allclose(layer(STEPS[:, :2]).storage, whole[:, :2], rtol=1e-5, atol=1e-7)


def test_backwards_is_the_reversed_sequence():
    layer = LSTM(3, go_backwards=True, return_sequences=True)
    y = layer(STEPS).storage
    forwards = LSTM(3, return_sequences=True)
    forwards(STEPS)
    forwards.set_weights(layer.get_weights())
    assert np.array_equal(forwards(STEPS[:, ::-1]).storage, y)


def test_dropout_is_the_same_at_every_step_and_follows_the_generator():
    layer = GRU(2, dropout=0.5, recurrent_dropout=0.5, seed=4, return_sequences=True)
    x = np.ones((2, 3, 5), np.float32)
    plain = layer(x).storage
    assert np.array_equal(layer(x, training=False).storage, plain)
    first = layer(x, training=True).storage
    assert not np.array_equal(first, plain)
    assert not np.array_equal(layer(x, training=True).storage, first)
    rng = np.random.default_rng
    a, b = (layer(x, training=True, rng=rng(7)).storage for _ in range(2))
    assert np.array_equal(a, b)
    # The input alone dropped: a sequence of equal steps stays one of equal steps.
    layer = LSTM(2, dropout=0.5)
    for_input, for_state = layer._masks(6, 5, np.dtype(np.float32), rng(0))
    assert for_input.shape == (1, 6, 5) and for_state is None
    assert set(np.unique(for_input)) == {0, 2}
    for_input, for_state = LSTM(2, dropout=0.5, recurrent_dropout=0.2)._masks(
        6, 5, np.dtype(np.float32), rng(0)
    )
    assert for_input.shape == (4, 6, 5) and for_state.shape == (4, 6, 2)


def test_what_is_random_says_so():
    assert not LSTM(2).random
    assert LSTM(2, dropout=0.1).random and GRU(2, recurrent_dropout=0.1).random
    assert TimeDistributed(LSTM(2, dropout=0.1)).random
    assert not Bidirectional(LSTM(2)).random


def test_work_is_counted():
    assert LSTM(3).multiply_adds((None, 4, 5)) == 4 * (5 + 3) * 4 * 3
    assert GRU(3).multiply_adds((None, 4, 5)) == 4 * (5 + 3) * 3 * 3
    assert Bidirectional(GRU(3)).multiply_adds((None, 4, 5)) == 2 * 4 * (5 + 3) * 3 * 3
    assert TimeDistributed(Dense(2)).multiply_adds((None, 4, 5)) == 4 * 10


# --- Wrappers ------------------------------------------------------------------------------------


def base():
    return minitl.Sequential(
        [Input((6, 6, 2)), layers.Conv2D(3, 3, name="conv"), layers.Flatten(name="flat")],
        name="base",
    )


def test_bidirectional_turns_the_second_output_round():
    both = Bidirectional(GRU(2, return_sequences=True))
    y = both(STEPS).storage
    one = GRU(2, return_sequences=True)
    one(STEPS)
    for part, layer, way in (
        (y[..., :2], both.forward_layer, slice(None)),
        (y[..., 2:], both.backward_layer, slice(None, None, -1)),
    ):
        one.set_weights(layer.get_weights())
        assert np.array_equal(one(STEPS[:, way]).storage[:, way], part)
    assert [v.shape for v in both.weights] == [v.shape for v in one.weights] * 2


def test_time_distributed_is_the_layer_at_every_step():
    frames = np.random.default_rng(1).standard_normal((2, 3, 6, 6, 2)).astype(np.float32)
    inner = base()
    layer = TimeDistributed(inner)
    y = layer(frames).storage
    for t in range(3):
        np.testing.assert_allclose(y[:, t], inner(frames[:, t]).storage, rtol=1e-5, atol=1e-6)
    assert layer.weights == inner.weights
    inner.trainable = False
    assert layer.trainable_weights == []
    inner.trainable = True
    layer.trainable = False
    assert inner.trainable_weights == []


def test_frozen_frames_go_through_a_few_at_a_time(monkeypatch):
    inner = base()
    inner.trainable = False
    layer = TimeDistributed(inner)
    frames = np.random.default_rng(1).standard_normal((4, 5, 6, 6, 2)).astype(np.float32)
    whole = layer(frames).storage
    sizes = []
    call = minitl.Sequential.call
    monkeypatch.setattr(
        minitl.Sequential, "call", lambda s, x, **k: sizes.append(len(x)) or call(s, x, **k)
    )
    step = (6 * 6 * 2 + 4 * 4 * 3) * 4  # the convolution's input and output
    monkeypatch.setattr(wrappers, "MEMORY", 3 * step)
    assert np.array_equal(layer(frames, training=True).storage, whole)
    assert sizes == [3] * 6 + [2]
    sizes.clear()  # what is recorded is kept anyway
    inner.trainable = True
    layer(frames)
    layer(Tensor(frames, requires_grad=True))
    assert sizes == [20, 20]
    sizes.clear()
    with no_grad():  # as predict runs it
        layer(frames)
    assert sizes == [3] * 6 + [2]


def test_a_frozen_normalization_takes_all_steps_at_once(monkeypatch):
    inner = layers.BatchNormalization()
    layer = TimeDistributed(inner)
    layer(STEPS)
    sizes = []
    call = layers.BatchNormalization.call
    monkeypatch.setattr(
        layers.BatchNormalization,
        "call",
        lambda s, x, training, **_: sizes.append(len(x)) or call(s, x, training),
    )
    layer(STEPS, training=True)
    inner.trainable = False
    layer(STEPS, training=True)
    layer(STEPS[:0])
    assert sizes == [3, 3, 3, 3, 12, 0]


def test_largest_step_looks_into_models():
    inner = base()
    outer = minitl.Sequential([Input((6, 6, 2)), inner, Dense(1)])
    assert outer.largest_step([(1, 6, 6, 2)]) == 6 * 6 * 2 + 4 * 4 * 3


def test_wrappers_refuse():
    with pytest.raises(TypeError, match="TimeDistributed: layer must be a Layer, got 3"):
        TimeDistributed(3)
    two = minitl.Model(*(lambda x: (x, [Dense(1)(x), Dense(2)(x)]))(Input((3,))))
    with pytest.raises(ValueError, match="needs a layer of one output"):
        TimeDistributed(two)(np.ones((1, 2, 3)))
    with pytest.raises(TypeError, match="Bidirectional: layer must be a Recurrent"):
        Bidirectional(Dense(2))
    with pytest.raises(ValueError, match=r"merge_mode must be one of 'concat', .* got 'max'"):
        Bidirectional(LSTM(2), "max")
    with pytest.raises(ValueError, match="one has go_backwards=True"):
        Bidirectional(LSTM(2), backward_layer=LSTM(2))
    with pytest.raises(ValueError, match="same return_sequences"):
        back = LSTM(2, go_backwards=True, return_sequences=True)
        Bidirectional(LSTM(2), backward_layer=back)


def test_a_model_of_frames_learns_and_comes_back_from_its_file(tmp_path):
    """Which frame is bright? Only the order of the frames tells."""
    minitl.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 0.1, (60, 4, 6, 6, 2)).astype(np.float32)
    when = rng.integers(0, 4, 60)
    x[np.arange(60), when] += 1
    frozen = base()
    frozen.trainable = False
    model = minitl.Sequential(
        [Input((4, 6, 6, 2)), TimeDistributed(frozen), GRU(8), Dense(4, activation="softmax")]
    )
    model.compile(
        minitl.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    before = frozen.get_weights()
    history = model.fit(x, when, epochs=25, verbose=0).history
    assert history["accuracy"][-1] > 0.95
    assert all(np.array_equal(a, b) for a, b in zip(before, frozen.get_weights(), strict=True))
    model.save(tmp_path / "model.h5")
    again = minitl.models.load_model(tmp_path / "model.h5")
    assert np.array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    assert not again.layers[0].layer.trainable_weights


def test_files_that_call_with_a_state_are_refused():
    from minitl.storage.keras_config import _Call

    tensor = {"config": {"keras_history": ["a", 0, 0]}}
    call = {"args": [tensor], "kwargs": {"mask": None, "training": False}}
    read = _Call.read(layers.LSTM(2), ("lstm", 0), call)
    assert (read.references, read.as_list, read.training) == ([["a", 0, 0]], False, False)
    call["kwargs"]["initial_state"] = [tensor]
    with pytest.raises(ValueError, match="minitl's layers' calls has no 'initial_state'"):
        _Call.read(layers.LSTM(2), ("lstm", 0), call)
