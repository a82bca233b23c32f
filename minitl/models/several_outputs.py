"""Settings of a model with several outputs: a list in their order, or a dict by their names."""

from collections.abc import Sequence
from typing import Any

from minitl.naming import did_you_mean


def in_order(model: Any, logs: dict[str, Any]) -> list[Any]:
    """Keras's order of what `evaluate` returns: the losses, then the metrics by their names."""
    losses = sum(loss is not None for loss in model.compiled.losses)
    first = len(logs) if model.own_steps else 1 + losses * (losses > 1)
    names = list(logs)
    return [logs[name] for name in [*names[:first], *sorted(names[first:])]]


def per_output(value: Any, what: str, names: Sequence[str]) -> list[Any]:
    """A setting for each of the outputs, which have these names; `what` is said in errors."""
    n = max(len(names), 1)
    if isinstance(value, dict) and "class_name" not in value:
        for name in value:
            if name not in names:
                raise ValueError(f"{what} names the output {name!r}. {did_you_mean(name, names)}")
        value = [value.get(name) for name in names]
    if isinstance(value, (list, tuple)):
        if len(value) != n:
            raise ValueError(f"{what} has {len(value)} entries for {n} outputs")
        alone = what == "loss"  # which may stand in a list of its own
        return [v[0] if alone and isinstance(v, list) and len(v) == 1 else v for v in value]
    return [value] * n


def metric_rows(settings: Any, names: Sequence[str]) -> list[list[Any]]:
    """The metrics of each output, from lists, single ones, or a dict."""
    rows = per_output(settings, "metrics", names)
    lists = [list(row) if isinstance(row, (list, tuple)) else [row] for row in rows]
    return [[each for each in row if each is not None] for row in lists]
