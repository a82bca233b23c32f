"""Which pictures has a model been trained on? It remembers them by what they look like.

Of each picture 8 bytes say which it is exactly, and 144 how it looks, so small and gray that a copy
which was re-encoded or resized looks the same: by the distance of `duplicates.py`. `remember` makes
of N pictures what a model keeps in its metadata, under "seen"; `recognise` tells which of others
are among them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minitl.judging.duplicates import near_limit, unlikeness
from minitl.models.arguments import guard

# Of 2,624 solar cells the nearest two are 1.00 apart; of 200 copies as JPEG of quality 20 it is 4
# that are 0.95 or more from theirs, of quality 35 one, of half and a quarter of the size none.
SIDE = 12  # of a look
MOST = 20_000  # pictures that are remembered; of more, so many drawn at random
PLAIN = 1.0  # levels: so little contrast is one colour, which is known by itself


def look(small: np.ndarray) -> np.ndarray:
    """(144,) uint8: of a picture's `thumbnail` (24, 24, 3), the grays in 12 x 12 fields."""
    fields = small.astype(np.float32).reshape(SIDE, 2, SIDE, 2, 3).mean(axis=(1, 3, 4))
    return np.rint(fields).astype(np.uint8).ravel()


def remember(digests: Sequence[str], looks: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """What a model keeps of N pictures: digests, hexadecimal, and looks (N, 144)."""
    count = len(digests)
    rows = np.random.default_rng(seed).permutation(count)[:MOST] if count > MOST else slice(None)
    kept = np.asarray(looks, np.uint8)[rows]
    exact = np.frombuffer(b"".join(bytes.fromhex(d[:16]) for d in digests), "V8")[rows]
    apart = _distances(kept[:2000], kept[:2000])
    np.fill_diagonal(apart, np.inf)
    nearest = apart.min(axis=1, initial=np.inf)
    return {
        "images": count,
        "limit": near_limit(nearest),
        "digests": base64.b64encode(exact.tobytes()).decode(),
        "looks": base64.b64encode(kept.tobytes()).decode(),
    }


def recognise(seen: Mapping[str, Any], digests: Sequence[str], looks: np.ndarray) -> np.ndarray:
    """(N,) of other pictures: 2 for the very same, 1 for a copy, 0 for one that is not known.

    Raises ValueError when `seen` is not what `remember` made.
    """
    try:
        exact = {*np.frombuffer(base64.b64decode(seen["digests"]), "V8").tolist()}
        kept = np.frombuffer(base64.b64decode(seen["looks"]), np.uint8).reshape(-1, SIDE**2)
        limit = float(seen["limit"])
    except (KeyError, TypeError, ValueError) as error:
        text = f"what the model says of its training images is damaged: {error}"
        raise ValueError(text) from None
    found = np.zeros(len(digests), np.intp)
    for start in range(0, len(digests), 512):
        some = slice(start, start + 512)
        if len(kept):
            near = _distances(np.asarray(looks)[some], kept).min(axis=1)
            found[some][near <= limit] = 1
    same = [bytes.fromhex(digest[:16]) in exact for digest in digests]
    found[np.array(same, bool)] = 2
    return found


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M): how unlike looks (N, 144) and (M, 144) are; one colour looks like that colour alone,
    by their difference in levels."""
    x, y = (np.asarray(some, np.float32) for some in (a, b))
    mx, my = x.mean(axis=1), y.mean(axis=1)
    x, y = x - mx[:, np.newaxis], y - my[:, np.newaxis]
    xx, yy = (x * x).mean(axis=1)[:, np.newaxis], (y * y).mean(axis=1)
    found = unlikeness(xx, yy, x @ y.T / SIDE**2)  # (N, 144) x (144, M)
    plain = np.abs(mx[:, np.newaxis] - my) + np.sqrt(np.maximum(xx, yy))
    return np.where(np.minimum(xx, yy) < PLAIN, plain, found)


guard(globals())
