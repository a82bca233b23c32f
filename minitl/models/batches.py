"""Batches: what `fit`, `evaluate` and `predict` walk over, and what can be wrong with data.

A source of batches has `batches(order, first)`, which yields a `Batch` at a time, `samples` (None
where nobody knows how many there are) and a length in batches. Arrays become an `ArrayData` here;
an iterable of batches becomes a `StreamData` (`data/streams.py`); what a frozen base gives is kept
by another source (`transfer/feature_cache.py`). Wrong data are found before a weight moves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minitl import kernels
from minitl.autograd import Array, Tensor


class Batch(NamedTuple):
    """Parallel lists of arrays: one entry per input of the model, one per output."""

    x: list[Array]
    y: list[Array]
    weight: Array | None
    graph: Any = None  # what runs x where that is not the whole model

    @property
    def size(self) -> int:
        return len(self.x[0])


class ArrayData:
    """Arrays of the same length N, read in batches."""

    def __init__(self, x: list[Array], y: list[Array], weight: Array | None, batch_size: int):
        self.x, self.y, self.weight = x, y, weight
        self.batch_size = batch_size
        self.samples = len(x[0])

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def batches(self, order: Array | None = None, first: int = 0) -> Iterator[Batch]:
        """The batches from number `first` on, the samples in `order`; the last may be shorter."""
        return (self.take(where) for where in self.parts(order, first))

    def parts(self, order: Array | None = None, first: int = 0) -> Iterator[Any]:
        """Which samples each batch has; slices, which copy nothing, when there is no `order`."""
        for start in range(first * self.batch_size, self.samples, self.batch_size):
            where = slice(start, start + self.batch_size)
            yield where if order is None else order[where]

    def take(self, where: Any, inputs: Sequence[int] | None = None) -> Batch:
        """These samples, with all of the model's inputs or only some of them."""
        xs = self.x if inputs is None else [self.x[i] for i in inputs]
        weight = None if self.weight is None else self.weight[where]
        return Batch([a[where] for a in xs], [a[where] for a in self.y], weight)


def make_arrays(
    x: Any, y: Any, weight: Any, input_names: Sequence[str], output_names: Sequence[str]
) -> Batch:
    """Arrays from what the user gave; checks lengths, emptiness, and that numbers are finite."""
    xs, ys = as_list(x, input_names, "x"), as_list(y, output_names, "y")
    weights = None if weight is None else _array(weight, "sample_weight").astype(np.float64)
    if not xs:
        raise ValueError("x is missing")
    n = len(xs[0])
    if n == 0:
        raise ValueError(f"x is empty: shape {xs[0].shape}")
    for what, arrays in (("x", xs[1:]), ("y", ys)):
        for a in arrays:
            if len(a) != n:
                shapes = f"(shapes {xs[0].shape} and {a.shape})"
                raise ValueError(f"x has {n} samples, but {what} has {len(a)} {shapes}")
    if weights is not None and weights.shape == (n, 1):
        weights = weights[:, 0]
    if weights is not None and weights.shape != (n,):
        raise ValueError(f"sample_weight must have shape ({n},), got {weights.shape}")
    for what, arrays in (("x", xs), ("y", ys)):
        for i, a in enumerate(arrays):
            check_finite(a, what if len(arrays) == 1 else f"{what}[{i}]")
    if weights is not None:
        check_finite(weights, "sample_weight")
    return Batch(xs, ys, weights)


def as_list(value: Any, names: Sequence[str], what: str) -> list[Array]:
    """One array per model input (or output) from an array, a list of arrays, or a dict by name."""
    if value is None:
        return []
    if isinstance(value, dict):
        if set(value) != set(names):
            raise ValueError(f"{what} has the keys {sorted(value)}, expected {sorted(names)}")
        return [_array(value[name], f"{what}[{name!r}]") for name in names]
    several = isinstance(value, (list, tuple)) and len(names) != 1
    if not several and isinstance(value, (list, tuple)) and len(value) == 1:
        several = np.ndim(value[0]) > 0 and isinstance(value[0], (np.ndarray, Tensor))
    if several:
        return [_array(v, f"{what}[{i}]") for i, v in enumerate(value)]
    return [_array(value, what)]


def _array(value: Any, what: str) -> Array:
    lazy = hasattr(value, "shape") and not hasattr(value, "__array__")  # files, read batch by batch
    try:
        array = value if lazy else np.asarray(value)
    except ValueError as error:
        why = f"its parts have different shapes ({error})"
        raise ValueError(f"{what} is not one array: {why}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} must hold numbers or be an iterable of batches, got {array.dtype}")
    if array.ndim == 0:
        raise ValueError(f"{what} must have a batch axis, got a single number")
    return array


def check_finite(a: Array, what: str) -> None:
    """Raise ValueError when `a` has NaN or infinite numbers, naming the first such sample."""
    if a.dtype.kind != "f" or not isinstance(a, np.ndarray):
        return
    rows = max(64, 2**20 * len(a) // max(a.size, 1))  # in pieces: no mask as large as the data
    for start in range(0, len(a), rows):
        part = a[start : start + rows]
        if not kernels.all_finite(part):
            i = start + int(np.argmin(np.isfinite(part).reshape(len(part), -1).all(axis=1)))
            raise ValueError(f"{what} has NaN or infinite numbers, first in sample {i}")


def fitted(value: Any, expected: tuple[int | None, ...], name: str) -> Any:
    """`value`, with a last axis of 1 added or taken away where that is what a model's input says;
    ValueError where it does not fit."""
    shape, rank = value.shape, len(value.shape)
    if (rank + 1, 1) == (len(expected), expected[-1]) or (rank - 1, 1) == (
        len(expected),
        shape[-1],
    ):
        value = value.reshape((*shape, 1) if rank < len(expected) else shape[:-1])
    check_shape(value.shape, expected, name)
    return value


def check_shape(shape: tuple[int, ...], expected: tuple[int | None, ...], name: str) -> None:
    """Raise ValueError unless an array of `shape` can enter a model that expects `expected`."""
    if len(shape) == len(expected) and all(
        e is None or n == e for n, e in zip(shape[1:], expected[1:], strict=True)
    ):
        return
    hint = ""
    if shape == expected[1:]:
        hint = " A single sample needs a batch axis: x[np.newaxis]."
    elif len(shape) == len(expected) == 4 and shape[1] == expected[3] and shape[1] < 5:
        hint = " The channels seem to come first; minitl takes (N, H, W, C)."
    elif (len(shape) == 3 and len(expected) == 4) or (shape[-1:] == (1,) and expected[-1:] == (3,)):
        hint = " Gray images become RGB with minitl.data.to_rgb(x)."
    raise ValueError(f"{name!r} takes inputs of shape {expected}, got {shape}.{hint}")


def is_stream(x: Any) -> bool:
    """Whether x yields batches by itself, rather than being arrays."""
    return (
        not isinstance(x, (np.ndarray, list, tuple, dict, str, bytes, Tensor))
        and hasattr(x, "__iter__")
        and not hasattr(x, "__array__")
    )
