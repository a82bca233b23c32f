"""Each layer as nodes of an ONNX graph: `onnx_export.py` calls these functions.

A function takes the graph under construction, a layer, and its input as a `Value` (or a list). It
adds nodes and returns the output. Operators and their attributes are those of ONNX's opset 17
(https://onnx.ai/onnx/operators/). Comments say where ONNX orders or counts otherwise than Keras.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from minitl import activations as act
from minitl import layers as k
from minitl.layers import augmentation, merging, pooling
from minitl.layers.sequences import recurrent, wrappers
from minitl.storage.onnx_export import OnnxError, OnnxGraph, Value, writes
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
    if function in (act.softmax, act.log_softmax):
        operator = "Softmax" if function is act.softmax else "LogSoftmax"
        return x._replace(name=g.node(operator, x.name, axis=x.axis(-1)))
    if function is act.relu6:
        return x._replace(name=clipped(g, x.name, 0.0, 6.0))
    if function is act.silu:
        return x._replace(name=g.node("Mul", x.name, g.node("Sigmoid", x.name)))
    if function is act.gelu:  # x (1 + erf(x / sqrt(2))) / 2
        erf = g.node("Erf", g.node("Mul", x.name, g.constant(0.5**0.5)))
        half = g.node("Mul", x.name, g.constant(0.5))
        return x._replace(name=g.node("Mul", half, g.node("Add", erf, g.constant(1.0))))
    if function not in OPERATORS:
        name = getattr(function, "__name__", repr(function))
        raise OnnxError(f"{layer} has the activation {name}, which has no counterpart in ONNX")
    operator, settings = OPERATORS[function]
    return x._replace(name=g.node(operator, x.name, **settings))


def clipped(g: OnnxGraph, x: str, low: float | None, high: float | None) -> str:
    return g.node("Clip", x, *("" if v is None else g.constant(float(v)) for v in (low, high)))


@writes(k.Identity, k.Dropout, k.SpatialDropout1D, k.SpatialDropout2D, k.GaussianDropout)
def _unchanged(g: OnnxGraph, layer: Any, x: Value) -> Value:
    return x  # outside training


for _name in augmentation.__all__:
    if (_kind := getattr(augmentation, _name)) is not k.RandomCrop:
        writes(_kind)(_unchanged)


@writes(k.RandomCrop)
def _crop_and_scale(g: OnnxGraph, layer: Any, x: Value) -> Any:
    """Outside training: the largest centred part of the window's proportions, scaled to it."""
    _, h, w, _ = x.shape
    if h is None or w is None:
        raise OnnxError(f"{layer} needs images of a known size, got {x.shape}")
    rows = max(1, min(h, w * layer.height // layer.width))
    columns = max(1, min(w, h * layer.width // layer.height))
    top, left = (h - rows) // 2, (w - columns) // 2
    part = sliced(g, g.first(x), (2, 3), (top, left), (top + rows, left + columns))
    return scaled(g, part, "linear", (layer.height / rows, layer.width / columns), x)


def sliced(g: OnnxGraph, x: str, axes: Any, starts: Any, ends: Any, steps: Any = None) -> str:
    numbers = [np.array(n) for n in (starts, ends, axes, *([] if steps is None else [steps]))]
    return g.node("Slice", x, *map(g.constant, numbers))


def scaled(g: OnnxGraph, x: str, mode: str, scales: Any, like: Value) -> Value:
    how = "half_pixel" if mode == "linear" else "asymmetric"
    settings = {"mode": mode, "coordinate_transformation_mode": how, "nearest_mode": "floor"}
    factors = g.constant(np.array([1.0, 1.0, *scales]))
    return Value(g.node("Resize", x, "", factors, **settings), like.shape, True)


@writes(k.Activation)
def _activation(g: OnnxGraph, layer: Any, x: Value) -> Value:
    return activated(g, layer, layer.activation, x)


@writes(k.Softmax)
def _softmax(g: OnnxGraph, layer: Any, x: Value) -> Value:
    return x._replace(name=g.node("Softmax", x.name, axis=x.axis(layer.axis)))


@writes(k.LeakyReLU, k.ELU)
def _leaky(g: OnnxGraph, layer: Any, x: Value) -> Value:
    leaky = isinstance(layer, k.LeakyReLU)
    alpha = float(layer.negative_slope if leaky else layer.alpha)
    return x._replace(name=g.node("LeakyRelu" if leaky else "Elu", x.name, alpha=alpha))


@writes(k.ReLU)
def _relu(g: OnnxGraph, layer: Any, x: Value) -> Value:
    """x where x > threshold, at most max_value; negative_slope (x - threshold) elsewhere."""
    most, threshold, slope = layer.max_value, float(layer.threshold), float(layer.negative_slope)
    if threshold == 0 and slope == 0:
        y = g.node("Relu", x.name) if most is None else clipped(g, x.name, 0.0, most)
        return x._replace(name=y)
    at, zero = g.constant(threshold), g.constant(0.0)
    y = g.node("Where", g.node("Greater", x.name, at), x.name, zero)
    y = y if most is None else clipped(g, y, 0.0, most)
    below = g.node("Min", g.node("Sub", x.name, at), zero)
    return x._replace(name=g.node("Add", y, g.node("Mul", below, g.constant(slope))))


@writes(k.Dense)
def _dense(g: OnnxGraph, layer: Any, x: Value) -> Value:
    rows, kernel = g.last(x), g.weight(layer.kernel)
    bias = [] if layer.bias is None else [g.weight(layer.bias)]
    if len(x.shape) == 2:
        y = g.node("Gemm", rows, kernel, *bias)
    else:
        y = g.node("MatMul", rows, kernel)
        y = g.node("Add", y, *bias) if bias else y
    return activated(g, layer, layer.activation, Value(y, x.shape))


@writes(k.Conv2D)
def _conv2d(g: OnnxGraph, layer: Any, x: Value) -> Value:
    kernel = g.weight(layer.kernel, lambda w: w.transpose(3, 2, 0, 1))  # HWIO -> OIHW
    bias = [] if layer.bias is None else [g.weight(layer.bias)]
    how = {"kernel_shape": layer.kernel_size, **_sliding(layer)}
    y = g.node("Conv", g.first(x), kernel, *bias, **how)
    return activated(g, layer, layer.activation, Value(y, x.shape, True))


def _sliding(layer: Any) -> dict[str, Any]:
    """Of odd padding Keras puts the larger half behind, and so does SAME_UPPER."""
    strides = layer.strides if isinstance(layer.strides, tuple) else (layer.strides,)
    return {"strides": strides, "auto_pad": {"valid": "VALID", "same": "SAME_UPPER"}[layer.padding]}


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
        y = g.node("Div", y, g.constant(float(len(x))))
    return Value(y, x[0].shape, first)


@writes(k.Concatenate)
def _concatenate(g: OnnxGraph, layer: Any, x: list[Value]) -> Value:
    names, first = _alike(g, x)
    axis = Value("", x[0].shape, first).axis(layer.axis)
    return Value(g.node("Concat", *names, axis=axis), x[0].shape, first)


@writes(k.BatchNormalization)
def _batch_normalization(g: OnnxGraph, layer: Any, x: Value) -> Value:
    c = x.shape[-1]
    gamma = g.weight(layer.gamma) if layer.scale else g.constant(np.ones(c), "gamma")
    beta = g.weight(layer.beta) if layer.center else g.constant(np.zeros(c), "beta")
    kept = [g.weight(v) for v in (layer.moving_mean, layer.moving_variance)]
    how = {"epsilon": float(layer.epsilon)}
    y = g.node("BatchNormalization", g.first(x), gamma, beta, *kept, **how)
    return Value(y, x.shape, len(x.shape) > 2)


@writes(k.LayerNormalization)
def _layer_normalization(g: OnnxGraph, layer: Any, x: Value) -> str:
    gamma = g.weight(layer.gamma) if layer.scale else g.constant(np.ones(x.shape[-1]), "gamma")
    beta = [g.weight(layer.beta)] if layer.center else []
    how = {"axis": -1, "epsilon": float(layer.epsilon)}
    return g.node("LayerNormalization", g.last(x), gamma, *beta, **how)


@writes(k.UnitNormalization)
def _unit_normalization(g: OnnxGraph, layer: Any, x: Value) -> str:
    length = g.node("ReduceL2", g.last(x), axes=[-1], keepdims=1)
    return g.node("Div", g.last(x), g.node("Max", length, g.constant(1e-12)))


@writes(k.Rescaling)
def _rescaling(g: OnnxGraph, layer: Any, x: Value) -> str:
    scale, offset = (np.asarray(n, np.float64) for n in (layer.scale, layer.offset))
    return g.node("Add", g.node("Mul", g.last(x), g.constant(scale)), g.constant(offset))


@writes(k.Flatten)
def _flatten(g: OnnxGraph, layer: Any, x: Value) -> str:
    return g.node("Flatten", g.last(x), axis=1)


@writes(k.Reshape)
def _reshape(g: OnnxGraph, layer: Any, x: Value) -> str:
    shape = np.array([0, *layer.target_shape])  # 0: as many samples as there are
    return g.node("Reshape", g.last(x), g.constant(shape))


@writes(k.Permute)
def _permute(g: OnnxGraph, layer: Any, x: Value) -> str:
    return g.node("Transpose", g.last(x), perm=[0, *layer.dims])


@writes(k.RepeatVector)
def _repeat_vector(g: OnnxGraph, layer: Any, x: Value) -> str:
    row = g.node("Unsqueeze", x.name, g.constant(np.array([1])))
    return g.node("Expand", row, g.constant(np.array([1, layer.n, 1])))


@writes(k.ZeroPadding2D)
def _zero_padding(g: OnnxGraph, layer: Any, x: Value) -> Value:
    (top, bottom), (left, right) = layer.padding
    y = g.node("Pad", g.first(x), g.constant(np.array([0, 0, top, left, 0, 0, bottom, right])))
    return Value(y, x.shape, True)


@writes(k.Cropping2D)
def _cropping(g: OnnxGraph, layer: Any, x: Value) -> Value:
    (top, bottom), (left, right) = layer.cropping
    ends = [-n if n else END for n in (bottom, right)]
    return Value(sliced(g, g.first(x), (2, 3), (top, left), ends), x.shape, True)


@writes(k.UpSampling2D)
def _up_sampling(g: OnnxGraph, layer: Any, x: Value) -> Value:
    return scaled(g, g.first(x), "nearest", [float(n) for n in layer.size], x)


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
    call = (steps, *arrays, g.constant(both, "bias"))
    y, *states = g.node("LSTM" if lstm else "GRU", *call, outputs=3 if lstm else 2, **how)
    states = [g.node("Squeeze", s, g.constant(np.array([0]))) for s in states]  # (1, N, U)
    if layer.return_sequences:
        y = g.node("Squeeze", y, g.constant(np.array([1])))  # (T, 1, N, U)
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
            outputs = [g.node("Div", outputs[0], g.constant(2.0))]
    outputs += [s.name for s in (*states, *more)]
    return outputs if states or mode is None else outputs[0]


@writes(wrappers.TimeDistributed)
def _time_distributed(g: OnnxGraph, layer: Any, x: Value) -> str:
    """(N, T, ...) -> (N*T, ...), through the layer, and back."""
    given = g.last(x)

    def sizes(array: str, first: int, last: int = END) -> str:
        return sliced(g, g.node("Shape", array), [0], [first], [last])

    merged = g.node("Concat", g.constant(np.array([-1])), sizes(given, 2), axis=0)
    frames = g.node("Reshape", given, merged)
    (y,) = g.add(layer.layer, Value(frames, (None, *x.shape[2:])))
    back = g.node("Concat", sizes(given, 0, 2), sizes(g.last(y), 1), axis=0)
    return g.node("Reshape", g.last(y), back)
