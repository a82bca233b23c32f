# ruff: noqa: E501
# fmt: off
"""Calls as somebody makes them who is mistaken: wrong types, shapes and values, at every door.

    python -m tests.fuzz_calls --seed 1 --calls 6000

draws so many bad calls of minitl's public functions, classes and methods. A good call of each is
known (`good`); in a bad one some arguments are drawn from `BAD`, or are missing, or there is one too
many. What comes of it is accepted or an error. An error is *bare* when its text names no argument
of the call, nor the layer; a call that was refused must leave model, optimizer, callbacks, arrays
and the process's settings as they were; none may take longer than SECONDS. For each failing case
the script that repeats it is printed. Used by `test_fuzz_calls.py`.
"""

import argparse
import contextlib
import importlib
import inspect
import io
import re
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

import minitl
from minitl import callbacks, layers, losses, metrics
from minitl.storage.digests import arrays_digest
from minitl.storage.state import fingerprint, state_of

SECONDS = 20
ROOMS = [
    "",
    "ops",
    "layers",
    "models",
    "optimizers",
    "losses",
    "metrics",
    "callbacks",
    "data",
    "datasets",
    "initializers",
    "regularizers",
    "activations",
    "applications",
    "transfer",
    "judging",
    "utils",
    "sklearn",
]
# Of `transfer` and others: what is there for other rooms, and takes what only these can make.
INSIDE = set(
    [
        "Formula",
        "Walk",
        "LSTMWalk",
        "GRUWalk",
        "ResetBeforeWalk",
        "lstm",
        "gru",
        "gru_reset_before",
        "with_gaps",
        "conv2d_wide",
        "floats",
        "Geometry",
        "Symbolic",
        "Registry",
        "positive",
        "Operation",
        "Centred",
        "Curve",
        "ratio",
        "CachedData",
        "Caching",
        "Cut",
        "Recalled",
        "SeededLayer",
        "Store",
        "Views",
        "FeatureFile",
        "Layout",
        "Head",
        "StreamData",
        "Evaluation",
        "RateTest",
        "ReliabilityBin",
        "CallbackList",
        "Pace",
        "settings_of",
        "architecture",
        "TABLE",
        "Any",
        "Array",
        "find_cut",
        "first_random",
        "read_layout",
        "visible",
        "training_work",
        "check_stages",
        "describe",
        "is_feature_file",
        "check_choice",
        "check_data_format",
        "check_size",
        "middle",
        "fit_image",
        "decode",
        "open_image",
        "load_data",
        "SymbolicTensor",
        "get",
        "public_names",
        "record",
        "as_tensor",
        "KW_ONLY",
        "dataclass",
        "annotations",
        "find_layers",
        "check_is_fitted",
        "validate_data",
        "check_classification_targets",
        "did_you_mean",
        "leaves",
        "frozen_digests",
        "layers_before",
        "check_labels",
        "check_probabilities",
        "gradient_errors",
        "Loss",
        "Metric",
        "Optimizer",
        "Callback",
        "Layer",
        "Initializer",
        "LearningRateSchedule",
        "calibration_error",
        "clipped",
        "format_logs",
    ]
)
N = 6


def small_model():
    minitl.utils.clear_session()
    minitl.utils.set_random_seed(1)
    image = layers.Input((8, 8, 3))
    t = layers.Conv2D(4, 3, name="b1_conv")(image)
    t = layers.Conv2D(4, 3, activation="relu", name="b2_conv")(t)
    t = layers.Dense(3, activation="softmax", name="head")(layers.Flatten()(t))
    model = minitl.Model(image, t)
    model.layers[1].trainable = False
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    x, y, _ = data()
    model.train_on_batch(x, y)
    return model


def data():
    x = np.random.default_rng(0).uniform(0, 255, (N, 8, 8, 3)).astype("float32")
    return x, np.eye(3, dtype="float32")[np.arange(N) % 3], np.arange(N) % 3


class Composite(layers.Layer):
    """Of a user's: its layers are built by its first call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(2), layers.Conv2D(2, 3)
        self.own = self.add_weight("own", (2,), "ones")

    def call(self, x):
        return self.second(self.first(x)) * self.own


class World:
    """What the calls work on, made anew whenever a call was accepted."""

    def __init__(self):
        self.model = small_model()
        self.x, self.y, self.labels = data()
        self.p = self.model.predict(self.x, verbose=0)
        self.sequential = minitl.Sequential([layers.Input((5,)), layers.Dense(2)])
        self.sequential.compile("adam", "mse")
        self.layer = self.model.get_layer("head")
        self.optimizer = self.model.optimizer
        self.metric = metrics.MeanSquaredError()
        self.loss = losses.MeanSquaredError()
        self.callback = callbacks.EarlyStopping("loss")
        self.callback.on_train_begin()
        self.others = self.more_objects()

    def more_objects(self):
        """Whose methods are called as well: of each kind one, by a name for scripts."""
        found = {name: getattr(callbacks, name) for name in ("ModelCheckpoint", "CSVLogger")}
        found = {name: each("m.h5" if name[0] == "M" else "l.csv") for name, each in found.items()}
        for name in ("ReduceLROnPlateau", "ProgbarLogger", "TerminateOnNaN", "History"):
            found[name] = getattr(callbacks, name)()
        found["LearningRateScheduler"] = callbacks.LearningRateScheduler(lambda epoch: 0.1)
        for each in found.values():
            each.set_model(self.model)
        for name in ("AUC", "F1Score", "Mean", "SparseCategoricalAccuracy", "R2Score"):
            found[name] = getattr(metrics, name)()
        found |= {n: getattr(losses, n)() for n in ("BinaryCrossentropy", "Huber", "Dice")}
        found["Sparse"] = losses.SparseCategoricalCrossentropy()
        found["CosineDecay"] = minitl.optimizers.CosineDecay(0.1, 10)
        found["PiecewiseConstantDecay"] = minitl.optimizers.PiecewiseConstantDecay([2], [0.1, 0.01])
        found["SGD"] = minitl.optimizers.SGD(0.1)
        found["GlorotUniform"] = minitl.initializers.GlorotUniform()
        found["Orthogonal"] = minitl.initializers.Orthogonal()
        found["L2"] = minitl.regularizers.L2()
        found["Tensor"] = minitl.Tensor(np.ones((2, 3)), requires_grad=True)
        found["Variable"] = minitl.Variable(np.ones((2, 3)))
        found["conv"] = layers.Conv2D(2, 3, name="b1_conv")
        found["pool"] = layers.MaxPooling2D(name="b1_conv")
        found["lstm"] = layers.LSTM(2, name="b1_conv")
        found["embedding"] = layers.Embedding(5, 2, name="b1_conv")
        found["add"] = layers.Add(name="b1_conv")
        found["norm"] = layers.BatchNormalization(name="b1_conv")
        found["Normalization"] = layers.Normalization(name="b1_conv")
        found["deferred"] = minitl.Sequential([layers.Conv2D(2, 3), layers.Dense(2)], name="b1_conv")
        found["deferred"].compile("sgd", "mse")
        found["composite"] = Composite(name="b1_conv")
        found["steps"] = layers.TimeDistributed(Composite(), name="b1_conv")
        found["both"] = layers.Bidirectional(layers.LSTM(2), name="b1_conv")
        for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
            Path("pictures", name).parent.mkdir(parents=True, exist_ok=True)
            minitl.utils.save_img(f"pictures/{name}", self.x[0])
        with contextlib.redirect_stdout(io.StringIO()):
            found["dataset"] = minitl.data.image_dataset_from_directory("pictures", image_size=(8, 8))
        found["SoftmaxHead"] = minitl.sklearn.SoftmaxHead().fit(self.x.reshape(N, -1), self.labels)
        return found

    def state(self):
        """All that a refused call must leave as it was."""
        model, found = self.model, {}
        found["weights"] = arrays_digest(v.storage for v in model.weights)
        found["layers"] = [
            (x.name, x.trainable, x.rate_multiplier, id(x), x.built, len(x.symbolic_calls))
            for x in [*model.layers, model, *self.sequential.layers, self.sequential]
        ]
        found["flags"] = [v.trainable for v in model.weights]
        found["compiled"] = id(model.optimizer), id(model.compiled), id(model.history)
        found["optimizer"] = fingerprint(state_of(self.optimizer, skip=("states",)))
        states = self.optimizer.states.values()
        found["moments"] = arrays_digest(a for s in states for _, a in sorted(s.items()))
        found["model"] = fingerprint(state_of(model)), model.fitting, len(model.kept_features)
        found["sequential"] = arrays_digest(v.storage for v in self.sequential.weights)
        found["metric"] = fingerprint(state_of(self.metric))
        found["callback"] = fingerprint(state_of(self.callback)), id(self.callback.model)
        found["arrays"] = arrays_digest([self.x, self.y, self.labels, self.p])
        found["others"] = fingerprint([_told(each) for each in self.others.values()])
        found["settings"] = minitl.config.floatx(), fingerprint(minitl.config.random_state())
        found["kernels"] = minitl.kernels.current() if hasattr(minitl.kernels, "current") else None
        found["files"] = sorted(p.name for p in Path().iterdir())
        return found


def _told(each):
    state = [v.storage for v in getattr(each, "weights", ())]
    with contextlib.suppress(Exception):
        state.append(state_of(each, skip=("model", "params", "layer")))
    inside = each.inside() if isinstance(each, layers.Layer) else []
    built = [(x.built, len(x.own_weights), len(x.symbolic_calls)) for x in inside]
    return [getattr(each, "name", ""), built, state]


def good_values(w):
    """Good values of arguments that have no default, by name, or by 'function.name'."""
    return {
        "x": w.x,
        "y": w.y,
        "images": w.x,
        "model": w.model,
        "layer": "b2_conv",
        "labels": w.labels,
        "y_true": w.y,
        "y_pred": w.p,
        "probabilities": w.p,
        "num_classes": 3,
        "class_names": list("abc"),
        "units": 3,
        "filters": 2,
        "kernel_size": 3,
        "rate": 0.5,
        "n": 2,
        "target_shape": (192,),
        "dims": (2, 1, 3),
        "scale": 2.0,
        "activation": "relu",
        "factor": 0.1,
        "height_factor": 0.1,
        "width_factor": 0.1,
        "height": 4,
        "width": 4,
        "stddev": 0.1,
        "shape": (8, 8, 3),
        "inputs": layers.Input((8, 8, 3)),
        "learning_rate": 0.01,
        "initial_learning_rate": 0.1,
        "decay_steps": 10,
        "decay_rate": 0.9,
        "boundaries": [2, 4],
        "values": [0.1, 0.01, 0.001],
        "schedule": lambda e: 0.1,
        "backup_dir": "backup",
        "filename": "log.csv",
        "filepath": "m.weights.h5",
        "logs": {"loss": 0.5},
        "optimizer": "adam",
        "loss": "categorical_crossentropy",
        "weights": w.model.get_weights(),
        "data": (w.x, w.y),
        "stages": ["b2_conv"],
        "f": w.x.reshape(N, -1),
        "l2": 0.01,
        "directory": "pictures",
        "unfreeze": "b2_conv",
        "fraction": 0.5,
        "seed": 0,
        "groups": w.labels,
        "rows": 8,
        "block": 2,
        "size": (4, 4),
        "img": minitl.utils.array_to_img(w.x[0]),
        "path": "pictures/a/1.png",
        "preds": np.full((2, 1000), 0.001),
        "probability": w.p[:, 0],
        "confusion": np.eye(3),
        "positive": w.labels > 0,
        "score": w.p[:, 0],
        "reliability": (),
        "history": {"loss": [1.0, 0.5]},
        "test": None,
        "views": [w.x, w.x],
        "kernel": np.zeros((192, 3)),
        "bias": np.zeros(3),
        "json_string": w.model.to_json(),
        "outputs": w.model.output,
        "name": "w",
        "axis": -1,
        "optimizer.gradients": [],
        "gradients": [np.zeros_like(v.storage) for v in w.model.trainable_weights],
        "variables": w.model.trainable_weights,
        "grads_and_vars": [],
        "dtype": "float32",
        "target": w.y,
        "head_loss.f": w.x.reshape(N, -1),
        "layers": [layers.RandomFlip()],
        "check_gradients.f": lambda a: minitl.ops.mean(a),
        "check_gradients.inputs": [np.ones(3)],
        "print_graph.y": minitl.Tensor(np.ones(2)),
        "TimeDistributed.layer": layers.Dense(2),
        "Bidirectional.layer": layers.LSTM(2),
        "stratified_subset.size": 3,
        "add.layer": layers.Dense(2),
        "Model.inputs": w.model.input,
        "metric": w.metric,
        "add.inputs": [layers.Input((3,)), layers.Input((3,))],
        "concatenate.inputs": [layers.Input((3,)), layers.Input((3,))],
        "set_weights.weights": w.layer.get_weights(),
        "input_shape": (None, 5),
        "evaluate_predictions.y_true": w.labels,
        "confusion_matrix.y_true": w.labels,
        "confusion_matrix.y_pred": w.labels,
        "accuracy.y_true": w.labels,
        "accuracy.y_pred": w.labels,
        "reliability_bins.y_true": w.labels,
        "prediction_sheet.y_true": w.labels,
        "solve_head.y": w.y,
        "epoch": 0,
        "batch": 0,
        "step": 1,
        "to_categorical.x": w.labels,
        "array_to_img.x": w.x[0],
        "save_img.x": w.x[0],
        "identifier": "adam",
        "Mean.y_true": [1.0],
        "Tensor.data": w.x,
        "Variable.data": w.x,
        "model_from_json.json_string": w.model.to_json(),
        "extract_features.layers": "b2_conv",
        "X": w.x.reshape(N, -1),
    }


def targets(w):
    """(path to write in a script, callable) of everything that is called."""
    found = {}
    for room in ROOMS:
        module = importlib.import_module(f"minitl.{room}".rstrip("."))
        names = getattr(module, "__all__", [n for n in vars(module) if n[:1] != "_"])
        for name in names:
            value = getattr(module, name)
            known = getattr(value, "__module__", "") or ""
            usable = callable(value) and not inspect.ismodule(value) and known.startswith("minitl")
            error = isinstance(value, type) and issubclass(value, BaseException)
            above = room and name in dir(minitl)  # imported from where it stands
            if usable and not above and name not in INSIDE and name[0] != "_" and not error:
                found[f"minitl.{room}.{name}".replace("..", ".")] = value
    found["minitl.extract_features"] = minitl.extract_features
    methods = {
        "model": "fit predict evaluate compile train_on_batch test_on_batch predict_on_batch get_layer "
        "set_weights load_weights save save_weights summary freeze_until unfreeze_from count_params",
        "sequential": "add build predict fit",
        "layer": "set_weights add_weight __call__ build compute_output_shape from_config",
        "optimizer": "apply apply_gradients",
        "metric": "update_state __call__",
        "loss": "__call__",
        "callback": "on_epoch_begin on_epoch_end on_train_begin set_params set_model set_state",
    }
    methods["model"] += " __call__ export to_json get_config from_config get_weights"
    methods["sequential"] += " pop __call__ summary"
    methods["layer"] += " count_params get_config"
    methods["optimizer"] += " get_config from_config"
    for owner, names in methods.items():
        for name in names.split():
            found[f"w.{owner}.{name}"] = getattr(getattr(w, owner), name)
    for owner, each in w.others.items():
        for name in METHODS:
            if callable(getattr(each, name, None)):
                found[f"w.others['{owner}'].{name}"] = getattr(each, name)
    return found

METHODS = ["on_epoch_begin", "on_epoch_end", "on_train_batch_end", "__call__", "update_state", "assign"]
METHODS += ["sum", "mean", "reshape", "shuffle", "batches", "fit", "predict", "transform", "add_weight"]


class Odd:
    """An object of no use."""

    def __repr__(self):
        return "Odd()"


nan, inf = float("nan"), float("inf")
ALL: dict = {
    "None": None,
    "True": True,
    "-1": -1,
    "0": 0,
    "1": 1,
    "7": 7,
    "-3": -3,
    "10**9": 10**9,
    "2**70": 2**70,
    "0.5": 0.5,
    "-0.5": -0.5,
    "3.0": 3.0,
    "nan": nan,
    "inf": inf,
    "-inf": -inf,
    "1e300": 1e300,
    "''": "",
    "'x'": "x",
    "'balanced'": "balanced",
    "'2'": "2",
    "b'x'": b"x",
    "[]": [],
    "[1]": [1],
    "[1, 2, 3]": [1, 2, 3],
    "[[1]]": [[1]],
    "[[1], [1, 2]]": [[1], [1, 2]],
    "()": (),
    "(1, 2)": (1, 2),
    "(2.0, 2.0)": (2.0, 2.0),
    "(0, 0)": (0, 0),
    "{}": {},
    "{'a': 1}": {"a": 1},
    "{0: None}": {0: None},
    "{1, 2}": {1, 2},
    "Odd()": Odd(),
    "len": len,
    "int": int,
    "['a', None]": ["a", None],
    "'train.csv'": "train.csv",
    "1j": 1j,
    "np.float32(1.5)": np.float32(1.5),
    "np.zeros(0)": np.zeros(0),
    "np.zeros(3)": np.zeros(3),
    "np.zeros((2, 2))": np.zeros((2, 2)),
    "np.zeros((6, 8, 8, 3))": np.zeros((6, 8, 8, 3)),
    "np.zeros((6, 8, 8, 1), 'u1')": np.zeros((6, 8, 8, 1), "u1"),
    "np.full((6, 3), nan)": np.full((6, 3), nan),
    "np.array('a')": np.array("a"),
    "np.array([None, 1])": np.array([None, 1]),
    "np.zeros((0, 8, 8, 3))": np.zeros((0, 8, 8, 3)),
    "np.array(5)": np.array(5),
    "range(3)": range(3),
    "iter([])": iter([]),
    "layers.Dense": layers.Dense,
    "layers.Dense(2)": None,
    "Path('nowhere')": Path("nowhere"),
    "...": ...,
    "'\\x1b[31m'": "\x1b[31m",
    "np.array(['a', 'b'])": np.array(["a", "b"]),
    "[None]": [None],
    "-7": -7,
    "np.zeros((5, 3))": np.zeros((5, 3)),
    "['x']": ["x"],
}
BAD = list(ALL)


def value_of(text):
    """A fresh value: some are used up or changed by a call."""
    space = {"np": np, "layers": layers, "Path": Path, "nan": nan, "inf": inf, "Odd": Odd}
    return eval(text, space)


class Case:
    """One bad call, from a seed: the function's path and its arguments, as texts or good values."""

    def __init__(self, seed, only=None):
        self.rng = np.random.default_rng(seed)
        self.seed, self.only = seed, only

    def draw(self, w):
        there = targets(w)
        paths = sorted(p for p in there if self.only is None or self.only in p)
        self.path = paths[self.rng.integers(len(paths))]
        self.function = there[self.path]
        name = self.path.rpartition(".")[2]
        try:
            known = inspect.signature(self.function).parameters
            if isinstance(self.function, type) and not issubclass(self.function, tuple):
                known = inspect.signature(self.function.__init__).parameters
        except (TypeError, ValueError):
            known = {}
        words = [n for n, p in known.items() if n != "self" and p.kind is p.VAR_POSITIONAL]
        plain = [
            p
            for n, p in known.items()
            if n != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        good = good_values(w)
        self.known = [p.name for p in plain]
        self.words = words  # of messages: arguments that are not given by name
        owner = self.path.split(".")[-2]
        self.given, self.texts = {}, {}
        for p in plain:
            if p.default is p.empty:
                value = good.get(f"{name}.{p.name}", good.get(p.name, ...))
                if value is not ...:
                    self.given[p.name] = value
        if name in ("fit", "evaluate", "train_on_batch", "test_on_batch"):
            self.given |= {"x": w.x, "y": w.y} if owner == "model" else {}
        if name == "compile":
            self.given["loss"] = "mse"
        if name == "get_layer":
            self.given["name"] = "head"
        for quiet in ("verbose",):
            if quiet in self.known:
                self.given[quiet] = 0
        if name in ("VGG16", "VGG19", "ResNet50", "MobileNetV2", "EfficientNetB0"):
            self.given |= {"weights": None, "include_top": False, "input_shape": (32, 32, 3)}
        if name == "fine_tune":
            self.given |= {"head_epochs": 1, "epochs": 1}
            self.known += [
                "head_epochs",
                "epochs",
                "learning_rate",
                "rate_decay",
                "warmup",
                "patience",
                "batch_norm",
                "batch_size",
                "callbacks",
                "cache_features",
                "validation_split",
            ]
        count = min(len(self.known), int(self.rng.choice([1, 1, 1, 2])))
        for chosen in self.rng.choice(self.known, count, replace=False) if count else ():
            self.texts[str(chosen)] = BAD[self.rng.integers(len(BAD))]
            self.given[str(chosen)] = value_of(self.texts[str(chosen)])
        return self

    def script(self):
        more = f" --only {self.only}" if self.only else ""
        bad = ", ".join(f"{n}={t}" for n, t in self.texts.items())
        return f"python -m tests.fuzz_calls --case {self.seed}{more}   # {self.path}({bad})"


def names_an_argument(case, error):
    """Whether the message says which argument it was about, or which layer."""
    text = str(error)
    words = set(re.findall(r"[A-Za-z_][A-Za-z_0-9]*", text))
    if "required positional argument" in text:  # which Python names
        return True
    paths = [str(v) for v in case.given.values() if isinstance(v, (str, Path)) and str(v)]
    if isinstance(error, OSError) and any(p in text for p in paths):  # 'cannot read x.png: ...'
        return True
    if re.search(r"\(in \w", text):  # `tell`: the call follows, its arguments by name
        return True
    return bool(words & {*case.known, *case.words}) or any(
        f"'{n}'" in text for n in ("head", "functional", "sequential", "b2_conv", "b1_conv")
    )


class TooSlow(BaseException):
    pass


def run(case, w):
    """(what came of it, error): 'accepted', 'refused', 'bare', 'changed: ...' or 'slow'."""

    def stop(*_):
        raise TooSlow

    before = w.state()
    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            made = case.function(**case.given)
            if inspect.isgenerator(made) or hasattr(made, "__next__"):
                next(made, None)
            return "accepted", None
    except TooSlow:
        return "slow", None
    except Exception as error:
        signal.alarm(0)
        after = w.state()
        changed = [name for name in before if before[name] != after[name]]
        if changed:
            return f"changed: {', '.join(changed)}", error
        fine = isinstance(
            error, (ValueError, TypeError, OSError, RuntimeError)
        ) and names_an_argument(case, error)
        return "refused" if fine else "bare", error
    finally:
        signal.alarm(0)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--seed", type=int, default=0, help="of the calls; another one, other calls"
    )
    parser.add_argument("--calls", type=int, default=600)
    parser.add_argument("--only", help="functions whose path holds this text")
    parser.add_argument("--case", type=int, nargs="+", help="repeat this one, with its traceback")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return search(given)


def search(given):
    w, counts, failures = World(), Counter(), []
    seeds = given.case or [[given.seed, i] for i in range(given.calls)]
    if given.case:
        seeds = [given.case]
    for seed in seeds:
        case = Case(seed, given.only).draw(w)
        verdict, error = run(case, w)
        counts[verdict.partition(":")[0]] += 1
        if verdict != "refused":
            for left in Path().iterdir():
                with contextlib.suppress(OSError):
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            w = World()
        if verdict not in ("accepted", "refused"):
            failures.append((verdict, case.path, f"{type(error).__name__}: {error}"))
            numbers = " ".join(map(str, seed))
            print(f"{verdict}: {case.path}({', '.join(f'{n}={t}' for n, t in case.texts.items())})")
            print(f"    {type(error).__name__}: {str(error)[:200]}")
            print(
                f"    python -m tests.fuzz_calls --case {numbers}"
                + (f" --only {given.only}" if given.only else "")
            )
        if given.case and error is not None:
            traceback.print_exception(error)
    print(dict(counts))
    return failures


if __name__ == "__main__":
    sys.exit(bool(main()))
