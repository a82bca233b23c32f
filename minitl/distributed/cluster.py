"""F, or predictions, by the workers of a Dask cluster; the client writes what they computed.

Images are cut into parts of a fixed size, and a part's rows depend on nothing but the part: not on
which worker computes it, when, or how often. A few parts more than there are threads are on their
way at a time. Each is written when it arrives, so a call that is repeated goes on where the last
one was. The model goes to each worker once, by its digest (Dask's worker plugin, which new workers
are given too), and its kernels take as many threads as Dask gave the worker.
"""

import contextlib
import io
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl.data import Pictures
from minitl.data.pictures import read_picture
from minitl.distributed.rows import Part, Rows, is_there, part_path, write_part
from minitl.kernels.machine.threads import set_thread_count
from minitl.models import Model
from minitl.naming import Count, check_keywords
from minitl.storage.atomic import cache_folder, locked, progress_bar
from minitl.storage.digests import arrays_digest, digest_of, sample_digests
from minitl.storage.door import extra
from minitl.transfer.features import Chosen, feature_key, feature_model

BATCH = 32  # images that the network sees at a time
PARTS = 64  # at least, of many images
PATIENCE = 10  # workers that a part may be running on when they die, one after the other


@check_keywords
def extract_features(
    model: Model,
    images: Any,
    layers: Chosen = None,
    pooling: str | None = None,
    preprocess: Callable[[np.ndarray], np.ndarray] | None = None,
    out: str | Path = "F",
    *,
    client: Any = None,
    part_size: Count | None = None,
    size: Any = None,
    verbose: Any = "auto",
) -> Rows:
    """F (N, D) as `minitl.extract_features` computes it, by many workers, in a folder of parts.

    Args:
        model, layers, pooling, preprocess: as in `minitl.extract_features`.
        images: paths, or addresses that fsspec knows ('s3://...'), of picture files that the
            workers can reach; or Pictures; or an array or Dask array (N, H, W, C).
        out: the folder. The same call goes on there after whatever ended the last one.
        client: a `dask.distributed.Client`; the address of a scheduler; how many worker processes
            of one core to start on this machine; None: as many as it has cores. (They import the
            program that starts them: it needs `if __name__ == "__main__":`.)
        part_size: images per part; None: 32 to 256, by N alone; many parts keep workers busy to
            the end. Rows are, to the bit, those of `minitl.extract_features` if it is a multiple of
            32, and to rounding if not; on workers or their number nothing depends.
        size: (H, W) to which pictures are scaled; None: that of the model's input.
        verbose: 0 hides the bar.

    A picture that cannot be read is named in a warning; its row is NaN (`rows.faults`).

    Raises ValueError as `minitl.extract_features`, and RuntimeError when the workers are lost.
    """
    images = _as_images(images, model, size)
    model.build_for(images)
    extractor = feature_model(model, layers, pooling)
    first = np.zeros((1, *images.shape[1:]), images.dtype)
    key = feature_key(extractor, layers, pooling, preprocess, first)
    if isinstance(images, Pictures):
        key |= {"pictures": images.identity()}
    part_size = part_size or min(max(len(images) // PARTS // BATCH, 1), 8) * BATCH
    wanted = _Wanted(images, part_size, Path(out), key)
    with progress_bar(len(images), "features", hidden=verbose in (0, False), unit="image") as bar:
        if missing := wanted.missing(bar):
            with connected(client) as reached:
                name = _send(reached, extractor, preprocess, digest_of(key))
                for number, part in _computed(reached, name, missing, wanted.payload):
                    wanted.keep(number, part, {"model": model.name})
                    bar.update(len(part.rows))
    rows = Rows(out)
    _tell(rows.faults, len(rows))
    return rows


@check_keywords
def predict(
    model: Model,
    images: Any,
    preprocess: Callable[[np.ndarray], np.ndarray] | None = None,
    out: str | Path | None = None,
    **how: Any,
) -> np.ndarray:
    """What `model.predict` gives, (N, ...), by many workers; `how` as for `extract_features`.

    With `out`, a folder, a call that was interrupted goes on there.
    """
    with tempfile.TemporaryDirectory(prefix="minitl-") as folder:
        rows = extract_features(model, images, preprocess=preprocess, out=out or folder, **how)
        return rows[:].reshape(len(rows), *(-1 if n is None else n for n in model.output_shape[1:]))


def _as_images(images: Any, model: Model, size: Any) -> Any:
    """Paths as Pictures; arrays, Dask's too, as they are."""
    if isinstance(images, (str, os.PathLike)):
        raise TypeError(f"images are a list of paths or an array, got the single path {images!r}")
    if hasattr(images, "shape"):
        return images
    paths = [os.fspath(path) for path in images]
    if size is None:
        size = model.input_shape[1:3]
    height, width = (size, size) if isinstance(size, int) else size
    if height is None or width is None:
        text = "takes images of any size: say size=(224, 224), for example"
        raise ValueError(f"{model.name!r} {text}")
    return Pictures(paths, size=(height, width))


def _stamp(path: str) -> Any:
    try:
        if "://" in path:
            import fsspec

            system, place = fsspec.core.url_to_fs(path)
            return path, system.ukey(place)
        found = os.stat(path)
        return os.path.abspath(path), found.st_size, found.st_mtime_ns
    except Exception as error:  # of whatever library; the worker that reads it will tell
        return path, type(error).__name__


class _Wanted:
    """The parts that F is to have: of which images, in which files, under which keys."""

    def __init__(self, images: Any, size: int, folder: Path, key: dict[str, str]):
        if not len(images):
            raise ValueError(f"there are no images: shape {images.shape}")
        self.images, self.folder, self.key = images, folder, key
        firsts = range(0, len(images), size)
        self.parts = [slice(first, min(first + size, len(images))) for first in firsts]

    def missing(self, bar: Any) -> list[int]:
        """The numbers of those that are not there; the bar moves on by the others."""
        found = []
        for number, rows in enumerate(self.parts):
            count = rows.stop - rows.start
            if is_there(part_path(self.folder, number), self.key_of(number), count):
                bar.update(count)
            else:
                found.append(number)
        return found

    def keep(self, number: int, part: Part, about: dict[str, Any]) -> None:
        write_part(part_path(self.folder, number), self.key_of(number), part, about)

    def key_of(self, number: int) -> dict[str, str]:
        rows = self.parts[number]
        return {**self.key, "rows": f"{rows.start} to {rows.stop}", "images": self._identity(rows)}

    def _identity(self, rows: slice) -> str:
        """A digest: of names, sizes and times of files, or of an array's bytes."""
        if isinstance(self.images, Pictures):
            return digest_of([self.images.size, [_stamp(p) for p in self.images.paths[rows]]])
        if hasattr(self.images, "to_delayed"):
            return f"{self.images.name} {rows.start}"
        return arrays_digest([np.asarray(self.images[rows])])

    def payload(self, number: int) -> Any:
        """What a worker is sent: names of files, an array, or what becomes one."""
        rows, images = self.parts[number], self.images
        if isinstance(images, Pictures):
            return images.paths[rows], images.size, dict(images.reading)
        return images[rows] if hasattr(images, "to_delayed") else np.asarray(images[rows])


@contextlib.contextmanager
def connected(client: Any) -> Iterator[Any]:
    """A Dask client: the given one, or one for an address, or for new processes on this machine."""
    with extra("a cluster needs Dask", "distributed"):
        import dask
        import distributed
    if isinstance(client, distributed.Client):
        yield client
        return
    if isinstance(client, str):
        with distributed.Client(client, set_as_default=False) as reached:
            yield reached
        return
    count = client or len(os.sched_getaffinity(0))
    settings: dict[str, Any] = {"n_workers": count, "threads_per_worker": 1, "processes": True}
    settings |= {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": "ERROR"}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": PATIENCE}),
        distributed.LocalCluster(**settings) as cluster,
        distributed.Client(cluster, set_as_default=False) as reached,
    ):
        done = threading.Event()

        def replace() -> None:
            """A worker that dies while it starts is given up by Dask until this asks for it."""
            while not done.wait(2):
                cluster.scale(count)

        threading.Thread(target=replace, daemon=True).start()
        try:
            yield reached
        finally:
            done.set()


def _send(client: Any, extractor: Model, preprocess: Any, digest: str) -> str:
    """Give the model to all workers, those to come as well, unless they have it."""
    import distributed
    from distributed.protocol.pickle import dumps

    name = f"minitl-{digest[:32]}"

    class Weights(distributed.WorkerPlugin):
        def __init__(self, data: bytes):
            self.data = data

        def setup(self, worker: Any) -> None:
            hold(name, self.data, worker.state.nthreads)

    def knows(dask_scheduler: Any) -> bool:
        return name in dask_scheduler.worker_plugins

    if client.run_on_scheduler(knows):
        return name
    weights, left = Weights(dumps((extractor, preprocess))), PATIENCE
    while True:
        try:
            client.register_plugin(weights, name=name)
            return name
        except OSError:  # a worker died while it was given them
            if (left := left - 1) == 0:
                raise
            time.sleep(0.1)


def _computed(
    client: Any, name: str, numbers: Sequence[int], payload: Callable[[int], Any]
) -> Iterator[tuple[int, Part]]:
    """(number, Part) of these parts as they are done, a few more on their way than threads."""
    import distributed

    most = 2 * sum(client.nthreads().values()) + 1
    left, running = iter(numbers), {}
    done = distributed.as_completed(loop=client.loop)

    def begin() -> None:
        if (number := next(left, None)) is not None:
            given = payload(number)
            given = client.compute(given) if hasattr(given, "to_delayed") else given
            with warnings.catch_warnings():  # a part of an array is large for a task, as it must be
                warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
                future = client.submit(compute, name, given, pure=False)
            running[future.key] = number, future
            done.add(future)

    try:
        for _ in range(max(most, 4)):
            begin()
        for future in done:
            number, _ = running.pop(future.key)
            try:
                part = future.result()
            except (distributed.KilledWorker, distributed.client.FutureCancelledError) as error:
                what = f"part {number} was lost ({type(error).__name__})"
                why = "its workers died, from lack of memory perhaps, or the scheduler did"
                how = "the same call goes on where this one was; a smaller part_size takes less"
                raise RuntimeError(f"{what}: {why}; {how}") from error
            yield number, part
            del part, future
            begin()
    finally:
        with contextlib.suppress(Exception):
            client.cancel([future for _, future in running.values()])


class Held:
    """A model that a worker has been given, made when it is first used. One part runs at a time,
    on all threads of the worker; meanwhile another may be decoded."""

    lock = threading.Lock()

    def __init__(self, data: bytes, threads: int):
        self.data, self.threads = data, threads
        self.made: Any = None

    def rows(self, x: np.ndarray) -> np.ndarray:
        """F (n, D) of images (n, H, W, C)."""
        with self.lock:
            set_thread_count(self.threads)
            if self.made is None:
                from distributed.protocol.pickle import loads

                self.made = loads(self.data)
                with contextlib.ExitStack() as alone:
                    # One process of a machine compiles the kernels, the others find them compiled.
                    with contextlib.suppress(OSError):
                        alone.enter_context(locked(cache_folder() / "kernels"))
                    self._run(np.zeros_like(x[:1]))
            return np.concatenate([self._run(x[i : i + BATCH]) for i in range(0, len(x), BATCH)])

    def _run(self, batch: np.ndarray) -> np.ndarray:
        model, prepare = self.made
        batch = prepare(batch) if prepare else batch
        return model.predict(batch, batch_size=len(batch), verbose=0)


HELD: dict[str, Held] = {}  # in a worker: by the digest of what its features depend on


def hold(name: str, data: bytes, threads: int) -> None:
    """In a worker: a model has arrived."""
    HELD[name] = Held(data, threads)


def compute(name: str, given: Any) -> Part:
    """In a worker: the rows of a part."""
    faults: dict[int, str] = {}
    x = given
    if isinstance(given, tuple):
        paths, size, reading = given
        x = np.zeros((len(paths), *size, 3), Pictures([], reading=reading).dtype)
        for i, path in enumerate(paths):
            try:
                x[i] = read_picture(_source(path), size, reading)
            except OSError as error:
                faults[i] = str(error) if path in str(error) else f"{path}: {error}"
    rows, digests = HELD[name].rows(x), sample_digests([x])
    rows[list(faults)], digests[list(faults)] = np.nan, 0
    return Part(rows, digests, faults)


def _source(path: str) -> Any:
    """The path, or the contents of the file at an address. Raises OSError for all that fails."""
    if "://" not in path:
        return path
    try:
        import fsspec

        with fsspec.open(path, "rb") as file:
            return io.BytesIO(file.read())
    except Exception as error:  # of whatever library reaches it
        raise OSError(f"cannot read {path}: {error or type(error).__name__}") from error


def _tell(faults: dict[int, str], count: int) -> None:
    if faults:
        shown = "; ".join(list(faults.values())[:5]) + ("; ..." if len(faults) > 5 else "")
        text = f"{len(faults)} of {count} images could not be read, their rows are NaN: {shown}"
        warnings.warn(text, UserWarning, stacklevel=4)
