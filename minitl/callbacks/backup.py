"""Backups of a training: what is kept, when it is written, how a training goes on from it."""

import contextlib
import functools
import json
import os
import re
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minitl import config
from minitl.callbacks import Callback, Logs
from minitl.callbacks.control import ModelCheckpoint
from minitl.models.opened import walk
from minitl.storage import state as state_file
from minitl.storage.atomic import locked
from minitl.storage.digests import digest_of
from minitl.storage.settings import serialize

__all__ = ["BackupAndRestore"]

# The attributes of a training that say, with others, where it stands.
PLACE = ("seed", "epoch", "step", "rng", "logs")
# What a backup holds, and of which type.
PARTS = {
    **dict.fromkeys(("identity", "place", "weights", "optimizer", "optimizer state"), dict),
    **dict.fromkeys(("trainable", "layers", "callbacks"), list),
}
FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)
VALUES = "callbacks' values"  # which may change between two runs, unlike their code
SETTINGS = (bool, int, float, str)  # attributes that tell a user's layer from another


class BackupAndRestore(Callback):
    """A training that was killed goes on where it was, as if it had not been.

    Every epoch, or every `save_freq` batches, all that decides how the training goes on is written
    to `backup_dir`, a folder for this one training: weights, the optimizer's state, the losses,
    metrics and random numbers of the epoch, the history, and what the other callbacks remember.
    Run the same program again after a power cut: weights, history and callbacks end with the same
    bits as without it. For that,

    - the program must reach `fit` with the same model, data and optimizer (a backup of something
      else is refused; no seed is needed);
    - a callback of your own keeps its memory in plain attributes (see `Callback.get_state`): a
      function's local variables, or another object, cannot be kept;
    - an iterable of batches yields the same ones again (see `data/streams.py`).

    A backup is written beside its place and renamed into it, so killing the process while it is
    written leaves the one before. When the training has ended, the backup is deleted.

    `double_checkpoint` keeps the backup before the last one as well, and falls back to it if the
    last is damaged (by a failing disk: an interruption does not damage it). Without
    `delete_checkpoint` the backup of a finished training stays: run again, nothing is trained.
    """

    comes_last = True  # so that what the others remember is in the backup

    def __init__(
        self,
        backup_dir: str | Path,
        save_freq: str | int = "epoch",
        double_checkpoint: bool = False,
        delete_checkpoint: bool = True,
    ):
        if not str(backup_dir):
            raise ValueError("backup_dir is empty: give the name of a folder")
        ModelCheckpoint.check_save_freq(save_freq)
        self.backup_dir, self.save_freq = Path(backup_dir), save_freq
        self.double_checkpoint, self.delete_checkpoint = double_checkpoint, delete_checkpoint

    def set_others(self, others: list[Callback]) -> None:
        self.others = [c for c in others if not c.comes_last]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.backup_dir.mkdir(parents=True, exist_ok=True)
        self.latest = self.backup_dir / "latest.backup"
        self.previous = self.backup_dir / "previous.backup"
        waiting = f"another process trains with the backup in {self.backup_dir}; waiting"
        with contextlib.ExitStack() as lock:
            lock.enter_context(locked(self.backup_dir / "training", waiting))
            for left in self.backup_dir.glob(".*.part.backup"):  # by a process that was killed
                left.unlink()
            self._begin()
            self.lock = lock.pop_all()

    def _begin(self) -> None:
        self.training = self.model.fitting
        for source in (self.training.source, self.training.held_out):
            if hasattr(source, "follow"):  # a stream, which takes note of how the data stand
                source.follow()
        self.batches = 0
        self.weights = self.model.weights
        self.kept = {i for i, v in enumerate(self.weights) if v.trainable or not v.learnable}
        self.identity = self._identity()
        self.layers = [_changes(layer) for layer in walk(self.model)]
        self.settings = _changes(self.model.optimizer, skip=("states",))
        self.memories = [(type(c).__name__, c, _memory(c)) for c in self.others]
        if backup := self._read():
            try:
                self._restore(backup)
            except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
                text = f"the backup in {self.backup_dir} cannot be understood ({error!r})"
                raise state_file.DamagedState(f"{text}; delete it to begin anew") from error
        else:
            self._save()  # at once: a seed that nobody chose must not be lost either

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self.batches += 1
        if not isinstance(self.save_freq, str) and self.batches >= self.save_freq:
            self.batches = 0
            if not self.model.stop_training:  # then the epoch is at its end, though not all of it
                self._save()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.save_freq == "epoch":
            self._save()

    def on_train_end(self, logs: Logs | None = None) -> None:
        with self.lock:
            if self.training.finished and self.delete_checkpoint:
                ours = (self.latest, self.previous, self.backup_dir / ".training.lock")
                # The folder stays if somebody keeps something else there.
                for remove in (*(path.unlink for path in ours), self.backup_dir.rmdir):
                    with contextlib.suppress(OSError):
                        remove()
            elif self.training.finished:
                self._save()
        del self.training  # and the arrays that it holds

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a backup to be one of this training."""
        model, training, compiled = self.model, self.training, self.model.compiled
        frozen = [v.storage for i, v in enumerate(self.weights) if i not in self.kept]
        try:
            architecture = model.to_json()
        except ValueError:  # a function of the user's
            architecture = str([(x.name, type(x).__name__) for x in walk(model)])
        shapes = [(v.name, v.shape, v.trainable) for v in self.weights]
        chosen = (compiled.losses, compiled.loss_weights, compiled.metric_settings)
        return {
            "architecture": state_file.fingerprint([architecture, shapes]),
            "frozen weights": state_file.fingerprint(frozen),
            "optimizer": _described(model.optimizer),
            "loss and metrics": [_described(part) for part in chosen],
            "layers' code": _told([_code(layer, SETTINGS * layer.users) for layer in walk(model)]),
            "callbacks' code": digest_of([_code(c) for c in self.others], code_only=True),
            VALUES: digest_of([_code(c) for c in self.others]),
            "data": _data_identity(training.source),
            "validation data": _data_identity(training.held_out),
            "settings": {
                "shuffle": training.shuffle,
                "validation_freq": training.validation_freq,
                "augment_copies": getattr(training.keeping, "copies", None),
                "initial_epoch": training.first_epoch,
            },
        }

    def _save(self) -> None:
        self.kept |= {i for i, v in enumerate(self.weights) if v.trainable}
        states = self.model.optimizer.states
        backup = {
            "identity": self.identity,
            "place": self._place(),
            "random": config.random_state(),
            "weights": {i: self.weights[i].storage for i in sorted(self.kept)},
            "trainable": [v.trainable for v in self.weights],
            "optimizer": self.settings.now(),
            "optimizer state": {i: states[v] for i, v in enumerate(self.weights) if v in states},
            "layers": [layer.now() for layer in self.layers],
            "callbacks": [(name, memory()) for name, _, memory in self.memories],
        }
        if self.double_checkpoint and self.latest.exists():
            os.replace(self.latest, self.previous)
        state_file.write_state(self.latest, backup)

    def _place(self) -> dict[str, Any]:
        """Where the training stands: what decides how it goes on, but for the model's own state."""
        training, number = self.training, {id(v): i for i, v in enumerate(self.weights)}
        data, held_out = (getattr(s, "state", None) for s in (training.source, training.held_out))
        return {name: getattr(training, name) for name in PLACE} | {
            "tally": [state_file.state_of(part) for part in training.tally.parts()],
            "good": {number[id(v)]: values for v, values in training.good},
            "data": (data and data(within=training.step > 0)) or {},
            "held_out": held_out() if held_out else None,
        }

    def _read(self) -> dict[str, Any] | None:
        """The last backup that is whole, checked to be one of this training; None without any."""
        damaged = []
        for path in (self.latest, self.previous):
            try:
                found = (backup := read_backup(path))["identity"]
            except FileNotFoundError:
                continue
            except state_file.DamagedState as error:
                damaged.append(str(error))
                continue
            differs = [
                f"\n  {name}: {_short_text(found.get(name))} in the backup, {_short_text(mine)} now"
                for name, mine in self.identity.items()
                if found.get(name) != mine and name != VALUES
            ]
            if differs:
                what = f"the backup in {self.backup_dir} is of another training:{''.join(differs)}"
                how = "Delete it to begin anew, or keep the new ones in another folder."
                raise ValueError(f"{what}\n{how}")
            if found.get(VALUES) not in (None, self.identity[VALUES]):
                text = "the callbacks' code reads other values than before the interruption"
                warnings.warn(text, UserWarning, stacklevel=2)
            if damaged:
                warnings.warn(f"{damaged[0]}; going on from {path}", UserWarning, stacklevel=2)
            return backup
        if damaged:
            how = f"Delete {self.backup_dir} to begin anew"
            hint = "(double_checkpoint=True would have kept an earlier backup)."
            raise state_file.DamagedState(f"{'; '.join(damaged)}. {how} {hint}")
        return None

    def _check_weights(self, backup: dict[str, Any]) -> None:
        """Before anything is changed: whether the weights are those of this model."""
        shapes = {i: (v.storage.shape, v.storage.dtype) for i, v in enumerate(self.weights)}
        weights = {i: np.asarray(a) for i, a in backup["weights"].items()}
        wrong = [i for i, a in weights.items() if shapes.get(i) != (a.shape, a.dtype)]
        if wrong or len(backup["trainable"]) != len(shapes):
            text = f"the backup in {self.backup_dir} does not fit the model (weights {wrong[:5]})"
            raise state_file.DamagedState(f"{text}; delete it to begin anew")

    def _restore(self, backup: dict[str, Any]) -> None:
        mine = [name for name, _, _ in self.memories]
        theirs = [name for name, _ in backup["callbacks"]]
        if mine != theirs:
            what = f"the backup in {self.backup_dir} was made with the callbacks {theirs}"
            how = "Delete it to begin anew, or give the same callbacks."
            raise ValueError(f"{what}, now there are {mine}. {how}")
        self._check_weights(backup)
        for i, values in backup["weights"].items():
            self.weights[i].assign(values)
        self.kept |= set(backup["weights"])
        for variable, trainable in zip(self.weights, backup["trainable"], strict=True):
            variable.trainable = trainable
        optimizer, states = self.model.optimizer, backup["optimizer state"]
        state_file.restore(optimizer, backup["optimizer"])
        for i, variable in enumerate(self.weights):
            optimizer.states.pop(variable, None)
            if i in states:
                optimizer.state_of(variable).update(states[i])
        for layer, state in zip(walk(self.model), backup["layers"], strict=True):
            state_file.restore(layer, state)
        for (_, callback, _), (_, state) in zip(self.memories, backup["callbacks"], strict=True):
            callback.set_state(state)
        config.set_random_state(backup["random"])
        training, params, place = self.training, self.params or {}, backup["place"]
        for name in PLACE:
            setattr(training, name, place[name])
        for part, values in zip(training.tally.parts(), place["tally"], strict=True):
            state_file.restore(part, values)
        training.good = [(self.weights[i], values) for i, values in place["good"].items()]
        for source, key in ((training.source, "data"), (training.held_out, "held_out")):
            if hasattr(source, "restore"):
                source.restore(place[key])
        if self.model.stop_training:  # some callback had ended it
            training.epoch = max(training.epoch, params["epochs"])
        if params["verbose"] and training.epoch < params["epochs"]:
            within = f", step {training.step + 1}" if training.step else ""
            print(f"Going on from a backup: epoch {training.epoch + 1}{within}.", flush=True)


def read_backup(path: str | Path) -> dict[str, Any]:
    """What a backup holds. Raises DamagedState for a file that is none, FileNotFoundError."""
    backup = state_file.read_state(path)
    fits = isinstance(backup, dict) and all(isinstance(backup.get(n), k) for n, k in PARTS.items())
    if not fits or not {*PLACE, "tally", "good", "data"} <= backup["place"].keys():
        raise state_file.DamagedState(f"{path} is no backup of a training")
    for name in ("epoch", "step"):
        if type(backup["place"][name]) is not int or backup["place"][name] < 0:
            raise state_file.DamagedState(f"{path} is no backup of a training: no {name}")
    return backup


def describe(path: str | Path) -> list[str]:
    """Lines about a backup; what it says of itself may hold anything."""
    backup = read_backup(path)
    place, weights = backup["place"], backup["weights"].values()
    lines = [f"epochs done: {place['epoch']}, steps: {place['step']}"]
    lines += [f"{name}: {str(value)[:100]}" for name, value in backup["identity"].items()]
    return [*lines, f"weights: {sum(np.size(w) for w in weights):,} numbers"]


def _data_identity(source: Any) -> list[str] | None:
    """What tells these data from others: of arrays shapes, dtypes and a digest of every number."""
    if source is None or hasattr(source, "identity"):
        own = _code(getattr(source, "source", None), (*SETTINGS, tuple, list, dict, np.ndarray))
        return None if source is None else [*source.identity(), _told(own)]
    arrays = [*source.x, *source.y, *([] if source.weight is None else [source.weight])]
    shapes = ", ".join(f"{a.shape} {a.dtype}" for a in arrays)
    told = [a.identity() if hasattr(a, "identity") else a for a in arrays]
    return [shapes, f"batches of {source.batch_size}", state_file.fingerprint(told)]


def _changes(thing: Any, skip: tuple[str, ...] = ()) -> state_file.Changes:
    return state_file.Changes(functools.partial(state_file.state_of, thing, skip))


def _memory(callback: Callback) -> Callable[[], dict[str, Any]]:
    """What the callback remembers: its own account, else those attributes that have changed."""
    own = type(callback).get_state is not Callback.get_state
    return callback.get_state if own else state_file.Changes(callback.get_state).now


def _described(part: Any) -> str:
    if isinstance(part, (list, tuple)):
        return str([_described(p) for p in part])
    try:
        text = re.sub(r', "name": "[^"]*"', "", json.dumps(serialize(part)))
    except (ValueError, TypeError):  # a function of the user's
        text = getattr(part, "__qualname__", type(part).__name__)
    held, skip = getattr(part, "__dict__", {}), ("states", "name")  # names count: adam, adam_1 ...
    own = {n: v for n, v in held.items() if n not in skip}
    return text + _told([type(part), own] if hasattr(part, "states") else part)


def _told(part: Any) -> str:
    """A digest of it in brackets, with a warning of what cannot be known of it."""
    unknown: list[str] = []
    text = f" ({digest_of(part, unknown)[:16]})"
    for reason in unknown:
        what = "whether it is that of the training before an interruption cannot be known"
        warnings.warn(f"{reason}: {what}", UserWarning, stacklevel=2)
    return text


def _code(thing: Any, kinds: tuple[type, ...] = ()) -> list[Any]:
    """What a layer, a callback, an iterable does: its class, the functions that it or a part of
    it was given, its attributes of these kinds. (Generators of numbers go on from the backup.)"""
    if isinstance(thing, (types.GeneratorType, list)) or callable(getattr(thing, "identity", None)):
        return [thing] if isinstance(thing, types.GeneratorType) else []
    held = [v for n, v in getattr(thing, "__dict__", {}).items() if n != "name"]
    parts = [v for v in held if callable(v) and type(v).__module__.startswith("minitl.")]
    held += [f for part in parts for f in getattr(part, "__dict__", {}).values()]
    return [type(thing), *(v for v in held if type(v) in (*FUNCTIONS, *kinds))]


def _short_text(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 160 else f"{text[:150]} ..."
