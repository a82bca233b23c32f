import sys
import types

import numpy as np
import pytest

from minitl.data import elpv
from minitl.data.splits import strata, stratified_split

THIRD = 1 / 3


def test_labels_and_confidence():
    p = [0.0, THIRD, 2 * THIRD, 1.0, 0.0]
    assert elpv.labels(p).tolist() == [0, 0, 1, 1, 0]
    assert elpv.labels(p, classes=4).tolist() == [0, 1, 2, 3, 0]
    np.testing.assert_allclose(elpv.confidence(p), [1, THIRD, 2 * THIRD, 1, 1])
    for classes, names in elpv.CLASS_NAMES.items():
        assert len(names) == classes


def test_other_probabilities_and_classes_are_refused():
    for p in ([0.5], [float("nan")], [4 * THIRD]):
        with pytest.raises(ValueError, match="0, 1/3, 2/3 or 1"):
            elpv.labels(p)
    with pytest.raises(ValueError, match="classes must be one of 2, 4; got 3"):
        elpv.labels([0, 1], classes=3)


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "elpv_dataset.utils", None)
    with pytest.raises(ImportError, match=r"elpv-dataset.*pip install 'minitl\[demo\]'"):
        elpv.load_data()


def test_one_kind_of_cell(monkeypatch):
    images = np.arange(4, dtype=np.uint8).reshape(4, 1, 1)
    kinds = np.array(["mono", "poly", "poly", "mono"])
    stand_in = types.ModuleType("elpv_dataset.utils")
    stand_in.load_dataset = lambda: (images, np.array([0, 1, 0, 1.0]), kinds)
    monkeypatch.setitem(sys.modules, "elpv_dataset", types.ModuleType("elpv_dataset"))
    monkeypatch.setitem(sys.modules, "elpv_dataset.utils", stand_in)
    x, p, t = elpv.load_data("mono")
    assert x.ravel().tolist() == [0, 3] and p.tolist() == [0, 1] and set(t) == {"mono"}
    assert len(elpv.load_data()[0]) == 4
    with pytest.raises(ValueError, match="kind must be one of None, 'mono', 'poly'"):
        elpv.load_data("amorphous")


def test_the_real_set_has_the_published_counts():
    pytest.importorskip("elpv_dataset")
    images, p, kinds = elpv.load_data()
    assert images.shape == (2624, 300, 300) and images.dtype == np.uint8
    label = elpv.labels(p, classes=4)
    assert np.bincount(label[kinds == "mono"]).tolist() == [588, 117, 56, 313]
    assert np.bincount(label[kinds == "poly"]).tolist() == [920, 178, 50, 402]
    # Deitsch et al. split 1,968 / 656, stratified by label and type
    groups = strata(label, kinds)
    kept, held_out = stratified_split(groups, 0.25, seed=0)
    assert (len(kept), len(held_out)) == (1968, 656)
    np.testing.assert_allclose(np.bincount(groups[held_out]), np.bincount(groups) / 4, atol=1)
