"""`minitl.utils`: what scripts take from `keras.utils`, with Keras's names, arguments and results.

Images and folders of images are read in `data/`; the seed of all randomness is kept in `config.py`.
"""

import random
from typing import Annotated, Any, Literal

import numpy as np

from minitl import config
from minitl.autograd import Tensor
from minitl.data.folder import image_dataset_from_directory
from minitl.data.images import array_to_img, img_to_array, load_img, save_img
from minitl.data.pipeline import PyDataset
from minitl.kernels.machine import memory
from minitl.models.arguments import guard
from minitl.naming import Count, attributes_of, forget_names
from minitl.storage.settings import (
    custom_object_scope,
    get_custom_objects,
    register_keras_serializable,
)

__getattr__ = attributes_of(__name__)

__all__ = ["PyDataset", "Sequence", "array_to_img", "clear_session", "custom_object_scope"]
__all__ += ["get_custom_objects", "image_dataset_from_directory", "img_to_array", "load_img"]
__all__ += ["normalize", "pad_sequences", "register_keras_serializable", "save_img"]
__all__ += ["set_random_seed", "to_categorical"]
Sequence = PyDataset  # Keras 2's name


def set_random_seed(seed: int) -> None:
    """Make everything that follows reproducible: initial weights, shuffling, dropout.

    Python's and NumPy's own generators are seeded as well, as in Keras; minitl does not use them.
    """
    config.set_random_seed(seed)
    random.seed(int(seed))
    np.random.seed(int(seed) % 2**32)


def clear_session(free_memory: bool = True) -> None:
    """Count layers' automatic names from the beginning again: 'dense', 'dense_1' ...

    `free_memory` gives back to the system what kernels keep for the next call
    (`kernels/machine/memory.py`).
    """
    forget_names()
    if free_memory:
        memory.release()


def to_categorical(x: Any, num_classes: Count | None = None) -> Any:
    """Turn integer labels (...) into one-hot vectors (..., m), float64.

    m is `num_classes`, or the largest label + 1. A last axis of 1 is dropped: (N, 1) gives (N, m).

    >>> to_categorical([0, 2, 1]).tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]

    Raises ValueError for labels that are not integers, are negative, or do not fit into
    `num_classes`, and for an empty array without `num_classes`.
    """
    given = np.asarray(x)
    if given.dtype.kind not in "biuf":
        raise ValueError(f"labels must be integers, got {given.dtype}")
    with np.errstate(invalid="ignore"):  # NaN is found by the next line
        labels = given.astype(np.int64)
    if not np.array_equal(labels, given):
        raise ValueError("labels must be whole numbers, got fractions or NaN")
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    if labels.size == 0 and num_classes is None:
        raise ValueError("no labels: give num_classes")
    classes = int(labels.max()) + 1 if num_classes is None else int(num_classes)
    if labels.size and not (labels.min() >= 0 and labels.max() < classes):
        wanted = f"0 to {classes - 1} for {classes} classes"
        raise ValueError(f"labels must be {wanted}, got {labels.min()} to {labels.max()}")
    one_hot = np.zeros((*labels.shape, classes))
    np.put_along_axis(one_hot, labels[..., np.newaxis], 1, axis=-1)
    return Tensor(one_hot) if isinstance(x, Tensor) else one_hot


def pad_sequences(
    sequences: Any,
    maxlen: Count | None = None,
    dtype: Any = "int32",
    padding: Literal["pre", "post"] = "pre",
    truncating: Literal["pre", "post"] = "pre",
    value: Any = 0.0,
) -> np.ndarray:
    """Sequences as rows of one length, `maxlen` or the longest's: cut, or filled with `value`, at
    the beginning ('pre') or the end.

    >>> pad_sequences([[1, 2], [3]]).tolist()
    [[1, 2], [0, 3]]
    """
    rows = [np.asarray(row) for row in sequences]
    length = max(map(len, rows)) if maxlen is None else maxlen
    rest = next((row.shape[1:] for row in rows if len(row)), ())
    found = np.full((len(rows), length, *rest), value, dtype)
    for place, row in zip(found, rows, strict=True):
        cut = row[-length:] if truncating == "pre" else row[:length]
        first = length - len(cut) if padding == "pre" else 0
        place[first : first + len(cut)] = cut if len(cut) else value
    return found


def normalize(x: Any, axis: int = -1, order: Annotated[float, "a number"] = 2) -> Any:
    """Divide by the norm of the given `order` along `axis`; vectors of zeros stay zeros.

    >>> normalize([[3.0, 4.0], [0.0, 0.0]]).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    given, x = x, np.asarray(x)
    norm = np.linalg.norm(x, order, axis, keepdims=True)
    found = x / np.where(norm == 0, 1, norm)
    return Tensor(found) if isinstance(given, Tensor) else found


guard(globals())
