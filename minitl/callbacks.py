"""Callbacks: what else happens while `fit` runs.

`fit` calls each callback's methods at fixed moments with `logs`, a dictionary of the numbers so
far. A callback may read and change the model (`self.model`), stop the training
(`self.model.stop_training = True`), or just look.
"""

from __future__ import annotations

import csv
import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl.naming import Configurable, complain_about_unknown

Logs = dict[str, Any]


class Callback(Configurable):
    """Base class: every method does nothing until overridden."""

    model: Any = None
    params: dict[str, Any] | None = None

    def set_model(self, model: Any) -> None:
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """'epochs', 'steps' (None when unknown) and 'verbose' of the `fit` that begins."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None: ...
    def on_train_end(self, logs: Logs | None = None) -> None: ...
    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None: ...
    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None: ...
    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_test_begin(self, logs: Logs | None = None) -> None: ...
    def on_test_end(self, logs: Logs | None = None) -> None: ...
    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_predict_begin(self, logs: Logs | None = None) -> None: ...
    def on_predict_end(self, logs: Logs | None = None) -> None: ...
    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None: ...


class CallbackList:
    """Several callbacks, called in order as one."""

    def __init__(
        self,
        callbacks: Callback | Sequence[Callback] | None,
        model: Any,
        params: dict[str, Any],
        ours: Sequence[Callback] = (),
    ):
        given = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        self.callbacks = [*given, *ours]
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"not a callback: {callback!r} (is it a class, or misplaced?)")
        for callback in self.callbacks:
            callback.set_model(model)
            callback.set_params(params)

    def __getattr__(self, moment: str) -> Callable[..., None]:
        if not moment.startswith("on_"):
            raise AttributeError(moment)

        def call_all(*args: Any) -> None:
            for callback in self.callbacks:
                getattr(callback, moment)(*args)

        return call_all


class History(Callback):
    """What `fit` returns: `history.history` maps a name to its values, one an epoch."""

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class ProgbarLogger(Callback):
    """`verbose=1`: a progress bar an epoch; `verbose=2`: one printed line an epoch."""

    def __init__(self, verbose: int = 1):
        self.verbose = verbose
        self.bar: Any = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        params = self.params or {}
        self.title = f"Epoch {epoch + 1}/{params.get('epochs')}"
        if self.verbose == 1:
            from tqdm import tqdm

            self.bar = tqdm(total=params.get("steps"), desc=self.title, leave=True)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.bar is not None:
            self.bar.update()
            self.bar.set_postfix_str(format_logs(logs), refresh=False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(format_logs(logs))
            self.bar.close()
            self.bar = None
        elif self.verbose == 2:
            print(f"{self.title} - {format_logs(logs)}", flush=True)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def format_logs(logs: Logs | None) -> str:
    """'accuracy: 0.9100 - loss: 0.2500'"""
    return " - ".join(f"{name}: {_short(value)}" for name, value in (logs or {}).items())


def _short(value: Any) -> str:
    if np.ndim(value):
        return "[" + " ".join(_short(v) for v in np.asarray(value)) + "]"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3e}"


class LambdaCallback(Callback):
    """Functions in place of methods: LambdaCallback(on_epoch_end=lambda epoch, logs: ...)."""

    def __init__(self, **functions: Callable[..., None]):
        moments = [name for name in dir(Callback) if name.startswith("on_")]
        complain_about_unknown(functions, moments, "LambdaCallback")
        for moment, function in functions.items():
            setattr(self, moment, function)


class _Monitor(Callback):
    """Base of the callbacks that watch one number and know whether it got better."""

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0):
        if mode not in ("auto", "min", "max"):
            raise ValueError(f"mode must be 'auto', 'min' or 'max', got {mode!r}")
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)

    @property
    def rises(self) -> bool:
        """Whether larger is better: by `mode`, else by the name."""
        if self.mode != "auto":
            return self.mode == "max"
        larger = ("acc", "accuracy", "auc", "precision", "recall", "f1_score")
        return self.monitor.removeprefix("val_").startswith(larger) or "accuracy" in self.monitor

    @property
    def worst(self) -> float:
        return -math.inf if self.rises else math.inf

    def better(self, value: float, best: float) -> bool:
        return value - self.min_delta > best if self.rises else value + self.min_delta < best

    def value(self, logs: Logs | None) -> float | None:
        logs = logs or {}
        if self.monitor not in logs:
            warnings.warn(
                f"{type(self).__name__} watches {self.monitor!r}, which is not there; "
                f"there are {', '.join(sorted(logs))}",
                UserWarning,
                stacklevel=2,
            )
            return None
        return float(logs[self.monitor])


class EarlyStopping(_Monitor):
    """Stops when the monitored number has not improved for `patience` epochs.

    Args:
        monitor: e.g. 'val_loss'.
        min_delta: an improvement is larger than this.
        patience: epochs without improvement after which training stops.
        verbose: 1 says so.
        mode: 'min', 'max', or 'auto' (by the name).
        baseline: the number must be better than this to count at all.
        restore_best_weights: go back to the best epoch's weights at the end.
        start_from_epoch: do not watch before this epoch.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.wait, self.stopped_epoch, self.best_epoch = 0, 0, 0
        self.best = self.worst
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
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch and self.verbose:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights is not None:
            if self.verbose:
                print(f"Restoring the weights of the best epoch, {self.best_epoch + 1}.")
            self.model.set_weights(self.best_weights)


class ModelCheckpoint(_Monitor):
    """Saves the model (or its weights) after every epoch, or only when it is the best so far.

    Args:
        filepath: may hold '{epoch:02d}' and names of logs, e.g. 'm-{epoch:02d}-{val_loss:.2f}.h5'.
        monitor, mode: as for EarlyStopping.
        verbose: 1 says when a file is written.
        save_best_only: write only when the monitored number improved.
        save_weights_only: weights without the architecture.
        save_freq: 'epoch' is the only one.
        initial_value_threshold: what the first save must improve upon.
    """

    def __init__(
        self,
        filepath: str | Path,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str = "epoch",
        initial_value_threshold: float | None = None,
    ):
        super().__init__(monitor, mode)
        if save_freq != "epoch":
            raise ValueError(f"save_freq must be 'epoch', got {save_freq!r}")
        self.filepath, self.verbose = str(filepath), verbose
        self.save_best_only, self.save_weights_only = save_best_only, save_weights_only
        self.best = self.worst if initial_value_threshold is None else initial_value_threshold

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_best_only:
            value = self.value(logs)
            if value is None or not self.better(value, self.best):
                return
            self.best = value
        try:
            path = self.filepath.format(epoch=epoch + 1, **(logs or {}))
        except KeyError as missing:
            raise ValueError(
                f"filepath {self.filepath!r} uses {missing}, which is not among "
                f"{', '.join(sorted(logs or {}))}"
            ) from None
        (self.model.save_weights if self.save_weights_only else self.model.save)(path)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved {path}")


class LearningRateScheduler(Callback):
    """Sets the rate before each epoch to schedule(epoch, current rate)."""

    def __init__(self, schedule: Callable[[int, float], float], verbose: int = 0):
        self.schedule, self.verbose = schedule, verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        given: tuple[Any, ...] = (epoch, self.model.optimizer.learning_rate)
        try:
            inspect.signature(self.schedule).bind(*given)
        except TypeError:
            given = given[:1]
        except ValueError:  # a function without a signature, written in C
            pass
        rate = float(self.schedule(*given))
        self.model.optimizer.learning_rate = rate
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {rate:.3e}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = self.model.optimizer.learning_rate


class ReduceLROnPlateau(_Monitor):
    """Multiplies the rate by `factor` when the monitored number has stopped improving.

    Args:
        monitor, min_delta, mode: as for EarlyStopping.
        factor: below 1.
        patience: epochs without improvement before it acts.
        cooldown: epochs to wait after acting.
        min_lr: the rate is never set below it.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ):
        super().__init__(monitor, mode, min_delta)
        if factor >= 1:
            raise ValueError(f"factor must be below 1, got {factor}")
        self.factor, self.patience, self.verbose = factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.best, self.wait, self.cooling = self.worst, 0, 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        rate = self.model.optimizer.learning_rate
        if logs is not None:
            logs["learning_rate"] = rate
        value = self.value(logs)
        if value is None:
            return
        if self.cooling > 0:
            self.cooling -= 1
            self.wait = 0
        if self.better(value, self.best):
            self.best, self.wait = value, 0
        elif self.cooling <= 0:
            self.wait += 1
            if self.wait >= self.patience and rate > self.min_lr:
                rate = max(rate * self.factor, self.min_lr)
                self.model.optimizer.learning_rate = rate
                self.cooling, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: learning rate reduced to {rate:.3e}")


class CSVLogger(Callback):
    """One line an epoch in a CSV file."""

    def __init__(self, filename: str | Path, separator: str = ",", append: bool = False):
        self.filename, self.separator, self.append = Path(filename), separator, append

    def on_train_begin(self, logs: Logs | None = None) -> None:
        has_header = self.append and self.filename.exists() and self.filename.stat().st_size > 0
        self.header_due = not has_header
        self.file = open(self.filename, "a" if self.append else "w", newline="")  # noqa: SIM115
        self.writer = csv.writer(self.file, delimiter=self.separator)
        self.keys: list[str] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        if self.keys is None:
            self.keys = sorted(logs)
            if self.header_due:
                self.writer.writerow(["epoch", *self.keys])
        self.writer.writerow([epoch, *(logs.get(k, "NA") for k in self.keys)])
        self.file.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        self.file.close()


class TerminateOnNaN(Callback):
    """Accepted as in Keras; `fit` itself stops on a loss that is not finite, and says where."""
