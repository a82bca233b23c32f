"""A look at pictures before they are trained on: what is wrong with them, and with their labels.

A `Check` is shown pictures as they are read (`see`), and tells what needs no network (`pictures`):
files that cannot be read, tiny ones, such of one colour, the same picture twice, in one class or in
two, on one side of a split or on both. With F it tells what only the others can say of a picture
(`labels`, `outliers`): labels that heads trained on the rest contradict (cleanlab), and pictures
far from all others (scikit-learn's neighbours). Each `Finding` names its files, in the words of
`KINDS`; the worst come first.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from minitl.judging.duplicates import FLAT, contrast, groups_of, near_duplicates, thumbnail
from minitl.models.arguments import guard
from minitl.storage.door import extra
from minitl.transfer.choosing import choose_head, out_of_fold, scales

KINDS = {  # in order of weight: title, and why it matters
    "unreadable": ("Unreadable", "These files are no pictures, or damaged; they are left out."),
    "both sides": (
        "The same picture on both sides of a split",
        "What is judged by was learned by heart: the figures flatter.",
    ),
    "two classes": ("The same picture in two classes", "One of the two labels is wrong."),
    "identical": ("Identical pictures", "They count twice, and may be divided by a split."),
    "near-duplicate": (
        "Near-duplicates",
        "The same picture in another size, format or light: it counts twice.",
    ),
    "one colour": ("Of one colour", "There is nothing to see: a covered lens, an empty page."),
    "tiny": ("Tiny", "So few pixels show little, and are blown up for the network."),
    "label": (
        "Probably mislabelled",
        "A head that was trained on the other pictures says something else, and is sure of it.",
    ),
    "outlier": ("Unlike all others", "The network finds nothing alike: they may not belong here."),
}
CERTAIN = tuple(kind for kind in KINDS if kind not in ("label", "outlier"))  # no opinions
TINY = 32  # pixels: a picture of which a side is shorter shows little
NEIGHBOURS = 10  # whose mean distance says how lonely a picture is
LONELY = 4.0  # standard deviations of log(distance), estimated by quartiles


class Finding(NamedTuple):
    """What was found about a picture, or about several that are the same."""

    kind: str  # of KINDS
    paths: tuple[str, ...]
    said: str
    score: float  # the smaller, the worse, within a kind


class Check:
    """N pictures, by `paths`, `labels` (N,) numbers of `class_names` or None, and `split` (N,) of
    names ('train', 'validation') or None; `faults` {path: what is wrong with it}."""

    def __init__(
        self,
        paths: Sequence[str],
        labels: Any = None,
        class_names: Sequence[str] = (),
        split: Any = None,
        faults: Mapping[str, str] | None = None,
    ):
        self.paths, self.class_names = list(paths), list(class_names)
        self.labels = None if labels is None else np.asarray(labels)
        self.split = None if split is None else np.asarray(split)
        self.faults: Mapping[str, str] = {} if faults is None else faults
        self.thumbnails: dict[int, np.ndarray] = {}
        self.sizes: dict[int, tuple[int, int]] = {}
        self.groups = np.arange(len(self.paths))  # copies of one picture have the same number
        self.findings: dict[str, list[Finding]] = {kind: [] for kind in KINDS}

    def see(self, rows: Any, pixels: Any) -> None:
        """Pictures (n, H, W, 3), 0-255, of these rows (n,)."""
        for row, image in zip(rows, pixels, strict=True):
            self.thumbnails[int(row)] = thumbnail(image)

    def pictures(self, digests: Mapping[str, str]) -> None:
        """All that needs no network; `digests` {path: of its pixels} of those that were read."""
        for path, fault in self.faults.items():
            self._add("unreadable", (path,), fault, 0)
        for row, (height, width) in self.sizes.items():
            if min(height, width) < TINY:
                self._add("tiny", [row], f"{width} x {height} pixels", min(height, width))
        rows = np.array(sorted(self.thumbnails), np.intp)
        if not len(rows):
            return
        small = np.stack([self.thumbnails[row] for row in rows.tolist()])
        for row, spread in zip(rows, contrast(small), strict=True):
            if spread < FLAT:
                self._add("one colour", [row], "nothing but one colour", float(spread))
        self._copies(rows, small, digests)

    def _copies(self, rows: np.ndarray, small: np.ndarray, digests: Mapping[str, str]) -> None:
        """Pictures that are the same, each group once."""
        first: dict[str, int] = {}
        keys = [digests.get(self.paths[row], "") for row in rows]
        same = [(first.setdefault(key, i), i) for i, key in enumerate(keys) if key]
        equal = groups_of(np.array([pair for pair in same if pair[0] != pair[1]]), len(rows))
        # One of each is compared with the others: a thousand copies have no other neighbours.
        distinct, place = np.unique(equal, return_index=True)
        pairs, distances = near_duplicates(small[place])
        joined = groups_of(pairs, len(distinct))[equal]
        self.groups[rows] = len(self.paths) + joined
        nearest = np.full(len(distinct), np.inf)
        for side in (0, 1):
            np.minimum.at(nearest, pairs[:, side], distances)
        order = np.argsort(joined, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(joined[order])) + 1):
            if len(members) < 2:
                continue
            exact = len(set(equal[members])) == 1
            at = np.searchsorted(distinct, equal[members])
            score = 0.0 if exact else float(nearest[at].min())
            self._same(rows[members], exact, score)

    def _same(self, rows: np.ndarray, exact: bool, score: float) -> None:
        classes = {} if self.labels is None else dict.fromkeys(self.labels[rows].tolist())
        sides = {} if self.split is None else dict.fromkeys(self.split[rows].tolist())
        what = "the same pixels" if exact else "the same picture, changed"
        if len(sides) > 1:
            self._add("both sides", rows, f"{what}, in {' and '.join(sides)}", score)
        if len(classes) > 1:
            names = " and ".join(self.class_names[label] for label in classes)
            self._add("two classes", rows, f"{what}, as {names}", score)
        if len(sides) < 2 and len(classes) < 2:
            self._add("identical" if exact else "near-duplicate", rows, what, score)

    def labels_and_outliers(self, f: Any, rows: Any, p: Any = None) -> None:
        """What F (n, D) of these rows (n,) says: doubtful labels, and pictures unlike all others.

        p (n, m) are probabilities out of fold; when None, heads are solved for here, and copies of
        one picture are held out together. Pictures in two classes are not named again.
        """
        f, rows = np.asarray(f, np.float32), np.asarray(rows)
        told = {
            p
            for kind in ("two classes", "one colour")
            for x in self.findings[kind]
            for p in x.paths
        }
        new = np.array([self.paths[row] not in told for row in rows], bool)
        if self.labels is not None and len(np.unique(self.labels[rows[new]])) > 1:
            y = self.labels[rows[new]]
            if p is None:
                p = out_of_fold_probabilities(f[new], y, self.groups[rows[new]])
            else:
                p = np.asarray(p)[new]
            for i in doubtful(y, p):
                given, likely = self.class_names[y[i]], int(p[i].argmax())
                text = f"labelled {given} ({p[i, y[i]]:.0%}), looks like"
                text += f" {self.class_names[likely]} ({p[i, likely]:.0%})"
                self._add("label", [rows[new][i]], text, float(p[i, y[i]]))
        far = lonely(f[new])
        for i in np.argsort(-far, kind="stable"):
            if far[i] > LONELY:
                text = f"{far[i]:.1f} standard deviations farther from its like than others"
                self._add("outlier", [rows[new][i]], text, -float(far[i]))

    def _add(self, kind: str, rows: Any, said: str, score: float) -> None:
        paths = tuple(row if isinstance(row, str) else self.paths[row] for row in rows)
        self.findings[kind].append(Finding(kind, paths, said, score))

    def found(self, kinds: Sequence[str] = tuple(KINDS)) -> list[Finding]:
        """All findings of these kinds, the worst of each first."""
        return [f for kind in kinds for f in sorted(self.findings[kind], key=lambda f: f.score)]

    def by_kind(self) -> Iterator[tuple[str, str, list[Finding]]]:
        """(title, why, findings) of each kind of which there are any."""
        for kind, (title, why) in KINDS.items():
            if self.findings[kind]:
                yield title, why, self.found([kind])


def out_of_fold_probabilities(f: Any, y: Any, groups: Any = None) -> np.ndarray:
    """(N, m): of each row of F (N, D) by heads that were solved without it, the mean of three draws
    of the folds. A class that no row has gets 0."""
    there, codes = np.unique(y, return_inverse=True)
    strength = choose_head(f, codes, groups=groups).strength
    p = out_of_fold(f, codes, strength, groups=groups).mean(axis=0)
    found = np.zeros((len(p), int(there.max()) + 1))
    found[:, there] = p
    return found / found.sum(axis=1, keepdims=True)


def doubtful(y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Rows whose label y (N,) is probably wrong by p (N, m) out of fold, the worst first.

    Northcutt, Jiang & Chuang 2021 (arXiv 1911.00068), as cleanlab has it.
    """
    with extra("looking for wrong labels needs cleanlab", "check"):
        from cleanlab.filter import find_label_issues
    there, codes = np.unique(y, return_inverse=True)
    how: dict[str, Any] = {"return_indices_ranked_by": "self_confidence", "n_jobs": 1}
    known = p[:, there] / p[:, there].sum(axis=1, keepdims=True)
    return np.asarray(find_label_issues(codes, known, **how), np.intp)


def lonely(f: np.ndarray) -> np.ndarray:
    """(N,): by how many standard deviations log(mean distance to the 10 nearest) of each row of
    scaled F (N, D) lies above the median; the deviation is a robust one, from the quartiles."""
    with extra("looking for outliers needs scikit-learn", "check"):
        from sklearn.neighbors import NearestNeighbors
    if len(f) < 3 * NEIGHBOURS:
        return np.zeros(len(f))
    tree = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(f * scales(f))
    distance = np.log(np.maximum(tree.kneighbors()[0].mean(axis=1), 1e-12))
    low, middle, high = np.percentile(distance, [25, 50, 75])
    return (distance - middle) / max((high - low) / 1.349, 1e-3 * math.log(2))


guard(globals())
