"""The door through which files come in: what may be opened, and what may be printed of it.

A file may be a stranger's. It is opened if it is a regular file: to open a FIFO waits for a writer,
and a device may never end. Text that comes out of it goes to a terminal only as `visible` makes it:
a terminal obeys some characters, and a line break could add a row to a table. And packages that
need not be there come in by `extra`.
"""

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from minitl.storage.atomic import visible

PIECE = 8_000_000
SPARE = 200_000_000  # bytes that what is packed may take beyond the file's size
KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading. Raises OSError for what is no regular file, without waiting."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        number = os.open(path, flags | getattr(os, "O_NOCTTY", 0))
    except OSError as error:
        if Path(path).exists() and not Path(path).is_file():  # a socket cannot be opened
            raise OSError(_no_file(path, os.stat(path).st_mode)) from None
        raise error
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        kind = IsADirectoryError if stat.S_ISDIR(mode) else OSError
        raise kind(_no_file(path, mode))
    return open(number, "rb")


def _no_file(path: str | os.PathLike[str], mode: int) -> str:
    kind = KINDS.get(stat.S_IFMT(mode), "device")
    return f"{os.fspath(path)} is a {kind}; expected a regular file"


class Bounded:
    """A stream of which nobody takes more than PIECE bytes at once, nor more than `total` in all:
    `zipfile` and `tarfile` read their lists in one piece, of whatever size the file says."""

    def __init__(self, stream: Any, total: float = math.inf):
        self.stream, self.left = stream, total

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.stream.read(min(size, PIECE + 1) if size >= 0 else PIECE + 1)
        if len(data) > PIECE:
            raise OSError(f"a piece of it is of more than {PIECE:,} bytes")
        self.left -= len(data)
        if self.left < 0:
            raise OSError("what is packed in it is far larger than it is")
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def extra(what: str, name: str) -> Iterator[None]:
    """Around imports of what is no part of minitl itself: ImportError says what to install."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"{what}: python -m pip install 'minitl[{name}]'") from error


def has_controls(text: str) -> bool:
    """Whether a terminal would obey some of it, or a line would end in it."""
    return any(ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029" for c in text)


def read_json(text: str | bytes) -> Any:
    """What a JSON text says. Raises ValueError for one that is damaged, nested too deeply, or of so
    many parts (64 bytes each, at least) that they would take more than SPARE."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    parts = raw.count(b"[") + raw.count(b"{") + raw.count(b'"') // 2
    if 64 * parts > SPARE:
        raise ValueError(f"a description of {parts:,} parts")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("a description that is nested too deeply") from None


class Visible:
    """A text stream to which only `visible` text is written, in lines; `\\r` and tabs are kept, as
    progress bars need them."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(visible(text, "\n\r\t"))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)
