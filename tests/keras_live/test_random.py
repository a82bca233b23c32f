"""Random configurations of every component, minitl beside Keras (see `random_cases.py`).

`python -m tests.keras_live.fuzz` runs as many as one likes. Here each component runs a few.
"""

import inspect

import pytest

import minitl
from tests.keras_live import random_models  # noqa: F401 (adds its entries)
from tests.keras_live.compare import names_in
from tests.keras_live.random_cases import ENTRIES, draw, exists

EACH = 2
NAMES = [name for name in ENTRIES if exists(name.partition(":")[0])]
# What has no random configuration of its own, and why.
WITHOUT = {
    "layers.Input": "in every model",
    "layers.Masking": "only with what counts steps: layers/test_masking.py",
    "layers.InputLayer": "in every model",
    "layers.Layer": "base class",
    **{
        f"layers.Random{what}": "other random numbers than Keras's: data/test_augmentation.py"
        for what in ["Brightness", "Contrast", "Crop", "Flip", "Rotation", "Translation", "Zoom"]
    },
    "layers.Operation": "each op: test_ops.py",
    "layers.Lambda": "a function of the user's: test_guides.py",
    "layers.Embedding": "takes integers: test_guides.py",
    "layers.Convolution1D": "Conv1D",
    "layers.SeparableConvolution2D": "SeparableConv2D",
    "layers.add": "Add",
    "layers.concatenate": "Concatenate",
    "losses.Loss": "base class",
    "metrics.Metric": "base class",
    "optimizers.Optimizer": "base class",
    "optimizers.schedules.LearningRateSchedule": "base class",
    "initializers.Initializer": "base class",
    "callbacks.CallbackList": "internal in both",
    "callbacks.ProgbarLogger": "prints; another bar than Keras's",
    "callbacks.BackupAndRestore": "bit for bit, against itself (test_callbacks.py)",
}


@pytest.mark.parametrize("name", NAMES)
def test_component(keras, name):
    for seed in range(EACH):
        draw((0, seed), name).run()


@pytest.mark.parametrize("seed", range(40))
def test_mixture(keras, seed):
    draw((1, seed)).run()


def components(keras):
    for module in (
        "layers",
        "losses",
        "metrics",
        "optimizers",
        "optimizers.schedules",
        "initializers",
        "regularizers",
        "callbacks",
    ):
        mine, theirs = minitl, keras
        for part in module.split("."):
            mine, theirs = getattr(mine, part), getattr(theirs, part)
        for name, value in names_in(mine).items():
            own = getattr(value, "__module__", "").startswith(f"minitl.{module.split('.')[0]}")
            if own and not name.startswith("_") and hasattr(theirs, name):
                if inspect.isclass(value) and value.__name__ != name:
                    continue  # a second name: MaxPool2D
                if inspect.isclass(value) or inspect.isfunction(value):
                    yield f"{module}.{name}"
    yield from (f"activations.{name}" for name in minitl.activations.TABLE)


def test_every_component_has_an_entry(keras):
    there = {name.partition(":")[0] for name in ENTRIES}
    missing = set(components(keras)) - there - WITHOUT.keys()
    missing -= {name for name in missing if name.endswith((".get", ".serialize"))}
    assert not missing, f"add an entry to random_cases.py for {sorted(missing)}"


def test_a_difference_is_found_and_told(keras, monkeypatch):
    """A wrong constant in minitl: the error names the result, and a script that repeats it."""
    monkeypatch.setattr(minitl.activations, "leaky_relu", lambda x, negative_slope=0.2: x * 0.9)
    with pytest.raises(AssertionError, match="y: differs by") as caught:
        draw((0, 0), "layers.LeakyReLU").run()
    [note] = caught.value.__notes__
    assert "k.layers.LeakyReLU(" in note and "compare(program" in note
    with pytest.raises(AssertionError, match="y: differs by"):
        exec(note.partition("\n\n")[2], {})
