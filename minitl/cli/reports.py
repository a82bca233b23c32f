"""The pages that commands write: what they know of a model and its pictures, put into a `Report`.

`train` and `evaluate` call `judged`; `features_too` gives F in the same pass as the probabilities.
"""

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minitl.cli.folders import check_output
from minitl.data import Pictures
from minitl.judging.grad_cam import grad_cam
from minitl.layers import Concatenate
from minitl.models import Model
from minitl.report import Report
from minitl.report.page import template
from minitl.storage.atomic import visible


def check_page(path: str) -> None:
    """Before the work: whether a page can be made and written to `path`, which ends in .html."""
    check_output(path, (".html",))
    template()


def features_too(model: Model) -> Model:
    """From the same images to (N, m + D): the probabilities, and behind them F, what the last layer
    with weights is given."""
    calls = [call for call in model.graph.calls if call.layer.weights and call.inputs[0].ndim == 2]
    if not calls:
        raise ValueError(f"{model.name!r} has no layer on features (N, D): there is no F to show")
    joined = Concatenate(name="probabilities_and_features")([model.output, calls[-1].inputs[0]])
    return Model(model.input, joined, name=model.name)


def judged(
    arguments: argparse.Namespace,
    model: Model,
    prepare: Callable[[np.ndarray], np.ndarray],
    pictures: Pictures,
    p: np.ndarray,
    title: str,
) -> Report:
    """What a model said, p (N, m), of N pictures that were held out; all of them can be read."""
    report = Report(title, command=arguments.command)
    where = os.fspath(arguments.directory)
    report.root = where if os.path.isdir(where) else ""

    def heat(pixels: np.ndarray, classes: np.ndarray) -> np.ndarray:
        return grad_cam(model, prepare(pixels), classes)

    names, labels = model.metadata["class_names"], pictures.labels
    report.add_predictions(labels, p, names, pictures.paths, pictures.__getitem__, heat)
    return report


def facts_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What a model's metadata say of it, in words: {what: value}."""
    came = metadata.get("provenance", {})
    told: dict[str, Any] = {k: v for k, v in metadata.items() if k in ("size", "resizing")}
    told |= {k: v for k, v in came.items() if v not in ("", None, [], {})}

    def words(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{k} {words(v)}" for k, v in value.items())
        if isinstance(value, (list, tuple)):
            return ", ".join(map(words, value))
        return f"{value:.4g}" if isinstance(value, float) else visible(str(value))

    return {name.replace("_", " "): words(value) for name, value in told.items()}
