"""`minitl demo`: VGG16 becomes an inspector of solar cells, in the six steps of transfer learning.

1. a pretrained model: VGG16 with its ImageNet weights;
2. data: electroluminescence images of solar cells, sound or defective (`data/elpv.py`);
3. features: the frozen base is run once over every image, and the output of block4 kept on disk;
4. layers of one's own on top: P = softmax(W^T F + b);
5. training: the head alone is solved for on F; then block5 is unfrozen and trained with it at a
   small rate;
6. evaluation: accuracy, F1, confusion matrix, before and after; what does not help is not kept.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minitl import layers
from minitl.applications.vgg16 import preprocess_input
from minitl.callbacks import History
from minitl.cli.options import add_command, flag, option
from minitl.cli.train import fit_best, frozen_base
from minitl.config import next_seed, set_random_seed
from minitl.data import elpv, resize_images, splits, to_rgb
from minitl.judging import plots
from minitl.judging.evaluation import Evaluation, evaluate_predictions
from minitl.models import Model
from minitl.optimizers import Adam
from minitl.storage.atomic import cache_folder, replacing
from minitl.transfer.choosing import choose_head, solve_chosen
from minitl.transfer.features import extract_features

SIDE = 224  # pixels; the images are 300 x 300
NAMES = elpv.CLASS_NAMES[2]
Judged = tuple[float, Evaluation]  # the loss, and the rest


def add_to(commands: Any) -> None:
    parser = add_command(commands, demo)
    flag(parser, "--full", "use all 2,624 cells")
    option(parser, "--images", "N", "use so many cells", 800, type=int)
    option(parser, "--output", "DIR", "a folder for what is written", "minitl-demo")
    option(parser, "--seed", "N", "of all that is random", 0, type=int)
    option(parser, "--epochs", "N", "passes over the images for block5", 5, type=int)


def demo(arguments: argparse.Namespace) -> None:
    """Turn VGG16 into an inspector of solar cells, from start to end.

    Extracts features of images with a frozen VGG16, solves for a softmax head, fine-tunes block5,
    evaluates, and writes plots and the model. Some minutes on two cores. May be interrupted: what
    is downloaded and extracted is kept. Needs `pip install 'minitl[demo]'`.
    """
    started = time.perf_counter()
    output, seed, epochs = Path(arguments.output), arguments.seed, arguments.epochs
    output.mkdir(parents=True, exist_ok=True)
    set_random_seed(seed)

    print("\n--- 1. The pretrained model", flush=True)
    base = frozen_base((SIDE, SIDE))
    print(f"VGG16 without top, {base.count_params():,} parameters, all frozen.")

    print("\n--- 2. The data", flush=True)
    cells = read_cells(None if arguments.full else arguments.images, seed)

    print("\n--- 3. Features", flush=True)
    inspector, head, upper = build(base, len(NAMES))
    maps = maps_of(cells.images, base, f"demo-{len(cells.images)}-seed{seed}.h5")
    maps = maps.reshape(-1, *upper.input_shape[1:])
    f = Model(upper.input, head.input, name="features_of_maps").predict(maps, verbose=0)
    print(f"F has shape {f.shape}: {f.shape[0]} images, D = {f.shape[1]} features each.")

    print("\n--- 4. and 5. The head P = softmax(W^T F + b), base frozen", flush=True)
    solve(head, f[cells.train], cells.labels[cells.train])
    before, kept = judge(head, f, cells.test, cells), upper.get_weights()
    held_out_loss, _ = judge(head, f, cells.validation, cells)

    print("\n--- 5. Fine-tuning: block5 unfrozen, at a small rate", flush=True)
    history = fine_tune(base, upper, maps, cells, epochs)
    after = judge(upper, maps, cells.test, cells)

    print("\n--- 6. Evaluation on the test cells", flush=True)
    stages = {"head only": before, "block5 fine-tuned": after}
    print(table(stages))
    for stage, (_, found) in stages.items():
        print(f"\n{stage}\n{found}")
    best = after[1]
    if min(history.history["val_loss"]) >= held_out_loss:
        print(f"\nIt is no better than {held_out_loss:.4f} on the cells held out, and not kept.")
        upper.set_weights(kept)
        best = before[1]
    inspector.metadata = {"class_names": list(NAMES), "preprocessing": "caffe", "size": SIDE}
    inspector.save(output / "model.h5")
    plots.learning_curves([("block5 unfrozen", history)], output / "curves.png")
    plots.confusion_matrix_plot(best.confusion, NAMES, output / "confusion.png")
    pixels, labels = cells.images[cells.test], cells.labels[cells.test]
    p = upper.predict(maps[cells.test], verbose=0)
    plots.prediction_sheet(pixels, labels, p, NAMES, output / "samples.png", seed=seed)
    seconds = round(time.perf_counter() - started, 1)
    results = {"images": len(f), "seed": seed, "F": list(f.shape), "seconds": seconds}
    results |= {stage: {"loss": loss} | found.to_dict() for stage, (loss, found) in stages.items()}
    with replacing(output / "results.json") as part:
        part.write_text(json.dumps(results, indent=1))
    print(f"\nWritten to {output}: model.h5, curves.png, confusion.png, samples.png, results.json")
    print(f"{seconds:.0f} seconds in all.")


class Cells(NamedTuple):
    """Images (N, 300, 300), gray, 0-255, their labels (N,), and rows for three purposes."""

    images: np.ndarray
    labels: np.ndarray
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def read_cells(count: int | None, seed: int) -> Cells:
    """So many solar cells (all when None), split: a quarter to test on, a fifth of the rest to
    validate. Every kind of cell and of defect has its share in the choice and in the test."""
    images, probability, types = elpv.load_data()
    labels = elpv.labels(probability)
    kinds = splits.strata(probability, types)
    if count is not None:
        chosen = splits.stratified_subset(kinds, count, seed)
        images, labels, kinds = images[chosen], labels[chosen], kinds[chosen]
    rest, test = splits.stratified_split(kinds, 0.25, seed)
    inner, validation = splits.stratified_split(labels[rest], 0.2, next_seed())
    counts = ", ".join(f"{n} {name}" for n, name in zip(np.bincount(labels), NAMES, strict=True))
    print(f"{len(images)} solar cells: {counts}.")
    print(f"{len(inner)} to train on, {len(validation)} to validate, {len(test)} to test.")
    return Cells(images, labels, rest[inner], rest[validation], test)


def build(base: Model, classes: int) -> tuple[Model, Model, Model]:
    """Three models that share their layers and end in the same softmax.

    inspector  from images to probabilities: what is saved in the end
    head       from F to probabilities: trained first
    upper      from the maps of block4 to probabilities: block5 and head, trained second

    F puts side by side what block5 finds on average and at most, and what block4 finds on
    average: D = 3 * 512. Normalization brings its columns, some a hundred times larger than
    others, to one scale, so that a penalty and a learning rate are fair to all.
    """
    maps4 = base.get_layer("block4_pool").output
    average5 = layers.GlobalAveragePooling2D(name="block5_average")(base.output)
    maximum5 = layers.GlobalMaxPooling2D(name="block5_maximum")(base.output)
    average4 = layers.GlobalAveragePooling2D(name="block4_average")(maps4)
    f = layers.Concatenate(name="F")([average5, maximum5, average4])
    dense = layers.Dense(classes, activation="softmax", name="head")
    p = dense(layers.Normalization(name="standardise")(f))
    starts = {"inspector": base.input, "head_on_F": f, "block5_and_head": maps4}
    inspector, head, upper = (Model(start, p, name=name) for name, start in starts.items())
    return inspector, head, upper


def maps_of(cells: np.ndarray, base: Model, name: str) -> np.ndarray:
    """What block4 makes of gray cells (N, 300, 300), 0-255; kept in a file of the cache folder."""

    def prepare(some: np.ndarray) -> np.ndarray:  # (N, 224, 224, 3), BGR, centred
        return preprocess_input(resize_images(to_rgb(some), (SIDE, SIDE), "bilinear"))

    how: dict[str, Any] = {"preprocess": prepare, "batch_size": 16, "verbose": 1}
    return extract_features(base, cells, "block4_pool", out=cache_folder("features") / name, **how)


def solve(head: Model, f: np.ndarray, y: np.ndarray) -> None:
    """Give the head its optimum on F (N, D), labels (N,): the W and b of the least loss, with the
    penalty that is best in cross-validation (`transfer/choosing.py`)."""
    last: Any = head.layers[-2:]
    standardise, dense = last
    standardise.adapt(f)
    f = Model(head.input, standardise.output, name="standardised").predict(f, verbose=0)
    choice = choose_head(f, y)
    found = solve_chosen(f, y, choice.strength)
    dense.set_weights([found.kernel, found.bias])
    said = ", ".join(f"{loss:.4f}" for loss in choice.log_loss.values())
    print(f"The optimum on {len(f)} rows of F, in {found.iterations} steps of L-BFGS and Newton;")
    print(f"penalty {choice.strength / len(f):.3g}, log loss on rows that were held out {said}.")


def fine_tune(base: Model, upper: Model, maps: Any, cells: Cells, epochs: int) -> History:
    """Train block5 and the head on the maps of block4, at a small rate."""
    for layer in base.layers:
        layer.trainable = layer.name.startswith("block5")
    y = np.eye(len(NAMES), dtype=np.float32)[cells.labels]
    data, held_out = ((maps[rows], y[rows]) for rows in (cells.train, cells.validation))
    return fit_best(upper, data, held_out, Adam(1e-5), epochs, epochs=epochs, batch_size=16)


def judge(model: Model, x: np.ndarray, rows: np.ndarray, cells: Cells) -> Judged:
    """The log loss and the rest, on these rows of the cells; `x` is what the model takes of all."""
    y, p = cells.labels[rows], model.predict(x[rows], verbose=0)
    return float(-np.log(p[np.arange(len(y)), y]).mean()), evaluate_predictions(y, p, NAMES)


def table(stages: Mapping[str, Judged]) -> str:
    """Before and after, side by side."""
    columns = [
        {"loss": loss, "accuracy": e.accuracy, "macro F1": e.macro_f1}
        | {f"F1 {name}": float(f1) for name, f1 in zip(NAMES, e.f1, strict=True)}
        | {"ROC AUC": e.auc}
        for loss, e in stages.values()
    ]
    lines = [f"{'':14}" + "".join(f"{stage:>20}" for stage in stages)]
    lines += [f"{row:14}" + "".join(f"{c[row]:20.4f}" for c in columns) for row in columns[0]]
    return "\n".join(lines)
