"""A folder of images, one sub-folder per class, as a data set that reads files only when needed.

`image_dataset_from_directory` behaves like Keras's: same arguments, same order of classes, files
and labels (for the same seed, `file_paths` is Keras's list), same pixels up to the JPEG decoder.
How a single file becomes pixels is in `images.py`.

Where Keras is silent, this file speaks: one unreadable image stops the run with a list of ALL of
them, and an empty class folder, a single class, or one without images to train on gives a warning.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from minitl.data import images
from minitl.data.pipeline import Steps, told
from minitl.models.arguments import check_methods, guard
from minitl.naming import check_arguments
from minitl.storage.atomic import progress_bar
from minitl.storage.state import fingerprint

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
LABEL_MODES = ("int", "categorical", "binary", None)


@check_methods
@check_arguments
@dataclass(eq=False, repr=False)
class ImageDataset(Steps):
    """Images on the disk, read and resized a batch at a time.

    Iterating yields (x, y), or x alone without labels: x (N, H, W, C) float32, 0-255; y by
    `label_mode`: 'int' (N,) int32, 'categorical' (N, m) and 'binary' (N, 1) float32. With
    `shuffle` every iteration has a new order of the whole list (not of a buffer's), drawn from
    `seed` and the number of the iteration. With `batch_size=None` single samples are yielded.
    `resizing` says what becomes of images of other proportions than `image_size` (H, W): 'stretch',
    'crop' or 'pad' (zeros). `file_paths`, `labels` (N,) and `arrays()` keep one order, whatever was
    iterated. Raises ValueError for settings out of their range.
    """

    file_paths: Sequence[str] = ()
    labels: Any = None
    class_names: list[str] | None = None
    _: KW_ONLY
    label_mode: str | None = "int"
    color_mode: str = "rgb"
    batch_size: int | None = 32
    image_size: Any = (256, 256)
    shuffle: InitVar[bool] = False
    seed: int = 0
    interpolation: str = "bilinear"
    resizing: str = "stretch"

    def __post_init__(self, shuffle: bool) -> None:
        self.reshuffled = shuffle  # `shuffle` is a method, as of any data set
        images.check_choice("label_mode", self.label_mode, LABEL_MODES)
        images.check_choice("color_mode", self.color_mode, images.PILLOW_MODES)
        self.interpolation = str(self.interpolation).lower()
        images.check_choice("interpolation", self.interpolation, images.INTERPOLATIONS)
        images.check_choice("resizing", self.resizing, ("stretch", "crop", "pad"))
        size, batch = self.image_size, self.batch_size
        pair = (size, size) if isinstance(size, int) else size
        self.image_size = images.check_size("image_size", pair)
        if batch is not None and (not isinstance(batch, int) or batch < 1):
            raise ValueError(f"batch_size must be a positive integer or None, got {batch!r}")
        self.file_paths = list(self.file_paths)
        self._iteration = 0
        if self.labels is None:
            self.label_mode = None
            return
        self.labels = np.asarray(self.labels, np.int32)
        names = self.class_names or []
        if self.label_mode == "binary" and len(names) != 2:
            found = f"{len(names)}: {names}"
            raise ValueError(f"label_mode='binary' needs exactly 2 classes, found {found}")
        if self.label_mode != "int" and not np.isin(self.labels, np.arange(len(names))).all():
            needs = f"needs labels 0 to {len(names) - 1} for {len(names)} classes"
            found = f"{self.labels.min()} to {self.labels.max()}"
            raise ValueError(f"label_mode={self.label_mode!r} {needs}, got {found}")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        return (*self.image_size, len(images.PILLOW_MODES[self.color_mode]))

    def __len__(self) -> int:
        """Number of batches (of images, with `batch_size=None`)."""
        return -(-len(self.file_paths) // (self.batch_size or 1))

    def identity(self) -> str:
        """A digest of what is yielded as far as it can be told without reading the images: names
        (with that of their folder) and sizes of the files, labels, and every setting."""
        files = [[*Path(p).parts[-2:], os.path.getsize(p)] for p in self.file_paths]
        names = [name for name in self.__dataclass_fields__ if name != "file_paths"]
        settings = {n: self.reshuffled if n == "shuffle" else getattr(self, n) for n in names}
        return fingerprint([files, settings])

    def part(self, rows: np.ndarray, shuffle: bool) -> ImageDataset:
        """The images of these rows, (N,) integers, in this order, with the same settings."""
        paths = [self.file_paths[row] for row in rows]
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, file_paths=paths, labels=labels, shuffle=shuffle)

    def in_order(self) -> ImageDataset:
        """The same without shuffling: in the order of `labels` and `file_paths`, for `predict`."""
        return self.part(np.arange(len(self.file_paths)), False)

    def __iter__(self) -> Iterator[Any]:
        rows = np.arange(len(self.file_paths))
        if self.reshuffled:
            np.random.default_rng([self.seed, self._iteration]).shuffle(rows)
        self._iteration += 1
        step = self.batch_size or 1
        for start in range(0, len(rows), step):
            batch = rows[start : start + step]
            x = np.stack([self._image(row) for row in batch]).astype(np.float32, copy=False)
            y = self._targets(batch)
            if self.batch_size is None:
                x, y = x[0], None if y is None else y[0]
            yield told(x if y is None else (x, y))

    def arrays(self, verbose: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """Read everything: x (N, H, W, C) float32 and y, or None, in the order of `file_paths`.

        Needs 4 N H W C bytes. `verbose` shows a bar. Raises OSError naming all unreadable files.
        """
        rows = np.arange(len(self.file_paths))
        x = np.empty((len(rows), *self.image_shape), np.float32)
        with progress_bar(len(x), "reading images", hidden=not verbose, unit="image") as bar:
            for row in range(len(x)):
                x[row] = self._image(row)
                bar.update(1)
        return x, self._targets(rows)

    def verify(self) -> None:
        """Decode every file; raise one OSError that names all that cannot be read, and why."""
        faults = []
        for path in self.file_paths:
            try:
                images.decode(path, self.color_mode)
            except OSError as error:
                faults.append(f"\n  {error}")
        if faults:
            count = f"{len(faults)} of {len(self.file_paths)} images are unreadable"
            raise OSError(f"{count}; mend them or take them away:{''.join(faults)}")

    def _image(self, row: int) -> np.ndarray:
        """The image of this row, (H, W, C)."""
        try:
            pixels = images.decode(self.file_paths[row], self.color_mode)
        except OSError:
            self.verify()  # one is broken: look for all, and name them at once
            raise
        return fit_image(pixels, self.image_size, self.interpolation, self.resizing)

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


ImageDataset.shuffle = Steps.shuffle  # type: ignore[method-assign]


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
    files without labels; a list gives one integer per file, in the order of the sorted folders
    and names. `validation_split` (0 to 1) with `subset` 'training' or 'validation' takes the
    front or the tail of the list, which is shuffled first where `shuffle` is set (with a seed, so
    that the two do not overlap); 'both' gives a pair, the second never reshuffled. For parts with
    equal shares of every class see `minitl.data.splits`. Other proportions than `image_size` (H,
    W) are distorted, cropped or padded with zeros. `interpolation` is that of `resize_images`.

    Raises NotADirectoryError for a missing folder, ValueError for arguments out of their range,
    and where there are no sub-folders, no images, or no images left in a part.
    """
    images.check_data_format(data_format)
    images.check_choice("subset", subset, ("training", "validation", "both", None))
    if (validation_split is None) != (subset is None):
        both = f"{validation_split=}, {subset=}"
        raise ValueError(f"validation_split and subset go together, got {both}")
    if validation_split is not None and not 0 < validation_split < 1:
        raise ValueError(f"validation_split must be between 0 and 1, got {validation_split}")
    if validation_split is not None and shuffle and seed is None:
        why = "without it the training and the validation part, made by two calls, would overlap"
        raise ValueError(f"validation_split with shuffle=True needs a seed: {why}")
    if crop_to_aspect_ratio and pad_to_aspect_ratio:
        raise ValueError("set crop_to_aspect_ratio or pad_to_aspect_ratio, not both")
    if seed is None:  # NumPy's global generator, as in Keras: a script that seeds it is repeatable
        seed = int(np.random.randint(10**6))
    empty = ImageDataset(
        label_mode=label_mode,
        color_mode=color_mode,
        batch_size=batch_size,
        image_size=image_size,
        shuffle=shuffle,
        seed=seed,
        interpolation=interpolation,
        resizing="crop" if crop_to_aspect_ratio else "pad" if pad_to_aspect_ratio else "stretch",
    )
    labels = labels if label_mode else None
    paths, targets, names = _index(os.fspath(directory), labels, class_names, follow_links)
    if verbose:
        classes = "" if names is None else f" belonging to {len(names)} classes"
        print(f"Found {len(paths)} files{classes}.")
    found: dict[str, Any] = {"file_paths": paths, "labels": targets, "class_names": names}
    data = replace(empty, label_mode=label_mode, shuffle=shuffle, **found)
    if shuffle:  # Keras's way, so that the lists and the split are Keras's
        data = data.part(np.random.RandomState(seed).permutation(len(paths)), shuffle)
    inferred = isinstance(labels, str)
    return _subset(data, validation_split, subset, inferred, verbose) if validation_split else data


def _subset(
    found: ImageDataset, validation_split: float, subset: str | None, inferred: bool, verbose: bool
) -> Any:
    """The front or the tail of what was found, or both, as `subset` says."""
    rows = np.arange(len(found.file_paths))
    kept = len(rows) - int(validation_split * len(rows))
    if kept == len(rows):
        what = f"validation_split={validation_split} of {kept} images"
        raise ValueError(f"{what} leaves none for validation")
    labels = () if found.labels is None else found.labels
    lost = np.setdiff1d(labels[kept:], labels[:kept])
    if len(lost):
        names = found.class_names if inferred else None  # else a label is no index into the names
        classes = ", ".join(repr(names[label] if names else str(label)) for label in lost)
        advice = "give it more images" if found.reshuffled else "set shuffle=True with a seed"
        text = f"every image of class {classes} falls into the validation part"
        warnings.warn(f"{text}, none into the training part; {advice}", stacklevel=3)
    for part, count in (("training", kept), ("validation", len(rows) - kept)):
        if verbose and subset in (part, "both"):
            print(f"Using {count} files for {part}.")
    if subset == "both":
        return found.part(rows[:kept], found.reshuffled), found.part(rows[kept:], False)
    return found.part(rows[:kept] if subset == "training" else rows[kept:], found.reshuffled)


def fit_image(
    image: np.ndarray, size: tuple[int, int], interpolation: str, resizing: str
) -> np.ndarray:
    """Resize an image (H, W, C) to `size` (OH, OW): 'stretch', 'crop' the middle, or 'pad'."""
    if resizing == "crop":
        image = image[images.middle(image.shape[0], image.shape[1], size)]
    if resizing != "pad":
        return images.resize_images(image[np.newaxis], size, interpolation)[0]
    # In float32 as in TensorFlow: a rounding there can cost a row, and ours should be the same.
    given, wanted = np.array(image.shape[:2], np.float32), np.array(size, np.float32)
    fitted = given / (given / wanted).max()
    rows, columns = (max(int(n), 1) for n in fitted)
    top, left = (max(int(n), 0) for n in (wanted - fitted) / 2)
    padded = np.zeros((*size, image.shape[2]), np.float32)
    resized = images.resize_images(image[np.newaxis], (rows, columns), interpolation)[0]
    padded[top : top + rows, left : left + columns] = resized
    return padded


def _index(
    directory: str, labels: Any, class_names: Sequence[str] | None, follow_links: bool
) -> tuple[list[str], np.ndarray | None, list[str] | None]:
    """Paths, labels (N,) int32 and class names, in Keras's order: class, folder, file name."""
    if not os.path.isdir(directory):
        what = "is a file, not a folder" if os.path.exists(directory) else "does not exist"
        raise NotADirectoryError(f"{directory} {what}")
    inferred = isinstance(labels, str) and labels == "inferred"
    if not inferred and labels is not None and not isinstance(labels, (list, tuple, np.ndarray)):
        form = "'inferred' (from the sub-folders), None, or a list of one integer an image"
        raise ValueError(f"labels must be {form}; got {labels!r}")
    if not inferred and class_names is not None:
        raise ValueError("class_names goes with labels='inferred' only")
    names = _class_folders(directory, class_names) if inferred else [""]
    files = [_image_files(os.path.join(directory, name), follow_links) for name in names]
    paths = [path for of_class in files for path in of_class]
    if not paths:
        others = {path.suffix or path.name for path in Path(directory).rglob("*") if path.is_file()}
        seen = f"; it has files that end in {', '.join(sorted(others)[:8])}" if others else ""
        raise ValueError(f"no images ({', '.join(ENDINGS)}) in {directory}{seen}")
    if labels is None:
        return paths, None, None
    if inferred:
        empty = [repr(name) for name, of_class in zip(names, files, strict=True) if not of_class]
        if empty:
            text = f"no images ({', '.join(ENDINGS)}) for class {', '.join(empty)} in {directory}"
            warnings.warn(text, stacklevel=3)
        if len(names) == 1:
            text = f"{directory} has one class only, {names[0]!r}: each sub-folder is taken as a"
            text += f" class; did you mean {os.path.join(directory, names[0])}?"
            warnings.warn(text, stacklevel=3)
        targets = np.repeat(np.arange(len(names), dtype=np.int32), [len(each) for each in files])
        return paths, targets, names
    if len(labels) != len(paths):
        raise ValueError(f"{len(labels)} labels for {len(paths)} images in {directory}")
    given = np.asarray(labels)
    if given.ndim != 1 or not np.issubdtype(given.dtype, np.integer):
        text = "labels must be one integer an image, got"
        raise ValueError(f"{text} {given.dtype} of shape {given.shape}")
    return paths, given.astype(np.int32), [str(label) for label in np.unique(given)]


def _class_folders(directory: str, class_names: Sequence[str] | None) -> list[str]:
    """The names of the sub-folders that are classes, in the classes' order."""
    folders = sorted(e.name for e in os.scandir(directory) if e.is_dir() and e.name[0] != ".")
    if not folders:
        text = "has no sub-folders, and labels='inferred' takes one for each class"
        raise ValueError(f"{directory} {text}; for images without classes pass labels=None")
    if class_names is None:
        return folders
    names = list(class_names)
    missing = [name for name in names if name not in folders]
    if missing or len(set(names)) != len(names):
        wrong = f"no sub-folder for {missing}" if missing else "a name appears twice"
        raise ValueError(f"class_names {names}: {wrong}; sub-folders found: {folders}")
    return names


def _image_files(directory: str, follow_links: bool) -> list[str]:
    """All images below a folder: folders in order of their names, then files in theirs. However
    links lead, each real folder is visited once."""
    found, seen = list[tuple[str, list[str]]](), set[str]()
    for root, folders, files in os.walk(directory, followlinks=follow_links):
        if follow_links and os.path.realpath(root) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        found.append((root, files))
    return [
        # through relpath, so that the string equals Keras's
        os.path.join(directory, os.path.relpath(os.path.join(root, name), directory))
        for root, files in sorted(found)
        for name in sorted(files)
        if name.lower().endswith(ENDINGS)
    ]


guard(globals())
