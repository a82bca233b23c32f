"""Fashion-MNIST: 70,000 articles of clothing, in MNIST's form and files (see `mnist.py`).

Xiao, Rasul & Vollgraf 2017 (arXiv 1708.07747); MIT licence, Zalando SE.
"""

from minitl.datasets.mnist import load_pairs
from minitl.datasets.sources import Pair, Place, published

SOURCE = published("fashion-mnist")
CLASS_NAMES = SOURCE.classes


def load_data(path: Place = None) -> tuple[Pair, Pair]:
    """((x_train, y_train), (x_test, y_test)), as `mnist.load_data` (30 MB)."""
    return load_pairs(SOURCE, path)
