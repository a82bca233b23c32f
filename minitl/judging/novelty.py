"""Is a picture unlike all that a model was trained on? Then its probability means little.

A softmax shares out 1 among the classes, whatever the picture. `Novelty` compares F of a picture
with the F of the training pictures: the mean distance to the nearest NEAREST of them, between
directions, for the length of F says more of contrast than of content. What is far by the training
pictures' own measure (each against the others) is unlike them: beyond QUANTILE of their distances,
or, for a class that is all but certain, of the distances of those that were as certain. It goes
into a model's metadata (`to_dict`), and out again (`of`).

Hendrycks & Gimpel 2017 (arXiv 1610.02136) is where to begin reading; Sun et al. 2022 (arXiv
2204.06507) use nearest neighbours so.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

NEAREST = 5
QUANTILE = 0.92
CERTAIN = 0.8  # a probability from which on the stricter limit holds
NUMBERS = 500_000  # bytes of the training pictures' directions that are kept, at most


@dataclass(eq=False)
class Novelty:
    """What a model knows of its training pictures.

    first, last  which columns of F are compared
    scale        (D',) what they are multiplied with
    rows         (N, D') int8: the pictures' directions, 127 for 1 at the most
    limit, certain  distances from which on a picture is unlike all of them
    """

    first: int
    last: int
    scale: np.ndarray
    rows: np.ndarray
    limit: float
    certain: float

    @classmethod
    def fit(cls, f: Any, p: Any, columns: tuple[int, int] | None = None, seed: int = 0) -> Novelty:
        """From F (N, D) of the training pictures and their highest probabilities p (N,), found
        while they were held out if that can be; `columns` of F are compared, all when None."""
        first, last = columns or (0, np.shape(f)[1])
        f, p = np.asarray(f, np.float32)[:, first:last], np.asarray(p)
        variance = f.var(axis=0, dtype=np.float64)
        # Few columns vary much more than others; the rest keep their own size.
        scale = 1 / np.sqrt(np.maximum(variance, max(4 * variance.mean(), 1e-12)))
        most = max(NUMBERS // (last - first), 50)
        if len(f) > most:
            rows = np.random.default_rng(seed).permutation(len(f))[:most]
            f, p = f[rows], p[rows]
        found = cls(first, last, scale.astype(np.float32), np.zeros((0, 0), np.int8), 0.0, 0.0)
        unit = found._directions(f)
        found.rows = np.rint(127 * unit).astype(np.int8)
        own = _far(unit, unit, apart=True)
        found.limit = float(np.quantile(own, QUANTILE))
        sure = own[p > CERTAIN]
        found.certain = min(found.limit, float(np.quantile(sure, QUANTILE)) if len(sure) else 9.0)
        return found

    def distances(self, f: Any) -> np.ndarray:
        """(N,) from 0 to 2, of F (N, D): how far each is from the nearest training pictures."""
        if np.ndim(f) != 2 or np.shape(f)[1] < self.last:
            raise ValueError(f"F has shape {np.shape(f)}; columns up to {self.last} are compared")
        unit = self._directions(np.asarray(f, np.float32)[:, self.first : self.last])
        return _far(unit, self.rows.astype(np.float32) / 127)

    def unlike(self, f: Any, p: Any) -> np.ndarray:
        """(N,) whether pictures with F (N, D) and highest probabilities p (N,) are unlike all."""
        return self.distances(f) > np.where(np.asarray(p) > CERTAIN, self.certain, self.limit)

    def _directions(self, f: np.ndarray) -> np.ndarray:
        x = f * self.scale
        return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    def to_dict(self) -> dict[str, Any]:
        """For JSON: about one byte per number of the training pictures' directions."""
        packed = {
            "scale": base64.b64encode(self.scale.astype("<f4").tobytes()).decode(),
            "rows": base64.b64encode(self.rows.tobytes()).decode(),
        }
        return packed | {k: getattr(self, k) for k in ("first", "last", "limit", "certain")}

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Novelty | None:
        """That of a model's metadata, or None. Raises ValueError when it is damaged."""
        if "novelty" not in about:
            return None
        try:
            kept = dict(about["novelty"])
            width = int(kept["last"]) - int(kept["first"])
            scale = np.frombuffer(base64.b64decode(kept.pop("scale")), "<f4")
            rows = np.frombuffer(base64.b64decode(kept.pop("rows")), np.int8).reshape(-1, width)
            limits = {k: float(kept[k]) for k in ("limit", "certain")}
            if len(scale) != width or len(rows) == 0 or int(kept["first"]) < 0:
                raise ValueError(f"{width} columns and {len(scale)} scales of {len(rows)} pictures")
            return cls(int(kept["first"]), int(kept["last"]), scale, rows, **limits)
        except (KeyError, TypeError, ValueError) as error:
            text = "what the model says of its training images' features is damaged"
            raise ValueError(f"{text}: {error}") from None


def _far(a: np.ndarray, b: np.ndarray, apart: bool = False) -> np.ndarray:
    """(N,) mean distance of unit rows a (N, D) to the nearest NEAREST of b (M, D); with `apart`
    b is a, and none is near itself."""
    found = np.empty(len(a))
    few = max(1, min(NEAREST, len(b) - apart))
    for start in range(0, len(a), 512):
        squares = 2 - 2 * a[start : start + 512] @ b.T  # (rows, M)
        if apart:
            i = np.arange(len(squares))
            squares[i, start + i] = np.inf
        nearest = np.partition(squares, few - 1, axis=1)[:, :few]
        found[start : start + 512] = np.sqrt(np.maximum(nearest, 0)).mean(axis=1)
    return found
