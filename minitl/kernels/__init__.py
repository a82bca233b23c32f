"""The kernels, and the ONE place that chooses among them.

Every kernel exists twice under one name and signature: as its formula in `reference.py`, and
fast, in `direct.py`, `pooling.py`, `products.py` and so on. The functions of this module
look up, call by call, which of the two is wanted now, and where there are several fast ones,
which is the fastest for these shapes. `use_kernels("reference")` switches all of them.

The fast modules are imported when one of their kernels is first called: they bring Numba along,
which `import minitl` must not wait for.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import ParamSpec, TypeVar

from minitl.kernels import reference
from minitl.kernels.fast.choosing import choose
from minitl.kernels.geometry import Geometry, sliding
from minitl.kernels.reference import Array

P = ParamSpec("P")
R = TypeVar("R")

KERNELS = ("reference", "fast", "direct", "precise")
_current = "fast"


def current_kernels() -> str:
    """Which kernels run now: one of KERNELS."""
    return _current


class use_kernels:
    """Switch all kernels of this process: 'reference', 'fast', 'direct', or 'precise'.

    'direct' is 'fast' with im2col for every convolution, to see what the other algorithms bring,
    and what they cost in accuracy.

    'precise' is 'fast' with float64 inside every convolution of which a gradient will be asked:
    its outputs decide what passes ReLU, and what is the largest under a window. Where all of VGG16
    is trained, its gradients then differ from those of float64 by 1e-5, instead of 3e-4 as with
    'fast' and with other runtimes, and a step takes 1.3 times as long. What is not such a
    convolution (frozen layers, batch normalization, Dense) is computed as with 'fast'.

    As a plain call it holds until the next; as a context manager, until the block is left.

    Raises ValueError for any other word.

    >>> with use_kernels("reference"):
    ...     current_kernels()
    'reference'
    >>> current_kernels()
    'fast'
    """

    def __init__(self, which: str) -> None:
        global _current
        if which not in KERNELS:
            raise ValueError(f"kernels are {', '.join(map(repr, KERNELS))}, got {which!r}")
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
    importlib.import_module("minitl.kernels.machine.compiling").announce()


def _switching(formula: Callable[P, R], room: str) -> Callable[P, R]:
    """A kernel of reference.py that hands over to its fast twin in `room` unless told not to."""

    @functools.wraps(formula)
    def kernel(*args: P.args, **kwargs: P.kwargs) -> R:
        if _current == "reference":
            return formula(*args, **kwargs)
        return getattr(_fast(room), formula.__name__)(*args, **kwargs)

    return kernel


def on_one_core(work: Callable[[], None]) -> None:
    """Call work(), whose matrix products then use the calling core alone.

    For a loop of small products, each of which needs the one before: to share such a one out costs
    more than it brings (32 x 128 x 512, two cores: 121 us, against 56 on one).
    """
    if _current == "reference":
        work()
    else:
        _fast("machine.threads").share_out(lambda _: work(), 1, multiplies=True)


# --- Convolution: several fast ways --------------------------------------------------------------


def _convolution(
    images: int, geometry: Geometry, channels: int, filters: int, gradient: str | None = None
) -> ModuleType:
    """The module whose convolution, or gradient to the 'input' or 'kernel', suits these shapes."""
    if _current == "reference":
        return reference
    if _current == "direct":
        return _fast("fast.im2col")
    return _fast("fast." + choose(images, geometry, channels, filters, gradient))


@functools.wraps(reference.conv2d)
def conv2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
    recorded: bool = False,
    precise: bool = False,
) -> Array:
    way = _convolution(len(x), geometry, kernel.shape[2], kernel.shape[3])
    precise = precise or (recorded and _current == "precise")
    return way.conv2d(x, kernel, bias, geometry, activation, cache, recorded, precise)


@functools.wraps(reference.conv2d_max_pool2d)
def conv2d_max_pool2d(
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
) -> Array:
    way = _convolution(len(x), geometry, kernel.shape[2], kernel.shape[3])
    if hasattr(way, "conv2d_max_pool2d"):
        return way.conv2d_max_pool2d(x, kernel, bias, geometry, activation, cache)
    y = way.conv2d(x, kernel, bias, geometry, activation, cache)
    return max_pool2d(y, sliding(geometry.out_size, (2, 2), (2, 2), "valid"))


@functools.wraps(reference.conv2d_input_gradient)
def conv2d_input_gradient(
    g: Array, kernel: Array, geometry: Geometry, cache: dict | None = None
) -> Array:
    way = _convolution(len(g), geometry, kernel.shape[2], kernel.shape[3], "input")
    return way.conv2d_input_gradient(g, kernel, geometry, cache)


@functools.wraps(reference.conv2d_kernel_gradient)
def conv2d_kernel_gradient(x: Array, g: Array, geometry: Geometry) -> Array:
    way = _convolution(len(x), geometry, x.shape[3], g.shape[3], "kernel")
    return way.conv2d_kernel_gradient(x, g, geometry)


# --- All others: one fast way each ---------------------------------------------------------------

max_pool2d = _switching(reference.max_pool2d, "fast.pooling")
max_pool2d_with_winners = _switching(reference.max_pool2d_with_winners, "fast.pooling")
max_pool2d_gradient = _switching(reference.max_pool2d_gradient, "fast.pooling")
average_pool2d = _switching(reference.average_pool2d, "fast.pooling")
average_pool2d_gradient = _switching(reference.average_pool2d_gradient, "fast.pooling")

dense = _switching(reference.dense, "fast.dense")
dense_input_gradient = _switching(reference.dense_input_gradient, "fast.dense")
dense_kernel_gradient = _switching(reference.dense_kernel_gradient, "fast.dense")
bias_gradient = _switching(reference.bias_gradient, "fast.pointwise")
relu = _switching(reference.relu, "fast.pointwise")
relu_gradient = _switching(reference.relu_gradient, "fast.pointwise")
bias_relu_gradient = _switching(reference.bias_relu_gradient, "fast.pointwise")
softmax = _switching(reference.softmax, "fast.pointwise")
softmax_gradient = _switching(reference.softmax_gradient, "fast.pointwise")
softmax_cross_entropy = _switching(reference.softmax_cross_entropy, "fast.pointwise")
batch_norm_statistics = _switching(reference.batch_norm_statistics, "fast.pointwise")
scale_shift = _switching(reference.scale_shift, "fast.pointwise")
batch_norm_gradient = _switching(reference.batch_norm_gradient, "fast.pointwise")

affine_transform = _switching(reference.affine_transform, "fast.augmentation")
affine_transform_gradient = _switching(reference.affine_transform_gradient, "fast.augmentation")
adjust_tone = _switching(reference.adjust_tone, "fast.augmentation")
adjust_tone_gradient = _switching(reference.adjust_tone_gradient, "fast.augmentation")
gaussian_noise = _switching(reference.gaussian_noise, "fast.augmentation")

sgd_update = _switching(reference.sgd_update, "fast.updates")
adam_update = _switching(reference.adam_update, "fast.updates")
all_finite = _switching(reference.all_finite, "fast.updates")
