"""Tables as HTML for pages and notebooks: an `Evaluation`, a `History`, a `Model`.

A notebook shows an object by its `_repr_html_`; these functions are what stands behind the name.
They need nothing beside NumPy, and every name in them is escaped.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minitl.judging import summary
from minitl.judging.evaluation import Evaluation
from minitl.judging.plots import best_of
from minitl.report.charts import BLUE, RED, escaped, learning_curves

_STYLE = "text-align:left;font-weight:normal;overflow-wrap:anywhere;max-width:24em"
ROW = f'<th scope="row" style="{_STYLE}">'  # in front of a row's name


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """A table of texts; the first column names the rows, all others are to the right."""
    top = "".join(f'<th scope="col">{escaped(name)}</th>' for name in head)
    lines = []
    for first, *others in rows:
        cells = "".join(f'<td style="text-align:right">{escaped(cell)}</td>' for cell in others)
        lines.append(f"<tr>{ROW}{escaped(first)}</th>{cells}</tr>")
    return f"<table><thead><tr>{top}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def by_class(found: Evaluation) -> str:
    """Precision, recall, F1 and the number of pictures of every class."""
    columns = zip(found.precision, found.recall, found.f1, found.support, strict=True)
    rows = [
        (name, *(number(value, 3) for value in three), images)
        for name, (*three, images) in zip(found.class_names, columns, strict=True)
    ]
    return table(("class", "precision", "recall", "F1", "pictures"), rows)


def confusion(found: Evaluation) -> str:
    """The confusion matrix: rows are the true classes, columns the predicted, by their numbers."""
    share = found.confusion / np.maximum(found.confusion.sum(axis=1, keepdims=True), 1)
    head = "".join(
        f'<th scope="col"><abbr title="{escaped(name)}">{i}</abbr></th>'
        for i, name in enumerate(found.class_names, 1)
    )
    lines = []
    for i, (name, counts) in enumerate(zip(found.class_names, found.confusion, strict=True)):
        cells = ""
        for j, count in enumerate(counts):
            colour = BLUE if i == j else RED
            mixed = f"background:color-mix(in srgb,{colour} {55 * share[i, j]:.0f}%,transparent)"
            weight = "font-weight:bold;" if i == j else ""
            cells += f'<td style="text-align:center;{weight}{mixed}">{count}</td>'
        lines.append(f"<tr>{ROW}{i + 1} · {escaped(name)}</th>{cells}</tr>")
    corner = '<th scope="col">true \\ predicted</th>'
    body = f"<thead><tr>{corner}{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<table class="confusion">{body}</table>'


def evaluation_html(found: Evaluation) -> str:
    """An Evaluation for a notebook."""
    names = ("accuracy", "weighted_accuracy", "macro_f1", "weighted_f1", "auc", "calibration_error")
    means = [(name.replace("_", " "), getattr(found, name)) for name in names]
    rows = [(name, number(value)) for name, value in means if value is not None]
    matrix = confusion(found) if len(found.class_names) <= 40 else ""
    pieces = (table(("", "of all pictures"), rows), by_class(found), matrix)
    boxes = "".join(f"<div>{piece}</div>" for piece in pieces if piece)
    return f'<div style="display:flex;flex-wrap:wrap;gap:1.5em">{boxes}</div>'


def history_text(history: Any) -> str:
    """A History in a line: how many epochs, and of each metric the last and the best value."""
    epochs = len(history.epoch)
    said = []
    for name, values in history.history.items():
        text = f"{name} {values[-1]:.4g}"
        if name.startswith("val_") and len(values) > 1 and np.isfinite(values).any():
            best = best_of(name, values)
            text += f" (best {values[best]:.4g}, epoch {best + 1})"
        said.append(text)
    plural = "" if epochs == 1 else "s"
    return f"<History: {epochs} epoch{plural}{'; ' * bool(said)}{', '.join(said)}>"


def history_html(history: Any) -> str:
    """A History for a notebook: its curves, and every number of every epoch to unfold."""
    if not any(history.history.values()):
        return f"<p>{escaped(history_text(history))}</p>"
    boxes = "".join(
        f'<figure style="flex:1 1 18rem;max-width:30rem;margin:0"><b>{escaped(title)}</b>{svg}'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
        for title, svg, caption in learning_curves(history)
    )
    names = list(history.history)
    epochs = range(max(map(len, history.history.values())))
    rows = [
        (i + 1, *(number(v[i]) if i < len(v) else "-" for v in history.history.values()))
        for i in epochs
    ]
    numbers = f"<details><summary>every epoch</summary>{table(('epoch', *names), rows)}</details>"
    return f'<div style="display:flex;flex-wrap:wrap;gap:1.5em">{boxes}</div>{numbers}'


def model_html(model: Any) -> str:
    """A Model for a notebook: the table of `summary`, and what its metadata say."""
    if not getattr(model, "outputs", None):
        return f"<p>{escaped(repr(model))}</p>"
    head, rows, totals = summary.parts(model)
    about = "".join(f"<li>{escaped(line)}</li>" for line in totals)
    told = [(name, value) for name, value in model.metadata.items()]
    facts = f"<details><summary>metadata</summary>{table(('', ''), told)}</details>" if told else ""
    return f"<b>{escaped(model.name)}</b>{table(head, rows)}<ul>{about}</ul>{facts}"
