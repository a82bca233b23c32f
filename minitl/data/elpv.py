"""ELPV: 2,624 electroluminescence images of solar cells, some of them cracked.

A current makes the cells glow in the infrared; what stays dark is broken. The images (300 x 300,
gray) are cut out of photographs of 44 modules, and experts gave each a probability of being
defective: 0, 1/3, 2/3 or 1. Cells are of monocrystalline ('mono') or polycrystalline ('poly')
silicon. Rows are ordered by module, and cells of one module look alike (`splits.block_split`). The
package `elpv-dataset` has them (CC BY-NC-SA 4.0, not for commercial use).

Buerhop-Lutz et al., "A Benchmark for Visual Identification of Defective Solar Cells in
Electroluminescence Imagery", EU PVSEC 2018; Deitsch et al., "Automatic classification of defective
photovoltaic module cells in electroluminescence images", Solar Energy 185 (2019).
"""

from typing import Any

import numpy as np

from minitl.data.images import check_choice
from minitl.models.arguments import guard
from minitl.storage.door import extra

CLASS_NAMES = {2: ("sound", "defective"), 4: ("p = 0", "p = 1/3", "p = 2/3", "p = 1")}


def load_data(kind: str | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (images, probability, types) of all cells, or of one `kind`, 'mono' or 'poly'.

    images (N, 300, 300) uint8; probability (N,) of a defect, 0, 1/3, 2/3 or 1; types (N,) str.
    Raises ImportError that says what to install when `elpv-dataset` is missing.
    """
    check_choice("kind", kind, (None, "mono", "poly"))
    with extra("the solar-cell images are in the package elpv-dataset", "demo"):
        from elpv_dataset.utils import load_dataset
    images, probability, types = load_dataset()
    if kind is None:
        return images, probability, types
    chosen = types == kind
    return images[chosen], probability[chosen], types[chosen]


def labels(probability: Any, classes: int = 2) -> np.ndarray:
    """Labels (N,) int of the probabilities (N,): with 2 classes p > 0.5, with 4 one per p.

    >>> labels([0, 1 / 3, 2 / 3, 1]).tolist(), labels([0, 1 / 3, 2 / 3, 1], classes=4).tolist()
    ([0, 0, 1, 1], [0, 1, 2, 3])
    """
    check_choice("classes", classes, CLASS_NAMES)
    thirds = _thirds(probability)
    return thirds if classes == 4 else (thirds >= 2).astype(np.intp)


def confidence(probability: Any) -> np.ndarray:
    """How sure the experts were, as sample weights (N,): 1, 1/3, 2/3, 1 for p = 0, 1/3, 2/3, 1.

    The weights of Deitsch et al., in which weighted accuracies are published.
    """
    return np.array([1, 1 / 3, 2 / 3, 1])[_thirds(probability)]


def _thirds(probability: Any) -> np.ndarray:
    """The probabilities as whole thirds 0, 1, 2, 3."""
    p = np.asarray(probability, float)
    thirds = np.rint(3 * p).clip(0, 3)
    if not (np.abs(3 * p - thirds) < 1e-3).all():
        raise ValueError("ELPV probabilities are 0, 1/3, 2/3 or 1; these are others")
    return thirds.astype(np.intp)


guard(globals())
