"""Freezing up to a layer, and fine-tuning in stages: the head first, then blocks from the top.

Trained together with a pretrained base from the start, a new head's first gradients, which are
noise, tear through it. So `fine_tune` trains the head on the frozen base; then it unfreezes the
base's uppermost block, at a small rate, then the next one, at a smaller (Howard & Ruder 2018, arXiv
1801.06146, sections 3.2 and 3.3). `freeze_until` and `unfreeze_from` do one such step by hand;
`proof_of_freezing` shows that what was frozen has not moved. Before a layer is what it is computed
from: the graph tells, in whatever sub-model that may be, not the place in a list.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from minitl import naming
from minitl.callbacks import BackupAndRestore, Callback, EarlyStopping, History
from minitl.layers import BatchNormalization, Layer
from minitl.models import Model
from minitl.models.arguments import guard
from minitl.models.batches import is_stream
from minitl.models.cautions import parted
from minitl.models.opened import named_layers, open_up, walk, work
from minitl.models.prediction import source_of
from minitl.optimizers.schedules import CosineDecay, LearningRateSchedule
from minitl.storage.digests import arrays_digest
from minitl.transfer.cut import find_cut

Rate = float | LearningRateSchedule


def freeze_until(model: Model, layer: str | Layer) -> list[Layer]:
    """Freeze what comes before `layer`: all layers that it is computed from.

    `layer`, of the model or of one inside it, is a layer or its name; or the name of a block,
    'block5' for all of 'block5_...'. It stays as it is, as do all others. Returns the frozen
    layers. Raises ValueError for a name that is not there, showing the nearest.
    """
    frozen = layers_before(model, layer)
    for each in frozen:
        each.trainable = False
    return frozen


def unfreeze_from(model: Model, layer: str | Layer, batch_norm: bool = False) -> list[Layer]:
    """Unfreeze `layer` and all others but those it is computed from; returns those with weights.

    Arguments as for `freeze_until`, and `batch_norm`: whether BatchNormalization learns, too. A
    frozen one stays in inference mode, on the averages of the data that the base was trained on,
    which a fine-tuning with small batches would only spoil.
    """
    chosen = _not_before(model, layer, batch_norm)
    _unfreeze(model, chosen)
    return [each for each in chosen if each.weights]


def find_layers(model: Model, layer: str | Layer) -> list[Layer]:
    """The layer itself, or of that name, or else the layers of the block of that name."""
    there = {id(each): each for each in walk(model)[1:]}
    if isinstance(layer, Layer):
        if id(layer) not in there:
            raise ValueError(f"{layer!r} is no layer of {model.name!r}, nor of a model inside it")
        return [layer]
    named = [each for each in there.values() if each.name == layer]
    if len(named) > 1:
        what = f"{len(named)} layers inside {model.name!r} are named {layer!r}"
        raise ValueError(f"{what}: give the layer itself")
    if found := named or [e for e in there.values() if e.name.startswith(f"{layer}_")]:
        return found
    names = {each.name for each in there.values()}
    names |= {name.rsplit("_", 1)[0] for name in names}
    hint = naming.did_you_mean(str(layer), names)
    raise ValueError(f"{model.name!r} has no layer or block {layer!r}. {hint}")


def leaves(layer: Layer) -> list[Layer]:
    """The layers inside it (or itself) that hold no others, each once."""
    return list({id(each): each for each in walk(layer) if not list(each.sublayers())}.values())


def layers_before(model: Model, layer: str | Layer) -> list[Layer]:
    """The layers of the model that `layer` (or a block) is computed from."""
    chosen = {id(inner) for one in find_layers(model, layer) for inner in walk(one)}
    return list({id(each): each for each in _before(model, chosen)}.values())


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
        if inside or any(id(t) in needed for t in call.outputs):
            needed.update(id(t) for t in call.inputs)
            if not inside:
                found.append(call.layer)
            elif id(call.layer) not in chosen:
                found += _before(call.layer, chosen)
    return found[::-1]


def _not_before(model: Model, layer: str | Layer, batch_norm: bool) -> list[Layer]:
    """The layers that hold no others, except those before `layer`; BatchNormalization if wanted."""
    before = {id(each) for one in layers_before(model, layer) for each in walk(one)}
    found = [each for each in leaves(model) if id(each) not in before]
    return [each for each in found if batch_norm or not isinstance(each, BatchNormalization)]


def _unfreeze(model: Model, layers: Sequence[Layer]) -> None:
    for each in layers:
        each.trainable = True
    for outer in walk(model):  # what holds a layer that learns is not frozen itself
        if any(inner.trainable for inner in leaves(outer) if inner.weights):
            outer.mark_trainable(True)


def frozen_digests(model: Model) -> dict[str, str]:
    """{'base/block1_conv1': digest of its weights, moving averages too} of the frozen layers."""
    frozen = [(n, each) for n, each in named_layers(model) if each.weights and not each.trainable]
    return {name: arrays_digest(v.storage for v in each.weights) for name, each in frozen}


@contextlib.contextmanager
def proof_of_freezing(
    model: Model, print_fn: Callable[[str], None] | None = None
) -> Iterator[None]:
    """Around a `fit`: prints digests of what was frozen, before and after, and the work saved.
    Raises RuntimeError if anything has changed that was frozen at the beginning.

    >>> with proof_of_freezing(model):                                      # doctest: +SKIP
    ...     model.fit(x, y)
    """
    before, layers, parts = frozen_digests(model), dict(named_layers(model)), training_work(model)
    lines = [f"{'frozen layer':32} {'numbers':>12}  sha256 before and after"]
    yield
    changed = []
    for name, digest in before.items():
        now = arrays_digest(v.storage for v in layers[name].weights)
        verdict = "same" if now == digest else "CHANGED"
        count = layers[name].count_params()
        lines.append(f"{name:32} {count:12,}  {digest[:16]} {now[:16]} {verdict}")
        changed += [name] * (now != digest)
    listed = ", ".join(f"{part} {a / 1e6:,.1f} of {b / 1e6:,.1f}" for part, (a, b) in parts.items())
    work_now, full = (sum(counts) for counts in zip(*parts.values(), strict=True))
    lines.append(
        f"work of a step, in million multiply-adds a sample: {listed}; "
        f"{100 * (1 - work_now / max(full, 1)):.1f} % saved once the frozen part's results are kept"
    )
    (print_fn or print)("\n".join(lines))
    if changed:
        raise RuntimeError(f"frozen, and yet changed: {', '.join(changed)}")


def training_work(model: Model) -> dict[str, tuple[int, int]]:
    """Multiply-adds of a training step for one sample: {what: (now, with nothing frozen)}.

    A product of the forward pass comes back as the gradient to the layer's input where something
    before it learns, and to its weights where it learns. F of the frozen part is not counted.
    """
    graph, cut = open_up(model), find_cut(model)
    totals = np.zeros((3, 2), np.int64)
    totals[0, 0] -= cut.saved if cut is not None else 0
    for column, flag in enumerate(("trainable", "learnable")):
        reached: set[int] = set()  # values behind something that learns
        for call in graph.calls:
            learns = any(getattr(v, flag) for v in call.layer.weights)
            behind = any(id(t) in reached for t in call.inputs)
            if learns or behind:
                reached.update(id(t) for t in call.outputs)
            totals[:, column] += work(call) * np.array([1, behind, learns])
    names = ("forward", "gradients to inputs", "gradients to weights")
    return {name: (int(now), int(full)) for name, (now, full) in zip(names, totals, strict=True)}


@naming.with_fields
class Stage(naming.Configurable):
    """One stage of `fine_tune`, which says what is None here.

    Args:
        unfreeze: the layer or block from which on the base learns, for at most `epochs`.
        learning_rate: of the head; a number (with warm-up and cosine, see `fine_tune`) or a
            schedule, used as it is and counted from the stage's first step.
        multiplier: the rate of what this stage unfreezes, as a multiple of learning_rate.
    """

    unfreeze: str | Layer
    epochs: naming.Count | None = None
    learning_rate: Rate | None = None
    multiplier: naming.NotNegative | None = None


@naming.with_fields
class Pace(naming.Configurable):
    """How far and how fast the stages of `fine_tune` go; its arguments by these names.

        rate of the head in a stage:               r(t)
        rate of what the k-th stage unfroze:       r(t) * rate_decay^k       (k = 1, 2, ...)

    r(t) climbs to `learning_rate` over a share `warmup` of a stage's steps, then falls along half a
    cosine to nothing.

    head_epochs               at most so many; 0 leaves the head as it is, the best so far on
                              held-out data
    epochs, learning_rate     of a stage that does not say otherwise
    patience                  a stage ends when there was no improvement for so many epochs
    batch_norm                as for `unfreeze_from`
    """

    head_epochs: naming.Natural = 50
    epochs: naming.Count = 5
    learning_rate: Rate = 1e-5
    rate_decay: naming.NotNegative = 1 / 2.6
    warmup: naming.Fraction = 0.1
    patience: naming.Natural = 5
    batch_norm: bool = False


def fine_tune(
    model: Model,
    data: Any,
    validation_data: Any = None,
    *,
    stages: Sequence[str | Layer | Stage],
    base: str | Layer | None = None,
    monitor: str | None = None,
    prove: bool = False,
    **settings: Any,
) -> list[tuple[str, History]]:
    """Train the head with the base frozen, then unfreeze the base from the top, stage by stage.

    Args:
        model: compiled. Its optimizer trains the head; each stage has a fresh one like it.
        data, validation_data: (x, y), (x, y, sample_weight), or an iterable of batches.
        stages: from the top down: layers or blocks ('block5', 'block4'), or a Stage for each.
        base: what is pretrained: a model inside `model`, or one whose layers `model` is made of.
            When None: the only model with weights inside `model`, else what is frozen now.
        monitor: what should improve; 'val_loss' when None, or 'loss' where nothing is held out.
        prove: print `proof_of_freezing` after every stage.
        settings: those of `Pace`, and more arguments of `Model.fit`. Of cache_features='F.h5' the
            stages make F-stage-1.h5, F-stage-2.h5, ... With BackupAndRestore among the callbacks,
            the same program goes on after a power cut, to the same bits, at the stage it was in.

    The best weights by `monitor` are carried on, and the model's in the end: a stage that does not
    improve on them is undone. Returns (name of the stage, History) for each. Raises ValueError
    before anything has changed: for unknown names or bases, or a stage that unfreezes nothing.
    """
    known = {*inspect.signature(fine_tune).parameters, *inspect.signature(Model.fit).parameters}
    of_pace = {field.name for field in fields(Pace)}
    naming.complain_about_unknown(settings, (known | of_pace) - {"x", "y", "settings"}, "fine_tune")
    model.need_compile("fine_tune")
    pace = Pace(**{name: settings[name] for name in settings.keys() & of_pace})
    fit = {name: settings[name] for name in settings if name not in of_pace}
    pretrained = _base_layers(model, base)
    plan = _plan(model, pretrained, stages, pace.batch_norm)
    held_out = validation_data is not None or fit.get("validation_split")
    monitor = monitor or ("val_loss" if held_out else "loss")
    best = _Best(monitor, patience=pace.patience, restore_best_weights=True)
    fit["validation_data"] = validation_data
    training = _Training(model, data, fit, best, pace.warmup)
    before = [(each, each.trainable, each.rate_multiplier) for each in walk(model)]
    try:
        _tune(training, pace, plan, pretrained, prove)
    except BaseException:
        if not training.histories and not model.optimizer.iterations:  # nothing was trained
            model.optimizer = training.compiled
            for each, flag, multiplier in before:  # what holds others comes first
                each.trainable, each.rate_multiplier = flag, multiplier
            for each, flag, _ in before:
                each.mark_trainable(flag)
        raise
    training.remove_backups()
    return training.histories


def _tune(training: Any, pace: Pace, plan: Any, pretrained: Sequence[Layer], prove: bool) -> None:
    model = training.model
    for each in pretrained:
        each.trainable = False
    if pace.head_epochs:
        training.run("head", pace.head_epochs, None, prove)
    else:
        training.best.carried = training.as_it_is()
    for k, (stage, layers) in enumerate(plan, start=1):
        _unfreeze(model, layers)
        multiplier = pace.rate_decay**k if stage.multiplier is None else stage.multiplier
        for each in layers:
            each.rate_multiplier = multiplier
        where = stage.unfreeze if isinstance(stage.unfreeze, str) else stage.unfreeze.name
        rate = pace.learning_rate if stage.learning_rate is None else stage.learning_rate
        training.run(f"{where} unfrozen", stage.epochs or pace.epochs, rate, prove)


def check_stages(base: Model, stages: Sequence[str | Layer | Stage]) -> None:
    """Raise the ValueError that `fine_tune` of a model on this base would, before any work."""
    _plan(base, leaves(base), stages, batch_norm=False)


def _base_layers(model: Model, base: str | Layer | None) -> list[Layer]:
    """The pretrained layers with weights."""
    there = [each for each in leaves(model) if each.weights]
    nested = [m for m in model.sublayers() if isinstance(m, Model) and m.weights]
    if base is None and len(nested) == 1:
        base = nested[0]
    elif base is None:
        if found := [each for each in there if not each.trainable]:
            return found
        how = "pass base=..., the model that the layers come from, or freeze them first"
        raise ValueError(f"fine_tune cannot tell what is pretrained: {how}")
    outer = [base] if isinstance(base, Layer) else find_layers(model, base)
    found = [each for one in outer for each in leaves(one) if each.weights]
    if missing := [e.name for e in found if not any(e is other for other in there)]:
        raise ValueError(f"{model.name!r} does not have the base's layers {', '.join(missing)}")
    if len(found) == len(there):
        raise ValueError(f"all layers of {model.name!r} are the base's: there is no head")
    return found


def _plan(
    model: Model, pretrained: list[Layer], stages: Sequence[str | Layer | Stage], batch_norm: bool
) -> list[tuple[Stage, list[Layer]]]:
    """The stages, with the layers that each of them unfreezes."""
    waiting = {id(each) for each in pretrained if each.weights}
    plan = []
    for one in [stages] if isinstance(stages, (str, Layer, Stage)) else stages:
        stage = one if isinstance(one, Stage) else Stage(one)
        found = _not_before(model, stage.unfreeze, batch_norm)
        layers = [each for each in found if id(each) in waiting]
        if not layers:
            what = f"the stage {stage.unfreeze!r} unfreezes no layer of the base"
            raise ValueError(f"{what} that is not already unfrozen; stages go from the top down")
        waiting -= {id(each) for each in layers}
        plan.append((stage, layers))
    return plan


class _Training:
    """A fine-tuning on its way: one `fit` after another, each with a fresh optimizer."""

    def __init__(self, model: Model, data: Any, fit: dict[str, Any], best: _Best, warmup: float):
        self.model, self.compiled, self.best, self.warmup = model, model.optimizer, best, warmup
        self.histories: list[tuple[str, History]] = []
        given = data if isinstance(data, (tuple, list)) else (data, None)
        if len(given) not in (2, 3):
            raise ValueError("data must be (x, y), (x, y, sample_weight) or an iterable of batches")
        x, y, weights = (*given, None)[:3]
        callbacks = fit.get("callbacks") or []
        callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
        self.fit = fit | {"x": x, "y": y, "callbacks": callbacks}
        if weights is not None:
            self.fit["sample_weight"] = weights

    def run(self, name: str, epochs: int, rate: Rate | None, prove: bool) -> None:
        """One stage. With no rate, the optimizer is the compiled one."""
        model, number, told = self.model, len(self.histories) + 1, self.fit.get("verbose", 1)
        model.optimizer = self.compiled.clone()
        model.optimizer.forget()
        callbacks: list[Callback] = [self.best]
        for each in self.fit["callbacks"]:
            if isinstance(each, BackupAndRestore):
                # A folder of the stage's own: what it keeps is needed until all are finished.
                each = copy.copy(each)
                each.backup_dir /= f"stage-{number}"
                each.delete_checkpoint = False
            callbacks.append(each)
        if isinstance(rate, (int, float)):
            callbacks.insert(0, _WarmUpAndCosine(rate, self.warmup))
        elif rate is not None:
            model.optimizer.replace_rate(rate)
        fit = self.fit | {"epochs": epochs, "callbacks": callbacks}
        cache = fit.get("cache_features")
        if isinstance(cache, (str, Path)):  # each stage has features of its own
            at = Path(cache)
            fit["cache_features"] = at.with_name(f"{at.stem}-stage-{number}{at.suffix}")
        if told:
            learns = sum(v.storage.size for v in model.trainable_weights)
            print(f"Stage {number}, {name}: {learns:,} parameters learn.", flush=True)
        with proof_of_freezing(model) if prove else contextlib.nullcontext():
            self.histories.append((name, model.fit(**fit)))
        if told:
            print(self.best.report(), flush=True)
        if rate is not None:
            model.optimizer.replace_rate(rate)

    def remove_backups(self) -> None:
        """Those of the stages, which are needed until all have been trained."""
        for callback in self.fit["callbacks"]:
            if isinstance(callback, BackupAndRestore) and callback.delete_checkpoint:
                for folder in callback.backup_dir.glob("stage-*"):
                    shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(OSError):
                    callback.backup_dir.rmdir()  # unless somebody keeps something else there

    def as_it_is(self) -> tuple[float, list[np.ndarray]] | None:
        """(what is monitored, weights) before anything learns; None of streams: they may change."""
        model, fit, monitor = self.model, self.fit, self.best.monitor
        size, share = fit.get("batch_size"), fit.get("validation_split")
        held_out: Any = fit["validation_data"]
        if held_out is not None:
            size = fit.get("validation_batch_size") or size
        elif share and not is_stream(fit["x"]):
            data = source_of(model, fit["x"], fit["y"], fit.get("sample_weight"), size)
            last = parted(data, share)[1]
            held_out = last.x, last.y, last.weight
        if held_out is None or is_stream(held_out) or not monitor.startswith("val_"):
            return None
        x, y, weight = (*held_out, None)[:3]
        found = model.evaluate(x, y, size, 0, weight, return_dict=True)
        value = found.get(monitor.removeprefix("val_"))
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
        rate = self.rate
        self.model.optimizer.replace_rate(rate)
        if params.get("steps"):  # else it is a stream of unknown length
            steps = params["steps"] * params["epochs"]
            up = min(round(self.warmup * steps), steps - 1)
            warm_up: Any = {"warmup_target": rate, "warmup_steps": up}
            self.model.optimizer.learning_rate = CosineDecay(rate / (up + 1), steps - up, **warm_up)


guard(globals())
