"""The graph: sharing, several inputs and outputs, sub-models, nesting, order, freezing, summary."""

import json
import weakref

import numpy as np
import pytest

from minitl import Model, Sequential, kernels, layers
from minitl.autograd import Tensor, backward, no_grad
from minitl.layers import (
    Add,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Input,
)
from minitl.models import model_from_json

rng = np.random.default_rng(0)


def rows(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def names(model):
    return [layer.name for layer in model.layers]


def relu_dense(x, layer):
    return np.maximum(x @ layer.get_weights()[0] + layer.get_weights()[1], 0)


# --- Running -------------------------------------------------------------------------------------


def test_a_chain_computes_what_its_layers_do():
    a, b = Dense(4, activation="relu"), Dense(3, activation="relu")
    x = Input((5,))
    model = Model(x, b(a(x)))
    data = rows(6, 5)
    expected = relu_dense(relu_dense(data, a), b)
    np.testing.assert_allclose(model.predict(data, verbose=0), expected, rtol=1e-5)
    np.testing.assert_allclose(model(data).storage, expected, rtol=1e-5)
    assert model.input_shape == (None, 5) and model.output_shape == (None, 3)
    assert model.input is x


def test_shared_layer_has_its_weights_once_and_learns_from_both_calls(float64):
    shared = Dense(3, name="shared")
    x, z = Input((3,)), Input((3,))
    model = Model([x, z], Add()([shared(x), shared(shared(z))]))
    assert len(model.weights) == 2 and model.count_params() == 12
    w, b = (v.numpy() for v in shared.weights)
    p, q = rng.standard_normal((2, 4, 3))
    y = model([p, q])
    np.testing.assert_allclose(y.storage, p @ w + b + (q @ w + b) @ w + b)
    g = rng.standard_normal(y.shape)
    (dw,) = backward(y, [shared.kernel], g)
    np.testing.assert_allclose(dw, p.T @ g + q.T @ (g @ w.T) + (q @ w + b).T @ g)


def test_several_inputs_and_outputs():
    a, b = Input((2,), name="a"), Input((3,), name="b")
    joined = Concatenate()([a, b])
    left, right = Dense(1, name="left")(joined), Dense(2, name="right")(joined)
    model = Model([a, b], [left, right, joined])
    assert model.input_names == ["a", "b"]
    assert model.output_names == ["left", "right", "concatenate"]
    assert model.output_shape == [(None, 1), (None, 2), (None, 5)]
    p, q = rows(4, 2), rows(4, 3)
    found = model.predict([p, q], verbose=0)
    assert [f.shape for f in found] == [(4, 1), (4, 2), (4, 5)]
    np.testing.assert_array_equal(found[2], np.concatenate([p, q], axis=1))
    again = model.predict({"b": q, "a": p}, verbose=0)
    assert all(np.array_equal(f, g) for f, g in zip(found, again, strict=True))
    with pytest.raises(ValueError, match=r"keys \['a', 'c'\], expected \['a', 'b'\]"):
        model.predict({"a": p, "c": q}, verbose=0)


def test_sub_models_of_intermediate_tensors():
    x = Input((4,))
    hidden = Dense(3, name="hidden")(x)
    y = Dense(2, name="y")(hidden)
    model = Model(x, y)
    front = Model(model.input, model.get_layer("hidden").output)
    back = Model(hidden, y)  # starts in the middle of the graph
    data = rows(5, 4)
    middle = front.predict(data, verbose=0)
    np.testing.assert_array_equal(back.predict(middle, verbose=0), model.predict(data, verbose=0))
    assert back.input_shape == (None, 3) and names(back)[1:] == ["y"]
    both = Model(hidden, [hidden, y])
    assert np.array_equal(both.predict(middle, verbose=0)[0], middle)


def test_a_model_of_an_input_alone():
    x = Input((2,))
    data = rows(3, 2)
    assert np.array_equal(Model(x, x).predict(data, verbose=0), data)


def test_the_same_tensor_twice():
    x = Input((2,))
    y = Dense(2)(x)
    model = Model(x, [Add()([y, y]), y, y])
    double, once, again = model.predict(rows(3, 2), verbose=0)
    assert np.array_equal(double, 2 * once) and np.array_equal(once, again)
    assert model.output_names == ["add", "dense", "dense_1"]


def test_nested_models_and_a_fixed_training_flag():
    inner = Sequential([Input((6,)), Dropout(0.5), BatchNormalization()], name="inner")
    x = Input((6,))
    free, fixed = Model(x, inner(x)), Model(x, inner(x, training=False))
    data = rows(8, 6)
    quiet = inner(data).storage
    before = inner.get_weights()
    assert np.array_equal(fixed(data, training=True).storage, quiet)
    assert all(np.array_equal(a, b) for a, b in zip(inner.get_weights(), before, strict=True))
    assert not np.array_equal(free(data, training=True).storage, quiet)
    assert names(free)[1:] == ["inner"] and free.get_layer("inner") is inner


def test_a_functional_model_as_first_layer_of_a_sequential():
    """The usual way to put a head on a base; shapes are known at once, as in Keras."""
    x = Input((4, 4, 3))
    base = Model(x, Conv2D(2, 3)(x), name="base")
    model = Sequential([base, Flatten(), Dense(2)])
    assert model.output_shape == (None, 2) and model.input_shape == (None, 4, 4, 3)
    data = rows(2, 4, 4, 3)
    flat = base.predict(data, verbose=0).reshape(2, -1)
    w, b = model.layers[-1].get_weights()
    np.testing.assert_allclose(model.predict(data, verbose=0), flat @ w + b, rtol=1e-5)


def test_values_are_dropped_when_their_last_reader_has_read_them():
    alive = []

    class Probe(layers.Layer):
        def call(self, x):
            import gc

            gc.collect()
            # By type: `isinstance` asks a weak proxy for the class of what may be gone.
            alive.append(sum(issubclass(type(o), Tensor) for o in gc.get_objects()))
            return x + 1.0

    x = y = Input((3,))
    for _ in range(8):
        y = Probe()(y)
    alive.clear()
    with no_grad():
        Model(x, y)(rows(1, 3))
    assert max(alive) - min(alive) <= 1


def test_what_a_convolution_with_its_pool_has_read_is_dropped():
    reference, alive = [], []

    class First(layers.Layer):
        def call(self, x):
            y = x + 1.0
            reference.append(weakref.ref(y.storage))
            return y

    class Last(layers.Layer):
        def call(self, x):
            alive.append(reference[0]() is not None)
            return x + 1.0

    x = Input((8, 8, 3))
    y = layers.MaxPooling2D()(Conv2D(4, 3, padding="same", activation="relu")(First()(x)))
    model = Model(x, Last()(y))
    reference.clear(), alive.clear()  # of the runs that found the shapes
    model.predict(rows(1, 8, 8, 3), verbose=0)
    assert alive == [False]


def test_open_shapes():
    x = Input((None, None, 3))
    model = Model(x, layers.GlobalAveragePooling2D()(Conv2D(4, 3)(x)))
    assert model.predict(rows(1, 5, 7, 3), verbose=0).shape == (1, 4)
    assert model.predict(rows(2, 9, 3, 3), verbose=0).shape == (2, 4)
    assert model.compute_output_shape((None, 9, 9, 3)) == (None, 4)


# --- Graphs that are wrong -----------------------------------------------------------------------


def test_disconnected_graphs():
    a, b = Input((2,), name="a"), Input((2,), name="b")
    y = Add()([a, b])
    with pytest.raises(ValueError, match=r"graph disconnected: .* input 'b', .* inputs \['a'\]"):
        Model(a, y)
    with pytest.raises(ValueError, match=r"no output depends on the input 'b'"):
        Model([a, b], Dense(1)(a))


def test_one_name_twice():
    x = Input((2,))
    y = Dense(2, name="same")(Dense(2, name="same")(x))
    with pytest.raises(ValueError, match=r"must be unique in a model; used more than once: same"):
        Model(x, y)
    model = Sequential([Input((2,)), Dense(2, name="same")])
    with pytest.raises(ValueError, match=r"already has a layer named 'same'"):
        model.add(Dense(3, name="same"))
    assert model.output_shape == (None, 2)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda x: Model(x), TypeError, "Model needs inputs and outputs"),
        (lambda x: Model(x, np.ones(3)), TypeError, "outputs of a Model are symbolic .* ndarray"),
        (lambda x: Model(x, []), ValueError, "a Model needs outputs"),
        (lambda x: Model([x, x], Dense(1)(x)), ValueError, "same tensor is given twice"),
        (lambda x: Model(x, x, nme="m"), TypeError, r"Model\(\) has no argument 'nme'. .*'name'"),
        (lambda x: Sequential([3]), TypeError, "a layer of a Sequential must be a Layer, got 3"),
        (lambda x: Sequential([Dense(1), x]), ValueError, "an Input comes first"),
    ],
)
def test_what_is_no_model(make, kind, message):
    with pytest.raises(kind, match=message):
        make(Input((2,)))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 4, 3), r"takes inputs of shape \(None, 4, 4, 3\), got \(4, 4, 3\).*x\[np.newaxis\]"),
        ((2, 3, 4, 4), "channels seem to come first"),
        ((2, 4, 4, 1), r"Gray images become RGB with minitl.data.to_rgb"),
        ((2, 4, 4), r"Gray images"),
        ((2, 5, 4, 3), r"\(None, 4, 4, 3\), got \(2, 5, 4, 3\)"),
    ],
)
def test_arrays_that_do_not_fit(shape, message):
    x = Input((4, 4, 3))
    model = Model(x, Flatten()(x), name="net")
    for use in (model.predict, model):
        with pytest.raises(ValueError, match=message):
            use(np.zeros(shape, np.float32))


def test_wrong_number_of_inputs():
    a, b = Input((2,)), Input((2,))
    model = Model([a, b], Add()([a, b]), name="net")
    with pytest.raises(ValueError, match=r"'net' has 2 inputs.*, got 1"):
        model.predict([rows(3, 2)], verbose=0)
    with pytest.raises(ValueError, match=r"'net' has 2 inputs, got 1"):
        model(rows(3, 2))


def test_get_layer():
    x = Input((2,), name="x")
    model = Model(x, Dense(2, name="block1_conv1")(x), name="net")
    assert model.get_layer(index=1) is model.get_layer("block1_conv1") is model.layers[-1]
    with pytest.raises(
        ValueError, match=r"'net' has no layer 'block1_conv2'. Did you mean 'block1_"
    ):
        model.get_layer("block1_conv2")
    with pytest.raises(ValueError, match=r"has 2 layers, no index 2"):
        model.get_layer(index=2)
    with pytest.raises(ValueError, match=r"either a name or an index"):
        model.get_layer()


# --- Keras's order of layers (the names below are what Keras 3.15 lists) -------------------------


def test_order_of_layers():
    a, b, e = Input((4,), name="a"), Input((4,), name="b"), Input((4,), name="e")
    c = Dense(4, name="c")(a)
    assert names(Model([a, b], Add(name="add")([c, b]))) == ["a", "c", "b", "add"]
    assert names(Model([b, a], Add(name="add2")([b, c]))) == ["a", "b", "c", "add2"]
    x = Input((4,), name="x")
    right = Dense(4, name="r2")(Dense(4, name="r1")(x))
    model = Model(x, Concatenate(name="cat")([Dense(4, name="l")(x), right]))
    assert names(model) == ["x", "r1", "l", "r2", "cat"]
    shared = Dense(4, name="shared")
    y = shared(x)
    z = shared(Dense(4, name="d")(y))
    assert names(Model(x, [z, y])) == names(Model(x, [y, z])) == ["x", "shared", "d"]
    model = Model(x, [Dense(4, name="o2")(y), Dense(4, name="o1")(z)])
    assert names(model) == ["x", "shared", "d", "o2", "o1"]
    late = Dense(2, name="late")(e)
    s1 = Add(name="s1")([Dense(4, name="p")(a), Dense(4, name="q2")(Dense(4, name="q")(b))])
    assert names(Model([a, b, e], [s1, late])) == ["b", "a", "q", "p", "q2", "e", "s1", "late"]


# --- Freezing ------------------------------------------------------------------------------------


def small_net():
    x = Input((3,))
    y = x
    for i in range(4):
        y = Dense(3, name=f"d{i}", activation="sigmoid")(y)
    return Model(x, y)


def test_trainable_reaches_all_layers_and_can_be_undone_for_some():
    model = small_net()
    model.trainable = False
    assert model.trainable_weights == [] and not model.get_layer("d3").trainable
    model.get_layer("d3").trainable = True
    assert [v.name for v in model.trainable_weights] == ["kernel", "bias"]
    assert len(model.weights) == 8
    model.trainable = True
    assert len(model.trainable_weights) == 8
    assert Model(model.input, model.output, trainable=False).trainable_weights == []


def test_gradients_pass_through_a_frozen_layer(float64):
    model = small_net()
    data = rng.standard_normal((5, 3))
    g = rng.standard_normal((5, 3))
    everything = backward(model(data), model.trainable_weights, g)
    model.get_layer("d2").trainable = False
    rest = backward(model(data), model.trainable_weights, g)
    assert len(rest) == 6
    for a, b in zip(everything[:4] + everything[6:], rest, strict=True):
        np.testing.assert_array_equal(a, b)


# --- Sequential ----------------------------------------------------------------------------------


def test_sequential_learns_its_shapes_from_data():
    model = Sequential([Dense(3), Dense(2)])
    assert model.weights == []
    assert model.predict(rows(4, 5), verbose=0).shape == (4, 2)
    assert model.output_shape == (None, 2) and len(model.weights) == 4
    built = Sequential([Dense(3), Dense(2)])
    built.build((None, 5))
    assert built.count_params() == model.count_params() == 3 * 6 + 2 * 4


def test_sequential_add_and_pop():
    model = Sequential([Input((4,)), Dense(3)])
    head = Dense(2)
    model.add(head)
    assert model.output_shape == (None, 2) and model.layers[-1] is head
    assert head.input.shape == (None, 3)  # each layer was called once
    assert model.pop() is head and model.output_shape == (None, 3)
    model.pop()
    with pytest.raises(ValueError, match=r"has no layers yet"):
        model(rows(1, 4))
    with pytest.raises(ValueError, match=r"no layers to remove"):
        model.pop()
    model.add(Dense(1))
    assert model.output_shape == (None, 1)


def test_sequential_after_a_shape_that_did_not_fit():
    model = Sequential([Dense(2), Conv2D(2, 3)])
    with pytest.raises(ValueError, match=r"takes an input of 4 axes"):
        model.predict(rows(2, 5), verbose=0)
    assert model.weights == []
    assert model.predict(rows(1, 4, 4, 3), verbose=0).shape == (1, 2, 2, 2)
    started = Sequential([Input((5,))])
    with pytest.raises(ValueError, match=r"takes an input of 4 axes"):
        started.add(Conv2D(2, 3))
    started.add(Dense(2))
    assert names(started) == ["dense_1"]


def test_sequential_learns_its_shape_from_the_first_batch():
    model = Sequential([Dense(1)], name="net")
    with pytest.raises(ValueError, match=r"needs an input shape"):
        model.build()
    model.compile("sgd", "mse")
    batches = [(np.full((2, 3), i), np.full((2, 1), i)) for i in range(3)]
    for data in (iter(batches), batches.__iter__()):
        model.fit(data, verbose=0)
    assert model.input_shape == (None, 3)


# --- Summary and configuration -------------------------------------------------------------------


def summary(model, **options):
    texts = []
    model.summary(print_fn=texts.append, **options)
    return "\n".join(texts)


def test_summary():
    x = Input((8, 8, 3), name="x")
    y = Conv2D(4, 3, name="conv")(x)
    y = BatchNormalization(name="bn")(y)
    model = Model(x, Dense(2, name="head")(Flatten(name="flat")(y)), name="net")
    model.get_layer("conv").trainable = False
    text = summary(model)
    lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    assert ["conv (Conv2D)", "(None, 6, 6, 4)", "112", "3,888", "no"] in lines
    assert ["bn (BatchNormalization)", "(None, 6, 6, 4)", "16", "0", "yes"] in lines
    assert ["head (Dense)", "(None, 2)", "290", "288", "yes"] in lines
    assert 'Model: "net"' in text
    assert " Total params: 418 (1.63 KB)" in text
    assert " Trainable params: 298 " in text and " Non-trainable params: 120 " in text
    assert " Multiply-adds per sample: 4,176" in text
    assert "Connected to" not in text
    width = {len(line) for line in summary(model, line_length=120).splitlines() if "-+-" in line}
    assert width == {120}


def test_summary_of_branches_and_nested_models():
    inner = Sequential([Input((2,)), Dense(2, name="deep")], name="inner")
    x = Input((2,), name="x")
    model = Model(x, Add(name="sum")([inner(x), x]))
    assert "Connected to" in summary(model) and "inner, x" in summary(model)
    assert "deep" not in summary(model)
    assert "  deep (Dense)" in summary(model, expand_nested=True)


def test_summary_before_shapes_are_known():
    assert "?" in summary(Sequential([Dense(2)]))


def test_configuration_makes_the_same_graph():
    x, z = Input((4,), name="x"), Input((4,), name="z")
    shared = Dense(4, name="shared", activation="relu")
    inner = Sequential([Input((4,)), Dropout(0.5), Dense(2, name="deep")], name="inner")
    joined = Concatenate(name="cat")([shared(x), shared(shared(z)), x])
    model = Model([x, z], [Dense(2)(joined), inner(shared(x), training=False)], name="net")
    again = model_from_json(model.to_json())
    assert json.loads(again.to_json()) == json.loads(model.to_json())
    assert names(again) == names(model)
    again.set_weights(model.get_weights())
    data = [rows(3, 4), rows(3, 4)]
    for a, b in zip(model(data, training=True), again(data, training=True), strict=True):
        assert np.array_equal(a.storage, b.storage)


def test_configuration_of_a_sub_model():
    """Calls outside the model do not count: indices start anew."""
    x = Input((4,))
    shared = Dense(4, name="shared")
    first = shared(x)
    second = shared(first)
    model = Model(first, second)
    again = model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    data = rows(2, 4)
    assert np.array_equal(model.predict(data, verbose=0), again.predict(data, verbose=0))


def test_set_weights_of_a_model_is_all_or_nothing():
    model = small_net()
    before = model.get_weights()
    wrong = [w + 1 for w in before]
    wrong[5] = np.ones(7)
    with pytest.raises(ValueError, match=r"bias: expected numbers \(3,\), found float64 \(7,\)"):
        model.set_weights(wrong)
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))


def test_a_convolution_pools_in_one_pass_only_where_nobody_needs_its_output(monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 8, 8)).astype(np.float32)
    inputs = layers.Input((8, 8, 8))
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="c1")(inputs)
    z = layers.Conv2D(8, 3, padding="same", name="c2")(layers.MaxPooling2D()(y))
    pooled = layers.MaxPooling2D()(z)
    plain, both = Model(inputs, pooled), Model(inputs, [pooled, z])
    a, (b, _) = plain.predict(x, verbose=0), both.predict(x, verbose=0)
    np.testing.assert_array_equal(a, b)
    calls, in_one_pass = [], kernels.conv2d_max_pool2d
    monkeypatch.setattr(
        kernels, "conv2d_max_pool2d", lambda *args: calls.append(1) or in_one_pass(*args)
    )
    plain(x)  # recorded: both kernels may learn, so both outputs are kept
    assert len(calls) == 0
    plain.get_layer("c1").trainable = False
    plain(x)  # nothing below c2 needs a gradient
    assert len(calls) == 1
    with no_grad():
        plain(x)
    assert len(calls) == 3
    both.predict(x, verbose=0)  # z is an output
    assert len(calls) == 4


def test_a_layer_inside_another_model_is_named():
    x = Input((8, 8, 3))
    base = Model(x, Conv2D(4, 3, name="block5_conv1")(x), name="base")
    model = Sequential([Input((8, 8, 3)), base, Flatten()])
    message = r"no layer 'block5_conv1'. It is inside 'base': get_layer\('base'\).get_layer\("
    with pytest.raises(ValueError, match=message):
        model.get_layer("block5_conv1")


def test_an_activation_that_is_taken_away():
    model = Sequential([Input((2,)), Dense(2, "softmax", kernel_initializer="ones")])
    model.layers[0].activation = None
    assert model.predict(np.ones((1, 2)), verbose=0).tolist() == [[2, 2]]
    model.layers[0].activation = "relu"
    assert model.predict(-np.ones((1, 2)), verbose=0).tolist() == [[0, 0]]


@pytest.mark.parametrize("given", [{"input_shape": (3,)}, {"input_shape": [3]}, {"input_dim": 3}])
def test_a_sequential_begins_with_what_its_first_layer_says(given):
    model = Sequential([Dense(2, **given), Dense(1, input_shape=(7,))])  # of others it is idle
    assert model.input_shape == (None, 3) and model.output_shape == (None, 1)
    with pytest.raises(TypeError, match="no argument 'input_shap'"):
        Dense(2, input_shap=(3,))


def test_a_tuple_of_outputs_stays_one():
    x = Input((2,))
    model = Model(x, (Dense(1)(x), Dense(3)(x)))
    found = model(np.ones((4, 2)))
    assert isinstance(found, tuple) and [y.shape for y in found] == [(4, 1), (4, 3)]
    first, second = outer = model(Input((2,)))
    assert isinstance(outer, tuple) and (first.shape, second.shape) == ((None, 1), (None, 3))
    assert isinstance(model.predict(np.ones((4, 2)), verbose=0), tuple)
