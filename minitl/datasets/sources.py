"""Where a data set's original files are: in the user's folder, in the cache, or on the network.

`published.json` has for each data set its `Source`; its module reads what is in the files.
"""

import gzip
import http.client
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from minitl.applications.downloads import DigestError, FetchError, download, reason, say
from minitl.storage.atomic import cache_folder, locked
from minitl.storage.door import SPARE, Bounded, open_regular

Place = str | os.PathLike[str] | None
Pair = tuple[np.ndarray, np.ndarray]  # images and labels


class DataFileError(ValueError):
    """A file of a data set that is truncated, damaged, or of another kind."""


@dataclass(frozen=True)
class Source:
    """A data set's files {name: md5}, where its makers have them (addresses that end in '/'), and
    the names of its classes, and of the kinds that these are of."""

    name: str
    title: str
    addresses: Sequence[str]
    files: dict[str, str]
    classes: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()

    def by_hand(self) -> str:
        """What to put where, for a machine without a network."""
        lines = [f"  - {self.addresses[0]}{file} (md5 {md5})" for file, md5 in self.files.items()]
        folder = cache_folder("datasets", self.name)
        last = f"and put it into {folder}, or give load_data the path of the folder it is in"
        return "\n".join(["By hand, download", *lines, last])

    def folder(self, path: Place) -> Path:
        """The user's folder, or that in the cache, after bringing the files that it lacks.

        Raises NotADirectoryError for no folder; FetchError with what was tried, and what to do.
        """
        if path is not None:
            folder = Path(path).expanduser()
            if not folder.is_dir():
                expected = f"one with {', '.join(self.files)} in it"
                raise NotADirectoryError(f"{folder} is not a folder; expected {expected}")
            return folder
        folder = cache_folder("datasets", self.name)
        for place in (folder / file for file in self.files):
            if not place.exists():
                with locked(place, f"another process is fetching {place.name}"):
                    if not place.exists():
                        self._bring(place)
        return folder

    def _bring(self, place: Path) -> None:
        file, tried = place.name, []
        for address in self.addresses:
            try:
                say(f"fetching {file} of {self.title} from {address}")
                return download(address + file, place, self.files[file])
            except (OSError, http.client.HTTPException, DigestError) as error:
                tried.append(f"  - {address}{file}: {reason(error)}")
        raise FetchError("\n".join([f"could not get {self.title}. Tried:", *tried, self.by_hand()]))

    def missing(self, folder: Path, names: Sequence[str]) -> FileNotFoundError:
        """The error for a folder without these files."""
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        lacks = f"{folder} lacks {', '.join(names)} of {self.title}"
        return FileNotFoundError(f"{lacks}; found {found}\n{self.by_hand()}")


def published(name: str) -> Source:
    """The data set of this name in `published.json`."""
    told: dict[str, Any] = json.loads(
        Path(__file__).with_name("published.json").read_text("utf-8")
    )[name]
    lists = {key: tuple(told.get(key, ())) for key in ("addresses", "classes", "kinds")}
    return Source(name, **(told | lists))


@contextmanager
def opened(path: Path, spare: int | None = None) -> Iterator[tuple[BinaryIO, int]]:
    """(the file, unpacked on the way if it is in gzip, and the most bytes that it may hold).

    Whether it is packed is told by the contents. A few bytes can be gigabytes: more than `spare`
    beyond the file's size are not unpacked. What a damaged file raises becomes DataFileError.
    """
    spare = SPARE if spare is None else spare
    try:
        with open_regular(path) as plain:
            packed, size = plain.read(2) == b"\x1f\x8b", path.stat().st_size
            plain.seek(0)
            if packed:
                with gzip.open(plain) as file:
                    yield Bounded(file, size + spare), size + spare  # type: ignore[misc]
            else:
                yield Bounded(plain), size  # type: ignore[misc]
    except EOFError as error:
        raise DataFileError(f"{path} is truncated; copy or download it again") from error
    except (zlib.error, tarfile.TarError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # missing, no permission ...: not the file's contents
        raise DataFileError(f"{path} is damaged ({error}); copy or download it again") from error
