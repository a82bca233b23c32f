"""Models: a graph of layer calls, run by filling a dictionary.

`Model(inputs, outputs)` walks back from the outputs to the inputs over the calls that the layers
wrote when they were called, and puts them in an order in which every call comes after those it
needs. To run the model is to go through that list with a dictionary from symbolic tensor to value;
a value is dropped as soon as its last reader has read it.

A Model is a Layer, so models nest. `Sequential` is a Model whose graph is a chain.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl.layers.base import Call, Layer, SymbolicTensor
from minitl.layers.core import Input, InputLayer
from minitl.models.batches import is_stream
from minitl.models.graph import Graph, multiply_adds
from minitl.models.prediction import check_shape
from minitl.models.training import Trainer
from minitl.naming import did_you_mean, unique_name


class Model(Trainer, Layer):
    """A graph of layers from `inputs` to `outputs`, that can be trained.

    Args:
        inputs: a symbolic tensor, a list of them, or a dict by name (in the order of the names, as
            in Keras). They may be intermediate tensors of another graph: the model then starts
            there.
        outputs: a symbolic tensor, or a list of them.
        name: of the model.

    `metadata` is a dictionary of the user's own (class names, say), saved with the model as JSON.

    Raises ValueError when an output depends on an input that is not among `inputs` ('graph
    disconnected'), or when two layers have one name.
    """

    several_inputs = None
    _training_unless_told = None  # each layer's own

    def __init__(
        self,
        inputs: Any = None,
        outputs: Any = None,
        name: str | None = None,
        trainable: bool = True,
    ):
        if inputs is None or outputs is None:
            raise TypeError("Model needs inputs and outputs: Model(inputs=..., outputs=...)")
        super().__init__(name=name or unique_name("functional"))
        self._init_training()
        self.metadata: dict[str, Any] = {}
        self.all_layers: list[Layer] = []
        self._connect_graph(inputs, outputs)
        if not trainable:
            self.trainable = False

    def _connect_graph(self, inputs: Any, outputs: Any) -> None:
        """Find the calls between inputs and outputs, their order, and the layers' order."""
        self.inputs = _symbolic_list(inputs, "inputs")
        self.outputs = _symbolic_list(outputs, "outputs")
        self._single_input = not isinstance(inputs, (list, tuple, dict))
        self._single_output = not isinstance(outputs, (list, tuple, dict))
        if len({id(t) for t in self.inputs}) != len(self.inputs):
            raise ValueError("the same tensor is given twice among the inputs")
        starts = [_input_layer_of(t) for t in self.inputs]
        self.input_layers = starts
        order, met = _order(self.inputs, starts, self.outputs)
        self.graph = Graph(self.inputs, order, self.outputs)
        self.all_layers = _layers_by_depth(self.inputs, starts, order, met)
        counts = Counter(layer.name for layer in self.all_layers)
        twice = [name for name, n in counts.items() if n > 1]
        if twice:
            raise ValueError(
                f"layer names must be unique in a model; used more than once: {', '.join(twice)}"
            )
        self.input_names = [layer.name for layer in starts]
        self.output_names = _output_names(self.outputs)
        self.dtype = self.outputs[0].dtype
        self.built = True

    # --- Running ---

    def call(
        self, x: Any, training: bool | None = None, rng: np.random.Generator | None = None
    ) -> Any:
        given = x if isinstance(x, list) else [x]
        if len(given) != len(self.inputs):
            raise ValueError(f"{self.name!r} has {len(self.inputs)} inputs, got {len(given)}")
        for tensor, value in zip(self.inputs, given, strict=True):
            check_shape(value.shape, tensor.shape, self.name)
        entered = [layer(value) for layer, value in zip(self.input_layers, given, strict=True)]
        del given, x
        found = self.graph.run(entered, training, rng)
        return found[0] if self._single_output else found

    def _shapes(self, input_shapes: list[Any]) -> dict[int, Any]:
        """The shape of every symbolic tensor, for inputs of these shapes: the graph run on
        shapes."""
        shapes: dict[int, Any] = {}
        for tensor, shape in zip(self.inputs, input_shapes, strict=True):
            shapes[id(tensor)] = tuple(shape)
        for call in self.graph.calls:
            inner = [shapes[id(t)] for t in call.inputs]
            found = call.layer.compute_output_shape(inner if call.as_list else inner[0])
            found = found if isinstance(found, list) else [found]
            shapes.update((id(t), s) for t, s in zip(call.outputs, found, strict=True))
        return shapes

    def compute_output_shape(self, input_shape: Any) -> Any:
        shapes = self._shapes(input_shape if isinstance(input_shape, list) else [input_shape])
        found = [shapes[id(t)] for t in self.outputs]
        return found[0] if self._single_output else found

    def largest_step(self, input_shapes: list[Any]) -> int:
        """The numbers that one call reads and writes, for one sample, where it is most."""
        shapes = self._shapes(input_shapes)
        steps = [
            call.layer.largest_step([shapes[id(t)] for t in call.inputs])
            for call in self.graph.calls
        ]
        return max(steps, default=1)

    # --- Layers ---

    def as_graph(self) -> Model | None:
        return self if type(self).call is Model.call and self.outputs else None

    def sublayers(self) -> Iterable[Layer]:
        return self.all_layers

    @property
    def layers(self) -> list[Layer]:
        """The layers, inputs first, in Keras's order (by distance from the outputs)."""
        return list(self.all_layers)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name, or at that index in `layers`."""
        if (name is None) == (index is None):
            raise ValueError("get_layer takes either a name or an index")
        if index is not None:
            if not -len(self.all_layers) <= index < len(self.all_layers):
                raise ValueError(
                    f"{self.name!r} has {len(self.all_layers)} layers, no index {index}"
                )
            return self.all_layers[index]
        for layer in self.all_layers:
            if layer.name == name:
                return layer
        names = [layer.name for layer in self.all_layers]
        raise ValueError(f"{self.name!r} has no layer {name!r}. {did_you_mean(str(name), names)}")

    @property
    def input(self) -> Any:
        return self.inputs[0] if self._single_input else list(self.inputs)

    @property
    def output(self) -> Any:
        return self.outputs[0] if self._single_output else list(self.outputs)

    @property
    def input_shape(self) -> Any:
        shapes = [t.shape for t in self.inputs]
        return shapes[0] if self._single_input else shapes

    @property
    def output_shape(self) -> Any:
        shapes = [t.shape for t in self.outputs]
        return shapes[0] if self._single_output else shapes

    def multiply_adds(self, input_shape: Any = None) -> int:
        """Multiply-adds of one sample through the whole model."""
        return sum(multiply_adds(call) for call in self.graph.calls)

    def freeze_until(self, layer: str | Layer) -> list[Layer]:
        """Freeze all layers that `layer` (or a block) is computed from: `transfer.freeze_until`."""
        from minitl.transfer import stages as transfer

        return transfer.freeze_until(self, layer)

    def unfreeze_from(self, layer: str | Layer, batch_norm: bool = False) -> list[Layer]:
        """Unfreeze `layer` and what does not come before it: `transfer.unfreeze_from`."""
        from minitl.transfer import stages as transfer

        return transfer.unfreeze_from(self, layer, batch_norm)

    # --- Summary ---

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Callable[[str], None] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Sequence[str] | None = None,
    ) -> None:
        """Print a table of the layers: output shape, parameters, multiply-adds, trainable.

        Args:
            line_length: total width; as wide as needed when None.
            print_fn: called with the whole text, instead of print.
            expand_nested: show the layers of models inside this one.
            layer_range: (first, last): only the layers from one name to another, both included.
                Each is a regular expression that a name begins with. Totals are the model's.
            positions, show_trainable: Keras's. Columns are as wide as what stands in them, and
                what is trainable is always shown.

        Raises ValueError when no layer has a name of `layer_range`.
        """
        from minitl.models import summary

        layers = summary.layers_between(self.all_layers, layer_range)
        (print_fn or print)(summary.table(self, layers, expand_nested, line_length))

    # --- Files ---

    def save(self, filepath: str | Path, overwrite: bool = True) -> None:
        """Write architecture and weights to one HDF5 file, in Keras's layout (`.h5`)."""
        from minitl.storage import keras_models as saving

        saving.save_model(self, filepath, overwrite)

    def save_weights(self, filepath: str | Path, overwrite: bool = True) -> None:
        """Write the weights to an HDF5 file that Keras reads too: 'name.weights.h5', Keras 3's
        form, or 'name.h5', the older one.

        Of the older form Keras reads the weights of a frozen model inside a model in another
        order, and refuses them: load first there, and freeze then, or use '.weights.h5'.
        """
        from minitl.storage import keras_models as saving

        saving.save_weights(self, filepath, overwrite)

    def __reduce__(self) -> Any:
        """For `copy.deepcopy` and pickle: as a file of `save`, so without the optimizer's state."""
        from minitl.storage import keras_models as saving

        return saving.from_bytes, (saving.to_bytes(self),)

    def load_weights(
        self, filepath: str | Path, skip_mismatch: bool = False, by_name: bool = False
    ) -> None:
        """Read weights from an HDF5 file of minitl or Keras. All or nothing: on error no weight
        has changed, and the error lists everything that does not fit."""
        from minitl.storage import keras_models as saving

        saving.load_weights(self, filepath, skip_mismatch, by_name)

    def get_config(self) -> dict[str, Any]:
        """Keras's description of a functional graph: layers, and where each call's inputs come
        from."""
        places = {id(t): (t.call, t.index) for t in self.inputs}
        members = {id(call) for call in self.graph.calls}
        # Only the calls inside this model count: a layer's first call in it has index 0.
        number: dict[int, int] = {}
        seen: Counter[int] = Counter()
        for call in self.graph.calls:
            number[id(call)] = seen[id(call.layer)]
            seen[id(call.layer)] += 1

        def reference(tensor: SymbolicTensor) -> list[Any]:
            if id(tensor) in places:
                position = next(i for i, t in enumerate(self.inputs) if t is tensor)
                return [self.input_layers[position].name, 0, 0]
            return [tensor.call.layer.name, number[id(tensor.call)], tensor.index]

        def output_reference(tensor: SymbolicTensor) -> list[Any]:
            name, number_of_call, index = reference(tensor)
            # Here, and only here, Keras counts the calls of a functional model from 1 on.
            return [name, number_of_call + (class_name(tensor.call.layer) == "Functional"), index]

        described = []
        for layer in self.all_layers:
            calls = [n for n in self.graph.calls if n.layer is layer and id(n) in members]
            described.append(
                {
                    "class_name": class_name(layer),
                    "config": layer.get_config(),
                    "name": layer.name,
                    "inbound_nodes": [
                        [[*reference(t), _call_arguments(n)] for t in n.inputs] for n in calls
                    ],
                }
            )
        return {
            "name": self.name,
            "trainable": self.trainable,
            "layers": described,
            "input_layers": [reference(t) for t in self.inputs],
            "output_layers": [output_reference(t) for t in self.outputs],
        }

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> Model:
        """The model that `get_config` described; also reads what Keras writes."""
        from minitl.storage import keras_models as saving

        return saving.model_from_config(settings)

    def to_json(self) -> str:
        """The architecture as JSON."""
        return json.dumps({"class_name": class_name(self), "config": self.get_config()})

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}, {len(self.all_layers)} layers>"


class Sequential(Model):
    """A chain of layers.

    Args:
        layers: in order. If the first is an Input (or an InputLayer), shapes are known at once;
            otherwise when the model first meets data.
    """

    def __init__(
        self, layers: Sequence[Any] | None = None, trainable: bool = True, name: str | None = None
    ):
        Layer.__init__(self, name=name)
        self._init_training()
        self.metadata = {}
        self._chain: list[Layer] = []
        self._path: list[SymbolicTensor] = []  # the input, then the output of each layer
        self.inputs, self.outputs = [], []
        self.input_names, self.output_names = [], []
        self.all_layers: list[Layer] = []
        self.input_layers: list[InputLayer] = []
        self.graph = Graph([], [], [])
        self._single_input = self._single_output = True
        for layer in layers or []:
            self._append(layer)
        self._connect_chain()
        if not trainable:
            self.trainable = False

    def add(self, layer: Any) -> None:
        """Append a layer."""
        self._append(layer)
        self._connect_chain()

    def _append(self, layer: Any) -> None:
        if isinstance(layer, SymbolicTensor):
            layer = layer.call.layer
        if not isinstance(layer, Layer):
            raise TypeError(f"a Sequential is made of layers, got {layer!r}")
        if isinstance(layer, InputLayer):
            if self._chain or self._path:
                raise ValueError("an Input comes first in a Sequential")
            self._path = [layer.output]
            return
        if any(layer.name == other.name for other in self._chain):
            raise ValueError(f"the Sequential already has a layer named {layer.name!r}")
        if not self._path and not self._chain and isinstance(layer, Model) and layer.inputs:
            self._path = [Input(layer.input_shape[1:], dtype=layer.inputs[0].dtype)]
        if self._path:
            self._path.append(layer(self._path[-1]))
        self._chain.append(layer)

    def pop(self) -> Layer:
        """Remove the last layer and return it."""
        if not self._chain:
            raise ValueError("there are no layers to remove")
        layer = self._chain.pop()
        if self._path:
            self._path.pop()
        self._connect_chain()
        return layer

    def _connect_chain(self) -> None:
        if self._path and self._chain:
            self._connect_graph(self._path[0], self._path[-1])
            # Keras makes a functional model inside at this point; it takes one of the names.
            unique_name("functional")
        else:  # no shapes yet
            self.inputs, self.outputs = [], []
            self.all_layers = list(self._chain)

    def build(self, input_shape: Any = None) -> None:
        """Fix the input's shape (batch axis first, may be None) and make the weights."""
        if self._path:
            return
        if input_shape is None:
            raise ValueError(f"{self.name!r} needs an input shape: start it with an Input")
        fresh = [layer for layer in self._chain if not layer.built]
        path = [Input(tuple(input_shape)[1:], dtype=self._chain[0].dtype)]
        try:
            for layer in self._chain:
                path.append(layer(path[-1]))
        except BaseException:  # the next shape may fit
            for layer in fresh:
                layer.unbuild()
            raise
        self._path = path
        self._connect_chain()

    @property
    def layers(self) -> list[Layer]:
        """The layers, without the input, as in Keras."""
        return list(self._chain)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        if index is not None and name is None and -len(self._chain) <= index < len(self._chain):
            return self._chain[index]
        return super().get_layer(name, index)

    def build_for(self, x: Any) -> None:
        if not self._path and self._chain:
            if is_stream(x):
                raise ValueError(
                    f"{self.name!r} does not know its input's shape, which batches cannot tell "
                    f"in advance: start it with an Input, or call build"
                )
            self.build(np.shape(x))

    def __call__(self, x: Any, training: bool | None = None, rng: Any = None) -> Any:
        if not self._path and self._chain:
            self.build(x.shape if hasattr(x, "shape") else np.shape(x))
        if not self.outputs:
            raise ValueError(f"the Sequential {self.name!r} has no layers yet")
        return super().__call__(x, training, rng)

    def get_config(self) -> dict[str, Any]:
        described = []
        if self._path:
            described.append(self._path[0].call.layer)
        return {
            "name": self.name,
            "trainable": self.trainable,
            "layers": [
                {"class_name": class_name(layer), "config": layer.get_config()}
                for layer in [*described, *self._chain]
            ],
        }


# --- The graph -----------------------------------------------------------------------------------


def _symbolic_list(value: Any, what: str) -> list[SymbolicTensor]:
    if isinstance(value, dict):
        value = _by_name(value, what)
    tensors = list(value) if isinstance(value, (list, tuple)) else [value]
    for t in tensors:
        if not isinstance(t, SymbolicTensor):
            raise TypeError(
                f"{what} of a Model are symbolic tensors (from Input or from calling layers), "
                f"got {type(t).__name__}"
            )
    if not tensors:
        raise ValueError(f"a Model needs {what}")
    return tensors


def _by_name(tensors: dict[str, Any], what: str) -> list[Any]:
    """Inputs in the order in which Keras takes a dict."""
    if what == "outputs":
        raise TypeError(
            f"outputs of a Model are a list here, not a dict (its keys were {list(tensors)}): "
            f"predict returns a list in the same order, and fit takes dicts by layer name"
        )
    for name, tensor in tensors.items():
        if isinstance(tensor, SymbolicTensor) and tensor.name != name:
            raise ValueError(
                f"the input under the key {name!r} has the name {tensor.name!r}: make it with "
                f"Input(..., name={name!r})"
            )
    names = tensors if isinstance(tensors, OrderedDict) else sorted(tensors)
    return [tensors[name] for name in names]


def _input_layer_of(tensor: SymbolicTensor) -> InputLayer:
    """The InputLayer that made the tensor; for an intermediate tensor, a new one in its place."""
    if isinstance(tensor.call.layer, InputLayer):
        return tensor.call.layer
    return InputLayer(tensor.shape[1:], dtype=tensor.dtype)


def _order(
    inputs: list[SymbolicTensor], starts: list[InputLayer], outputs: list[SymbolicTensor]
) -> tuple[list[Call], list[Layer]]:
    """The calls between inputs and outputs, each after those whose outputs it reads; and the
    layers in the order in which the walk back from the outputs met them."""
    given = {id(t): start for t, start in zip(inputs, starts, strict=True)}
    order: list[Call] = []
    met: dict[int, Layer] = {}
    done: set[int] = set()
    stack = [(t, False) for t in reversed(outputs)]
    while stack:
        tensor, inputs_done = stack.pop()
        call = tensor.call
        if id(tensor) in given:
            met.setdefault(id(given[id(tensor)]), given[id(tensor)])
        elif inputs_done:
            done.add(id(call))
            order.append(call)
        elif id(call) not in done:
            if isinstance(call.layer, InputLayer):
                raise ValueError(
                    f"graph disconnected: an output depends on the input {call.layer.name!r}, "
                    f"which is not among the model's inputs {[t.name for t in inputs]}"
                )
            met.setdefault(id(call.layer), call.layer)
            stack.append((tensor, True))
            stack.extend((t, False) for t in reversed(call.inputs))
    for t in inputs:
        if id(given[id(t)]) not in met:
            raise ValueError(f"graph disconnected: no output depends on the input {t.name!r}")
    return order, list(met.values())


def _layers_by_depth(
    inputs: list[SymbolicTensor],
    starts: list[InputLayer],
    order: list[Call],
    met: list[Layer],
) -> list[Layer]:
    """The layers, those farthest from the outputs first: the order of Keras's weight files.

    A call's depth is the longest way from it to an output; a layer's depth is that of its deepest
    call. Layers of one depth stand in the order in which the walk met them.
    """
    depth: dict[int, int] = {}
    layer_depth: dict[int, int] = {}
    makers = {id(t): call for call in order for t in call.outputs}
    given = {id(t): start for t, start in zip(inputs, starts, strict=True)}
    for call in reversed(order):
        d = max(depth.get(id(call), 0), layer_depth.get(id(call.layer), 0))
        depth[id(call)] = layer_depth[id(call.layer)] = d
        for tensor in call.inputs:
            if id(tensor) in given:
                start = given[id(tensor)]
                layer_depth[id(start)] = max(layer_depth.get(id(start), 0), d + 1)
            else:
                maker = makers[id(tensor)]
                depth[id(maker)] = max(depth.get(id(maker), 0), d + 1)
    return sorted(met, key=lambda layer: -layer_depth.get(id(layer), 0))


def _output_names(outputs: list[SymbolicTensor]) -> list[str]:
    names: list[str] = []
    for t in outputs:
        names.append(t.name if t.name not in names else f"{t.name}_{names.count(t.name)}")
    return names


def class_name(layer: Layer) -> str:
    """The name of a layer's class in Keras's files: 'Functional' for a Model."""
    return "Functional" if type(layer) is Model else type(layer).__name__


def _call_arguments(call: Call) -> dict[str, Any]:
    return {} if call.training is None else {"training": call.training}


def load_model(filepath: str | Path, *, compile: bool = True) -> Model:
    """A model from a file that `Model.save` wrote (or Keras's `model.save('x.h5')`)."""
    from minitl.storage import keras_models as saving

    return saving.load_model(filepath, compile)


def model_from_json(json_string: str) -> Model:
    """The architecture that `Model.to_json` wrote, with fresh weights."""
    described = json.loads(json_string)
    if described["class_name"] == "Sequential":
        return Sequential.from_config(described["config"])
    return Model.from_config(described["config"])


__all__ = ["Input", "Model", "Sequential", "load_model", "model_from_json"]
