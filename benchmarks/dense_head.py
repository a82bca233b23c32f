"""How long does a step of training a head take, on cached features of VGG16 (Adam)?"""

from __future__ import annotations

from benchmarks.common import Options, Report, main
from benchmarks.contenders import Network, build, labels, photographs, vgg16
from benchmarks.contest import compete
from benchmarks.peers import training

HEADS = {"softmax": (10,), "Dense(1024) + softmax": (1024, 10)}


def measure(options: Options) -> Report:
    import minitl

    batch, repetitions = options.pick((32, 9), (4, 2))
    network = vgg16(options.size)
    images = photographs(batch, options.size)
    features = build(minitl, network).predict(images, verbose=0).reshape(batch, -1)
    settings = {
        "features": features.shape[1],
        "batch": batch,
        "warm-up": 3,
        "repetitions": repetitions,
    }
    report = Report("dense_head", __doc__ or "", settings)
    for case, units in HEADS.items():
        head = Network(features.shape[1:], units=units)
        contenders = training(head, features, labels(batch), "adam", 1e-5)
        compete(report, case, contenders, repetitions, "ms")
        report.compare(case, "minitl", "Keras", "PyTorch")
    return report


if __name__ == "__main__":
    main(measure)
