"""Steps that do not count: a sequence that is filled up gives what the shorter one gives."""

import warnings

import numpy as np
import pytest

import minitl
from minitl import Input, Model, Sequential, layers, losses, metrics, ops
from minitl.layers import GRU, LSTM, Bidirectional, Dense, Embedding, Masking
from minitl.layers.sequences.masking import mask_of

TOKENS = np.array([[3, 1, 2, 0, 0], [4, 5, 0, 0, 0], [1, 2, 3, 4, 5]])
LENGTHS = [3, 2, 5]
READERS = {
    "lstm": lambda **how: LSTM(4, **how),
    "gru": lambda **how: GRU(4, **how),
    "before": lambda **how: GRU(4, reset_after=False, **how),
    "both ways": lambda **how: Bidirectional(LSTM(3, **how)),
}


@pytest.mark.parametrize("reader", READERS)
def test_filled_up_is_as_shorter(reader):
    layer = READERS[reader]()
    tokens = Input((None,))
    model = Sequential([tokens, Embedding(6, 3, mask_zero=True), layers.Dropout(0.5), layer])
    found = model.predict(TOKENS, verbose=0)
    for row, length, y in zip(TOKENS, LENGTHS, found, strict=True):
        short = model.predict(row[None, :length], verbose=0)[0]
        np.testing.assert_allclose(y, short, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("reader", READERS)
def test_every_step_of_a_sequence(reader):
    steps = READERS[reader](return_sequences=True)
    vectors = Embedding(6, 3, mask_zero=True)
    steps.build((None, None, 3))
    y = steps(vectors(TOKENS))
    for row, length, found in zip(TOKENS, LENGTHS, y.storage, strict=True):
        short = steps(vectors(row[None, :length])).storage[0]
        np.testing.assert_allclose(found[:length], short, rtol=1e-5, atol=1e-7)
        after = 0 if reader == "both ways" else found[length - 1]  # as in Keras
        np.testing.assert_array_equal(found[length:], np.broadcast_to(after, found[length:].shape))
    assert np.array_equal(mask_of(y), TOKENS != 0)
    assert mask_of(READERS[reader]()(vectors(TOKENS))) is None


def test_backwards_and_zeros():
    x = np.random.default_rng(0).standard_normal((1, 4, 2)).astype("float32")
    layer = GRU(3, go_backwards=True, return_sequences=True, zero_output_for_mask=True)
    y = layer(x, mask=np.array([[True, True, False, True]])).storage[0]
    assert not y[1].any() and y[[0, 2, 3]].all()  # in the order of reading
    np.testing.assert_allclose(y[[0, 2, 3]], layer(x[:, [0, 1, 3]]).storage[0], rtol=1e-5)


def test_masking_hides_steps_of_one_value():
    x = np.array([[[1.0, 2], [7, 7], [3, 7]]])
    y = Masking(mask_value=7)(x)
    assert y.storage.tolist() == [[[1, 2], [0, 0], [3, 7]]]
    assert mask_of(y).storage.tolist() == [[True, False, True]] == y._keras_mask.storage.tolist()
    assert layers.GlobalAveragePooling1D()(y).storage.tolist() == [[2, 4.5]]
    assert Masking.from_config(Masking(mask_value=7).get_config()).mask_value == 7


def test_losses_and_metrics_leave_steps_out():
    """The first sample has one step that counts, the second two: the mean is of three."""
    y_pred = Masking()(np.array([[[0.5], [0]], [[1], [3]]], np.float32))
    y_true = np.ones((2, 2, 1), np.float32)
    assert float(losses.MeanSquaredError()(y_true, y_pred)) == pytest.approx((0.25 + 4) / 3)
    assert float(losses.MeanSquaredError(reduction="sum")(y_true, y_pred)) == 4.25
    weighted = losses.MeanAbsoluteError()(y_true, y_pred, sample_weight=[2, 1])
    assert float(weighted) == pytest.approx((2 * 0.5 + 2) / 3)
    metric = metrics.MeanAbsoluteError()
    metric.update_state(y_true, y_pred)
    assert metric.result() == pytest.approx(2.5 / 3)


def test_fit_and_evaluate_leave_steps_out():
    """A model that says the same of every step: what is measured is the steps that count."""
    x = Input((5,))
    y = Dense(1, kernel_initializer="zeros")(Embedding(6, 3, mask_zero=True)(x))
    model = Model(x, y)
    model.compile("sgd", "mse", metrics=["mae"])
    targets = np.where(TOKENS == 0, 100, 2)[..., None]
    assert model.evaluate(TOKENS, targets, verbose=0) == [4, 2]
    history = model.fit(TOKENS, targets, verbose=0).history
    assert (history["loss"], history["mae"]) == ([4], [2])


def test_merging():
    a = Masking()(np.array([[[1.0], [0], [2]]]))
    b = Masking(mask_value=9)(np.array([[[9.0], [9], [5]]]))
    both = layers.Add()([a, b])
    assert both.storage.ravel().tolist()[2] == 7
    assert mask_of(both).storage.tolist() == [[True, False, True]]
    assert both.storage.ravel()[0] == 1
    assert layers.Multiply()([a, b]).storage.ravel().tolist() == [1, 0, 10]  # 1 where b is not
    assert layers.Maximum()([a, b]).storage.ravel().tolist()[::2] == [1, 5]
    assert mask_of(layers.Add()([a, np.ones((1, 3, 1))])) is None
    assert mask_of(layers.Concatenate()([a, b])).storage.tolist() == [[True, False, True]]
    with pytest.raises(ValueError, match="mask is a list, with a mask or None for each input"):
        layers.Add().compute_mask([a, b], [None])


class Share(layers.Layer):
    """Of the steps that count, each one's share."""

    supports_masking = True

    def call(self, x, mask=None):
        assert mask is not None
        e = ops.exp(x) * ops.expand_dims(ops.cast(mask, "float32"), -1)
        return e / ops.sum(e, axis=1, keepdims=True)


class Vectors(layers.Layer):
    def build(self, shape):
        self.table = self.add_weight("table", (6, 2), "ones")

    def call(self, x):
        return ops.take(self.table, ops.cast(x, "int32"), axis=0)

    def compute_mask(self, x, mask=None):
        return ops.not_equal(x, 0)


def test_layers_of_ones_own():
    x = Input((5,))
    model = Model(x, Share()(Vectors()(x)))
    found = model(TOKENS)
    shares = (TOKENS != 0) / np.array(LENGTHS)[:, None]
    np.testing.assert_allclose(found.storage[..., 0], shares, rtol=1e-6)
    assert np.array_equal(mask_of(found), TOKENS != 0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        layers.Flatten()(found)
    assert "does not support" in str(said[0].message)


def test_what_makes_masks_is_not_kept_without_them():
    """`fit` keeps what a frozen part computes; a mask would not be kept with it."""
    reader = Sequential([Input((5,)), Embedding(6, 3, mask_zero=True), LSTM(4)])
    reader.trainable = False
    model = Sequential([reader, Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    y = np.array([0, 1, 0])
    before = minitl.losses.SparseCategoricalCrossentropy()(y, model(TOKENS))
    history = model.fit(TOKENS, y, epochs=2, shuffle=False, verbose=0).history
    assert history["loss"][0] == pytest.approx(float(before), rel=1e-6)


@pytest.mark.parametrize("dtype", ["int32", "uint8"])
def test_inputs_of_integers_are_kept_with_the_model(tmp_path, dtype):
    words = np.arange(12).reshape(4, 3)
    x = minitl.Input((3,), dtype=dtype)
    y = layers.Dense(1)(layers.GlobalAveragePooling1D()(layers.Embedding(12, 2)(x)))
    model = minitl.Model(x, y)
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"m.{suffix}")
        loaded = minitl.models.load_model(tmp_path / f"m.{suffix}")
        assert loaded.inputs[0].dtype == dtype
        found = loaded.predict(words + 0.5, verbose=0)  # is cut down, as in Keras
        np.testing.assert_array_equal(found, model.predict(words, verbose=0))
