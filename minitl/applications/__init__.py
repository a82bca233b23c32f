"""Networks with pretrained weights, a file each."""

from minitl.applications import vgg16
from minitl.applications.vgg16 import VGG16

__all__ = ["VGG16", "vgg16"]
