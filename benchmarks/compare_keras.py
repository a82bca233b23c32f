"""Where does minitl's VGG16 differ from Keras's, layer by layer, and what only looks like it?

The first part runs both on the same photographs and the same published weights, and compares the
output of every layer with Keras's and with float64 (minitl's direct convolution): errors are
max |error| / max |value| and relative L2. Rounding grows a little from layer to layer; the first
layer that does more than round is named. Times are those of each layer alone, on what the layers
before it gave, in turns and each runtime in a process of its own.

The second part changes one thing that users do before the network, or after it, and shows by how
much F (the average of block5_pool over all places) then differs: what is usually taken for a
difference between frameworks.
"""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.accuracy import L2, MAX, relative_l2
from benchmarks.common import Claim, Options, Report, main, number
from benchmarks.contenders import Array, colour_photographs, photographs
from benchmarks.contest import alone, calls_for, timed
from benchmarks.peers import NEEDS, keras_and_tensorflow
from minitl.applications import weights as pretrained
from minitl.applications.vgg16 import MEAN_BGR, preprocess_input
from minitl.data import load_img, resize_images

GOAL = 1e-5  # of the maximum: what is more is no rounding
TURNS = 2
MAX_L2 = "max        L2"


@dataclass
class LayerReport(Report):
    """Prints what was measured of a layer in one line, and what users mistake below."""

    layers: tuple[str, ...] = ()

    def print(self, quick: bool = False) -> None:
        whole = self.rows
        self.rows = [row for row in whole if row.case not in self.layers]
        super().print(quick)
        self.rows = whole
        head = f"  {'':14}{'minitl - Keras':>20}{'minitl - float64':>20}{'Keras - float64':>20}"
        print(f"\n{head}{'ms/image':>18}")
        print(f"  {'layer':14}{3 * f'{MAX_L2:>20}'}{'minitl    Keras':>18}")
        for layer in self.layers:
            errors = [
                f"{self._number(layer, f'{pair}, {what}'):>10}"
                for pair in ("minitl - Keras", "minitl - float64", "Keras - float64")
                for what in (MAX, L2)
            ]
            times = [f"{self._number(layer, who):>9}" for who in ("minitl", "Keras")]
            print(f"  {layer:14}{''.join(errors)}{''.join(times)}")
        print(f"  the first layer that does more than round: {first_wrong(self) or 'none'}")

    def _number(self, layer: str, contender: str) -> str:
        row = self.find(layer, contender)
        return number(row.median) if row else "-"


def measure(options: Options) -> Report:
    images, repetitions = options.pick((3, 5), (1, 1))
    told = {"image": options.size, "photographs": images, "repetitions": TURNS * repetitions}
    report = LayerReport("compare_keras", (__doc__ or "").splitlines()[0], told)
    there = all(importlib.util.find_spec(package) for package in NEEDS["Keras"])
    if not there:
        report.missing.append("Keras")
    layer_by_layer(report, photographs(images, options.size), repetitions, there)
    mistakes(report, images, options.size, there)
    return report


# --- Layer by layer ------------------------------------------------------------------------------


def layer_by_layer(report: LayerReport, x: Array, repetitions: int, with_keras: bool) -> None:
    weights = str(pretrained.fetch("vgg16"))
    outputs = {"minitl": minitl_outputs(weights, x, "float32")}
    if with_keras:
        outputs["Keras"] = alone(keras_outputs, weights=weights, x=x)[0]
    exact = minitl_outputs(weights, x, "float64")
    compare(report, outputs, exact)
    seconds: dict[str, dict[str, list[float]]] = {}
    for _ in range(TURNS):
        for name, way in {"minitl": minitl_times, "Keras": keras_times}.items():
            if name in outputs:
                found, _ = alone(way, weights=weights, x=x, repetitions=repetitions)
                for layer, values in found.items():
                    seconds.setdefault(layer, {}).setdefault(name, []).extend(values)
    for layer, of in seconds.items():
        for name, values in of.items():
            report.add(layer, name, "ms/image", [v / len(x) * 1e3 for v in values])


def compare(
    report: LayerReport, outputs: dict[str, dict[str, Array]], exact: dict[str, Array]
) -> None:
    """Add each layer's errors, minitl's against Keras's and both against float64."""
    report.layers = tuple(exact)
    sides = {**outputs, "float64": exact}
    for layer in exact:
        for one, other in (("minitl", "Keras"), ("minitl", "float64"), ("Keras", "float64")):
            if one in sides and other in sides:
                a, b = sides[one][layer], sides[other][layer]
                pair = f"{one} - {other}"
                report.add(layer, f"{pair}, {MAX}", "", [np.abs(a - b).max() / np.abs(b).max()])
                report.add(layer, f"{pair}, {L2}", "", [relative_l2(a, b)])
    for pair in ("minitl - Keras", "minitl - float64"):
        errors = [row for row in report.rows if row.contender == f"{pair}, {MAX}"]
        if errors:
            worst = max(errors, key=lambda row: row.median)
            claim = Claim(f"worst layer ({worst.case})", f"{pair}, {MAX}", worst.median, GOAL)
            report.claims.append(claim)


def first_wrong(report: LayerReport) -> str:
    """The first layer where minitl differs by more than rounding, and from what; else ''."""
    for layer in report.layers:
        for other in ("Keras", "float64"):
            row = report.find(layer, f"minitl - {other}, {MAX}")
            if row and not row.median <= GOAL:
                return f"{layer} (against {other})"
    return ""


def minitl_outputs(weights: str, x: Array, dtype: str) -> dict[str, Array]:
    """The output of every layer, by the layer's name; float64 by the direct convolution."""
    import minitl

    minitl.config.set_floatx(dtype)
    try:
        model = _vgg16(minitl, weights, x)
        with minitl.use_kernels("direct" if dtype == "float64" else "fast"):
            return _outputs(minitl, model, x.astype(dtype))
    finally:
        minitl.config.set_floatx("float32")


def keras_outputs(weights: str, x: Array) -> dict[str, Array]:
    keras, _ = keras_and_tensorflow()
    return _outputs(keras, _vgg16(keras, weights, x), x)


def _vgg16(package: Any, weights: str, x: Array) -> Any:
    return package.applications.VGG16(include_top=False, weights=weights, input_shape=x.shape[1:])


def _outputs(package: Any, model: Any, x: Array) -> dict[str, Array]:
    layers = model.layers[1:]  # the first is the input
    whole = package.Model(model.input, [layer.output for layer in layers])
    found = whole.predict(x, batch_size=len(x), verbose=0)
    return {layer.name: y for layer, y in zip(layers, found, strict=True)}


def minitl_times(weights: str, x: Array, repetitions: int) -> dict[str, list[float]]:
    """Seconds of each layer alone, `repetitions` of them."""
    import minitl

    with minitl.no_grad():
        return _times(_vgg16(minitl, weights, x), x, repetitions, lambda layer: layer)


def keras_times(weights: str, x: Array, repetitions: int) -> dict[str, list[float]]:
    keras, tensorflow = keras_and_tensorflow()
    model = _vgg16(keras, weights, x)
    return _times(model, tensorflow.constant(x), repetitions, tensorflow.function)


def _times(
    model: Any, x: Any, repetitions: int, callable_of: Callable[[Any], Callable[[Any], Any]]
) -> dict[str, list[float]]:
    found = {}
    for layer in model.layers[1:]:
        run = partial(callable_of(layer), x)
        x = run()  # compiled now, and what the next layer is given
        calls = calls_for(timed(run))
        found[layer.name] = [timed(run, calls) for _ in range(repetitions)]
    return found


# --- What is mistaken for a difference -----------------------------------------------------------


def mistakes(report: Report, images: int, size: int, with_keras: bool) -> None:
    """Add by how much F changes when one thing is done otherwise, in the order of a pipeline."""
    originals = colour_photographs(images)  # (N, H, W, 3) uint8
    weights = str(pretrained.fetch("vgg16"))
    model = _features(weights, np.float32)
    right = preprocess_input(resize_images(originals, (size, size), "bilinear", antialias=True))
    expected = model(right)

    def add(what: str, found: Array, note: str = "") -> None:
        report.add(f"F, {what}", "relative L2", "", [relative_l2(found, expected)], note)

    if with_keras:
        found, _ = alone(keras_features, weights=weights, x=right)
        add("computed by Keras, the same pixels", found, "the difference between the frameworks")
    for what, pixels in other_pixels(originals, size).items():
        add(what, model(preprocess_input(pixels)))
    pixels = resize_images(originals, (size, size), "bilinear", antialias=True)
    for what, x in other_preprocessing(pixels).items():
        add(what, model(x))
    add("weights rounded to float16", _features(weights, np.float16)(right))
    add("F itself rounded to float16", expected.astype(np.float16).astype(np.float32))
    if images > 1:
        add("another photograph altogether", np.roll(expected, 1, axis=0), "to have a measure")


def other_pixels(originals: Array, size: int) -> dict[str, Array]:
    """The photographs resized, or stored, otherwise; RGB, 0-255."""
    shrunk = (size, size)

    def by_pillow(interpolation: str) -> Array:
        return np.stack(
            [np.asarray(load_img(_file(x), "rgb", shrunk, interpolation)) for x in originals]
        ).astype(np.float32)

    margin = (originals.shape[1] - size) // 2
    return {
        "resized by Pillow, bilinear (rounds to integers)": by_pillow("bilinear"),
        "resized by Pillow, bicubic": by_pillow("bicubic"),
        "resized by Pillow, nearest (load_img's default)": by_pillow("nearest"),
        "resized as tf.image, bilinear (no antialiasing)": resize_images(originals, shrunk),
        "not resized but cut out of the middle": originals[
            :, margin : margin + size, margin : margin + size
        ].astype(np.float32),
        "saved as JPEG of quality 75 before": resize_images(
            np.stack([np.asarray(load_img(_file(x, "JPEG"))) for x in originals]),
            shrunk,
            "bilinear",
            antialias=True,
        ),
    }


def other_preprocessing(pixels: Array) -> dict[str, Array]:
    """What is done instead of `preprocess_input`; its like is found in many scripts."""
    bgr = pixels[..., ::-1]
    scaled = pixels / 255
    return {
        "preprocessed twice": preprocess_input(preprocess_input(pixels)),
        "RGB left as it is, mean subtracted": pixels - np.array(MEAN_BGR[::-1], np.float32),
        "BGR, mean forgotten": bgr,
        "no preprocessing at all (RGB, 0-255)": pixels,
        "divided by 255 instead": scaled,
        "divided by 127.5, minus 1 (as for MobileNet)": scaled * 2 - 1,
        "as in PyTorch: / 255, mean and deviation": (
            (scaled - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
        ),
    }


def _file(x: Array, kind: str = "PNG") -> io.BytesIO:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(x).save(file, kind)
    file.seek(0)
    return file


def _features(weights: str, rounded: Any) -> Callable[[Array], Array]:
    """The function from preprocessed images to F, with weights rounded to a dtype."""
    import minitl

    model = minitl.applications.VGG16(include_top=False, weights=weights, pooling="avg")
    model.set_weights([w.astype(rounded).astype(np.float32) for w in model.get_weights()])
    model.layers[0].inspect = None  # the warning about such input is the subject here
    return lambda x: model.predict(x.astype(np.float32), verbose=0)


def keras_features(weights: str, x: Array) -> Array:
    keras, _ = keras_and_tensorflow()
    model = keras.applications.VGG16(include_top=False, weights=weights, pooling="avg")
    return model.predict(x, verbose=0)


if __name__ == "__main__":
    main(measure)
