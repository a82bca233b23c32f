"""Trainings that are killed, or that meet a fault of the disk, and are started again.

    python -m tests.fuzz_kills --cases 200 --seed 1
    python -m tests.fuzz_kills --cases 100 --seed 1 --faults          # needs strace
    python -m tests.fuzz_kills --seed 1 --case 17                     # that one again

Each case draws a mode, of data, optimizer, layers, callbacks and how often a backup is written.
The training runs to its end once. Then, in another folder, it is killed at random moments, or one
of its system calls fails (no space, an I/O error), and it is started again until it ends. All must
be as in the first run, bit by bit: weights, history, the optimizer's state, the callbacks' files.
A fault must be told in words, and whatever file is there must be whole. For each case that differs
the command is printed that runs it again; exit code 1.
"""

import argparse
import collections
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import minitl
from minitl import callbacks, layers, optimizers
from minitl.models import Sequential, load_model
from minitl.storage.state import fingerprint, read_state

EPOCHS, ROWS, BATCH = 4, 24, 6
DATA = [
    "arrays",
    "in order",
    "weights",
    "classes",
    "split",
    "validation",
    "shuffling",
    "mixing",
    "one shot",
    "steps",
]
CALLS = "write,pwrite64,fsync,rename,openat,unlink,ftruncate,mkdir"
ERRORS = ("ENOSPC", "EIO", "EDQUOT")


# --- What is trained -----------------------------------------------------------------------------


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ROWS, 5)).astype("f4")
    return x, np.eye(3, dtype="f4")[rng.integers(0, 3, ROWS)]


class Shuffling:
    """Batches in another order each epoch, by a generator of its own."""

    def __init__(self):
        self.rng, self.epoch = np.random.default_rng(4), 0

    def __iter__(self):
        self.epoch += 1
        x, y = arrays(self.epoch)
        order = self.rng.permutation(ROWS)
        for i in range(0, ROWS, BATCH):
            yield x[order[i : i + BATCH]], y[order[i : i + BATCH]]


class Mixing(Shuffling):
    """Changes its own list in place."""

    def __init__(self):
        super().__init__()
        self.order = list(range(ROWS))

    def __iter__(self):
        x, y = arrays()
        self.order.reverse()
        self.order.append(self.order.pop(3))
        for i in range(0, ROWS, BATCH):
            rows = self.order[i : i + BATCH]
            yield x[rows], y[rows]


def one_shot():
    for epoch in range(EPOCHS):
        x, y = arrays(epoch)
        for i in range(0, ROWS, BATCH):
            yield x[i : i + BATCH], y[i : i + BATCH]


def data_of(kind):
    x, y = arrays()
    given = {"x": x, "y": y, "batch_size": BATCH}
    steps = {"steps_per_epoch": ROWS // BATCH}
    return {
        "arrays": given,
        "in order": given | {"shuffle": False},
        "weights": given | {"sample_weight": np.linspace(0, 2, ROWS, dtype="f4")},
        "classes": given | {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}},
        "split": given | {"validation_split": 0.25},
        "validation": given | {"validation_data": arrays(9), "validation_freq": 2},
        "shuffling": {"x": Shuffling()},
        "mixing": {"x": Mixing()},
        "one shot": {"x": one_shot()} | steps,
        "steps": {"x": Shuffling(), "steps_per_epoch": 3},
    }[kind]


OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.05),
    "nesterov": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "adam": lambda: optimizers.Adam(0.01),
    "clipped": lambda: optimizers.Adam(0.01, clipnorm=0.5),
    "adamw": lambda: optimizers.AdamW(0.01),
    "rmsprop": lambda: optimizers.RMSprop(0.01),
    "schedule": lambda: optimizers.SGD(optimizers.ExponentialDecay(0.05, 3, 0.9)),
}
LAYERS = {
    "plain": lambda: [],
    "dropout": lambda: [layers.Dropout(0.3)],
    "normalised": lambda: [layers.BatchNormalization()],
    "frozen": lambda: [layers.Dense(6, trainable=False, name="frozen")],
}


class Diary(callbacks.Callback):
    """Throws dice and remembers."""

    def __init__(self):
        self.dice, self.seen = np.random.default_rng(5), []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((batch, self.dice.random(), logs["loss"]))


CALLBACKS = {
    "diary": lambda folder: Diary(),
    "early": lambda folder: callbacks.EarlyStopping("loss", patience=1, restore_best_weights=True),
    "plateau": lambda folder: callbacks.ReduceLROnPlateau("loss", patience=1, factor=0.5),
    "best": lambda folder: callbacks.ModelCheckpoint(
        folder / "best.h5", "loss", save_best_only=True
    ),
    "log": lambda folder: callbacks.CSVLogger(folder / "log.csv", append=True),
    "rate": lambda folder: callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
}


def draw(seed, case):
    rng = random.Random(f"{seed}/{case}")
    mode = {
        "data": rng.choice(DATA),
        "optimizer": rng.choice(list(OPTIMIZERS)),
        "layers": rng.choice(list(LAYERS)),
        "callbacks": rng.sample(list(CALLBACKS), rng.randrange(4)),
        "save_freq": rng.choice(("epoch", 1, 3)),
        "double": rng.random() < 0.5,
    }
    if mode["optimizer"] == "schedule":  # which no callback may replace
        mode["callbacks"] = [c for c in mode["callbacks"] if c not in ("plateau", "rate")]
    return mode


def train(mode, folder):
    """Train, and say in `folder`/end.json how it ended."""
    minitl.utils.clear_session()  # names of layers count from 0
    minitl.utils.set_random_seed(3)
    inner = LAYERS[mode["layers"]]()
    chain = [layers.Input((5,)), layers.Dense(8, activation="relu"), *inner]
    model = Sequential([*chain, layers.Dense(3, activation="softmax")])
    optimizer = OPTIMIZERS[mode["optimizer"]]()
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    others = [CALLBACKS[name](folder) for name in mode["callbacks"]]
    kept = {"double_checkpoint": mode["double"], "delete_checkpoint": False}
    backup = callbacks.BackupAndRestore(folder / "backup", mode["save_freq"], **kept)
    given = data_of(mode["data"]) | {"epochs": EPOCHS, "verbose": 0}
    history = model.fit(**given, callbacks=[*others, backup])
    end = {
        "history": history.history,
        "weights": fingerprint(model.get_weights()),
        "optimizer": fingerprint([optimizer.state_of(v) for v in model.trainable_weights]),
        "rate": (optimizer.iterations, float(optimizer.learning_rate)),
    }
    for name, callback in zip(mode["callbacks"], others, strict=True):
        if name == "diary":
            end[name] = fingerprint([callback.seen, callback.dice.random()])
    for name in ("best.h5", "log.csv"):
        if (folder / name).exists():
            content = (folder / name).read_text() if name == "log.csv" else None
            end[name] = content or fingerprint(load_model(folder / name).get_weights())
    (folder / "end.part").write_text(json.dumps(end))
    (folder / "end.part").rename(folder / "end.json")  # a kill leaves the whole of it, or nothing


# --- Killing -------------------------------------------------------------------------------------


def forked(mode, folder, seconds=None):
    """Train in a process of its own, killed after so many seconds: whether it ended by itself, and
    how long it took."""
    begin, pid = time.perf_counter(), os.fork()
    if pid == 0:
        code = 1
        try:
            train(mode, folder)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError("the training failed")
    return os.WIFEXITED(status), time.perf_counter() - begin


def kills(mode, folder, rng, seconds):
    """Kill and start again, until it ends; how many times it was killed."""
    killed = 0
    for _ in range(rng.randint(1, 4)):
        ended, _ = forked(mode, folder, rng.uniform(0, seconds))
        if ended or (folder / "end.json").exists():
            break
        killed += 1
    if not (folder / "end.json").exists():
        forked(mode, folder)
    return killed


def fault(mode, folder, rng, calls):
    """One system call fails; then the training is started again. Whether it was told."""
    call, error = rng.choice(calls)
    inject = f"inject={call}:error={error}:when={rng.randint(1, 25)}"
    program = [sys.executable, "-m", "tests.fuzz_kills", "--train", json.dumps(mode), str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    child = subprocess.Popen(program, text=True, **pipes)
    assert child.stdout.readline() == "ready\n"
    command = ["strace", "-f", "-p", str(child.pid), "-e", inject, "-e", f"trace={CALLS}"]
    tracer = subprocess.Popen(
        [*command, "-o", f"{folder}/trace"], stderr=subprocess.PIPE, text=True
    )
    attached = tracer.stderr.readline()
    _, said = child.communicate("\n")
    tracer.communicate()
    if "attached" not in attached:
        raise RuntimeError(f"strace: {attached}")
    if child.returncode < 0:
        raise AssertionError(f"{inject}: the process ended with {child.returncode}")
    for path in (folder / "backup").glob("*.backup"):
        read_state(path)  # whole
    if (folder / "best.h5").exists():
        load_model(folder / "best.h5")
    hit = "INJECTED" in (folder / "trace").read_text("utf-8", "replace")
    if child.returncode and "Error" not in said:
        raise AssertionError(f"{inject}: ended without a word ({said[-200:]})")
    if child.returncode:
        forked(mode, folder)
    return int(hit)


def run(seed, case, faults):
    """One case: the mode, what differs, and how often it was interrupted."""
    mode, rng = draw(seed, case), random.Random(f"{seed}/{case}/moments")
    with tempfile.TemporaryDirectory() as place:
        whole, other = Path(place) / "whole", Path(place) / "other"
        whole.mkdir(), other.mkdir()
        _, seconds = forked(mode, whole)
        if faults:
            pairs = [(c, e) for c in CALLS.split(",") for e in ERRORS]
            count = fault(mode, other, rng, pairs)
        else:
            count = kills(mode, other, rng, seconds)
        expected, found = (json.loads((p / "end.json").read_text()) for p in (whole, other))
        left = [p.name for p in other.rglob(".*.part*")] if not faults else []
    differs = [name for name in expected if found.get(name) != expected[name]]
    return mode, [*differs, *left], count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int)
    parser.add_argument("--faults", action="store_true", help="of system calls, by strace")
    parser.add_argument("--train", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        print("ready", flush=True)
        sys.stdin.readline()
        train(json.loads(options.train[0]), Path(options.train[1]))
        return 0
    if options.faults and not shutil.which("strace"):
        print("there is no strace here")
        return 0
    counts, failed = collections.Counter(), 0
    with tempfile.TemporaryDirectory() as folder:  # loads the kernels, which forks then have
        train(draw(0, 0) | {"optimizer": "adam", "data": "arrays"}, Path(folder))
    for case in range(options.cases) if options.case is None else [options.case]:
        mode = draw(options.seed, case)
        try:
            _, differs, count = run(options.seed, case, options.faults)
        except Exception as error:
            differs, count = [f"{type(error).__name__}: {error}"], 0
        counts["interrupted"] += count
        counts["modes"] += 1
        if differs:
            failed += 1
            again = f"--seed {options.seed} --case {case}{' --faults' * options.faults}"
            print(f"case {case} differs: {', '.join(differs)}; {mode}; again:")
            print(f"    python -m tests.fuzz_kills {again}", flush=True)
    print(json.dumps(dict(counts) | {"failed": failed, "seed": options.seed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
