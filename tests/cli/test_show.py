"""`minitl show`: each kind writes a picture, says what it lacks, and shows the given network."""

import numpy as np
import pytest
from PIL import Image

from minitl.cli import main, show
from minitl.judging import sheets

pytest.importorskip("matplotlib")
SMALL = ["--weights", "none", "--size", "32"]


@pytest.fixture
def folder(tmp_path):
    """Eight noisy images in two classes."""
    rng = np.random.default_rng(0)
    for i in range(8):
        place = tmp_path / "photos" / ("dark" if i % 2 else "light") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 100 + 100 * (i % 2), (32, 32, 3)).astype(np.uint8)).save(
            place
        )
    return tmp_path / "photos"


def test_every_kind_is_listed_in_the_help():
    text = show.show.__doc__
    assert [name for name in show.KINDS if f"\n    {name} " not in text] == []


def test_a_graph_as_text(capsys, tmp_path):
    assert main(["show", "graph", "--text", *SMALL]) == 0
    out = capsys.readouterr().out
    assert out.startswith("flowchart TD") and "block5_pool<br>(1, 1, 512)" in out
    path = tmp_path / "graph.png"
    assert main(["show", "graph", *SMALL, "--output", str(path)]) == 0
    assert capsys.readouterr().out == f"graph: {path}\n" and path.stat().st_size > 1000


def test_pictures_of_a_picture(folder, tmp_path, capsys):
    photo = str(folder / "dark" / "1.png")
    for kind in ("filters", "maps", "tile"):
        path = tmp_path / f"{kind}.png"
        more = ["--layer", "block1_conv1"] if kind == "maps" else []
        given = [] if kind == "filters" else [photo]
        assert main(["show", kind, *given, *SMALL, *more, "--output", str(path)]) == 0
        assert path.stat().st_size > 1000
    assert capsys.readouterr().err == ""


def test_the_photograph_that_is_taken_without_one(tmp_path):
    pytest.importorskip("sklearn")
    assert main(["show", "tile", *SMALL, "--output", str(tmp_path / "tile.png")]) == 0


def test_features_and_loss_of_a_folder(folder, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(sheets, "feature_plane", lambda *given: drawn.append(given))
    assert main(["show", "features", str(folder), *SMALL, "--output", str(tmp_path / "f.png")]) == 0
    (panels, labels, names, _), *_ = drawn
    assert [f.shape for f in panels.values()] == [(8, 512)]
    assert names == ["dark", "light"] and labels.tolist() == [0] * 4 + [1] * 4
    path = tmp_path / "loss.png"
    assert main(["show", "loss", str(folder), *SMALL, "--output", str(path)]) == 0
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    "line, told",
    [
        ("features", "features needs one folder"),
        ("gradcam x.png", "gradcam needs --model FILE, of `minitl train`, and pictures"),
        ("filters --layer block1_pool", "MaxPooling2D 'block1_pool' has no filters"),
        ("maps --layer block9", "no layer 'block9'"),
        ("filters --output x.txt", "must end in .png or .svg or .pdf"),
    ],
)
def test_what_is_missing_is_said(line, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if line.startswith("maps"):
        pytest.importorskip("sklearn")
    assert main(["show", *line.split(), *SMALL]) == 1
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_trained_model(folder, tmp_path, capsys):
    model, photo = str(tmp_path / "m.h5"), str(folder / "dark" / "1.png")
    train = ["train", str(folder), "-o", model, "--size", "32", "--weights", "none"]
    assert main([*train, "--layers", "block5_pool", "--pooling", "avg"]) == 0
    for line in (["gradcam", photo], ["features", str(folder), "--weights", "none"]):
        path = tmp_path / f"{line[0]}.png"
        more = ["--model", model, "--size", "32", "--output", str(path)]
        assert main(["show", *line, *more]) == 0, capsys.readouterr().err
        assert path.stat().st_size > 1000
