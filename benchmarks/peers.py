"""The same network in each runtime's own words: predicting, and training.

Each function here prepares one contender, in the contender's own process (see `contest.py`), and
runs it the way its makers recommend for a CPU: all cores, channels last for PyTorch without
autograd's records, one graph for ONNX Runtime and OpenVINO, Keras by whichever of its two ways is
faster. All get the same arrays; what a runtime wants in another layout is converted before.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import algorithms
from benchmarks.common import cores
from benchmarks.contenders import Array, Network, build, weights_of
from benchmarks.contest import Contender, Ready, timed
from benchmarks.torch_graph import TorchGraph

NEEDS = {
    "ONNX Runtime": ("onnxruntime", "onnx"),
    "OpenVINO": ("openvino", "onnx"),
    "Keras": ("keras", "tensorflow"),
    "PyTorch": ("torch",),
}
PEERS = tuple(NEEDS)


# --- Predicting ----------------------------------------------------------------------------------


def predicting(network: Network, x: Array, names: tuple[str, ...] = PEERS) -> list[Contender]:
    """minitl and its peers, computing the network's output of x in one batch."""
    ways = {
        "ONNX Runtime": onnxruntime_predicts,
        "OpenVINO": openvino_predicts,
        "Keras": keras_predicts,
        "PyTorch": torch_predicts,
    }
    settings = {"network": network, "x": x}
    return [
        Contender("minitl", minitl_predicts, settings),
        *[Contender(name, ways[name], settings, NEEDS[name]) for name in names],
    ]


def minitl_predicts(network: Network, x: Array, algorithm: str | None = None) -> Ready:
    import minitl

    model = build(minitl, network)

    def run() -> Array:
        with algorithms.only(algorithm):
            return model.predict(x, batch_size=len(x), verbose=0)

    return Ready(run)


def keras_predicts(network: Network, x: Array) -> Ready:
    keras, tensorflow = keras_and_tensorflow()
    model = build(keras, network)
    function = tensorflow.function(lambda images: model(images, training=False))
    images = tensorflow.constant(x)
    return _fastest(
        {
            "predict_on_batch": lambda: model.predict_on_batch(x),
            "tf.function": lambda: function(images).numpy(),
        }
    )


def torch_predicts(network: Network, x: Array) -> Ready:
    import torch

    model = _torch_model(network).eval()
    images = _torch_images(x)

    def run() -> Array:
        with torch.inference_mode():
            return model(images).permute(0, 2, 3, 1).numpy()

    return Ready(run, "channels last")


def onnxruntime_predicts(network: Network, x: Array) -> Ready:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = onnxruntime.InferenceSession(
        onnx_file(network, len(x)), options, providers=["CPUExecutionProvider"]
    )
    images = _channels_first(x)
    return Ready(lambda: session.run(None, {"x": images})[0].transpose(0, 2, 3, 1))


def openvino_predicts(network: Network, x: Array) -> Ready:
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",  # all threads on the one batch
        "INFERENCE_NUM_THREADS": cores(),
        "INFERENCE_PRECISION_HINT": "f32",  # some machines would take bfloat16
    }
    model = core.compile_model(core.read_model(onnx_file(network, len(x))), "CPU", settings)
    images = _channels_first(x)
    return Ready(lambda: model([images])[0].transpose(0, 2, 3, 1))


# --- Training ------------------------------------------------------------------------------------


def training(network: Network, x: Array, y: Array, optimizer: str, rate: float) -> list[Contender]:
    """minitl, Keras and PyTorch, making one step on (x, y); each call returns the loss before it.

    That the losses of the first steps agree says that the gradients and the updates do.
    """
    ways = {"Keras": keras_trains, "PyTorch": torch_trains}
    settings = {"network": network, "x": x, "y": y, "optimizer": optimizer, "rate": rate}
    return [
        Contender("minitl", minitl_trains, settings),
        *[Contender(name, way, settings, NEEDS[name]) for name, way in ways.items()],
    ]


PRECISE = "minitl, precise"  # what trains with use_kernels("precise")


def minitl_trains(
    network: Network,
    x: Array,
    y: Array,
    optimizer: str,
    rate: float,
    algorithm: str | None = None,
    which: str = "fast",
) -> Ready:
    import minitl

    model = compiled(minitl, network, optimizer, rate)

    def run() -> float:
        with minitl.use_kernels(which), algorithms.only(algorithm):
            return model.train_on_batch(x, y)

    return Ready(run)


def keras_trains(network: Network, x: Array, y: Array, optimizer: str, rate: float) -> Ready:
    keras, _ = keras_and_tensorflow()

    def way(jit_compile: bool) -> Callable[[], Any]:
        model = compiled(keras, network, optimizer, rate, jit_compile=jit_compile)
        return lambda: model.train_on_batch(x, y)

    return Ready(*_fastest_made({"train_on_batch": False, "train_on_batch, XLA": True}, way))


def compiled(package: Any, network: Network, optimizer: str, rate: float, **settings: Any) -> Any:
    """The network in minitl or Keras, ready to be trained."""
    model = build(package, network)
    optimizers = package.optimizers
    ways = {"sgd": optimizers.SGD, "adam": optimizers.Adam}
    ways["momentum"] = functools.partial(optimizers.SGD, momentum=0.9)
    model.compile(ways[optimizer](rate), "categorical_crossentropy", **settings)
    return model


def torch_trains(network: Network, x: Array, y: Array, optimizer: str, rate: float) -> Ready:
    import torch

    import minitl

    if network.whole:
        torch.set_num_threads(cores())
        model: Any = TorchGraph(build(minitl, network), learns=True)
    else:
        model = _torch_model(network).train()
    images, targets = _torch_images(x), torch.from_numpy(y)
    learning = [p for p in model.parameters() if p.requires_grad]
    step: Any
    if optimizer == "adam":
        step = torch.optim.Adam(learning, rate, fused=True)
    else:
        momentum = 0.9 if optimizer == "momentum" else 0.0
        step = torch.optim.SGD(learning, rate, momentum, fused=True)

    steps = itertools.count(1)

    def run() -> float:
        if optimizer == "adam":  # Keras adds epsilon before sqrt(v) is corrected, PyTorch after
            step.param_groups[0]["eps"] = 1e-7 / (1 - 0.999 ** next(steps)) ** 0.5
        step.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), targets)
        loss.backward()
        step.step()
        return loss.item()

    return Ready(run, "channels last, fused optimizer")


def gradients(network: Network, x: Array, y: Array) -> list[Contender]:
    """Keras and PyTorch, computing the gradients of that loss: {layer/weight: array}."""
    ways = {"Keras": keras_gradients, "PyTorch": torch_gradients}
    settings = {"network": network, "x": x, "y": y}
    return [Contender(name, way, settings, NEEDS[name]) for name, way in ways.items()]


def keras_gradients(network: Network, x: Array, y: Array) -> Ready:
    keras, tensorflow = keras_and_tensorflow()
    model = build(keras, network)
    names = [f"{layer.name}/{w.name}" for layer in model.layers for w in layer.trainable_weights]

    @tensorflow.function
    def step(x: Any, y: Any) -> Any:
        with tensorflow.GradientTape() as tape:
            loss = keras.losses.CategoricalCrossentropy()(y, model(x, training=True))
        return tape.gradient(loss, model.trainable_weights)

    return Ready(lambda: dict(zip(names, map(np.asarray, step(x, y)), strict=True)))


def torch_gradients(network: Network, x: Array, y: Array) -> Ready:
    import torch

    model = _torch_model(network).train()
    names = [f"{layer}/{what}" for layer in weights_of(network) for what in ("kernel", "bias")]

    def run() -> dict[str, Array]:
        model.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(_torch_images(x)), torch.from_numpy(y))
        loss.backward()
        found = {}
        for name, parameter in zip(names, model.parameters(), strict=True):
            axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[parameter.ndim]  # to Keras's order
            found[name] = parameter.grad.numpy().transpose(axes)
        return found

    return Ready(run)


# --- Keras ---------------------------------------------------------------------------------------


def keras_and_tensorflow() -> tuple[Any, Any]:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow

    tensorflow.config.threading.set_intra_op_parallelism_threads(cores())
    return keras, tensorflow


def _fastest(ways: dict[str, Callable[[], Any]]) -> Ready:
    """The fastest of several ways to do the same."""
    return Ready(*_fastest_made({name: run for name, run in ways.items()}, lambda run: run))


def _fastest_made(
    ways: dict[str, Any], make: Callable[[Any], Callable[[], Any]]
) -> tuple[Callable[[], Any], str]:
    """The same for ways that change state: the fastest is made afresh. Returns it, and its name.

    Two calls to warm up, then the better of two.
    """
    best = {}
    for name, way in ways.items():
        run = make(way)
        timed(run, calls=2)
        best[name] = min(timed(run), timed(run))
        del run
    name = min(best, key=lambda name: best[name])
    return make(ways[name]), name


# --- PyTorch -------------------------------------------------------------------------------------


def _torch_model(network: Network) -> Any:
    """As a chain of modules, channels last; its last dense layer gives logits."""
    import torch
    from torch import nn

    torch.set_num_threads(cores())

    class RowsInChannelsLastOrder(nn.Module):
        """Flatten as Keras does, so that the dense kernels are the same; costs nothing here."""

        def forward(self, x: Any) -> Any:
            return x.permute(0, 2, 3, 1).flatten(1)

    modules: list[Any] = []
    weights = weights_of(network)
    for block in network.blocks:
        for name, filters in network.convolutions(block):
            kernel, bias = weights[name]
            layer: Any = nn.Conv2d(kernel.shape[2], filters, 3, padding=1)
            layer.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
            layer.bias.data = torch.from_numpy(bias.copy())
            layer.requires_grad_(block not in network.frozen)
            modules += [layer, nn.ReLU(inplace=True)]
        modules.append(nn.MaxPool2d(2))
    if network.joint == "flatten":
        modules.append(RowsInChannelsLastOrder())
    if network.joint == "average":
        modules += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    for i in range(1, len(network.units) + 1):
        kernel, bias = weights[f"dense{i}"]
        layer = nn.Linear(*kernel.shape)
        layer.weight.data = torch.from_numpy(kernel.T.copy())
        layer.bias.data = torch.from_numpy(bias.copy())
        modules += [layer, nn.ReLU(inplace=True)] if i < len(network.units) else [layer]
    whole: Any = nn.Sequential(*modules)
    return whole.to(memory_format=torch.channels_last)


def _torch_images(x: Array) -> Any:
    """(N, H, W, C) as the (N, C, H, W) view that PyTorch calls channels last; rows as they are."""
    import torch

    tensor = torch.from_numpy(x)
    return tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor


# --- ONNX ----------------------------------------------------------------------------------------


def onnx_file(network: Network, batch: int) -> bytes:
    """The network's convolutions and pools as an ONNX file, for (batch, C, H, W)."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, initializers = [], []
    value = "x"
    weights = weights_of(network)
    for block in network.blocks:
        for name, _ in network.convolutions(block):
            kernel, bias = weights[name]
            for suffix, array in (("w", kernel.transpose(3, 2, 0, 1)), ("b", bias)):
                array = np.ascontiguousarray(array)
                initializers.append(numpy_helper.from_array(array, f"{name}_{suffix}"))
            inputs = [value, f"{name}_w", f"{name}_b"]
            nodes.append(helper.make_node("Conv", inputs, [f"{name}_c"], pads=[1, 1, 1, 1]))
            nodes.append(helper.make_node("Relu", [f"{name}_c"], [name]))
            value = name
        pooled = f"block{block}_pool"
        nodes.append(
            helper.make_node("MaxPool", [value], [pooled], kernel_shape=[2, 2], strides=[2, 2])
        )
        value = pooled
    height, width, channels = network.input_shape
    shape = [batch, channels, height, width]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)],
        initializers,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def _channels_first(x: Array) -> Array:
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
