"""Features on disk: written as they are computed, resumed after an interruption, never stale.

A feature file is HDF5 with three data sets, one row of each per sample: `F` (N, D); `images`
(N, 16), a digest of the image that the row was computed from; and `checksums` (N,), 0 while a row
is not there yet. Every row's place is fixed when the file is made, and rows are written there
without HDF5: a process that is killed leaves a file in which each row is either there or not. The
file holds a key, of the weights, the architecture and the preprocessing that it was computed with,
and is used with no other. Each row's checksum covers the row, the image's digest, the row's number
and the key; all are compared when the file is opened, as are HDF5's own of everything else.
"""

import contextlib
import json
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minitl.models.arguments import guard
from minitl.storage import hdf5_reader
from minitl.storage.atomic import hdf5_file, locked, replacing, visible
from minitl.storage.digests import SIZE
from minitl.storage.door import open_regular, read_json

FORMAT = "minitl features 2"
BLOCK = 8 * 2**20  # bytes that are read or copied at a time
ROOM = 1024  # rows that a file of unknown length has place for at first


class FeatureFileError(ValueError):
    """The file is none of minitl's, is damaged, or was made from something else."""


class Layout(NamedTuple):
    """What the structure of a file says."""

    key: dict[str, str]
    about: dict[str, Any]
    growing: bool
    shape: tuple[int, int]
    dtype: np.dtype
    places: dict[str, int]  # of each data set in the file, in bytes

    def size(self, name: str) -> int:
        """Bytes of a row of this data set."""
        return {"F": self.shape[1] * self.dtype.itemsize, "images": SIZE, "checksums": 8}[name]

    def place(self, name: str, row: int) -> int:
        """Where in the file the row of this data set begins."""
        return self.places[name] + row * self.size(name)

    def blocks(self, rows: int) -> Iterator[tuple[int, int]]:
        """Ranges of the first `rows` rows, each of about BLOCK bytes of F."""
        step = max(1, BLOCK // self.size("F"))
        return ((first, min(first + step, rows)) for first in range(0, rows, step))


class FeatureFile(contextlib.AbstractContextManager["FeatureFile"]):
    """F (N, D) in a file, filled row by row: `there` (N,) says which rows are, and `images` (N, 16)
    has the digests of their images.

    Args:
        path: made if it is not there, taken up if its key, digests by name, is the same.
        width, dtype: D, and that of F.
        rows: N; None when it is not known yet: the file grows from `room`, and `finish` cuts it.
        about: what `describe` tells beside the key.
        rebuild: make a file anew, with a warning, whose key (but not its kind) differs.

    Raises FeatureFileError when the file cannot be used: the error says which part differs, and
    the file is left as it is. Damaged rows are named in a warning, and count as not there.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        dtype: Any,
        key: dict[str, str],
        rows: int | None = None,
        room: int = ROOM,
        about: dict[str, Any] | None = None,
        rebuild: bool = False,
    ):
        self.path, self.about = Path(path), about or {}
        self._width, self._dtype = width, np.dtype(dtype)
        self.key = {"format": FORMAT, **key, "D": str(width), "dtype": str(self._dtype)}
        self._file: Any = None  # open for writing, without a buffer
        self.path.parent.mkdir(parents=True, exist_ok=True)
        waiting = f"another process is writing {self.path}; waiting"
        with contextlib.ExitStack() as opened:
            opened.enter_context(locked(self.path, waiting))
            if self.path.exists():
                self._compare_key(rows, rebuild)
            if not self.path.exists():
                self._create(rows or room, growing=rows is None)
            self._open()
            opened.callback(lambda: self._file.close())
            self._verify()
            self._opened = opened.pop_all()

    def _compare_key(self, rows: int | None, rebuild: bool) -> None:
        """Remove the file that is there, or raise, if it has another key."""
        found = read_layout(self.path)
        names = {**self.key, **found.key}
        differs = [name for name in names if found.key.get(name) != self.key.get(name)]
        if not differs and rows is not None and not found.growing and rows != found.shape[0]:
            differs = [f"number of images ({found.shape[0]}, now {rows})"]
        if not differs:
            return
        what, other = f"{self.path} holds features of something else", ", ".join(differs)
        if not rebuild or differs[0] == "kind" or "format" in differs:
            raise FeatureFileError(f"{what}: other {other}. Delete it, or give another path.")
        warnings.warn(f"{what} (other {other}); it is made anew", UserWarning, stacklevel=5)
        self.path.unlink()

    def _create(self, rows: int, growing: bool) -> None:
        """A file of the full size, whole or not at all: empty, or with what the open one has."""
        import h5py

        with replacing(self.path) as part:
            # 'latest' has checksums in all of HDF5's own structures.
            with hdf5_file(part, libver="latest") as file:
                file.attrs["format"] = np.bytes_(FORMAT)
                # Of fixed length, else they lie in a heap, which has no checksum.
                file.attrs["key"] = np.bytes_(json.dumps(self.key))
                file.attrs["about"] = np.bytes_(json.dumps(self.about))
                file.attrs["growing"] = growing
                # Contiguous and allocated at once: rows have their place in the file from now on.
                settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
                settings.set_layout(h5py.h5d.CONTIGUOUS)
                settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                shapes = {b"F": (rows, self._width), b"images": (rows, SIZE), b"checksums": (rows,)}
                dtypes = self._dtype, np.dtype(np.uint8), np.dtype(np.uint64)
                for (label, shape), dtype in zip(shapes.items(), dtypes, strict=True):
                    kind, space = h5py.h5t.py_create(dtype), h5py.h5s.create_simple(shape)
                    h5py.h5d.create(file.id, label, kind, space, settings)
                file["checksums"][:] = 0
            if self._file is not None:
                places = read_layout(part).places
                with part.open("r+b") as target:
                    for name, place in places.items():
                        target.seek(place)
                        for first, last in self._layout.blocks(min(rows, self.rows)):
                            target.write(self._read(name, first, last).data)

    def _open(self) -> None:
        if self._file is not None:
            self._file.close()
        self._layout = read_layout(self.path)
        self.rows = self._layout.shape[0]  # for how many there is place
        self._file = self.path.open("r+b", buffering=0)

    def _verify(self) -> None:
        """Read everything, and find out which rows are there."""
        self.images = self._read("images", 0, self.rows).reshape(-1, SIZE)
        stored = self._read("checksums", 0, self.rows).view(np.uint64)
        self.there = np.zeros(self.rows, bool)
        for first, last in self._layout.blocks(self.rows):
            if stored[first:last].any():
                rows = self._read("F", first, last).reshape(last - first, -1)
                sums = self._checksums(first, rows, self.images[first:last])
                self.there[first:last] = sums == stored[first:last]
        if len(damaged := np.flatnonzero((stored != 0) & ~self.there)):
            shown = ", ".join(map(str, damaged[:5])) + (" ..." if len(damaged) > 5 else "")
            what = f"the checksums of {len(damaged)} of its rows do not fit (rows {shown})"
            text = f"{self.path} is damaged: {what}; they are computed again"
            warnings.warn(text, UserWarning, stacklevel=5)

    def _read(self, name: str, first: int, last: int) -> np.ndarray:
        """Bytes of rows; not through a memory map, whose pages would count as memory."""
        count = (last - first) * self._layout.size(name)
        found = np.fromfile(self.path, np.uint8, count, offset=self._layout.place(name, first))
        if len(found) < count:
            raise FeatureFileError(f"{self.path} is damaged: it ends too early; delete it")
        return found

    def _checksums(self, first: int, rows: np.ndarray, images: np.ndarray) -> np.ndarray:
        """(n,) uint64, never 0; of rows of bytes that begin at row `first`."""
        start = zlib.crc32(json.dumps(self.key).encode())
        heads = np.arange(first, first + len(rows), dtype="<u8")[:, np.newaxis]
        found = [
            zlib.crc32(row.data, zlib.crc32(image.data, zlib.crc32(head.data, start))) + 1
            for row, image, head in zip(rows, images, heads, strict=True)
        ]
        return np.array(found, np.uint64)

    def write(self, first: int, rows: np.ndarray, images: np.ndarray) -> None:
        """Put rows (n, D) and their images' digests at `first`: the checksums come last."""
        last = first + len(rows)
        if last > self.rows:
            self._resize(max(2 * self.rows, last), "more")
        data = np.ascontiguousarray(rows, self._layout.dtype).view(np.uint8)
        sums = self._checksums(first, data.reshape(len(rows), -1), images)
        for name, a in (("F", data), ("images", images), ("checksums", sums)):
            self._file.seek(self._layout.place(name, first))
            left = np.ascontiguousarray(a).data.cast("B")
            while left:
                left = left[self._file.write(left) :]
        self.images[first:last], self.there[first:last] = images, True

    def _resize(self, rows: int, now: Any, growing: bool = True) -> None:
        """Another number of rows is another file, to which the rows are copied."""
        if not self._layout.growing:
            what = f"{self.path} holds the features of {self.rows} images"
            raise FeatureFileError(f"{what}, and now there are {now}")
        self._create(rows, growing)
        self._open()
        more = (0, max(0, rows - len(self.there)))
        self.there = np.pad(self.there[:rows], more)
        self.images = np.pad(self.images[:rows], (more, (0, 0)))

    def finish(self, rows: int) -> None:
        """There are `rows` rows, and no more are to come."""
        if self._layout.growing or rows != self.rows:
            self._resize(rows, rows, growing=False)

    def mapped(self) -> np.ndarray:
        """F as a read-only array that the system reads from the file as it is used."""
        place, shape = self._layout.places["F"], self._layout.shape
        return np.memmap(self.path, self._layout.dtype, "r", offset=place, shape=shape)

    def __exit__(self, *_: Any) -> None:
        self._opened.close()


def is_feature_file(path: str | Path) -> bool:
    """Whether the file says of itself that it is one."""
    try:
        with open_regular(path) as source:
            return _attribute(hdf5_reader.File(source).root, "format") == FORMAT
    except hdf5_reader.Hdf5Error:
        return False


def _attribute(root: hdf5_reader.Object, name: str) -> Any:
    """The only value of an attribute, or None."""
    values = root.attributes.get(name)
    return values[0] if values is not None and values.size == 1 else None


def read_layout(path: str | Path) -> Layout:
    """What the file is, by its structure; raises FeatureFileError unless all of it is sound.

    The file may be a stranger's, so the HDF5 library, which trusts what it reads, is not shown it.
    """
    try:
        with open_regular(path) as source:
            if _attribute(hdf5_reader.File(source).root, "format") != FORMAT:
                what = f"{path} is not a feature file that this version of minitl has written"
                raise FeatureFileError(f"{what}; delete it, or give another path")
            root = hdf5_reader.File(source, checked=True).root
            sets = {name: root[name] for name in ("F", "images", "checksums")}
            shape, dtype = sets["F"].shape_and_dtype()
            key, about = (read_json(_attribute(root, name)) for name in ("key", "about"))
            growing = bool(_attribute(root, "growing"))
            places = {name: data.place() for name, data in sets.items()}
            fits = (
                len(shape) == 2
                and shape[1] > 0
                and dtype.str in ("<f4", "<f8")
                and sets["images"].shape_and_dtype() == ((shape[0], SIZE), np.uint8)
                and sets["checksums"].shape_and_dtype() == ((shape[0],), np.dtype("<u8"))
                and isinstance(key, dict)
                and isinstance(about, dict)
            )
        if not fits:
            raise ValueError("its data sets are not as they were written")
        return Layout(key, about, growing, shape, dtype, places)  # type: ignore[arg-type]
    except FeatureFileError:
        raise
    except (OSError, ValueError, TypeError, RecursionError) as error:
        what = f"{path} is not a feature file, or is damaged ({error})"
        raise FeatureFileError(f"{what}; delete it, or give another path") from None


def describe(path: str | Path) -> str:
    """What a feature file holds, as lines of text; raises FeatureFileError for another file."""
    layout = read_layout(path)
    n, d = layout.shape
    there = np.count_nonzero(np.fromfile(path, "<u8", n, offset=layout.places["checksums"]))
    state = f"{there} of {n} rows are there" if there < n else "complete"
    if layout.growing:
        state = f"{there} rows are there, more may come"
    lines = [f"F ({n}, {d}) {layout.dtype}, {n * layout.size('F') / 1e6:.1f} MB: {state}"]
    told = [*layout.about.items(), *layout.key.items()]
    lines += [f"{name}: {value}" for name, value in told if name not in ("D", "dtype")]
    return "\n".join(map(visible, lines))


guard(globals())
