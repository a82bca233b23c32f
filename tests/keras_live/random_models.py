"""Random networks: their graphs, whole trainings with the options of `fit`, and files both ways.

More entries for `random_cases.py`, which see.
"""

import textwrap

from tests.keras_live.programs import Program
from tests.keras_live.random_cases import (
    OPTIMIZERS,
    entry,
    exists,
    number,
    optimizer,
    pick,
    sometimes,
)
from tests.tolerances import TRAINING_FLOAT64

# What may follow images: text of a layer, and whether it has weights.
BLOCKS = (
    "k.layers.Conv2D({n}, 3, padding='same', activation='relu')",
    "k.layers.Conv2D({n}, (1, 2), use_bias=False)",
    "k.layers.Conv2D({n}, 2, strides=(1, 2), padding='same', activation='tanh')",
    "k.layers.BatchNormalization(momentum=0.9)",
    "k.layers.BatchNormalization(scale=False, epsilon=0.01)",
    "k.layers.MaxPooling2D(2, padding='same')",
    "k.layers.AveragePooling2D(2, strides=1, padding='same')",
    "k.layers.ZeroPadding2D(1)",
    "k.layers.Activation('relu')",
    "k.layers.ReLU(max_value=6.0)",
    "k.layers.Dropout(0.0)",
    "k.layers.Dense({n}, activation='sigmoid')",
)
ENDS = ("k.layers.Flatten()", "k.layers.GlobalAveragePooling2D()", "k.layers.GlobalMaxPooling2D()")


def network(rng, outputs=1, m=3, activation="softmax", size=6):
    """Lines that build `model`, of images (size, size, 2) to rows of m numbers: a chain with
    shortcuts, side ways, shared layers and a nested model."""
    inputs = pick(rng, 1, 1, 2)
    lines = [f"a = x = k.Input(({size}, {size}, 2))"]
    if inputs == 2:
        lines += [f"b = k.Input(({size}, {size}, 2))"]
        shared = pick(rng, *BLOCKS[:4]).format(n=3)
        lines += [f"shared = {shared}"]
        merge = pick(rng, "k.layers.Add()", "k.layers.Concatenate()")
        lines += [f"x = {merge}([shared(x), shared(b)])"]
    for _ in range(int(rng.integers(1, 5))):
        block = pick(rng, *BLOCKS).format(n=int(rng.integers(1, 5)))
        kind = int(rng.integers(6))
        if kind == 0:
            n = int(rng.integers(1, 5))
            lines += [
                f"x = k.layers.Conv2D({n}, 1)(x)",
                f"y = k.layers.Conv2D({n}, 3, padding='same')(k.layers.ReLU()(x))",
                "x = k.layers.Add()([x, y])",
            ]
        elif kind == 1:
            lines += [f"x = k.layers.Concatenate()([x, k.layers.Conv2D({pick(rng, 1, 2)}, 1)(x)])"]
        elif kind == 2:
            lines += [
                "i = k.Input(tuple(x.shape[1:]))",
                f"inner = k.layers.Conv2D(2, 3, padding='same')({block}(i))",
                "x = k.Model(i, k.layers.BatchNormalization()(inner))(x)",
            ]
        elif kind == 3:
            lines += [
                "chain = [k.Input(tuple(x.shape[1:])), k.layers.Conv2D(2, 1), "
                f"{block}, k.layers.Conv2D(2, 1)]",
                "x = k.Sequential(chain)(x)",
            ]
        else:
            lines += [f"x = {block}(x)"]
    lines += [f"x = {pick(rng, *ENDS)}(x)"]
    if rng.integers(2):
        lines += ["x = k.layers.Dense(4, activation='relu')(x)"]
    heads = [f"k.layers.Dense({m}, activation={activation!r})(x)"] * outputs
    inputs_text = "[a, b]" if inputs == 2 else "a"
    outputs_text = heads[0] if outputs == 1 else "[" + ", ".join(heads) + "]"
    lines += [f"model = k.Model({inputs_text}, {outputs_text})"]
    return "\n".join(lines), inputs


def freezing(rng):
    """Lines that freeze some of `model`, or none."""
    return pick(
        rng,
        "",
        "",
        "for layer in model.layers[: len(model.layers) // 2]:\n    layer.trainable = False",
        "for layer in model.layers[1::2]:\n    layer.trainable = False",
        "for layer in model.layers[:-1]:\n    layer.trainable = False",
        "for layer in model.layers:\n"
        "    if 'batch_normalization' in layer.name:\n"
        "        layer.trainable = False",
    )


@entry("Model.summary", "Sequential.summary")
def graph(rng, name):
    """Names, order, shapes and counts of a random graph, and what it computes."""
    build, inputs = network(rng, outputs=pick(rng, 1, 2))
    if name.startswith("Sequential"):
        blocks = [pick(rng, *BLOCKS).format(n=int(rng.integers(1, 5))) for _ in range(3)]
        first = pick(rng, "k.Input((6, 6, 2)), ", "")
        build = f"model = k.Sequential([{first}{', '.join(blocks)}, {pick(rng, *ENDS)}])"
        build += "" if first else "\nmodel.build((None, 6, 6, 2))"
        inputs = 1
    x = "numbers(rng, (3, 6, 6, 2))"
    x = x if inputs == 1 else f"[{x}, {x}]"
    body = f"""
{build}
{freezing(rng)}
rng = np.random.default_rng({number(rng)})
found = {{
    "layers": [layer.name for layer in model.layers],
    "arrays": [[tuple(w.shape) for w in layer.get_weights()] for layer in model.layers],
    "weights": [v.name for v in model.weights],
    "trained": [tuple(v.shape) for v in model.trainable_weights],
    "count": model.count_params(),
    "shapes": str((model.input_shape, model.output_shape)),
}}
model.set_weights([positive(rng, w.shape) / w.size for w in model.get_weights()])
y = model.predict({x}, verbose=0)
return found | {{f"y{{i}}": a for i, a in enumerate(y if isinstance(y, list) else [y])}}
"""
    return Program(name, body, {"terms": 1000})


FIT_LOSSES = (
    ("categorical_crossentropy", "softmax", "np.eye({m})[rng.integers(0, {m}, n)]"),
    ("sparse_categorical_crossentropy", "softmax", "rng.integers(0, {m}, n)"),
    ("binary_crossentropy", "sigmoid", "rng.integers(0, 2, (n, {m})).astype(float)"),
    ("mse", "linear", "numbers(rng, (n, {m}))"),
    ("mae", "tanh", "numbers(rng, (n, {m}))"),
    ("categorical_crossentropy", "softmax", "rng.dirichlet(np.ones({m}), n)"),
)


@entry("Model.fit", "Model.fit:two outputs")
def fit(rng, name):
    """A whole training: steps, history, weights, `evaluate`, `predict`."""
    outputs = 2 if name.endswith("two outputs") else 1
    m = int(rng.integers(2, 5))
    losses = [loss for loss in FIT_LOSSES if loss[0] != "mae" or exists("losses.MeanAbsoluteError")]
    loss, activation, targets = pick(rng, *losses)
    build, inputs = network(rng, outputs, m, activation)
    n = int(rng.integers(6, 20))
    optimizers = [each for each in OPTIMIZERS if exists(f"optimizers.{each}")]
    settings = {"batch_size": int(rng.integers(2, 9)), "epochs": pick(rng, 1, 2, 3)}
    settings |= sometimes(rng, validation_split=(0.25, 0.5), validation_freq=(1, 2))
    if "validation_split" not in settings:
        settings.pop("validation_freq", None)
    settings |= sometimes(rng, initial_epoch=(0, 1) if settings["epochs"] > 1 else (0,))
    extra = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    weighting = pick(rng, "", ", sample_weight=positive(rng, n, 0, 2)", "class")
    if weighting == "class":
        classes = {i: pick(rng, 0.25, 1.0, 3.0) for i in range(m) if rng.integers(4)}
        fits = outputs == 1 and "categorical" in loss and "dirichlet" not in targets
        weighting = f", class_weight={classes}" if classes and fits else ""
    compiled = {}
    if rng.integers(2):
        compiled["metrics"] = pick(rng, ["accuracy"], ["mse"], ["mse", "accuracy"])
        compiled["metrics"] = ["mse"] if loss in ("mse", "mae") else compiled["metrics"]
        if loss.startswith("sparse"):
            compiled["metrics"] = ["accuracy"]
        if outputs > 1:
            compiled["metrics"] = [compiled["metrics"]] * outputs
    if weighting and outputs == 1 and rng.integers(2) and "sparse" not in loss:
        compiled["weighted_metrics"] = ["mse"] if "metrics" not in compiled else []
    if outputs > 1:
        # Of a short last batch Keras weighs the outputs' own losses wrongly (see test_names.py).
        n = settings["batch_size"] * int(rng.integers(1, 4)) * 2
        extra = extra.replace("validation_split=0.25", "validation_split=0.5")
        compiled |= sometimes(rng, loss_weights=([0.5, 2.0], [1.0, 0.25]))
        loss = [loss, loss]
    y = targets.format(m=m)
    y = y if outputs == 1 else f"[{y}, {y}]"
    x = "numbers(rng, (n, 6, 6, 2))"
    x = x if inputs == 1 else f"[{x}, {x}]"
    body = f"""
rng = np.random.default_rng({number(rng)})
{build}
{freezing(rng)}
n = {n}
data = {x}, {y}
optimizer = {optimizer(rng, pick(rng, *optimizers), rate=pick(rng, 2**-6, 2**-9), tame=True)}
return train(k, model, data, rng, optimizer, {loss!r}, {compiled}, {extra}{weighting})
"""
    return Program(name, body, {"fraction": TRAINING_FLOAT64})


@entry(
    "Model.save:.h5",
    "Model.save:.keras",
    "Model.save_weights:.h5",
    "Model.save_weights:.weights.h5",
)
def files(rng, name):
    """What one library writes the other reads, bit for bit, and computes the same with."""
    build, inputs = network(rng)
    ending = name.partition(":")[2]
    x = "numbers(rng, (3, 6, 6, 2))"
    x = x if inputs == 1 else f"[{x}, {x}]"
    if name.startswith("Model.save:"):
        write, read = "model.save(path)", "model = other.models.load_model(path)"
    else:
        write, read = (
            # Keras 3 writes the old form only as a part of a whole model.
            "(model.save if k is keras and path.suffixes == ['.h5'] else model.save_weights)(path)",
            "model = build(other)\n    model.load_weights(path)",
        )
    freeze = freezing(rng)
    # Keras reads the weights of a frozen nested model in another order than it writes them
    # (test_files.py), unless the file itself says what is frozen.
    freeze = "" if ending == ".h5" and "save_weights" in write else freeze
    body = f"""
import keras, minitl
other = minitl if k is keras else keras
def build(k):
    other.utils.clear_session()
    k.utils.clear_session()
{textwrap.indent(build + chr(10) + freeze, "    ")}
    return model
rng = np.random.default_rng({number(rng)})
model = build(k)
model.set_weights([positive(rng, w.shape, 0.1) / w.size for w in model.get_weights()])
with swap_files() as folder:
    path = folder / "file{ending}"
    weights = model.get_weights()
    {write}
    {read}
assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), weights, strict=True))
found = {{"trained": [tuple(v.shape) for v in model.trainable_weights]}}
found["names"] = [layer.name for layer in model.layers]
return found | {{"y": model.predict({x}, verbose=0)}}
"""
    return Program(name, body, {"terms": 1000})
