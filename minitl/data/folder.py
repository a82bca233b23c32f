"""A folder of images, one sub-folder a class, as a data set that reads files only when needed.

`image_dataset_from_directory` behaves like Keras's: same arguments, same order of classes, files
and labels (for the same seed, `file_paths` is Keras's list), same pixels up to the JPEG decoder.
It returns an `ImageDataset`, which yields batches and holds one batch at a time in memory; its
`arrays()` reads the whole folder at once.

Where Keras is silent, this file speaks: an unreadable image stops the run with a list of ALL
unreadable ones, and an empty class folder or a split that leaves a class without training images
gives a warning.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl.data.images import (
    CHANNELS,
    INTERPOLATIONS,
    check_choice,
    check_data_format,
    check_size,
    decode,
    resize_images,
)
from minitl.storage.state import fingerprint

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
LABEL_MODES = ("int", "categorical", "binary", None)


class ImageDataset:
    """Images on the disk, read and resized a batch at a time.

    Iterating yields (x, y), or x alone when there are no labels:
    x (N, H, W, C) float32, 0-255; y by `label_mode`: 'int' (N,) int32, 'categorical' (N, m) and
    'binary' (N, 1) float32. The last batch may be smaller. With `shuffle`, every iteration has a
    new order, drawn from `seed` and the number of the iteration, so a run can be repeated; unlike
    Keras, which mixes within a buffer of 8 batches, the whole list is shuffled. With
    `batch_size=None` single samples are yielded.

    `file_paths`, `labels` (N,) and `arrays()` share one fixed order, whatever was iterated before.
    """

    def __init__(
        self,
        file_paths: Sequence[str],
        labels: Sequence[int] | np.ndarray | None,
        class_names: list[str] | None,
        *,
        label_mode: str | None = "int",
        color_mode: str = "rgb",
        batch_size: int | None = 32,
        image_size: tuple[int, int] = (256, 256),
        shuffle: bool = False,
        seed: int = 0,
        interpolation: str = "bilinear",
        resizing: str = "stretch",
    ):
        """`resizing` says what becomes of other proportions: 'stretch', 'crop' or 'pad' (zeros)."""
        self.file_paths = list(file_paths)
        self.labels = None if labels is None else np.asarray(labels, np.int32)
        self.class_names = class_names
        self.label_mode = label_mode if labels is not None else None
        self.color_mode = color_mode
        self.batch_size = batch_size
        self.image_size = image_size
        self.shuffle = shuffle
        self.seed = seed
        self.interpolation = interpolation
        self.resizing = resizing
        self._iteration = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        return (*self.image_size, CHANNELS[self.color_mode])

    def __len__(self) -> int:
        """Number of batches (of images, with `batch_size=None`)."""
        return -(-len(self.file_paths) // (self.batch_size or 1))

    def identity(self) -> str:
        """A digest of what is yielded as far as it can be told without reading the images: names
        (with that of their folder) and sizes of the files, labels, and every setting."""
        files = [[*Path(p).parts[-2:], os.path.getsize(p)] for p in self.file_paths]
        settings = {k: v for k, v in vars(self).items() if k not in ("file_paths", "_iteration")}
        return fingerprint([files, settings])

    def __iter__(self) -> Iterator[Any]:
        rows = np.arange(len(self.file_paths))
        if self.shuffle:
            np.random.default_rng([self.seed, self._iteration]).shuffle(rows)
        self._iteration += 1
        step = self.batch_size or 1
        for start in range(0, len(rows), step):
            batch = rows[start : start + step]
            x = self._read(batch)
            y = self._targets(batch)
            if self.batch_size is None:
                x, y = x[0], None if y is None else y[0]
            yield x if y is None else (x, y)

    def arrays(self, verbose: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """Read everything: x (N, H, W, C) float32 and y, or None, in the order of `file_paths`.

        Needs 4 N H W C bytes. `verbose` shows a progress bar. Raises OSError that names every
        unreadable file.
        """
        from tqdm import tqdm

        x = np.empty((len(self.file_paths), *self.image_shape), np.float32)
        step = self.batch_size or 32
        with tqdm(total=len(x), desc="images", unit="img", disable=not verbose) as bar:
            for start in range(0, len(x), step):
                rows = np.arange(start, min(start + step, len(x)))
                x[rows] = self._read(rows)
                bar.update(len(rows))
        return x, self._targets(np.arange(len(x)))

    def verify(self) -> None:
        """Decode every file; raise one OSError that names all that cannot be read, and why."""
        faults = []
        for path in self.file_paths:
            try:
                decode(path, self.color_mode)
            except OSError as error:
                faults.append(f"  {error}")
        if faults:
            raise OSError(
                f"{len(faults)} of {len(self.file_paths)} images are unreadable; mend them or "
                "take them away:\n" + "\n".join(faults)
            )

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """The images of these rows, (N, H, W, C) float32."""
        x = np.empty((len(rows), *self.image_shape), np.float32)
        for image, row in zip(x, rows, strict=True):
            try:
                pixels = decode(self.file_paths[row], self.color_mode)
            except OSError:
                self.verify()  # one is broken: look for all, and name them at once
                raise
            image[:] = fit_image(pixels, self.image_size, self.interpolation, self.resizing)
        return x

    def _targets(self, rows: np.ndarray) -> np.ndarray | None:
        """The labels of these rows in the form that `label_mode` asks for."""
        if self.labels is None or self.label_mode is None:
            return None
        labels = self.labels[rows]
        if self.label_mode == "binary":
            return labels[:, np.newaxis].astype(np.float32)
        if self.label_mode == "categorical":
            return np.eye(len(self.class_names or ()), dtype=np.float32)[labels]
        return labels


def image_dataset_from_directory(
    directory: str | os.PathLike[str],
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Sequence[str] | None = None,
    color_mode: str = "rgb",
    batch_size: int | None = 32,
    image_size: Any = (256, 256),
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    interpolation: str = "bilinear",
    follow_links: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    data_format: str | None = None,
    *,
    verbose: bool = True,
) -> Any:
    """Find the images under `directory` and return an `ImageDataset` of them.

    With `labels='inferred'` every sub-folder is a class, in alphabetical order or in that of
    `class_names` (then only those); files deeper down belong to it too. `labels=None` takes all
    files without labels; a list gives one integer a file, in the order of the sorted folders and
    names. Files are those that end in .bmp, .gif, .jpeg, .jpg or .png.

    `validation_split` (0 to 1) with `subset` 'training' or 'validation' takes the front or the
    tail of the list, which is shuffled first where `shuffle` is set (a seed is needed, so that the
    two parts do not overlap); 'both' returns a pair of data sets, the second never reshuffled.
    For parts with the same share of every class see `minitl.data.splits`.

    Images become `image_size` (H, W) with `interpolation` as in `resize_images`; other
    proportions are distorted, or cropped (`crop_to_aspect_ratio`), or padded with zeros
    (`pad_to_aspect_ratio`). `color_mode` is 'rgb', 'rgba' or 'grayscale'.

    Raises NotADirectoryError for a missing folder, ValueError for arguments out of their range,
    and where there are no sub-folders, no images, or no images left in a part.
    """
    check_choice("label_mode", label_mode, LABEL_MODES)
    check_choice("color_mode", color_mode, CHANNELS)
    interpolation = str(interpolation).lower()
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    check_data_format(data_format)
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    image_size = check_size("image_size", image_size)
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a positive integer or None, got {batch_size!r}")
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError("set crop_to_aspect_ratio or pad_to_aspect_ratio, not both")
    _check_split(validation_split, subset, shuffle, seed)
    if label_mode is None:
        labels = None
    if seed is None:
        # NumPy's global generator, as in Keras, so that a script which seeds it is repeatable
        seed = int(np.random.randint(10**6))

    paths, targets, names = _index(os.fspath(directory), labels, class_names, follow_links)
    if verbose:
        classes = "" if names is None else f" belonging to {len(names)} classes"
        print(f"Found {len(paths)} files{classes}.")
    if names is not None and targets is not None:
        _check_labels(targets, names, label_mode)
    if shuffle:
        # Keras's shuffle, so that the lists and the split are Keras's
        order = list(range(len(paths)))
        np.random.RandomState(seed).shuffle(order)
        paths = [paths[i] for i in order]
        targets = targets[order] if targets is not None else None

    def dataset(rows: slice, reshuffle: bool) -> ImageDataset:
        return ImageDataset(
            paths[rows],
            targets[rows] if targets is not None else None,
            names,
            label_mode=label_mode,
            color_mode=color_mode,
            batch_size=batch_size,
            image_size=image_size,
            shuffle=reshuffle,
            seed=seed,
            interpolation=interpolation,
            resizing="crop"
            if crop_to_aspect_ratio
            else "pad"
            if pad_to_aspect_ratio
            else "stretch",
        )

    if not validation_split:
        return dataset(slice(None), shuffle)
    held_out = int(validation_split * len(paths))
    kept = len(paths) - held_out
    if held_out == 0:
        raise ValueError(
            f"validation_split={validation_split} of {len(paths)} images leaves none for validation"
        )
    if targets is not None:
        inferred = isinstance(labels, str)  # otherwise a label is no index into the names
        _warn_of_untrained(targets[:kept], targets[kept:], names if inferred else None, shuffle)
    if verbose and subset in ("training", "both"):
        print(f"Using {kept} files for training.")
    if verbose and subset in ("validation", "both"):
        print(f"Using {held_out} files for validation.")
    if subset == "both":
        return dataset(slice(kept), shuffle), dataset(slice(kept, None), False)
    return dataset(slice(kept) if subset == "training" else slice(kept, None), shuffle)


def fit_image(
    image: np.ndarray, size: tuple[int, int], interpolation: str, resizing: str
) -> np.ndarray:
    """Resize an image (H, W, C) to `size` (OH, OW): 'stretch', 'crop' the middle, or 'pad'."""
    height, width = image.shape[:2]
    rows, columns = size
    if resizing == "crop":
        cut_rows = max(min(height, width * rows // columns), 1)
        cut_columns = max(min(width, height * columns // rows), 1)
        top, left = (height - cut_rows) // 2, (width - cut_columns) // 2
        image = image[top : top + cut_rows, left : left + cut_columns]
    if resizing != "pad":
        return resize_images(image[np.newaxis], size, interpolation)[0]
    # In float32 as in TensorFlow: a rounding there can cost a row, and ours should be the same.
    high, wide = np.float32(height), np.float32(width)
    ratio = max(wide / np.float32(columns), high / np.float32(rows))
    inner = (max(int(high / ratio), 1), max(int(wide / ratio), 1))
    top = max(int((np.float32(rows) - high / ratio) / 2), 0)
    left = max(int((np.float32(columns) - wide / ratio) / 2), 0)
    padded = np.zeros((rows, columns, image.shape[2]), np.float32)
    resized = resize_images(image[np.newaxis], inner, interpolation)[0]
    padded[top : top + inner[0], left : left + inner[1]] = resized
    return padded


def _index(
    directory: str, labels: Any, class_names: Sequence[str] | None, follow_links: bool
) -> tuple[list[str], np.ndarray | None, list[str] | None]:
    """Paths, labels (N,) int32 and class names, in Keras's order: class, folder, file name."""
    if not os.path.isdir(directory):
        what = "is a file, not a folder" if os.path.exists(directory) else "does not exist"
        raise NotADirectoryError(f"{directory} {what}")
    if isinstance(labels, str) and labels == "inferred":
        return _index_classes(directory, class_names, follow_links)
    if labels is not None and not isinstance(labels, (list, tuple, np.ndarray)):
        raise ValueError(
            "labels must be 'inferred' (from the sub-folders), None, or a list of one integer "
            f"an image; got {labels!r}"
        )
    if class_names is not None:
        raise ValueError("class_names goes with labels='inferred' only")
    paths = _image_files(directory, follow_links)
    if not paths:
        raise ValueError(_nothing_found(directory))
    if labels is None:
        return paths, None, None
    if len(labels) != len(paths):
        raise ValueError(f"{len(labels)} labels for {len(paths)} images in {directory}")
    given = np.asarray(labels)
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        raise ValueError(
            f"labels must be one integer an image, got {given.dtype} of shape {given.shape}"
        )
    return paths, given.astype(np.int32), [str(label) for label in np.unique(given)]


def _index_classes(
    directory: str, class_names: Sequence[str] | None, follow_links: bool
) -> tuple[list[str], np.ndarray, list[str]]:
    """`_index` where every sub-folder is a class."""
    folders = [
        name
        for name in sorted(os.listdir(directory))
        if os.path.isdir(os.path.join(directory, name)) and not name.startswith(".")
    ]
    if not folders:
        raise ValueError(
            f"{directory} has no sub-folders, and labels='inferred' takes one for each class; "
            "for images without classes pass labels=None"
        )
    if class_names is None:
        names = folders
    else:
        names = list(class_names)
        missing = [name for name in names if name not in folders]
        if missing or len(set(names)) != len(names):
            wrong = f"no sub-folder for {missing}" if missing else "a name appears twice"
            raise ValueError(f"class_names {names}: {wrong}; sub-folders found: {folders}")
    paths: list[str] = []
    targets: list[int] = []
    empty = []
    for label, name in enumerate(names):
        files = _image_files(os.path.join(directory, name), follow_links)
        paths += files
        targets += [label] * len(files)
        if not files:
            empty.append(name)
    if not paths:
        raise ValueError(_nothing_found(directory))
    if empty:
        warnings.warn(
            f"no images ({', '.join(ENDINGS)}) for class {', '.join(map(repr, empty))} "
            f"in {directory}",
            stacklevel=4,
        )
    if len(names) == 1:
        warnings.warn(
            f"{directory} has one class only, {names[0]!r}: each sub-folder is taken as a class; "
            f"did you mean {os.path.join(directory, names[0])}?",
            stacklevel=4,
        )
    return paths, np.array(targets, np.int32), names


def _image_files(directory: str, follow_links: bool) -> list[str]:
    """All images below a folder: folders in order of their names, then files in theirs."""
    found = []
    folders = sorted(os.walk(directory, followlinks=follow_links), key=lambda step: step[0])
    for root, _, files in folders:
        for name in sorted(files):
            if name.lower().endswith(ENDINGS):
                # through relpath, so that the string equals Keras's
                relative = os.path.relpath(os.path.join(root, name), directory)
                found.append(os.path.join(directory, relative))
    return found


def _nothing_found(directory: str) -> str:
    others = {path.suffix or path.name for path in Path(directory).rglob("*") if path.is_file()}
    seen = f"; it has files that end in {', '.join(sorted(others)[:8])}" if others else ""
    return f"no images ({', '.join(ENDINGS)}) in {directory}{seen}"


def _check_labels(targets: np.ndarray, names: list[str], label_mode: str | None) -> None:
    """Raise ValueError where the labels cannot be written in the form of `label_mode`."""
    if label_mode == "binary" and len(names) != 2:
        raise ValueError(
            f"label_mode='binary' needs exactly 2 classes, found {len(names)}: {names}"
        )
    if label_mode != "int" and not (targets.min() >= 0 and targets.max() < len(names)):
        raise ValueError(
            f"label_mode={label_mode!r} needs labels 0 to {len(names) - 1} for {len(names)} "
            f"classes, got {targets.min()} to {targets.max()}"
        )


def _check_split(
    validation_split: float | None, subset: str | None, shuffle: bool, seed: int | None
) -> None:
    check_choice("subset", subset, ("training", "validation", "both", None))
    if (validation_split is None) != (subset is None):
        raise ValueError(
            "validation_split and subset go together, got "
            f"validation_split={validation_split!r}, subset={subset!r}"
        )
    if validation_split is None:
        return
    if not 0 < validation_split < 1:
        raise ValueError(f"validation_split must be between 0 and 1, got {validation_split}")
    if shuffle and seed is None:
        raise ValueError(
            "validation_split with shuffle=True needs a seed: without it the training and the "
            "validation part, made by two calls, would overlap"
        )


def _warn_of_untrained(
    train: np.ndarray, held_out: np.ndarray, names: list[str] | None, shuffle: bool
) -> None:
    """Warn of classes whose every image fell into the validation part."""
    lost = [names[label] if names else str(label) for label in np.setdiff1d(held_out, train)]
    if lost:
        advice = "give it more images" if shuffle else "set shuffle=True with a seed"
        warnings.warn(
            f"every image of class {', '.join(map(repr, lost))} falls into the validation part, "
            f"none into the training part; {advice}",
            stacklevel=3,
        )
