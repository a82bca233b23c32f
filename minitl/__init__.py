"""minitl: transfer learning small enough to read whole and good enough to use.

The names are Keras's: `import minitl as keras`, and a Keras script runs. The files of `spine.txt`,
in that order, do the main job alone: VGG16's weights from HDF5, F of the frozen base, the softmax
head, block5 unfrozen. Everything else stands around them and is imported when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from minitl import (
    applications,
    autograd,
    config,
    initializers,
    kernels,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    regularizers,
)
from minitl.autograd import Tensor, Variable, backward, no_grad
from minitl.kernels import use_kernels
from minitl.layers import Input, Layer
from minitl.models import Model
from minitl.models.training import TrainingDiverged
from minitl.naming import attributes_of

if TYPE_CHECKING:
    from minitl import activations as activations
    from minitl import callbacks as callbacks
    from minitl import data as data
    from minitl import datasets as datasets
    from minitl import judging as judging
    from minitl import transfer as transfer
    from minitl import utils as utils
    from minitl.judging.gradients import check_gradients as check_gradients
    from minitl.judging.gradients import print_graph as print_graph
    from minitl.models.sequential import Sequential as Sequential
    from minitl.transfer.features import extract_features as extract_features

__version__ = "0.1.0"

# Modules of the package that are not imported above are found in the same way.
__getattr__ = attributes_of(
    __name__,
    {
        "Sequential": "minitl.models.sequential",
        "check_gradients": "minitl.judging.gradients",
        "extract_features": "minitl.transfer.features",
        "print_graph": "minitl.judging.gradients",
    },
)
