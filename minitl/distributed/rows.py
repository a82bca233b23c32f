"""F in parts: a folder of feature files of equally many rows, seen as one array.

`part-000000.h5` has the first rows, and so on; each is a feature file (`transfer/feature_file.py`),
whole or not there, with a key of its own that names the model, the preprocessing and the images.
Row n is image n. A picture that cannot be read has a row of NaN, and the file says what is wrong.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minitl.storage.atomic import replacing
from minitl.transfer.feature_file import FeatureFile, FeatureFileError, read_layout

OPEN = 64  # parts that are mapped at a time
TEXT = 200  # characters of what is wrong with a picture


class Part(NamedTuple):
    """What a worker made of some images: F (n, D), digests (n, 16), and by place what is wrong."""

    rows: np.ndarray
    digests: np.ndarray
    faults: dict[int, str]


def read_part(path: str) -> np.ndarray:
    """F (n, D) of a part, as a map."""
    layout = read_layout(path)
    return np.memmap(path, layout.dtype, "r", offset=layout.places["F"], shape=layout.shape)


def write_part(path: Path, key: dict[str, str], part: Part, about: dict[str, Any]) -> None:
    """A part's file: whole, or not at all."""
    n, width = part.rows.shape
    about = about | {"faults": {str(i): text[:TEXT] for i, text in part.faults.items()}}
    with replacing(path) as new:
        try:
            with FeatureFile(new, width, part.rows.dtype, key, n, about=about) as file:
                file.write(0, part.rows, part.digests)
        finally:
            new.with_name(f".{new.name}.lock").unlink(missing_ok=True)


def is_there(path: Path, key: dict[str, str], rows: int) -> bool:
    """Whether the part's file is there and sound. Raises FeatureFileError where it is another's."""
    if not path.exists():
        return False
    layout = read_layout(path)
    with FeatureFile(path, layout.shape[1], layout.dtype, key, rows) as file:
        sound = bool(file.there.all())
    path.with_name(f".{path.name}.lock").unlink(missing_ok=True)
    return sound


class Rows:
    """F (N, D) of a folder of parts, read when it is used: `rows[:32]`, `rows[[5, 1]]`, `rows[-1]`.

    `fit(rows, y)` takes it as it is, and does to the bit what it does with an array. `faults` says
    which images could not be read, and `kept` (N',) which could. `dask()` gives a Dask array.

    Raises FeatureFileError for a folder without parts, or one in which some are missing.
    """

    ndim = 2

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._maps: dict[int, np.ndarray] = {}
        self.chosen: Any = None  # which of the folder's rows; None: all
        self.paths = sorted(map(str, self.folder.glob("part-*.h5")))
        if self.paths != [str(part_path(self.folder, i)) for i in range(len(self.paths))]:
            raise FeatureFileError(f"parts of {self.folder} are missing: extract them again")
        if not self.paths:
            raise FeatureFileError(f"{self.folder} has no parts (part-000000.h5, ...) of F")
        first, last = self._map(0), self._map(len(self.paths) - 1)
        self.dtype, (self.size, width) = first.dtype, first.shape
        self.shape = ((len(self.paths) - 1) * self.size + len(last), width)

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, rows: Any) -> Rows:
        """The same with these rows only, (N',) integers or booleans: `rows.part(rows.kept)`."""
        part = copy.copy(self)
        part.chosen = np.arange(len(self)) if self.chosen is None else self.chosen
        part.chosen = part.chosen[rows]
        part.shape = (len(part.chosen), self.shape[1])
        return part

    def __getitem__(self, where: Any) -> np.ndarray:
        n = len(self)
        if isinstance(where, slice):
            rows = np.arange(*where.indices(n))
        else:
            rows = np.asarray(where)
            rows = np.flatnonzero(rows) if rows.dtype == bool else rows + n * (rows < 0)
        if rows.size and not (rows.min() >= 0 and rows.max() < n):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {n}")
        rows = rows if self.chosen is None else self.chosen[rows]
        found = np.empty((rows.size, self.shape[1]), self.dtype)
        parts = rows.ravel() // self.size
        for part in np.unique(parts):
            here = parts == part
            found[here] = self._map(part)[rows.ravel()[here] - part * self.size]
        return found.reshape(*rows.shape, self.shape[1])

    def _map(self, number: int) -> np.ndarray:
        if number not in self._maps:
            if len(self._maps) >= OPEN:
                self._maps.clear()
            self._maps[number] = read_part(self.paths[number])
        return self._maps[number]

    @functools.cached_property
    def faults(self) -> dict[int, str]:
        """What is wrong with the images that could not be read, by their numbers."""
        found: dict[int, str] = {}
        for i, path in enumerate(self.paths):
            told = read_layout(path).about.get("faults", {})
            found |= {i * self.size + int(place): text for place, text in told.items()}
        return found

    @property
    def kept(self) -> np.ndarray:
        """(N',) the numbers of the images that could be read."""
        numbers = np.arange(len(self)) if self.chosen is None else self.chosen
        return np.flatnonzero(~np.isin(numbers, list(self.faults)))

    def save(self, path: str | Path) -> None:
        """All rows of images that could be read as one feature file, as `extract_features` of one
        process writes it, with the same key."""
        layout = read_layout(self.paths[0])
        own = ("format", "D", "dtype", "rows", "images")
        key = {name: value for name, value in layout.key.items() if name not in own}
        with FeatureFile(path, self.shape[1], self.dtype, key, len(self.kept)) as whole:
            at = 0
            for i, name in enumerate(self.paths):
                here = self.kept[self.kept // self.size == i] - i * self.size
                layout = read_layout(name)
                with FeatureFile(name, layout.shape[1], layout.dtype, layout.key) as part:
                    whole.write(at, self._map(i)[here], part.images[here])
                at += len(here)

    def dask(self) -> Any:
        """F as a Dask array (N, D), one chunk per part; the workers must see the folder."""
        import dask
        import dask.array as da

        read = dask.delayed(read_part, pure=True)
        shapes = [read_part(path).shape for path in self.paths]
        pairs = zip(self.paths, shapes, strict=True)
        whole = da.concatenate([da.from_delayed(read(p), s, self.dtype) for p, s in pairs])
        return whole if self.chosen is None else whole[self.chosen]


def part_path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.h5"
