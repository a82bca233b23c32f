"""`minitl train`: a classifier of your own pictures, on a pretrained network.

The base runs once over every image, and its features F are kept in a folder beside the output. On F
the best softmax head is solved for, in seconds: `solve` chooses features and penalty by
cross-validation (`transfer/choosing.py`). Fine-tuning, where it is asked for, starts from there and
is kept if it helps. With `--optimizer adam` or `sgd` the head is trained step by step instead. What
is done is written beside the output as well: the same command, run again after it was killed, goes
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

from minitl.applications import VGG16, VGG19, EfficientNetB0, MobileNetV2, ResNet50
from minitl.callbacks import BackupAndRestore, EarlyStopping, History
from minitl.cli import options, reports
from minitl.cli.folders import check_output, find, readable
from minitl.cli.options import option
from minitl.cli.solving import Images, Solved, Solving, told
from minitl.cli.trained import PREPARE, PREPROCESSING
from minitl.config import set_random_seed
from minitl.data import splits
from minitl.data.found import left_out, same_pictures
from minitl.data.pictures import READING, Prepared
from minitl.judging.duplicates import thumbnail
from minitl.judging.evaluation import evaluate_predictions
from minitl.judging.intervals import figures
from minitl.judging.novelty import Novelty
from minitl.judging.seen import look, remember
from minitl.layers import Dense, Dropout, GlobalAveragePooling2D
from minitl.models import Model
from minitl.optimizers import SGD, Adam, Optimizer
from minitl.storage import state
from minitl.storage.atomic import locked, visible
from minitl.transfer import stages
from minitl.transfer.solved import POOLING, with_features

BASES: Any = {"vgg16": VGG16, "vgg19": VGG19, "resnet50": ResNet50}  # keys of `solved.LEVELS`
BASES |= {"mobilenet_v2": MobileNetV2, "efficientnet_b0": EfficientNetB0}
Pair = tuple[Any, np.ndarray]  # images, or F, and what they are: (N, m), one-hot


def add_to(commands: Any) -> None:
    parser = options.add_command(commands, train)
    options.add_folder(parser, "model.h5")
    way = "how the head is found: 'exact' solves for the best one; the others go step by step"
    option(parser, "--optimizer", None, way, "exact", choices=("exact", "adam", "sgd"))
    option(parser, "--layers", "A,B", "whose outputs the head reads (default: the best of several)")
    pooling = "of a layer's maps over their places; 'auto' takes the best"
    option(parser, "--pooling", None, pooling, "auto", choices=POOLING)
    hidden = "hidden layers below the softmax, 256 or 256,64 say, trained step by step with Adam"
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
    grouped = "a column of the CSV file, or a regular expression that finds it in the path: images"
    option(parser, "--group-by", "GROUP", f"{grouped} of one group are held out together")
    option(parser, "--seed", "N", "of all that is random", 0, type=int)
    held_out = "a share of every class, or a folder of its own"
    option(parser, "--validation", "SHARE_OR_DIR", held_out, 0.2, type=options.share_or_folder)
    shown = "while it trains, 0: nothing, 1: a bar, 2: one line per epoch"
    option(parser, "--verbose", None, shown, 1, type=int, choices=(0, 1, 2))
    what = "a page (.html) about the training; 'none' for none (default: beside the model)"
    option(parser, "--report", "FILE", what)
    options.add_augmentation(parser)


def train(arguments: argparse.Namespace) -> None:
    """Train a classifier on a folder with one sub-folder of images per class.

    The best softmax head on a frozen base is solved for, its features and its penalty chosen by
    cross-validation; then blocks are fine-tuned if asked for, and kept so if that helps on the
    validation images. The model that is saved has learned its head from all images, those held out
    to validate included. Ctrl-C saves the model so far; after that, or after a kill, the same
    command goes on from what was kept beside the model.

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
    page = reports.page_of(arguments.report, out)
    base = frozen_base(arguments.size, arguments.weights, arguments.base)
    blocks = arguments.unfreeze.split(",") if arguments.unfreeze else []
    stages.check_stages(base, blocks)  # misspelt, or not from the top down
    solving = Solving.of(arguments, base)

    images = read_images(arguments)
    rows, others = images.training, images.validation
    counts = f"{len(rows)} images to train on, {len(others)} to validate"
    print(f"{counts}: {', '.join(map(visible, images.names))}.", flush=True)
    came = provenance(arguments, {"training": len(rows), "validation": len(others)}, layers)
    about: dict[str, Any] = {
        "class_names": images.names,
        "size": list(arguments.size),
        "preprocessing": PREPROCESSING.get(arguments.base, "caffe"),
    }
    about |= READING | {"provenance": came}
    learning = Learning(arguments, images, about, cache, layers)
    try:
        learning.head(base, solving)
        learning.fine_tune(blocks)
        p = learning.predict_validation()
    except KeyboardInterrupt:
        learning.save_interrupted(out)
        print(f"\nThe same command goes on from what is in {cache}.", file=sys.stderr)
        raise
    y_val = images.labels[others]
    found = evaluate_predictions(y_val, p, images.names)
    came["validation"] = {"accuracy": found.accuracy, "macro F1": found.macro_f1}
    about["figures"] = {"validation": figures(y_val, p, images.groups_of(others))}
    print(f"\nOn the {len(y_val)} validation images:\n{found}\n{told(about['figures'])}")
    if blocks and not learning.moved:
        print(f"Fine-tuning {', '.join(blocks)} did not help on them: it is not kept.")
    learning.finish().save(out)
    shutil.rmtree(cache, ignore_errors=True)
    print(f"\nThe model is in {out}. {images.skipped}".rstrip())
    if page is not None:
        reports.trained(arguments, learning, p, out).write(page)
        print(f"The report is in {page}.")


class Learning:
    """From images to a model: the head, then blocks of the base, then what the file says.

    `model` is the model so far, `solved` its head where it was solved for, and `moved` says whether
    fine-tuning has changed anything.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        images: Images,
        about: dict[str, Any],
        cache: Path,
        layers: Sequence[Any],
    ):
        self.arguments, self.images, self.about, self.cache = arguments, images, about, cache
        self.prepare = prepare = PREPARE[about["preprocessing"]]
        rows, others = images.training, images.validation
        one_hot = np.eye(len(images.names), dtype=np.float32)[images.labels]
        every = images.every
        x = Prepared(every.part(rows), prepare, layers, arguments.copies, arguments.seed)
        self.data: Pair = x, np.tile(one_hot[rows], (len(x) // len(rows), 1))
        self.validation: Pair = Prepared(every.part(others), prepare), one_hot[others]
        self.fit = {"batch_size": arguments.batch_size, "verbose": arguments.verbose}
        self.layers, self.moved, self.trained = layers, False, False
        self.model: Any = None
        self.solved: Solved | None = None
        self.histories: list[tuple[str, History]] = []

    def head(self, base: Model, solving: Solving | None) -> None:
        """Solve for the head, or train it step by step."""
        arguments = self.arguments
        optimizer = SGD(1e-2, momentum=0.9) if arguments.optimizer == "sgd" else Adam(1e-3)
        if solving is not None:
            self.solved = solving.solve(self.images, self.layers, self.cache)
            self.model = self.solved.model()
            self.model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
        else:
            means = GlobalAveragePooling2D(name="average")(base.output)
            hidden = [int(width) for width in arguments.head.split(",") if width]
            p = softmax_head(means, len(self.images.names), hidden)
            self.model = Model(base.input, p, name="trained")
            self.model.metadata = self.about
            backup = BackupAndRestore(self.cache / "head", delete_checkpoint=False)
            how = {"epochs": arguments.epochs, "callbacks": [backup], **self.fit}
            how["cache_features"] = self.cache / "head.h5"
            patience = arguments.patience
            done = fit_best(self.model, self.data, self.validation, optimizer, patience, **how)
            self.histories.append(("head", done))
        self.model.metadata, self.trained = self.about, True

    def fine_tune(self, blocks: list[str]) -> None:
        """Unfreeze one block after the other and train it with the head; what is no better on the
        validation images is undone."""
        if not blocks:
            return
        before = self.model.get_weights()
        epochs = self.arguments.fine_tune_epochs
        # Another head, after other --epochs, or other blocks: their backups are others.
        decides = state.fingerprint([blocks, epochs, before])
        backup = BackupAndRestore(self.cache / f"stages-{decides[:16]}", delete_checkpoint=False)
        how = {**self.fit, "callbacks": [backup], "cache_features": self.cache / "stages.h5"}
        how |= {"stages": blocks, "head_epochs": 0, "epochs": epochs}
        self.histories += stages.fine_tune(self.model, self.data, self.validation, **how)
        self.moved = any(map(np.any, map(np.not_equal, before, self.model.get_weights())))

    def predict_validation(self) -> np.ndarray:
        """P (N, m) of the images held out; from F, where that has not changed."""
        if self.solved is None or self.moved:
            return np.asarray(self.model.predict(self.validation[0], verbose=0))
        return self.solved.predict(self.images.validation)

    def finish(self) -> Model:
        """The model to save. A head that was solved for, on a base that has not moved, learns from
        the validation images as well, unless they are a folder of their own. The file remembers
        what the model has learned from."""
        images, rows = self.images, self.images.training
        if self.solved is not None:
            self.about["head"] = self.solved.about()
            self.about["figures"]["folds"] = self.solved.figures()
            print(f"\n{self.solved.report()}")
        if self.solved is not None and not self.moved:
            self.model, rows = self.solved.model(not images.apart), self.solved.judged
            self.model.metadata = self.about
            novelty = self.solved.novelty(rows)
        else:
            pictures = Prepared(images.every.part(rows), self.prepare)
            f, p = with_features(self.model).predict(pictures, verbose=0)
            novelty = Novelty.fit(f, images.labels[rows], p)
        digests = [images.every.digests[images.every.paths[row]] for row in rows]
        looks = np.array([look(images.thumbnails[row]) for row in rows])
        self.about["seen"] = remember(digests, looks, self.arguments.seed)
        self.about["novelty"] = novelty.to_dict()
        return self.model

    def save_interrupted(self, out: Path) -> None:
        """Save the model so far, but not over a file that is there: it may be a finished one."""
        history = getattr(self.model, "history", None)
        if self.trained or (history and history.epoch):
            self.about["provenance"]["interrupted"] = True
            if out.exists():
                out = out.with_stem(f"{out.stem}-interrupted")
            self.model.save(out)
            print(f"\nThe model so far is in {out}.", file=sys.stderr)


def frozen_base(size: tuple[int, int], weights: str = "imagenet", base: str = "vgg16") -> Model:
    """A network without top for images (H, W), by its name, a key of LEVELS; `weights`
    'imagenet', of a file, or 'none': random."""
    given = None if weights == "none" else weights
    made = BASES[base](include_top=False, weights=given, input_shape=(*size, 3))
    made.trainable = False
    return made


def read_images(arguments: argparse.Namespace) -> Images:
    """The images to train on and those held out. Raises ValueError for fewer than two classes, and
    for one that has no image to train on."""
    size, strict, held_out = arguments.size, arguments.strict, arguments.validation
    pictures = find(arguments.directory, size, strict, group_by=arguments.group_by)
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
    apart = isinstance(held_out, str) or "validation" in side
    if isinstance(held_out, str):
        pictures = pictures.part(side == "train")
        more = find(held_out, size, strict, names, group_by=arguments.group_by)
        side = np.repeat(["train", "validation"], [len(pictures), len(more)])
        groups = [pictures.groups, more.groups]
        pictures = pictures.joined(more)
        if all(each is not None for each in groups):
            pictures.groups = np.concatenate(groups)
    thumbnails: list[np.ndarray] = []

    def see(_: np.ndarray, pixels: np.ndarray) -> None:
        thumbnails.extend(map(thumbnail, pixels))

    every = readable(pictures, strict, see)
    side, y = side[pictures.readable()], every.labels
    if absent := [name for i, name in enumerate(names) if i not in y[side == "train"]]:
        raise ValueError(f"no readable image to train on of class {', '.join(absent)}")
    if not apart:
        side = _sides(y, names, held_out, arguments.seed, every.groups)
    rows, others = np.flatnonzero(side == "train"), np.flatnonzero(side == "validation")
    for sentence in same_pictures(every, side):
        warnings.warn(sentence, stacklevel=1)
    skipped = left_out(pictures)
    return Images(every, rows, others, names, apart, skipped, thumbnails)


def _sides(
    y: np.ndarray, names: list[str], share: float, seed: int, groups: Any = None
) -> np.ndarray:
    """(N,) 'train' or 'validation': a share of every class, no group on both sides. ValueError for
    a class of one image."""
    if few := [repr(names[i]) for i in np.flatnonzero(np.bincount(y, minlength=len(names)) == 1)]:
        what = f"class {', '.join(few)} has one readable image only, and a share of every class is"
        how = "add images, take its folder away, or give --validation DIR"
        raise ValueError(f"{what} held out to validate: {how}")
    side = np.full(len(y), "validation")
    if groups is None:
        side[splits.stratified_split(y, share, seed)[0]] = "train"
        return side
    parts = min(max(round(1 / share), 2), len(set(groups)))
    side[splits.folds(y, parts, seed, groups) != 0] = "train"
    if absent := [name for i, name in enumerate(names) if i not in y[side == "train"]]:
        what = f"class {', '.join(absent)} has too few groups: none is left to train on"
        raise ValueError(f"{what} when some are held out to validate")
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
        "base": f"{arguments.base}, weights {arguments.weights}",
        "folder": str(Path(arguments.directory).absolute().name),
        "images": images,
        **{k: getattr(arguments, k) for k in ("seed", "optimizer", "head", "unfreeze", "epochs")},
        "augmentation": [type(layer).__name__ for layer in layers],
        "interrupted": False,
    }


def fit_best(
    model: Model, data: Pair, validation: Pair, optimizer: Optimizer, patience: int, **fit: Any
) -> History:
    """Train until `patience` epochs were no better, and keep the best weights.

    `fit` are more arguments of `Model.fit`: epochs, which is the most that it trains, and others.
    """
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    stopping = EarlyStopping(patience=patience, restore_best_weights=True)
    fit["callbacks"] = [stopping, *fit.get("callbacks", ())]
    return model.fit(*data, validation_data=validation, **fit)
