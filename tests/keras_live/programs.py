"""A random configuration is a small program: run in minitl and in Keras, it must find the same.

The program is text. It sees `k`, the library, draws its numbers from a seed, and returns what it
found by name: arrays, which are compared within a bound, and plain values, which must be equal.

    def program(k):
        rng = np.random.default_rng(7)
        x = numbers(rng, (3, 5, 4))
        layer = k.layers.Dense(units=2, activation='tanh')
        return derive(k, layer, [x], rng)

So a case that fails can be printed as a script, and the script is what was run.

Keras runs in float64 and is the truth. minitl runs in float64, where both compute one formula and
differ by rounding only; or in float32, where it may differ from the truth by what Higham's bound
allows for its longest sum.
"""

import contextlib
import dataclasses
import linecache
import os
import pathlib
import tempfile
import textwrap
import warnings

import numpy as np

import minitl
from minitl.autograd import Tensor, Variable, backward
from tests.tolerances import SAME_FORMULA, gamma

__all__ = [
    "Pretender",
    "as_array",
    "compare",
    "count_calls",
    "derive",
    "logged",
    "np",
    "numbers",
    "optimize",
    "os",
    "pathlib",
    "play",
    "positive",
    "swap_files",
    "tempfile",
    "train",
]


@dataclasses.dataclass
class Program:
    """A program's text, and how its results are judged (see `compare`)."""

    component: str
    body: str
    judge: dict
    seed: tuple = ()

    @property
    def script(self):
        judge = "".join(f", {name}={value!r}" for name, value in self.judge.items())
        return (
            f"# {self.component}, seed {self.seed}. Run it from the root of the repository.\n"
            "from tests.keras_live.programs import *\n\n\n"
            f"def program(k):\n{textwrap.indent(self.body.strip(), '    ')}\n\n\n"
            f"compare(program{judge})\n"
        )

    def run(self):
        """Raises AssertionError, with the script in its notes, when the two differ or one fails."""
        name = f"<{self.component}, seed {self.seed}>"
        linecache.cache[name] = (len(self.script), None, self.script.splitlines(True), name)
        try:
            exec(compile(self.script, name, "exec"), {"__name__": name})
        except Exception as error:
            error.add_note(f"\nThis script repeats it:\n\n{self.script}")
            raise


def compare(program, dtype="float64", truth="float64", terms=100, fraction=None, bounds=None):
    """Run the program in both libraries; AssertionError where the results differ.

    Args:
        dtype, truth: minitl's and Keras's default dtype meanwhile.
        terms: the longest sum in the program, for float32: a sum of K terms of random signs, each
            around 1/sqrt(K), is around 1, and the sum of their magnitudes around sqrt(K); so its
            error is at most gamma_K sqrt(K).
        fraction: how far an array may lie off, as a fraction of its largest number (or of 1, if
            that is larger), where it does not follow from the above.
        bounds: {name: distance} for single results.
    """
    import keras

    if fraction is None:
        slack = terms + 50  # the roundings of elementwise functions before and after
        fraction = SAME_FORMULA
        if dtype == "float32":
            fraction = gamma(slack, np.float32) * slack**0.5
    found = []
    for k, floats in ((minitl, dtype), (keras, truth)):
        before = [(library, library.config.floatx()) for library in (minitl, keras)]
        for library, _ in before:  # a program may build the same in the other one
            library.config.set_floatx(floats)
        k.utils.clear_session(**({"free_memory": False} if k is keras else {}))
        k.utils.set_random_seed(0)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found.append(program(k))
        finally:
            for library, floatx in before:
                library.config.set_floatx(floatx)
    mine, theirs = found
    assert list(mine) == list(theirs), f"found {list(mine)}, Keras {list(theirs)}"
    wrong = [
        f"{name}: {what}"
        for name in theirs
        if (what := _difference(mine[name], theirs[name], fraction, (bounds or {}).get(name)))
    ]
    assert not wrong, "minitl differs from Keras:\n  " + "\n  ".join(wrong)


def _difference(mine, theirs, fraction, distance):
    """What is different, in words, or ''."""
    if not isinstance(theirs, np.ndarray | float):
        return "" if mine == theirs else f"{mine!r}, Keras {theirs!r}"
    mine, theirs = np.asarray(mine), np.asarray(theirs)
    if mine.shape != theirs.shape:
        return f"shape {mine.shape}, Keras {theirs.shape}"
    if not theirs.size:
        return ""
    exact = theirs.astype(np.float64)
    usual = np.isfinite(exact)
    if not np.array_equal(mine[~usual], theirs[~usual].astype(mine.dtype), equal_nan=True):
        return f"{mine[~usual]}, Keras {theirs[~usual]}"
    scale = max(np.abs(exact[usual]).max(initial=0), 1.0)
    allowed = fraction * scale if distance is None else distance
    error = np.abs(mine.astype(np.float64) - exact)[usual].max(initial=0)
    if error <= allowed:
        return ""
    return (
        f"differs by {error:.3g}, allowed {allowed:.3g}; {mine.ravel()[:4]}, {theirs.ravel()[:4]}"
    )


# --- What programs are made of -------------------------------------------------------------------


def numbers(rng, shape, scale=1.0):
    """Normal numbers that float32 holds exactly."""
    return (rng.standard_normal(shape) * scale).astype(np.float32).astype(np.float64)


def positive(rng, shape, low=0.0, high=1.0):
    """Uniform numbers that float32 holds exactly."""
    return rng.uniform(low, high, shape).astype(np.float32).astype(np.float64)


def as_array(value):
    """A tensor of either library as an array."""
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


def derive(k, f, inputs, rng, **settings):
    """Everything that can be asked of a function or layer: its outputs, the gradients of a random
    combination of them to its inputs and weights; for a layer the weights' names, what the call
    leaves in them, and the shapes that it promises.

    Args:
        f: called on one input, or on the list of several.
        settings: of the call, e.g. training=True.
    """
    dtype = k.config.floatx()
    inputs = [x.astype(dtype) for x in inputs]
    found, variables = {}, []
    if hasattr(f, "get_weights"):
        f(inputs if len(inputs) > 1 else inputs[0])
        found["names"] = [v.name for v in f.weights]
        f.set_weights([_weight(rng, v, dtype) for v in f.weights])
        variables = f.trainable_weights
        shapes = [(None, *x.shape[1:]) for x in inputs]
        promised = f.compute_output_shape(shapes if len(shapes) > 1 else shapes[0])
        found["shape"] = _plain(promised)
    outputs, gradients = (_in_minitl if k is minitl else _in_keras)(
        f, inputs, variables, rng, settings
    )
    found |= {f"y{i or ''}": y for i, y in enumerate(outputs)}
    found |= {f"gradient {i}": g for i, g in enumerate(gradients)}
    if hasattr(f, "get_weights"):
        found |= {f"weight {i}": w for i, w in enumerate(f.get_weights())}
    return found


def _plain(shape):
    """A tuple, or a list of them; Keras gives either as a list or a tuple."""
    if shape and isinstance(shape[0], tuple | list):
        return [_plain(each) for each in shape]
    return tuple(shape)


def _weight(rng, variable, dtype):
    """A random weight, scaled so that outputs stay around one."""
    shape = tuple(variable.shape)
    if "variance" in variable.name:
        return positive(rng, shape, 0.5, 2).astype(dtype)
    return numbers(rng, shape, 1 / np.sqrt(max(np.prod(shape[:-1]), 1))).astype(dtype)


def _cotangents(outputs, rng):
    return [numbers(rng, tuple(y.shape)).astype(outputs[0].dtype) for y in outputs]


def _in_minitl(f, inputs, variables, rng, settings):
    leaves = [Tensor(x, requires_grad=True) for x in inputs]
    y = f(leaves if len(leaves) > 1 else leaves[0], **settings)
    outputs = list(y) if isinstance(y, list | tuple) else [y]
    assert all(each.dtype == inputs[0].dtype for each in outputs)
    terms = [
        (each * Tensor(c)).sum()
        for each, c in zip(outputs, _cotangents([o.storage for o in outputs], rng), strict=True)
    ]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return [each.numpy() for each in outputs], backward(total, [*leaves, *variables])


def _in_keras(f, inputs, variables, rng, settings):
    import tensorflow as tf

    leaves = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        for leaf in leaves:
            tape.watch(leaf)
        y = f(leaves if len(leaves) > 1 else leaves[0], **settings)
    outputs = [tf.convert_to_tensor(each) for each in (y if isinstance(y, list | tuple) else [y])]
    gradients = tape.gradient(
        outputs,
        [*leaves, *(v.value for v in variables)],
        output_gradients=[tf.constant(c) for c in _cotangents([o.numpy() for o in outputs], rng)],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return [y.numpy() for y in outputs], [tf.convert_to_tensor(g).numpy() for g in gradients]


def optimize(k, optimizer, rng, steps, shapes, scales):
    """The weights after every step of the optimizer, on random gradients of random size. In the
    second half the first weight is frozen."""
    dtype = k.config.floatx()
    start = [numbers(rng, shape).astype(dtype) for shape in shapes]
    variables = [Variable(w) if k is minitl else k.Variable(w) for w in start]
    if k is not minitl:
        optimizer.build(variables)
    found = {}
    for step in range(steps):
        scale = scales[int(rng.integers(len(scales)))]
        gradients = [numbers(rng, shape, scale).astype(dtype) for shape in shapes]
        found[f"rate {step}"] = float(as_array(optimizer.learning_rate))
        if k is minitl:
            optimizer.apply(gradients, variables)
        else:
            optimizer.apply([k.ops.convert_to_tensor(g) for g in gradients], variables)
        found |= {f"weight {i}, step {step}": as_array(v) for i, v in enumerate(variables)}
    return found | {"iterations": int(as_array(optimizer.iterations))}


# --- Callbacks and trainings ---------------------------------------------------------------------


class Pretender:
    """What a callback needs of a model: weights, a rate, whether to stop, and to be saved."""

    def __init__(self, k):
        self.optimizer = k.optimizers.SGD(0.5)
        self.stop_training = False
        self.weights = [np.zeros(1)]
        self.metrics = []
        self.saved = []

    def get_weights(self):
        return [w.copy() for w in self.weights]

    def set_weights(self, weights):
        self.weights = [w.copy() for w in weights]

    def save(self, path, overwrite=True):
        self.saved.append(("model", pathlib.Path(path).name, float(self.weights[0][0])))

    def save_weights(self, path, overwrite=True):
        self.saved.append(("weights", pathlib.Path(path).name, float(self.weights[0][0])))


def play(k, callback, losses, start=0):
    """Feed a callback the losses of epochs, two batches each, until it stops: all that it did."""
    model, story = Pretender(k), []
    callback.set_model(model)
    callback.set_params({"epochs": len(losses), "steps": 2, "verbose": 0})
    callback.on_train_begin({})
    for epoch, value in enumerate(losses, start):
        model.weights = [np.array([epoch + 1.0])]
        callback.on_epoch_begin(epoch, {})
        for batch in range(2):
            callback.on_train_batch_begin(batch, {})
            callback.on_train_batch_end(batch, {"loss": value})
        logs = {"loss": 9.0, "val_loss": value}
        callback.on_epoch_end(epoch, logs)
        rate = float(as_array(model.optimizer.learning_rate))
        story.append((epoch, model.stop_training, f"{rate:.5g}", sorted(logs)))
        if model.stop_training:
            break
    callback.on_train_end({})
    return {"story": story, "weight": float(model.weights[0][0]), "saved": model.saved}


def logged(k):
    """A callback that keeps the loss after every batch, and the list that it fills."""
    losses = []

    class Steps(k.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            losses.append(float(logs["loss"]))

    return Steps(), losses


def count_calls(k):
    """A callback that writes down which of its methods were called, and the list that it fills."""
    calls = []
    moments = [name for name in dir(k.callbacks.Callback) if name.startswith("on_")]

    def wrote(moment):
        return lambda self, *args, **logs: calls.append(
            (moment, *(a for a in args if isinstance(a, int)))
        )

    return type("Spy", (k.callbacks.Callback,), {m: wrote(m) for m in moments})(), calls


def train(k, model, data, rng, optimizer, loss, compiled=None, **fit):
    """Compile and fit from random weights: the losses step by step, the history, the weights, what
    `evaluate` and `predict` give at the end."""
    dtype = k.config.floatx()
    weights = []
    for v in model.weights:
        shape = tuple(v.shape)
        scale = 1 / np.sqrt(max(np.prod(shape[:-1]), 1))
        special = {"moving_variance": 1.0, "gamma": 1.0}.get(v.name, 0.0)
        weights.append(special or numbers(rng, shape, scale))
    model.set_weights(
        [
            np.full(v.shape, w) if isinstance(w, float) else w
            for v, w in zip(model.weights, weights, strict=True)
        ]
    )
    x, y = data
    x = [each.astype(dtype) for each in x] if isinstance(x, list) else x.astype(dtype)
    model.compile(optimizer, loss, **(compiled or {}))
    steps, losses = logged(k)
    callbacks = [steps, *fit.pop("callbacks", [])]
    history = model.fit(x, y, shuffle=False, verbose=0, callbacks=callbacks, **fit)
    found = {"steps": np.array(losses), "epochs": history.epoch}
    found |= {name: np.array(values, np.float64) for name, values in history.history.items()}
    found |= {f"weight {i}": w for i, w in enumerate(model.get_weights())}
    scores = model.evaluate(x, y, batch_size=5, verbose=0, return_dict=True)
    found |= {f"evaluate {name}": np.asarray(v, np.float64) for name, v in scores.items()}
    predicted = model.predict(x, batch_size=5, verbose=0)
    predicted = predicted if isinstance(predicted, list) else [predicted]
    return found | {f"predict {i}": y for i, y in enumerate(predicted)}


@contextlib.contextmanager
def swap_files():
    with tempfile.TemporaryDirectory() as folder:
        yield pathlib.Path(folder)
