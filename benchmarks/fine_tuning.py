"""How long does a step of fine-tuning block5 and a head take, on cached block4 features (Adam)?"""

from __future__ import annotations

import numpy as np

from benchmarks.common import Options, Report, main
from benchmarks.contenders import Network, build, labels, photographs
from benchmarks.contest import compete
from benchmarks.peers import training


def measure(options: Options) -> Report:
    batch, repetitions = options.pick((32, 7), (4, 2))
    features = block4_features(batch, options.size)
    network = Network(features.shape[1:], (5,), "flatten", (1024, 10))
    settings = {"image": options.size, "batch": batch, "warm-up": 3, "repetitions": repetitions}
    report = Report("fine_tuning", __doc__ or "", settings)
    case = f"block5 + Dense(1024) + Dense(10), batch {batch}"
    compete(report, case, training(network, features, labels(batch), "adam", 1e-5), repetitions)
    report.compare(case, "minitl", "PyTorch", goal=0.6)
    report.compare(case, "minitl", "Keras")
    return report


def block4_features(count: int, size: int) -> np.ndarray:
    """What the frozen blocks 1-4 say about `count` photographs: (count, size/16, size/16, 512)."""
    import minitl

    model = build(minitl, Network((size, size, 3), (1, 2, 3, 4)))
    return model.predict(photographs(count, size), verbose=0)


if __name__ == "__main__":
    main(measure)
