"""Augmentation: layers that show each image a little differently every time, in training only.

A class stays what it is when its image is flipped, turned, shifted or lit otherwise; a network that
sees such views learns it from fewer images. What is drawn for a sample depends on that sample's
seed alone, not on the batch, so that a view can be repeated (`with_seeds`) and kept. A geometric
layer draws a matrix M, which leads from a pixel (i, j) of the output to the place
(r, s) = M (i, j, 1) in the input whose value it shows; a tone layer draws a contrast and a
brightness. `ops/images.py` applies them, and hands gradients back.

Of images that are preprocessed already (BGR minus mean, say) the tone layers must be told the
`value_range`, since they clip to it, and black is another `fill_value`; both may be given per
channel: ((-103.939, -116.779, -123.68), (151.061, 138.221, 131.32)). Simpler is to augment the
pixels, 0-255: see `minitl.data.augment`.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np

from minitl import ops
from minitl.autograd import Array, Tensor, as_tensor
from minitl.kernels.images import FILL_MODES
from minitl.layers.base import Rng, Shape
from minitl.layers.core import channels_last
from minitl.layers.preprocessing import resized, widest
from minitl.layers.regularization import RandomLayer, choose, draw
from minitl.naming import Count, Natural, NotNegative

__all__ = ["GaussianNoise", "RandomBrightness", "RandomContrast", "RandomCrop", "RandomFlip"]
__all__ += ["RandomRotation", "RandomTranslation", "RandomTurn", "RandomZoom"]
INTERPOLATIONS = ("bilinear", "nearest")


class Augmentation(RandomLayer, input_rank=4):
    """Base of these layers. Outside training they return what they are given.

    Of images (N, H, W, C), or of one (H, W, C).

    Called directly, `layer(images)`, they augment, as Keras's do; say `training=False` otherwise.
    """

    _training_unless_told = True
    # Of x (N, ...) and seeds (N,): x augmented, sample n by what seeds[n] says.
    change: Callable[[Tensor, Array], Tensor]

    idle_settings = frozenset({"data_format"})  # Keras writes it for every layer

    def call(self, x: Tensor, training: bool = True, rng: Rng = None) -> Tensor:
        images = ops.expand_dims(x, 0) if (alone := self._is_one(x.shape)) else x
        if training:
            seeds = self.generator(rng).integers(2**64, size=images.shape[0], dtype=np.uint64)
            y = self.change(images, seeds)
        else:
            y = self.outside_training(images)
        return ops.squeeze(y, 0) if alone else y

    def prepare(self, shape: Any) -> None:
        super().prepare((1, *shape) if self._is_one(shape) else shape)

    def _is_one(self, shape: Any) -> bool:
        """Whether it is the shape of one image (H, W, C), without a batch axis."""
        return self.input_rank == 4 and len(shape) == 3 and isinstance(shape[0], int)

    def with_seeds(self, x: Array, seeds: Array) -> Array:
        """x (N, ...) with each sample augmented by its own seed: seeds (N,), unsigned integers."""
        x = np.asarray(x, self.dtype)
        seeds = np.asarray(seeds)
        if seeds.shape != x.shape[:1] or seeds.dtype.kind not in "iu":
            given = f"{len(x)} samples, seeds {seeds.dtype} {seeds.shape}"
            raise ValueError(f"with_seeds takes one integer a sample: {given}")
        self.prepare(x.shape)
        return self.change(as_tensor(x), seeds).storage

    def outside_training(self, x: Tensor) -> Tensor:
        return x


Flips: TypeAlias = Literal["horizontal", "vertical", "horizontal_and_vertical"]
Range: TypeAlias = Annotated[Any, "a finite number or 2 values (each a finite number)"]


def as_range(name: str, value: Any) -> tuple[float, float]:
    """Keras's factors: a number f means (-|f|, |f|), a pair its two ends; all from -1 to 1."""
    numbers = [value] if np.ndim(value) == 0 else list(value)
    fits = all(isinstance(n, (int, float, np.number)) and -1 <= n <= 1 for n in numbers)
    if not fits or len(numbers) not in (1, 2):
        allowed = "a number f from -1 to 1, standing for (-f, f), or a pair (lower, upper)"
        raise ValueError(f"{name} is {allowed}; got {value!r}")
    ends = sorted(float(n) for n in numbers)
    return (ends[0], ends[1]) if len(ends) == 2 else (-abs(ends[0]), abs(ends[0]))


class Geometric(Augmentation):
    """Base of layers that move pixels: each defines the matrices from output to input.

    Those that leave the centre of the image where it is define `linear`, the others `matrices`.
    """

    # (N, 2, 2) of seeds: rows and columns from the centre, in the output to those in the input.
    linear: Callable[[Array], Array]
    interpolation = "nearest"  # where whole pixels move, any will do, and this copies them
    fill_mode = "nearest"
    fill_value: float | Sequence[float] = 0.0

    def __init__(self, seed: Natural | None = None, data_format: str | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        channels_last(data_format)
        self.data_format = data_format

    def matrices(self, seeds: Array, size: tuple[int, int]) -> Array:
        """(N, 3, 3): (row, column, 1) of a pixel in the output to that in the input (H, W)."""
        linear = self.linear(seeds)
        centre = (np.array(size) - 1) / 2  # between the first pixel, at 0, and the last, at H - 1
        matrices = np.zeros((len(linear), 3, 3))
        matrices[:, :2, :2] = linear
        matrices[:, :2, 2] = centre - linear @ centre
        matrices[:, 2, 2] = 1
        return matrices

    def out_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def change(self, x: Tensor, seeds: Array) -> Tensor:
        size = (x.shape[1], x.shape[2])
        return self.transform(x, self.matrices(seeds, size), self.out_size(size))

    def transform(self, x: Tensor, matrices: Array, size: tuple[int, int]) -> Tensor:
        """x (N, H, W, C) through these matrices, filled up as this layer says."""
        return ops.affine_transform(
            x, matrices[:, :2], size, self.interpolation, self.fill_mode, self.fill_value
        )


class Resampling(Geometric):
    """Base of those that look between the pixels, and beyond the border."""

    def __init__(
        self,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: Natural | None = None,
        fill_value: float | Sequence[float] = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed, data_format, **kwargs)
        self.fill_mode, self.interpolation = fill_mode, interpolation
        for name, known in (("fill_mode", FILL_MODES), ("interpolation", INTERPOLATIONS)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} is one of {', '.join(map(repr, known))}; got {value!r}")
        numbers = np.asarray(fill_value)
        if numbers.ndim > 1 or numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
            raise ValueError(f"fill_value is a number, or one a channel; got {fill_value!r}")
        self.fill_value = numbers.tolist()

    def build(self, input_shape: Shape) -> None:
        count, c = np.size(self.fill_value), input_shape[-1]
        if count not in (1, c):
            raise ValueError(f"{self.name!r} has {count} fill values for images of {c} channels")


def _moved(rows: Array, columns: Array) -> Array:
    """Maps to places so many rows below and columns to the right, (N,) each: (N, 3, 3)."""
    matrices = np.tile(np.eye(3), (len(rows), 1, 1))
    matrices[:, 0, 2], matrices[:, 1, 2] = rows, columns
    return matrices


class RandomFlip(Geometric):
    """Mirrors half of the images, left to right or top to bottom, or both independently.

    The mode is 'horizontal', 'vertical' or 'horizontal_and_vertical', where each of the four views
    is equally likely. (Keras 3 draws once for both directions there.)
    """

    def __init__(self, mode: Flips = "horizontal_and_vertical", *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.mode = mode

    def linear(self, seeds: Array) -> Array:
        linear = np.tile(np.eye(2), (len(seeds), 1, 1))
        for axis, drawn in enumerate(choose(seeds, 2, 2)):
            if ("vertical", "horizontal")[axis] in self.mode:
                linear[drawn == 1, axis, axis] = -1
        return linear


class RandomTurn(Geometric):
    """Turns images by quarters of a circle, counter-clockwise, each of `turns` equally likely.

    For images that have no top: cells, tissue, tiles seen from above. `turns` are some of 0, 1, 2,
    3; odd ones need H = W. (Keras does not have this layer.)
    """

    def __init__(self, turns: int | Sequence[int] = (0, 1, 2, 3), *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.turns = tuple(np.atleast_1d(turns).tolist())
        if not self.turns or not set(self.turns) <= {0, 1, 2, 3}:
            raise ValueError(f"turns are some of 0, 1, 2, 3 quarters of a circle; got {turns!r}")

    def build(self, input_shape: Shape) -> None:
        self._need_squares(*input_shape[1:3])

    def _need_squares(self, height: int | None, width: int | None) -> None:
        square = height == width or None in (height, width)
        if not square and any(turn % 2 for turn in self.turns):
            what = f"{self.name!r} turns by 90 degrees, for which images must be square"
            raise ValueError(f"{what}, got {height} x {width} pixels; turns=(0, 2) suits any")

    def matrices(self, seeds: Array, size: tuple[int, int]) -> Array:
        self._need_squares(*size)  # it may not have known the size when it was built
        return super().matrices(seeds, size)

    def linear(self, seeds: Array) -> Array:
        (drawn,) = choose(seeds, len(self.turns))
        return _rotations(np.array(self.turns)[drawn] / 4)


def _rotations(circles: Array) -> Array:
    """r = cos i + sin j, s = -sin i + cos j: images turn counter-clockwise, each by its part of the
    circle. (N, 2, 2), exact at quarters, where 2 pi is not."""
    quarters = np.rint(4 * circles)
    rest = 2 * math.pi * (circles - quarters / 4)
    place = quarters.astype(np.intp) % 4
    a, b = np.array([1, 0, -1, 0])[place], np.array([0, 1, 0, -1])[place]
    cos = a * np.cos(rest) - b * np.sin(rest)
    sin = b * np.cos(rest) + a * np.sin(rest)
    return np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)


class RandomRotation(Resampling):
    """Rotates images about their centre, counter-clockwise for positive angles.

    Args:
        factor: the largest angle as a fraction of the circle, to either side, or a pair (lower,
            upper): 0.1 is -36 to 36 degrees.
        fill_mode: what is seen beyond the border: 'reflect', 'constant' (`fill_value`), 'wrap' or
            'nearest'; see `kernels.affine_transform`. (Keras on TensorFlow wraps with a period of
            one pixel less, and does not mix the two pixels at the seam.)
        interpolation: 'bilinear' or 'nearest'.
        fill_value: a number, or one per channel.
    """

    def __init__(self, factor: Range, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.factor = as_range("factor", factor)

    def linear(self, seeds: Array) -> Array:
        return _rotations(*draw(seeds, self.factor))


class RandomTranslation(Resampling):
    """Shifts images, down and to the right for positive factors.

    A factor is the largest shift to either side as a fraction of the height or width, or a pair
    (lower, upper); the other arguments are those of `RandomRotation`.
    """

    def __init__(self, height_factor: Range, width_factor: Range | None, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._down = as_range("height_factor", height_factor)
        self._right = as_range("width_factor", width_factor)
        self.height_factor, self.width_factor = height_factor, width_factor

    def matrices(self, seeds: Array, size: tuple[int, int]) -> Array:
        down, right = draw(seeds, self._down, self._right)
        return _moved(-down * size[0], -right * size[1])


class RandomZoom(Resampling):
    """Scales images about their centre: factors above 0 zoom out, below 0 in.

    One pixel of the output spans 1 + factor pixels of the input: -0.5 shows the middle half, -1 the
    centre's pixel alone. A factor is the largest to either side, or a pair (lower, upper);
    width_factor=None keeps the proportions. The others are those of `RandomRotation`.
    """

    def __init__(
        self, height_factor: Range, width_factor: Range | None = None, *args: Any, **kwargs: Any
    ):
        super().__init__(*args, **kwargs)
        self._vertical = self._horizontal = as_range("height_factor", height_factor)
        if width_factor is not None:
            self._horizontal = as_range("width_factor", width_factor)
        self.height_factor, self.width_factor = height_factor, width_factor

    def linear(self, seeds: Array) -> Array:
        vertical, horizontal = draw(seeds, self._vertical, self._horizontal)
        linear = np.zeros((len(seeds), 2, 2))
        linear[:, 0, 0] = 1 + vertical
        linear[:, 1, 1] = 1 + (vertical if self.width_factor is None else horizontal)
        return linear


class RandomCrop(Geometric):
    """Cuts a window of (height, width) out of each image, in training at a random place.

    Outside training, and of images smaller than the window, it takes the largest centred part
    with the window's proportions, scaled to its size: as Keras documents it. (Keras 3 returns
    images uncropped outside training, distorts smaller ones, cuts all images of a batch at one
    place, and does not move the window where height or width equals the image's.)
    """

    def __init__(
        self,
        height: Count,
        width: Count,
        seed: Natural | None = None,
        data_format: str | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(seed, data_format, name=name, **kwargs)
        self.height, self.width = int(height), int(width)

    def fits(self, size: tuple[int, ...]) -> bool:
        """Whether the window finds room in images of this size (H, W)."""
        return self.height <= size[0] and self.width <= size[1]

    def change(self, x: Tensor, seeds: Array) -> Tensor:
        fits = self.fits(x.shape[1:3])
        return super().change(x, seeds) if fits else self.outside_training(x)

    def matrices(self, seeds: Array, size: tuple[int, int]) -> Array:
        return _moved(*choose(seeds, size[0] - self.height + 1, size[1] - self.width + 1))

    def out_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.height, self.width

    def outside_training(self, x: Tensor) -> Tensor:
        return resized(widest(x, self.height, self.width), self.height, self.width)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-3], self.height, self.width, input_shape[-1])


class Tone(Augmentation):
    """Base of layers that change values; they must know between which these lie: value_range is
    (low, high) of the images, each a number or one per channel."""

    # Of seeds: contrast, as a factor, and brightness, as a part of the range, (N,) each.
    settings: Callable[[Array], tuple[Array, Array]]

    def __init__(self, value_range: Any = (0, 255), seed: Natural | None = None, **kwargs: Any):
        super().__init__(seed, **kwargs)
        try:
            low, high = (np.asarray(end, np.float64) for end in value_range)
            ordered = low.ndim <= 1 and high.ndim <= 1 and bool((low < high).all())
        except (TypeError, ValueError):
            ordered = False
        if not ordered:
            what = "value_range is (lowest, highest) of the values that images can have"
            how = "as numbers or by channel, such as (0, 255)"
            raise ValueError(f"{what}, {how}; got {value_range!r}")
        self.value_range = tuple(np.asarray(end).tolist() for end in value_range)
        self._low, self._high, self._looked = low, high, False

    def change(self, x: Tensor, seeds: Array) -> Tensor:
        low, high = (np.broadcast_to(end, x.shape[3:]).copy() for end in (self._low, self._high))
        self._look(x.storage, low, high)
        contrast, brightness = self.settings(seeds)
        return ops.adjust_tone(x, contrast, brightness[:, np.newaxis] * (high - low), low, high)

    def build(self, input_shape: Shape) -> None:
        if not {self._low.size, self._high.size} <= {1, c := input_shape[-1]}:
            given = f"value_range={self.value_range!r}"
            raise ValueError(f"{self.name!r} has {given} for images of {c} channels")

    def _look(self, x: Array, low: Array, high: Array) -> None:
        """Warn, once, of images that cannot have this range: they would be clipped to nothing."""
        if self._looked or x.size == 0:
            return
        self._looked = True
        least, most, span = float(x.min()), float(x.max()), float((high - low).max())
        outside = least < low.min() - span / 4 or most > high.max() + span / 4
        if outside or (span > 2 and least >= 0 and 0 < most <= 1):
            what = f"{self.name!r} works on values from {low.min():g} to {high.max():g}"
            found = f"its images have {least:.4g} to {most:.4g}"
            how = "tell it their value_range, or augment before preprocessing"
            warnings.warn(f"{what}, but {found}: {how}", UserWarning, stacklevel=2)


class RandomBrightness(Tone):
    """y = x + b (high - low), clipped to the range: one b per image.

    `factor` is the largest b to either side, or a pair (lower, upper), in [-1, 1].
    """

    def __init__(self, factor: Range, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.factor = as_range("factor", factor)

    def settings(self, seeds: Array) -> tuple[Array, Array]:
        (brightness,) = draw(seeds, self.factor)
        return np.ones(len(seeds)), brightness


class RandomContrast(Tone):
    """y = (x - mean) c + mean, clipped to the range: one c per image; the mean is each channel's.

    c lies in [1 - factor, 1 + factor]; a pair (lower, upper) means [1 - lower, 1 + upper]. (Keras 3
    documents the same, but of a single number makes [1, 1 + factor], and sorts a pair first.)
    """

    def __init__(self, factor: Range, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        lower, upper = factor if np.ndim(factor) == 1 and len(factor) == 2 else (factor, factor)
        numbers = all(isinstance(n, (int, float, np.number)) for n in (lower, upper))
        if not numbers or not 0 <= 1 - lower <= 1 + upper:
            ends = "contrasts from 1 - lower, at least 0, to 1 + upper"
            allowed = f"a number from 0 to 1, or a pair (lower, upper) for {ends}"
            raise ValueError(f"factor is {allowed}; got {factor!r}")
        self.factor = (lower, upper)

    def settings(self, seeds: Array) -> tuple[Array, Array]:
        (contrast,) = draw(seeds, (1 - self.factor[0], 1 + self.factor[1]))
        return contrast, np.zeros(len(seeds))


class GaussianNoise(Augmentation, input_rank=None, supports_masking=True):
    """y = x + stddev * (a normal number for every value), not clipped.

    stddev is in the units of the images: 10 is much for 0-255. (Keras allows at most 1.)
    """

    _training_unless_told = False  # in Keras it is no layer of preprocessing, and waits for fit

    def __init__(self, stddev: NotNegative, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.stddev = float(stddev)

    def change(self, x: Tensor, seeds: Array) -> Tensor:
        return ops.gaussian_noise(x, self.stddev, seeds) if self.stddev else x
