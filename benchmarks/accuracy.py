"""How far is float32 from float64: features, gradients, and the published test of Winograd's?

Errors are given twice, max |error| / max |value| and relative L2. The reference is minitl's
direct convolution in float64; the peers are held against the same numbers.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import algorithms, peers, training_step
from benchmarks.common import Options, Report, main
from benchmarks.contenders import (
    Array,
    Network,
    build,
    labels,
    photographs,
    published_weights,
    vgg16,
)
from benchmarks.contest import Contender, Ready, alone
from benchmarks.layers import LAYERS
from benchmarks.networks import NETWORKS
from benchmarks.peers import NEEDS, PRECISE, keras_and_tensorflow, predicting
from minitl import kernels
from minitl.kernels import reference
from minitl.kernels.geometry import Geometry, sliding

# Lavin & Gray 2016, 'Fast Algorithms for Convolutional Neural Networks' (arXiv 1509.09308): max
# |error| in float32 on data uniform in [-1, 1], by layer.
PUBLISHED = {
    "block1_conv2": {"published, direct": 4.0e-5, "published, F(4x4)": 2.8e-4},
    "block2_conv2": {"published, direct": 8.0e-5, "published, F(4x4)": 5.4e-4},
    "block3_conv2": {"published, direct": 1.5e-4, "published, F(4x4)": 9.1e-4},
    "block4_conv2": {"published, direct": 3.2e-4, "published, F(4x4)": 1.0e-3},
    "block5_conv1": {"published, direct": 3.4e-4, "published, F(4x4)": 1.1e-3},
}
MAX, L2 = "max error / max value", "relative L2"
OF_IMAGES = ("mean", "variance", "count")  # weights of Normalization, which Keras adapts
GOAL = 5e-6
ROUNDING = float(np.finfo(np.float32).eps) / 2  # of 1, at most


def measure(options: Options) -> Report:
    images, batch = options.pick((5, 16), (1, 1))
    told = {"image": options.size, "photographs": images, "batch of the gradients": batch}
    report = Report("accuracy", (__doc__ or "").splitlines()[0], told)
    _features(report, photographs(images, options.size))
    _gradients(report, photographs(batch, options.size), labels(batch))
    _networks(report, photographs(options.pick(4, 1), options.size))
    weights = published_weights()
    for layer, published in PUBLISHED.items():
        size = 8 if options.quick else LAYERS[layer]
        _uniform_data(report, layer, size, weights[layer][0].shape, published)
    return report


# --- Features ------------------------------------------------------------------------------------


def _features(report: Report, x: Array) -> None:
    """The output of each block, by algorithm; and the peers' of the last."""
    expected = _block_outputs(x, "float64", "im2col")
    outputs = {
        _name(algorithm): _block_outputs(x, "float32", algorithm) for algorithm in _choices()
    }
    for block, exact in enumerate(expected, start=1):
        for name, found in outputs.items():
            _add(report, f"block{block}_pool", name, found[block - 1], exact)
    last = f"block{len(expected)}_pool"
    for contender in predicting(vgg16(x.shape[1]), x)[1:]:
        if contender.installed:
            found, _ = alone(found_by, contender=contender)
            _add(report, last, contender.name, np.asarray(found), expected[-1])
        else:
            report.missing.append(contender.name)
    for measure_name in (MAX, L2):
        report.limit(f"{last}, {measure_name}", "minitl", GOAL)


def _block_outputs(x: Array, dtype: str, algorithm: str | None) -> list[Array]:
    import minitl

    model = _build(vgg16(x.shape[1]), dtype)
    pools = [layer.output for layer in model.layers if layer.name.endswith("_pool")]
    with algorithms.only(algorithm):
        return minitl.Model(model.input, pools).predict(x.astype(dtype), verbose=0)


def found_by(contender: Contender) -> Any:
    ready: Ready = contender.prepare(**contender.settings)
    return ready.run()


# --- Whole networks ------------------------------------------------------------------------------


def _networks(report: Report, x: Array) -> None:
    """Features of networks drawn from one seed: minitl's float32, and Keras's, against float64."""
    for name in NETWORKS:
        with kernels.use_kernels("reference"):
            exact = features_of(name, x, "float64")
        _add(report, name, "minitl", features_of(name, x, "float32"), exact)
        if Contender("Keras", peers.keras_predicts, needs=NEEDS["Keras"]).installed:
            found, _ = alone(features_of, name=name, x=x, dtype="float32", keras=True)
            _add(report, name, "Keras", found, exact)
        for measure_name in (MAX, L2):
            report.compare(f"{name}, {measure_name}", "minitl", "Keras", goal=2)


def features_of(name: str, x: Array, dtype: str, keras: bool = False) -> Array:
    """What a network without its top makes of x. Its normalizations have averages and scales that
    are drawn too: with zeros and ones the numbers of a deep network die away."""
    import minitl

    def made(package: Any) -> Any:
        settings = {"weights": None, "include_top": False, "input_shape": x.shape[1:]}
        return getattr(package.applications, name)(**settings)

    minitl.utils.set_random_seed(0)
    rng, drawn = np.random.default_rng(0), made(minitl)
    x = x if name == "EfficientNetB0" else x / 128  # it does so itself
    learned = [v for layer in drawn.layers for v in layer.weights if v.name not in OF_IMAGES]
    for v in (v for v in learned if len(v.shape) == 1):
        spread = v.name in ("gamma", "moving_variance")
        v.assign(rng.uniform(0.5, 1.5, v.shape) if spread else rng.normal(0, 0.1, v.shape))
    if keras:
        model = made(keras_and_tensorflow()[0])
        for layer in drawn.layers:
            model.get_layer(layer.name).set_weights(layer.get_weights())
        return np.asarray(model(x, training=False))
    minitl.config.set_floatx(dtype)
    try:
        model = made(minitl)
    finally:
        minitl.config.set_floatx("float32")
    model.set_weights(drawn.get_weights())
    return model.predict(x.astype(dtype), verbose=0)


# --- Gradients -----------------------------------------------------------------------------------


def _gradients(report: Report, x: Array, y: Array) -> None:
    """The gradient for every weight in a training step of all of VGG16: the worst of them.

    A number that rounding carries over zero changes what ReLU lets through, and one that it
    carries over its neighbour which of four a maximum takes its gradient from. One such decision
    in a deep layer moves the gradients of all layers below by more than all rounding does. So the
    gradients are also held against float64 with the decisions of float32: what is then left is
    what the kernels for gradients round. "precise" computes convolutions in float64 and rounds
    them; how little it takes to change decisions is seen from the same with random errors of
    ROUNDING, relative to their root mean square.
    """
    network = training_step.network_of(x.shape[1])
    expected = _gradients_of(x, y, "float64", "im2col")
    for algorithm in _choices():
        with outputs_kept() as outputs:
            found = _gradients_of(x, y, "float32", algorithm)
        _add_worst(report, f"gradients, {L2}", _name(algorithm), found, expected)
        with outputs_given(outputs):
            decided = _gradients_of(x, y, "float64", "im2col")
        _add_worst(report, f"gradients, same decisions, {L2}", _name(algorithm), found, decided)
    with kernels.use_kernels("precise"):
        found = _gradients_of(x, y, "float32", None)
    _add_worst(report, f"gradients, {L2}", PRECISE, found, expected)
    with convolutions_in_float64(ROUNDING):
        found = _gradients_of(x, y, "float32", None)
    name = f"minitl, exact sums, with errors of {ROUNDING:.0e}"
    _add_worst(report, f"gradients, {L2}", name, found, expected)
    for contender in peers.gradients(network, x, y):
        if contender.installed:
            found, _ = alone(found_by, contender=contender)
            _add_worst(report, f"gradients, {L2}", contender.name, found, expected)
    report.limit(f"gradients, {L2}", "minitl", 1e-4)
    report.limit(f"gradients, {L2}", PRECISE, 1e-4)
    report.limit(f"gradients, same decisions, {L2}", "minitl", 1e-4)


def _add_worst(
    report: Report, case: str, contender: str, found: dict[str, Array], exact: dict[str, Array]
) -> None:
    errors = {name: relative_l2(found[name], exact[name]) for name in exact}
    worst = max(errors, key=lambda name: errors[name])
    report.add(case, contender, "", [errors[worst]], f"worst: {worst}")


def _gradients_of(x: Array, y: Array, dtype: str, algorithm: str | None) -> dict[str, Array]:
    import minitl

    model = _build(training_step.network_of(x.shape[1]), dtype)
    weights = model.trainable_weights
    with algorithms.only(algorithm):
        p = model(x.astype(dtype), training=True)
        loss = minitl.losses.CategoricalCrossentropy()(y.astype(dtype), p)
        gradients = minitl.backward(loss, weights)
    names = [f"{layer.name}/{w.name}" for layer in model.layers for w in layer.trainable_weights]
    return dict(zip(names, gradients, strict=True))


@contextlib.contextmanager
def convolutions_in_float64(error: float) -> Iterator[None]:
    """Convolutions are computed in float64, given normal errors (their root mean square is `error`
    times that of the outputs), and rounded to the dtype that is theirs."""
    rng = np.random.default_rng(0)

    def with_errors(
        x: Array, kernel: Array, bias: Array, geometry: Geometry, activation: str | None, *_: Any
    ) -> Array:
        y = algorithms.module("im2col").conv2d(x, kernel, bias, geometry)
        y += error * np.sqrt(np.mean(y * y)) * rng.standard_normal(y.shape, np.float32)
        return np.maximum(y, 0) if activation == "relu" else y

    convolve = functools.partial(reference.in_float64, with_errors)
    with mock.patch.object(kernels, "conv2d", convolve):
        yield


@contextlib.contextmanager
def outputs_kept() -> Iterator[list[Array]]:
    """The list that is given takes the output of every convolution, in the order of the layers."""
    outputs: list[Array] = []
    convolve = kernels.conv2d

    def keep(*arguments: Any, **settings: Any) -> Array:
        outputs.append(convolve(*arguments, **settings))
        return outputs[-1].copy()

    with mock.patch.object(kernels, "conv2d", keep):
        yield outputs


@contextlib.contextmanager
def outputs_given(outputs: list[Array]) -> Iterator[None]:
    """Every convolution gives these outputs instead of its own, in its own dtype."""
    ready = iter(outputs)

    def give(x: Array, *_: Any, **__: Any) -> Array:
        return next(ready).astype(x.dtype)

    with mock.patch.object(kernels, "conv2d", give):
        yield


# --- Uniform data --------------------------------------------------------------------------------


def _uniform_data(
    report: Report, layer: str, size: int, shape: tuple[int, ...], published: dict[str, float]
) -> None:
    """One layer's shapes with images and kernel uniform in [-1, 1], beside the published errors."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1, size, size, shape[2])).astype(np.float32)
    kernel = rng.uniform(-1, 1, shape).astype(np.float32)
    geometry = sliding((size, size), (3, 3), (1, 1), "same")
    direct = algorithms.module("im2col")
    exact = direct.conv2d(x.astype(np.float64), kernel.astype(np.float64), None, geometry)
    case = f"{layer}, uniform data, max error"
    for name in algorithms.KNOWN:
        # As if gradients were to follow: Winograd's with tiles of 4x4, like the published one.
        y = algorithms.module(name).conv2d(x, kernel, None, geometry, recorded=True)
        report.add(case, f"minitl, {name}", "", [np.abs(y - exact).max()])
    for name, error in published.items():
        report.add(case, name, "", [error])


# --- Helpers -------------------------------------------------------------------------------------


def _build(network: Network, dtype: str) -> Any:
    import minitl

    minitl.config.set_floatx(dtype)
    try:
        return build(minitl, network)
    finally:
        minitl.config.set_floatx("float32")


def _choices() -> list[str | None]:
    """The dispatch's choice, then each algorithm for all it suits."""
    return [None, *algorithms.KNOWN]


def _name(algorithm: str | None) -> str:
    return f"minitl, {algorithm}" if algorithm else "minitl"


def _add(report: Report, case: str, contender: str, found: Array, exact: Array) -> None:
    error = np.abs(found - exact).max() / np.abs(exact).max()
    report.add(f"{case}, {MAX}", contender, "", [error])
    report.add(f"{case}, {L2}", contender, "", [relative_l2(found, exact)])


def relative_l2(found: Array, exact: Array) -> float:
    """|found - exact| / |exact|, in float64."""
    return float(np.linalg.norm((found - exact).ravel()) / np.linalg.norm(exact.ravel()))


if __name__ == "__main__":
    main(measure)
