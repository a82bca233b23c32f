"""Which fast convolutions there are, and how to have one of them for everything.

`minitl.kernels` chooses by shape. A benchmark that compares algorithms goes past that choice:
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

KNOWN = ("direct", "winograd")


def available() -> list[str]:
    """Those of KNOWN that this minitl has."""
    return [name for name in KNOWN if importlib.util.find_spec(f"minitl.kernels.{name}")]


def module(name: str) -> ModuleType:
    """The module with an algorithm's `conv2d` and its two gradients."""
    return importlib.import_module(f"minitl.kernels.{name}")


@contextlib.contextmanager
def only(name: str | None) -> Iterator[None]:
    """Let all convolutions run one algorithm; None leaves the choice to `minitl.kernels`."""
    if name is None:
        yield
        return
    chosen = kernels._convolution

    def always(*shapes: Any) -> ModuleType:
        return module(name)

    kernels._convolution = always
    try:
        yield
    finally:
        kernels._convolution = chosen
