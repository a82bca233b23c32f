"""What the pretrained networks share: input shapes, preprocessing, class names, weights."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from minitl import activations
from minitl.applications.preprocessing import InputRange
from minitl.layers.base import SymbolicTensor
from minitl.layers.core import Input, InputLayer
from minitl.layers.pooling import GlobalAveragePooling2D, GlobalMaxPooling2D
from minitl.models import Model

# Mean of ImageNet's training images, B, G, R, 0-255 (Simonyan & Zisserman 2015, section 2.1).
MEAN_BGR = (103.939, 116.779, 123.68)

# Rows and columns that are halved five times need so many to begin with.
SMALLEST = 32

Array = np.ndarray


def preprocess_input(x: Any, data_format: str | None = None) -> Array:
    """Images as VGG and ResNet50 were trained on them: BGR, minus the mean of ImageNet.

        y[..., 0] = B - 103.939     y[..., 1] = G - 116.779     y[..., 2] = R - 123.68

    No scaling. (Keras calls this mode 'caffe'. Keras's function changes a float array of the
    caller's in place; this one never does.)

    Args:
        x: (N, H, W, 3) or (H, W, 3), RGB, 0-255, any dtype.

    Returns a new float32 array (float64 for float64) of the same shape. Raises ValueError when the
    last axis is not 3; warns when all values lie within [0, 1].

    >>> preprocess_input([[[255, 0, 0]]])  # a red pixel
    array([[[-103.939, -116.779,  131.32 ]]], dtype=float32)
    """
    if isinstance(x, SymbolicTensor):
        raise TypeError("preprocess_input works on arrays: preprocess the images, not the graph")
    if data_format not in (None, "channels_last"):
        raise ValueError(f"minitl keeps images as (N, H, W, C), not {data_format!r}")
    x = np.asarray(x)
    if x.ndim < 3 or x.shape[-1] != 3:
        hint = " Gray images become RGB with minitl.data.to_rgb(x)." if x.shape[-1:] == (1,) else ""
        raise ValueError(f"preprocess_input takes RGB images (N, H, W, 3), got {x.shape}.{hint}")
    if x.dtype.kind == "f" and x.size and x.min() >= 0 and x.max() <= 1 and x.max() > x.min():
        warnings.warn(
            f"preprocess_input expects values from 0 to 255, but these go from {x.min():.3g} to "
            f"{x.max():.3g}: were the images divided by 255 already?",
            UserWarning,
            stacklevel=2,
        )
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    y = x[..., ::-1].astype(dtype, order="C")  # always a copy
    y -= np.array(MEAN_BGR, dtype=dtype)
    return y


def expected_range() -> InputRange:
    """The range of what `preprocess_input` gives, from black in R to white in B."""
    return InputRange(
        -MEAN_BGR[2],
        255 - MEAN_BGR[0],
        "Call the network's preprocess_input on RGB images from 0 to 255 first, and nothing else "
        "(no division by 255).",
    )


def decode_predictions(
    preds: Any, top: int = 5, class_index: str | os.PathLike[str] | None = None
) -> list[list[tuple[str, str, float]]]:
    """The names of the `top` most probable ImageNet classes of each row.

    Args:
        preds: (N, 1000) probabilities.
        top: how many.
        class_index: path of an `imagenet_class_index.json`, {"0": ["n01440764", "tench"], ...};
            None takes Keras's, which is fetched once and kept (see `minitl.pretrained`).

    Returns for each row a list of (WordNet id, name, probability), most probable first.
    """
    preds = np.asarray(preds)
    if preds.ndim != 2 or preds.shape[1] != 1000:
        raise ValueError(
            f"decode_predictions takes the (N, 1000) outputs of a network with its ImageNet top, "
            f"got shape {preds.shape}"
        )
    from minitl.applications import (
        weights as pretrained,  # brings an HTTP client along: not when minitl is imported
    )

    classes = pretrained.imagenet_classes(class_index)
    best = np.argsort(-preds, axis=1, kind="stable")[:, :top]
    return [
        [(*classes[i], float(row[i])) for i in order]
        for row, order in zip(preds, best, strict=True)
    ]


def start(
    network: str,
    include_top: bool,
    weights: Any,
    input_tensor: SymbolicTensor | None,
    input_shape: Any,
    pooling: str | None,
    classes: int,
    classifier_activation: Any,
) -> SymbolicTensor:
    """Check a network's arguments, and return the symbolic tensor that it starts from."""
    if weights is not None and weights != "imagenet" and not os.path.exists(weights):
        raise ValueError(
            f"weights must be 'imagenet', None, or the path of a weight file; there is no file "
            f"{str(weights)!r}"
        )
    if weights == "imagenet" and include_top and classes != 1000:
        raise ValueError(
            f"the ImageNet top has 1000 classes, not {classes}; use include_top=False and a head "
            f"of your own"
        )
    if (
        weights is not None
        and include_top
        and activations.get(classifier_activation)
        not in (
            activations.get("softmax"),
            activations.get(None),
        )
    ):
        raise ValueError(
            f"the top was trained with classifier_activation='softmax' (None gives its logits), "
            f"not {classifier_activation!r}"
        )
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"pooling must be None, 'avg' or 'max', got {pooling!r}")
    if input_tensor is not None:
        if not isinstance(input_tensor, SymbolicTensor):
            raise TypeError("input_tensor is a symbolic tensor, from Input(...) or a layer")
        shape = tuple(input_tensor.shape[1:])
    elif input_shape is None:
        shape = (224, 224, 3) if include_top else (None, None, 3)
    else:
        shape = tuple(input_shape)
    if len(shape) != 3:
        raise ValueError(f"{network} takes images: input_shape=(H, W, 3), got {shape}")
    if weights == "imagenet" and shape[2] != 3:
        raise ValueError(
            f"the ImageNet weights of {network} take 3 channels (RGB), got input_shape={shape}; "
            f"gray images become RGB with minitl.data.to_rgb(x)"
        )
    if include_top and weights == "imagenet" and shape[:2] != (224, 224):
        raise ValueError(
            f"with its ImageNet top {network} takes (224, 224, 3), got {shape}; "
            f"use include_top=False for other sizes"
        )
    if include_top and None in shape:
        raise ValueError("include_top=True needs a fixed input_shape")
    if any(n is not None and n < SMALLEST for n in shape[:2]):
        raise ValueError(f"{network} takes images of at least {SMALLEST}x{SMALLEST}, got {shape}")
    if input_tensor is not None:
        return input_tensor
    return Input(shape)


def pooled(
    x: SymbolicTensor,
    pooling: str | None,
    average: str = "global_average_pooling2d",
    maximum: str = "global_max_pooling2d",
) -> SymbolicTensor:
    """What stands at the end of a network without its top; the layers' names differ in Keras."""
    if pooling == "avg":
        return GlobalAveragePooling2D(name=average)(x)
    if pooling == "max":
        return GlobalMaxPooling2D(name=maximum)(x)
    return x


def finish(
    network: str,
    x: SymbolicTensor,
    output: SymbolicTensor,
    weights: Any,
    include_top: bool,
    name: str,
) -> Model:
    """The model from x to output, with its weights loaded."""
    model = Model(_source(x), output, name=name)
    if weights is None:
        return model
    if weights == "imagenet":
        from minitl.applications import weights as pretrained

        weights = pretrained.fetch(network, include_top=include_top)
    model.load_weights(weights)
    if isinstance(x.call.layer, InputLayer):
        x.call.layer.inspect = expected_range()
    return model


def _source(x: SymbolicTensor) -> SymbolicTensor:
    """The Input that x comes from, if it comes from exactly one; else x itself."""
    tensor = x
    while tensor.call.inputs:
        if len(tensor.call.inputs) != 1:
            return x
        tensor = tensor.call.inputs[0]
    return tensor
