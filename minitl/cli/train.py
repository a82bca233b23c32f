"""`minitl train`: a classifier of your own pictures, on a pretrained VGG16.

The base runs once over every image: `fit` keeps its features in a folder beside the output, where
a backup is written after each epoch as well. The same command, run again after it was killed, goes
on there and ends with the same bits. `demo.py` takes its steps from here, too.
"""

import argparse
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl.applications import vgg16
from minitl.callbacks import BackupAndRestore, EarlyStopping, History
from minitl.cli import options
from minitl.cli.folders import check_output, find, readable
from minitl.cli.options import option
from minitl.config import set_random_seed
from minitl.data import splits
from minitl.data.found import left_out, same_pictures
from minitl.data.pictures import READING, Prepared
from minitl.judging.evaluation import evaluate_predictions
from minitl.layers import Dense, Dropout, GlobalAveragePooling2D
from minitl.models import Model
from minitl.optimizers import Adam
from minitl.storage import state
from minitl.storage.atomic import locked
from minitl.transfer import stages

Pair = tuple[Any, np.ndarray]  # images, or F, and what they are: (N, m), one-hot


def add_to(commands: Any) -> None:
    parser = options.add_command(commands, train)
    options.add_folder(parser, "model.h5")
    hidden = "hidden layers below the softmax, 256 or 256,64 say (default: none)"
    option(parser, "--head", "WIDTHS", hidden, "", type=options.widths)
    blocks = "what to fine-tune after the head, from the top: block5 or block5,block4"
    option(parser, "--unfreeze", "BLOCKS", blocks)
    for name, default, text in (
        ("epochs", 50, "passes over the images for the head, at most"),
        ("fine-tune-epochs", 5, "passes for each unfrozen block"),
        ("patience", 10, "the head is done after so many epochs without a better val_loss"),
        ("batch-size", 16, "images per step"),
        ("copies", 3, "augmented views beside each image, if augmentation is asked for"),
    ):
        option(parser, f"--{name}", "N", text, default, type=options.count)
    option(parser, "--seed", "N", "of all that is random", 0, type=int)
    held_out = "a share of every class, or a folder of its own"
    option(parser, "--validation", "SHARE_OR_DIR", held_out, 0.2, type=options.share_or_folder)
    shown = "while it trains, 0: nothing, 1: a bar, 2: one line per epoch"
    option(parser, "--verbose", None, shown, 1, type=int, choices=(0, 1, 2))
    options.add_augmentation(parser)


def train(arguments: argparse.Namespace) -> None:
    """Train a classifier on a folder with one sub-folder of images per class.

    A head is trained on a frozen VGG16, then blocks are fine-tuned if asked for; the model is
    evaluated on the validation images and saved. Ctrl-C saves the model so far; after that, or
    after a kill, the same command goes on from what was kept beside the model.

    example: minitl train photos/ -o model.h5 --unfreeze block5 --flip horizontal
    """
    started = time.perf_counter()
    layers = options.augmentation_of(arguments)
    out = check_output(arguments.output, (".h5", ".keras"))
    if arguments.crop and arguments.crop != arguments.size:
        raise ValueError("--crop would change the size of the images; give --size instead")
    cache = out.with_name(f"{out.name}.cache")
    cache.mkdir(exist_ok=True)
    busy = f"another process is training into {out}; wait for it, or give another --output"
    with locked(cache / "training", busy=busy):
        try:
            _train(arguments, layers, out, cache)
        finally:  # nothing to go on from, after a refusal
            if cache.exists() and len(list(cache.iterdir())) < 2:
                shutil.rmtree(cache, ignore_errors=True)
    print(f"{time.perf_counter() - started:.0f} s; next: minitl predict {out} IMAGE ...")


def _train(arguments: argparse.Namespace, layers: list[Any], out: Path, cache: Path) -> None:
    set_random_seed(arguments.seed)
    base = frozen_vgg16(arguments.size, arguments.weights)
    blocks = arguments.unfreeze.split(",") if arguments.unfreeze else []
    stages.check_stages(base, blocks)  # misspelt, or not from the top down

    x, y, x_val, y_val, names, skipped = read_images(arguments)
    print(f"{len(x)} images to train on, {len(x_val)} to validate: {', '.join(names)}.", flush=True)
    one_hot = np.eye(len(names), dtype=np.float32)
    seen = Prepared(x, vgg16.preprocess_input, layers, arguments.copies, arguments.seed)
    data: Pair = seen, np.tile(one_hot[y], (len(seen) // len(x), 1))
    validation: Pair = Prepared(x_val, vgg16.preprocess_input), one_hot[y_val]
    means = GlobalAveragePooling2D(name="average")(base.output)
    hidden = [int(width) for width in arguments.head.split(",") if width]
    model = Model(base.input, softmax_head(means, len(names), hidden), name="trained")
    about = {"class_names": names, "size": list(arguments.size), "preprocessing": "caffe"}
    came = provenance(arguments, {"training": len(x), "validation": len(x_val)}, layers)
    model.metadata = about | READING | {"provenance": came}
    fit: dict[str, Any] = {"batch_size": arguments.batch_size, "verbose": arguments.verbose}
    backup = BackupAndRestore(cache / "head", delete_checkpoint=False)
    kept = {"callbacks": [backup], "cache_features": cache / "head.h5"}
    patience, epochs, more = arguments.patience, arguments.epochs, arguments.fine_tune_epochs
    trained = False
    try:
        fit_best(model, data, validation, 1e-3, patience, epochs=epochs, **kept, **fit)
        trained = True
        if blocks:
            fine_tune(model, data, validation, blocks, cache, epochs=more, **fit)
        found = evaluate_predictions(y_val, model.predict(validation[0], verbose=0), names)
    except KeyboardInterrupt:
        if trained or (getattr(model, "history", None) and model.history.epoch):
            save_interrupted(model, out)
        print(f"\nThe same command goes on from what is in {cache}.", file=sys.stderr)
        raise
    came["validation"] = {"accuracy": found.accuracy, "macro F1": found.macro_f1}
    model.save(out)
    shutil.rmtree(cache, ignore_errors=True)
    print(f"\nOn the {len(y_val)} validation images:\n{found}")
    print(f"\nThe model is in {out}. {skipped}".rstrip())


def frozen_vgg16(size: tuple[int, int], weights: str = "imagenet") -> Model:
    """VGG16 without top for images (H, W); `weights` 'imagenet', of a file, or 'none': random."""
    given = None if weights == "none" else weights
    base = vgg16.VGG16(include_top=False, weights=given, input_shape=(*size, 3))
    base.trainable = False
    return base


def read_images(arguments: argparse.Namespace) -> tuple[Any, Any, Any, Any, list[str], str]:
    """x, y, x_val, y_val: pictures and labels (N,), to train on and held out.

    Also the classes' names, and a sentence about what was left out. Raises ValueError for fewer
    than two classes, and for one that has no image to train on.
    """
    size, strict, held_out = arguments.size, arguments.strict, arguments.validation
    pictures = find(arguments.directory, size, strict)
    names = pictures.class_names
    if len(names) < 2:
        raise ValueError(f"{arguments.directory} has one class only; training needs two or more")
    side = np.full(len(pictures), "train")
    if pictures.split is not None:  # train/, val/, test/: the last is for `evaluate`
        kinds = dict(zip(*np.unique(pictures.split, return_counts=True), strict=True))
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        kept = "; test images are left for `evaluate`" if "test" in kinds else ""
        print(f"{arguments.directory} is split: {told}{kept}.")
        pictures = pictures.part(pictures.split != "test")
        side = pictures.split
    if isinstance(held_out, str):
        pictures = pictures.part(side == "train")
        more = find(held_out, size, strict, names)
        side = np.repeat(["train", "validation"], [len(pictures), len(more)])
        pictures = pictures.joined(more)
    every = readable(pictures, strict)
    side, y = side[pictures.readable()], every.labels
    if absent := [name for i, name in enumerate(names) if i not in y[side == "train"]]:
        raise ValueError(f"no readable image to train on of class {', '.join(absent)}")
    if isinstance(held_out, float) and "validation" not in side:
        side = _sides(y, names, held_out, arguments.seed)
    rows, others = np.flatnonzero(side == "train"), np.flatnonzero(side == "validation")
    for sentence in same_pictures(every, side):
        warnings.warn(sentence, stacklevel=1)
    x, x_val = every.part(rows), every.part(others)
    return x, y[rows], x_val, y[others], names, left_out(pictures)


def _sides(y: np.ndarray, names: list[str], share: float, seed: int) -> np.ndarray:
    """(N,) 'train' or 'validation', a share of every class. ValueError for a class of one image."""
    if few := [repr(names[i]) for i in np.flatnonzero(np.bincount(y, minlength=len(names)) == 1)]:
        what = f"class {', '.join(few)} has one readable image only, and a share of every class is"
        how = "add images, take its folder away, or give --validation DIR"
        raise ValueError(f"{what} held out to validate: {how}")
    side = np.full(len(y), "validation")
    side[splits.stratified_split(y, share, seed)[0]] = "train"
    return side


def softmax_head(features: Any, classes: int, widths: Sequence[int] = ()) -> Any:
    """Probabilities (N, m) from features (N, D): dense layers of these widths, dropout, softmax."""
    for i, width in enumerate(widths):
        features = Dense(width, activation="relu", name=f"hidden{i + 1}")(features)
    dropped = Dropout(0.5, name="dropout")(features)
    return Dense(classes, activation="softmax", name="head")(dropped)


def provenance(arguments: Any, images: dict[str, int], layers: Sequence[Any]) -> dict[str, Any]:
    """Where a model comes from, to be kept in its file."""
    return {
        "minitl": sys.modules["minitl"].__version__,
        "base": f"vgg16, weights {arguments.weights}",
        "folder": str(Path(arguments.directory).absolute().name),
        "images": images,
        **{k: getattr(arguments, k) for k in ("seed", "head", "unfreeze", "epochs")},
        "augmentation": [type(layer).__name__ for layer in layers],
        "interrupted": False,
    }


def fit_best(
    model: Model, data: Pair, validation: Pair, learning_rate: float, patience: int, **fit: Any
) -> History:
    """Train with Adam until `patience` epochs were no better, and keep the best weights.

    `fit` are more arguments of `Model.fit`: epochs, which is the most that it trains, and others.
    """
    model.compile(Adam(learning_rate), "categorical_crossentropy", metrics=["accuracy"])
    stopping = EarlyStopping(patience=patience, restore_best_weights=True)
    fit["callbacks"] = [stopping, *fit.get("callbacks", ())]
    return model.fit(*data, validation_data=validation, **fit)


def fine_tune(
    model: Model, data: Pair, validation: Pair, blocks: list[str], cache: Path, **fit: Any
) -> None:
    """Unfreeze one block after the other and train it with the head; what is kept is in `cache`."""
    # Another head, after other --epochs, or other blocks: their backups are others.
    decides = state.fingerprint([blocks, fit["epochs"], model.get_weights()])
    backup = BackupAndRestore(cache / f"stages-{decides[:16]}", delete_checkpoint=False)
    fit |= {"callbacks": [backup], "cache_features": cache / "stages.h5"}
    stages.fine_tune(model, data, validation, stages=blocks, head_epochs=0, **fit)


def save_interrupted(model: Model, out: Path) -> None:
    """Save the model so far, but not over a file that is there: it may be a finished one."""
    model.metadata["provenance"]["interrupted"] = True
    if out.exists():
        out = out.with_stem(f"{out.stem}-interrupted")
    model.save(out)
    print(f"\nThe model so far is in {out}.", file=sys.stderr)
