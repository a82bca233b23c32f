"""Features on disk: written as they are computed, resumed after an interruption, never stale.

A feature file is HDF5 with one data set `F` (N, D) and one number for each batch of rows: its
checksum, or 0 while it is not there yet. The place of every row is fixed when the file is made,
so writing a batch changes nothing else, and a process killed at any moment leaves a file in which
every batch is either there, with the right checksum, or not there.

The file holds a key that says what it was computed from: digests of the weights, of the
architecture, of the images and of the preprocessing. A file with another key is not used.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minitl.files import array_digest, locked, replacing
from minitl.models import Model

FORMAT = "minitl features 1"


def feature_key(
    model: Model, images: Any, preprocess: Callable[..., Any] | None, batch_size: int
) -> dict[str, str]:
    """What features depend on, as digests, each under a name that an error can show."""
    weights = hashlib.sha256()
    for variable in model.weights:
        weights.update(array_digest(variable.storage).encode())
    return {
        "format": FORMAT,
        "architecture": hashlib.sha256(model.to_json().encode()).hexdigest(),
        "weights": weights.hexdigest(),
        "images": _images_digest(np.asarray(images)),
        "preprocessing": _function_digest(preprocess),
        "dtype": model.dtype,
        "batch size": str(batch_size),
    }


def _images_digest(images: np.ndarray) -> str:
    digest = hashlib.sha256(f"{images.shape} {images.dtype.str}".encode())
    for image in images:
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _function_digest(function: Callable[..., Any] | None) -> str:
    """The name of a function, and a digest of its code, so that an edited one is another one."""
    if function is None:
        return "none"
    code = getattr(function, "__code__", None)
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', function)}"
    if code is None:
        return name
    text = repr(
        (
            code.co_code,
            [c for c in code.co_consts if not hasattr(c, "co_code")],
            code.co_names,
            getattr(function, "__defaults__", None),
        )
    )
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


class FeatureFile:
    """F (N, D) in a file, filled a batch of rows at a time.

    Args:
        path: made if it is not there, taken up if its key is the same.
        shape: (N, D).
        key: see `feature_key`.
        batch_size: rows written at a time.

    Raises ValueError when the file is none of minitl's, or was made from something else: the
    error says which part differs, and the file is left as it is.
    """

    def __init__(
        self, path: str | Path, shape: tuple[int, int], key: dict[str, str], batch_size: int
    ):
        import h5py

        self.path = Path(path)
        self.shape, self.batch_size = shape, batch_size
        self._file: Any = None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = locked(self.path, f"minitl: another process is writing {self.path}; waiting")
        self._lock.__enter__()
        try:
            if not self.path.exists():
                self._create(h5py, key)
            self._file = self._reopen(h5py, key)
        except BaseException:
            self.close()
            raise

    def _create(self, h5py: Any, key: dict[str, str]) -> None:
        """An empty file of the full size, whole or not at all."""
        with replacing(self.path) as part, h5py.File(part, "w", libver="latest") as file:
            file.attrs["format"] = FORMAT
            file.attrs["key"] = json.dumps(key)
            # Contiguous and allocated at once: rows have their place in the file from now on.
            settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            settings.set_layout(h5py.h5d.CONTIGUOUS)
            settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            dtype = h5py.h5t.py_create(np.dtype(key["dtype"]))
            space = h5py.h5s.create_simple(self.shape)
            h5py.h5d.create(file.id, b"F", dtype, space, settings)
            file.create_dataset("checksums", data=np.zeros(self.batches, np.uint64))

    def _reopen(self, h5py: Any, key: dict[str, str]) -> Any:
        try:
            file = h5py.File(self.path, "r+")
            found = json.loads(file.attrs["key"])
            fits = file["F"].shape == self.shape and file["checksums"].shape == (self.batches,)
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"{self.path} is not a feature file, or is damaged ({error}); delete it, or give "
                f"another path"
            ) from None
        differs = [name for name in key if found.get(name) != key[name]]
        if differs or not fits:
            file.close()
            raise ValueError(
                f"{self.path} holds features of something else: other {', '.join(differs)}. "
                f"Delete it, or give another path."
            )
        return file

    @property
    def batches(self) -> int:
        return -(-self.shape[0] // self.batch_size)

    def _rows(self, i: int) -> slice:
        return slice(i * self.batch_size, min((i + 1) * self.batch_size, self.shape[0]))

    def has(self, i: int) -> bool:
        """Whether batch i is there, and its rows are those that were written."""
        stored = int(self._file["checksums"][i])
        return stored != 0 and stored == _checksum(self._file["F"][self._rows(i)])

    def write(self, i: int, rows: np.ndarray) -> None:
        """Put the rows of batch i into the file: first the rows, then the mark that they are."""
        self._file["F"][self._rows(i)] = rows
        self._file.flush()
        self._file["checksums"][i] = _checksum(rows)
        self._file.flush()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lock is not None:
            self._lock.__exit__(None, None, None)
            self._lock = None  # type: ignore[assignment]

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def mapped(self) -> np.ndarray:
        """F as a read-only array that the system reads from the file as it is used."""
        where = self._file["F"].id.get_offset()
        dtype = self._file["F"].dtype
        return np.memmap(self.path, dtype, "r", offset=where, shape=self.shape)


def _checksum(rows: np.ndarray) -> int:
    """Never 0, which means 'not there yet'."""
    return zlib.crc32(np.ascontiguousarray(rows).data) + 1
