"""Shapes that the kernel tests share: small, odd, and one for each thing that can go wrong."""

import importlib
import pkgutil
from types import SimpleNamespace
from typing import Any

import numpy as np

from minitl import kernels
from minitl.kernels.geometry import sliding

# Kernels that have formulas in files of their own; and all formulas, wherever they stand.
NAMES: dict[str, Any] = {}
for file in pkgutil.iter_modules(kernels.__path__, "minitl.kernels."):
    if not file.ispkg:
        NAMES |= vars(importlib.import_module(file.name))
BESIDE = {name: kernel for name, kernel in NAMES.items() if hasattr(kernel, "formula")}
FORMULAS = {name: kernel.formula for name, kernel in BESIDE.items()}
reference = SimpleNamespace(**NAMES | vars(kernels.reference) | FORMULAS)

# (N, H, W, C), (KH, KW), (SH, SW), padding
WINDOWS = [
    ((1, 1, 1, 1), (1, 1), (1, 1), "valid"),
    ((2, 5, 4, 3), (1, 1), (1, 1), "same"),  # no columns to copy
    ((2, 5, 6, 3), (1, 1), (2, 2), "valid"),  # stride larger than the window: inputs unseen
    ((2, 7, 5, 2), (1, 1), (3, 2), "same"),
    ((2, 6, 5, 3), (2, 2), (2, 2), "valid"),  # a column left over
    ((2, 6, 5, 3), (2, 2), (2, 2), "same"),
    ((2, 5, 4, 3), (2, 2), (1, 1), "same"),  # padding at the bottom and right only
    ((1, 6, 7, 2), (4, 3), (1, 1), "same"),  # more at the bottom than at the top
    ((3, 7, 8, 4), (3, 3), (1, 1), "same"),
    ((1, 8, 7, 5), (3, 3), (1, 1), "valid"),
    ((2, 9, 6, 3), (3, 3), (2, 2), "same"),
    ((2, 7, 7, 3), (3, 3), (3, 3), "same"),
    ((1, 9, 11, 2), (5, 5), (1, 1), "same"),
    ((2, 11, 9, 2), (5, 5), (2, 3), "valid"),
    ((1, 13, 10, 3), (7, 7), (2, 2), "same"),  # ResNet's first layer
    ((2, 4, 3, 2), (7, 7), (1, 1), "same"),  # window larger than the image
    ((2, 6, 9, 3), (2, 5), (3, 1), "same"),  # neither window nor stride square
    ((2, 3, 3, 9), (3, 3), (1, 1), "valid"),  # one place only
]


def name(window_case):
    shape, window, strides, padding = window_case
    return "-".join("x".join(map(str, part)) for part in (shape, window, strides)) + f"-{padding}"


def geometry_of(window_case):
    shape, window, strides, padding = window_case
    return sliding(shape[1:3], window, strides, padding)


def normal(rng, shape, dtype=np.float64):
    return rng.standard_normal(shape).astype(dtype)


def exactly(kernel, *arguments):
    """A formula in float64."""
    wide = [
        a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a
        for a in arguments
    ]
    return kernel(*wide)
