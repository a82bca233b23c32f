"""Does a training that is killed, at any moment, and started again end with the same bits?

A small network with everything that remembers something (batch normalisation, dropout, Adam,
clipping, EarlyStopping, ReduceLROnPlateau, ModelCheckpoint, CSVLogger, a callback with random
numbers of its own) is trained once without interruption. Then again and again: after a random
time the process gets SIGKILL, and the same program is started anew, on another number of threads,
until the training has ended. Weights, history, the optimizer's and callbacks' state, files and
random numbers must then be those of the uninterrupted one, bit by bit.

`python -m benchmarks.kills` kills 30 times, the machine's load does no harm.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Claim, Options, Report, main

EPOCHS = 40
KINDS: tuple[str | int, ...] = ("epoch", 1, 3)  # how often a backup is written


def measure(options: Options) -> Report:
    wanted = options.pick(30, 3)
    told = {"epochs": EPOCHS, "save_freq": "epoch, 1 and 3 in turns"}
    report = Report("kills", (__doc__ or "").splitlines()[0], told)
    rng = random.Random(0)
    alike: list[float] = []
    while_writing = trainings = 0
    with tempfile.TemporaryDirectory() as folder:
        expected = {kind: reference(Path(folder) / f"whole-{kind}", kind) for kind in KINDS}
        while len(alike) < wanted:
            kind = KINDS[trainings % len(KINDS)]
            place = Path(folder) / f"killed-{trainings}"
            end, seconds = expected[kind]
            kills = min(5, wanted - len(alike))
            found, killed, writing = interrupted(place, kind, kills, seconds / 2, rng)
            trainings, while_writing = trainings + 1, while_writing + writing
            alike += [float(found == end)] * killed
            if differs := [name for name in end if found[name] != end[name]]:
                print(f"training {trainings} (save_freq {kind}) differs: {', '.join(differs)}")
    note = (
        f"{len(alike)} kills in {trainings} trainings, {while_writing} while a backup was written"
    )
    report.add("ended with the same bits", "killed trainings", "", alike, note)
    share = Claim("share of kills", "ended alike", float(np.mean(alike)), 1.0, "at least")
    report.claims.append(share)
    return report


def reference(folder: Path, save_freq: str | int) -> tuple[Any, float]:
    """How the training ends when nobody interrupts it, and how long it takes."""
    process = start(folder, save_freq, threads=2)
    wait_for_training(process)
    started = time.perf_counter()
    if process.wait():
        raise RuntimeError("the training failed")
    return json.loads((folder / "end.json").read_text()), time.perf_counter() - started


def interrupted(
    folder: Path, save_freq: str | int, kills: int, within: float, rng: random.Random
) -> tuple[Any, int, int]:
    """Kill a training so many times, each time in its first seconds (`within`), unless it ends
    before: (how it ended, kills, of these while a backup was being written)."""
    killed = writing = 0
    while True:
        process = start(folder, save_freq, threads=rng.randint(1, 3))
        if killed < kills:
            wait_for_training(process)
            time.sleep(rng.uniform(0, within))
            process.send_signal(signal.SIGKILL)
        code = process.wait()
        if code == 0:
            return json.loads((folder / "end.json").read_text()), killed, writing
        if code != -signal.SIGKILL:
            raise RuntimeError(f"the training failed with exit code {code}")
        if (folder / "fit-ended").exists():  # too late to count, and nothing left to kill
            kills = killed
            continue
        killed += 1
        writing += any((folder / "backup").glob(".*.part.backup"))


def wait_for_training(process: subprocess.Popen[str]) -> None:
    """Until the program has imported what it needs, and its kernels are loaded."""
    assert process.stdout is not None
    process.stdout.readline()


def start(folder: Path, save_freq: str | int, threads: int) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.kills", "train", str(folder), str(save_freq)],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path.cwd()), *sys.path]))}
        | {"NUMBA_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        text=True,
    )


# --- The program that is killed ------------------------------------------------------------------


def train(folder: Path, save_freq: str | int) -> None:
    """Train, and write how it ended to `folder`/end.json."""
    from minitl import Sequential, callbacks, config, layers, optimizers, utils
    from minitl.models import load_model
    from minitl.storage.atomic import replacing
    from minitl.storage.state import fingerprint

    class Diary(callbacks.Callback):
        """Throws dice and remembers."""

        def __init__(self) -> None:
            self.dice = np.random.default_rng(5)
            self.seen: list[Any] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.seen.append((batch, self.dice.random(), dict(logs)))

    utils.set_random_seed(3)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((90, 8, 8, 3)).astype(np.float32)
    labels = rng.integers(0, 3, 90)
    x += labels[:, None, None, None] * 0.2
    y = np.eye(3, dtype=np.float32)[labels]
    model = Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(1024, activation="relu"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy")
    start_values = model.get_weights()
    model.fit(x[:16], y[:16], verbose=0)  # loads the kernels, so that the kills do not hit that
    model.set_weights(start_values)
    adam = optimizers.Adam(3e-3, clipnorm=1.0)
    model.compile(adam, "categorical_crossentropy", metrics=["accuracy", "AUC"])
    early = callbacks.EarlyStopping(patience=30, restore_best_weights=True)
    plateau = callbacks.ReduceLROnPlateau(patience=2, factor=0.5)
    best = callbacks.ModelCheckpoint(folder / "best.h5", save_best_only=True)
    log = callbacks.CSVLogger(folder / "log.csv", append=True)
    diary = Diary()
    # The backup stays at the end: a kill between the end of `fit` and end.json must not train, and
    # append to log.csv, once more.
    backup = callbacks.BackupAndRestore(
        folder / "backup", save_freq, double_checkpoint=True, delete_checkpoint=False
    )
    print("now", flush=True)
    history = model.fit(
        x,
        y,
        16,
        EPOCHS,
        verbose=0,
        validation_split=0.3,
        callbacks=[backup, log, best, early, plateau, diary],
    )
    (folder / "fit-ended").touch()
    end = {
        "history": history.history,
        "epochs": history.epoch,
        "weights": fingerprint(model.get_weights()),
        "optimizer": fingerprint([adam.state_of(v) for v in model.trainable_weights]),
        "steps and rate": (adam.iterations, adam.learning_rate),
        "EarlyStopping": (early.best, early.best_epoch, early.wait, early.stopped_epoch),
        "its weights": fingerprint(early.best_weights),
        "ReduceLROnPlateau": (plateau.best, plateau.wait, plateau.cooldown_counter),
        "ModelCheckpoint": (best.best, fingerprint(load_model(folder / "best.h5").get_weights())),
        "CSV": (folder / "log.csv").read_text(),
        "diary": (len(diary.seen), fingerprint(diary.seen), diary.dice.random()),
        "next seed": config.next_seed(),
        "backup": backup.backup_dir.exists(),
    }
    with replacing(folder / "end.json") as part:
        part.write_text(json.dumps(end))


if __name__ == "__main__":
    if sys.argv[1:2] == ["train"]:
        kind = sys.argv[3]
        train(Path(sys.argv[2]), kind if kind == "epoch" else int(kind))
    else:
        main(measure)
