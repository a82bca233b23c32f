"""Pictures that are there twice: the same file, or one re-encoded, resized, made a little lighter.

`thumbnail` takes one picture as it is read and gives 24 x 24 x 3 numbers; `near_duplicates` finds
the pairs among N of these. A copy B of a picture A is A in other light, and noise:

    B = a A + b + r        distance(A, B) = |r| / (0.5 + 0.02 s)

in gray, with the a and b that fit best, |r| the root mean square of what is left and s the contrast
(standard deviation) of the flatter one, in levels of 0-255; the colours need only be about the
same, for JPEG keeps them badly. Pixels at the ends of the range are left out: light that was cut
off there does not come back. No pair is compared in a loop: a product of matrices gives the few
nearest of each picture, and only these are looked at closely.
"""

from typing import Any

import numpy as np
from PIL import Image

from minitl.data.images import resize_images
from minitl.models.arguments import guard

SIDE = 24  # of a thumbnail; finer ones see the damage that JPEG does, coarser ones no details
NEAREST = 8  # of each picture that are looked at closely
FLAT = 1.0  # levels; a picture of less contrast has no details to be known by
ROWS = 1024  # pictures that are compared with all others at a time
WIDE = np.eye(4 * SIDE, dtype=np.float32)[np.newaxis]  # what Pillow, whose levels are whole, leaves
SHRINK = resize_images(WIDE, (SIDE, 4 * SIDE), antialias=True)[0]  # a line of it to one of ours

# Solar cells of one ingot, cut from neighbouring wafers, are the most alike of different pictures
# that were found: 1.00 and above, where copies as JPEG of quality 20 reach 0.92, of 50 0.38.
CLOSE, FAR = 0.95, 3.0
TINT = 15.0  # levels by which colours may differ, in the root mean square
SHARE = 0.25  # of what is between pictures and their nearest, in 9 of 10: where less is alike


def as_pillow(image: Any) -> Image.Image:
    """A Pillow image of a picture (H, W, 3), 0-255, that may be one already."""
    if isinstance(image, Image.Image):
        return image
    a = np.asarray(image)
    return Image.fromarray(a if a.dtype == np.uint8 else np.rint(a).clip(0, 255).astype("u1"))


def thumbnail(image: Any) -> np.ndarray:
    """(24, 24, 3) float16, 0-255, of a picture (H, W, 3) of any size, 0-255, or a Pillow image."""
    rgb, side = as_pillow(image).convert("RGB"), SHRINK.shape[1]
    pixels = np.asarray(rgb.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2))
    lines = (SHRINK @ pixels.reshape(side, -1).astype("f4")).reshape(SIDE, side, 3)
    return (SHRINK @ lines).astype(np.float16)


def contrast(thumbnails: np.ndarray) -> np.ndarray:
    """(N,) standard deviation over the places of thumbnails (N, 24, 24, 3), 0-255 levels: that
    of the channel in which it is largest. 0 is one colour."""
    places = np.asarray(thumbnails, np.float32).reshape(len(thumbnails), SIDE**2, 3)
    return places.std(axis=1).max(axis=1)


def near_duplicates(thumbnails: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (P, 2) of pictures that are copies of each other, i < j, and their distances (P,).

    thumbnails  (N, 24, 24, 3), of `thumbnail`

    Sorted by distance. Pictures of one colour are in no pair. What counts as near follows the set:
    up to 0.95, and where 9 of 10 pictures have no other within 4 d, up to d, at most 3. So cells
    that all look alike are told apart, and a rough copy of a photograph is found.
    """
    rows = np.flatnonzero(contrast(thumbnails) >= FLAT)
    pictures = np.asarray(thumbnails)[rows].reshape(len(rows), 3 * SIDE**2)
    pairs = _candidates(pictures)
    distances = _distances(pictures, pairs)
    if not len(pairs):
        return pairs, distances
    nearest = np.full(len(rows), np.inf)
    for side in (0, 1):
        np.minimum.at(nearest, pairs[:, side], distances)
    found = np.flatnonzero(distances <= near_limit(nearest))
    found = found[np.argsort(distances[found], kind="stable")]
    return rows[pairs[found]], distances[found]


def near_limit(nearest: np.ndarray) -> float:
    """Up to what distance pictures are copies, by that from each to its nearest other (N,)."""
    others = np.append(nearest[nearest > CLOSE], np.inf)
    return float(np.clip(SHARE * np.quantile(others, 0.1, method="lower"), CLOSE, FAR))


def unlikeness(aa: Any, bb: Any, ab: Any) -> np.ndarray:
    """The distance, see above, by variances and covariance of grays; infinite for a negative, and
    where one has much more contrast than light explains."""
    flatter, other = np.minimum(aa, bb), np.maximum(aa, bb)
    left = np.sqrt(np.maximum(flatter - ab * ab / np.maximum(other, 1e-6), 0))
    alike = (ab > 0) & (other < 3 * flatter + 4)
    return np.where(alike, left / (0.5 + 0.02 * np.sqrt(flatter)), np.inf)


def groups_of(pairs: np.ndarray, count: int) -> np.ndarray:
    """(count,) numbers: pictures that pairs (P, 2) tie together, directly or not, have the same.

    >>> groups_of(np.array([[0, 2], [2, 3]]), 5).tolist()
    [0, 1, 0, 0, 2]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = np.asarray(pairs, np.intp).reshape(-1, 2).T
    ties = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    return connected_components(ties, directed=False)[1].astype(np.intp)


def _candidates(pictures: np.ndarray) -> np.ndarray:
    """Pairs (P, 2), i < j, in which one is among the nearest of the other, at half the size."""
    n = len(pictures)
    if n < 2:
        return np.zeros((0, 2), np.intp)
    half = SIDE // 2
    gray = pictures.reshape(n, half, 2, half, 2, 3).mean(axis=(2, 4, 5), dtype=np.float32)
    gray = gray.reshape(n, -1) - gray.reshape(n, -1).mean(axis=1, keepdims=True)
    variance = (gray * gray).mean(axis=1)
    few, found = min(NEAREST, n - 1), []
    for start in range(0, n, ROWS):
        here = np.arange(start, min(start + ROWS, n))
        shared = gray[here] @ gray.T / half**2  # (rows, N)
        residual = np.minimum(unlikeness(variance[here, np.newaxis], variance, shared), 1e6)
        residual[np.arange(len(here)), here] = np.inf
        nearest = np.argpartition(residual, few - 1, axis=1)[:, :few]
        found.append(np.column_stack([np.repeat(here, few), nearest.ravel()]))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _distances(pictures: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(P,) the distance of each pair, see above; infinite for other colours, or other light."""
    found = np.full(len(pairs), np.inf)
    for start in range(0, len(pairs), ROWS):
        some = slice(start, start + ROWS)
        rgb = [
            pictures[pairs[some, side]].reshape(-1, SIDE**2, 3).astype(np.float32)
            for side in (0, 1)
        ]
        inside = (np.minimum(*rgb).min(axis=2) > 4) & (np.maximum(*rgb).max(axis=2) < 251)
        count = inside.sum(axis=1)
        enough = count > inside.shape[1] / 4
        inside[~enough], count[~enough] = True, inside.shape[1]
        gray = [x.mean(axis=2) for x in rgb]
        tint = np.subtract(*(x - g[..., np.newaxis] for x, g in zip(rgb, gray, strict=True)))
        tint = np.sqrt(np.where(inside, (tint**2).mean(axis=2), 0).sum(axis=1) / count)
        a, b = (np.where(inside, g - _mean(g, inside, count), 0) for g in gray)
        aa, bb, ab = (np.einsum("pi,pi->p", *two) for two in ((a, a), (b, b), (a, b)))
        apart = unlikeness(aa / count, bb / count, ab / count)
        found[some] = np.where(tint < TINT, apart, np.inf)
    return found


def _mean(x: np.ndarray, inside: np.ndarray, count: np.ndarray) -> np.ndarray:
    return (np.where(inside, x, 0).sum(axis=1) / count)[:, np.newaxis]


guard(globals())
