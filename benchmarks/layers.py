"""How long does each convolution of VGG16 take, forward and both gradients, by algorithm?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import algorithms
from benchmarks.common import Options, Report, main
from benchmarks.contenders import published_weights
from benchmarks.contest import alternate, check_agreement, timer
from minitl.kernels.geometry import sliding

# One layer for each shape: its height and width in images of 224x224.
LAYERS = {
    "block1_conv1": 224,
    "block1_conv2": 224,
    "block2_conv1": 112,
    "block2_conv2": 112,
    "block3_conv1": 56,
    "block3_conv2": 56,
    "block4_conv1": 28,
    "block4_conv2": 28,
    "block5_conv1": 14,
}


def measure(options: Options) -> Report:
    batch, repetitions = options.pick((8, 7), (1, 2))
    shrink = 224 // options.size if options.quick else 1
    names = list(LAYERS)[-3:] if options.quick else list(LAYERS)
    settings = {"batch": batch, "warm-up": 2, "repetitions": repetitions}
    report = Report("layers", __doc__ or "", settings)
    weights = published_weights()
    for name in names:
        kernel, bias = weights[name]
        size = max(4, LAYERS[name] // shrink)
        for what, ways in passes(kernel, bias, batch, size).items():
            case = f"{name} {what}"
            expected = [next(iter(ways.values()))()]
            for algorithm, way in ways.items():
                check_agreement(f"{algorithm}, {case}", [way()], expected, 1e-4)
            seconds = alternate({a: timer(way) for a, way in ways.items()}, repetitions)
            work = 2 * kernel.size * size * size * batch  # of the definition, whatever is saved
            for algorithm, values in seconds.items():
                speed = f"{work / np.median(values) / 1e9:.0f} GFLOP/s"
                per_image = [value / batch * 1e3 for value in values]
                report.add(case, algorithm, "ms/image", per_image, speed)
            if len(ways) > 1:
                report.compare(case, *reversed(ways))
    return report


def passes(
    kernel: np.ndarray, bias: np.ndarray, batch: int, size: int
) -> dict[str, dict[str, Callable[[], Any]]]:
    """{pass: {algorithm: one call}} on random images (batch, size, size, C) and gradients.

    As for a layer that is not trained: what an algorithm prepares of the kernel, it keeps.
    """
    rng = np.random.default_rng(0)
    channels, filters = kernel.shape[2:]
    geometry = sliding((size, size), (3, 3), (1, 1), "same")
    x = np.maximum(rng.standard_normal((batch, size, size, channels)), 0).astype(np.float32)
    g = rng.standard_normal((batch, size, size, filters)).astype(np.float32)
    found: dict[str, dict[str, Callable[[], Any]]] = {
        "forward": {},
        "gradient to the input": {},
        "gradient to the kernel": {},
    }
    for name in algorithms.KNOWN:
        if not algorithms.suits(name, channels):
            continue
        way = algorithms.module(name)
        cache: dict[Any, Any] = {}
        calls = (
            partial(way.conv2d, x, kernel, bias, geometry, "relu", cache),
            partial(way.conv2d_input_gradient, g, kernel, geometry, cache),
            partial(way.conv2d_kernel_gradient, x, g, geometry),
        )
        for ways, call in zip(found.values(), calls, strict=True):
            ways[name] = call
    return found


if __name__ == "__main__":
    main(measure)
