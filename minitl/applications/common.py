"""The checks of a network's arguments, where they are not those of a plain base (`vgg16.py`)."""

import os
from typing import Any

from minitl import activations
from minitl.applications.vgg16 import SMALLEST
from minitl.layers.base import SymbolicTensor


def check(network: str, *arguments: Any) -> None:
    """Raise ValueError or TypeError for a network's arguments that do not go together."""
    include_top, weights, input_tensor, input_shape, pooling, classes, activation, _ = arguments
    if weights not in (None, "imagenet") and not os.path.exists(weights):
        expected = "'imagenet', None, or the path of a weight file"
        raise ValueError(f"weights must be {expected}; there is no file {str(weights)!r}")
    if weights == "imagenet" and include_top and classes != 1000:
        remedy = "use include_top=False and a head of your own"
        raise ValueError(f"the ImageNet top has 1000 classes, not {classes}; {remedy}")
    trained = [activations.get(each) for each in ("softmax", None)]
    if weights and include_top and activations.get(activation) not in trained:
        expected = "classifier_activation='softmax' (None gives its logits)"
        raise ValueError(f"the top was trained with {expected}, not {activation!r}")
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"pooling must be None, 'avg' or 'max', got {pooling!r}")
    if input_tensor is not None and not isinstance(input_tensor, SymbolicTensor):
        raise TypeError("input_tensor is a symbolic tensor, from Input(...) or a layer")
    shape = input_shape if input_tensor is None else input_tensor.shape[1:]
    if shape is None:
        return
    shape, published = tuple(shape), weights == "imagenet"  # (H, W, C)
    if len(shape) != 3:
        raise ValueError(f"{network} takes images: input_shape=(H, W, 3), got {shape}")
    if published and shape[2] != 3:
        got = f"got input_shape={shape}; gray images become RGB with minitl.data.to_rgb(x)"
        raise ValueError(f"the ImageNet weights of {network} take 3 channels (RGB), {got}")
    if include_top and published and shape[:2] != (224, 224):
        got = f"got {shape}; use include_top=False for other sizes"
        raise ValueError(f"with its ImageNet top {network} takes (224, 224, 3), {got}")
    if include_top and None in shape:
        raise ValueError("include_top=True needs a fixed input_shape")
    if any(n is not None and n < SMALLEST for n in shape[:2]):
        raise ValueError(f"{network} takes images of at least {SMALLEST}x{SMALLEST}, got {shape}")
