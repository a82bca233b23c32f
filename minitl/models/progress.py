"""Where a training stands: what an epoch has measured so far, and the place to go on from.

`fit` keeps all of it in one `Place`, so that a training which was killed at any moment can be
taken up by another process (see `callbacks/backup.py`) as if nothing had happened.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl import metrics as metrics_module
from minitl.autograd import Array, Variable
from minitl.models.batches import Batch, StreamData
from minitl.storage.state import restore, state_of


class Tally:
    """Losses and metrics of an epoch so far."""

    def __init__(self, model: Any):
        self.names = model.output_names
        parts = [f"{n}_loss" for n, loss in zip(self.names, model._losses, strict=True) if loss]
        self.losses = [metrics_module.Mean(n) for n in ["loss", *(parts if len(parts) > 1 else [])]]
        self.metrics = model._make_metrics()
        for row in self.metrics:
            for metric, _ in row:
                metric.reset_state()

    def parts(self) -> list[metrics_module.Metric]:
        """All that gathers something."""
        return [*self.losses, *(metric for row in self.metrics for metric, _ in row)]

    def add(self, losses: list[float], outputs: list[Array], batch: Batch) -> None:
        for mean, value in zip(self.losses, losses, strict=False):
            mean.update_state(value, sample_weight=batch.size)
        for row, y, out in zip(self.metrics, batch.y, outputs, strict=True):
            for metric, weighted in row:
                metric.update_state(y, out, batch.weight if weighted else None)

    def logs(self) -> dict[str, Any]:
        """By name: the losses, then the metrics as they were given to `compile`."""
        found = {mean.name: mean.result() for mean in self.losses}
        for of_weighted in (False, True):
            for name, row in zip(self.names, self.metrics, strict=True):
                prefix = "" if len(self.names) == 1 else f"{name}_"
                for metric, weighted in row:
                    if weighted == of_weighted:
                        found[_new_key(prefix, metric.name, weighted, found)] = metric.result()
        return found


def _new_key(prefix: str, name: str, weighted: bool, taken: dict[str, Any]) -> str:
    """Keras's name of a metric in the logs; a second one of that name is marked."""
    key = prefix + name
    if weighted and key in taken:
        key = f"{prefix}weighted_{name}"
    number = 1
    while key in taken:
        key = f"{prefix}{name}_{number}"
        number += 1
    return key


class Place:
    """Where a `fit` stands: with the model, the optimizer and the callbacks, all that decides how
    it goes on. `state` and `restore` are for BackupAndRestore.

    data, held_out  what is trained on, what is validated on
    seed            all that is random in an epoch follows from it and the epoch
    epoch, step     those under way, from 0: `step` batches of the epoch are done
    rng, tally      within an epoch: the random numbers to come, the losses and metrics so far
    logs            of the last whole epoch
    good            the weights to go back to when the loss becomes NaN
    """

    def __init__(self, model: Any, data: Any, held_out: Any, seed: int, epoch: int):
        self.data, self.held_out, self.seed = data, held_out, seed
        self.epoch, self.step, self.first_epoch = epoch, 0, epoch
        self.rng = np.random.default_rng(0)
        self.tally = Tally(model)
        self.logs: dict[str, Any] = {}
        self.good: list[tuple[Variable, Array]] = model._snapshot()
        self.settings: dict[str, Any] = {}
        self.finished = False
        self._weights = model.weights

    def identity(self) -> dict[str, Any]:
        """What must be the same for this fit to be the continuation of another."""
        held_out = None if self.held_out is None else self.held_out.identity()
        settings = self.settings | {"initial_epoch": self.first_epoch}
        return {"data": self.data.identity(), "validation data": held_out, "settings": settings}

    def follow(self) -> None:
        """Take note of how the data stand, to know what changes in them."""
        for data in (self.data, self.held_out):
            if isinstance(data, StreamData):
                data.follow()

    def state(self) -> dict[str, Any]:
        number = {id(v): i for i, v in enumerate(self._weights)}
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "step": self.step,
            "rng": self.rng,
            "tally": [state_of(part) for part in self.tally.parts()],
            "logs": self.logs,
            "good": {number[id(v)]: values for v, values in self.good},
            "data": self.data.state(within=self.step > 0),
            "held_out": None if self.held_out is None else self.held_out.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.seed, self.epoch, self.step = state["seed"], state["epoch"], state["step"]
        self.rng, self.logs = state["rng"], state["logs"]
        for part, values in zip(self.tally.parts(), state["tally"], strict=True):
            restore(part, values)
        self.good = [(self._weights[i], values) for i, values in state["good"].items()]
        self.data.restore(state["data"])
        if self.held_out is not None:
            self.held_out.restore(state["held_out"])
