"""Copies of pictures are found, whatever was done to them; pictures that look alike are none."""

import io

import numpy as np
import pytest
from PIL import Image

from minitl.judging import duplicates

RNG = np.random.default_rng(0)
FILTER = Image.Resampling


def scene(seed, alike=0.0):
    """A picture of 200 x 160 pixels: soft shapes in colours; with `alike` much is common to all."""
    shapes = [np.random.default_rng(s).random((9, 7, 3)) for s in (10**6, seed)]
    small = alike * shapes[0] + (1 - alike) * shapes[1]
    image = Image.fromarray((255 * small).astype(np.uint8)).resize((160, 200), FILTER.BICUBIC)
    grain = np.random.default_rng(seed).normal(0, 6, (200, 160, 1))
    return Image.fromarray(np.clip(np.asarray(image) * 0.8 + 20 + grain, 0, 255).astype(np.uint8))


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


COPIES = {
    "as it is": lambda im: im,
    "JPEG 90": lambda im: jpeg(im, 90),
    "JPEG 50": lambda im: jpeg(im, 50),
    "half": lambda im: im.resize((80, 100), FILTER.BICUBIC),
    "smaller, JPEG": lambda im: jpeg(im.resize((96, 120), FILTER.LANCZOS), 85),
    "larger": lambda im: im.resize((333, 410), FILTER.BILINEAR),
    "stretched": lambda im: im.resize((224, 224), FILTER.BILINEAR),
    "lighter": lambda im: im.point(lambda v: min(255, int(v * 1.15 + 10))),
    "darker": lambda im: im.point(lambda v: int(v * 0.85)),
}


@pytest.mark.parametrize("alike", [0.0, 0.85])
@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_found_and_nothing_else(copy, alike):
    images = [scene(seed, alike) for seed in range(40)]
    images += [COPIES[copy](images[i]) for i in (3, 17, 30)]
    pairs, distances = duplicates.near_duplicates(np.stack(list(map(duplicates.thumbnail, images))))
    assert sorted(map(tuple, pairs.tolist())) == [(3, 40), (17, 41), (30, 42)]
    assert (np.diff(distances) >= 0).all()


def test_another_colour_or_a_negative_is_another_picture():
    images = [scene(seed) for seed in range(12)]
    pixels = np.asarray(images[0])
    images += [Image.fromarray(pixels[..., [2, 0, 1]]), Image.fromarray(255 - pixels)]
    pairs, _ = duplicates.near_duplicates(np.stack(list(map(duplicates.thumbnail, images))))
    assert len(pairs) == 0


def test_noise_of_one_colour_is_as_many_pictures_as_there_are():
    noise = RNG.normal((200, 60, 60), 25, (30, 40, 40, 3)).clip(0, 255).astype(np.uint8)
    other = noise[:1] - [0, 0, 0] + np.array([-140, 0, 140])  # the same noise in blue
    images = [*noise, other[0].clip(0, 255).astype(np.uint8), noise[4]]
    pairs, _ = duplicates.near_duplicates(np.stack(list(map(duplicates.thumbnail, images))))
    assert pairs.tolist() == [[4, 31]]


def test_pictures_of_one_colour_are_no_copies_of_each_other():
    flat = np.full((6, 30, 30, 3), 90, np.uint8) + np.arange(6, dtype=np.uint8)[:, None, None, None]
    thumbnails = np.stack(list(map(duplicates.thumbnail, flat)))
    assert len(duplicates.near_duplicates(thumbnails)[0]) == 0
    np.testing.assert_array_equal(duplicates.contrast(thumbnails), 0)
    for few in (0, 1):
        assert len(duplicates.near_duplicates(thumbnails[:few])[0]) == 0


def test_many_copies_of_one_picture_are_one_group():
    one = scene(1)
    images = [scene(seed) for seed in range(2, 8)] + [jpeg(one, 95 - i) for i in range(30)]
    pairs, _ = duplicates.near_duplicates(np.stack(list(map(duplicates.thumbnail, images))))
    groups = duplicates.groups_of(pairs, len(images))
    assert len(set(groups[6:])) == 1 and len(set(groups)) == 7
