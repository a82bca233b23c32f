"""`minitl extract, evaluate, predict, info, augment`: the commands for images, models and files.

Images come from `folders.py`. A trained model says in its metadata what `evaluate` and `predict`
must know: the names of its classes, the size of its images, and how they are scaled and
preprocessed (`trained_model`). `minitl train`, which makes such models, is in `train.py`.
"""

import argparse
import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from minitl import data
from minitl.applications.vgg16 import preprocess_input
from minitl.cli import options
from minitl.cli.folders import HOW, Pictures, check_output, read_folder
from minitl.cli.options import add_command, flag, option
from minitl.cli.train import frozen_vgg16
from minitl.judging import evaluation, plots
from minitl.models import Model, load_model
from minitl.storage import atomic, keras_files, state
from minitl.transfer import feature_file, features

PREPARE = {"caffe": preprocess_input, "none": lambda x: x}


def add_to(commands: Any) -> None:
    parser = add_command(commands, extract)
    options.add_folder(parser, "F.h5")
    option(parser, "--layers", "A,B", "whose outputs, side by side (default: the last)")
    pooling = "of a layer's maps over their places"
    option(parser, "--pooling", None, pooling, "avg", choices=("avg", "max", "none"))

    parser = add_command(commands, evaluate)
    parser.add_argument("model", metavar="MODEL", help="a file that `minitl train` wrote")
    parser.add_argument("directory", metavar="DIR", help="the folder; it may lack classes")
    flag(parser, "--json", "every number, as JSON")
    flag(parser, "--strict", options.STRICT)

    parser = add_command(commands, predict)
    parser.add_argument("model", metavar="MODEL", help="a file that `minitl train` wrote")
    what = "images, or folders of them"
    parser.add_argument("images", metavar="IMAGE_OR_DIR", nargs="+", help=what)
    form = parser.add_mutually_exclusive_group()
    flag(form, "--json", "all probabilities, as JSON")
    flag(form, "--csv", "all probabilities, as CSV")

    add_command(commands, info).add_argument("file", metavar="FILE")

    parser = add_command(commands, augment)
    parser.add_argument("path", metavar="DIR_OR_IMAGE", help="an image, or a folder of them")
    option(parser, "--preview", "FILE", "where to draw", "augmentation.png")
    option(parser, "--images", "N", "so many of a folder", 4, type=int)
    option(parser, "--views", "N", "of each image", 6, type=int)
    scaled = "height and width to which images are cropped and scaled first"
    option(parser, "--size", "HxW", scaled, "224", type=options.size)
    option(parser, "--seed", "N", "of all that is random", 0, type=int)
    options.add_augmentation(parser)


def extract(arguments: argparse.Namespace) -> None:
    """Write features of a folder of images, by a frozen VGG16, into an HDF5 file.

    F is (N, D), one row per image; a CSV file beside it says which row is of which image. The
    folder may do without sub-folders. After an interruption the same command goes on where it was.

    example: minitl extract photos/ -o F.h5 --layers block4_pool,block5_pool
    """
    started = time.perf_counter()
    out = check_output(arguments.output, (".h5",))
    base = frozen_vgg16(arguments.size, arguments.weights)
    size, strict = arguments.size, arguments.strict
    pictures, labels, names = read_folder(arguments.directory, size, strict, needs_classes=False)
    chosen = arguments.layers.split(",") if arguments.layers else None
    pooling = None if arguments.pooling == "none" else arguments.pooling
    how: dict[str, Any] = {"preprocess": preprocess_input, "batch_size": 16, "verbose": 1}
    f = features.extract_features(base, pictures.pixels, chosen, pooling, out=out, **how)
    rows = out.with_suffix(".csv")
    # Names of files are bytes: 'surrogateescape' writes back those that are no UTF-8.
    with (
        atomic.replacing(rows) as part,
        open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["row", "path", "label", "class"])
        for i, (path, label) in enumerate(zip(pictures.paths, labels, strict=True)):
            writer.writerow([i, path, *((label, names[label]) if names else ("", ""))])
    print(f"F {f.shape} is in {out}, which image a row is of in {rows}.{pictures.skipped()}")
    print(f"{time.perf_counter() - started:.0f} s")


def evaluate(arguments: argparse.Namespace) -> None:
    """Tell how good a trained model is on a folder with one sub-folder of images per class."""
    model, about = trained_model(arguments.model)
    names = about["class_names"]
    place, strict = arguments.directory, arguments.strict
    pictures, labels, _ = read_folder(place, about["size"], strict, names, about)
    p = probabilities(model, about, pictures.pixels)
    found = evaluation.evaluate_predictions(labels, p, names)
    if arguments.json:
        print(json.dumps(found.to_dict() | {"unreadable": len(pictures.faults)}, indent=1))
    else:
        print(f"{found}\n{len(labels)} images.{pictures.skipped()}")


def predict(arguments: argparse.Namespace) -> None:
    """Tell what a trained model says about images: the class of each, and its probability.

    The model itself says how images are scaled. Exit code 1 if some could not be read; the others
    are predicted.
    """
    model, about = trained_model(arguments.model)
    names = about["class_names"]
    paths: list[str] = []
    for path in arguments.images:
        if Path(path).is_dir():
            folder = data.image_dataset_from_directory(path, None, shuffle=False, verbose=False)
            paths += folder.file_paths
        else:
            paths.append(path)
    pictures = Pictures(paths, about["size"], False, about)
    p = probabilities(model, about, pictures.pixels)
    rows = [(path, names[row.argmax()], row) for path, row in zip(pictures.paths, p, strict=True)]
    if arguments.json:
        found: list[dict[str, Any]] = []
        for path, name, row in rows:
            found.append({"path": path, "class": name, "probability": float(row.max())})
            found[-1]["probabilities"] = dict(zip(names, map(float, row), strict=True))
        print(json.dumps(found, indent=1))
    elif arguments.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["path", "class", *names])
        writer.writerows([path, name, *(f"{v:.6f}" for v in row)] for path, name, row in rows)
    else:
        width = max(map(len, [*pictures.paths, "image"]))
        wide = max(map(len, [*names, "class"]))
        print(f"{'image':{width}}  {'class':{wide}}  probability")
        for path, name, row in rows:
            print(f"{path:{width}}  {name:{wide}}  {row.max():11.4f}")
    if pictures.faults:
        sys.stdout.flush()
        raise OSError(f"{len(pictures.faults)} of {len(paths)} images cannot be read")


def trained_model(path: str) -> tuple[Model, dict[str, Any]]:
    """A model and its metadata. Raises ValueError when these do not say how to give it images."""
    model = load_model(path)
    about = {**HOW, **model.metadata}
    lacking = [key for key in ("class_names", "size", "preprocessing") if key not in about]
    if lacking:
        advice = "set model.metadata, or make it with `minitl train`"
        raise ValueError(f"{path} does not say its {', '.join(lacking)}; {advice}")
    if about["preprocessing"] not in PREPARE:
        text = f"unknown preprocessing {about['preprocessing']!r}, expected one of"
        raise ValueError(f"{path}: {text} {list(PREPARE)}")
    size = about["size"]
    return model, about | {"size": (size, size) if isinstance(size, int) else tuple(size)}


def probabilities(model: Model, about: dict[str, Any], pixels: np.ndarray) -> np.ndarray:
    """(N, m) for images (N, H, W, 3), 0-255, 16 at a time."""
    prepare, parts = PREPARE[about["preprocessing"]], []
    with atomic.progress_bar(len(pixels), "minitl: classifying", unit="image") as bar:
        for at in range(0, len(pixels), 16):
            some = np.asarray(pixels[at : at + 16])
            parts.append(model.predict(prepare(some), verbose=0))
            bar.update(len(some))
    return np.concatenate(parts)


def info(arguments: argparse.Namespace) -> None:
    """Show what a model, weights, feature or backup file holds; its contents tell which it is."""
    path = Path(arguments.file)
    with open(path, "rb") as file:
        start = file.read(512)
    if state.is_state(start):
        backup = state.read_state(path)
        print(f"{path}: a backup of a training (BackupAndRestore)")
        print(f"epochs done: {backup['place']['epoch']}, steps: {backup['place']['step']}")
        for name, value in backup["identity"].items():
            _show(f"{name}: {str(value)[:100]}")
        print(f"weights: {sum(np.size(w) for w in backup['weights'].values()):,} numbers")
        return
    if start.startswith(keras_files.SIGNATURE) and feature_file.is_feature_file(path):
        print(f"{path}: a feature file\n{feature_file.describe(path)}")
        return
    stored = keras_files.read_weights(path)
    if "model_config" in stored.attributes:
        model = load_model(path)
        print(f"{path}: a model")
        model.summary(print_fn=_show)
        for name, value in model.metadata.items():
            _show(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
        return
    print(f"{path}: weights")
    named = [(layer, *each) for layer, arrays in stored.layers for each in arrays]
    for layer, name, array in named:
        _show(f"{layer:24} {name:40} {array.shape!s:20} {array.dtype}")
    print(f"{sum(array.size for _, _, array in named):,} numbers")


def _show(text: str) -> None:
    """Print what a stranger's file says, line by line, without commands to the terminal."""
    print("\n".join(map(atomic.visible, text.split("\n"))))


def augment(arguments: argparse.Namespace) -> None:
    """Show what augmentation does to your images, as a contact sheet.

    Images and augmented views of them are drawn as one picture, to see whether a view still shows
    what its image shows. View v is that of `minitl.data.augment(images, layers, seed, view=v)`.
    Needs `pip install 'minitl[plot]'`.

    example: minitl augment photos/ --flip horizontal --rotate 10 --zoom 0.1
    """
    layers = options.augmentation_of(arguments)
    if not layers:
        raise ValueError("say how to augment, e.g. --flip horizontal --rotate 10")
    for name in ("images", "views"):
        if getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be at least 1, got {getattr(arguments, name)}")
    path, size = arguments.path, arguments.size
    if Path(path).is_dir():
        how: dict[str, Any] = {"batch_size": arguments.images, "crop_to_aspect_ratio": True}
        how |= {"image_size": size, "seed": arguments.seed, "verbose": False}
        images = next(iter(data.image_dataset_from_directory(path, None, **how)))
    else:
        image = data.load_img(path, "rgb", size, "bilinear", keep_aspect_ratio=True)
        images = data.img_to_array(image)[None]
    views = [data.augment(images, layers, arguments.seed, view) for view in range(arguments.views)]
    plots.augmentation_sheet(images, views, arguments.preview)
    print(f"{len(images)} images, {len(views)} views of each: {arguments.preview}")
