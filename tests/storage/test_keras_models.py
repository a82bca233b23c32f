"""Whole models to files and back, in this process and in a new one."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest

from minitl import Model, Sequential, losses, metrics, naming
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
    Softmax,
)
from minitl.layers.core import InputRange
from minitl.models import load_model, model_from_json
from minitl.optimizers import SGD, schedules
from minitl.storage import settings

rng = np.random.default_rng(0)


def sequential():
    return Sequential(
        [
            Input((8, 8, 3), name="pixels"),
            Conv2D(4, 3, padding="same", activation="relu", kernel_regularizer="l2"),
            MaxPooling2D(2, strides=2),
            BatchNormalization(),
            Flatten(),
            Dropout(0.5),
            Dense(3, activation="softmax", name="head"),
        ],
        name="chain",
    )


def branching():
    """Shared layers, several inputs and outputs, a nested model, a frozen layer."""
    a, b = Input((8, 8, 3), name="a"), Input((4,), name="b")
    inner = Sequential(
        [Input((8, 8, 3)), Conv2D(4, 3, name="conv"), BatchNormalization(name="bn")], name="inner"
    )
    shared = Dense(4, name="shared", activation="tanh")
    pooled = GlobalAveragePooling2D(name="gap")(inner(a, training=False))
    joined = Concatenate(name="cat")([shared(pooled), shared(b)])
    summed = Add(name="sum")([shared(b), pooled])
    model = Model([a, b], [Softmax(name="p")(joined), summed], name="net")
    model.get_layer("shared").trainable = False
    return model


def stirred(model):
    """Weights unlike any initial ones, moving averages included."""
    model.set_weights([rng.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    return model


def data(model):
    return [rng.standard_normal((3, *s.shape[1:])).astype(np.float32) for s in model.inputs]


def predictions(model, x):
    found = model.predict(x if len(x) > 1 else x[0], verbose=0)
    return found if isinstance(found, list) else [found]


@pytest.mark.parametrize("make", [sequential, branching])
def test_a_new_process_predicts_the_same_bits(tmp_path, make):
    model = stirred(make())
    x = data(model)
    model.metadata = {"classes": ["mono", "poly"], "note": "ä"}
    model.save(tmp_path / "model.h5")
    np.savez(tmp_path / "x.npz", *x)
    program = """
import json, sys, numpy as np
from minitl.models import load_model
model = load_model("model.h5")
x = list(np.load("x.npz").values())
y = model.predict(x if len(x) > 1 else x[0], verbose=0)
np.savez("y.npz", *(y if isinstance(y, list) else [y]))
print(json.dumps([model.metadata, model.name, [l.name for l in model.layers],
                  [v.name for v in model.trainable_weights]]))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    expected = predictions(model, x)
    for a, b in zip(np.load(tmp_path / "y.npz").values(), expected, strict=True):
        assert np.array_equal(a, b)
    assert json.loads(done.stdout) == [
        model.metadata,
        model.name,
        [layer.name for layer in model.layers],
        [v.name for v in model.trainable_weights],
    ]


@pytest.mark.parametrize("make", [sequential, branching])
def test_weights_alone(tmp_path, make):
    model = stirred(make())
    naming.forget_names()  # layers are matched by name
    other = stirred(make())
    model.save_weights(tmp_path / "weights.h5")
    other.load_weights(tmp_path / "weights.h5")
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        assert np.array_equal(a, b)


def test_the_calls_of_a_nested_model_as_keras_2_counted_them():
    """From 1 on, wherever they are referred to."""
    x, a = Input((4,)), Input((4,), name="a")
    base = Model(x, Dense(3, name="inner")(x), name="base")
    chain = Sequential([Input((3,)), Dense(3, name="link")], name="chain")
    first = base(a)
    model = stirred(Model(a, [base(a), chain(first), Softmax(name="p")(chain(first))], name="net"))
    described = json.loads(model.to_json())
    for layer in described["config"]["layers"]:
        for call in layer["inbound_nodes"]:
            for reference in call:
                reference[1] += reference[0] in ("base", "chain")
    assert described["config"]["output_layers"][:2] == [["base", 1, 0], ["chain", 0, 0]]
    described["config"]["output_layers"][1][1] += 1
    again = model_from_json(json.dumps(described))
    again.set_weights(model.get_weights())
    x = data(model)
    for one, other in zip(predictions(again, x), predictions(model, x), strict=True):
        assert np.array_equal(one, other)


def test_saving_twice_gives_the_same_model_again(tmp_path):
    """A loaded model can be saved and loaded; layers' automatic names do not matter."""
    model = stirred(branching())
    x = data(model)
    model.save(tmp_path / "1.h5")
    naming.forget_names()
    again = load_model(tmp_path / "1.h5")
    again.save(tmp_path / "2.h5")
    for a, b in zip(
        predictions(load_model(tmp_path / "2.h5"), x), predictions(model, x), strict=True
    ):
        assert np.array_equal(a, b)
    assert json.loads(again.to_json()) == json.loads(model.to_json())


# --- What a model is compiled with ---------------------------------------------------------------


def test_compiled_as_before(tmp_path):
    model = sequential()
    model.compile(
        SGD(schedules.CosineDecay(0.1, 50), momentum=0.9, clipnorm=2.0),
        losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=["accuracy", metrics.F1Score("macro")],
        weighted_metrics=["mse"],
    )
    x, y = data(model)[0], np.eye(3)[[0, 1, 2]]
    model.save(tmp_path / "m.h5")
    again = load_model(tmp_path / "m.h5")
    assert again.evaluate(x, y, verbose=0) == model.evaluate(x, y, verbose=0)
    assert settings.serialize(again.optimizer) == settings.serialize(model.optimizer)
    assert load_model(tmp_path / "m.h5", compile=False).optimizer is None


@pytest.mark.parametrize(
    "settings",
    [{"loss": lambda y, p: (y - p) ** 2}, {"loss": "mse", "metrics": [lambda y, p: y == p]}],
)
def test_functions_of_ones_own_are_left_to_the_user(tmp_path, settings):
    model = sequential()
    model.compile("sgd", **settings)
    model.save(tmp_path / "m.h5")
    assert load_model(tmp_path / "m.h5").optimizer is None


def test_the_expected_range_is_kept(tmp_path):
    model = sequential()
    model.inputs[0].call.layer.inspect = InputRange(-124, 151, "Preprocess first.")
    model.save(tmp_path / "m.h5")
    again = load_model(tmp_path / "m.h5")
    with pytest.warns(UserWarning, match=r"'pixels' have values from 0.* Preprocess first\."):
        again.predict(np.linspace(0, 1, 192).reshape(1, 8, 8, 3), verbose=0)


# --- What is wrong -------------------------------------------------------------------------------


def same(a, b):
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def test_weights_that_do_not_fit_change_nothing(tmp_path):
    model = stirred(sequential())
    model.save_weights(tmp_path / "good.h5")
    other = stirred(
        Sequential([Input((8, 8, 3)), Conv2D(5, 3, name="conv2d"), Flatten(), Dense(3)])
    )
    before = other.get_weights()
    with pytest.raises(ValueError, match=r"(?s)conv2d.*\(3, 3, 3, 5\)"):
        other.load_weights(tmp_path / "good.h5")
    assert same(other.get_weights(), before)


def test_nan_weights_are_refused(tmp_path):
    model = stirred(sequential())
    model.save_weights(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        found = []
        file.visititems(lambda name, item: found.append(item) if hasattr(item, "shape") else None)
        found[0][...] = np.nan
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"NaN|finite"):
        model.load_weights(tmp_path / "m.h5")
    assert same(model.get_weights(), before)


@pytest.mark.parametrize("contents", [b"", b"not a weight file at all", None])
def test_files_that_are_no_models(tmp_path, contents):
    path = tmp_path / "m.h5"
    if contents is None:
        stirred(sequential()).save(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(contents)
    model = stirred(sequential())
    before = model.get_weights()
    for use in (load_model, model.load_weights):
        with pytest.raises(ValueError, match=r"m\.h5"):
            use(path)
    assert same(model.get_weights(), before)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.h5"):
        load_model(tmp_path / "missing.h5")


def test_weights_are_no_model(tmp_path):
    sequential().save_weights(tmp_path / "w.h5")
    with pytest.raises(ValueError, match=r"holds weights without an architecture"):
        load_model(tmp_path / "w.h5")


def rewrite(path, change):
    with h5py.File(path, "r+") as file:
        text = file.attrs["model_config"]
        file.attrs["model_config"] = change(text if isinstance(text, str) else text.decode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:100], "its description of the model is damaged"),
        (lambda text: text + " " * 8_000_000, "more than any network needs"),
        (lambda text: text.replace('"Conv2D"', '"Conv3D"'), "layer 'Conv3D', which minitl does"),
        (
            lambda text: text.replace('"use_bias": true', '"causal": "yes", "use_bias": true'),
            "minitl's Conv2D has no 'causal'",
        ),
        (
            lambda text: text.replace('"units": 3', '"units": 300000'),
            r"more weights than it holds \(a weight of 76,800,000 bytes, where [\d,]+ are left\)",
        ),
        (lambda text: text.replace('"units": 3', '"units": 4'), "weights in .* do not fit the"),
    ],
)
def test_descriptions_that_cannot_be_followed(tmp_path, change, message):
    sequential().save(tmp_path / "m.h5")
    rewrite(tmp_path / "m.h5", change)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "m.h5")


def test_a_description_longer_than_any_network_needs(tmp_path):
    sequential().save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        text = "[" + "[]," * 3_000_000 + "1]"
        file.attrs.create("model_config", text, dtype=h5py.string_dtype())
    with pytest.raises(ValueError, match=r"has 9,000,003 characters, more than any network needs"):
        load_model(tmp_path / "m.h5")


def test_a_file_of_1500_layers(tmp_path):
    """What is read of a file is limited, so a layer must not cost a look at all the others."""
    model = Sequential([Input((1,)), *(Dense(1) for _ in range(1500))])
    model.save_weights(tmp_path / "m.weights.h5")
    before = model.get_weights()
    model.set_weights([w + 1 for w in before])
    model.load_weights(tmp_path / "m.weights.h5")
    assert same(model.get_weights(), before)


def test_targets(tmp_path):
    model = sequential()
    with pytest.raises(ValueError, match=r"must end in .h5 or .keras, got 'model.json'"):
        model.save(tmp_path / "model.json")
    with pytest.raises(ValueError, match=r"the name must end in .h5, got 'model.keras'"):
        model.save_weights(tmp_path / "model.keras")
    model.save(tmp_path / "m.h5")
    written = (tmp_path / "m.h5").read_bytes()
    with pytest.raises(FileExistsError, match=r"pass overwrite=True to replace it"):
        model.save(tmp_path / "m.h5", overwrite=False)
    assert (tmp_path / "m.h5").read_bytes() == written
    with pytest.raises(ValueError, match=r"has no shapes yet; build it"):
        Sequential([Dense(1)]).save(tmp_path / "n.h5")
    assert [p.name for p in tmp_path.iterdir()] == ["m.h5"]


def test_a_model_that_cannot_be_described_leaves_no_file(tmp_path):
    model = Sequential([Input((2,)), Dense(1, activation=lambda x: x)])
    with pytest.raises(ValueError, match=r"no part of minitl and cannot be saved by name"):
        model.save(tmp_path / "m.h5")
    model.metadata = {"when": object()}
    assert list(tmp_path.iterdir()) == []
    model = sequential()
    model.metadata = {"when": object()}
    with pytest.raises(TypeError, match=r"JSON"):
        model.save(tmp_path / "m.h5")
    assert list(tmp_path.iterdir()) == []
