"""People's own pictures: many files, seen as one array (N, H, W, 3) that is read when it is used.

`read_picture` makes one file an array as a person sees it: turned as the camera says, transparent
parts on white, all pixels counted when it shrinks. `Pictures` are N of them with their labels;
`found.py` makes them of a folder or a table. What is asked for is decoded on all cores, and what
comes next in order is decoded ahead while the network works on what came before: memory holds a few
batches of 8-bit pixels, however many pictures there are.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from minitl.data import door, images
from minitl.data.augmentation import augment
from minitl.data.folder import fit_image
from minitl.models.arguments import guard
from minitl.storage.digests import digest_of
from minitl.storage.state import fingerprint

# How files become pixels. A model keeps it in its metadata, so that it sees new pictures as it saw
# those it was trained on; one without "antialias" was made before there was another way.
READING = {
    "interpolation": "bilinear",
    "antialias": True,  # after averaging 2 x 2, 4 x 4 ... where there are twice as many pixels left
    "orientation": "EXIF",
    "alpha": "on white",
    "resizing": "stretch",
}
FORMERLY = {"interpolation": "bilinear", "resizing": "stretch"}
GAP = 2  # averaging leaves at least so many pixels for one, for the filter to work on
BAND = 4_000_000  # pixels that are converted at a time
AHEAD = 2  # batches that are read ahead
UNREADABLE = "that cannot be read"


def read_picture(path: door.Source, size: Any, reading: Mapping[str, Any] = READING) -> np.ndarray:
    """A picture file as uint8 (H, W, 3), RGB, 0-255, of `size` (H, W), or an integer for squares.

    It is turned as its EXIF orientation says; what is transparent lies on white; gray, palettes,
    CMYK and 16 bits become 8-bit RGB; of several frames the first is taken. A larger picture is
    shrunk so that every pixel counts (bilinear, antialiased): first by a whole number, in a JPEG
    by its decoder, to at least twice the size. `reading` is READING, or a model's metadata; its
    "resizing" is 'stretch', 'crop' (the middle) or 'pad' (with black).

    Raises OSError (`PictureError`) that names the file and says what is wrong with it.
    """
    height, width = images.check_size("size", (size, size) if isinstance(size, int) else size)
    images.check_choice("resizing", reading["resizing"], ("stretch", "crop", "pad"))
    if not reading.get("antialias"):  # as TensorFlow and Keras, on pixels as they are stored
        pixels = images.decode(path, "rgb")
        fitted = fit_image(pixels, (height, width), reading["interpolation"], reading["resizing"])
        return fitted.astype(np.float32)
    with door.opened(path, target=(GAP * max(height, width),) * 2) as img:
        img.load()
        return np.array(_fitted(_upright(img), (height, width), reading["resizing"]))


def _upright(img: Image.Image) -> Image.Image:
    """The image turned or mirrored as its EXIF orientation, 2 to 8, asks for."""
    turn = Image.Transpose
    turns = [turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM]
    turns += [turn.TRANSPOSE, turn.ROTATE_270, turn.TRANSVERSE, turn.ROTATE_90]
    orientation = 1
    with contextlib.suppress(Exception):  # EXIF that is damaged says nothing
        orientation = img.getexif().get(0x0112, 1)
    known = isinstance(orientation, int) and 2 <= orientation <= 8
    return img.transpose(turns[orientation - 2]) if known else img


def _fitted(img: Image.Image, size: tuple[int, int], resizing: str) -> Image.Image:
    """The image in RGB and of `size` (H, W)."""
    top, left, bottom, right = 0, 0, img.height, img.width
    height, width = size
    if resizing == "crop":
        down, across = images.middle(img.height, img.width, size)
        top, bottom, left, right = down.start, down.stop, across.start, across.stop
    if resizing == "pad":
        scale = min(height / img.height, width / img.width)
        height, width = max(int(img.height * scale), 1), max(int(img.width * scale), 1)
    # Whole numbers of rows and columns are averaged first, while colours become RGB.
    fy = max((bottom - top) // (GAP * height), 1)
    fx = max((right - left) // (GAP * width), 1)
    small = _averaged(img, fx, fy)
    box = (left / fx, top / fy, right / fx, bottom / fy)
    if (width, height) != small.size or box != (0, 0, width, height):
        small = small.resize((width, height), Image.Resampling.BILINEAR, box)
    if (height, width) == size:
        return small
    padded = Image.new("RGB", size[::-1])
    padded.paste(small, ((size[1] - width) // 2, (size[0] - height) // 2))
    return padded


def _averaged(img: Image.Image, fx: int, fy: int) -> Image.Image:
    """RGB, each pixel the mean of fx x fy; in bands, for a large image has no room for a copy."""
    rows = max(BAND // (img.width * fy), 1) * fy
    if img.mode == "RGB" and "transparency" not in img.info:
        return img if fx == fy == 1 else img.reduce((fx, fy))
    if rows >= img.height:
        img = _on_white(img)
        return img if fx == fy == 1 else img.reduce((fx, fy))
    small = Image.new("RGB", (-(-img.width // fx), -(-img.height // fy)))
    for top in range(0, img.height, rows):
        band = img.crop((0, top, img.width, min(top + rows, img.height)))
        small.paste(_on_white(band).reduce((fx, fy)), (0, top // fy))
    return small


def _on_white(img: Image.Image) -> Image.Image:
    """In RGB, transparent parts on white: the colours that hide under them are nobody's picture."""
    if img.mode not in ("RGBA", "LA", "PA", "La", "RGBa") and "transparency" not in img.info:
        return door.to_mode(img, "RGB")
    clear = img.convert("RGBA")
    white = Image.new("RGB", clear.size, "white")
    white.paste(clear, mask=clear.getchannel("A"))
    return white


@dataclass(eq=False)
class Pictures:
    """N picture files as one array (N, H, W, 3) of uint8, RGB, 0-255, that is read when it is used.

    paths        N names of files
    labels       (N,) int32, numbers of `class_names`, or None
    groups       (N,) str: what must not be divided by a split, or None
    split        (N,) str, 'train', 'validation' or 'test', where the folder or table says so
    skipped      what was left out: for each reason the paths
    keep         so many bytes of pixels at most stay in memory, for whoever reads them again
    faults       for each path that cannot be read, found so far: what is wrong with it
    digests      for each path read so far: a digest of its pixels; alike, the same picture
    size         (H, W); `reading` says how files become pixels (READING)

        pictures = open_folder("photos", size=224)
        F = extract_features(base, pictures, preprocess=preprocess_input)  # as an array
        pictures[:16]                       # (16, 224, 224, 3), decoded on all cores
        pictures.part(rows)                 # those of these rows, nothing is read
        for rows, pixels in pictures.batches(16):   # leaves out what cannot be read
            ...

    In order, what comes next is read ahead. Indexing raises OSError for a file that cannot be read.
    """

    paths: list[str]
    labels: Any = None
    class_names: list[str] = field(default_factory=list)
    groups: Any = None
    split: Any = None
    skipped: dict[str, list[str]] = field(default_factory=dict)
    size: tuple[int, int] = (224, 224)
    reading: Mapping[str, Any] = field(default_factory=lambda: READING)
    keep: int = 0
    faults: dict[str, str] = field(default_factory=dict, repr=False)
    digests: dict[str, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._ahead: dict[int, Future[np.ndarray]] = {}
        self._kept: dict[str, np.ndarray] = {}
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_ahead": {}, "_kept": {}}

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (len(self.paths), *self.size, 3)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8 if self.reading.get("antialias") else np.float32)

    @property
    def ndim(self) -> int:
        return 4

    def part(self, rows: Any) -> Pictures:
        """The pictures of these rows, (N,) integers or booleans, in this order."""
        rows = np.arange(len(self))[rows]
        columns = {"labels": self.labels, "groups": self.groups, "split": self.split}
        taken: dict[str, Any] = {k: None if v is None else v[rows] for k, v in columns.items()}
        part = replace(self, paths=[self.paths[row] for row in rows], **taken)
        part._kept = self._kept
        return part

    def joined(self, more: Pictures) -> Pictures:
        """These and after them others, of the same classes; what is known of either is kept."""
        both = replace(self, paths=self.paths + more.paths, groups=None, split=None)
        both.labels = np.concatenate([self.labels, more.labels])
        for reason, paths in more.skipped.items():
            both.skipped.setdefault(reason, []).extend(paths)
        return both

    def __getitem__(self, where: Any) -> np.ndarray:
        rows = np.arange(len(self))[where]
        found = [self._result(row) for row in self._begun(np.atleast_1d(rows))]
        for each in found:
            if isinstance(each, OSError):
                raise each
        if rows.ndim == 0:
            return found[0]
        return np.stack(found) if found else np.empty((0, *self.shape[1:]), self.dtype)

    def batches(self, batch_size: int = 16) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(rows, pixels) in order, of at most `batch_size` pictures: (B,) and uint8 (B, H, W, 3).

        What cannot be read is left out, and stands in `faults` and `skipped` afterwards.
        """
        for start in range(0, len(self), batch_size):
            rows = self._begun(np.arange(start, min(start + batch_size, len(self))))
            found = [(row, self._result(row)) for row in rows]
            good = [(row, x) for row, x in found if not isinstance(x, OSError)]
            if good:
                yield np.array([row for row, _ in good]), np.stack([x for _, x in good])

    def readable(self) -> np.ndarray:
        """The rows (N',) of which no fault is known; once all were read, all that can be read."""
        return np.array([i for i, p in enumerate(self.paths) if p not in self.faults], np.intp)

    def _begun(self, rows: np.ndarray) -> Sequence[int]:
        """The rows, which begin to be read, and those after them when they are in order."""
        if self._process != os.getpid():  # threads stay behind when a process forks
            self._ahead, self._process = {}, os.getpid()
        wanted = rows.tolist()
        n, end = len(wanted), wanted[-1] + 1 if wanted else 0
        if n and wanted == list(range(wanted[0], end)):
            wanted += range(end, min(end + AHEAD * n, len(self)))
        for row in set(self._ahead) - set(wanted):
            self._ahead.pop(row).cancel()
        for row in wanted:
            if row not in self._ahead:
                self._ahead[row] = _workers(self._process).submit(self._read, self.paths[row])
        return rows.tolist()

    def _result(self, row: int) -> Any:
        """The picture of a row that was begun, or the OSError that it ended with."""
        path = self.paths[row]
        try:  # a row that is asked for twice in one call has been taken already: read it again
            begun = self._ahead.pop(row, None) or _workers(self._process).submit(self._read, path)
            return begun.result()
        except OSError as error:
            if path not in self.faults:
                self.faults[path] = str(error)
                reason = getattr(error, "reason", UNREADABLE)
                self.skipped.setdefault(reason, []).append(path)
            return error

    def _read(self, path: str) -> np.ndarray:
        if path in self._kept:
            return self._kept[path]
        pixels = read_picture(path, self.size, self.reading)
        self.digests[path] = hashlib.blake2b(pixels.data, digest_size=16).hexdigest()
        if (len(self._kept) + 1) * pixels.nbytes <= self.keep:
            self._kept[path] = pixels
        return pixels

    def identity(self) -> str:
        """How files become pixels, as text: the same files read otherwise are other data."""
        names = sorted(READING.keys() & self.reading.keys())
        return ", ".join(f"{name} {self.reading[name]}" for name in names)


class Prepared:
    """Pictures as a network is given them: an array (N', H, W, 3) of float32, read when it is used.

    pictures  N of them, all of which can be read
    prepare   what makes the network's numbers of pixels (B, H, W, 3)
    layers    augmentation layers: with them N' = N (1 + copies), the pictures first, then `copies`
              augmented views of all of them, drawn from `seed`
    """

    ndim, dtype = 4, np.dtype(np.float32)

    def __init__(
        self,
        pictures: Pictures,
        prepare: Callable[[np.ndarray], np.ndarray],
        layers: Sequence[Any] = (),
        copies: int = 0,
        seed: int = 0,
    ):
        self.pictures, self.prepare, self.layers, self.seed = pictures, prepare, layers, seed
        parts = 1 + copies if layers else 1
        self.shape = (len(pictures) * parts, *pictures.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, where: Any) -> np.ndarray:
        rows = np.atleast_1d(np.arange(len(self))[where])
        views, numbers = np.divmod(rows, len(self.pictures))
        pixels = self.pictures[numbers].astype(np.float32)
        runs = np.flatnonzero((np.diff(rows) != 1) | (np.diff(views) != 0)) + 1
        for run in np.split(np.arange(len(rows)), runs) if views.any() else ():
            if view := int(views[run[0]]):
                first = int(numbers[run[0]])
                pixels[run] = augment(pixels[run], self.layers, self.seed, view - 1, first)
        x = self.prepare(pixels)
        return x[0] if np.ndim(where) == 0 and not isinstance(where, slice) else x

    def identity(self) -> str:
        """A digest of all pixels, which are read if they were not before, and of what is made of
        them: a backup of a training goes with its data."""
        pictures = self.pictures
        known = pictures.digests
        unread = [i for i, path in enumerate(pictures.paths) if path not in known]
        for start in range(0, len(unread), 16):
            _ = pictures[unread[start : start + 16]]
        made = [[type(layer).__name__, layer.get_config()] for layer in self.layers]
        told = [known[path] for path in pictures.paths], pictures.identity(), self.shape, self.seed
        return fingerprint([*told, made, digest_of(self.prepare)])


@cache
def _workers(process: int) -> ThreadPoolExecutor:
    """The threads that decode, as many as there are cores for this process."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return ThreadPoolExecutor(count, "minitl-pictures", _give_way)


def _give_way() -> None:
    """Let a thread that decodes ahead have the cores when the network leaves them."""
    if sys.platform == "linux":  # where priorities are each thread's own
        with contextlib.suppress(OSError):
            least = min(os.getpriority(os.PRIO_PROCESS, 0) + 5, 19)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), least)


guard(globals())
