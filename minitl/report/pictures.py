"""Pictures inside a page: small JPEGs as data URIs, and heat maps laid over pictures.

What comes in are arrays (H, W, 3), 0-255, and maps of heat (H, W), 0-1, of `grad_cam`; what goes
out are strings for the `src` of an <img>, which no network is needed to show.
"""

import base64
import io
from typing import Any

import numpy as np

# From dark to bright, by way of colours that few photographs have: black, violet, orange, yellow.
HEAT = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]])


def data_uri(image: Any, side: int = 224, quality: int = 80) -> str:
    """A picture (H, W, 3), 0-255, or a Pillow image, as a JPEG of at most `side` pixels."""
    from PIL import Image

    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.rint(np.asarray(image)).clip(0, 255).astype(np.uint8))
    image = image.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def heated(image: Any, heat: Any) -> np.ndarray:
    """A picture (H, W, 3), 0-255, in gray under the colours of its heat (H, W): (H, W, 3)."""
    heat = np.asarray(heat, float)
    steps = np.linspace(0, 1, len(HEAT))
    colours = np.stack([np.interp(heat, steps, HEAT[:, c]) for c in range(3)], axis=-1)
    gray = np.asarray(image, float).mean(axis=-1, keepdims=True)
    strength = 0.25 + 0.5 * heat[..., np.newaxis]
    return (1 - strength) * gray + strength * colours
