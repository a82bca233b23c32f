"""A trained model for the commands: read from a file, asked what it says of itself, and run.

The file may be a stranger's. What its metadata say decides how images are read and what is printed,
so all of it is checked before anything else happens; and so is the memory that a prediction takes,
as a small file can describe layers with outputs of any size.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from minitl.applications import mobilenet_v2
from minitl.applications.vgg16 import preprocess_input
from minitl.cli.folders import walk
from minitl.data.images import INTERPOLATIONS
from minitl.data.pictures import FORMERLY, Pictures
from minitl.judging.duplicates import thumbnail
from minitl.judging.novelty import Novelty
from minitl.judging.seen import look
from minitl.models import Model, load_model
from minitl.storage.door import has_controls
from minitl.transfer.solved import with_features

# What is done to images, by Keras's words for it, and by whom it is wanted where not by 'caffe'.
PREPARE = {"caffe": preprocess_input, "tf": mobilenet_v2.preprocess_input, "none": lambda x: x}
PREPROCESSING = {"mobilenet_v2": "tf", "efficientnet_b0": "none"}
CHOICES = {
    "preprocessing": tuple(PREPARE),
    "interpolation": INTERPOLATIONS,
    "resizing": ("stretch", "crop", "pad"),
}
LARGEST = 4096  # pixels of a side
MOST = 256_000_000  # bytes of one layer's outputs that are predicted at once


def trained_model(path: str) -> tuple[Model, dict[str, Any]]:
    """A model and its metadata. Raises ValueError when these do not say how to give it images, or
    when what they say does not fit the model."""
    model = load_model(path)
    about = {**FORMERLY, **model.metadata}
    lacking = [key for key in ("class_names", "size", "preprocessing") if key not in about]
    if lacking:
        advice = "set model.metadata, or make it with `minitl train`"
        raise ValueError(f"{path} does not say its {', '.join(lacking)}; {advice}")
    for key, choices in CHOICES.items():
        if about[key] not in choices:
            raise ValueError(f"{path}: unknown {key} {about[key]!r}, expected one of {choices}")
    for key in ("provenance", "figures", "head", "seen", "novelty"):
        if not isinstance(about.get(key, {}), dict):
            raise ValueError(f"{path}: its {key} is {str(about[key])[:80]!r}, no dictionary")
    size = about["size"]
    sides = [size, size] if isinstance(size, int) else size
    fine = isinstance(sides, list) and len(sides) == 2
    if not fine or not all(type(n) is int and 0 < n <= LARGEST for n in sides):
        raise ValueError(f"{path}: its size is {size!r}, expected pixels as 224 or [200, 300]")
    about["size"] = (sides[0], sides[1])
    _check_shapes(path, model, about)
    return model, about


def _check_shapes(path: str, model: Model, about: Mapping[str, Any]) -> None:
    """Raise ValueError unless the model takes one image of that size and gives one number for each
    class, and unless the classes have names that are names."""
    names = about["class_names"]
    if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
        found = f"its class_names are {str(names)[:80]!r}"
        raise ValueError(f"{path}: {found}, expected a list of names")
    if wrong := [name for name in names if has_controls(name)]:
        raise ValueError(f"{path}: a class is called {wrong[0][:80]!r}, with control characters")
    if len({*names}) < len(names):
        raise ValueError(f"{path}: two of its classes have the same name")
    takes, gives = ([t.shape for t in side] for side in (model.inputs, model.outputs))
    if len(gives) != 1 or gives[0] != (None, len(names)):
        text = f"it names {len(names)} classes, and has outputs of shape"
        raise ValueError(f"{path}: {text} {', '.join(map(str, gives))}")
    wanted = (None, *about["size"], 3)
    fits = [
        len(t) == 4 and all(a in (None, b) for a, b in zip(t, wanted, strict=True)) for t in takes
    ]
    if fits != [True]:
        text = f"images of its size are {wanted}, and its inputs"
        raise ValueError(f"{path}: {text} {', '.join(map(str, takes))}")
    name, needs = _largest(model, about["size"])
    if needs > MOST:
        text = f"its layer {name!r} gives {needs / 1e6:,.0f} MB for one image, more than"
        raise ValueError(f"{path}: {text} {MOST / 1e6:,.0f} MB")


def _largest(model: Model, size: tuple[int, int]) -> tuple[str, int]:
    """The layer with the largest outputs for one image, and their bytes. Sides that are left open
    are counted as those of the image."""
    found = [("", 1)]
    for call in model.graph.calls:
        for tensor in call.outputs:
            sides = zip(tensor.shape[1:], (*size, *(1,) * 8), strict=False)
            found.append((call.layer.name, 4 * math.prod(n or side for n, side in sides)))
        if isinstance(call.layer, Model):
            found.append(_largest(call.layer, size))
    return max(found, key=lambda each: each[1])


class Said(NamedTuple):
    """What a model says of one picture."""

    row: int
    p: np.ndarray  # (m,)
    f: np.ndarray | None = None  # (D,), where it was asked for or needed
    unlike: bool | None = None  # all training pictures; None when the model cannot tell
    look: np.ndarray | None = None  # see `judging/seen.py`


def classified(
    model: Model,
    about: Mapping[str, Any],
    pictures: Pictures,
    strict: bool = False,
    features: bool = False,
) -> Iterator[Said]:
    """What is said of each picture that can be read, as soon as it is known."""
    prepare, novelty = PREPARE[about["preprocessing"]], Novelty.of(about)
    step = max(1, min(16, MOST // _largest(model, about["size"])[1]))
    both = with_features(model) if features or novelty is not None else None
    for rows, pixels in walk(pictures, "classifying", strict):
        f: Any = [None] * len(rows)
        unlike = list(f)
        if both is None:
            p = model.predict(prepare(pixels), batch_size=step, verbose=0)
        else:
            f, p = both.predict(prepare(pixels), batch_size=step, verbose=0)
        if novelty is not None:
            unlike = novelty.unlike(f, p).tolist()
        looks = map(look, map(thumbnail, pixels))
        yield from map(Said, rows.tolist(), p, f, unlike, looks)
