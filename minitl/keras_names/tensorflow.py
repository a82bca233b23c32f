"""TensorFlow's names that scripts for Keras use beside Keras's own: `import minitl as tf`.

`tf.keras` is minitl itself, `tf.data` has its data sets, `tf.nn` and `tf.math` stand here, and a
function is that of `minitl.ops`, by the other name if it has one. `tf.function` lets a function be
as it is, as everything is computed at once.
"""

import functools
import sys
from typing import Any

import numpy as np

from minitl import ops

keras, nn = sys.modules["minitl"], sys.modules[__name__]
math = linalg = experimental = image = nn
newaxis, AUTOTUNE = None, -1
float32, float64, int32, int64, uint8 = "float32", "float64", "int32", "int64", "uint8"
OF_OPS = {"concat": "concatenate", "constant": "convert_to_tensor", "pow": "power"}
REDUCING = "all any logsumexp max mean min prod std sum"
OF_OPS |= {f"reduce_{name}": name for name in REDUCING.split()}
cardinality = lambda dataset: dataset.cardinality()  # noqa: E731
function = lambda wrapped=None, **_: wrapped or (lambda each: each)  # noqa: E731


def clip_by_value(t: Any, clip_value_min: Any, clip_value_max: Any) -> Any:
    """`ops.clip`."""
    return ops.clip(t, clip_value_min, clip_value_max)


def l2_normalize(x: Any, axis: Any = None, epsilon: float = 1e-12) -> Any:
    """x / |x|."""
    squares = ops.sum(ops.square(x), axis=axis, keepdims=True)
    return x / ops.sqrt(ops.maximum(squares, epsilon))


def resize(images: Any, size: Any, method: str = "bilinear") -> Any:
    """`ops.image.resize`."""
    return ops.image.resize(images, size, method)


def add_n(inputs: Any) -> Any:
    """The sum of a list."""
    return functools.reduce(ops.add, inputs)


def l2_loss(t: Any) -> Any:
    """The sum of squares, halved."""
    return ops.sum(ops.square(t)) / 2


def clip_by_global_norm(t_list: Any, clip_norm: float) -> Any:
    """(gradients scaled so that their common norm is at most `clip_norm`, the norm before)."""
    norm = ops.sqrt(add_n([ops.sum(ops.square(t)) for t in t_list]))
    scale = clip_norm / ops.maximum(norm, clip_norm)
    return [t * scale for t in t_list], norm


def confusion_matrix(labels: Any, predictions: Any, num_classes: int | None = None) -> Any:
    """(m, m): how many of class i, the row, were told as class j."""
    places = np.asarray(labels), np.asarray(predictions)
    m = num_classes or int(max(places[0].max(), places[1].max())) + 1
    found = np.zeros((m, m), np.int32)
    np.add.at(found, places, 1)
    return ops.convert_to_tensor(found)


def __getattr__(name: str) -> Any:
    try:
        return getattr(ops, str(OF_OPS.get(name, name)))
    except AttributeError as error:
        text = f"of TensorFlow minitl has what scripts take beside Keras, not {name!r}"
        raise AttributeError(f"{text}: minitl.ops and NumPy compute") from error
