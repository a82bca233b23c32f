"""`minitl check`: a look at a folder of pictures before they are trained on.

Every file is read once. What can be seen without a network is found first; then a frozen VGG16
turns the pictures into F, on which heads are trained and tested in turns, to find labels that the
other pictures contradict. `judging/checks.py` finds, `report/page.py` shows.
"""

import argparse
import csv
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from minitl.applications.vgg16 import preprocess_input
from minitl.cli import options, reports
from minitl.cli.folders import check_output, walk
from minitl.cli.options import add_command, flag, option
from minitl.cli.train import frozen_base
from minitl.data import Pictures, door, open_folder
from minitl.data.found import left_out
from minitl.data.pictures import read_picture
from minitl.judging.checks import CERTAIN, Check, Finding
from minitl.report import Report
from minitl.storage import atomic
from minitl.transfer.features import feature_model

LAYERS = ("block4_pool", "block5_pool")
SHOWN = 20  # rows of the table of one kind, at most


def add_to(commands: Any) -> None:
    parser = add_command(commands, check)
    where = "a folder with one sub-folder per class, or a table (.csv)"
    parser.add_argument("directory", metavar="DIR", nargs="?", help=where)
    table = "every finding as CSV, to a file, or without a name to the output"
    parser.add_argument("--csv", metavar="FILE", nargs="?", const="-", help=table)
    option(parser, "--report", "FILE", "write a page (.html) that shows what was found")
    flag(parser, "--pixels", "only what is seen without a network: no labels, no outliers")
    strict = "exit code 1 if anything certain was found: all but labels and outliers, which are"
    flag(parser, "--strict", f"{strict} opinions")
    scaled = "height and width to which images are scaled, at least 32"
    option(parser, "--size", "HxW", scaled, "224", type=options.size)
    weights = "of VGG16 without top: a file, or 'imagenet', or 'none' for random ones"
    option(parser, "--weights", "FILE", weights, "imagenet")


def check(arguments: argparse.Namespace) -> None:
    """Look for what is wrong with pictures and their labels, before training.

    Pictures that cannot be read, are tiny or of one colour; that are there twice, identical or
    resized, re-encoded, lightened, in one class or in two, on both sides of a split; labels that
    are probably wrong; pictures unlike all others. Needs `pip install 'minitl[check]'`.

    example: minitl check photos/ --report check.html
    """
    started = time.perf_counter()
    directory, table = arguments.directory, arguments.csv
    if directory is None and table and os.path.isdir(table):  # `minitl check --csv photos/`
        directory, table = table, "-"
    if directory is None:
        raise ValueError("say which folder to check: minitl check DIR")
    if table and table != "-":
        check_output(table, (".csv",))
    if arguments.report:
        reports.check_page(arguments.report)
    arguments.directory = directory
    found = open_folder(directory, arguments.size)
    looked = Check(found.paths, found.labels, found.class_names, found.split, found.faults)
    f, rows = _read(found, looked, arguments)
    looked.pictures(found.digests)
    if f is not None:
        looked.labels_and_outliers(f, rows)
    if table:
        write_table(looked, table)
    if table != "-":
        print("\n".join(as_text(looked)))
        what = left_out(found)
        print(f"{len(found)} pictures. {what}".rstrip())
        print(f"{time.perf_counter() - started:.0f} s")
    if arguments.report:
        page(arguments, found, looked, f, rows).write(arguments.report)
        if table != "-":
            print(f"The report is in {arguments.report}.")
    if arguments.strict and (certain := looked.found(CERTAIN)):
        sys.stdout.flush()
        raise ValueError(f"{len(certain)} findings that are certain; --strict allows none")


def _read(found: Pictures, looked: Check, arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Show every picture to `looked`; F (n, D) and the rows (n,) it is of, unless --pixels."""
    network, parts, seen = None, [], []
    if not arguments.pixels:
        base = frozen_base(arguments.size, arguments.weights)
        network = feature_model(base, LAYERS, "avg")
    for row, size in _sizes(found):
        looked.sizes[row] = size
    for rows, pixels in walk(found, "looking at pictures"):
        looked.see(rows, pixels)
        if network is not None:
            parts.append(network.predict(preprocess_input(pixels), verbose=0))
            seen.append(rows)
    return (np.concatenate(parts), np.concatenate(seen)) if parts else (None, None)


def _sizes(found: Pictures) -> Iterator[tuple[int, tuple[int, int]]]:
    """(row, (H, W)) of each picture whose header can be read."""
    for row, path in enumerate(found.paths):
        try:
            with door.opened(path) as image:
                yield row, (image.height, image.width)
        except OSError:  # it will be told when it is read
            continue


def _where(looked: Check, row: int) -> tuple[str, str]:
    """Class and split of a picture, '' where there are none."""
    name = "" if looked.labels is None else looked.class_names[looked.labels[row]]
    return name, "" if looked.split is None else str(looked.split[row])


def write_table(looked: Check, path: str) -> None:
    """One line per picture of each finding; those of one finding have one number."""
    row_of = {path: row for row, path in enumerate(looked.paths)}
    head = ("number", "kind", "path", "class", "split", "said", "score")

    def write(file: Any) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        for number, finding in enumerate(looked.found(), 1):
            for each in finding.paths:
                where = _where(looked, row_of[each])
                score = f"{finding.score:.4g}"
                writer.writerow([number, finding.kind, each, *where, finding.said, score])

    if path == "-":
        write(sys.stdout)
        return
    with atomic.writing(path) as file:
        write(file)


def as_text(looked: Check) -> Iterator[str]:
    """The findings by kind, the worst first."""
    kinds = list(looked.by_kind())
    for title, why, findings in kinds:
        yield f"{title}: {len(findings)}. {why}"
        for finding in findings[:SHOWN]:
            yield f"  {_line(finding)}"
        if len(findings) > SHOWN:
            yield f"  ... and {len(findings) - SHOWN} more: see --csv"
        yield ""
    if not kinds:
        yield "Nothing was found."


def _line(finding: Finding) -> str:
    paths = [atomic.visible(path) for path in finding.paths[:4]]
    more = f" and {len(finding.paths) - 4} more" if len(finding.paths) > 4 else ""
    return f"{'  =  '.join(paths)}{more}: {atomic.visible(finding.said)}"


def page(
    arguments: argparse.Namespace, found: Pictures, looked: Check, f: Any, rows: Any
) -> Report:
    """The report of a check."""
    place = os.path.basename(os.path.abspath(arguments.directory))
    classes = f" in {len(found.class_names)} classes" if found.labels is not None else ""
    report = Report(f"A look at {place}", f"{len(found)} pictures{classes}.", arguments.command)
    report.root = os.fspath(arguments.directory) if os.path.isdir(arguments.directory) else ""
    report.facts = {"pictures": len(found), "left out": left_out(found) or "nothing"}
    report.add_findings(looked.by_kind(), lambda path: read_picture(path, 160))
    if f is not None:
        labels = None if found.labels is None else found.labels[rows]
        names, paths = found.class_names, found.paths
        report.add_map(f, labels, names, lambda i: read_picture(paths[rows[i]], 64))
    return report
