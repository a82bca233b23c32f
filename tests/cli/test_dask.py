"""`--dask`: the same file and the same answers, by worker processes."""

import csv

import numpy as np
import pytest

from minitl import layers
from minitl.cli import main
from minitl.models import Model
from minitl.transfer.feature_file import FeatureFile, read_layout

pytest.importorskip("distributed")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(6):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        path = folder / "ab"[i % 2] / f"{i}.png"
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
    (folder / "a" / "broken.png").write_bytes(b"no picture")
    return folder


def test_extract_and_predict_are_those_without(photos, tmp_path, capsys):
    files = tmp_path / "one.h5", tmp_path / "many.h5"
    for file, more in zip(files, ([], ["--dask", "local:1"]), strict=True):
        command = ["extract", str(photos), "-o", str(file), "--size", "32", "--weights", "none"]
        assert main([*command, "--layers", "block1_pool", *more]) == 0
        told = capsys.readouterr()
        assert "broken.png" in told.err
        assert "F (6, 64) is in" in told.out
    layouts = [read_layout(file) for file in files]
    found = []
    for file, layout in zip(files, layouts, strict=True):
        with FeatureFile(file, 64, "float32", layout.key, 6) as f:
            assert f.there.all()
            found.append((f.images, f.mapped(), list(csv.reader(file.with_suffix(".csv").open()))))
    # The weights are random, and others in each process; a cluster's client reads no picture.
    others = ("weights", "first of the images, preprocessed")
    keys = [{k: v for k, v in layout.key.items() if k not in others} for layout in layouts]
    assert keys[0] == keys[1]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][2] == found[1][2]
    assert sorted(p.name for p in tmp_path.iterdir() if p.name[0] != ".") == [
        *("many.csv", "many.h5", "one.csv", "one.h5")
    ]

    x = layers.Input((8, 8, 3))
    y = layers.Dense(2, activation="softmax")(layers.Flatten()(layers.Rescaling(1 / 255)(x)))
    model = Model(x, y)
    model.metadata = {"class_names": ["a", "b"], "size": [8, 8], "preprocessing": "none"}
    model.save(tmp_path / "m.h5")
    command = ["predict", str(tmp_path / "m.h5"), str(photos), "--csv"]
    answers = []
    for more in ([], ["--dask", "local:1"]):
        assert main([*command, *more]) == 1
        told = capsys.readouterr()
        assert "1 of 7 images cannot be read" in told.err
        answers.append(told.out)
    assert answers[0].count("\n") == 7
    assert answers[0] == answers[1]


def test_what_may_be_typed(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["extract", "x", "-o", "F.h5", "--dask", "local:none"])
    assert "'none' is no number of at least 1" in capsys.readouterr().err
