"""MNIST: 70,000 handwritten digits, 28 x 28, gray, white on black.

LeCun, Bottou, Bengio & Haffner 1998, "Gradient-Based Learning Applied to Document Recognition",
Proceedings of the IEEE 86(11). The digits are NIST's; licence of the collection: CC BY-SA 3.0.
The files are read by `idx.py`.
"""

from minitl.datasets.idx import load_pairs
from minitl.datasets.sources import Pair, Place, Source

CLASS_NAMES = tuple("0123456789")
SOURCE = Source(
    "mnist",
    "MNIST",
    (
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
)


def load_data(path: Place = None) -> tuple[Pair, Pair]:
    """((x_train, y_train), (x_test, y_test)): x (N, 28, 28) uint8, 0-255; y (N,) uint8.

    N is 60,000 and 10,000. `path` is a folder with the four IDX files, packed (.gz) or not; when
    None they are taken from the cache folder, after a download (11 MB) where they are not there.

    Raises FetchError where there is no network, with what to put where; DataFileError for a
    damaged file.
    """
    return load_pairs(SOURCE, path, classes=10)
