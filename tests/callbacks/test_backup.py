"""Backups: a training that was killed goes on to the same bits, and only that training."""

import sys
import types

import numpy as np
import pytest

import minitl
from minitl.callbacks import BackupAndRestore, Callback
from minitl.layers import Dense, Input
from minitl.models import Sequential

X = np.random.default_rng(0).normal(size=(24, 6)).astype("f4")
Y = np.arange(24) % 3


class Shuffled:
    """Batches in a new order every epoch, by a generator or by shuffling its own list."""

    def __init__(self, in_place):
        self.rng, self.in_place, self.rows = np.random.default_rng(9), in_place, list(range(24))

    def __len__(self):
        return 6

    def __iter__(self):
        rows = self.rng.permutation(24)
        if self.in_place:
            self.rng.shuffle(self.rows)
            rows = self.rows
        for i in range(0, 24, 4):
            yield X[rows[i : i + 4]], Y[rows[i : i + 4]]


class Power(Callback):
    def __init__(self, fails_at):
        self.fails_at, self.steps = fails_at, 0

    def get_state(self):
        return {}

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == self.fails_at:
            raise KeyboardInterrupt


def train(folder, data, fails_at=None, loss="sparse_categorical_crossentropy"):
    minitl.utils.clear_session()
    minitl.utils.set_random_seed(1)
    model = Sequential([Input((6,)), Dense(3, activation="softmax", name="head")])
    model.compile("adam", loss)
    callbacks = [BackupAndRestore(folder, save_freq=2), Power(fails_at)]
    model.fit(*data, epochs=3, verbose=0, callbacks=callbacks)
    return b"".join(w.tobytes() for w in model.get_weights())


@pytest.mark.parametrize("in_place", [False, True])
def test_within_an_epoch_of_an_iterable_that_changes(tmp_path, in_place):
    whole = train(tmp_path / "a", [Shuffled(in_place)])
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", [Shuffled(in_place)], fails_at=9)
    assert train(tmp_path / "b", [Shuffled(in_place)]) == whole


def loss_of(factor):
    def loss(y_true, y_pred):
        return (y_pred - y_true) ** 2 * factor

    return loss


def test_another_loss_of_ones_own_is_another_training(tmp_path):
    data = [X, np.eye(3, dtype="f4")[Y]]
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, data, fails_at=3, loss=loss_of(1.0))
    with pytest.raises(ValueError, match="is of another training:\n  loss and metrics"):
        train(tmp_path, data, loss=loss_of(2.0))
    train(tmp_path, data, loss=loss_of(1.0))


def test_an_edited_callback_is_another_training(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [X, Y], fails_at=3)

    def edited(self, batch, logs=None):
        self.model.stop_training = True

    before = Power.on_train_batch_end
    Power.on_train_batch_end = edited
    try:
        with pytest.raises(ValueError, match="is of another training:\n  callbacks' code"):
            train(tmp_path, [X, Y])
    finally:
        Power.on_train_batch_end = before


OWN_LAYER = """class Scaled(minitl.layers.Layer):
    def call(self, x):
        return x * settings.SCALE
inner = [Scaled()]"""
OWN_DATA = """class Batches(minitl.utils.PyDataset):
    def __len__(self):
        return 2
    def __getitem__(self, i):
        return X[4 * i : 4 * i + 4] * settings.SCALE, Y[4 * i : 4 * i + 4]
given = {"x": Batches()}"""
OWN_STREAM = """class Stream:
    scale = settings.SCALE
    def __iter__(self):
        for i in range(2):
            yield X[4 * i : 4 * i + 4] * self.scale, Y[4 * i : 4 * i + 4]
given = {"x": Stream()}"""
GENERATOR = """def batches():
    while True:
        yield X * settings.SCALE, Y
given = {"x": batches(), "steps_per_epoch": 2}"""
OWN_MODEL = """class Own(minitl.Model):
    def __init__(self):
        super().__init__()
        self.head = minitl.layers.Dense(3, activation="softmax")
    def call(self, x):
        return self.head(x * settings.SCALE)
model = Own()"""
JOBS = {
    "a layer's constant": (OWN_LAYER, "layers' code"),
    "a data set's constant": (OWN_DATA, "data"),
    "an iterable's class": (OWN_STREAM, "data"),
    "a generator's constant": (GENERATOR, "a generator cannot be told from another"),
    "a model's constant": (OWN_MODEL, "layers' code"),
    "a layer's function": ("inner = [minitl.layers.Lambda(lambda x: x * settings.SCALE)]", "code"),
    "an initializer": (
        "how = {'kernel_initializer': lambda s, dtype=None: np.full(s, settings.SCALE, 'f4')}",
        "layers' code",
    ),
    "a penalty": (
        "how = {'kernel_regularizer': lambda w: (w * w).sum() * settings.SCALE}",
        "layers' code",
    ),
    "a callback's constant": (
        "calls = [minitl.callbacks.LearningRateScheduler(lambda e: 0.1 * settings.SCALE)]",
        "callbacks' code reads other values",
    ),
}


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.filterwarnings("error::UserWarning")
def test_what_was_edited_is_another_training_or_is_told(job, tmp_path, monkeypatch):
    text, told = JOBS[job]

    def train(scale, epochs):
        settings = types.ModuleType("settings")
        settings.SCALE = scale
        monkeypatch.setitem(sys.modules, "settings", settings)
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((8, 4)).astype("f4"), np.eye(3, dtype="f4")[np.arange(8) % 3]
        space = {"minitl": minitl, "np": np, "settings": settings, "X": x, "Y": y}
        space |= {"__name__": "job", "inner": [], "how": {}, "calls": []}
        minitl.utils.clear_session()
        minitl.utils.set_random_seed(1)
        exec(text, space)
        head = minitl.layers.Dense(3, activation="softmax", **space["how"])
        layers = [minitl.layers.Input((4,)), *space["inner"], head]
        model = space.get("model") or minitl.Sequential(layers)
        model.compile("sgd", "categorical_crossentropy")
        kept = minitl.callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)
        given = space.get("given") or {"x": x, "y": y, "batch_size": 4}
        model.fit(**given, epochs=epochs, verbose=0, callbacks=[*space["calls"], kept])

    if "generator" in job:
        with pytest.raises(UserWarning, match=told):
            train(1.0, 1)
        return
    train(1.0, 1)
    train(1.0, 2)  # the same again goes on
    with pytest.raises((ValueError, UserWarning), match=told):
        train(2.0, 3)
