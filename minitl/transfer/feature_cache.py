"""F, kept while a model trains: what lies below the cut of `frozen.py` runs once a sample.

`Store` keeps rows of F by the digest of the sample that they were computed from. So it does not
matter in which order samples come, whether they come as arrays or as a data set that is shuffled
anew every epoch, whether a validation image is also a training image, or whether they came in an
earlier `fit`: an image that was seen is not computed again, and one that was changed is another.

`CachedData` is what `fit` walks over instead of its data: the same batches in the same order, with
rows of F for images.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl import kernels
from minitl.autograd import Array, no_grad
from minitl.models.batches import ArrayData, Batch
from minitl.models.graph import Graph
from minitl.storage.digests import SIZE, sample_digests
from minitl.transfer.cut import Cut, Views, find_cut, first_random
from minitl.transfer.feature_file import FeatureFile

MEMORY = 2**30  # bytes of F that are kept in memory; more goes to a file
CHUNK = 32  # samples that are computed at a time
STEP = 256 * 2**20  # bytes that one layer's inputs and outputs may take together


class Store:
    """Rows of F (N, D) by digest, in memory or in a file. All that a cut keeps of a sample is one
    row."""

    def __init__(self, cut: Cut, path: str | Path | None = None, expected: int = 0):
        self.cut = cut
        self.computed = 0  # how often a sample was run through the frozen part
        self._numbers: dict[bytes, int] = {}  # of the row, by digest
        self._file: FeatureFile | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        size = cut.width * cut.dtype.itemsize
        self._rows = kernels.empty((min(expected, MEMORY // size), cut.width), cut.dtype)
        self._expected = max(1, expected)
        if path is None and expected * size > MEMORY:
            self._move_to_file()
        if path is not None:
            self._file = self._open(path)
            for i in np.flatnonzero(self._file.there):
                self._numbers[self._file.images[i].tobytes()] = int(i)
            self._rows = self._file.mapped()

    def _open(self, path: str | Path) -> FeatureFile:
        about = {"kept": self.cut.describe(), "made by": "fit"}
        key = {"kind": "rows by image", **self.cut.key()}
        return FeatureFile(
            path,
            self.cut.width,
            self.cut.dtype,
            key,
            room=self._expected,
            about=about,
            rebuild=True,
        )

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def in_memory(self) -> bool:
        return self._file is None

    def find(self, xs: Sequence[Array]) -> Array | None:
        """The rows' numbers (N,) of samples that are all there, else None."""
        digests = sample_digests([xs[i] for i in self.cut.sources])
        found = [self._numbers.get(d.tobytes()) for d in digests]
        return None if None in found else np.array(found, np.int64)

    def numbers(self, xs: Sequence[Array], views: Views | None = None) -> Array:
        """The rows' numbers (N,) of N samples; those that are not there are computed.

        Args:
            xs: an array (N, ...) for each input of the model.
            views: which augmented views of which samples are wanted.
        """
        below = [xs[i] for i in self.cut.sources]
        tags = views.tags() if views is not None and self.cut.views else None
        keys = [d.tobytes() for d in sample_digests(below, tags)]
        missing = list({key: i for i, key in enumerate(keys) if key not in self._numbers}.items())
        for start in range(0, len(missing), CHUNK):
            part = missing[start : start + CHUNK]
            samples = np.array([i for _, i in part])
            whole = len(samples) == len(keys)
            chosen = below if whole else [a[samples] for a in below]
            seeds = None
            if tags is not None and views is not None:
                seeds = Views(views.seed, views.view, views.samples[samples])
            self._add([key for key, _ in part], compute(self.cut.below, chosen, seeds))
        return np.array([self._numbers[key] for key in keys], np.int64)

    def _add(self, keys: list[bytes], rows: list[Array]) -> None:
        n = len(keys)
        flat = np.concatenate([a.reshape(n, -1) for a in rows], axis=1)
        first = len(self._numbers)
        self.computed += n
        if self._file is None and (first + n) * flat[0].nbytes > MEMORY:
            self._move_to_file()
        if self._file is None:
            self._reserve(first + n)
            self._rows[first : first + n] = flat
            self._numbers.update({key: first + i for i, key in enumerate(keys)})
            return
        digests = np.frombuffer(b"".join(keys), np.uint8).reshape(n, SIZE)
        size = self._file.rows
        free = np.flatnonzero(~self._file.there)[:n]
        places = [*free.tolist(), *range(size, size + n - len(free))]
        if places == list(range(places[0], places[0] + n)):
            self._file.write(places[0], flat, digests)
        else:  # between rows that are there
            for i, place in enumerate(places):
                self._file.write(place, flat[i : i + 1], digests[i : i + 1])
        if self._file.rows != size:
            self._rows = self._file.mapped()
        self._numbers.update(zip(keys, places, strict=True))

    def _move_to_file(self) -> None:
        """F has outgrown the memory: go on in a file, for as long as the store lives."""
        self._folder = tempfile.TemporaryDirectory(prefix="minitl-")
        before, keys = self._rows, list(self._numbers)
        self._file = self._open(Path(self._folder.name) / "F.h5")
        digests = np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), SIZE)
        for start in range(0, len(keys), CHUNK):
            part = slice(start, min(start + CHUNK, len(keys)))
            self._file.write(start, before[part], digests[part])
        self._rows = self._file.mapped()

    def _reserve(self, needed: int) -> None:
        """Room for `needed` rows in memory, and for more, so that not all is copied at each."""
        if needed > len(self._rows):
            before = self._rows
            rows = max(needed, 2 * len(before))
            self._rows = kernels.empty((rows, self.cut.width), self.cut.dtype)
            self._rows[: len(before)] = before

    def read(self, numbers: Array) -> list[Array]:
        """What is kept of these samples: an array (N, ...) for each value at the cut."""
        first, n = int(numbers[0]), len(numbers)
        if (numbers == np.arange(first, first + n)).all():
            rows = self._rows[first : first + n]  # no copy
        else:
            rows = self._rows[numbers]
        found, at = [], 0
        for shape in self.cut.shapes:
            size = int(np.prod(shape))
            found.append(rows[:, at : at + size].reshape(n, *shape))
            at += size
        return found

    def close(self) -> None:
        """Let go of the file; a temporary one is gone."""
        if self._file is not None:
            self._file.close()
            self._rows = self._rows[:0].copy()
            self._numbers = {}
        if self._folder is not None:
            self._folder.cleanup()


def compute(graph: Graph, xs: Sequence[Array], rng: Any = None) -> list[Array]:
    """The graph's outputs for these samples, a few samples at a time."""
    n = len(xs[0])
    each = graph.largest_step() * np.dtype(graph.outputs[0].dtype).itemsize
    count = min(n, -(-n * each // STEP))
    found = []
    with no_grad():
        for i in range(count):
            part = slice(n * i // count, n * (i + 1) // count)
            if isinstance(rng, Views):
                piece: Any = Views(rng.seed, rng.view, rng.samples[part])
            else:
                piece = rng
            found.append([t.storage for t in graph.run([x[part] for x in xs], False, piece)])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


class Caching:
    """What one `fit` keeps, and what it says about it.

    Args:
        model: being trained.
        cache: True, False, or the path of a feature file.
        copies: augment_copies.
        epochs: how many are to come.
        say: prints a line; None is silent.
        bars: whether to show progress.
    """

    def __init__(
        self,
        model: Any,
        cache: bool | str | Path,
        copies: int | None,
        epochs: int,
        say: Callable[[str], None] | None,
        bars: bool = False,
    ):
        if not isinstance(cache, (bool, str, Path)):
            raise ValueError(f"cache_features is True, False or the path of a file, got {cache!r}")
        if copies is not None and (not isinstance(copies, (int, np.integer)) or copies < 1):
            raise ValueError(f"augment_copies must be a positive integer or None, got {copies!r}")
        self.model, self.cache, self.copies = model, cache, copies
        self.epochs, self.seed = epochs, 0
        self.say = say or (lambda text: None)
        self.bars = bars
        self.walks: list[CachedData] = []
        self.stores: list[Store] = []
        # What the fit before this left; with a path, F goes there and comes from there alone.
        self._before: list[Store] = list(model.kept_features) if cache is True else []

    def wrap(self, data: Any, training: bool) -> CachedData:
        """`data`, to be walked over in epochs of training, or for validation."""
        if training and self.copies is not None and not isinstance(data, ArrayData):
            raise ValueError("augment_copies needs arrays: views are numbered by sample")
        self.walks.append(CachedData(self, data, training))
        return self.walks[-1]

    def begin(self, seed: int, epoch: int) -> None:
        """Cut the model, say what is kept, and compute what can be computed before the first
        `epoch`. `seed` is the fit's, for augmented views."""
        self.seed = seed
        cut = self.walks[0].prepare()
        if self.cache is not False and self.copies is None and self.model.trainable_weights:
            name = first_random(self.model)
            if name is not None:
                warnings.warn(
                    f"{name!r} stands before frozen layers and is random, so that these run in "
                    f"every epoch on every image. With augmentation, augment_copies=k keeps what "
                    f"they give for k views of each image",
                    UserWarning,
                    stacklevel=5,
                )
        if cut is not None:
            self.say(self._report(cut))
        for walk in self.walks:
            walk.epoch = epoch
            walk.fill()

    def _report(self, cut: Cut) -> str:
        frozen = [v for v in self.model.weights if not v.trainable]
        count = sum(v.storage.size for v in frozen)
        text = f"Frozen: {count:,} of {self.model.count_params():,} parameters. {cut.describe()} "
        expected = self.expected(cut)
        where = f"in {self.cache}" if isinstance(self.cache, (str, Path)) else "in memory"
        size = cut.width * cut.dtype.itemsize
        if expected:
            if where == "in memory" and expected * size > MEMORY:
                where = "in a temporary file"
            text += f"is computed once for each of {expected:,} samples and kept {where}, "
            text += f"{expected * size / 1e6:,.1f} MB"
        else:
            text += f"is computed once a sample and kept {where}, {size:,} bytes each"
        return f"{text}; after that, an epoch saves {cut.share()} of its forward multiply-adds."

    def expected(self, cut: Cut) -> int:
        """How many rows will be kept, where that is known."""
        views = self.copies or 1
        return sum(
            (walk.samples or 0) * (min(views, self.epochs) if walk.training and cut.views else 1)
            for walk in self.walks
        )

    def cut(self, walk: CachedData) -> Cut | None:
        if self.cache is False or not self.model.trainable_weights:
            return None
        arrays = isinstance(walk.data, ArrayData)
        shapes = [a.shape for a in walk.data.x] if arrays else None
        views = walk.training and self.copies is not None
        cut = find_cut(self.model, walk.training, shapes, views)
        if cut is None or any(None in shape for shape in cut.shapes):
            return None
        first = self.walks[0]._cut
        usable = first is not None and not first.views and first.holds()
        if first is not None and usable and first.saved >= cut.saved and first.width <= cut.width:
            cut = first  # as good, and all is in one place
        size = self.expected(cut) * cut.width * cut.dtype.itemsize
        if self.cache is True and size > MEMORY:
            # Into a file for nothing, or into one that does not fit: better not.
            free = shutil.disk_usage(tempfile.gettempdir()).free
            if self.epochs == 1 or size > free // 2:
                return None
        return cut

    def store(self, cut: Cut, training: bool) -> Store:
        """The store of a cut: one that is there and keeps the same, or a new one."""
        for store in [s for s in self.stores if not s.cut.holds()]:
            self.drop(store)  # what it keeps is of no use any more
        for store in self.stores:
            if store.cut.same_as(cut):
                return store
        size = cut.width * cut.dtype.itemsize
        for store in self._before:
            if (len(store) + self.expected(cut)) * size <= MEMORY and store.cut.same_as(cut):
                self.stores.append(store)
                return store
        path = self.cache if training and not isinstance(self.cache, bool) else None
        for store in [s for s in self.stores if path is not None and not s.in_memory]:
            self.drop(store)
        self.stores.append(Store(cut, path, self.expected(cut)))
        return self.stores[-1]

    def drop(self, store: Store) -> None:
        store.close()
        self.stores.remove(store)

    def end(self) -> None:
        """Leave to the model what may be of use to it later, if it is in memory. Views are drawn
        anew by every fit."""
        for store in [s for s in self.stores if not s.in_memory]:
            self.drop(store)
        if self.cache is not False:
            self.model.kept_features = [s for s in self.stores if s.cut.holds() and not s.cut.views]


class CachedData:
    """The batches of `data`, with what the cut keeps in place of the images where that is
    possible.

    The model is cut anew when layers were frozen or unfrozen, or frozen weights written, by a
    callback say. Where that happens in the middle of an epoch, the rest of it runs the whole
    model.
    """

    def __init__(self, caching: Caching, data: Any, training: bool):
        self.caching, self.data, self.training = caching, data, training
        self.samples = data.samples if isinstance(data, ArrayData) else None
        self.epoch = 0
        self._cut: Cut | None = None
        self._store: Store | None = None
        self._flags: Any = None
        self._numbers: dict[int, Array] = {}  # of the rows of all samples, by view
        self._passes = 0  # over a stream

    def __len__(self) -> int:
        return len(self.data)

    def prepare(self) -> Cut | None:
        """Cut the model, if that has not been done or no longer holds."""
        model = self.caching.model
        flags = [v.trainable for v in model.weights]
        if self._flags != flags or (self._cut is not None and not self._cut.fits(model)):
            self._flags, self._numbers, self._store = flags, {}, None
            self._cut = self.caching.cut(self)
        return self._cut

    def fill(self) -> tuple[Store, Array | None] | None:
        """The store, and of arrays the numbers of all samples' rows in this epoch; None where
        nothing is kept."""
        cut = self.prepare()
        if cut is None:
            return None
        if self._store is None:
            self._store = self.caching.store(cut, self.training)
        if self.samples is None:
            return self._store, None
        view = self.epoch % (self.caching.copies or 1) if cut.views else 0
        if view not in self._numbers:
            self._numbers[view] = self._all_rows(cut, self._store, view)
        return self._store, self._numbers[view]

    def batches(self, order: Array | None = None, first: int = 0) -> Iterator[Batch]:
        """As `data.batches`; `graph` of a batch says what runs it."""
        filled = self.fill()
        if filled is None:
            yield from self.data.batches(order, first)
            return
        store, numbers = filled
        if numbers is None:
            yield from self._of_stream(store, first)
        else:
            yield from self._of_arrays(store, numbers, order, first)

    def _of_arrays(
        self, store: Store, numbers: Array, order: Array | None, first: int
    ) -> Iterator[Batch]:
        cut = store.cut
        for where in self.data.parts(order, first):
            if cut.holds():
                inputs = self.data.take(where, cut.inputs)
                yield _kept(inputs, store, numbers[where])
            else:
                yield self.data.take(where)

    def _all_rows(self, cut: Cut, store: Store, view: int) -> Array:
        """The rows' numbers of all samples; computed in the samples' order, so that no bit
        depends on the order of training."""
        n, found = self.data.samples, []
        text = "frozen part, training" if self.training else "frozen part, validation"
        text += f", view {view + 1}" if cut.views else ""
        with _bar(n, text, not self.caching.bars) as bar:
            for start in range(0, n, CHUNK):
                samples = np.arange(start, min(start + CHUNK, n))
                views = Views(self.caching.seed, view, samples) if cut.views else None
                part = slice(start, start + CHUNK)
                found.append(store.numbers([a[part] for a in self.data.x], views))
                bar.update(len(samples))
        return np.concatenate(found)

    def _of_stream(self, store: Store, first: int) -> Iterator[Batch]:
        cut = store.cut
        before, samples = store.computed, 0
        for batch in self.data.batches(None, first):
            samples += batch.size
            if not cut.holds() or self._cut is None:
                yield batch
                continue
            try:
                numbers = store.numbers(batch.x)
            except OSError as error:
                if self.caching.cache is not True:
                    raise
                self._give_up(store, f"The temporary file cannot be written ({error})")
                yield batch
                continue
            inputs = batch._replace(x=[batch.x[i] for i in cut.inputs])
            yield _kept(inputs, store, numbers)
        self._passes += 1
        if self._passes > 1 and 2 * (store.computed - before) > samples:
            self._give_up(store, "The data set yields other images in every epoch")

    def _give_up(self, store: Store, why: str) -> None:
        self.caching.say(f"{why}: the frozen part runs in every step, and nothing is kept.")
        self._cut = None
        if store in self.caching.stores:
            self.caching.drop(store)


def _kept(batch: Batch, store: Store, numbers: Array) -> Batch:
    """The batch, with rows of the store behind what the rest reads of the inputs."""
    return batch._replace(x=[*batch.x, *store.read(numbers)], graph=store.cut.above)


class Recalled:
    """The batches of `data` for measuring or predicting: what an earlier fit of the model has
    kept is not computed again."""

    def __init__(self, model: Any, data: Any):
        self.model, self.data = model, data

    def __len__(self) -> int:
        return len(self.data)

    def batches(self) -> Iterator[Batch]:
        stores = [s for s in self.model.kept_features if s.cut.fits(self.model)]
        for batch in self.data.batches():
            for store in list(stores):
                numbers = store.find(batch.x) if _enters(batch, store.cut) else None
                if numbers is not None:
                    inputs = batch._replace(x=[batch.x[i] for i in store.cut.inputs])
                    yield _kept(inputs, store, numbers)
                    break
                stores.remove(store)  # other images: do not look again
            else:
                yield batch


def _enters(batch: Batch, cut: Cut) -> bool:
    """Whether the batch is made of samples such as the cut was made for."""
    shapes = [t.shape[1:] for t in cut.whole.inputs]
    return [a.shape[1:] for a in batch.x] == shapes


def _bar(total: int, text: str, hidden: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, desc=text, unit="sample", leave=False, disable=hidden)
