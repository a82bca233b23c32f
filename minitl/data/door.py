"""The one door through which a picture comes in, whoever sent it.

`opened` opens a path for reading and gives a Pillow image that has not been decoded yet. It takes
regular files only: a FIFO would wait for ever, a device never ends. It reads the formats of FORMATS
and no others, as Pillow hands some (PostScript) to another program. Before anything is decoded it
counts the memory that this will take: what a file claims costs its sender nothing. The budget grows
with the file, so that real pictures pass and bombs do not. `to_mode` turns colours into 8 bits.
"""

import contextlib
import io
import os
import struct
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from minitl.models.arguments import guard
from minitl.storage.atomic import visible
from minitl.storage.door import open_regular

Source = str | bytes | os.PathLike | io.BytesIO

# What is read: pictures alone. Not EPS, WMF (another program draws them), IPTC, FPX, MIC, ICO
# (other files inside them, that nobody would count), nor what Pillow only recognises.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "HEIF", "AVIF", "JPEG2000", "PPM", "PCX"),
    *("SGI", "DDS", "PSD", "QOI", "XBM", "XPM", "SUN", "MSP", "TGA"),
)
BUDGET = 240_000_000  # bytes that decoding may take, and
PER_BYTE = 64  # so many more for each byte of the file: a photograph needs 20 to 60
LARGE = 60_000_000  # bytes: what takes more is decoded alone
MOST_BYTES = 2**31  # of a file
MOST_SCANS = 2_000_000_000  # of a progressive JPEG, times its pixels: some seconds
MOST_PLAIN = 12_000_000  # bytes of a PNM file in plain text, which decodes at 2 MB per second
MODE_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # else 4
# Bytes per pixel that the decoders take beside the image (measured with Pillow 13); those that are
# written in Python, and so slow, are given fewer pixels.
EXTRA = dict(WEBP=13, AVIF=7, HEIF=7, JPEG2000=16, TIFF=4, GIF=1, QOI=60, MSP=20)
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

_alone = threading.Lock()


class PictureError(OSError):
    """A file that is no picture, or none that can be read. `reason` says which, in few words."""

    def __init__(self, text: str, reason: str = "that cannot be read"):
        super().__init__(text)
        self.reason = reason


def shown(path: Source) -> str:
    """The name of a file for messages, without commands to the terminal."""
    return (
        "the image"
        if isinstance(path, io.BytesIO)
        else visible(os.fsdecode(path)) or "'' (no path)"
    )


def regular_file(path: Any) -> BinaryIO:
    """Open a regular file for reading, without ever waiting. Raises OSError for all else."""
    try:
        return open_regular(path)
    except OSError as error:
        # the same class, so that FileNotFoundError stays what it is
        raise type(error)(f"cannot read {shown(path)}: {error.strerror or error}") from error
    except ValueError as error:  # a NUL in the name
        raise OSError(f"cannot read {shown(path)}: {error}") from None


@contextlib.contextmanager
def opened(path: Source, extra: int = 0, target: tuple[int, int] | None = None) -> Iterator[Any]:
    """A Pillow image, colours as stored; its pixels are decoded when they are first used, inside.

    extra   bytes per pixel that the caller will take beside the image
    target  (H, W): where a JPEG is larger, it is decoded at 1/2, 1/4 or 1/8, but no smaller

    Raises OSError that names the file and what is wrong with it; TypeError when `path` is no path.
    """
    if isinstance(path, io.BytesIO):
        file: Any = io.BytesIO(path.getvalue())
    elif isinstance(path, (str, bytes, os.PathLike)):
        file = regular_file(path)
    else:
        raise TypeError(f"path must be a path or io.BytesIO, got {type(path).__name__}")
    with file:
        start = file.read(32)
        try:
            if not start:
                raise PictureError("the file is empty")
            img = _recognised(file, start, "" if isinstance(path, io.BytesIO) else path)
            needs = _counted(img, file, extra, target)
            with _alone if needs > LARGE else contextlib.nullcontext():
                yield img
            return
        except PictureError as error:
            text, reason = str(error), error.reason
        except Exception as error:  # on broken files the decoders raise whatever they stumble over
            text, reason = str(error) or type(error).__name__, "that cannot be read"
    raise PictureError(f"cannot read {shown(path)} as an image: {text}", reason)


@cache
def _plugins() -> dict[str, tuple[Any, Any]]:
    """What reads each format, and what recognises it, or None."""
    Image.init()
    return {name: Image.OPEN[name] for name in FORMATS if name in Image.OPEN}


def _recognised(file: Any, start: bytes, name: Any) -> Image.Image:
    """The image, as `Image.open` finds it, but of FORMATS only, and counted by us."""
    if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
        _heif()
    for kind, (factory, accept) in _plugins().items():
        if kind == "TGA" and not os.fsdecode(name).lower().endswith(".tga"):
            continue  # it has no mark by which to tell it
        with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):
            if accept is None or accept(start[:16]) is True:
                file.seek(0)
                return factory(file, "")
    if start.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6", b"%PDF")):
        raise PictureError("it is a program or a document (PostScript, PDF), which is not run here")
    raise PictureError(f"not an image in a format that is read; it starts with {start[:12]!r}")


def _heif() -> None:
    """Make Pillow read HEIC, the format of many telephones."""
    if "HEIF" not in _plugins():
        try:
            import pillow_heif
        except ImportError:
            text = "it is HEIC, for which pip install 'minitl[heic]'"
            raise PictureError(text, "in HEIC, for which pip install 'minitl[heic]'") from None
        pillow_heif.register_heif_opener()
        _plugins.cache_clear()


def _counted(img: Any, file: Any, extra: int, target: tuple[int, int] | None) -> int:
    """Bytes that decoding takes; PictureError where they, or a JPEG's passes, are too many."""
    size, pixels = file.seek(0, io.SEEK_END), img.width * img.height
    text = f"{img.width:,} x {img.height:,} pixels"
    each = EXTRA.get(img.format, 0)
    if img.format in ("JPEG", "MPO"):
        progressive = "progressive" in img.info
        if progressive or pixels > 25_000_000:
            file.seek(0)
            scans = file.read(MOST_BYTES).count(b"\xff\xda")
            if progressive and scans * pixels > MOST_SCANS:
                text = f"{scans} passes over {text}, more than any camera writes"
                raise PictureError(text, "that would take too much memory or time")
            each = 6 if scans > 1 else 0  # coefficients of the whole image are kept
        if target is not None:
            img.draft(None, target[::-1])
        # The decoder takes the interpreter's lock after every block: few, while a network computes.
        img.decodermaxblock = 2**22
    if img.format == "PPM" and img.tile[0][0] == "ppm_plain" and size > MOST_PLAIN:
        most = f"and {MOST_PLAIN / 1e6:,.0f} MB is the most"
        text = f"it is {size / 1e6:,.0f} MB of numbers in plain text, {most}"
        text += ", as they are slow to read: save it in a binary format, PNG say"
        raise PictureError(text, "that would take too much memory or time")
    file.seek(0)
    left = img.width * img.height
    needs = pixels * each + left * (MODE_BYTES.get(img.mode, 4) + extra)
    budget = BUDGET + PER_BYTE * size
    if size > MOST_BYTES or needs > budget:
        text += f" would take {needs / 1e6:,.0f} MB, and {budget / 1e6:,.0f} MB is the most for"
        text += f" a file of {size:,} bytes; if the picture is sound, scale it down first"
        raise PictureError(text, "that would take too much memory or time")
    return needs


def to_mode(img: Image.Image, mode: str) -> Image.Image:
    """Convert to the 8-bit Pillow mode 'L', 'RGB' or 'RGBA'; alpha is cut off.

    Of 16 bits the high byte is taken. Raises PictureError for 32-bit values outside 0-255.
    """
    if is_16_bit(img):
        img = Image.fromarray((np.asarray(img).astype(np.int32) >> 8).astype(np.uint8))
    elif img.mode in ("I", "F"):
        pixels = np.asarray(img)
        low, high = pixels.min(), pixels.max()
        fraction = img.mode == "F" and 0 < high <= 1  # which would be black
        if fraction or not (low >= 0 and high <= 255):  # also for NaN
            values = f"its values run from {low:g} to {high:g}, and a file with 32 bits per pixel"
            raise PictureError(f"{values} does not say which is white; scale it to 0-255 first")
    elif img.mode == "P" and "transparency" in img.info:
        img = img.convert("RGBA")  # straight to RGB, Pillow warns
    elif img.mode == "LAB":
        from PIL import ImageCms

        to, of = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        img = ImageCms.profileToProfile(img, of, to, outputMode="RGB")  # type: ignore[assignment]
    return img if img.mode == mode else img.convert(mode)


def is_16_bit(img: Image.Image) -> bool:
    # Pillow before 11 opened 16-bit PNG files in its 32-bit mode
    return img.mode.startswith("I;16") or (img.mode == "I" and img.format == "PNG")


guard(globals())
