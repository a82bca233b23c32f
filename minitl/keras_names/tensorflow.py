"""TensorFlow's names that scripts for Keras use beside Keras's own: `import minitl as tf`.

`tf.keras` is minitl itself, `tf.data` has its data sets, `tf.nn` and `tf.math` stand here, and a
function is that of `minitl.ops`, by the other name if it has one. `tf.function` lets a function be
as it is, as everything is computed at once.
"""

import sys
from typing import Any

from minitl import ops

keras, nn = sys.modules["minitl"], sys.modules[__name__]
math = linalg = experimental = nn
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


__getattr__ = lambda name: getattr(ops, str(OF_OPS.get(name, name)))  # noqa: E731
