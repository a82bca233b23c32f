"""Folders of images in ImageNet's form: one sub-folder per class, named by its synset.

    train/n01440764/n01440764_10026.JPEG ...        n01440764 is 'tench'

So come ImageNet itself (ILSVRC 2012, for which one has to register at image-net.org) and its
smaller relatives (Imagenette, Tiny ImageNet's training folder, one's own choice of classes). The
order of the 1,000 classes in published networks is that of the synsets.

Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition Challenge" (arXiv 1409.0575).
"""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from minitl.applications.weights import imagenet_classes
from minitl.data.folder import ImageDataset, image_dataset_from_directory
from minitl.data.images import check_choice
from minitl.naming import check_keywords


@check_keywords
def dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: str = "imagenet",
    label_mode: str = "int",
    batch_size: int | None = 32,
    image_size: Any = (224, 224),
    shuffle: bool = False,
    seed: int | None = None,
    verbose: bool = True,
) -> ImageDataset:
    """An `ImageDataset` of a folder whose sub-folders are synsets; files are read when needed.

    `labels='imagenet'` counts a class among the 1,000, as the networks with top do, even if only a
    few are there; 'folders' counts the sub-folders 0, 1, ... for a head of one's own (and takes
    synsets that are not among the 1,000). Other arguments as for `image_dataset_from_directory`.
    `class_names` of the result are the words ('tench'); with 'folders' those of the folders, where
    the words are known, else synsets.

    Raises NotADirectoryError for a missing folder, ValueError for sub-folders of other names.
    """
    check_choice("labels", labels, ("imagenet", "folders"))
    folder = Path(directory)
    if not folder.is_dir():
        raise NotADirectoryError(f"there is no folder {folder}")
    synsets = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    strangers = [name for name in synsets if not re.fullmatch(r"n\d{8}", name)]
    if strangers or not synsets:
        found = ", ".join(map(repr, strangers[:5])) or "no sub-folders"
        text = f"expected sub-folders of {folder} that are named by synsets (n01440764), found"
        raise ValueError(f"{text} {found}; other folders are read by image_dataset_from_directory")
    settings = ("rgb", batch_size, image_size, shuffle, seed)
    dataset = image_dataset_from_directory(
        directory, "inferred", label_mode, synsets, *settings, verbose=verbose
    )
    words: dict[str, str] = {}
    try:
        words |= imagenet_classes()  # in the order of the networks' outputs
    except OSError:  # the names cannot be fetched: folders do without
        if labels == "imagenet":
            raise
    if labels == "folders":
        dataset.class_names = [words.get(name, name) for name in synsets]
        return dataset
    if unknown := [name for name in synsets if name not in words]:
        advice = "not among the 1,000 classes; labels='folders' takes them"
        raise ValueError(f"{', '.join(unknown[:5])}: {advice}")
    places = np.array([list(words).index(name) for name in synsets], np.int32)
    dataset.labels = places[dataset.labels]
    dataset.class_names = list(words.values())
    return dataset
