"""The pages that commands write: what they know of a model and its pictures, put into a `Report`.

`train` and `evaluate` call `judged`.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minitl.cli.folders import check_output
from minitl.data import Pictures
from minitl.data.pictures import read_picture
from minitl.judging.checks import Check
from minitl.judging.grad_cam import grad_cam
from minitl.models import Model
from minitl.report import Report
from minitl.report.page import template
from minitl.storage.atomic import visible

MARK = b'<p class="eyebrow">minitl report</p>'  # in every page


def check_page(path: str) -> None:
    """Before the work: whether a page can be made and written to `path`, which ends in .html."""
    check_output(path, (".html",))
    template()


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
        with warnings.catch_warnings():  # a few pictures may well be bright, all of them
            warnings.simplefilter("ignore")
            return grad_cam(model, prepare(pixels), classes)

    names, labels = model.metadata["class_names"], pictures.labels
    report.add_predictions(labels, p, names, pictures.paths, pictures.__getitem__, heat)
    return report


def facts_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """What a model's metadata say of it, in words: {what: value}."""
    came = metadata.get("provenance", {})
    told: dict[str, Any] = {k: v for k, v in metadata.items() if k in ("size", "resizing")}
    told |= {k: v for k, v in came.items() if v not in ("", None, [], {})}
    return {name.replace("_", " "): words(value) for name, value in told.items()}


def words(value: Any) -> str:
    """A value of a model's metadata, as a reader would write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {words(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(words, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else visible("" if value is None else value)


def page_of(given: str | None, out: Path) -> Path | None:
    """Where `train` writes its page: as asked, else beside the model; None where there is none.

    Raises what `check_page` does for a page that was asked for. Without Jinja2, and where another's
    file has that name, one that was not asked for is left out, and that is said.
    """
    if given == "none":
        return None
    if given:
        check_page(given)
        return Path(given)
    path = out.with_suffix(".html")
    try:
        template()
        if path.exists() and MARK not in path.read_bytes():
            raise ValueError(f"{path} is no report of minitl's, and stays; --report gives another")
    except (ImportError, OSError, ValueError) as error:
        print(f"minitl: no report is written: {error}", file=sys.stderr)
        return None
    return path


def trained(arguments: argparse.Namespace, learning: Any, p: np.ndarray, out: Path) -> Report:
    """The page of a training: p (N, m) is what was said of the images held out."""
    images, about, model = learning.images, learning.about, learning.model
    held_out = images.every.part(images.validation)
    title = f"{out.name}, trained on {Path(arguments.directory).absolute().name}"
    report = judged(arguments, model, learning.prepare, held_out, p, title)
    report.lead = f"{len(images.names)} classes: {len(images.training)} pictures to train on, "
    report.lead += f"{len(held_out)} held out to judge by."
    sources = {"validation": f"On the {len(held_out)} pictures held out"}
    sources["folds"] = "In repeated folds of all pictures, each judged by heads without it"
    found = about["figures"]
    report.figures = {text: found[key] for key, text in sources.items() if key in found}
    report.facts = facts_of(about)
    if histories := [(name, h) for name, h in learning.histories if h.epoch]:
        report.add_history(histories)
    sides = np.full(len(images.every), "training")
    sides[images.validation] = "validation"
    every, solved = images.every, learning.solved
    looked = Check(every.paths, images.labels, images.names, sides, every.faults)
    looked.thumbnails = dict(enumerate(images.thumbnails))
    looked.pictures(every.digests)
    if solved is not None:
        f, rows = solved.features(solved.judged), solved.judged
        try:
            looked.labels_and_outliers(f, rows, solved.p.mean(axis=0))
        except ImportError as error:
            report.notes.append(f"Labels were not looked at: {error}")
        report.add_map(f, images.labels[rows], images.names, lambda i: every[int(rows[i])])
    report.add_findings(looked.by_kind(), lambda path: read_picture(path, 160))
    return report
