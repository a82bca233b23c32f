"""Calls that are computed at once: which they are, that they give the same, and that nothing of it
is stale, moves, or reaches training and files."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from minitl import kernels, layers, ops
from minitl.applications import MobileNetV2
from minitl.autograd import Tensor, backward, no_grad
from minitl.kernels import use_kernels
from minitl.layers import Input
from minitl.models import Model, chains, fusing
from minitl.utils import set_random_seed
from tests.tolerances import gamma

rng = np.random.default_rng(0)
IMAGES = rng.standard_normal((3, 12, 12, 5)).astype("f")


def batch_norm(x, name):
    return layers.BatchNormalization(
        epsilon=1e-5,
        gamma_initializer="random_uniform",
        beta_initializer="random_normal",
        moving_mean_initializer="random_normal",
        name=name,
    )(x)


def residual(relu=lambda name: layers.Activation("relu", name=name)):
    """A stem with paddings, a block that projects and one that does not: all roles."""
    x = inputs = layers.Input((12, 12, 5))
    y = layers.ZeroPadding2D(((2, 1), (1, 2)), name="pad")(x)
    y = batch_norm(layers.Conv2D(8, 3, 2, name="stem")(y), "stem_bn")
    y = layers.ZeroPadding2D(1, name="margin")(relu("stem_relu")(y))
    x = layers.MaxPooling2D(3, 2, name="pool")(y)
    for block in ("a", "b"):
        y = layers.Conv2D(8, 3, padding="same", use_bias=False, name=f"{block}1")(x)
        y = relu(f"{block}1_relu")(batch_norm(y, f"{block}1_bn"))
        y = batch_norm(layers.Conv2D(16, 1, name=f"{block}2")(y), f"{block}2_bn")
        if block == "a":
            x = batch_norm(layers.Conv2D(16, 1, name="a0")(x), "a0_bn")
        x = relu(f"{block}_relu")(layers.Add(name=f"{block}_add")([x, y]))
    model = Model(inputs, layers.GlobalAveragePooling2D()(x))
    weights = [
        rng.uniform(0.5, 2, v.shape) if v.name in ("gamma", "moving_variance") else v.numpy()
        for v in model.weights
    ]
    model.set_weights(weights)
    return model


def names(model):
    steps = fusing.steps(model.graph)
    return [" ".join(call.layer.name for call in getattr(s, "calls", [s])) for s in steps]


def one_by_one(model, x):
    together, model.graph.together = model.graph.together, model.graph.calls
    y = model.predict(x, verbose=0)
    model.graph.together = together
    return y


def clone_of(model):
    other = residual()
    other.set_weights(model.get_weights())
    return other


def test_what_runs_at_once():
    assert names(residual())[:-1] == [
        "pad stem stem_bn stem_relu margin pool",
        "a0 a0_bn",
        "a1 a1_bn a1_relu",
        "a2 a2_bn a_add a_relu",
        "b1 b1_bn b1_relu",
        "b2 b2_bn b_add b_relu",
    ]


def test_summary_shows_it_and_reference_kernels_switch_it_off():
    texts = []
    residual().summary(print_fn=texts.append, fused=True)
    lines = [line for line in texts[0].splitlines() if "at once" in line]
    assert lines[1:3] == [
        " Computed at once by predict: a0 + a0_bn",
        " Computed at once by predict: a1 + a1_bn + a1_relu",
    ]
    with use_kernels("reference"):
        residual().summary(print_fn=texts.append, fused=True)
    residual().summary(print_fn=texts.append)
    assert not any("at once" in text for text in texts[1:])


def test_layers_that_do_not_fit_stay_alone():
    class Mine(layers.BatchNormalization):
        pass

    x = layers.Input((8, 8, 4))
    conv = layers.Conv2D(4, 3, name="conv")
    read_twice = conv(x)
    y = layers.Subtract(name="less")([layers.BatchNormalization(name="n")(read_twice), read_twice])
    y = Mine(name="mine")(layers.Conv2D(4, 1, name="own")(y))
    y = layers.BatchNormalization(name="late")(layers.Conv2D(4, 1, activation="relu", name="r")(y))
    y = layers.Activation("tanh", name="tanh")(layers.Conv2D(4, 1, name="t")(y))
    y = layers.ReLU(7.0, name="seven")(layers.Conv2D(4, 1, name="s")(y))
    y = layers.Conv2D(4, 3, padding="same", name="same")(layers.ZeroPadding2D(1, name="p")(y))
    y = layers.MaxPooling2D(2, name="m")(layers.ZeroPadding2D(1, name="not_relu")(y))
    y = layers.Conv2D(4, 1, name="far")(layers.ZeroPadding2D(1, name="wide")(y))
    model = Model(x, y)
    assert not any(" " in each for each in names(model))


@pytest.mark.parametrize("which", ["fast", "reference"])
def test_at_once_and_one_by_one_agree_within_the_bound(which):
    """One convolution with everything behind it: y = relu(sum + shift + added). A folded weight is
    rounded once more, and the scale of the one by one four times; all relative to |x| * |k| |s|."""
    x = inputs = layers.Input((12, 12, 5))
    y = layers.Conv2D(16, 1, strides=2, bias_initializer="random_normal")(x)
    y = batch_norm(y, "n")
    other = layers.Conv2D(16, 1, strides=2)(x)
    model = Model(inputs, layers.ReLU()(layers.Add()([other, y])))
    conv, norm, branch = (model.layers[i] for i in (1, 2, 3))
    if not isinstance(norm, layers.BatchNormalization):
        norm, branch = branch, norm
    with use_kernels(which):
        found, apart = model.predict(IMAGES, verbose=0), one_by_one(model, IMAGES)
    wide = [abs(v.numpy().astype("d")) for v in (*conv.weights, *norm.weights, *branch.weights)]
    k, b, g, beta, mean, variance, k2, b2 = wide
    scale = g / np.sqrt(variance + norm.epsilon)
    a = abs(IMAGES[:, ::2, ::2].astype("d"))
    size = (a @ k[0, 0] + b + mean) * scale + beta + a @ k2[0, 0] + b2
    assert (abs(found.astype("d") - apart) <= 2 * gamma(5 + 12, "f") * size).all()
    assert found.any()


def test_networks_agree():
    model = residual()
    y, apart = model.predict(IMAGES, verbose=0), one_by_one(model, IMAGES)
    with use_kernels("reference"):
        formulas = model.predict(IMAGES, verbose=0)
    for other in (apart, formulas):
        np.testing.assert_allclose(y, other, rtol=0, atol=1e-5 * abs(apart).max())


def test_zeros_win_where_nothing_is_above_them():
    """The margin of a pool lies outside of what passed ReLU: also where that is 0 everywhere."""
    model = residual()
    model.get_layer("stem_bn").beta.assign(np.full(8, -100.0))
    np.testing.assert_array_equal(
        Model(model.inputs, model.get_layer("pool").output).predict(IMAGES, verbose=0), 0
    )


def train(model):
    model.fit(IMAGES, np.zeros((3, 16)), verbose=0)


def train_above(model):
    model.layers[3].trainable = False
    train(model)


WRITES = {
    "assign": lambda m: m.get_layer("stem_bn").gamma.assign(np.full(8, 2.0)),
    "kernel": lambda m: m.get_layer("b2").kernel.assign(m.get_layer("b2").kernel.numpy() * 2),
    "bias": lambda m: m.get_layer("a2").bias.assign(np.full(16, 0.5)),
    "mean": lambda m: m.get_layer("a0_bn").moving_mean.assign(np.full(16, 0.1)),
    "variance": lambda m: m.get_layer("b1_bn").moving_variance.assign(np.full(8, 3.0)),
    "set_weights": lambda m: m.set_weights([w * 1.5 for w in m.get_weights()]),
    "training": train,
    "frozen": train_above,
    "averages": lambda m: m(IMAGES, training=True),
}


@pytest.mark.parametrize("write", WRITES)
def test_nothing_is_stale(write):
    model = residual()
    model.compile("sgd", "mse")
    before = model.predict(IMAGES, verbose=0)
    WRITES[write](model)
    found = model.predict(IMAGES, verbose=0)
    assert not np.array_equal(found, before)
    np.testing.assert_array_equal(found, clone_of(model).predict(IMAGES, verbose=0))


def test_epsilon_and_loaded_files(tmp_path):
    model, other = residual(), residual()
    y = model.predict(IMAGES, verbose=0)
    other.predict(IMAGES, verbose=0)
    model.save_weights(tmp_path / "m.weights.h5")
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(other.predict(IMAGES, verbose=0), y)
    other.get_layer("stem_bn").epsilon = 0.5
    assert not np.array_equal(other.predict(IMAGES, verbose=0), y)


def test_weights_and_files_are_untouched(tmp_path):
    model = residual()
    before = model.get_weights()
    model.save_weights(tmp_path / "before.weights.h5")
    model.predict(IMAGES, verbose=0)
    model.save_weights(tmp_path / "after.weights.h5")
    for a, b in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    files = [(tmp_path / f"{name}.weights.h5").read_bytes() for name in ("before", "after")]
    assert files[0] == files[1]


def test_training_goes_layer_by_layer(monkeypatch):
    model, other = residual(), residual()
    other.set_weights(model.get_weights())
    other.graph.together = other.graph.calls
    monkeypatch.setattr(fusing, "at_once", None)  # would raise
    for net in (model, other):
        net.compile("sgd", "mse")
        net.fit(IMAGES, np.ones((3, 16)), epochs=2, shuffle=False, verbose=0)
        with no_grad():  # no gradient, but averages move
            net(IMAGES, training=True)
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_pass_a_frozen_model():
    """Its weights need none, but the images do."""
    model = residual()
    model.trainable = False
    x = Tensor(IMAGES, requires_grad=True)
    y = model(x)
    assert y.requires_grad
    assert backward(ops.sum(y), [x])[0].any()
    model.predict(IMAGES, verbose=0)
    found = model(IMAGES, training=True).numpy()  # frozen: as outside of training, so at once
    np.testing.assert_array_equal(found, model.predict(IMAGES, verbose=0))


LEARNING = {
    "all": lambda name: True,
    "convolutions": lambda name: "bn" not in name,
    "normalizations": lambda name: "bn" in name,
    "a2 and what is below": lambda name: name in ("a2", "stem"),
}


@pytest.mark.parametrize("relu", ["relu", "relu6", "silu", "tanh"])
@pytest.mark.parametrize("learning", LEARNING)
def test_gradients_at_once_are_those_one_by_one(learning, relu, float64, monkeypatch):
    """Of all weights that learn, and of the images, where normalizations work by their averages."""
    model = residual(lambda name: layers.Activation(relu, name=name))
    for layer in model.layers:
        layer.trainable = LEARNING[learning](layer.name)
    calls, found = [], []
    of_folded = fusing.folded
    monkeypatch.setattr(fusing, "folded", lambda *a: calls.append(a) or of_folded(*a))
    x = Tensor(IMAGES.astype("d"), requires_grad=True)
    for steps in (None, model.graph.calls):
        model.graph.together = steps
        y = model(x, training=False)
        weights = [x, *model.trainable_weights]
        cotangent = np.random.default_rng(1).standard_normal(y.shape)
        found.append([y.numpy(), *backward(y, weights, cotangent)])
    assert len(calls) == 6
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * abs(b).max())
        assert b.any()


def test_training_keeps_one_array_for_each_step():
    """What a convolution makes before its normalization, and the sum before ReLU, are not kept."""
    model = residual()
    for layer in model.layers:
        layer.trainable = "bn" not in layer.name
    node, ops_met = model(IMAGES, training=True), set()
    stack = [node]
    while stack:
        tensor = stack.pop()
        if tensor.node is not None:
            ops_met.add(tensor.node.op)
            stack += [source for source, _ in tensor.node.edges]
    assert ops_met - {"mean", "reshape"} == {"relu", "conv2d", "fold", "max_pool2d"}


def test_settings_that_are_changed_afterwards():
    model = residual()
    model.predict(IMAGES, verbose=0)
    model.get_layer("b_relu").activation = "tanh"
    y = model.predict(IMAGES, verbose=0)
    assert (abs(y) <= 1).all() and (y < 0).any()


def test_errors_are_those_of_the_layers():
    x, z = layers.Input((None, None, 4)), layers.Input((None, None, 8))
    conv = layers.Conv2D(8, 3, name="conv")
    model = Model([x, z], layers.Add(name="sum")([z, layers.BatchNormalization()(conv(x))]))
    right, wrong = np.ones((1, 8, 8, 4), "f"), np.ones((1, 9, 9, 8), "f")
    with pytest.raises(ValueError, match="'sum' needs inputs of one shape"):
        model([right, wrong])
    with no_grad(), pytest.raises(ValueError, match="'sum' needs inputs of one shape"):
        model([right, wrong])
    with no_grad(), pytest.raises(ValueError, match="does not fit into an image of 2x2"):
        model([right[:, :2, :2], wrong])


def mobile(activation):
    """An inverted residual whose depthwise convolution moves by two, behind a ZeroPadding2D."""
    x = inputs = layers.Input((12, 12, 16))

    def relu(y, name):
        kind = layers.ReLU(6.0, name=name) if activation == "relu6" else None
        return (kind or layers.Activation(activation, name=name))(y)

    y = batch_norm(layers.Conv2D(24, 1, use_bias=False, name="expand")(x), "expand_bn")
    y = layers.ZeroPadding2D(((0, 1), (0, 1)), name="pad")(relu(y, "expand_relu"))
    y = batch_norm(layers.DepthwiseConv2D(3, 2, use_bias=False, name="depthwise")(y), "bn")
    y = layers.Conv2D(16, 1, name="project")(relu(y, "relu"))
    model = Model(inputs, batch_norm(y, "project_bn"))
    draw = {
        "gamma": lambda s: rng.uniform(1, 3, s),
        "moving_variance": lambda s: rng.uniform(0.2, 1, s),
    }
    arrays = [draw.get(v.name, lambda s: rng.normal(size=s))(v.shape) for v in model.weights]
    model.set_weights(arrays)
    return model


@pytest.mark.parametrize("activation", ["relu6", "silu"])
def test_depthwise_convolutions_take_part(activation):
    """The padding belongs to the window that comes next, not to what came before."""
    model = mobile(activation)
    assert names(model) == [
        "expand expand_bn expand_relu",
        "pad depthwise bn relu",
        "project project_bn",
    ]
    x = rng.standard_normal((3, 12, 12, 16)).astype("f")
    found = model.predict(x, verbose=0)
    with use_kernels("reference"):
        expected = model.predict(x, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


@pytest.fixture(scope="module")
def many():
    set_random_seed(1)
    model = MobileNetV2(weights=None, include_top=False, input_shape=(64, 64, 3))
    for v in model.weights:  # else hardly anything comes out
        if v.name == "gamma":
            v.assign(rng.uniform(2, 4, v.shape))
    assert model.predict(np.ones((1, 64, 64, 3)), verbose=0).std() > 0.1
    return model


def chain_of(model):
    (chain,) = [s for s in chains.chained(model.graph) if type(s) is chains.Chain]
    return chain


def noted(model):
    """How many kernels are called at once now; None if it was tried and cannot be."""
    noted = chain_of(model).noted
    return [] if noted is None else [noted[1] and len(noted[1].calls)]


def test_many_steps_are_noted_and_done_again(many):
    images = rng.uniform(-1, 1, (4, 2, 64, 64, 3)).astype("f")
    chain, results = chain_of(many), []
    for i, x in enumerate(images):
        with no_grad():
            results += chain.run([Tensor(x)], False, None)
        assert noted(many) == ([] if i == 0 else [52])
    for x, y in zip(images, results, strict=True):  # also the first ones: they are copies
        with no_grad():
            np.testing.assert_array_equal(y.data, chain.graph.run([x])[0].data)
    np.testing.assert_allclose(
        many.predict(x, verbose=0), one_by_one(many, x), rtol=1e-3, atol=1e-3
    )


def test_what_was_noted_ends_with_the_weights(many):
    x = rng.uniform(-1, 1, (2, 64, 64, 3)).astype("f")
    before = [many.predict(x, verbose=0) for _ in range(3)]
    assert noted(many) == [52]
    norm = many.get_layer("block_3_project_BN")
    norm.gamma.assign(norm.gamma.numpy() * 2)
    after = [many.predict(x, verbose=0) for _ in range(3)]
    np.testing.assert_allclose(after, [one_by_one(many, x)] * 3, rtol=1e-3, atol=1e-3)
    assert abs(after[0] - before[0]).max() > 0.1
    norm.epsilon = 0.5  # no weight
    many.predict(x, verbose=0)
    np.testing.assert_allclose(
        many.predict(x, verbose=0), one_by_one(many, x), rtol=1e-3, atol=1e-3
    )
    norm.epsilon, calls = 1e-3, []

    def mine(x, kernel, geometry, bias=None, activation=None):
        calls.append(len(x))
        return kernels.depthwise_conv2d.formula(x, kernel, geometry, bias, activation)

    for _ in range(3):
        many.predict(x, verbose=0)
    with use_kernels(depthwise_conv2d=mine):
        many.predict(x, verbose=0)
    assert len(calls) == 17


def test_other_batches_and_threads(many):
    images = rng.uniform(-1, 1, (6, 3, 64, 64, 3)).astype("f")
    with no_grad():
        want = [many.graph.run([x])[0].data for x in images]
    for count in (1, 3, 2, 2, 3):
        y = many.predict(images[0][:count], verbose=0)
        np.testing.assert_array_equal(y, want[0][:count])
    with ThreadPoolExecutor(3) as pool:
        for _ in range(5):
            found = pool.map(lambda x: many.predict(x, verbose=0), images)
            np.testing.assert_array_equal([*found], want)


@pytest.mark.parametrize("last", ["relu6", "silu", "channels"])
def test_what_numpy_or_other_threads_do_is_not_noted(last):
    """A 3x3 convolution's ReLU6 is a pass of its own, and swish in float64; as is a depthwise
    convolution of few channels."""
    dtype = "float64" if last == "silu" else None
    x = inputs = Input((12, 12, 3), dtype=dtype)
    for i in range(9):
        if last == "channels":
            x = layers.DepthwiseConv2D(3, padding="same", dtype=dtype)(x)
        else:
            x = layers.Conv2D(16, 3, padding="same", dtype=dtype)(x)
        x = layers.BatchNormalization(dtype=dtype)(x)
        x = layers.Activation(last if i and last != "channels" else "relu", dtype=dtype)(x)
    model = Model(inputs, x)
    images = rng.uniform(-9, 9, (4, 1, 12, 12, 3))
    found = [model.predict(x, verbose=0) for x in images]
    assert noted(model) == [None]
    for x, y in zip(images, found, strict=True):
        np.testing.assert_allclose(y, one_by_one(model, x), rtol=1e-4, atol=1e-4)
