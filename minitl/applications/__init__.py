"""Networks with pretrained weights, one file each."""

from typing import TYPE_CHECKING

from minitl.applications import vgg16
from minitl.applications.vgg16 import VGG16
from minitl.naming import attributes_of

if TYPE_CHECKING:
    from minitl.applications import resnet50, vgg19
    from minitl.applications.resnet50 import ResNet50
    from minitl.applications.vgg19 import VGG19

__all__ = ["VGG16", "VGG19", "ResNet50", "resnet50", "vgg16", "vgg19"]
__getattr__ = attributes_of(__name__, {n: f"{__name__}.{n.lower()}" for n in ("VGG19", "ResNet50")})
