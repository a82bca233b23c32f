"""compile, fit, evaluate, predict: the part of a model that learns.

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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minitl import callbacks as callbacks_module
from minitl import config, kernels, losses, optimizers
from minitl import metrics as metrics_module
from minitl.autograd import Array, Tensor, Variable, backward, no_grad
from minitl.batches import ArrayData, Batch, StreamData, is_stream, make_arrays, weights_by_class
from minitl.caching import CachedData, Caching, Recalled, Store
from minitl.kernels import workspace
from minitl.naming import check_keywords, did_you_mean, serialize
from minitl.progress import Place, Tally

# Bytes that one layer's inputs and outputs may take together while predicting. VGG16 at 224x224
# then runs 10 images at a time; more are not faster.
MEMORY = 256 * 2**20


class TrainingDiverged(FloatingPointError):
    """The loss or a gradient stopped being a finite number."""


class Trainer:
    """What `Model` can do beyond computing. The methods have Keras's names and arguments."""

    # Provided by Model.
    name: str
    inputs: list[Any]
    outputs: list[Any]
    output_names: list[str]
    input_names: list[str]
    trainable_weights: list[Variable]
    weights: list[Variable]
    dtype: str

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

    def _need_compile(self, what: str) -> None:
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
        self._need_compile("fit")
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
            (v, workspace.copy(v.storage)) for v in self.weights if v.trainable or not v.learnable
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

    def _outputs(self, batch: Batch, training: bool, rng: Any = None) -> list[Tensor]:
        """The model's outputs: from its inputs, or from what is kept of its frozen part."""
        if batch.graph is not None:
            return batch.graph.run(batch.x, training, rng)
        return _listed(self(_one_or_list(batch.x), training=training, rng=rng))  # type: ignore

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

    # --- evaluate and predict ---

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
        self._need_compile("evaluate")
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
            for step, batch in enumerate(_with_bar(data, "evaluate", show)):
                run.on_test_batch_begin(step, {})
                for piece in self._pieces(batch):
                    outputs = self._outputs(piece, training=False)
                    found = self._total_loss(piece, outputs)[1]
                    tally.add(found, [t.storage for t in outputs], piece)
                run.on_test_batch_end(step, tally.logs())
        logs = tally.logs()
        run.on_test_end(logs)
        return logs

    @check_keywords
    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The model's outputs for all of x, computed in batches, as one array (or a list of them).

        x is an array (N, ...), a list or dict of arrays for several inputs, or an iterable of
        batches. Memory beyond x and the outputs does not depend on N.
        """
        data = self._data(x, None, None, batch_size, steps, need_y=False)
        run = callbacks_module.CallbackList(
            callbacks, self, {"steps": len(data) or None, "verbose": verbose}
        )
        run.on_predict_begin({})
        results: list[Any] = []
        at, show = 0, verbose not in (0, False)
        with no_grad():
            for step, batch in enumerate(_with_bar(Recalled(self, data), "predict", show)):
                run.on_predict_batch_begin(step, {})
                for piece in self._pieces(batch):
                    outputs = self._outputs(piece, training=False)
                    for i, out in enumerate(outputs):
                        if len(results) <= i:  # of a stream it is not known how many will come
                            rows = 0 if isinstance(data, StreamData) else data.samples
                            results.append(np.empty((rows, *out.shape[1:]), out.dtype))
                        _write_rows(results[i], at, out.storage)
                    at += piece.size
                run.on_predict_batch_end(step, {})
        run.on_predict_end({})
        for each in results:
            each.resize((at, *each.shape[1:]), refcheck=False)
        return results[0] if len(results) == 1 else results

    def _pieces(self, batch: Batch) -> Iterator[Batch]:
        """The batch in equal pieces, so small that what a layer reads and writes fits MEMORY.

        For predicting and measuring only: there, samples do not know of each other, unless the
        loss is a sum over the batch or divided by its weights.
        """
        if any(loss and loss.reduction != "sum_over_batch_size" for loss in self._losses):
            yield batch
            return
        shapes = [a.shape for a in batch.x]
        steps = self if batch.graph is None else batch.graph
        each = steps.largest_step(shapes) * np.dtype(self.dtype).itemsize  # type: ignore
        count = min(batch.size, -(-batch.size * each // MEMORY))
        for i in range(count):
            part = slice(batch.size * i // count, batch.size * (i + 1) // count)
            yield Batch(
                [a[part] for a in batch.x],
                [a[part] for a in batch.y],
                None if batch.weight is None else batch.weight[part],
                batch.graph,
            )

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
        self._need_compile("train_on_batch")
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
        self._need_compile("test_on_batch")
        batch = self._one_batch(x, y, sample_weight)
        with no_grad():
            outputs = self._outputs(batch, training=False)
            found = self._total_loss(batch, outputs)[1]
        return self._told(found, [t.storage for t in outputs], batch, return_dict)

    @check_keywords
    def predict_on_batch(self, x: Any) -> Any:
        """The model's outputs for one batch."""
        return self.predict(x, batch_size=len(_listed(x)[0]), verbose=0)

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

    # --- Data ---

    def _data(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        batch_size: int | None,
        steps: int | None,
        need_y: bool = True,
    ) -> ArrayData | StreamData:
        """Check what the user gave, and make it walkable."""
        if batch_size is not None and (
            not isinstance(batch_size, (int, np.integer)) or batch_size < 1
        ):
            raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}")
        if is_stream(x):
            if y is not None:
                raise ValueError("x yields batches (x, y) itself: y must not be given as well")
            self._build_for(x)
            check = self._check_streamed if need_y else None
            return StreamData(x, steps, self.input_names, self.output_names, check)
        if steps is not None:
            raise ValueError("steps are for iterables of batches; for arrays give batch_size")
        if need_y and y is None:
            raise ValueError("y is missing: the loss compares the model's outputs with it")
        self._build_for(x)
        arrays = make_arrays(x, y, sample_weight, self.input_names, self.output_names)
        self._check_batch(arrays)
        return ArrayData(arrays.x, arrays.y, arrays.weight, int(batch_size or 32))

    def _build_for(self, x: Any) -> None:
        """A Sequential without Input learns its shapes here."""

    def _validation(self, given: Any, batch_size: int | None, steps: int | None) -> Any:
        if is_stream(given):
            return self._data(given, None, None, None, steps)
        if not isinstance(given, (list, tuple)) or len(given) not in (2, 3):
            raise ValueError("validation_data must be (x, y) or (x, y, sample_weight)")
        x, y, weight = (*given, None)[:3]
        try:
            return self._data(x, y, weight, batch_size, None)
        except (ValueError, TypeError) as error:
            raise type(error)(f"validation_data: {error}") from None

    def _check_streamed(self, batch: Batch) -> None:
        """Batches of a stream are checked as they come; arrays are checked as a whole."""
        self._check_batch(batch)
        if not batch.y:
            raise ValueError("the data set yields x without y")

    def _check_batch(self, batch: Batch) -> None:
        if len(batch.x) != len(self.inputs):
            raise ValueError(
                f"{self.name!r} has {len(self.inputs)} inputs {self.input_names}, "
                f"got {len(batch.x)}"
            )
        for a, symbolic in zip(batch.x, self.inputs, strict=True):
            check_shape(a.shape, symbolic.shape, self.name)
        if not batch.y:
            return
        if len(batch.y) != len(self.outputs):
            raise ValueError(
                f"{self.name!r} has {len(self.outputs)} outputs {self.output_names}, "
                f"but y has {len(batch.y)} arrays"
            )
        for y, loss, out in zip(batch.y, self._losses, self.outputs, strict=True):
            if loss is not None:
                loss.check(y, out.shape)


def check_shape(shape: tuple[int, ...], expected: tuple[int | None, ...], name: str) -> None:
    """Raise ValueError unless an array of `shape` can enter a model that expects `expected`."""
    if len(shape) == len(expected) and all(
        e is None or n == e for n, e in zip(shape[1:], expected[1:], strict=True)
    ):
        return
    hint = ""
    if shape == expected[1:]:
        hint = " A single sample needs a batch axis: x[np.newaxis]."
    elif len(shape) == len(expected) == 4 and shape[1] == expected[3] and shape[1] < 5:
        hint = " The channels seem to come first; minitl takes (N, H, W, C)."
    elif (len(shape) == 3 and len(expected) == 4) or (shape[-1:] == (1,) and expected[-1:] == (3,)):
        hint = " Gray images become RGB with minitl.data.to_rgb(x)."
    raise ValueError(f"{name!r} takes inputs of shape {expected}, got {shape}.{hint}")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _one_or_list(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _with_bar(data: Any, what: str, show: bool) -> Any:
    """The batches of data, with a progress bar when there is more than one."""
    if not show or len(data) == 1:
        return data.batches()
    from tqdm import tqdm

    return tqdm(data.batches(), total=len(data) or None, desc=what, unit="batch", leave=False)


def _write_rows(a: Array, at: int, rows: Array) -> None:
    """a[at : at + n] = rows (n, ...). If there is no room, `a` grows by an eighth or more, where
    it lies: a list of parts, joined at the end, would take its memory twice.

    Raises ValueError for rows of another shape, which NumPy might stretch.
    """
    if rows.shape[1:] != a.shape[1:]:
        raise ValueError(
            f"the outputs of all batches become one array, but after {at} rows of shape "
            f"{a.shape[1:]} came rows of shape {rows.shape[1:]}: predict such batches one by one"
        )
    end = at + len(rows)
    if end > len(a):
        a.resize((max(end, len(a) * 9 // 8), *a.shape[1:]), refcheck=False)
    a[at:end] = rows
