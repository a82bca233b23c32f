"""How good are predictions? Every number from the true labels and the predicted probabilities.

`evaluate_predictions(y_true, probabilities)` gives an `Evaluation`, which prints as a table and
turns into a dict for JSON. With a class's true positives TP, false positives FP, negatives FN,

    precision = TP / (TP + FP)    recall = TP / (TP + FN)    F1 = 2 TP / (2 TP + FP + FN)

and 0/0 counts as 0, so a class that is never predicted has precision 0. Macro means are over the
classes, weighted means over the images.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minitl.models.arguments import guard
from minitl.naming import Count, elsewhere


class ReliabilityBin(NamedTuple):
    """Predictions of similar confidence: how sure they were, and how often they were right."""

    low: float  # confidences above this ...
    high: float  # ... up to and with this
    images: int
    confidence: float  # mean in this bin, NaN when it is empty
    accuracy: float  # share that was right, NaN when it is empty


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All numbers of one set of predictions, N images in m classes. `print` it for a table."""

    class_names: tuple[str, ...]
    confusion: np.ndarray  # (m, m) counts; rows are the true classes, columns the predicted
    accuracy: float
    weighted_accuracy: float | None  # None without sample weights
    precision: np.ndarray  # (m,)
    recall: np.ndarray  # (m,)
    f1: np.ndarray  # (m,)
    support: np.ndarray  # (m,) images of each true class
    macro_f1: float
    weighted_f1: float
    auc: float  # of class 1 for two classes, else the mean of each class against the rest
    auc_by_class: np.ndarray  # (m,) each class against the rest; NaN without images of it or them
    calibration_error: float
    reliability: tuple[ReliabilityBin, ...]
    _repr_html_ = elsewhere("notebook", "evaluation_html")

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and None (for what is undefined), ready for `json.dump`."""

        def plain(numbers: Mapping[str, Any]) -> dict[str, Any]:
            return {k: None if v is None or math.isnan(v) else v for k, v in numbers.items()}

        means = ("accuracy", "weighted_accuracy", "macro_f1", "weighted_f1", "auc")
        columns = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        columns |= {"auc": self.auc_by_class, "support": self.support}
        rows = [{k: column[c].item() for k, column in columns.items()} for c in range(len(self.f1))]
        return {
            **plain({key: getattr(self, key) for key in (*means, "calibration_error")}),
            "class_names": list(self.class_names),
            "per_class": dict(zip(self.class_names, map(plain, rows), strict=True)),
            "confusion": self.confusion.tolist(),
            "reliability": [plain(item._asdict()) for item in self.reliability],
        }

    def __str__(self) -> str:
        width = max(12, *map(len, self.class_names))
        means = ("macro mean", self.precision.mean(), self.recall.mean(), self.macro_f1)
        rows = [
            *zip(self.class_names, self.precision, self.recall, self.f1, self.support, strict=True),
            (*means, self.support.sum()),
        ]
        lines = [f"{'':{width}}  precision  recall      F1  images"]
        for name, precision, recall, f1, images in rows:
            lines.append(f"{name:{width}}  {precision:9.4f}  {recall:6.4f}  {f1:6.4f}  {images:6d}")
        auc = "undefined: a class has no images" if math.isnan(self.auc) else f"{self.auc:.4f}"
        lines += ["", f"accuracy           {self.accuracy:.4f}"]
        if self.weighted_accuracy is not None:
            lines.append(f"weighted accuracy  {self.weighted_accuracy:.4f}")
        lines += [f"weighted F1        {self.weighted_f1:.4f}", f"ROC AUC            {auc}"]
        lines.append(f"calibration error  {self.calibration_error:.4f}")
        if len(self.class_names) > 20:  # no screen is wide enough for the matrix
            return "\n".join(lines)
        short = [name if len(name) <= 12 else name[:11] + "…" for name in self.class_names]
        cell = max(6, len(str(self.confusion.max())) + 2, *map(len, short))
        width = max(width, 16)
        head = "".join(f"  {name:>{cell}}" for name in short)
        lines += ["", f"{'true / predicted':{width}}{head}"]
        for name, row in zip(self.class_names, self.confusion, strict=True):
            lines.append(f"{name:{width}}" + "".join(f"  {count:{cell}d}" for count in row))
        return "\n".join(lines)


def evaluate_predictions(
    y_true: Any,
    probabilities: Any,
    class_names: Sequence[str] | None = None,
    sample_weight: Any = None,
    bins: Count = 10,
) -> Evaluation:
    """Compare predictions with the truth.

    y_true         (N,) or (N, 1) integers 0..m-1, or one-hot (N, m)
    probabilities  (N, m), rows that add up to 1 (a softmax); or (N,) or (N, 1) of class 1
                   (a sigmoid)
    class_names    m names; the numbers of the classes when None
    sample_weight  (N,) weights >= 0 for the weighted accuracy

    The predicted class is the first of the largest probabilities. Raises ValueError that says
    what was expected and found when arrays do not fit, labels are out of range, or p are logits.
    """
    p = check_probabilities(probabilities)
    truth = check_labels(y_true, *p.shape)
    classes = p.shape[1]
    names = tuple(map(str, range(classes) if class_names is None else class_names))
    if len(names) != classes:
        raise ValueError(f"{len(names)} class names for {classes} classes: {list(names)}")
    predicted = p.argmax(axis=1)
    matrix = confusion_matrix(truth, predicted, classes)
    precision, recall, f1 = precision_recall_f1(matrix)
    support = matrix.sum(axis=1)
    reliability = reliability_bins(truth, p, bins)
    areas = np.array([roc_auc(truth == c, p[:, c]) for c in range(classes)])
    weighted = None if sample_weight is None else accuracy(truth, predicted, sample_weight)
    return Evaluation(
        class_names=names,
        confusion=matrix,
        accuracy=accuracy(truth, predicted),
        weighted_accuracy=weighted,
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
        macro_f1=float(f1.mean()),
        weighted_f1=float(f1 @ support / len(truth)),
        auc=float(areas[1] if classes == 2 else areas.mean()),
        auc_by_class=areas,
        calibration_error=calibration_error(reliability),
        reliability=reliability,
    )


def confusion_matrix(
    y_true: Any, y_pred: Any, num_classes: Count, sample_weight: Any = None
) -> np.ndarray:
    """Counts (m, m): [i, j] is how many images of class i were taken for j, or their weights' sum.

    >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    truth = check_labels(y_true, len(np.asarray(y_true)), num_classes)
    predicted = check_labels(y_pred, len(truth), num_classes, "predicted labels")
    weight = None if sample_weight is None else _check_weights(sample_weight, len(truth))
    pairs = np.bincount(truth * num_classes + predicted, weight, num_classes**2)
    return pairs.reshape(num_classes, num_classes)


def accuracy(y_true: Any, y_pred: Any, sample_weight: Any = None) -> float:
    """Share of the labels (N,) that are right; with weights (N,): sum of w right / sum of w."""
    if len(y_true) != len(y_pred):
        raise ValueError(f"{len(y_true)} labels and {len(y_pred)} predictions")
    right = np.asarray(y_true) == np.asarray(y_pred)
    if sample_weight is None:
        return float(right.mean())
    weight = _check_weights(sample_weight, len(right))
    return float(right @ weight / weight.sum())


def _check_weights(sample_weight: Any, count: int) -> np.ndarray:
    weight = np.asarray(sample_weight, float)
    if weight.shape != (count,):
        raise ValueError(f"sample_weight has shape {weight.shape} for {count} labels")
    if not np.isfinite(weight).all() or (weight < 0).any() or weight.sum() == 0:
        raise ValueError("sample weights must be finite, not negative, and not all zero")
    return weight


def precision_recall_f1(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision, recall and F1 of every class, each (m,), from a confusion matrix (m, m)."""
    hits = np.diag(confusion)
    predicted, support = confusion.sum(axis=0), confusion.sum(axis=1)
    totals = np.array([predicted, support, predicted + support])
    totals += totals == 0  # where the hits are 0 as well: 0 / 1
    precision, recall, f1 = np.array([hits, hits, 2 * hits]) / totals
    return precision, recall, f1


def roc_auc(positive: Any, score: Any) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative.

        AUC = sum_s P_s (Q_<s + Q_s / 2) / (P Q)

    over all scores s, with P_s and Q_s the positives and negatives of that score, Q_<s the
    negatives below it, P and Q the totals: a tie counts one half. `positive` (N,) bool, `score`
    (N,). NaN when there are no positives or no negatives. (Mann and Whitney 1947.)

    >>> roc_auc([False, True, True], [0.1, 0.4, 0.1])
    0.75
    """
    positive, score = np.asarray(positive, bool), np.asarray(score)
    if positive.shape != score.shape or positive.ndim != 1 or np.isnan(score).any():
        text = "an ROC curve takes labels (N,) and scores (N,) without NaN"
        raise ValueError(f"{text}, got shapes {positive.shape} and {score.shape}")
    levels, place = np.unique(score, return_inverse=True)
    p, q = (np.bincount(place, side, len(levels)) for side in (positive, ~positive))
    if p.sum() == 0 or q.sum() == 0:
        return math.nan
    below = np.cumsum(q) - q
    return float(p @ (below + q / 2) / (p.sum() * q.sum()))


def reliability_bins(
    y_true: Any, probabilities: Any, bins: Count = 10
) -> tuple[ReliabilityBin, ...]:
    """Sort predictions by their confidence, max_j p_j, into `bins` equal parts of (0, 1].

    A model is calibrated when in every bin the accuracy equals the mean confidence.
    """
    p = check_probabilities(probabilities)
    truth = check_labels(y_true, *p.shape)
    confidence = p.max(axis=1)
    right = p.argmax(axis=1) == truth
    edges = np.linspace(0, 1, bins + 1)
    # 'left': a confidence on an edge is of the bin that ends there; rounding may lift one above 1.
    place = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    found = []
    for k, (low, high) in enumerate(itertools.pairwise(edges.tolist())):
        here = place == k
        means = [float(a[here].mean()) if here.any() else math.nan for a in (confidence, right)]
        found.append(ReliabilityBin(low, high, int(here.sum()), *means))
    return tuple(found)


def calibration_error(reliability: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: mean over images of |accuracy - confidence| of their bin.

    0 is perfect. (Guo et al., "On Calibration of Modern Neural Networks", 2017, eq. 3.)
    """
    full = [item for item in reliability if item.images]
    gaps = sum(item.images * abs(item.accuracy - item.confidence) for item in full)
    return float(gaps / sum(item.images for item in full))


def check_probabilities(probabilities: Any) -> np.ndarray:
    """Return them as (N, m) float64."""
    p = np.asarray(probabilities, float)
    p = p[:, np.newaxis] if p.ndim == 1 else p
    if p.ndim != 2 or p.size == 0:
        form = "(N, m), or (N,) for two classes"
        raise ValueError(f"probabilities must be {form}, got shape {p.shape}")
    if not np.isfinite(p).all():
        rows = np.flatnonzero(~np.isfinite(p).all(axis=1))
        raise ValueError(f"probabilities hold NaN or infinity in {len(rows)} rows, first {rows[0]}")
    if p.min() < 0 or p.max() > 1 + 1e-3:
        advice = "if these are logits, put them through a softmax (or sigmoid) first"
        found = f"{p.min():.4g} to {p.max():.4g}"
        raise ValueError(f"probabilities must be 0 to 1, got {found}; {advice}")
    if p.shape[1] == 1:
        return np.hstack([1 - p, p])
    sums = p.sum(axis=1)
    worst = np.abs(sums - 1).argmax()
    if abs(sums[worst] - 1) > 1e-3:
        found = f"row {worst} adds up to {sums[worst]:.4g}"
        raise ValueError(f"each row of probabilities must add up to 1; {found}")
    return p


def check_labels(labels: Any, rows: int, classes: int, what: str = "y_true") -> np.ndarray:
    """Return integer or one-hot labels as integers (N,)."""
    y = np.asarray(labels)
    if y.ndim == 0 or len(y) != rows:
        found = f"{len(y)}" if y.ndim else "a single number"
        raise ValueError(f"{what} and predictions differ in length: {found} and {rows}")
    if y.size == 0:
        raise ValueError(f"{what} is empty")
    if y.dtype.kind not in "biuf":
        raise ValueError(f"{what} must be integers or one-hot, got {y.dtype}")
    if y.ndim == 2 and y.shape[1] > 1:
        if y.shape[1] != classes:
            raise ValueError(f"{what} is one-hot with {y.shape[1]} columns for {classes} classes")
        if not ((y == 0) | (y == 1)).all() or not (y.sum(axis=1) == 1).all():
            raise ValueError(f"{what} has {classes} columns but is not one-hot: one 1 in each row")
        return y.argmax(axis=1)
    if y.ndim > 2:
        raise ValueError(f"{what} must be (N,) integers or (N, m) one-hot, got shape {y.shape}")
    y = y.reshape(rows)
    if not np.isfinite(y).all() or not (y == np.rint(y)).all():
        raise ValueError(f"{what} must be whole numbers, got fractions or NaN")
    if y.min() < 0 or y.max() >= classes:
        wanted = f"0 to {classes - 1} for {classes} classes"
        raise ValueError(f"{what} must be {wanted}, got {y.min():g} to {y.max():g}")
    return y.astype(np.intp)


guard(globals())
