"""Data: images and folders of images, augmented views of them, data sets, and how to split rows.

Files come in, arrays (N, H, W, C) and labels (N,) go out, ready for `fit` and `extract_features`.
For people's own pictures, `found` finds them in a folder or a table, `pictures` reads them as one
array, and `door` is where a file comes in. For scripts of Keras, `images` reads and resizes single
images and `folder` a folder with one sub-folder per class. Beside them,
`augmentation` makes random views of arrays, `splits` divides rows into parts, and `elpv` is a
data set of solar cells. Published data sets by Keras's names are in `minitl.datasets`.
"""

from typing import TYPE_CHECKING

from minitl.naming import attributes_of

if TYPE_CHECKING:
    from minitl.data.augmentation import *
    from minitl.data.folder import *
    from minitl.data.found import *
    from minitl.data.images import *
    from minitl.data.pictures import *

__getattr__ = attributes_of(__name__)
