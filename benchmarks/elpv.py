"""How well does VGG16, frozen and fine-tuned, tell cracked solar cells from sound ones?

ELPV, 2,624 electroluminescence images with the experts' doubts (see `minitl.data.elpv`), as two
papers used it:

    Deitsch et al., Solar Energy 185 (2019), arXiv 1807.02894: defective is p > 0.5, a quarter is
    for testing, and an image counts 1, 1/3, 2/3 or 1 by how sure the experts were.
    Song et al. 2024, arXiv 2408.06229: one class for each p, mono- and polycrystalline cells by
    themselves, a fifth for testing, VGG16 frozen.

Neither paper published its split, so each seed here is another split, and what is printed is mean
and standard deviation over seeds; `--splits FILE` keeps them for others. Rows are ordered by solar
module, and cells of one module look alike: a random split has their like on both sides. So the
first protocol is measured a second time with blocks of 60 neighbouring rows held out.

Every image goes through the frozen part once for each view of it (as it is, mirrored left and
right, top and bottom, both) and size; the features lie in the cache folder, are shared by all
seeds, and an interrupted run goes on where it was. Results that are in `--json` are not computed
again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.common import Claim, Options, Report, arguments_parser, run
from minitl import extract_features
from minitl.applications import VGG16
from minitl.applications.vgg16 import preprocess_input
from minitl.applications.weights import cache_folder
from minitl.data import elpv
from minitl.data.images import resize_images, to_rgb
from minitl.data.splits import block_split, strata, stratified_split, stratified_subset
from minitl.judging.evaluation import evaluate_predictions
from minitl.layers import (
    BatchNormalization,
    Concatenate,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
)
from minitl.models import Model
from minitl.optimizers import Adam
from minitl.optimizers.schedules import CosineDecay
from minitl.storage.atomic import replacing
from minitl.transfer.optimum import solve_head
from minitl.utils import set_random_seed

Array = np.ndarray
Batch = tuple[Array, Array, Array]

PARTS = ("frozen", "finetune", "song")
SIZES = (224, 300)
BLOCK = 60  # neighbouring rows that are held out together
SONG_SEEDS = 10
VIEWS = ("as it is", "mirrored left and right", "top and bottom", "both")


@dataclass(frozen=True)
class Settings:
    """What a result depends on, beside the data and the split. Chosen by splitting the training
    part of seed 100 once more; no test image of seeds 0, 1, ... had a say."""

    views: int = 4  # of each image, see VIEWS
    weights: str | None = "imagenet"
    softmax_l2: float = 0.1
    gamma: float = 0.5  # of the kernel exp(-gamma |f - g|^2 / D)
    kernel_l2: float = 1e-5
    trained: tuple[int, ...] = (4, 5)  # blocks that are fine-tuned
    rate: float = 3e-5  # of Adam, at its highest
    head_rate: float = 10  # times that, for the head
    # By size. Those at 300 were not chosen by the split above, but by the time that they take.
    epochs: Mapping[int, int] = field(default_factory=lambda: {64: 1, 224: 12, 300: 4})
    batch: int = 16
    dropout: float = 0.5


QUICK = Settings(views=2, weights=None)
QUICK_IMAGES = 160


# --- Data and splits -----------------------------------------------------------------------------


class Cells:
    """The images, and for each protocol its labels, weights and splits."""

    def __init__(self, images: int | None = None, splits: Path | None = None):
        self.images, self.probability, self.types = elpv.load_data()
        if images is not None:
            few = stratified_subset(strata(self.probability, self.types), images, 0)
            self.images, self.probability = self.images[few], self.probability[few]
            self.types = self.types[few]
        self.path = splits
        self.splits: dict[str, dict[str, list[int]]] = {}
        if splits is not None and splits.exists():
            self.splits = json.loads(splits.read_text())

    def split(self, protocol: str, seed: int) -> tuple[Array, Array]:
        """Rows to train on and rows to test on: from the file when they are there, else drawn
        and written to it. `protocol` is 'random', 'blocks', 'mono' or 'poly'."""
        name = f"{protocol} {seed}"
        if name not in self.splits:
            train, test = self._drawn(protocol, seed)
            self.splits[name] = {"train": train.tolist(), "test": test.tolist()}
            if self.path is not None:
                with replacing(self.path) as part:
                    part.write_text(json.dumps(self.splits))
        train, test = (np.array(self.splits[name][side]) for side in ("train", "test"))
        both = np.concatenate([train, test])
        if len(np.unique(both)) != len(both) or both.min() < 0 or both.max() >= len(self.images):
            raise ValueError(
                f"{self.path}: {name!r} has a row twice, or rows that are not among "
                f"the {len(self.images)} images"
            )
        return train, test

    def _drawn(self, protocol: str, seed: int) -> tuple[Array, Array]:
        if protocol == "random":
            return stratified_split(strata(self.probability, self.types), 0.25, seed)
        if protocol == "blocks":
            return block_split(len(self.images), BLOCK, 0.25, seed)
        rows = np.flatnonzero(self.types == protocol)
        order = np.random.default_rng(seed).permutation(rows)
        at = round(0.8 * len(rows))
        return np.sort(order[:at]), np.sort(order[at:])

    def view(self, number: int) -> Array:
        """All images, mirrored as VIEWS says."""
        x = self.images if number % 2 == 0 else self.images[:, :, ::-1]
        return x if number < 2 else x[:, ::-1]


# --- Features ------------------------------------------------------------------------------------


def prepare_224(cells: Array) -> Array:
    """Gray cells, 0-255, as VGG16 takes them: (N, 224, 224, 3), BGR, centred."""
    return preprocess_input(resize_images(to_rgb(cells), (224, 224), "bilinear"))


def prepare_300(cells: Array) -> Array:
    """The same at the images' own size: (N, 300, 300, 3)."""
    return preprocess_input(to_rgb(cells))


def prepare_64(cells: Array) -> Array:
    """The same, for --quick."""
    return preprocess_input(resize_images(to_rgb(cells), (64, 64), "bilinear"))


PREPARE = {64: prepare_64, 224: prepare_224, 300: prepare_300}


class Features:
    """Of all images and views at one size: what blocks 3 to 5 find on average and at most, and,
    for fine-tuning, the maps below the first trained block. Neither depends on a split or a
    seed."""

    def __init__(self, cells: Cells, size: int, settings: Settings):
        self.cells, self.size, self.settings = cells, size, settings
        set_random_seed(0)
        base = network(size, settings)
        pooled = [
            pool(name=f"block{block}_{pool.__name__}")(base.get_layer(f"block{block}_pool").output)
            for block in (3, 4, 5)
            for pool in (GlobalAveragePooling2D, GlobalMaxPooling2D)
        ]
        maps = below_trained(base, settings)
        self.map_shape = maps.shape[1:]
        self.models = {
            "pooled": Model(base.input, Concatenate()(pooled)),
            "maps": Model(base.input, Flatten()(maps)),
            "pooled-of-maps": Model(maps, Concatenate()(pooled)),
        }
        self.view = cache(self._view)

    def _view(self, what: str, number: int) -> Array:
        """Rows (N, D) of one view, 'pooled' or 'maps'. On disk; read as used."""
        images: Array = self.cells.view(number)
        preprocess: Callable[[Array], Array] | None = PREPARE[self.size]
        below, known = self._path("maps", number), self._path("pooled", number)
        if what == "pooled" and below.exists() and not known.exists():  # not from the start
            what, preprocess = "pooled-of-maps", None
            images = self.view("maps", number).reshape(-1, *self.map_shape)
        return extract_features(
            self.models[what],
            images,
            preprocess=preprocess,
            batch_size=16,
            verbose=1,
            out=self._path(what, number),
        )

    def _path(self, what: str, number: int) -> Path:
        name = f"{len(self.cells.images)}-{self.size}-{what}-view{number}.h5"
        return cache_folder("elpv") / name

    def pooled(self) -> Array:
        """F (N, D): the mean over the views of what was found on average and at most."""
        views = [self.view("pooled", v) for v in range(self.settings.views)]
        return np.asarray(np.mean(views, axis=0, dtype=np.float32))

    def maps(self, number: int, rows: Array) -> Array:
        """(n, H, W, C): the maps of some rows in one view."""
        return self.view("maps", number)[rows].reshape(len(rows), *self.map_shape)


def network(size: int, settings: Settings) -> Model:
    """VGG16 without top; of it only the blocks `settings.trained` are trainable."""
    base = VGG16(weights=settings.weights, include_top=False, input_shape=(size, size, 3))
    for layer in base.layers:
        layer.trainable = layer.name.startswith(tuple(f"block{b}_" for b in settings.trained))
    return base


def below_trained(base: Model, settings: Settings) -> Any:
    """What the first trained block reads."""
    return base.get_layer(f"block{min(settings.trained) - 1}_pool").output


# --- Frozen base: heads on F ---------------------------------------------------------------------


def standardised(f: Array, train: Array) -> Array:
    """Each column of F (N, D) in standard deviations from its mean over the rows `train`."""
    mean, deviation = f[train].mean(axis=0), f[train].std(axis=0)
    return (f - mean) / np.where(deviation > 0, deviation, 1)


def softmax_head(
    f: Array, y: Array, weight: Array, train: Array, test: Array, settings: Settings
) -> Array:
    """P (n, m) of the rows `test`: the regularised softmax head at its optimum."""
    x = standardised(f, train)
    head = solve_head(x[train], y[train], settings.softmax_l2, weight[train], tolerance=1e-4)
    return head.predict(x[test])


def kernel_head(
    f: Array, y: Array, weight: Array, train: Array, test: Array, settings: Settings
) -> Array:
    """P (n, m) of the rows `test`: a softmax head that is curved in F.

    With K_ij = exp(-gamma |f_i - f_j|^2 / D) = sum_k U_ik s_k U_jk over the rows to train on, the
    rows of U sqrt(s) have K for their inner products. The softmax head on these rows is
    kernel logistic regression, with the kernel of the papers' RBF machines. (Zhu & Hastie 2005.)
    """
    x = standardised(f, train).astype(np.float32)
    k = np.exp(-settings.gamma * squared_distances(x, x[train]) / x.shape[1])  # (N, n)
    s, u = np.linalg.eigh(k[train].astype(np.float64))
    kept = s > 1e-7 * s[-1]
    rows = k @ (u[:, kept] / np.sqrt(s[kept]))  # K U / sqrt(s) = U sqrt(s) on the rows of `train`
    head = solve_head(rows[train], y[train], settings.kernel_l2, weight[train], tolerance=1e-4)
    return head.predict(rows[test])


def squared_distances(a: Array, b: Array) -> Array:
    """|a_i - b_j|^2 for rows of a (N, D) and b (n, D): (N, n)."""
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)
    return np.maximum(squares - 2 * a @ b.T, 0)


# --- Fine-tuning ---------------------------------------------------------------------------------


class RandomViews:
    """Batches of block4's maps for `fit`: every epoch each row in a view drawn anew."""

    def __init__(self, features: Features, y: Array, weight: Array, rows: Array, seed: int):
        self.features, self.rows, self.weight = features, rows, weight
        self.y = np.eye(2, dtype=np.float32)[y]
        self.batch = features.settings.batch
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch)

    def __iter__(self) -> Iterator[Batch]:
        order = self.rng.permutation(self.rows)
        views = self.rng.integers(self.features.settings.views, size=len(order))
        for i in range(0, len(order), self.batch):
            rows = order[i : i + self.batch]
            some = views[i : i + self.batch]
            x = np.stack(
                [self.features.maps(v, r[None])[0] for v, r in zip(some, rows, strict=True)]
            )
            yield x, self.y[rows], self.weight[rows]


def fine_tuned(
    features: Features, y: Array, weight: Array, train: Array, test: Array, seed: int
) -> Array:
    """P (n, 2) of the rows `test`, the mean over their views, after training the blocks
    `settings.trained`.

    The head reads what block5 finds on average and at most. It starts at its optimum on the
    frozen features, so the first gradients that reach the blocks mean something.
    """
    settings = features.settings
    set_random_seed(seed)
    base = network(features.size, settings)
    f = Concatenate(name="F")(
        [GlobalAveragePooling2D()(base.output), GlobalMaxPooling2D()(base.output)]
    )
    standardise = BatchNormalization(name="standardise", epsilon=1e-6)
    kept = Dropout(settings.dropout)(standardise(f))
    head = Dense(2, activation="softmax", name="head")
    model = Model(below_trained(base, settings), head(kept))
    standardise.trainable = False
    head.rate_multiplier = settings.head_rate

    d, times = f.shape[1], settings.views  # the pooled features of block5 are the last d
    start = np.concatenate([features.view("pooled", v)[train, -d:] for v in range(times)])
    mean, variance = start.mean(axis=0), start.var(axis=0) + 1e-6
    standardise.set_weights([np.ones(d), np.zeros(d), mean, variance])
    optimum = solve_head(
        (start - mean) / np.sqrt(variance),
        np.tile(y[train], times),
        settings.softmax_l2,
        np.tile(weight[train], times),
        tolerance=1e-4,
    )
    head.set_weights(list(optimum[:2]))

    batches = RandomViews(features, y, weight, train, seed)
    epochs = settings.epochs[features.size]
    steps = epochs * len(batches)
    rate = CosineDecay(0.0, steps, warmup_target=settings.rate, warmup_steps=len(batches) // 2)
    model.compile(Adam(rate), "categorical_crossentropy", weighted_metrics=["accuracy"])
    model.fit(batches, epochs=epochs)
    pieces = [test[i : i + 64] for i in range(0, len(test), 64)]
    found = [
        np.concatenate([model.predict(features.maps(v, rows), verbose=0) for rows in pieces])
        for v in range(times)
    ]
    return np.mean(found, axis=0)


# --- The study -----------------------------------------------------------------------------------

WAYS = {
    "softmax head": "softmax regression on F, at its regularised optimum",
    "kernel head": "kernel logistic regression (RBF) on F",
    "fine-tuned": "blocks 4 and 5 unfrozen under a softmax head",
}
METRICS = ("weighted accuracy", "accuracy", "macro F1", "AUC")


class Study:
    """Runs what is asked for, seed by seed. Predictions of test rows lie in the cache folder,
    under a digest of all that they depend on, so a study that was interrupted goes on."""

    def __init__(self, cells: Cells, settings: Settings):
        self.cells, self.settings = cells, settings
        self.features = cache(lambda size: Features(cells, size, settings))
        self.found: dict[tuple[str, str, str], list[dict[str, float]]] = {}  # a dict a seed

    def f(self, sizes: Sequence[int]) -> Array:
        """F (N, D) of one size, or of several side by side."""
        return np.concatenate([self.features(size).pooled() for size in sizes], axis=1)

    def deitsch(self, protocol: str, seed: int, sizes: Sequence[int], parts: Sequence[str]) -> None:
        """One split, 'random' or 'blocks', into two classes."""
        train, test = rows = self.cells.split(protocol, seed)
        y, weight = elpv.labels(self.cells.probability), elpv.confidence(self.cells.probability)

        given = (y, weight, train, test, self.settings)

        def predict(way: str, sizes: Sequence[int], function: Any, *arguments: Any) -> None:
            name = f"{protocol} {seed} {sizes} {way}"
            p, seconds = self.kept(name, rows, partial(function, *arguments))
            self.judge((protocol, _size_name(sizes), way), p, y[test], weight[test], seconds)

        for some in [[size] for size in sizes] + ([list(sizes)] if len(sizes) > 1 else []):
            predict("softmax head", some, softmax_head, self.f(some), *given)
            predict("kernel head", some, kernel_head, self.f(some), *given)
        if "finetune" in parts:
            for size in sizes:
                predict("fine-tuned", [size], fine_tuned, self.features(size), *given[:4], seed)

    def song(self, kind: str, seed: int, size: int) -> None:
        """One split of the 'mono' or 'poly' cells, into four classes, all images counting 1."""
        train, test = rows = self.cells.split(kind, seed)
        y = elpv.labels(self.cells.probability, classes=4)
        given = (self.f([size]), y, np.ones(len(y)), train, test, self.settings)
        for way, head in (("softmax head", softmax_head), ("kernel head", kernel_head)):
            p, seconds = self.kept(f"{kind} {seed} {size} {way}", rows, partial(head, *given))
            self.judge((kind, str(size), way), p, y[test], None, seconds)

    def kept(
        self, name: str, rows: tuple[Array, Array], compute: Callable[[], Array]
    ) -> tuple[Array, float]:
        """P of the test rows, and the seconds that it took: from the cache folder, or computed."""
        told = [name, asdict(self.settings), *(r.tolist() for r in rows)]
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
        path = cache_folder("elpv") / f"{digest}.json"
        if not path.exists():
            started = time.perf_counter()
            p = compute()
            seconds = time.perf_counter() - started
            with replacing(path) as part:
                part.write_text(json.dumps({"name": name, "seconds": seconds, "p": p.tolist()}))
        known = json.loads(path.read_text())
        return np.array(known["p"]), known["seconds"]

    def judge(
        self, case: tuple[str, str, str], p: Array, y: Array, weight: Array | None, seconds: float
    ) -> None:
        e = evaluate_predictions(y, p, sample_weight=weight)
        weighted = e.accuracy if e.weighted_accuracy is None else e.weighted_accuracy
        values = (100 * weighted, 100 * e.accuracy, e.macro_f1, e.auc)
        row = dict(zip(METRICS, values, strict=True)) | {"seconds": seconds}
        self.found.setdefault(case, []).append(row)


def _size_name(sizes: Sequence[int]) -> str:
    return " + ".join(map(str, sizes))


# --- What the papers found, and what we found ----------------------------------------------------

PAPERS = {
    "random": "Deitsch et al. 2019: hand-made features and SVM 82.44, VGG19 fine-tuned 88.42",
    "blocks": "no published figures",
    "mono": "Song et al. 2024: softmax 78.7 +- 2.0, RBF machine 79.0 +- 2.0",
    "poly": "Song et al. 2024: RBF machine 74.5 +- 2.2",
}
TITLES = {
    "random": "Deitsch's protocol: sound or defective, 75/25, stratified by label and type",
    "blocks": f"the same, but whole blocks of {BLOCK} neighbouring rows held out",
    "mono": "Song's protocol: four classes, monocrystalline cells, 80/20 at random",
    "poly": "Song's protocol: four classes, polycrystalline cells, 80/20 at random",
}
DIFFERENCES = """\
What differs from the papers. Deitsch et al. have one split, not published, and do not say whether
their accuracy counts images by confidence (the digits fit the weighted one); they train all of
VGG19 at 300 x 300 with flips, quarter turns, and small shifts and rotations. Here the first three
blocks of VGG16 stay frozen, images are also mirrored (not turned: busbars lie), and the views'
features or predictions are averaged in the test as well. Song et al. take the 25,088 numbers of
block5_pool of the image as it is; here F is what blocks 3 to 5 find on average and at most, the
mean over the views."""
GOALS = {  # (protocol, frozen or fine-tuned): per cent, on average over the seeds
    ("random", "frozen"): 88.4,
    ("random", "fine-tuned"): 90.5,
    ("mono", "frozen"): 78.7,
    ("poly", "frozen"): 74.5,
}


def table(found: dict[tuple[str, str, str], list[dict[str, float]]]) -> str:
    """Mean +- standard deviation over the seeds, protocol by protocol, papers beside."""
    lines = []
    for protocol, title in TITLES.items():
        cases = {case: rows for case, rows in found.items() if case[0] == protocol}
        if not cases:
            continue
        lines += ["", title, f"  ({PAPERS[protocol]})"]
        lines.append(
            f"  {'size':10} {'way':20} seeds"
            + "".join(f"{name:>19}" for name in METRICS)
            + "      s"
        )
        for (_, size, way), rows in cases.items():
            cells = [_mean_and_spread([row[name] for row in rows]) for name in METRICS]
            seconds = np.mean([row["seconds"] for row in rows])
            lines.append(
                f"  {size:10} {way:20} {len(rows):5d}"
                + "".join(f"{cell:>19}" for cell in cells)
                + f"{seconds:7.0f}"
            )
    return "\n".join(lines)


def _mean_and_spread(values: Sequence[float]) -> str:
    """'88.42 +- 1.03', '0.912 +- 0.004'; without a spread for a single value."""
    digits = 2 if max(values) > 1 else 3
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} +- {np.std(values, ddof=1):.{digits}f}"


def report_of(study: Study, settings: Settings) -> Report:
    """The weighted accuracies of all cases, and the goals."""
    report = Report("elpv", (__doc__ or "").splitlines()[0], asdict(settings))
    for (protocol, size, way), rows in study.found.items():
        for metric in METRICS:
            unit = "%" if "accuracy" in metric else ""
            case = f"{protocol}, {size}, {metric}"
            report.add(case, way, unit, [row[metric] for row in rows])
    for (protocol, kind), goal in GOALS.items():
        means = {
            f"{size}, {way}": float(np.mean([row[METRICS[0]] for row in rows]))
            for (of, size, way), rows in study.found.items()
            if of == protocol and way.startswith("fine-tuned") == (kind == "fine-tuned")
        }
        for name, value in means.items():
            what = f"{name}: mean weighted accuracy"
            report.claims.append(Claim(protocol, what, value, goal, "at least"))
    return report


def measure(
    options: Options,
    seeds: int = 5,
    parts: Sequence[str] = PARTS,
    sizes: Sequence[int] = SIZES,
    splits: Path | None = None,
) -> Report:
    """All that is asked for; prints the table of the papers' protocols."""
    settings = options.pick(Settings(), QUICK)
    if options.quick:
        seeds, sizes = min(seeds, 2), [64]
    study = Study(Cells(options.pick(None, QUICK_IMAGES), splits), settings)
    todo: list[Callable[[], None]] = []
    if "frozen" in parts or "finetune" in parts:
        for seed in range(seeds):
            for protocol in ("random", "blocks"):
                todo.append(partial(study.deitsch, protocol, seed, sizes, parts))
    if "song" in parts:
        for seed in range(2 * seeds):
            for kind in ("mono", "poly"):
                todo.append(partial(study.song, kind, seed, sizes[0]))
    for job in tqdm(todo, desc="splits", unit="split"):
        job()
    print(table(study.found))
    print("\n" + "\n".join(f"{way}: {what}" for way, what in WAYS.items()))
    print("\n" + DIFFERENCES, flush=True)
    return report_of(study, settings)


def main() -> None:
    parser = arguments_parser((__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--seeds", type=int, default=5, help="splits; Song's protocol has twice as many"
    )
    parser.add_argument("--part", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--size", nargs="+", type=int, choices=SIZES, default=SIZES)
    parser.add_argument(
        "--splits",
        type=Path,
        metavar="FILE",
        help="the rows of each split: read where there, else written",
    )
    arguments = parser.parse_args()
    chosen = {
        "seeds": arguments.seeds,
        "parts": arguments.part,
        "sizes": arguments.size,
        "splits": arguments.splits,
    }
    run({"elpv": partial(measure, **chosen)}, arguments)


if __name__ == "__main__":
    main()
