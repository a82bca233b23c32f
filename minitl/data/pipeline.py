"""Data sets made of data sets: `take`, `skip`, `map`, `batch`, `unbatch`, `shuffle`, `cache` ...

A data set is anything that can be walked over again and again. Each of these methods gives another
one, which reads the first as it is walked over: nothing is kept but by `cache`, and by `shuffle` as
many elements as its buffer holds. The names are those of tf.data, in which Keras's guides are
written. `PyDataset` is the base of a data set of one's own that makes batch number i.
"""

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minitl import config
from minitl.autograd import Tensor
from minitl.models.arguments import check_methods, guard
from minitl.naming import Count, Natural

__all__ = ["Dataset", "PyDataset"]


class Numbers(np.ndarray):
    """What data sets yield: arrays that know what scripts for TensorFlow ask, `x[0].numpy()`."""

    def numpy(self) -> np.ndarray:
        return np.asarray(self)


def told(value: Any) -> Any:
    """The arrays of a batch as `Numbers`."""
    if type(value) in (tuple, list):
        return type(value)(map(told, value))
    return value.view(Numbers) if type(value) is np.ndarray else value


class Cardinality(int):
    """A number of elements, with what scripts for TensorFlow ask of theirs."""

    numpy = int.__int__


class Elements:
    """An iterator with the method that TensorFlow's has, `next`."""

    def __init__(self, items: Iterator[Any]):
        self._items = items

    def __iter__(self) -> Iterator[Any]:
        return self

    def next(self) -> Any:
        return next(self._items)

    __next__ = next


@check_methods
class Steps:
    """The methods; a class beside it is walked over by `__iter__`."""

    def _then(self, walk: Callable[..., Iterator[Any]], length: Any = None) -> Any:
        return Dataset(lambda: walk(iter(self)), length)  # type: ignore[call-overload]

    def _length(self) -> int | None:
        try:
            return len(self)  # type: ignore[arg-type]
        except TypeError:
            return None

    def map(self, map_func: Callable[..., Any], **_: Any) -> Any:
        """What `map_func` makes of each element: of x, or of (x, y)."""

        def one(element: Any) -> Any:
            made = map_func(*element) if isinstance(element, tuple) else map_func(element)
            return _numbers(made)

        return self._then(lambda items: (one(each) for each in items), self._length())

    def filter(self, predicate: Callable[..., Any]) -> Any:
        """The elements for which the function says so."""

        def keeps(each: Any) -> bool:
            return bool(predicate(*each) if isinstance(each, tuple) else predicate(each))

        return self._then(lambda items: (each for each in items if keeps(each)))

    def take(self, count: int) -> Any:
        """The first `count` elements; -1 for all."""
        known = self._length()
        stop = None if count < 0 else count
        length = stop if known is None else min(known, known if stop is None else stop)
        return self._then(lambda items: itertools.islice(items, stop), length)

    def skip(self, count: Natural) -> Any:
        """All but the first `count` elements."""
        known = self._length()
        length = None if known is None else max(known - count, 0)
        return self._then(lambda items: itertools.islice(items, count, None), length)

    def batch(self, batch_size: Count, drop_remainder: bool = False, **_: Any) -> Any:
        """Elements put together, `batch_size` at a time; the last batch may be smaller."""
        known = self._length()
        up = 0 if drop_remainder else batch_size - 1

        def together(items: Iterator[Any]) -> Iterator[Any]:
            while some := list(itertools.islice(items, batch_size)):
                if len(some) == batch_size or not drop_remainder:
                    yield _stacked(some)

        return self._then(together, None if known is None else (known + up) // batch_size)

    def unbatch(self) -> Any:
        """The samples of each batch, one by one."""

        def apart(items: Iterator[Any]) -> Iterator[Any]:
            for each in items:
                parts = each if isinstance(each, tuple) else (each,)
                for sample in zip(*parts, strict=True):
                    yield sample if isinstance(each, tuple) else sample[0]

        return self._then(apart)

    def shuffle(self, buffer_size: Count, seed: int | None = None, **_: Any) -> Any:
        """Another order in every walk: each element is drawn from a buffer of `buffer_size`."""
        start = config.next_seed() if seed is None else seed
        walks = itertools.count()

        def mixed(items: Iterator[Any]) -> Iterator[Any]:
            rng = np.random.default_rng([start, next(walks)])
            buffer = list(itertools.islice(items, buffer_size))
            for each in items:
                place = int(rng.integers(len(buffer)))
                drawn, buffer[place] = buffer[place], each
                yield drawn
            yield from (buffer[i] for i in rng.permutation(len(buffer)))

        return self._then(mixed, self._length())

    def repeat(self, count: int | None = None) -> Any:
        """The same again, `count` times; for ever, if None. Then fit takes steps_per_epoch."""
        source, known = self, self._length()

        def again() -> Iterator[Any]:
            walks = itertools.count() if count in (None, -1) else range(count or 0)
            for _ in walks:
                yield from source  # type: ignore[misc]

        ends = count not in (None, -1) and known is not None
        return Dataset(again, known * (count or 0) if ends and known is not None else None)

    def cache(self, filename: str = "") -> Any:
        """The elements kept in memory after the first whole walk."""
        if filename:
            raise ValueError("cache keeps in memory: fit's cache_features keeps in a file")
        kept: list[Any] = []
        source = self

        def walk() -> Iterator[Any]:
            if kept:
                yield from kept
                return
            found = []
            for each in source:  # type: ignore[attr-defined]
                found.append(each)
                yield each
            kept[:] = found

        return Dataset(walk, self._length())

    def prefetch(self, buffer_size: Any = None) -> Any:
        """The same: batches are made when they are needed."""
        return self

    def enumerate(self, start: int = 0) -> Any:
        """(number, element) of each."""
        return self._then(lambda items: enumerate(items, start), self._length())

    def concatenate(self, dataset: Any) -> Any:
        """The elements, then those of another data set."""
        known = [each._length() for each in (self, dataset)]
        length = None if None in known else sum(known)  # type: ignore[arg-type]
        return self._then(lambda items: itertools.chain(items, dataset), length)

    def as_numpy_iterator(self) -> "Elements":
        """The elements."""
        return Elements(iter(self))  # type: ignore[call-overload]

    def cardinality(self) -> int:
        """The number of elements, -2 where nobody knows."""
        known = self._length()
        return Cardinality(-2 if known is None else known)


@check_methods
class Dataset(Steps):
    """What `walk()` yields, each time that it is iterated over; `length` elements, if known."""

    def __init__(self, walk: Callable[[], Iterator[Any]], length: int | None = None):
        self._walk, self._known = walk, length

    @classmethod
    def from_tensor_slices(cls, tensors: Any) -> "Dataset":
        """The samples of arrays, of tuples or dicts of arrays, one by one."""
        if isinstance(tensors, dict):
            keys = tensors.keys()
            values = cls.from_tensor_slices(tuple(tensors.values()))
            return cls(lambda: (dict(zip(keys, v, strict=True)) for v in values), len(values))
        if isinstance(tensors, tuple):
            sets = [cls.from_tensor_slices(each) for each in tensors]
            if len({*(lengths := [len(each) for each in sets])}) != 1:
                raise ValueError(f"tensors must be of one length, got {lengths}")
            return cls.zip(*sets)
        array = np.asarray(tensors)
        return cls(lambda: iter(array), len(array))

    @classmethod
    def zip(cls, *datasets: Any) -> "Dataset":
        """Tuples of an element of each, as many as the shortest has."""
        sets = datasets[0] if len(datasets) == 1 and isinstance(datasets[0], tuple) else datasets
        known = [each._length() for each in sets]
        length = None if None in known else min(known)
        return cls(lambda: zip(*sets, strict=False), length)

    @classmethod
    def from_generator(cls, generator: Callable[[], Iterator[Any]], **_: Any) -> "Dataset":
        """What a function's generator yields."""
        return cls(generator)

    def __iter__(self) -> Iterator[Any]:
        return map(told, self._walk())

    def __len__(self) -> int:
        if self._known is None:
            raise TypeError("nobody knows how many elements this data set has")
        return self._known


class PyDataset(Steps):
    """Base of a data set of one's own: `__len__` says how many batches, `__getitem__` makes one.

    `on_epoch_end` is called after every whole walk. Batches are made in this process, when they are
    needed, whatever `workers` says.
    """

    def __init__(
        self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10
    ):
        if use_multiprocessing:
            warnings.warn("batches are made in this process", UserWarning, stacklevel=3)
        self.workers, self.use_multiprocessing = workers, use_multiprocessing
        self.max_queue_size = max_queue_size

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} needs __len__: the number of batches")

    num_batches = property(lambda self: len(self))

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs __getitem__: batch number `index`")

    def __iter__(self) -> Iterator[Any]:
        for i in range(len(self)):
            yield self[i]
        self.on_epoch_end()

    def on_epoch_begin(self) -> None:
        """Called before a walk, by those who override it."""

    def on_epoch_end(self) -> None:
        """Called after every whole walk."""


def _numbers(value: Any) -> Any:
    """Tensors as arrays, in tuples and dicts too."""
    if isinstance(value, Tensor):
        return value.data
    if isinstance(value, (tuple, list)):
        return tuple(_numbers(each) for each in value)
    return {k: _numbers(v) for k, v in value.items()} if isinstance(value, dict) else value


def _stacked(elements: list[Any]) -> Any:
    first = elements[0]
    if isinstance(first, (tuple, list)):
        return tuple(_stacked([each[i] for each in elements]) for i in range(len(first)))
    if isinstance(first, dict):
        return {key: _stacked([each[key] for each in elements]) for key in first}
    return np.stack([np.asarray(each) for each in elements])


guard(globals())
