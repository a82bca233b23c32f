"""How many images are augmented in a second?

Every layer with a range of no width, so that Keras's does the same and the results can be
compared; and five geometric layers in a row, which minitl makes one resampling.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.common import Options, Report, main
from benchmarks.contest import Contender, Ready, contest

LAYERS: dict[str, dict[str, Any]] = {
    "RandomRotation": {"factor": (0.05, 0.05)},
    "RandomTranslation": {"height_factor": (0.1, 0.1), "width_factor": (-0.1, -0.1)},
    "RandomZoom": {"height_factor": (-0.2, -0.2)},
    "RandomBrightness": {"factor": (0.1, 0.1)},
    "RandomContrast": {"factor": (-0.3, 0.3)},
}
ALONE = ("RandomFlip", "RandomTurn", "GaussianNoise")  # chance cannot be taken out of these
GEOMETRIC = ("RandomFlip", "RandomTurn", "RandomRotation", "RandomZoom", "RandomTranslation")
# Keras computes coordinates in float32: 1e-4 of a pixel, where neighbours differ by all of 255.
TOLERANCE = 1e-3


def measure(options: Options) -> Report:
    batch, repetitions = options.pick(32, 2), options.pick(7, 2)
    told = {"batch": batch, "size": options.size, "repetitions": repetitions}
    report = Report("augmentation", (__doc__ or "").splitlines()[0], told)
    size = {"batch": batch, "size": options.size}
    for name in (*LAYERS, *ALONE):
        settings = {"name": name, **size}
        contenders = [Contender("minitl", minitl_layer, settings)]
        if name in LAYERS:
            contenders.append(Contender("Keras", keras_layer, settings, ("keras", "tensorflow")))
        add(report, name, contenders, repetitions, batch)
    for compose in (True, False):
        contenders = [Contender("minitl", minitl_stack, {"compose": compose, **size})]
        add(report, "five at once" if compose else "five in a row", contenders, repetitions, batch)
    return report


def add(
    report: Report, case: str, contenders: list[Contender], repetitions: int, batch: int
) -> None:
    results, report.missing = contest(contenders, repetitions, tolerance=TOLERANCE)
    for result in results:
        report.add(case, result.name, "images/s", [batch / s for s in result.seconds], result.note)


def images(batch: int, size: int) -> np.ndarray:
    """Smooth, as photographs are from pixel to pixel; 0-255."""
    rows, columns = np.mgrid[:size, :size] / 20
    one = np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)], -1) * 120 + 127
    return np.repeat(one[np.newaxis].astype(np.float32), batch, 0)


def minitl_layer(name: str, batch: int, size: int) -> Ready:
    from minitl import layers

    settings = LAYERS.get(name, {"stddev": 5.0} if name == "GaussianNoise" else {})
    layer, x = getattr(layers, name)(**settings), images(batch, size)
    seeds = np.arange(batch)
    return Ready(lambda: layer.with_seeds(x, seeds))


def minitl_stack(compose: bool, batch: int, size: int) -> Ready:
    from minitl import layers
    from minitl.data import augment

    stack = [getattr(layers, name)(**LAYERS.get(name, {})) for name in GEOMETRIC]
    x = images(batch, size)
    return Ready(lambda: augment(x, stack, compose=compose))


def keras_layer(name: str, batch: int, size: int) -> Ready:
    import tensorflow as tf
    from keras import layers

    layer, x = getattr(layers, name)(**LAYERS[name]), tf.constant(images(batch, size))
    run = tf.function(lambda x: layer(x, training=True))
    return Ready(lambda: run(x).numpy(), "compiled")


if __name__ == "__main__":
    main(measure)
