"""predict: data in, batch by batch, through the model, and out.

What `fit` and `evaluate` in `training.py` share with it stands here too: what users may give as
data and how that is checked, and the model's outputs for a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from minitl import callbacks as callbacks_module
from minitl import losses
from minitl.autograd import Array, Tensor, no_grad
from minitl.models.batches import ArrayData, Batch, StreamData, is_stream, make_arrays
from minitl.naming import check_keywords
from minitl.transfer.feature_cache import Recalled

# Bytes that one layer's inputs and outputs may take together while predicting. VGG16 at 224x224
# then runs 10 images at a time; more are not faster.
MEMORY = 256 * 2**20


class Predictor:
    """What `Model` needs to predict. The methods have Keras's names and arguments."""

    # Provided by Model.
    name: str
    inputs: list[Any]
    outputs: list[Any]
    output_names: list[str]
    input_names: list[str]
    dtype: str
    _losses: list[losses.Loss | None]

    @check_keywords
    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The model's outputs for all of x, computed in batches, as one array (or a list of them).

        x is an array (N, ...), a list or dict of arrays for several inputs, or an iterable of
        batches. Memory beyond x and the outputs does not depend on N.
        """
        data = self._data(x, None, None, batch_size, steps, need_y=False)
        run = callbacks_module.CallbackList(
            callbacks, self, {"steps": len(data) or None, "verbose": verbose}
        )
        run.on_predict_begin({})
        results: list[Any] = []
        at, show = 0, verbose not in (0, False)
        with no_grad():
            for step, batch in enumerate(with_bar(Recalled(self, data), "predict", show)):
                run.on_predict_batch_begin(step, {})
                for piece in self._pieces(batch):
                    outputs = self._outputs(piece, training=False)
                    for i, out in enumerate(outputs):
                        if len(results) <= i:  # of a stream it is not known how many will come
                            rows = 0 if isinstance(data, StreamData) else data.samples
                            results.append(np.empty((rows, *out.shape[1:]), out.dtype))
                        _write_rows(results[i], at, out.storage)
                    at += piece.size
                run.on_predict_batch_end(step, {})
        run.on_predict_end({})
        for each in results:
            each.resize((at, *each.shape[1:]), refcheck=False)
        return results[0] if len(results) == 1 else results

    def _pieces(self, batch: Batch) -> Iterator[Batch]:
        """The batch in equal pieces, so small that what a layer reads and writes fits MEMORY.

        For predicting and measuring only: there, samples do not know of each other, unless the
        loss is a sum over the batch or divided by its weights.
        """
        if any(loss and loss.reduction != "sum_over_batch_size" for loss in self._losses):
            yield batch
            return
        shapes = [a.shape for a in batch.x]
        steps = self if batch.graph is None else batch.graph
        each = steps.largest_step(shapes) * np.dtype(self.dtype).itemsize  # type: ignore
        count = min(batch.size, -(-batch.size * each // MEMORY))
        for i in range(count):
            part = slice(batch.size * i // count, batch.size * (i + 1) // count)
            yield Batch(
                [a[part] for a in batch.x],
                [a[part] for a in batch.y],
                None if batch.weight is None else batch.weight[part],
                batch.graph,
            )

    def _outputs(self, batch: Batch, training: bool, rng: Any = None) -> list[Tensor]:
        """The model's outputs: from its inputs, or from what is kept of its frozen part."""
        if batch.graph is not None:
            return batch.graph.run(batch.x, training, rng)
        return _listed(self(_one_or_list(batch.x), training=training, rng=rng))  # type: ignore

    @check_keywords
    def predict_on_batch(self, x: Any) -> Any:
        """The model's outputs for one batch."""
        return self.predict(x, batch_size=len(_listed(x)[0]), verbose=0)

    # --- Data ---

    def _data(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        batch_size: int | None,
        steps: int | None,
        need_y: bool = True,
    ) -> ArrayData | StreamData:
        """Check what the user gave, and make it walkable."""
        if batch_size is not None and (
            not isinstance(batch_size, (int, np.integer)) or batch_size < 1
        ):
            raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}")
        if is_stream(x):
            if y is not None:
                raise ValueError("x yields batches (x, y) itself: y must not be given as well")
            self.build_for(x)
            check = self._check_streamed if need_y else None
            return StreamData(x, steps, self.input_names, self.output_names, check)
        if steps is not None:
            raise ValueError("steps are for iterables of batches; for arrays give batch_size")
        if need_y and y is None:
            raise ValueError("y is missing: the loss compares the model's outputs with it")
        self.build_for(x)
        arrays = make_arrays(x, y, sample_weight, self.input_names, self.output_names)
        self._check_batch(arrays)
        return ArrayData(arrays.x, arrays.y, arrays.weight, int(batch_size or 32))

    def build_for(self, x: Any) -> None:
        """A Sequential without Input learns its shapes here."""

    def _validation(self, given: Any, batch_size: int | None, steps: int | None) -> Any:
        if is_stream(given):
            return self._data(given, None, None, None, steps)
        if not isinstance(given, (list, tuple)) or len(given) not in (2, 3):
            raise ValueError("validation_data must be (x, y) or (x, y, sample_weight)")
        x, y, weight = (*given, None)[:3]
        try:
            return self._data(x, y, weight, batch_size, None)
        except (ValueError, TypeError) as error:
            raise type(error)(f"validation_data: {error}") from None

    def _check_streamed(self, batch: Batch) -> None:
        """Batches of a stream are checked as they come; arrays are checked as a whole."""
        self._check_batch(batch)
        if not batch.y:
            raise ValueError("the data set yields x without y")

    def _check_batch(self, batch: Batch) -> None:
        if len(batch.x) != len(self.inputs):
            raise ValueError(
                f"{self.name!r} has {len(self.inputs)} inputs {self.input_names}, "
                f"got {len(batch.x)}"
            )
        for a, symbolic in zip(batch.x, self.inputs, strict=True):
            check_shape(a.shape, symbolic.shape, self.name)
        if not batch.y:
            return
        if len(batch.y) != len(self.outputs):
            raise ValueError(
                f"{self.name!r} has {len(self.outputs)} outputs {self.output_names}, "
                f"but y has {len(batch.y)} arrays"
            )
        for y, loss, out in zip(batch.y, self._losses, self.outputs, strict=True):
            if loss is not None:
                loss.check(y, out.shape)


def check_shape(shape: tuple[int, ...], expected: tuple[int | None, ...], name: str) -> None:
    """Raise ValueError unless an array of `shape` can enter a model that expects `expected`."""
    if len(shape) == len(expected) and all(
        e is None or n == e for n, e in zip(shape[1:], expected[1:], strict=True)
    ):
        return
    hint = ""
    if shape == expected[1:]:
        hint = " A single sample needs a batch axis: x[np.newaxis]."
    elif len(shape) == len(expected) == 4 and shape[1] == expected[3] and shape[1] < 5:
        hint = " The channels seem to come first; minitl takes (N, H, W, C)."
    elif (len(shape) == 3 and len(expected) == 4) or (shape[-1:] == (1,) and expected[-1:] == (3,)):
        hint = " Gray images become RGB with minitl.data.to_rgb(x)."
    raise ValueError(f"{name!r} takes inputs of shape {expected}, got {shape}.{hint}")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _one_or_list(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def with_bar(data: Any, what: str, show: bool) -> Any:
    """The batches of data, with a progress bar when there is more than one."""
    if not show or len(data) == 1:
        return data.batches()
    from tqdm import tqdm

    return tqdm(data.batches(), total=len(data) or None, desc=what, unit="batch", leave=False)


def _write_rows(a: Array, at: int, rows: Array) -> None:
    """a[at : at + n] = rows (n, ...). If there is no room, `a` grows by an eighth or more, where
    it lies: a list of parts, joined at the end, would take its memory twice.

    Raises ValueError for rows of another shape, which NumPy might stretch.
    """
    if rows.shape[1:] != a.shape[1:]:
        raise ValueError(
            f"the outputs of all batches become one array, but after {at} rows of shape "
            f"{a.shape[1:]} came rows of shape {rows.shape[1:]}: predict such batches one by one"
        )
    end = at + len(rows)
    if end > len(a):
        a.resize((max(end, len(a) * 9 // 8), *a.shape[1:]), refcheck=False)
    a[at:end] = rows
