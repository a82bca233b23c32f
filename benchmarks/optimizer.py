"""How long does a step of Adam take on 25.7 million weights, and how long must it?

Adam reads w, g, m, v and writes w, m, v: 28 bytes per weight in float32. 'the same bytes' is a
compiled loop that reads and writes these seven arrays and computes next to nothing.
"""

from __future__ import annotations

import numpy as np

from benchmarks.common import Options, Report, cores, main
from benchmarks.contest import Contender, Ready, contest

RATE = 1e-3


def measure(options: Options) -> Report:
    weights = options.pick(25_700_000, 100_000)  # 25,088 x 1,024: the head's first dense layer
    repetitions = options.pick(15, 2)
    told = {"weights": weights, "warm-up": 3, "repetitions": repetitions}
    report = Report("optimizer", (__doc__ or "").splitlines()[0], told)
    size = {"weights": weights}
    results, report.missing = contest(
        [
            Contender("minitl", minitl_adam, size),
            Contender("PyTorch", torch_adam, size, ("torch",)),
            Contender("the same bytes", same_bytes, size, checked=False),
        ],
        repetitions,
        warm_up=3,
    )
    for result in results:
        per_weight = 28 * weights / np.median(result.seconds) / 1e9
        note = ", ".join(filter(None, [f"{per_weight:.1f} GB/s", result.note]))
        report.add("Adam", result.name, "ms", [s * 1e3 for s in result.seconds], note)
    report.compare("Adam", "minitl", "the same bytes", goal=1.3)
    report.compare("Adam", "minitl", "PyTorch", goal=1.0)
    return report


def arrays(weights: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights and a gradient."""
    rng = np.random.default_rng(0)
    return (rng.standard_normal(weights, np.float32), rng.standard_normal(weights, np.float32))


def minitl_adam(weights: int) -> Ready:
    import minitl

    w, g = arrays(weights)
    variable = minitl.Variable(w, name="w")
    adam = minitl.optimizers.Adam(RATE)

    def run() -> np.ndarray:
        adam.apply([g], [variable])
        return variable.storage[:1000]

    return Ready(run)


def torch_adam(weights: int) -> Ready:
    import torch

    torch.set_num_threads(cores())
    w, g = map(torch.from_numpy, arrays(weights))
    w.grad = g
    adam = torch.optim.Adam([w], RATE, eps=1e-7, fused=True)

    def run() -> np.ndarray:
        adam.step()
        return w.detach().numpy()[:1000]

    return Ready(run, "fused")


def same_bytes(weights: int) -> Ready:
    import numba

    numba.set_num_threads(cores())

    @numba.njit(parallel=True)
    def move(w, g, m, v):
        for i in numba.prange(w.size):
            w[i] += g[i]
            m[i] += g[i]
            v[i] += g[i]

    w, g = arrays(weights)
    m, v = np.zeros_like(w), np.zeros_like(w)
    return Ready(lambda: move(w, g, m, v))


if __name__ == "__main__":
    main(measure)
