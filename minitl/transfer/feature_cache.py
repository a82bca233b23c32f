"""F of a model's frozen part, kept while the model trains: each image passes that part once.

`fit` wraps its data in `Caching`, and gets the same batches in the same order with rows of F in
place of the images; `predict` and `evaluate` do so with `Recalled`. A `Store` keeps F as rows by
the digest of the image that each was computed from: a changed image is another image. It lies in
memory, up to MEMORY bytes; beyond that in a temporary file; or in the file that
`cache_features='F.h5'` names (`feature_file.py`). It is thrown away at once when a weight below the
cut (`cut.py`) is written or unfrozen; `fit` leaves `model.kept_features`, its stores in memory
without augmented views, and a file with a name, which is made anew for another model's F.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minitl import kernels
from minitl.autograd import Array, no_grad
from minitl.models.batches import ArrayData, Batch
from minitl.models.prediction import MEMORY as STEP
from minitl.storage.atomic import progress_bar, temporary_folder
from minitl.storage.digests import sample_digests
from minitl.transfer.cut import Cut, Views, find_cut, first_random
from minitl.transfer.feature_file import FeatureFile

MEMORY = 2**30  # bytes of F that are kept in memory; more goes to a file
CHUNK = 32  # samples that are computed at a time


class Store:
    """Rows of F (N, D) by digest: all that the cut keeps of a sample is one row. They lie in the
    feature file `path`, or in memory, and in a temporary file when they are too many."""

    def __init__(self, cut: Cut, path: str | Path | None = None, expected: int = 0):
        self.cut, self._expected = cut, max(1, expected)
        self.computed = 0  # how often a sample was run through the frozen part
        self._numbers: dict[bytes, int] = {}  # of the row, by digest
        self.file: FeatureFile | None = None  # None: in memory
        self._on_disk = contextlib.ExitStack()  # what `close` removes or closes
        room = 0 if path is not None else min(expected, MEMORY // cut.row_bytes)
        self._rows = kernels.empty((room, cut.width), cut.dtype)
        if path is not None:
            self._open(path)
        elif expected * cut.row_bytes > MEMORY:
            self._move_to_file()

    def __len__(self) -> int:
        return len(self._numbers)

    def find(self, xs: Sequence[Array]) -> Array | None:
        """The rows' numbers (N,) of samples that are all there, else None."""
        found = [self._numbers.get(key) for key in self._keys(xs)]
        return None if None in found else np.array(found, np.int64)

    def numbers(self, xs: Sequence[Array], views: Views | None = None) -> Array:
        """The rows' numbers (N,) of N samples, of which xs has an array (N, ...) per input of the
        model, and of these `views` where the cut keeps views; what is not there is computed."""
        keys = self._keys(xs, views)
        missing = list({key: i for i, key in enumerate(keys) if key not in self._numbers}.items())
        for start in range(0, len(missing), CHUNK):
            new = missing[start : start + CHUNK]
            values = self._compute(xs, np.array([i for _, i in new]), views)
            self._add([key for key, _ in new], values)
        return np.array([self._numbers[key] for key in keys], np.int64)

    def _compute(self, xs: Sequence[Array], samples: Array, views: Views | None) -> list[Array]:
        """What the frozen part gives for these samples, a few samples at a time."""
        below, n, found = self.cut.below, len(samples), []
        each = below.largest_step() * np.dtype(below.outputs[0].dtype).itemsize
        count = min(n, -(-n * each // STEP))
        # After a restart other samples are missing, and F must be the same.
        token = kernels.rows_apart.set(True)
        try:
            for i in range(count):
                part = samples[n * i // count : n * (i + 1) // count]
                seeds = None if views is None else views[part]
                with no_grad():
                    outputs = below.run([xs[k][part] for k in self.cut.sources], False, seeds)
                found.append([t.storage for t in outputs])
        finally:
            kernels.rows_apart.reset(token)
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _keys(self, xs: Sequence[Array], views: Views | None = None) -> list[bytes]:
        tags = None if views is None else views.tags()
        return [d.tobytes() for d in sample_digests([xs[i] for i in self.cut.sources], tags)]

    def read(self, numbers: Array) -> list[Array]:
        """What is kept of these samples: an array (N, ...) for each value at the cut."""
        first, n = int(numbers[0]), len(numbers)
        in_order = (numbers == np.arange(first, first + n)).all()  # then a view, no copy
        rows = self._rows[first : first + n] if in_order else self._rows[numbers]
        ends = np.cumsum([math.prod(shape) for shape in self.cut.shapes])
        parts = np.split(rows, ends[:-1], axis=1)
        return [a.reshape(n, *shape) for a, shape in zip(parts, self.cut.shapes, strict=True)]

    def in_place(self, batch: Batch, numbers: Array) -> Batch:
        """The batch with rows in place of the inputs that are read below the cut only."""
        above = self.cut.inputs
        xs = batch.x if len(batch.x) == len(above) else [batch.x[i] for i in above]
        return batch._replace(x=[*xs, *self.read(numbers)], graph=self.cut.above)

    def close(self) -> None:
        """Let go of the file; a temporary one is gone."""
        if self.file is not None:
            self._rows, self._numbers = np.zeros((0, self.cut.width), self.cut.dtype), {}
        self._on_disk.close()

    def _add(self, keys: list[bytes], values: list[Array]) -> None:
        n, first, end = len(keys), len(self), len(self) + len(keys)
        rows = np.concatenate([a.reshape(n, -1) for a in values], axis=1)
        self.computed += n
        if self.file is None and end * self.cut.row_bytes > MEMORY:
            self._move_to_file()
        if self.file is not None:
            self._write(self.file, keys, rows)
            return
        if end > len(self._rows):  # room for more than these, so that it is rarely copied
            before = self._rows
            self._rows = kernels.empty((max(end, 2 * len(before)), self.cut.width), self.cut.dtype)
            self._rows[: len(before)] = before
        self._rows[first:end] = rows
        self._numbers.update(zip(keys, range(first, end), strict=True))

    def _write(self, file: FeatureFile, keys: list[bytes], rows: Array) -> None:
        """Put rows where the file has none yet, and the rest behind its end."""
        size = file.rows
        free = np.flatnonzero(~file.there)[: len(keys)].tolist()
        places = [*free, *range(size, size + len(keys) - len(free))]
        for key, row, place in zip(keys, rows, places, strict=True):
            file.write(place, row[np.newaxis], np.frombuffer(key, np.uint8)[np.newaxis])
            self._numbers[key] = place
        if file.rows != size:  # it is another file now
            self._rows = file.mapped()

    def _move_to_file(self) -> None:
        """F has outgrown the memory: go on in a file, for as long as the store lives."""
        folder = self._on_disk.enter_context(temporary_folder())
        before, keys = self._rows, list(self._numbers)
        self._write(self._open(folder / "F.h5"), keys, before[: len(keys)])

    def _open(self, path: str | Path) -> FeatureFile:
        """Go on in this file, with what is there already."""
        cut, about = self.cut, {"kept": self.cut.describe(), "made by": "fit"}
        key = {"kind": "rows by image", **cut.key()}
        self.file = file = FeatureFile(
            path, cut.width, cut.dtype, key, room=self._expected, about=about, rebuild=True
        )
        self._on_disk.enter_context(file)
        self._numbers = {file.images[i].tobytes(): int(i) for i in np.flatnonzero(file.there)}
        self._rows = file.mapped()
        return file


@dataclass(eq=False, repr=False)
class Caching:
    """What a `fit` keeps and says: `wrap` sources, training data first; `begin`; walk; `end`."""

    model: Any
    cache: bool | str | Path  # cache_features
    copies: int | None  # augment_copies
    epochs: int  # that are to come
    say: Callable[[str], None] | None  # prints a line
    bars: bool = False  # whether to show progress

    def __post_init__(self) -> None:
        self.seed, self.walks, self.stores = 0, list[CachedData](), list[Store]()
        # What the fit before this left; with a path, F goes there and comes from there alone.
        self._before: list[Store] = list(self.model.kept_features) if self.cache is True else []

    def wrap(self, data: Any, training: bool) -> CachedData:
        """`data`, to be walked over in epochs of training, or for validation."""
        if training and self.copies is not None and not isinstance(data, ArrayData):
            raise ValueError("augment_copies needs arrays: views are numbered by sample")
        self.walks.append(CachedData(self, data, training))
        return self.walks[-1]

    def begin(self, seed: int, epoch: int) -> None:
        """Cut the model, say what is kept, and compute what can be before `epoch`, the first."""
        self.seed = seed
        cut = self.walks[0].prepare()
        keeps = self.cache is not False and self.model.trainable_weights
        if keeps and self.copies is None and (name := first_random(self.model)) is not None:
            why = "stands before frozen layers and is random, so that these run in every epoch"
            how = "augment_copies=k keeps what they give for k views of each image"
            text = f"{name!r} {why} on every image. With augmentation, {how}"
            warnings.warn(text, UserWarning, stacklevel=5)
        if cut is not None and self.say is not None:
            self.say(self._report(cut))
        for walk in self.walks:
            walk.epoch = epoch
            walk.fill()

    def end(self) -> None:
        """Leave to the model what is in memory. Views are drawn anew by every fit."""
        self.drop(lambda s: s.file is not None)
        if self.cache is not False:
            self.model.kept_features = [s for s in self.stores if s.cut.holds() and not s.cut.views]

    def _report(self, cut: Cut) -> str:
        frozen = sum(v.storage.size for v in self.model.weights if not v.trainable)
        expected = self._expected(cut)
        size = expected * cut.row_bytes
        where = "in memory" if size <= MEMORY else "in a temporary file"
        if isinstance(self.cache, (str, Path)):
            where = f"in {self.cache}"
        once = f"once a sample and kept {where}, {cut.row_bytes:,} bytes each"
        if expected:
            once = f"once for each of {expected:,} samples and kept {where}, {size / 1e6:,.1f} MB"
        start = f"Frozen: {frozen:,} of {self.model.count_params():,} parameters."
        saved = f"an epoch saves {cut.share()} of its forward multiply-adds."
        return f"{start} {cut.describe()} is computed {once}; after that, {saved}"

    def _expected(self, cut: Cut) -> int:
        """How many rows will be kept, where that is known."""
        views = min(self.copies or 1, self.epochs) if cut.views else 1
        return sum((w.samples or 0) * (views if w.training else 1) for w in self.walks)

    def cut(self, walk: CachedData) -> Cut | None:
        """Where to cut the model for these data, or None where nothing is to be kept."""
        if self.cache is False or not self.model.trainable_weights:
            return None
        shapes = None if walk.samples is None else [a.shape for a in walk.data.x]
        cut = find_cut(self.model, walk.training, shapes, walk.training and self.copies is not None)
        if cut is None or any(None in shape for shape in cut.shapes):
            return None
        first = self.walks[0].cut
        usable = first is not None and not first.views and first.holds()
        if first is not None and usable and first.saved >= cut.saved and first.width <= cut.width:
            cut = first  # as good, and all is in one place
        size = self._expected(cut) * cut.row_bytes
        if self.cache is True and size > MEMORY:  # into a file for nothing, or too large for one?
            free = shutil.disk_usage(tempfile.gettempdir()).free
            return None if self.epochs == 1 or size > free // 2 else cut
        return cut

    def store(self, cut: Cut, training: bool) -> Store:
        """The store of a cut: one that is there and keeps the same, or a new one."""
        self.drop(lambda s: not s.cut.holds())
        expected = self._expected(cut)
        fitting = [s for s in self._before if (len(s) + expected) * cut.row_bytes <= MEMORY]
        for store in [*self.stores, *fitting]:
            if store.cut.same_as(cut):
                break
        else:
            path = self.cache if training and not isinstance(self.cache, bool) else None
            if path is not None:
                self.drop(lambda s: s.file is not None)
            store = Store(cut, path, expected)
        if store not in self.stores:
            self.stores.append(store)
        return store

    def drop(self, which: Callable[[Store], bool]) -> None:
        """Close these stores: what they keep is of no use any more."""
        for store in filter(which, self.stores):
            store.close()
        self.stores = [s for s in self.stores if not which(s)]


class CachedData:
    """The batches of `data`, with what the cut keeps in place of the images where that is possible.
    The model is cut anew when layers were frozen or unfrozen, or frozen weights written. If so in
    the middle of an epoch, by a callback say, the rest of it runs the whole model."""

    def __init__(self, caching: Caching, data: Any, training: bool):
        self.caching, self.data, self.training, self.epoch = caching, data, training, 0
        self.samples = data.samples if isinstance(data, ArrayData) else None  # None: a stream
        self.cut: Cut | None = None
        self._store: Store | None = None
        self._flags: Any = None  # which weights learned when the model was cut
        self._numbers: dict[int, Array] = {}  # of the rows of all samples, by view
        self._passes = 0  # over a stream

    def __len__(self) -> int:
        return len(self.data)

    def prepare(self) -> Cut | None:
        """Cut the model, if that has not been done or no longer holds."""
        model = self.caching.model
        flags = [v.trainable for v in model.weights]
        if self._flags != flags or (self.cut is not None and not self.cut.fits(model)):
            self._flags, self._numbers, self._store = flags, {}, None
            self.cut = self.caching.cut(self)
        return self.cut

    def fill(self) -> tuple[Store, Array | None] | None:
        """The store, and of arrays the numbers of all rows of this epoch; None: nothing is kept."""
        if (cut := self.prepare()) is None:
            return None
        if self._store is None:
            self._store = self.caching.store(cut, self.training)
        if self.samples is None:
            return self._store, None
        view = self.epoch % (self.caching.copies or 1) if cut.views else 0
        if view not in self._numbers:
            self._numbers[view] = self._all_rows(self._store, self.samples, view)
        return self._store, self._numbers[view]

    def batches(self, order: Array | None = None, first: int = 0) -> Iterator[Batch]:
        """As `data.batches`; `graph` of a batch says what runs it."""
        store, numbers = self.fill() or (None, None)
        if store is None:
            yield from self.data.batches(order, first)
        elif numbers is None:
            yield from self._of_stream(store, first)
        else:
            for where in self.data.parts(order, first):
                if store.cut.holds():
                    yield store.in_place(self.data.take(where, store.cut.inputs), numbers[where])
                else:
                    yield self.data.take(where)

    def _all_rows(self, store: Store, n: int, view: int) -> Array:
        """The rows' numbers of all n samples, made in their order: no bit depends on training's."""
        views = Views(self.caching.seed, view, np.arange(n)) if store.cut.views else None
        text = f"frozen part, {'training' if self.training else 'validation'}"
        text += "" if views is None else f", view {view + 1}"
        found = []
        with progress_bar(n, text, hidden=not self.caching.bars, unit="sample") as bar:
            for start in range(0, n, CHUNK):
                part = slice(start, min(start + CHUNK, n))
                seeds = None if views is None else views[part]
                found.append(store.numbers([a[part] for a in self.data.x], seeds))
                bar.update(len(found[-1]))
        return np.concatenate(found)

    def _of_stream(self, store: Store, first: int) -> Iterator[Batch]:
        before, samples = store.computed, 0
        for batch in self.data.batches(None, first):
            samples += batch.size
            if self.cut is not None and store.cut.holds():
                try:
                    batch = store.in_place(batch, store.numbers(batch.x))
                except OSError as error:
                    if self.caching.cache is not True:
                        raise
                    self._give_up(store, f"The temporary file cannot be written ({error})")
            yield batch
        self._passes += 1
        if self._passes > 1 and 2 * (store.computed - before) > samples:
            self._give_up(store, "The data set yields other images in every epoch")

    def _give_up(self, store: Store, why: str) -> None:
        if self.caching.say is not None:
            self.caching.say(f"{why}: the frozen part runs in every step, and nothing is kept.")
        self.cut = None
        self.caching.drop(lambda s: s is store)


class Recalled:
    """The batches of `data` for measuring or predicting, with what earlier fits have kept."""

    def __init__(self, model: Any, data: Any):
        self.model, self.data = model, data

    def __len__(self) -> int:
        return len(self.data)

    def batches(self) -> Iterator[Batch]:
        stores = [s for s in self.model.kept_features if s.cut.fits(self.model)]
        for batch in self.data.batches():
            shapes = [a.shape[1:] for a in batch.x]
            while stores:
                made_for = [t.shape[1:] for t in stores[0].cut.whole.inputs]
                numbers = stores[0].find(batch.x) if shapes == made_for else None
                if numbers is not None:
                    batch = stores[0].in_place(batch, numbers)
                    break
                del stores[0]  # other images: do not look again
            yield batch
