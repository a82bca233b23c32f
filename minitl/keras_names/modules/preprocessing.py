"""`minitl.preprocessing`: its `image` and `sequence`, and what they have, are `minitl.utils`."""

import sys

from minitl import utils

image = sequence = utils
sys.modules |= {f"{__name__}.image": utils, f"{__name__}.sequence": utils}
__path__: list[str] = []  # `from minitl.preprocessing.image import load_img`
__getattr__ = lambda name: getattr(utils, name)  # noqa: E731
