import numpy as np
import pytest

from minitl import utils
from minitl.utils import normalize, to_categorical


def test_to_categorical():
    assert to_categorical([0, 2]).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert to_categorical([[1], [0]], num_classes=3).tolist() == [[0, 1, 0], [1, 0, 0]]
    assert to_categorical([[0, 1]]).tolist() == [[[1, 0], [0, 1]]]
    assert to_categorical(1, num_classes=2).tolist() == [0, 1]
    assert to_categorical([1.0, 0.0]).tolist() == [[0, 1], [1, 0]]
    assert to_categorical([], num_classes=3).shape == (0, 3)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 3], 3, "labels must be 0 to 2 for 3 classes, got 0 to 3"),
        ([-1, 0], None, "labels must be 0 to 0 for 1 classes, got -1 to 0"),
        ([0.5], None, "whole numbers, got fractions or NaN"),
        ([float("nan")], 2, "whole numbers"),
        (["cat"], None, "labels must be integers, got <U3"),
        ([], None, "no labels: give num_classes"),
    ],
)
def test_to_categorical_refuses(labels, classes, message):
    with pytest.raises(ValueError, match=message):
        to_categorical(labels, classes)


def test_normalize():
    x = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(normalize(x), [[0.6, 0.8], [0, 0]])
    np.testing.assert_allclose(normalize(x, axis=0), [[1, 1], [0, 0]])
    np.testing.assert_allclose(normalize(x, order=1), [[3 / 7, 4 / 7], [0, 0]])
    np.testing.assert_allclose(normalize([[-2, 0]]), [[-1, 0]])


def test_the_names_that_scripts_import():
    for name in utils.__all__:
        assert callable(getattr(utils, name))


def test_sequences_are_cut_and_filled_at_either_end():
    rows = [[1, 2, 3], [4], []]
    found = utils.pad_sequences(rows, maxlen=2, padding="post", truncating="post", value=9)
    np.testing.assert_array_equal(found, [[1, 2], [4, 9], [9, 9]])
    np.testing.assert_array_equal(utils.pad_sequences(rows), [[1, 2, 3], [0, 0, 4], [0, 0, 0]])
    with pytest.raises(ValueError, match="padding must be one of 'pre', 'post'"):
        utils.pad_sequences(rows, padding="both")
