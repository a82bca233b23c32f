"""The checks of a network's arguments, for all of the networks here.

`vgg16.py` calls them when the arguments are not those of a plain base without its top.
"""

import os
from typing import Any

from minitl import activations
from minitl.applications.vgg16 import SMALLEST
from minitl.layers.base import SymbolicTensor

__all__ = ["check", "check_shape"]


def check(
    network: str,
    include_top: bool,
    weights: Any,
    input_tensor: Any,
    input_shape: Any,
    pooling: str | None,
    classes: int,
    classifier_activation: Any,
    name: str,
) -> None:
    """Raise ValueError or TypeError for arguments of a network that do not go together."""
    if weights not in (None, "imagenet") and not os.path.exists(weights):
        raise ValueError(
            f"weights must be 'imagenet', None, or the path of a weight file; there is no file "
            f"{str(weights)!r}"
        )
    if weights == "imagenet" and include_top and classes != 1000:
        raise ValueError(
            f"the ImageNet top has 1000 classes, not {classes}; use include_top=False and a head "
            f"of your own"
        )
    trained = [activations.get(each) for each in ("softmax", None)]
    if weights and include_top and activations.get(classifier_activation) not in trained:
        raise ValueError(
            f"the top was trained with classifier_activation='softmax' (None gives its logits), "
            f"not {classifier_activation!r}"
        )
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"pooling must be None, 'avg' or 'max', got {pooling!r}")
    if input_tensor is not None and not isinstance(input_tensor, SymbolicTensor):
        raise TypeError("input_tensor is a symbolic tensor, from Input(...) or a layer")
    if input_tensor is not None:
        check_shape(network, tuple(input_tensor.shape[1:]), include_top, weights == "imagenet")
    elif input_shape is not None:
        check_shape(network, tuple(input_shape), include_top, weights == "imagenet")


def check_shape(network: str, shape: tuple, include_top: bool, published: bool) -> None:
    """Raise ValueError for images (H, W, C) that a network, or its published weights, cannot."""
    if len(shape) != 3:
        raise ValueError(f"{network} takes images: input_shape=(H, W, 3), got {shape}")
    if published and shape[2] != 3:
        raise ValueError(
            f"the ImageNet weights of {network} take 3 channels (RGB), got input_shape={shape}; "
            f"gray images become RGB with minitl.data.to_rgb(x)"
        )
    if include_top and published and shape[:2] != (224, 224):
        raise ValueError(
            f"with its ImageNet top {network} takes (224, 224, 3), got {shape}; "
            f"use include_top=False for other sizes"
        )
    if include_top and None in shape:
        raise ValueError("include_top=True needs a fixed input_shape")
    if any(n is not None and n < SMALLEST for n in shape[:2]):
        raise ValueError(f"{network} takes images of at least {SMALLEST}x{SMALLEST}, got {shape}")
