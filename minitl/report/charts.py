"""Charts as SVG, for pages and notebooks: text stays text, and colours follow the page's.

Each function takes numbers and returns a string of SVG or HTML, in which every name is escaped.
Lines and letters have the colour of the text around them, so that a chart can be read on a light
and on a dark page; series differ in form as well as in colour. `plots` in `judging/` draws the same
with matplotlib, for files.
"""

import html
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minitl.judging.evaluation import ReliabilityBin
from minitl.judging.plots import best_of, joined
from minitl.storage.atomic import visible

# Okabe and Ito's colours, which remain distinct with any kind of colour vision; those that stand
# out from white and from black alike come first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C", "#A0522D")
BLUE, RED = f"var(--blue,{COLOURS[0]})", f"var(--red,{COLOURS[1]})"  # lighter on dark pages
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 20, 34  # margins of a chart, in its units


def escaped(text: Any) -> str:
    """Text for HTML, in attributes too; control characters are shown, not obeyed."""
    return html.escape(visible(str(text)))


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """At most `count` + 1 round numbers from low to high: multiples of 1, 2 or 5 times 10^k.

    >>> ticks(0, 1), ticks(1, 7, 3)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [2.0, 4.0, 6.0])
    """
    unit = 10.0 ** math.floor(math.log10((high - low) / count))
    step = next(unit * n for n in (1, 2, 5, 10, 20) if (high - low) / (unit * n) <= count)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


class Chart:
    """Axes with round numbers, and what is drawn on them, in the numbers' own units."""

    def __init__(
        self,
        across: tuple[float, float],
        up: tuple[float, float],
        size: tuple[int, int] = (380, 230),
        whole: bool = False,
    ):
        self.across, self.up, self.size = across, up, size
        self.parts: list[str] = []
        width, bottom = size[0], size[1] - BOTTOM
        for value in ticks(*across):
            if not whole or value == int(value):
                self.text(self.x(value), bottom + 15, f"{value:g}", "middle")
        for value in ticks(*up):
            y = self.y(value)
            grid = 'stroke="currentColor" stroke-opacity=".15"'
            self.parts.append(f'<path d="M{LEFT} {y:.1f}H{width - RIGHT}" {grid}/>')
            self.text(LEFT - 6, y + 4, f"{value:g}", "end")

    def x(self, value: float) -> float:
        low, high = self.across
        return LEFT + (self.size[0] - LEFT - RIGHT) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.up
        return self.size[1] - BOTTOM - (self.size[1] - TOP - BOTTOM) * (value - low) / (high - low)

    def text(self, x: float, y: float, text: str, anchor: str) -> None:
        how = f'text-anchor="{anchor}" fill="currentColor" fill-opacity=".85"'
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {how}>{escaped(text)}</text>')

    def line(self, x: Iterable[float], y: Iterable[float], colour: str, more: str = "") -> None:
        """A line through the points; where a number is NaN it is broken."""
        points = list(zip(x, y, strict=True))
        path = ""
        for whole, run in itertools.groupby(points, key=lambda p: math.isfinite(p[1])):
            if whole:
                path += "M" + "L".join(f"{self.x(a):.1f} {self.y(b):.1f}" for a, b in run)
        how = f'style="stroke:{colour}" fill="none" stroke-width="2" stroke-linejoin="round"'
        self.parts.append(f'<path d="{path}" {how} {more}/>')

    def dot(self, x: float, y: float, radius: float, how: str) -> None:
        place = f'cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius:g}"'
        self.parts.append(f"<circle {place} {how}/>")

    def svg(self, label: str, across: str, up: str = "") -> str:
        """All of it; `label` says in words what is to be seen, for those who do not see it."""
        width, height = self.size
        self.text((LEFT + width - RIGHT) / 2, height - 3, across, "middle")
        if up:
            self.text(2, 9, up, "start")
        inside = "".join(self.parts)
        how = f'role="img" aria-label="{escaped(label)}" font-size="11" class="chart"'
        style = "width:100%;max-width:30rem;height:auto;font-family:inherit"
        return f'<svg viewBox="0 0 {width} {height}" {how} style="{style}">{inside}</svg>'


def learning_curves(history: Any) -> list[tuple[str, str, str]]:
    """(title, SVG, caption) of every metric by epoch; `history` as for `plots.learning_curves`."""
    series, names, lengths = joined(history)
    found = []
    for key in (k for k in series if not (k.startswith("val_") and k[4:] in series)):
        both = [values for k in (key, f"val_{key}") if (values := series.get(k)) is not None]
        finite = np.concatenate(both)
        finite = finite[np.isfinite(finite)]
        if not len(finite):
            continue
        low, high = float(finite.min()), float(finite.max())
        room = 0.06 * (high - low) or max(abs(high) * 0.1, 1e-3)
        epochs = range(1, sum(lengths) + 1)
        chart = Chart((0.5, len(epochs) + 0.5), (low - room, high + room), whole=True)
        _mark_stages(chart, names, lengths)
        caption, styles = "training (solid)", ("", 'stroke-dasharray="6 4"')
        for values, colour, how in zip(both, (BLUE, RED), styles, strict=False):
            chart.line(epochs, values, colour, how)
            if len(epochs) <= 30:
                for at, value in zip(epochs, values, strict=True):
                    if math.isfinite(value):
                        chart.dot(at, value, 2.5, f'style="fill:{colour}"')
        if len(both) == 2 and np.isfinite(both[1]).any():
            best = best_of(key, both[1])
            chart.dot(best + 1, both[1][best], 6, 'fill="none" stroke="currentColor"')
            caption += f", validation (dashed); best: {both[1][best]:.3g}, epoch {best + 1}"
        title = key.replace("_", " ")
        found.append((title, chart.svg(f"{title} by epoch: {caption}", "epoch"), caption))
    return found


def _mark_stages(chart: Chart, names: Sequence[str], lengths: Sequence[int]) -> None:
    """A line where each stage begins, and its name beside it."""
    start = 0
    for name, length in zip(names, lengths, strict=True):
        if start:
            x = chart.x(start + 0.5)
            how = 'stroke="currentColor" stroke-opacity=".6" stroke-dasharray="2 3"'
            chart.parts.append(f'<path d="M{x:.1f} {TOP}V{chart.size[1] - BOTTOM}" {how}/>')
        if name and length:
            short = name if len(name) < 20 else name[:18] + "…"
            chart.text(chart.x(start + 0.6) + 3, TOP - 8, short, "start")
        start += length


def calibration(reliability: Sequence[ReliabilityBin]) -> str:
    """How sure the model was, and how often it was right: one dot per part of 0-1, its area by the
    number of pictures. On the diagonal a model says what it knows."""
    full = [each for each in reliability if each.images]
    chart = Chart((0, 1), (0, 1), (380, 300))
    chart.line((0, 1), (0, 1), "currentColor", 'stroke-opacity=".5" stroke-dasharray="4 4"')
    chart.line([e.confidence for e in full], [e.accuracy for e in full], BLUE, 'opacity=".5"')
    most = max(each.images for each in full)
    words = []
    for each in full:
        radius = 3 + 8 * math.sqrt(each.images / most)
        chart.dot(each.confidence, each.accuracy, radius, f'style="fill:{BLUE}" fill-opacity=".75"')
        words.append(f"{each.images} at {each.confidence:.0%}: {each.accuracy:.0%} right")
    return chart.svg("; ".join(words), "how sure it was", "how often it was right")


def feature_map(places: np.ndarray, labels: Any, pictures: dict[int, str]) -> str:
    """Places (N, 2) of N pictures as dots in their classes' colours, some as the picture itself.

    labels (N,) integers, or None; `pictures` {row: data URI}. A picture is drawn where none of
    those before it lies already.
    """
    width, height = 960, 600
    low, high = places.min(axis=0), places.max(axis=0)
    side, edge = 40, 26
    room = np.array([width, height]) - 2 * edge
    at = edge + (places - low) / np.maximum(high - low, 1e-12) * room
    at[:, 1] = height - at[:, 1]
    classes = np.zeros(len(at), int) if labels is None else labels
    colours = [COLOURS[label % len(COLOURS)] for label in classes]
    dots = [
        f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3" fill="{c}" fill-opacity=".7"/>'
        for (x, y), c in zip(at, colours, strict=True)
    ]
    drawn: list[np.ndarray] = []
    for row, uri in pictures.items():
        if all(np.abs(at[row] - other).max() >= side for other in drawn):
            drawn.append(at[row])
            x, y = at[row] - side / 2
            place = f'x="{x:.0f}" y="{y:.0f}" width="{side}" height="{side}"'
            frame = f'<rect {place} fill="none" stroke="{colours[row]}" stroke-width="3"/>'
            dots.append(f'<image {place} href="{uri}" preserveAspectRatio="none"/>{frame}')
    label = f"{len(at)} pictures in the plane of the two main directions of their features"
    how = f'role="img" aria-label="{label}" class="map" style="width:100%;height:auto"'
    return f'<svg viewBox="0 0 {width} {height}" {how}>{"".join(dots)}</svg>'
