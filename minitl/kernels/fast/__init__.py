"""The fast twins of the formulas: importing this package imports all its files, and so all twins.

Which algorithm a convolution takes is decided in `convolution.py`. What all of them are made with
(threads, vectors, memory) stands in `minitl/kernels/machine`.
"""

import importlib
import pkgutil

from minitl.kernels.machine.compiling import announce

announce()
for _file in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_file.name)
