import doctest

import pytest

from minitl import utils
from minitl.data import elpv, images, splits
from minitl.judging import evaluation


@pytest.mark.parametrize("module", [elpv, evaluation, images, splits, utils])
def test_the_examples_in_the_docstrings(module):
    outcome = doctest.testmod(module)
    assert outcome.attempted > 0
    assert outcome.failed == 0
