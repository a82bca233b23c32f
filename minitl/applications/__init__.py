"""Networks with pretrained weights, a file each."""

from minitl.applications import resnet50, vgg16, vgg19
from minitl.applications.resnet50 import ResNet50
from minitl.applications.vgg16 import VGG16
from minitl.applications.vgg19 import VGG19

__all__ = ["VGG16", "VGG19", "ResNet50", "resnet50", "vgg16", "vgg19"]
