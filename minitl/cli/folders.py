"""Folders of images for the commands: read once, scaled to the network's size, kept in a file.

What cannot be read as an image is named on the error output and left out, or refused (`--strict`).
The pixels lie in a file that the system reads as it is used, so that memory does not grow with
their number. `commands.py` and `train.py` use them.
"""

import math
import shutil
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from minitl.data import image_dataset_from_directory
from minitl.data.folder import fit_image
from minitl.data.images import decode
from minitl.storage.atomic import progress_bar

HOW = {"interpolation": "bilinear", "resizing": "stretch"}  # images become the model's size


class Pictures:
    """The readable images of `paths`.

    pixels  (N, H, W, 3) float32, 0-255
    kept    which of the paths they are, and `paths` these paths themselves
    faults  what is wrong with the others
    """

    def __init__(
        self, paths: Sequence[str], size: tuple[int, int], strict: bool, how: Mapping[str, str]
    ):
        self.faults: list[str] = []
        self.kept: list[int] = []
        pixels = scratch((len(paths), *size, 3))
        with progress_bar(len(paths), "minitl: reading images", unit="image") as bar:
            for i, path in enumerate(paths):
                bar.update(1)
                try:
                    image = decode(path, "rgb")
                except OSError as error:
                    self.faults.append(str(error))
                    bar.write(f"minitl: {error}", file=sys.stderr)
                    continue
                image = fit_image(image, size, how["interpolation"], how["resizing"])
                pixels[len(self.kept)] = image
                self.kept.append(i)
        if self.faults and (strict or not self.kept):
            raise OSError(f"{len(self.faults)} of {len(paths)} images cannot be read")
        self.paths = [paths[i] for i in self.kept]
        self.pixels = pixels[: len(self.kept)]

    def skipped(self) -> str:
        return f" {len(self.faults)} unreadable images were left out." if self.faults else ""


def scratch(shape: tuple[int, ...]) -> np.ndarray:
    """float32 in a file without a name, which is gone with the array.

    Raises OSError where there is no room for it: to write there would end the process.
    """
    folder, size = tempfile.gettempdir(), 4 * math.prod(shape)
    free = shutil.disk_usage(folder).free
    if size > free:
        fault = f"the images need {size / 1e6:,.1f} MB in {folder}, where {free / 1e6:,.1f} MB are"
        advice = "set TMPDIR to a folder with more room, or give a smaller --size"
        raise OSError(f"{fault} free; {advice}")
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def read_folder(
    directory: str,
    size: tuple[int, int],
    strict: bool,
    names: Sequence[str] | None = None,
    how: Mapping[str, str] = HOW,
    needs_classes: bool = True,
) -> tuple[Pictures, np.ndarray, list[str]]:
    """The images of a folder, scaled to `size` (H, W), their labels (N,), and the classes' names.

    Labels are numbers of `names` where these are given: the folder may lack some of the classes.
    Without sub-folders, if that is allowed, labels are 0 and there are no names. Raises ValueError
    for a class that is not among `names` and for sub-folders that are missing.
    """
    place = Path(directory)
    classes = any(p.is_dir() and not p.name.startswith(".") for p in place.glob("*"))
    if needs_classes and not classes and place.is_dir():
        raise ValueError(f"{directory} has no sub-folders: put the images of each class into one")
    with warnings.catch_warnings():  # `train` refuses a single class, for others it is none's fault
        warnings.filterwarnings("ignore", ".* has one class only")
        labelled = "inferred" if classes else None
        found = image_dataset_from_directory(directory, labelled, shuffle=False, verbose=False)
    theirs = list(found.class_names or ()) if classes else []
    names = theirs if names is None else list(names)
    unknown = [name for name in theirs if name not in names]
    if unknown:
        text = f"{directory} has sub-folders {unknown}"
        raise ValueError(f"{text}, which are not among the classes {names}")
    labels = np.zeros(len(found.file_paths), np.int32)
    if classes:
        labels = np.array([names.index(name) for name in theirs], np.int32)[found.labels]
    pictures = Pictures(found.file_paths, size, strict, how)
    return pictures, labels[pictures.kept], names


def check_output(path: str, endings: Sequence[str]) -> Path:
    """Before hours of work: whether its result can be written to `path`, which is returned.

    Raises ValueError for a name with another ending, and OSError where no file can be written.
    """
    out = Path(path)
    folder = out.absolute().parent
    if out.suffix not in endings:
        raise ValueError(f"{path}: the output's name must end in {' or '.join(endings)}")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} to write {path} to")
    if out.is_dir():
        raise IsADirectoryError(f"{path} is a folder; the output must be the name of a file")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror} in {folder}") from None
    return out
