"""Augmented views of arrays of images, without a model.

`augment` takes images and the layers of `minitl.layers`; each sample gets seeds of its own, so that
view 3 of image 17 is the same whatever is computed with it. Neighbouring layers that move pixels
become one: their matrices are multiplied, and the image is resampled once, which keeps it sharper.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minitl.autograd import as_tensor
from minitl.layers import augmentation as kinds
from minitl.layers.augmentation import Augmentation, Geometric, RandomCrop, Resampling
from minitl.layers.regularization import view_seeds
from minitl.models.arguments import guard
from minitl.naming import Natural, complain_about_unknown

CHUNK = 32  # images at a time: what is between the layers stays small


def augment(
    images: Any,
    layers: Augmentation | Iterable[Augmentation],
    seed: Natural = 0,
    view: Natural = 0,
    first: Natural = 0,
    compose: bool = True,
) -> np.ndarray:
    """One augmented view of each image.

    images   (N, H, W, C) or (N, H, W), pixels or preprocessed. The dtype stays: the integers of
             pixels are rounded and held within their type.
    layers   an augmentation layer of `minitl.layers`, or several in order
    seed     of all views; `view` is the number of this one
    first    the number of images[0]: view v of image i is the same in every call that agrees on
             the seed and the layers, whether it is computed with others or alone
    compose  False resamples once per layer, exactly as the same layers in a model would

    Returns (N, OH, OW, C) or (N, OH, OW). TypeError for other layers, ValueError for other shapes.

    >>> from minitl.layers import RandomTurn
    >>> augment(np.array([[[1, 2], [3, 4]]]), RandomTurn(turns=1)).tolist()
    [[[2, 4], [1, 3]]]
    """
    stack = [layers] if isinstance(layers, Augmentation) else list(layers)
    if others := [layer for layer in stack if not isinstance(layer, Augmentation)]:
        wanted = "augmentation layers, such as RandomFlip('horizontal')"
        raise TypeError(f"augment takes {wanted}; got {others[0]!r}")
    x = np.asarray(images)
    if x.ndim not in (3, 4) or x.dtype.kind not in "biuf" or 0 in x.shape[1:]:
        raise ValueError(f"augment takes images (N, H, W, C) or (N, H, W), got {x.dtype} {x.shape}")
    gray, parts = x.ndim == 3, []
    for start in range(0, max(len(x), 1), CHUNK):
        part = x[start : start + CHUNK, ..., np.newaxis] if gray else x[start : start + CHUNK]
        numbers = np.arange(first + start, first + start + len(part))
        place = 0
        while place < len(stack):
            run = _run(stack[place:], part.shape[1:3]) if compose else [stack[place]]
            seeds = [view_seeds(seed, view, numbers, place + i) for i in range(len(run))]
            place += len(run)
            part = _at_once(part, run, seeds) if len(run) > 1 else run[0].with_seeds(part, seeds[0])
        parts.append(_in_dtype(part, x.dtype))
    y = np.concatenate(parts)
    return y[..., 0] if gray else y


def _run(stack: Sequence[Any], size: tuple[int, ...]) -> list[Any]:
    """The layers at the front that can be one resampling of images of this size.

    They move pixels, and those that look beyond the border see the same there. A crop ends it,
    because behind it the border is another; one that does not fit scales, and stands alone.
    """
    run: list[Any] = []
    beyond = None
    for layer in stack:
        if not isinstance(layer, Geometric):
            break
        if isinstance(layer, Resampling):
            sees = (layer.interpolation, layer.fill_mode, layer.fill_value)
            if beyond not in (None, sees):
                break
            beyond = sees
        if isinstance(layer, RandomCrop):
            return [*run, layer] if layer.fits(size) else run or [layer]
        run.append(layer)
    return run or [stack[0]]


def _at_once(x: np.ndarray, run: Sequence[Any], seeds: Sequence[np.ndarray]) -> np.ndarray:
    """Several geometric layers as one: M = M_1 M_2 ..., from the last output to the first input."""
    size = x.shape[1:3]
    total: Any = np.eye(3)
    for layer, own in zip(run, seeds, strict=True):
        layer.prepare((len(x), *size, x.shape[3]))
        total = total @ layer.matrices(own, size)
        size = layer.out_size(size)
    filling = next((layer for layer in run if isinstance(layer, Resampling)), run[0])
    return filling.transform(as_tensor(np.asarray(x, filling.dtype)), total, size).storage


def _in_dtype(y: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Back in the dtype of the images."""
    if dtype.kind in "fb":
        return y.astype(dtype, copy=False) if dtype.kind == "f" else y >= 0.5
    limits = np.iinfo(dtype)
    return np.clip(np.rint(y), limits.min, limits.max).astype(dtype)


def augmentation_layers(
    flip: str | None = None,
    turn: bool = False,
    rotate: float = 0,
    shift: float = 0,
    zoom: float = 0,
    crop: tuple[int, int] | None = None,
    brightness: float = 0,
    contrast: float = 0,
    noise: float = 0,
    **images: Any,
) -> list[Augmentation]:
    """The usual layers in the usual order, in the units that people think in; the CLI's options.

    flip              'horizontal', 'vertical' or 'both'
    turn              by quarters of a circle
    rotate            up to so many degrees to either side
    shift, zoom       up to this fraction of the image
    crop              (height, width)
    brightness        up to this fraction of the range, either way
    contrast          up to this fraction more or less
    noise             standard deviation, in the units of the images
    images            fill_mode='reflect', fill_value=0.0, value_range=(0, 255), as in the layers

    What is 0 or None is left out. Raises ValueError for what is out of range.
    """
    known = ("fill_mode", "fill_value", "value_range")
    complain_about_unknown(images, known, "augmentation_layers")
    tone = {"value_range": images.pop("value_range", (0, 255))}
    given = {"shift": shift, "zoom": zoom, "brightness": brightness, "contrast": contrast}
    limits = {"rotate": (360, "from 0 to 360 degrees"), "noise": (np.inf, "at least 0")}
    for name, value in (given | {"rotate": rotate, "noise": noise}).items():
        most, allowed = limits.get(name, (1, "from 0 to 1"))
        if not 0 <= value <= most or value == np.inf:
            raise ValueError(f"{name} must be {allowed}, got {value:g}")
    made = [
        flip and kinds.RandomFlip(*() if flip == "both" else (flip,)),
        turn and kinds.RandomTurn(),
        rotate and kinds.RandomRotation(rotate / 360, **images),
        zoom and kinds.RandomZoom(zoom, **images),
        shift and kinds.RandomTranslation(shift, shift, **images),
        crop and kinds.RandomCrop(*crop),
        brightness and kinds.RandomBrightness(brightness, **tone),
        contrast and kinds.RandomContrast(contrast, **tone),
        noise and kinds.GaussianNoise(noise),
    ]
    return [layer for layer in made if isinstance(layer, Augmentation)]


guard(globals())
