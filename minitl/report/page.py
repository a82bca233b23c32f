"""The page: what was trained, judged or checked, in one HTML file that needs nothing beside itself.

A `Report` is filled with what is known, in any order, and `write` makes a file of it; what was not
given has no section. Pictures, charts and style are inside the file: it holds no script, fetches
nothing, and its own policy (Content-Security-Policy) has the browser refuse both. Names of files
and classes come from strangers: the template escapes every one. Jinja2 is imported only to write.
"""

import base64
import io
import itertools
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from minitl.judging import evaluation
from minitl.judging.duplicates import as_pillow
from minitl.naming import check_keywords
from minitl.report import charts, tables
from minitl.storage.atomic import visible, writing
from minitl.storage.door import extra

WRONG, UNSURE, ON_MAP, OF_A_KIND = 24, 12, 160, 24  # pictures that are shown, at most
CLASSES = 30  # of a confusion matrix that is still read
Read = Callable[[int], np.ndarray]  # the row of a picture -> (H, W, 3), 0-255

# From dark to bright, by way of colours that few photographs have: black, violet, orange, yellow.
HEAT = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]])
FIGURES = {
    "accuracy": ("Accuracy", "share of the pictures whose class was told right"),
    "log_loss": ("Log loss", "of the true classes' probabilities; 0 is best"),
    "calibration_error": ("Calibration error", "by how much it is surer than it is right"),
}


class Shown(NamedTuple):
    """A picture on the page, and what is said of it."""

    image: str  # data URI
    name: str
    said: str
    heat: str = ""  # the same under Grad-CAM's heat


class Kind(NamedTuple):
    """Findings of one kind: how many were found, and some of them."""

    title: str
    why: str
    found: int
    rows: list[tuple[str, list[Shown]]]  # what is said, and the pictures that it is about


@dataclass
class Report:
    """What one page tells. Fill it, then `write(path)`; `html()` is the page as a string.

    title, lead   a heading, and a sentence below it
    command       what was typed, to be typed again
    facts         {what: value}, in order
    figures       {"of what": {'accuracy': {'value', 'low', 'high'}, 'log_loss': ...}}
    notes         sentences that a reader must not miss
    root          a folder; paths in it are shown without it
    """

    title: str
    lead: str = ""
    command: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    figures: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    root: str = ""

    def __post_init__(self) -> None:
        self.evaluation: evaluation.Evaluation | None = None
        self.curves: list[tuple[str, str, str]] = []
        self.wrong: list[Shown] = []
        self.unsure: list[Shown] = []
        self.wrong_count = 0
        self.map = ""
        self.map_caption = ""
        self.legend: list[tuple[str, str]] = []
        self.kinds: list[Kind] = []
        self.checked = False

    def add_history(self, history: Any) -> None:
        """Learning curves of what `fit` returned, or of [(stage, history), ...]."""
        self.curves = charts.learning_curves(history)

    @check_keywords
    def add_predictions(
        self,
        y_true: Any,
        probabilities: Any,
        class_names: Sequence[str],
        paths: Sequence[str],
        read: Read,
        heat: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> None:
        """All that is told by the truth (N,) and p (N, m): numbers, and pictures that went wrong.

        `read(i)` gives picture i as (H, W, 3), 0-255; `heat(pixels, classes)` for (n, H, W, 3) and
        (n,) gives maps (n, H, W), 0-1, of what spoke for these classes. Pictures that cannot be
        read any more are left out.
        """
        p = evaluation.check_probabilities(probabilities)
        truth = evaluation.check_labels(y_true, *p.shape)
        if len(paths) != len(p):
            raise ValueError(f"paths must be {len(p)}, one for each picture, got {len(paths)}")
        found = evaluation.evaluate_predictions(truth, p, class_names)
        guess, rows = p.argmax(axis=1), np.arange(len(p))
        wrong = np.flatnonzero(guess != truth)
        wrong = wrong[np.argsort(-p[wrong, guess[wrong]], kind="stable")]
        two = np.sort(p, axis=1)[:, -2:]
        unsure = np.argsort(two[:, 1] - two[:, 0], kind="stable")
        unsure = unsure[p[unsure].max(axis=1) < 0.9]

        def said(i: int) -> str:
            return f"{class_names[guess[i]]} {p[i].max():.0%}"

        pictures: tuple[list[Shown], list[Shown]] = [], []
        pixels = _readable(wrong[:WRONG], read)
        heats: Any = [None] * len(pixels)
        if heat is not None and pixels:
            heats = heat(np.stack(list(pixels.values())), guess[list(pixels)])
        for (i, image), each in zip(pixels.items(), heats, strict=True):
            text = f"said {said(i)}, is {class_names[truth[i]]}"
            over = "" if each is None else data_uri(heated(image, each))
            pictures[0].append(Shown(data_uri(image), self._name(paths[i]), text, over))
        for i, image in _readable(rows[unsure[:UNSURE]], read).items():
            order = np.argsort(-p[i], kind="stable")[:2]
            text = " or ".join(f"{class_names[c]} {p[i, c]:.0%}" for c in order)
            text += f"; is {class_names[truth[i]]}"
            pictures[1].append(Shown(data_uri(image, 160), self._name(paths[i]), text))
        self.evaluation, self.wrong_count = found, len(wrong)
        self.wrong, self.unsure = self.wrong + pictures[0], self.unsure + pictures[1]

    @check_keywords
    def add_map(self, features: Any, labels: Any, class_names: Sequence[str], read: Read) -> None:
        """F (N, D) in the plane in which it varies most (PCA), some pictures drawn in their places.

        labels (N,) integers, or None.
        """
        f = np.asarray(features, np.float32)
        if f.ndim != 2:
            raise ValueError(f"features must be F (N, D), got {f.shape}")
        if len(f) < 3:
            return
        centred = f - f.mean(axis=0)
        rng = np.random.default_rng(0)
        places, share = plane(centred, rng)
        chosen = rng.permutation(len(f))[:ON_MAP]
        some = {i: data_uri(image, 56, 70) for i, image in _readable(chosen, read).items()}
        self.map = charts.feature_map(places, labels, some)
        self.map_caption = f"{len(f)} pictures; the plane holds {share:.0%} of what varies in F."
        if labels is not None:
            colours = itertools.cycle(charts.COLOURS)
            self.legend = list(zip(class_names[:CLASSES], colours, strict=False))

    def add_findings(
        self, kinds: Iterable[tuple[str, str, Sequence[Any]]], read: Callable[[str], np.ndarray]
    ) -> None:
        """What `check` found: (title, why it matters, findings), each with `said` and `paths`."""
        self.checked = True
        for title, why, findings in kinds:
            rows = []
            for finding in findings[:OF_A_KIND]:
                shown = []
                for path in finding.paths:
                    try:
                        image = data_uri(read(path), 112, 75)
                    except OSError:
                        image = ""
                    shown.append(Shown(image, self._name(path), ""))
                rows.append((finding.said, shown))
            self.kinds.append(Kind(title, why, len(findings), rows))

    def _name(self, path: str) -> str:
        return os.path.relpath(path, self.root) if self.root else path

    def html(self) -> str:
        """The page as a string; raises as `template`."""
        page, found = template(), self.evaluation
        parts = {
            "confusion": found and len(found.class_names) <= CLASSES and tables.confusion(found),
            "by_class": found and tables.by_class(found),
            "calibration": found and charts.calibration(found.reliability),
            "names": FIGURES,
            "when": time.strftime("%Y-%m-%d %H:%M"),
        }
        return page.render(report=self, **parts)

    @check_keywords
    def write(self, path: str | os.PathLike[str]) -> None:
        """The page as a file, whole or not at all."""
        text = self.html()
        with writing(path) as file:
            file.write(text)


def template() -> Any:
    """The page without what it tells. Raises ImportError, which says what to install, where there
    is no Jinja2."""
    with extra("the report needs Jinja2", "report"):
        from jinja2 import Environment, PackageLoader, StrictUndefined
    environment = Environment(
        loader=PackageLoader("minitl.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda v: visible(v) if type(v) is str else v,  # markup is of another type
    )
    return environment.get_template("page.html")


def data_uri(image: Any, side: int = 224, quality: int = 80) -> str:
    """A picture (H, W, 3), 0-255, or a Pillow image, as a JPEG of at most `side` pixels."""
    image = as_pillow(image).convert("RGB")
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def heated(image: Any, heat: Any) -> np.ndarray:
    """A picture (H, W, 3), 0-255, in gray under the colours of its heat (H, W): (H, W, 3)."""
    heat = np.asarray(heat, float)
    steps = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(heat, steps, HEAT[:, c]) for c in range(3)], axis=-1)
    gray = np.asarray(image, float).mean(axis=-1, keepdims=True)
    strength = 0.25 + 0.5 * heat[..., np.newaxis]
    return (1 - strength) * gray + strength * colours


def _readable(rows: Iterable[int], read: Read) -> dict[int, np.ndarray]:
    found = {}
    for row in rows:
        try:
            found[int(row)] = read(int(row))
        except OSError:  # gone, or broken, since it was judged
            continue
    return found


def plane(centred: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """The two main components of centred features (N, D), as (N, 2), and their share of the
    variance. A random projection finds them in a few products (Halko, Martinsson & Tropp 2011)."""
    few = min(12, *centred.shape)
    start = rng.standard_normal((centred.shape[1], few)).astype(np.float32)
    for _ in range(4):
        basis = np.linalg.qr(centred @ start)[0]
        start = centred.T @ basis
    _, values, axes = np.linalg.svd(basis.T @ centred, full_matrices=False)
    places = centred @ axes[:2].T
    if places.shape[1] < 2:
        places = np.column_stack([places, np.zeros(len(places))])
    places *= np.where(places[np.abs(places).argmax(axis=0), [0, 1]] < 0, -1, 1)
    return places, float((values[:2] ** 2).sum() / max((centred**2).sum(), 1e-30))
