"""MobileNetV2: seventeen blocks that widen, look at places channel by channel, and narrow again.

A block takes few channels to six times as many with a 1x1 convolution, looks at places with a 3x3
convolution of each channel by itself, and returns to few channels with a 1x1, without ReLU there;
where sizes allow, its input is added: an 'inverted residual'. Sandler, Howard, Zhu, Zhmoginov &
Chen 2018, 'MobileNetV2: Inverted Residuals and Linear Bottlenecks' (arXiv 1801.04381), table 2.
2,257,984 parameters without the top, 3,538,984 with it; 0.3 billion multiply-adds for an image of
224x224, a fiftieth of VGG16's. `alpha` makes all of it narrower or wider.

Layers have Keras's names: block_1_expand, block_1_depthwise, block_1_project ... block_16_project,
Conv_1. Fine-tune from `block_16`, say.
"""

from typing import Any

from minitl import layers as k
from minitl.applications import common
from minitl.applications.vgg16 import pooled, rgb_images, start
from minitl.applications.weights import NETWORKS, Published, decode_predictions, published
from minitl.autograd import Tensor
from minitl.layers import SymbolicTensor
from minitl.models import Model
from minitl.naming import Count, Positive, check_keywords

__all__ = ["MobileNetV2", "decode_predictions", "preprocess_input"]

# Table 2: (expansion, filters, blocks, stride of the first) of each row.
ROWS = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2)]
ROWS += [(6, 320, 1, 1)]
ALPHAS, SIZES = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4), (96, 128, 160, 192, 224)  # of published weights


@check_keywords
def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Images as MobileNetV2 was trained on them: y = x / 127.5 - 1, from -1 to 1, RGB.

    Arguments, result and errors are those of `vgg16.preprocess_input`.

    >>> preprocess_input([[[255, 0, 51]]])
    array([[[ 1. , -1. , -0.6]]], dtype=float32)
    """
    if isinstance(x, (SymbolicTensor, Tensor)):  # within a model
        symbol: Any = x
        return symbol / 127.5 - 1.0
    x, dtype = rgb_images(x, data_format)
    y = x.astype(dtype)  # always a copy
    y /= 127.5
    y -= 1
    return y


@check_keywords
def MobileNetV2(
    input_shape: tuple[int | None, int | None, int] | None = None,
    alpha: Positive = 1.0,
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: SymbolicTensor | None = None,
    pooling: str | None = None,
    classes: Count = 1000,
    classifier_activation: str | None = "softmax",
    name: str | None = None,
) -> Model:
    """MobileNetV2, by default with its ImageNet weights and its 1000-class top.

    `alpha` times as many channels everywhere: there are weights for 0.35, 0.5, 0.75, 1.0, 1.3 and
    1.4. The other arguments are those of `VGG16`. Without the top, an image of 224x224 gives maps
    of 7x7x1280. Weights for square images of 96, 128, 160, 192 and 224 were trained apart; other
    sizes take those for 224. Images go through this file's `preprocess_input` first.
    """
    own = input_shape if input_tensor is None else tuple(input_tensor.shape[1:])
    side = own[0] if own and own[0] == own[1] and own[0] in SIZES else 224
    arguments = (include_top, weights, input_tensor, input_shape, pooling, classes)
    common.check("mobilenet_v2", *arguments, classifier_activation, name, sizes=SIZES)
    if weights == "imagenet" and alpha not in ALPHAS:
        raise ValueError(f"there are ImageNet weights for alpha in {ALPHAS}, not for {alpha!r}")
    x = start(input_tensor, input_shape, include_top)
    y = k.Conv2D(eights(32 * alpha), 3, 2, "same", use_bias=False, name="Conv1")(x)
    y = normalized(y, "bn_Conv1", "Conv1_relu")
    number = 0
    for expansion, filters, blocks, stride in ROWS:
        for i in range(blocks):
            channels = eights(int(filters * alpha))
            y = block(y, expansion, channels, stride if i == 0 else 1, number)
            number += 1
    y = k.Conv2D(eights(1280 * max(alpha, 1.0)), 1, use_bias=False, name="Conv_1")(y)
    y = normalized(y, "Conv_1_bn", "out_relu")
    y = pooled(y, "avg" if include_top else pooling)
    if include_top:
        y = k.Dense(classes, activation=classifier_activation, name="predictions")(y)
    rows = side if weights == "imagenet" or not own else own[0]
    rows = rows if own or include_top or weights == "imagenet" else None
    return common.finish(
        *(x, y, name or f"mobilenetv2_{alpha:0.2f}_{rows}", weights),
        *(file_of(alpha, side, include_top), -1.0, 1.0),
        "Call mobilenet_v2.preprocess_input on RGB images from 0 to 255 first, and nothing else.",
    )


def block(x: SymbolicTensor, expansion: int, filters: int, stride: int, number: int) -> Any:
    """The paper's figure 4d; the first block of all does not expand."""
    name, channels, y = f"block_{number}" if number else "expanded_conv", x.shape[3] or 0, x
    if number:
        y = k.Conv2D(expansion * channels, 1, 1, "same", use_bias=False, name=f"{name}_expand")(y)
        y = normalized(y, f"{name}_expand_BN", f"{name}_expand_relu")
    if stride == 2:
        y = k.ZeroPadding2D(common.margins(y, 3), name=f"{name}_pad")(y)
    padding = "same" if stride == 1 else "valid"
    y = k.DepthwiseConv2D(3, stride, padding, use_bias=False, name=f"{name}_depthwise")(y)
    y = normalized(y, f"{name}_depthwise_BN", f"{name}_depthwise_relu")
    y = k.Conv2D(filters, 1, 1, "same", use_bias=False, name=f"{name}_project")(y)
    y = normalized(y, f"{name}_project_BN")
    return k.Add(name=f"{name}_add")([x, y]) if stride == 1 and channels == filters else y


def normalized(x: SymbolicTensor, name: str, relu: str | None = None) -> SymbolicTensor:
    """BatchNormalization, and a ReLU that ends at 6."""
    x = k.BatchNormalization(epsilon=1e-3, momentum=0.999, name=name)(x)
    return k.ReLU(6.0, name=relu)(x) if relu else x


def eights(filters: float) -> int:
    """The multiple of 8 nearest to so many filters, but not below 0.9 of them."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


def file_of(alpha: float, side: int, include_top: bool) -> Published:
    """The published file for this width and size of images. Digests are known of one size only."""
    entry = published("mobilenet_v2", include_top)
    file = entry.file.replace("1.0_224", f"{float(alpha)}_{side}")
    if file == entry.file:
        return entry
    url = entry.url.replace(entry.file, file)
    return Published(NETWORKS["mobilenet_v2"].title, include_top, file, url, "")
