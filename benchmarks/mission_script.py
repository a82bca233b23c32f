"""How long does the tutorial's script take, as a whole process from start to exit?

`examples/mission.py` in minitl and in Keras: VGG16 frozen under Flatten, Dense(1024), Dense(10);
fit with a validation set, evaluate, exit. A second case goes on with block5 unfrozen, and counts
an epoch from the second on. Both begin with the same head and read the same images from a file,
without shuffling, and no time is reported unless their losses agree.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Options, Report, main
from benchmarks.contenders import labels, photographs
from benchmarks.contest import Disagreement
from benchmarks.peers import NEEDS, keras_and_tensorflow

AGREE = 1e-2  # relative, of each loss of the history


def measure(options: Options) -> Report:
    train, held_out, epochs, few = options.pick((512, 128, 10, 3), (6, 2, 2, 2))
    size = options.size
    told = {"image": size, "batch": 32, "validation": held_out, "repetitions": 1}
    report = Report("mission_script", (__doc__ or "").splitlines()[0], told)
    needs: dict[str, tuple[str, ...]] = {"minitl": (), "Keras": NEEDS["Keras"]}
    names = [name for name in needs if all(map(importlib.util.find_spec, needs[name]))]
    report.missing = [name for name in needs if name not in names]
    with tempfile.TemporaryDirectory() as folder:
        # Once without looking at the time: minitl compiles its kernels when it is new.
        prepare(folder, 6, size)
        for name in names:
            run(name, folder, 4, 1, 1)
        prepare(folder, train + held_out, size)
        whole = f"{train} images, {epochs} epochs, the whole process"
        epoch = f"an epoch of {train} images, block5 unfrozen"
        for case, unfrozen, count, unit in ((whole, 0, epochs, "s"), (epoch, 1, few, "s")):
            found = {name: run(name, folder, train, count, unfrozen) for name in names}
            first = found[names[0]]["loss"]
            for name, result in found.items():
                check(name, result["loss"], first)
                seconds = [result["whole"]] if case == whole else result["epochs"][1:]
                report.add(case, name, unit, seconds)
        report.compare(whole, "minitl", "Keras", goal=1 / 20)
        report.compare(epoch, "minitl", "Keras", goal=1 / 8)
    return report


def check(name: str, losses: list[float], expected: list[float]) -> None:
    """Raise Disagreement unless the histories are as near as AGREE."""
    a, b = np.array(losses), np.array(expected)
    if (error := np.abs(a / b - 1).max()) > AGREE:
        raise Disagreement(f"the losses of {name} differ by {error:.1e}: {a} and {b}")


def prepare(folder: str, count: int, size: int) -> None:
    """Images, labels and the first head, in files."""
    rng = np.random.default_rng(0)
    arrays = {"x": photographs(count, size), "y": labels(count)}
    # Of a tenth of Glorot's size, and below a rate at which ten epochs change the loss, and
    # rounding does not.
    for name, shape in (("hidden", ((size // 32) ** 2 * 512, 1024)), ("head", (1024, 10))):
        bound = np.sqrt(6 / sum(shape)) / 10
        arrays[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
    for name, a in arrays.items():
        np.save(Path(folder, f"{name}.npy"), a)


def run(name: str, folder: str, train: int, epochs: int, unfrozen: int) -> dict[str, Any]:
    """The script in a process of its own; what it printed, and how long it took, exit included."""
    command = [sys.executable, "-m", "benchmarks.mission_script", "--script", name, folder]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, str(train), str(epochs), str(unfrozen)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds = time.perf_counter() - started
    return json.loads(done.stdout.splitlines()[-1]) | {"whole": seconds}


def script(name: str, folder: str, train: int, epochs: int, unfrozen: int) -> None:
    """What the process does: the script, in the words that both packages share."""
    package: Any
    if name == "Keras":
        package, _ = keras_and_tensorflow()
    else:
        import minitl as package
    x, y = (np.load(Path(folder, f"{name}.npy")) for name in "xy")
    layers = package.layers
    vgg16 = package.applications.VGG16(
        weights="imagenet" if name == "minitl" else None, include_top=False, input_shape=x.shape[1:]
    )
    if name == "Keras":
        from minitl.applications import weights as pretrained

        vgg16.load_weights(pretrained.fetch("vgg16", include_top=False))
    h = layers.Flatten()(vgg16.output)
    h = layers.Dense(1024, activation="relu", name="hidden")(h)
    h = layers.Dense(10, activation="softmax", name="head")(h)
    model = package.models.Model(inputs=vgg16.input, outputs=h)
    for layer in vgg16.layers:
        layer.trainable = bool(unfrozen) and layer.name.startswith("block5")
    for layer in (model.get_layer("hidden"), model.get_layer("head")):  # the same for both
        layer.set_weights([np.load(Path(folder, f"{layer.name}.npy")), np.zeros(layer.units)])
    optimizer = package.optimizers.Adam(1e-5)
    model.compile(optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
    clock = Clock()
    history = model.fit(
        x[:train],
        y[:train],
        batch_size=32,
        epochs=epochs,
        shuffle=False,
        verbose=0,
        validation_data=(x[train:], y[train:]),
        callbacks=[package.callbacks.LambdaCallback(on_epoch_end=clock.tick)],
    )
    model.evaluate(x[train:], y[train:], verbose=0)
    losses = [*history.history["loss"], *history.history["val_loss"]]
    print(json.dumps({"loss": losses, "epochs": clock.laps}))


class Clock:
    """How long each epoch took."""

    def __init__(self) -> None:
        self.laps: list[float] = []
        self.last = time.perf_counter()

    def tick(self, epoch: int, logs: Any) -> None:
        now = time.perf_counter()
        self.laps.append(now - self.last)
        self.last = now


if __name__ == "__main__":
    if "--script" in sys.argv:
        which, where, *counts = sys.argv[sys.argv.index("--script") + 1 :]
        script(which, where, *map(int, counts))
    else:
        main(measure)
