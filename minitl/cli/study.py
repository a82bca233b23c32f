"""`minitl study`: the course in which the learner builds minitl's functions themselves.

The work is done in `minitl/study`; here are the options, and what is printed.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from minitl.cli.options import add_command, flag, option
from minitl.study import process, texts


def add_to(commands: Any) -> None:
    parser = add_command(commands, show, "study")
    _add_folder(parser)
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    for run in (start, check, hint, solution):
        action = add_command(actions, run)
        numbers = list(texts.all_texts())
        action.add_argument("stage", metavar="STAGE", type=int, choices=numbers, help="1 to 23")
        _add_folder(action, argparse.SUPPRESS)  # what stands before the action holds
        if run is not solution:
            option(action, "--language", None, "of what is told", "en", choices=("en", "zh"))
        if run is check:
            flag(action, "--no-network", "leave out the real network, which takes up to a minute")


def _add_folder(parser: Any, default: Any = Path("study")) -> None:
    text = "where the learner's files are (default: study)"
    parser.add_argument("--dir", metavar="DIR", help=text, type=Path, default=default)


def show(arguments: argparse.Namespace) -> None:
    """Build it yourself: list the course's stages, and what of them is done.

    A stage is a function of minitl that you write in a file of your own: `minitl study start 1`
    writes it, `minitl study check 1` says what is wrong, then puts it into the real VGG16.
    """
    done = process.done(arguments.dir)
    for number, text in texts.all_texts().items():
        begun = "begun" if process.file_of(arguments.dir, text).exists() else ""
        mark = {True: "done", False: "changed since", None: begun}[done.get(number)]
        print(f"{number:>2}  {text.title:<55} {mark}".rstrip())


def start(arguments: argparse.Namespace) -> None:
    """Write the file of a stage: the task, the signature, an example to check by hand."""
    text = texts.all_texts(arguments.language)[arguments.stage]
    path = process.file_of(arguments.dir, text)
    arguments.dir.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:  # never over what somebody wrote
        file.write(text.file())
    print(f"{path}: write it, then `minitl study check {arguments.stage}`")


def check(arguments: argparse.Namespace) -> None:
    """Check a stage, then run the real network with it."""
    stage, language = arguments.stage, arguments.language
    if not process.check_file(arguments.dir, stage, not arguments.no_network, language):
        sys.stdout.flush()
        sys.exit(1)
    print(texts.said(f"stage {stage} is done", language))


def hint(arguments: argparse.Namespace) -> None:
    """Give the next hint of a stage; after the last one they begin anew."""
    hints = texts.all_texts(arguments.language)[arguments.stage].hints
    kept = arguments.dir / ".hints" / str(arguments.stage)
    number = int(kept.read_text()) % len(hints) if kept.exists() else 0
    print(f"{number + 1} of {len(hints)}: {hints[number]}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(str(number + 1))


def solution(arguments: argparse.Namespace) -> None:
    """Name the file and line of minitl's own solution of a stage."""
    for part in process.PARTS.get(arguments.stage, ()):
        place, line, name = process.place_of(part)
        print(f"{part.name}: {place}:{line} ({name})")
