"""How much memory does a process need to predict with VGG16, and to train it, or ResNet50?

The peak of the whole process, Python and libraries included. Every measurement has a process of
its own.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import training_step
from benchmarks.common import Options, Report, main
from benchmarks.contenders import Array, Network, build, labels, photographs, vgg16
from benchmarks.contest import Contender, alone
from benchmarks.peers import predicting, training

FEW = 32


def measure(options: Options) -> Report:
    few, many, batch = options.pick((FEW, 100 * FEW, 16), (4, 12, 2))
    told = {"image": options.size, "batch": few, "batch of training": batch}
    report = Report("memory", (__doc__ or "").splitlines()[0], told)
    images = photographs(few, options.size)
    network = vgg16(options.size)

    case = f"predict, {few} images"
    report.missing = _peaks(report, case, predicting(network, images))
    report.limit(case, "minitl", 0.8)

    case = f"predict, {many:,} images of a generator"
    _, peak = alone(predict_stream, network=network, images=images, times=many // few)
    report.add(case, "minitl", "GB", [peak / 1e9])
    report.limit(case, "minitl", 0.8)

    case = f"training step, batch {batch}"
    x, y = images[:batch], labels(batch)
    if len(x) < batch:
        x = photographs(batch, options.size)
    _peaks(report, case, training(training_step.network_of(options.size), x, y, "sgd", 1e-5))
    report.compare(case, "minitl", "PyTorch", goal=1)
    case = f"training step of ResNet50, batch {batch}"
    resnet50 = training_step.resnet50(options.size)
    _peaks(report, case, training(resnet50, x / 128, y, "momentum", 1e-3))
    report.compare(case, "minitl", "PyTorch")
    return report


def _peaks(report: Report, case: str, contenders: list[Contender]) -> list[str]:
    """Add the peak of each contender; returns the names of those that are missing."""
    for contender in contenders:
        if contender.installed:
            _, peak = alone(run_twice, contender=contender)
            report.add(case, contender.name, "GB", [peak / 1e9])
    return [contender.name for contender in contenders if not contender.installed]


def run_twice(contender: Contender) -> None:
    ready = contender.prepare(**contender.settings)
    ready.run()
    ready.run()


def predict_stream(network: Network, images: Array, times: int) -> None:
    """Predict the same batch `times` times over, as it would come from a folder."""
    import minitl

    def batches() -> Iterator[Array]:
        for _ in range(times):
            yield images.copy()

    features = build(minitl, network).predict(batches(), verbose=0)
    assert len(features) == times * len(images)


if __name__ == "__main__":
    main(measure)
