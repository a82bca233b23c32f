"""Where a model is cut: the cheapest place, and never above something that learns."""

import numpy as np
import pytest

from minitl import Layer, Model, Sequential
from minitl.layers import (
    Add,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    Input,
    MaxPooling2D,
    ZeroPadding2D,
)
from minitl.models.opened import open_up
from minitl.transfer import cut as cut_module
from minitl.transfer.cut import Views, find_cut, first_random


@pytest.fixture(autouse=True)
def nearly_free_reading(monkeypatch):
    """Small layers are worth keeping, too."""
    monkeypatch.setattr(cut_module, "NUMBER", 1)


def conv(filters=4, name=None, trainable=False):
    return Conv2D(filters, 3, padding="same", name=name, trainable=trainable)


def frozen_base(side=8, name="base"):
    x = Input((side, side, 3))
    y = MaxPooling2D(name="pool")(conv(4, "conv1")(x))
    y = conv(6, "conv2")(y)
    return Model(x, y, name=name)


def kept(model, **settings):
    cut = find_cut(model, **settings)
    return None if cut is None else [t.name for t in cut.kept]


def test_behind_the_last_frozen_layer():
    base = frozen_base()
    model = Model(base.input, Dense(2)(Flatten(name="flat")(base.output)))
    cut = find_cut(model)
    assert [t.name for t in cut.kept] == ["flat"]
    assert cut.saved == 64 * 27 * 4 + 16 * 36 * 6
    assert cut.work == cut.saved + 96 * 2
    assert [layer.name for layer in cut.above.layers] == [model.layers[-1].name]


def test_where_there_is_least_to_keep():
    x = Input((8, 8, 3))
    y = MaxPooling2D(4, name="small")(conv()(x))
    wide = ZeroPadding2D(2)(y)
    assert kept(Model(x, Conv2D(2, 3)(wide))) == ["small"]  # before what makes it larger
    pooled = GlobalAveragePooling2D(name="pooled")(y)
    assert kept(Model(x, Dense(1)(pooled))) == ["pooled"]  # behind what makes it smaller
    both = Concatenate()([pooled, Flatten()(y)])
    assert kept(Model(x, Dense(1)(both))) == ["small"]  # from which all the rest comes


def test_inside_a_model_that_is_a_layer():
    base = frozen_base()
    base.get_layer("conv2").trainable = True
    model = Sequential([Input((8, 8, 3)), base, Flatten(), Dense(2)])
    assert kept(model) == ["pool"]
    base.trainable = False
    assert kept(model) == ["flatten"] or kept(model)[0].startswith("flatten")
    base.trainable = True
    assert kept(model) is None


def test_frozen_layers_between_trainable_ones_stay():
    x = Input((8, 8, 3))
    y = conv(name="low")(x)
    y = conv(name="learns", trainable=True)(y)
    y = conv(name="between")(y)
    cut = find_cut(Model(x, Dense(2)(Flatten()(y))))
    assert [t.name for t in cut.kept] == ["low"]
    assert "between" in [layer.name for layer in cut.above.layers]


def test_branches_and_several_inputs():
    a, b = Input((8, 8, 3), name="a"), Input((5,), name="b")
    left = GlobalAveragePooling2D(name="left")(conv()(a))
    right = Dense(300, trainable=False)(Dense(3, name="right", trainable=False)(b))
    free = Dense(2)(b)
    model = Model([a, b], Dense(2)(Concatenate()([left, right, free])))
    cut = find_cut(model)
    assert sorted(t.name for t in cut.kept) == sorted(["left", right.name])
    assert cut.inputs == [1]  # `free` reads b itself
    cut_module.NUMBER = 4  # 300 numbers cost more than the product that makes them
    assert sorted(kept(model)) == ["left", "right"]


def test_a_residual_connection_keeps_both_ways():
    x = Input((8, 8, 4))
    low = conv(4, "low")(x)
    y = Add()([conv(4, trainable=True)(low), low])
    assert kept(Model(x, GlobalAveragePooling2D()(y))) == ["low"]


def test_nothing_is_kept_where_nothing_is_saved():
    x = Input((8, 8, 3))
    assert kept(Model(x, Dense(2)(Flatten()(x)))) is None
    assert kept(Model(x, Dense(2)(GlobalAveragePooling2D()(x)))) is None
    cut_module.NUMBER = 100  # the first layer of VGG16: 27 multiply-adds for each number it gives
    assert kept(Model(x, Dense(2)(Flatten()(conv(64)(x))))) is None


def test_batch_normalization():
    x = Input((8, 8, 3))
    normal = BatchNormalization(name="normal", center=False, scale=False)
    y = normal(conv(name="low")(x))
    model = Model(x, Dense(2)(GlobalAveragePooling2D(name="pooled")(y)))
    assert kept(model) == ["low"]  # its averages follow the batches
    assert kept(model, training=False) == ["low"]
    normal.trainable = False
    assert kept(model) == ["pooled"]


def test_random_layers():
    x = Input((8, 8, 3))
    low = conv(name="low")(x)
    y = GlobalAveragePooling2D(name="pooled")(conv()(Dropout(0.5, name="drop")(low)))
    model = Model(x, Dense(2)(y))
    assert kept(model) == ["low"]
    assert kept(model, training=False) == ["pooled"]
    early = Model(x, Dense(2)(Flatten()(conv()(Dropout(0.5, name="early")(x)))))
    assert kept(early) is None
    assert first_random(early) == "early"
    assert first_random(model) == "drop"
    pinned = Dropout(0.5)(low, training=False)
    assert kept(Model(x, Dense(2)(GlobalAveragePooling2D(name="pool")(pinned)))) == ["pool"]


class Noise(Layer):
    """A user's layer that draws its own numbers in training, without declaring it."""

    def call(self, x, training=False, rng=None):
        return x + rng.standard_normal(x.shape) if training else x


class Twice(Layer):
    def call(self, x):
        return x * 2.0


def test_layers_of_the_users():
    x = Input((8, 8, 3))
    low = conv(name="low")(x)
    assert kept(Model(x, Dense(1)(GlobalAveragePooling2D()(Noise(trainable=False)(low))))) == [
        "low"
    ]
    y = GlobalAveragePooling2D(name="pool")(Twice()(low))
    assert kept(Model(x, Dense(1)(y))) == ["pool"]


def test_a_cut_holds_until_something_below_it_changes():
    base = frozen_base()
    head = Dense(2)
    model = Model(base.input, head(Flatten()(base.output)))
    cut = find_cut(model)
    head.kernel.assign(np.zeros(head.kernel.shape))
    assert cut.holds()
    base.get_layer("conv1").trainable = True
    assert not cut.holds()
    base.get_layer("conv1").trainable = False
    assert cut.holds()
    base.get_layer("conv1").bias.assign(np.ones(4))
    assert not cut.holds()


def test_two_cuts_keep_the_same_only_of_the_same_layers():
    base = frozen_base()
    model = Model(base.input, Dense(2)(Flatten()(base.output)))
    assert find_cut(model).same_as(find_cut(model))
    before = find_cut(model)
    base.get_layer("pool").strides = (1, 1)
    assert not find_cut(model).same_as(before)


def test_key_says_what_it_depends_on():
    base = frozen_base(name="one")
    again = frozen_base(name="two")
    again.set_weights(base.get_weights())
    keys = [find_cut(Model(b.input, Dense(2)(Flatten()(b.output)))).key() for b in (base, again)]
    assert keys[0] == keys[1]  # names do not count
    again.get_layer("conv1").bias.assign(np.ones(4))
    changed = find_cut(Model(again.input, Dense(2)(Flatten()(again.output)))).key()
    assert [n for n in changed if changed[n] != keys[0][n]] == ["weights"]
    x = Input((8, 8, 3))
    other = Model(x, Dense(2)(Flatten()(conv(6)(MaxPooling2D(pool_size=2)(conv(4)(x))))))
    activation = Conv2D(6, 3, padding="same", activation="relu", trainable=False)
    relu = Model(x, Dense(2)(Flatten()(activation(MaxPooling2D(pool_size=2)(conv(4)(x))))))
    assert find_cut(other).key()["architecture"] == keys[0]["architecture"]
    assert find_cut(relu).key()["architecture"] != keys[0]["architecture"]


def test_both_parts_together_are_the_model():
    base = frozen_base()
    base.get_layer("conv2").trainable = True
    a = Input((8, 8, 3))
    y = Dense(2)(Flatten()(base(Twice()(a))))
    model = Model(a, y)
    x = np.random.default_rng(0).standard_normal((3, 8, 8, 3)).astype(np.float32)
    cut = find_cut(model)
    below = [t.storage for t in cut.below.run([x])]
    np.testing.assert_array_equal(cut.above.run(below)[0].storage, model.predict(x, verbose=0))
    whole = open_up(model).run([x])[0].storage
    np.testing.assert_array_equal(whole, model.predict(x, verbose=0))


def test_shapes_of_the_data_decide_where_the_model_leaves_them_open():
    x = Input((None, None, 3))
    model = Model(x, conv(trainable=True)(conv(name="low")(x)))
    assert find_cut(model, shapes=[(5, 6, 7, 3)]).shapes == [(6, 7, 4)]


def test_seeds_of_views():
    seeds = Views(1, 0, np.arange(1000)).seeds(3)
    assert seeds.dtype == np.uint64
    assert len(set(seeds.tolist())) == 1000
    np.testing.assert_array_equal(Views(1, 0, np.array([7, 2])).seeds(3), seeds[[7, 2]])
    for other in (Views(2, 0, np.arange(9)), Views(1, 1, np.arange(9))):
        assert not (other.seeds(3) == seeds[:9]).any()
    assert not (Views(1, 0, np.arange(9)).seeds(4) == seeds[:9]).any()
