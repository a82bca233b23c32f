"""How long does a training step take with all convolutions trainable: VGG16's, ResNet50's?

VGG16 by SGD; ResNet50 by SGD with momentum, its normalizations frozen.
"""

from __future__ import annotations

from benchmarks.common import Options, Report, main
from benchmarks.contenders import Network, labels, photographs
from benchmarks.contest import Contender, compete
from benchmarks.peers import PRECISE, minitl_trains, training


def measure(options: Options) -> Report:
    batch, repetitions = options.pick((16, 5), (2, 2))
    x, y = photographs(batch, options.size), labels(batch)
    settings = {"image": options.size, "batch": batch, "warm-up": 3, "repetitions": repetitions}
    report = Report("training_step", (__doc__ or "").splitlines()[0], settings)
    case = f"all of VGG16, batch {batch}"
    contenders = training(network_of(options.size), x, y, "sgd", 1e-5)
    precise = {**contenders[0].settings, "which": "precise"}
    contenders.append(Contender(PRECISE, minitl_trains, precise))
    compete(report, case, contenders, repetitions)
    report.compare(case, "minitl", "Keras", "PyTorch", goal=0.5)
    report.compare(case, PRECISE, "minitl")
    case = f"all of ResNet50, batch {batch}"
    contenders = training(resnet50(options.size), x / 128, y, "momentum", 1e-3)
    compete(report, case, contenders, repetitions)
    report.compare(case, "minitl", "Keras", "PyTorch", goal=0.7)
    return report


def network_of(size: int) -> Network:
    """VGG16, the average over places, and ten outputs: next to nothing but convolutions."""
    return Network((size, size, 3), (1, 2, 3, 4, 5), "average", (10,))


def resnet50(size: int) -> Network:
    """The same with ResNet50."""
    return Network((size, size, 3), (), "average", (10,), whole="ResNet50")


if __name__ == "__main__":
    main(measure)
