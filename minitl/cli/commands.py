"""The command line's work with folders of pictures: extract, train, evaluate, predict, info.

A folder has one sub-folder a class. What cannot be read as an image is named on the error output
and left out, or refused (`--strict`); how many there were is said at the end. A trained model
carries in its metadata what `predict` must know: names of classes, size, and how images are
scaled and preprocessed.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl import callbacks
from minitl.applications import VGG16
from minitl.applications.vgg16 import preprocess_input
from minitl.config import set_random_seed
from minitl.data import augment, image_dataset_from_directory
from minitl.data.folder import fit_image
from minitl.data.images import decode
from minitl.data.splits import stratified_split
from minitl.judging import evaluation
from minitl.layers import Dense, Dropout, GlobalAveragePooling2D
from minitl.models import Model, load_model
from minitl.optimizers import Adam
from minitl.storage import state as state_file
from minitl.storage.atomic import progress_bar, replacing
from minitl.storage.keras_files import SIGNATURE, read_weights
from minitl.transfer import feature_file
from minitl.transfer import stages as transfer
from minitl.transfer.features import extract_features

HOW = {"interpolation": "bilinear", "resizing": "stretch"}  # images become the model's size
PREPARE = {"caffe": preprocess_input, "none": lambda x: x}


class Pictures:
    """The readable images of `paths`, (N, H, W, 3), 0-255, in a file that the system reads as it
    is used, so that memory does not grow with N; `kept` are their numbers, `faults` the others'."""

    def __init__(self, paths: Sequence[str], size: tuple[int, int], how: Any, strict: bool):
        self.faults: list[str] = []
        self.kept: list[int] = []
        self.x = scratch((len(paths), *size, 3))
        with progress_bar(len(paths), "reading images", unit="image") as bar:
            for i, path in enumerate(paths):
                bar.update(1)
                try:
                    pixels = decode(path, "rgb")
                except OSError as error:
                    self.faults.append(str(error))
                    bar.write(f"minitl: {error}", file=sys.stderr)
                    continue
                self.x[len(self.kept)] = fit_image(
                    pixels, size, how["interpolation"], how["resizing"]
                )
                self.kept.append(i)
        if self.faults and (strict or not self.kept):
            raise OSError(f"{len(self.faults)} of {len(paths)} images cannot be read")
        self.paths = [paths[i] for i in self.kept]
        self.pixels = self.x[: len(self.kept)]

    def skipped(self) -> str:
        return f" {len(self.faults)} unreadable images were left out." if self.faults else ""


def scratch(shape: tuple[int, ...]) -> np.ndarray:
    """float32 in a file without a name, which is gone with the array.

    Raises OSError where there is no room for it: to write there would end the process.
    """
    folder, size = tempfile.gettempdir(), 4 * math.prod(shape)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(
            f"the images need {size / 1e6:,.1f} MB in {folder}, where {free / 1e6:,.1f} MB are "
            f"free; set TMPDIR to a folder with more room, or give a smaller --size"
        )
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)


def read_folder(
    directory: str, size: tuple[int, int], strict: bool, how: Any = HOW, classes: bool = True
) -> tuple[Pictures, np.ndarray, list[str]]:
    """The images of a folder, their labels (N,), and the classes' names (none: no sub-folders)."""
    inferred = any(
        place.is_dir() and not place.name.startswith(".") for place in Path(directory).glob("*")
    )
    if classes and not inferred and Path(directory).is_dir():
        raise ValueError(f"{directory} has no sub-folders: put the images of each class into one")
    labels = "inferred" if inferred else None
    with warnings.catch_warnings():  # `train` refuses a single class, for others it is none's fault
        warnings.filterwarnings("ignore", ".* has one class only")
        found = image_dataset_from_directory(directory, labels, shuffle=False, verbose=False)
    pictures = Pictures(found.file_paths, size, how, strict)
    targets = found.labels if inferred else np.zeros(len(found.file_paths), np.int32)
    return pictures, targets[pictures.kept], list(found.class_names or ()) if inferred else []


# --- Extract -------------------------------------------------------------------------------------


def extract(arguments: argparse.Namespace) -> None:
    started = time.perf_counter()
    out = checked_output(arguments.output, (".h5",))
    base = pretrained(arguments)
    pictures, labels, names = read_folder(
        arguments.directory, arguments.size, arguments.strict, classes=False
    )
    f = extract_features(
        base,
        pictures.pixels,
        layers=arguments.layers.split(",") if arguments.layers else None,
        pooling=None if arguments.pooling == "none" else arguments.pooling,
        preprocess=preprocess_input,
        batch_size=16,
        verbose=1,
        out=out,
    )
    rows = out.with_suffix(".csv")
    # Names of files are bytes: 'surrogateescape' writes back those that are no UTF-8.
    with (
        replacing(rows) as part,
        open(part, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["row", "path", "label", "class"])
        for i, (path, label) in enumerate(zip(pictures.paths, labels, strict=True)):
            writer.writerow([i, path, label if names else "", names[label] if names else ""])
    print(f"F {f.shape} is in {out}, which image a row is of in {rows}.{pictures.skipped()}")
    print(f"{time.perf_counter() - started:.0f} s")


def pretrained(arguments: argparse.Namespace) -> Model:
    """VGG16 without top, frozen."""
    weights = None if arguments.weights == "none" else arguments.weights
    base = VGG16(include_top=False, weights=weights, input_shape=(*arguments.size, 3))
    base.trainable = False
    return base


def checked_output(path: str, endings: Sequence[str]) -> Path:
    """Before hours of work: whether its result can be written."""
    out = Path(path)
    if out.suffix not in endings:
        raise ValueError(f"{path}: the output's name must end in {' or '.join(endings)}")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.absolute().parent} to write {path} to")
    if out.is_dir():
        raise IsADirectoryError(f"{path} is a folder; the output must be the name of a file")
    try:
        tempfile.TemporaryFile(dir=out.absolute().parent).close()
    except OSError as error:
        raise OSError(
            f"{path} cannot be written: {error.strerror} in {out.absolute().parent}"
        ) from None
    return out


# --- Train ---------------------------------------------------------------------------------------


def train(arguments: argparse.Namespace, layers: Sequence[Any]) -> None:
    """The head on the frozen base; then, if asked for, blocks of the base with it. Augmentation
    adds views to the images.

    The base's features, and after each epoch how far the training is, are kept beside the output
    until all is done: the same command, run again after it was killed, goes on there and ends with
    the same bits.
    """
    started = time.perf_counter()
    out = checked_output(arguments.output, (".h5", ".keras"))
    if arguments.crop and arguments.crop != arguments.size:
        raise ValueError("--crop would change the size of the images; give --size instead")
    set_random_seed(arguments.seed)
    base = pretrained(arguments)
    stages = arguments.unfreeze.split(",") if arguments.unfreeze else []
    transfer.check_stages(base, stages)  # misspelt, or not from the top down
    pictures, labels, names = read_folder(arguments.directory, arguments.size, arguments.strict)
    if len(names) < 2:
        raise ValueError(f"{arguments.directory} has one class only; training needs two or more")
    held_out = arguments.validation
    if isinstance(held_out, float):
        rows, others = stratified_split(labels, held_out, arguments.seed)
        x, y = pictures.pixels[rows], labels[rows]
        x_val, y_val = pictures.pixels[others], labels[others]
    else:
        more, y_val, theirs = read_folder(held_out, arguments.size, arguments.strict)
        x, y, x_val = pictures.pixels, labels, more.pixels
        y_val = renumbered(y_val, theirs, names, held_out)
        pictures.faults += more.faults
    absent = [name for i, name in enumerate(names) if i not in y]
    if absent:
        raise ValueError(f"no readable image to train on of class {', '.join(absent)}")
    print(f"{len(x)} images to train on, {len(x_val)} to validate: {', '.join(names)}.", flush=True)
    copies = arguments.copies if layers else 0
    prepared = scratch(((copies + 1) * len(x), *arguments.size, 3))
    for view in range(copies + 1):
        for at in range(0, len(x), 64):
            part = np.asarray(x[at : at + 64])
            if view:
                part = augment(part, layers, arguments.seed, view - 1, first=at)
            prepared[view * len(x) + at :][: len(part)] = preprocess_input(part)
    one_hot = np.eye(len(names), dtype=np.float32)
    data = prepared, np.tile(one_hot[y], (copies + 1, 1))
    validation = preprocess_input(x_val), one_hot[y_val]

    model = with_head(base, arguments.head, len(names))
    model.metadata = {
        "class_names": names,
        "size": list(arguments.size),
        "preprocessing": "caffe",
        **HOW,
        "provenance": {
            "minitl": sys.modules["minitl"].__version__,
            "base": f"vgg16, weights {arguments.weights}",
            "folder": str(Path(arguments.directory).absolute().name),
            "images": {"training": len(x), "validation": len(x_val)},
            **{k: getattr(arguments, k) for k in ("seed", "head", "unfreeze", "epochs")},
            "augmentation": [type(layer).__name__ for layer in layers],
            "interrupted": False,
        },
    }
    model.compile(Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    cache = out.with_name(f"{out.name}.cache")
    cache.mkdir(exist_ok=True)
    common: dict[str, Any] = {"batch_size": arguments.batch_size, "verbose": arguments.verbose}
    trained = False

    def backup(name: str) -> callbacks.BackupAndRestore:
        return callbacks.BackupAndRestore(cache / name, delete_checkpoint=False)

    try:
        stopping = callbacks.EarlyStopping(patience=arguments.patience, restore_best_weights=True)
        model.fit(
            *data,
            epochs=arguments.epochs,
            validation_data=validation,
            callbacks=[stopping, backup("head")],
            cache_features=cache / "head.h5",
            **common,
        )
        trained = True
        if stages:
            # Another head, after other --epochs, or other stages: their backups are others.
            decides = [stages, arguments.fine_tune_epochs, model.get_weights()]
            transfer.fine_tune(
                model,
                data,
                validation,
                stages=stages,
                head_epochs=0,
                epochs=arguments.fine_tune_epochs,
                callbacks=[backup(f"stages-{state_file.fingerprint(decides)[:16]}")],
                cache_features=cache / "stages.h5",
                **common,
            )
        p = model.predict(validation[0], verbose=0)
    except KeyboardInterrupt:
        if trained or (getattr(model, "history", None) and model.history.epoch):
            model.metadata["provenance"]["interrupted"] = True
            if out.exists():  # perhaps a finished one
                out = out.with_stem(f"{out.stem}-interrupted")
            model.save(out)
            print(f"\nThe model so far is in {out}.", file=sys.stderr)
        print(f"\nThe same command goes on from what is in {cache}.", file=sys.stderr)
        raise
    found = evaluation.evaluate_predictions(y_val, p, names)
    model.metadata["provenance"]["validation"] = {
        "accuracy": found.accuracy,
        "macro F1": found.macro_f1,
    }
    model.save(out)
    shutil.rmtree(cache, ignore_errors=True)
    print(f"\nOn the {len(y_val)} validation images:\n{found}")
    print(f"\nThe model is in {out}.{pictures.skipped()}")
    print(f"{time.perf_counter() - started:.0f} s; next: minitl predict {out} IMAGE ...")


def with_head(base: Model, widths: str, classes: int) -> Model:
    """Means over places, dense layers of these widths ('' or '256,64'), softmax."""
    t = GlobalAveragePooling2D(name="average")(base.output)
    for i, width in enumerate(w for w in widths.split(",") if w):
        t = Dense(int(width), activation="relu", name=f"hidden{i + 1}")(t)
    t = Dropout(0.5, name="dropout")(t)
    return Model(base.input, Dense(classes, activation="softmax", name="head")(t), name="trained")


def renumbered(
    labels: np.ndarray, theirs: Sequence[str], names: Sequence[str], directory: str
) -> np.ndarray:
    """Labels of a folder that may lack some of the model's classes, as the model's numbers."""
    unknown = [name for name in theirs if name not in names]
    if unknown:
        raise ValueError(
            f"{directory} has sub-folders {unknown}, which are not among the classes {list(names)}"
        )
    return np.array([list(names).index(name) for name in theirs])[labels]


# --- Evaluate and predict ------------------------------------------------------------------------


def trained_model(path: str) -> tuple[Model, dict[str, Any]]:
    """A model and its metadata, which must say how to give it images."""
    model = load_model(path)
    about = {**HOW, **model.metadata}
    lacking = [key for key in ("class_names", "size", "preprocessing") if key not in about]
    if lacking:
        raise ValueError(
            f"{path} does not say its {', '.join(lacking)}; set model.metadata, or make it with "
            "`minitl train`"
        )
    if about["preprocessing"] not in PREPARE:
        raise ValueError(
            f"{path}: unknown preprocessing {about['preprocessing']!r}, expected one of "
            f"{list(PREPARE)}"
        )
    size = about["size"]
    about["size"] = (size, size) if isinstance(size, int) else tuple(size)
    return model, about


def probabilities(model: Model, about: dict[str, Any], pixels: np.ndarray) -> np.ndarray:
    """(N, m), 16 images at a time."""
    prepare, parts = PREPARE[about["preprocessing"]], []
    with progress_bar(len(pixels), "classifying", unit="image") as bar:
        for at in range(0, len(pixels), 16):
            some = np.asarray(pixels[at : at + 16])
            parts.append(model.predict(prepare(some), verbose=0))
            bar.update(len(some))
    return np.concatenate(parts)


def evaluate(arguments: argparse.Namespace) -> None:
    model, about = trained_model(arguments.model)
    pictures, labels, theirs = read_folder(
        arguments.directory, about["size"], arguments.strict, about
    )
    names = about["class_names"]
    labels = renumbered(labels, theirs, names, arguments.directory)
    found = evaluation.evaluate_predictions(
        labels, probabilities(model, about, pictures.pixels), names
    )
    if arguments.json:
        print(json.dumps(found.to_dict() | {"unreadable": len(pictures.faults)}, indent=1))
    else:
        print(f"{found}\n{len(labels)} images.{pictures.skipped()}")


def predict(arguments: argparse.Namespace) -> None:
    """Whatever can be read is predicted; then unreadable images are an error."""
    model, about = trained_model(arguments.model)
    names = about["class_names"]
    paths: list[str] = []
    for path in arguments.images:
        if Path(path).is_dir():
            paths += image_dataset_from_directory(
                path, None, shuffle=False, verbose=False
            ).file_paths
        else:
            paths.append(path)
    pictures = Pictures(paths, about["size"], about, strict=False)
    p = probabilities(model, about, pictures.pixels)
    best = p.argmax(axis=1)
    if arguments.json:
        rows = [
            {
                "path": path,
                "class": names[k],
                "probability": float(row[k]),
                "probabilities": dict(zip(names, map(float, row), strict=True)),
            }
            for path, row, k in zip(pictures.paths, p, best, strict=True)
        ]
        print(json.dumps(rows, indent=1))
    elif arguments.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["path", "class", *names])
        for path, row, k in zip(pictures.paths, p, best, strict=True):
            writer.writerow([path, names[k], *(f"{v:.6f}" for v in row)])
    else:
        width = max(map(len, [*pictures.paths, "image"]))
        wide = max(map(len, [*names, "class"]))
        print(f"{'image':{width}}  {'class':{wide}}  probability")
        for path, row, k in zip(pictures.paths, p, best, strict=True):
            print(f"{path:{width}}  {names[k]:{wide}}  {row[k]:11.4f}")
    if pictures.faults:
        sys.stdout.flush()
        raise OSError(f"{len(pictures.faults)} of {len(paths)} images cannot be read")


# --- Info ----------------------------------------------------------------------------------------


def info(arguments: argparse.Namespace) -> None:
    """What a file is, told by its contents."""
    path = Path(arguments.file)
    with open(path, "rb") as file:
        start = file.read(512)
    if state_file.is_state(start):
        backup = state_file.read_state(path)
        print(f"{path}: a backup of a training (BackupAndRestore)")
        print(f"epochs done: {backup['place']['epoch']}, steps: {backup['place']['step']}")
        for name, value in backup["identity"].items():
            _show(f"{name}: {str(value)[:100]}")
        print(f"weights: {sum(np.size(w) for w in backup['weights'].values()):,} numbers")
        return
    if start.startswith(SIGNATURE) and feature_file.is_feature_file(path):
        print(f"{path}: a feature file\n{feature_file.describe(path)}")
        return
    stored = read_weights(path)
    if "model_config" in stored.attributes:
        model = load_model(path)
        print(f"{path}: a model")
        model.summary(print_fn=_show)
        for name, value in model.metadata.items():
            _show(f"{name}: {value if isinstance(value, str) else json.dumps(value)}")
        return
    total = 0
    print(f"{path}: weights")
    for layer, arrays in stored.layers:
        for name, array in arrays:
            total += array.size
            _show(f"{layer:24} {name:40} {array.shape!s:20} {array.dtype}")
    print(f"{total:,} numbers")


def _show(text: str) -> None:
    """Print what a stranger's file says, line by line, without commands to the terminal."""
    print("\n".join(map(feature_file.visible, text.split("\n"))))
