"""Winograd's convolution: its formulas, and the fast form of them, against the definition.

A fast result is judged by the bound of the algorithm it is: every number of it comes from sums of
products, at most C + 40 of them one after the other, whose terms have the magnitudes that the same
formulas give for absolute values of matrices and data (of whole tiles: those of tiles at edges are
no larger). That the bound is worth something, that is, how exact the convolution is, is tested
separately.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitl.kernels import reference
from minitl.kernels.fast import winograd, winograd_tiles
from minitl.kernels.geometry import sliding
from minitl.kernels.machine import threads
from tests.kernels import winograd_formulas as formulas
from tests.kernels.cases import exactly, normal
from tests.tolerances import assert_adjoint, assert_sum

dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])

# Two transforms of each of three factors, each of two axes, at most six operations deep.
TRANSFORM_TERMS = 40

CASES = [  # N, H, W, C, F, padding
    (1, 1, 1, 1, 1, "same"),  # one tile, nearly all of it outside
    (2, 3, 3, 8, 16, "valid"),  # one place
    (1, 4, 4, 8, 16, "same"),  # exactly one tile
    (3, 6, 10, 16, 8, "valid"),  # exactly two tiles, no border
    (2, 14, 14, 16, 32, "same"),  # VGG16's last maps: half tiles at two sides, or thirds
    (1, 16, 14, 8, 16, "same"),  # of tiles of 6: two thirds below, a third at the right
    (1, 9, 12, 5, 3, "same"),  # less than a vector
    (2, 7, 11, 19, 37, "same"),  # vectors and panels that do not come out even
    (1, 11, 7, 24, 17, "valid"),
    (1, 97, 131, 9, 10, "same"),  # many blocks
    (1, 98, 130, 9, 10, "same"),  # and half tiles in them
    (3, 66, 64, 8, 48, "same"),  # more than 2 MB of whole cache lines: with AVX-512, streamed
    (3, 66, 64, 8, 47, "same"),  # and of lines that are shared
    (0, 8, 8, 8, 8, "same"),
]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))


def only_tiles_of(size, patch):
    """Tiles of this size, whatever the shape."""
    for large in ("LARGE_MAP", "LARGE_GRADIENT"):
        patch.setattr(winograd, large, 0 if size == 6 else 1000)


@pytest.fixture(params=[4, 6], ids=["small", "large"])
def size(request, monkeypatch):
    only_tiles_of(request.param, monkeypatch)
    return request.param


@pytest.fixture(params=["usual", "shredded"])
def blocks(request, monkeypatch):
    """Once as it is, and once with as many blocks, slices and parts as there can be."""
    small = {"TILES": {4: 6, 6: 6}, "FEW_TILES": 0, "FILTERS": 16, "SIDE": 8, "PARTS": 3}
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


def magnitude(name, size, *arguments):
    """What the formulas add up, in absolute values."""
    matrices = [abs(matrix) for matrix in formulas.winograd_matrices(formulas.POINTS[size])]
    positive = [abs(a).astype(np.float64) if isinstance(a, np.ndarray) else a for a in arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formulas, "winograd_matrices", lambda points: matrices)
        return getattr(formulas, f"winograd_{name}")(*positive, size=size)


def assert_right(name, size, terms, *arguments):
    actual = getattr(winograd, name)(*arguments)
    assert actual.dtype == arguments[0].dtype and actual.flags.c_contiguous
    # The matrices for the definition are all rounded to the last bit of a float64.
    exact = exactly(getattr(reference, name), *arguments)
    assert_sum(actual, exact, magnitude(name, size, *arguments), terms)
    return actual


# --- In one pass with pooling ---


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("shape", [(8, 8), (5, 7), (3, 3), (14, 13), (184, 180)])
@pytest.mark.parametrize("filters", [20, 32])  # the last with more than 2 MB of whole lines
@dtypes
def test_convolution_and_pool_in_one_pass_give_the_same_bits(
    shape, filters, dtype, activation, size
):
    rng = np.random.default_rng(0)
    x, kernel = normal(rng, (2, *shape, 9), dtype), normal(rng, (3, 3, 9, filters), dtype)
    bias, geometry = normal(rng, filters, dtype), sliding(shape, (3, 3), (1, 1), "same")
    y = winograd.conv2d(x, kernel, bias, geometry, activation)
    pooled = reference.max_pool2d(y, sliding(shape, (2, 2), (2, 2), "valid"))
    one_pass = winograd.conv2d_max_pool2d(x, kernel, bias, geometry, activation)
    np.testing.assert_array_equal(one_pass, pooled)


def test_a_nan_passes_through_the_pool(size):
    x = np.zeros((1, 8, 8, 8), np.float32)
    x[0, 5, 2] = np.nan
    kernel = np.ones((3, 3, 8, 8), np.float32)
    geometry = sliding((8, 8), (3, 3), (1, 1), "same")
    y = winograd.conv2d_max_pool2d(x, kernel, None, geometry, "relu")
    assert np.isnan(y[0, 2, 1]).all()


# --- The formulas --------------------------------------------------------------------------------


@pytest.mark.parametrize("points", formulas.POINTS.values(), ids=len)
def test_matrices_are_the_ones_of_toom_and_cook(points):
    """One axis, by hand: A^T ((G k) * (B^T d)) slides k over d."""
    G, A, B = formulas.winograd_matrices(points)
    d, k = np.arange(len(B)) ** 2.0, np.array([1.0, 2, -1])
    g = d[: A.shape[1]]
    np.testing.assert_allclose(A.T @ ((G @ k) * (B.T @ d)), np.correlate(d, k), atol=1e-12)
    np.testing.assert_allclose(B @ ((G @ k) * (A @ g)), np.convolve(k, g), atol=1e-12)


@cases
def test_formulas_are_the_convolution(case, size):
    geometry, x, kernel, bias, g = make(case, np.float64)
    for name, arguments in (
        ("conv2d", (x, kernel, bias, geometry, "relu")),
        ("conv2d_input_gradient", (g, kernel, geometry)),
        ("conv2d_kernel_gradient", (x, g, geometry)),
    ):
        if len(x) == 0 and name == "conv2d_kernel_gradient":
            continue
        actual = getattr(formulas, f"winograd_{name}")(*arguments, size=size)
        expected = getattr(reference, name)(*arguments)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("size", "count"), [(4, 2), (4, 4), (6, 2), (6, 4), (6, 6)])
def test_tiles_at_edges_use_the_same_transformed_filters(size, count):
    """One axis: A^T ((G k) * (B^T d)) with count + 2 of the points gives `count` places."""
    G, _, _ = formulas.winograd_matrices(formulas.POINTS[size])
    A, B = formulas.edge_matrices(size, count)
    d, k = np.random.default_rng(0).normal(size=size + 2), np.array([1.0, 2, -1])
    kept = [*range(count + 1), size + 1]
    assert np.flatnonzero(A.any(axis=1)).tolist() == np.flatnonzero(B.any(axis=0)).tolist() == kept
    y = A.T @ ((G @ k) * (B.T @ d))
    np.testing.assert_allclose(y[:count], np.correlate(d[: count + 2], k), rtol=1e-12)
    assert not y[count:].any()


def test_a_plane_has_those_tiles_side_by_side_that_need_it():
    """14x14: of 16 tiles, four are half a tile wide and four half a tile high, one of them both."""
    tiling, tiles = winograd._tiling(2, sliding((14, 14), (3, 3), (1, 1), "same"), 4)
    places, starts = winograd_tiles.in_order(tiling, 3, tiles)
    assert sorted(places) == list(range(tiles - 3))
    seen = 0
    for plane in range(36):
        first, last = winograd_tiles.tiles_of_plane(tiling, plane, starts)
        tall, broad = plane // 6 in (3, 4), plane % 6 in (3, 4)  # belongs to Q or -Q
        expected = [
            not (tall and tile // 4 % 4 == 3) and not (broad and tile % 4 == 3)
            for tile in range(3, tiles)
        ]
        np.testing.assert_array_equal((places >= first) & (places < last), expected)
        seen += last - first
    assert seen == 2 * (16 * 16 + 2 * 8 * 12 + 4 * 9) - (36 + 36 + 36)  # the first 3 are whole


def test_edges_of_large_tiles_lack_two_or_four_points():
    """10x14: the last row of tiles needs 4 + 2 points, the last column 2 + 2."""
    tiling, tiles = winograd._tiling(1, sliding((10, 14), (3, 3), (1, 1), "same"), 6)
    assert (tiling.rows, tiling.columns, tiling.last_row, tiling.last_column) == (2, 3, 4, 2)
    _, starts = winograd_tiles.in_order(tiling, 0, tiles)
    ranges = [winograd_tiles.tiles_of_plane(tiling, plane, starts) for plane in range(64)]
    assert sum(last - first for first, last in ranges) == (8 + 6) * (8 + 8 + 4)


# --- The fast kernels ----------------------------------------------------------------------------


@cases
@dtypes
def test_convolution_and_both_gradients(case, dtype, size, blocks):
    geometry, x, kernel, bias, g = make(case, dtype)
    channels, filters = kernel.shape[2:]
    terms = channels + TRANSFORM_TERMS
    y = assert_right("conv2d", size, terms, x, kernel, bias, geometry)
    np.testing.assert_array_equal(
        winograd.conv2d(x, kernel, bias, geometry, "relu"), np.maximum(y, 0)
    )
    linear = assert_right("conv2d", size, terms, x, kernel, None, geometry)
    dx = assert_right("conv2d_input_gradient", size, filters + TRANSFORM_TERMS, g, kernel, geometry)
    if len(x) == 0:
        dkernel = winograd.conv2d_kernel_gradient(x, g, geometry)
        np.testing.assert_array_equal(dkernel, np.zeros_like(kernel))
        return
    terms = y[..., 0].size + TRANSFORM_TERMS
    dkernel = assert_right("conv2d_kernel_gradient", 4, terms, x, g, geometry)
    if dtype == np.float64:
        assert_adjoint(g, linear, dx, x)
        assert_adjoint(g, linear, dkernel, kernel)


@settings(max_examples=25)
@given(
    size=st.sampled_from([4, 6]),
    images=st.integers(1, 3),
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    channels=st.integers(1, 21),
    filters=st.integers(1, 35),
    padding=st.sampled_from(["same", "valid"]),
)
def test_any_shape(size, images, height, width, channels, filters, padding):
    if padding == "valid" and min(height, width) < 3:
        return
    geometry, x, kernel, bias, g = make(
        (images, height, width, channels, filters, padding), np.float64, height * width
    )
    with pytest.MonkeyPatch.context() as patch:
        only_tiles_of(size, patch)
        assert_right("conv2d", size, channels + TRANSFORM_TERMS, x, kernel, bias, geometry)
        assert_right("conv2d_input_gradient", size, filters + TRANSFORM_TERMS, g, kernel, geometry)
        assert_right("conv2d_kernel_gradient", 4, g.size + TRANSFORM_TERMS, x, g, geometry)


def test_any_padding_around(size):
    """More than a geometry of `sliding` has: the gradient to the input pads by up to 2."""
    rng = np.random.default_rng(0)
    x, kernel = normal(rng, (2, 6, 7, 8)), normal(rng, (3, 3, 8, 8))
    geometry = sliding((6, 7), (3, 3), (1, 1), "valid")._replace(pads=(2, 1, 0, 2), out_size=(7, 7))
    assert_right("conv2d", size, 8 + TRANSFORM_TERMS, x, kernel, None, geometry)
    g = normal(rng, (2, 7, 7, 8))
    assert_right("conv2d_input_gradient", size, 8 + TRANSFORM_TERMS, g, kernel, geometry)
    assert_right("conv2d_kernel_gradient", 4, g.size + TRANSFORM_TERMS, x, g, geometry)


@pytest.mark.parametrize(("size", "bound"), [(4, 9e-7), (6, 4.2e-6)], indirect=["size"])
def test_accuracy_in_float32(size, bound):
    """Relative. The convolution with the paper's points errs by 1.5e-6 in tiles of 4; without
    partial sums by 1.2e-6, and by 5.2e-6 in tiles of 6."""
    rng = np.random.default_rng(0)
    geometry = sliding((24, 24), (3, 3), (1, 1), "same")
    x = np.maximum(normal(rng, (2, 24, 24, 256), np.float32), 0)
    kernel = normal(rng, (3, 3, 256, 64), np.float32) / np.float32(np.sqrt(9 * 256 / 2))
    g = normal(rng, (2, 24, 24, 64), np.float32)

    def error(name, *arguments):
        right = exactly(getattr(reference, name), *arguments)
        wrong = getattr(winograd, name)(*arguments) - right
        return np.linalg.norm(wrong) / np.linalg.norm(right)

    assert error("conv2d", x, kernel, None, geometry) < bound
    assert error("conv2d_input_gradient", g, kernel, geometry) < bound
    assert error("conv2d_kernel_gradient", x, g, geometry) < 9e-7


@dtypes
def test_bits_do_not_depend_on_the_number_of_threads(dtype, size):
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


def test_an_image_has_the_same_bits_alone_and_in_a_batch(size):
    geometry, x, kernel, bias, _ = make((5, 13, 10, 16, 24, "same"), np.float32)
    together = winograd.conv2d(x, kernel, bias, geometry)
    alone = winograd.conv2d(x[3:4].copy(), kernel, bias, geometry)
    np.testing.assert_array_equal(alone[0], together[3])


def test_outputs_that_gradients_follow_round_no_more_than_small_tiles_do(monkeypatch):
    geometry, x, kernel, bias, _ = make((1, 96, 98, 16, 16, "same"), np.float32)
    cache = {}
    large = winograd.conv2d(x, kernel, bias, geometry, None, cache)
    recorded = winograd.conv2d(x, kernel, bias, geometry, None, cache, recorded=True)
    only_tiles_of(4, monkeypatch)
    small = winograd.conv2d(x, kernel, bias, geometry)
    assert (large != small).any()
    np.testing.assert_array_equal(recorded, small)


def test_large_tiles_are_for_maps_large_along_both_axes_with_few_filters():
    assert winograd.tile_size((28, 28), 512, 512) == 6
    assert winograd.tile_size((27, 200), 8, 8) == 4
    assert winograd.tile_size((200, 27), 8, 8) == 4
    assert winograd.tile_size((112, 112), 512, 1024) == 4
    assert winograd.tile_size((55, 55), 8, 8, winograd.LARGE_GRADIENT) == 4


def test_transformed_filters_are_kept_in_the_cache_and_used_from_there():
    geometry, x, kernel, bias, g = make((1, 8, 8, 16, 16, "same"), np.float32)
    cache = {}
    y = winograd.conv2d(x, kernel, bias, geometry, None, cache)
    dx = winograd.conv2d_input_gradient(g, kernel, geometry, cache)
    assert len(cache) == 1  # those of the gradient change with each step
    kept = [id(value) for value in cache.values()]
    other = np.zeros_like(kernel)  # not looked at
    np.testing.assert_array_equal(winograd.conv2d(x, other, bias, geometry, None, cache), y)
    np.testing.assert_array_equal(winograd.conv2d_input_gradient(g, kernel, geometry, cache), dx)
    winograd.conv2d(x, kernel, bias, geometry, None, anew := {}, recorded=True)
    assert not anew
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


def test_a_nan_stays_in_its_tiles_and_comes_through_relu(size):
    geometry, x, kernel, bias, _ = make((1, 16, 16, 8, 8, "same"), np.float32)
    x[0, 1, 1, 3] = np.nan
    y = winograd.conv2d(x, kernel, bias, geometry, "relu")
    assert np.isnan(y[0, :3, :3]).all()  # all that see it
    assert np.isfinite(y[0, size:]).all() and np.isfinite(y[0, :, size:]).all()  # all other tiles
