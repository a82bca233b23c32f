"""`minitl augment`: a contact sheet from a folder or an image, and errors in the user's words."""

import numpy as np
import pytest
from PIL import Image

from minitl.cli import main
from minitl.judging import plots as report

pytest.importorskip("matplotlib")


@pytest.fixture
def folder(tmp_path):
    """Six images in two classes, in colour, 40 x 60 pixels, each of one random shade."""
    rng = np.random.default_rng(0)
    for i in range(6):
        place = tmp_path / "photos" / ("cat" if i % 2 else "dog") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        shade = rng.integers(0, 256, 3).astype(np.uint8)
        Image.fromarray(np.tile(shade, (40, 60, 1))).save(place)
    return tmp_path / "photos"


@pytest.fixture
def drawn(monkeypatch):
    """What reaches the sheet."""
    calls = []
    real = report.augmentation_sheet
    monkeypatch.setattr(report, "augmentation_sheet", lambda *a: (calls.append(a), real(*a))[1])
    return calls


def test_a_folder(folder, tmp_path, drawn, capsys):
    sheet = tmp_path / "sheet.png"
    options = ["--flip", "both", "--rotate", "20", "--brightness", "0.2", "--size", "16x20"]
    code = main(["augment", str(folder), "--preview", str(sheet), "--views", "3", *options])
    assert code == 0
    assert capsys.readouterr().out == f"4 images, 3 views of each: {sheet}\n"
    assert sheet.stat().st_size > 1000
    assert b"Software\0minitl" in sheet.read_bytes()[:256]  # it is no picture of anybody's
    ((images, views, _),) = drawn
    assert images.shape == (4, 16, 20, 3) and [v.shape for v in views] == [(4, 16, 20, 3)] * 3
    assert len({v.tobytes() for v in views}) == 3
    main(["augment", str(folder), "--preview", str(sheet), "--views", "3", *options])
    for a, b in zip([images, *views], [drawn[1][0], *drawn[1][1]], strict=True):
        np.testing.assert_array_equal(a, b)
    main(["augment", str(folder), "--preview", str(sheet), "--seed", "1", *options])
    assert not np.array_equal(drawn[2][1][0], views[0])


def test_one_image(folder, tmp_path, drawn, capsys):
    image = next(folder.rglob("*.png"))
    code = main(
        ["augment", str(image), "--preview", str(tmp_path / "a.png"), "--turn", "--crop", "8"]
    )
    assert code == 0 and "1 images, 6 views" in capsys.readouterr().out
    ((images, views, _),) = drawn
    assert images.shape == (1, 224, 224, 3) and views[5].shape == (1, 8, 8, 3)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 1, "say how to augment, e.g. --flip horizontal --rotate 10"),
        (["--rotate", "400"], 1, "rotate must be from 0 to 360 degrees, got 400"),
        (["--turn", "--size", "20x30"], 1, "turns by 90 degrees, for which images must be square"),
        (["--turn", "--views", "0"], 1, "--views must be at least 1, got 0"),
    ],
)
def test_errors(folder, tmp_path, capsys, options, code, message):
    sheet = tmp_path / "sheet.png"
    assert main(["augment", str(folder), "--preview", str(sheet), *options]) == code
    assert message in capsys.readouterr().err
    assert not sheet.exists()


def test_what_is_not_there(tmp_path, capsys):
    assert main(["augment", str(tmp_path / "none.png"), "--turn"]) == 1
    assert "none.png: No such file" in capsys.readouterr().err
    assert main(["augment", str(tmp_path), "--turn"]) == 1
    assert f"no pictures in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--crop", "3x"], ["--size", "0"], ["--flip", "up"]])
def test_wrong_usage(tmp_path, capsys, option):
    with pytest.raises(SystemExit) as stopped:
        main(["augment", str(tmp_path), *option])
    assert stopped.value.code == 2
    assert option[0] in capsys.readouterr().err
