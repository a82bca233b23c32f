import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from minitl.data.folder import fit_image, image_dataset_from_directory
from minitl.data.images import resize_images

PHOTOS = Path(sklearn.datasets.__file__).parent / "images"


def make_folder(root, **counts):
    """PNG files, class by class; every image is filled with its own gray level."""
    level = 0
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            level += 1
            Image.new("RGB", (12, 10), (level,) * 3).save(root / name / f"{i:03d}.png")
    return root


def levels(x):
    """The gray level that names an image."""
    return np.rint(x[:, 0, 0, 0]).astype(int).tolist()


def read(directory, **options):
    options = {"image_size": (10, 12), "verbose": False, **options}
    return image_dataset_from_directory(directory, **options)


def test_classes_are_sorted_sub_folders_and_files_follow_them(tmp_path):
    make_folder(tmp_path, zebra=2, ant=3)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    data = read(tmp_path, shuffle=False, batch_size=2)
    assert data.class_names == ["ant", "zebra"]
    assert data.file_paths == [
        os.path.join(tmp_path, *p.split("/"))
        for p in ("ant/000.png", "ant/001.png", "ant/002.png", "zebra/000.png", "zebra/001.png")
    ]
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    batches = list(data)
    assert len(data) == len(batches) == 3
    assert [len(x) for x, _ in batches] == [2, 2, 1]
    assert [levels(x) for x, _ in batches] == [[3, 4], [5, 1], [2]]
    assert np.concatenate([y for _, y in batches]).tolist() == [0, 0, 0, 1, 1]
    x, y = batches[0]
    assert x.dtype == np.float32 and x.shape == (2, 10, 12, 3) and y.dtype == np.int32


def test_photographs_of_other_sizes_are_resized(tmp_path):
    for name in ("china", "flower"):
        (tmp_path / name).mkdir()
        shutil.copy(PHOTOS / f"{name}.jpg", tmp_path / name)
    x, y = read(tmp_path, shuffle=False, image_size=(64, 48)).arrays(verbose=False)
    assert x.shape == (2, 64, 48, 3) and y.tolist() == [0, 1]
    photo = sklearn.datasets.load_sample_image("flower.jpg")[np.newaxis]
    np.testing.assert_array_equal(x[1], resize_images(photo, (64, 48))[0])


def test_files_in_deeper_folders_belong_to_the_class(tmp_path):
    make_folder(tmp_path, a=1, b=1)
    make_folder(tmp_path / "a", deep=2)
    data = read(tmp_path, shuffle=False)
    assert data.labels.tolist() == [0, 0, 0, 1]


def test_class_names_choose_the_classes_and_their_order(tmp_path):
    make_folder(tmp_path, a=1, b=2, c=3)
    data = read(tmp_path, class_names=["c", "a"], shuffle=False)
    assert data.class_names == ["c", "a"]
    assert data.labels.tolist() == [0, 0, 0, 1]


def test_label_modes(tmp_path):
    make_folder(tmp_path, a=1, b=2)
    _, y = read(tmp_path, shuffle=False, label_mode="categorical").arrays(verbose=False)
    assert y.dtype == np.float32 and y.tolist() == [[1, 0], [0, 1], [0, 1]]
    _, y = read(tmp_path, shuffle=False, label_mode="binary").arrays(verbose=False)
    assert y.dtype == np.float32 and y.tolist() == [[0], [1], [1]]
    for options in ({"label_mode": None}, {"labels": None}):
        data = read(tmp_path, shuffle=False, **options)
        (x,) = data
        assert levels(x) == [1, 2, 3]
        assert data.class_names is None and data.labels is None
        assert data.arrays(verbose=False)[1] is None


def test_given_labels_follow_the_sorted_files(tmp_path):
    make_folder(tmp_path, a=1, b=2)
    data = read(tmp_path, labels=[5, 7, 7], shuffle=False)
    assert data.class_names == ["5", "7"]
    ((x, y),) = data
    assert levels(x) == [1, 2, 3] and y.tolist() == [5, 7, 7]


def test_color_modes(tmp_path):
    make_folder(tmp_path, a=1, b=1)
    for mode, channels in (("grayscale", 1), ("rgb", 3), ("rgba", 4)):
        ((x, _),) = read(tmp_path, color_mode=mode)
        assert x.shape == (2, 10, 12, channels)


def test_without_batches_single_samples_come(tmp_path):
    make_folder(tmp_path, a=1, b=2)
    data = read(tmp_path, batch_size=None, shuffle=False)
    assert len(data) == 3
    assert [(x.shape, int(y)) for x, y in data] == [((10, 12, 3), k) for k in (0, 1, 1)]


def test_every_iteration_has_a_new_order_that_the_seed_repeats(tmp_path):
    make_folder(tmp_path, a=8, b=8)

    def epochs(seed, count=3):
        data = read(tmp_path, seed=seed, batch_size=5)
        return data, [[n for x, _ in data for n in levels(x)] for _ in range(count)]

    data, first = epochs(seed=1)
    assert all(sorted(order) == list(range(1, 17)) for order in first)
    assert len({tuple(order) for order in first}) == 3
    assert epochs(seed=1)[1] == first
    assert epochs(seed=2)[1] != first
    # images and labels stay together in every order, and arrays() knows no order but its own
    for x, y in data:
        assert [int(n > 8) for n in levels(x)] == y.tolist()
    x, y = data.arrays(verbose=False)
    np.testing.assert_array_equal(y, data.labels)
    assert [Path(p).parent.name for p in data.file_paths] == ["ab"[k] for k in y]
    assert [int(n > 8) for n in levels(x)] == y.tolist()


def test_without_a_seed_numpys_global_one_counts(tmp_path):
    make_folder(tmp_path, a=8, b=8)
    found = []
    for _ in range(2):
        np.random.seed(7)
        found.append(read(tmp_path).file_paths)
    assert found[0] == found[1] != sorted(found[0])


def test_a_split_has_no_overlap_and_both_gives_the_two(tmp_path, capsys):
    make_folder(tmp_path, a=7, b=6)
    options = {"validation_split": 0.3, "seed": 4, "verbose": True}
    train = read(tmp_path, subset="training", **options)
    held = read(tmp_path, subset="validation", **options)
    assert capsys.readouterr().out.splitlines() == [
        "Found 13 files belonging to 2 classes.",
        "Using 10 files for training.",
        "Found 13 files belonging to 2 classes.",
        "Using 3 files for validation.",
    ]
    assert len(train.file_paths) == 10 and len(held.file_paths) == 3
    assert not set(train.file_paths) & set(held.file_paths)
    one, two = read(tmp_path, subset="both", **options)
    assert one.file_paths == train.file_paths and two.file_paths == held.file_paths
    assert [y.tolist() for _, y in two] == [y.tolist() for _, y in two], "never reshuffled"
    np.testing.assert_array_equal(one.labels, train.labels)


def test_prints_without_labels(tmp_path, capsys):
    make_folder(tmp_path, a=2)
    read(tmp_path, labels=None, verbose=True)
    assert capsys.readouterr().out == "Found 2 files.\n"


def test_links_are_followed_on_demand(tmp_path):
    make_folder(tmp_path / "elsewhere", far=2)
    make_folder(tmp_path / "data", a=1, b=1)
    (tmp_path / "data" / "a" / "link").symlink_to(tmp_path / "elsewhere" / "far")
    assert len(read(tmp_path / "data").file_paths) == 2
    assert len(read(tmp_path / "data", follow_links=True).file_paths) == 4


def test_crop_takes_the_middle_and_pad_keeps_all():
    wide = np.zeros((10, 30, 1), np.uint8)
    wide[:, 10:20] = 100
    assert fit_image(wide, (5, 5), "bilinear", "crop").min() == 100
    padded = fit_image(np.full((10, 30, 1), 100, np.uint8), (9, 9), "bilinear", "pad")[:, :, 0]
    np.testing.assert_allclose(padded[3:6], 100)
    assert padded[:3].max() == 0 and padded[6:].max() == 0
    assert fit_image(wide, (5, 5), "bilinear", "stretch").shape == (5, 5, 1)


def test_images_are_read_when_needed_and_only_then(tmp_path, monkeypatch):
    make_folder(tmp_path, a=6, b=6)
    opened = []
    from minitl.data import images

    real = images.decode
    monkeypatch.setattr(images, "decode", lambda p, m: opened.append(p) or real(p, m))
    data = read(tmp_path, batch_size=4)
    assert opened == []
    next(iter(data))
    assert len(opened) == 4


# --- what is wrong, in the user's words ---


@pytest.mark.parametrize("how", ["arrays", "iterate", "verify"])
def test_all_unreadable_images_are_named_at_once(tmp_path, how):
    make_folder(tmp_path, a=4, b=4)
    (tmp_path / "a" / "001.png").write_bytes(b"")
    (tmp_path / "b" / "000.png").write_bytes(b"<html>")
    whole = (tmp_path / "b" / "003.png").read_bytes()
    (tmp_path / "b" / "003.png").write_bytes(whole[: len(whole) // 2])
    data = read(tmp_path, batch_size=2)
    with pytest.raises(OSError) as caught:
        if how == "arrays":
            data.arrays(verbose=False)
        elif how == "verify":
            data.verify()
        else:
            list(data)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("3 of 8 images are unreadable")
    assert len(lines) == 4
    for name in ("a/001.png", "b/000.png", "b/003.png"):
        assert sum(os.path.join(*name.split("/")) in line for line in lines) == 1
    assert any("the file is empty" in line for line in lines)


def test_verify_of_a_sound_folder_is_silent(tmp_path):
    make_folder(tmp_path, a=2, b=2)
    assert read(tmp_path).verify() is None


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(NotADirectoryError, match="nowhere does not exist"):
        read(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="file is a file, not a folder"):
        read(tmp_path / "file")
    with pytest.raises(ValueError, match=r"no sub-folders.*labels=None"):
        read(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "scan.webp").write_text("x")
    with pytest.raises(ValueError, match=r"no images \(\.bmp.*files that end in \.webp"):
        read(tmp_path / "a", labels=None)
    with pytest.raises(ValueError, match="no images"):
        read(tmp_path)


def test_warnings_of_what_is_probably_a_mistake(tmp_path):
    make_folder(tmp_path, a=3)
    with pytest.warns(UserWarning, match="one class only, 'a'.*did you mean"):
        read(tmp_path)
    make_folder(tmp_path, b=0, c=1)
    with pytest.warns(UserWarning, match="no images .* for class 'b'"):
        read(tmp_path)


@pytest.mark.filterwarnings("ignore:no images")
def test_a_split_that_leaves_a_class_untrained_warns(tmp_path):
    make_folder(tmp_path, a=4, b=1)
    with pytest.warns(UserWarning, match="class 'b' falls into the validation part.*set shuffle"):
        read(tmp_path, shuffle=False, validation_split=0.25, subset="both")
    with pytest.warns(UserWarning, match="class '7' falls"):
        read(tmp_path, labels=[3, 3, 3, 3, 7], shuffle=False, validation_split=0.25, subset="both")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "all"}, "labels must be 'inferred'"),
        ({"labels": [0, 1]}, "2 labels for 4 images"),
        ({"labels": [0.5, 1, 1, 1]}, "one integer an image, got float64"),
        ({"labels": [0, 0, 0, 1], "class_names": ["a"]}, "class_names goes with"),
        ({"labels": [1, 1, 2, 2], "label_mode": "categorical"}, "labels 0 to 1 .* got 1 to 2"),
        ({"label_mode": "onehot"}, "label_mode must be one of 'int', 'categorical'"),
        ({"color_mode": "bgr"}, "color_mode must be one of"),
        ({"class_names": ["a", "x"]}, r"no sub-folder for \['x'\]; sub-folders found: \['a', 'b'"),
        ({"class_names": ["a", "a"]}, "a name appears twice"),
        ({"label_mode": "binary"}, "exactly 2 classes, found 3"),
        ({"interpolation": "cubic"}, "interpolation must be one of"),
        ({"image_size": (10, 0)}, "image_size must be two positive integers"),
        ({"batch_size": 0}, "batch_size must be a positive integer or None, got 0"),
        ({"validation_split": 0.2}, "validation_split and subset go together"),
        ({"subset": "training"}, "validation_split and subset go together"),
        ({"validation_split": 1.5, "subset": "training"}, "between 0 and 1, got 1.5"),
        ({"validation_split": 0.2, "subset": "test"}, "subset must be one of 'training'"),
        ({"validation_split": 0.2, "subset": "training"}, "needs a seed"),
        ({"validation_split": 0.2, "subset": "training", "seed": 1}, "of 4 images leaves none"),
        ({"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": True}, "not both"),
        ({"data_format": "channels_first"}, "channels_last"),
    ],
)
def test_arguments_out_of_range(tmp_path, options, message):
    make_folder(tmp_path, a=1, b=2, c=1)
    with pytest.raises(ValueError, match=message):
        read(tmp_path, **options)
