"""Data: images and folders of images, data sets, and how to split them."""

from minitl.data.augmentation import augment, augmentation_layers
from minitl.data.folder import ImageDataset, image_dataset_from_directory
from minitl.data.images import (
    array_to_img,
    img_to_array,
    load_img,
    resize_images,
    save_img,
    to_rgb,
)

__all__ = [
    "ImageDataset",
    "array_to_img",
    "augment",
    "augmentation_layers",
    "image_dataset_from_directory",
    "img_to_array",
    "load_img",
    "resize_images",
    "save_img",
    "to_rgb",
]
