"""Plots of a training and of its result, each written as one image file.

matplotlib is needed (`pip install 'minitl[plot]'`) and imported only when something is drawn. The
figures are made without pyplot, so a user's own figures, backend and settings stay as they are.
Colours are those of Okabe and Ito, which remain distinct with any kind of colour vision; nothing
is told by colour alone.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minitl.data.images import to_rgb
from minitl.storage.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from minitl.judging.evaluation import ReliabilityBin

BLUE, ORANGE, RED, GREEN, GRAY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#666666"
DOTS_PER_INCH = 150

Path = str | os.PathLike[str]


def learning_curves(history: Any, path: Path, title: str | None = None) -> None:
    """Draw every metric by epoch, training and validation, one panel each.

    `history` is what `fit` returns (or its dict: name -> one value an epoch), or a list of
    (stage name, history) in order of training, such as [("head", first), ("block5 unfrozen",
    second)]; a dashed line then marks where each stage begins. 'val_loss' goes into the panel of
    'loss', and so on. The best validation value is marked: the lowest of a loss, the highest of
    anything else. Raises ValueError when there is no epoch to draw.
    """
    stages = [("", history)] if _is_history(history) else list(history)
    records = [(name, dict(getattr(h, "history", h))) for name, h in stages]
    lengths = [max((len(v) for v in record.values()), default=0) for _, record in records]
    if sum(lengths) == 0:
        raise ValueError("the history holds no epoch: nothing to draw")
    keys = list(dict.fromkeys(key for _, record in records for key in record))
    series = {key: _joined(key, records, lengths) for key in keys}
    panels = [k for k in keys if not (k.startswith("val_") and k.removeprefix("val_") in keys)]

    columns = 2 if len(panels) == 4 else min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = _figure(max(4.2 * columns, 5.5), 3.6 * rows + (0.3 if title else 0))
    from matplotlib.ticker import MaxNLocator

    epochs = np.arange(1, sum(lengths) + 1)
    starts = np.cumsum([0, *lengths[:-1]])
    for place, key in enumerate(panels):
        axes = figure.add_subplot(rows, columns, place + 1)
        _curve(axes, epochs, series[key], BLUE, "o", "-", "training")
        validation = series.get(f"val_{key}")
        if validation is not None:
            _curve(axes, epochs, validation, RED, "s", "--", "validation")
            _mark_best(axes, epochs, validation, lowest=_smaller_is_better(key))
            axes.legend(fontsize=9, framealpha=0.9, edgecolor="none")
        for start in starts[1:]:
            axes.axvline(start + 0.5, color=GRAY, linestyle=":", linewidth=1.2)
        for (name, _), start, length in zip(records, starts, lengths, strict=True):
            if name and length:
                # above the panel, over the middle of its stage
                axes.annotate(
                    name,
                    (start + (length + 1) / 2, 1.01),
                    xycoords=("data", "axes fraction"),
                    ha="center",
                    va="bottom",
                    fontsize=8,
                    color=GRAY,
                )
        axes.set_title(key.replace("_", " "), pad=18 if len(records) > 1 else 8)
        axes.set_xlabel("epoch")
        axes.set_xlim(0.5, len(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
        _plain_axes(axes)
    _save(figure, path, title)


def confusion_matrix_plot(
    confusion: Any, class_names: Sequence[str], path: Path, title: str | None = None
) -> None:
    """Draw a confusion matrix (m, m): counts, and the share of each row's class, as shades.

    Rows are the true classes, columns the predicted. Raises ValueError when it is not square or
    the number of names is not m.
    """
    matrix = np.asarray(confusion)
    m = len(matrix)
    if matrix.ndim != 2 or matrix.shape != (m, m) or m == 0:
        raise ValueError(f"a confusion matrix is square, (m, m), got shape {matrix.shape}")
    if len(class_names) != m:
        raise ValueError(f"{len(class_names)} class names for {m} classes")
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = min(max(2.6 + 0.85 * m, 4.6), 14)
    figure = _figure(side + 0.9, side)
    axes = figure.add_subplot()
    shades = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    size = 12 if m <= 5 else max(6, 12 - 0.4 * m)
    for i in range(m if m <= 20 else 0):  # beyond that no number would be legible
        for j in range(m):
            axes.text(
                j,
                i,
                f"{matrix[i, j]:d}\n{share[i, j]:.0%}" if m <= 10 else f"{matrix[i, j]:d}",
                ha="center",
                va="center",
                fontsize=size,
                color="white" if share[i, j] > 0.55 else "black",
            )
    names = [str(name) for name in class_names]
    slanted = max(map(len, names)) > 9 or m > 6
    axes.set_xticks(
        range(m),
        names,
        rotation=40 if slanted else 0,
        ha="right" if slanted else "center",
        rotation_mode="anchor",
    )
    axes.set_yticks(range(m), names)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    bar = figure.colorbar(shades, ax=axes, fraction=0.046, pad=0.03)
    bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    _save(figure, path, title)


def prediction_sheet(
    images: Any,
    y_true: Any,
    probabilities: Any,
    class_names: Sequence[str],
    path: Path,
    limit: int = 24,
    seed: int = 0,
    title: str | None = None,
) -> None:
    """Draw images with their true and predicted classes; wrong ones are framed and crossed.

    images         (N, H, W), (N, H, W, 1) or (N, H, W, 3), as the eye sees them: 0-255, or
                   floats within [0, 1]; not preprocessed
    y_true         (N,) integers or one-hot (N, m)
    probabilities  (N, m), or (N,) of class 1

    Where there are more than `limit`, as many are drawn at random from `seed`, so the sheet is a
    fair sample. Raises ValueError when lengths differ or pixels are out of range.
    """
    from minitl.judging.evaluation import check_labels, check_probabilities

    p = check_probabilities(probabilities)
    truth = check_labels(y_true, *p.shape)
    images = np.asarray(images)
    if len(images) != len(p):
        raise ValueError(f"{len(images)} images for {len(p)} predictions")
    if len(class_names) != p.shape[1]:
        raise ValueError(f"{len(class_names)} class names for {p.shape[1]} classes")
    chosen = np.arange(len(p))
    if len(chosen) > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, limit, replace=False))
    pixels = _visible(images[chosen])
    columns = min(len(chosen), 6)
    rows = -(-len(chosen) // columns)
    high, wide = pixels.shape[1:3]
    figure = _figure(max(1.75 * columns, 4), (1.65 * min(high / wide, 3) + 0.5) * rows + 0.4)
    right = 0
    for place, row in enumerate(chosen):
        axes = figure.add_subplot(rows, columns, place + 1)
        axes.imshow(pixels[place])
        axes.set_xticks([])
        axes.set_yticks([])
        guess = int(p[row].argmax())
        correct = guess == truth[row]
        right += correct
        colour = "black" if correct else RED
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=0.6 if correct else 3.5)
        mark = "" if correct else "✗ "
        axes.set_title(
            f"{mark}{class_names[guess]} {p[row, guess]:.0%}",
            fontsize=9,
            color=colour,
            fontweight="normal" if correct else "bold",
            pad=4,
        )
        axes.set_xlabel(f"true: {class_names[truth[row]]}", fontsize=8.5, labelpad=4)
    legend = "; wrong ones framed, with ✗" if right < len(chosen) else ""
    _save(figure, path, title or f"{right} of {len(chosen)} right{legend}")


def augmentation_sheet(
    images: Any, views: Sequence[Any], path: Path, title: str | None = None
) -> None:
    """Draw a contact sheet: in each row an image as it is, and beside it its augmented views.

    images  (N, H, W, C) or (N, H, W), as for `prediction_sheet`
    views   arrays (N, OH, OW, C), one a view: what `minitl.data.augment` returns

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
    high, wide = columns[0].shape[1:3]
    figure = _figure(
        1.5 * len(columns) + 0.2, (1.5 * min(high / wide, 3) + 0.1) * len(images) + 0.5
    )
    for row in range(len(images)):
        for column, pixels in enumerate(columns):
            axes = figure.add_subplot(len(images), len(columns), row * len(columns) + column + 1)
            axes.imshow(pixels[row])
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set(color="black", linewidth=0.6 if column else 2.5)
            if row == 0:
                axes.set_title(f"view {column - 1}" if column else "original", fontsize=9, pad=4)
    _save(figure, path, title)


def reliability_diagram(
    reliability: Sequence[ReliabilityBin], path: Path, title: str | None = None
) -> None:
    """Draw how often predictions are right against how sure they were, and how many there are.

    `reliability` comes from `minitl.evaluation.reliability_bins`, or is that of an `Evaluation`.
    Bars below the diagonal mean too much confidence, above it too little.
    """
    from minitl.judging.evaluation import calibration_error

    full = [item for item in reliability if item.images]
    if not full:
        raise ValueError("no predictions: nothing to draw")
    # Of m classes the largest probability is at least 1/m: nothing stands left of the first bin.
    left = full[0].low
    figure = _figure(5.2, 5.6)
    grid = figure.add_gridspec(2, 1, height_ratios=[3, 1])
    axes = figure.add_subplot(grid[0])
    below = figure.add_subplot(grid[1], sharex=axes)
    lows = np.array([item.low for item in full])
    widths = np.array([item.high for item in full]) - lows
    hits = np.array([item.accuracy for item in full])
    sure = np.array([item.confidence for item in full])
    axes.bar(
        lows,
        hits,
        widths,
        align="edge",
        color=BLUE,
        alpha=0.75,
        edgecolor="white",
        label="accuracy in the bin",
    )
    axes.plot([0, 1], [0, 1], "--", color="black", linewidth=1.2, label="perfectly calibrated")
    axes.plot(sure, hits, "o", color="black", markersize=4, label="at its mean confidence")
    axes.set_ylabel("accuracy")
    axes.set_ylim(0, 1.02)
    axes.set_xlim(left, 1)
    axes.tick_params(labelbottom=False)
    # above the bars, since anywhere among them it would hide one
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3)
    below.bar(
        lows, [item.images for item in full], widths, align="edge", color=GRAY, edgecolor="white"
    )
    below.set_xlabel("confidence (largest probability)")
    below.set_ylabel("images")
    for each in (axes, below):
        _plain_axes(each)
    error = f"expected calibration error {calibration_error(reliability):.3f}"
    _save(figure, path, f"{title}\n{error}" if title else error)


def rate_test_plot(test: Any, path: Path, title: str | None = None) -> None:
    """Draw the losses of a `rate_test.learning_rate_range_test` over the rate, and its suggestion.

    The rate's axis is logarithmic. Losses beyond four times the lowest smoothed one run out of the
    picture, so that where the loss falls can be seen.
    """
    figure = _figure(6.4, 4.2)
    axes = figure.add_subplot()
    axes.plot(test.rates, test.losses, ".", color=GRAY, markersize=4, label="loss of a batch")
    axes.plot(test.rates, test.smoothed, "-", color=BLUE, linewidth=2, label="running mean")
    axes.axvline(
        test.suggestion,
        color=RED,
        linestyle="--",
        linewidth=1.5,
        label=f"suggested: {test.suggestion:.1e}",
    )
    axes.set_xscale("log")
    low, start = float(np.min(test.smoothed)), float(test.smoothed[0])
    axes.set_ylim(min(0.0, low), max(1.3 * start, min(4 * low, float(np.max(test.smoothed)))))
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.legend(frameon=False, fontsize=9)
    _plain_axes(axes)
    end = "the loss ran away" if test.diverged else ""
    _save(figure, path, title or end or None)


def roc_plot(
    y_true: Any,
    probabilities: Any,
    class_names: Sequence[str],
    path: Path,
    title: str | None = None,
) -> None:
    """Draw ROC curves: of class 1 for two classes, else of each class against the rest.

    Arrays as in `minitl.evaluation.evaluate_predictions`. Classes without images (or without
    others beside them) have no curve and are left out; raises ValueError when none is left.
    """
    from minitl.judging.evaluation import check_labels, check_probabilities, roc_auc, roc_curve

    p = check_probabilities(probabilities)
    truth = check_labels(y_true, *p.shape)
    if len(class_names) != p.shape[1]:
        raise ValueError(f"{len(class_names)} class names for {p.shape[1]} classes")
    wanted = [1] if p.shape[1] == 2 else range(p.shape[1])
    drawn = [c for c in wanted if 0 < (truth == c).sum() < len(truth)]
    if not drawn:
        raise ValueError("an ROC curve needs images of a class and of others: nothing to draw")
    figure = _figure(5.2, 5.2)
    axes = figure.add_subplot()
    colours, lines = (BLUE, RED, GREEN, ORANGE, GRAY), ("-", "--", "-.", ":")
    for place, c in enumerate(drawn):
        mistaken, found, _ = roc_curve(truth == c, p[:, c])
        axes.plot(
            mistaken,
            found,
            color=colours[place % len(colours)],
            linestyle=lines[place // len(colours) % len(lines)],
            linewidth=1.8,
            label=f"{class_names[c]}, area {roc_auc(truth == c, p[:, c]):.3f}",
        )
    axes.plot([0, 1], [0, 1], color="#AAAAAA", linewidth=1, linestyle=":", label="chance")
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("true positive rate")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    _plain_axes(axes)
    _save(figure, path, title)


def _is_history(history: Any) -> bool:
    return isinstance(history, Mapping) or hasattr(history, "history")


def _joined(
    key: str, records: Sequence[tuple[str, dict[str, Any]]], lengths: Sequence[int]
) -> np.ndarray:
    """One metric through all stages, (epochs,), NaN where a stage does not have it."""
    parts = []
    for (_, record), length in zip(records, lengths, strict=True):
        values = np.full(length, math.nan)
        given = np.asarray(record.get(key, []), float)
        values[: len(given)] = given
        parts.append(values)
    return np.concatenate(parts)


def _curve(
    axes: Axes, x: np.ndarray, y: np.ndarray, colour: str, marker: str, line: str, label: str
) -> None:
    # dots only while they can be told apart
    axes.plot(
        x,
        y,
        line,
        color=colour,
        label=label,
        linewidth=1.8,
        marker=marker if len(x) <= 30 else None,
        markersize=4,
    )


def _smaller_is_better(key: str) -> bool:
    return any(word in key for word in ("loss", "error", "mse", "mae"))


def _mark_best(axes: Axes, epochs: np.ndarray, values: np.ndarray, lowest: bool) -> None:
    if not np.isfinite(values).any():
        return
    best = int(np.nanargmin(values) if lowest else np.nanargmax(values))
    axes.plot(
        epochs[best],
        values[best],
        "o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor="black",
        clip_on=False,
        label=f"best: {values[best]:.3g}, epoch {epochs[best]}",
    )


def _visible(images: np.ndarray) -> np.ndarray:
    """Images as uint8 (N, H, W, 3)."""
    rgb = to_rgb(images)
    low, high = float(rgb.min()), float(rgb.max())
    if not (low >= 0 and high <= 255):
        raise ValueError(
            f"pixels must lie in 0-255 (or 0-1), got {low:g} to {high:g}; give the images as "
            "they were before preprocessing"
        )
    if rgb.dtype.kind == "f" and high <= 1:
        rgb = rgb * 255
    return np.rint(rgb).astype(np.uint8)


def _plain_axes(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)


def _figure(width: float, height: float) -> Figure:
    """A figure of its own, in inches, that pyplot does not know."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib, which is not installed: python -m pip install 'minitl[plot]'"
        ) from error
    figure = Figure(
        figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path, title: str | None) -> None:
    if title:
        figure.suptitle(title)
    with replacing(path) as temporary:
        # 'tight': the layout engine can cut labels of axes with a fixed aspect
        figure.savefig(temporary, bbox_inches="tight", pad_inches=0.15)
