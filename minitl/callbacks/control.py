"""Callbacks that act on a training: its rate, its end, the files that it leaves."""

import inspect
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from minitl.callbacks import Callback, Logs
from minitl.naming import Natural, NotNegative, complain_about_unknown, with_fields

# Words in the names of what should rise, and of what should fall.
RISING = {"acc", "accuracy", "auc", "precision", "recall", "f1", "score", "similarity"}
FALLING = {"loss", "error", "mse", "mae", "crossentropy", "entropy", "hinge"}


class _Monitor(Callback):
    """Base of the callbacks that watch one number and know whether it got better."""

    monitor: str
    mode: Literal["auto", "min", "max"]
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        self.min_delta = abs(self.min_delta)

    @property
    def rises(self) -> bool:
        """Whether larger is better: by `mode`, else by the words of the name."""
        words = set(re.split(r"[\W_]+", self.monitor.lower()))
        rises, falls = not words.isdisjoint(RISING), not words.isdisjoint(FALLING)
        if self.mode == "auto" and rises == falls:
            what = f"{type(self).__name__} cannot tell whether {self.monitor!r} should rise or fall"
            raise ValueError(f"{what}: pass mode='max' or mode='min'")
        return rises if self.mode == "auto" else self.mode == "max"

    def better(self, value: float, best: float | None) -> bool:
        """Whether value is better than best by more than min_delta; anything is than None."""
        if best is None or math.isnan(value):
            return not math.isnan(value)
        return value - self.min_delta > best if self.rises else value + self.min_delta < best

    def value(self, logs: Logs | None) -> float | None:
        if self.monitor in (logs := logs or {}):
            return float(logs[self.monitor])
        there = f"which is not there; there are {', '.join(sorted(logs))}"
        message = f"{type(self).__name__} watches {self.monitor!r}, {there}"
        warnings.warn(message, UserWarning, stacklevel=2)
        return None


@with_fields
class EarlyStopping(_Monitor):
    """Stops when the monitored number has not improved by `min_delta` for `patience` epochs.

    What is better, `mode` says: 'min', 'max', or 'auto' (by the name of what is monitored). Only a
    number that is better than the `baseline` counts, and none before `start_from_epoch`. With
    `restore_best_weights` the best epoch's weights are put back at the end. `verbose=1` says so.
    """

    monitor: str = "val_loss"
    min_delta: float = 0
    patience: Natural = 0
    verbose: bool | int = 0
    mode: Literal["auto", "min", "max"] = "auto"
    baseline: Annotated[float, "a number"] | None = None
    restore_best_weights: bool = False
    start_from_epoch: Natural = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.wait, self.stopped_epoch, self.best_epoch = 0, 0, 0
        self.best: float | None = None
        self.best_weights: list[np.ndarray] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = self.value(logs)
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self.better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.better(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch, self.model.stop_training = epoch, True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                print(f"Restoring the weights of the best epoch, {self.best_epoch + 1}.")
            self.model.set_weights(self.best_weights)


@with_fields
class ModelCheckpoint(_Monitor):
    """Saves the model, or with `save_weights_only` its weights, after every epoch.

    The name of the file ends in .h5 and may hold logs: 'm-{epoch:02d}-{val_loss:.2f}.h5', and
    '{batch}' where `save_freq` is not 'epoch' but a number of batches (the monitored number is then
    that of the epoch so far, and cannot be one of validation). `save_best_only` writes only when
    the monitored number improved, at first upon `initial_value_threshold`; for `mode` see
    EarlyStopping. `verbose=1` says when a file is written.
    """

    filepath: str | Path
    monitor: str = "val_loss"
    verbose: bool | int = 0
    save_best_only: bool = False
    save_weights_only: bool = False
    mode: Literal["auto", "min", "max"] = "auto"
    save_freq: str | int = "epoch"
    initial_value_threshold: Annotated[float, "a number"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_save_freq(self.save_freq)
        self.filepath = str(self.filepath)
        self.best, self.epoch, self.batches = self.initial_value_threshold, 0, 0

    @staticmethod
    def check_save_freq(save_freq: Any) -> None:
        whole = isinstance(save_freq, (int, np.integer)) and not isinstance(save_freq, bool)
        if save_freq != "epoch" and not (whole and save_freq >= 1):
            raise ValueError(f"save_freq must be 'epoch' or a number of batches, got {save_freq!r}")

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.batches += 1
        if not isinstance(self.save_freq, str) and self.batches >= self.save_freq:
            self.batches = 0
            self._save({"batch": batch + 1} | (logs or {}))

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch = epoch
        if self.save_freq == "epoch":
            self._save(logs or {})

    def _save(self, logs: Logs) -> None:
        if self.save_best_only:
            value = self.value(logs)  # without it every model is saved, as in Keras
            if value is not None and not self.better(value, self.best):
                return
            self.best = self.best if value is None else value
        try:
            path = str(self.filepath).format(epoch=self.epoch + 1, **logs)
        except KeyError as missing:
            there = f"which is not among {', '.join(sorted(logs))}"
            raise ValueError(f"filepath {self.filepath!r} uses {missing}, {there}") from None
        (self.model.save_weights if self.save_weights_only else self.model.save)(path)
        if self.verbose:
            print(f"Epoch {self.epoch + 1}: saved {path}")


@with_fields
class ReduceLROnPlateau(_Monitor):
    """Multiplies the rate by `factor` (below 1) when the monitored number has stopped improving.

    It acts after `patience` epochs without improvement (`min_delta`, `mode`: see EarlyStopping),
    then waits for `cooldown` epochs, and never sets the rate below `min_lr`.
    """

    monitor: str = "val_loss"
    factor: NotNegative = 0.1
    patience: Natural = 10
    verbose: bool | int = 0
    mode: Literal["auto", "min", "max"] = "auto"
    min_delta: float = 1e-4
    cooldown: Natural = 0
    min_lr: NotNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.factor >= 1:
            raise ValueError(f"factor must be below 1, got {self.factor}")

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.best: float | None = None
        self.wait, self.cooldown_counter = 0, 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        rate = self.model.optimizer.learning_rate
        if logs is not None:
            logs["learning_rate"] = float(rate)
        if (value := self.value(logs)) is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter, self.wait = self.cooldown_counter - 1, 0
        if self.better(value, self.best):
            self.best, self.wait = value, 0
        elif self.cooldown_counter <= 0:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                self.model.optimizer.learning_rate = rate = max(rate * self.factor, self.min_lr)
                self.cooldown_counter, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: learning rate reduced to {rate:.3e}")


class LearningRateScheduler(Callback):
    """Sets the rate before each epoch to schedule(epoch, current rate), or schedule(epoch)."""

    def __init__(self, schedule: Callable[..., float], verbose: bool | int = 0):
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        given: tuple[Any, ...] = (epoch, self.model.optimizer.learning_rate)
        try:
            inspect.signature(self.schedule).bind(*given)
        except TypeError:
            given = given[:1]
        except ValueError:  # a function without a signature, written in C
            pass
        rate = self.schedule(*given)
        if not isinstance(rate, (int, float, np.number)) or not rate >= 0:
            raise ValueError(f"the schedule must return a rate of at least 0, got {rate!r}")
        self.model.optimizer.learning_rate = rate = float(rate)
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {rate:.3e}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class TerminateOnNaN(Callback):
    """Ends the training when the loss is no finite number, instead of TrainingDiverged.

    `fit` then returns the history of the whole epochs before, and the model has the last weights
    that gave a finite loss. (In Keras its weights are NaN.) `raise_error`: RuntimeError instead.
    """

    def __init__(self, raise_error: bool = False):
        self.raise_error = raise_error

    def takes(self, error: Exception) -> bool:
        if self.raise_error:
            raise RuntimeError(f"TerminateOnNaN: {error}") from error
        print(f"TerminateOnNaN: {error}")
        return True


class LambdaCallback(Callback):
    """Functions in place of methods: LambdaCallback(on_epoch_end=lambda epoch, logs: ...)."""

    def __init__(
        self,
        on_epoch_begin: Callable[..., None] | None = None,
        on_epoch_end: Callable[..., None] | None = None,
        on_train_begin: Callable[..., None] | None = None,
        on_train_end: Callable[..., None] | None = None,
        on_train_batch_begin: Callable[..., None] | None = None,
        on_train_batch_end: Callable[..., None] | None = None,
        **others: Callable[..., None],
    ):
        named = {n: f for n, f in locals().items() if n.startswith("on_") and f is not None}
        moments = [name for name in dir(Callback) if name.startswith("on_")]
        complain_about_unknown(others, moments, "LambdaCallback")
        for moment, function in (named | others).items():
            setattr(self, moment, function)
