"""ResNet50: sixteen blocks that each add a correction to what they are given.

A block computes y = relu(x + f(x)), f being a 1x1 convolution to few channels, a 3x3 among those
and a 1x1 back to four times as many: a 'bottleneck'. The sum lets gradients pass a block as if it
were not there. He, Zhang, Ren & Sun 2016, 'Deep Residual Learning for Image Recognition' (arXiv
1512.03385), table 1, column '50-layer'. 23,587,712 parameters without the top, 25,636,712 with
it; 3.9 billion multiply-adds for an image of 224x224.

A BatchNormalization follows every convolution; frozen, it works with its published averages.
"""

from typing import Any

from minitl import layers as k
from minitl.applications.vgg16 import finish, network, pooled, preprocess_input, start
from minitl.applications.weights import decode_predictions
from minitl.layers import SymbolicTensor
from minitl.models import Model
from minitl.naming import Count

__all__ = ["ResNet50", "decode_predictions", "preprocess_input"]

# Table 1, 50-layer: (blocks, filters, stride) of the stacks conv2 ... conv5.
STACKS = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))


@network
def ResNet50(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: SymbolicTensor | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: Count = 1000,
    classifier_activation: str | None = "softmax",
    name: str = "resnet50",
) -> Model:
    """ResNet50, by default with its ImageNet weights and its 1000-class top.
    Arguments and preprocessing are those of `VGG16`. Without the top, an image of 224x224 gives
    maps of 7x7x2048, or 2048 numbers where `pooling` is 'avg' or 'max'. When some blocks are to be
    trained, leave the BatchNormalization layers frozen: their averages stem from larger batches.
    """
    x = start(input_tensor, input_shape, include_top)
    y = k.ZeroPadding2D(3, name="conv1_pad")(x)
    y = convolved(y, 64, 7, "conv1", strides=2)
    y = k.Activation("relu", name="conv1_relu")(y)
    y = k.ZeroPadding2D(1, name="pool1_pad")(y)
    y = k.MaxPooling2D(3, strides=2, name="pool1_pool")(y)
    for stack, (blocks, filters, stride) in enumerate(STACKS, start=2):
        for i in range(1, blocks + 1):
            y = block(y, filters, stride if i == 1 else 1, i == 1, f"conv{stack}_block{i}")
    if include_top:
        y = k.GlobalAveragePooling2D(name="avg_pool")(y)
        y = k.Dense(classes, activation=classifier_activation, name="predictions")(y)
    else:
        y = pooled(y, pooling, ("avg_pool", "max_pool"))
    return finish("resnet50", x, y, weights, include_top, name)


def block(x: SymbolicTensor, filters: int, stride: int, projects: bool, name: str) -> Any:
    """relu(x + f(x)): the paper's figure 5. Where it `projects`, x passes a 1x1 convolution."""
    shortcut = convolved(x, 4 * filters, 1, f"{name}_0", strides=stride) if projects else x
    y = convolved(x, filters, 1, f"{name}_1", strides=stride)
    y = k.Activation("relu", name=f"{name}_1_relu")(y)
    y = convolved(y, filters, 3, f"{name}_2", padding="same")
    y = k.Activation("relu", name=f"{name}_2_relu")(y)
    y = convolved(y, 4 * filters, 1, f"{name}_3")
    y = k.Add(name=f"{name}_add")([shortcut, y])
    return k.Activation("relu", name=f"{name}_out")(y)


def convolved(x: SymbolicTensor, filters: int, size: int, name: str, **how: Any) -> SymbolicTensor:
    """A convolution and its normalization, with the epsilon of the published weights."""
    x = k.Conv2D(filters, size, name=f"{name}_conv", **how)(x)
    return k.BatchNormalization(epsilon=1.001e-5, name=f"{name}_bn")(x)
