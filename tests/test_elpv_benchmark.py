"""The ELPV study: its splits, its heads, and that it goes on where it was."""

import json
from functools import partial

import numpy as np
import pytest

from benchmarks import elpv
from benchmarks.common import Options

pytest.importorskip("elpv_dataset", reason="the images come with minitl[demo]")


@pytest.fixture(scope="module")
def cells():
    return elpv.Cells()


@pytest.fixture
def quick_images(cells, monkeypatch):
    """The images are decoded once for all tests."""
    known = cells.images, cells.probability, cells.types
    monkeypatch.setattr(elpv.elpv, "load_data", lambda: known)


def test_splits_are_those_of_the_papers(cells):
    train, test = cells.split("random", 0)
    assert (len(train), len(test)) == (1968, 656)
    share = [np.mean(cells.probability[rows] == 1) for rows in (train, test)]
    assert share[0] == pytest.approx(share[1], abs=2e-3)
    train, test = cells.split("blocks", 0)
    assert not set(train // elpv.BLOCK) & set(test // elpv.BLOCK)
    train, test = cells.split("mono", 3)
    assert (len(train), len(test)) == (859, 215)
    assert set(cells.types[np.r_[train, test]]) == {"mono"}


def test_splits_are_written_and_read_again(tmp_path, quick_images):
    file = tmp_path / "splits.json"
    drawn = elpv.Cells(images=128, splits=file).split("random", 1)
    kept = json.loads(file.read_text())
    kept["random 1"]["test"] = kept["random 1"]["test"][:3]
    file.write_text(json.dumps(kept))
    train, test = elpv.Cells(images=128, splits=file).split("random", 1)
    assert train.tolist() == drawn[0].tolist()
    assert test.tolist() == drawn[1][:3].tolist()
    kept["random 1"]["test"] = kept["random 1"]["train"][:3]
    file.write_text(json.dumps(kept))
    with pytest.raises(ValueError, match=r"'random 1' has a row twice, or rows that are not among"):
        elpv.Cells(images=128, splits=file).split("random", 1)


def test_views_are_mirrored(cells):
    x = cells.images
    assert np.array_equal(cells.view(0), x)
    assert np.array_equal(cells.view(1)[:, :, 0], x[:, :, -1])
    assert np.array_equal(cells.view(2)[:, 0], x[:, -1])
    assert np.array_equal(cells.view(3), x[:, ::-1, ::-1])


def test_the_kernel_head_is_curved_and_the_softmax_head_is_not():
    rng = np.random.default_rng(0)
    f = rng.uniform(-1, 1, (300, 2)).astype(np.float32)
    y = (f[:, 0] * f[:, 1] > 0).astype(int)  # no line tells these apart
    train, test = np.arange(200), np.arange(200, 300)
    given = (f, y, np.ones(300), train, test, elpv.Settings(gamma=2.0))
    right = [
        np.mean(h(*given).argmax(axis=1) == y[test]) for h in (elpv.softmax_head, elpv.kernel_head)
    ]
    assert right[0] < 0.7 < 0.9 < right[1]


def test_heads_learn_from_the_training_rows_alone():
    rng = np.random.default_rng(1)
    f, y = rng.normal(size=(40, 3)).astype(np.float32), np.arange(40) % 2
    train, test = np.arange(30), np.arange(30, 40)
    for head in (elpv.softmax_head, elpv.kernel_head):
        p = head(f, y, np.ones(40), train, test, elpv.Settings())
        changed = y.copy()
        changed[test] = 1 - y[test]
        other = np.vstack([f, 9 * f[test]])  # more test rows change nothing
        q = head(other, np.r_[changed, y[test]], np.ones(50), train, test, elpv.Settings())
        assert np.abs(p - q).max() < 1e-5


def test_the_study_runs_and_goes_on_where_it_was(tmp_path, monkeypatch, capsys, quick_images):
    monkeypatch.setenv("MINITL_HOME", str(tmp_path))
    monkeypatch.setattr(elpv, "QUICK_IMAGES", 128)
    run = partial(elpv.measure, Options(quick=True), seeds=1)
    first = run()
    out = capsys.readouterr().out
    for text in (
        "Deitsch's protocol",
        "88.42",
        "whole blocks of 60",
        "polycrystalline",
        "fine-tuned",
    ):
        assert text in out
    goals = {(claim.case, claim.goal) for claim in first.claims}
    assert goals == {("random", 88.4), ("random", 90.5), ("mono", 78.7), ("poly", 74.5)}

    def again(*_, **__):
        raise AssertionError("computed twice")

    for name in ("fine_tuned", "kernel_head", "softmax_head"):
        monkeypatch.setattr(elpv, name, again)
    second = run()
    for a, b in zip(first.rows, second.rows, strict=True):
        assert (a.case, a.contender) == (b.case, b.contender)
        np.testing.assert_array_equal(a.values, b.values)
