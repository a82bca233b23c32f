"""Models as ONNX files, for programs without minitl: `model.export("m.onnx", format="onnx")`.

The graph is written call by call, by one function per class of layer (`onnx_layers.py`), each with
the weights that it reads. minitl keeps channels last and ONNX's operators on images want them
first. So a `Value`, an array on its way, says how its axes stand, and is turned round only where
the next layer needs it. What the file computes is what `predict` does, in float32. Needs the
package `onnx`: `pip install 'minitl[onnx]'`.
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minitl.layers.base import Layer, Shape
from minitl.models.graph import Graph
from minitl.models.model import Model
from minitl.naming import check_keywords
from minitl.storage.atomic import replacing
from minitl.storage.digests import arrays_digest
from minitl.storage.door import extra

OPSET, IR = 17, 8  # of 2022: what runtimes read for some years now
LIMIT = 2**31  # bytes of a protobuf message


class OnnxError(ValueError):
    """The model, or a layer of it, has no counterpart in ONNX; the message says which and why."""


class Value(NamedTuple):
    """An array of the ONNX graph: its name there, and its shape as minitl has it, channels last,
    None where it is open. `first`: in the graph the channels stand at axis 1."""

    name: str
    shape: Shape
    first: bool = False

    def axis(self, axis: int) -> int:
        """Where in the graph this axis of minitl's stands."""
        axis %= len(self.shape)
        return axis if axis == 0 or not self.first else axis % (len(self.shape) - 1) + 1


Writer = Callable[["OnnxGraph", Any, Any], Any]
WRITERS: dict[type, Writer] = {}


def writes(*classes: type) -> Callable[[Writer], Writer]:
    """Decorator: the function (graph, layer, x) puts a layer of these classes into the graph.

    x is its input, a Value, or a list of them. It returns the output, or a list: a Value, or the
    name of an array whose channels are last. A layer of one's own can be given one.
    """

    def register(function: Writer) -> Writer:
        WRITERS.update(dict.fromkeys(classes, function))
        return function

    return register


class OnnxGraph:
    """Nodes and constants of an ONNX graph, as they are added."""

    def __init__(self) -> None:
        with extra("ONNX files need onnx", "onnx"):
            import onnx
        self.onnx: Any = onnx
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.names: set[str] = set()
        self.place = ""  # the layer that is being written, for names
        self._known: dict[Any, str] = {}  # constants and turned arrays that are there already
        self._kept: list[Any] = []  # so that an id stays what it is

    def unique(self, name: str) -> str:
        found, i = name, 0
        while found in self.names:
            found, i = f"{name}_{(i := i + 1)}", i
        self.names.add(found)
        return found

    def node(self, operator: str, *inputs: Any, outputs: Any = 1, **attributes: Any) -> Any:
        """Add a node; its inputs are names, or numbers and arrays, which become constants.

        Returns the name of its output, or a list of names."""
        given = [each if isinstance(each, str) else self.constant(each) for each in inputs]
        name = self.unique(f"{self.place}/{operator}")
        made = [name] + [self.unique(f"{name}:{i}") for i in range(1, outputs)]
        add = self.onnx.helper.make_node
        self.nodes.append(add(operator, given, made, name=name, **attributes))
        return made[0] if outputs == 1 else made

    def constant(self, array: Any, what: str = "constant") -> str:
        """The name of an array in the file: floats as float32, integers as int64."""
        array = np.asarray(array)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64, copy=False)
        key = (array.shape, array.dtype.str, array.tobytes()) if array.size < 64 else None
        if key is None or key not in self._known:
            name = self.unique(f"{self.place}/{what}")
            made = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
            self.constants.append(made)
            if key is None:
                return name
            self._known[key] = name
        return self._known[key]

    def weight(self, variable: Any, change: Callable[[Any], Any] | None = None) -> str:
        """The name of a weight, or of what `change` makes of it; a shared one is written once."""
        key = id(variable), None if change is None else change.__code__
        if key not in self._known:
            self._kept.append(variable)
            array = variable.storage if change is None else change(variable.storage)
            self._known[key] = self.constant(array, variable.name)
        return self._known[key]

    def first(self, x: Value) -> str:
        """x with its channels at axis 1."""
        n = len(x.shape)
        return x.name if x.first or n < 3 else self._turned(x, (0, n - 1, *range(1, n - 1)))

    def last(self, x: Value) -> str:
        """x with its axes in minitl's order."""
        n = len(x.shape)
        return self._turned(x, (0, *range(2, n), 1)) if x.first and n > 2 else x.name

    def _turned(self, x: Value, order: Sequence[int]) -> str:
        key = "turned", x.name, x.first
        if key not in self._known:
            self._known[key] = self.node("Transpose", x.name, perm=list(order))
        return self._known[key]

    def add(self, layer: Layer, x: Any, training: bool | None = False) -> list[Value]:
        """The outputs of a layer for x, a Value or a list of them; of a model inside, its graph."""
        if (model := layer.as_graph()) is not None:
            return self.run(model.graph, x if isinstance(x, list) else [x], training)
        write = WRITERS.get(type(layer))
        if write is None:
            how = "write it with `@minitl.storage.onnx_export.writes`, or leave it out"
            raise OnnxError(f"{layer} has no counterpart in ONNX: {how}")
        if training and (layer.random or not all(v.learnable for v in layer.weights)):
            raise OnnxError(f"{layer} is called with training=True, which ONNX cannot repeat")
        outside, self.place = self.place, f"{self.place}/{layer.name}".lstrip("/")
        try:
            found = write(self, layer, x)
        finally:
            self.place = outside
        given = [v.shape for v in x] if isinstance(x, list) else x.shape
        shapes = layer.compute_output_shape(given)
        several = isinstance(shapes, list)
        pairs = zip(found if several else [found], shapes if several else [shapes], strict=True)
        return [Value(v, s) if isinstance(v, str) else v._replace(shape=s) for v, s in pairs]

    def run(self, graph: Graph, given: list[Value], training: bool | None = False) -> list[Value]:
        """The outputs of a graph of minitl's for these inputs."""
        values = {id(t): value for t, value in zip(graph.inputs, given, strict=True)}
        for call in graph.calls:
            x = [values[id(t)] for t in call.inputs]
            mode = training if call.training is None else call.training
            found = self.add(call.layer, x if call.as_list else x[0], mode)
            values |= {id(t): value for t, value in zip(call.outputs, found, strict=True)}
        return [values[id(t)] for t in graph.outputs]

    def model(self, model: Model, prepare: Any) -> Any:
        """The whole as a ModelProto; `prepare` as in `export_model`."""
        helper, kind = self.onnx.helper, self.onnx.TensorProto.FLOAT
        inputs, given = [], []
        for name, t in zip(model.input_names, model.inputs, strict=True):
            shape = [f"{name}_{i}" if n is None else n for i, n in enumerate(t.shape)]
            info = helper.make_tensor_value_info(self.unique(name), kind, ["N", *shape[1:]])
            inputs.append(info)
            given.append(Value(name, t.shape))
        if prepare is not None:
            self.place = "preprocessing"
            given = [_prepared(self, given[0], prepare)] if len(given) == 1 else _one_input(model)
            self.place = ""
        outputs, found = [], self.run(model.graph, given)
        for name, t, value in zip(model.output_names, model.outputs, found, strict=True):
            at = [name if name not in self.names else f"{name}:output"]
            self.names.update(at)
            self.nodes.append(helper.make_node("Identity", [self.last(value)], at, name=at[0]))
            shape = [f"{name}_{i}" if n is None else n for i, n in enumerate(t.shape)]
            outputs.append(helper.make_tensor_value_info(at[0], kind, ["N", *shape[1:]]))
        graph = helper.make_graph(self.nodes, model.name, inputs, outputs, self.constants)
        versions = {"opset_imports": [helper.make_opsetid("", OPSET)], "ir_version": IR}
        made = {"producer_name": "minitl", "producer_version": sys.modules["minitl"].__version__}
        return helper.make_model(graph, **versions, **made)


@check_keywords
def export_model(
    model: Model,
    filepath: str | Path,
    format: str = "onnx",
    verbose: bool | int | None = None,
    input_signature: Any = None,
    *,
    preprocess: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """Write the model to `filepath` as ONNX (opset 17), for ONNX Runtime and others.

    Args:
        filepath: whole or not at all, as all of minitl's files.
        format: 'onnx'; Keras's other formats are not there.
        verbose: 1 or True prints what was written.
        input_signature: only None: the inputs have the names and shapes of the model's.
        preprocess: e.g. `vgg16.preprocess_input`, for the file to take RGB images, 0-255: a
            function on images (N, H, W, 3) that does the same to every pixel, y = A x + b.

    The file says what `model.metadata` does (class names, say), and the weights' sha256.

    Raises ImportError without the package onnx, and OnnxError naming the layer that ONNX cannot
    express; no file is written then.
    """
    if format != "onnx":
        raise ValueError(f"minitl exports format='onnx' only, got {format!r}")
    if input_signature is not None:
        raise ValueError("input_signature is not there: make the model with the Input that it is")
    if model.as_graph() is None:
        own = "is no graph of layers: its class has a call of its own, or it is not built yet"
        raise OnnxError(f"{model} {own}")
    size = sum(4 * v.storage.size for v in model.weights)
    if size > LIMIT - 2**24:
        raise OnnxError(f"{model} has {size / 1e9:.1f} GB of weights; an ONNX file holds 2 GB")
    graph = OnnxGraph()
    proto = graph.model(model, preprocess)
    about = {str(k): v if isinstance(v, str) else json.dumps(v) for k, v in model.metadata.items()}
    about |= {
        "weights_sha256": arrays_digest(v.storage for v in model.weights),
        "input": "RGB images, 0-255" if preprocess is not None else "preprocessed",
    }
    graph.onnx.helper.set_model_props(proto, about)
    data = proto.SerializeToString()
    graph.onnx.checker.check_model(data)
    with replacing(filepath) as part:
        part.write_bytes(data)
    if verbose not in (None, 0, False):
        print(f"{model.name!r} is in {filepath}: {len(graph.nodes)} nodes, {len(data):,} bytes")


def _prepared(graph: OnnxGraph, x: Value, prepare: Callable[[np.ndarray], np.ndarray]) -> Value:
    """x as `prepare` makes it: A and b are found by trying it, and checked on noise."""
    if len(x.shape) != 4 or x.shape[3] != 3:
        raise OnnxError(f"preprocess is for RGB images (N, H, W, 3); the model takes {x.shape}")
    colours = np.vstack([np.zeros(3), 255 * np.eye(3)]).reshape(4, 1, 1, 3)
    zero, *ends = np.asarray(prepare(np.tile(colours, (1, 2, 2, 1))), np.float64)[:, 0, 0]
    a = (np.array(ends) - zero) / 255  # (3, 3): y_j = sum_i x_i a_ij + b_j
    noise = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.float64)
    found = np.asarray(prepare(noise.copy()), np.float64)
    wanted = noise @ a + zero
    if found.shape != wanted.shape or not np.allclose(found, wanted, 0, 1e-6 * abs(wanted).max()):
        raise OnnxError("preprocess does not do the same linear function A x + b to every pixel")
    name = graph.node("Conv", graph.first(x), a.T[:, :, None, None], zero)
    return Value(name, x.shape, True)


def _one_input(model: Model) -> Any:
    raise OnnxError(f"preprocess is for models of one input, {model} has {len(model.inputs)}")
