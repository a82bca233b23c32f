"""Settings that cannot work: a warning says so, as nothing else will.

A softmax over one number is always 1, labels in order leave classes out of what is trained, and a
network that is measured on what it learned from looks better than it is.
"""

import warnings
from typing import Any

import numpy as np

from minitl import activations, losses
from minitl.models.batches import ArrayData, is_stream
from minitl.models.prediction import source_of

AT_MOST = 200_000  # numbers that are compared between two sets: enough to see that they are one


def warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=4)


def nothing_learns(model: Any) -> None:
    """Warn of a `fit` in which nothing can change."""
    if not model.own_steps:
        warn(f"{model.name!r} has no trainable weights: fit only measures. Is everything frozen?")


def look_at_outputs(model: Any) -> None:
    """Warn of an output of one number that learns nothing, after `compile`."""
    for tensor, loss in zip(model.outputs, model.compiled.losses, strict=True):
        if tensor.shape[-1:] != (1,):
            continue
        name = tensor.call.layer.name
        if getattr(tensor.call.layer, "activation", None) is activations.get("softmax"):
            use = "use activation='sigmoid' and loss='binary_crossentropy', or one unit per class"
            warn(f"{name!r} is a softmax over one number, which is always 1: {use}")
        elif isinstance(loss, losses.CategoricalCrossentropy):
            use = "use loss='binary_crossentropy', or one unit per class and a softmax"
            warn(f"categorical_crossentropy of one output ({name!r}) is always 0: {use}")


def parted(source: ArrayData, fraction: float) -> tuple[ArrayData, ArrayData]:
    """The first part for training, the last `fraction` for validation (as Keras splits)."""
    at = int(source.samples * (1 - fraction))
    if at == 0 or at == source.samples:
        given = f"validation_split={fraction} of {source.samples} samples"
        raise ValueError(f"{given} leaves one side empty")
    first, last = source.take(slice(0, at)), source.take(slice(at, None))
    return ArrayData(*first[:3], source.batch_size), ArrayData(*last[:3], source.batch_size)


def split(source: Any, fraction: float) -> tuple[Any, Any]:
    """Training and validation data, with a warning if the labels were in order."""
    if not isinstance(source, ArrayData):
        raise ValueError("validation_split needs arrays; give validation_data instead")
    first, last = parted(source, fraction)
    sides = [_classes(side.y) for side in (first, last)]
    if None not in sides:
        alone = sorted(sides[1] - sides[0])  # type: ignore[operator]
        if alone and len(alone) == len(sides[1]):  # type: ignore[arg-type]
            which = f"the last {len(last.y[0])} samples, in order, with the classes {alone}"
            how = "none of which is trained on. Shuffle the arrays first"
            warn(f"validation_split={fraction:g} holds out {which}, {how}")
    return first, last


def validation_source(model: Any, given: Any, batch_size: int | None, steps: int | None) -> Any:
    """The source of `validation_data`."""
    if is_stream(given):
        return source_of(model, given, steps=steps)
    if not isinstance(given, (list, tuple)) or len(given) not in (2, 3):
        raise ValueError("validation_data must be (x, y) or (x, y, sample_weight)")
    x, y, weight = (*given, None)[:3]
    try:
        return source_of(model, x, y, weight, batch_size)
    except (ValueError, TypeError) as error:
        raise type(error)(f"validation_data: {error}") from None


def look(source: Any, held_out: Any) -> None:
    """Warn where the validation set is the training set."""
    if not isinstance(source, ArrayData) or not isinstance(held_out, ArrayData):
        same = getattr(source, "source", source) is getattr(held_out, "source", held_out)
    else:
        pairs = list(zip(source.x, held_out.x, strict=False))
        same = all(a is b or _equal(a, b) for a, b in pairs)
    if same:
        warn("the validation data are the training data: they tell nothing of other data")


def _equal(a: Any, b: Any) -> bool:
    if not isinstance(a, np.ndarray) or not isinstance(b, np.ndarray) or a.shape != b.shape:
        return False
    rows = slice(0, max(1, AT_MOST // max(1, a[:1].size)))
    return bool(np.array_equal(a[rows], b[rows])) and bool(np.array_equal(a[-1:], b[-1:]))


def _classes(ys: list[Any]) -> set[Any] | None:
    """The classes among labels (N,), (N, 1) or one-hot rows; None where y is something else."""
    if len(ys) != 1:
        return None
    y = np.asarray(ys[0])
    if y.ndim == 2 and y.shape[1] > 1:
        one_hot = y.max(initial=0) == 1 and np.isin(y, (0, 1)).all() and np.all(y.sum(axis=1) == 1)
        return set(y.argmax(axis=1).tolist()) if one_hot else None
    whole = y.dtype.kind in "iub" or bool(np.all(y == np.floor(y)))
    found = set(y.ravel().tolist()) if whole else set()
    return found if 1 < len(found) <= max(100, len(y) // 4) or (whole and len(found) == 1) else None
