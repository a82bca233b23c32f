"""Fashion-MNIST: 70,000 articles of clothing, in MNIST's form and files (see `mnist.py`).

Xiao, Rasul & Vollgraf 2017 (arXiv 1708.07747); MIT licence, Zalando SE.
"""

from minitl.datasets.mnist import load_pairs
from minitl.datasets.sources import Pair, Place, Source

_NAMES = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
CLASS_NAMES = tuple(_NAMES.split(","))
SOURCE = Source(
    "fashion-mnist",
    "Fashion-MNIST",
    ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
)


def load_data(path: Place = None) -> tuple[Pair, Pair]:
    """((x_train, y_train), (x_test, y_test)), as `mnist.load_data` (30 MB)."""
    return load_pairs(SOURCE, path)
