"""What is wrong with pictures and labels is found, and what is right is not."""

import sys

import numpy as np
import pytest

from minitl.judging.checks import Check, Finding, doubtful, lonely, out_of_fold_probabilities
from tests.judging.test_duplicates import jpeg, scene

RNG = np.random.default_rng(0)


def looked(images, labels=None, split=None, digests=None):
    """A Check that has seen these Pillow images."""
    paths = [f"{i}.png" for i in range(len(images))]
    check = Check(paths, labels, ["cat", "dog"], split)
    check.see(range(len(images)), map(np.asarray, images))
    check.pictures(digests or {path: str(i) for i, path in enumerate(paths)})
    return check


def told(check):
    return {(f.kind, f.paths, f.said) for f in check.found()}


def test_copies_are_told_by_where_they_are():
    images = [scene(i) for i in range(8)]
    images += [jpeg(images[0], 80), jpeg(images[1], 80), jpeg(images[2], 80), images[3]]
    labels = np.array([0] * 4 + [1] * 4 + [0, 1, 0, 0])
    split = np.array(["train"] * 10 + ["test"] * 2)
    digests = {f"{i}.png": str(i) for i in range(11)} | {"11.png": "3"}
    check = looked(images, labels, split, digests)
    assert told(check) == {
        ("near-duplicate", ("0.png", "8.png"), "the same picture, changed"),
        ("two classes", ("1.png", "9.png"), "the same picture, changed, as cat and dog"),
        ("both sides", ("2.png", "10.png"), "the same picture, changed, in train and test"),
        ("both sides", ("3.png", "11.png"), "the same pixels, in train and test"),
    }
    assert [title for title, _, _ in check.by_kind()] == [
        "The same picture on both sides of a split",
        "The same picture in two classes",
        "Near-duplicates",
    ]
    assert check.groups[0] == check.groups[8] != check.groups[1] == check.groups[9]


def test_a_group_of_equal_and_changed_copies_is_one_finding():
    one = scene(3)
    check = looked(
        [scene(1), one, one, jpeg(one, 70), scene(2)], digests={"1.png": "a", "2.png": "a"}
    )
    (found,) = check.found()
    assert found.kind == "near-duplicate" and found.paths == ("1.png", "2.png", "3.png")
    check = looked([scene(1), one, one], digests={"1.png": "a", "2.png": "a"})
    assert told(check) == {("identical", ("1.png", "2.png"), "the same pixels")}


def test_tiny_and_empty_pictures_and_such_that_cannot_be_read():
    flat = scene(1).point(lambda v: 77)
    check = Check(["a.png", "b.png", "c.png"], faults={"c.png": "cannot read c.png: no picture"})
    check.see([0, 1], [np.asarray(flat), np.asarray(scene(2))])
    check.sizes = {0: (300, 300), 1: (31, 300)}
    check.pictures({})
    assert told(check) == {
        ("unreadable", ("c.png",), "cannot read c.png: no picture"),
        ("one colour", ("a.png",), "nothing but one colour"),
        ("tiny", ("b.png",), "300 x 31 pixels"),
    }
    Check([]).pictures({})


def features(n, classes=4, width=12):
    """F whose classes lie apart, and labels."""
    y = np.arange(n) % classes
    f = RNG.normal(size=(n, width)) + 3 * np.eye(classes, width)[y]
    return f.astype(np.float32), y


def test_wrong_labels_come_first():
    f, y = features(240)
    wrong = RNG.choice(240, 10, replace=False)
    given = y.copy()
    given[wrong] = (y[wrong] + 1 + RNG.integers(0, 3, 10)) % 4
    p = out_of_fold_probabilities(f, given)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    found = doubtful(given, p)
    assert len(set(found[:12]) & set(wrong)) >= 9 and len(found) <= 20
    check = Check([f"{i}.png" for i in range(240)], given, ["a", "b", "c", "d"])
    check.labels_and_outliers(f, np.arange(240))
    first = check.found(["label"])[0]
    i = int(first.paths[0].removesuffix(".png"))
    assert i in wrong
    assert first.said.startswith(f"labelled {'abcd'[given[i]]} (")
    assert f"looks like {'abcd'[y[i]]} (" in first.said


def test_a_copy_does_not_speak_for_the_label_of_the_other():
    f, y = features(200)
    f = np.concatenate([f, f[:1]])
    y = np.append(y, 1)  # of class 0, truly
    groups = np.append(np.arange(200), 0)
    alone = out_of_fold_probabilities(f, y, groups)
    assert alone[200, 0] > 0.9 > 0.1 > alone[200, 1]
    check = Check([f"{i}.png" for i in range(201)], y, list("abcd"))
    check.groups = groups
    check.labels_and_outliers(f, np.arange(201))
    assert check.found(["label"])[0].paths == ("200.png",)
    check = Check([f"{i}.png" for i in range(201)], y, list("abcd"))
    same = Finding("two classes", ("0.png", "200.png"), "the same picture", 0)
    check.findings["two classes"].append(same)  # told already: not again
    check.labels_and_outliers(f, np.arange(201))
    assert "200.png" not in [each.paths[0] for each in check.found(["label"])]


def test_classes_that_nobody_has_are_never_said():
    f, y = features(90, 3)
    p = out_of_fold_probabilities(f, y + 2)
    assert p.shape == (90, 5) and (p[:, :2] == 0).all()
    assert (p.argmax(axis=1) == y + 2).mean() > 0.8


def test_what_lies_far_from_all_others_is_told():
    f, _ = features(100)
    far = lonely(np.concatenate([f, f[:2] + 40 * np.array([[1], [-1]])]).astype(np.float32))
    assert (far[100:] > 4).all() and (far[:100] < 4).all()
    assert (lonely(f[:20]) == 0).all()  # too few to tell
    assert np.isfinite(lonely(np.zeros((50, 3), np.float32))).all()


@pytest.mark.parametrize(("module", "call"), [("cleanlab.filter", 0), ("sklearn.neighbors", 1)])
def test_what_to_install(monkeypatch, module, call):
    monkeypatch.setitem(sys.modules, module, None)
    f, y = features(60)
    with pytest.raises(ImportError, match=r"pip install 'minitl\[check\]'"):
        doubtful(y, np.eye(4)[y]) if call == 0 else lonely(f)
