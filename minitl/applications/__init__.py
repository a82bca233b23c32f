"""Networks with pretrained weights, one file each."""

from typing import TYPE_CHECKING

from minitl.applications import vgg16
from minitl.applications.vgg16 import VGG16
from minitl.naming import attributes_of

if TYPE_CHECKING:
    from minitl.applications import efficientnet, mobilenet_v2, resnet50, vgg19
    from minitl.applications.efficientnet import EfficientNetB0
    from minitl.applications.mobilenet_v2 import MobileNetV2
    from minitl.applications.resnet50 import ResNet50
    from minitl.applications.vgg19 import VGG19

__all__ = ["VGG16", "VGG19", "EfficientNetB0", "MobileNetV2", "ResNet50"]
__all__ += ["efficientnet", "mobilenet_v2", "resnet50", "vgg16", "vgg19"]
FILES = {"VGG19": "vgg19", "ResNet50": "resnet50"}
FILES |= {"MobileNetV2": "mobilenet_v2", "EfficientNetB0": "efficientnet"}
__getattr__ = attributes_of(__name__, {n: f"{__name__}.{file}" for n, file in FILES.items()})
