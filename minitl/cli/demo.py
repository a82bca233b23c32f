"""`minitl demo`: VGG16 becomes an inspector of solar cells, in the six steps of transfer learning.

1. a pretrained model: VGG16 with its ImageNet weights;
2. data: electroluminescence images of solar cells, sound or defective (`data/elpv.py`);
3. features: the frozen base is run once over every image, and its output kept on disk;
4. layers of one's own on top: P = softmax(W^T F + b);
5. training: the head alone, on F; then block5 is unfrozen and trained with it at a small rate;
6. evaluation: accuracy, F1, confusion matrix, before and after.

What is frozen in both stages (blocks 1 to 4) never runs twice: its output is what is kept. The
three models below share their layers and differ in where they start.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl import callbacks
from minitl.applications import VGG16
from minitl.applications.vgg16 import preprocess_input
from minitl.config import next_seed, set_random_seed
from minitl.data import elpv, resize_images, to_rgb
from minitl.data.splits import strata, stratified_split, stratified_subset
from minitl.judging import evaluation
from minitl.judging import plots as report
from minitl.layers import (
    BatchNormalization,
    Concatenate,
    Dense,
    Dropout,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
)
from minitl.models import Model
from minitl.optimizers import Adam
from minitl.storage.atomic import cache_folder, replacing
from minitl.transfer.features import extract_features

DEFAULT_IMAGES = 800
SIDE = 224  # pixels; the images are 300 x 300


def run(
    output: str | Path = "minitl-demo",
    images: int | None = DEFAULT_IMAGES,
    seed: int = 0,
    head_epochs: int = 60,
    fine_tune_epochs: int = 5,
) -> dict[str, Any]:
    """The whole job; returns what it also writes to `output`/results.json.

    Args:
        output: a folder for plots, model and results; made if need be.
        images: how many of the 2,624 cells; all when None.
        seed: of the choice of images, the split, the initial head and the order of training.
        head_epochs: at most so many passes over F; stops when validation no longer improves.
        fine_tune_epochs: passes with block5 unfrozen.
    """
    started = time.perf_counter()
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    set_random_seed(seed)

    title("1. The pretrained model")
    base = VGG16(weights="imagenet", include_top=False, input_shape=(SIDE, SIDE, 3))
    print(f"VGG16 without top, {base.count_params():,} parameters, all frozen.")
    base.trainable = False

    title("2. The data")
    cells, probability, types = elpv.load_data()
    labels = elpv.labels(probability)
    kinds = strata(probability, types)
    if images is not None:
        chosen = stratified_subset(kinds, images, seed)
        cells, labels, kinds = cells[chosen], labels[chosen], kinds[chosen]
    names = elpv.CLASS_NAMES[2]
    rest, test = stratified_split(kinds, 0.25, seed)
    inner, validation = stratified_split(labels[rest], 0.2, next_seed())
    train, validation = rest[inner], rest[validation]
    counts = ", ".join(f"{n} {name}" for n, name in zip(np.bincount(labels), names, strict=True))
    print(f"{len(cells)} solar cells: {counts}.")
    print(f"{len(train)} to train on, {len(validation)} to validate, {len(test)} to test.")

    title("3. Features")
    inspector, head, upper = build(base, len(names))
    maps = extract_features(
        base,
        cells,
        layers="block4_pool",
        preprocess=prepare,
        batch_size=16,
        verbose=1,
        out=cache_folder("features") / f"demo-{len(cells)}-seed{seed}.h5",
    )
    maps = maps.reshape(len(cells), *upper.input_shape[1:])
    f = Model(upper.input, head.input, name="features_of_maps").predict(maps, verbose=0)
    print(f"F has shape {f.shape}: {f.shape[0]} images, D = {f.shape[1]} features each.")

    title("4. and 5. The head P = softmax(W^T F + b), base frozen")
    y = np.eye(len(names), dtype=np.float32)[labels]
    head.compile(Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"])
    first = head.fit(
        f[train],
        y[train],
        epochs=head_epochs,
        validation_data=(f[validation], y[validation]),
        callbacks=[callbacks.EarlyStopping(patience=10, restore_best_weights=True)],
        verbose=0,
    )
    print(f"{len(first.epoch)} epochs of {len(train)} rows of F.")
    before = judge(head, f[test], y[test], names)

    title("5. Fine-tuning: block5 unfrozen, at a small rate")
    for layer in base.layers:
        layer.trainable = layer.name.startswith("block5")
    upper.get_layer("standardise").trainable = False  # 16 images a batch are too few for means
    upper.compile(Adam(1e-5), "categorical_crossentropy", metrics=["accuracy"])
    second = upper.fit(
        maps[train],
        y[train],
        batch_size=16,
        epochs=fine_tune_epochs,
        validation_data=(maps[validation], y[validation]),
        callbacks=[callbacks.EarlyStopping(patience=fine_tune_epochs, restore_best_weights=True)],
    )
    after = judge(upper, maps[test], y[test], names)

    title("6. Evaluation on the test cells")
    stages = {"head only": before, "block5 fine-tuned": after}
    print(table(stages, names))
    for stage, (_, found) in stages.items():
        print(f"\n{stage}\n{found}")
    probabilities = upper.predict(maps[test], verbose=0)
    inspector.metadata = {"class_names": list(names), "preprocessing": "caffe", "size": SIDE}
    inspector.save(output / "model.h5")
    curves = [("head", first), ("block5 unfrozen", second)]
    report.learning_curves(curves, output / "curves.png")
    report.confusion_matrix_plot(after[1].confusion, names, output / "confusion.png")
    report.prediction_sheet(
        cells[test], labels[test], probabilities, names, output / "samples.png", seed=seed
    )
    results = {
        "images": len(cells),
        "seed": seed,
        "F": list(f.shape),
        "seconds": round(time.perf_counter() - started, 1),
        **{stage: {"loss": loss} | found.to_dict() for stage, (loss, found) in stages.items()},
    }
    with replacing(output / "results.json") as part:
        part.write_text(json.dumps(results, indent=1))
    print(f"\nWritten to {output}: model.h5, curves.png, confusion.png, samples.png, results.json")
    print(f"{results['seconds']:.0f} seconds in all.")
    return results


def build(base: Model, classes: int) -> tuple[Model, Model, Model]:
    """Three models that share their layers and end in the same softmax.

    inspector  from images to probabilities: what is saved in the end
    head       from F to probabilities: trained first
    upper      from the maps of block4 to probabilities: block5 and head, trained second

    F puts side by side what block5 finds on average and at most, and what block4 finds on
    average: D = 3 * 512. BatchNormalization brings its columns, of which some are a hundred
    times larger than others, to one scale; without it the head's loss is twice as high.
    """
    maps4 = base.get_layer("block4_pool").output
    f = Concatenate(name="F")(
        [
            GlobalAveragePooling2D(name="block5_average")(base.output),
            GlobalMaxPooling2D(name="block5_maximum")(base.output),
            GlobalAveragePooling2D(name="block4_average")(maps4),
        ]
    )
    standardised = BatchNormalization(name="standardise")(f)
    kept = Dropout(0.5, name="dropout")(standardised)
    p = Dense(classes, activation="softmax", name="head")(kept)
    return (
        Model(base.input, p, name="inspector"),
        Model(f, p, name="head_on_F"),
        Model(maps4, p, name="block5_and_head"),
    )


def prepare(cells: np.ndarray) -> np.ndarray:
    """Gray cells (N, 300, 300), 0-255, as VGG16 takes them: (N, 224, 224, 3), BGR, centred."""
    return preprocess_input(resize_images(to_rgb(cells), (SIDE, SIDE), "bilinear"))


def judge(
    model: Model, x: np.ndarray, y: np.ndarray, names: Sequence[str]
) -> tuple[float, evaluation.Evaluation]:
    """The loss, and the evaluation of the model's predictions."""
    loss, _ = model.evaluate(x, y, verbose=0)
    return loss, evaluation.evaluate_predictions(y, model.predict(x, verbose=0), names)


def table(stages: dict[str, tuple[float, evaluation.Evaluation]], names: Sequence[str]) -> str:
    """Before and after, side by side."""
    columns = {
        stage: {"loss": loss, "accuracy": e.accuracy, "macro F1": e.macro_f1}
        | {f"F1 {name}": float(e.f1[i]) for i, name in enumerate(names)}
        | {"ROC AUC": e.auc}
        for stage, (loss, e) in stages.items()
    }
    lines = [f"{'':14}" + "".join(f"{stage:>20}" for stage in columns)]
    for row in next(iter(columns.values())):
        lines.append(f"{row:14}" + "".join(f"{c[row]:20.4f}" for c in columns.values()))
    return "\n".join(lines)


def title(text: str) -> None:
    print(f"\n--- {text}", flush=True)
