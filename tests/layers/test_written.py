"""Layers that a user wrote: what is inside them is found, and `call` says what they give."""

import numpy as np
import pytest

from minitl import Model, Sequential, layers, optimizers
from minitl.autograd import Variable
from minitl.layers import Dense, Input, Layer


class Block(Layer):
    """Layers as attributes, in a list, and in a dict within a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = Dense(2)
        self.others = [Dense(2), {"last": Dense(2)}]
        self.drop = layers.Dropout(0.5)

    def call(self, x):
        return self.drop(self.others[1]["last"](self.others[0](self.first(x))))


def test_layers_inside_are_counted_trained_frozen_and_saved(tmp_path):
    model = Sequential([Input((3,)), Block(), Dense(1)])
    assert model.count_params() == (3 * 2 + 2) + 2 * (2 * 2 + 2) + 3
    model.compile(optimizers.SGD(0.1), "mse")
    before = model.get_weights()
    model.fit(np.ones((4, 3)), np.ones((4, 1)), verbose=0)
    assert all(not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    model.layers[0].trainable = False
    assert len(model.trainable_weights) == 2
    assert not model.layers[0].others[1]["last"].trainable


def test_a_list_that_grows_after_it_was_kept():
    class Stack(Layer):
        def __init__(self):
            super().__init__(trainable=False)
            self.blocks = []
            for _ in range(3):
                self.blocks.append(Dense(2))

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    stack = Stack()
    stack(np.ones((1, 2)))
    assert len(stack.weights) == 6 and not stack.trainable_weights


def test_layers_made_in_build_are_frozen_with_the_layer():
    class Late(Layer):
        def build(self, input_shape):
            self.inner = Dense(2)
            self.inner.build(input_shape)

        def call(self, x):
            return self.inner(x)

    late = Late(trainable=False)
    late.build((None, 3))
    assert late.built and len(late.weights) == 2 and not late.trainable_weights


def test_training_comes_from_the_call_around():
    block = Block()
    x = np.ones((50, 3), np.float32)
    assert (block(x).numpy() != 0).all()
    rng = np.random.default_rng(0)
    assert 0.2 < (block(x, training=True, rng=rng).numpy() == 0).mean() < 0.8
    assert (block(x, training=False).numpy() != 0).all()


def test_build_by_hand_holds():
    layer = Dense(2, use_bias=False)
    layer.build((None, 2))
    layer.set_weights([np.array([[1.0, -2.0], [3.0, -4.0]])])
    layer.build((None, 2))
    assert layer(np.array([[-1.0, 2.0]])).numpy().tolist() == [[5, -6]]
    norm = layers.BatchNormalization()
    norm.build((None, 3))
    norm(np.ones((2, 3)))
    assert norm.built and len(norm.weights) == 4
    with pytest.raises(ValueError, match="built for inputs whose last axis is 2"):
        layer(np.ones((1, 3)))


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (lambda x: x[:, :2], (None, 2, 5)),
        (lambda x: x.sum(axis=1), (None, 5)),
        (lambda x: x.reshape((-1, 5)), (None, 5)),
        (lambda x: x.reshape((x.shape[0], -1)), (None, 20)),
    ],
)
def test_the_shape_is_what_call_returns(call, shape):
    class Own(Layer):
        def call(self, x):
            return call(x)

    assert Own()(Input((4, 5))).shape == shape


def test_axes_of_any_size_stay_so():
    class Halved(Layer):
        def call(self, x):
            return x[:, ::2, ::2]

    class Pair(Layer):
        def call(self, x):
            return x, x.sum(axis=-1)

    assert Halved()(Input((None, 8, 3))).shape == (None, None, 4, 3)
    assert [t.shape for t in Pair()(Input((4,)))] == [(None, 4), (None,)]


def test_weights_without_names_and_variables():
    class Own(Layer):
        def __init__(self):
            super().__init__()
            self.scale = Variable(np.ones(3, np.float32), name="scale")
            self.made = [self.add_weight(shape=(3,)), self.add_weight((3,), "ones")]

        def call(self, x):
            return x * self.scale + self.made[0] * self.made[1]

    layer = Own()
    assert [v.shape for v in layer.weights] == [(3,)] * 3
    layer.trainable = False
    assert not layer(np.ones((1, 3))).requires_grad


def test_what_is_kept_too_early_or_never():
    class Early(Layer):
        def __init__(self):
            self.inner = Dense(2)
            super().__init__()

    class Never(Layer):
        def __init__(self):
            pass

    with pytest.raises(RuntimeError, match=r"Early.__init__ begins with super\(\).__init__\(\)"):
        Early()
    with pytest.raises(RuntimeError, match=r"Never.__init__ does not call super\(\).__init__"):
        Never()


class Attend(Layer):
    """Two arguments, and a setting."""

    def call(self, query, value, scale=1.0):
        return query * scale + value.sum(axis=1)


def test_several_arguments():
    query, value = Input((3,)), Input((5, 3))
    out = Attend()(query, value=value, scale=2.0)
    assert out.shape == (None, 3)
    model = Model([query, value], out)
    q, v = np.ones((2, 3), np.float32), np.ones((2, 5, 3), np.float32)
    assert model.predict([q, v], verbose=0).tolist() == [[7.0] * 3] * 2
    assert Attend()(q, v).numpy().tolist() == [[6.0] * 3] * 2
    with pytest.raises(TypeError, match=r"Attend.call\(\) has no argument 'sclae'.*'scale'"):
        Attend()(q, v, sclae=2.0)


def test_dicts_in_and_out():
    class Both(Layer):
        def call(self, inputs):
            return {"sum": inputs["a"] + inputs["b"], "half": inputs["a"][:, :1]}

    a, b = Input((2,), name="a"), Input((2,), name="b")
    found = Both()({"b": b, "a": a})
    assert {name: t.shape for name, t in found.items()} == {"sum": (None, 2), "half": (None, 1)}
    model = Model([a, b], [found["sum"], found["half"]])
    one, two = np.ones((1, 2)), np.full((1, 2), 2.0)
    total, half = model.predict({"a": one, "b": two}, verbose=0)
    assert total.tolist() == [[3, 3]] and half.tolist() == [[1]]
    assert Both()({"a": one, "b": two})["sum"].numpy().tolist() == [[3, 3]]


def test_training_by_place():
    block = Block()
    assert (block(np.ones((9, 3)), False).numpy() != 0).all()
