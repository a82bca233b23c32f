"""Models as ONNX: what ONNX Runtime computes from the file is what minitl predicts.

Random functional models come from `tests/keras_live/random_models.py`; many more of them:

    python -m tests.storage.test_onnx_export 200

With `networks` in place of the number: all networks, and VGG16 with its weights.
"""

import inspect
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import minitl
from minitl import applications, layers
from minitl.applications.vgg16 import preprocess_input
from minitl.cli import main as command
from minitl.models import Model, Sequential
from minitl.storage import onnx_export
from tests.keras_live.random_models import network
from tests.layers.test_gradients import ALL

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
BOUND = 1e-5  # of the largest number


def session(path):
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = 1
    return runtime.InferenceSession(str(path), settings, ["CPUExecutionProvider"])


def check(model, path, xs=None, n=3, **how):
    """Export, check the file, and compare; returns ONNX Runtime's outputs."""
    rng = np.random.default_rng(0)
    if xs is None:
        xs = [rng.standard_normal((n, *t.shape[1:])).astype(np.float32) for t in model.inputs]
    model.export(path, format="onnx", **how)
    onnx.checker.check_model(str(path), full_check=True)
    run = session(path)
    names = [i.name for i in run.get_inputs()]
    assert names == model.input_names
    found = run.run(None, dict(zip(names, xs, strict=True)))
    prepare = how.get("preprocess", lambda x: x)
    given = [prepare(x) for x in xs]
    wanted = model.predict(given if len(given) > 1 else given[0], verbose=0)
    wanted = wanted if isinstance(wanted, list) else [wanted]
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape
        assert np.isfinite(b).all()
        assert np.abs(a - b).max() <= BOUND * max(np.abs(b).max(), 1e-6)
    return found


def disturb(model, seed=0):
    """Every weight at random: biases and moving averages too."""
    rng = np.random.default_rng(seed)
    model.set_weights(
        [
            w + 0.1 * np.abs(rng.standard_normal(w.shape)).astype(w.dtype)
            for w in model.get_weights()
        ]
    )


def random_model(seed):
    rng = np.random.default_rng(seed)
    text, _ = network(rng, outputs=int(rng.integers(1, 3)))
    names = {"k": minitl}
    exec(text, names)
    disturb(names["model"], seed)
    return names["model"]


CALLED = [case for case in ALL if "InputLayer" not in str(case.id)]


@pytest.mark.parametrize(("make", "shape"), CALLED)
def test_every_layer_computes_the_same(make, shape, tmp_path):
    shapes = shape if isinstance(shape, list) else [shape]
    inputs = [layers.Input(s[1:]) for s in shapes]
    layer = make()
    y = layer(inputs if isinstance(shape, list) else inputs[0])
    model = Model(inputs, y)
    disturb(model)
    check(model, tmp_path / "m.onnx")


@pytest.mark.parametrize("seed", range(25))
def test_random_models(seed, tmp_path):
    check(random_model(seed), tmp_path / "m.onnx", n=2)


def networks():
    """Every network of `minitl.applications`, by name."""
    made = {name: getattr(applications, name) for name in applications.__all__}
    return {name: make for name, make in made.items() if callable(make)}


def check_network(make, path, weights=None):
    """Without the top, of open size, from pixels; and with it."""
    minitl.utils.set_random_seed(1)
    place = sys.modules[inspect.unwrap(make).__module__]
    x = np.random.default_rng(0).integers(0, 256, (2, 70, 65, 3)).astype(np.float32)
    base = make(weights=weights, include_top=False, pooling="avg")
    check(base, path, [x], preprocess=place.preprocess_input)
    if weights is None:
        check(make(weights=None, classes=7), path, n=1)


def test_a_network_of_open_size_with_preprocessing(tmp_path):
    minitl.utils.set_random_seed(1)
    model = applications.ResNet50(weights=None, include_top=False, pooling="avg")
    x = np.random.default_rng(0).integers(0, 256, (2, 40, 33, 3)).astype(np.float32)
    check(model, tmp_path / "m.onnx", [x], preprocess=preprocess_input)


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("how", [{}, {"return_sequences": True}, {"return_state": True}])
def test_recurrent_heads(kind, how, tmp_path):
    rng = np.random.default_rng(3)
    for extra in ({}, {"go_backwards": True}, {"use_bias": False}, {"reset_after": False}):
        if kind == "LSTM" and "reset_after" in extra:
            continue
        settings = {"recurrent_activation": "relu", "activation": "linear"}
        for activations in ({}, settings):
            x = layers.Input((None, 4))
            y = getattr(layers, kind)(3, **how, **extra, **activations)(x)
            model = Model(x, y)
            disturb(model)
            given = rng.standard_normal((2, 5, 4)).astype(np.float32)
            check(model, tmp_path / "m.onnx", [given])


def test_a_network_over_time(tmp_path):
    base = Sequential([layers.Input((6, 6, 3)), layers.Conv2D(4, 3, activation="relu")])
    base.add(layers.GlobalMaxPooling2D())
    x = layers.Input((None, 6, 6, 3))
    y = layers.Bidirectional(layers.LSTM(3))(layers.TimeDistributed(base)(x))
    model = Model(x, layers.Dense(2, activation="softmax")(y))
    disturb(model)
    for steps in (1, 4):
        x = np.random.default_rng(steps).standard_normal((2, steps, 6, 6, 3)).astype(np.float32)
        check(model, tmp_path / "m.onnx", [x])


def small(**how):
    x = layers.Input((8, 9, 3), name="image")
    y = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    y = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(y))
    model = Model(x, layers.Dense(2, activation="softmax", name="answer", **how)(y))
    disturb(model)
    return model


def test_what_the_file_says(tmp_path):
    model = small()
    model.metadata = {"class_names": ["katze", "H\u00fcnd"], "note": "mine", "size": 8}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3)).astype(np.float32)
    (found,) = check(model, tmp_path / "m.onnx", [pixels], preprocess=lambda x: x / 127.5 - 1)
    assert np.allclose(found.sum(axis=1), 1)
    proto = onnx.load(tmp_path / "m.onnx")
    about = {p.key: p.value for p in proto.metadata_props}
    assert json.loads(about["class_names"]) == ["katze", "H\u00fcnd"]
    assert (about["note"], about["size"]) == ("mine", "8")
    assert about["input"] == "RGB images, 0-255"
    assert len(about["weights_sha256"]) == 64
    assert (proto.producer_name, proto.producer_version) == ("minitl", minitl.__version__)
    run = session(tmp_path / "m.onnx")
    assert run.get_inputs()[0].shape == ["N", 8, 9, 3]
    assert [(o.name, o.shape) for o in run.get_outputs()] == [("answer", ["N", 2])]


def test_the_command_puts_the_preprocessing_of_the_metadata_into_the_file(tmp_path, capsys):
    model, path = small(), tmp_path / "m.onnx"
    model.metadata = {"preprocessing": "caffe", "class_names": ["a", "b"], "size": [8, 9]}
    model.save(tmp_path / "m.h5")
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 3)).astype(np.float32)
    wanted = model.predict(preprocess_input(x), verbose=0)
    for given, more in ((x, []), (preprocess_input(x), ["--preprocessed"])):
        assert command(["export", str(tmp_path / "m.h5"), "-o", str(path), *more]) == 0
        (found,) = session(path).run(None, {"image": given})
        assert np.abs(found - wanted).max() <= BOUND
        takes = "preprocessed images" if more else "RGB images, 0-255"
        assert f"It takes {takes}, (None, 8, 9, 3)" in capsys.readouterr().out
    assert command(["export", str(tmp_path / "m.h5"), "-o", str(tmp_path / "m.txt")]) == 1
    assert "must end in .onnx" in capsys.readouterr().err


def test_shared_weights_are_written_once(tmp_path):
    x = layers.Input((5,))
    shared = layers.Dense(300, activation="tanh")
    inner = Sequential([layers.Input((5,)), shared])
    y = layers.concatenate([inner(x), shared(x), inner(layers.Rescaling(0.5)(x))])
    check(Model(x, [y, x, y]), tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").stat().st_size < 2 * 4 * 300 * 6


class Odd(layers.Layer):
    def call(self, x):
        return x


def refused(model, path, **how):
    with pytest.raises(ValueError) as error:
        model.export(path, **how)
    assert not path.exists()
    return str(error.value)


def test_tokens_as_vectors(tmp_path):
    x = layers.Input((None,))
    y = layers.GlobalAveragePooling1D()(
        layers.Conv1D(4, 3, padding="causal")(layers.Embedding(11, 5)(x))
    )
    tokens = np.random.default_rng(0).integers(0, 11, (3, 8)).astype(np.float32)
    check(Model(x, y), tmp_path / "m.onnx", [tokens])
    masked = Model(x, layers.LSTM(3)(layers.Embedding(11, 5, mask_zero=True)(x)))
    assert "makes a mask" in refused(masked, tmp_path / "masked.onnx")


def test_arithmetic_between_layers(tmp_path):
    x = layers.Input((6, 5, 3))
    y = layers.Conv2D(4, 3, padding="same")(x / 2 - 1)
    y = y[:, 1:, ::2] * 0.5 + minitl.ops.mean(y, axis=(1, 2), keepdims=True)
    y = y[::-1, :, ::-1]
    z = minitl.ops.sum(minitl.ops.exp(-y), axis=-1)
    z = minitl.ops.relu(z) + minitl.ops.max(y, axis=-1) ** 2.0
    check(Model(x, [y, z, 3 - layers.Flatten()(y)[:, -2:]]), tmp_path / "m.onnx")
    text = refused(Model(x, minitl.ops.sort(x)), tmp_path / "n.onnx")
    assert "computes ops.sort, which is not written to ONNX" in text


def test_what_has_no_counterpart_is_refused_and_named(tmp_path):
    path, x = tmp_path / "m.onnx", layers.Input((4,))
    text = refused(Model(x, Odd(name="mine")(x)), path)
    assert text.startswith("Odd 'mine' has no counterpart in ONNX: write it with")
    text = refused(Model(x, layers.Dropout(0.5, name="d")(x, training=True)), path)
    assert text == "Dropout 'd' is called with training=True, which ONNX cannot repeat"
    text = refused(Model(x, layers.Dense(2, activation=np.sin, name="s")(x)), path)
    assert text == "Dense 's' has the activation sin, which has no counterpart in ONNX"
    assert "minitl exports format='onnx' only" in refused(small(), path, format="tf_saved_model")
    text = refused(small(), path, preprocess=lambda x: x / x.mean())
    assert text == "preprocess does not do the same linear function A x + b to every pixel"
    text = refused(Model(x, layers.Dense(2)(x)), path, preprocess=preprocess_input)
    assert text == "preprocess is for RGB images (N, H, W, 3); the model takes (None, 4)"
    text = refused(Sequential([layers.Dense(2)]), path)
    assert "is no graph of layers" in text


def test_a_layer_of_ones_own_can_be_written(tmp_path):
    class Twice(layers.Layer):
        def call(self, x):
            return x * 2

    @onnx_export.writes(Twice)
    def twice(g, layer, x):
        return g.node("Add", g.last(x), g.last(x))

    x = layers.Input((4, 4, 2))
    check(Model(x, Twice()(layers.MaxPooling2D()(x))), tmp_path / "m.onnx")


def main(what, folder):
    path = Path(folder) / "m.onnx"
    if what == "networks":
        for name, make in networks().items():
            check_network(make, path)
            print(name, "the same", flush=True)
        check_network(applications.VGG16, path, "imagenet")
        print("VGG16 with ImageNet's weights: the same")
        return
    refused = 0
    for seed in range(int(what)):
        try:
            check(random_model(seed), path)
        except onnx_export.OnnxError as error:
            refused += 1
            print(seed, error)
    print(f"{what} random models: within {BOUND} of the maximum; {refused} refused")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(sys.argv[1], place)
