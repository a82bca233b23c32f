"""Batches: how `fit`, `evaluate` and `predict` walk over data.

Data are arrays (one a model input or output), or anything that yields batches: x, (x, y) or
(x, y, sample_weight). Everything that can be wrong with them is found here, before a weight moves.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from minitl.autograd import Array, Tensor
from minitl.storage.state import Changes, fingerprint, restore, state_of

SMALL = 2**20  # bytes: larger arrays in a data set are its data, not its state


class Batch(NamedTuple):
    """Parallel lists of arrays: one entry an input of the model, one an output."""

    x: list[Array]
    y: list[Array]
    weight: Array | None
    graph: Any = None  # what runs x where that is not the whole model: see `caching.py`

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
        """The batches from number `first` on, the last one shorter; `order` is a permutation of
        the samples."""
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

    def identity(self) -> list[str]:
        """What tells these data from others: shapes, dtypes and a digest of every number."""
        arrays = [*self.x, *self.y, *([] if self.weight is None else [self.weight])]
        shapes = ", ".join(f"{a.shape} {a.dtype}" for a in arrays)
        return [shapes, f"batches of {self.batch_size}", fingerprint(arrays)]

    def state(self, within: bool = False) -> dict[str, Any]:
        """Nothing: arrays stay as they are."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Nothing to do."""

    def split(self, fraction: float) -> tuple[ArrayData, ArrayData]:
        """The first part for training, the last `fraction` for validation (as Keras splits)."""
        if not 0 < fraction < 1:
            raise ValueError(f"validation_split must be between 0 and 1, got {fraction}")
        at = int(self.samples * (1 - fraction))
        if at == 0 or at == self.samples:
            raise ValueError(
                f"validation_split={fraction} of {self.samples} samples leaves one side empty"
            )
        first, last = (
            ArrayData(
                [a[part] for a in self.x],
                [a[part] for a in self.y],
                None if self.weight is None else self.weight[part],
                self.batch_size,
            )
            for part in (slice(0, at), slice(at, None))
        )
        return first, last


class StreamData:
    """An iterable of batches. A one-shot generator goes on where the last epoch stopped.

    To take up an interrupted training, the batches that it had taken from a one-shot generator are
    taken again and dropped. Another iterable begins the epoch again, after what has changed in its
    plain attributes (a counter of epochs, a random generator) has been put back.
    """

    def __init__(
        self,
        source: Any,
        steps: int | None,
        input_names: Sequence[str] = ("x",),
        output_names: Sequence[str] = ("y",),
        check: Callable[[Batch], None] | None = None,
    ):
        self.check = check
        self.source, self.names = source, (input_names, output_names)
        try:
            length = len(source)
        except TypeError:
            length = None
        if steps is not None and length is not None:
            length = min(length, steps)
        self.steps = steps
        self.length = length if length is not None else steps
        self.iterator = iter(source) if iter(source) is source else None
        self.weight = None
        self.taken = 0  # batches, since the beginning
        self.changes: Changes | None = None  # of the source, once somebody follows them
        self.begun: dict[str, Any] = {}  # those at the start of the epoch

    def __len__(self) -> int:
        return self.length or 0

    def identity(self) -> list[str]:
        """What can be told of a stream without taking anything from it."""
        told = getattr(self.source, "identity", None)
        known = [told()] if callable(told) else []
        return [type(self.source).__name__, f"{self.length} batches", f"{self.steps} steps", *known]

    def follow(self) -> None:
        """From now on `state` tells what has changed."""
        if self.iterator is None:
            self.changes = Changes(lambda: state_of(self.source, largest=SMALL))

    def state(self, within: bool = False) -> dict[str, Any]:
        """What decides which batches come next; `within` an epoch, how that epoch began."""
        source = self.begun if within or self.changes is None else self.changes.now()
        return {"taken": self.taken, "source": source}

    def restore(self, state: dict[str, Any]) -> None:
        """Be where `state` was told."""
        restore(self.source, state["source"])
        self.begun = state["source"]
        while self.iterator is not None and self.taken < state["taken"]:
            next(self.iterator, None)
            self.taken += 1

    def batches(self, order: Array | None = None, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch of which `first` are done already; of a generator that is walked
        over once, those that are left."""
        count, items = first, self.iterator
        if self.changes is not None and count == 0:
            self.begun = self.changes.now()
        if self.steps is not None and count >= self.steps:
            return
        if items is None:
            items = itertools.islice(iter(self.source), first, None)
        for item in items:
            parts = item if isinstance(item, tuple) else (item,)
            if not 1 <= len(parts) <= 3:
                raise ValueError(
                    f"a data set yields x, (x, y) or (x, y, sample_weight); got a tuple of "
                    f"{len(parts)}"
                )
            x, y, weight = (*parts, None, None)[:3]
            batch = make_arrays(x, y, weight, *self.names)
            if self.check is not None:
                self.check(batch)
            self.taken += 1
            yield batch
            count += 1
            if self.steps is not None and count >= self.steps:
                return
        if count == 0:
            raise ValueError(
                "the data set yielded no batch; a generator can be walked over once only, while a "
                "list of batches starts again every epoch"
            )


def as_list(value: Any, names: Sequence[str], what: str) -> list[Array]:
    """One array a model input (or output) from an array, a list of arrays, or a dict by name."""
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
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{what} is not one array: its parts have different shapes ({error})"
        ) from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{what} must hold numbers, got dtype {array.dtype}")
    if array.ndim == 0:
        raise ValueError(f"{what} must have a batch axis, got a single number")
    return array


def make_arrays(
    x: Any,
    y: Any,
    weight: Any,
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> Batch:
    """Arrays from what the user gave; checks lengths, emptiness, and that numbers are finite."""
    xs = as_list(x, input_names, "x")
    ys = as_list(y, output_names, "y")
    weights = None if weight is None else _array(weight, "sample_weight").astype(np.float64)
    if not xs:
        raise ValueError("x is missing")
    n = len(xs[0])
    if n == 0:
        raise ValueError(f"x is empty: shape {xs[0].shape}")
    for what, arrays in (("x", xs[1:]), ("y", ys)):
        for a in arrays:
            if len(a) != n:
                raise ValueError(
                    f"x has {n} samples, but {what} has {len(a)} (shapes {xs[0].shape} and "
                    f"{a.shape})"
                )
    if weights is not None and weights.shape != (n,):
        raise ValueError(f"sample_weight must have shape ({n},), got {weights.shape}")
    for i, a in enumerate(xs):
        check_finite(a, "x" if len(xs) == 1 else f"x[{i}]")
    for i, a in enumerate(ys):
        check_finite(a, "y" if len(ys) == 1 else f"y[{i}]")
    if weights is not None:
        check_finite(weights, "sample_weight")
    return Batch(xs, ys, weights)


def check_finite(a: Array, what: str) -> None:
    """Raise ValueError when `a` has NaN or infinite numbers, saying how many and where first."""
    if a.dtype.kind != "f":
        return
    for start in range(0, len(a), 64):  # in pieces: no mask as large as the data
        part = a[start : start + 64]
        # A sum is finite unless a number is not (or, rarely, it overflows): one cheap pass.
        with np.errstate(over="ignore", invalid="ignore"):
            if np.isfinite(part.sum()):
                continue
        bad = ~np.isfinite(part)
        if bad.any():
            i = start + int(np.argmax(bad.reshape(len(part), -1).any(axis=1)))
            raise ValueError(f"{what} has NaN or infinite numbers, first in sample {i}")


def weights_by_class(
    ys: list[Array], class_weight: dict[int, float], weights: Array | None
) -> Array:
    """The sample weights, times the weight of each sample's class."""
    if len(ys) != 1:
        raise ValueError("class_weight needs exactly one output")
    for label, weight in class_weight.items():
        if not isinstance(label, (int, np.integer)) or not 0 <= weight < np.inf:
            raise ValueError(
                f"class_weight maps integer labels to weights, got {label!r}: {weight!r}"
            )
    y = ys[0]
    labels = y.argmax(axis=-1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)
    labels = labels.astype(np.int64)
    # A class that is not named counts 1, as in Keras.
    by_class = np.array([class_weight.get(int(label), 1.0) for label in labels])
    return by_class if weights is None else by_class * weights


def is_stream(x: Any) -> bool:
    """Whether x yields batches by itself, rather than being arrays."""
    return (
        not isinstance(x, (np.ndarray, list, tuple, dict, Tensor))
        and hasattr(x, "__iter__")
        and not hasattr(x, "__array__")
    )
