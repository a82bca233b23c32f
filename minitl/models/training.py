"""compile, fit, evaluate: the part of a model that learns.

`Compiled` is what `compile` chose. A training step (`train_step`) runs the model, computes the
loss, walks back, and moves the weights. `Training` is one `fit`: it feeds batches in, gathers
numbers in a `Tally`, tells the callbacks, and stops when the loss is no number any more. All that
decides how it goes on is in its attributes, for another process to go on (`callbacks/backup.py`).

Freezing needs no special case here: a frozen weight is not among `trainable_weights` and has no
edge in the record (`autograd.py`), so `backward` never goes below the lowest layer that learns.
"""

from typing import Any

import numpy as np

from minitl import config, kernels, losses
from minitl import metrics as metrics_module
from minitl.autograd import Array, Tensor, Variable, backward, no_grad
from minitl.losses import Loss
from minitl.metrics import Mean, Metric
from minitl.models.batches import Batch
from minitl.models.callbacks import CallbackList
from minitl.models.prediction import outputs_of, pieces, with_bar
from minitl.naming import part


class TrainingDiverged(FloatingPointError):
    """The loss or a gradient stopped being a finite number."""

    loss = float("nan")


class Compiled:
    """How a model learns: a loss and metrics for each output. Arguments as for `Model.compile`.

    `settings` are the arguments by name. Raises ValueError for names that are not there.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        loss: Any,
        loss_weights: Any,
        metric_settings: tuple[Any, Any],  # metrics, weighted_metrics
    ):
        self.model = model
        self.losses: list[Loss | None] = [losses.as_loss(each) for each in self._each(loss, "loss")]
        weights = self._each(loss_weights, "loss_weights")
        self.loss_weights = [1.0 if w is None else float(w) for w in weights]
        self.metric_settings = metric_settings
        for settings in metric_settings:
            for row in self._metric_rows(settings):
                for each in row:
                    metrics_module.get(each)  # raises for an unknown name
        self._metrics: list[list[tuple[Metric, bool]]] | None = None
        names = ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics")
        given = (optimizer, loss, loss_weights, *metric_settings)
        self.settings = dict(zip(names, given, strict=True))

    def _each(self, value: Any, what: str) -> list[Any]:
        """A setting for each output, from one for all, a list, or a dict by output name."""
        if isinstance(value, (dict, list, tuple)):
            if self.model.users and not self.model.outputs:  # known when data come
                return list(value.values() if isinstance(value, dict) else value)
            return part("outputs").per_output(value, what, self.model.output_names)
        return [value] * max(len(self.model.outputs), 1)

    def _metric_rows(self, settings: Any) -> list[list[Any]]:
        """The metrics that were asked for, output by output; a plain list is for every output."""
        one = list(settings) if isinstance(settings, (list, tuple)) else [settings]
        if self.model.users and not self.model.outputs:
            return []
        if isinstance(settings, dict) or any(isinstance(m, (list, tuple)) for m in one):
            return part("outputs").metric_rows(settings, self.model.output_names)
        row = [metric for metric in one if metric is not None]
        return [row] * max(len(self.model.outputs), 1)

    def metrics(self) -> list[list[tuple[Metric, bool]]]:
        """For each output: its metrics, and whether sample weights count in them."""
        if self._metrics is None:  # made late: 'accuracy' depends on the outputs' shapes
            self._metrics = [[] for _ in self.model.outputs]
            for settings, weighted in zip(self.metric_settings, (False, True), strict=True):
                for i, row in enumerate(self._metric_rows(settings)):
                    loss, shape = self.losses[i], self.model.outputs[i].shape
                    self._metrics[i] += [
                        (metrics_module.get(m, loss, shape), weighted) for m in row
                    ]
        return self._metrics

    def total_loss(self, batch: Batch, outputs: list[Tensor]) -> tuple[Tensor, list[float]]:
        """The weighted sum of the outputs' losses, plus the weights' penalties.

        Returned as a Tensor, and as numbers: [total, loss of output 0, loss of output 1, ...].
        """
        terms, found = [], []
        for loss, factor, y, out in zip(
            self.losses, self.loss_weights, batch.y, outputs, strict=batch.y != []
        ):
            if loss is not None:
                term = loss(y, out, batch.weight)
                found.append(float(term.storage))
                terms.append(term if factor == 1 else term * factor)
        terms += self.model.regularization()
        if not terms:
            raise ValueError("there is no loss: compile with one, or override compute_loss")
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total, [float(total.storage), *found]

    def tally(self) -> Any:
        """What gathers the losses and metrics of an epoch."""
        own = self.model.own_steps
        return part("steps").OwnTally(self.model) if own else Tally(self)


class Tally:
    """Losses and metrics of an epoch so far."""

    def __init__(self, compiled: Compiled):
        self.names = compiled.model.output_names
        parts = [f"{n}_loss" for n, loss in zip(self.names, compiled.losses, strict=True) if loss]
        self.losses = [Mean(n) for n in ["loss", *(parts if len(parts) > 1 else [])]]
        self.metrics = compiled.metrics()
        for row in self.metrics:
            for metric, _ in row:
                metric.reset_state()

    def parts(self) -> list[Metric]:
        """All that gathers something."""
        return [*self.losses, *(metric for row in self.metrics for metric, _ in row)]

    def add(self, losses: list[float], outputs: list[Array], batch: Batch) -> None:
        for mean, value in zip(self.losses, losses, strict=False):
            mean.gather(value * batch.size, batch.size)
        for row, y, out in zip(self.metrics, batch.y, outputs, strict=batch.y != []):
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
        return {k: v.numpy().tolist() if isinstance(v, Tensor) else v for k, v in found.items()}


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


def train_step(
    model: Any, batch: Batch, rng: np.random.Generator, where: str
) -> tuple[list[float], list[Array]]:
    """Forward, loss, backward, update. Returns the losses (total first) and the outputs.

    Where a subclass overrides steps, it returns what its `train_step` does, and no outputs.
    """
    if model.own_steps:
        return part("steps").trained(model, batch, rng, where), []
    outputs = outputs_of(model, batch, training=True, rng=rng)
    loss, found = model.compiled.total_loss(batch, outputs)
    results = [t.storage for t in outputs]
    del outputs  # the record alone keeps what backward needs, and releases it on the way
    descend(model, loss, where)
    return found, results


def descend(model: Any, loss: Tensor, where: str) -> None:
    """Backward from the loss, and move the weights. Raises TrainingDiverged before they move."""
    if not np.isfinite(loss.storage):
        raise diverged(model, f"the loss became {float(loss.storage)}", where)
    if variables := model.trainable_weights:
        gradients = backward(loss, variables)
        for variable, gradient in zip(variables, gradients, strict=True):
            if not kernels.all_finite(gradient):
                raise diverged(model, f"the gradient of {variable.name!r} is not finite", where)
        model.optimizer.apply(gradients, variables)


def measure(model: Any, source: Any, run: CallbackList, show: bool = False) -> dict[str, Any]:
    """Loss and metrics over a source, without training anything."""
    tally = model.compiled.tally()
    run.on_test_begin({})
    with no_grad():
        for step, batch in enumerate(with_bar(source, "evaluate", show)):
            run.on_test_batch_begin(step, {})
            for piece in pieces(model, batch):
                if model.own_steps:
                    tally.add(part("steps").tested(model, piece), [], piece)
                    continue
                outputs = outputs_of(model, piece, training=False)
                found = model.compiled.total_loss(piece, outputs)[1]
                tally.add(found, [t.storage for t in outputs], piece)
            run.on_test_batch_end(step, tally.logs())
    logs = tally.logs()
    run.on_test_end(logs)
    return logs


def snapshot(model: Any) -> list[tuple[Variable, Array]]:
    """Copies of what training may change: weights that learn, and moving averages."""
    return [(v, kernels.copy(v.storage)) for v in model.weights if v.trainable or not v.learnable]


def diverged(model: Any, what: str, where: str) -> TrainingDiverged:
    return TrainingDiverged(
        f"{what} at {where}. The weights are back at the start of the last epoch that began "
        f"with a finite loss, and the optimizer starts afresh. Try a smaller learning_rate "
        f"(it was {model.optimizer.learning_rate:g}), clipnorm=1.0, or look at the input's "
        f"range."
    )


class Training:
    """One `fit`: where it stands, and how it goes on.

    Args:
        model: compiled.
        source, held_out: what is trained on, and what is validated on after an epoch (or None).
        epochs, initial_epoch: from the latter on, up to the former.
        shuffle: whether every epoch has an order of its own.
        validation_freq: validate after every so many epochs.

    Attributes:
        seed: all that is random in an epoch follows from it and the epoch's number.
        epoch, step: those under way, from 0: `step` batches of the epoch are done.
        rng, tally: within an epoch: the random numbers to come, the losses and metrics so far.
        logs: of the last whole epoch.
        good: the weights to go back to when the loss becomes NaN.
    """

    def __init__(
        self,
        model: Any,
        source: Any,
        held_out: Any,
        epochs: int,
        initial_epoch: int = 0,
        shuffle: bool = True,
        validation_freq: int = 1,
    ):
        self.model, self.source, self.held_out = model, source, held_out
        # A stream goes on within its walk, where an epoch is a part of one.
        source.goes_on, source.shuffle = True, shuffle
        self.epochs, self.first_epoch = epochs, initial_epoch
        self.shuffle, self.validation_freq = bool(shuffle), int(validation_freq)
        self.seed = config.next_seed()
        self.epoch, self.step = initial_epoch, 0
        self.rng = np.random.default_rng(0)
        self.tally = model.compiled.tally()
        self.logs: dict[str, Any] = {}
        self.good = snapshot(model)
        self.keeping: Any = None
        self.finished = False

    def run(self, callbacks: CallbackList, bar: Any = None, keeping: Any = None) -> None:
        """Train until the last epoch, or until a callback stops it.

        Args:
            callbacks: told of every moment; `bar` is the one among them that shows progress.
            keeping: keeps what the frozen part of the model gives (`transfer/feature_cache.py`).
        """
        model, source, held_out = self.model, self.source, self.held_out
        self.keeping = keeping
        if keeping is not None:
            source = keeping.wrap(source, training=True)
            held_out = None if held_out is None else keeping.wrap(held_out, training=False)
        callbacks.on_train_begin({})  # where BackupAndRestore moves epoch and step on
        try:
            if keeping is not None:
                keeping.begin(self.seed, self.epoch)
            for epoch in range(self.epoch, self.epochs):
                if self.step == 0:
                    callbacks.on_epoch_begin(epoch, {})
                elif bar is not None:  # the others began the epoch before the interruption
                    bar.on_epoch_begin(epoch, {})
                logs = self._run_epoch(source, callbacks)
                if self.step == 0:  # a generator's end, of which it has warned
                    break
                if held_out is not None and (epoch + 1) % self.validation_freq == 0:
                    measured = measure(model, held_out, callbacks)
                    logs |= {f"val_{k}": v for k, v in measured.items()}
                self.logs = dict(sorted(logs.items()))  # the order of Keras's history
                self.epoch, self.step = epoch + 1, 0
                callbacks.on_epoch_end(epoch, self.logs)
                if model.stop_training:
                    break
            self.finished = True
        except TrainingDiverged as error:
            if not callbacks.accept(error):
                raise
            model.history.on_epoch_end(self.epoch, self.tally.logs() | {"loss": error.loss})
        finally:
            model.fitting = None
            if keeping is not None:
                keeping.end()
            callbacks.on_train_end(self.logs)

    def _run_epoch(self, source: Any, callbacks: CallbackList) -> dict[str, Any]:
        """One pass over the training data, or what a backup left of it; returns the logs."""
        model = self.model
        rng = np.random.default_rng((self.seed, self.epoch))
        order = None
        source.epoch = self.epoch
        if self.shuffle and source.samples is not None:
            order = rng.permutation(source.samples)
        if self.step == 0:
            self.rng, self.tally, now = rng, model.compiled.tally(), snapshot(model)
        where = f"epoch {self.epoch + 1}, step {self.step}"
        heard = callbacks.hears("batch")
        try:
            for step, batch in enumerate(source.batches(order, self.step), self.step):
                if heard:
                    callbacks.on_train_batch_begin(step, {})
                where = f"epoch {self.epoch + 1}, step {step + 1}"
                found, outputs = train_step(model, batch, self.rng, where)
                if step == 0:  # the weights that this epoch began with gave a finite loss
                    self.good = now
                self.tally.add(found, outputs, batch)
                self.step = step + 1
                if heard:
                    callbacks.on_train_batch_end(step, self.tally.logs())
                if model.stop_training:
                    break
            for v in model.trainable_weights:  # the last update is followed by no loss
                if not kernels.all_finite(v.storage):
                    raise diverged(model, f"{v.name!r} is not finite", f"the end of {where}")
        except TrainingDiverged:
            for variable, values in self.good:
                variable.assign(values)
            model.optimizer.forget()
            raise
        return self.tally.logs()
