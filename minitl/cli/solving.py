"""The head that `minitl train` solves for: which features, which penalty, how good, and the model.

`Solving` is what was asked for; `solve` runs the frozen base once over every image, chooses and
solves by what the images to train on say alone, and gives a `Solved`: the model, the folds' figures
with their intervals, and at last the same head learned from all images.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minitl.cli.trained import PREPARE, PREPROCESSING
from minitl.data.pictures import Pictures, Prepared
from minitl.judging.intervals import Figure, figures
from minitl.judging.novelty import Novelty
from minitl.models import Model
from minitl.transfer.choosing import Choice, Weights, choose_head, out_of_fold, solve_chosen
from minitl.transfer.features import extract_features
from minitl.transfer.optimum import Head
from minitl.transfer.solved import block_extractor, blocks_of, candidates_for, in_blocks, with_head

REPEATS = 3  # of the folds that the figures are of


class Images(NamedTuple):
    """All images that can be read, and which of them are held out to validate."""

    every: Pictures
    training: np.ndarray  # rows
    validation: np.ndarray
    names: list[str]
    apart: bool  # whether those to validate are a folder of their own
    skipped: str  # a sentence about what was left out
    thumbnails: list[np.ndarray]  # N, see `judging/duplicates.py`

    @property
    def labels(self) -> np.ndarray:
        return np.asarray(self.every.labels)

    def groups_of(self, rows: Any) -> Any:
        return None if self.every.groups is None else self.every.groups[rows]


class Solving(NamedTuple):
    """What is to be solved for, before any image is read."""

    base: Model
    prepare: Any  # what is done to images first
    candidates: dict[str, Weights]
    seed: int
    copies: int
    verbose: int

    @classmethod
    def of(cls, arguments: argparse.Namespace, base: Model) -> Solving | None:
        """None where the head is trained step by step: for another optimizer or hidden layers.

        Raises ValueError for layers that the base does not have.
        """
        if arguments.optimizer != "exact" or arguments.head:
            return None
        layers = arguments.layers.split(",") if arguments.layers else []
        candidates = candidates_for(arguments.base, layers, arguments.pooling)
        block_extractor(base, blocks_of(candidates.values()))  # misspelt layers
        prepare = PREPARE[PREPROCESSING.get(arguments.base, "caffe")]
        return cls(base, prepare, candidates, arguments.seed, arguments.copies, arguments.verbose)

    def solve(self, images: Images, layers: Sequence[Any], cache: Path) -> Solved:
        """Choose and solve; `layers` augment, F is kept in `cache`."""
        blocks = blocks_of(self.candidates.values())
        every = Prepared(images.every, self.prepare, layers, self.copies, self.seed)
        how: dict[str, Any] = {"batch_size": 16, "verbose": self.verbose, "out": cache / "F.h5"}
        f = extract_features(block_extractor(self.base, blocks), every, **how)
        parts = in_blocks(np.asarray(f), self.base, blocks)
        return Solved(self, images, parts, len(every) // len(images.every))


class Solved:
    """The head of the images to train on, its figures, and the head of all images.

    choice   features and penalty, chosen on the images to train on
    weights  of the chosen blocks
    f        {block: (views * N, D_b)} of all images
    """

    def __init__(self, solving: Solving, images: Images, f: Mapping[str, np.ndarray], views: int):
        self.solving, self.images, self.f, self.views = solving, images, f, views
        self.rows = images.training
        of_these = self._part(self.rows)
        settings: dict[str, Any] = {"seed": solving.seed, "views": views}
        y, groups = images.labels[self.rows], images.groups_of(self.rows)
        self.choice: Choice = choose_head(of_these, y, solving.candidates, groups, **settings)
        self.weights = solving.candidates[self.choice.name]
        self.head = solve_chosen(of_these, y, self.choice.strength, self.weights, views=views)

    def _part(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        n = len(self.images.every)
        every = (np.arange(self.views)[:, np.newaxis] * n + rows).ravel()
        return {block: f[every] for block, f in self.f.items()}

    def model(self, all_images: bool = False) -> Model:
        """The base with the head; the penalty is the same when it has learned from all images."""
        head: Head = self.head
        if all_images:
            y, views = self.images.labels, self.views
            head = solve_chosen(self.f, y, self.choice.strength, self.weights, views=views)
        return with_head(self.solving.base, list(self.weights), head)

    def features(self, rows: np.ndarray) -> np.ndarray:
        """F (n, D) of these images, as the model's head sees it."""
        return np.concatenate([self.f[block][rows] for block in self.weights], axis=1)

    def predict(self, rows: np.ndarray) -> np.ndarray:
        """P (n, m) of these images, by the head of the images to train on."""
        return self.head.predict(self.features(rows)).astype(np.float32)

    def novelty(self, rows: np.ndarray) -> Novelty:
        """What the model is to know of these training images. The means of the layer below the top
        are compared, where the head reads them: they tell near classes apart better."""
        f = self.features(rows)
        ends = np.cumsum([self.f[block].shape[1] for block in self.weights]).tolist()
        widths = dict(zip(self.weights, zip([0, *ends], ends, strict=False), strict=True))
        means = [columns for block, columns in widths.items() if block.endswith(" avg")]
        place = np.searchsorted(self.judged, rows)
        columns = means[-2:][0] if means else None
        return Novelty.fit(f, self.images.labels[rows], self.p.mean(axis=0)[place], columns)

    @cached_property
    def judged(self) -> np.ndarray:
        """The rows that the folds' figures are of: all images, but for a folder of their own."""
        return self.rows if self.images.apart else np.arange(len(self.images.every))

    @cached_property
    def p(self) -> np.ndarray:
        """(REPEATS, N', m) of the judged rows, by heads that had not seen them."""
        y, groups = self.images.labels[self.judged], self.images.groups_of(self.judged)
        how: dict[str, Any] = {"repeats": REPEATS, "seed": self.solving.seed, "views": self.views}
        part = self._part(self.judged)
        return out_of_fold(part, y, self.choice.strength, self.weights, groups, **how)

    def figures(self) -> dict[str, Figure]:
        groups = self.images.groups_of(self.judged)
        return figures(self.images.labels[self.judged], self.p, groups)

    def about(self) -> dict[str, Any]:
        """For the model's metadata."""
        losses = {name: round(loss, 4) for name, loss in self.choice.log_loss.items()}
        chosen = {"features": dict(self.weights), "strength": self.choice.strength}
        return chosen | {"log loss of candidates": losses}

    def report(self) -> str:
        """What was chosen, and how good it is in repeated folds; in a few lines."""
        lines = ["Features, and their log loss on images that were held out (the least is taken):"]
        lines += [f"  {loss:.4f}  {name}" for name, loss in self.choice.log_loss.items()]
        kind = "grouped" if self.images.every.groups is not None else "stratified"
        what = f"{REPEATS} times {kind} folds, heads on the frozen base, {len(self.judged)} images"
        return "\n".join([*lines, f"\n{what}:", told({"folds": self.figures()})])


def told(found: Mapping[str, Mapping[str, Figure]]) -> str:
    """Figures with their intervals, as lines."""
    lines = [
        f"{name.replace('_', ' '):18} {v['value']:.4f}  ({v['low']:.4f} to {v['high']:.4f})"
        for each in found.values()
        for name, v in each.items()
    ]
    return "\n".join([*lines, "(in brackets: where the truth is in 95 of 100 cases)"])
