"""Compile the kernels ahead of their first use."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

from minitl import layers, losses, optimizers
from minitl.autograd import Tensor, backward
from minitl.layers import Layer
from minitl.models import Model
from minitl.naming import public_names


def warm_up(dtype: str = "float32") -> None:
    """Compile every kernel that training and prediction use, by running tiny ones of each.

    A test sees to it that none is left out, but those of `use_kernels("precise")`.
    """
    settings: Any = {"dtype": dtype}
    same: Any = {"padding": "same", **settings}
    x = h = layers.Input((12, 12, 3), dtype=dtype, name="warm_up")
    several = [
        layers.RandomFlip(**settings),
        layers.RandomRotation(0.1, **settings),
        layers.RandomContrast(0.1, (-9, 9), **settings),
        layers.Conv2D(16, 3, activation="relu", **same),
        layers.Conv2D(32, 3, activation="relu", **same),
        layers.Conv2D(32, 1, **same),
        layers.DepthwiseConv2D(3, **same),
        layers.ReLU(6.0, **settings),
        layers.DepthwiseConv2D(3, depth_multiplier=2, **same),
        layers.Activation("silu", **settings),
        layers.Conv2D(16, 5, strides=2, **same),
        layers.BatchNormalization(**settings),
        layers.Activation("relu", **settings),
        layers.MaxPooling2D(**settings),  # 2x2 with stride 2 has a kernel of its own
        layers.MaxPooling2D(3, strides=1, **settings),
        layers.AveragePooling2D(1, **settings),
        layers.Flatten(**settings),
        layers.Dense(1024, activation="relu", **settings),
        # So many weights that BLAS does not multiply by them.
        layers.Dense(1024, activation="relu", **settings),
        layers.Dense(4, activation="softmax", **settings),
    ]
    for layer in several:
        h = layer(h)
    model = Model(x, h)
    # 8 images of 12x12 are 72 tiles of 4x4: enough for Winograd's gradients.
    images = np.random.default_rng(0).standard_normal((8, 12, 12, 3))
    labels = np.eye(4)[np.arange(8) % 4]
    for optimizer in (optimizers.SGD(0.01), optimizers.SGD(0.01, momentum=0.9), optimizers.Adam()):
        model.compile(optimizer, losses.CategoricalCrossentropy())
        model.fit(images, labels, verbose=0)
    model.predict(images, verbose=0)
    features = layers.Input((2**15,), dtype=dtype, name="features")
    head = Model(features, layers.Dense(9, **settings)(features))  # few classes, wide features
    head.compile("adam", "mse")
    for rows in (8, 1):
        head.predict(np.zeros((rows, 2**15)), verbose=0)
    head.train_on_batch(np.zeros((8, 2**15)), np.zeros((8, 9)))
    steps = layers.Input((2, 3), dtype=dtype, name="steps")
    h = layers.GRU(16, **settings)(layers.LSTM(16, return_sequences=True, **settings)(steps))
    sequences = Model(steps, layers.Dense(4, activation="softmax", **settings)(h))
    sequences.compile("sgd", losses.CategoricalCrossentropy())
    sequences.train_on_batch(np.zeros((8, 2, 3)), labels)
    Model(x, _residual(x, same)).predict(images, verbose=0)
    large = layers.Input((56, 56, 16), dtype=dtype, name="large")  # cut into tiles of 6
    filtered = layers.Conv2D(16, 3, **same)(large)
    Model(large, filtered).predict(np.zeros((1, 56, 56, 16)), verbose=0)
    for layer in _layers_on_images(settings):  # whose kernels nothing above may have called
        given = Tensor(images.astype(dtype), requires_grad=True)
        y = layer(given, training=True, rng=np.random.default_rng(0))
        backward(y, [given], np.ones_like(y.data))


def _residual(x: Any, settings: dict[str, Any]) -> Any:
    """Two blocks whose sums are computed with the convolutions before them, of 3x3 and of 1x1."""
    h = layers.Conv2D(16, 1, **settings)(x)
    for window in (3, 1):
        branch = layers.Conv2D(16, window, **settings)(h)
        h = layers.Activation("relu", dtype=settings["dtype"])(layers.Add()([branch, h]))
    return h


def _layers_on_images(settings: dict[str, Any]) -> Iterator[Layer]:
    """One of each layer that takes images (N, H, W, C) and can be made without arguments."""
    for cls in public_names("minitl.layers").values():
        if not (isinstance(cls, type) and issubclass(cls, Layer) and cls.call is not Layer.call):
            continue
        if cls.input_rank in (None, 4) and not cls.several_inputs:
            with suppress(TypeError, ValueError):  # an argument is missing
                yield cls(**settings)
