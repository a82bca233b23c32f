"""Each layer as nodes of an ONNX graph: `onnx_export.py` calls these functions.

A function takes the graph under construction, a layer, and its input as a `Value` (or a list). It
adds nodes and returns the output; layers that are a node or two stand in the table at the end.
Operators and their attributes are those of ONNX's opset 17 (https://onnx.ai/onnx/operators/).
Comments say where ONNX orders or counts otherwise than Keras.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from minitl import activations as act
from minitl import layers as k
from minitl import ops
from minitl.layers import augmentation, merging, pooling
from minitl.layers.sequences import recurrent, wrappers
from minitl.storage.onnx_export import WRITERS, OnnxError, OnnxGraph, Value, writes
from minitl.storage.onnx_export import export_model as export_model  # for `naming.part("onnx")`

END = np.iinfo(np.int64).max
# Activations that are one operator.
OPERATORS: dict[Any, tuple[str, dict[str, float]]] = {
    act.relu: ("Relu", {}),
    act.sigmoid: ("Sigmoid", {}),
    act.tanh: ("Tanh", {}),
    act.softplus: ("Softplus", {}),
    act.softsign: ("Softsign", {}),
    act.exponential: ("Exp", {}),
    act.elu: ("Elu", {"alpha": 1.0}),
    act.selu: ("Selu", {"alpha": 1.6732632423543772, "gamma": 1.0507009873554805}),
    act.leaky_relu: ("LeakyRelu", {"alpha": 0.2}),
    act.hard_sigmoid: ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    act.hard_silu: ("HardSwish", {}),
}


def activated(g: OnnxGraph, layer: Any, function: Any, x: Value) -> Value:
    """function(x), for one of minitl's activations."""
    if function is act.linear:
        return x
    if function in (act.softmax, ops.softmax, act.log_softmax):
        operator = "LogSoftmax" if function is act.log_softmax else "Softmax"
        y = g.node(operator, x.name, axis=x.axis(-1))
    elif function is act.relu6:
        y = g.node("Clip", x.name, 0.0, 6.0)
    elif function is act.silu:
        y = g.node("Mul", x.name, g.node("Sigmoid", x.name))
    elif function is act.gelu:  # x (1 + erf(x / sqrt(2))) / 2
        erf = g.node("Erf", g.node("Mul", x.name, 0.5**0.5))
        y = g.node("Mul", g.node("Mul", x.name, 0.5), g.node("Add", erf, 1.0))
    elif function in OPERATORS:
        operator, settings = OPERATORS[function]
        y = g.node(operator, x.name, **settings)
    else:
        name = getattr(function, "__name__", repr(function))
        raise OnnxError(f"{layer} has the activation {name}, which has no counterpart in ONNX")
    return x._replace(name=y)


@writes(k.Identity, k.Dropout, k.SpatialDropout1D, k.SpatialDropout2D, k.GaussianDropout)
def _unchanged(g: OnnxGraph, layer: Any, x: Value) -> Value:
    return x  # outside training


for _name in augmentation.__all__:
    if (_kind := getattr(augmentation, _name)) is not k.RandomCrop:
        writes(_kind)(_unchanged)


@writes(k.RandomCrop)
def _crop_and_scale(g: OnnxGraph, layer: Any, x: Value) -> Any:
    """Outside training: the largest centred part of the window's proportions, scaled to it."""
    h, w = _known(layer, x)
    rows = max(1, min(h, w * layer.height // layer.width))
    return _middle(g, layer, x, (rows, max(1, min(w, h * layer.width // layer.height))))


def _known(layer: Any, x: Value) -> tuple[int, int]:
    if len(x.shape) != 4 or x.shape[1] is None or x.shape[2] is None:
        raise OnnxError(f"{layer} needs images (N, H, W, C) of a known size, got {x.shape}")
    return x.shape[1], x.shape[2]


def _middle(
    g: OnnxGraph, layer: Any, x: Value, part: tuple[int, int], mode: str = "linear"
) -> Value:
    """The middle of images, so many rows and columns, scaled to the layer's size."""
    h, w = _known(layer, x)
    top, left = (h - part[0]) // 2, (w - part[1]) // 2
    y = sliced(g, g.first(x), (2, 3), (top, left), (top + part[0], left + part[1]))
    if part == (layer.height, layer.width):
        return Value(y, x.shape, True)
    return scaled(g, y, mode, (layer.height / part[0], layer.width / part[1]), x)


@writes(k.Resizing, k.CenterCrop)
def _resizing(g: OnnxGraph, layer: Any, x: Value) -> Value:
    h, w = _known(layer, x)
    crops = isinstance(layer, k.CenterCrop)
    if crops and h >= layer.height and w >= layer.width:
        return _middle(g, layer, x, (layer.height, layer.width))
    part = (h, w)
    if crops or layer.crop_to_aspect_ratio:
        part = min(h, int(w * layer.height / layer.width)) or 1, 0
        part = part[0], min(w, int(h * layer.width / layer.height)) or 1
    nearest = not crops and layer.interpolation == "nearest"
    return _middle(g, layer, x, part, "round" if nearest else "linear")


def sliced(g: OnnxGraph, x: str, axes: Any, starts: Any, ends: Any, steps: Any = None) -> str:
    return g.node("Slice", x, starts, ends, axes, *([] if steps is None else [steps]))


def scaled(g: OnnxGraph, x: str, mode: str, scales: Any, like: Value) -> Value:
    """Images x (N, C, H, W) in another size: 'linear'; 'nearest', blocks; 'round', by centres."""
    how = "asymmetric" if mode == "nearest" else "half_pixel"
    settings = {"mode": "linear" if mode == "linear" else "nearest", "nearest_mode": "floor"}
    settings |= {"coordinate_transformation_mode": how}
    settings |= {"nearest_mode": "round_prefer_ceil"} if mode == "round" else {}
    return Value(g.node("Resize", x, "", [1.0, 1.0, *scales], **settings), like.shape, True)


@writes(k.ReLU)
def _relu(g: OnnxGraph, layer: Any, x: Value) -> Value:
    """x where x > threshold, at most max_value; negative_slope (x - threshold) elsewhere."""
    most, threshold, slope = layer.max_value, float(layer.threshold), float(layer.negative_slope)
    y = x.name
    if threshold != 0 or slope != 0:
        y = g.node("Where", g.node("Greater", y, threshold), y, 0.0)
    y = g.node("Relu", y) if most is None else g.node("Clip", y, 0.0, float(most))
    if slope != 0:
        below = g.node("Min", g.node("Sub", x.name, threshold), 0.0)
        y = g.node("Add", y, g.node("Mul", below, slope))
    return x._replace(name=y)


def there(g: OnnxGraph, weight: Any) -> list[str]:
    """A weight that a layer may do without."""
    return [] if weight is None else [g.weight(weight)]


@writes(k.Dense)
def _dense(g: OnnxGraph, layer: Any, x: Value) -> Value:
    rows, kernel = g.last(x), g.weight(layer.kernel)
    bias = there(g, layer.bias)
    if len(x.shape) == 2:
        y = g.node("Gemm", rows, kernel, *bias)
    else:
        y = g.node("MatMul", rows, kernel)
        y = g.node("Add", y, *bias) if bias else y
    return activated(g, layer, layer.activation, Value(y, x.shape))


@writes(k.Conv2D, k.Conv1D, k.Conv2DTranspose)
def _convolution(g: OnnxGraph, layer: Any, x: Value) -> Value:
    def turned(w: np.ndarray) -> np.ndarray:
        return np.moveaxis(w, (-1, -2), (0, 1))  # HWIO -> OIHW, and a transposed one's HWOI -> IOHW

    how = _sliding(layer) | {"group": layer.groups}
    given = g.first(x), g.weight(layer.kernel, turned), *there(g, layer.bias)
    y = g.node("ConvTranspose" if "output_padding" in how else "Conv", *given, **how)
    return activated(g, layer, layer.activation, Value(y, x.shape, True))


@writes(k.DepthwiseConv2D, k.SeparableConv2D)
def _depthwise(g: OnnxGraph, layer: Any, x: Value) -> Value:
    def turned(w: np.ndarray) -> np.ndarray:
        return w.transpose(2, 3, 0, 1).reshape(-1, 1, *w.shape[:2])  # HWCM -> (C*M)1HW

    bias = there(g, layer.bias)
    separable = isinstance(layer, k.SeparableConv2D)
    given = g.first(x), g.weight(layer.kernel, turned), *([] if separable else bias)
    y = g.node("Conv", *given, group=x.shape[-1], **_sliding(layer))
    if separable:
        mixed = g.weight(layer.pointwise_kernel, lambda w: w.transpose(3, 2, 0, 1))
        y = g.node("Conv", y, mixed, *bias)
    return activated(g, layer, layer.activation, Value(y, x.shape, True))


def _sliding(layer: Any) -> dict[str, Any]:
    """Of odd padding Keras puts the larger half behind, and so does SAME_UPPER."""
    how = {"strides": np.atleast_1d(layer.strides).tolist()}
    if hasattr(layer, "dilation_rate"):
        how["dilations"] = np.atleast_1d(layer.dilation_rate).tolist()
    if layer.padding == "causal":
        return how | {"pads": [(layer.kernel_size - 1) * layer.dilation_rate, 0]}
    if isinstance(layer, k.Conv2DTranspose):  # windows reach beyond their strides, or leave gaps
        beyond = np.subtract(layer.kernel_size, layer.strides)
        cut = beyond.clip(0) if layer.padding == "same" else np.zeros_like(beyond)
        how["output_padding"] = (-beyond).clip(0).tolist()
        return how | {"pads": [*(cut // 2).tolist(), *(cut - cut // 2).tolist()]}
    return how | {"auto_pad": {"valid": "VALID", "same": "SAME_UPPER"}[layer.padding]}


@writes(k.MaxPooling2D, k.MaxPooling1D, k.AveragePooling2D, k.AveragePooling1D)
def _pool(g: OnnxGraph, layer: Any, x: Value) -> Value:
    size = layer.pool_size if isinstance(layer.pool_size, tuple) else (layer.pool_size,)
    largest = isinstance(layer, (k.MaxPooling2D, k.MaxPooling1D))
    operator = "MaxPool" if largest else "AveragePool"
    y = g.node(operator, g.first(x), kernel_shape=size, **_sliding(layer))
    return Value(y, x.shape, True)


@writes(pooling.GlobalAveragePooling1D, pooling.GlobalAveragePooling2D)
@writes(pooling.GlobalMaxPooling1D, pooling.GlobalMaxPooling2D)
def _global_pool(g: OnnxGraph, layer: Any, x: Value) -> Value:
    average = isinstance(layer, (pooling.GlobalAveragePooling1D, pooling.GlobalAveragePooling2D))
    axes = [x.axis(i) for i in range(1, len(x.shape) - 1)]
    how = {"axes": axes, "keepdims": int(layer.keepdims)}
    y = g.node("ReduceMean" if average else "ReduceMax", x.name, **how)
    return Value(y, x.shape, x.first and layer.keepdims)


MERGES = {merging.Add: "Add", merging.Subtract: "Sub", merging.Multiply: "Mul"}
MERGES |= {merging.Average: "Add", merging.Maximum: "Max", merging.Minimum: "Min"}


def _alike(g: OnnxGraph, values: list[Value]) -> tuple[list[str], bool]:
    """All with channels first, if they are already, or else last."""
    first = all(v.first for v in values)
    return [v.name if first else g.last(v) for v in values], first


@writes(*MERGES)
def _merge(g: OnnxGraph, layer: Any, x: list[Value]) -> Value:
    names, first = _alike(g, x)
    y = functools.reduce(lambda a, b: g.node(MERGES[type(layer)], a, b), names)
    if isinstance(layer, merging.Average):
        y = g.node("Div", y, float(len(x)))
    return Value(y, x[0].shape, first)


@writes(k.Concatenate)
def _concatenate(g: OnnxGraph, layer: Any, x: list[Value]) -> Value:
    names, first = _alike(g, x)
    axis = Value("", x[0].shape, first).axis(layer.axis)
    return Value(g.node("Concat", *names, axis=axis), x[0].shape, first)


def _last_axis(layer: Any, x: Value) -> Any:
    if layer.axis not in (-1, len(x.shape) - 1):
        raise ValueError(f"{layer} normalises axis {layer.axis}; export writes the last one only")
    return x.shape[-1]


@writes(k.BatchNormalization)
def _batch_normalization(g: OnnxGraph, layer: Any, x: Value) -> Value:
    c = _last_axis(layer, x)
    gamma = g.weight(layer.gamma) if layer.scale else np.ones(c)
    beta = g.weight(layer.beta) if layer.center else np.zeros(c)
    kept = [g.weight(v) for v in (layer.moving_mean, layer.moving_variance)]
    y = g.node("BatchNormalization", g.first(x), gamma, beta, *kept, epsilon=float(layer.epsilon))
    return Value(y, x.shape, len(x.shape) > 2)


@writes(k.LayerNormalization)
def _layer_normalization(g: OnnxGraph, layer: Any, x: Value) -> str:
    c = _last_axis(layer, x)
    gamma = g.weight(layer.gamma) if layer.scale else np.ones(c)
    beta = [g.weight(layer.beta)] if layer.center else []
    how = {"axis": -1, "epsilon": float(layer.epsilon)}
    return g.node("LayerNormalization", g.last(x), gamma, *beta, **how)


@writes(k.Embedding)
def _embedding(g: OnnxGraph, layer: Any, x: Value) -> str:
    if layer.mask_zero:
        raise ValueError(f"{layer} makes a mask, and in an ONNX file every step counts")
    index = g.node("Cast", g.last(x), to=g.onnx.TensorProto.INT64)
    return g.node("Gather", g.weight(layer.embeddings), index, axis=0)


@writes(k.Normalization)
def _normalization(g: OnnxGraph, layer: Any, x: Value) -> str:
    shift = layer.mean.astype(np.float32)
    deviation = np.maximum(np.sqrt(layer.variance.astype(np.float32)), np.float32(1e-7))
    if layer.invert:
        return g.node("Add", g.node("Mul", g.last(x), deviation), shift)
    return g.node("Div", g.node("Sub", g.last(x), shift), deviation)


# Arithmetic in a model's graph: ops of any number of arrays, and of one.
BINARY = {"add": "Add", "subtract": "Sub", "multiply": "Mul", "divide": "Div", "power": "Pow"}
BINARY |= {"true_divide": "Div", "maximum": "Max", "minimum": "Min", "matmul": "MatMul"}
UNARY = {"exp": "Exp", "log": "Log", "sqrt": "Sqrt", "abs": "Abs", "absolute": "Abs"}
UNARY |= {"negative": "Neg", "erf": "Erf", "sin": "Sin", "cos": "Cos", "floor": "Floor"}
REDUCING = {"mean": "ReduceMean", "sum": "ReduceSum", "max": "ReduceMax", "amax": "ReduceMax"}
REDUCING |= {"min": "ReduceMin", "prod": "ReduceProd"}


@writes(k.Operation)
def _operation(g: OnnxGraph, layer: Any, x: Any) -> str:
    """What a model computes between its layers, as far as it is among the ops above."""
    values = x if isinstance(x, list) else [x]

    def name_of(given: Any) -> str:
        if isinstance(given, dict) and "tensor" in given:
            return g.last(values[given["tensor"]])
        return g.constant(np.asarray(given, np.float32))

    op, function = layer.op, getattr(ops, layer.op)
    given = inspect.signature(function).bind(*layer.arguments, **layer.keywords)
    given.apply_defaults()
    first, *rest = given.args
    rest = [v["tuple"] if isinstance(v, dict) and "tuple" in v else v for v in rest]
    if op in BINARY:
        return g.node(BINARY[op], name_of(first), name_of(rest[0]))
    if op in UNARY:
        return g.node(UNARY[op], name_of(first))
    if op == "square":
        return g.node("Mul", name_of(first), name_of(first))
    if function in OPERATORS and rest in ([], [0.0, None, 0.0]):
        return activated(g, layer, function, Value(name_of(first), values[0].shape)).name
    if op in REDUCING:
        axes = [] if rest[0] is None else np.atleast_1d(rest[0]).tolist()
        how: dict[str, Any] = {"keepdims": int(rest[1])}
        if op == "sum":
            return g.node("ReduceSum", name_of(first), *([axes] if axes else []), **how)
        return g.node(REDUCING[op], name_of(first), **how, **({"axes": axes} if axes else {}))
    if op == "softmax":
        return g.node("Softmax", name_of(first), axis=rest[0])
    if op == "getitem":
        parts = rest[0] if isinstance(rest[0], list) else [rest[0]]
        if all(isinstance(p, dict) and "slice" in p for p in parts):
            return _getitem(g, name_of(first), [p["slice"] for p in parts])
    raise OnnxError(f"{layer} computes ops.{op}, which is not written to ONNX")


def _getitem(g: OnnxGraph, x: str, slices: list[Any]) -> str:
    """x[slices]: where Python leaves out a beginning or an end, the step says which it is."""
    forward = [step is None or step > 0 for _, _, step in slices]
    ends = [(0, END) if each else (END, -END) for each in forward]
    given = zip(slices, ends, strict=True)
    cut = [[e if n is None else n for n, e in zip(s[:2], end, strict=True)] for s, end in given]
    starts, stops = zip(*cut, strict=True)
    return sliced(g, x, range(len(slices)), starts, stops, [step or 1 for _, _, step in slices])


RECURRENT = {act.tanh: "Tanh", act.sigmoid: "Sigmoid", act.relu: "Relu", act.linear: "Affine"}


@writes(recurrent.LSTM, recurrent.GRU)
def _recurrent(g: OnnxGraph, layer: Any, x: Value) -> Any:
    """An LSTM or GRU. ONNX orders an LSTM's gates input, output, forget, candidate, and a GRU's as
    Keras does. Its steps come first, and what runs backwards returns steps in the order of time."""
    lstm, u = isinstance(layer, recurrent.LSTM), layer.units
    order = (0, 3, 1, 2) if lstm else (0, 1, 2)

    def gates(rows: np.ndarray) -> np.ndarray:
        """(..., G*U) in Keras's order -> (1, G*U, ...) in ONNX's."""
        parts = np.split(rows, len(order), axis=-1)
        return np.concatenate([parts[i] for i in order], axis=-1).T[None]

    bias = np.zeros((2, len(order) * u), np.float32)
    if layer.bias is not None:
        bias[: 2 if layer.bias.storage.ndim == 2 else 1] = layer.bias.storage
    inside, outside = RECURRENT[layer.recurrent_activation], RECURRENT[layer.activation]
    names = [inside, outside, outside] if lstm else [inside, outside]
    arrays = [g.weight(v, gates) for v in (layer.kernel, layer.recurrent_kernel)]
    both = np.concatenate([gates(b) for b in bias], axis=-1)
    how: dict[str, Any] = {"hidden_size": u, "activations": names}
    if affine := names.count("Affine"):  # y = alpha x + beta; the others take neither
        how |= {"activation_alpha": [1.0] * affine, "activation_beta": [0.0] * affine}
    if not lstm:
        how["linear_before_reset"] = int(layer.reset_after)
    how["direction"] = "reverse" if layer.go_backwards else "forward"
    steps = g.node("Transpose", g.last(x), perm=[1, 0, 2])  # (T, N, D)
    call = (steps, *arrays, both)
    y, *states = g.node("LSTM" if lstm else "GRU", *call, outputs=3 if lstm else 2, **how)
    states = [g.node("Squeeze", s, [0]) for s in states]  # (1, N, U)
    if layer.return_sequences:
        y = g.node("Squeeze", y, [1])  # (T, 1, N, U)
        y = g.node("Transpose", y, perm=[1, 0, 2])
        y = turned_round(g, y) if layer.go_backwards else y
    else:
        y = states[0]
    return [y, *states] if layer.return_state else y


def turned_round(g: OnnxGraph, x: str) -> str:
    """The steps of x (N, T, U) from the last to the first."""
    return sliced(g, x, [1], [-1], [-END], [-1])


@writes(wrappers.Bidirectional)
def _bidirectional(g: OnnxGraph, layer: Any, x: Value) -> Any:
    y, *states = g.add(layer.forward_layer, x)
    back, *more = g.add(layer.backward_layer, x)
    a, b = y.name, back.name
    if layer.forward_layer.return_sequences:
        b = turned_round(g, b)
    mode = layer.merge_mode
    if mode is None:
        outputs = [a, b]
    elif mode == "concat":
        outputs = [g.node("Concat", a, b, axis=-1)]
    else:
        outputs = [g.node("Mul" if mode == "mul" else "Add", a, b)]
        if mode == "ave":
            outputs = [g.node("Div", outputs[0], 2.0)]
    outputs += [s.name for s in (*states, *more)]
    return outputs if states or mode is None else outputs[0]


@writes(wrappers.TimeDistributed)
def _time_distributed(g: OnnxGraph, layer: Any, x: Value) -> str:
    """(N, T, ...) -> (N*T, ...), through the layer, and back."""
    given = g.last(x)

    def sizes(array: str, first: int, last: int = END) -> str:
        return sliced(g, g.node("Shape", array), [0], [first], [last])

    merged = g.node("Concat", [-1], sizes(given, 2), axis=0)
    frames = g.node("Reshape", given, merged)
    (y,) = g.add(layer.layer, Value(frames, (None, *x.shape[2:])))
    back = g.node("Concat", sizes(given, 0, 2), sizes(g.last(y), 1), axis=0)
    return g.node("Reshape", g.last(y), back)


@writes(k.ZeroPadding2D)
def _zero_padding(g: OnnxGraph, layer: Any, x: Value) -> Value:
    (top, bottom), (left, right) = layer.padding
    y = g.node("Pad", g.first(x), [0, 0, top, left, 0, 0, bottom, right])
    return Value(y, x.shape, True)


@writes(k.Cropping2D)
def _cropping(g: OnnxGraph, layer: Any, x: Value) -> Value:
    (top, bottom), (left, right) = layer.cropping
    ends = [-n or END for n in (bottom, right)]
    return Value(sliced(g, g.first(x), (2, 3), (top, left), ends), x.shape, True)


# Layers of a node or two, whose input has its axes in minitl's order.
TABLE: dict[type, Callable[[OnnxGraph, Any, str], str]] = {
    k.Flatten: lambda g, layer, x: g.node("Flatten", x, axis=1),
    # 0: as many samples as there are
    k.Reshape: lambda g, layer, x: g.node("Reshape", x, [0, *layer.target_shape]),
    k.Permute: lambda g, layer, x: g.node("Transpose", x, perm=[0, *layer.dims]),
    k.RepeatVector: lambda g, a, x: g.node("Expand", g.node("Unsqueeze", x, [1]), [1, a.n, 1]),
    k.Rescaling: lambda g, layer, x: g.node(
        "Add", g.node("Mul", x, np.float64(layer.scale)), np.float64(layer.offset)
    ),
    k.UnitNormalization: lambda g, layer, x: g.node(
        "Div", x, g.node("Max", g.node("ReduceL2", x, axes=[layer.axis], keepdims=1), 1e-12)
    ),
}
writes(*TABLE)(lambda g, layer, x: TABLE[type(layer)](g, layer, g.last(x)))
# Layers that keep the axes as they stand.
IN_PLACE: dict[type, Callable[[OnnxGraph, Any, Value], Value]] = {
    k.Activation: lambda g, layer, x: activated(g, layer, layer.activation, x),
    k.Softmax: lambda g, a, x: x._replace(name=g.node("Softmax", x.name, axis=x.axis(a.axis))),
    k.LeakyReLU: lambda g, layer, x: x._replace(
        name=g.node("LeakyRelu", x.name, alpha=float(layer.negative_slope))
    ),
    k.ELU: lambda g, layer, x: x._replace(name=g.node("Elu", x.name, alpha=float(layer.alpha))),
    k.UpSampling2D: lambda g, a, x: scaled(g, g.first(x), "nearest", [*map(float, a.size)], x),
}
WRITERS.update(IN_PLACE)
