"""CIFAR-100: 60,000 photographs as CIFAR-10's, in 100 classes of 20 kinds. See `cifar10.py`."""

from minitl.data.images import check_choice
from minitl.datasets.cifar10 import load_pairs
from minitl.datasets.sources import Pair, Place, published

SOURCE = published("cifar-100")
COARSE_NAMES, CLASS_NAMES = SOURCE.kinds, SOURCE.classes


def load_data(label_mode: str = "fine", path: Place = None) -> tuple[Pair, Pair]:
    """((x_train, y_train), (x_test, y_test)), as `cifar10.load_data`.

    `label_mode` is 'fine' (the 100 CLASS_NAMES) or 'coarse' (the 20 COARSE_NAMES).
    """
    check_choice("label_mode", label_mode, ("fine", "coarse"))
    column = slice(0, 1) if label_mode == "coarse" else slice(1, 2)
    files = ("train.bin", "test.bin")
    train, test = load_pairs(SOURCE, path, "cifar-100-binary", files, labels=[20, 100])
    return (train[0], train[1][:, column].copy()), (test[0], test[1][:, column].copy())
