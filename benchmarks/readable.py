"""What do the fast kernels gain over the formulas they must equal (`kernels/reference.py`)?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.common import Options, Report, main
from benchmarks.contest import alternate, timer
from minitl import kernels
from minitl.kernels.geometry import sliding


def measure(options: Options) -> Report:
    repetitions = options.pick(5, 2)
    calls = kernel_calls(*options.pick((2, 56, 64, 64, 4096, 256), (1, 8, 8, 8, 64, 16)))
    told = {"warm-up": 2, "repetitions": repetitions}
    report = Report("readable", __doc__ or "", told)
    for case, call in calls.items():
        runs = {which: timer(_with_kernels(which, call)) for which in ("fast", "reference")}
        for which, seconds in alternate(runs, repetitions, rest=0.05).items():
            report.add(case, which, "ms", [s * 1e3 for s in seconds])
        report.compare(case, "reference", "fast")
    return report


def _with_kernels(which: str, call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with kernels.use_kernels(which):
            return call()

    return run


def kernel_calls(
    images: int, size: int, channels: int, filters: int, inputs: int, outputs: int
) -> dict[str, Callable[[], Any]]:
    """A call of each kernel that VGG16 and its training use, on random float32 arrays."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    x = draw(images, size, size, channels)
    kernel, bias = draw(3, 3, channels, filters), draw(filters)
    g = draw(images, size, size, filters)
    window = sliding((size, size), (3, 3), (1, 1), "same")
    pool = sliding((size, size), (2, 2), (2, 2), "valid")
    _, winners = kernels.max_pool2d_with_winners(x, pool)
    g_pool = draw(*winners.shape)
    rows, matrix, g_rows = draw(32, inputs), draw(inputs, outputs), draw(32, outputs)
    targets = np.eye(outputs, dtype=np.float32)[rng.integers(outputs, size=32)]
    w, g_w, m, v = (np.abs(draw(inputs * outputs)) for _ in range(4))
    return {
        "conv2d": lambda: kernels.conv2d(x, kernel, bias, window, "relu"),
        "conv2d_input_gradient": lambda: kernels.conv2d_input_gradient(g, kernel, window),
        "conv2d_kernel_gradient": lambda: kernels.conv2d_kernel_gradient(x, g, window),
        "max_pool2d": lambda: kernels.max_pool2d(x, pool),
        "max_pool2d_gradient": lambda: kernels.max_pool2d_gradient(g_pool, winners, pool),
        "dense": lambda: kernels.dense(rows, matrix, draw(outputs), "relu"),
        "dense_kernel_gradient": lambda: kernels.dense_kernel_gradient(rows, g_rows),
        "softmax_cross_entropy": lambda: kernels.softmax_cross_entropy(g_rows, targets),
        "sgd_update": lambda: kernels.sgd_update(w, g_w, m, 1e-6, 0.9, False),
        "adam_update": lambda: kernels.adam_update(w, g_w, m, v, 1e-6, 0.9, 0.999, 1e-7),
    }


if __name__ == "__main__":
    main(measure)
