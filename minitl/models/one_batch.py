"""Single batches, for a loop of the user's own: these functions are methods of `Model`.

Also what a weight for each class makes of the samples' weights, in `fit` as here.
"""

from typing import Any

import numpy as np

from minitl import config
from minitl.autograd import Array, no_grad
from minitl.models.batches import ArrayData, Batch
from minitl.models.model import Model
from minitl.models.prediction import outputs_of, source_of
from minitl.models.several_outputs import in_order
from minitl.models.steps import tested
from minitl.models.training import train_step
from minitl.naming import check_keywords


@check_keywords
def predict_on_batch(model: Model, x: Any) -> Any:
    """The model's outputs for one batch."""
    first = x[0] if isinstance(x, list) and x else x
    return model.predict(x, batch_size=max([1, *np.shape(first)[:1]]), verbose=0)


@check_keywords
def train_on_batch(
    model: Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    class_weight: dict[int, float] | None = None,
    return_dict: bool = False,
) -> Any:
    """One step of training on one batch; returns its loss and metrics as `evaluate` does.

    Raises TrainingDiverged, before the weights change, when the loss or a gradient is not finite.
    """
    model.need_compile("train_on_batch")
    if sample_weight is not None and class_weight is not None:
        raise ValueError("train_on_batch takes sample_weight or class_weight, not both")
    batch = _checked(model, x, y, sample_weight)
    if class_weight is not None:
        batch = batch._replace(weight=weights_by_class(batch.y, class_weight, None))
    rng = np.random.default_rng(config.next_seed())
    return _told(model, batch, *train_step(model, batch, rng, "this batch"), return_dict)


@check_keywords
def test_on_batch(
    model: Model, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
) -> Any:
    """Loss and metrics of one batch, as `evaluate` returns them; nothing is trained."""
    compiled = model.need_compile("test_on_batch")
    batch = _checked(model, x, y, sample_weight)
    with no_grad():
        if model.own_steps:
            return _told(model, batch, tested(model, batch), [], return_dict)
        outputs = outputs_of(model, batch, training=False)
        found = compiled.total_loss(batch, outputs)[1]
    return _told(model, batch, found, [t.storage for t in outputs], return_dict)


def _checked(model: Model, x: Any, y: Any, sample_weight: Any) -> Batch:
    source = source_of(model, x, y, sample_weight)
    if not isinstance(source, ArrayData):
        raise TypeError("one batch is arrays; `fit` and `evaluate` take iterables of batches")
    return Batch(source.x, source.y, source.weight)


def _told(model: Model, batch: Batch, losses: Any, outputs: Any, return_dict: bool) -> Any:
    tally = model.need_compile("this").tally()
    tally.add(losses, outputs, batch)
    logs = tally.logs()
    values = in_order(model, logs) if len(model.outputs) > 1 else list(logs.values())
    return logs if return_dict else values if len(values) > 1 else values[0]


def weigh(source: Any, class_weight: dict[int, float]) -> None:
    """Multiply the weights of samples by those of their classes."""
    if not isinstance(source, ArrayData):
        source.reweigh = lambda b: b._replace(weight=weights_by_class(b.y, class_weight, b.weight))
        return
    source.weight = weights_by_class(source.y, class_weight, source.weight)


def weights_by_class(
    ys: list[Array], class_weight: dict[int, float], weights: Array | None
) -> Array:
    """The sample weights (N,), times the weight of each sample's class; 1 for one not named."""
    if len(ys) != 1:
        raise ValueError("class_weight needs exactly one output")
    for label, weight in class_weight.items():
        if not isinstance(label, (int, np.integer)) or not 0 <= weight < np.inf:
            given = f"{label!r}: {weight!r}"
            raise ValueError(f"class_weight maps integer labels to weights, got {given}")
    y = ys[0]
    labels = y.argmax(axis=-1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)
    by_class = np.array([class_weight.get(int(label), 1.0) for label in labels.astype(np.int64)])
    return by_class if weights is None else by_class * weights
