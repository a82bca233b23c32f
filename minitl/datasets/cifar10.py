"""CIFAR-10: 60,000 colour photographs of 32 x 32 pixels in ten classes, in their binary version.

A file is records, each the label (CIFAR-100: coarse, then fine) in one byte, and 32 x 32 pixels,
all red ones first, then all green, then all blue, row by row. The files are read out of the
published archive, or from a folder into which it was unpacked; none is made with pickle.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images".
"""

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl.datasets.sources import DataFileError, Pair, Place, Source, opened, published
from minitl.storage.door import SPARE, open_regular

PIXELS = 3 * 32 * 32
MOST_RECORDS = 60_000  # in a file: so many images are in a whole data set
MOST_MEMBERS = 1000  # of an archive
SOURCE = published("cifar-10")
CLASS_NAMES = SOURCE.classes
FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")


def load_data(path: Place = None) -> tuple[Pair, Pair]:
    """((x_train, y_train), (x_test, y_test)): x (N, 32, 32, 3) uint8, RGB; y (N, 1) uint8.

    N is 50,000 and 10,000. `path` is the archive, or a folder with it or with the unpacked files;
    when None the archive is taken from the cache folder, after a download (170 MB).

    Raises FetchError, with what to put where, without a network; DataFileError for damaged files.
    """
    return load_pairs(SOURCE, path, "cifar-10-batches-bin", FILES, labels=[10])


def load_pairs(
    source: Source, path: Place, inside: str, files: Sequence[str], labels: Sequence[int]
) -> tuple[Pair, Pair]:
    """((x_train, y_train), (x_test, y_test)): x (N, 32, 32, 3) uint8, y (N, len(labels)) uint8.

    `inside` is the folder in the archive; the last of the `files` is the test; `labels` are the
    numbers of classes of each label byte.
    """
    place = _find(source, path, inside, files)
    found: dict[str, Pair] = {}
    if place.is_dir():
        for name in files:
            with open_regular(place / name) as file:
                size = os.fstat(file.fileno()).st_size
                found[name] = _read(file, size, labels, str(place / name))
    else:
        _read_archive(place, files, labels, found)
    *train, test = (found[name] for name in files)
    x, y = map(np.concatenate, zip(*train, strict=True)) if len(train) > 1 else train[0]
    return (x, y), test


def _find(source: Source, path: Place, inside: str, files: Sequence[str]) -> Path:
    """The archive, or the folder with the unpacked files."""
    if path is not None and Path(path).is_file():
        return Path(path)
    folder = source.folder(path)
    for place in (folder, folder / inside):
        if all((place / name).is_file() for name in files):
            return place
    archive = folder / next(iter(source.files))
    if archive.is_file():
        return archive
    raise source.missing(folder, [*files, f"(or {archive.name})"])


def _read_archive(
    archive: Path, files: Sequence[str], labels: Sequence[int], found: dict[str, Pair]
) -> None:
    """Put the files' images and labels into `found`, by name, wherever in the archive they are."""
    with (
        opened(archive, SPARE // 2) as (stream, _),
        tarfile.open(fileobj=stream, mode="r:") as members,
    ):
        for number, member in enumerate(members):
            if number == MOST_MEMBERS:
                raise DataFileError(f"{archive} holds more than {MOST_MEMBERS} files")
            name = member.name.rpartition("/")[2]
            if name not in files or not member.isreg() or name in found:
                continue
            file = members.extractfile(member)
            assert file is not None  # a regular file has contents
            found[name] = _read(file, member.size, labels, f"{member.name} in {archive}")
        while stream.read(1 << 20):  # to the end, where the checksum stands
            pass
    if lacking := [name for name in files if name not in found]:
        raise DataFileError(f"{archive} does not hold {', '.join(lacking)}")


def _read(file: Any, size: int, labels: Sequence[int], where: str) -> Pair:
    """(x, y) of a file's records, some at a time. Raises DataFileError for a size that is not that
    of some records, and for labels that are none."""
    record = PIXELS + len(labels)
    if size > MOST_RECORDS * record:
        fault = f", more than {MOST_RECORDS:,} records of {record:,}: it is damaged"
        raise DataFileError(f"{where} has {size:,} bytes{fault}, or of another kind")
    if size == 0 or size % record:
        fault = f"; expected a multiple of {record:,}, the size of a record: it is truncated"
        raise DataFileError(f"{where} has {size:,} bytes{fault}, or of another kind")
    count = size // record
    x, y = np.empty((count, 32, 32, 3), np.uint8), np.empty((count, len(labels)), np.uint8)
    for first in range(0, count, 1000):
        rows = slice(first, min(first + 1000, count))
        raw = file.read((rows.stop - first) * record)
        if len(raw) < (rows.stop - first) * record:
            raise DataFileError(f"{where} is truncated; copy or download it again")
        records = np.frombuffer(raw, np.uint8).reshape(-1, record)
        y[rows] = records[:, : len(labels)]
        planes = records[:, len(labels) :].reshape(-1, 3, 32, 32)
        x[rows] = planes.transpose(0, 2, 3, 1)
    for classes, highest in zip(labels, y.max(axis=0), strict=True):
        if highest >= classes:
            wrong = f"{where}: expected labels 0 to {classes - 1}, found {highest}"
            raise DataFileError(f"{wrong}: it is damaged, or of another kind")
    return x, y
