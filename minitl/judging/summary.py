"""The table that `Model.summary` prints."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minitl.layers.base import Call, Layer
from minitl.layers.core import InputLayer
from minitl.models.model import Model
from minitl.naming import did_you_mean
from minitl.transfer.cut import find_cut


def _layers_between(layers: list[Layer], names: Sequence[str] | None) -> list[Layer]:
    """The layers from the first whose name fits one of `names` to the last that fits the other."""
    if names is None:
        return layers
    if isinstance(names, str) or len(names) != 2:
        raise ValueError(f"layer_range is (first, last), two names of layers, got {names!r}")
    fitting = [[i for i, a in enumerate(layers) if re.match(name, a.name)] for name in names]
    for name, found in zip(names, fitting, strict=True):
        if not found:
            raise ValueError(
                f"layer_range: no layer is called {name!r}. "
                f"{did_you_mean(name, [layer.name for layer in layers])}"
            )
    first, last = sorted(fitting)  # whichever begins first
    return layers[first[0] : last[-1] + 1]


def summary(
    model: Model,
    line_length: int | None = None,
    positions: Any = None,
    print_fn: Callable[[str], None] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
) -> None:
    """Print a table of the layers: output shape, parameters, multiply-adds, trainable.

    Args:
        line_length: total width; as wide as needed when None.
        print_fn: called with the whole text, instead of print.
        expand_nested: show the layers of models inside this one.
        layer_range: (first, last): only the layers from one name to another, both included. Each
            is a regular expression that a name begins with. Totals are the model's.
        positions, show_trainable: Keras's. Columns are as wide as what stands in them, and what is
            trainable is always shown.

    Raises ValueError when no layer has a name of `layer_range`.
    """
    layers = _layers_between(model.all_layers, layer_range)
    (print_fn or print)(_table(model, layers, expand_nested, line_length))


def _table(model: Model, layers: list[Layer], expand: bool, line_length: int | None) -> str:
    rows = _rows(model, expand, layers)
    chain = all(len(call.inputs) == 1 for call in model.graph.calls) and not any(
        n > 1 for n in model.graph.readers.values()
    )
    columns = ["Layer (type)", "Output Shape", "Param #", "Multiply-adds", "Trainable"]
    if not chain:
        columns.append("Connected to")
    rows = [row[: len(columns)] for row in rows]
    widths = [max(len(str(r[i])) for r in [columns, *rows]) for i in range(len(columns))]
    if line_length:
        widths[0] += max(0, line_length - sum(widths) - 3 * (len(widths) - 1))
    right = (2, 3)  # numbers are aligned to the right

    def line(cells: Sequence[Any]) -> str:
        texts = [
            str(c).rjust(w) if i in right else str(c).ljust(w)
            for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return " | ".join(texts).rstrip()

    rule = "-+-".join("-" * w for w in widths)
    total = model.count_params()
    learns = sum(v.storage.size for v in model.trainable_weights)
    text = "\n".join(
        [
            f'Model: "{model.name}"',
            line(columns),
            rule,
            *map(line, rows),
            rule,
            f" Total params: {_params(total, model.dtype)}",
            f" Trainable params: {_params(learns, model.dtype)}",
            f" Non-trainable params: {_params(total - learns, model.dtype)}",
            f" Multiply-adds per sample: {model.multiply_adds():,}",
        ]
    )
    cut = find_cut(model) if learns else None
    if cut is not None:
        size = f"{cut.width * cut.dtype.itemsize:,} bytes a sample"
        text += f"\n Kept by fit: {cut.describe()}, {size}; saves {cut.share()} of them"
    return text


def _rows(model: Model, expand: bool, layers: list[Layer], indent: str = "") -> list[list[Any]]:
    first_call: dict[int, Call] = {}
    for each in model.graph.calls:
        first_call.setdefault(id(each.layer), each)
    rows: list[list[Any]] = []
    for layer in layers:
        call: Call | None = first_call.get(id(layer))
        shape: Any = layer.batch_shape if isinstance(layer, InputLayer) else "?"
        if call:
            shape = (
                call.outputs[0].shape if len(call.outputs) == 1 else [t.shape for t in call.outputs]
            )
        kind = "Functional" if type(layer) is Model else type(layer).__name__
        work = call.multiply_adds() if call else 0
        learning = sum(v.storage.size for v in layer.trainable_weights)
        trainable = "-"
        if layer.weights:
            trainable = "yes" if learning == layer.count_params() else "part" if learning else "no"
            if not isinstance(layer, Model) and learning:
                trainable = "yes"
        rows.append(
            [
                f"{indent}{layer.name} ({kind})",
                str(shape),
                f"{layer.count_params():,}",
                f"{work:,}" if work else "0",
                trainable,
                ", ".join(t.name for t in call.inputs) if call else "-",
            ]
        )
        if expand and isinstance(layer, Model):
            rows += _rows(layer, expand, layer.all_layers, indent + "  ")
    return rows


def _params(count: int, dtype: str) -> str:
    """'14,714,688 (56.13 MB)'"""
    size = float(count * np.dtype(dtype).itemsize)
    units = ["B", "KB", "MB", "GB"]
    i = min(int(math.log(size, 1024)), 3) if size >= 1 else 0
    return f"{count:,} ({size / 1024**i:.2f} {units[i]})"
