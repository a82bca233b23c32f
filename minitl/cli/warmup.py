"""Compile the kernels ahead of their first use."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitl import layers, losses, optimizers
from minitl.models import Model


def warm_up(dtype: str = "float32") -> None:
    """Compile every kernel that training and prediction use, by running tiny ones of each.

    Those of `use_kernels("precise")` are left to whoever asks for them.
    """
    x = layers.Input((12, 12, 3), dtype=dtype, name="warm_up")
    settings: Any = {"dtype": dtype}
    h = layers.RandomFlip(**settings)(x)
    h = layers.RandomRotation(0.1, **settings)(h)
    h = layers.RandomContrast(0.1, (-9, 9), **settings)(h)
    h = layers.Conv2D(16, 3, padding="same", activation="relu", **settings)(h)
    h = layers.Conv2D(32, 3, padding="same", activation="relu", **settings)(h)
    h = layers.Conv2D(16, 5, strides=2, padding="same", **settings)(h)
    h = layers.BatchNormalization(**settings)(h)
    h = layers.Activation("relu", **settings)(h)
    h = layers.MaxPooling2D(**settings)(h)  # 2x2 with stride 2 has a kernel of its own
    h = layers.MaxPooling2D(3, strides=1, **settings)(h)
    h = layers.AveragePooling2D(1, **settings)(h)
    h = layers.Flatten(**settings)(h)
    for _ in range(2):  # the second has so many weights that BLAS does not multiply by them
        h = layers.Dense(1024, activation="relu", **settings)(h)
    p = layers.Dense(4, activation="softmax", **settings)(h)
    model = Model(x, p)
    # 8 images of 12x12 are 72 tiles of 4x4: enough for Winograd's gradients.
    images = np.random.default_rng(0).standard_normal((8, 12, 12, 3))
    labels = np.eye(4)[np.arange(8) % 4]
    momentum = optimizers.SGD(0.01, momentum=0.9)
    for optimizer in (optimizers.SGD(0.01), momentum, optimizers.Adam()):
        model.compile(optimizer, losses.CategoricalCrossentropy())
        model.fit(images, labels, verbose=0)
    model.predict(images, verbose=0)
