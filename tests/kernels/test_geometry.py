"""Output sizes and padding by counting, every error by its text."""

import doctest
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.kernels import geometry
from minitl.kernels.geometry import sliding

sizes = st.integers(1, 12)


def test_examples_in_the_text():
    result = doctest.testmod(geometry)
    assert result.attempted > 0 and result.failed == 0


@given(size=sizes, window=sizes, stride=sizes)
def test_valid_visits_every_place_that_fits(size, window, stride):
    starts = [start for start in range(0, size, stride) if start + window <= size]
    if starts:
        place = sliding((size, size), (window, window), (stride, stride), "valid")
        assert place.out_size == (len(starts), len(starts))
        assert place.pads == (0, 0, 0, 0)
    else:
        with pytest.raises(ValueError, match="does not fit"):
            sliding((size, size), (window, window), (stride, stride), "valid")


@given(height=sizes, width=sizes, kh=sizes, kw=sizes, sh=sizes, sw=sizes)
def test_same_pads_as_little_as_possible_and_more_at_the_end(height, width, kh, kw, sh, sw):
    place = sliding((height, width), (kh, kw), (sh, sw), "same")
    top, bottom, left, right = place.pads
    for size, window, stride, out, before, after in (
        (height, kh, sh, place.out_size[0], top, bottom),
        (width, kw, sw, place.out_size[1], left, right),
    ):
        assert out == len(range(0, size, stride))
        needed = (out - 1) * stride + window - size
        assert before + after == max(needed, 0)
        assert 0 <= after - before <= 1
        for start in range(-before, (out - 1) * stride - before + 1, stride):
            assert max(start, 0) < min(start + window, size), "a window that sees no image"


def test_the_two_axes_are_not_mixed_up():
    place = sliding((10, 20), (3, 5), (1, 2), "same")
    assert place == ((10, 20), (3, 5), (1, 2), (1, 1, 1, 2), (10, 10))
    assert (place.size, place.window, place.strides) == ((10, 20), (3, 5), (1, 2))
    assert sliding((10, 20), (3, 5), (1, 2), "valid").out_size == (8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((4, 4), (2, 2), (1, 1), "full"), "padding must be 'valid' or 'same', got 'full'"),
        (((4, 4), (2, 2), (1, 1), "SAME"), "padding must be 'valid' or 'same', got 'SAME'"),
        (((0, 4), (2, 2), (1, 1), "same"), "image size must be positive along H and W, got (0, 4)"),
        (((4, 4), (2, 0), (1, 1), "same"), "window must be positive along H and W, got (2, 0)"),
        (((4, 4), (2, 2), (1, -1), "valid"), "strides must be positive along H and W, got (1, -1)"),
        (
            ((4, 2), (2, 3), (1, 1), "valid"),
            "a window of 2x3 does not fit into an image of 4x2 with padding='valid'; "
            "use a larger image, a smaller window, or padding='same'",
        ),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sliding(*arguments)
