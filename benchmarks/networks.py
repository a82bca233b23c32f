"""How long do whole networks take, with the largest of them as they are published?

Each network's layers, with random weights, are the same arrays for all: minitl's own file for
ONNX Runtime and OpenVINO, weights by name for Keras, and for PyTorch its own operations, call by
call along minitl's graph. All must agree before a time is reported.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Options, Report, cores, main
from benchmarks.contest import Contender, Ready, contest
from benchmarks.peers import NEEDS, keras_and_tensorflow

NETWORKS = ("VGG16", "VGG19", "ResNet50", "MobileNetV2", "EfficientNetB0")
GOALS = {"ResNet50": {1: 0.85, 8: 0.75, 32: 0.75}, "VGG19": {8: 0.4}}
GOALS["VGG16"] = {1: 0.42, 8: 0.32, 32: 0.30}
SMALL = dict.fromkeys((1, 8, 32), 1.0)


def measure(options: Options) -> Report:
    repetitions = options.pick(7, 2)
    report = Report("networks", (__doc__ or "").splitlines()[0], {"repetitions": repetitions})
    for name in options.pick(NETWORKS, ("ResNet50", "MobileNetV2")):
        for batch in options.pick((1, 8, 32), (1,)):
            given = {"name": name, "batch": batch, "size": options.size}
            contenders = [Contender("minitl", in_minitl, given)]
            ways = {"ONNX Runtime": in_onnxruntime, "OpenVINO": in_openvino}
            ways |= {"Keras": in_keras, "PyTorch": in_torch}
            contenders += [Contender(peer, way, given, NEEDS[peer]) for peer, way in ways.items()]
            results, report.missing = contest(contenders, repetitions, tolerance=1e-4)
            case = f"{name}, batch {batch}"
            for result in results:
                times = [seconds / batch * 1e3 for seconds in result.seconds]
                report.add(case, result.name, "ms/image", times, result.note)
            medians = {r.name: float(np.median(r.seconds)) for r in results if r.name != "minitl"}
            goal = GOALS.get(name, SMALL).get(batch)
            report.compare(case, "minitl", min(medians, key=medians.__getitem__), goal=goal)
    return report


def network(package: Any, name: str, size: int) -> Any:
    """A network of minitl's or Keras's, with its top unless that would be most of its weights."""
    top = not name.startswith("VGG")
    found = getattr(package.applications, name)
    return found(weights=None, include_top=top, input_shape=(size, size, 3))


def prepared(name: str, batch: int, size: int) -> tuple[Any, np.ndarray]:
    """minitl's network, drawn from one seed, and a batch of images."""
    import minitl

    minitl.utils.set_random_seed(0)
    images = np.random.default_rng(0).uniform(-1, 1, (batch, size, size, 3)).astype(np.float32)
    return network(minitl, name, size), images


def in_minitl(name: str, batch: int, size: int) -> Ready:
    model, x = prepared(name, batch, size)
    return Ready(lambda: model.predict(x, batch_size=batch, verbose=0))


def exported(name: str, batch: int, size: int) -> tuple[bytes, np.ndarray]:
    model, x = prepared(name, batch, size)
    with tempfile.TemporaryDirectory() as folder:
        model.export(Path(folder) / "model.onnx", format="onnx")
        return (Path(folder) / "model.onnx").read_bytes(), x


def in_onnxruntime(name: str, batch: int, size: int) -> Ready:
    import onnxruntime

    file, x = exported(name, batch, size)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    given = {session.get_inputs()[0].name: x}
    return Ready(lambda: session.run(None, given)[0])


def in_openvino(name: str, batch: int, size: int) -> Ready:
    import openvino

    file, x = exported(name, batch, size)
    core = openvino.Core()
    model = core.read_model(file)
    model.reshape([batch, size, size, 3])
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    settings["INFERENCE_NUM_THREADS"] = str(cores())
    compiled = core.compile_model(model, "CPU", settings)
    return Ready(lambda: compiled([x])[0])


def in_keras(name: str, batch: int, size: int) -> Ready:
    keras, tensorflow = keras_and_tensorflow()
    model, x = prepared(name, batch, size)
    theirs = network(keras, name, size)
    for layer in model.layers:
        if layer.weights and not theirs.get_layer(layer.name).get_weights():
            raise RuntimeError(f"Keras's {layer.name} has no weights")
        theirs.get_layer(layer.name).set_weights(layer.get_weights())
    function = tensorflow.function(lambda images: theirs(images, training=False))
    images = tensorflow.constant(x)
    return Ready(lambda: function(images).numpy(), "tf.function")


def in_torch(name: str, batch: int, size: int) -> Ready:
    import torch

    model, x = prepared(name, batch, size)
    steps = [torch_call(call) for call in model.graph.calls]
    images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    given, wanted = id(model.inputs[0]), id(model.outputs[0])

    def run() -> np.ndarray:
        with torch.inference_mode():
            values: dict[int, Any] = {given: images}
            for reads, writes, function in steps:
                values[writes] = function(*[values[key] for key in reads])
            y = values[wanted]
            return (y if y.ndim == 2 else y.permute(0, 2, 3, 1)).numpy()

    return Ready(run, "channels last")


def torch_call(call: Any) -> tuple[list[int], int, Any]:
    """What a call reads, what it writes, and PyTorch's function for its layer."""
    return [id(t) for t in call.inputs], id(call.outputs[0]), torch_layer(call.layer)


def torch_layer(layer: Any) -> Any:
    import torch
    import torch.nn.functional as F

    kind = type(layer).__name__
    weights = [torch.from_numpy(np.array(w)) for w in layer.get_weights()]
    acts = {"relu": F.relu, "silu": F.silu, "softmax": lambda x: x.softmax(-1)}
    acts |= {"sigmoid": torch.sigmoid, "linear": lambda x: x}
    act = acts[getattr(getattr(layer, "activation", None), "__name__", "linear")]
    if kind in ("Conv2D", "DepthwiseConv2D"):
        kernel, bias = weights[0], weights[1] if layer.use_bias else None
        groups = kernel.shape[2] if kind == "DepthwiseConv2D" else 1
        order = (2, 3, 0, 1) if groups > 1 else (3, 2, 0, 1)
        kernel = kernel.permute(*order).contiguous(memory_format=torch.channels_last)
        pad = [k // 2 if layer.padding == "same" else 0 for k in layer.kernel_size]
        if layer.padding == "same" and layer.strides != (1, 1) and layer.kernel_size != (1, 1):
            return lambda x: act(
                F.conv2d(_around(x, layer), kernel, bias, layer.strides, 0, 1, groups)
            )
        return lambda x: act(F.conv2d(x, kernel, bias, layer.strides, pad, 1, groups))
    if kind == "BatchNormalization":
        gamma, beta, mean, variance = weights
        return lambda x: F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, layer.epsilon)
    if kind == "Normalization":
        both = (np.array(a, np.float32).reshape(-1, 1, 1) for a in (layer.mean, layer.variance))
        mean, variance = map(torch.from_numpy, both)
        return lambda x: (x - mean) / variance.sqrt()
    if kind == "Dense":
        return lambda x: act(torch.addmm(weights[1], x, weights[0]))
    (top, bottom), (left, right) = layer.padding if kind == "ZeroPadding2D" else ((0, 0), (0, 0))
    return {
        "ReLU": F.relu6 if getattr(layer, "max_value", None) == 6 else F.relu,
        "Activation": act,
        "Add": torch.add,
        "Multiply": torch.mul,
        "Dropout": lambda x: x,
        "Rescaling": lambda x: x * getattr(layer, "scale", 1) + getattr(layer, "offset", 0),
        "ZeroPadding2D": lambda x: F.pad(x, (left, right, top, bottom)),
        "MaxPooling2D": lambda x: F.max_pool2d(x, layer.pool_size, layer.strides),
        "GlobalAveragePooling2D": lambda x: x.mean((2, 3)),
        "Reshape": lambda x: x.reshape(len(x), -1, 1, 1),
    }[kind]


def _around(x: Any, layer: Any) -> Any:
    """Zeros as "same" puts them: the odd one at the end."""
    import torch.nn.functional as F

    sides: list[int] = []
    for size, kernel, stride in zip(
        x.shape[:1:-1], layer.kernel_size[::-1], layer.strides[::-1], strict=True
    ):
        more = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        sides += [more // 2, more - more // 2]
    return F.pad(x, sides)


if __name__ == "__main__":
    main(measure)
