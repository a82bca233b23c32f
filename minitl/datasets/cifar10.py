"""CIFAR-10: 60,000 colour photographs of 32 x 32 pixels in ten classes. See `cifar.py`."""

from minitl.datasets.cifar import load_pairs
from minitl.datasets.sources import Pair, Place, Source

_NAMES = "airplane automobile bird cat deer dog frog horse ship truck"
CLASS_NAMES = tuple(_NAMES.split())
SOURCE = Source(
    "cifar-10",
    "CIFAR-10 (binary version)",
    ("https://www.cs.toronto.edu/~kriz/",),
    {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
)
FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")


def load_data(path: Place = None) -> tuple[Pair, Pair]:
    """((x_train, y_train), (x_test, y_test)): x (N, 32, 32, 3) uint8, RGB; y (N, 1) uint8.

    N is 50,000 and 10,000. `path` is the archive, or a folder with it or with the unpacked files;
    when None the archive is taken from the cache folder, after a download (170 MB).

    Raises FetchError where there is no network, with what to put where; DataFileError for a
    damaged file.
    """
    return load_pairs(SOURCE, path, "cifar-10-batches-bin", FILES, labels=[10])
