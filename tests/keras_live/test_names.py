"""Names to the letter: signatures, layers' automatic names, the keys of logs, summaries."""

import importlib
import inspect
import re
from fnmatch import fnmatch

import numpy as np
import pytest

import minitl
from minitl.naming import snake_case
from tests.keras_live.compare import assert_close, names_in
from tests.tolerances import SAME_FORMULA_FLOAT32

MODULES = [
    "layers",
    "losses",
    "metrics",
    "optimizers",
    "optimizers.schedules",
    "callbacks",
    "initializers",
    "regularizers",
    "activations",
    "models",
    "applications",
    "applications.vgg16",
    "applications.vgg19",
    "applications.resnet50",
    "applications.mobilenet_v2",
    "applications.efficientnet",
    "utils",
]
METHODS = {
    "Model": "compile fit evaluate predict summary save save_weights load_weights "
    "get_layer get_weights set_weights get_config to_json count_params compute_output_shape",
    "Sequential": "add pop build",
    "Layer": "add_weight build call",
}

# What differs on purpose, and why. Everything else that minitl has must be there in Keras under
# the same name, at the same place if it may be given by place, and with the same default.
ALLOWED = {
    ("layers.AveragePooling2D", "pool_size"): "Keras has no default here, though MaxPooling2D has",
    ("layers.AvgPool2D", "pool_size"): "as AveragePooling2D",
    ("layers.AveragePooling1D", "pool_size"): "as AveragePooling2D",
    ("layers.AvgPool1D", "pool_size"): "as AveragePooling2D",
    ("layers.SpatialDropout1D", "trainable"): "every layer of minitl has it",
    ("layers.SpatialDropout2D", "trainable"): "every layer of minitl has it",
    **{
        (f"layers.{name}", f"kernel_{what}"): "every layer with a kernel has it; not in its config"
        for name in ("DepthwiseConv2D", "SeparableConv2D", "SeparableConvolution2D")
        for what in ("initializer", "regularizer")
    },
    **{
        (f"layers.{name}", what): "those of Conv2D; its others do nothing unless None, or 1"
        for name in ("Conv2DTranspose", "Convolution2DTranspose")
        for what in ("*",)
    },
    ("layers.LSTM", "zero_output_for_mask"): "among Keras's **kwargs",
    ("layers.GRU", "zero_output_for_mask"): "among Keras's **kwargs",
    ("Model.save", "include_optimizer"): "among Keras's **kwargs",
    ("metrics.Metric", "name"): "comes second in Keras, after dtype, which minitl has not",
    ("metrics.get", "loss"): "minitl resolves 'accuracy' here",
    ("metrics.get", "output_shape"): "minitl resolves 'accuracy' here",
    ("callbacks.CallbackList", "*"): "internal in both",
    ("callbacks.ProgbarLogger", "verbose"): "Keras takes it from `fit` alone",
    ("optimizers.Optimizer", "*"): "Keras's is made by __new__(*args, **kwargs)",
    **{
        (f"applications.{network}.decode_predictions", "class_index"): "for a file of one's own"
        for network in ("vgg16", "vgg19", "resnet50", "mobilenet_v2", "efficientnet")
    },
    ("models.Model", "*"): "Keras's is (*args, **kwargs), with these names",
    ("Model.compile", "optimizer"): "'adam', since minitl has no RMSprop",
    ("Model.summary", "fused"): "what predicting runs at once; Keras does not show it",
    ("Model.fit", "cache_features"): "Keras runs what is frozen in every epoch",
    ("Model.fit", "augment_copies"): "as cache_features",
    ("Model.load_weights", "by_name"): "among Keras's **kwargs",
    ("Layer.call", "x"): "minitl's layers take their input first; Keras's base has (*args)",
    ("Layer.add_weight", "*"): "Keras's is (shape, initializer, ...); minitl's name is required",
    ("Model.compute_output_shape", "input_shape"): "(input_shape) in both; decorated in Keras",
}


# What Keras's functions and classes take, and minitl's of the same name do not: by argument.
# Each is a TypeError that names it. A star stands for any beginning.
LACKING = {
    "dtype": "losses and metrics compute in the dtype of what they are given",
    "axis": "classes are the last axis of a loss or a metric",
    "ignore_class": "no class is left out of a loss: give sample_weight",
    "*constraint": "weights are not projected after a step",
    "activity_regularizer gamma_regularizer beta_regularizer": "kernels and biases are penalised",
    "renorm renorm_clipping renorm_momentum": "batch renormalization",
    "synchronized use_cudnn aggregation autocast loss_scale_factor": "one process, one CPU",
    "lora_rank lora_alpha quantization_config overwrite_with_gradient": "adapters, 8-bit weights",
    "sparse ragged tensor input_tensor optional": "an input is an array",
    "use_ema ema_momentum ema_overwrite_frequency": "averages of weights",
    "gradient_accumulation_steps": "a step is a batch",
    "output_padding": "Conv2DTranspose has the size that Keras takes by itself",
    "antialias fill_mode fill_value pad_to_aspect_ratio": "Resizing crops, or stretches",
    "from_sorted_ids": "of a top-k accuracy of indices",
    "input_axes output_axes": "of initializers; a kernel's inputs stand before its outputs",
    "safe_mode": "no code is read from a file",
    "zipped max_shard_size": "a file is one file",
    "format": "images are read by Pillow",
    "weights rebuild add_history add_progbar name": "of Keras's own machinery",
}


def pairs(keras):
    for module in MODULES:
        mine = importlib.import_module(f"minitl.{module}")
        theirs = keras
        for part in module.split("."):
            theirs = getattr(theirs, part)
        for name, a in names_in(mine).items():
            b = getattr(theirs, name, None)
            if not name.startswith("_") and callable(a) and callable(b):
                yield f"{module}.{name}", a, b
    for cls, methods in METHODS.items():
        for name in methods.split():
            a, b = getattr(minitl, cls), getattr(keras, cls)
            yield f"{cls}.{name}", getattr(a, name), getattr(b, name)


def parameters(function):
    """By name, without self. Of Keras's classes, those of __init__ (its __new__ hides them)."""
    if inspect.isclass(function):
        function = function.__init__
    found = dict(inspect.signature(function).parameters)
    # A method of a model may be a function that takes the model first.
    return {
        n: p for i, (n, p) in enumerate(found.items()) if i or n not in ("self", "model", "layer")
    }


def by_place(found):
    return [n for n, p in found.items() if p.kind is p.POSITIONAL_OR_KEYWORD]


def differences(where, mine, theirs):
    a, b = parameters(mine), parameters(theirs)
    places = by_place(b)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in b.values())
    for i, name in enumerate(by_place(a)):
        if name in b and places[i : i + 1] != [name]:
            yield name, f"is argument {i}, in Keras {places.index(name) if name in places else '*'}"
    for name, parameter in a.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if name in ("name", "trainable", "dtype") and takes_any:
            continue  # Keras's layers pass them on to Layer as **kwargs
        if name not in b:
            yield name, "is not in Keras"
            continue
        expected, found = b[name].default, parameter.default
        own_name = name == "name" and {found, expected} <= {None, snake_case(where.split(".")[-1])}
        if found != expected and not own_name:
            yield name, f"defaults to {found!r}, in Keras to {expected!r}"


def test_signatures(keras):
    seen, wrong, used = 0, [], set()
    for where, mine, theirs in pairs(keras):
        seen += 1
        for name, what in differences(where, mine, theirs):
            allowed = {(where, name), (where, "*")} & ALLOWED.keys()
            used |= allowed
            if not allowed:
                wrong.append(f"{where}: {name} {what}")
    assert seen > 100
    assert not wrong, "\n" + "\n".join(wrong)
    assert used == ALLOWED.keys(), "no longer needed: " + str(sorted(ALLOWED.keys() - used))


def test_arguments_that_keras_has_alone(keras):
    found = set()
    for _, mine, theirs in pairs(keras):
        a, b = parameters(mine), parameters(theirs)
        named = {n for n, p in b.items() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        found |= named - a.keys()
    lacking = " ".join(LACKING).split()
    assert not {name for name in found if not any(fnmatch(name, each) for each in lacking)}
    assert not {each for each in lacking if not any(fnmatch(name, each) for name in found)}


LAYERS = ["first", "first_a", "second", "third"]


@pytest.mark.parametrize("names", [("first", "second"), ("third", "first_a"), ("sec.*", "first")])
def test_summary_of_a_part(keras, names):
    shown = []
    for k in (minitl, keras):
        model = k.Sequential([k.Input((2,)), *[k.layers.Dense(1, name=n) for n in LAYERS]])
        lines = []
        model.summary(print_fn=lambda text, **_: lines.append(text), layer_range=names)  # noqa: B023
        shown.append({n for n in LAYERS if re.search(rf"\b{n} \(", "\n".join(lines))})
    assert shown[0] == shown[1] != set(LAYERS)


def test_every_public_class_and_function_is_in_keras_too(keras):
    """A name that Keras does not have is either in this list or a slip."""
    own = {
        "layers": {"Operation", "RandomTurn", "SymbolicTensor", "positive"},
        "losses": {"EPSILON", "TABLE", "as_tensor", "look_up", "snake_case"},
        "initializers": {"Random", "initial_values", "room", "scaled"},
        "callbacks": {"format_logs"},
    }
    for module in ("layers", "callbacks", "initializers", "regularizers", "optimizers.schedules"):
        mine, theirs = importlib.import_module(f"minitl.{module}"), keras
        for part in module.split("."):
            theirs = getattr(theirs, part)
        surplus = {
            name
            for name, value in names_in(mine).items()
            if not name.startswith("_")
            and (inspect.isclass(value) or inspect.isfunction(value))
            and value.__module__.startswith(f"minitl.{module}")
            and not hasattr(theirs, name)
        }
        surplus -= own.get(module, set())
        assert surplus <= {"InputRange", "fans", "InputLayer", "get"}, (
            f"{module}: {sorted(surplus)}"
        )


def build(k):
    """The same small network, every layer unnamed, some classes twice."""
    a = k.layers.Input((12, 12, 3))
    x = k.layers.ZeroPadding2D()(a)
    x = k.layers.Conv2D(4, 3)(x)
    x = k.layers.BatchNormalization()(x)
    x = k.layers.ReLU()(x)
    y = k.layers.Conv2D(4, 3, padding="same")(x)
    y = k.layers.Activation("relu")(y)
    x = k.layers.Add()([x, y])
    x = k.layers.MaxPooling2D()(x)
    x = k.layers.AveragePooling2D(2, 1)(x)
    x = k.layers.Concatenate()([k.layers.GlobalAveragePooling2D()(x), k.layers.Flatten()(x)])
    x = k.layers.Dropout(0.5)(x)
    x = k.layers.Dense(5)(x)
    x = k.layers.Dense(3)(x)
    x = k.layers.Softmax()(x)
    return k.Model(a, x)


def described(model):
    return [
        (type(layer).__name__, layer.name, [tuple(w.shape) for w in layer.get_weights()])
        for layer in model.layers
    ]


def test_automatic_names_and_layer_order(keras):
    for _ in range(2):  # the second time the numbers go on
        mine, theirs = build(minitl), build(keras)
        assert described(mine) == described(theirs)
        assert mine.name == theirs.name
        assert [v.name for v in mine.weights] == [v.name for v in theirs.weights]
        assert mine.input_shape == theirs.input_shape
        assert mine.output_shape == theirs.output_shape
        assert mine.count_params() == theirs.count_params()
    both = [k.Sequential([k.layers.Dense(2), k.layers.Dense(3)]) for k in (minitl, keras)]
    assert both[0].name == both[1].name
    for model in both:
        model.build((None, 4))
    assert described(both[0]) == described(both[1])


@pytest.mark.parametrize("settings", [{}, {"include_top": False}, {"pooling": "avg"}])
def test_vgg16_layers(keras, settings):
    settings = {"include_top": False, "input_shape": (32, 32, 3), "weights": None} | settings
    if not settings.get("pooling"):
        settings["input_shape"] = (None, None, 3)
    mine = minitl.applications.VGG16(**settings)
    theirs = keras.applications.VGG16(**settings)
    assert described(mine) == described(theirs)
    assert mine.output_shape == theirs.output_shape


def totals(model):
    """The three totals of a summary, without sizes in bytes."""
    lines = []
    model.summary(print_fn=lambda text, **_: lines.append(text))
    found = re.findall(r"(\w[\w-]* ?params): ([\d,]+)", "\n".join(lines))
    return dict(found)


def test_summary_totals(keras):
    mine, theirs = build(minitl), build(keras)
    for freeze in (False, True):
        for model in (mine, theirs):
            model.layers[2].trainable = not freeze
        assert totals(mine) == totals(theirs)
        assert len(totals(mine)) == 3


def two_outputs(k):
    x = k.Input((4,), name="x")
    a = k.layers.Dense(3, "softmax", name="a")(x)
    b = k.layers.Dense(1, name="b")(x)
    return k.Model(x, [a, b])


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "mse"},
        {"loss": ["categorical_crossentropy", "mse"], "metrics": [["accuracy"], ["mse"]]},
        {
            "loss": {"a": "categorical_crossentropy", "b": "mse"},
            "loss_weights": {"a": 0.3, "b": 2.0},
            "metrics": {"a": ["accuracy", "mse"]},
        },
        {"loss": ["categorical_crossentropy", None]},
        {"loss": ["mse", "mse"], "loss_weights": [0.5, 0.25]},
    ],
    ids=range(5),
)
def test_logs_of_several_outputs(keras, settings):
    rng = np.random.default_rng(0)
    # Full batches: of a short last one Keras's `a_loss` takes the mean as a full batch's (its
    # `loss` does not), minitl's counts samples in both.
    x = rng.standard_normal((12, 4)).astype(np.float32)
    y = [np.eye(3)[rng.integers(0, 3, 12)], rng.standard_normal((12, 1))]
    found = []
    for k in (minitl, keras):
        model = two_outputs(k)
        model.set_weights([np.full(w.shape, 0.1) for w in model.get_weights()])
        model.compile("sgd", **settings)
        history = model.fit(x, y, batch_size=4, shuffle=False, verbose=0, validation_data=(x, y))
        found.append((history.history, model.evaluate(x, y, batch_size=4, verbose=0)))
    compare_logs(*found)


def compare_logs(mine, theirs):
    assert list(mine[0]) == list(theirs[0])  # the order, too
    keys = ["loss", *(k for k in theirs[0] if not k.startswith(("val_", "loss")))]
    for name in theirs[0]:
        assert_close(mine[0][name], theirs[0][name], SAME_FORMULA_FLOAT32, name)
    mine, theirs = np.atleast_1d(mine[1]), np.atleast_1d(theirs[1])
    if any("weighted_" in name for name in keys):
        # Of two metrics with one name Keras's evaluate returns the first twice, and then both.
        theirs = np.delete(theirs, keys.index("accuracy") + 1)
    assert_close(mine, theirs, SAME_FORMULA_FLOAT32, "evaluate")


@pytest.mark.parametrize(
    "metrics", [None, ["accuracy"], ["mse", "accuracy"], ["accuracy", "AUC", "Precision"]], ids=str
)
@pytest.mark.parametrize("weighted", [None, ["accuracy"]], ids=["", "weighted"])
def test_logs_of_one_output(keras, metrics, weighted):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((11, 4)).astype(np.float32)
    y = np.eye(3)[rng.integers(0, 3, 11)]
    w = rng.uniform(0, 2, 11)
    found = []
    for k in (minitl, keras):
        model = k.Sequential([k.Input((4,)), k.layers.Dense(3, "softmax")])
        model.set_weights([np.linspace(-1, 1, 12).reshape(4, 3), np.zeros(3)])
        model.compile("sgd", "categorical_crossentropy", metrics=metrics, weighted_metrics=weighted)
        history = model.fit(
            x, y, batch_size=4, shuffle=False, verbose=0, validation_split=0.3, sample_weight=w
        )
        found.append((history.history, model.evaluate(x, y, verbose=0, sample_weight=w)))
    compare_logs(*found)
