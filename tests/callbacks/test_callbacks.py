"""Callbacks: when they are called, and what each of them does."""

import csv

import numpy as np
import pytest

from minitl import Sequential
from minitl.callbacks import (
    BackupAndRestore,
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    format_logs,
)
from minitl.layers import Dense, Input
from minitl.models import load_model
from minitl.optimizers import SGD
from minitl.utils import clear_session

X = np.random.default_rng(0).standard_normal((6, 2)).astype(np.float32)
Y = X[:, :1]


def regression(rate=0.1):
    model = Sequential([Input((2,)), Dense(1, name="d", use_bias=False)], name="net")
    model.set_weights([np.array([[0.0], [1.0]])])
    model.compile(SGD(rate), "mse")
    return model


class Script(Callback):
    """Puts given numbers into the logs, one an epoch, and remembers the weights."""

    def __init__(self, values, name="val_loss"):
        self.values, self.key, self.weights = values, name, []

    def on_epoch_end(self, epoch, logs=None):
        logs[self.key] = self.values[epoch]
        self.weights.append(self.model.get_weights())


def run(values, *callbacks, name="val_loss", rate=0.1):
    model, script = regression(rate), Script(values, name)
    history = model.fit(X, Y, 6, len(values), verbose=0, callbacks=[script, *callbacks])
    return model, history, script.weights


def test_order_of_calls():
    calls = []

    class Spy(Callback):
        def __getattribute__(self, name):
            if name.startswith("on_"):
                return lambda *args: calls.append(name if len(args) < 2 else f"{name} {args[0]}")
            return super().__getattribute__(name)

    spy = Spy()
    model = regression()
    model.fit(X, Y, 4, 2, verbose=0, validation_data=(X[:4], Y[:4]), callbacks=spy)
    test = ["on_test_begin", "on_test_batch_begin 0", "on_test_batch_end 0", "on_test_end"]
    epoch = [f"on_train_batch_{w} {i}" for i in (0, 1) for w in ("begin", "end")] + test
    assert calls == [
        "on_train_begin",
        *["on_epoch_begin 0", *epoch, "on_epoch_end 0"],
        *["on_epoch_begin 1", *epoch, "on_epoch_end 1"],
        "on_train_end",
    ]
    assert spy.model is model and spy.params == {"epochs": 2, "steps": 2, "verbose": 0}
    calls.clear()
    model.predict(X, verbose=0, callbacks=[spy])
    model.evaluate(X, Y, verbose=0, callbacks=[spy])
    predict = [c.replace("test", "predict") for c in test]
    assert calls == predict + test


def test_logs_of_batches_are_means_so_far():
    seen = []
    spy = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]))
    model = regression(rate=0.0)
    history = model.fit(X, Y, 4, verbose=0, shuffle=False, callbacks=[spy])
    losses = (X @ [[0.0], [1.0]] - Y) ** 2
    np.testing.assert_allclose(seen, [losses[:4].mean(), losses.mean()], rtol=1e-6)
    assert history.history["loss"] == [seen[-1]]


def test_stop_training_stops_within_the_epoch():
    def stop(batch, logs):
        model.stop_training = batch == 1

    model = regression()
    steps = []
    count = LambdaCallback(on_train_batch_begin=lambda batch, logs: steps.append(batch))
    history = model.fit(
        X, Y, 1, 5, verbose=0, callbacks=[count, LambdaCallback(on_train_batch_end=stop)]
    )
    assert steps == [0, 1] and history.epoch == [0]
    assert model.fit(X, Y, epochs=2, verbose=0).epoch == [0, 1]  # and is forgotten at the next fit


def test_callbacks_end_even_when_training_fails():
    ended = []
    ender = LambdaCallback(on_train_end=lambda logs: ended.append(True))
    with pytest.raises(ValueError, match=r"yielded no batch"):
        regression().fit(iter([]), verbose=0, callbacks=[ender])
    assert ended == [True]


# --- EarlyStopping -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "settings", "epochs"),
    [
        ([3, 2, 1, 2, 3, 4], {}, 4),
        ([3, 2, 1, 2, 3, 0, 4], {"patience": 2}, 5),
        ([3, 2, 1.9, 1.8], {"min_delta": 0.5}, 3),
        ([1, 2, 3, 2], {"mode": "max"}, 4),
        ([5, 4, 3, 2], {"baseline": 1, "patience": 1}, 4),
        ([5, 6, 4, 5], {"start_from_epoch": 2}, 4),
        ([1, 2, 3], {"patience": 9}, 3),
    ],
)
def test_early_stopping(values, settings, epochs):
    _, history, _ = run(values, EarlyStopping(**settings))
    assert len(history.epoch) == epochs


def test_early_stopping_by_name_of_what_rises():
    values = [0.5, 0.6, 0.55, 0.7]
    _, history, _ = run(values, EarlyStopping("val_accuracy"), name="val_accuracy")
    assert len(history.epoch) == 3
    assert not EarlyStopping("val_loss").rises and EarlyStopping("f1_score").rises


@pytest.mark.parametrize("values", [[3, 1, 2, 4], [3, 1, 2], [1, 2, 3, 4]])
def test_best_weights_come_back(values, capsys):
    stopper = EarlyStopping(patience=2, restore_best_weights=True, verbose=1)
    model, _, weights = run(values, stopper)
    best = int(np.argmin(values))
    assert np.array_equal(model.get_weights()[0], weights[best][0])
    assert f"Restoring the weights of the best epoch, {best + 1}." in capsys.readouterr().out


def test_monitor_that_is_not_there():
    with pytest.warns(UserWarning, match=r"watches 'val_loss', which is not there; there are loss"):
        history = regression().fit(X, Y, epochs=2, verbose=0, callbacks=[EarlyStopping()])
    assert len(history.epoch) == 2


# --- The rate ------------------------------------------------------------------------------------


def test_learning_rate_scheduler(capsys):
    model = regression(1.0)
    scheduler = LearningRateScheduler(lambda epoch, rate: rate / 2, verbose=1)
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[scheduler])
    assert history.history["learning_rate"] == [0.5, 0.25, 0.125]
    assert "Epoch 1: learning rate 5.000e-01" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "settings", "rates"),
    [
        ([3, 2, 2, 2, 2], {"patience": 2, "factor": 0.5}, [1, 1, 1, 1, 0.5]),
        ([3, 3, 3, 3, 3], {"patience": 1, "factor": 0.1}, [1, 1, 0.1, 0.01, 0.001]),
        ([3, 3, 3, 3, 3], {"patience": 1, "factor": 0.1, "min_lr": 0.05}, [1, 1, 0.1, 0.05, 0.05]),
        (
            [3, 3, 3, 3, 3, 3],
            {"patience": 1, "factor": 0.5, "cooldown": 2},
            [1, 1, 0.5, 0.5, 0.25, 0.25],
        ),
    ],
)
def test_reduce_on_plateau(values, settings, rates):
    _, history, _ = run(values, ReduceLROnPlateau(**settings), rate=1.0)
    assert history.history["learning_rate"] == pytest.approx(rates)


# --- Files ---------------------------------------------------------------------------------------


def test_checkpoint_of_the_best(tmp_path):
    path = tmp_path / "best.h5"
    _, _, weights = run([3, 1, 2], ModelCheckpoint(path, save_best_only=True))
    assert np.array_equal(load_model(path).get_weights()[0], weights[1][0])


def test_checkpoint_names_and_weights_only(tmp_path, capsys):
    checkpoint = ModelCheckpoint(
        tmp_path / "m-{epoch:02d}-{val_loss:.1f}.h5", save_weights_only=True, verbose=1
    )
    _, _, weights = run([3, 1.5], checkpoint)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m-01-3.0.h5", "m-02-1.5.h5"]
    model = regression()
    model.load_weights(tmp_path / "m-01-3.0.h5")
    assert np.array_equal(model.get_weights()[0], weights[0][0])
    assert "Epoch 2: saved" in capsys.readouterr().out


def test_checkpoint_that_asks_for_what_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"uses 'val_acc', which is not among loss, val_loss"):
        run([3], ModelCheckpoint(tmp_path / "{val_acc}.h5"))
    assert list(tmp_path.iterdir()) == []


def test_checkpoint_threshold(tmp_path):
    path = tmp_path / "best.h5"
    run([3, 2], ModelCheckpoint(path, save_best_only=True, initial_value_threshold=1))
    assert not path.exists()


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    model = regression()
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[CSVLogger(path)])
    history = model.fit(
        X, Y, epochs=3, initial_epoch=2, verbose=0, callbacks=[CSVLogger(path, append=True)]
    )
    with open(path, newline="") as file:
        table = list(csv.reader(file))
    assert table[0] == ["epoch", "loss", "val_loss"] and table[3][2] == "NA"
    assert [line[0] for line in table[1:]] == ["0", "1", "2"]
    assert float(table[3][1]) == history.history["loss"][0]


def test_csv_logger_of_a_finished_training_that_is_run_again(tmp_path):
    def train():
        clear_session()  # names count from 0, as in a new process
        logger = CSVLogger(tmp_path / "log.csv", append=True)
        kept = BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        regression().fit(X, Y, epochs=2, shuffle=False, verbose=0, callbacks=[logger, kept])
        return (tmp_path / "log.csv").read_text()

    assert train() == train()  # once it added the last line again


# --- Small things --------------------------------------------------------------------------------


def test_format_logs():
    logs = {"loss": 0.25, "tiny": 1e-5, "zero": 0.0, "f1": np.array([0.5, 1.0])}
    assert (
        format_logs(logs) == "loss: 0.2500 - tiny: 1.000e-05 - zero: 0.0000 - f1: [0.5000 1.0000]"
    )
    assert format_logs(None) == ""


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: EarlyStopping(mode="down"), ValueError, "mode must be .*, got 'down'"),
        (lambda: EarlyStopping(patence=2), TypeError, r"EarlyStopping\(\) has .*'patience'"),
        (lambda: ReduceLROnPlateau(factor=1), ValueError, "factor must be below 1, got 1"),
        (lambda: ModelCheckpoint("x.h5", save_freq=0), ValueError, "number of batches, got 0"),
        (lambda: LambdaCallback(on_epoch_ends=print), TypeError, "Did you mean 'on_epoch_end'"),
        (lambda: regression().fit(X, Y, callbacks=[EarlyStopping]), TypeError, "is it a class"),
    ],
)
def test_what_is_wrong(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
