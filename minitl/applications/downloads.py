"""Files from the network: taken up again where they broke off, and kept only with their digest.

A download grows in a `.part` file; when it is whole and has the published digest it is renamed into
its place. Time-outs are short, because callers have other sources, which should not be waited for.
"""

import http.client
import logging
import os
import urllib.error
import urllib.request
from pathlib import Path

from minitl.storage.atomic import file_digest, progress_bar, replacing

TIMEOUT = 5  # seconds to connect, and to wait for the next bytes
ATTEMPTS = 5  # a broken download is taken up again so often, as long as each brings more


class FetchError(OSError):
    """Nothing that was tried brought the file; the message says what to do by hand."""


class DigestError(ValueError):
    """A file or an array is not the published one."""


def download(url: str, path: Path, md5: str) -> None:
    """Bring `url` to `path`, taking up an earlier part; DigestError unless it has this md5, where
    that is not ''."""
    part = path.with_name(path.name + ".part")
    resumed = part.exists()
    for attempt in range(ATTEMPTS):
        before = _size(part)
        try:
            _receive(url, part)
            break
        except (OSError, http.client.HTTPException) as error:
            if attempt == ATTEMPTS - 1 or _size(part) <= before:
                raise
            say(f"the connection broke ({reason(error)}); going on at byte {_size(part):,}")
    if (found := file_digest(part, "md5")) != md5 and md5:
        part.unlink()
        if resumed:
            say("the parts do not fit together; downloading again from the start")
            return download(url, path, md5)
        raise DigestError(f"expected md5 {md5}, found {found}; the download was thrown away")
    with replacing(path) as fresh:
        os.replace(part, fresh)


def _receive(url: str, part: Path) -> None:
    """Append to `part` what is missing of `url`, or begin again if the host wants it so."""
    have = _size(part)
    headers = {"User-Agent": "minitl"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing behind our part: it is complete, or no part of this file
            return
        raise
    with response:
        goes_on = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        have = have if response.status == 206 and goes_on else 0
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        bar = progress_bar(total, f"downloading {url.rpartition('/')[2]}", initial=have)
        with part.open("ab" if have else "wb") as file, bar:
            while piece := response.read(1 << 16):
                file.write(piece)
                bar.update(len(piece))
    if total is not None and _size(part) < total:
        raise ConnectionError(f"the host sent {_size(part):,} of {total:,} bytes")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def reason(error: BaseException) -> str:
    """'no connection (Name or service not known)' rather than '<urlopen error [Errno -2] ...>'."""
    if isinstance(error, urllib.error.HTTPError):
        return f"the host answered {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        error = error.reason if isinstance(error.reason, BaseException) else error
        return f"no connection ({getattr(error, 'strerror', None) or error})"
    return str(error) or type(error).__name__


def say(text: str) -> None:
    """A line for whoever waits: on stderr, unless `logging` is told otherwise of "minitl"."""
    logging.getLogger("minitl.downloads").warning(text)
