"""The table that `Model.summary` prints, and a notebook shows."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minitl.layers.base import Layer
from minitl.layers.core import InputLayer
from minitl.models.arguments import guard
from minitl.models.fusing import Step
from minitl.models.model import Model
from minitl.naming import Count, did_you_mean
from minitl.storage.atomic import visible
from minitl.transfer.cut import find_cut


def summary(
    model: Model,
    line_length: Count | None = None,
    positions: Any = None,
    print_fn: Callable[[str], None] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Sequence[str] | None = None,
    *,
    fused: bool = False,
) -> None:
    """Print a table of the layers: output shape, parameters, multiply-adds, trainable.

    Args:
        line_length: total width; as wide as needed when None.
        print_fn: called with the whole text, instead of print.
        expand_nested: show the layers of models inside this one.
        layer_range: (first, last): only the layers from one name to another, both included. Each
            is a regular expression that a name begins with. Totals are the model's.
        positions, show_trainable: Keras's, for what is always shown.
        fused: below, a line for all calls that `predict` computes at once; see `models/fusing.py`.

    Raises ValueError when no layer has a name of `layer_range`.
    """
    layers = list(model.sublayers())
    if layer_range is not None:
        if isinstance(layer_range, str) or len(layer_range) != 2:
            text = "layer_range is (first, last), two names of layers, got"
            raise ValueError(f"{text} {layer_range!r}")
        ends = []
        for name in layer_range:
            fitting = [i for i, layer in enumerate(layers) if re.match(name, layer.name)]
            if not fitting:
                near = did_you_mean(name, [layer.name for layer in layers])
                raise ValueError(f"layer_range: no layer is called {name!r}. {near}")
            ends.append(fitting)
        first, last = sorted(ends)  # whichever begins first
        layers = layers[first[0] : last[-1] + 1]
    table = _table(model, layers, expand_nested, line_length)
    (print_fn or print)("\n".join([table, *(_at_once(model) if fused else ())]))


def _at_once(model: Model) -> list[str]:
    """What `predict` computes at once, a line for each: none after `use_kernels("reference")`."""
    found = (step.calls for step in model.graph.steps() if isinstance(step, Step))
    lines = [" + ".join(visible(call.layer.name) for call in calls) for calls in found]
    return [f" Computed at once by predict: {line}" for line in lines]


def _table(model: Model, layers: list[Layer], expand: bool, line_length: int | None) -> str:
    columns, rows, totals = parts(model, layers, expand)
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    if line_length:
        widths[0] += max(0, min(line_length, 10_000) - sum(widths) - 3 * (len(widths) - 1))
    aligned = "<<>><<"  # numbers to the right

    def line(cells: Sequence[str]) -> str:
        texts = [f"{c:{a}{w}}" for c, a, w in zip(cells, aligned, widths, strict=False)]
        return " | ".join(texts).rstrip()

    rule = "-+-".join("-" * w for w in widths)
    body = [line(columns), rule, *map(line, rows), rule]
    return "\n".join([f'Model: "{visible(model.name)}"', *body, *(f" {total}" for total in totals)])


def parts(
    model: Model, layers: list[Layer] | None = None, expand: bool = False
) -> tuple[list[str], list[list[str]], list[str]]:
    """The table as its columns' names, its rows, and what stands below: numbers of the model."""
    columns = ["Layer (type)", "Output Shape", "Param #", "Multiply-adds", "Trainable"]
    many_inputs = any(len(call.inputs) != 1 for call in model.graph.calls)
    if many_inputs or any(n > 1 for n in model.graph.readers.values()):  # no chain of layers
        columns.append("Connected to")
    found = _rows(model, expand, list(model.sublayers()) if layers is None else layers)
    rows = [[visible(cell) for cell in row[: len(columns)]] for row in found]
    total = model.count_params()
    learns = sum(v.storage.size for v in model.trainable_weights)
    counts = {"Total": total, "Trainable": learns, "Non-trainable": total - learns}
    lines = [f"{what} params: {_params(n, model.dtype)}" for what, n in counts.items()]
    lines.append(f"Multiply-adds per sample: {model.multiply_adds():,}")
    if learns and (cut := find_cut(model)) is not None:
        size = f"{cut.width * cut.dtype.itemsize:,} bytes per sample"
        lines.append(f"Kept by fit: {visible(cut.describe())}, {size}; saves {cut.share()} of them")
    return columns, rows, lines


def _rows(model: Model, expand: bool, layers: list[Layer], indent: str = "") -> list[list[str]]:
    first_call = {id(call.layer): call for call in reversed(model.graph.calls)}
    rows: list[list[str]] = []
    for layer in layers:
        call = first_call.get(id(layer))
        shape: Any = layer.batch_shape if isinstance(layer, InputLayer) else "?"
        if call:
            shapes = [t.shape for t in call.outputs]
            shape = shapes if len(shapes) > 1 else shapes[0]
        kind = "Functional" if type(layer) is Model else type(layer).__name__
        work = call.multiply_adds() if call else 0
        learning = sum(v.storage.size for v in layer.trainable_weights)
        partly = isinstance(layer, Model) and learning != layer.count_params()
        trainable = ("part" if partly else "yes") if learning else "no" if layer.weights else "-"
        name, parameters = f"{indent}{layer.name} ({kind})", f"{layer.count_params():,}"
        inputs = ", ".join(t.name for t in call.inputs) if call else "-"
        rows.append([name, str(shape), parameters, f"{work:,}", trainable, inputs])
        if expand and isinstance(layer, Model):
            rows += _rows(layer, expand, layer.all_layers, indent + "  ")
    return rows


def _params(count: int, dtype: str) -> str:
    """'14,714,688 (56.13 MB)'"""
    size = float(count * np.dtype(dtype).itemsize)
    i = min(int(math.log(size, 1024)), 3) if size >= 1 else 0
    return f"{count:,} ({size / 1024**i:.2f} {('B', 'KB', 'MB', 'GB')[i]})"


guard(globals())
