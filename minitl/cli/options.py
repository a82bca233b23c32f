"""Options of the commands: how they are declared, and what may be typed for them.

The functions at the end turn what was typed into a value, or refuse it: exit code 2.
"""

import argparse
import inspect
from collections.abc import Callable
from typing import Any

from minitl.data import augmentation_layers

Parser = argparse.ArgumentParser
STRICT = "fail on unreadable images; otherwise they are named and left out"


def add_command(commands: Any, run: Callable[..., None], name: str = "") -> Parser:
    """A parser for the command that `run` executes, named like it; returned to be given options.

    The first line of `run`'s docstring stands in the list of commands; the rest is the command's
    own help, where what follows "example:" comes after the options.
    """
    summary, _, rest = (inspect.getdoc(run) or "").partition("\n\n")
    description, found, example = rest.partition("example:")
    text = f"{summary} {description}"
    parser: Parser = commands.add_parser(
        name or run.__name__, help=summary, description=text, epilog=found + example or None
    )
    parser.set_defaults(run=run)
    return parser


def option(
    parser: Any, name: str, unit: str | None, text: str, default: Any = None, **more: Any
) -> None:
    """An option with a value, `name unit` in the help, where the default stands behind the text."""
    if default not in (None, ""):
        text += " (default: %(default)s)"
    parser.add_argument(name, metavar=unit, help=text, default=default, **more)


def flag(parser: Any, name: str, text: str) -> None:
    """An option without a value."""
    parser.add_argument(name, action="store_true", help=text)


def add_folder(parser: Parser, output: str) -> None:
    """What `extract` and `train` have in common: a folder of images, and an output file."""
    parser.add_argument("directory", metavar="DIR", help="a folder with one sub-folder per class")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=f"{output}, say")
    scaled = "height and width to which images are scaled, at least 32"
    option(parser, "--size", "HxW", scaled, "224", type=size)
    networks = ("vgg16", "vgg19", "resnet50", "mobilenet_v2", "efficientnet_b0")
    option(parser, "--base", None, "the pretrained network", "vgg16", choices=networks)
    weights = "of it, without top: a file, or 'imagenet', or 'none' for random ones"
    option(parser, "--weights", "FILE", weights, "imagenet")
    flag(parser, "--strict", STRICT)


def add_cluster(parser: Parser) -> None:
    """Where to compute: `extract` and `predict` have it."""
    where = "by a Dask cluster: its scheduler's address, or local:4 for 4 processes of one core"
    option(parser, "--dask", "ADDRESS", where, type=cluster)


def add_augmentation(parser: Parser) -> None:
    """The options that say how to augment; `augmentation_of` reads them."""
    group = parser.add_argument_group("augmentation")
    option(group, "--flip", None, "mirror half of them", choices=("horizontal", "vertical", "both"))
    flag(group, "--turn", "by 0, 90, 180 or 270 degrees")
    for name, unit, text in (
        ("rotate", "DEGREES", "up to so many degrees to either side"),
        ("zoom", "PART", "in or out by up to this part: 0.1 is 10 %%"),
        ("shift", "PART", "up to this part of the height and width"),
        ("brightness", "PART", "lighter or darker by up to this part of 255"),
        ("contrast", "PART", "more or less by up to this part"),
        ("noise", "SD", "standard deviation of what is added to pixels 0-255"),
    ):
        group.add_argument(f"--{name}", type=float, default=0.0, metavar=unit, help=text)
    option(group, "--crop", "HxW", "a window of so many pixels", type=size)
    beyond = "what is seen beyond the border; 'constant' is black"
    choices = ("reflect", "wrap", "constant", "nearest")
    option(group, "--fill", None, beyond, "reflect", dest="fill_mode", choices=choices)


def augmentation_of(arguments: argparse.Namespace) -> list[Any]:
    """The augmentation layers that the options of `add_augmentation` ask for."""
    names = ("flip", "turn", "rotate", "zoom", "shift", "crop", "brightness", "contrast", "noise")
    return augmentation_layers(**{n: getattr(arguments, n) for n in (*names, "fill_mode")})


def cluster(text: str) -> str | int:
    """'local' as 0, 'local:4' as 4, an address as it is."""
    where, _, number = text.partition(":")
    return (count(number) if number else 0) if where == "local" else text


def count(text: str) -> int:
    """'16' as 16."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def port(text: str) -> int:
    """'8000' as 8000."""
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return int(text)


def widths(text: str) -> str:
    """'' or '256,64', as it is."""
    if text and not all(part.isdecimal() and int(part) > 0 for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} are no widths: give 256 or 256,64")
    return text


def share_or_folder(text: str) -> float | str:
    """A share between 0 and 1, or a folder."""
    try:
        share = float(text)
    except ValueError:
        return text
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share between 0 and 1")
    return share


def size(text: str) -> tuple[int, int]:
    """'224' or '200x300' as (H, W)."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give pixels as 224 or 200x300")
    return int(parts[0]), int(parts[-1])
