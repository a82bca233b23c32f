"""The choice of a fast convolution: legal everywhere, and the measured one where it matters."""

import numpy as np
import pytest

from minitl.kernels.fast import convolution, few_channels, im2col, one_by_one, winograd
from minitl.kernels.fast.convolution import choose
from minitl.kernels.geometry import sliding
from tests.kernels.cases import WINDOWS, geometry_of, name, normal, reference
from tests.tolerances import assert_sum


def chosen(images, size, channels, filters, window=3, stride=1, gradient=None):
    geometry = sliding((size, size), (window, window), (stride, stride), "same")
    return choose(images, geometry, channels, filters, gradient)


def test_vgg16_runs_on_winograd_but_for_its_first_layer():
    assert chosen(1, 224, 3, 64) == few_channels
    assert chosen(16, 224, 3, 64, gradient="input") == im2col
    assert chosen(16, 224, 3, 64, gradient="kernel") == few_channels
    for size, channels, filters in ((224, 64, 64), (56, 128, 256), (14, 512, 512)):
        assert chosen(1, size, channels, filters) == winograd
        assert chosen(16, size, channels, filters, gradient="input") == winograd
        assert chosen(16, size, channels, filters, gradient="kernel") == winograd


def test_winograd_is_for_3x3_with_stride_1_only():
    assert chosen(8, 56, 64, 64, window=1) == one_by_one
    assert chosen(8, 56, 64, 64, window=1, stride=2) == one_by_one
    assert chosen(8, 56, 64, 64, window=1, gradient="kernel") == im2col
    assert chosen(8, 56, 64, 64, window=1, gradient="input") == one_by_one
    assert chosen(8, 56, 64, 64, window=1, stride=2, gradient="input") == im2col
    assert chosen(8, 56, 64, 64, window=5) == im2col
    assert chosen(8, 56, 64, 64, stride=2) == im2col
    assert chosen(8, 224, 3, 64, window=7, stride=2) == few_channels
    assert chosen(8, 224, 3, 64, window=7, stride=2, gradient="kernel") == few_channels
    assert chosen(8, 224, 3, 64, window=7, stride=2, gradient="input") == im2col
    assert chosen(64, 5, 16, 120, window=5, gradient="kernel") == im2col


def test_few_tiles_do_not_pay_for_transformed_filters():
    for gradient in ("input", "kernel"):
        assert chosen(1, 14, 512, 512, gradient=gradient) == im2col
        assert chosen(4, 14, 512, 512, gradient=gradient) == winograd


@pytest.mark.parametrize("channels, filters", [(1, 1), (3, 20), (9, 17)])
@pytest.mark.parametrize("case", WINDOWS, ids=name)
def test_what_is_chosen_is_right(case, channels, filters):
    geometry, images = geometry_of(case), case[0][0]
    rng = np.random.default_rng(0)
    x = normal(rng, (images, *geometry.size, channels))
    kernel = normal(rng, (*geometry.window, channels, filters))
    g = normal(rng, (images, *geometry.out_size, filters))
    for function, arguments in (
        ("conv2d", (x, kernel, None)),
        ("conv2d_input_gradient", (g, kernel)),
        ("conv2d_kernel_gradient", (x, g)),
    ):
        both = convolution, reference
        actual, expected = (getattr(way, function)(*arguments, geometry) for way in both)
        np.testing.assert_allclose(actual, expected, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [1, few_channels.BLOCK])
@pytest.mark.parametrize("case", WINDOWS, ids=name)
def test_few_channels_give_the_convolution(case, block, dtype, monkeypatch):
    monkeypatch.setattr(few_channels, "BLOCK", block)
    geometry, (images, _, _, channels) = geometry_of(case), case[0]
    rng = np.random.default_rng(1)
    x = normal(rng, (images, *geometry.size, channels), dtype)
    kernel = normal(rng, (*geometry.window, channels, 19), dtype)
    bias = normal(rng, 19, dtype)
    y = few_channels.conv2d(x, kernel, bias, geometry)
    exact, magnitude = (
        reference.conv2d(*[change(a).astype(np.float64) for a in (x, kernel, bias)], geometry)
        for change in (np.asarray, np.abs)
    )
    assert y.dtype == dtype
    assert_sum(y, exact, magnitude, kernel[..., 0].size + 1)
    relu = few_channels.conv2d(x, kernel, bias, geometry, "relu")
    np.testing.assert_array_equal(relu, np.maximum(y, 0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [1, 500, few_channels.BLOCK])
@pytest.mark.parametrize("filters", [1, 19, 64])
@pytest.mark.parametrize("case", WINDOWS, ids=name)
def test_few_channels_give_the_gradient_to_the_kernel(case, filters, block, dtype, monkeypatch):
    monkeypatch.setattr(few_channels, "BLOCK", block)
    monkeypatch.setattr(few_channels, "FEWEST_PRODUCTS", 1)  # or all were one part
    geometry, (images, _, _, channels) = geometry_of(case), case[0]
    rng = np.random.default_rng(1)
    x = normal(rng, (images, *geometry.size, channels), dtype)
    g = normal(rng, (images, *geometry.out_size, filters), dtype)
    dkernel = few_channels.conv2d_kernel_gradient(x, g, geometry)
    exact, magnitude = (
        reference.conv2d_kernel_gradient(*[change(a).astype(np.float64) for a in (x, g)], geometry)
        for change in (np.asarray, np.abs)
    )
    assert dkernel.dtype == dtype and dkernel.flags.c_contiguous
    assert_sum(dkernel, exact, magnitude, g[..., 0].size)


def test_few_channels_with_many_images_a_job():
    geometry = sliding((5, 4), (3, 3), (1, 1), "same")
    rng = np.random.default_rng(2)
    x, kernel = normal(rng, (40, 5, 4, 3)), normal(rng, (3, 3, 3, 8))
    expected = reference.conv2d(x, kernel, None, geometry)
    np.testing.assert_allclose(few_channels.conv2d(x, kernel, None, geometry), expected, atol=1e-12)


PLACES = [  # N, H, W, C, F, stride
    (1, 1, 1, 1, 1, 1),
    (2, 5, 4, 3, 19, 1),  # a tile less than full, and a panel
    (2, 7, 5, 9, 16, 2),
    (1, 7, 7, 70, 96, 1),  # fewer places than filters: cut into panels
    (1, 3, 9, 70, 100, (1, 3)),  # which do not come out even
    (3, 20, 21, 2100, 8, 1),  # a panel larger than a group, and several blocks
    (0, 4, 4, 8, 8, 1),
    (3, 9, 9, 1024, 40, 1),  # rows that crowd the first cache, in several blocks
    (2, 5, 5, 512, 48, 2),  # by their distance
    (1, 5, 5, 4096, 96, 1),  # and cut into panels
    (1, 2, 2050, 3, 8, (1, 1024)),  # so far apart, but not made of vectors
    (4, 60, 70, 70, 80, 1),  # maps of which the next places are sent for
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("onto", [False, True])
@pytest.mark.parametrize("case", PLACES)
def test_one_by_one(case, onto, activation, dtype):
    images, height, width, channels, filters, stride = case
    strides = stride if isinstance(stride, tuple) else (stride, stride)
    geometry = sliding((height, width), (1, 1), strides, "valid")
    rng = np.random.default_rng(3)
    x, bias = normal(rng, (images, height, width, channels), dtype), normal(rng, filters, dtype)
    kernel = normal(rng, (1, 1, channels, filters), dtype)
    added = normal(rng, (images, *geometry.out_size, filters), dtype) if onto else None
    y = one_by_one.conv2d(x, kernel, bias, geometry, activation, added=added)
    exact, magnitude = (
        reference.conv2d(*[change(a).astype(np.float64) for a in (x, kernel, bias)], geometry)
        + (0 if added is None else change(added))
        for change in (np.asarray, np.abs)
    )
    exact = np.maximum(exact, 0) if activation else exact
    assert y.dtype == dtype
    assert_sum(y, exact, magnitude, channels + 2)


def test_one_by_one_keeps_the_packed_kernel():
    geometry, cache = sliding((4, 4), (1, 1), (1, 1), "valid"), {}
    rng = np.random.default_rng(4)
    x, kernel = normal(rng, (2, 4, 4, 8)), normal(rng, (1, 1, 8, 8))
    first = one_by_one.conv2d(x, kernel, None, geometry, cache=cache)
    (panels,) = cache.values()
    again = one_by_one.conv2d(x, kernel, None, geometry, cache=cache)
    assert len(cache) == 1 and next(iter(cache.values())) is panels
    np.testing.assert_array_equal(first, again)
    x[0, 1, 2, 3] = np.nan  # is not lost in ReLU
    assert np.isnan(one_by_one.conv2d(x, kernel, None, geometry, "relu")[0, 1, 2]).all()
