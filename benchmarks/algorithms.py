"""Which fast convolutions there are, and how to have one of them for everything.

`minitl.kernels.choosing` chooses by shape. A benchmark that compares algorithms goes past that:
with the kernels themselves (`layers.py`), or with `only` around a whole model.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from minitl import kernels
from minitl.kernels.geometry import Geometry

KNOWN = ("direct", "winograd")
FEWEST_CHANNELS = {"direct": 1, "winograd": 8}  # of the input; less is not what it is made for


def available() -> list[str]:
    """Those of KNOWN that this minitl has."""
    return [name for name in KNOWN if importlib.util.find_spec(f"minitl.kernels.{name}")]


def module(name: str) -> ModuleType:
    """The module with an algorithm's `conv2d` and its two gradients."""
    return importlib.import_module(f"minitl.kernels.{name}")


def suits(name: str, channels: int) -> bool:
    """Whether an algorithm is worth asking for one of VGG16's convolutions."""
    return channels >= FEWEST_CHANNELS[name]


@contextlib.contextmanager
def only(name: str | None) -> Iterator[None]:
    """Let all convolutions that suit it run one algorithm; None leaves all to `minitl.kernels`."""
    if name is None:
        yield
        return
    choice = kernels.choose
    rooms: Any = kernels  # so that its rule can be replaced

    def always(
        images: int, geometry: Geometry, channels: int, filters: int, gradient: str | None = None
    ) -> str:
        if suits(name, channels):
            return name
        return choice(images, geometry, channels, filters, gradient)

    rooms.choose = always
    try:
        yield
    finally:
        rooms.choose = choice
