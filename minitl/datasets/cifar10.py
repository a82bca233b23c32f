"""CIFAR-10: 60,000 colour photographs of 32 x 32 pixels in ten classes. See `cifar.py`."""

from __future__ import annotations

import os

import numpy as np

from minitl.datasets.cifar import load_records
from minitl.datasets.sources import Original, Source

CLASS_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SOURCE = Source(
    "cifar-10",
    "CIFAR-10 (binary version)",
    ("https://www.cs.toronto.edu/~kriz/",),
    (Original("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),),
)
FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")

Pair = tuple[np.ndarray, np.ndarray]


def load_data(path: str | os.PathLike[str] | None = None) -> tuple[Pair, Pair]:
    """((x_train, y_train), (x_test, y_test)): x (N, 32, 32, 3) uint8, RGB; y (N, 1) uint8.

    N is 50,000 and 10,000. `path` is the archive, or a folder with it or with the unpacked files;
    when None the archive is taken from the cache folder, after a download (170 MB).

    Raises FetchError where there is no network, with what to put where; DataFileError for a
    damaged file.
    """
    *train, test = load_records(SOURCE, path, "cifar-10-batches-bin", FILES, labels=[10])
    x, y = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return (x, y), test
