"""`minitl check`, and `--report` of the commands, on drawn pictures."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from minitl.cli import main
from tests.judging.test_duplicates import jpeg, scene

SMALL = ["--size", "32", "--weights", "none"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures in two classes: one in both, one again as JPEG, one gray, one broken, one tiny."""
    folder = tmp_path_factory.mktemp("check") / "photos"
    for i in range(24):
        name = ("猫 <b>", "dog")[i % 2]
        (folder / name).mkdir(parents=True, exist_ok=True)
        scene(i).save(folder / name / f"{i}.png")
    shutil.copy(folder / "dog" / "1.png", folder / "猫 <b>" / "again.png")
    jpeg(scene(3), 80).save(folder / "dog" / "copy.jpg", quality=80)
    scene(50).point(lambda v: 99).save(folder / "dog" / "gray.png")
    scene(51).resize((20, 20)).save(folder / "dog" / "tiny.png")
    (folder / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return folder


def rows_of(text):
    return [(r["kind"], r["path"].rsplit("/")[-1], r["class"]) for r in csv.DictReader(text)]


def test_what_check_finds(photos, tmp_path, capsys):
    table, page = tmp_path / "found.csv", tmp_path / "found.html"
    options = ["--csv", str(table), "--report", str(page)]
    assert main(["check", str(photos), *SMALL, *options]) == 0
    out = capsys.readouterr().out
    assert "The same picture in two classes: 1. One of the two labels is wrong." in out
    assert (
        f"{photos}/dog/1.png  =  {photos}/猫 <b>/again.png: the same pixels, as dog and 猫 <b>"
        in out
    )
    assert "29 pictures." in out and f"The report is in {page}." in out
    found = rows_of(table.read_text("utf-8").splitlines())
    assert (
        found[:8]
        == [
            ("unreadable", "broken.png", "dog"),
            ("two classes", "1.png", "dog"),
            ("two classes", "again.png", "猫 <b>"),
            ("near-duplicate", "3.png", "dog"),
            ("near-duplicate", "copy.jpg", "dog"),
            ("one colour", "gray.png", "dog"),
            ("tiny", "tiny.png", "dog"),
        ][: len(found)]
        + found[7:8]
    )
    html = page.read_text("utf-8")
    assert "猫 &lt;b&gt;" in html and "<b>/" not in html and 'id="map"' in html
    assert "minitl check" in html and str(photos) in html


def test_pixels_alone_and_a_table_on_the_output(photos, capsys):
    for command in (["check", str(photos), "--csv"], ["check", "--csv", str(photos)]):
        assert main([*command, "--pixels", *SMALL]) == 0
        found = rows_of(capsys.readouterr().out.splitlines())
        assert len(found) == 7 and {kind for kind, _, _ in found}.isdisjoint({"label", "outlier"})


def test_strict_is_about_what_is_certain(photos, tmp_path, capsys):
    assert main(["check", str(photos), "--pixels", "--strict", *SMALL]) == 1
    assert "5 findings that are certain; --strict allows none" in capsys.readouterr().err
    good = tmp_path / "good"
    (good / "a").mkdir(parents=True)
    for i in range(4):
        scene(i).save(good / "a" / f"{i}.png")
    assert main(["check", str(good), "--pixels", "--strict", *SMALL]) == 0
    assert capsys.readouterr().out.startswith("Nothing was found.\n4 pictures.")


def test_both_sides_of_a_split(photos, tmp_path, capsys):
    for side, numbers in (("train", (0, 1, 2, 3)), ("val", (4, 5, 2))):
        for i in numbers:
            folder = tmp_path / "set" / side / "ab"[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            scene(i).save(folder / f"{i}.png")
    assert main(["check", str(tmp_path / "set"), "--pixels", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "on both sides of a split: 1." in out and "in train and validation" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--report", "a.txt"], "must end in .html"),
        (["--csv", "a.txt"], "must end in .csv"),
        (["--report", "nowhere/a.html"], "there is no folder"),
    ],
)
def test_errors_come_before_the_work(photos, tmp_path, monkeypatch, capsys, options, words):
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(photos), *SMALL, *options]) == 1
    assert words in capsys.readouterr().err and list(tmp_path.iterdir()) == []
    assert main(["check"]) == 1
    assert "say which folder to check: minitl check DIR" in capsys.readouterr().err


def test_evaluate_writes_a_report(tmp_path, capsys):
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    for name, low in (("dark", 0), ("light", 60)):
        (photos / name).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(low, low + 70, (40, 36, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(photos / name / f"{i}.png")
    model, page = str(tmp_path / "m.h5"), tmp_path / "page.html"
    options = ["--validation", "0.34", "--epochs", "2", "--unfreeze", "block5"]
    assert (
        main(["train", str(photos), "-o", model, *SMALL, *options, "--fine-tune-epochs", "1"]) == 0
    )
    assert main(["evaluate", model, str(photos)]) == 0
    plain = capsys.readouterr().out.split("\n\n", 1)
    assert main(["evaluate", model, str(photos), "--report", str(page)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"The report is in {page}."
    html = page.read_text("utf-8")
    assert " of 12 pictures were among those it was trained on: on others" in html
    for section in ("figures", "map", "made"):
        assert f'id="{section}"' in html
    assert plain and "12 pictures" in html and "minitl evaluate" in html
