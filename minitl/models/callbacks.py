"""What a callback is, how `fit` calls several as one, and the one that it returns.

`fit` calls each callback's methods at fixed moments with `logs`, a dictionary of the numbers so
far. A callback may read and change the model (`self.model`), stop the training
(`self.model.stop_training = True`), or just look. Those that come with minitl (early stopping,
checkpoints, backups, loggers ...) stand in the room `callbacks/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from minitl.naming import Configurable, elsewhere, part, refuse_foreign

Logs = dict[str, Any]


class Callback(Configurable):
    """Base class: every method does nothing until overridden."""

    comes_last: ClassVar[bool] = False  # whatever its place in the list
    model: Any = None
    params: dict[str, Any] | None = None

    def set_model(self, model: Any) -> None:
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """'epochs', 'steps' (None when unknown) and 'verbose' of the `fit` that begins."""
        self.params = params

    def set_others(self, others: list[Callback]) -> None:
        """The callbacks that run beside this one."""

    def get_state(self) -> dict[str, Any]:
        """What BackupAndRestore keeps of this callback: its attributes that are plain values
        (numbers, strings, arrays, generators, and lists, tuples, sets and dicts of them)."""
        return part("memory").state_of(self, skip=("model", "params"))

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave, after `on_train_begin`."""
        part("memory").restore(self, state)

    def takes(self, error: Exception) -> bool:
        """Whether `fit` should end quietly, instead of raising this TrainingDiverged."""
        return False

    def on_train_begin(self, logs: Logs | None = None) -> None: ...
    def on_train_end(self, logs: Logs | None = None) -> None: ...
    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None: ...
    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None: ...
    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None: ...

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.on_batch_end(batch, logs)

    def on_test_begin(self, logs: Logs | None = None) -> None: ...
    def on_test_end(self, logs: Logs | None = None) -> None: ...
    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_predict_begin(self, logs: Logs | None = None) -> None: ...
    def on_predict_end(self, logs: Logs | None = None) -> None: ...
    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None: ...
    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None: ...


class CallbackList:
    """Several callbacks, called in order as one; those that `comes_last` after all others."""

    def __init__(
        self,
        callbacks: Callback | Sequence[Callback] | None,
        model: Any,
        params: dict[str, Any],
        ours: Sequence[Callback] = (),
    ):
        given = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        for callback in given:
            if not isinstance(callback, Callback):
                refuse_foreign(callback, "callbacks")
                raise TypeError(f"not a callback: {callback!r} (is it a class, or misplaced?)")
        self.callbacks = sorted([*given, *ours], key=lambda callback: callback.comes_last)
        for callback in self.callbacks:
            callback.set_model(model)
            callback.set_params(params)
            callback.set_others([c for c in self.callbacks if c is not callback])

    def accept(self, error: Exception) -> bool:
        """Whether one of the callbacks takes a training that diverged for ended."""
        return any(callback.takes(error) for callback in self.callbacks)

    def hears(self, what: str) -> bool:
        """Whether a callback does something at moments of this kind, 'batch' or 'test_batch'."""
        names = [n for n in dir(Callback) if n.startswith("on_") and what in n]
        of = [(callback, n) for callback in self.callbacks for n in names]
        return any(getattr(getattr(c, n), "__func__", n) is not getattr(Callback, n) for c, n in of)

    def __getattr__(self, moment: str) -> Callable[..., Any]:
        if not moment.startswith("on_"):
            raise AttributeError(moment)
        return lambda *args: [getattr(callback, moment)(*args) for callback in self.callbacks]


class History(Callback):
    """What `fit` returns: `history.history` maps a name to its values, one per epoch."""

    __repr__ = elsewhere("notebook", "history_text")
    _repr_html_ = elsewhere("notebook", "history_html")

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
