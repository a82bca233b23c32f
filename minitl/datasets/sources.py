"""Where a data set's original files are: in the user's folder, in the cache, or on the network."""

from __future__ import annotations

import gzip
import http.client
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from minitl.applications.downloads import DigestError, FetchError, download, reason, say
from minitl.storage.atomic import cache_folder, locked


class DataFileError(ValueError):
    """A file of a data set that is truncated, damaged, or of another kind."""


@dataclass(frozen=True)
class Original:
    """One published file."""

    file: str
    md5: str


@dataclass(frozen=True)
class Source:
    """A data set's files and the addresses, ending in '/', under which they are published."""

    name: str
    title: str
    addresses: tuple[str, ...]
    files: tuple[Original, ...]

    def by_hand(self) -> str:
        """What to put where, for a machine without a network."""
        lines = ["By hand, download"]
        lines += [f"  - {self.addresses[0]}{each.file} (md5 {each.md5})" for each in self.files]
        folder = cache_folder("datasets", self.name)
        lines += [f"and put it into {folder}, or give load_data the path of the folder it is in"]
        return "\n".join(lines)


def folder_of(source: Source, path: str | os.PathLike[str] | None) -> Path:
    """The user's folder, or that in the cache, after bringing the files that it lacks.

    Raises NotADirectoryError for a path that is no folder, FetchError where nothing brought a
    file, with what was tried and what to do by hand.
    """
    if path is not None:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise NotADirectoryError(
                f"{folder} is not a folder; expected one with {_listing(source)} in it"
            )
        return folder
    folder = cache_folder("datasets", source.name)
    for each in source.files:
        if not (folder / each.file).exists():
            with locked(folder / each.file, f"minitl: another process is fetching {each.file}"):
                if not (folder / each.file).exists():
                    _bring(source, each, folder)
    return folder


def _bring(source: Source, each: Original, folder: Path) -> None:
    tried = []
    for address in source.addresses:
        try:
            say(f"fetching {each.file} of {source.title} from {address}")
            return download(address + each.file, folder / each.file, each.md5)
        except (OSError, http.client.HTTPException, DigestError) as error:
            tried.append(f"  - {address}{each.file}: {reason(error)}")
    raise FetchError("\n".join([f"could not get {source.title}. Tried:", *tried, source.by_hand()]))


def missing(source: Source, folder: Path, names: Sequence[str]) -> FileNotFoundError:
    """The error for a folder without these files."""
    found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    return FileNotFoundError(
        f"{folder} lacks {', '.join(names)} of {source.title}; found {found}\n{source.by_hand()}"
    )


# Deflate makes nothing smaller than 1/1032 of its size: whoever declares more, lies.
INFLATION = 1032


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """(the file, unpacked on the way if it is in gzip, and the most bytes that it can hold).

    Whether it is packed is told by the contents. What gzip, zlib and tarfile raise on damaged
    files becomes a DataFileError.
    """
    try:
        with path.open("rb") as plain:
            packed, size = plain.read(2) == b"\x1f\x8b", path.stat().st_size
            plain.seek(0)
            if packed:
                with gzip.open(plain) as file:
                    yield file, size * INFLATION  # type: ignore[misc]
            else:
                yield plain, size
    except EOFError as error:
        raise DataFileError(f"{path} is truncated; copy or download it again") from error
    except (zlib.error, tarfile.TarError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # missing, no permission ...: not the file's contents
        raise DataFileError(f"{path} is damaged ({error}); copy or download it again") from error


def _listing(source: Source) -> str:
    return ", ".join(each.file for each in source.files)
