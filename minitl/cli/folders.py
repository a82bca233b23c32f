"""Folders of pictures for the commands: found, read in batches, and told of what is left out.

`find` looks what is there (`data/found.py`), `walk` gives the pixels batch by batch with a bar.
What cannot be read is named on the error output and left out, or refused (`--strict`). Nothing is
copied: the files are read as they are used. `commands.py` and `train.py` use this.
"""

import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl.data.found import left_out, open_folder
from minitl.data.pictures import READING, UNREADABLE, Pictures
from minitl.distributed import extract_features
from minitl.models import Model
from minitl.storage.atomic import progress_bar, visible

KEPT = 2**28  # bytes of pixels that `train` keeps: 1,780 pictures of 224 x 224


def find(
    source: Any,
    size: tuple[int, int],
    strict: bool,
    names: Sequence[str] | None = None,
    reading: Mapping[str, Any] = READING,
    needs_classes: bool = True,
    group_by: str | None = None,
) -> Pictures:
    """The pictures of a folder or a table, as (H, W), and their labels: numbers of `names` where
    these are given. Raises ValueError for a class that is not among them, and where classes are
    needed and there are no sub-folders; with `strict` OSError for what would be left out."""
    pictures = open_folder(source, size, names, reading=reading, group_by=group_by)
    if needs_classes and pictures.labels is None:
        how = "put the images of each class into one, or give a CSV file with columns path, label"
        raise ValueError(f"{visible(source)} has no sub-folders: {how}")
    left_out(pictures, strict)
    return pictures


def walk(
    pictures: Pictures, text: str, strict: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, pixels) of 16 pictures at a time; what cannot be read is told.

    Raises OSError in the end if nothing can be read, or not everything and `strict`.
    """
    told = 0
    with progress_bar(len(pictures), text, unit="image") as bar:
        for rows, pixels in pictures.batches(16):
            yield rows, pixels
            bar.update(int(rows[-1]) + 1 - bar.n)
            for fault in list(pictures.faults.values())[told:]:
                told += 1
                bar.write(f"minitl: {fault}", file=sys.stderr)
        for fault in list(pictures.faults.values())[told:]:
            bar.write(f"minitl: {fault}", file=sys.stderr)
    bad = len(pictures) - len(pictures.readable())
    if bad and (strict or bad == len(pictures)):
        raise OSError(f"{bad} of {len(pictures)} images cannot be read")


def readable(pictures: Pictures, strict: bool, see: Any = None) -> Pictures:
    """Those that can be read, after every one has been; some of their pixels stay in memory.

    `see(rows, pixels)` is shown all of them.
    """
    pictures.keep = KEPT
    for rows, pixels in walk(pictures, "reading images", strict):
        if see is not None:
            see(rows, pixels)
    return pictures.part(pictures.readable())


def by_workers(
    cluster: str | int,
    model: Model,
    pictures: Pictures,
    out: Any,
    prepare: Any,
    chosen: Any = None,
    pooling: str | None = None,
) -> Any:
    """`distributed.extract_features`; faults are told, and noted in `pictures`. Raises OSError if
    nothing can be read."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "[0-9]+ of [0-9]+ images could not be read")
        rows = extract_features(model, pictures, chosen, pooling, prepare, out, client=cluster)
    for row, fault in rows.faults.items():
        pictures.faults[pictures.paths[row]] = fault
        pictures.skipped.setdefault(UNREADABLE, []).append(pictures.paths[row])
        print(f"minitl: {fault}", file=sys.stderr)
    if not len(rows.kept):
        raise OSError(f"{len(rows)} of {len(rows)} images cannot be read")
    return rows


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
