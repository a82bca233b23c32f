"""What pictures are there: layouts of folders, tables, litter, links, names of all kinds."""

import os
import unicodedata
import warnings

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from minitl.data import found as reasons
from minitl.data.found import left_out, open_folder, same_pictures


def picture(path, shade=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    form = None if path.suffix.lower() in Image.registered_extensions() else "JPEG"
    Image.new("RGB", (6, 5), (shade, 20, 30)).save(path, form)


def names(found):
    return sorted(os.path.basename(path) for path in found.paths)


def skipped(found):
    return {why: sorted(map(os.path.basename, paths)) for why, paths in found.skipped.items()}


def test_all_endings_any_case_and_none(tmp_path):
    kinds = ["a.JPG", "b.jpeg", "c.jfif", "d.webp", "e.tif", "f.TIFF", "g.avif", "h", "i.jpg_large"]
    for name in [*kinds, "j.png ", "שלום.jpg", "🐈.png"]:
        picture(tmp_path / "cat" / name)
    picture(tmp_path / "dog" / "deep" / "deeper" / "k.gif")
    (tmp_path / "dog" / "notes.txt").write_text("no picture")
    (tmp_path / "cat" / "x.dng").write_bytes(b"II*\0 the thumbnail of a raw file comes first in it")
    found = open_folder(tmp_path, 8)
    assert found.class_names == ["cat", "dog"] and found.labels.tolist() == [0] * 12 + [1]
    assert skipped(found) == {reasons.OTHERS: ["notes.txt"], reasons.RAW: ["x.dng"]}
    assert sum(len(rows) for rows, _ in found.batches(4)) == 13 and not found.faults
    assert "1 of other kinds (endings: .txt)" in left_out(found)
    with pytest.raises(OSError, match=r"x\.dng"):
        left_out(found, strict=True)


def test_litter_and_minitls_own_files_are_no_pictures(tmp_path):
    for name in ("cat/a.jpg", "dog/b.jpg", "__MACOSX/cat/._a.jpg", "cat/@eaDir/a.jpg/t.jpg"):
        picture(tmp_path / name)
    for name in ("cat/.ipynb_checkpoints/a.jpg", ".hidden/c.jpg", "m.h5.cache/c.jpg"):
        picture(tmp_path / name)
    for name in ("cat/._a.jpg", "cat/Thumbs.db", ".DS_Store", "dog/desktop.ini"):
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    png = {"pnginfo": PngImagePlugin.PngInfo()}
    png["pnginfo"].add_text("Software", "minitl")  # as a sheet of `minitl augment`
    Image.new("RGB", (6, 5)).save(tmp_path / "dog" / "augmentation.png", **png)
    found = open_folder(tmp_path)
    assert names(found) == ["a.jpg", "b.jpg"] and found.class_names == ["cat", "dog"]
    assert left_out(found, strict=True) == (
        "Left out: 8 hidden or left behind by a system, 2 written by minitl."
    )


@pytest.mark.parametrize("parts", [("train", "val", "test"), ("Training", "valid", "Testing")])
@pytest.mark.parametrize("wrapped", ["", "photos"])
def test_train_val_and_test_are_parts_and_no_classes(tmp_path, parts, wrapped):
    for part in parts:
        for kind in ("cat", "dog"):
            picture(tmp_path / wrapped / part / kind / f"{part}-{kind}.png")
    (tmp_path / wrapped / "annotations").mkdir()
    found = open_folder(tmp_path)
    assert found.class_names == ["cat", "dog"]
    assert sorted(set(found.split)) == ["test", "train", "validation"]
    for path, label, split in zip(found.paths, found.labels, found.split, strict=True):
        assert found.class_names[label] in path and split[:2] == os.path.basename(path)[:2].lower()


def test_classes_may_be_called_train_and_test(tmp_path):
    for kind in ("train", "car", "bus"):
        picture(tmp_path / kind / "a.png")
    found = open_folder(tmp_path)
    assert found.class_names == ["bus", "car", "train"] and found.split is None


def test_pictures_beside_the_classes_and_empty_folders_are_told(tmp_path):
    for name in ("a/1.png", "b/2.png", "lost.png"):
        picture(tmp_path / name)
    (tmp_path / "empty").mkdir()
    found = open_folder(tmp_path)
    assert found.class_names == ["a", "b"]
    assert skipped(found) == {reasons.OUTSIDE: ["lost.png"], reasons.EMPTY: ["empty"]}
    flat = open_folder(tmp_path / "a")
    assert flat.labels is None and flat.class_names == [] and len(flat) == 1
    with pytest.raises(ValueError, match=r"has folders \['b'\], not among .*\['a'\]"):
        open_folder(tmp_path, class_names=["a"])
    with pytest.raises(NotADirectoryError, match="does not exist"):
        open_folder(tmp_path / "nowhere")


def test_composed_and_decomposed_names_are_one_class_and_other_case_is_told(tmp_path):
    for form in ("NFC", "NFD"):
        picture(tmp_path / unicodedata.normalize(form, "Äpfel") / f"{form}.png")
    picture(tmp_path / "cat" / "a.png")
    picture(tmp_path / "Cat" / "b.png")
    with pytest.warns(UserWarning, match="'Cat' and 'cat' are two classes, and differ in upper"):
        found = open_folder(tmp_path)
    assert found.class_names == ["Cat", "cat", unicodedata.normalize("NFC", "Äpfel")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
def test_links_fifos_and_devices(tmp_path):
    picture(tmp_path / "set" / "cat" / "a.png")
    picture(tmp_path / "set" / "dog" / "b.png")
    picture(tmp_path / "elsewhere" / "c.png")
    (tmp_path / "set" / "owl").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "set")
    (tmp_path / "elsewhere" / "self").symlink_to(".")
    (tmp_path / "elsewhere" / "twin").symlink_to("../elsewhere")
    for i in range(3):
        (tmp_path / "set" / "cat" / f"up{i}").symlink_to("..")
    (tmp_path / "set" / "round").symlink_to("round")
    (tmp_path / "set" / "dog" / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "set" / "cat" / "f.jpg")
    os.mkfifo(tmp_path / "set" / "cat" / "f")
    (tmp_path / "set" / "cat" / "zero.png").symlink_to("/dev/zero")
    found = open_folder(tmp_path / "set", 4)
    assert found.class_names == ["cat", "dog", "owl"]
    assert names(found) == ["a.png", "b.png", "c.png", "f.jpg", "zero.png"]
    assert skipped(found)[reasons.LINKS] == ["back", "self", "twin", "up0", "up1", "up2"]
    assert sum(len(rows) for rows, _ in found.batches(2)) == 3
    assert all("expected a regular file" in fault for fault in found.faults.values())


@pytest.mark.parametrize("text", [
    "path,label,group,split\ncat/a.png,cat,x,train\ndog/b.png,dog,y,test\n",
    "\ufefffilename;class;group;subset\ncat\\a.png;cat;x;Training\ndog\\b.png;dog;y;test\n",
    "cat/a.png\tcat\tx\ttrain\r\ndog/b.png\tdog\ty\ttest\r\n",
])  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_of_paths_and_labels(tmp_path, monkeypatch, text, encoding):
    picture(tmp_path / "cat" / "a.png")
    picture(tmp_path / "dog" / "b.png")
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    found = open_folder(tmp_path / "t.csv")  # relative to the table, wherever we are
    assert names(found) == ["a.png", "b.png"] and found.class_names == ["cat", "dog"]
    assert found.groups.tolist() == ["x", "y"] and found.split.tolist() == ["train", "test"]
    assert open_folder(tmp_path / "cat", group_by=r"(\w)\.png").groups.tolist() == ["a"]


def test_faults_of_tables_are_told(tmp_path):
    picture(tmp_path / "a.png")
    table = tmp_path / "t.csv"
    table.write_text("path,label\na.png,1\na.png,1\nnowhere.png,2\nb.png,\n")
    found = open_folder(table)
    assert len(found) == 1 and found.class_names == ["1"]
    assert skipped(found) == {reasons.TWICE: ["a.png"], reasons.MISSING: ["b.png", "nowhere.png"]}
    for text, words in (
        ("path,label\na.png,1\na.png,2\n", "is '1' in one row and '2' in another"),
        ("name,label\nx,1\n", "it needs a column 'path'"),
        ("path,label\nnowhere.png,1\n", "no picture with a file and a label"),
        ("path,label\na, b.png,1\n", "stands in quotes"),
        ("path,label,split\na.png,1,trian\n", "the split 'trian' is none of train, validation"),
        ("", "is empty"),
    ):
        table.write_text(text)
        with pytest.raises(ValueError, match=words):
            open_folder(table)


def test_a_data_frame(tmp_path):
    pandas = pytest.importorskip("pandas")
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    frame = pandas.DataFrame(
        {"path": paths, "label": [10.0, 2.0, None], "patient": ["x", "y", "z"]}
    )
    assert open_folder(frame[["path", "label"]]).class_names == ["2", "10"]
    found = open_folder(frame, group_by="patient")
    assert found.class_names == ["2", "10"] and found.labels.tolist() == [1, 0]
    assert found.groups.tolist() == ["x", "y"] and list(found.skipped) == [reasons.NO_LABEL]


def test_the_same_picture_in_two_classes_or_on_both_sides(tmp_path):
    for name, shade in (("a/1.png", 1), ("a/2.png", 200), ("b/3.png", 1), ("b/4.bmp", 90)):
        picture(tmp_path / name, shade)
    found = open_folder(tmp_path, 4)
    assert same_pictures(found) == []  # nothing has been read
    _ = found[:]
    (sentence,) = same_pictures(found)
    assert "in two classes, 1 times" in sentence and "1.png and " in sentence
    both = same_pictures(found, ["train", "train", "validation", "validation"])
    assert len(both) == 2 and "both in training and in validation" in both[1]
    picture(tmp_path / "a" / "0.png", 200)  # the first pair is of one class
    found = open_folder(tmp_path, 4)
    _ = found[:]
    classes, sides = same_pictures(found, ["train", "train", "validation", "validation", "train"])
    assert "1.png and " in classes and "3.png;" in classes
    assert "0.png and " in sides and "2.png;" in sides


def test_nothing_is_warned_of_what_is_as_usual(tmp_path):
    picture(tmp_path / "a" / "1.png")
    picture(tmp_path / "b" / "2.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = open_folder(tmp_path, (4, 5))
        np.testing.assert_array_equal(found[:], found[[0, 1]])
    assert left_out(found, strict=True) == ""
