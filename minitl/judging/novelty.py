"""Is a picture unlike all that a model was trained on? Then its probability means little.

A softmax shares out 1 among the classes, whatever the picture. `Novelty` compares F of a picture
with the F of the training pictures of the class that the model sees in it: the mean distance to the
nearest NEAREST of them, between directions, for the length of F says more of contrast than of
content. What is far by the training pictures' own measure, each against the others while it was
held out, is unlike them. About 5 of 100 new pictures that do belong are called so, most of them
among those of which the model is certain, where it matters. It goes into a model's metadata
(`to_dict`), and out again (`of`).

Hendrycks & Gimpel 2017 (arXiv 1610.02136) is where to begin reading; Sun et al. 2022 (arXiv
2204.06507) use nearest neighbours so.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

NEAREST = 3
CERTAIN = 0.9  # a probability above which the stricter limit holds
SPARED = 0.035  # of all pictures are beyond that limit, and at most
MOST = 0.12  # of those that are certain
QUANTILE = 0.99  # of the others' distances: their limit
NUMBERS = 500_000  # bytes of the training pictures' directions that are kept, at most


@dataclass(eq=False)
class Novelty:
    """What a model knows of its training pictures.

    first, last  which columns of F are compared
    scale        (D',) what they are multiplied with
    rows         (N, D') int8: the pictures' directions, 127 for 1 at the most
    labels       (N,) their classes
    limit, certain  distances from which on a picture is unlike all of them
    """

    first: int
    last: int
    scale: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    limit: float
    certain: float

    @classmethod
    def fit(
        cls, f: Any, y: Any, p: Any, columns: tuple[int, int] | None = None, seed: int = 0
    ) -> Novelty:
        """From F (N, D) of the training pictures, their labels y (N,), and their probabilities
        p (N, m), found while they were held out if that can be; `columns` of F are compared, all
        when None."""
        first, last = columns or (0, np.shape(f)[1])
        f, p = np.asarray(f, np.float32)[:, first:last], np.asarray(p)
        y = np.asarray(y, np.int32)
        variance = f.var(axis=0, dtype=np.float64)
        # Few columns vary much more than others; the rest keep their own size.
        scale = 1 / np.sqrt(np.maximum(variance, max(4 * variance.mean(), 1e-12)))
        most = max(NUMBERS // (last - first), 50)
        if len(f) > most:
            rows = np.random.default_rng(seed).permutation(len(f))[:most]
            f, y, p = f[rows], y[rows], p[rows]
        none = np.zeros((0, 0), np.int8)
        found = cls(first, last, scale.astype(np.float32), none, y, 2.0, 2.0)
        unit = found._directions(f)
        found.rows = np.rint(127 * unit).astype(np.int8)
        own, sure = _far(unit, p.argmax(axis=1), unit, y, apart=True), p.max(axis=1) > CERTAIN
        found.limit = float(np.quantile(own[~sure], QUANTILE) if not sure.all() else own.max())
        if sure.any():
            share = min(SPARED * len(own) / sure.sum(), MOST)
            found.certain = float(np.quantile(own[sure], 1 - share))
            found.limit = max(found.limit, found.certain)
        return found

    def distances(self, f: Any, classes: Any) -> np.ndarray:
        """(N,) from 0 to 2, of F (N, D): how far each is from the nearest training pictures of its
        class, a number of `classes` (N,)."""
        if np.ndim(f) != 2 or np.shape(f)[1] < self.last:
            raise ValueError(f"F has shape {np.shape(f)}; columns up to {self.last} are compared")
        unit = self._directions(np.asarray(f, np.float32)[:, self.first : self.last])
        return _far(unit, np.asarray(classes), self.rows.astype(np.float32) / 127, self.labels)

    def unlike(self, f: Any, p: Any) -> np.ndarray:
        """(N,) whether pictures with F (N, D) and probabilities p (N, m) are unlike all of the
        class that is the most likely."""
        p = np.asarray(p)
        limits = np.where(p.max(axis=1) > CERTAIN, self.certain, self.limit)
        return self.distances(f, p.argmax(axis=1)) > limits

    def _directions(self, f: np.ndarray) -> np.ndarray:
        x = f * self.scale
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: about one byte per number of the training pictures' directions."""
        packed = {
            "scale": base64.b64encode(self.scale.astype("<f4").tobytes()).decode(),
            "rows": base64.b64encode(self.rows.tobytes()).decode(),
            "labels": self.labels.tolist(),
        }
        return packed | {k: getattr(self, k) for k in ("first", "last", "limit", "certain")}

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Novelty | None:
        """That of a model's metadata; None without, and where no labels are kept, as formerly.
        Raises ValueError when it is damaged."""
        given = about.get("novelty")
        if given is None or (isinstance(given, dict) and "labels" not in given):
            return None
        try:
            kept = dict(given)
            width = int(kept["last"]) - int(kept["first"])
            scale = np.frombuffer(base64.b64decode(kept.pop("scale")), "<f4")
            rows = np.frombuffer(base64.b64decode(kept.pop("rows")), np.int8).reshape(-1, width)
            labels = np.asarray(kept["labels"], np.int32)
            limits = {k: float(kept[k]) for k in ("limit", "certain")}
            fine = len(scale) == width and labels.shape == (len(rows),) and int(kept["first"]) >= 0
            if not fine or len(rows) == 0:
                raise ValueError(f"{width} columns and {len(scale)} scales of {len(rows)} pictures")
            return cls(int(kept["first"]), int(kept["last"]), scale, rows, labels, **limits)
        except (KeyError, TypeError, ValueError) as error:
            text = "what the model says of its training images' features is damaged"
            raise ValueError(f"{text}: {error}") from None


def _far(a: np.ndarray, classes: Any, b: np.ndarray, labels: Any, apart: bool = False) -> Any:
    """(N,) mean distance of unit rows a (N, D) to the nearest NEAREST of b (M, D) whose labels (M,)
    are their `classes` (N,); with `apart` b is a, and none is near itself. 2 where there are none.
    """
    found = np.empty(len(a))
    few = max(1, min(NEAREST, len(b) - apart))
    for start in range(0, len(a), 512):
        some = slice(start, start + 512)
        squares = 2 - 2 * a[some] @ b.T  # (rows, M)
        squares[classes[some, np.newaxis] != labels] = np.inf
        if apart:
            i = np.arange(len(squares))
            squares[i, start + i] = np.inf
        nearest = np.partition(squares, few - 1, axis=1)[:, :few]
        there = np.isfinite(nearest)
        total = np.sqrt(np.maximum(np.where(there, nearest, 0), 0)).sum(axis=1)
        found[some] = np.where(there.any(axis=1), total / np.maximum(there.sum(axis=1), 1), 2.0)
    return found
