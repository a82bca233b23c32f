"""Pictures of what a network computes: filters, maps, heat, F in a plane, a loss's surface, a tile.

Each function returns the figure that it draws and writes it where there is a path, as those of
`plots.py` do. `minitl show` calls them from the command line, the chapters of `docs/` from Python.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minitl import kernels
from minitl.judging.grad_cam import grad_cam
from minitl.judging.plots import BLUE, RED, blank_figure, finish_figure, plain_axes
from minitl.kernels.fast.winograd_matrices import POINTS, winograd_matrices
from minitl.layers import Layer
from minitl.models import Model
from minitl.models.arguments import guard
from minitl.naming import Count, Positive
from minitl.transfer.optimum import head_loss, solve_head

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Path = str | os.PathLike[str] | None
MARKS = "os^Dv*Ph"  # of classes, beside their colours


def _grid(
    pictures: Sequence[Any], titles: Sequence[str], columns: int, side: float = 1.0, **how: Any
) -> Figure:
    """Pictures in rows of `columns`, each in its own scale of gray unless it has colours."""
    rows = -(-len(pictures) // columns)
    figure = blank_figure(side * columns, (side + 0.25 * any(titles)) * rows)
    for place, (picture, title) in enumerate(zip(pictures, titles, strict=True), 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(picture, **{"cmap": "gray", "interpolation": "nearest"} | how)
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=7, pad=2)
    return figure


def _to_unit(a: Any) -> np.ndarray:
    """From 0 to 1, whatever the range was."""
    a = np.asarray(a, float)
    span = a.max() - a.min()
    return (a - a.min()) / (span or 1)


def filter_sheet(layer: Layer, path: Path = None, limit: Count = 64) -> Figure:
    """The filters of a convolution, kernel (KH, KW, C, F), each from its darkest to its brightest.

    Of three channels, which VGG16 takes as B, G, R, in their colours; else the first channel's.
    """
    kernel: Any = layer.weights[0].data if layer.weights else None
    if np.ndim(kernel) != 4:
        raise ValueError(f"{layer} has no filters, which are a kernel (KH, KW, C, F)")
    channels = [2, 1, 0] if kernel.shape[2] == 3 else 0
    shown = [_to_unit(kernel[:, :, channels, f]) for f in range(min(limit, kernel.shape[3]))]
    figure = _grid(shown, [""] * len(shown), 16, 0.5)
    return finish_figure(figure, path, f"{layer.name}, kernel {kernel.shape}")


def map_sheet(
    model: Model, image: Any, layers: Sequence[str], path: Path = None, count: Count = 8
) -> Figure:
    """The maps of one preprocessed image (H, W, C) that are brightest on average: a row per layer,
    `count` maps each, with their channels' numbers."""
    pictures, titles = [], []
    for name in layers:
        outputs = [t for c in model.graph.calls if c.layer.name == name for t in c.outputs]
        if not outputs or outputs[-1].ndim != 4:
            raise ValueError(f"{model.name!r} has no layer {name!r} that gives maps (N, H, W, C)")
        maps = Model(model.input, outputs[-1]).predict(np.asarray(image)[np.newaxis], verbose=0)[0]
        best = np.argsort(-maps.mean(axis=(0, 1)))[:count]
        best = np.pad(best, (0, count - len(best)), mode="edge")
        pictures += [maps[..., c] for c in best]
        titles += [f"{name} {c}" for c in best]
    return finish_figure(_grid(pictures, titles, count, 1.1), path, None)


def heat_sheet(
    model: Model, x: Any, pictures: Any, classes: Any = None, path: Path = None
) -> Figure:
    """Grad-CAM: pictures (N, H, W, 3), 0-255, above them the heat of x, the same preprocessed."""
    heat, seen = grad_cam(model, x, classes), np.asarray(pictures).astype(np.uint8)
    n, titles = len(seen), ["" for _ in seen]
    figure = _grid([*seen, *seen], titles * 2, n, 1.6)
    for axes, each in zip(figure.axes[n:], heat, strict=True):
        axes.imshow(each, cmap="inferno", alpha=0.25 + 0.5 * each, vmin=0, vmax=1)
    return finish_figure(figure, path, None)


def feature_plane(
    features: Mapping[str, Any], y: Any, class_names: Sequence[str], path: Path = None
) -> Figure:
    """F (N, D), one panel for each by its title, in the plane along which its rows vary most (the
    first two principal axes); y (N,) are the labels. The share of the variance that is seen stands
    above."""
    y = np.asarray(y)
    figure = blank_figure(4 * len(features), 3.8)
    for place, (title, f) in enumerate(features.items(), 1):
        centred = np.asarray(f, float) - np.mean(f, axis=0)
        u, s, _ = np.linalg.svd(centred, full_matrices=False)
        seen = (s[:2] ** 2).sum() / ((s**2).sum() or 1)
        axes = figure.add_subplot(1, len(features), place)
        for c, name in enumerate(class_names):
            across, up = (u[y == c, :2] * s[:2]).T
            axes.scatter(across, up, s=14, marker=MARKS[c % len(MARKS)], label=name, alpha=0.7)
        axes.set(xticks=[], yticks=[], title=f"{title}: {seen:.0%} of the variance")
        axes.legend(fontsize=7)
    return finish_figure(figure, path, None)


def head_paths(f: Any, y: Any, l2: Positive, steps: Count = 60) -> dict[str, np.ndarray]:
    """Where SGD with momentum and Adam pass with a softmax head on F, all rows in every step:
    {name: (steps + 1, D*m + m)}, W and b in one row. Both start at zeros."""
    f, targets = np.asarray(f, float), np.eye(int(np.max(y)) + 1)[np.asarray(y)]
    (n, d), m = f.shape, targets.shape[1]
    rate = 1 / (np.linalg.norm(f, 2) ** 2 / n + 2 * l2)  # along the steepest direction
    found = {}
    for name in ("SGD", "Adam"):
        w, first, second = (np.zeros((d + 1, m)) for _ in range(3))
        way = [w.ravel().copy()]
        for t in range(1, steps + 1):
            p = kernels.softmax(f @ w[:d] + w[d])
            g = np.vstack([f.T @ (p - targets) / n + 2 * l2 * w[:d], (p - targets).mean(axis=0)])
            if name == "SGD":
                kernels.sgd_update(w, g, first, rate, 0.9)
            else:
                scaled = 0.1 * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
                kernels.adam_update(w, g, first, second, scaled, 0.9, 0.999, 1e-7)
            way.append(w.ravel().copy())
        found[name] = np.array(way)
    return found


def loss_surface(f: Any, y: Any, l2: Positive = 1e-2, path: Path = None) -> Figure:
    """How high a softmax head's loss lies above its optimum, in the plane through the optimum in
    which the paths of SGD and Adam (`head_paths`) vary most, and those paths. F (N, D), y (N,).
    """
    best = solve_head(f, y, l2)
    at = np.vstack([best.kernel, best.bias]).ravel()
    m, ways = len(best.bias), {k: way - at for k, way in head_paths(f, y, l2).items()}
    axes_of_plane = np.linalg.svd(np.vstack(list(ways.values())), full_matrices=False)[2][:2]
    flat = {name: way @ axes_of_plane.T for name, way in ways.items()}
    low, high = (g(np.vstack([*flat.values(), [[0, 0]]]), axis=0) for g in (np.min, np.max))
    edge = 0.15 * (high - low)
    u, v = (np.linspace(a - e, b + e, 41) for a, b, e in zip(low, high, edge, strict=True))

    def gap(place: np.ndarray) -> float:
        w = (at + place @ axes_of_plane).reshape(-1, m)
        return head_loss(f, y, w[:-1], w[-1], l2) - best.loss

    heights = np.array([[gap(np.array([a, b])) for a in u] for b in v])
    figure = blank_figure(6.4, 4.6)
    axes = figure.add_subplot()
    levels = np.geomspace(max(heights.min(), heights.max() * 1e-4), heights.max(), 14)
    axes.contour(u, v, heights, levels=levels, colors="#999999", linewidths=0.7)
    for name, colour, mark in (("SGD", BLUE, "o-"), ("Adam", RED, "s--")):
        axes.plot(*flat[name].T, mark, color=colour, markersize=3, linewidth=1.2, label=name)
    axes.plot(0, 0, "k*", markersize=13, label="optimum")
    axes.legend(frameon=False)
    plain_axes(axes, "lines of equal loss, logarithmic, above the optimum")
    return finish_figure(figure, path, None)


def tile_picture(image: Any, kernel: Any, path: Path = None) -> Figure:
    """One tile of Winograd's F(4x4, 3x3), step by step: image (6, 6), kernel (3, 3)."""
    G, A, B = winograd_matrices(POINTS[4])
    d, k = np.asarray(image, float), np.asarray(kernel, float)
    seen, filtered = B.T @ d @ B, G @ k @ G.T
    steps = {
        "d, 6x6 of the image": d,
        "Bᵀ d B: 36 values": seen,
        "G k Gᵀ: 36 values": filtered,
        "times, place by place": seen * filtered,
        "Aᵀ (...) A: 4x4 outputs": A.T @ (seen * filtered) @ A,
    }
    figure = _grid([_to_unit(a) for a in steps.values()], list(steps), 5, 1.7)
    return finish_figure(figure, path, "36 multiplications in place of 144")


guard(globals())
