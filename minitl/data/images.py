"""Images in and out: files, Pillow images and arrays.

A network wants float32 arrays (N, H, W, 3) in RGB, 0-255; this file makes them of whatever lies
on the disk. The functions that `keras.utils` has too behave like Keras's, and like them do not
apply the EXIF orientation: a photograph is seen as its pixels are stored.

As in Keras there are two ways of resizing, and shrunk images differ. Pillow (`load_img`) widens its
kernel by the factor of shrinking, so that every pixel counts, and rounds to integers. TensorFlow
(`resize_images`, folders) does not, without `antialias=True`: 'bilinear' mixes 2 x 2 pixels however
much the image shrinks, so fine texture aliases.
"""

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import numpy as np
from PIL import Image

from minitl.data.door import Source, is_16_bit, opened, to_mode
from minitl.models.arguments import guard
from minitl.storage.atomic import replacing

PILLOW_MODES = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}  # one letter per channel
COPIES = 7  # bytes per pixel: of a copy in other colours, and of the array
PILLOW_FILTERS = ("nearest", "bilinear", "bicubic", "hamming", "box", "lanczos")


Images: TypeAlias = Annotated[np.ndarray, "an array of images"]


def load_img(
    path: Source,
    color_mode: str = "rgb",
    target_size: tuple[int, int] | None = None,
    interpolation: str = "nearest",
    keep_aspect_ratio: bool = False,
) -> Image.Image:
    """Read an image file and return it as a Pillow image.

    `color_mode` is 'rgb', 'rgba' or 'grayscale'. Gray is replicated to RGB; a palette is looked
    up; CMYK is converted; an alpha channel is cut off, not blended; of an animation the first
    frame is taken. A 16-bit gray image keeps its 16 bits in 'grayscale', as in Keras; for RGB its
    high byte is taken, as TensorFlow does (Keras clips at 255 there, which turns it white).

    The image is resized by Pillow to `target_size` (H, W) with `interpolation`, one of 'nearest',
    'bilinear', 'bicubic', 'hamming', 'box', 'lanczos'. With `keep_aspect_ratio` the largest
    centred part with these proportions is cut out first.

    Raises OSError naming the file when it cannot be read as an image, ValueError for an unknown
    `color_mode` or `interpolation` and for a `target_size` that is not two positive integers.
    """
    check_choice("color_mode", color_mode, PILLOW_MODES)
    check_choice("interpolation", interpolation, PILLOW_FILTERS)
    with opened(path, COPIES) as img:
        img.load()
        if not (color_mode == "grayscale" and (is_16_bit(img) or img.mode == "I")):
            img = to_mode(img, PILLOW_MODES[color_mode])
    if target_size is None:
        return img
    height, width = check_size("target_size", target_size)
    if img.size == (width, height):
        return img
    box = None
    if keep_aspect_ratio:
        down, across = middle(img.height, img.width, (height, width))
        box = (across.start, down.start, across.stop, down.stop)
    return img.resize((width, height), Image.Resampling[interpolation.upper()], box=box)


def middle(height: int, width: int, size: tuple[int, int]) -> tuple[slice, slice]:
    """The rows and columns of the largest centred part with the proportions of `size` (H, W)."""
    rows = max(min(height, width * size[0] // size[1]), 1)
    columns = max(min(width, height * size[1] // size[0]), 1)
    top, left = (height - rows) // 2, (width - columns) // 2
    return slice(top, top + rows), slice(left, left + columns)


def img_to_array(img: Image.Image, data_format: str | None = None, dtype: Any = None) -> np.ndarray:
    """Return a Pillow image as an array (H, W, C), float32 unless `dtype` says otherwise.

    Values stay as they are (0-255 for 8-bit images); gray images have C = 1.
    """
    check_data_format(data_format)
    x = np.asarray(img, dtype=np.float32 if dtype is None else dtype)
    if x.ndim not in (2, 3):
        raise ValueError(f"an image has the axes (H, W) or (H, W, C), got shape {x.shape}")
    return x[:, :, np.newaxis] if x.ndim == 2 else x


def array_to_img(
    x: Any, data_format: str | None = None, scale: bool = True, dtype: Any = None
) -> Image.Image:
    """Return an array (H, W, C), C = 1, 3 or 4, as a Pillow image; the inverse of `img_to_array`.

    With `scale` (Keras's default) the smallest value becomes 0 and the largest 255; without it,
    values are pixels: 0-255, fractions cut off. One channel with larger values makes a 32-bit
    gray image. `dtype` is that of the computation, float32 unless said otherwise.

    Raises ValueError for another shape, NaN, infinity, values outside 0-255 that are not scaled.
    """
    check_data_format(data_format)
    x = np.asarray(x, dtype=np.float32 if dtype is None else dtype)
    if x.ndim != 3 or x.shape[2] not in (1, 3, 4) or x.size == 0:
        what = "one image (H, W, C) with 1, 3 or 4 channels"
        raise ValueError(f"array_to_img takes {what}, got shape {x.shape}")
    if not np.isfinite(x).all():
        raise ValueError("the image has NaN or infinite values")
    if scale:
        x = x - x.min()
        x = x / max(x.max(), np.finfo(x.dtype).tiny) * 255  # in this order 255 is the largest
    gray = x.shape[2] == 1
    if x.min() < 0 or (x.max() > 255 and not gray):
        found = f"{x.min():g} to {x.max():g}; scale=True stretches any range to 0-255"
        raise ValueError(f"pixels must lie in 0-255, got {found}")
    pixels = (x[:, :, 0] if gray else x).astype(np.int32 if x.max() > 255 else np.uint8)
    return Image.fromarray(pixels)


def save_img(
    path: Any,
    x: Any,
    data_format: str | None = None,
    file_format: str | None = None,
    scale: bool = True,
    **kwargs: Any,
) -> None:
    """Write an array (H, W, C) as an image file; the format follows the ending of `path`.

    `path` may be an open binary file too, with `file_format` ('png', 'jpeg', ...). `scale` is
    that of `array_to_img`: give `scale=False` for pixels that are 0-255 already. Other arguments
    go to Pillow's `save`. A file appears whole or not at all.
    """
    img = array_to_img(x, data_format=data_format, scale=scale)
    is_path = isinstance(path, (str, os.PathLike))
    ending = os.path.splitext(path)[1] if is_path else ""
    ending = ending if file_format is None else f".{file_format}"
    pillow_format = Image.registered_extensions().get(ending.lower())
    if pillow_format not in Image.SAVE:
        advice = "end the name in .png or .jpg, or give file_format='png'"
        raise ValueError(f"cannot tell the image format from {path!r}: {advice}")
    if img.mode == "RGBA" and pillow_format == "JPEG":
        warnings.warn("JPEG has no alpha channel: it is left out", stacklevel=2)
        img = img.convert("RGB")
    with replacing(path) if is_path else contextlib.nullcontext(path) as place:
        img.save(place, format=pillow_format, **kwargs)


def to_rgb(x: Images) -> np.ndarray:
    """Replicate gray images to three equal channels: (N, H, W) or (N, H, W, 1) -> (N, H, W, 3).

    The dtype stays; images that have three channels already are returned as they are.

    >>> to_rgb(np.array([[[1, 2]]])).tolist()
    [[[[1, 1, 1], [2, 2, 2]]]]

    Raises ValueError for any other shape.
    """
    x = _with_channels(x)
    if x.shape[3] == 3:
        return x
    if x.shape[3] != 1:
        hint = "; to drop an alpha channel: x[..., :3]" if x.shape[3] == 4 else ""
        raise ValueError(f"to_rgb takes images with 1 or 3 channels, got shape {x.shape}{hint}")
    return np.repeat(x, 3, axis=3)


def _cubic(d: np.ndarray, b: float, c: float) -> np.ndarray:
    """Mitchell and Netravali's family of cubics (SIGGRAPH 1988); (0, 1/2) is Keys's kernel."""
    near = (12 - 9 * b - 6 * c) * d**3 + (-18 + 12 * b + 6 * c) * d**2 + (6 - 2 * b)
    far = (-b - 6 * c) * d**3 + (6 * b + 30 * c) * d**2 + (-12 * b - 48 * c) * d + 8 * b + 24 * c
    return np.where(d < 1, near, far) / 6


# Kernels for resizing: the weight at a distance d in pixels, and the distance where it ends.
KERNELS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {
    "bilinear": (lambda d: 1 - d, 1),
    "bicubic": (lambda d: _cubic(d, 0, 1 / 2), 2),
    "lanczos3": (lambda d: np.sinc(d) * np.sinc(d / 3), 3),
    "lanczos5": (lambda d: np.sinc(d) * np.sinc(d / 5), 5),
    "gaussian": (lambda d: np.exp(-2 * d**2), 1.5),  # standard deviation 1/2
    "mitchellcubic": (lambda d: _cubic(d, 1 / 3, 1 / 3), 2),
}
INTERPOLATIONS = (*KERNELS, "nearest", "area")


def resize_images(
    x: Images, size: tuple[int, int], interpolation: str = "bilinear", antialias: bool = False
) -> np.ndarray:
    """Resize images (N, H, W, C) or (N, H, W) to `size` (OH, OW), as `tf.image.resize` does.

        y[i] = sum_j w[i, j] x[j] / sum_j w[i, j],   w[i, j] = kernel(|j + 1/2 - (i + 1/2) H/OH|)

    along H, then along W: pixel j has its centre at j + 1/2, and pixels beyond the edge do not
    count. `interpolation` is 'bilinear', 'bicubic', 'lanczos3', 'lanczos5', 'gaussian' or
    'mitchellcubic' (kernels), 'nearest' (the pixel under the centre), or 'area' (each pixel by
    the part of it that the output pixel covers). `antialias` widens the kernel by H/OH where the
    image shrinks: use it to shrink by more than two. ('nearest' and 'area' ignore it.)

    Returns float32, or float64 for float64; 'nearest' keeps the dtype. Raises ValueError for an
    unknown interpolation, a size that is not two positive integers, and arrays of other shapes.

    >>> resize_images(np.array([[[0.0, 10.0, 20.0, 30.0, 40.0, 50.0]]]), (1, 3)).tolist()
    [[[5.0, 25.0, 45.0]]]
    """
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    rows, columns = check_size("size", size)
    images = _with_channels(x)
    n, height, width, channels = images.shape
    if height == 0 or width == 0:
        raise ValueError(f"the images have no pixels: shape {x.shape}")
    if interpolation == "nearest":
        out = images[:, _nearest(height, rows)[:, np.newaxis], _nearest(width, columns)]
    else:
        dtype = np.float64 if images.dtype == np.float64 else np.float32
        down = _taps(height, rows, interpolation, antialias, dtype)
        across = _taps(width, columns, interpolation, antialias, dtype)
        out = np.empty((n, rows, columns, channels), dtype)
        for image, result in zip(images, out, strict=True):  # one by one: small temporaries
            lines = sum(w[:, None, None] * image.take(pixel, 0) for pixel, w in down)
            result[:] = sum(w[:, None] * lines.take(pixel, 1) for pixel, w in across)
    return out.reshape(out.shape[:3]) if x.ndim == 3 else out


def _nearest(size: int, out: int) -> np.ndarray:
    """The input pixel under the centre of each output pixel, (OUT,)."""
    # float32 as in TensorFlow, so that a centre between two pixels falls the same way
    centres = (np.arange(out, dtype=np.float32) + np.float32(0.5)) * np.float32(size / out)
    return np.minimum(centres.astype(np.intp), size - 1)


def _taps(
    size: int, out: int, interpolation: str, antialias: bool, dtype: Any
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Which input pixels make each output pixel: T pairs of indices (OUT,) and weights (OUT,)."""
    scale = size / out
    centres = (np.arange(out)[:, np.newaxis] + 0.5) * scale
    weight, ends = KERNELS.get(interpolation, (None, scale / 2))
    stretch = max(scale, 1.0) if antialias and weight else 1.0
    radius = ends * stretch
    first = np.floor(centres - radius).astype(np.intp)
    pixels = first + np.arange(int(np.ceil(2 * radius)) + 1)  # (OUT, T)
    if weight:
        distance = np.abs(pixels + 0.5 - centres) / stretch
        weights = np.where(distance < ends, weight(distance), 0)
    else:  # 'area': the part of the pixel that is covered
        covered = np.minimum(pixels + 1, centres + radius) - np.maximum(pixels, centres - radius)
        weights = np.maximum(covered, 0)
    weights = np.where((pixels >= 0) & (pixels < size), weights, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    return list(zip(np.clip(pixels, 0, size - 1).T, weights.astype(dtype).T, strict=True))


def decode(path: Source, color_mode: str) -> np.ndarray:
    """Read an image file into uint8 (H, W, C), C = 1, 3 or 4 by `color_mode`; see `load_img`."""
    with opened(path, COPIES) as img:
        img.load()
        return img_to_array(to_mode(img, PILLOW_MODES[color_mode]), dtype=np.uint8)


def _with_channels(x: np.ndarray) -> np.ndarray:
    """Check images (N, H, W, C) or (N, H, W) and return them as (N, H, W, C)."""
    text = f"expected a batch of images (N, H, W) or (N, H, W, C), got shape {x.shape}"
    if x.ndim == 3 and x.shape[2] in (1, 3, 4):
        text += ", which looks like one image (H, W, C); add an axis in front: x[np.newaxis]"
        raise ValueError(text)
    if x.ndim not in (3, 4):
        raise ValueError(text)
    return x[..., np.newaxis] if x.ndim == 3 else x


def check_choice(argument: str, value: Any, choices: Any) -> None:
    """Raise ValueError when `value` is not one of `choices`."""
    if value not in tuple(choices):
        known = ", ".join(repr(choice) for choice in choices)
        raise ValueError(f"{argument} must be one of {known}; got {value!r}")


def check_size(argument: str, size: Any) -> tuple[int, int]:
    """Return `size` as (H, W); raise ValueError when it is not two positive integers."""
    pair = tuple(size) if isinstance(size, (tuple, list, np.ndarray)) else ()
    whole = all(isinstance(n, (int, np.integer)) and n > 0 for n in pair)
    if len(pair) != 2 or not whole:
        raise ValueError(f"{argument} must be two positive integers (H, W), got {size!r}")
    return int(pair[0]), int(pair[1])


def check_data_format(data_format: str | None) -> None:
    """Raise ValueError for any layout but Keras's default."""
    if data_format not in (None, "channels_last"):
        found = f"got {data_format!r} (to convert an array: np.moveaxis(x, -3, -1))"
        raise ValueError(f"minitl keeps images as (H, W, C), data_format='channels_last'; {found}")


guard(globals())
