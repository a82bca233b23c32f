"""minitl: transfer learning small enough to read whole and good enough to use.

The names are Keras's: `import minitl as keras`, and a Keras script runs. The files of `spine.txt`,
in that order, do the main job alone: VGG16's weights from HDF5, F of the frozen base, the softmax
head, block5 unfrozen. Everything else stands around them and is imported when it is asked for.
"""

from minitl import applications, autograd, config, initializers, kernels, layers, losses

# isort: split
from minitl import metrics, models, ops, optimizers
from minitl.autograd import Tensor, Variable, backward, no_grad
from minitl.kernels import use_kernels
from minitl.layers import Input, Layer
from minitl.models import Model
from minitl.models.training import TrainingDiverged
from minitl.naming import attributes_of

__version__ = "0.1.0"
__path__.append(f"{__path__[0]}/keras_names/modules")  # `minitl.random`, `minitl.saving`

config.__getattr__ = attributes_of("minitl.config")  # type: ignore[method-assign]
# Modules of the package that are not imported above are found in the same way.
__getattr__ = attributes_of(
    __name__,
    {
        "GradientTape": "minitl.models.steps",
        "Sequential": "minitl.models.sequential",
        "check_gradients": "minitl.judging.gradients",
        "evaluation": "minitl.judging",
        "extract_features": "minitl.transfer.features",
        "plots": "minitl.judging",
        "print_graph": "minitl.judging.gradients",
    },
)
