"""Networks with pretrained weights, a file each."""

from . import vgg16
from .vgg16 import VGG16

__all__ = ["VGG16", "vgg16"]
