"""EfficientNetB0: MobileNetV2's blocks, which in addition weigh their channels by what they see.

A block widens, looks at places channel by channel, 3x3 or 5x5, and narrows again. Between, each
channel is multiplied by a number from 0 to 1 that two small layers make of the means of all
channels ('squeeze and excitation', Hu, Shen & Sun 2018, arXiv 1709.01507). Its activation is swish,
x * sigmoid(x). Tan & Le 2019, 'EfficientNet: Rethinking Model Scaling for Convolutional Neural
Networks' (arXiv 1905.11946), table 1. 4,049,571 parameters without the top, 5,330,571 with it; 0.4
billion multiply-adds for an image of 224x224.

The network takes RGB images from 0 to 255 as they are: scaling is in its first layers. Layers have
Keras's names: block1a_dwconv ... block7a_project_conv, top_conv. In training, whole blocks are left
out at random, the upper ones more often (Huang et al. 2016, arXiv 1603.09382), frozen or not: under
a head of one's own call it with `training=False`, as with Keras's.
"""

from typing import Any

from minitl import layers as k
from minitl.applications import common
from minitl.applications.vgg16 import network, pooled, rgb_images, start
from minitl.applications.weights import decode_predictions, published
from minitl.autograd import Tensor
from minitl.initializers import VarianceScaling
from minitl.layers import SymbolicTensor
from minitl.models import Model
from minitl.naming import Count, attributes_of, check_keywords

__getattr__ = attributes_of(__name__, {})
__all__ = ["EfficientNetB0", "decode_predictions", "preprocess_input"]

# Table 1: (window, blocks, filters, expansion, stride of the first) of stages 2 to 8.
STAGES = [(3, 1, 16, 1, 1), (3, 2, 24, 6, 2), (5, 2, 40, 6, 2), (3, 3, 80, 6, 2), (5, 3, 112, 6, 1)]
STAGES += [(5, 4, 192, 6, 2), (3, 1, 320, 6, 1)]
BLOCKS = sum(count for _, count, *_ in STAGES)
DROPPED = 0.2  # blocks in training, at the top; the share rises evenly from 0
# Divisors of the published weights, whose authors divided by the variance, not its root, so that
# the layer's root is taken once more: standard deviations of ImageNet's R, G, B, in [0, 1].
DEVIATIONS = (0.229, 0.224, 0.225)


@check_keywords
def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Images as they are, RGB, 0-255, in float32: the network itself scales them.

    Arguments and errors are those of `vgg16.preprocess_input`.
    """
    if isinstance(x, (SymbolicTensor, Tensor)):
        return x
    x, dtype = rgb_images(x, data_format)
    return x.astype(dtype)


@network
def EfficientNetB0(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: SymbolicTensor | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: Count = 1000,
    classifier_activation: str | None = "softmax",
    name: str = "efficientnetb0",
) -> Model:
    """EfficientNetB0, by default with its ImageNet weights and its 1000-class top.

    Arguments are those of `VGG16`; images are RGB, 0-255, as they are. Without the top, an image of
    224x224 gives maps of 7x7x1280. With weights='imagenet' there is one layer more (Rescaling, as
    in Keras), so a file of these weights is for a network that was made with them.
    """
    x = start(input_tensor, input_shape, include_top)
    y = k.Normalization()(k.Rescaling(1 / 255)(x))
    if weights == "imagenet":
        y = k.Rescaling([1 / d**0.5 for d in DEVIATIONS])(y)
    y = k.ZeroPadding2D(common.margins(y, 3), name="stem_conv_pad")(y)
    y = activated(convolved(y, 32, 3, "stem_conv", strides=2, padding="valid"), "stem_")
    number = 0
    for stage, (window, blocks, filters, expansion, stride) in enumerate(STAGES, start=1):
        for letter in "abcd"[:blocks]:
            rate, step = DROPPED * number / BLOCKS, stride if letter == "a" else 1
            y = block(y, window, filters, expansion, step, rate, f"block{stage}{letter}_")
            number += 1
    y = activated(convolved(y, 1280, 1, "top_conv"), "top_")
    if include_top:
        y = k.Dropout(0.2, name="top_dropout")(k.GlobalAveragePooling2D(name="avg_pool")(y))
        uniform = VarianceScaling(1 / 3, "fan_out", "uniform")
        how = {"activation": classifier_activation, "kernel_initializer": uniform}
        y = k.Dense(classes, name="predictions", **how)(y)
    else:
        y = pooled(y, pooling, ("avg_pool", "max_pool"))
    entry = published("efficientnet_b0", include_top)
    advice = "Give it RGB images from 0 to 255 as they are: it scales them itself."
    return common.finish(x, y, name, weights, entry, 0.0, 255.0, advice)


def block(
    x: Any, window: int, filters: int, expansion: int, stride: int, rate: float, name: str
) -> Any:
    """Widen, look at places, weigh the channels, narrow; and add x, where sizes allow."""
    channels, y = x.shape[3], x
    if expansion > 1:
        y = activated(convolved(y, expansion * channels, 1, f"{name}expand_conv"), f"{name}expand_")
    if stride == 2:
        y = k.ZeroPadding2D(common.margins(y, window), name=f"{name}dwconv_pad")(y)
    how: Any = {"padding": "same" if stride == 1 else "valid", "use_bias": False}
    how |= {"depthwise_initializer": fan_out(), "name": f"{name}dwconv"}
    y = activated(k.DepthwiseConv2D(window, stride, **how)(y), name)
    weights = k.GlobalAveragePooling2D(name=f"{name}se_squeeze")(y)
    weights = k.Reshape((1, 1, expansion * channels), name=f"{name}se_reshape")(weights)
    few, how = max(1, channels // 4), {"use_bias": True}
    weights = convolved(weights, few, 1, f"{name}se_reduce", activation="swish", **how)
    many = expansion * channels
    weights = convolved(weights, many, 1, f"{name}se_expand", activation="sigmoid", **how)
    y = k.Multiply(name=f"{name}se_excite")([y, weights])
    y = convolved(y, filters, 1, f"{name}project_conv")
    y = k.BatchNormalization(name=f"{name}project_bn")(y)
    if stride != 1 or channels != filters:
        return y
    if rate > 0:
        y = k.Dropout(rate, noise_shape=(None, 1, 1, 1), name=f"{name}drop")(y)
    return k.Add(name=f"{name}add")([y, x])


def fan_out() -> VarianceScaling:
    return VarianceScaling(2.0, "fan_out", "truncated_normal")


def convolved(x: SymbolicTensor, filters: int, size: int, name: str, **how: Any) -> Any:
    settings: Any = {"padding": "same", "use_bias": False, "kernel_initializer": fan_out()} | how
    return k.Conv2D(filters, size, name=name, **settings)(x)


def activated(x: SymbolicTensor, name: str) -> SymbolicTensor:
    """BatchNormalization and swish."""
    x = k.BatchNormalization(name=f"{name}bn")(x)
    return k.Activation("swish", name=f"{name}activation")(x)
