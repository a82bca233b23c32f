"""Which fast convolutions there are, and how to have one of them for everything.

`kernels/fast/convolution.py` chooses by shape. A benchmark that compares algorithms goes past that:
with the kernels themselves (`layers.py`), or with `only` around a whole model.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from types import ModuleType
from unittest import mock

from minitl.kernels.fast import convolution
from minitl.kernels.geometry import Geometry

KNOWN = ("im2col", "winograd")
FEWEST_CHANNELS = {"im2col": 1, "winograd": 8}  # of the input; less is not what it is made for


def module(name: str) -> ModuleType:
    """The module with an algorithm's `conv2d` and its two gradients."""
    return importlib.import_module(f"minitl.kernels.fast.{name}")


def suits(name: str, channels: int) -> bool:
    """Whether an algorithm is worth asking for one of VGG16's convolutions."""
    return channels >= FEWEST_CHANNELS[name]


@contextlib.contextmanager
def only(name: str | None) -> Iterator[None]:
    """Let all convolutions that suit it run one algorithm; None leaves the choice alone."""
    if name is None:
        yield
        return
    choice = convolution.choose

    def always(
        images: int, geometry: Geometry, channels: int, filters: int, gradient: str | None = None
    ) -> ModuleType:
        if suits(name, channels):
            return module(name)
        return choice(images, geometry, channels, filters, gradient)

    with mock.patch.object(convolution, "choose", always):
        yield
