"""What networks have in common beside VGG's spine (`vgg16.py`): the checks of arguments that are
not those of a plain base, and the last step of networks whose images are not VGG's."""

import os
from typing import Any

from minitl import activations
from minitl.applications import vgg16
from minitl.applications import weights as pretrained
from minitl.applications.vgg16 import SMALLEST
from minitl.layers.base import SymbolicTensor
from minitl.layers.core import InputLayer, InputRange
from minitl.models import Model


def margins(x: SymbolicTensor, window: int) -> Any:
    """Zeros before and behind rows and columns, for a window that moves by two: as 'same' padding
    does, of even sizes less before than behind. An open size is taken as even."""
    half = window // 2
    return tuple((half - 1 + (n or 0) % 2, half) for n in x.shape[1:3])


def finish(
    x: SymbolicTensor, y: SymbolicTensor, name: str, weights: Any, entry: Any, *expected: Any
) -> Model:
    """`vgg16.finish` for a published file, and what is `expected` of images: low, high, advice."""
    model = vgg16.finish("", x, y, None, True, name)
    if weights is not None:
        model.load_weights(pretrained.fetch(entry) if weights == "imagenet" else weights)
        if isinstance(x.call.layer, InputLayer):
            x.call.layer.inspect = InputRange(*expected)
    return model


def check(network: str, *arguments: Any, sizes: tuple[int, ...] = (224,)) -> None:
    """Raise ValueError or TypeError for a network's arguments that do not go together; its top was
    published for square images of these `sizes`."""
    include_top, weights, input_tensor, input_shape, pooling, classes, activation, _ = arguments
    if weights not in (None, "imagenet") and not os.path.exists(str(weights)):
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
    if include_top and published and shape[:2] not in [(n, n) for n in sizes]:
        got = f"got {shape}; use include_top=False for other sizes"
        known = " or ".join(f"({n}, {n}, 3)" for n in sizes)
        raise ValueError(f"with its ImageNet top {network} takes {known}, {got}")
    if include_top and None in shape:
        raise ValueError("include_top=True needs a fixed input_shape")
    if any(n is not None and n < SMALLEST for n in shape[:2]):
        raise ValueError(f"{network} takes images of at least {SMALLEST}x{SMALLEST}, got {shape}")
