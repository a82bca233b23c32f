"""One file serves both: what minitl writes Keras loads, and the other way round."""

import numpy as np
import pytest

import minitl
from tests.keras_live.compare import assert_close
from tests.tolerances import SAME_FORMULA_FLOAT32


def functional(k):
    """Every layer with weights or settings, two inputs, two outputs, one layer called twice."""
    a, b = k.Input((9, 9, 2), name="a"), k.Input((9, 9, 2), name="b")
    shared = k.layers.Conv2D(3, (2, 3), strides=(1, 2), padding="same", name="shared")
    x = k.layers.Add(name="sum")([shared(a), shared(b)])
    x = k.layers.BatchNormalization(momentum=0.8, epsilon=0.01, name="bn")(x)
    x = k.layers.Activation("relu", name="relu")(x)
    x = k.layers.ZeroPadding2D(((1, 0), (2, 1)), name="pad")(x)
    p = k.layers.MaxPooling2D((3, 2), strides=2, name="max")(x)
    q = k.layers.AveragePooling2D(2, padding="same", name="average")(x)
    p = k.layers.GlobalAveragePooling2D(name="gap")(p)
    q = k.layers.GlobalMaxPooling2D(name="gmp")(q)
    y = k.layers.Concatenate(name="both")([p, q])
    y = k.layers.Dropout(0.3, name="drop")(y)
    y = k.layers.Dense(4, activation="tanh", use_bias=False, name="hidden")(y)
    first = k.layers.Softmax(name="first")(k.layers.Dense(3, name="logits")(y))
    second = k.layers.ReLU(name="second")(k.layers.Flatten(name="flat")(x))
    return k.Model([a, b], [first, second], name="two_by_two")


def sequential(k):
    layers = [
        k.Input((9, 9, 2)),
        k.layers.Conv2D(3, 3, activation="relu"),
        k.layers.BatchNormalization(),
        k.layers.Flatten(),
        k.layers.Dense(4, activation="softmax"),
    ]
    return k.Sequential(layers, name="chain")


def sequential_without_input(k):
    layers = [k.layers.Flatten(), k.layers.Dense(4, activation="sigmoid")]
    model = k.Sequential(layers, name="late")
    model.build((None, 9, 9, 2))
    return model


def nested(k):
    """A Sequential within a functional model within a functional model."""
    inner = sequential(k)
    x = k.Input((9, 9, 2), name="x")
    base = k.Model(x, inner(k.layers.BatchNormalization(name="bn")(x)), name="base")
    a = k.Input((9, 9, 2), name="a")
    y = base(a, training=False)
    return k.Model(a, k.layers.Dense(2, name="head")(y), name="whole")


def nested_at_the_end(k):
    """A functional model that is called twice, both times for an output; and a Sequential."""
    x = k.Input((9, 9, 2))
    y = k.layers.Dense(2, name="inner")(k.layers.Flatten()(x))
    base = k.Model(x, y, name="base")
    chain = k.Sequential([k.Input((2,)), k.layers.Dense(3, name="link")], name="chain")
    a, b = k.Input((9, 9, 2), name="a"), k.Input((9, 9, 2), name="b")
    first, second = base(a), base(b)
    return k.Model([a, b], [second, first, chain(first)], name="whole")


def inputs_by_name(k):
    """A dict of inputs, whose keys are not in the order of their names."""
    b, a = k.Input((9, 9, 2), name="b"), k.Input((9, 9, 2), name="a")
    both = k.layers.Concatenate(name="both")([k.layers.Conv2D(3, 1, name="conv")(b), a])
    y, z = k.layers.Dense(3, name="y")(both), k.layers.Dense(2, name="z")(both)
    return k.Model({"b": b, "a": a}, [z, y], name="by_name")


def frozen(k):
    model = nested(k)
    model.get_layer("base").trainable = False
    return model


def partly_frozen(k):
    model = functional(k)
    for name in ("bn", "hidden"):
        model.get_layer(name).trainable = False
    return model


MODELS = [
    functional,
    sequential,
    sequential_without_input,
    nested,
    nested_at_the_end,
    inputs_by_name,
    frozen,
    partly_frozen,
]
all_models = pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)


def fill(model, seed=0):
    """Random weights, all positive so that a variance is one."""
    rng = np.random.default_rng(seed)
    model.set_weights([rng.uniform(0.1, 1, w.shape) for w in model.get_weights()])


def inputs_for(model):
    rng = np.random.default_rng(9)
    n = len(model.inputs)
    arrays = [rng.standard_normal((5, 9, 9, 2)).astype(np.float32) for _ in range(n)]
    return arrays if n > 1 else arrays[0]


def assert_same_outputs(mine, theirs):
    x = inputs_for(theirs)
    if theirs.name == "by_name":
        x = {"b": x[0], "a": x[1]}
    a, b = mine.predict(x, verbose=0), theirs.predict(x, verbose=0)
    if not isinstance(b, list):
        a, b = [a], [b]
    for one, other in zip(a, b, strict=True):
        assert_close(one, other, SAME_FORMULA_FLOAT32)


def assert_same_weights(mine, theirs):
    assert len(mine.get_weights()) == len(theirs.get_weights())
    for a, b in zip(mine.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@all_models
@pytest.mark.parametrize("ending", [".weights.h5", ".h5", ".keras"])
def test_weights_that_keras_wrote(keras, tmp_path, build, ending):
    theirs, mine = build(keras), build(minitl)
    fill(theirs)
    path = tmp_path / f"file{ending}"
    if ending == ".weights.h5":
        theirs.save_weights(path)
    else:
        theirs.save(path)
    mine.load_weights(path)
    assert_same_weights(mine, theirs)
    assert_same_outputs(mine, theirs)


@all_models
@pytest.mark.parametrize("ending", [".h5", ".weights.h5"])
def test_weights_that_minitl_wrote(keras, tmp_path, build, ending):
    mine = build(minitl)
    fill(mine)
    path = tmp_path / f"file{ending}"
    mine.save_weights(path)
    # Freezing changes nothing in a file of minitl. Of the legacy form Keras reads a frozen nested
    # model's weights in another order, so there one loads first and freezes then.
    theirs = (nested if build is frozen and ending == ".h5" else build)(keras)
    theirs.load_weights(path)
    assert_same_weights(mine, theirs)
    assert_same_outputs(mine, theirs)
    again = build(minitl)
    again.load_weights(path)
    assert_same_weights(again, mine)


whole_files = pytest.mark.parametrize("ending", [".h5", ".keras"])


@all_models
@whole_files
def test_model_that_keras_wrote(keras, tmp_path, build, ending):
    theirs = build(keras)
    fill(theirs)
    path = tmp_path / f"file{ending}"
    theirs.save(path)
    mine = minitl.models.load_model(path)
    assert type(mine).__name__ == {"Functional": "Model"}.get(
        type(theirs).__name__, type(theirs).__name__
    )
    assert_same_models(mine, theirs)


@all_models
@whole_files
def test_model_that_minitl_wrote(keras, tmp_path, build, ending):
    mine = build(minitl)
    fill(mine)
    path = tmp_path / f"file{ending}"
    mine.save(path)
    assert_same_models(mine, keras.models.load_model(path))
    assert_same_models(minitl.models.load_model(path), mine)


def assert_same_models(mine, theirs):
    assert mine.name == theirs.name
    assert [layer.name for layer in mine.layers] == [layer.name for layer in theirs.layers]
    assert_same_weights(mine, theirs)
    assert_same_outputs(mine, theirs)
    # What is frozen stays frozen.
    assert [v.shape for v in mine.trainable_weights] == [
        tuple(v.shape) for v in theirs.trainable_weights
    ]


@all_models
@whole_files
def test_there_and_back(keras, tmp_path, build, ending):
    """minitl -> Keras -> minitl: weights bit for bit."""
    mine = build(minitl)
    fill(mine)
    mine.save(tmp_path / f"one{ending}")
    keras.models.load_model(tmp_path / f"one{ending}").save(tmp_path / f"two{ending}")
    again = minitl.models.load_model(tmp_path / f"two{ending}")
    assert_same_weights(again, mine)


def test_compiled_model(keras, tmp_path):
    """minitl's file of a compiled model loads in Keras, and Keras's of one in minitl."""
    for build, load in ((minitl, keras), (keras, minitl)):
        model = sequential(build)
        model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
        x = inputs_for(model)
        model.fit(x, np.eye(4)[[0, 1, 2, 3, 0]], verbose=0)
        model.save(tmp_path / "file.h5")
        other = load.models.load_model(tmp_path / "file.h5")
        assert_close(other.predict(x, verbose=0), model.predict(x, verbose=0), SAME_FORMULA_FLOAT32)


@pytest.mark.parametrize("size, pooling", [(32, None), (45, "avg"), (64, "max")])
def test_vgg16_of_a_file_of_minitl(keras, tmp_path, size, pooling):
    """keras.applications.VGG16(weights=<our file>, include_top=False), and Keras's file here."""
    settings = {"include_top": False, "input_shape": (size, size, 3), "pooling": pooling}
    mine = minitl.applications.VGG16(weights=None, **settings)
    path = tmp_path / "vgg16.h5"
    mine.save_weights(path)
    theirs = keras.applications.VGG16(weights=str(path), **settings)
    assert_same_weights(mine, theirs)
    x = np.random.default_rng(0).uniform(-120, 150, (2, size, size, 3)).astype(np.float32)
    a, b = mine.predict(x, verbose=0), theirs.predict(x, verbose=0)
    scale = np.abs(b).max()
    assert_close(a / scale, b / scale, SAME_FORMULA_FLOAT32)
    theirs.save_weights(tmp_path / "vgg16.weights.h5")
    theirs.save(tmp_path / "model.h5")
    for name in ("vgg16.weights.h5", "model.h5"):
        again = minitl.applications.VGG16(weights=str(tmp_path / name), **settings)
        assert_same_weights(again, theirs)


@whole_files
def test_outputs_by_name_stay_so(keras, tmp_path, ending):
    """Keras sorts them by name and returns a dict."""
    x = keras.Input((2,), name="x")
    outputs = {name: keras.layers.Dense(1, name=name)(x) for name in ("w", "v")}
    theirs = keras.Model(x, outputs)
    theirs.save(tmp_path / f"file{ending}")
    data = np.ones((3, 2), np.float32)
    found = minitl.models.load_model(tmp_path / f"file{ending}").predict(data, verbose=0)
    assert sorted(found) == ["v", "w"]
    for name, expected in theirs.predict(data, verbose=0).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)
