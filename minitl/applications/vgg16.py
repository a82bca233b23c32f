"""VGG16: thirteen 3x3 convolutions in five blocks, a pool after each, three dense layers on top.

Simonyan & Zisserman 2015, 'Very Deep Convolutional Networks for Large-Scale Image Recognition'
(arXiv 1409.1556), configuration D in table 1. 14,714,688 parameters without the top, 138,357,544
with it; 15.3 billion multiply-adds for an image of 224x224.

The layers have Keras's names, by which the published weights find their places
(`storage/keras_weights.py`). They are worth something only on images like those they were trained
on: `preprocess_input` makes them.
"""

import functools
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from minitl import layers
from minitl.autograd import Array, Tensor
from minitl.layers import Conv2D, Dense, Flatten, Input, InputLayer, MaxPooling2D, SymbolicTensor
from minitl.models import Model
from minitl.naming import Count, attributes_of, check_keywords, part
from minitl.storage.keras_weights import load_published

if TYPE_CHECKING:
    from minitl.applications.weights import decode_predictions

__all__ = ["VGG16", "decode_predictions", "preprocess_input"]
__getattr__ = attributes_of(__name__, {"decode_predictions": "minitl.applications.weights"})

F = TypeVar("F", bound=Callable[..., Model])

# Table 1, column D: (convolutions, filters) of each block.
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
SMALLEST = 32  # rows and columns: they are halved five times
# Mean of ImageNet's training images, B, G, R, 0-255 (Simonyan & Zisserman 2015, section 2.1).
MEAN_BGR = (103.939, 116.779, 123.68)


@check_keywords
def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Images as VGG and ResNet50 were trained on them: BGR, minus the mean of ImageNet.

        y[..., 0] = B - 103.939     y[..., 1] = G - 116.779     y[..., 2] = R - 123.68

    Args:
        x: (N, H, W, 3) or (H, W, 3), RGB, 0-255, any dtype.

    Returns a new float32 array (float64 for float64) of the same shape, never x itself. Raises
    ValueError when the last axis is not 3; warns when all values lie within [0, 1].

    >>> preprocess_input([[[255, 0, 0]]])  # a red pixel
    array([[[-103.939, -116.779,  131.32 ]]], dtype=float32)
    """
    if isinstance(x, (SymbolicTensor, Tensor)):  # within a model
        symbol: Any = x
        return symbol[..., ::-1] - np.array(MEAN_BGR, x.dtype)
    x, dtype = rgb_images(x, data_format)
    y = x[..., ::-1].astype(dtype, order="C")  # always a copy
    y -= np.array(MEAN_BGR, dtype)
    return y


def rgb_images(x: Any, data_format: str | None) -> tuple[Array, Any]:
    """x (..., H, W, 3), and float32 or float64; `preprocess_input`'s errors and warnings."""
    if data_format not in (None, "channels_last"):
        raise ValueError(f"minitl keeps images as (N, H, W, C), not {data_format!r}")
    x = np.asarray(x)
    if x.ndim < 3 or x.shape[-1] != 3:
        hint = " Gray images become RGB with minitl.data.to_rgb(x)." if x.shape[-1:] == (1,) else ""
        raise ValueError(f"preprocess_input takes RGB images (N, H, W, 3), got {x.shape}.{hint}")
    if x.dtype.kind == "f" and x.size and x.min() >= 0 and x.max() <= 1 and x.max() > x.min():
        text = f"preprocess_input expects values from 0 to 255, but these go from {x.min():.3g} to "
        text += f"{x.max():.3g}: were the images divided by 255 already?"
        warnings.warn(text, UserWarning, stacklevel=4)
    return x, np.float64 if x.dtype == np.float64 else np.float32


def network(function: F) -> F:
    """Decorator: arguments that the usual base of a network does not have are checked first."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Model:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        top, weights, tensor, shape, pooling = list(given.arguments.values())[:5]
        usual = not top and weights in (None, "imagenet") and tensor is None and pooling is None
        sized = np.shape(shape) == (3,) and None not in shape and min(shape[:2]) >= SMALLEST
        if not usual or not sized or shape[2] != 3:
            part("networks").check(function.__name__.lower(), *given.arguments.values())
        return function(*args, **kwargs)

    return check_keywords(checked)  # type: ignore[return-value]


@network
def VGG16(
    include_top: bool = True,
    weights: Any = "imagenet",
    input_tensor: SymbolicTensor | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: Count = 1000,
    classifier_activation: str | None = "softmax",
    name: str = "vgg16",
) -> Model:
    """VGG16, by default with its ImageNet weights and its 1000-class top.

    Args:
        include_top: whether the three dense layers are there.
        weights: 'imagenet' (fetched once and kept, see `applications/weights.py`), None (random),
            or the path of a weight file.
        input_tensor: a symbolic tensor to start from, instead of a new Input.
        input_shape: (H, W, 3), at least 32x32; without the top it may be left open.
        pooling: without the top: None (maps, 224 -> 7x7x512), 'avg' or 'max' (512 numbers).
        classes, classifier_activation: of the top; None gives logits.

    Images go through `preprocess_input` first.
    """
    x = start(input_tensor, input_shape, include_top)
    y = convolutions(x, BLOCKS)
    y = classifier(y, classes, classifier_activation) if include_top else pooled(y, pooling)
    return finish("vgg16", x, y, weights, include_top, name)


def start(tensor: SymbolicTensor | None, shape: Any, include_top: bool) -> SymbolicTensor:
    """The symbolic tensor (N, H, W, 3) that a network starts from."""
    usual = (224, 224, 3) if include_top else (None, None, 3)
    return Input(shape or usual) if tensor is None else tensor


def convolutions(x: SymbolicTensor, blocks: tuple[tuple[int, int], ...]) -> SymbolicTensor:
    """The blocks: some 3x3 convolutions that keep the size, then a pool that halves it."""
    for b, (count, filters) in enumerate(blocks, start=1):
        for c in range(1, count + 1):
            x = Conv2D(filters, 3, padding="same", activation="relu", name=f"block{b}_conv{c}")(x)
        x = MaxPooling2D(2, strides=2, name=f"block{b}_pool")(x)
    return x


def classifier(x: SymbolicTensor, classes: Count, activation: Any) -> SymbolicTensor:
    """The last rows of table 1: FC-4096, FC-4096, FC-1000, soft-max."""
    x = Flatten(name="flatten")(x)
    x = Dense(4096, activation="relu", name="fc1")(x)
    x = Dense(4096, activation="relu", name="fc2")(x)
    return Dense(classes, activation=activation, name="predictions")(x)


def pooled(x: SymbolicTensor, pooling: str | None, names: tuple[str, str] | None = None) -> Any:
    """What stands at the end of a network without its top; Keras's `names` for it differ."""
    average, maximum = names or ("global_average_pooling2d", "global_max_pooling2d")
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(name=average)(x)
    return layers.GlobalMaxPooling2D(name=maximum)(x) if pooling == "max" else x


def finish(
    network: str, x: SymbolicTensor, y: SymbolicTensor, weights: Any, include_top: bool, name: str
) -> Model:
    """The model that computes y, of the Input that x is or comes from, with its weights."""
    root = x
    while len(root.call.inputs) == 1:
        root = root.call.inputs[0]
    model = Model(x if root.call.inputs else root, y, name=name)
    if weights is None:
        return model
    manifest = Path(__file__).with_name(f"{network}_notop_manifest.json")
    file = f"{network}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    if weights != "imagenet":
        model.load_weights(weights)
    elif include_top or not manifest.exists() or not load_published(model, file, manifest):
        model.load_weights(part("weights").fetch(network, include_top=include_top))
    if isinstance(x.call.layer, InputLayer):
        advice = "Call the network's preprocess_input on RGB images from 0 to 255 first, and "
        advice += "nothing else (no division by 255)."
        x.call.layer.inspect = layers.core.InputRange(-MEAN_BGR[2], 255 - MEAN_BGR[0], advice)
    return model
