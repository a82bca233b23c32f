"""People's own pictures: how one becomes pixels, and N of them an array that is read when used."""

import os
import pickle

import numpy as np
import pytest
from PIL import Image

from minitl.data import pictures
from minitl.data.found import open_folder
from minitl.data.pictures import read_picture

RED, GREEN, BLUE, WHITE = (200, 30, 40), (30, 180, 50), (20, 40, 190), (255, 255, 255)


def quarters(size=(64, 96)):
    """Four colours, one in each quarter: (H, W, 3) uint8."""
    h, w = size
    x = np.empty((h, w, 3), np.uint8)
    x[: h // 2, : w // 2], x[: h // 2, w // 2 :] = RED, GREEN
    x[h // 2 :, : w // 2], x[h // 2 :, w // 2 :] = BLUE, WHITE
    return x


def corners(x):
    """The colours in the middle of the four quarters."""
    h, w = x.shape[:2]
    return [x[i, j].astype(int) for i in (h // 4, 3 * h // 4) for j in (w // 4, 3 * w // 4)]


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(tmp_path, ending, orientation):
    turn = Image.Transpose
    undone = [None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM]
    undone += [turn.TRANSPOSE, turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270]
    upright = Image.fromarray(quarters())
    stored = upright.transpose(undone[orientation - 1]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a.{ending}", exif=exif, quality=95)
    x = read_picture(tmp_path / f"a.{ending}", (32, 48))
    assert x.shape == (32, 48, 3) and x.dtype == np.uint8
    np.testing.assert_allclose(corners(x), [RED, GREEN, BLUE, WHITE], atol=12)


def test_batches_read_ahead_and_leave_out_what_cannot_be_read(tmp_path, monkeypatch):
    for i in range(11):
        Image.fromarray(np.full((9, 7, 3), 20 * i, np.uint8)).save(tmp_path / f"{i:02d}.png")
    (tmp_path / "04.png").write_bytes(b"no picture")
    found = open_folder(tmp_path, (8, 6))
    assert found.labels is None and found.shape == (11, 8, 6, 3) and found.dtype == np.uint8
    read = []
    real = pictures.read_picture
    monkeypatch.setattr(pictures, "read_picture", lambda p, *a: (read.append(p), real(p, *a))[1])
    rows, x = next(iter(found.batches(2)))
    assert rows.tolist() == [0, 1] and x[:, 0, 0, 0].tolist() == [0, 20]
    pictures._workers(os.getpid()).submit(int).result()
    assert len(set(read)) <= 2 + 2 * pictures.AHEAD + 1  # a bounded number
    all_rows = np.concatenate([rows for rows, _ in found.batches(3)])
    assert all_rows.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10] == found.readable().tolist()
    assert [os.path.basename(p) for p in found.skipped[pictures.UNREADABLE]] == ["04.png"]
    with pytest.raises(OSError, match=r"04\.png as an image: not an image"):
        found[3:6]
    good = found.part(found.readable())
    np.testing.assert_array_equal(good[[9, 0, 0]][:, 0, 0, 0], [200, 0, 0])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(good))[4], good[4:5][0])
