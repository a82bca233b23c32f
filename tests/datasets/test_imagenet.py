"""Folders named by synsets."""

import numpy as np
import pytest

from minitl.data import save_img
from minitl.datasets import imagenet

CLASSES = [(f"n{i:08d}", f"word_{i}") for i in range(1000)]


@pytest.fixture
def names(monkeypatch):
    monkeypatch.setattr(imagenet, "imagenet_classes", lambda: CLASSES)


@pytest.fixture
def folder(tmp_path):
    """Two of the classes, a few gray images each, as ImageNet names them."""
    for synset, count in (("n00000700", 3), ("n00000007", 2)):
        (tmp_path / synset).mkdir()
        for i in range(count):
            image = np.full((5, 6, 3), 10 * i + len(synset))
            save_img(tmp_path / synset / f"{synset}_{i}.JPEG", image, file_format="jpeg")
    return tmp_path


def test_labels_are_the_networks_classes(names, folder):
    data = imagenet.dataset_from_directory(folder, image_size=(4, 4), verbose=False)
    assert data.labels.tolist() == [7, 7, 700, 700, 700]
    assert data.class_names[7] == "word_7" and len(data.class_names) == 1000
    x, y = data.arrays(verbose=False)
    assert x.shape == (5, 4, 4, 3) and y.tolist() == [7, 7, 700, 700, 700]
    one_hot = imagenet.dataset_from_directory(folder, label_mode="categorical", verbose=False)
    assert next(iter(one_hot))[1].shape == (5, 1000)


def test_labels_for_a_head_of_ones_own(names, folder, monkeypatch):
    (folder / "n99999999").mkdir()
    (folder / "n00000007" / "n00000007_0.JPEG").rename(folder / "n99999999" / "a.jpeg")
    data = imagenet.dataset_from_directory(folder, labels="folders", verbose=False)
    assert data.labels.tolist() == [0, 1, 1, 1, 2]
    assert data.class_names == ["word_7", "word_700", "n99999999"]

    def no_names():
        raise OSError("no network")

    monkeypatch.setattr(imagenet, "imagenet_classes", no_names)
    data = imagenet.dataset_from_directory(folder, labels="folders", verbose=False)
    assert data.class_names == ["n00000007", "n00000700", "n99999999"]


def test_what_is_refused(names, folder, tmp_path):
    with pytest.raises(NotADirectoryError, match="there is no folder"):
        imagenet.dataset_from_directory(folder / "nowhere")
    with pytest.raises(ValueError, match="labels must be one of 'imagenet', 'folders'"):
        imagenet.dataset_from_directory(folder, labels="inferred")
    with pytest.raises(TypeError, match="Did you mean 'image_size'"):
        imagenet.dataset_from_directory(folder, image_sise=(4, 4))
    with pytest.raises(ValueError, match=r"named by synsets \(n01440764\), found no sub-folders"):
        imagenet.dataset_from_directory(folder / "n00000007")
    (folder / "n99999999").mkdir()
    (folder / "n00000007" / "n00000007_0.JPEG").rename(folder / "n99999999" / "a.jpeg")
    with pytest.raises(
        ValueError, match="n99999999: not among the 1,000 classes; labels='folders'"
    ):
        imagenet.dataset_from_directory(folder, verbose=False)
    (folder / "cats").mkdir()
    with pytest.raises(ValueError, match="found 'cats'; other folders are read by image_dataset"):
        imagenet.dataset_from_directory(folder)


def test_the_real_order_is_that_of_the_synsets():
    try:
        classes = imagenet.imagenet_classes()
    except OSError:
        pytest.skip("the names of the classes are not here")
    synsets = [synset for synset, _ in classes]
    assert synsets == sorted(synsets) and classes[0] == ("n01440764", "tench")
