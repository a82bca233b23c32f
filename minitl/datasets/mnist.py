"""MNIST: 70,000 handwritten digits, 28 x 28, gray, white on black, in four files of the form IDX:

    0, 0, type, axes        one byte each; type 8 is uint8
    size of each axis       4 bytes each, the most significant first
    the numbers             in C order, the most significant byte first

LeCun, Bottou, Bengio & Haffner 1998, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11). The digits are NIST's; licence of the collection: CC BY-SA 3.0.
"""

import math
import os
from pathlib import Path

import numpy as np

from minitl.datasets.sources import DataFileError, Pair, Place, Source, opened, published
from minitl.naming import check_keywords
from minitl.storage.door import PIECE

TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
SOURCE = published("mnist")
CLASS_NAMES = SOURCE.classes


def load_data(path: Place = None) -> tuple[Pair, Pair]:
    """((x_train, y_train), (x_test, y_test)): x (N, 28, 28) uint8, 0-255; y (N,) uint8.

    N is 60,000 and 10,000. `path` is a folder with the four IDX files, packed (.gz) or not; when
    None they are taken from the cache folder, after a download (11 MB) where they are not there.

    Raises FetchError, with what to put where, without a network; DataFileError for damaged files.
    """
    return load_pairs(SOURCE, path)


@check_keywords
def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """The array in an IDX file, plain or in gzip (told by the contents, not by the name).

    What the header declares is held against the file's size before memory is taken.

    Raises DataFileError for a file that is truncated, too long, damaged, or of another kind.
    """
    path = Path(path)
    with opened(path) as (file, at_most):
        start = file.read(4)
        if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in TYPES:
            form = "two zeros, a type and the number of axes (b'\\x00\\x00\\x08\\x03' for images)"
            fault = f"is not an IDX file: it begins with {start!r}"
            raise DataFileError(f"{path} {fault}, expected {form}")
        dtype, axes = np.dtype(TYPES[start[2]]), start[3]
        sizes = file.read(4 * axes)
        if len(sizes) < 4 * axes:
            raise DataFileError(f"{path} is truncated: it ends within its header")
        shape = tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
        declared = math.prod(shape) * dtype.itemsize
        if declared > at_most:
            fault = "more than the file can hold (or is unpacked at once)"
            text = f"{path} declares {declared:,} bytes (shape {shape}), {fault}"
            raise DataFileError(f"{text}: it is truncated or damaged")
        array = np.empty(shape, dtype)
        numbers, found = array.reshape(-1).view(np.uint8), 0
        while found < declared and (piece := file.read(min(declared - found, PIECE))):
            numbers[found : found + len(piece)] = np.frombuffer(piece, np.uint8)
            found += len(piece)
        if found < declared:
            needs = f"shape {shape} needs {declared:,} bytes"
            raise DataFileError(f"{path} is truncated: {needs}, found {found:,}")
        if file.read(1):
            raise DataFileError(f"{path} is longer than its shape {shape} says")
    return array.astype(dtype.newbyteorder("="), copy=False)


def load_pairs(source: Source, path: Place) -> tuple[Pair, Pair]:
    """((x_train, y_train), (x_test, y_test)) of a data set in four files, as `fashion_mnist.py`."""
    folder = source.folder(path)
    found = {}
    for name in source.files:  # packed or not; some unpackers write 'train-images.idx3-ubyte'
        plain = name.removesuffix(".gz")
        choices = [folder / each for each in (name, plain, plain.replace("-idx", ".idx"))]
        found[name] = next(filter(Path.is_file, choices), choices[0])
    if lacking := [name for name, place in found.items() if not place.is_file()]:
        raise source.missing(folder, lacking)
    train_x, train_y, test_x, test_y = found.values()
    return _pair(train_x, train_y), _pair(test_x, test_y)


def _pair(images: Path, labels: Path) -> Pair:
    x, y = read_idx(images), read_idx(labels)
    if x.dtype != np.uint8 or x.shape[1:] != (28, 28):
        raise DataFileError(f"{images}: expected uint8 (N, 28, 28), found {x.dtype} {x.shape}")
    if y.dtype != np.uint8 or y.ndim != 1:
        raise DataFileError(f"{labels}: expected uint8 (N,), found {y.dtype} {y.shape}")
    if len(x) != len(y):
        raise DataFileError(f"{images} has {len(x):,} images, but {labels} {len(y):,} labels")
    if y.size and y.max() > 9:
        raise DataFileError(f"{labels}: expected labels 0 to 9, found {y.max()}")
    return x, y
