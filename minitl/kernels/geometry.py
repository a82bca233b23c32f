"""Where a sliding window lands: output sizes, padding, and every error about shapes.

Convolution and pooling move a window of KH x KW over the H and W axes of an image, SH rows and
SW columns at a time. This file answers, once for all kernels, how many places the window visits
(OH x OW), how many zeros stand around the image, and what is wrong when it does not fit.

    'valid'   no padding; the window stays inside:      OH = floor((H - KH) / SH) + 1
    'same'    zeros around; every SH-th row has a place: OH = ceil(H / SH)

With 'same' the total padding is max((OH - 1) * SH + KH - H, 0); when it is odd, the extra row
goes to the bottom and the extra column to the right, as in TensorFlow and unlike PyTorch.
"""

import functools
from typing import NamedTuple

import numpy as np

Array = np.ndarray
Pair = tuple[int, int]


class Geometry(NamedTuple):
    """A window over the H and W axes: everything a kernel needs besides its arrays."""

    size: Pair  # H, W of the input, without padding
    window: Pair  # KH, KW
    strides: Pair  # SH, SW
    pads: tuple[int, int, int, int]  # top, bottom, left, right
    out_size: Pair  # OH, OW


@functools.lru_cache(maxsize=1000)  # a network asks for the same ones at every call
def sliding(size: Pair, window: Pair, strides: Pair, padding: str) -> Geometry:
    """Place a `window` (KH, KW) over an image of `size` (H, W) and return the `Geometry`.

    Raises ValueError when `padding` is neither 'valid' nor 'same', when a size or a stride is
    not positive, or when a 'valid' window is larger than the image.

    >>> sliding((224, 224), (3, 3), (1, 1), "same").out_size
    (224, 224)
    >>> sliding((5, 5), (2, 2), (2, 2), "valid").out_size
    (2, 2)
    """
    if padding not in ("valid", "same"):
        raise ValueError(f"padding must be 'valid' or 'same', got {padding!r}")
    for what, pair in (("image size", size), ("window", window), ("strides", strides)):
        if min(pair) < 1:
            raise ValueError(f"{what} must be positive along H and W, got {pair}")
    rows, top, bottom = _along_axis(size[0], window[0], strides[0], padding)
    columns, left, right = _along_axis(size[1], window[1], strides[1], padding)
    if rows < 1 or columns < 1:
        raise ValueError(
            f"a window of {window[0]}x{window[1]} does not fit into an image of "
            f"{size[0]}x{size[1]} with padding='valid'; use a larger image, a smaller window, "
            f"or padding='same'"
        )
    return Geometry(size, window, strides, (top, bottom, left, right), (rows, columns))


def _along_axis(size: int, window: int, stride: int, padding: str) -> tuple[int, int, int]:
    """Output size and padding (before, after) along one axis."""
    if padding == "valid":
        return (size - window) // stride + 1, 0, 0
    out = -(-size // stride)  # ceil
    pad = max((out - 1) * stride + window - size, 0)
    return out, pad // 2, pad - pad // 2
