"""`add_loss`, random numbers in layers of one's own, shapes by the names of `call`'s arguments."""

import numpy as np
import pytest
from minitl.random import SeedGenerator, normal, randint, uniform
from minitl.saving import load_model

import minitl
from minitl import layers, ops

X = np.ones((8, 4), np.float32)


class Penalised(layers.Layer):
    def call(self, x):
        self.add_loss(0.5 * ops.mean(x))
        return x


def penalised():
    model = minitl.Sequential([minitl.Input((4,)), Penalised(), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.layers[1].set_weights([np.full((4, 1), 0.25), np.zeros(1)])
    return model


def test_what_layers_add_counts_once_in_every_batch():
    model = penalised()
    y = np.ones((8, 1))
    for _ in range(2):
        assert model.evaluate(X, y, batch_size=4, verbose=0) == pytest.approx(0.5)
        model.predict(X, verbose=0)  # adds as well, and nobody looks
    assert model.fit(X, y, verbose=0).history["loss"] == pytest.approx([0.5])
    model(X)
    model(X)
    assert [float(value) for value in model.losses] == pytest.approx([0.5])


def test_what_a_frozen_layer_adds_is_not_kept_away():
    """The feature cache would compute the frozen part once, and its loss never again."""
    model = penalised()
    model.layers[0].trainable = False
    assert model.fit(X, np.ones((8, 1)), epochs=3, verbose=0).history["loss"] == pytest.approx(
        [0.5] * 3
    )


def test_a_vae_without_a_loss_of_its_own():
    class Sampling(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.seed_generator = SeedGenerator(1)

        def call(self, inputs):
            mean, log_variance = inputs
            noise = normal(ops.shape(mean), seed=self.seed_generator)
            self.add_loss(-0.5 * ops.mean(1 + log_variance - mean**2 - ops.exp(log_variance)))
            return mean + ops.exp(log_variance / 2) * noise

    x = minitl.Input((4,))
    z = Sampling()([layers.Dense(2)(x), layers.Dense(2)(x)])
    model = minitl.Model(x, z)
    model.compile("sgd")
    losses = model.fit(X, epochs=3, verbose=0).history["loss"]
    assert losses[0] > losses[-1] > 0
    assert not np.array_equal(model.predict(X, verbose=0), model.predict(X, verbose=0))


def test_random_numbers_follow_their_seed():
    for draw in (normal, uniform):
        np.testing.assert_array_equal(draw((3, 2), seed=7).numpy(), draw((3, 2), seed=7).numpy())
        assert draw((2,)).dtype == np.float32
        assert not np.array_equal(draw((3,)).numpy(), draw((3,)).numpy())
    assert set(randint((200,), 2, 5, seed=0).numpy()) == {2, 3, 4}


def test_a_random_layer_of_ones_own_is_drawn_anew_in_every_epoch():
    class Noisy(layers.Layer):
        def call(self, x):
            return x + uniform(ops.shape(x))

    noisy = minitl.Sequential([minitl.Input((4,)), Noisy()])
    assert not noisy.fixed(training=True) and noisy.fixed(training=False)


def test_build_is_told_shapes_by_the_arguments_of_call():
    class Both(layers.Layer):
        def build(self, b_shape, a_shape):
            self.found = a_shape, b_shape

        def call(self, a, b):
            return a[:, 0] + b[:, 0]

    class First(layers.Layer):
        def build(self, input_shape):
            self.kernel = self.add_weight(shape=(input_shape[-1], 1))

        def call(self, x, context=None):
            return x @ self.kernel

    class Wrong(layers.Layer):
        def build(self, c_shape, a_shape):
            pass

        def call(self, a, b):
            return a + b

    both, first = Both(), First()
    both(X, b=X[:, :2])
    assert both.found == ((8, 4), (8, 2))
    assert first(X, context=X[:, :1]).shape == (8, 1)
    with pytest.raises(ValueError, match=r"'c_shape' is not '\.\.\._shape' of an argument of call"):
        Wrong()(X, X)


def test_weights_are_not_made_anew_in_every_call():
    class Leaking(layers.Layer):
        def call(self, x):
            return x + self.add_weight("w", ())

    with pytest.raises(ValueError, match="is built: make 'w' in build or __init__, once"):
        Leaking()(X)


def test_softmax_leaves_out_what_the_mask_hides():
    mask = np.array([[True, False, True, True]])
    found = layers.Softmax()(X, mask=mask).numpy()
    np.testing.assert_allclose(found, np.tile([1 / 3, 0, 1 / 3, 1 / 3], (8, 1)), rtol=1e-6)
    assert layers.Softmax()(X, mask=None).numpy() == pytest.approx(0.25)
    with pytest.raises(ValueError, match="does not broadcast"):
        layers.Softmax()(X, mask=mask[:, :3])


def test_embedding_starts_from_given_weights_at_once():
    start = np.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(layers.Embedding(3, 2, weights=[start]).embeddings, start)


def test_models_take_their_inputs_by_name_and_keep_a_dict_of_outputs(tmp_path):
    a, b = minitl.Input((3,), name="a"), minitl.Input((2,), name="b")
    outputs = {"sum": layers.Dense(2)(a) + b, "b": b}
    model = minitl.Model([a, b], outputs)
    given = {"a": X[:, :3], "b": X[:, :2]}
    again = minitl.Model(
        [c := minitl.Input((3,)), d := minitl.Input((2,))], model({"a": c, "b": d})
    )
    for suffix in ("keras", "h5"):
        model.save(tmp_path / f"m.{suffix}")
        loaded = load_model(tmp_path / f"m.{suffix}")
        for other in (loaded(given), again([given["a"], given["b"]])):
            assert sorted(other) == ["b", "sum"]
            np.testing.assert_array_equal(other["sum"].numpy(), model(given)["sum"].numpy())
    with pytest.raises(ValueError, match="none of them optional: nothing is given for b"):
        model({"a": X[:, :3], "b": None})
    with pytest.warns(UserWarning, match="has no inputs c"):
        model(given | {"c": X})


def test_sequentials_say_what_they_are():
    model = minitl.Sequential([layers.Dense(2), layers.Dense(5)])
    assert model.compute_output_shape((1, 3)) == (1, 5)
    with pytest.raises(TypeError, match="has one input"):
        model({"a": X})
    model.build((None, 4))
    with pytest.raises(ValueError, match="4"):
        model.build((None, 3))
    with pytest.raises(AttributeError, match="a Sequential has add and pop"):
        model.layers = []


def test_skip_mismatch_goes_by_order_where_names_are_automatic(tmp_path):
    def make(*units):
        return minitl.Sequential([minitl.Input((3,)), *(layers.Dense(n) for n in units)])

    first, longer = make(4, 5), make(4, 5, 6)
    for suffix in ("keras", "weights.h5"):
        path = tmp_path / f"m.{suffix}"
        (first.save if suffix == "keras" else first.save_weights)(path)
        with pytest.warns(UserWarning, match="keep what they had"):
            longer.load_weights(path, skip_mismatch=True)
        for ours, theirs in zip(longer.layers[:2], first.layers, strict=True):
            np.testing.assert_array_equal(ours.kernel, theirs.kernel)
            ours.kernel.assign(np.zeros(ours.kernel.shape))


def test_layers_in_lists_and_dicts_of_ones_own_layer_are_in_every_file(tmp_path):
    class Held(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.first = layers.Dense(3)
            self.rest = {"some": [layers.Dense(3), layers.Dense(2)]}

        def call(self, x):
            return self.rest["some"][1](self.rest["some"][0](self.first(x)))

    model = minitl.Sequential([minitl.Input((4,)), Held(), layers.Dense(1)])
    for name in ("m.keras", "m.h5"):
        model.save(tmp_path / name)
        loaded = load_model(tmp_path / name, custom_objects={"Held": Held})
        np.testing.assert_array_equal(loaded.predict(X, verbose=0), model.predict(X, verbose=0))
    other = minitl.Sequential([minitl.Input((4,)), Held(), layers.Dense(1)])
    model.save_weights(tmp_path / "m.weights.h5")
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(other.predict(X, verbose=0), model.predict(X, verbose=0))


def test_places_that_change_after_the_forward_pass_change_no_gradient():
    weight, places = minitl.Variable(np.zeros(3)), np.array([0, 0, 1])
    picked = weight[places]
    places[:] = 2
    np.testing.assert_array_equal(minitl.backward(ops.sum(picked), [weight])[0], [2, 1, 0])
