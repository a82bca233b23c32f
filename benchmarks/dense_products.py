"""How long do the three products of a dense layer take, by the tiles of minitl and by BLAS?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.common import Options, Report, main
from benchmarks.contest import alternate, check_agreement, timer
from minitl.kernels.fast import dense

# Rows N, and the weights' shape (D, m).
SHAPES = (
    (32, (2048, 1024)),
    (32, (4096, 4096)),
    (32, (25088, 128)),
    (1, (25088, 1024)),
    (8, (25088, 1024)),
    (32, (25088, 1024)),
    (64, (25088, 1024)),
    (512, (25088, 1024)),
)
QUICK = ((3, (200, 70)),)


def measure(options: Options) -> Report:
    shapes, repetitions = options.pick((SHAPES, 9), (QUICK, 2))
    report = Report("dense_products", __doc__ or "", {"warm-up": 1, "repetitions": repetitions})
    for rows, weights in shapes:
        for product, ways in calls(rows, *weights):
            chosen = "tiles" if dense.suits(product, rows, *weights) else "BLAS"
            case = f"{product}, {rows} rows, weights {weights[0]} x {weights[1]}: {chosen} chosen"
            check_agreement(case, [ways["tiles"]()], [ways["BLAS"]()], 1e-4)
            seconds = alternate({name: timer(way) for name, way in ways.items()}, repetitions)
            for name, values in seconds.items():
                report.add(case, name, "ms", [value * 1e3 for value in values])
            report.compare(case, "tiles", "BLAS")
    return report


def calls(rows: int, d: int, m: int) -> Iterator[tuple[str, dict[str, Callable[[], Any]]]]:
    """Each product of the layer, and both ways to it."""
    rng = np.random.default_rng(0)
    x, kernel, g = (
        rng.standard_normal(shape, np.float32) for shape in ((rows, d), (d, m), (rows, m))
    )
    for product, own, factors in (
        ("y", dense.forward, (x, kernel)),
        ("dx", dense.input_gradient, (g, kernel)),
        ("dkernel", dense.kernel_gradient, (x, g)),
    ):
        left, right = {"y": (x, kernel), "dx": (g, kernel.T), "dkernel": (x.T, g)}[product]
        blas = partial(dense.product, left, right)
        yield product, {"tiles": partial(own, *factors), "BLAS": blas}


if __name__ == "__main__":
    main(measure)
