"""What is done with a picture that was sent: decode it, classify it, show where the network looked.

Bytes come in and plain numbers go out, ready for JSON. Files are read through the same door as
those of the command line (`minitl.data.door`), with the size and the reading that the model's
metadata say. `app.py` calls `read` on several threads at once, and the rest on one.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from minitl.data.door import PictureError, opened
from minitl.data.pictures import FORMERLY, read_picture
from minitl.judging.grad_cam import grad_cam
from minitl.judging.novelty import Novelty
from minitl.models import Model
from minitl.transfer.solved import with_features


class Classifier:
    """A trained model with what its metadata say of classes and images.

    Args:
        model: of one input (N, H, W, 3) and one output (N, m), probabilities.
        about: the metadata: "class_names", m names; "size", (H, W); how images are read; and, if
            it is there, "novelty": what the training pictures were like.
        prepare: makes (N, H, W, 3), RGB, 0-255, what the model takes.
        pixels: the most that a picture may have, before it is decoded.
    """

    def __init__(self, model: Model, about: Mapping[str, Any], prepare: Any, pixels: int):
        self.model, self.prepare, self.pixels = model, prepare, pixels
        self.reading = {**FORMERLY, **about}
        self.names = [str(name) for name in about["class_names"]]
        self.novelty = Novelty.of(about)
        self.features = None if self.novelty is None else with_features(model)
        size = about["size"]
        self.size = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    def read(self, contents: bytes) -> np.ndarray:
        """A picture file as (H, W, 3), RGB, 0-255. Raises OSError that says what is wrong."""
        with opened(io.BytesIO(contents)) as img:
            if img.width * img.height > self.pixels:
                text = f"{img.width:,} x {img.height:,} pixels, and {self.pixels:,} are the most"
                raise PictureError(text)
        return read_picture(io.BytesIO(contents), self.size, self.reading)

    def classify(self, images: np.ndarray) -> list[dict[str, Any]]:
        """For (B, H, W, 3) B dictionaries: class, probability, the probabilities of all, and
        whether the picture is unlike all training pictures, where the model can tell."""
        x = self.prepare(images)
        unlike: list[dict[str, Any]] = [{} for _ in images]
        if self.novelty is None or self.features is None:
            p = self.model.predict(x, verbose=0)
        else:
            f, p = self.features.predict(x, verbose=0)
            told = self.novelty.unlike(f, p)
            unlike = [{"unlike_training": bool(each)} for each in told]
        found = []
        for row, more in zip(p, unlike, strict=True):
            each = {"class": self.names[row.argmax()], "probability": float(row.max())}
            probabilities = dict(zip(self.names, map(float, row), strict=True))
            found.append(each | more | {"probabilities": probabilities})
        return found

    def explain(self, image: np.ndarray, class_name: str | None = None) -> bytes:
        """Grad-CAM of (H, W, 3) as a PNG file (H, W) to lay over the picture: red, where clear.

        Raises ValueError for a class that the model does not have.
        """
        if class_name is not None and class_name not in self.names:
            raise ValueError(f"no class {class_name!r}; there are {self.names}")
        chosen = None if class_name is None else self.names.index(class_name)
        heat = grad_cam(self.model, self.prepare(image[np.newaxis]), chosen)[0]
        layers = [np.full_like(heat, 255), 200 * heat**2, 0 * heat, 190 * heat]  # red to yellow
        file = io.BytesIO()
        Image.fromarray(np.stack(layers, -1).astype(np.uint8), "RGBA").save(file, "PNG")
        return file.getvalue()
