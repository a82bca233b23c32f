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
from benchmarks.torch_graph import TorchGraph

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
    walk = TorchGraph(model)
    images = torch.from_numpy(x).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def run() -> np.ndarray:
        with torch.inference_mode():
            y = walk(images)
            return (y if y.ndim == 2 else y.permute(0, 2, 3, 1)).numpy()

    return Ready(run, "channels last")


if __name__ == "__main__":
    main(measure)
