"""predict: a source of batches goes in, batch by batch, and the outputs come out as one array.

What training shares with it stands here too: `source_of` turns what a user gives into a source of
batches that has been checked against the model, `outputs_of` runs the model on one batch, and
`pieces` cuts a batch so that memory has a bound. `training.py` goes on from here.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from minitl.autograd import Array, Tensor, no_grad
from minitl.layers.base import listed
from minitl.models.batches import ArrayData, Batch, fitted, is_stream, make_arrays
from minitl.models.callbacks import CallbackList
from minitl.naming import part

# Bytes that one layer's inputs and outputs may take together while nothing is recorded. VGG16 at
# 224x224 then runs 10 images at a time; more are not faster.
MEMORY = 256 * 2**20


def predict(model: Any, source: Any, verbose: Any, callbacks: Any) -> Any:
    """The model's outputs for all of a source, as one array, or a list of them."""
    run = CallbackList(callbacks, model, {"steps": len(source) or None, "verbose": verbose})
    run.on_predict_begin({})
    results: list[Any] = []
    at = 0
    with no_grad():
        recalled = recall(model, source)
        of = part("steps").predicted if "predict_step" in model.own_steps else outputs_of
        heard = run.hears("predict_batch")
        for step, batch in enumerate(with_bar(recalled, "predict", verbose not in (0, False))):
            begun = at
            run.on_predict_batch_begin(step, {})
            for piece in pieces(model, batch):
                for i, out in enumerate(of(model, piece, training=False)):
                    if len(results) <= i:  # of a stream it is not known how many will come
                        results.append(np.empty((source.samples or 0, *out.shape[1:]), out.dtype))
                    _write_rows(results[i], at, out.storage, piece.size)
                at += piece.size
            seen = [each[begun:at].copy() for each in results] if heard else []
            run.on_predict_batch_end(step, {"outputs": model.packed(seen)} if seen else {})
    run.on_predict_end({})
    for each in results:
        each.resize((at, *each.shape[1:]), refcheck=False)
    return model.packed(results) if len(results) > 1 or model.output_keys else results[0]


def _write_rows(a: Array, at: int, rows: Array, n: int) -> None:
    """a[at : at + n] = rows (n, ...). If there is no room, `a` grows by an eighth or more, where
    it lies: a list of parts, joined at the end, would take its memory twice.

    Raises ValueError for rows of another shape, which NumPy might stretch.
    """
    if rows.shape != (n, *a.shape[1:]):
        came = f"after {at} rows of shape {a.shape[1:]} came, for {n} samples, {rows.shape}"
        how = "predict such batches one by one"
        raise ValueError(f"the outputs of all batches become one array, but {came}: {how}")
    end = at + len(rows)
    if end > len(a):
        a.resize((max(end, len(a) * 9 // 8), *a.shape[1:]), refcheck=False)
    a[at:end] = rows


def outputs_of(model: Any, batch: Batch, training: bool, rng: Any = None) -> list[Tensor]:
    """The model's outputs: from its inputs, or from what is kept of its frozen part."""
    dtypes = [t.dtype for t in batch.graph.inputs] if batch.graph else [model.dtype] * len(batch.x)
    # Tensors, as arrays would be copied, which nobody changes before the step is done.
    given = [Tensor(np.asarray(a, dtype)) for a, dtype in zip(batch.x, dtypes, strict=True)]
    if model.forget_losses is not None:
        model.forget_losses()
    if batch.graph is not None:
        return batch.graph.run(given, training, rng)
    x: Any = given if len(given) > 1 else given[0]
    if model.input_keys is not None:
        x = dict(zip(model.input_keys, given, strict=True))
    return listed(model(x, training=training, rng=rng))


def pieces(model: Any, batch: Batch) -> Iterator[Batch]:
    """The batch in equal pieces, so small that what a layer reads and writes fits MEMORY.

    Only for predicting and measuring, where samples are apart unless the loss is a sum or weighed.
    """
    losses = [] if model.compiled is None else model.compiled.losses
    if model.own_steps or any(loss and loss.reduction != "sum_over_batch_size" for loss in losses):
        yield batch
        return
    runs = model if batch.graph is None else batch.graph
    each = runs.largest_step([a.shape for a in batch.x]) * np.dtype(model.dtype).itemsize
    count = min(batch.size, -(-batch.size * each // MEMORY))
    if count == 1:
        yield batch
        return
    for i in range(count):
        rows = slice(batch.size * i // count, batch.size * (i + 1) // count)
        yield Batch(
            [a[rows] for a in batch.x],
            [a[rows] for a in batch.y],
            None if batch.weight is None else batch.weight[rows],
            batch.graph,
        )


def recall(model: Any, source: Any) -> Any:
    """The source; where an earlier `fit` has kept features of the model, one that looks there."""
    return part("feature cache").Recalled(model, source) if model.kept_features else source


def with_bar(source: Any, what: str, show: bool) -> Any:
    """The batches of a source, with a progress bar when there is more than one."""
    if not show or len(source) == 1:
        return source.batches()
    return part("progress").with_bar(source, what)


def source_of(
    model: Any,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    batch_size: int | None = None,
    steps: int | None = None,
    need_y: bool = True,
) -> Any:
    """What the user gave, checked against the model, as a source of batches.

    Raises ValueError or TypeError, in the user's words, for data that the model cannot take.
    """
    if is_stream(x):
        if y is not None:
            raise ValueError("x yields batches (x, y) itself: y must not be given as well")
        stream = part("streams").StreamData(x, steps)
        model.build_for(stream)

        def check(batch: Batch) -> None:  # batches of a stream are checked as they come
            check_batch(model, batch)
            if not batch.y and needs_y(model):
                raise ValueError("the data set yields x without y")

        names = model.input_names, model.output_names
        stream.names, stream.check = names, check if need_y else None
        return stream
    if need_y and y is None and needs_y(model):
        raise ValueError("y is missing: the loss needs it (and x is no iterable of batches)")
    model.build_for(x)
    arrays = make_arrays(x, y, sample_weight, model.input_names, model.output_names)
    check_batch(model, arrays)
    source = ArrayData(*arrays[:3], int(batch_size or 32))
    return source if steps is None else part("streams").in_steps(source, steps)


def needs_y(model: Any) -> bool:
    """Whether a loss compares the model's outputs with something, and steps are minitl's own."""
    return not model.own_steps and any(model.compiled.losses)


def check_batch(model: Any, batch: Batch) -> None:
    """Raise ValueError unless the model takes these arrays, and its losses these targets."""
    if not model.inputs:  # a subclass with a `train_step` and no `call`
        return
    if len(batch.x) != len(model.inputs):
        has = f"{model.name!r} has {len(model.inputs)} inputs {model.input_names}"
        raise ValueError(f"{has}, got {len(batch.x)}")
    for i, symbolic in enumerate(model.inputs):
        batch.x[i] = fitted(batch.x[i], symbolic.shape, model.name)
    if not batch.y or model.own_steps:
        return
    if len(batch.y) != len(model.outputs):
        has = f"{model.name!r} has {len(model.outputs)} outputs {model.output_names}"
        raise ValueError(f"{has}, but y has {len(batch.y)} arrays")
    for y, loss, out in zip(batch.y, model.compiled.losses, model.outputs, strict=True):
        if loss is not None:
            loss.check(y, out.shape)
