"""minitl: transfer learning small enough to read whole and good enough to use.

The names are Keras's: `import minitl as keras`, and a Keras script runs. Start reading at
`autograd.py` and go up: `ops.py`, `layers/`, `models.py`, `training.py`, `applications/`.
"""

from minitl import (
    activations,
    applications,
    autograd,
    callbacks,
    config,
    data,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    regularizers,
    utils,
)
from minitl.autograd import Tensor, Variable, backward, no_grad, print_graph
from minitl.judging.gradients import check_gradients
from minitl.kernels import use_kernels
from minitl.layers import Input, Layer
from minitl.models import Model, Sequential
from minitl.models.training import TrainingDiverged
from minitl.transfer.features import extract_features

__version__ = "0.1.0"

__all__ = [
    "Input",
    "Layer",
    "Model",
    "Sequential",
    "Tensor",
    "TrainingDiverged",
    "Variable",
    "activations",
    "applications",
    "autograd",
    "backward",
    "callbacks",
    "check_gradients",
    "config",
    "data",
    "datasets",
    "extract_features",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "no_grad",
    "ops",
    "optimizers",
    "print_graph",
    "regularizers",
    "use_kernels",
    "utils",
]
