"""How long does an epoch of `fit` take with VGG16 frozen under a head of one's own?

The tutorial's script, `examples/mission.py`: Flatten, Dense(1024), Dense(10) on a frozen base, a
validation set, in minitl's and in Keras's `fit`.
"""

from __future__ import annotations

from typing import Any

from benchmarks.common import Options, Report, main
from benchmarks.contenders import Array, Network, labels, photographs
from benchmarks.contest import Contender, Ready, contest
from benchmarks.peers import NEEDS, compiled, keras_and_tensorflow


def measure(options: Options) -> Report:
    train, validation, batch, repetitions = options.pick((64, 32, 32, 3), (4, 2, 2, 2))
    size = options.size
    network = Network(
        (size, size, 3), (1, 2, 3, 4, 5), "flatten", (1024, 10), frozen=(1, 2, 3, 4, 5)
    )
    count = train + validation
    settings = {
        "network": network,
        "x": photographs(count, size),
        "y": labels(count),
        "train": train,
        "batch": batch,
    }
    told = {"image": size, "batch": batch, "warm-up": 1, "repetitions": repetitions}
    report = Report("frozen_base", (__doc__ or "").splitlines()[0], told)
    case = f"an epoch of {train} images, {validation} to validate"
    results, report.missing = contest(
        [
            Contender("minitl", minitl_fits, settings),
            Contender("Keras", keras_fits, settings, NEEDS["Keras"]),
        ],
        repetitions,
        warm_up=1,
        tolerance=1e-4,
    )
    for result in results:
        report.add(case, result.name, "s", result.seconds, result.note)
    report.compare(case, "minitl", "Keras")
    return report


def minitl_fits(network: Network, x: Array, y: Array, train: int, batch: int) -> Ready:
    import minitl

    return _fits(compiled(minitl, network, "adam", 1e-5), x, y, train, batch)


def keras_fits(network: Network, x: Array, y: Array, train: int, batch: int) -> Ready:
    keras, _ = keras_and_tensorflow()
    return _fits(compiled(keras, network, "adam", 1e-5), x, y, train, batch)


def _fits(model: Any, x: Array, y: Array, train: int, batch: int) -> Ready:
    held_out = x[train:], y[train:]

    def run() -> list[float]:
        history = model.fit(
            x[:train],
            y[:train],
            batch_size=batch,
            epochs=1,
            verbose=0,
            shuffle=False,
            validation_data=held_out,
        )
        return [history.history["loss"][0], history.history["val_loss"][0]]

    return Ready(run)


if __name__ == "__main__":
    main(measure)
