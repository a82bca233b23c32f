"""People's own pictures: how one becomes pixels, and N of them an array that is read when used."""

import os
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from minitl.data import augment, door, pictures
from minitl.data.folder import fit_image
from minitl.data.found import open_folder
from minitl.data.images import decode
from minitl.data.pictures import FORMERLY, READING, Prepared, read_picture
from minitl.layers import Dense, Flatten, Input, RandomBrightness, RandomFlip
from minitl.models import Sequential
from minitl.transfer.features import extract_features

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


def test_what_is_transparent_lies_on_white_and_hidden_colours_stay_hidden(tmp_path):
    x = np.dstack([quarters(), np.full((64, 96), 255, np.uint8)])
    x[:32, :48, 3] = 0  # red, but nobody sees it
    Image.fromarray(x).save(tmp_path / "a.png")
    Image.fromarray(x).save(tmp_path / "a.webp", lossless=True)
    Image.fromarray(quarters()).save(tmp_path / "key.png", transparency=RED)
    palette = Image.fromarray(quarters()).quantize(8)
    palette.save(tmp_path / "palette.png", transparency=palette.getpixel((3, 3)))
    for name in ("a.png", "a.webp", "key.png", "palette.png"):
        seen = read_picture(tmp_path / name, (64, 96))
        np.testing.assert_allclose(corners(seen), [WHITE, GREEN, BLUE, WHITE], atol=2)


def test_kinds_of_pixels(tmp_path):
    """CMYK, 16 bits, one bit, the first of several frames, progressive, two pictures in one."""
    img = Image.fromarray(quarters())
    other = Image.new("RGB", img.size)
    img.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    img.save(tmp_path / "progressive.jpg", progressive=True, quality=95)
    img.save(tmp_path / "mpo.jpg", "MPO", save_all=True, append_images=[other], quality=95)
    img.save(tmp_path / "film.webp", save_all=True, append_images=[other], lossless=True)
    for path in tmp_path.iterdir():
        seen = read_picture(path, (32, 48))
        np.testing.assert_allclose(corners(seen), [RED, GREEN, BLUE, WHITE], atol=12)
    wide = np.asarray(img.convert("L")).astype(np.uint16) * 257
    Image.fromarray(wide).save(tmp_path / "wide.tif")
    img.convert("1", dither=0).save(tmp_path / "one.png")
    gray = (wide[16, 16] >> 8, wide[16, 80] >> 8, wide[48, 16] >> 8, 255)
    seen = read_picture(tmp_path / "wide.tif", (64, 96))
    np.testing.assert_array_equal(np.array(corners(seen)), np.repeat(gray, 3).reshape(4, 3))
    assert np.array(corners(read_picture(tmp_path / "one.png", 64)))[:, 0].tolist()[-1] == 255
    Image.fromarray((wide / 65535).astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(OSError, match=r"from .* to 1, and a file with 32 bits .* scale it"):
        read_picture(tmp_path / "float.tif", 8)


def test_a_pixel_of_a_shrunk_picture_is_the_mean_of_all_that_it_covers(tmp_path):
    """A chess board of single pixels becomes gray, however far it is shrunk, in bands or whole."""
    board = (np.indices((600, 800)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    Image.fromarray(board).convert("RGB").save(tmp_path / "a.jpg", quality=95)
    for name in ("a.png", "a.jpg"):
        seen = read_picture(tmp_path / name, (50, 40))
        assert np.abs(seen.astype(int) - 127).max() <= 3, name


def test_bands_of_a_large_picture_give_what_the_whole_gives(tmp_path, monkeypatch):
    x = np.random.default_rng(0).integers(0, 256, (333, 201, 4)).astype(np.uint8)
    Image.fromarray(x).save(tmp_path / "a.png")
    whole = read_picture(tmp_path / "a.png", (20, 31))
    monkeypatch.setattr(pictures, "BAND", 3000)
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png", (20, 31)), whole)


def test_other_proportions_are_stretched_cropped_or_padded(tmp_path):
    Image.fromarray(quarters((40, 400))).save(tmp_path / "panorama.png")
    how = {**READING, "resizing": "crop"}
    np.testing.assert_array_equal(
        corners(read_picture(tmp_path / "panorama.png", 32, how)), [RED, GREEN, BLUE, WHITE]
    )
    padded = read_picture(tmp_path / "panorama.png", 40, {**READING, "resizing": "pad"})
    assert (padded[:18] == 0).all() and (padded[22:] == 0).all() and padded[18:22].any(axis=2).all()


def test_how_a_model_was_trained_decides_how_it_reads(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(x).save(tmp_path / "a.png", exif=exif)
    formerly = read_picture(tmp_path / "a.png", (16, 20), {"class_names": ["a"], **FORMERLY})
    np.testing.assert_array_equal(formerly, fit_image(x, (16, 20), "bilinear", "stretch"))
    turned = np.asarray(Image.fromarray(x).transpose(Image.Transpose.ROTATE_270))
    now = read_picture(tmp_path / "a.png", turned.shape[:2])
    np.testing.assert_array_equal(now, turned)


def test_what_would_take_too_much_is_refused_before_it_is_taken(tmp_path):
    Image.new("1", (13000, 13000)).save(tmp_path / "bomb.png")
    with pytest.raises(OSError, match=r"13,000 x 13,000 pixels would take 1,352 MB, and 24\d MB"):
        decode(tmp_path / "bomb.png", "rgb")
    assert read_picture(tmp_path / "bomb.png", 8).shape == (8, 8, 3)  # one byte per pixel
    Image.new("RGB", (9000, 9000)).save(tmp_path / "colours.png")
    with pytest.raises(OSError, match="if the picture is sound, scale it down first") as refused:
        read_picture(tmp_path / "colours.png", 8)
    assert refused.value.reason == "that would take too much memory or time"


def test_passes_of_a_progressive_jpeg_are_counted(tmp_path):
    Image.new("RGB", (640, 480)).save(tmp_path / "a.jpg", progressive=True)
    data = (tmp_path / "a.jpg").read_bytes()
    last = data.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[:last] + data[last:-2] * 9000 + data[-2:])
    with pytest.raises(OSError, match=r"9,?\d* passes over 640 x 480 pixels"):
        read_picture(tmp_path / "a.jpg", 8)


def test_numbers_in_plain_text_are_read_unless_there_are_too_many(tmp_path, monkeypatch):
    (tmp_path / "a.ppm").write_bytes(b"P3 2 2 255\n" + b" 9" * 12)
    assert (decode(tmp_path / "a.ppm", "rgb") == 9).all()
    monkeypatch.setattr("minitl.data.door.MOST_PLAIN", 30)
    with pytest.raises(OSError, match=r"numbers in plain text.*save it in a binary format"):
        decode(tmp_path / "a.ppm", "rgb")
    Image.new("RGB", (20, 20)).save(tmp_path / "b.ppm")  # binary
    assert decode(tmp_path / "b.ppm", "rgb").shape == (20, 20, 3)


@pytest.mark.parametrize(
    "data", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"%PDF-1.7"]
)
def test_a_program_named_as_a_picture_is_not_run(tmp_path, monkeypatch, data):
    monkeypatch.setattr("subprocess.check_call", None)
    monkeypatch.setattr("subprocess.Popen", None)
    (tmp_path / "cat.jpg").write_bytes(data)
    with pytest.raises(OSError, match=r"cat\.jpg as an image: it is a program or a document"):
        read_picture(tmp_path / "cat.jpg", 8)


def test_heic_needs_an_extra_and_says_so(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    door._plugins.cache_clear()
    monkeypatch.setattr(door, "FORMATS", ("JPEG",))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(OSError, match=r"pip install 'minitl\[heic\]'"):
        read_picture(tmp_path / "a.jpg", 8)
    door._plugins.cache_clear()
    monkeypatch.undo()
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(quarters())).save(tmp_path / "b.heic", quality=95)
    seen = read_picture(tmp_path / "b.heic", (64, 96))
    np.testing.assert_allclose(corners(seen), [RED, GREEN, BLUE, WHITE], atol=12)


def test_prepared_pictures_are_an_array_for_fit(tmp_path):
    for i in range(5):
        x = np.random.default_rng(i).integers(0, 256, (8, 8, 3)).astype(np.uint8)
        Image.fromarray(x).save(tmp_path / f"{i}.png")
    found = open_folder(tmp_path, 8)
    layers = [RandomFlip("horizontal"), RandomBrightness(0.2)]
    lazy = Prepared(found, lambda x: x / 255, layers, copies=2, seed=3)
    pixels = found[:].astype(np.float32)
    views = [pixels, *(augment(pixels, layers, 3, view) for view in range(2))]
    whole = np.concatenate(views) / 255
    assert lazy.shape == whole.shape and len(lazy) == 15
    for where in (slice(3, 12), [14, 2, 7, 8], np.array([0]), slice(None)):
        np.testing.assert_array_equal(lazy[where], whole[where])
    np.testing.assert_array_equal(lazy[11], whole[11])
    model = Sequential([Input((8, 8, 3)), Flatten(), Dense(1)])
    model.compile("sgd", "mse")
    np.testing.assert_array_equal(model.predict(lazy, verbose=0), model.predict(whole, verbose=0))
    start, y = model.get_weights(), np.arange(15.0)
    model.fit(lazy, y, batch_size=4, shuffle=False, verbose=0)
    after = model.get_weights()
    model.set_weights(start)
    model.fit(whole, y, batch_size=4, shuffle=False, verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], after[0])
    again = Prepared(open_folder(tmp_path, 8), lazy.prepare, layers, 2, 3)
    assert again.identity() == lazy.identity()
    (tmp_path / "0.png").write_bytes((tmp_path / "1.png").read_bytes())
    changed = Prepared(open_folder(tmp_path, 8), lazy.prepare, layers, 2, 3)
    assert changed.identity() != lazy.identity()


def test_features_of_pictures_are_rows_of_those_that_can_be_read(tmp_path):
    for i in range(7):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    model = Sequential([Input((8, 8, 3)), Flatten()])
    found = open_folder(tmp_path, 8)
    out = tmp_path / "F.h5"
    for _ in range(2):  # computed, then found in the file
        f = extract_features(model, found, batch_size=3, out=out)
        assert f[:, 0].tolist() == [0, 1, 3, 4, 5, 6] == found.readable().tolist()
    with pytest.raises(ValueError, match="other pictures"):
        extract_features(model, open_folder(tmp_path, 8, reading=FORMERLY), out=out)
