"""What the contenders run: VGG16's layers with the published weights, on photographs.

A `Network` says which of VGG16's blocks, what follows them and which blocks are frozen. Every
runtime is given the very same arrays: the published kernels and biases of the convolutions, and
dense layers drawn from one seed. In the blocks' place there may be another network, drawn from one
seed as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from minitl.applications import weights as pretrained
from minitl.applications.vgg16 import BLOCKS, preprocess_input
from minitl.storage.keras_files import read_weights

Array = np.ndarray
Weights = dict[str, Sequence[Array]]  # layer: kernel, bias, or what a normalization has


@dataclass(frozen=True)
class Network:
    """Blocks of VGG16, then a `joint` to rows ('average', 'flatten' or None), then dense layers.

    The dense layers have `units` outputs each: all but the last with ReLU, the last with softmax.
    `whole` is the name of a network that stands in the blocks' place ('ResNet50'), without its top
    and with normalizations that are frozen: they work with fixed averages.
    """

    input_shape: tuple[int, ...]  # (H, W, C) or (D,)
    blocks: tuple[int, ...] = ()
    joint: str | None = None
    units: tuple[int, ...] = ()
    frozen: tuple[int, ...] = ()  # blocks
    whole: str = ""

    def convolutions(self, block: int) -> list[tuple[str, int]]:
        """The names and filters of a block's convolutions."""
        count, filters = BLOCKS[block - 1]
        return [(f"block{block}_conv{i}", filters) for i in range(1, count + 1)]


def vgg16(size: int) -> Network:
    """VGG16 without its top, for images of size x size."""
    return Network((size, size, 3), (1, 2, 3, 4, 5))


def published_weights() -> Weights:
    """VGG16's convolutions: kernel (3, 3, C, F) and bias (F,) by layer."""
    layers = read_weights(pretrained.fetch("vgg16", include_top=False)).layers
    return {name: (arrays[0][1], arrays[1][1]) for name, arrays in layers if arrays}


def weights_of(network: Network, seed: int = 0) -> Weights:
    """Kernel and bias of every layer of a network, in order.

    Dense kernels are Glorot's, the last one a tenth of it: features of VGG16 are large, and a loss
    that starts in the flat part of the softmax would hide differences.
    """
    found: Weights = {}
    published = published_weights() if network.blocks else {}
    height, width, channels = (*network.input_shape, 0, 0)[:3]
    for block in network.blocks:
        for name, filters in network.convolutions(block):
            found[name] = published[name]
            channels = filters
        height, width = height // 2, width // 2
    if network.whole:
        import minitl

        minitl.utils.set_random_seed(seed)
        base = whole(minitl, network)
        found = {layer.name: layer.get_weights() for layer in base.layers if layer.weights}
        channels = base.output.shape[-1]
    if len(network.input_shape) == 1:
        inputs = network.input_shape[0]
    else:
        inputs = channels if network.joint == "average" else height * width * channels
    rng = np.random.default_rng(seed)
    for i, units in enumerate(network.units, start=1):
        bound = np.sqrt(6 / (inputs + units)) / (10 if i == len(network.units) else 1)
        kernel = rng.uniform(-bound, bound, (inputs, units)).astype(np.float32)
        found[f"dense{i}"] = kernel, np.zeros(units, np.float32)
        inputs = units
    return found


def build(package: Any, network: Network) -> Any:
    """The network as a model of `package`: minitl or keras, the same words in both."""
    layers = package.layers
    if network.whole:
        base = whole(package, network)
        x, inputs = base.output, base.input
    else:
        x = inputs = layers.Input(network.input_shape)
    for block in network.blocks:
        for name, filters in network.convolutions(block):
            trainable = block not in network.frozen
            x = layers.Conv2D(
                filters, 3, padding="same", activation="relu", name=name, trainable=trainable
            )(x)
        x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
    if network.joint == "flatten":
        x = layers.Flatten(name="flatten")(x)
    if network.joint == "average":
        x = layers.GlobalAveragePooling2D(name="average")(x)
    for i, units in enumerate(network.units, start=1):
        activation = "softmax" if i == len(network.units) else "relu"
        x = layers.Dense(units, activation=activation, name=f"dense{i}")(x)
    model = package.models.Model(inputs, x)
    for name, weights in weights_of(network).items():
        model.get_layer(name).set_weights(weights)
    return model


def whole(package: Any, network: Network) -> Any:
    """The network that stands in the blocks' place."""
    base = getattr(package.applications, network.whole)(
        weights=None, include_top=False, input_shape=network.input_shape
    )
    for layer in base.layers:
        layer.trainable = type(layer).__name__ != "BatchNormalization"
    return base


# --- Data ----------------------------------------------------------------------------------------


@cache
def photographs(count: int, size: int, seed: int = 0) -> Array:
    """Photographs as VGG16 takes them: (count, size, size, 3) float32, BGR, mean subtracted.

    Solar cells (the extra `demo`); else pieces of scikit-learn's two photographs.
    """
    from minitl.data import resize_images, to_rgb

    try:
        from minitl.data import elpv

        cells = elpv.load_data()[0]
        order = np.random.default_rng(seed).permutation(len(cells))
        chosen = to_rgb(cells[order[:count]])
    except ImportError:
        chosen = colour_photographs(count, seed)
    return preprocess_input(resize_images(chosen, (size, size), "bilinear"))


def colour_photographs(count: int, seed: int = 0) -> Array:
    """Pieces of scikit-learn's two photographs (extra `test`): (count, 300, 300, 3) uint8, RGB."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(seed)
    pieces = []
    for i in range(count):
        image = load_sample_images().images[i % 2]  # (427, 640, 3)
        top, left = rng.integers(127), rng.integers(340)
        pieces.append(image[top : top + 300, left : left + 300])
    return np.stack(pieces)


def labels(count: int, classes: int = 10, seed: int = 0) -> Array:
    """One-hot labels (count, classes), drawn from a seed."""
    return np.eye(classes, dtype=np.float32)[
        np.random.default_rng(seed).integers(classes, size=count)
    ]
