"""Layers, by Keras's names.

Here are those that VGG16 and its head are made of. Any other, `minitl.layers.Dropout`, say, is
found in the files of this folder when it is first asked for: a class that one of them defines is a
layer of this package without being listed anywhere. Read `base.py`, `core.py`, `convolution.py`.
"""

from typing import TYPE_CHECKING

from minitl.layers.base import Layer, SymbolicTensor
from minitl.layers.convolution import Conv2D, MaxPool2D, MaxPooling2D
from minitl.layers.core import Dense, Flatten, Input, InputLayer
from minitl.naming import attributes_of

if TYPE_CHECKING:
    from minitl.layers.activation import *
    from minitl.layers.augmentation import *
    from minitl.layers.merging import *
    from minitl.layers.normalization import *
    from minitl.layers.pooling import *
    from minitl.layers.preprocessing import *
    from minitl.layers.regularization import *
    from minitl.layers.reshaping import *
    from minitl.layers.separable import *
    from minitl.layers.sequences.masking import *
    from minitl.layers.sequences.recurrent import *
    from minitl.layers.sequences.wrappers import *

__getattr__ = attributes_of(__name__)
