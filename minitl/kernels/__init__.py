"""The kernels, and the ONE place that chooses among them.

Every kernel exists twice under one name and signature: as its formula in `reference.py`, and
fast, in `direct.py`, `pooling.py`, `pointwise.py` or `updates.py`. The functions of this module
look up, call by call, which of the two is wanted now, and where there are several fast ones,
which is the fastest for these shapes. `use_kernels("reference")` switches all of them.

The fast modules are imported when one of their kernels is first called: they bring Numba along,
which `import minitl` must not wait for.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import ParamSpec, TypeVar

from minitl.kernels import reference
from minitl.kernels.geometry import Geometry
from minitl.kernels.reference import Array

P = ParamSpec("P")
R = TypeVar("R")

_current = "fast"


def current_kernels() -> str:
    """Which kernels run now: 'reference', 'fast' or 'direct'."""
    return _current


class use_kernels:
    """Switch all kernels of this process: 'reference', 'fast', or 'direct'.

    'direct' is 'fast' without Winograd's algorithm, to see what that brings and what it costs in
    accuracy. As a plain call it holds until the next; as a context manager, until the block is
    left.
    Raises ValueError for any other word.

    >>> with use_kernels("reference"):
    ...     current_kernels()
    'reference'
    >>> current_kernels()
    'fast'
    """

    def __init__(self, which: str) -> None:
        global _current
        if which not in ("reference", "fast", "direct"):
            raise ValueError(f"kernels are 'reference', 'fast' or 'direct', got {which!r}")
        self._before = _current
        _current = which

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        global _current
        _current = self._before


@functools.cache
def _fast(room: str) -> ModuleType:
    _announce_compiling()
    return importlib.import_module(f"minitl.kernels.{room}")


@functools.cache
def _announce_compiling() -> None:
    importlib.import_module("minitl.kernels.compiling").announce()


def _switching(formula: Callable[P, R], room: str) -> Callable[P, R]:
    """A kernel of reference.py that hands over to its fast twin in `room` unless told not to."""

    @functools.wraps(formula)
    def kernel(*args: P.args, **kwargs: P.kwargs) -> R:
        if _current == "reference":
            return formula(*args, **kwargs)
        return getattr(_fast(room), formula.__name__)(*args, **kwargs)

    return kernel


# --- Convolution: several fast ways --------------------------------------------------------------


def _convolution(geometry: Geometry, channels: int, filters: int) -> ModuleType:
    """The module whose convolution suits these shapes best.

    Winograd's algorithm is for 3x3 windows with stride 1. It multiplies 36 times for a tile of
    4x4 outputs where the direct way multiplies 144 times, but a tile that hangs over the edge
    costs as much as a whole one; and its transforms are only worth their time when a channel's
    serves many filters. Measured on two cores, ms an image, direct and Winograd:

        image    C -> F     forward        gradient to x    gradient to kernel
        224      3 -> 64     4.6   7.4      6.3   5.5         4.1   4.4
        224     64 -> 64    35.5  13.6     38.1  15.7        55.9  22.0
         56    256 -> 256   35.9  12.7     43.5  13.3        64.0  24.9
         14    512 -> 512   14.7   4.6      7.1   2.8        10.7   8.2
         56      8 -> 8     0.24  0.19     0.31  0.28        0.26  0.18
          2    512 -> 512   0.41  0.45     0.35  0.44        1.22  2.39
    """
    if _current == "reference":
        return reference
    suits = (
        _current == "fast"
        and geometry.window == (3, 3)
        and geometry.strides == (1, 1)
        and min(channels, filters) >= 8
        and 9 * math.prod(geometry.out_size) >= 1.5 * 36 * _tiles(geometry)
    )
    return _fast("winograd" if suits else "direct")


def _tiles(geometry: Geometry) -> int:
    """Tiles of 4x4 that cover an output."""
    return math.prod(-(-n // 4) for n in geometry.out_size)


@functools.wraps(reference.conv2d)
def conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
) -> Array:
    way = _convolution(geometry, kernel.shape[2], kernel.shape[3])
    return way.conv2d(x, kernel, bias, geometry, activation, cache)


@functools.wraps(reference.conv2d_input_gradient)
def conv2d_input_gradient(
    g: Array, kernel: Array, geometry: Geometry, cache: dict | None = None
) -> Array:
    way = _convolution(geometry, kernel.shape[2], kernel.shape[3])
    return way.conv2d_input_gradient(g, kernel, geometry, cache)


@functools.wraps(reference.conv2d_kernel_gradient)
def conv2d_kernel_gradient(x: Array, g: Array, geometry: Geometry) -> Array:
    way = _convolution(geometry, x.shape[3], g.shape[3])
    if len(x) * _tiles(geometry) < 32 and way is not reference:
        # Few tiles: 36 products of so small a depth cost more than one (14x14, 512 -> 512, one
        # image: 20.0 ms against 14.3; two: the same).
        way = _fast("direct")
    return way.conv2d_kernel_gradient(x, g, geometry)


# --- All others: one fast way each ---------------------------------------------------------------

max_pool2d = _switching(reference.max_pool2d, "pooling")
max_pool2d_with_winners = _switching(reference.max_pool2d_with_winners, "pooling")
max_pool2d_gradient = _switching(reference.max_pool2d_gradient, "pooling")
average_pool2d = _switching(reference.average_pool2d, "pooling")
average_pool2d_gradient = _switching(reference.average_pool2d_gradient, "pooling")

dense = _switching(reference.dense, "pointwise")
dense_input_gradient = _switching(reference.dense_input_gradient, "pointwise")
dense_kernel_gradient = _switching(reference.dense_kernel_gradient, "pointwise")
bias_gradient = _switching(reference.bias_gradient, "pointwise")
relu = _switching(reference.relu, "pointwise")
relu_gradient = _switching(reference.relu_gradient, "pointwise")
softmax = _switching(reference.softmax, "pointwise")
softmax_gradient = _switching(reference.softmax_gradient, "pointwise")
softmax_cross_entropy = _switching(reference.softmax_cross_entropy, "pointwise")
batch_norm_statistics = _switching(reference.batch_norm_statistics, "pointwise")
scale_shift = _switching(reference.scale_shift, "pointwise")
batch_norm_gradient = _switching(reference.batch_norm_gradient, "pointwise")

sgd_update = _switching(reference.sgd_update, "updates")
adam_update = _switching(reference.adam_update, "updates")
