"""compile, fit, evaluate: the part of a model that learns.

One training step is six lines (`_train_step`): run the model, compute the loss, walk back, move
the weights. Everything around it feeds batches in, gathers numbers, and stops when the loss is no
number any more.

What is frozen costs nothing here without any special case: a frozen weight has no edge in the
record (see `autograd.py`), so `backward` never goes below the lowest trainable layer, and what
lies below keeps no activations. `trainable` is read at the start of every step; there is no need
to compile again.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from minitl import callbacks as callbacks_module
from minitl import config, kernels, losses, optimizers
from minitl import metrics as metrics_module
from minitl.autograd import Array, Tensor, Variable, backward, no_grad
from minitl.models.batches import ArrayData, Batch, StreamData, weights_by_class
from minitl.models.prediction import Predictor, with_bar
from minitl.models.progress import Place, Tally
from minitl.naming import check_keywords, did_you_mean, serialize
from minitl.transfer.feature_cache import CachedData, Caching, Recalled, Store


class TrainingDiverged(FloatingPointError):
    """The loss or a gradient stopped being a finite number."""


class Trainer(Predictor):
    """What `Model` can do beyond computing. The methods have Keras's names and arguments."""

    # Provided by Model.
    trainable_weights: list[Variable]
    weights: list[Variable]

    def _init_training(self) -> None:
        self.optimizer: Any = None
        self.stop_training = False
        self.history: Any = None
        self._place: Place | None = None  # while `fit` runs
        self._losses: list[losses.Loss | None] = []
        self._loss_weights: list[float] = []
        self._metric_settings: tuple[Any, Any] = (None, None)
        self._metrics: list[list[tuple[metrics_module.Metric, bool]]] | None = None
        self._compile_settings: dict[str, Any] | None = None
        self._stores: list[Store] = []  # what earlier fits computed of the frozen part

    # --- compile ---

    @check_keywords
    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Choose how the model learns.

        Args:
            optimizer: a name ('sgd', 'adam', 'adamw') or an Optimizer.
            loss: a name, a Loss or a function; for several outputs a list, or a dict by name.
            loss_weights: for several outputs: how much each loss counts.
            metrics: names, Metrics or functions; 'accuracy' is the one that fits the loss.
            weighted_metrics: the same, but sample and class weights count in them.
            run_eagerly, steps_per_execution, jit_compile, auto_scale_loss: Keras's choices between
                ways to run one and the same step. There is one way here, whatever they say.

        Raises ValueError for unknown names, showing the nearest.
        """
        chosen = optimizers.get(optimizer)
        per_output = self._per_output(loss, "loss")
        found = [losses.get(each) for each in per_output]
        if all(each is None for each in found):
            raise ValueError("compile needs a loss, e.g. loss='categorical_crossentropy'")
        weights = self._per_output(loss_weights, "loss_weights")
        for settings in (metrics, weighted_metrics):
            for row in self._metric_rows(settings):
                for each in row:
                    metrics_module.get(each)  # raises for an unknown name
        self.optimizer = chosen
        self._losses = found
        self._loss_weights = [1.0 if w is None else float(w) for w in weights]
        self._metric_settings = (metrics, weighted_metrics)
        self._metrics = None
        settings = (chosen, loss, loss_weights, metrics, weighted_metrics)
        names = ("optimizer", "loss", "loss_weights", "metrics", "weighted_metrics")
        try:
            self._compile_settings = dict(zip(names, serialize(settings), strict=True))
        except ValueError:  # a function of the user's: whoever loads the model compiles it
            self._compile_settings = None

    def _per_output(self, value: Any, what: str) -> list[Any]:
        """A setting for each output, from one for all, a list, or a dict by output name."""
        n = max(len(self.outputs), 1)
        if isinstance(value, dict) and "class_name" not in value:
            for name in value:
                if name not in self.output_names:
                    raise ValueError(
                        f"{what} names the output {name!r}. {did_you_mean(name, self.output_names)}"
                    )
            return [value.get(name) for name in self.output_names]
        if isinstance(value, (list, tuple)):
            if len(value) != n:
                raise ValueError(f"{what} has {len(value)} entries for {n} outputs")
            return list(value)
        return [value] * n

    def _metric_rows(self, settings: Any) -> list[list[Any]]:
        """The metrics that were asked for, output by output."""
        by_output = isinstance(settings, dict) or (
            isinstance(settings, (list, tuple))
            and any(isinstance(each, (list, tuple)) for each in settings)
        )
        rows = [settings] * max(len(self.outputs), 1)
        if by_output:
            rows = self._per_output(settings, "metrics")
        lists = [list(row) if isinstance(row, (list, tuple)) else [row] for row in rows]
        return [[each for each in row if each is not None] for row in lists]

    def _make_metrics(self) -> list[list[tuple[metrics_module.Metric, bool]]]:
        """For each output: its metrics, and whether sample weights count in them."""
        if self._metrics is None:  # made late: 'accuracy' depends on the outputs' shapes
            self._metrics = [[] for _ in self.outputs]
            for settings, weighted in zip(self._metric_settings, (False, True), strict=True):
                for i, row in enumerate(self._metric_rows(settings)):
                    loss, shape = self._losses[i], self.outputs[i].shape
                    self._metrics[i] += [
                        (metrics_module.get(m, loss, shape), weighted) for m in row
                    ]
        return self._metrics

    def need_compile(self, what: str) -> None:
        if self.optimizer is None:
            raise RuntimeError(
                f"{what} needs a compiled model: call model.compile(optimizer='adam', "
                f"loss='categorical_crossentropy', metrics=['accuracy']) first"
            )

    # --- fit ---

    @check_keywords
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        *,
        cache_features: bool | str | Path = True,
        augment_copies: int | None = None,
    ) -> callbacks_module.History:
        """Train for `epochs` passes over the data; returns a History.

        Args:
            x, y: arrays with N samples each (lists or dicts for several inputs or outputs); or x
                an iterable of batches (x, y) or (x, y, sample_weight), and no y.
            batch_size: 32 unless given. The last batch may be smaller.
            verbose: 1 or 'auto' a progress bar, 2 a line an epoch, 0 silent.
            callbacks: see `minitl.callbacks`.
            validation_split: the last part of the arrays, before shuffling, is held out.
            validation_data: (x, y), (x, y, sample_weight), or an iterable of batches.
            shuffle: a new order every epoch, from `minitl.utils.set_random_seed`.
            class_weight: {class: weight}; a class that is not named counts 1.
            sample_weight: (N,).
            initial_epoch: to go on from an earlier training.
            cache_features: whether what the frozen part of the model says about an image is
                computed once and kept (see `frozen.py`); the results are the same to rounding. A
                path keeps it in a feature file for later processes as well.
            augment_copies: k, where augmentation stands before frozen layers: k augmented views
                of each image are kept, and epoch e trains on view e % k.

        Raises ValueError for bad data before anything is changed, and TrainingDiverged (unless the
        callback TerminateOnNaN takes it) when the loss becomes NaN or infinite: the weights are
        then those at the start of the last epoch that began with a finite loss.
        """
        self.need_compile("fit")
        for what, n, least in (("epochs", epochs, 1), ("initial_epoch", initial_epoch, 0)):
            if not isinstance(n, (int, np.integer)) or n < least:
                raise ValueError(f"{what} must be an integer of at least {least}, got {n!r}")
        data = self._data(x, y, sample_weight, batch_size, steps_per_epoch)
        held_out: Any = None
        if validation_split:
            if not isinstance(data, ArrayData):
                raise ValueError("validation_split needs arrays; give validation_data instead")
            data, held_out = data.split(validation_split)
        if class_weight is not None:  # for training only: held out data are measured as they are
            if not isinstance(data, ArrayData):
                raise ValueError("class_weight needs arrays; let the data set yield weights")
            data.weight = weights_by_class(data.y, class_weight, data.weight)
        if validation_data is not None:
            held_out = self._validation(
                validation_data, validation_batch_size or batch_size, validation_steps
            )
        if not self.trainable_weights:
            warnings.warn(
                f"{self.name!r} has no trainable weights: fit only measures. Is everything frozen?",
                UserWarning,
                stacklevel=3,
            )
        history = callbacks_module.History()
        level = 1 if verbose in ("auto", True) else int(verbose)
        bars = [callbacks_module.ProgbarLogger(level)] if level else []
        run = callbacks_module.CallbackList(
            callbacks,
            self,
            {"epochs": epochs, "steps": len(data) or None, "verbose": level},
            [*bars, history],
        )
        self.history = history
        self.stop_training = False
        self._place = place = Place(self, data, held_out, config.next_seed(), initial_epoch)
        place.settings = {
            "shuffle": bool(shuffle),
            "validation_freq": int(validation_freq),
            "augment_copies": augment_copies,
        }
        say = (lambda text: print(text, flush=True)) if level else None
        left = epochs - initial_epoch
        caching = Caching(self, cache_features, augment_copies, left, say, bars=level == 1)
        walk = caching.wrap(data, training=True)
        held_out = None if held_out is None else caching.wrap(held_out, training=False)
        run.on_train_begin({})  # where BackupAndRestore moves the place on
        try:
            caching.begin(place.seed, place.epoch)
            for epoch in range(place.epoch, epochs):
                if place.step == 0:
                    run.on_epoch_begin(epoch, {})
                elif bars:  # within the epoch, the others began it before the interruption
                    bars[0].on_epoch_begin(epoch, {})
                logs = self._run_epoch(walk, place, shuffle, run)
                if held_out is not None and (epoch + 1) % validation_freq == 0:
                    logs |= {f"val_{k}": v for k, v in self._measure(held_out, run).items()}
                place.logs = dict(sorted(logs.items()))  # the order of Keras's history
                place.epoch, place.step = epoch + 1, 0
                run.on_epoch_end(epoch, place.logs)
                if self.stop_training:
                    break
            place.finished = True
        except TrainingDiverged as error:
            if not run.accept(error):
                raise
        finally:
            self._place = None
            caching.end()
            run.on_train_end(place.logs)
        return history

    def _snapshot(self) -> list[tuple[Variable, Array]]:
        """Copies of what training may change: weights that learn, and moving averages."""
        return [
            (v, kernels.copy(v.storage)) for v in self.weights if v.trainable or not v.learnable
        ]

    def _run_epoch(self, data: CachedData, place: Place, shuffle: bool, run: Any) -> dict[str, Any]:
        """One pass over the training data, or what a backup left of it; returns the logs."""
        # All that is random in an epoch follows from the fit's seed and the epoch.
        rng = np.random.default_rng((place.seed, place.epoch))
        order = None
        data.epoch = place.epoch
        if shuffle and data.samples is not None:
            order = rng.permutation(data.samples)
        if place.step == 0:
            place.rng, place.tally, now = rng, Tally(self), self._snapshot()
        where = f"epoch {place.epoch + 1}, step {place.step}"
        try:
            for step, batch in enumerate(data.batches(order, place.step), place.step):
                run.on_train_batch_begin(step, {})
                where = f"epoch {place.epoch + 1}, step {step + 1}"
                found, outputs = self._train_step(batch, place.rng, where)
                if step == 0:  # the weights that this epoch began with gave a finite loss
                    place.good = now
                place.tally.add(found, outputs, batch)
                place.step = step + 1
                run.on_train_batch_end(step, place.tally.logs())
                if self.stop_training:
                    break
            for v in self.trainable_weights:  # the last update is followed by no loss
                if not kernels.all_finite(v.storage):
                    raise self._diverged(f"{v.name!r} is not finite", f"the end of {where}")
        except TrainingDiverged:
            for variable, values in place.good:
                variable.assign(values)
            self.optimizer.forget()
            raise
        return place.tally.logs()

    def _train_step(
        self, batch: Batch, rng: np.random.Generator, where: str
    ) -> tuple[list[float], list[Array]]:
        """Forward, loss, backward, update. Returns the losses (total first) and the outputs."""
        variables = self.trainable_weights
        outputs = self._outputs(batch, training=True, rng=rng)
        loss, found = self._total_loss(batch, outputs)
        if not np.isfinite(found[0]):
            raise self._diverged(f"the loss became {found[0]}", where)
        results = [t.storage for t in outputs]
        if variables:
            del outputs  # the record alone keeps what backward needs, and releases it on the way
            gradients = backward(loss, variables)
            for variable, gradient in zip(variables, gradients, strict=True):
                if not kernels.all_finite(gradient):
                    raise self._diverged(f"the gradient of {variable.name!r} is not finite", where)
            self.optimizer.apply(gradients, variables)
        return found, results

    def _diverged(self, what: str, where: str) -> TrainingDiverged:
        return TrainingDiverged(
            f"{what} at {where}. The weights are back at the start of the last epoch that began "
            f"with a finite loss, and the optimizer starts afresh. Try a smaller learning_rate "
            f"(it was {self.optimizer.learning_rate:g}), clipnorm=1.0, or look at the input's "
            f"range."
        )

    def _total_loss(self, batch: Batch, outputs: list[Tensor]) -> tuple[Tensor, list[float]]:
        """The weighted sum of the outputs' losses, plus the weights' penalties.

        Returned as a Tensor, and as numbers: [total, loss of output 0, loss of output 1, ...].
        """
        terms, found = [], []
        for loss, factor, y, out in zip(
            self._losses, self._loss_weights, batch.y, outputs, strict=True
        ):
            if loss is not None:
                term = loss(y, out, batch.weight)
                found.append(float(term.storage))
                terms.append(term if factor == 1 else term * factor)
        terms += self.regularization()  # type: ignore[attr-defined]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total, [float(total.storage), *found]

    # --- evaluate ---

    @check_keywords
    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and the metrics on data: [loss, metric, ...], or the loss alone without metrics.

        Arguments as for `fit`; `return_dict=True` gives them by name.
        """
        self.need_compile("evaluate")
        data = self._data(x, y, sample_weight, batch_size, steps)
        run = callbacks_module.CallbackList(
            callbacks, self, {"steps": len(data) or None, "verbose": verbose}
        )
        logs = self._measure(Recalled(self, data), run, show=verbose in ("auto", True, 1))
        if verbose not in (0, False):
            print(callbacks_module.format_logs(logs), flush=True)
        if return_dict:
            return dict(sorted(logs.items()))  # the order of Keras's
        values = list(logs.values())
        return values if len(values) > 1 else values[0]

    def _measure(self, data: Any, run: Any, show: bool = False) -> dict[str, Any]:
        """Loss and metrics over data, without training anything."""
        tally = Tally(self)
        run.on_test_begin({})
        with no_grad():
            for step, batch in enumerate(with_bar(data, "evaluate", show)):
                run.on_test_batch_begin(step, {})
                for piece in self._pieces(batch):
                    outputs = self._outputs(piece, training=False)
                    found = self._total_loss(piece, outputs)[1]
                    tally.add(found, [t.storage for t in outputs], piece)
                run.on_test_batch_end(step, tally.logs())
        logs = tally.logs()
        run.on_test_end(logs)
        return logs

    # --- Single batches, for a loop of the user's own ---

    @check_keywords
    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One step of training on one batch; returns its loss and metrics as `evaluate` does.

        Raises TrainingDiverged, before the weights are changed, when the loss or a gradient is
        no finite number.
        """
        self.need_compile("train_on_batch")
        if sample_weight is not None and class_weight is not None:
            raise ValueError("train_on_batch takes sample_weight or class_weight, not both")
        batch = self._one_batch(x, y, sample_weight)
        if class_weight is not None:
            batch = batch._replace(weight=weights_by_class(batch.y, class_weight, None))
        rng = np.random.default_rng(config.next_seed())
        found, outputs = self._train_step(batch, rng, "this batch")
        return self._told(found, outputs, batch, return_dict)

    @check_keywords
    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Loss and metrics of one batch, as `evaluate` returns them; nothing is trained."""
        self.need_compile("test_on_batch")
        batch = self._one_batch(x, y, sample_weight)
        with no_grad():
            outputs = self._outputs(batch, training=False)
            found = self._total_loss(batch, outputs)[1]
        return self._told(found, [t.storage for t in outputs], batch, return_dict)

    def _one_batch(self, x: Any, y: Any, sample_weight: Any) -> Batch:
        data = self._data(x, y, sample_weight, None, None)
        if isinstance(data, StreamData):
            raise TypeError("one batch is arrays; `fit` and `evaluate` take iterables of batches")
        return Batch(data.x, data.y, data.weight)

    def _told(
        self, losses: list[float], outputs: list[Array], batch: Batch, return_dict: bool
    ) -> Any:
        tally = Tally(self)
        tally.add(losses, outputs, batch)
        logs = tally.logs()
        values = list(logs.values())
        return logs if return_dict else values if len(values) > 1 else values[0]
