"""Winograd's convolution: its formulas, and the fast form of them, against the definition.

A fast result is judged by the bound of the algorithm it is: every number of it comes from sums of
products, at most C + 40 of them one after the other, whose terms have the magnitudes that the same
formulas give for absolute values of matrices and data (of whole tiles: those of half tiles are no
larger). That the bound is worth something, that
is, how exact the convolution is, is tested separately.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitl.kernels import reference, threads, transforms, winograd
from minitl.kernels import reference as formulas
from minitl.kernels.geometry import sliding
from tests.kernels.cases import normal
from tests.tolerances import assert_adjoint, assert_sum

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])

# Two transforms of each of three factors, each of two axes, at most six operations deep.
TRANSFORM_TERMS = 40

CASES = [  # N, H, W, C, F, padding
    (1, 1, 1, 1, 1, "same"),  # one tile, nearly all of it outside
    (2, 3, 3, 8, 16, "valid"),  # one place
    (1, 4, 4, 8, 16, "same"),  # exactly one tile
    (3, 6, 10, 16, 8, "valid"),  # exactly two tiles, no border
    (2, 14, 14, 16, 32, "same"),  # VGG16's last maps: half tiles at two sides
    (1, 9, 12, 5, 3, "same"),  # less than a vector
    (2, 7, 11, 19, 37, "same"),  # vectors and panels that do not come out even
    (1, 11, 7, 24, 17, "valid"),
    (1, 97, 131, 9, 10, "same"),  # many blocks
    (1, 98, 130, 9, 10, "same"),  # and half tiles in them
    (0, 8, 8, 8, 8, "same"),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))


@pytest.fixture(params=["usual", "shredded"])
def blocks(request, monkeypatch):
    """Once as it is, and once with as many blocks, slices and parts as there can be."""
    small = {"TILES": 6, "FEW_TILES": 0, "FILTERS": 16, "SIDE": 8, "PARTS": 3}
    if request.param == "shredded":
        for constant, value in small.items():
            monkeypatch.setattr(winograd, constant, value)
    winograd._plan.cache_clear()
    yield
    winograd._plan.cache_clear()


def make(case, dtype, seed=0):
    images, height, width, channels, filters, padding = case
    rng = np.random.default_rng(seed)
    geometry = sliding((height, width), (3, 3), (1, 1), padding)
    x = normal(rng, (images, height, width, channels), dtype)
    kernel, bias = normal(rng, (3, 3, channels, filters), dtype), normal(rng, filters, dtype)
    g = normal(rng, (images, *geometry.out_size, filters), dtype)
    return geometry, x, kernel, bias, g


def exact(name, *arguments):
    wide = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments]
    return getattr(reference, name)(*wide)


def magnitude(name, *arguments):
    """What the formulas add up, in absolute values."""
    matrices = [abs(matrix) for matrix in formulas.winograd_matrices()]
    positive = [abs(a).astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formulas, "winograd_matrices", lambda: matrices)
        return getattr(formulas, f"winograd_{name}")(*positive)


def assert_right(name, terms, *arguments):
    actual = getattr(winograd, name)(*arguments)
    assert actual.dtype == arguments[0].dtype and actual.flags.c_contiguous
    # The matrices for the definition are all rounded to the last bit of a float64.
    assert_sum(actual, exact(name, *arguments), magnitude(name, *arguments), terms)
    return actual


# --- In one pass with pooling ---


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("size", [(8, 8), (5, 7), (3, 3), (14, 13)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_convolution_and_pool_in_one_pass_give_the_same_bits(size, dtype, activation):
    rng = np.random.default_rng(0)
    x, kernel = normal(rng, (2, *size, 9), dtype), normal(rng, (3, 3, 9, 20), dtype)
    bias, geometry = normal(rng, 20, dtype), sliding(size, (3, 3), (1, 1), "same")
    y = winograd.conv2d(x, kernel, bias, geometry, activation)
    pooled = formulas.max_pool2d(y, sliding(size, (2, 2), (2, 2), "valid"))
    one_pass = winograd.conv2d_max_pool2d(x, kernel, bias, geometry, activation)
    np.testing.assert_array_equal(one_pass, pooled)


def test_a_nan_passes_through_the_pool():
    x = np.zeros((1, 8, 8, 8), np.float32)
    x[0, 5, 2] = np.nan
    kernel = np.ones((3, 3, 8, 8), np.float32)
    geometry = sliding((8, 8), (3, 3), (1, 1), "same")
    y = winograd.conv2d_max_pool2d(x, kernel, None, geometry, "relu")
    assert np.isnan(y[0, 2, 1]).all()


# --- The formulas --------------------------------------------------------------------------------


def test_matrices_are_the_ones_of_toom_and_cook():
    """One axis, by hand: A^T ((G k) * (B^T d)) slides k over d."""
    G, A, B = formulas.winograd_matrices()
    d, k = np.arange(6.0) ** 2, np.array([1.0, 2, -1])
    np.testing.assert_allclose(A.T @ ((G @ k) * (B.T @ d)), np.correlate(d, k), atol=1e-13)
    np.testing.assert_allclose(B @ ((G @ k) * (A @ d[:4])), np.convolve(k, d[:4]), atol=1e-13)


@cases
def test_formulas_are_the_convolution(case):
    geometry, x, kernel, bias, g = make(case, np.float64)
    for name, arguments in (
        ("conv2d", (x, kernel, bias, geometry, "relu")),
        ("conv2d_input_gradient", (g, kernel, geometry)),
        ("conv2d_kernel_gradient", (x, g, geometry)),
    ):
        if len(x) == 0 and name == "conv2d_kernel_gradient":
            continue
        actual = getattr(formulas, f"winograd_{name}")(*arguments)
        expected = getattr(reference, name)(*arguments)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-11)


def test_the_transforms_are_the_matrices():
    """Each one-axis function of the fast kernels, on unit vectors, gives its matrix."""
    G, A, B = formulas.winograd_matrices()
    lanes = 4
    for axis, matrix in (
        (transforms.input_axis, B.T),
        (transforms.output_axis, A.T),
        (transforms.gradient_axis, A),
        (transforms.filter_axis, G),
        (transforms.kernel_axis, G.T),
    ):
        outputs, inputs = matrix.shape
        found = np.empty_like(matrix)
        for column in range(inputs):
            x, y = np.zeros(inputs * 8), np.full(outputs * 8, np.nan)
            x[column * 8 : column * 8 + lanes] = 1
            axis(x, 0, 8, y, 0, 8)
            found[:, column] = y[::8]
        np.testing.assert_allclose(found, matrix, rtol=1e-15, atol=1e-15)


def test_half_tiles_use_the_same_transformed_filters():
    """One axis: A^T ((G k) * (B^T d)) with four of the six points gives two places."""
    d, k = np.array([3.0, -1, 4, 2]), np.array([1.0, 2, -1])
    v, m, y = (np.full(6 * 8, np.nan) for _ in range(3))
    transforms.half_input_axis(np.repeat(d, 8), 0, 8, v, 0, 8)
    four = [0, 1, 2, 5]
    assert np.flatnonzero(~np.isnan(v[::8])).tolist() == four
    m[::8] = (formulas.winograd_matrices()[0] @ k) * v[::8]
    transforms.half_output_axis(np.repeat(m[::8], 8), 0, 8, y, 0, 8)
    np.testing.assert_allclose(y[:16:8], np.correlate(d, k), rtol=1e-14)
    assert np.isnan(y[16:]).all()


def test_a_plane_has_those_tiles_side_by_side_that_need_it():
    """14x14: of 16 tiles, four are half a tile wide and four half a tile high, one of them both."""
    tiling, tiles = winograd._tiling(2, (14, 14), (1, 1, 1, 1), halves=True)
    places, starts = transforms.in_order(tiling, 3, tiles)
    assert sorted(places) == list(range(tiles - 3))
    seen = 0
    for plane in range(36):
        first, last = transforms.tiles_of_plane(plane, starts)
        tall, broad = plane // 6 in (3, 4), plane % 6 in (3, 4)  # belongs to Q or -Q
        expected = [
            not (tall and tile // 4 % 4 == 3) and not (broad and tile % 4 == 3)
            for tile in range(3, tiles)
        ]
        np.testing.assert_array_equal((places >= first) & (places < last), expected)
        seen += last - first
    assert seen == 2 * (16 * 16 + 2 * 8 * 12 + 4 * 9) - (36 + 36 + 36)  # the first 3 are whole


# --- The fast kernels ----------------------------------------------------------------------------


@cases
@dtypes
def test_convolution_and_both_gradients(case, dtype, blocks):
    geometry, x, kernel, bias, g = make(case, dtype)
    channels, filters = kernel.shape[2:]
    terms = channels + TRANSFORM_TERMS
    y = assert_right("conv2d", terms, x, kernel, bias, geometry)
    np.testing.assert_array_equal(
        winograd.conv2d(x, kernel, bias, geometry, "relu"), np.maximum(y, 0)
    )
    linear = assert_right("conv2d", terms, x, kernel, None, geometry)
    dx = assert_right("conv2d_input_gradient", filters + TRANSFORM_TERMS, g, kernel, geometry)
    if len(x) == 0:
        dkernel = winograd.conv2d_kernel_gradient(x, g, geometry)
        np.testing.assert_array_equal(dkernel, np.zeros_like(kernel))
        return
    terms = y[..., 0].size + TRANSFORM_TERMS
    dkernel = assert_right("conv2d_kernel_gradient", terms, x, g, geometry)
    if dtype == np.float64:
        assert_adjoint(g, linear, dx, x)
        assert_adjoint(g, linear, dkernel, kernel)


@settings(max_examples=25, deadline=None)
@given(
    images=st.integers(1, 3),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    channels=st.integers(1, 21),
    filters=st.integers(1, 35),
    padding=st.sampled_from(["same", "valid"]),
)
def test_any_shape(images, height, width, channels, filters, padding):
    if padding == "valid" and min(height, width) < 3:
        return
    geometry, x, kernel, bias, g = make(
        (images, height, width, channels, filters, padding), np.float64, height * width
    )
    assert_right("conv2d", channels + TRANSFORM_TERMS, x, kernel, bias, geometry)
    assert_right("conv2d_input_gradient", filters + TRANSFORM_TERMS, g, kernel, geometry)
    assert_right("conv2d_kernel_gradient", g.size + TRANSFORM_TERMS, x, g, geometry)


def test_any_padding_around():
    """More than a geometry of `sliding` has: the gradient to the input pads by up to 2."""
    rng = np.random.default_rng(0)
    x, kernel = normal(rng, (2, 6, 7, 8)), normal(rng, (3, 3, 8, 8))
    geometry = sliding((6, 7), (3, 3), (1, 1), "valid")._replace(pads=(2, 1, 0, 2), out_size=(7, 7))
    assert_right("conv2d", 8 + TRANSFORM_TERMS, x, kernel, None, geometry)
    g = normal(rng, (2, 7, 7, 8))
    assert_right("conv2d_input_gradient", 8 + TRANSFORM_TERMS, g, kernel, geometry)
    assert_right("conv2d_kernel_gradient", g.size + TRANSFORM_TERMS, x, g, geometry)


def test_accuracy_in_float32():
    """The choice of points keeps 1.5e-6, relative; the points of the paper err by 2.3e-6."""
    rng = np.random.default_rng(0)
    geometry = sliding((24, 24), (3, 3), (1, 1), "same")
    x = np.maximum(normal(rng, (2, 24, 24, 256), np.float32), 0)
    kernel = normal(rng, (3, 3, 256, 64), np.float32) / np.float32(np.sqrt(9 * 256 / 2))
    g = normal(rng, (2, 24, 24, 64), np.float32)

    def error(name, *arguments):
        right = exact(name, *arguments)
        wrong = getattr(winograd, name)(*arguments) - right
        return np.linalg.norm(wrong) / np.linalg.norm(right)

    assert error("conv2d", x, kernel, None, geometry) < 1.5e-6
    assert error("conv2d_input_gradient", g, kernel, geometry) < 1.5e-6
    assert error("conv2d_kernel_gradient", x, g, geometry) < 1.5e-6


@dtypes
def test_bits_do_not_depend_on_the_number_of_threads(dtype):
    geometry, x, kernel, bias, g = make((2, 30, 29, 20, 70, "same"), dtype)
    before = threads.thread_count()

    def results(count):
        threads.set_thread_count(count)
        return (
            winograd.conv2d(x, kernel, bias, geometry, "relu"),
            winograd.conv2d_input_gradient(g, kernel, geometry),
            winograd.conv2d_kernel_gradient(x, g, geometry),
        )

    try:
        alone = results(1)
        for count in (2, 5):
            for one, other in zip(alone, results(count), strict=True):
                np.testing.assert_array_equal(one, other)
    finally:
        threads.set_thread_count(before)


def test_an_image_has_the_same_bits_alone_and_in_a_batch():
    geometry, x, kernel, bias, _ = make((5, 13, 10, 16, 24, "same"), np.float32)
    together = winograd.conv2d(x, kernel, bias, geometry)
    alone = winograd.conv2d(x[3:4].copy(), kernel, bias, geometry)
    np.testing.assert_array_equal(alone[0], together[3])


def test_transformed_filters_are_kept_in_the_cache_and_used_from_there():
    geometry, x, kernel, bias, g = make((1, 8, 8, 16, 16, "same"), np.float32)
    cache = {}
    y = winograd.conv2d(x, kernel, bias, geometry, None, cache)
    dx = winograd.conv2d_input_gradient(g, kernel, geometry, cache)
    assert len(cache) == 2
    kept = [id(value) for value in cache.values()]
    other = np.zeros_like(kernel)  # not looked at
    np.testing.assert_array_equal(winograd.conv2d(x, other, bias, geometry, None, cache), y)
    np.testing.assert_array_equal(winograd.conv2d_input_gradient(g, other, geometry, cache), dx)
    assert [id(value) for value in cache.values()] == kept
    cache.clear()
    assert not winograd.conv2d(x, other, None, geometry, None, cache).any()


def test_nothing_given_is_changed():
    geometry, x, kernel, bias, g = make((1, 7, 9, 9, 17, "same"), np.float32)
    copies = [array.copy() for array in (x, kernel, bias, g)]
    winograd.conv2d(x, kernel, bias, geometry, "relu")
    winograd.conv2d_input_gradient(g, kernel, geometry)
    winograd.conv2d_kernel_gradient(x, g, geometry)
    for array, copy in zip((x, kernel, bias, g), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_nan_stays_in_its_tiles_and_comes_through_relu():
    geometry, x, kernel, bias, _ = make((1, 16, 16, 8, 8, "same"), np.float32)
    x[0, 1, 1, 3] = np.nan
    y = winograd.conv2d(x, kernel, bias, geometry, "relu")
    assert np.isnan(y[0, :3, :3]).all()  # all that see it
    assert np.isfinite(y[0, 4:]).all() and np.isfinite(y[0, :, 4:]).all()  # all other tiles
