"""How long do an LSTM and a GRU take on sequences of features, predicting and training (Adam)?"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.common import Options, Report, main
from benchmarks.contest import Contender, Ready, compete
from benchmarks.peers import NEEDS, keras_and_tensorflow

Array = np.ndarray


def measure(options: Options) -> Report:
    n, steps, d, units, repetitions = options.pick((32, 20, 512, 128, 15), (4, 3, 8, 5, 2))
    settings = {"batch": n, "steps": steps, "features": d, "units": units, "warm-up": 3}
    report = Report("recurrent", __doc__ or "", settings | {"repetitions": repetitions})
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, steps, d), dtype=np.float32)
    y = np.eye(10, dtype=np.float32)[rng.integers(0, 10, n)]
    for kind in ("LSTM", "GRU"):
        for what in ("predict", "train"):
            given = {"kind": kind, "units": units, "x": x, "y": y, "what": what}
            contenders = [
                Contender("minitl", in_minitl, given),
                Contender("Keras", in_keras, given, NEEDS["Keras"]),
            ]
            case = f"{kind}, {what}"
            compete(report, case, contenders, repetitions, "ms")
            report.compare(case, "minitl", "Keras")
    return report


def in_minitl(kind: str, units: int, x: Array, y: Array, what: str) -> Ready:
    import minitl

    model = head(minitl, kind, units, x)
    if what == "train":
        return Ready(lambda: model.train_on_batch(x, y))
    return Ready(lambda: model.predict(x, batch_size=len(x), verbose=0))


def in_keras(kind: str, units: int, x: Array, y: Array, what: str) -> Ready:
    keras, tf = keras_and_tensorflow()
    model = head(keras, kind, units, x)
    if what == "train":
        return Ready(lambda: model.train_on_batch(x, y), "train_on_batch")
    # Without the overhead of Keras's own `predict`, which would be most of the time.
    compiled = tf.function(lambda batch: model(batch, training=False))
    batch = tf.constant(x)
    return Ready(lambda: compiled(batch).numpy(), "tf.function")


def head(package: Any, kind: str, units: int, x: Array) -> Any:
    """A recurrent layer and a softmax, on the same weights in both."""
    layers = package.layers
    model = package.Sequential(
        [
            package.Input(x.shape[1:]),
            getattr(layers, kind)(units),
            layers.Dense(10, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal(w.shape) / np.sqrt(w.shape[0]) for w in model.get_weights()]
    model.set_weights(weights)
    model.compile(package.optimizers.Adam(1e-4), "categorical_crossentropy")
    return model


if __name__ == "__main__":
    main(measure)
