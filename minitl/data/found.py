"""What pictures are there: a folder, or a table of paths, becomes `Pictures`; nothing is decoded.

`open_folder` knows the layouts that people have: one sub-folder per class, however deep the files
lie in it; train/, val/ and test/ with such folders inside; pictures alone; a CSV file or DataFrame
that says path, label, group and split. Names do not decide alone: a file without a known ending is
a picture if it begins like one. What a system or minitl itself left behind is passed over. Whatever
is left out stands in `skipped`, by reason. How files are read is in `pictures.py`.
"""

import csv
import io
import os
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl.data import door, images
from minitl.data.pictures import READING, Pictures
from minitl.models.arguments import guard
from minitl.storage.atomic import visible


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split(" "))


PICTURE_ENDINGS = _words(
    ".jpg .jpeg .jpe .jfif .jif .mpo .png .apng .webp .gif .bmp .dib .tif .tiff .heic .heif .hif "
    ".avif .jp2 .j2k .j2c .jpc .jpf .jpx .ppm .pgm .pbm .pnm .pcx .sgi .dds .psd .qoi .xbm .xpm "
    ".ras .msp .tga"
)
RAW_ENDINGS = _words(".dng .cr2 .cr3 .nef .nrw .arw .orf .rw2 .raf .pef .srw .raw .3fr")
MARKS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*")
LITTER = _words(
    "__macosx @eadir @__thumb #recycle #snapshot $recycle.bin lost+found lost.dir thumbs.db "
    "ehthumbs.db desktop.ini __pycache__ icon\r"
) | {"system volume information"}
OURS = b"Software\0minitl"  # in the head of a PNG that `judging/plots.py` wrote
TABLES = (".csv", ".tsv", ".txt")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
COLUMNS = {
    "path": ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "img"),
    "label": ("class", "class_name", "label", "category", "target", "y"),
    "group": ("group", "groups", "group_id"),
    "split": ("split", "subset", "set", "partition"),
}

# Why something is left out. The first three are no loss, and `strict` does not mind them.
HIDDEN = "hidden or left behind by a system"
OTHERS = "of other kinds"
OWN = "written by minitl"
RAW = "of a camera's raw data, which is not read"
OUTSIDE = "outside the class folders"
EMPTY = "folders without a picture"
LINKS = "links to folders that are here anyway"
MISSING = "that are not there"
NO_LABEL = "without a label"
TWICE = "listed twice"
NO_LOSS = (HIDDEN, OTHERS, OWN, LINKS, TWICE)


def open_folder(
    source: Any,
    size: Any = 224,
    class_names: Sequence[str] | None = None,
    group_by: str | None = None,
    reading: Mapping[str, Any] = READING,
) -> Pictures:
    """The pictures of a folder or a table, as `Pictures`: no file is decoded before it is used.

    source       a folder; a CSV file with the columns path, label, and if wanted group and split
                 (their usual names, or none: then in this order; paths are relative to the file);
                 a pandas DataFrame with such columns; or a list of files
    size         (H, W) of every picture, or an integer for squares
    class_names  the classes, in order of their numbers; default: all that are found, sorted
    group_by     the column that says the group, or a regular expression which finds it in the path
    reading      how files become pixels: READING, or the metadata of a model

    Pictures without classes have `labels` None. Raises NotADirectoryError or FileNotFoundError for
    what is not there, ValueError where there is no picture, or a class is not among `class_names`.
    """
    pair = images.check_size("size", (size, size) if isinstance(size, int) else size)
    found = Pictures([], size=pair, reading=reading)
    if isinstance(source, (str, os.PathLike)):
        source = os.fspath(source)
        if os.path.isdir(source):
            split, labels = _folder(source, found, class_names or ())
        elif source.lower().endswith(TABLES) and os.path.exists(source):
            table = read_table(source)
            split, labels = _table(table, os.path.dirname(source), found, group_by, source)
        else:
            what = "is a file, not a folder" if os.path.exists(source) else "does not exist"
            raise NotADirectoryError(f"{visible(source)} {what}, nor is it a table (.csv)")
    elif hasattr(source, "columns"):
        table = {str(name): list(source[name]) for name in source.columns}
        split, labels = _table(table, "", found, group_by, "the table")
    else:
        found.paths = [os.fspath(path) for path in source]
        split, labels = None, None
    if group_by and found.groups is None:
        found.groups = _grouped(found.paths, group_by)
    found.split = None if split is None else np.array(split)
    if labels is not None:
        _number(found, labels, class_names, source)
    return found


def left_out(found: Pictures, strict: bool = False) -> str:
    """A sentence that counts what was left out, by reason; '' if nothing was.

    With `strict`, raises OSError for anything that may be a loss: all but litter, and other kinds.
    """
    counts = []
    for reason, paths in found.skipped.items():
        endings = sorted({os.path.splitext(path)[1].lower() or "none" for path in paths})
        more = f" (endings: {', '.join(map(visible, endings[:6]))})" if reason == OTHERS else ""
        counts.append(f"{len(paths)} {reason}{more}")
    lost = [p for reason, ps in found.skipped.items() if reason not in NO_LOSS for p in ps]
    if strict and lost:
        some = "".join(f"\n  {found.faults.get(p) or visible(p)}" for p in lost[:20])
        raise OSError(f"left out: {', '.join(counts)}{some}")
    return f"Left out: {', '.join(counts)}." if counts else ""


def same_pictures(found: Pictures, parts: Any = None) -> list[str]:
    """Sentences about pictures, of those read so far, that are the same in two classes, or in two
    of `parts` (N,), which say where each picture belongs; the same means the same pixels."""
    first: dict[str, int] = {}
    pairs: dict[str, list[str]] = {"in two classes": [], "both in training and in validation": []}
    meaning = dict(zip(pairs, ("one label is wrong", "figures will flatter"), strict=True))
    for i, path in enumerate(found.paths):
        if (key := found.digests.get(path)) is None:
            continue
        j = first.setdefault(key, i)
        for where, values in zip(pairs, (found.labels, parts), strict=True):
            if values is not None and values[i] != values[j]:
                pairs[where].append(f"{visible(found.paths[j])} and {visible(path)}")
    return [
        f"the same picture is {where}, {len(some)} times: {some[0]}; {meaning[where]}"
        for where, some in pairs.items()
        if some
    ]


def _number(found: Pictures, labels: list[str], given: Sequence[str] | None, source: Any) -> None:
    """Class names as numbers."""
    theirs = set(labels)
    folder = isinstance(source, str) and os.path.isdir(source)
    key = str if folder or not all(name.isdecimal() for name in theirs) else int
    names = list(given) if given is not None else sorted(theirs, key=key)
    unknown = sorted(theirs.difference(names))
    if unknown:
        what = source if isinstance(source, str) else "the table"
        raise ValueError(f"{visible(what)} has folders {unknown}, not among the classes {names}")
    number = {name: i for i, name in enumerate(names)}
    found.class_names = names
    found.labels = np.array([number[name] for name in labels], np.int32)
    like: dict[str, str] = {}
    for name in sorted(theirs):
        other = like.setdefault(name.casefold(), name)
        if other != name:
            text = f"{other!r} and {name!r} are two classes, and differ in upper and lower case"
            warnings.warn(f"{text} only; if they are one, rename a folder", stacklevel=3)


def _folder(root: str, found: Pictures, known: Sequence[str]) -> tuple[Any, Any]:
    """Puts the paths of a folder into `found`; returns the split and the class of each, or None."""
    files, folders = _walk(root, found.skipped)
    if not files:
        others = found.skipped.get(OTHERS, [])
        endings = {os.path.splitext(p)[1] or os.path.basename(p) for p in others}
        seen = f"; it has files that end in {', '.join(sorted(endings)[:8])}" if endings else ""
        raise ValueError(f"no pictures in {visible(root)}{seen}")
    depth = 0
    while all(len(p) > depth + 2 for p in files) and len({p[depth] for p in files}) == 1:
        if files[0][depth] in known or _split_of(files[0][depth]):
            break
        depth += 1  # the whole lies in one folder more, as zip files do
    tops = {p[depth] for p in files if len(p) > depth + 1}
    splits = {top: _split_of(top) for top in tops if _split_of(top)}
    deep = {p[depth] for p in files if len(p) > depth + 2}
    divided = bool(deep & set(splits)) and ("train" in splits.values() or len(splits) == len(tops))
    if tops and len(splits) == len(tops) and len(tops) > 1 and not deep:
        where = ", ".join(sorted(tops))
        text = f"{visible(root)} has {where}, and these no sub-folders: put the images of each"
        warnings.warn(f"{text} class into one, or the classes are {where}", stacklevel=4)
    paths, split, labels = found.paths, [], []
    for parts in files:
        path = os.path.join(root, *parts)
        if divided and parts[depth] not in splits:
            found.skipped.setdefault(OUTSIDE, []).append(path)
            continue
        at = depth + 1 if divided else depth
        if tops and len(parts) <= at + 1:
            found.skipped.setdefault(NO_LABEL if divided else OUTSIDE, []).append(path)
            continue
        paths.append(path)
        split.append(splits[parts[depth]] if divided else "")
        labels.append(_name(parts[at]) if tops else "")
    at = depth + 1 if divided else depth
    full = {p[: at + 1] for p in files}
    empty = [os.path.join(root, *f) for f in folders if len(f) == at + 1 and f not in full]
    if empty and tops:
        found.skipped.setdefault(EMPTY, []).extend(empty)
    return split if divided else None, labels if tops else None


def _split_of(name: str) -> str | None:
    return SPLITS.get(name.strip().lower())


def _name(folder: str) -> str:
    """A class's name: composed letters, whichever system wrote it, and no spaces around."""
    return unicodedata.normalize("NFC", folder).strip() or folder


def _walk(root: str, skipped: dict[str, list[str]]) -> tuple[list[Any], list[Any]]:
    """All pictures below a folder, as parts of their paths, and all folders; in order of the
    folders' paths, then of names. Each real folder is visited once, wherever links lead."""
    real = os.path.realpath(root)
    seen = {real}
    waiting: list[tuple[str, ...]] = [()]
    files: list[tuple[str, ...]] = []
    folders: list[tuple[str, ...]] = []
    while waiting:
        parts = waiting.pop()
        here = os.path.join(root, *parts)
        try:
            entries = sorted(os.scandir(here), key=lambda e: e.name)
        except OSError as error:
            warnings.warn(f"cannot read the folder {visible(here)}: {error.strerror}", stacklevel=5)
            skipped.setdefault("folders that cannot be read", []).append(here)
            continue
        for entry in entries:
            reason = _reason(entry)
            if not reason and os.path.isdir(entry.path):
                target = os.path.realpath(entry.path)
                inside = entry.is_symlink() and f"{target}{os.sep}".startswith(f"{real}{os.sep}")
                if target in seen or inside or real.startswith(target + os.sep):
                    reason = LINKS
                else:
                    seen.add(target)
                    waiting.append((*parts, entry.name))
                    folders.append((*parts, entry.name))
                    continue
            if reason:
                skipped.setdefault(reason, []).append(entry.path)
            else:
                files.append((*parts, entry.name))
    return sorted(files, key=lambda p: (os.path.join(root, *p[:-1]), p[-1])), folders


def _reason(entry: os.DirEntry[str]) -> str:
    """Why to pass over a file or a folder; '' for pictures and folders that may have some."""
    name = entry.name
    if name.startswith(".") or name.lower() in LITTER:
        return HIDDEN
    if os.path.isdir(entry.path):
        return OWN if name.endswith((".h5.cache", ".keras.cache")) else ""
    ending = os.path.splitext(name.rstrip())[1].lower()
    if ending in PICTURE_ENDINGS:
        return OWN if ending == ".png" and OURS in _start(entry.path) else ""
    if ending in RAW_ENDINGS:
        return RAW
    return "" if _begins_like_a_picture(entry.path) else OTHERS


def _start(path: str) -> bytes:
    try:
        with door.regular_file(path) as file:
            return file.read(256)
    except OSError:
        return b""


def _begins_like_a_picture(path: str) -> bool:
    start = _start(path)
    if start.startswith(b"RIFF"):
        return start[8:12] == b"WEBP"
    heif = start[4:8] == b"ftyp" and start[8:12] in (*door.HEIF_BRANDS, b"avif")
    return start.startswith(MARKS) or heif


def read_table(path: str) -> dict[str, list[str]]:
    """The columns of a CSV file by their names, or by those of COLUMNS if the first line has none.

    Any of , ; tab | divides; UTF-8 and UTF-16 with their marks, else Windows's letters.
    """
    with door.regular_file(path) as file:
        data = file.read()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    text = text.lstrip("\ufeff")
    first = text.lstrip().partition("\n")[0]
    divider = max(",;\t|", key=first.count)
    rows = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=divider) if any(r)]
    if not rows:
        raise ValueError(f"{visible(path)} is empty")
    names = [cell.strip().lower() for cell in rows[0]]
    if not any(name in COLUMNS["path"] for name in names):
        if os.path.splitext(rows[0][0].strip())[1].lower() not in PICTURE_ENDINGS:
            wanted = "a column 'path', and 'label', 'group', 'split' where there are such"
            raise ValueError(f"{visible(path)} has the columns {names}; it needs {wanted}")
        names = [*COLUMNS][: len(rows[0])]
    else:
        rows = rows[1:]
    for i, row in enumerate(rows):
        if len(row) > len(names) and any(row[len(names) :]):
            text = f"{visible(path)}: row {i + 1} has {len(row)} values for {len(names)} columns"
            raise ValueError(f"{text}; a path with {divider!r} in it stands in quotes")
    return {n: [row[i] if i < len(row) else "" for row in rows] for i, n in enumerate(names)}


def _table(
    table: Mapping[str, list[Any]], folder: str, found: Pictures, group_by: str | None, source: str
) -> tuple[Any, Any]:
    """As `_folder`, for a table."""
    columns = {str(name).strip().lower(): values for name, values in table.items()}
    picked = {
        what: next((columns[n] for n in names if n in columns), None)
        for what, names in COLUMNS.items()
    }
    if group_by and group_by.lower() in columns:
        picked["group"] = columns[group_by.lower()]
    if picked["path"] is None:
        raise ValueError(f"{visible(source)} has the columns {list(table)}, and none named 'path'")
    n = len(picked["path"])
    label, group, split = (
        [_text(v) for v in picked[what] or [""] * n] for what in ("label", "group", "split")
    )
    chosen, seen = [], dict[str, int]()
    for i, given in enumerate(picked["path"]):
        path = _place("" if given != given or given is None else os.fspath(given), folder)
        if path in seen and label[i] != label[seen[path]]:
            what = f"is {label[seen[path]]!r} in one row and {label[i]!r} in another"
            text = f"{visible(source)}: {visible(path)} {what}"
            raise ValueError(f"{text}; a picture has one label")
        reason = TWICE if path in seen else "" if os.path.exists(path) else MISSING
        if picked["label"] is not None and not label[i]:
            reason = reason or NO_LABEL
        if reason:
            found.skipped.setdefault(reason, []).append(path)
            continue
        seen[path] = i
        found.paths.append(path)
        chosen.append(i)
    if not chosen:
        told = "".join(f"\n  {visible(p)}" for ps in found.skipped.values() for p in ps[:3])
        raise ValueError(f"{visible(source)} has no picture with a file and a label:{told}")
    if picked["group"] is not None:
        found.groups = np.array([group[i] for i in chosen])
    parts = None if picked["split"] is None else [_split_of(split[i]) for i in chosen]
    if parts and None in parts:
        what = f"the split {split[chosen[parts.index(None)]]!r}"
        raise ValueError(f"{visible(source)}: {what} is none of train, validation and test")
    return parts, None if picked["label"] is None else [label[i] for i in chosen]


def _text(value: Any) -> str:
    """A cell as text: '' for what is missing, 3.0 as '3'."""
    if value is None or value != value:
        return ""
    whole = isinstance(value, (float, np.floating)) and float(value).is_integer()
    return unicodedata.normalize("NFC", str(int(value) if whole else value)).strip()


def _place(given: str, folder: str) -> str:
    """The file that a table names: as it stands, or relative to the table, or with / for \\, or
    with its letters composed as another system does."""
    names = [given, given.strip(), given.strip().replace("\\", "/")]
    names += [unicodedata.normalize(form, names[-1]) for form in ("NFC", "NFD")]
    for name in filter(None, names):
        for path in (os.path.join(folder, name), name):
            if os.path.lexists(path):
                return path
    return os.path.join(folder, given)


def _grouped(paths: Iterable[str], pattern: str) -> np.ndarray:
    """The group of each path: what the expression's first parenthesis, or all of it, finds."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"group_by is a column or a regular expression: {error}") from None
    matches = [(path, expression.search(Path(path).as_posix())) for path in paths]
    without = [visible(path) for path, match in matches if match is None]
    if without:
        raise ValueError(f"{pattern!r} finds nothing in {len(without)} paths, as in {without[0]}")
    return np.array([m[1] if m.re.groups else m[0] for _, m in matches if m])


guard(globals())
