"""Freezing up to a layer, and fine-tuning in stages: the head first, then blocks from the top.

A pretrained base knows much and a new head nothing. Trained together from the start, the head's
first gradients, which are noise, tear through the base. So the base is frozen until the head has
converged; then its uppermost block is unfrozen, at a small rate, then the next one, at a smaller
(Howard & Ruder 2018, arXiv 1801.06146, sections 3.2 and 3.3: gradual unfreezing, discriminative
rates). Below the lowest block that learns, nothing is computed twice: see `frozen.py`.

Where a layer stands is told by the graph, not by its place in a list: before a layer is what it
is computed from, in whatever sub-model that may be.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from minitl.callbacks import BackupAndRestore, Callback, CallbackList, EarlyStopping, History
from minitl.layers import BatchNormalization, Layer
from minitl.models import Model
from minitl.models.batches import is_stream
from minitl.models.opened import open_up, work
from minitl.naming import Configurable, complain_about_unknown, did_you_mean
from minitl.optimizers.schedules import CosineDecay, LearningRateSchedule
from minitl.storage.digests import arrays_digest
from minitl.storage.keras_models import named_layers
from minitl.transfer.cut import find_cut

# --- Freezing up to a layer ----------------------------------------------------------------------


def freeze_until(model: Model, layer: str | Layer) -> list[Layer]:
    """Freeze what comes before `layer`: all layers that it is computed from.

    Args:
        model: the layer may stand in it or in a model inside it.
        layer: a layer or its name; or the name of a block, 'block5' for all of 'block5_...'.

    `layer` itself and all others stay as they are. Returns the frozen layers. Raises ValueError
    for a name that is not there, showing the nearest.
    """
    frozen = layers_before(model, layer)
    for each in frozen:
        each.trainable = False
    return frozen


def unfreeze_from(model: Model, layer: str | Layer, batch_norm: bool = False) -> list[Layer]:
    """Unfreeze `layer` and all others, except those that it is computed from: these stay as they
    are, so that `freeze_until` and `unfreeze_from` at one layer leave no layer out.

    Args:
        model, layer: as for `freeze_until`.
        batch_norm: whether BatchNormalization learns, too. A frozen one stays in inference mode,
            on the averages of the data that the base was trained on, which a fine-tuning with
            small batches would only spoil.

    Returns the layers with weights that are trainable now, as far as the call concerns them.
    """
    return _unfreeze(model, _from(model, layer), batch_norm)


def layers_before(model: Model, layer: str | Layer) -> list[Layer]:
    """The layers of the model that `layer` (or a block) is computed from."""
    chosen = {id(inner) for one in find_layers(model, layer) for inner in walk(one)}
    return list({id(each): each for each in _before(model, chosen)}.values())


def find_layers(model: Model, layer: str | Layer) -> list[Layer]:
    """The layer itself, or of that name, or else the layers of the block of that name."""
    there = {id(each): each for inner in model.sublayers() for each in walk(inner)}
    if isinstance(layer, Layer):
        if id(layer) not in there:
            raise ValueError(f"{layer!r} is no layer of {model.name!r}, nor of a model inside it")
        return [layer]
    named = [each for each in there.values() if each.name == layer]
    if len(named) > 1:
        raise ValueError(
            f"{len(named)} layers inside {model.name!r} are named {layer!r}: give the layer itself"
        )
    block = [each for each in there.values() if each.name.startswith(f"{layer}_")]
    if not named and not block:
        names = {each.name for each in there.values()}
        names |= {name.rsplit("_", 1)[0] for name in names}
        raise ValueError(
            f"{model.name!r} has no layer or block {layer!r}. {did_you_mean(str(layer), names)}"
        )
    return named or block


def walk(layer: Layer) -> Iterator[Layer]:
    """The layer and all layers inside it."""
    yield layer
    for inner in layer.sublayers():
        yield from walk(inner)


def leaves(layer: Layer) -> list[Layer]:
    """The layers inside it (or itself) that hold no other layers."""
    return [each for each in walk(layer) if not list(each.sublayers())]


def _before(layer: Layer, chosen: set[int]) -> list[Layer]:
    """The layers inside `layer` that lead to the chosen ones (given by id)."""
    found: list[Layer] = []
    if layer.as_graph() is None:  # it has no graph (yet): what it holds is a chain
        for inner in layer.sublayers():
            if any(id(each) in chosen for each in walk(inner)):
                return found + ([] if id(inner) in chosen else _before(inner, chosen))
            found.append(inner)
        return []
    needed: set[int] = set()
    for call in reversed(open_up(layer).calls):
        inside = any(id(each) in chosen for each in walk(call.layer))
        if inside and id(call.layer) not in chosen:
            found += _before(call.layer, chosen)
        if inside or any(id(t) in needed for t in call.outputs):
            needed.update(id(t) for t in call.inputs)
            if not inside:
                found.append(call.layer)
    return found[::-1]


def _from(model: Model, layer: str | Layer) -> list[Layer]:
    """The layers that hold no others, except those before `layer`."""
    before = {id(each) for one in layers_before(model, layer) for each in walk(one)}
    return [each for each in leaves(model) if id(each) not in before]


def _unfreeze(model: Model, layers: Sequence[Layer], batch_norm: bool) -> list[Layer]:
    """Unfreeze them, and return those that have weights."""
    chosen = [each for each in layers if batch_norm or not isinstance(each, BatchNormalization)]
    for each in chosen:
        each.trainable = True
    for outer in walk(model):  # what holds a layer that learns is not frozen itself
        if any(inner.trainable for inner in leaves(outer) if inner.weights):
            outer.mark_trainable(True)
    return [each for each in chosen if each.weights]


# --- Proof ---------------------------------------------------------------------------------------


def frozen_digests(model: Model) -> dict[str, str]:
    """For each frozen layer with weights 'base/block1_conv1' and the digest of its weights,
    moving averages too."""
    return {
        name: arrays_digest(v.storage for v in each.weights)
        for name, each in named_layers(model)
        if each.weights and not each.trainable
    }


@contextmanager
def proof_of_freezing(
    model: Model, print_fn: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Around a `fit`: prints digests of what was frozen, before and after, and the work saved.

    >>> with proof_of_freezing(model):                                      # doctest: +SKIP
    ...     model.fit(x, y)

    What counts is what was frozen at the beginning. Raises RuntimeError if any of it has changed.
    """
    before = frozen_digests(model)
    text = _work_saved(model)
    layers = dict(named_layers(model))
    yield
    lines, changed = [f"{'frozen layer':32} {'numbers':>12}  sha256 before and after"], []
    for name, digest in before.items():
        now = arrays_digest(v.storage for v in layers[name].weights)
        verdict = "same" if now == digest else "CHANGED"
        count = layers[name].count_params()
        lines.append(f"{name:32} {count:12,}  {digest[:16]} {now[:16]} {verdict}")
        changed += [name] * (now != digest)
    (print_fn or print)("\n".join([*lines, text]))
    if changed:
        raise RuntimeError(f"frozen, and yet changed: {', '.join(changed)}")


def training_work(model: Model) -> dict[str, tuple[int, int]]:
    """Multiply-adds of a training step for one sample: {what: (now, with nothing frozen)}.

    Each product of the forward pass comes back twice, as the gradient to the layer's input and as
    that to its weights. The first is needed where something before the layer learns, the second
    where the layer itself does. The forward pass of the frozen part runs once a sample and is not
    counted.
    """
    graph, cut = open_up(model), find_cut(model)
    parts = ("forward", "gradients to inputs", "gradients to weights")
    now, full = dict.fromkeys(parts, 0), dict.fromkeys(parts, 0)
    for whole, total in ((False, now), (True, full)):
        reached: set[int] = set()  # values behind something that learns
        for call in graph.calls:
            amount = work(call)
            weights = call.layer.weights
            learns = any(v.learnable if whole else v.trainable for v in weights)
            behind = any(id(t) in reached for t in call.inputs)
            if learns or behind:
                reached.update(id(t) for t in call.outputs)
            total["forward"] += amount
            total["gradients to inputs"] += amount * behind
            total["gradients to weights"] += amount * learns
    now["forward"] -= cut.saved if cut is not None else 0
    return {part: (now[part], full[part]) for part in parts}


def _work_saved(model: Model) -> str:
    parts = training_work(model)
    now, full = (sum(counts) for counts in zip(*parts.values(), strict=True))
    listed = ", ".join(f"{part} {a / 1e6:,.1f} of {b / 1e6:,.1f}" for part, (a, b) in parts.items())
    return (
        f"work of a step, in million multiply-adds a sample: {listed}; "
        f"{100 * (1 - now / max(full, 1)):.1f} % saved once the frozen part's results are kept"
    )


# --- Stages --------------------------------------------------------------------------------------


class Stage(Configurable):
    """One stage of `fine_tune`.

    Args:
        unfreeze: the layer or block from which on the base learns.
        epochs: at most so many.
        learning_rate: of the head; a number (with warm-up and cosine, see `fine_tune`) or a
            schedule, used as it is and counted from the stage's first step.
        multiplier: the rate of what this stage unfreezes, as a multiple of learning_rate.

    What is None is taken from `fine_tune`.
    """

    def __init__(
        self,
        unfreeze: str | Layer,
        epochs: int | None = None,
        learning_rate: float | LearningRateSchedule | None = None,
        multiplier: float | None = None,
    ):
        if multiplier is not None and not 0 <= multiplier < math.inf:
            raise ValueError(f"a multiplier is a number of at least 0, got {multiplier!r}")
        _check_epochs("epochs", 1 if epochs is None else epochs, 1)
        self.unfreeze, self.epochs = unfreeze, epochs
        self.learning_rate, self.multiplier = learning_rate, multiplier


def fine_tune(
    model: Model,
    data: Any,
    validation_data: Any = None,
    *,
    stages: Sequence[str | Layer | Stage],
    base: str | Layer | None = None,
    head_epochs: int = 50,
    epochs: int = 5,
    learning_rate: float | LearningRateSchedule = 1e-5,
    rate_decay: float = 1 / 2.6,
    warmup: float = 0.1,
    patience: int = 5,
    monitor: str | None = None,
    batch_norm: bool = False,
    prove: bool = False,
    **fit: Any,
) -> list[tuple[str, History]]:
    """Train the head with the base frozen, then unfreeze the base from the top, stage by stage.

        rate of the head in a stage:               r(t)
        rate of what the k-th stage unfroze:       r(t) * rate_decay^k       (k = 1, 2, ...)

    r(t) climbs linearly to `learning_rate` over the first `warmup` of the stage's steps and falls
    along half a cosine to nothing. Each stage starts with a fresh optimizer state.

    Args:
        model: compiled. Its optimizer, as compiled, trains the head; those of the stages are like
            it but for the rate.
        data: (x, y), (x, y, sample_weight), or an iterable of batches.
        validation_data: as for `fit`.
        stages: from the top down: layers or blocks ('block5', 'block4'), or a Stage for each.
        base: what is pretrained: a model inside `model`, or one whose layers `model` is made of.
            When None: the only model with weights inside `model`, else what is frozen now.
        head_epochs: at most so many; 0 leaves the head as it is, and counts how it does on arrays
            that are held out as the best so far.
        epochs, learning_rate: of a stage that does not say otherwise.
        rate_decay: see above; 1/2.6 is Howard & Ruder's.
        warmup: in [0, 1).
        patience: a stage ends when `monitor` has not improved for so many epochs.
        monitor: 'val_loss' when None, or 'loss' where nothing is held out.
        batch_norm: whether BatchNormalization of the base is unfrozen, too; see `unfreeze_from`.
        prove: print `proof_of_freezing` after every stage.
        fit: more arguments of `Model.fit`: batch_size, verbose, callbacks, class_weight ...
            Of cache_features='F.h5' the stages make F-stage-1.h5, F-stage-2.h5, ...
            With BackupAndRestore among the callbacks, run the same program again after a power
            cut: finished stages are not trained again, and the end is the same to the bit.

    The best weights so far, by `monitor`, are carried from stage to stage: what does not improve
    on them is undone. In the end they are the model's, the layers are as trainable as in the last
    stage, and the optimizer is that stage's, at its `learning_rate`. All that is random follows
    from `minitl.utils.set_random_seed`.

    Returns (name of the stage, History) for each, as `report.learning_curves` takes them. Raises
    ValueError before anything has changed: for names that are not there, a stage that unfreezes
    nothing, or a base that cannot be told.
    """
    known = {**inspect.signature(fine_tune).parameters, **inspect.signature(Model.fit).parameters}
    complain_about_unknown(fit, known, "fine_tune")
    model.need_compile("fine_tune")
    _check_epochs("head_epochs", head_epochs, 0)
    _check_epochs("epochs", epochs, 1)
    if not 0 <= warmup < 1:
        raise ValueError(f"warmup is a share of the steps, from 0 to below 1, got {warmup!r}")
    pretrained = _base_layers(model, base)
    plan = _plan(model, pretrained, stages, rate_decay, batch_norm)
    x, y, weights = _split(data)
    if monitor is None:
        held_out = validation_data is not None or fit.get("validation_split")
        monitor = "val_loss" if held_out else "loss"
    best = _Best(monitor, patience=patience, restore_best_weights=True)
    for each in pretrained:
        each.trainable = False
    compiled = model.optimizer
    histories: list[tuple[str, History]] = []
    given = fit.get("callbacks") or []
    given = [given] if isinstance(given, Callback) else list(given)

    def train(name: str, count: int, rate: float | LearningRateSchedule | None) -> None:
        model.optimizer = compiled.clone()
        model.optimizer.forget()
        callbacks = [best, *_of_stage(given, len(histories) + 1)]
        if isinstance(rate, (int, float)):
            callbacks.insert(0, _WarmUpAndCosine(rate, warmup))
        elif rate is not None:
            model.optimizer.learning_rate = rate
        arguments = fit | {
            "epochs": count,
            "callbacks": callbacks,
            "validation_data": validation_data,
            "sample_weight": fit.get("sample_weight") if weights is None else weights,
        }
        cache = fit.get("cache_features")
        if isinstance(cache, (str, Path)):  # each stage has features of its own
            at, stage = Path(cache), len(histories) + 1
            arguments["cache_features"] = at.with_name(f"{at.stem}-stage-{stage}{at.suffix}")
        if fit.get("verbose", 1):
            learns = sum(v.storage.size for v in model.trainable_weights)
            print(f"Stage {len(histories) + 1}, {name}: {learns:,} parameters learn.", flush=True)
        if prove:
            with proof_of_freezing(model):
                histories.append((name, model.fit(x, y, **arguments)))
        else:
            histories.append((name, model.fit(x, y, **arguments)))
        if fit.get("verbose", 1):
            print(best.report(), flush=True)
        if rate is not None:
            model.optimizer.learning_rate = rate

    if head_epochs:
        train("head", head_epochs, None)
    else:
        given_weights = fit.get("sample_weight") if weights is None else weights
        best.carried = _as_it_is(model, monitor, (x, y, given_weights), validation_data, fit)
    for stage, layers, multiplier in plan:
        _unfreeze(model, layers, batch_norm)
        for each in layers:
            each.rate_multiplier = multiplier
        where = stage.unfreeze if isinstance(stage.unfreeze, str) else stage.unfreeze.name
        rate = learning_rate if stage.learning_rate is None else stage.learning_rate
        train(f"{where} unfrozen", stage.epochs or epochs, rate)
    for backup in given:
        if isinstance(backup, BackupAndRestore) and backup.delete_checkpoint:
            for folder in backup.backup_dir.glob("stage-*"):
                shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                backup.backup_dir.rmdir()  # unless somebody keeps something else there
    return histories


def _of_stage(callbacks: Sequence[Any], number: int) -> list[Any]:
    """The callbacks, BackupAndRestore with a folder of the stage's own: what it keeps of a finished
    stage is needed until all are finished."""
    found = []
    for each in callbacks:
        if isinstance(each, BackupAndRestore):
            each = copy.copy(each)
            each.backup_dir, each.delete_checkpoint = each.backup_dir / f"stage-{number}", False
        found.append(each)
    return found


def _as_it_is(
    model: Model, monitor: str, data: Sequence[Any], validation_data: Any, fit: dict[str, Any]
) -> tuple[float, list[np.ndarray]] | None:
    """What `monitor` is before anything learns, with the weights; None where it cannot be told.

    Only arrays are measured: a stream that is walked over once more may not be the same again.
    """
    size, share = fit.get("batch_size"), fit.get("validation_split")
    held_out: Any = None
    if validation_data is not None and not is_stream(validation_data):
        held_out = model._validation(
            validation_data, fit.get("validation_batch_size") or size, None
        )
    elif validation_data is None and share and not is_stream(data[0]):
        x, y, weights = data
        everything: Any = model._data(x, y, weights, size, None)
        held_out = everything.split(share)[1]
    if held_out is None or not monitor.startswith("val_"):
        return None
    logs = model._measure(held_out, CallbackList(None, model, {}))
    value = logs.get(monitor.removeprefix("val_"))
    return None if value is None else (float(value), model.get_weights())


class _Best(EarlyStopping):
    """EarlyStopping that carries the best weights from one `fit` to the next."""

    carried: tuple[float | None, Any] | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self.before = self.carried
        if self.carried is not None:
            self.best, self.best_weights = self.carried

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        if self.best_weights is not None:
            self.carried = self.best, self.best_weights

    def report(self) -> str:
        if self.best is None:
            return f"{self.monitor!r} is not among what fit measures: nothing was compared."
        if self.before is not None and self.best == self.before[0]:
            return f"{self.monitor} did not get better than {self.best:.4f}: the stage is undone."
        return f"Best {self.monitor}: {self.best:.4f}, in epoch {self.best_epoch + 1}."


class _WarmUpAndCosine(Callback):
    """Sets the optimizer's rate for one `fit`, whose number of steps only `fit` knows."""

    def __init__(self, rate: float, warmup: float):
        self.rate, self.warmup = rate, warmup

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        params = self.params or {}
        if not params.get("steps"):  # a stream of unknown length
            self.model.optimizer.learning_rate = self.rate
            return
        steps = params["steps"] * params["epochs"]
        up = min(round(self.warmup * steps), steps - 1)
        self.model.optimizer.learning_rate = CosineDecay(
            self.rate / (up + 1), steps - up, warmup_target=self.rate, warmup_steps=up
        )


def check_stages(base: Model, stages: Sequence[str | Layer | Stage]) -> None:
    """Raise the ValueError that `fine_tune` of a model on this base would, before any work."""
    _plan(base, [each for each in leaves(base) if each.weights], stages, 1.0, False)


def _base_layers(model: Model, base: str | Layer | None) -> list[Layer]:
    """The pretrained layers with weights."""
    there = {id(each): each for each in leaves(model) if each.weights}
    if base is None:
        nested = [m for m in model.sublayers() if isinstance(m, Model) and m.weights]
        if len(nested) == 1:
            base = nested[0]
    if base is None:
        found = [each for each in there.values() if not each.trainable]
        if not found:
            raise ValueError(
                "fine_tune cannot tell what is pretrained: pass base=..., the model that the "
                "layers come from, or freeze them first"
            )
        return found
    if isinstance(base, Layer):
        found = [each for each in leaves(base) if each.weights]
    else:
        found = [each for one in find_layers(model, base) for each in leaves(one) if each.weights]
    missing = [each.name for each in found if id(each) not in there]
    if missing:
        raise ValueError(f"{model.name!r} does not have the base's layers {', '.join(missing)}")
    if len(found) == len(there):
        raise ValueError(f"all layers of {model.name!r} are the base's: there is no head")
    return found


def _plan(
    model: Model,
    pretrained: Sequence[Layer],
    stages: Sequence[str | Layer | Stage],
    rate_decay: float,
    batch_norm: bool,
) -> list[tuple[Stage, list[Layer], float]]:
    """For each stage: the layers that it unfreezes, and the multiplier of their rate."""
    if isinstance(stages, (str, Layer, Stage)):
        stages = [stages]
    waiting = {
        id(each): each
        for each in pretrained
        if batch_norm or not isinstance(each, BatchNormalization)
    }
    plan = []
    for k, one in enumerate(stages, start=1):
        stage = one if isinstance(one, Stage) else Stage(one)
        layers = [each for each in _from(model, stage.unfreeze) if id(each) in waiting]
        if not layers:
            raise ValueError(
                f"the stage {stage.unfreeze!r} unfreezes no layer of the base that is not already "
                f"unfrozen; stages go from the top down"
            )
        for each in layers:
            del waiting[id(each)]
        multiplier = rate_decay**k if stage.multiplier is None else stage.multiplier
        plan.append((stage, layers, multiplier))
    return plan


def _check_epochs(what: str, n: Any, least: int) -> None:
    if not isinstance(n, (int, np.integer)) or n < least:
        raise ValueError(f"{what} must be an integer of at least {least}, got {n!r}")


def _split(data: Any) -> tuple[Any, Any, Any]:
    """x, y and sample_weight, as `fit` takes them."""
    if isinstance(data, (tuple, list)):
        if len(data) not in (2, 3):
            raise ValueError("data must be (x, y), (x, y, sample_weight) or an iterable of batches")
        return (*data, None)[:3]
    return data, None, None
