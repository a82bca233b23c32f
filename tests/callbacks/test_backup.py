"""Backups: a training that was killed goes on to the same bits, and only that training."""

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
