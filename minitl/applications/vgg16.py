"""VGG16: thirteen 3x3 convolutions in five blocks, a pool after each, three dense layers on top.

Simonyan & Zisserman 2015, 'Very Deep Convolutional Networks for Large-Scale Image Recognition'
(arXiv 1409.1556), configuration D in table 1. 14,714,688 parameters without the top, 138,357,544
with it; 15.3 billion multiply-adds for an image of 224x224.
"""

from __future__ import annotations

from typing import Any

from minitl.applications.common import decode_predictions, finish, pooled, preprocess_input, start
from minitl.layers import Conv2D, Dense, Flatten, MaxPooling2D, SymbolicTensor
from minitl.models import Model
from minitl.naming import check_keywords

__all__ = ["VGG16", "decode_predictions", "preprocess_input"]

# Table 1, column D: (convolutions, filters) of each block.
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))


@check_keywords
def VGG16(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: SymbolicTensor | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str = "vgg16",
) -> Model:
    """VGG16, by default with its ImageNet weights and its 1000-class top.

    Args:
        include_top: whether the three dense layers are there.
        weights: 'imagenet' (fetched once and kept, see `minitl.pretrained`), None (random), or
            the path of a weight file.
        input_tensor: a symbolic tensor to start from, instead of a new Input.
        input_shape: (H, W, 3), at least 32x32; without the top it may be left open.
        pooling: without the top: None (maps, 224 -> 7x7x512), 'avg' or 'max' (512 numbers).
        classes, classifier_activation: of the top; None gives logits.
        name: of the model.

    Images go through `preprocess_input` first.
    """
    x = start(
        "vgg16",
        include_top,
        weights,
        input_tensor,
        input_shape,
        pooling,
        classes,
        classifier_activation,
    )
    y = convolutions(x, BLOCKS)
    y = classifier(y, classes, classifier_activation) if include_top else pooled(y, pooling)
    return finish("vgg16", x, y, weights, include_top, name)


def convolutions(x: SymbolicTensor, blocks: tuple[tuple[int, int], ...]) -> SymbolicTensor:
    """The blocks: some 3x3 convolutions that keep the size, then a pool that halves it."""
    for b, (count, filters) in enumerate(blocks, start=1):
        for c in range(1, count + 1):
            x = Conv2D(filters, 3, padding="same", activation="relu", name=f"block{b}_conv{c}")(x)
        x = MaxPooling2D(2, strides=2, name=f"block{b}_pool")(x)
    return x


def classifier(x: SymbolicTensor, classes: int, activation: Any) -> SymbolicTensor:
    """The last rows of table 1: FC-4096, FC-4096, FC-1000, soft-max."""
    x = Flatten(name="flatten")(x)
    x = Dense(4096, activation="relu", name="fc1")(x)
    x = Dense(4096, activation="relu", name="fc2")(x)
    return Dense(classes, activation=activation, name="predictions")(x)
