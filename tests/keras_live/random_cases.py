"""Random configurations of everything that minitl shares with Keras, one entry a component.

An entry is a function that draws a configuration from a generator and returns a program (see
`programs.py`). It is registered under the component's name, in Keras's place for it:

    @entry("layers.Flatten")
    def flatten(rng, name):
        return layer(rng, name, [sizes(rng, (1, 6), 4)])

A new component needs such an entry and nothing else; `test_random.py` fails for one without. What
minitl refuses is not drawn here; it is listed in `test_refusals.py`.

    python -m tests.keras_live.fuzz --cases 1000 --seed 1
"""

import numpy as np

import minitl
from tests.keras_live.programs import Program

ENTRIES: dict = {}


def entry(*names):
    """Register a function (rng, name) -> Program for these components."""

    def register(draw):
        for name in names:
            ENTRIES[name] = draw
        return draw

    return register


def exists(name):
    """Whether minitl has it."""
    value = minitl
    for part in name.split("."):
        value = getattr(value, part, None)
    return value is not None


def draw(seed, name=None):
    """The program that follows from the seed: of the component, or of a random one."""
    rng = np.random.default_rng(seed)
    names = [each for each in ENTRIES if exists(each.partition(":")[0])]
    drawn = names[int(rng.integers(len(names)))]
    name = name or drawn
    program = ENTRIES[name](rng, name)
    program.seed, program.component = seed, name
    if any(word in program.body for word in CONSTANTS) and program.judge.get("dtype") != "float32":
        program.judge.setdefault("fraction", IN_FLOAT32)
    return program


# Keras passes numbers of Python through float32 in places, even where it computes in float64. So
# rates, penalties and their like are fractions that float32 holds exactly: 1/8 rather than 0.1.

# Where Keras has such a number built in, the two can agree to its precision only.
CONSTANTS = {
    "leaky_relu": 0.2,
    "LeakyReLU": 0.3,
    "gelu": 0.044715,
    "log_cosh": np.log(2),
    "LogCosh": np.log(2),
    "Rescaling": 1 / 255,
}
IN_FLOAT32 = 2.0**-22

# --- Drawing -------------------------------------------------------------------------------------


def pick(rng, *choices):
    """One of the choices, as the Python object that it is."""
    return choices[int(rng.integers(len(choices)))]


def sizes(rng, between, count):
    """`count` integers from low up to high, both included."""
    return tuple(int(n) for n in rng.integers(between[0], between[1] + 1, count))


def shape_of_rank(rng, low, high, largest=5):
    return sizes(rng, (1, largest), int(rng.integers(low, high + 1)))


def sometimes(rng, **choices):
    """Each setting is left out half of the time, so that defaults are compared too."""
    return {name: pick(rng, *values) for name, values in choices.items() if rng.integers(2)}


def number(rng):
    """A seed for the program's own numbers."""
    return int(rng.integers(2**31))


def call(what, settings, *places):
    """`k.layers.Dense(3, use_bias=False)` as text; `Text` stands for itself."""
    parts = [repr(value) for value in places]
    parts += [f"{name}={value!r}" for name, value in settings.items()]
    return f"k.{what}({', '.join(parts)})"


def arguments(settings):
    """', a=1, b=2' as text."""
    return "".join(f", {name}={value!r}" for name, value in settings.items())


class Text(str):
    """A piece of program among the settings."""

    __repr__ = str.__str__


def dtype_of(rng):
    return pick(rng, "float64", "float64", "float32")


def layer(rng, name, shapes, settings=None, *, of="numbers", smooth=True, terms=None, call_with=""):
    """The program of a layer: what it computes from random inputs of these shapes.

    of: what the inputs are, 'numbers', 'positive', or a text with {shape}.
    smooth: False where a rounding can change which way a gradient goes; then float64 only.
    """
    dtype = dtype_of(rng) if smooth else "float64"
    law = of if "{" in of else of + "(rng, {shape})"
    inputs = ", ".join(law.format(shape=tuple(shape)) for shape in shapes)
    body = f"""
rng = np.random.default_rng({number(rng)})
layer = {call(name, settings or {})}
return derive(k, layer, [{inputs}], rng{call_with})
"""
    terms = terms or int(max(np.prod(shape) for shape in shapes))
    return Program(name, body, {"dtype": dtype, "terms": terms})


# --- Layers --------------------------------------------------------------------------------------

SMOOTH = ("linear", "sigmoid", "tanh", "softmax", "softplus", "silu", "gelu", "elu", "exponential")
KINKED = ("relu", "relu6", "leaky_relu", "selu", "hard_sigmoid", "hard_silu", "softsign")


def activation(rng):
    """(name or None, whether it is smooth)"""
    smooth = [a for a in SMOOTH if a in minitl.activations.TABLE]
    kinked = [a for a in KINKED if a in minitl.activations.TABLE]
    if rng.integers(3) == 0:
        return None, True
    if rng.integers(2):
        return pick(rng, "relu", *kinked), False
    return pick(rng, *smooth), True


INITIALIZERS = ("zeros", "he_normal", "glorot_uniform")


@entry("layers.Dense")
def dense(rng, name):
    shape = (*shape_of_rank(rng, 1, 3), int(rng.integers(1, 60)))
    function, smooth = activation(rng)
    settings = {"units": int(rng.integers(1, 30))}
    settings |= {"activation": function} if function else {}
    settings |= sometimes(rng, use_bias=(True, False), kernel_initializer=INITIALIZERS)
    return layer(rng, name, [shape], settings, smooth=smooth)


def window(rng, name_of_window, low=1):
    """(shape of images, settings) of something that slides over them."""
    size = pick(rng, (1, 1), (2, 2), (3, 3), (3, 3), (5, 5), (2, 3), (7, 7), (4, 1))
    settings = {name_of_window: pick(rng, size, max(size))}
    settings |= sometimes(
        rng, strides=((1, 1), (2, 2), (1, 2), (3, 2), 2), padding=("valid", "same")
    )
    smallest = max(size) if settings.get("padding", "valid") == "valid" else 1
    h, w = sizes(rng, (max(low, smallest), smallest + 9), 2)
    return (*sizes(rng, (1, 4), 1), h, w, *sizes(rng, (1, 7), 1)), settings


@entry("layers.Conv2D")
def conv2d(rng, name):
    shape, settings = window(rng, "kernel_size")
    function, smooth = activation(rng)
    settings = {"filters": int(rng.integers(1, 33))} | settings
    settings |= {"activation": function} if function else {}
    settings |= sometimes(rng, use_bias=(True, False), kernel_initializer=INITIALIZERS)
    terms = int(max(np.prod(shape), 49 * settings["filters"]))
    return layer(rng, name, [shape], settings, smooth=smooth, terms=terms)


@entry("layers.Conv2DTranspose")
def conv2d_transpose(rng, name):
    """Of images that may be smaller than the window."""
    (n, _, _, c), settings = window(rng, "kernel_size")
    function, smooth = activation(rng)
    settings = {"filters": int(rng.integers(1, 9))} | settings
    settings |= {"activation": function} if function else {}
    settings |= sometimes(rng, use_bias=(True, False), kernel_initializer=INITIALIZERS)
    shape = (n, *sizes(rng, (1, 8), 2), c)
    terms = int(max(np.prod(shape), 49 * max(c, settings["filters"])))
    return layer(rng, name, [shape], settings, smooth=smooth, terms=terms)


@entry("layers.DepthwiseConv2D", "layers.SeparableConv2D")
def depthwise(rng, name):
    shape, settings = window(rng, "kernel_size")
    # TensorFlow's depthwise convolution moves as far along rows as along columns.
    settings |= {"strides": pick(rng, 1, 1, 2)} if "strides" in settings else {}
    function, smooth = activation(rng)
    if name.endswith("SeparableConv2D"):
        settings = {"filters": int(rng.integers(1, 9))} | settings
    settings |= {"activation": function} if function else {}
    settings |= sometimes(rng, use_bias=(True, False), depth_multiplier=(1, 2, 3))
    return layer(rng, name, [shape], settings, smooth=smooth)


@entry("layers.Conv1D")
def conv1d(rng, name):
    settings = {"filters": int(rng.integers(1, 9)), "kernel_size": int(rng.integers(1, 5))}
    settings |= sometimes(rng, strides=(1, 2, 3), padding=("valid", "same", "causal"))
    n, t, c = sizes(rng, (1, 6), 3)
    return layer(rng, name, [(n, t + settings["kernel_size"], c)], settings)


@entry("layers.CenterCrop", "layers.Resizing")
def other_size(rng, name):
    height, width = sizes(rng, (1, 9), 2)
    settings = {"height": height, "width": width}
    if name.endswith("Resizing"):
        settings |= sometimes(rng, interpolation=("bilinear",), crop_to_aspect_ratio=(True, False))
    image = layer(rng, name, [sizes(rng, (2, 9), 4)], settings)
    image.judge["dtype"] = "float32"  # in which TensorFlow resizes
    return image


@entry("layers.Normalization")
def normalization(rng, name):
    shape = shape_of_rank(rng, 2, 4)
    by = pick(rng, -1, None)
    count = 1 if by is None else shape[-1]
    draw = [pick(rng, 0.5, 1.0, 2.0) for _ in range(count)]
    settings = {"axis": by, "mean": draw if by else 0.5, "variance": draw if by else 2.0}
    settings |= sometimes(rng, invert=(True, False))
    return layer(rng, name, [shape], settings)


def maybe_ties(rng):
    """Inputs all different, or with many equal numbers."""
    return pick(rng, "numbers(rng, {shape})", "rng.integers(0, 3, {shape}).astype(float)")


@entry("layers.MaxPooling2D", "layers.AveragePooling2D")
def pooling2d(rng, name):
    shape, settings = window(rng, "pool_size")
    if name.endswith("AveragePooling2D"):  # TensorFlow's gradient in float64 is wrong beyond
        least = np.broadcast_to(settings["pool_size"], 2).tolist()
        shape = (shape[0], *map(max, zip(shape[1:3], least, strict=True)), shape[3])
    return layer(rng, name, [shape], settings, of=maybe_ties(rng))


@entry("layers.MaxPooling1D", "layers.AveragePooling1D")
def pooling1d(rng, name):
    settings = {"pool_size": int(rng.integers(1, 5))}
    settings |= sometimes(rng, strides=(1, 2, 3, None), padding=("valid", "same"))
    n, t, c = sizes(rng, (1, 5), 3)
    return layer(rng, name, [(n, t + settings["pool_size"], c)], settings, of=maybe_ties(rng))


@entry("layers.GlobalAveragePooling2D", "layers.GlobalMaxPooling2D")
def global_pooling2d(rng, name):
    settings = sometimes(rng, keepdims=(True, False), data_format=("channels_last", None))
    return layer(rng, name, [sizes(rng, (1, 8), 4)], settings, of=maybe_ties(rng))


@entry("layers.GlobalAveragePooling1D", "layers.GlobalMaxPooling1D")
def global_pooling1d(rng, name):
    settings = sometimes(rng, keepdims=(True, False))
    return layer(rng, name, [sizes(rng, (1, 8), 3)], settings, of=maybe_ties(rng))


@entry("layers.Flatten", "layers.Identity")
def flatten(rng, name):
    return layer(rng, name, [shape_of_rank(rng, 1, 5)])


@entry("layers.Reshape")
def reshape(rng, name):
    shape = shape_of_rank(rng, 2, 4)
    total = int(np.prod(shape[1:]))
    target = pick(rng, (total,), (1, total), (-1,), (-1, shape[-1]), (shape[-1], -1, 1))
    return layer(rng, name, [shape], {"target_shape": target})


@entry("layers.Permute")
def permute(rng, name):
    shape = shape_of_rank(rng, 2, 5)
    dims = tuple(int(i) + 1 for i in rng.permutation(len(shape) - 1))
    return layer(rng, name, [shape], {"dims": dims})


@entry("layers.RepeatVector")
def repeat_vector(rng, name):
    return layer(rng, name, [sizes(rng, (1, 6), 2)], {"n": int(rng.integers(1, 5))})


@entry("layers.ZeroPadding2D", "layers.Cropping2D")
def padding2d(rng, name):
    p = sizes(rng, (0, 3), 4)
    how = pick(rng, p[0], (p[0], p[1]), ((p[0], p[1]), (p[2], p[3])), [[p[0], p[1]], [p[2], p[3]]])
    n, h, w, c = sizes(rng, (1, 5), 4)
    more = 6 if name.endswith("Cropping2D") else 0  # something must be left
    verb = "cropping" if more else "padding"
    settings = {verb: how} if rng.integers(5) else {}
    return layer(rng, name, [(n, h + more, w + more, c)], settings)


@entry("layers.UpSampling2D")
def up_sampling(rng, name):
    settings = sometimes(rng, size=(2, (1, 3), (3, 2)), interpolation=("nearest",))
    return layer(rng, name, [sizes(rng, (1, 5), 4)], settings)


@entry("layers.Activation")
def activation_layer(rng, name):
    function = pick(rng, *sorted(minitl.activations.TABLE))
    scale = pick(rng, 1, 20, 800)  # up to where e^x overflows
    scale = 10 if function == "exponential" else scale
    of = pick(
        rng, f"numbers(rng, {{shape}}, {scale})", "rng.integers(-7, 8, {shape}).astype(float)"
    )
    shape = shape_of_rank(rng, 2, 4)
    # float32 has its own underflow and overflow: only for numbers of usual size
    smooth = function in SMOOTH and scale == 1
    return layer(rng, name, [shape], {"activation": function}, of=of, smooth=smooth)


# Slopes that float32 has: TensorFlow rounds them to it in float64 too.
@entry("layers.ReLU")
def relu_layer(rng, name):
    settings = sometimes(
        rng, max_value=(None, 1.0, 6.0, 2.5), negative_slope=(0.0, 0.125, 1.0), threshold=(0.0, 0.5)
    )
    of = pick(rng, "numbers(rng, {shape}, 3)", "rng.integers(-7, 8, {shape}).astype(float)")
    return layer(rng, name, [shape_of_rank(rng, 1, 4)], settings, of=of)


@entry("layers.LeakyReLU", "layers.ELU")
def leaky_relu_layer(rng, name):
    which = {"LeakyReLU": "negative_slope", "ELU": "alpha"}[name.split(".")[-1]]
    settings = sometimes(rng, **{which: (0.0, 0.1, 0.3, 2.0)})
    return layer(rng, name, [shape_of_rank(rng, 1, 4)], settings, of=maybe_ties(rng))


@entry("layers.Softmax")
def softmax_layer(rng, name):
    shape = shape_of_rank(rng, 2, 4)
    axis = int(rng.integers(1, len(shape)))
    settings = sometimes(rng, axis=(-1, axis, axis - len(shape)))
    scale = pick(rng, 1, 50)
    return layer(rng, name, [shape], settings, of=f"numbers(rng, {{shape}}, {scale})")


@entry(
    "layers.Add",
    "layers.Subtract",
    "layers.Multiply",
    "layers.Average",
    "layers.Maximum",
    "layers.Minimum",
)
def merging(rng, name):
    count = 2 if name.endswith("Subtract") else int(rng.integers(2, 5))
    return layer(rng, name, [shape_of_rank(rng, 2, 4)] * count, of=maybe_ties(rng))


@entry(*(f"layers.{n}" for n in ["average", "maximum", "minimum", "multiply", "subtract"]))
def merging_function(rng, name):
    """`layers.average([a, b])` and its like."""
    count = 2 if name.endswith("subtract") else int(rng.integers(2, 5))
    inputs = ", ".join([maybe_ties(rng).format(shape=shape_of_rank(rng, 2, 4))] * count)
    body = f"""
rng = np.random.default_rng({number(rng)})
return derive(k, k.{name}, [{inputs}], rng)
"""
    return Program(name, body, {"dtype": dtype_of(rng), "terms": 1000})


@entry("layers.Concatenate")
def concatenate(rng, name):
    shape = list(shape_of_rank(rng, 2, 4))
    axis = int(rng.integers(1, len(shape)))
    shapes = []
    for _ in range(int(rng.integers(2, 5))):
        shape[axis] = int(rng.integers(1, 6))
        shapes.append(tuple(shape))
    return layer(rng, name, shapes, {"axis": pick(rng, axis, axis - len(shape))})


@entry("layers.BatchNormalization")
def batch_normalization(rng, name):
    settings = sometimes(
        rng,
        momentum=(0.99, 0.9, 0.5, 0.0),
        epsilon=(1e-3, 1e-5, 1.0),
        center=(True, False),
        scale=(True, False),
        trainable=(True, False),
    )
    shape = sizes(rng, (2, 7), int(rng.integers(2, 5)))
    of = "numbers(rng, {shape}) * 3 + numbers(rng, {shape}[-1:]) * 5"
    how = f", training={pick(rng, True, False)}"
    return layer(rng, name, [shape], settings, of=of, call_with=how)


@entry("layers.LayerNormalization")
def layer_normalization(rng, name):
    settings = sometimes(rng, epsilon=(1e-3, 1e-6, 1.0), center=(True, False), scale=(True, False))
    of = "numbers(rng, {shape}) * 3 + numbers(rng, {shape}[:1] + (1,) * (len({shape}) - 1))"
    return layer(rng, name, [sizes(rng, (2, 7), int(rng.integers(2, 5)))], settings, of=of)


@entry("layers.UnitNormalization")
def unit_normalization(rng, name):
    return layer(rng, name, [sizes(rng, (1, 7), int(rng.integers(2, 5)))])


@entry("layers.Rescaling")
def rescaling(rng, name):
    settings = {"scale": pick(rng, 1 / 255, 1 / 127.5, 2.0)} | sometimes(rng, offset=(0.0, -1, 3.5))
    of = "rng.integers(0, 256, {shape}).astype(float)"
    return layer(rng, name, [sizes(rng, (1, 6), 4)], settings, of=of)


@entry(
    "layers.Dropout",
    "layers.SpatialDropout1D",
    "layers.SpatialDropout2D",
    "layers.GaussianNoise",
    "layers.GaussianDropout",
)
def dropout(rng, name):
    """Nothing outside training; in training the same distribution (the numbers differ)."""
    rank = {"1": 3, "2": 4}.get(name[-2], int(rng.integers(2, 5)))
    rate = pick(rng, 0.0, 0.1, 0.2, 0.5, 0.9)
    if rng.integers(2):
        what = "stddev" if name.endswith("Noise") else "rate"
        of = "numbers(rng, {shape})"
        return layer(rng, name, [sizes(rng, (1, 6), rank)], {what: rate}, of=of)
    shape = (40, *(3,) * (rank - 2), 2500)
    body = f"""
layer = {call(name, {"seed": number(rng)}, rate)}
y = as_array(layer(np.ones({shape}), training=True)).astype(np.float64)
n = {100_000 if "Spatial" in name else int(np.prod(shape))}  # independent draws
found = {{"mean": float((y.mean() - 1) * n**0.5 / max(y.std(), 1e-9))}}
if "Gaussian" in {name!r}:
    return found | {{"spread": float(np.log(y.std() + 1e-9) * (2 * n) ** 0.5)}}
p = {rate}
zeros = float(((y == 0).mean() - p) * n**0.5 / max((p * (1 - p)) ** 0.5, 1e-9))
together = bool((np.ptp(y, axis=tuple(range(1, y.ndim - 1))) == 0).all())
return {{"kept": float(y.max()), "zeros": zeros, "together": together}}
"""
    # Five standard errors on either side.
    bounds = {"mean": 5 * 2**0.5, "spread": 10 * 2**0.5, "zeros": 5 * 2**0.5}
    return Program(name, body, {"dtype": "float32", "bounds": bounds})


@entry("layers.LSTM", "layers.GRU")
def recurrent(rng, name):
    settings = {"units": int(rng.integers(1, 10))} | sometimes(
        rng,
        activation=("tanh", "sigmoid", "linear", "relu"),  # the others are refused
        recurrent_activation=("sigmoid", "tanh"),
        use_bias=(True, False),
        return_sequences=(True, False),
        return_state=(True, False),
        go_backwards=(True, False),
        unroll=(True, False),
        **({"reset_after": (True, False)} if name.endswith("GRU") else {}),
        **({"unit_forget_bias": (True, False)} if name.endswith("LSTM") else {}),
    )
    shape = (*sizes(rng, (1, 6), 1), *sizes(rng, (1, 8), 1), *sizes(rng, (1, 12), 1))
    smooth = settings.get("activation") not in ("relu", "linear")  # these grow with the steps
    return layer(rng, name, [shape], settings, smooth=smooth, terms=20 * shape[1])


INNER = (
    "k.layers.Dense(3, activation='tanh')",
    "k.layers.Conv2D(2, 3, padding='same')",
    "k.layers.GlobalAveragePooling2D()",
    "k.layers.MaxPooling2D()",
    "k.layers.Flatten()",
)


@entry("layers.TimeDistributed")
def time_distributed(rng, name):
    inner = pick(rng, *INNER)
    shape = (*sizes(rng, (1, 4), 2), *sizes(rng, (3, 6), 2), *sizes(rng, (1, 3), 1))
    if "Dense" in inner:
        shape = (*sizes(rng, (1, 4), 2), *sizes(rng, (1, 6), 1))
    return layer(rng, name, [shape], {"layer": Text(inner)})


@entry("layers.Bidirectional")
def bidirectional(rng, name):
    kind = pick(rng, "LSTM", "GRU")
    inner = call(
        f"layers.{kind}",
        {"units": int(rng.integers(1, 6))} | sometimes(rng, return_sequences=(True, False)),
    )
    settings = {"layer": Text(inner)} | sometimes(
        rng, merge_mode=("concat", "sum", "mul", "ave", None)
    )
    shape = (*sizes(rng, (1, 5), 1), *sizes(rng, (1, 6), 1), *sizes(rng, (1, 8), 1))
    return layer(rng, name, [shape], settings, terms=20 * shape[1])


# --- Functions -----------------------------------------------------------------------------------

ARGUMENTS = {
    "relu": {"negative_slope": (0.0, 0.25), "max_value": (None, 1.0, 6.0), "threshold": (0.0, 1.0)},
    "leaky_relu": {"negative_slope": (0.1, 0.5)},
    "elu": {"alpha": (1.0, 0.5)},
    "gelu": {"approximate": (True, False)},
    "softmax": {"axis": (-1, 1)},
    "log_softmax": {"axis": (-1, 1)},
}


# Keras 3.15's celu has the slope 2 at 0.
@entry(*(f"activations.{name}" for name in sorted(minitl.activations.TABLE)))
def activation_function(rng, name):
    short = name.split(".")[-1]
    settings = sometimes(rng, **ARGUMENTS.get(short, {})) if short in ARGUMENTS else {}
    scale = pick(rng, 1, 1, 30, 700)
    scale = 10 if short == "exponential" else scale
    of = pick(rng, f"numbers(rng, {{}}, {scale})", "rng.integers(-8, 9, {}).astype(float)")
    of = f"numbers(rng, {{}}, {scale})" if short == "celu" else of
    of = f"np.repeat({of}, 2, -1)" if short == "glu" else of  # it halves the last axis
    extra = arguments(settings)
    body = f"""
rng = np.random.default_rng({number(rng)})
x = {of.format(shape_of_rank(rng, 2, 4))}
f = k.activations.get({short!r})
return derive(k, lambda x: f(x{extra}), [x], rng)
"""
    return Program(name, body, {"dtype": dtype_of(rng) if scale == 1 else "float64"})


REDUCTIONS = ("sum_over_batch_size", "mean", "sum", "mean_with_sample_weight", "none", None)
# Of each loss: the kinds of its targets and predictions, and its own settings.
LOSSES = {
    "CategoricalCrossentropy": (
        ("one-hot", "distribution"),
        ("probabilities", "logits"),
        {"label_smoothing": (0.0, 0.125, 0.5)},
    ),
    "SparseCategoricalCrossentropy": (("labels", "column"), ("probabilities", "logits"), {}),
    "BinaryCrossentropy": (
        ("binary", "fractions"),
        ("sigmoid", "logits"),
        {"label_smoothing": (0.0, 0.125, 0.5)},
    ),
    "CategoricalFocalCrossentropy": (
        ("one-hot", "distribution"),
        ("probabilities", "logits"),
        {"alpha": (0.25, 0.75), "gamma": (2.0, 1.0, 3.5), "label_smoothing": (0.0, 0.25)},
    ),
    "BinaryFocalCrossentropy": (
        ("binary",),
        ("sigmoid", "logits"),
        {
            "apply_class_balancing": (True, False),
            "alpha": (0.25, 0.75),
            "gamma": (2.0, 1.0, 3.5),
            "label_smoothing": (0.0, 0.25),
        },
    ),
    "MeanSquaredError": (("numbers",), ("numbers",), {}),
    "MeanAbsoluteError": (("numbers",), ("numbers",), {}),
    "MeanAbsolutePercentageError": (("numbers",), ("numbers",), {}),
    "MeanSquaredLogarithmicError": (("positive",), ("positive", "numbers"), {}),
    "Huber": (("numbers",), ("numbers",), {"delta": (1.0, 0.25, 3.0)}),
    "LogCosh": (("numbers",), ("numbers",), {}),
    "Poisson": (("positive",), ("positive",), {}),
    "KLDivergence": (("distribution",), ("probabilities",), {}),
    "CosineSimilarity": (("numbers",), ("numbers",), {}),
    "Hinge": (("binary", "signs", "numbers"), ("numbers",), {}),
    "SquaredHinge": (("binary", "signs", "numbers"), ("numbers",), {}),
    "CategoricalHinge": (("one-hot",), ("numbers",), {}),
    "Dice": (("binary", "fractions"), ("sigmoid",), {}),
    "Tversky": (("binary", "fractions"), ("sigmoid",), {"alpha": (0.5, 0.25), "beta": (0.5, 0.75)}),
}


def values(kind, shape):
    """The text of an array of that kind; `shape` is the predictions'."""
    m, rows = shape[-1], shape[:-1]
    return {
        "numbers": f"numbers(rng, {shape}, 2)",
        "logits": f"numbers(rng, {shape}, 3)",
        "positive": f"positive(rng, {shape}, 0, 3)",
        "signs": f"rng.choice([-1.0, 1.0], {shape})",
        "binary": f"rng.integers(0, 2, {shape}).astype(float)",
        "fractions": f"positive(rng, {shape})",
        "sigmoid": f"positive(rng, {shape}, 0.01, 0.99)",
        "probabilities": f"rng.dirichlet(np.ones({m}), {rows})",
        "distribution": f"rng.dirichlet(np.ones({m}), {rows})",
        "one-hot": f"np.eye({m})[rng.integers(0, {m}, {rows})]",
        "labels": f"rng.integers(0, {m}, {rows})",
        "column": f"rng.integers(0, {m}, {(*rows, 1)})",
    }[kind]


def loss_arrays(rng, kind):
    """(shape of the predictions, text of targets, text of predictions, settings) for a loss."""
    truths, guesses, own = LOSSES[kind]
    shape = (*shape_of_rank(rng, 1, 3), int(rng.integers(2, 12)))
    truth, guess = pick(rng, *truths), pick(rng, *guesses)
    settings = sometimes(rng, **own) if own else {}
    if guess == "logits":
        settings["from_logits"] = True
    return shape, values(truth, shape), values(guess, shape), settings


@entry(*(f"losses.{name}" for name in LOSSES))
def loss(rng, name):
    shape, truth, guess, settings = loss_arrays(rng, name.split(".")[-1])
    settings |= sometimes(rng, reduction=REDUCTIONS)
    rows = shape[:-1]
    weight = "None"
    if rng.integers(2):
        column = len(rows) == 1 and settings.get("reduction", "mean") not in ("none", None)
        weight = f"positive(rng, {(*rows, 1) if column and rng.integers(2) else rows}, 0, 3)"
    body = f"""
rng = np.random.default_rng({number(rng)})
y_true, y_pred = {truth}, {guess}
weight = {weight}
loss = {call(name, settings)}
return derive(k, lambda y: loss(y_true, y, weight), [y_pred], rng)
"""
    return Program(name, body, {"dtype": dtype_of(rng), "terms": int(np.prod(shape))})


@entry(*(f"losses.{minitl.naming.snake_case(name)}" for name in LOSSES))
def loss_function(rng, name):
    kind = {minitl.naming.snake_case(each): each for each in LOSSES}[name.split(".")[-1]]
    _, truth, guess, settings = loss_arrays(rng, kind)
    extra = arguments(settings)
    body = f"""
rng = np.random.default_rng({number(rng)})
y_true, y_pred = {truth}, {guess}
return derive(k, lambda y: k.{name}(y_true, y{extra}), [y_pred], rng)
"""
    return Program(name, body, {"dtype": "float64"})


# Of each metric: the kinds of targets and predictions (None: it takes only values), and settings.
METRICS = {
    "Accuracy": ("labels-2d", "labels-2d", {}),
    "CategoricalAccuracy": ("one-hot", "scores", {}),
    "SparseCategoricalAccuracy": ("labels", "scores", {}),
    "BinaryAccuracy": ("binary", "unit", {"threshold": (0.5, 0.3)}),
    "TopKCategoricalAccuracy": ("one-hot", "scores", {"k": (1, 2, 5)}),
    "SparseTopKCategoricalAccuracy": ("labels", "scores", {"k": (1, 2, 5)}),
    "Precision": (
        "one-hot",
        "scores",
        {"thresholds": (None, 0.3, [0.2, 0.6]), "class_id": (None, 1), "top_k": (None, 1, 2)},
    ),
    "Recall": (
        "one-hot",
        "scores",
        {"thresholds": (None, 0.3, [0.2, 0.6]), "class_id": (None, 1), "top_k": (None, 1, 2)},
    ),
    "TruePositives": ("binary", "unit", {"thresholds": (None, 0.3, [0.2, 0.6])}),
    "TrueNegatives": ("binary", "unit", {"thresholds": (None, 0.3, [0.2, 0.6])}),
    "FalsePositives": ("binary", "unit", {"thresholds": (None, 0.3, [0.2, 0.6])}),
    "FalseNegatives": ("binary", "unit", {"thresholds": (None, 0.3, [0.2, 0.6])}),
    "F1Score": (
        "one-hot",
        "scores",
        {"average": (None, "macro", "micro", "weighted"), "threshold": (None, 0.3)},
    ),
    "FBetaScore": (
        "one-hot",
        "scores",
        {
            "average": (None, "macro", "micro", "weighted"),
            "threshold": (None, 0.3),
            "beta": (1.0, 2.0, 0.5),
        },
    ),
    "AUC": ("binary", "unit", {"num_thresholds": (200, 20, 3), "curve": ("ROC", "PR")}),
    "MeanSquaredError": ("numbers", "numbers", {}),
    "RootMeanSquaredError": ("numbers", "numbers", {}),
    "MeanAbsoluteError": ("numbers", "numbers", {}),
    "CosineSimilarity": ("numbers", "numbers", {}),
    "BinaryCrossentropy": ("binary", "unit", {"label_smoothing": (0.0, 0.1)}),
    "CategoricalCrossentropy": ("one-hot", "scores", {"label_smoothing": (0.0, 0.1)}),
    "SparseCategoricalCrossentropy": ("labels", "scores", {}),
    "Hinge": ("one-hot", "numbers", {}),
    "SquaredHinge": ("one-hot", "numbers", {}),
    "CategoricalHinge": ("one-hot", "numbers", {}),
    "KLDivergence": ("scores", "scores", {}),
    "Poisson": ("one-hot", "scores", {}),
    "MeanAbsolutePercentageError": ("numbers", "numbers", {}),
    "MeanSquaredLogarithmicError": ("scores", "scores", {}),
    "Mean": (None, "numbers", {}),
    "Sum": (None, "numbers", {}),
    "PrecisionAtRecall": ("binary", "unit", {"num_thresholds": (200, 20)}),
    "RecallAtPrecision": ("binary", "unit", {"num_thresholds": (200, 20)}),
    "SensitivityAtSpecificity": ("binary", "unit", {"num_thresholds": (200, 20)}),
    "SpecificityAtSensitivity": ("binary", "unit", {"num_thresholds": (200, 20)}),
    "R2Score": ("numbers", "numbers", {}),
}
# Settings that must be given.
NEEDED = {
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.6},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
}


@entry(*(f"metrics.{name}" for name in METRICS))
def metric(rng, name):
    """A stream of batches, the last of one sample, after each of which the result is compared."""
    truth, guess, own = METRICS[name.split(".")[-1]]
    settings = sometimes(rng, **own) if own else {}
    settings |= NEEDED.get(name.split(".")[-1], {})
    m = int(rng.integers(2, 8))
    kinds = {
        "labels": f"rng.integers(0, {m}, n)",
        "labels-2d": f"rng.integers(0, {m}, (n, 2))",
        "one-hot": f"np.eye({m}, dtype='float32')[rng.integers(0, {m}, n)]",
        "binary": "rng.integers(0, 2, (n, 1)).astype('float32')",
        "unit": pick(
            rng,
            "rng.uniform(0, 1, (n, 1)).astype('float32')",
            "rng.uniform(0, 1, (n, 1)).astype('float32').round(1)",  # ties, and at the thresholds
            "rng.integers(0, 2, (n, 1)).astype('float32')",
        ),
        "scores": pick(
            rng,
            f"rng.dirichlet(np.ones({m}), n).astype('float32')",
            f"rng.dirichlet(np.ones({m}), n).astype('float32').round(1)",
        ),
        "numbers": f"rng.standard_normal((n, {m})).astype('float32')",
    }
    given = ", ".join(kinds[kind] for kind in (truth, guess) if kind)
    weight = pick(rng, "None", "rng.uniform(0, 2, n).astype('float32')")
    if truth == "labels-2d" or (truth is None and weight != "None"):
        weight = "None"
    body = f"""
rng = np.random.default_rng({number(rng)})
metric = {call(name, settings)}
found = {{"name": metric.name}}
for n in {(*sizes(rng, (1, 40), 3), 1)}:
    metric.update_state({given}, sample_weight={weight})
    found[f"after {{len(found)}}"] = np.asarray(metric.result(), np.float64)
metric.reset_state()
n = 5
metric.update_state({given})
return found | {{"afresh": np.asarray(metric.result(), np.float64)}}
"""
    # Keras gathers in float32, as users run it: thresholds at which numbers stand are float32's.
    judge = {"dtype": "float32", "truth": "float32", "terms": 150}
    return Program(name, body, judge)


@entry("regularizers.L1", "regularizers.L2", "regularizers.L1L2")
def regularizer(rng, name):
    names = {"L1": ("l1",), "L2": ("l2",), "L1L2": ("l1", "l2")}[name.split(".")[-1]]
    settings = {each: pick(rng, 2**-7, 0.5, 0.0) for each in names}
    body = f"""
rng = np.random.default_rng({number(rng)})
return derive(k, {call(name, settings)}, [numbers(rng, {shape_of_rank(rng, 1, 4)})], rng)
"""
    return Program(name, body, {"dtype": dtype_of(rng)})


# --- Initial values ------------------------------------------------------------------------------

# Their settings, and whether the distribution has an end.
RANDOM_INITIALIZERS = {
    "RandomNormal": ({"mean": (0.0, 1.0), "stddev": (0.05, 2.0)}, False),
    "TruncatedNormal": ({"mean": (0.0, 1.0), "stddev": (0.05, 2.0)}, True),
    "RandomUniform": ({"minval": (-0.05, -2.0), "maxval": (0.05, 1.0)}, True),
    "VarianceScaling": (
        {
            "scale": (1.0, 2.0, 0.5),
            "mode": ("fan_in", "fan_out", "fan_avg"),
            "distribution": ("truncated_normal", "uniform"),
        },
        True,
    ),
} | {
    name: ({}, True)
    for name in (
        "GlorotUniform",
        "GlorotNormal",
        "HeNormal",
        "HeUniform",
        "LecunNormal",
        "LecunUniform",
    )
}


@entry(*(f"initializers.{name}" for name in RANDOM_INITIALIZERS))
def random_initializer(rng, name):
    """Mean, spread and ends of some 1e5 numbers, within five standard errors on either side."""
    own, ends = RANDOM_INITIALIZERS[name.split(".")[-1]]
    settings = (sometimes(rng, **own) if own else {}) | {"seed": number(rng)}
    shape = pick(rng, (300, 400), (3, 3, 100, 120), (5, 2, 60, 200), (100_000,))
    body = f"""
w = np.asarray({call(name, settings)}({shape}), np.float64)
same = np.asarray({call(name, settings)}({shape}), np.float64)
found = {{
    "repeats": bool((w == same).all()),
    "mean": float((w.mean() - {settings.get("mean", 0.0)}) / w.std() * w.size**0.5),
    "spread": float(np.log(w.std()) * (2 * w.size) ** 0.5),
}}
if {ends}:
    found["ends"] = np.array([w.min() - w.mean(), w.max() - w.mean()]) / w.std()
return found
"""
    # The ends are in units of the spread, which itself is known to 1/sqrt(2n), twice.
    bounds = {"mean": 5 * 2**0.5, "spread": 5 * 2**0.5, "ends": 0.05}
    if name.endswith("RandomUniform"):  # whose mean is not zero: measured by its own ends
        body = body.replace("(w.mean() - 0.0)", "(w.mean() - (w.min() + w.max()) / 2)")
        bounds["mean"] = 8 * 2**0.5
    return Program(name, body, {"bounds": bounds})


@entry("initializers.Zeros", "initializers.Ones", "initializers.Constant", "initializers.Identity")
def constant_initializer(rng, name):
    places = (pick(rng, 0.0, -1.5, 3),) if name.endswith("Constant") else ()
    shape = sizes(rng, (1, 6), 2) if name.endswith("Identity") else shape_of_rank(rng, 0, 4)
    return Program(name, f"return {{'w': as_array({call(name, {}, *places)}({shape}))}}", {})


@entry("initializers.Orthogonal")
def orthogonal(rng, name):
    settings = sometimes(rng, gain=(1.0, 2.0)) | {"seed": number(rng)}
    shape = shape_of_rank(rng, 2, 4, 8)
    body = f"""
q = np.asarray({call(name, settings)}({shape}), np.float64).reshape(-1, {shape[-1]})
q = q if q.shape[0] >= q.shape[1] else q.T
return {{"q^T q": q.T @ q}}
"""
    return Program(name, body, {})


# --- Optimizers ----------------------------------------------------------------------------------

SCHEDULES = {
    "ExponentialDecay": lambda rng: (0.1, pick(rng, 5, 3), 0.5, pick(rng, True, False)),
    "InverseTimeDecay": lambda rng: (0.1, pick(rng, 4, 7), 0.7, pick(rng, True, False)),
    "PolynomialDecay": lambda rng: (
        0.1,
        pick(rng, 7, 4),
        pick(rng, 0.01, 0.0),
        pick(rng, 1.0, 2.0, 0.5),
        pick(rng, True, False),
    ),
    "PiecewiseConstantDecay": lambda rng: ([3, pick(rng, 7, 9)], [0.1, pick(rng, 0.05, 0.2), 0.01]),
    "CosineDecay": lambda rng: pick(
        rng, (0.1, 8, 0.1), (0.1, 5), (0.0, 8, 0.1, "CosineDecay", 0.2, 4)
    ),
}


def schedule(rng, short=None):
    names = [n for n in SCHEDULES if exists(f"optimizers.schedules.{n}")]
    short = short or pick(rng, *names)
    return call(f"optimizers.schedules.{short}", {}, *SCHEDULES[short](rng))


@entry(*(f"optimizers.schedules.{name}" for name in SCHEDULES))
def schedule_by_step(rng, name):
    body = f"""
schedule = {schedule(rng, name.split(".")[-1])}
return {{f"step {{step}}": float(as_array(schedule(step))) for step in range(40)}}
"""
    # Keras counts steps and computes rates in float32, whatever the default.
    return Program(name, body, {"dtype": "float32", "truth": "float32", "terms": 1})


OPTIMIZERS = {
    "SGD": {"momentum": (0.0, 0.5, 0.875), "nesterov": (True, False)},
    "Adam": {
        "beta_1": (0.875, 0.5),
        "beta_2": (1 - 2**-10, 0.875),
        "epsilon": (2**-23, 2**-10),
        "amsgrad": (True, False),
    },
    "AdamW": {
        "beta_1": (0.875, 0.5),
        "beta_2": (1 - 2**-10, 0.875),
        "epsilon": (2**-23, 2**-10),
        "weight_decay": (2**-8, 0.125),
        "amsgrad": (True, False),
    },
    "RMSprop": {
        "rho": (0.875, 0.5),
        "momentum": (0.0, 0.875),
        "epsilon": (2**-23, 2**-10),
        "centered": (True, False),
    },
}


USUAL = {
    "SGD": {"learning_rate": (0.1, 0.003), "momentum": (0.9, 0.99), "weight_decay": (1e-4, 0.1)},
    "Adam": {"learning_rate": (1e-3, 1e-5), "beta_1": (0.9, 0.8), "clipnorm": (1.0, 0.3)},
    "AdamW": {"learning_rate": (1e-3, 1e-5), "weight_decay": (1e-4, 0.01), "clipvalue": (0.3,)},
    "RMSprop": {"learning_rate": (1e-3, 1e-5), "momentum": (0.0, 0.9), "rho": (0.9, 0.99)},
}


def optimizer(rng, short, rate=None, tame=False):
    """The text of an optimizer with random settings.

    tame: no small epsilon. Where a gradient is zero but for rounding, as that of a bias before a
    BatchNormalization is, Adam with a small epsilon makes steps of what is left.
    """
    settings = {"learning_rate": rate or pick(rng, 0.125, 2**-10, Text(schedule(rng)))}
    # All of them: the defaults, 0.9 and 0.999, are no such fractions (test_optimizers.py has them).
    settings |= {name: pick(rng, *values) for name, values in OPTIMIZERS[short].items()}
    if tame and "epsilon" in settings:
        settings["epsilon"] = 2**-10
    settings |= sometimes(rng, weight_decay=(None, 2**-8, 0.125)) if short != "AdamW" else {}
    clip = pick(rng, None, "clipnorm", "clipvalue", "global_clipnorm")
    if clip:
        settings[clip] = pick(rng, 0.125, 1.0, 100.0)
    average = rng.integers(4) == 0
    if average and "use_ema" in minitl.optimizers.SGD().get_config():
        settings |= {"use_ema": True} | sometimes(
            rng, ema_momentum=(0.96875, 0.5), ema_overwrite_frequency=(None, 1, 3)
        )
    return call(f"optimizers.{short}", settings)


@entry(*(f"optimizers.{name}" for name in OPTIMIZERS))
def optimizer_by_step(rng, name):
    shapes = [shape_of_rank(rng, 1, 4) for _ in range(int(rng.integers(1, 4)))]
    short = name.split(".")[-1]
    steps = pick(rng, 3, 12)
    # As users write them, with numbers that float32 rounds; or with those that it holds.
    usual = rng.integers(3) == 0
    text = call(name, sometimes(rng, **USUAL[short])) if usual else optimizer(rng, short)
    body = f"""
rng = np.random.default_rng({number(rng)})
optimizer = {text}
scales = {pick(rng, (0.01, 1.0, 10.0), (1.0,))}
return optimize(k, optimizer, rng, {steps}, {shapes}, scales)
"""
    if usual:
        # Every step rounds a few operations of float32, 1 - beta^t among them.
        judge = {"dtype": "float32", "truth": "float32", "fraction": steps * IN_FLOAT32 * 10}
        return Program(name, body, judge)
    # The rates of schedules are Keras's in float32 (see above); the steps follow them.
    return Program(name, body, {"fraction": 1e-6} if "schedules" in body else {})


# --- Callbacks -----------------------------------------------------------------------------------

CALLBACKS = {
    "EarlyStopping": {
        "monitor": ("val_loss", "loss"),
        "patience": (0, 1, 3),
        "min_delta": (0, 0.25, -0.25),
        "mode": ("auto", "min", "max"),
        "baseline": (None, 0.0, -2.0),
        "restore_best_weights": (True, False),
        "start_from_epoch": (0, 4),
    },
    "ReduceLROnPlateau": {
        "monitor": ("val_loss", "loss"),
        "factor": (0.125, 0.5),
        "patience": (0, 1, 2),
        "min_delta": (1e-4, 0.25),
        "mode": ("auto", "min", "max"),
        "cooldown": (0, 2),
        "min_lr": (0.0, 0.02),
    },
    "History": {},
}


def walk(rng):
    """Losses in eighths (Keras compares in float32, in which they are exact), with ties."""
    return (np.round(np.cumsum(rng.standard_normal(15) - 0.1) * 8) / 8).tolist()


@entry(*(f"callbacks.{name}" for name in CALLBACKS))
def watching_callback(rng, name):
    own = CALLBACKS[name.split(".")[-1]]
    settings = sometimes(rng, **own) if own else {}
    body = f"return play(k, {call(name, settings)}, {walk(rng)})"
    return Program(name, body, {})


@entry("callbacks.ModelCheckpoint")
def model_checkpoint(rng, name):
    settings = sometimes(
        rng,
        monitor=("val_loss", "loss"),
        save_best_only=(True, False),
        save_weights_only=(True, False),
        mode=("auto", "min", "max"),
        initial_value_threshold=(None, 0.0, -1.0),
    )
    ending = ".weights.h5" if settings.get("save_weights_only") else ".h5"
    settings = {"filepath": pick(rng, "best", "at-{epoch:02d}-{val_loss:.3f}") + ending} | settings
    body = f"return play(k, {call(name, settings)}, {walk(rng)})"
    return Program(name, body, {})


@entry("callbacks.LearningRateScheduler")
def rate_scheduler(rng, name):
    how = pick(
        rng,
        "lambda epoch: 0.5 / (epoch + 1)",
        "lambda epoch, rate: rate * 0.5 if epoch % 2 else rate",
        "lambda epoch, rate: float(rate)",
    )
    return Program(name, f"return play(k, k.{name}({how}), {walk(rng)})", {})


@entry("callbacks.CSVLogger")
def csv_logger(rng, name):
    extra = arguments(sometimes(rng, separator=(",", ";"), append=(True, False)))
    body = f"""
with swap_files() as folder:
    path = str(folder / "log.csv")
    for losses in {walk(rng)[:4]}, {walk(rng)[:3]}:
        play(k, k.{name}(path{extra}), losses)
    return {{"text": (folder / "log.csv").read_text()}}
"""
    return Program(name, body, {})


@entry("callbacks.LambdaCallback", "callbacks.Callback", "callbacks.TerminateOnNaN")
def calls(rng, name):
    """Which methods `fit`, `evaluate` and `predict` call, in what order, with which numbers."""
    n, batch = int(rng.integers(2, 9)), int(rng.integers(1, 5))
    halves = {"validation_split": 0.5}
    extra = arguments(pick(rng, {}, halves, halves | {"validation_freq": 2}))
    callbacks = "[spy]"
    if name.endswith("LambdaCallback"):
        moments = ("train_begin", "epoch_begin", "epoch_end", "train_batch_end")
        functions = [
            f"on_{m}=lambda *a, **b: story.append(({m!r}, *(n for n in a if isinstance(n, int))))"
            for m in moments
            if rng.integers(2)
        ]
        callbacks = f"[k.{name}({', '.join(functions)})]"
    elif name.endswith("TerminateOnNaN"):
        callbacks = f"[spy, k.{name}()]"
    body = f"""
spy, story = count_calls(k)
callbacks = {callbacks}
model = k.Sequential([k.Input((2,)), k.layers.Dense(1)])
model.compile("sgd", "mse")
x, y = np.ones(({n}, 2)), np.ones(({n}, 1))
settings = dict(batch_size={batch}, verbose=0, callbacks=callbacks)
model.fit(x, y, epochs={pick(rng, 1, 3)}, **settings{extra})
model.evaluate(x, y, **settings)
model.predict(x, **settings)
return {{"story": story}}
"""
    return Program(name, body, {})
