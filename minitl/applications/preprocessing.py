"""What images must look like for pretrained weights, and a warning for those that cannot be right.

`InputRange` is what the input layer of a network with ImageNet weights calls with each batch (its
attribute `inspect`). It looks at the values once, and says which function should have been called.
"""

from __future__ import annotations

import warnings

import numpy as np


class InputRange:
    """Warns once when images cannot have been preprocessed for the weights that they meet.

    Weights trained on values in [low, high] give plausible nonsense on images scaled to [0, 1].
    Pixels of an image fill a good part of their range, so three things can be told apart from
    the minimum and maximum alone: scaled to [0, 1] or [-1, 1], raw 0-255, and preprocessed.

    Args:
        low, high: the extremes that the preprocessing can give.
        remedy: what the user should call, as a sentence.
    """

    def __init__(self, low: float, high: float, remedy: str):
        self.low, self.high, self.remedy = low, high, remedy
        self.done = False

    def __call__(self, x: np.ndarray, name: str) -> None:
        if self.done or x.size == 0:
            return
        self.done = True
        low, high = float(x.min()), float(x.max())
        if low == high:  # a constant image says nothing
            self.done = False
            return
        scaled = low >= -1.0 and high <= 1.0
        raw = low >= 0.0  # preprocessed images have negative values: they are centred
        outside = low < self.low - 1 or high > self.high + 1
        if scaled or raw or outside:
            warnings.warn(
                f"the images given to {name!r} have values from {low:.4g} to {high:.4g}, but its "
                f"pretrained weights expect about {self.low:.4g} to {self.high:.4g}. {self.remedy}",
                UserWarning,
                stacklevel=2,
            )
