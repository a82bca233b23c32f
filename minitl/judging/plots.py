"""Plots of a training and of its result, as matplotlib's figures and as image files.

Each function takes numbers (from `evaluation.py`, say) and returns the figure that it draws; with a
path it writes it, too. matplotlib is imported only then (`pip install 'minitl[plot]'`). Figures are
made without pyplot, so a user's own figures, backend and settings stay as they are. Names are drawn
in a font that has their letters, Chinese ones as well, if the machine has one. Colours are those of
Okabe and Ito, distinct with any kind of colour vision; nothing is told by colour alone.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minitl.data.images import to_rgb
from minitl.judging.evaluation import check_labels, check_probabilities
from minitl.models.arguments import guard
from minitl.naming import Count, Natural
from minitl.storage.atomic import replacing
from minitl.storage.door import extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GRAY = "#0072B2", "#D55E00", "#666666"
RING: dict[str, Any] = {"markersize": 11, "markerfacecolor": "none", "markeredgecolor": "black"}

Path = str | os.PathLike[str] | None

# Fonts with the letters of East Asia, as systems come with them; of a letter the first that has it.
FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "PingFang HK", "Heiti TC"),
    *("Hiragino Sans GB", "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic"),
    *("Arial Unicode MS", "Noto Serif CJK SC", "AR PL UMing CN"),
)


def learning_curves(history: Any, path: Path = None, title: str | None = None) -> Figure:
    """Draw every metric by epoch, training and validation, one panel each.

    `history` is what `fit` returns (or its dict: name -> one value per epoch), or a list of
    (stage name, history) in order of training, such as [("head", first), ("block5 unfrozen",
    second)]; a dotted line then marks where each stage begins. 'val_loss' goes into the panel of
    'loss', and so on. The best validation value is marked: the lowest of a loss, the highest of
    anything else. Raises ValueError when there is no epoch to draw.
    """
    series, names, lengths = joined(history)
    panels = [k for k in series if not (k.startswith("val_") and k.removeprefix("val_") in series)]
    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = blank_figure(max(4.2 * columns, 5.5), 3.6 * rows + (0.3 if title else 0))
    for place, key in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        _curve(axes, series[key], BLUE, "o-", "training")
        if (values := series.get(f"val_{key}")) is not None:
            _curve(axes, values, RED, "s--", "validation")
            if np.isfinite(values).any():
                best = best_of(key, values)
                text = f"best: {values[best]:.3g}, epoch {best + 1}"
                axes.plot(best + 1, values[best], "o", clip_on=False, label=text, **RING)
            axes.legend(fontsize=9, framealpha=0.9, edgecolor="none")
        _mark_stages(axes, names, lengths)
        axes.set_title(key.replace("_", " "), pad=18 if len(names) > 1 else 8)
        plain_axes(axes, "epoch")
    return finish_figure(figure, path, title)


def joined(history: Any) -> tuple[dict[str, np.ndarray], list[str], list[int]]:
    """{metric: (epochs,)} through all stages of a `learning_curves` history, NaN where a stage does
    not have it; the stages' names; and how many epochs each has."""
    single = isinstance(history, Mapping) or hasattr(history, "history")
    stages = [("", history)] if single else list(history)
    records = [(name, dict(getattr(h, "history", h))) for name, h in stages]
    lengths = [max((len(v) for v in record.values()), default=0) for _, record in records]
    if sum(lengths) == 0:
        raise ValueError("the history holds no epoch: nothing to draw")
    series = {}
    for key in dict.fromkeys(key for _, record in records for key in record):
        stage = zip(records, lengths, strict=True)
        padded = [[*record.get(key, ()), *[math.nan] * n][:n] for (_, record), n in stage]
        series[key] = np.concatenate(padded).astype(float)
    return series, [name for name, _ in records], lengths


def best_of(metric: str, values: Any) -> int:
    """Where the best of these values (epochs,) is: the lowest of a loss or error, else the highest.

    >>> best_of("val_loss", [3, 1, 2]), best_of("accuracy", [0.5, 0.9])
    (1, 1)
    """
    lowest = any(word in metric for word in ("loss", "error", "mse", "mae"))
    return int(np.nanargmin(values) if lowest else np.nanargmax(values))


def _curve(axes: Axes, values: np.ndarray, colour: str, style: str, label: str) -> None:
    """Values by epoch; `style` is a marker and a line, the marker only while they are few."""
    style = style if len(values) <= 30 else style[1:]
    epochs = np.arange(1, len(values) + 1)
    axes.plot(epochs, values, style, color=colour, label=label, linewidth=1.8, markersize=4)


def _mark_stages(axes: Axes, names: Sequence[str], lengths: Sequence[int]) -> None:
    """A line where each stage begins, and its name above the panel, over its middle."""
    from matplotlib.ticker import MaxNLocator

    start = 0
    for name, length in zip(names, lengths, strict=True):
        if start:
            axes.axvline(start + 0.5, color=GRAY, linestyle=":", linewidth=1.2)
        if name and length:
            how: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 8, "color": GRAY}
            middle = (start + (length + 1) / 2, 1.01)
            axes.annotate(name, middle, xycoords=("data", "axes fraction"), **how)
        start += length
    axes.set_xlim(0.5, start + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def confusion_matrix_plot(
    confusion: Any, class_names: Sequence[str], path: Path = None, title: str | None = None
) -> Figure:
    """Draw a confusion matrix (m, m): counts, and the share of each row's class, as shades.

    Rows are the true classes, columns the predicted. Raises ValueError for other shapes.
    """
    matrix = np.asarray(confusion)
    m = len(matrix)
    if matrix.ndim != 2 or matrix.shape != (m, m) or m == 0:
        raise ValueError(f"a confusion matrix is square, (m, m), got shape {matrix.shape}")
    _check_names(class_names, m)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(2.6 + 0.85 * m, 4.6), 14)
    figure = blank_figure(side + 0.9, side)
    axes = figure.add_subplot()
    shades = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    size = 12 if m <= 5 else max(6, 12 - 0.4 * m)
    for i in range(m if m <= 20 else 0):  # beyond that no number would be legible
        for j in range(m):
            text = f"{matrix[i, j]:d}\n{share[i, j]:.0%}" if m <= 10 else f"{matrix[i, j]:d}"
            colour = "white" if share[i, j] > 0.55 else "black"
            axes.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)
    names = [str(name) for name in class_names]
    angle, side_of_text = (40, "right") if max(map(len, names)) > 9 or m > 6 else (0, "center")
    axes.set_xticks(range(m), names, rotation_mode="anchor", rotation=angle, ha=side_of_text)
    axes.set_yticks(range(m), names)
    axes.tick_params(length=0)
    axes.set(xlabel="predicted class", ylabel="true class")
    bar = figure.colorbar(shades, ax=axes, fraction=0.046, pad=0.03)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    return finish_figure(figure, path, title)


def prediction_sheet(
    images: Any,
    y_true: Any,
    probabilities: Any,
    class_names: Sequence[str],
    path: Path = None,
    limit: Count = 24,
    seed: Natural = 0,
    title: str | None = None,
) -> Figure:
    """Draw images with their true and predicted classes; wrong ones are framed and crossed.

    images         (N, H, W), (N, H, W, 1) or (N, H, W, 3), as the eye sees them: 0-255, or
                   floats within [0, 1]; not preprocessed
    y_true         (N,) integers or one-hot (N, m)
    probabilities  (N, m), or (N,) of class 1

    Where there are more than `limit`, as many are drawn at random from `seed`, so the sheet is a
    fair sample. Raises ValueError when lengths differ or pixels are out of range.
    """
    p = check_probabilities(probabilities)
    truth = check_labels(y_true, *p.shape)
    images = np.asarray(images)
    if len(images) != len(p):
        raise ValueError(f"{len(images)} images for {len(p)} predictions")
    _check_names(class_names, p.shape[1])
    chosen = np.arange(len(p))
    if len(p) > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, limit, replace=False))
    pixels, guesses = _visible(images[chosen]), p[chosen].argmax(axis=1)
    right = guesses == truth[chosen]
    columns = min(len(chosen), 6)
    rows = -(-len(chosen) // columns)
    high, wide = pixels.shape[1:3]
    figure = blank_figure(max(1.75 * columns, 4), (1.65 * min(high / wide, 3) + 0.5) * rows + 0.4)
    for place, (row, guess) in enumerate(zip(chosen, guesses, strict=True)):
        wrong, good = ("✗ ", RED, "bold", 3.5), ("", "black", "normal", 0.6)
        mark, colour, weight, frame = good if right[place] else wrong
        axes = figure.add_subplot(rows, columns, place + 1)
        _picture(axes, pixels[place], colour, frame)
        text = f"{mark}{class_names[guess]} {p[row, guess]:.0%}"
        axes.set_title(text, fontsize=9, color=colour, fontweight=weight, pad=4)
        axes.set_xlabel(f"true: {class_names[truth[row]]}", fontsize=8.5, labelpad=4)
    legend = "" if right.all() else "; wrong ones framed, with ✗"
    return finish_figure(figure, path, title or f"{right.sum()} of {len(chosen)} right{legend}")


def augmentation_sheet(
    images: Any, views: Sequence[Any], path: Path = None, title: str | None = None
) -> Figure:
    """Draw a contact sheet: in each row an image as it is, and beside it its augmented views.

    images  (N, H, W, C) or (N, H, W), as for `prediction_sheet`
    views   arrays (N, OH, OW, C), one per view: what `minitl.data.augment` returns

    Values that augmentation (noise, say) took out of 0-255 are drawn as black and white. Raises
    ValueError when there is nothing to draw or a view has another number of images.
    """
    images = np.asarray(images)
    if len(images) == 0 or len(views) == 0:
        raise ValueError(f"{len(images)} images and {len(views)} views: nothing to draw")
    columns = [_visible(images)]
    white = 1 if images.dtype.kind == "f" and images.max() <= 1 else 255
    for number, view in enumerate(views):
        if len(view) != len(images):
            raise ValueError(f"view {number} has {len(view)} images, of {len(images)}")
        pixels = np.clip(np.asarray(view, np.float32), 0, white) * (255 / white)
        columns.append(_visible(np.rint(pixels).astype(np.uint8)))
    n, m = len(images), len(columns)
    high, wide = columns[0].shape[1:3]
    figure = blank_figure(1.5 * m + 0.2, (1.5 * min(high / wide, 3) + 0.1) * n + 0.5)
    for row in range(n):
        for column, pixels in enumerate(columns):
            axes = figure.add_subplot(n, m, row * m + column + 1)
            _picture(axes, pixels[row], "black", 0.6 if column else 2.5)
            if row == 0:
                axes.set_title(f"view {column - 1}" if column else "original", fontsize=9, pad=4)
    return finish_figure(figure, path, title)


def rate_test_plot(test: Any, path: Path = None, title: str | None = None) -> Figure:
    """Draw the losses of a `rate_range.learning_rate_range_test` over the rate, and its suggestion.

    The rate's axis is logarithmic. Losses beyond four times the lowest smoothed one are cut off.
    """
    figure = blank_figure(6.4, 4.2)
    axes = figure.add_subplot()
    axes.plot(test.rates, test.losses, ".", color=GRAY, markersize=4, label="loss of a batch")
    axes.plot(test.rates, test.smoothed, "-", color=BLUE, linewidth=2, label="running mean")
    suggestion = f"suggested: {test.suggestion:.1e}"
    axes.axvline(test.suggestion, color=RED, linestyle="--", linewidth=1.5, label=suggestion)
    axes.set_xscale("log")
    low, start = float(np.min(test.smoothed)), float(test.smoothed[0])
    axes.set_ylim(min(0.0, low), max(1.3 * start, min(4 * low, float(np.max(test.smoothed)))))
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=9)
    plain_axes(axes, "learning rate")
    return finish_figure(figure, path, title or ("the loss ran away" if test.diverged else None))


def _check_names(class_names: Sequence[str], classes: int) -> None:
    if len(class_names) != classes:
        raise ValueError(f"{len(class_names)} class names for {classes} classes")


def _visible(images: np.ndarray) -> np.ndarray:
    """Images as uint8 (N, H, W, 3)."""
    rgb = to_rgb(images)
    low, high = float(rgb.min()), float(rgb.max())
    if not (low >= 0 and high <= 255):
        advice = "give the images as they were before preprocessing"
        raise ValueError(f"pixels must lie in 0-255 (or 0-1), got {low:g} to {high:g}; {advice}")
    scale = 255 if rgb.dtype.kind == "f" and high <= 1 else 1
    return np.rint(rgb * scale).astype(np.uint8)


def _picture(axes: Axes, pixels: np.ndarray, colour: str, frame: float) -> None:
    """An image without ticks, in a frame of this width in points."""
    axes.imshow(pixels)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=frame)


def plain_axes(axes: Axes, xlabel: str) -> None:
    """Axes without a frame, with faint lines to read values by."""
    axes.set_xlabel(xlabel)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)


def blank_figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches, that pyplot does not know."""
    with extra("plots need matplotlib", "plot"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    class Shown(Figure):
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", dpi=100, bbox_inches="tight", pad_inches=0.1)
            return file.getvalue()

    figure = Shown(figsize=(width, height), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def finish_figure(figure: Figure, path: Path, title: str | None) -> Figure:
    """The figure, with its title, in fonts that have its letters; written where there is a path."""
    from matplotlib import rcParams
    from matplotlib.font_manager import fontManager
    from matplotlib.text import Text

    if title:
        figure.suptitle(title)
    texts = [text for text in figure.findobj(Text) if text.get_text().strip()]
    # The user's fonts, and behind them those for the letters that they lack.
    there = {font.name for font in fontManager.ttflist}
    families = [*rcParams["font.family"], *(name for name in FONTS if name in there)]
    for text in texts:
        text.set_fontfamily(families)
        if "mathdefault" not in text.get_text():  # a name with dollars is no formula
            text.set_parse_math(False)
    if path is not None:
        with replacing(path) as temporary:
            # A sheet in a folder of pictures is not taken for one of them.
            name = {"Software": "minitl"} if temporary.suffix == ".png" else None
            # 'tight': the layout engine can cut labels of axes with a fixed aspect
            figure.savefig(temporary, bbox_inches="tight", pad_inches=0.15, metadata=name)
    return figure


guard(globals())
