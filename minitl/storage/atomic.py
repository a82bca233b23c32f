"""Files that are written whole or not at all, locks, and what reaches a terminal.

A file is written beside its place and renamed into it, so whoever reads it sees the old file or
the new one and never half of either. A lock dies with its owner. What a process that was killed has
left half written is told by its name, and taken away by the next that writes there.
"""

import contextlib
import errno
import functools
import glob
import hashlib
import io
import logging
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from tqdm import tqdm

from minitl.storage.keras_weights import cache_folder as cache_folder

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PROGRESS_FROM = 200_000_000  # bytes: below this a digest takes less than a second
FORGOTTEN = 7 * 86400  # seconds after which what another machine has left counts as left


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a fresh path in the same folder; rename it to `path` when the block succeeds. When it
    raises (Ctrl-C included) the new file is removed. The yielded name ends like `path`, because
    some writers choose their format by it. Missing folders are made, and those that stay empty go
    again. A symbolic link stays one: the file that it points to is replaced."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder; expected the name of a file to write")
    missing = [each for each in target.parents if not each.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    _take_away(target.parent, f".{target.stem}")
    part = target.with_name(f".{target.stem}-{_mark()}.part{target.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut can leave the new name with no contents
        if target.exists():
            shutil.copymode(target, part)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what was made for nothing; what holds a file stays
            for each in missing:
                each.rmdir()
    if os.name == "posix":
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself
        finally:
            os.close(folder)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """A text file to be written, as `replacing`. Names of files are bytes: what is no UTF-8 in
    them ('surrogateescape') is written back as it was."""
    with (
        replacing(path) as part,
        open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        yield file


class _Sink(io.FileIO):
    """A file that keeps the first fault of the disk to itself, and writes nothing after it."""

    fault: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        while rest and self.fault is None:
            try:
                rest = rest[super().write(rest) :]
            except OSError as error:
                self.fault = error
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.fault = self.fault or error
            return size or 0


@contextlib.contextmanager
def hdf5_file(path: str | os.PathLike[str], **settings: Any) -> Iterator[Any]:
    """A new HDF5 file to write. The library would crash where the disk is full (SIGSEGV, by 13 of
    14 writes of a small model that were made to fail), so it is told of no fault; then OSError."""
    import h5py

    with _Sink(path, "w+") as sink:
        try:
            with h5py.File(sink, "w", **settings) as file:
                yield file
        finally:
            if (fault := sink.fault) is not None:
                raise OSError(fault.errno, fault.strerror, str(path))


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for large files that nobody else needs, gone after the block."""
    _take_away(Path(tempfile.gettempdir()), "minitl")
    with tempfile.TemporaryDirectory(prefix=f"minitl-{_mark()}", suffix=".part") as folder:
        yield Path(folder)


def _mark() -> str:
    """A name of its own that says whose it is: the machine's, the process's number and start."""
    pid = os.getpid()
    return f"{_machine()}-{pid}-{_start(pid)}-{secrets.token_hex(6)}"


@functools.cache
def _machine() -> str:
    """This machine, since it was started, and within it the container; '' where nothing tells."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
        return hashlib.sha256((boot + os.readlink("/proc/self/ns/pid")).encode()).hexdigest()[:8]
    return ""


def _start(pid: int) -> str:
    """When a process began, field 22 of /proc/<pid>/stat; '' if it is not there."""
    with contextlib.suppress(OSError):
        told = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        return told.rpartition(")")[2].split()[19]
    return ""


def _take_away(folder: Path, name: str) -> None:
    """Remove what processes that have ended without doing so left of this name."""
    for path in folder.glob(f"*{glob.escape(name)}-*.part*"):
        found = re.search(r"-(\w*)-(\d+)-(\d*)-[0-9a-f]{12}[^-]*\.part", path.name)
        if found is None:
            continue
        machine, pid, start = found.groups()
        with contextlib.suppress(OSError):
            dead = _start(int(pid)) != start
            if not machine or machine != _machine():  # nobody here can know
                dead = time.time() - path.lstat().st_mtime > FORGOTTEN
            if dead:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def locked(
    path: str | os.PathLike[str], waiting: str | None = None, busy: str | None = None
) -> Iterator[None]:
    """Hold the lock of `path` (a hidden file beside it), waiting for whoever holds it, of which
    `waiting` tells (`logging`), or raise OSError with the text `busy`. The system drops it when its
    process ends, however it ends."""
    path = Path(path)
    place = path.with_name(f".{path.name}.lock")
    while True:
        with contextlib.ExitStack() as opened:
            file = opened.enter_context(place.open("ab+"))
            if not _try_lock(file):
                if busy:
                    raise BlockingIOError(busy)
                if waiting:
                    logging.getLogger("minitl.files").warning(waiting)
                while not _try_lock(file):
                    time.sleep(0.05)
            if _is_at(file, place):
                yield  # closing the file releases the lock
                return
            place.parent.mkdir(parents=True, exist_ok=True)


def _is_at(file: BinaryIO, place: Path) -> bool:
    """Whether an open file is still there: who held the lock before may have removed it, or its
    folder, and another process may have made a new one."""
    try:
        return os.name != "posix" or os.path.samestat(os.fstat(file.fileno()), place.stat())
    except FileNotFoundError:
        return False


def _try_lock(file: BinaryIO) -> bool:
    try:
        if sys.platform == "win32":
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            raise
        return False
    return True


def file_digest(path: str | os.PathLike[str], algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file, read in pieces, with a progress bar where it is large."""
    total = os.path.getsize(path)
    digest = hashlib.new(algorithm, usedforsecurity=False)
    text, hidden = f"checking {Path(path).name}", total < PROGRESS_FROM
    with open(path, "rb") as file, progress_bar(total, text, hidden=hidden) as bar:
        while piece := file.read(1 << 20):
            digest.update(piece)
            bar.update(len(piece))
    return digest.hexdigest()


def progress_bar(
    total: int | None, text: str, initial: int = 0, hidden: bool = False, unit: str = "B"
) -> Any:
    """A tqdm bar on stderr, of bytes or another unit; silent if `hidden` or no terminal."""
    how = {"unit": unit, "unit_scale": unit == "B", "leave": False, "disable": hidden or None}
    return tqdm(total=total, initial=initial, desc=f"minitl: {text}", **how)


def visible(text: Any, keep: str = "") -> str:
    """The text with escapes for what a terminal would obey or could not print, but for `keep`.

    >>> print(visible("a\\x1b[2Jb"))
    a\\x1b[2Jb
    """
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in str(text))
