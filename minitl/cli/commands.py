"""`minitl extract, evaluate, predict, info, augment`: the commands for images, models and files.

Images come from `folders.py`. A trained model says in its metadata what `evaluate` and `predict`
must know: the names of its classes, the size of its images, and how they are scaled and
preprocessed (`trained.py`). `minitl train`, which makes such models, is in `train.py`.
"""

import argparse
import csv
import json
import shutil
import sys
import tempfile
import textwrap
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl import data
from minitl.callbacks import backup
from minitl.cli import options, reports
from minitl.cli.card import model_card
from minitl.cli.folders import by_workers, check_output, find
from minitl.cli.options import add_command, flag, option
from minitl.cli.solving import told
from minitl.cli.train import frozen_base
from minitl.cli.trained import PREPARE, PREPROCESSING, Said, classified, trained_model
from minitl.data.found import left_out
from minitl.judging import evaluation, intervals, plots, summary
from minitl.judging.seen import recognise
from minitl.models import load_model
from minitl.storage import atomic, keras_files, state
from minitl.storage.atomic import visible
from minitl.storage.door import open_regular
from minitl.transfer import feature_file, features


def add_to(commands: Any) -> None:
    parser = add_command(commands, extract)
    options.add_folder(parser, "F.h5")
    option(parser, "--layers", "A,B", "whose outputs, side by side (default: the last)")
    pooling = "of a layer's maps over their places"
    option(parser, "--pooling", None, pooling, "avg", choices=("avg", "max", "none"))
    options.add_cluster(parser)

    parser = add_command(commands, evaluate)
    parser.add_argument("model", metavar="MODEL", help="a file that `minitl train` wrote")
    parser.add_argument("directory", metavar="DIR", help="the folder; it may lack classes")
    flag(parser, "--json", "every number, as JSON")
    flag(parser, "--seen", "name the images that the model was trained on")
    page = "write a page (.html) with all figures and the wrong pictures"
    option(parser, "--report", "FILE", page)
    flag(parser, "--strict", options.STRICT)

    parser = add_command(commands, predict)
    parser.add_argument("model", metavar="MODEL", help="a file that `minitl train` wrote")
    what = "images, or folders of them"
    parser.add_argument("images", metavar="IMAGE_OR_DIR", nargs="+", help=what)
    form = parser.add_mutually_exclusive_group()
    flag(form, "--json", "all probabilities, as JSON")
    flag(form, "--csv", "all probabilities, as CSV")
    options.add_cluster(parser)

    parser = add_command(commands, export)
    parser.add_argument("model", metavar="MODEL", help="a file that `minitl train` or Keras wrote")
    option(parser, "-o", "FILE", "m.onnx, say", dest="output", required=True)
    prepared = "the file takes images that are preprocessed already, not RGB 0-255"
    flag(parser, "--preprocessed", prepared)

    parser = add_command(commands, info)
    parser.add_argument("file", metavar="FILE")
    flag(parser, "--json", "all of it, as JSON")
    flag(parser, "--card", "of a model that `minitl train` wrote: a model card, in Markdown")

    parser = add_command(commands, augment)
    parser.add_argument("path", metavar="DIR_OR_IMAGE", help="an image, or a folder of them")
    option(parser, "--preview", "FILE", "where to draw", "augmentation.png")
    option(parser, "--images", "N", "so many of a folder", 4, type=int)
    option(parser, "--views", "N", "of each image", 6, type=int)
    scaled = "height and width to which images are scaled first, as `minitl train` does"
    option(parser, "--size", "HxW", scaled, "224", type=options.size)
    option(parser, "--seed", "N", "of all that is random", 0, type=int)
    options.add_augmentation(parser)


def extract(arguments: argparse.Namespace) -> None:
    """Write features of a folder of images, by a frozen base, into an HDF5 file.

    F is (N, D), one row per image; a CSV file beside it says which row is of which image. The
    folder may do without sub-folders. After an interruption the same command goes on where it was.

    example: minitl extract photos/ -o F.h5 --layers block4_pool,block5_pool
    """
    started = time.perf_counter()
    out = check_output(arguments.output, (".h5",))
    base = frozen_base(arguments.size, arguments.weights, arguments.base)
    prepare = PREPARE[PREPROCESSING.get(arguments.base, "caffe")]
    strict = arguments.strict
    pictures = find(arguments.directory, arguments.size, strict, needs_classes=False)
    chosen = arguments.layers.split(",") if arguments.layers else None
    pooling = None if arguments.pooling == "none" else arguments.pooling
    if arguments.dask is None:
        how: dict[str, Any] = {"preprocess": prepare, "batch_size": 16, "verbose": 1}
        features.extract_features(base, pictures, chosen, pooling, out=out, **how)
    else:
        parts = out.with_name(f"{out.name}.parts")
        by_workers(arguments.dask, base, pictures, parts, prepare, chosen, pooling).save(out)
        shutil.rmtree(parts)
    f = feature_file.read_layout(out)
    for fault in pictures.faults.values():
        print(f"minitl: {fault}", file=sys.stderr)
    said, names = left_out(pictures, strict), pictures.class_names
    rows = out.with_suffix(".csv")
    with atomic.writing(rows) as file:
        writer = csv.writer(file)
        writer.writerow(["row", "path", "label", "class"])
        for i, row in enumerate(pictures.readable()):
            label = (pictures.labels[row], names[pictures.labels[row]]) if names else ("", "")
            writer.writerow([i, pictures.paths[row], *label])
    print(f"F {f.shape} is in {out}, which image a row is of in {rows}. {said}".rstrip())
    print(f"{time.perf_counter() - started:.0f} s")


def evaluate(arguments: argparse.Namespace) -> None:
    """Tell how good a trained model is on a folder with one sub-folder of images per class."""
    if arguments.report:
        reports.check_page(arguments.report)
    model, about = trained_model(arguments.model)
    names, strict = about["class_names"], arguments.strict
    pictures = find(arguments.directory, about["size"], strict, names, about)
    for part in ("test", "validation"):
        if pictures.split is not None and part in pictures.split:
            text = f"{arguments.directory} is divided: these are its {part} images"
            warnings.warn(text, stacklevel=1)
            pictures = pictures.part(pictures.split == part)
            break
    found = list(classified(model, about, pictures, strict, bool(arguments.report)))
    pictures = pictures.part([said.row for said in found])
    p, labels = np.array([said.p for said in found]), pictures.labels
    judged = evaluation.evaluate_predictions(labels, p, names)
    of = intervals.figures(labels, p, pictures.groups)
    known = seen_of(about, pictures, found)
    if arguments.json:
        more = {"figures": of, "unreadable": len(pictures.faults)}
        if known is not None:
            names_of = [path for path, how in zip(pictures.paths, known, strict=True) if how]
            more["seen"] = {"images": len(names_of), "paths": names_of}
        print(json.dumps(judged.to_dict() | more, indent=1))
    else:
        print(f"{judged}\n{told({'folder': of})}")
        print(f"{len(labels)} images. {left_out(pictures)}".rstrip())
        say_seen(known, pictures.paths, arguments.seen)
    if arguments.report:
        title = f"{Path(arguments.model).name} on {Path(arguments.directory).absolute().name}"
        prepare = PREPARE[about["preprocessing"]]
        report = reports.judged(arguments, model, prepare, pictures, p, title)
        report.lead = f"{len(labels)} pictures of {len(names)} classes."
        report.facts = reports.facts_of(about)
        report.figures[f"On these {len(labels)} pictures"] = of
        if known is not None and known.any():
            what = f"{(known > 0).sum()} of {len(known)} pictures were among those it was"
            report.notes.append(f"{what} trained on: on others it may be worse.")
        report.add_map(np.array([said.f for said in found]), labels, names, pictures.__getitem__)
        report.write(arguments.report)
        if not arguments.json:
            print(f"The report is in {arguments.report}.")


def seen_of(about: Mapping[str, Any], pictures: data.Pictures, found: Sequence[Said]) -> Any:
    """(N,) which pictures the model was trained on, see `recognise`; None if it does not know."""
    if "seen" not in about or not found:
        return None
    digests = [pictures.digests[path] for path in pictures.paths]
    return recognise(about["seen"], digests, np.array([said.look for said in found]))


def say_seen(known: Any, paths: Sequence[str], by_name: bool) -> None:
    """Tell how many pictures the model was trained on, and which."""
    if known is None or not known.any():
        return
    copies = f", {(known == 1).sum()} of them re-encoded or resized" if (known == 1).any() else ""
    what = f"{(known > 0).sum()} of {len(known)} images were among those it was trained on{copies}"
    advice = "" if by_name else " --seen names them."
    print(f"{what}: on others it may be worse.{advice}")
    for path, how in zip(paths, known, strict=True):
        if by_name and how:
            print(f"  {visible(path)}{'' if how == 2 else ' (a copy)'}")


def predict(arguments: argparse.Namespace) -> None:
    """Tell what a trained model says about images: the class of each, and its probability.

    The model itself says how images are scaled. Exit code 1 if some could not be read; the others
    are predicted. What is known is written at once, also while others are still to be read.
    """
    model, about = trained_model(arguments.model)
    names, skipped = about["class_names"], dict[str, list[str]]()
    paths: list[str] = []
    for path in arguments.images:
        if Path(path).is_dir() or path.lower().endswith((".csv", ".tsv")):
            folder = data.open_folder(path)
            paths += folder.paths
            for reason, some in folder.skipped.items():
                skipped.setdefault(reason, []).extend(some)
        else:
            paths.append(path)
    pictures = data.open_folder(paths, about["size"], reading=about)
    pictures.skipped |= skipped
    show = _as_json if arguments.json else _as_csv if arguments.csv else _as_table
    if arguments.dask is None:
        found: Classified = classified(model, about, pictures)
    else:
        prepare = PREPARE[about["preprocessing"]]
        with tempfile.TemporaryDirectory(prefix="minitl-") as parts:
            p = by_workers(arguments.dask, model, pictures, parts, prepare)
            found = [Said(row, p[row]) for row in p.kept.tolist()]
    show(pictures.paths, names, found)
    sys.stdout.flush()
    if said := left_out(pictures):
        print(f"minitl: {said}", file=sys.stderr)
    if pictures.faults:
        raise OSError(f"{len(pictures.faults)} of {len(paths)} images cannot be read")


def export(arguments: argparse.Namespace) -> None:
    """Write a model as ONNX, for ONNX Runtime and other programs without minitl.

    Of a model that `minitl train` wrote, the preprocessing goes into the file: it takes RGB images
    (N, H, W, 3), 0-255, in float32, and gives probabilities. Needs `pip install 'minitl[onnx]'`.

    example: minitl export model.h5 -o model.onnx
    """
    out = check_output(arguments.output, (".onnx",))
    model = load_model(arguments.model)
    how = model.metadata.get("preprocessing", "none")
    prepare = PREPARE.get(how) if how != "none" and not arguments.preprocessed else None
    model.export(out, "onnx", verbose=1, preprocess=prepare)
    takes = "RGB images, 0-255" if prepare else "preprocessed images"
    print(f"It takes {takes}, {model.input_shape}; its classes and settings are in the metadata.")


Classified = Iterable[Said]


def _as_json(paths: Sequence[str], names: Sequence[str], found: Classified) -> None:
    begin = "["
    for row, p, _, unlike, _ in found:
        one = {"path": paths[row], "class": names[int(p.argmax())], "probability": float(p.max())}
        told = one | {"probabilities": dict(zip(names, map(float, p), strict=True))}
        told |= {} if unlike is None else {"unlike_training": unlike}
        print(begin + "\n" + textwrap.indent(json.dumps(told, indent=1), " "), end="", flush=True)
        begin = ","
    print("\n]" if begin == "," else "[]")


def _as_csv(paths: Sequence[str], names: Sequence[str], found: Classified) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    for i, (row, p, _, unlike, _) in enumerate(found):
        if i == 0:
            more = () if unlike is None else ("unlike_training",)
            writer.writerow(["path", "class", *names, *more])
        numbers = [f"{v:.6f}" for v in p] + ([] if unlike is None else [int(unlike)])
        writer.writerow([paths[row], names[int(p.argmax())], *numbers])
        sys.stdout.flush()


def _as_table(paths: Sequence[str], names: Sequence[str], found: Classified) -> None:
    shown = [atomic.visible(path) for path in paths]
    width, wide = max(map(len, [*shown, "image"])), max(map(len, [*names, "class"]))
    print(f"{'image':{width}}  {'class':{wide}}  probability")
    for row, p, _, unlike, _ in found:
        line = f"{shown[row]:{width}}  {names[int(p.argmax())]:{wide}}  {p.max():11.4f}"
        print(line + "  unlike all training images" * bool(unlike), flush=True)


def info(arguments: argparse.Namespace) -> None:
    """Show what a model, weights, feature or backup file holds; its contents tell which it is."""
    path = Path(arguments.file)
    if arguments.card:
        print(model_card(path, *trained_model(arguments.file)), end="")
        return
    kind, told, lines = _contents(path)
    if arguments.json:
        print(json.dumps({"file": str(path), "kind": kind, **told}, indent=1))
    else:
        print(f"{visible(path)}: {kind}", *(visible(line, keep="\n") for line in lines), sep="\n")


def _contents(path: Path) -> tuple[str, dict[str, Any], list[str]]:
    """What kind of file it is, what it holds as plain values, and in lines of text."""
    with open_regular(path) as file:
        start = file.read(512)
    if state.is_state(start):
        lines = [visible(line) for line in backup.describe(path)]
        return "a backup of a training (BackupAndRestore)", {"lines": lines}, lines
    if start.startswith(keras_files.SIGNATURE) and feature_file.is_feature_file(path):
        text = feature_file.describe(path)
        layout = feature_file.read_layout(path)
        told = {"shape": list(layout.shape), "dtype": str(layout.dtype), "growing": layout.growing}
        return "a feature file", told | {"about": {**layout.about, **layout.key}}, [text]
    stored = keras_files.read_weights(path)
    if "model_config" in stored.attributes:
        model, lines = load_model(path), list[str]()
        model.summary(print_fn=lines.append)
        for name, value in model.metadata.items():
            text = value if isinstance(value, str) else json.dumps(_shortened(value))
            lines.append(f"{visible(name)}: {visible(text)}")
        columns, rows, _ = summary.parts(model)
        told = {"name": model.name, "parameters": model.count_params()}
        told |= {"layers": [dict(zip(columns, row, strict=True)) for row in rows]}
        return "a model", told | {"metadata": model.metadata}, lines
    listed, lines, numbers = list[dict[str, Any]](), list[str](), 0
    for layer, arrays in stored.layers:
        for name, array in arrays:
            text = f"{visible(layer):24} {visible(name):40} {array.shape!s:20} {array.dtype}"
            lines.append(text)
            one = {"layer": layer, "name": name, "shape": list(array.shape)}
            listed.append(one | {"dtype": str(array.dtype)})
            numbers += int(array.size)
    lines.append(f"{numbers:,} numbers")
    return "weights", {"arrays": listed, "numbers": numbers}, lines


def _shortened(value: Any) -> Any:
    """Metadata without what no one reads: packed numbers."""
    if isinstance(value, dict):
        return {k: _shortened(v) for k, v in value.items()}
    packed = isinstance(value, str) and len(value) > 1000
    return f"({len(value):,} characters)" if packed else value


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
    pictures = data.open_folder(path if Path(path).is_dir() else [path], size)
    rows = np.random.default_rng(arguments.seed).permutation(len(pictures))[: arguments.images]
    images = pictures[rows].astype(np.float32)
    views = [data.augment(images, layers, arguments.seed, view) for view in range(arguments.views)]
    plots.augmentation_sheet(images, views, arguments.preview)
    print(f"{len(images)} images, {len(views)} views of each: {arguments.preview}")
