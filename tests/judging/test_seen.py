"""What a model remembers of its training pictures: which they are, and what is unlike all."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from minitl.judging.duplicates import thumbnail
from minitl.judging.novelty import Novelty
from minitl.judging.seen import look as look_of
from minitl.judging.seen import recognise, remember


def scene(seed, size=(96, 128)):
    """A picture of smooth patches, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    small = rng.uniform(0, 255, (rng.integers(3, 7), rng.integers(3, 7), 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def look(image):
    return look_of(thumbnail(image))


def stretched(image):
    return np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR))


def as_jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def resized(image, share):
    size = round(image.shape[1] * share), round(image.shape[0] * share)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


@pytest.fixture(scope="module")
def memory():
    scenes = [scene(i) for i in range(100)]
    looks = np.array([look(stretched(s)) for s in scenes])
    digests = [f"{i:032x}"[::-1] for i in range(100)]
    return scenes, json.loads(json.dumps(remember(digests, looks)))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: as_jpeg(s, 30),
        lambda s: resized(s, 0.4),
        lambda s: as_jpeg(resized(s, 1.7), 70),
        lambda s: (s * 0.8 + 20).astype(np.uint8),
    ],
)
def test_all_copies_are_recognised(memory, change):
    scenes, seen = memory
    looks = np.array([look(stretched(change(s))) for s in scenes])
    assert (recognise(seen, ["ab" * 16] * 100, looks) == 1).all()


def test_others_are_not_and_the_very_same_are(memory):
    _, seen = memory
    others = np.array([look(stretched(scene(i))) for i in range(1000, 1300)])
    assert not recognise(seen, ["cd" * 16] * 300, others).any()
    own = [f"{i:032x}"[::-1] for i in range(100)]
    assert (recognise(seen, own, others[:100]) == 2).all()


def test_pictures_that_look_much_alike_are_not_taken_for_copies():
    """One shape, and some of each picture's own, as in cells from neighbouring wafers."""
    rng, shape = np.random.default_rng(5), scene(0).astype(float)
    own = [np.repeat(np.repeat(rng.normal(0, 5, (12, 16, 1)), 8, 0), 8, 1) for _ in range(400)]
    alike = [np.clip(shape + each, 0, 255).astype(np.uint8) for each in own]
    looks = np.array([look(stretched(each)) for each in alike])
    seen = remember([f"{i:032x}"[::-1] for i in range(200)], looks[:200])
    assert not recognise(seen, ["cd" * 16] * 200, looks[200:]).any()
    copies = np.array([look(stretched(as_jpeg(each, 50))) for each in alike[:200]])
    assert (recognise(seen, ["cd" * 16] * 200, copies) == 1).all()


def test_pictures_of_one_colour_are_known_by_it():
    flat = np.array([look(np.full((64, 64, 3), v)) for v in (0, 100, 255)])
    seen = remember(["11" * 16], flat[1:2])
    assert recognise(seen, ["22" * 16] * 3, flat).tolist() == [0, 1, 0]


def test_a_damaged_memory_is_refused():
    seen = remember(["11" * 16], np.zeros((1, 144)))
    with pytest.raises(ValueError, match="what the model says of its training images is damaged"):
        recognise(seen | {"looks": "AAAA"}, ["22" * 16], np.zeros((1, 144)))


def classes(n, centres, seed=0):
    """Non-negative F (n, 60) around some of ten centres, as what a network sees in pictures; and
    of which."""
    own = np.random.default_rng(99).gamma(0.3, 1, (10, 60))
    rng = np.random.default_rng(seed)
    chosen = rng.choice(centres, n)
    return np.maximum(own[chosen] + rng.normal(0, 0.15, (n, 60)), 0), chosen


def said(y, sure=0.95, m=3):
    """P (n, m) that is `sure` of y (n,)."""
    p = np.repeat(np.reshape((1 - np.broadcast_to(sure, len(y))) / (m - 1), (-1, 1)), m, axis=1)
    p[np.arange(len(y)), y] = sure
    return p


def test_what_belongs_to_no_class_is_unlike_and_what_belongs_is_seldom():
    f, y = classes(200, [0, 1, 2])
    novelty = Novelty.fit(f, y, said(y))
    again = Novelty.of({"novelty": json.loads(json.dumps(novelty.to_dict()))})
    (more, y), (others, none) = classes(500, [0, 1, 2], 1), classes(500, range(3, 10), 2)
    assert again.unlike(others, said(none % 3)).mean() > 0.95
    assert again.unlike(more, said(y)).mean() < 0.1
    assert again.unlike(more, said((y + 1) % 3)).all()  # of another class than the model says
    np.testing.assert_allclose(again.distances(more, y), novelty.distances(more, y))
    apart = again.distances(more * 7, y) - again.distances(more, y)
    assert apart.max() < 1e-5  # directions alone


def test_the_limit_is_stricter_where_the_class_is_certain():
    (f, _), (rough, _) = classes(100, [0]), classes(100, [1, 2], seed=1)
    rough = rough**2 + np.random.default_rng(0).normal(0, 0.3, (100, 60))
    y = np.repeat([0, 1], 100)
    novelty = Novelty.fit(np.concatenate([f, rough]), y, said(y, np.repeat([0.95, 0.5], 100)))
    assert novelty.certain < novelty.limit


def test_many_training_pictures_take_a_bounded_place():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 3000)
    novelty = Novelty.fit(rng.random((3000, 600)), y, said(y), (100, 600))
    assert novelty.rows.shape == (1000, 500)
    assert len(json.dumps(novelty.to_dict())) < 700_000
    with pytest.raises(ValueError, match="columns up to 600 are compared"):
        novelty.distances(rng.random((2, 512)), [0, 1])


def test_a_damaged_memory_of_features_is_refused():
    assert Novelty.of({}) is None
    f = np.random.default_rng(0).random((9, 4))
    kept = Novelty.fit(f, np.arange(9) % 3, said(np.arange(9) % 3)).to_dict()
    assert Novelty.of({"novelty": {k: v for k, v in kept.items() if k != "labels"}}) is None
    for wrong in ({"scale": "AAAA"}, {"labels": [0, 1]}, {"labels": ["a"] * 9}):
        with pytest.raises(ValueError, match="training images' features is damaged"):
            Novelty.of({"novelty": kept | wrong})
