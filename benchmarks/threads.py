"""What do more threads gain: VGG16 forward, and a training step, on one and on all cores?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import training_step
from benchmarks.common import Options, Report, cores, main
from benchmarks.contenders import labels, photographs, vgg16
from benchmarks.contest import alternate, check_agreement, timed
from benchmarks.peers import minitl_predicts, minitl_trains


def measure(options: Options) -> Report:
    batch, step_batch, repetitions = options.pick((8, 4, 5), (2, 2, 2))
    told = {"image": options.size, "warm-up": 1, "repetitions": repetitions}
    report = Report("threads", __doc__ or "", told)
    x = photographs(batch, options.size)
    network = training_step.network_of(options.size)
    step = minitl_trains(network, x[:step_batch], labels(step_batch), "sgd", rate=0.0)
    cases = {
        f"forward, batch {batch}": minitl_predicts(vgg16(options.size), x).run,
        f"training step, batch {step_batch}": step.run,
    }
    counts = sorted({1, cores()})
    for case, run in cases.items():
        ways = {_name(count): _on_threads(count, run) for count in counts}
        outputs = {name: [way()] for name, way in ways.items()}
        for name, output in outputs.items():  # not a bit may depend on the threads
            check_agreement(name, output, outputs[_name(1)], 0.0)
        runs = {name: (lambda way=way: timed(way)) for name, way in ways.items()}
        for name, seconds in alternate(runs, repetitions).items():
            report.add(case, name, "s", seconds)
        if cores() > 1:
            goal = 1.8 if cores() == 2 else None
            report.compare(case, _name(1), _name(cores()), goal=goal, bound="at least")
    return report


def _name(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _on_threads(count: int, run: Callable[[], Any]) -> Callable[[], Any]:
    """`run` on so many threads, and as many as there were afterwards."""
    from minitl.kernels.machine import threads

    def limited() -> Any:
        before = threads.thread_count()
        threads.set_thread_count(count)
        try:
            return run()
        finally:
            threads.set_thread_count(before)

    return limited


if __name__ == "__main__":
    main(measure)
