"""`Model`: a graph of layers that predicts and learns. A Model is itself a layer, so models nest.

The methods have Keras's names and arguments; here one sees what there is and where it is done:
`graph.py` finds and runs the graph, `prediction.py` predicts, `training.py` trains. What a file, a
table or a feature cache needs is opened when it is first asked for (`PARTS` in `naming.py`).
`Sequential`, a Model whose graph is a chain, stands beside this in `sequential.py`.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence, Set
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from minitl import naming, optimizers
from minitl.layers.base import Layer, SymbolicTensor
from minitl.layers.core import InputLayer
from minitl.models import prediction
from minitl.models.batches import fitted
from minitl.models.callbacks import Callback, CallbackList, History
from minitl.models.graph import Graph, graph_between
from minitl.models.training import Compiled, Training, measure
from minitl.naming import check_keywords, elsewhere, part, unique_name

# What a subclass may override of a step of training, measuring or predicting.
STEPS = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics")


class Model(Layer):
    """A graph of layers from `inputs` to `outputs`, that can be trained.

    Args:
        inputs: a symbolic tensor, a list of them, or a dict by name (in the order of the names, as
            in Keras). They may be intermediate tensors of another graph: the model then starts
            there.
        outputs: a symbolic tensor, a list of them, or a dict by name; `predict` gives the same.
        name: of the model.

    A subclass may have a `call` instead, and steps of its own (`models/steps.py`).

    `metadata` is a dictionary of the user's own (class names, say), saved with the model as JSON.

    Raises ValueError for an input that is not among `inputs`, or two layers of one name.
    """

    several_inputs = None
    _training_unless_told = None  # each layer's own
    # Where it begins and ends, symbolic tensors or shapes: `keras_names/attributes.py` has them.
    input: Any
    output: Any
    input_shape: Any
    output_shape: Any
    own_steps: ClassVar[Set[str]] = frozenset()  # which of STEPS a subclass overrides

    def __init__(
        self,
        inputs: Any = None,
        outputs: Any = None,
        name: str | None = None,
        trainable: bool = True,
    ):
        own = self.users and inputs is None and outputs is None  # `call` says what it does
        if not own and (inputs is None or outputs is None):
            raise TypeError("Model needs inputs and outputs: Model(inputs=..., outputs=...)")
        super().__init__(name=name or (None if own else unique_name("functional")))
        self.start_empty()
        if not own:
            self.connect_graph(inputs, outputs)
        if not trainable:
            self.trainable = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.own_steps = frozenset(n for n in STEPS if getattr(cls, n) is not getattr(Model, n))

    def start_empty(self) -> None:
        """The attributes of a model that has no graph yet and is not compiled."""
        self.graph = Graph([], [], [])
        self.inputs: list[SymbolicTensor] = []
        self.outputs: list[SymbolicTensor] = []
        self.input_names: list[str] = []
        self.output_names: list[str] = []
        self.input_layers: list[InputLayer] = []
        self.all_layers: list[Layer] = []  # with the InputLayers, farthest from the outputs first
        self.one_input = self.one_output = True
        self.many_outputs: Any = list  # or tuple, as they were given
        self.input_keys: list[str] | None = None  # of inputs that a `call` takes as a dict
        self.output_keys: list[str] | None = None  # of outputs that are a dict
        self.metadata: dict[str, Any] = {}
        self.optimizer: Any = None
        self.loss: Any = None
        self.compiled: Compiled | None = None
        self.fitting: Training | None = None  # while `fit` runs
        self.history: Any = None
        self.stop_training = False
        self.kept_features: list[Any] = []  # what earlier fits computed of the frozen part
        self.holding.clear()  # none of these is the user's

    def connect_graph(self, inputs: Any, outputs: Any) -> None:
        """Find the calls between inputs and outputs, their order, and the layers' order."""
        self.inputs = _symbolic_list(inputs, "inputs")
        self.outputs = _symbolic_list(outputs, "outputs")
        self.output_keys = sorted(outputs) if isinstance(outputs, dict) else None
        self.one_input = not isinstance(inputs, (list, tuple, dict))
        self.one_output = not isinstance(outputs, (list, tuple, dict))
        many: Any = tuple if isinstance(outputs, tuple) else list
        self.many_outputs = getattr(type(outputs), "_make", many)  # of a namedtuple
        if len({id(t) for t in self.inputs}) != len(self.inputs):
            raise ValueError("the same tensor is given twice among the inputs")
        self.input_layers = [_input_layer_of(t) for t in self.inputs]
        self.graph, self.all_layers = graph_between(self.inputs, self.input_layers, self.outputs)
        counts = Counter(layer.name for layer in self.all_layers)
        twice = [name for name, n in counts.items() if n > 1]
        if twice:
            used = f"used more than once: {', '.join(twice)}"
            raise ValueError(f"layer names must be unique in a model; {used}")
        self.input_names = [layer.name for layer in self.input_layers]
        names: list[str] = []
        for t in self.outputs:
            names.append(t.name if t.name not in names else f"{t.name}_{names.count(t.name)}")
        self.output_names = self.output_keys or names
        self.dtype = self.outputs[0].dtype
        self.built = True

    def unbuild(self) -> None:
        super().unbuild()
        self.inputs, self.outputs = [], []

    def call(
        self, x: Any, training: bool | None = None, rng: np.random.Generator | None = None
    ) -> Any:
        given = list(x) if isinstance(x, list) else [x]
        if not self.inputs:
            raise NotImplementedError(f"{type(self).__name__} does not define call")
        if len(given) != len(self.inputs):
            raise ValueError(f"{self.name!r} has {len(self.inputs)} inputs, got {len(given)}")
        for i, tensor in enumerate(self.inputs):
            given[i] = fitted(given[i], tensor.shape, self.name)
        pairs = zip(self.input_layers, given, strict=True)
        entered = [layer.call(layer.as_input(value)) for layer, value in pairs]
        del given, x  # else they would live as long as the graph runs
        return self.packed(self.graph.run(entered, training, rng))

    def packed(self, outputs: list[Any]) -> Any:
        """What there is of each output, as the outputs were given: one, a list, or a dict."""
        if self.output_keys is not None:
            return dict(zip(self.output_keys, outputs, strict=True))
        return outputs[0] if self.one_output else self.many_outputs(outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        shapes = self.graph.shapes(input_shape if isinstance(input_shape, list) else [input_shape])
        return self.packed([shapes[id(t)] for t in self.outputs])

    def largest_step(self, input_shapes: list[Any]) -> int:
        if not self.graph.inputs:
            return part("steps").largest_step(self, input_shapes)
        return self.graph.largest_step(input_shapes)

    def multiply_adds(self, input_shape: Any = None) -> int:
        """Multiply-adds of one sample through the whole model."""
        return sum(call.multiply_adds() for call in self.graph.calls)

    def as_graph(self) -> Model | None:
        whole = type(self).call is Model.call and self.outputs and not self.own_steps
        return self if whole else None

    def sublayers(self) -> Iterable[Layer]:
        if not self.users:
            return self.all_layers
        return {id(layer): layer for layer in [*self.all_layers, *super().sublayers()]}.values()

    def build(self, input_shape: Any = None) -> None:
        """Of a model that a user wrote: its inputs and outputs, for inputs of this shape."""
        if type(self).call is not Model.call and not self.inputs:
            part("steps").connect_shape(self, input_shape)

    def build_for(self, x: Any) -> None:
        """A model without Input learns its shapes here, from data."""
        if not self.outputs:
            part("steps").connect_to(self, x)

    @property
    def layers(self) -> list[Layer]:
        """The layers, inputs first, in Keras's order (by distance from the outputs)."""
        return list(self.sublayers())

    @layers.setter
    def layers(self, value: Any) -> None:
        raise AttributeError("`layers` is what a model is made of: a Sequential has add and pop")

    get_layer = elsewhere("opened", "get_layer")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {len(self.layers)} layers>"

    @check_keywords
    def predict(
        self,
        x: Any,
        batch_size: naming.Count | None = None,
        verbose: naming.Verbose = "auto",
        steps: naming.Count | None = None,
        callbacks: Callback | Sequence[Any] | None = None,
    ) -> Any:
        """The model's outputs for all of x, computed in batches, as one array (or a list of them).

        x is an array (N, ...), a list or dict of arrays for several inputs, or an iterable of
        batches. Memory beyond x and the outputs does not depend on N. A data set of images is
        read in the order of its `labels`, whether it shuffles itself or not.
        """
        x = x.in_order() if hasattr(x, "in_order") else x
        source = prediction.source_of(self, x, batch_size=batch_size, steps=steps, need_y=False)
        return prediction.predict(self, source, verbose, callbacks)

    @check_keywords
    def compile(
        self,
        optimizer: naming.Named = "adam",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: naming.Count = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Choose how the model learns.

        Args:
            optimizer: a name ('sgd', 'adam', 'adamw') or an Optimizer.
            loss: a name, a Loss or a function; for several outputs a list, or a dict by name.
            loss_weights: for several outputs: how much each loss counts.
            metrics: names, Metrics or functions; 'accuracy' is the one that fits the loss.
            weighted_metrics: the same, but sample and class weights count in them.
            run_eagerly, steps_per_execution, jit_compile, auto_scale_loss: of no effect here.

        Raises ValueError for unknown names, showing the nearest; nothing has changed then.
        """
        chosen = optimizers.get(optimizer)
        self.compiled = Compiled(self, chosen, loss, loss_weights, (metrics, weighted_metrics))
        self.optimizer, self.loss = chosen, loss
        if any(t.shape[-1:] == (1,) for t in self.outputs):
            part("cautions").look_at_outputs(self)

    def need_compile(self, what: str) -> Compiled:
        """What `compile` chose; RuntimeError, naming the method, where that has not been done."""
        if self.compiled is None:
            example = "optimizer='adam', loss='categorical_crossentropy', metrics=['accuracy']"
            how = f"call model.compile({example}) first"
            raise RuntimeError(f"{what} needs a compiled model: {how}")
        return self.compiled

    @check_keywords
    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: naming.Count | None = None,
        epochs: naming.Count = 1,
        verbose: naming.Verbose = "auto",
        callbacks: Callback | Sequence[Any] | None = None,
        validation_split: naming.Fraction | None = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, naming.NotNegative] | None = None,
        sample_weight: Any = None,
        initial_epoch: naming.Natural = 0,
        steps_per_epoch: naming.Count | None = None,
        validation_steps: naming.Count | None = None,
        validation_batch_size: naming.Count | None = None,
        validation_freq: naming.Count = 1,
        *,
        cache_features: bool | str | Path = True,
        augment_copies: naming.Count | None = None,
    ) -> History:
        """Train for `epochs` passes over the data; returns a History.

        Args:
            x, y: arrays with N samples each (lists or dicts for several inputs or outputs); or x
                an iterable of batches (x, y) or (x, y, sample_weight), and no y.
            batch_size: 32 unless given. The last batch may be smaller.
            verbose: 1 or 'auto' a progress bar, 2 one line per epoch, 0 silent.
            callbacks: see `minitl.callbacks`.
            validation_split: the last part of the arrays, before shuffling, is held out.
            validation_data: (x, y), (x, y, sample_weight), or an iterable of batches.
            shuffle: a new order every epoch, from `minitl.utils.set_random_seed`.
            class_weight: {class: weight}; a class that is not named counts 1.
            sample_weight: (N,).
            initial_epoch: to go on from an earlier training.
            cache_features: whether what the frozen part of the model says about an image is
                computed once and kept (see `transfer/cut.py`); the results are the same to
                rounding. A path keeps it in a feature file for later processes as well.
            augment_copies: k, where augmentation stands before frozen layers: k augmented views
                of each image are kept, and epoch e trains on view e % k.

        Raises ValueError for bad data before anything is changed, and TrainingDiverged (unless the
        callback TerminateOnNaN takes it) when the loss becomes NaN or infinite: the weights are
        then those at the start of the last epoch that began with a finite loss.
        """
        self.need_compile("fit")
        source = prediction.source_of(self, x, y, sample_weight, batch_size, steps_per_epoch)
        held_out: Any = None
        if validation_split:
            source, held_out = part("cautions").split(source, validation_split)
        if class_weight is not None:  # for training only: held out data are measured as they are
            part("one batch").weigh(source, class_weight)
        if validation_data is not None:
            held_out = part("cautions").validation_source(
                self, validation_data, validation_batch_size or batch_size, validation_steps
            )
            part("cautions").look(source, held_out)
        if not self.trainable_weights:
            part("cautions").nothing_learns(self)
        history = History()
        level = 1 if verbose in ("auto", True) else int(verbose)
        bars = [part("progress").ProgbarLogger(level)] if level else []
        params = {"epochs": epochs, "steps": len(source) or None, "verbose": level}
        run = CallbackList(callbacks, self, params, [*bars, history])
        keeping = None
        if (cache_features is not False and not self.own_steps) or augment_copies is not None:
            say = (lambda text: print(text, flush=True)) if level else None
            left = epochs - initial_epoch
            keeping = part("feature cache").Caching(
                self, cache_features, augment_copies, left, say, bars=level == 1
            )
        self.history, self.stop_training = history, False
        self.fitting = Training(
            self, source, held_out, epochs, initial_epoch, shuffle, validation_freq
        )
        self.fitting.run(run, bars[0] if bars else None, keeping)
        return history

    @check_keywords
    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: naming.Count | None = None,
        verbose: naming.Verbose = "auto",
        sample_weight: Any = None,
        steps: naming.Count | None = None,
        callbacks: Callback | Sequence[Any] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and the metrics on data: [loss, metric, ...], or the loss alone without metrics.

        Arguments as for `fit`; `return_dict=True` gives them by name.
        """
        self.need_compile("evaluate")
        source = prediction.source_of(self, x, y, sample_weight, batch_size, steps)
        params = {"steps": len(source) or None, "verbose": verbose}
        run = CallbackList(callbacks, self, params)
        recalled = prediction.recall(self, source)
        logs = measure(self, recalled, run, show=verbose in ("auto", True, 1))
        if verbose not in (0, False):
            print(part("progress").format_logs(logs), flush=True)
        if return_dict:
            return dict(sorted(logs.items()))  # the order of Keras's
        values = [*logs.values()] if len(self.outputs) < 2 else part("outputs").in_order(self, logs)
        return values if len(values) > 1 else values[0]

    train_step = elsewhere("steps", "train_step")
    test_step = elsewhere("steps", "test_step")
    predict_step = elsewhere("steps", "predict_step")
    compute_loss = elsewhere("steps", "compute_loss")
    compute_metrics = elsewhere("steps", "compute_metrics")
    reset_metrics = elsewhere("steps", "reset_metrics")
    get_metrics_result = elsewhere("steps", "get_metrics_result")
    metrics = property(lambda self: part("steps").metrics_of(self))
    predict_on_batch = elsewhere("one batch", "predict_on_batch")
    train_on_batch = elsewhere("one batch", "train_on_batch")
    test_on_batch = elsewhere("one batch", "test_on_batch")
    freeze_until = elsewhere("stages", "freeze_until")
    unfreeze_from = elsewhere("stages", "unfreeze_from")
    summary = elsewhere("summary", "summary")
    _repr_html_ = elsewhere("notebook", "model_html")
    save = elsewhere("files", "save_model")
    export = elsewhere("onnx", "export_model")
    save_weights = elsewhere("files", "save_weights")
    load_weights = elsewhere("files", "load_weights")
    get_config = elsewhere("files", "describe")
    from_config = elsewhere("files", "model_of_class", of_class=True)
    to_json = elsewhere("files", "to_json")
    __reduce__ = elsewhere("files", "reduced")  # for `copy.deepcopy` and pickle


def _symbolic_list(value: Any, what: str) -> list[SymbolicTensor]:
    """The symbolic tensors that `Model` was given, in order."""
    if isinstance(value, dict):
        for name, tensor in value.items():
            wrong = isinstance(tensor, SymbolicTensor) and tensor.name != name
            if wrong and what == "inputs":
                given = f"the input under the key {name!r} has the name {tensor.name!r}"
                raise ValueError(f"{given}: make it with Input(..., name={name!r})")
        # In the order in which Keras takes a dict.
        value = [value[n] for n in (value if isinstance(value, OrderedDict) else sorted(value))]
    tensors = list(value) if isinstance(value, (list, tuple)) else [value]
    for t in tensors:
        if not isinstance(t, SymbolicTensor):
            takes = f"{what} of a Model are symbolic tensors (from Input or from calling layers)"
            naming.refuse_foreign(t, takes)
            raise TypeError(f"{takes}, got {type(t).__name__}")
    if not tensors:
        raise ValueError(f"a Model needs {what}")
    return tensors


def _input_layer_of(tensor: SymbolicTensor) -> InputLayer:
    """The InputLayer that made the tensor; for an intermediate tensor, a new one in its place."""
    if isinstance(tensor.call.layer, InputLayer):
        return tensor.call.layer
    return InputLayer(tensor.shape[1:], dtype=tensor.dtype)
