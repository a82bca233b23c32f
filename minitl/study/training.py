"""Stages 13 to 22, what training is made of: minitl's right functions, and cases to try them on.

As in `arithmetic.py`; there is more here that brings minitl's functions into the learner's form,
since what these stages ask for is spread over several methods in minitl.
"""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minitl import autograd, initializers, layers, metrics, ops, optimizers
from minitl.applications import vgg16
from minitl.autograd import Tensor
from minitl.kernels import reference
from minitl.metrics import others
from minitl.naming import snake_case
from minitl.ops.arrays import sigmoid, tanh
from minitl.ops.recurrence import LSTMWalk
from minitl.storage import keras_weights
from minitl.study.results import Array, Case, Part, WrongNumber
from minitl.transfer import cut, features, optimum, stages

Rng = np.random.Generator

# --- 13 to 15 -------------------------------------------------------------------------------------


def spread(function: Any, shape: Any, seed: int) -> tuple[Array, ...]:
    rng = np.random.default_rng(seed)
    w, again = function(shape, rng), function(shape, rng)
    repeated = function(shape, np.random.default_rng(seed))
    sizes = np.array(w.shape), np.array(w.min()), np.array(w.max()), np.array(w.std())
    return *sizes, np.array(np.array_equal(w, again)), np.array(np.array_equal(w, repeated))


def drawn_by(kind: Any) -> Callable[..., Array]:
    return lambda shape, rng: kind(int(rng.integers(2**31)))(shape, "float64")


SHAPES = ((3, 3, 32, 64), (500, 100), (100, 500), (5, 5, 8, 16), (3, 3, 64, 8), (2, 4, 30, 30))
VALUES = {name: "" for name in ("shape", "smallest", "largest", "deviation", "same", "again")}


def left_alone(function: Any, w: Array, g: Array, *more: Any) -> None:
    before = g.copy()
    function(w, g, *more)
    if not np.array_equal(g, before):
        raise WrongNumber("changed its argument g, which belongs to the caller")


def steps(function: Any, w: Array, g: Array, velocity: Any, **more: Any) -> tuple[Array, ...]:
    for factor in (1.0, -0.5, 2.0):
        left_alone(function, w, factor * g, velocity, *more.values())
    return w, np.zeros(0) if velocity is None else velocity


def adam_steps(function: Any, w: Array, g: Array, **more: Any) -> tuple[Array, ...]:
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, factor in enumerate((1.0, -0.5, 2.0), start=1):
        left_alone(function, w, factor * g, m, v, t, *more.values())
    return w, m, v


def adam_update(
    w: Array, g: Array, m: Array, v: Array, t: int, rate: float, b1: float, b2: float, eps: float
) -> None:
    corrected = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
    reference.adam_update(w, g, m, v, corrected, b1, b2, eps)


ADAM = {"rate": 0.1, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}

# --- 16 to 22 -------------------------------------------------------------------------------------


def from_file(function: Any, stored: Any, as_bytes: bool) -> tuple[Any, ...]:
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.h5"
        with h5py.File(path, "w") as file:
            kept = (lambda names: np.array(names, "S")) if as_bytes else list
            file.attrs["layer_names"] = kept([layer for layer, _ in stored])
            for layer, arrays in stored:
                group = file.create_group(layer)
                group.attrs["weight_names"] = kept([name for name, _ in arrays])
                for name, array in arrays:
                    group[name] = array
        found = [(layer, [(n, np.array(a)) for n, a in arrays]) for layer, arrays in function(path)]
    names = [[layer, *(n for n, _ in arrays)] for layer, arrays in found]
    if any(isinstance(n, Array) for each in names for n in each):
        raise WrongNumber("gave an array where a weight's name should stand: (name, array)")
    return names, [a for _, arrays in found for _, a in arrays]


def weight_files(rng: Rng) -> Iterator[Case]:
    kernel, bias = rng.standard_normal((3, 3, 2, 4)), rng.standard_normal(4)
    conv = ("z_conv", [("z_conv/kernel", kernel), ("z_conv/bias", bias)])
    old = ("a_conv", [("a_conv_W_1:0", kernel), ("a_conv_b_1:0", bias)])
    dense = ("m", [("deep/er/w", rng.standard_normal((4, 2)))])
    for label, stored, as_bytes in (
        ("one layer", [conv], False),
        ("names that are not in the order of the alphabet", [conv, dense, old], False),
        ("names that are bytes", [conv, old], True),
        ("a layer without weights", [conv, ("pool", []), old], False),
        ("weights of which the second comes first in the alphabet", [old, conv, dense], True),
    ):
        yield label, {"stored": stored, "as_bytes": as_bytes}


WINDOW = ("pool_size", "strides")  # of a layer that has them


def looked_at(function: Any, shape: Any) -> tuple[list[Any], ...]:
    token = initializers.replacement.set(np.zeros)  # no time is spent on drawing numbers
    try:
        model, earlier = function(shape), function(shape)
    finally:
        initializers.replacement.reset(token)
    if {*model.layers} & {*earlier.layers}:
        raise WrongNumber("returned layers of an earlier call: each model needs its own")
    inner = [layer for layer in model.layers if not isinstance(layer, layers.InputLayer)]
    return (
        [layer.name for layer in inner],
        [layer.output.shape[1:] for layer in inner],
        [[v.shape for v in layer.weights] for layer in inner],
        [getattr(getattr(layer, "activation", None), "__name__", "none") for layer in inner],
        [tuple(x for n in WINDOW for x in getattr(layer, n, ())) for layer in inner],
    )


KINDS: dict[str, Callable[..., Any]] = {
    "conv": lambda **name: layers.Conv2D(4, 3, padding="same", **name),
    "norm": layers.BatchNormalization,
    "pool": layers.MaxPooling2D,
    "dropout": lambda **name: layers.Dropout(0.5, **name),
    "flatten": layers.Flatten,
    "dense": lambda **name: layers.Dense(3, **name),
}


def chain(*kinds: str) -> list[Any]:
    """Layers by short words: 'conv' one that is frozen, 'CONV' one that learns, and so on."""
    made, x = [], layers.Input((8, 8, 3))
    for number, kind in enumerate(kinds):
        layer = KINDS[kind.lower()](name=f"{kind.lower()}_{number}")
        layer.trainable = kind.isupper()
        made.append(layer)
        x = layer(x)
    return made


CHAINS = (
    ("conv", "pool", "conv", "pool", "flatten", "DENSE"),
    ("conv", "CONV", "pool", "flatten", "DENSE"),
    ("CONV", "pool", "flatten", "dense"),
    ("conv", "pool", "dropout", "flatten", "DENSE"),
    ("conv", "CONV", "conv", "flatten", "DENSE"),
    ("conv", "pool", "flatten", "dense"),
    ("conv", "norm", "pool", "CONV", "flatten", "DENSE"),
)


def frozen_count(made: list[Any]) -> int:
    return next((i for i, layer in enumerate(made) if not layer.fixed(True)), len(made))


def in_batches(made: list[Any], x: Array, batch_size: int) -> Array:
    parts = []
    for start in range(0, len(x), batch_size):
        y: Any = x[start : start + batch_size]
        for layer in made:
            y = layer(y)
        parts.append(y.data.reshape(len(y), -1))
    return np.concatenate(parts)


def images(rng: Rng) -> Iterator[Case]:
    kinds_of = CHAINS[0][:4], CHAINS[0][:5], CHAINS[6][:3], ("conv",), CHAINS[3][:3]
    sizes = (4, 2), (5, 2), (3, 8), (1, 1), (6, 4)
    for (n, size), kinds in zip(sizes, kinds_of, strict=True):
        x = rng.standard_normal((n, 8, 8, 3)).astype(np.float32)
        yield "", {"layers": chain(*kinds), "images": x, "batch_size": size}


def head(kernel: Array, bias: Array, f: Array, targets: Array, l2: float) -> tuple[Any, ...]:
    w, b = Tensor(kernel, requires_grad=True), Tensor(bias, requires_grad=True)
    losses = ops.softmax_cross_entropy(ops.dense(f, w, b), targets)
    y = losses.mean() + l2 * (w * w).sum()
    return y.data, *autograd.backward(y, [w, b])


def at_optimum(function: Any, **given: Any) -> tuple[Array, Array]:
    kernel, bias = function(*given.values())
    return kernel, bias - np.mean(bias)


def heads(*names: str) -> Callable[[Rng], Iterator[Case]]:
    def cases(rng: Rng) -> Iterator[Case]:
        for n, d, m, l2 in ((6, 4, 3, 0.1), (12, 3, 2, 0.01), (9, 5, 5, 0.5), (20, 6, 4, 0.05)):
            targets = np.eye(m)[np.arange(n) % m]
            drawn: dict[str, Any] = {
                "kernel": rng.standard_normal((d, m)),
                "bias": rng.standard_normal(m),
            }
            drawn |= {"F": rng.standard_normal((n, d)), "targets": targets, "l2": l2}
            yield "", {name: drawn[name] for name in names}

    return cases


def judged(rng: Rng) -> Iterator[Case]:
    sizes = (4, 2), (9, 3), (30, 5), (12, 4), (12, 4), (3, 3)
    labels_of = "", "", "", "a class that nobody is", "a class that is never predicted", ""
    for (n, m), label in zip(sizes, labels_of, strict=True):
        labels, p = rng.integers(0, m, n), rng.dirichlet(np.ones(m), n)
        if label.endswith("is"):
            labels = rng.integers(0, m - 1, n)
        elif label:
            p[:, 0] = 0
        yield label, {"labels": labels, "p": p}


def metric(kind: Any) -> Callable[..., Array]:
    return lambda labels, p: np.asarray(kind()(labels, p))


def as_array(function: Any, **given: Any) -> Array:
    """What a function gives; a list of numbers is as good as an array."""
    return np.asarray(function(*given.values()))


def after_unfreezing(function: Any, names: Any, start: str, decay: float) -> tuple[list[Any], ...]:
    made: list[Any] = []
    for name in names:
        bn = name.endswith("bn")
        made.append(layers.BatchNormalization(name=name) if bn else layers.Dense(2, name=name))
        made[-1].trainable = name.startswith("head")
    function(made, start, decay)
    return [layer.trainable for layer in made], [float(layer.rate_multiplier) for layer in made]


def unfreeze(made: list[Any], start: str, decay: float) -> None:
    base = [layer for layer in made if layer.name.startswith("block")]
    blocks = sorted({layer.name.split("_")[0] for layer in base}, reverse=True)
    for layer in base:
        block = layer.name.split("_")[0]
        layer.trainable = block >= start and not isinstance(layer, layers.BatchNormalization)
        layer.rate_multiplier = decay ** (1 + blocks.index(block)) if layer.trainable else 1.0


BASE = ("block1_a", "block2_a", "block3_a", "block3_b", "block4_a", "block4_bn", "block5_a", "head")


def lstm_step(z: Array, h: Array, c: Array, kernel: Array) -> tuple[Array, Array, Any]:
    tensors = [Tensor(a, requires_grad=True) for a in (z, h, c, kernel)]
    u = h.shape[1]
    a = tensors[0] + tensors[1] @ tensors[3]
    i, f, k, o = (a[:, n * u : (n + 1) * u] for n in range(4))
    c_next = sigmoid(f) * tensors[2] + sigmoid(i) * tanh(k)
    h_next = sigmoid(o) * tanh(c_next)

    def gradient(dh: Array, dc: Array) -> Any:
        return autograd.backward((h_next * dh + c_next * dc).sum(), tensors)

    return h_next.data, c_next.data, gradient


def one_step(function: Any, *, dh: Array, dc: Array, **given: Any) -> tuple[Any, ...]:
    h, c, gradient = function(*given.values())
    return h, c, *gradient(dh, dc)


def lstm_cases(rng: Rng) -> Iterator[Case]:
    for n, u in ((1, 1), (3, 2), (2, 4), (4, 4)):
        shapes = {"z": (n, 4 * u), "h": (n, u), "c": (n, u), "kernel": (u, 4 * u)}
        shapes |= {"dh": (n, u), "dc": (n, u)}
        yield "", {name: rng.standard_normal(shape) for name, shape in shapes.items()}


# --- The stages -----------------------------------------------------------------------------------


def of_shapes(rng: Rng) -> Iterator[Case]:
    for shape in SHAPES:
        yield "", {"shape": shape, "seed": int(rng.integers(100))}


def moving(rng: Rng) -> Iterator[Case]:
    for shape, momentum in (((5,), 0.9), ((3, 4), 0.5), ((2, 2), 0.0), ((3,), None)):
        w, g, v = rng.standard_normal((3, *shape))
        given = {"w": w, "g": g, "velocity": None if momentum is None else v}
        yield "", given | {"rate": 0.1, "momentum": momentum or 0.0}


def of_adam(rng: Rng) -> Iterator[Case]:
    for shape, size in (((5,), 1.0), ((3, 4), 1.0), ((2, 2), 1e-4), ((6,), 1e-7)):
        w, g = rng.standard_normal((2, *shape))
        yield "tiny gradients" * (size < 1), {"w": w, "g": size * g} | ADAM


def shapes(rng: Rng) -> Iterator[Case]:
    yield from (("", {"shape": shape}) for shape in ((32, 32, 3), (64, 96, 3)))


def cuts(rng: Rng) -> Iterator[Case]:
    yield from ((" ".join(kinds), {"layers": chain(*kinds)}) for kinds in CHAINS)


def base(rng: Rng) -> Iterator[Case]:
    for start in ("block5", "block4", "block2"):
        for decay in (0.1, 0.5):
            yield start, {"names": BASE, "start": start, "decay": decay}


PARTS: dict[int, tuple[Part, ...]] = {}


def part(stage: int, *given: Any, **more: Any) -> None:
    """One more function for a stage."""
    PARTS[stage] = (*PARTS.get(stage, ()), Part(*given, **more))


def named(*results: str) -> dict[str, str]:
    """Results of which the axes have no names."""
    return dict.fromkeys(results, "")


for _kind in (initializers.GlorotUniform, initializers.HeUniform):
    how: Any = {"source": _kind, "tolerance": 0.03}
    part(13, snake_case(_kind.__name__), drawn_by(_kind), of_shapes, VALUES, spread, **how)
new, how = named("new_w", "new_velocity"), {"changes": ("w", "velocity")}
part(14, "sgd_update", reference.sgd_update, moving, new, steps, **how)
new, how = named("new_w", "new_m", "new_v"), {"changes": ("w",), "source": optimizers.Adam.update}
part(15, "adam_update", adam_update, of_adam, new, adam_steps, **how)
part(16, "read_weights", keras_weights.read, weight_files, named("names", "arrays"), from_file)
seen = named("names", "outputs", "weights", "activations", "windows")
of_layers = "of the layers in their order, after the input"
vgg, how = vgg16.VGG16, {"source": vgg16.VGG16, "meaning": dict.fromkeys(seen, of_layers)}
built: Any = lambda shape: vgg(False, None, None, shape)  # noqa: E731
part(17, "build", built, shapes, seen, looked_at, **how)
part(18, "cut", frozen_count, cuts, named("count"), source=cut.find_cut)
how = {"source": features.extract_features, "tolerance": 1e-5}
part(18, "features", in_batches, images, {"F": "N D"}, **how)
found = {"loss": "", "dkernel": "D m", "dbias": "m"}
given = heads("kernel", "bias", "F", "targets", "l2")
part(19, "head", head, given, found, source=optimum.head_loss)
found, given = {"kernel": "D m", "bias": "m"}, heads("F", "targets", "l2")
how = {"source": optimum.solve_head, "tolerance": 1e-3}
solved: Any = lambda f, targets, l2: optimum.solve_head(f, targets, l2)[:2]  # noqa: E731
part(19, "solve", solved, given, found, at_optimum, **how)
right: Any = metrics.CategoricalAccuracy
part(20, "accuracy", metric(right), judged, named("share"), source=right)
how = {"source": others.FBetaScore, "tolerance": 1e-6}
part(20, "f1", metric(others.F1Score), judged, {"f1": "m"}, as_array, **how)
found, of_layers = named("learns", "rates"), f"of the layers {', '.join(BASE)}"
how = {"meaning": dict.fromkeys(found, of_layers), "source": stages.fine_tune}
part(21, "unfreeze", unfreeze, base, found, after_unfreezing, **how)
found = {"h": "N U", "c": "N U", "dz": "N 4U", "dh_before": "N U", "dc_before": "N U"}
part(22, "lstm_step", lstm_step, lstm_cases, found | {"dR": "U 4U"}, one_step, source=LSTMWalk)
