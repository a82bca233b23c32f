"""Data sets by Keras's names: `(x_train, y_train), (x_test, y_test) = mnist.load_data()`.

Each reads the files that its makers publish, from a folder of the user's or from minitl's cache,
into which it downloads them where the network allows; `sources.py` says how. None needs pickle.
`imagenet` reads folders named by synsets; the solar cells come from a package (`minitl.data.elpv`).
"""

import sys

from minitl.datasets import mnist
from minitl.naming import attributes_of

__getattr__ = attributes_of(__name__, {"DataFileError": "minitl.datasets.sources"})
sys.modules[f"{__name__}.idx"] = mnist  # where scripts of November 2026 look for `read_idx`
