"""The judge: VGG16 with its real weights, on photographs, with the learner's function put into it.

Where the function is a kernel, `use_kernels` puts it in. A learner's loops may take a thousand
times as long as minitl's, so each call is bounded: first one filter (or channel) is computed and
timed, then as many as time allows; minitl's formula computes the others. Every layer is told: how
many of its filters were the learner's, how far off they are, how many times slower.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitl import autograd, kernels, layers, losses, ops, optimizers
from minitl.applications.vgg16 import VGG16, preprocess_input
from minitl.kernels import reference
from minitl.kernels.geometry import Geometry
from minitl.metrics import others
from minitl.models import Model
from minitl.storage import keras_weights
from minitl.study import arithmetic, training
from minitl.transfer.features import extract_features
from minitl.transfer.optimum import head_loss, solve_head

Array = np.ndarray
Names = dict[str, Any]
SIDE = 32  # pixels: the smallest image that VGG16 takes
SECONDS = 20.0  # of the learner's function, in all calls together
FILE = "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"

# Which axis of which arguments, and of the results, can be cut: filters, or channels, are
# independent of one another.
CUT: dict[str, tuple[dict[str, int], int]] = {
    "conv2d": ({"kernel": 3, "bias": 0}, 3),
    "conv2d_input_gradient": ({"kernel": 2}, 3),
    "conv2d_kernel_gradient": ({"x": 3}, 2),
    "max_pool2d_with_winners": ({"x": 3}, 3),
    "max_pool2d_gradient": ({"g": 3, "winners": 3}, 3),
    "dense": ({"kernel": 1, "bias": 0}, 1),
    "dense_input_gradient": ({"kernel": 0}, 1),
    "dense_kernel_gradient": ({"x": 1}, 0),
    "softmax_cross_entropy": ({}, 0),
}


def photographs(count: int = 8, size: int = SIDE) -> tuple[Array, Array]:
    """Crops (2 * count, size, size, 3) of two photographs, RGB 0-255, and which of the two: (2 *
    count,). They come with scikit-learn."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        need = "the photographs come with scikit-learn: pip install 'minitl[sklearn]'"
        raise ImportError(need) from error
    from PIL import Image

    rng, crops = np.random.default_rng(0), []
    for picture in load_sample_images().images:
        for _ in range(count):
            side = int(rng.integers(140, 260))
            top, left = (int(rng.integers(0, n - side + 1)) for n in picture.shape[:2])
            crop = Image.fromarray(picture[top : top + side, left : left + side])
            crops.append(np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(crops), np.repeat([0, 1], count)


@dataclass
class Calls:
    """A learner's kernel, as it is put in: measured, compared, and bounded in time."""

    name: str
    mine: Callable[..., Any]
    seconds: float  # per call

    def __post_init__(self) -> None:
        self.rows: list[str] = []
        self.worst = 0.0
        self.formula = getattr(reference, self.name)
        self.arguments = arithmetic.parameters(self.formula)

    def __call__(self, *given: Any) -> Any:
        right = self.formula(*given)
        results = right if isinstance(right, tuple) else (right,)
        axes, along = CUT[self.name]
        whole = results[0].shape[along] if axes else 1
        count, taken, elapsed = 1, 0.0, 0.0
        found: tuple[Any, ...] = ()
        for wanted in (1, whole):
            count = min(wanted, int(self.seconds / taken) if taken else 1)
            if count > 1 or not taken:
                cut = self._cut(given, count) if axes else given
                started, begun = time.perf_counter(), time.process_time()
                mine = self.mine(*cut)
                elapsed = time.perf_counter() - started
                taken = time.process_time() - begun + 1e-9
                found = mine if isinstance(mine, tuple) else (mine,)
            count = max(count, 1)
        error = 0.0
        for y, m in zip(results, found, strict=True):
            part = y[(slice(None),) * along + (slice(0, count),)] if axes else y
            scale = np.abs(part).max(initial=1e-30)
            error = max(error, float(np.abs(np.asarray(m, np.float64) - part).max() / scale))
            part[...] = m
        self._tell(given, error, elapsed * whole / count, count, whole)
        return right

    def _cut(self, given: Any, count: int) -> list[Any]:
        axes, cut = CUT[self.name][0], []
        for name, value in zip(self.arguments, given, strict=True):
            at = (slice(None),) * axes.get(name, 0) + (slice(0, count),)
            whole = name not in axes or value is None
            cut.append(value if whole else np.ascontiguousarray(value[at]))
        return cut

    def _tell(self, given: Any, error: float, taken: float, count: int, whole: int) -> None:
        ours = float("inf")
        for _ in "ab":  # what is compiled when first called is then compiled
            with kernels.use_kernels("fast"):
                started = time.perf_counter()
                getattr(kernels, self.name)(*given)
            ours = min(ours, time.perf_counter() - started)
        self.worst = max(self.worst, error)
        shapes = " ".join("x".join(map(str, a.shape)) for a in given if isinstance(a, Array))
        part = f"{count} of {whole}"
        self.rows.append(f"{shapes:<38} {part:>12} {error:10.1e} {taken / ours:10.2g}")

    def report(self) -> Iterator[str]:
        yield f"{self.name}, call by call:"
        head = f"{'arrays':<38} {'computed':>12} {'error':>10} {'times ours':>10}"
        yield "\n".join(f"    {row}" for row in (head, *self.rows))


# --- Functions that become kernels ----------------------------------------------------------------


def of_columns(names: Names) -> Names:
    def conv2d(x: Array, kernel: Array, bias: Any, geometry: Geometry) -> Array:
        rows = names["im2col"](x, geometry) @ kernel.reshape(-1, kernel.shape[3])
        y = rows.reshape(len(x), *geometry.out_size, -1)
        return y if bias is None else y + bias

    return {"conv2d": conv2d}


def of_loop(names: Names) -> Names:
    def conv2d(x: Array, kernel: Array, bias: Any, geometry: Geometry) -> Array:
        y = names["correlate"](reference.pad(x, geometry), kernel, *geometry.strides)
        return y if bias is None else y + bias

    return {"conv2d": conv2d}


def of_tiles(names: Names, axes: int) -> Names:
    """Convolution of 3x3 in tiles of 2 outputs, along one axis or two; each number that the
    learner's function sees is a matrix."""
    winograd = names["winograd"]

    def conv2d(x: Array, kernel: Array, bias: Any, geometry: Geometry) -> Array:
        (oh, ow), padded = geometry.out_size, reference.pad(x, geometry)
        more = ((0, 0), (0, oh % 2), (0, ow % 2), (0, 0))
        padded = np.pad(padded, more)
        y: Any = 0.0
        h, w = oh + oh % 2, ow + ow % 2
        for kh in range(3 if axes == 1 else 1):
            rows = range(4) if axes == 2 else (kh,)
            d = [
                padded[:, r : r + (h if axes == 1 else h - 1) : axes, c : c + w - 1 : 2]
                for r in rows
                for c in range(4)
            ]
            shape = d[0].shape[:3]
            flat = np.stack([a.reshape(-1, x.shape[3]) for a in d])  # (4 or 16, tiles, C)
            g = kernel[kh] if axes == 1 else kernel
            flat = flat if axes == 1 else flat.reshape(4, 4, *flat.shape[1:])
            tiles = winograd(arithmetic.counted(flat, "d"), arithmetic.counted(g, "g"))
            out = np.zeros((len(x), h, w, kernel.shape[3]), x.dtype)
            if axes == 1:
                for c in range(2):
                    out[:, :, c::2] = tiles[c].value.reshape(*shape, -1)
            else:
                for r, c in np.ndindex(2, 2):
                    out[:, r::2, c::2] = tiles[r][c].value.reshape(*shape, -1)
            y = y + out
        y = y[:, :oh, :ow]
        return np.ascontiguousarray(y if bias is None else y + bias)

    return {"conv2d": conv2d}


def by_name(*wanted: str) -> Callable[[Names], Names]:
    return lambda names: {name: names[name] for name in wanted}


FORWARD: dict[int, Callable[[Names], Names]] = {
    5: by_name("conv2d"),
    8: of_columns,
    10: of_loop,
    11: lambda names: of_tiles(names, 1),
    12: lambda names: of_tiles(names, 2),
}
IN_TRAINING: dict[int, tuple[str, ...]] = {
    3: ("softmax_cross_entropy",),
    4: ("dense", "dense_input_gradient", "dense_kernel_gradient"),
    6: ("conv2d_input_gradient",),
    7: ("conv2d_kernel_gradient",),
    9: ("max_pool2d_with_winners", "max_pool2d_gradient"),
}


def judge(number: int, names: Names) -> Iterator[str]:
    """Put a stage's functions in and run VGG16; yield lines of what came out.

    Raises ArithmeticError where the network's result is not what it should be.
    """
    try:
        base = VGG16(include_top=False, input_shape=(SIDE, SIDE, 3))
        crops, labels = photographs()
    except (OSError, ImportError) as error:
        yield f"the real network was not run: {error}"
        return
    x = preprocess_input(crops)
    if number in FORWARD:
        yield from _predicted(base, x, labels, FORWARD[number](names))
    elif number in IN_TRAINING:
        yield from _trained(base, x, labels, by_name(*IN_TRAINING[number])(names))
    elif number in OTHERS:
        yield from OTHERS[number](names, base, x, labels)


def _put_in(functions: Names, calls: int) -> dict[str, Calls]:
    share = SECONDS / calls / len(functions)
    return {name: Calls(name, function, share) for name, function in functions.items()}


def _predicted(base: Any, x: Array, labels: Array, functions: Names) -> Iterator[str]:
    shown, learnt = [0, len(x) // 2], np.delete(np.arange(len(x)), [0, len(x) // 2])
    f = base.predict(x, verbose=0).reshape(len(x), -1)
    head = solve_head(f[learnt], labels[learnt], 0.01)
    put_in = _put_in(functions, 13)
    own: Names = dict(put_in)
    with kernels.use_kernels(**own):
        mine = base.predict(x[shown], verbose=0).reshape(2, -1)
    yield f"VGG16, its real weights, {SIDE}x{SIDE} pixels of two photographs, with your function:"
    for name, p, q in zip(
        ("temple", "flower"), head.predict(mine), head.predict(f[shown]), strict=True
    ):
        which = "temple" if p[0] > p[1] else "flower"
        yield f"  {name}: {which} {p.max():.4f} (minitl: {q.max():.4f})"
    yield from _judged(put_in, float(np.abs(mine - f[shown]).max() / np.abs(f).max()))


def _judged(put_in: dict[str, Calls], error: float) -> Iterator[str]:
    yield f"  what comes out differs from minitl's by {error:.1e} of the largest number"
    for calls in put_in.values():
        yield from calls.report()
    if not error < 1e-3 or not all(calls.worst < 1e-3 for calls in put_in.values()):
        raise ArithmeticError("that is more than rounding")


def whole_model(base: Model, learning_rate: float = 1e-3) -> Model:
    """VGG16 and a head of two classes, all of which learns."""
    x = layers.GlobalAveragePooling2D()(base.output)
    x = layers.Dense(2, activation="softmax", kernel_initializer="zeros", name="head")(x)
    model = Model(base.input, x)
    model.compile(optimizers.SGD(learning_rate), "sparse_categorical_crossentropy")
    return model


def with_a_slope(model: Model) -> Model:
    """The model with a small head that is not zero: through one of zeros no gradient passes."""
    kernel = np.random.default_rng(0).normal(0, 0.001, (512, 2))
    model.get_layer("head").set_weights([kernel, np.zeros(2)])
    return model


def moved(model: Model, x: Array, y: Array) -> list[Array]:
    """How a step of training moves each weight; the model is left as it was."""
    before = model.get_weights()
    model.train_on_batch(x, y)
    after = model.get_weights()
    model.set_weights(before)
    return [a - b for a, b in zip(after, before, strict=True)]


def _trained(base: Any, x: Array, labels: Array, functions: Names) -> Iterator[str]:
    model, two = with_a_slope(whole_model(base)), [0, len(x) // 2]
    ours = moved(model, x[two], labels[two])
    put_in = _put_in(functions, 13)
    own: Names = dict(put_in)
    with kernels.use_kernels(**own):
        mine = moved(model, x[two], labels[two])
    size = np.sqrt(sum(float(np.vdot(o, o)) for o in ours))
    yield f"VGG16, its real weights, a step of training on {SIDE}x{SIDE} pixels of two photographs"
    yield f"  moves them by {size:.2e} in all (the square root of the sum of squares)"
    gap = max(
        float(np.linalg.norm(m - o) / (np.linalg.norm(o) + 1e-30))
        for m, o in zip(mine, ours, strict=True)
    )
    yield from _judged(put_in, gap)


def _gap(mine: Any, right: Any) -> float:
    """The largest difference, as a share of the largest number; of lists, of what they hold."""
    if isinstance(right, (list, tuple)):
        return max(_gap(m, r) for m, r in zip(mine, right, strict=True))
    mine, right = np.asarray(mine, np.float64), np.asarray(right, np.float64)
    return float(np.abs(mine - right).max(initial=0) / np.abs(right).max(initial=1e-30))


def _agree(what: str, mine: Any, right: Any, most: float = 1e-3) -> Iterator[str]:
    """A line on how far the learner's result is from minitl's; ArithmeticError when too far."""
    gap = _gap(mine, right)
    yield f"{what}: differs from minitl's by {gap:.1e} of the largest number"
    if not gap <= most:
        raise ArithmeticError("that is more than rounding")


def _timed(work: Callable[..., Any], *given: Any) -> tuple[Any, float]:
    started = time.perf_counter()
    return work(*given), time.perf_counter() - started


def _gate(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    maps, gate = base.predict(x, verbose=0), np.linspace(0, 1, 512, dtype=np.float32)
    g = np.random.default_rng(0).standard_normal(maps.shape).astype(np.float32)
    mine, slow = _timed(lambda: arithmetic.gradients_too(names["multiply"], a=maps, b=gate, g=g))
    right, fast = _timed(lambda: arithmetic.gradients_too(arithmetic.multiply, a=maps, b=gate, g=g))
    what = f"VGG16's maps {maps.shape} times a gate of 512, and both gradients"
    yield from _agree(what, mine, right)
    yield f"{slow / fast:.1f} times as long as minitl's"


def _tape(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    model, found = whole_model(base), []
    for walk in (autograd.backward, autograd.backward, names["backward"]):  # the first compiles
        y = losses.SparseCategoricalCrossentropy()(labels[6:10], model(x[6:10]))
        found.append(_timed(walk, y, model.trainable_weights))
    _, (right, fast), (mine, slow) = found
    what = f"gradients of VGG16's {len(right)} weights by your walk over its tape"
    yield from _agree(what, mine, right)
    yield f"{slow / fast:.2f} times as long as minitl's"


def _signals(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    yield "standard deviation of each layer's outputs: trained, He's, Glorot's"
    rows = []
    for draw in (None, names["he_uniform"], names["glorot_uniform"]):
        y, rng, row = x[:4], np.random.default_rng(0), []
        for layer in base.layers[1:]:
            if layer.weights and draw is not None:
                kernel = np.asarray(draw(layer.kernel.shape, rng), np.float32)
                y = reference.relu(ops.conv2d(y, autograd.Tensor(kernel), padding="same").data)
            else:
                y = layer(y).data
            row.append(f"{layer.name:<14}{y.std():9.3g}")
        rows.append(row)
    for trained, *others_ in zip(*rows, strict=True):
        yield "  " + trained + "".join(f"{text[14:]:>10}" for text in others_)


def _with_adam(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    class Mine(optimizers.Adam):
        def update(self, w: Array, g: Array, state: dict[str, Array], rate: float) -> None:
            m, v = (optimizers.moment(state, name, w) for name in ("momentum", "velocity"))
            t = state.setdefault("steps", np.zeros((), np.int64))
            t += 1
            step = names["adam_update"]
            step(w, g, m, v, int(t), rate, self.beta_1, self.beta_2, self.epsilon)

    yield from _by_optimizers(base, x, labels, optimizers.Adam(1e-4), Mine(1e-4), {})


def _with_momentum(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    right, mine = optimizers.SGD(1e-4, momentum=0.9), optimizers.SGD(1e-4, momentum=0.9)
    yield from _by_optimizers(base, x, labels, right, mine, {"sgd_update": names["sgd_update"]})


def _by_optimizers(
    base: Any, x: Array, labels: Array, right: Any, mine: Any, put_in: Names
) -> Iterator[str]:
    model = whole_model(base)
    before, found = model.get_weights(), []
    for optimizer, functions in ((right, {}), (mine, put_in)):
        model.set_weights(before)
        model.compile(optimizer, "sparse_categorical_crossentropy")
        with kernels.use_kernels(**functions):
            losses_ = [model.train_on_batch(x[4:12], labels[4:12]) for _ in range(3)]
        found.append((losses_, model.get_weights()))
    model.set_weights(before)
    yield f"losses of three steps of all of VGG16: {', '.join(f'{v:.4f}' for v in found[1][0])}"
    yield from _agree("its weights after them", found[1][1], found[0][1])


def _from_file(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    path = keras_weights.cache_folder("weights") / FILE
    model = VGG16(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    keras_weights.assign(model, names["read_weights"](path), path)
    yield f"{sum(w.size for w in model.get_weights()):,} weights read from {path.name}"
    yield from _agree("F of it", model.predict(x, verbose=0), base.predict(x, verbose=0), 0.0)


def _built(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    model = names["build"]((SIDE, SIDE, 3))
    path = keras_weights.cache_folder("weights") / FILE
    keras_weights.assign(model, keras_weights.read(path), path)
    yield "the real weights have found their places in your VGG16"
    yield from _agree("F of it", model.predict(x, verbose=0), base.predict(x, verbose=0), 0.0)


def _frozen(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    model = whole_model(base)
    base.trainable = False
    count = names["cut"](model.layers)
    last = model.layers[count - 1].name
    yield f"your cut: {count} of {len(model.layers)} layers, the last of them {last}"
    f = names["features"](model.layers[1 : count - 1], x, 5)
    yield from _agree(f"F {f.shape}", f, extract_features(base, x, verbose=0).reshape(len(x), -1))


def _of_head(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    f = base.predict(x, verbose=0).reshape(len(x), -1).astype(np.float64)
    f /= f.std()
    kernel, bias = names["solve"](f, np.eye(2)[labels], 0.01)
    right = solve_head(f, labels, 0.01)
    loss = head_loss(f, labels, kernel, bias, 0.01)
    yield f"L(W, b) on F of VGG16 {f.shape}: yours {loss:.8f}, the optimum {right.loss:.8f}"
    yield from _agree("the loss", loss, right.loss)


def _counted(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    f = base.predict(x, verbose=0).reshape(len(x), -1)
    p = solve_head(f[::3], labels[::3], 0.1).predict(f)
    mine = float(names["accuracy"](labels, p)), np.asarray(names["f1"](labels, p))
    yield f"accuracy {mine[0]:.3f}, F1 {mine[1].round(3)} of VGG16's predictions"
    right = np.mean(p.argmax(1) == labels), others.F1Score()(labels, p)
    yield from _agree("accuracy and F1", mine, right)


def _tuned(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    model = with_a_slope(whole_model(base))
    names["unfreeze"](model.layers[1:], "block4", 0.1)
    steps = moved(model, x[4:12], labels[4:12])
    sizes: dict[str, float] = {}
    owners = [layer.name for layer in model.layers for _ in layer.weights]
    for name, step in zip(owners, steps, strict=True):
        block = name.split("_")[0]
        sizes[block] = max(sizes.get(block, 0.0), float(np.abs(step).max()))
    yield "how far a step of SGD moves: " + ", ".join(f"{n} {s:.1e}" for n, s in sizes.items())
    if any(sizes[f"block{b}"] for b in (1, 2, 3)) or not (sizes["block4"] and sizes["block5"]):
        raise ArithmeticError("block1 to block3 should stand still, block4 and block5 move")


def _sequence(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    maps = base.predict(x, verbose=0).reshape(4, 4, 512)  # four crops as four steps in time
    rng = np.random.default_rng(0)
    k, r = rng.normal(0, 0.02, (512, 32)), rng.normal(0, 0.3, (8, 32))
    found = []
    for step in (training.lstm_step, names["lstm_step"]):
        h = c = np.zeros((4, 8))
        for t in range(4):
            h, c, _ = step(maps[:, t] @ k, h, c, r)
        found.append((h, c))
    yield from _agree("an LSTM that reads VGG16's features of four crops", found[1], found[0])


def _all(names: Names, base: Any, x: Array, labels: Array) -> Iterator[str]:
    """Whatever the learner has made, in one training; minitl's own functions elsewhere."""
    own = {n: names[n] for n in (*CUT, "bias_gradient", "sgd_update") if n in names}
    missing = sorted({*CUT, "bias_gradient", "sgd_update"} - own.keys())
    yield f"your own: {', '.join(sorted(names)) or 'nothing yet: no stage is done'}"
    if missing:
        yield f"minitl's, as yours are not done: {', '.join(missing)}"
    if not names:
        raise ArithmeticError("there is nothing to put in: check stages 1 to 22 first")
    shape, found = (SIDE, SIDE, 3), []
    for mine in (False, True):
        built = (
            names["build"](shape) if mine and "build" in names else VGG16(False, None, None, shape)
        )
        path = keras_weights.cache_folder("weights") / FILE
        read = names.get("read_weights", keras_weights.read) if mine else keras_weights.read
        keras_weights.assign(built, read(path), path)
        model = whole_model(built, 1e-3)
        model.optimizer.momentum = 0.9
        change = names.get("unfreeze", training.unfreeze) if mine else training.unfreeze
        change(model.layers[1:], "block5", 0.1)
        two = [0, 8]
        put_in: Names = (
            dict(_put_in({n: f for n, f in own.items() if n in CUT}, 26)) if mine else {}
        )
        put_in |= {n: f for n, f in own.items() if n not in CUT} if mine else {}
        with kernels.use_kernels(**put_in):
            told = [model.train_on_batch(x[two], labels[two]) for _ in range(2)]
        found.append((model.predict(x, verbose=0), told))
    (right, _), (p, told) = found
    yield f"losses of two steps of fine-tuning: {told[0]:.4f}, {told[1]:.4f}"
    accuracy = names.get("accuracy", lambda y, p: np.mean(p.argmax(1) == y))
    yield f"accuracy on all crops: {float(accuracy(labels, p)):.3f}"
    yield from _agree("what the fine-tuned VGG16 predicts", p, right)


OTHERS: dict[int, Callable[..., Iterator[str]]] = {
    1: _gate,
    2: _tape,
    13: _signals,
    14: _with_momentum,
    15: _with_adam,
    16: _from_file,
    17: _built,
    18: _frozen,
    19: _of_head,
    20: _counted,
    21: _tuned,
    22: _sequence,
    23: _all,
}
