"""Models that a user wrote: a `call` of their own, and steps of training that they override.

A subclass of Model that makes layers in `__init__` and has a `call` gets its inputs and outputs
from the first data (`connect_to`). One that overrides a step is trained through the methods here,
which have Keras's names and arguments: `fit` calls `train_step(data)` for each batch and shows what
it returns. A step of one's own is written with minitl's two functions of differentiation:

    def train_step(self, data):
        x, y = data
        loss = self.compute_loss(y=y, y_pred=self(x, training=True))
        variables = self.trainable_variables
        self.optimizer.apply(minitl.backward(loss, variables), variables)
        return {"loss": float(loss)}

`GradientTape` is there for scripts that say it so. What the frozen part gives is not kept between
epochs in such a training: nobody knows what the step does with its inputs.
"""

import inspect
import math
from typing import Any

import numpy as np

from minitl.autograd import Array, Tensor, backward
from minitl.layers.base import around, listed
from minitl.layers.core import Input
from minitl.metrics import Mean, Metric
from minitl.models.arguments import check_methods
from minitl.models.batches import Batch
from minitl.models.model import Model
from minitl.models.training import Compiled, Tally, descend, diverged
from minitl.naming import leaves

# --- A model whose `call` the user wrote ---------------------------------------------------------


def connect_to(model: Any, x: Any) -> None:
    """Give a model its inputs and outputs, from data: arrays, or a source that shows its first."""
    if hasattr(x, "peek"):
        first = x.peek()
        x = first[0] if isinstance(first, (tuple, list)) and first else first
    if isinstance(x, dict):
        shape: Any = {name: np.shape(x[name]) for name in x}
    elif isinstance(x, (list, tuple)) and all(hasattr(each, "shape") for each in x):
        shape = [tuple(each.shape) for each in x]
    else:
        shape = np.shape(x)
    if isinstance(shape, list) and len(shape) == 1 and hasattr(model, "start"):
        shape = shape[0]
    if hasattr(model, "start"):  # a Sequential
        if model.layers:
            model.build(shape)
    elif type(model).call is not Model.call:
        try:
            connect_shape(model, shape)
        except ValueError:  # a train_step of its own takes the data apart in its own way
            made = all(layer.built for layer in model.inside() if layer is not model)
            if not made or "train_step" not in model.own_steps:
                raise
    if model.outputs and model.compiled is not None:
        settings = dict(model.compiled.settings)
        metrics = settings.pop("metrics"), settings.pop("weighted_metrics")
        model.compiled = Compiled(model, **settings, metric_settings=metrics)


def connect_shape(model: Any, shape: Any) -> None:
    """The same, from the shapes of the inputs: one, a list, or a dict."""
    if isinstance(shape, dict):
        model.input_keys = sorted(shape)
        inputs: Any = {name: Input(shape[name][1:], name=name) for name in model.input_keys}
    elif isinstance(shape, list):
        inputs = [Input(each[1:]) for each in shape]
    else:
        inputs = Input(shape[1:])
    model.inputs = listed(inputs)
    try:
        outputs = model(inputs)
    except BaseException:
        model.inputs = []
        raise
    model.outputs = listed(outputs)
    model.one_input = not isinstance(shape, (list, dict))
    model.one_output = not isinstance(outputs, (list, dict))
    starts = [t.call.layer for t in model.inputs]
    object.__setattr__(model, "input_layers", starts)  # no layers of the model's own
    model.input_names = [layer.name for layer in starts]
    model.output_keys = sorted(outputs) if isinstance(outputs, dict) else None
    count = len(model.outputs)
    names = [f"output_{i + 1}" for i in range(count)] if count > 1 else [model.name]
    model.output_names = model.output_keys or names


def largest_step(model: Any, input_shapes: list[Any]) -> int:
    """The numbers that the inputs and outputs of one sample are: inside `call` nobody sees."""
    shapes = [*input_shapes, *(t.shape for t in model.outputs)]
    return sum(math.prod(n or 1 for n in shape[1:]) for shape in shapes)


# --- Steps, as Keras calls them ------------------------------------------------------------------


def unpack_x_y_sample_weight(data: Any) -> tuple[Any, Any, Any]:
    """What a step is given, as x, y and sample weights; what is not there is None."""
    parts = tuple(data) if isinstance(data, (tuple, list)) else (data,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"a batch is x, (x, y) or (x, y, sample_weight), got {len(parts)} parts")
    return (*parts, None, None)[:3]


def train_step(model: Any, data: Any) -> dict[str, Any]:
    """One step of training on a batch: forward, loss, backward, update; returns the logs."""
    x, y, weight = unpack_x_y_sample_weight(data)
    y_pred = model(x, training=True)
    loss = _loss_of(model, x, y, y_pred, weight, True)
    descend(model, loss, vars(model).get("_where", "this step"))
    return model.compute_metrics(x, y, y_pred, weight)


def test_step(model: Any, data: Any) -> dict[str, Any]:
    """Loss and metrics of a batch; nothing is trained."""
    x, y, weight = unpack_x_y_sample_weight(data)
    y_pred = model(x, training=False)
    _loss_of(model, x, y, y_pred, weight, False)
    return model.compute_metrics(x, y, y_pred, weight)


def predict_step(model: Any, data: Any) -> Any:
    """The outputs for a batch."""
    return model(unpack_x_y_sample_weight(data)[0], training=False)


def compute_loss(
    model: Any,
    x: Any = None,
    y: Any = None,
    y_pred: Any = None,
    sample_weight: Any = None,
    training: bool = True,
) -> Tensor:
    """The loss that `compile` chose, for a batch, with the weights' penalties: a scalar Tensor."""
    batch = Batch([], _arrays(model, y), sample_weight)
    return model.need_compile("compute_loss").total_loss(batch, listed(y_pred))[0]


def compute_metrics(
    model: Any, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
) -> dict[str, Any]:
    """Gather a batch in the metrics that `compile` chose; returns all metrics by name."""
    for metric in model.metrics:
        if isinstance(metric, CompileMetrics):
            metric.update_state(y, y_pred, sample_weight)
    return get_metrics_result(model)


def get_metrics_result(model: Any) -> dict[str, Any]:
    """All metrics by name, over what was gathered since `reset_metrics`."""
    found: dict[str, Any] = {}
    for metric in model.metrics:
        result = metric.result()
        found |= result if isinstance(result, dict) else {metric.name: result}
    return found


def reset_metrics(model: Any) -> None:
    """Forget what the metrics have gathered."""
    for metric in model.metrics:
        metric.reset_state()


def metrics_of(model: Any) -> list[Metric]:
    """The mean of the loss, metrics that are attributes of the model or of layers, compile's."""
    compiled = model.compiled
    own = [m for layer in model.inside() for m in leaves(list(vars(layer).values()), Metric)]
    if compiled is None:
        return own
    known = vars(compiled)
    first = known.setdefault("loss_tracker", Mean("loss"))
    found = [first, *{id(metric): metric for metric in own}.values()]
    if any(compiled.metric_settings):
        if "compile_metrics" not in known:
            known["compile_metrics"] = CompileMetrics(model)
        found.append(known["compile_metrics"])
    return found


class CompileMetrics(Metric):
    """All metrics that `compile` was given, as one: its result is a dict."""

    def __init__(self, model: Any):
        self.model = model
        super().__init__("compile_metrics")

    def reset_state(self) -> None:
        self.tally = Tally(self.model.compiled)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        outputs = [np.asarray(each) for each in listed(y_pred)]
        self.tally.add([], outputs, Batch([], _arrays(self.model, y_true), sample_weight))

    def result(self) -> dict[str, Any]:
        losses = {mean.name for mean in self.tally.losses}
        return {name: value for name, value in self.tally.logs().items() if name not in losses}


# --- What fit, evaluate and predict call ---------------------------------------------------------


def trained(model: Any, batch: Batch, rng: Any, where: str) -> dict[str, Any]:
    """What the model's `train_step` returns for a batch, as numbers. Raises TrainingDiverged."""
    model.__dict__["_where"] = where
    token = around.set((None, rng))
    try:
        logs = _numbers(model.train_step(_data(model, batch)), "train_step")
    finally:
        around.reset(token)
    if not np.isfinite(logs.get("loss", 0.0)).all():
        raise diverged(model, f"the loss became {logs['loss']}", where)
    return logs


def tested(model: Any, batch: Batch) -> dict[str, Any]:
    """The same of `test_step`."""
    return _numbers(model.test_step(_data(model, batch)), "test_step")


def predicted(model: Any, batch: Batch, training: bool = False) -> list[Any]:
    """What `predict_step` returns for a batch, output by output."""
    found = model.predict_step(_data(model, batch))
    return [t if isinstance(t, Tensor) else Tensor(np.asarray(t)) for t in listed(found)]


class OwnTally:
    """The logs of an epoch whose steps are the user's: those that the last one returned."""

    def __init__(self, model: Any):
        self.model, self.latest = model, dict[str, Any]()
        reset_metrics(model)

    def parts(self) -> list[Any]:
        return [self, *self.model.metrics]

    def add(self, found: Any, outputs: list[Array], batch: Batch) -> None:
        self.latest = found

    def logs(self) -> dict[str, Any]:
        return dict(self.latest)


def _loss_of(model: Any, x: Any, y: Any, y_pred: Any, weight: Any, training: bool) -> Any:
    """The model's `compute_loss`, gathered in the mean that the logs show."""
    more = {"training": training}
    if "training" not in inspect.signature(model.compute_loss).parameters:
        more = {}
    loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=weight, **more)
    for metric in metrics_of(model)[:1]:
        metric.update_state(float(loss), sample_weight=len(listed(x)[0]))  # type: ignore[call-arg]
    return loss


def _data(model: Any, batch: Batch) -> Any:
    """A batch as Keras hands it to a step: x, (x, y) or (x, y, sample_weight)."""
    x, y = _one(batch.x, model.input_keys), _one(batch.y, model.output_keys)
    if batch.weight is not None:
        return x, y, batch.weight
    return (x, y) if batch.y else x


def _one(arrays: list[Array], keys: list[str] | None) -> Any:
    if keys is not None:
        return dict(zip(keys, arrays, strict=True))
    return arrays[0] if len(arrays) == 1 else arrays


def _arrays(model: Any, y: Any) -> list[Array]:
    """The targets, output by output."""
    if isinstance(y, dict):
        y = [y[name] for name in model.output_names]
    several = isinstance(y, (list, tuple)) and len(model.outputs) > 1
    return [np.asarray(each) for each in (y if several else [y])]


def _numbers(logs: Any, what: str) -> dict[str, Any]:
    if not isinstance(logs, dict):
        raise TypeError(f"{what} returns a dict of numbers by name, got {logs!r}")
    flat: dict[str, Any] = {}
    for name, value in logs.items():
        flat |= value if isinstance(value, dict) else {name: value}
    arrays = {name: np.asarray(value) for name, value in flat.items()}
    return {name: a.item() if a.size == 1 else a for name, a in arrays.items()}


@check_methods
class GradientTape:
    """`with GradientTape() as tape:` as scripts for TensorFlow have it; everything is recorded
    here anyway, so `tape.gradient(loss, variables)` is `backward(loss, variables)`. A record is
    used up by the first gradient, also of a persistent tape: a second one is refused."""

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True): ...

    def __enter__(self) -> "GradientTape":
        return self

    def __exit__(self, *_: Any) -> None: ...

    def watch(self, tensor: Tensor) -> None:
        """Gradients by this Tensor will be asked for."""
        if not isinstance(tensor, Tensor):
            raise TypeError(f"watch takes a Tensor: ops.convert_to_tensor(x), got {type(tensor)}")
        tensor.__init__(tensor.storage, requires_grad=True)  # type: ignore[misc]

    def gradient(self, target: Tensor, sources: Any, output_gradients: Any = None) -> Any:
        """dL/d(source) for each of the sources, as arrays; L is the target, or its sum."""
        single = isinstance(sources, Tensor)
        sources = [sources] if single else sources
        if not all(source.requires_grad for source in sources):
            frozen = "no gradient leads to it: what made it is frozen, and its inputs not watched"
            raise ValueError(f"{frozen}. Thaw the layers before it, or tape.watch the input first")
        ones = np.ones_like(target.storage)
        found = backward(target, sources, ones if output_gradients is None else output_gradients)
        return found[0] if single else found
