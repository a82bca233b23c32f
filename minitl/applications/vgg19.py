"""VGG19: VGG16 with a fourth convolution in blocks 3, 4 and 5.

Simonyan & Zisserman 2015, 'Very Deep Convolutional Networks for Large-Scale Image Recognition'
(arXiv 1409.1556), configuration E in table 1. 20,024,384 parameters without the top, 143,667,240
with it; 19.6 billion multiply-adds for an image of 224x224.
"""

from typing import Any

from minitl.applications import vgg16
from minitl.applications.vgg16 import network, preprocess_input
from minitl.applications.weights import decode_predictions
from minitl.layers import SymbolicTensor
from minitl.models import Model
from minitl.naming import Count

__all__ = ["VGG19", "decode_predictions", "preprocess_input"]

# Table 1, column E: (convolutions, filters) of each block.
BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


@network
def VGG19(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: SymbolicTensor | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: Count = 1000,
    classifier_activation: str | None = "softmax",
    name: str = "vgg19",
) -> Model:
    """VGG19, by default with its ImageNet weights and its 1000-class top. Arguments, output shapes
    and preprocessing are those of `VGG16`."""
    x = vgg16.start(input_tensor, input_shape, include_top)
    y = vgg16.convolutions(x, BLOCKS)
    top = classes, classifier_activation
    y = vgg16.classifier(y, *top) if include_top else vgg16.pooled(y, pooling)
    return vgg16.finish("vgg19", x, y, weights, include_top, name)
