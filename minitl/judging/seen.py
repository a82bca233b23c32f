"""Which pictures has a model been trained on? It remembers them by what they look like.

Of each picture 8 bytes say which it is exactly, and 144 how it looks, so small and gray that a copy
which was re-encoded or resized looks the same. `remember` makes of N pictures what a model keeps in
its metadata, under "seen"; `recognise` tells which of others are among them.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minitl.judging.duplicates import thumbnail
from minitl.models.arguments import guard

SIDE = 12  # of a look
MOST = 20_000  # pictures that are remembered; of more, so many drawn at random
# Copies as JPEG of quality 20, or of a quarter of the size, are at most 1.5 from the picture; of
# 656 solar cells the nearest two are 1.9 apart, photographs 14.
CLOSE, FAR, SHARE = 1.0, 4.0, 0.19  # as in `duplicates.py`, where the median says how alike all are


def look(image: np.ndarray) -> np.ndarray:
    """(144,) uint8 of a picture (H, W, 3), 0-255: its grays in 12 x 12 fields."""
    gray = thumbnail(image).astype(np.float32).mean(axis=2)
    side = len(gray) // SIDE
    fields = gray.reshape(SIDE, side, SIDE, side).mean(axis=(1, 3))
    return np.rint(fields).astype(np.uint8).ravel()


def remember(digests: Sequence[str], looks: np.ndarray, seed: int = 0) -> dict[str, Any]:
    """What a model keeps of N pictures: digests, hexadecimal, and looks (N, 144)."""
    count = len(digests)
    rows = np.random.default_rng(seed).permutation(count)[:MOST] if count > MOST else slice(None)
    kept = np.asarray(looks, np.uint8)[rows]
    exact = np.frombuffer(b"".join(bytes.fromhex(d[:16]) for d in digests), "V8")[rows]
    nearest = _distances(kept[:2000], kept[:2000])
    nearest[np.diag_indices(len(nearest))] = np.inf
    typical = float(np.median(nearest.min(axis=1))) if len(nearest) > 1 else 0.0
    return {
        "images": count,
        "limit": float(np.clip(SHARE * min(typical, 1e6), CLOSE, FAR)),
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
        raise ValueError(
            f"what the model says of its training images is damaged: {error}"
        ) from None
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
    """(N, M): how unlike looks (N, 144) and (M, 144) are, light and contrast apart.

    The root mean square of what is left of the flatter one when the other is fitted to it, over
    what JPEG leaves: 0.5 + 0.02 of its contrast. One colour looks like that colour alone.
    """
    (ma, sa, ua), (mb, sb, ub) = (_units(x) for x in (a, b))
    cosine = ua @ ub.T  # (N, 144) x (144, M)
    flatter, other = np.minimum(sa[:, None], sb), np.maximum(sa[:, None], sb)
    left = flatter * np.sqrt(np.maximum(1 - cosine * np.abs(cosine), 0)) / (0.5 + 0.02 * flatter)
    plain = np.abs(ma[:, None] - mb) + other  # where there is nothing to be known by
    return np.where(flatter < 1, plain, np.where(other < 1.7 * flatter + 2, left, np.inf))


def _units(looks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.asarray(looks, np.float32)
    mean, spread = x.mean(axis=1), x.std(axis=1)
    unit = (x - mean[:, None]) / (SIDE * np.maximum(spread, 1e-6))[:, None]
    return mean, spread, unit


guard(globals())
