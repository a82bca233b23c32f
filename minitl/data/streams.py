"""Iterables of batches as a source: a data set, a generator, anything that yields (x, y)."""

import contextlib
import copy
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from minitl import config
from minitl.autograd import Array
from minitl.data.pipeline import Dataset
from minitl.models.batches import Batch, make_arrays
from minitl.storage.state import Changes, restore, state_of

SMALL = 2**20  # bytes: larger arrays in a data set are its data, not its state


@dataclass(eq=False, repr=False)
class StreamData:
    """An iterable of batches: x, (x, y) or (x, y, sample_weight).

    A one-shot generator goes on where the last epoch stopped; any other iterable begins anew, or,
    where a training takes `steps` of it per epoch, at its end. To take up an interrupted training,
    the batches that it had taken from a one-shot generator are taken again and dropped. Another
    iterable begins the walk again, after what has changed in its plain attributes (a counter of
    epochs, a random generator) has been put back.

    `steps` are the batches per epoch, all that it yields when None; `names` those of the model's
    inputs and outputs, for dicts; `check` is called with each batch and raises for a bad one.
    """

    samples: ClassVar[None] = None  # nobody knows how many there are
    source: Any
    steps: int | None
    names: tuple[Sequence[str], Sequence[str]] = (("x",), ("y",))
    check: Callable[[Batch], None] | None = None

    def __post_init__(self) -> None:
        known = [] if self.steps is None else [self.steps]
        with contextlib.suppress(TypeError):
            known.append(len(self.source))
        self.length = min(known, default=None)
        self.iterator = iter(self.source) if iter(self.source) is self.source else None
        self.begun_walk: Iterator[Any] | None = None
        self.goes_on = False  # whether the next epoch goes on within a walk
        self.within = 0  # batches of that walk that earlier epochs took
        self.taken = 0  # batches, since the beginning
        self.reweigh: Callable[[Batch], Batch] = lambda batch: batch
        self.changes: Changes | None = None  # of the source, once somebody follows them
        self.begun: dict[str, Any] = {}  # those at the start of the epoch

    shuffle = False  # of arrays: what `fit` says, which sets it

    def __len__(self) -> int:
        return self.length or 0

    def peek(self) -> Any:
        """The first batch as it comes, which is still to be walked over."""
        items = self.walk()
        first = list(itertools.islice(items, 1))
        self.begun_walk = itertools.chain(first, items)
        if self.iterator is not None:
            self.iterator = self.walk()
        return first[0] if first else None

    def walk(self) -> Iterator[Any]:
        """The batches as they come: a new walk, or the one that `peek` began."""
        items, self.begun_walk = self.begun_walk, None
        if items is not None:
            return items
        return iter(self.source) if self.iterator is None else self.iterator

    def batches(self, order: Array | None = None, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `first` on; of a generator, those that are left."""
        if first == 0 and not self.within:
            self._begin()
        if self.steps is not None and first >= self.steps:  # a backup was written after the last
            self.within += first if self.goes_on and self.iterator is None else 0
            return
        count, items = first, self.iterator
        if items is None:
            items = self.begun_walk or itertools.islice(self.walk(), self.within + first, None)
            self.begun_walk = None
            if self.within and first == 0:  # is the walk at its end, and the next begins?
                ahead = list(itertools.islice(items, 1))
                if not ahead:
                    self.within = 0
                    self._begin()
                items = itertools.chain(ahead, items) if ahead else self.walk()
        for item in itertools.islice(items, None if self.steps is None else self.steps - first):
            # A list is a tuple, as in Keras: what PyTorch's DataLoader yields.
            parts = tuple(item) if isinstance(item, (tuple, list)) else (item,)
            if not 1 <= len(parts) <= 3:
                what = "a data set yields x, (x, y) or (x, y, sample_weight)"
                raise ValueError(f"{what}; got a tuple of {len(parts)}")
            if len(parts) == 3 and getattr(parts[2], "ndim", 0) > 2:  # a train_step's own, images
                parts = (parts,)
            x, y, weight = (*parts, None, None)[:3]
            batch = self.reweigh(make_arrays(x, y, weight, *self.names))
            if self.check is not None:
                self.check(batch)
            self.taken += 1
            count += 1
            yield batch
        if self.goes_on and self.iterator is None and self.steps is not None:
            done = count < self.steps  # the walk is at its end
            self.within, self.begun_walk = (0, None) if done else (self.within + count, items)
        if count == 0:
            why = "a generator can be walked over once only, while a list of batches starts again"
            if not self.taken:
                raise ValueError(f"the data set yielded no batch; {why} every epoch")
            ended = f"the data ran out after {self.taken} batches, and training ends here"
            warnings.warn(f"{ended}: {why}", UserWarning, stacklevel=2)

    def _begin(self) -> None:
        """Take note of the source at the start of a walk: what is alive goes on changing."""
        if self.changes is not None:
            self.begun = copy.deepcopy(self.changes.now())

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
        of_walk = within or self.within or self.changes is None
        source = self.begun if of_walk else self.changes.now()  # type: ignore[union-attr]
        return {"taken": self.taken, "source": source, "within": self.within}

    def restore(self, state: dict[str, Any]) -> None:
        """Be where `state` was told."""
        restore(self.source, state["source"])
        self.begun, self.within = state["source"], state.get("within", 0)
        while self.iterator is not None and self.taken < state["taken"]:
            next(self.iterator, None)
            self.taken += 1


def in_steps(arrays: Any, steps: int) -> StreamData:
    """Arrays, of which an epoch takes `steps` batches and the next goes on where it was; a walk
    over all of them is in an order of its own where `fit` shuffles."""

    def walk() -> Iterator[Any]:
        order = None
        if stream.shuffle:
            order = np.random.default_rng(config.next_seed()).permutation(arrays.samples)
        for batch in arrays.batches(order):
            yield batch.x, batch.y or None, batch.weight

    stream = StreamData(Dataset(walk, len(arrays)), steps)
    return stream
