"""The augmentation kernels: the formula against SciPy and NumPy, the fast twin against the
formula."""

import numpy as np
import pytest
from scipy import ndimage

from minitl import kernels
from minitl.kernels.fast import images as augmentation
from minitl.kernels.machine import threads
from tests.kernels.cases import normal, reference
from tests.tolerances import assert_adjoint, assert_sum, assert_ulps, gamma

# Our fill modes by SciPy's names.
SCIPY = {
    "reflect": "reflect",
    "wrap": "grid-wrap",
    "constant": "grid-constant",
    "nearest": "nearest",
}
modes = pytest.mark.parametrize("mode", SCIPY)
interpolations = pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
SHAPES = [
    ((2, 7, 9, 3), (7, 9)),
    ((1, 5, 4, 1), (6, 8)),
    ((3, 1, 6, 2), (3, 3)),
    ((2, 3, 1, 4), (2, 5)),
]
shapes = pytest.mark.parametrize(("shape", "size"), SHAPES)


@pytest.fixture(params=["compiled", "plain", "shredded"])
def way(request, monkeypatch):
    if request.param == "plain":
        for key, value in vars(augmentation).items():
            if hasattr(value, "py_func"):
                monkeypatch.setattr(augmentation, key, value.py_func)
    if request.param == "shredded":
        monkeypatch.setattr(threads, "FEWEST_NUMBERS", 1)
    return request.param


def random_maps(rng, n, reach=12):
    """Maps that turn, shear, scale and shift, far over the border: (N, 2, 3)."""
    return np.concatenate([rng.normal(0, 1, (n, 2, 2)), rng.uniform(-reach, reach, (n, 2, 1))], 2)


def by_scipy(x, matrices, size, interpolation, mode, fill):
    order = 1 if interpolation == "bilinear" else 0
    y = np.empty((len(x), *size, x.shape[3]))
    for n, m in enumerate(matrices):
        for c in range(x.shape[3]):
            y[n, ..., c] = ndimage.affine_transform(
                x[n, ..., c], m[:, :2], m[:, 2], size, order=order, mode=SCIPY[mode], cval=fill[c]
            )
    return y


@pytest.mark.parametrize("seed", range(3))
@interpolations
@modes
@shapes
def test_the_formula_is_scipys(shape, size, mode, interpolation, seed):
    rng = np.random.default_rng(seed)
    x, m, fill = normal(rng, shape), random_maps(rng, shape[0]), normal(rng, shape[3])
    y = reference.affine_transform(x, m, size, interpolation, mode, fill)
    # Between the pixels x changes by some 5 a pixel, and coordinates are right to 1e-14.
    np.testing.assert_allclose(y, by_scipy(x, m, size, interpolation, mode, fill), atol=1e-12)


@modes
def test_whole_pixels_are_copied(mode):
    rng = np.random.default_rng(0)
    x, fill = normal(rng, (4, 6, 6, 2)), normal(rng, 2)
    flip = np.array([[-1.0, 0, 5], [0, 1, 0]])
    turn = np.array([[0, 1.0, 0], [-1, 0, 5]])
    for interpolation in ("bilinear", "nearest"):
        y = reference.affine_transform(
            x, np.stack([flip, turn, flip, turn]), (6, 6), interpolation, mode, fill
        )
        np.testing.assert_array_equal(y[0], np.flip(x[0], 0))
        np.testing.assert_array_equal(y[1], np.rot90(x[1]))


def test_what_lies_beyond_the_border_small_enough_to_see():
    x = np.array([1.0, 2, 3]).reshape(1, 1, 3, 1)
    shift = np.array([[[1.0, 0, 0], [0, 1, -4]]])

    def seen(mode):
        y = reference.affine_transform(x, shift, (1, 11), "nearest", mode, np.array([9.0]))
        return y.ravel().astype(int).tolist()

    assert seen("reflect") == [3, 3, 2, 1, 1, 2, 3, 3, 2, 1, 1]
    assert seen("wrap") == [3, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1]
    assert seen("nearest") == [1, 1, 1, 1, 1, 2, 3, 3, 3, 3, 3]
    assert seen("constant") == [9, 9, 9, 9, 1, 2, 3, 9, 9, 9, 9]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@interpolations
@modes
@shapes
def test_fast_is_the_formula(way, shape, size, mode, interpolation, dtype):
    rng = np.random.default_rng(1)
    x, m, fill = normal(rng, shape, dtype), random_maps(rng, shape[0]), normal(rng, shape[3])
    arguments = (m, size, interpolation, mode)
    y = augmentation.affine_transform(x, *arguments, fill)
    wide = x.astype(np.float64), fill.astype(dtype).astype(np.float64)
    exact = reference.affine_transform(wide[0], *arguments, wide[1])
    assert y.dtype == dtype
    # A weight 1 - b has the absolute rounding of b: so the scale is that of the pixels, not of
    # the terms. Two weights (4), products and sums (4).
    assert_ulps(y, exact, 8, scale=max(abs(x).max(), abs(fill).max()))

    g = normal(rng, y.shape, dtype)
    back = reference.affine_transform_gradient(g, m, shape[1:3], interpolation, mode)
    rest = (m, shape[1:3], interpolation, mode)
    exact = reference.affine_transform_gradient(g.astype(np.float64), *rest)
    magnitude = reference.affine_transform_gradient(abs(g).astype(np.float64), *rest)
    assert back.dtype == dtype
    assert_sum(back, exact, magnitude, 4 * size[0] * size[1])


@interpolations
@modes
@shapes
def test_the_gradient_is_the_adjoint(shape, size, mode, interpolation):
    rng = np.random.default_rng(2)
    x, m, none = normal(rng, shape), random_maps(rng, shape[0]), np.zeros(shape[3])
    for module in (reference, augmentation):
        y = module.affine_transform(x, m, size, interpolation, mode, none)
        g = normal(rng, y.shape)
        back = reference.affine_transform_gradient(g, m, shape[1:3], interpolation, mode)
        assert_adjoint(g, y, back, x)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tones(way, dtype):
    rng = np.random.default_rng(3)
    x, g = normal(rng, (3, 6, 5, 4), dtype), normal(rng, (3, 6, 5, 4), dtype)
    contrast, shift = np.array([1.0, 0.3, 1.8]), normal(rng, (3, 4))
    low, high = np.array([-1.0, -2, -0.5, -np.inf]), np.array([1.0, 0.5, 2, np.inf])
    wide = x.astype(np.float64)
    mean = wide.mean(axis=(1, 2), keepdims=True)
    scale = contrast[:, None, None, None]
    exact = (wide - mean) * scale + mean + shift[:, None, None]
    terms = abs(wide) * (scale + 1) + abs(mean) * 2 + abs(shift[:, None, None])
    bounds = low.astype(dtype), high.astype(dtype)
    for module in (augmentation, reference):
        y = module.adjust_tone(x, contrast, shift, low, high)
        assert_sum(y, np.clip(exact, *bounds), terms, 8)
    inside = (exact > bounds[0]) & (exact < bounds[1])
    passed = np.where(inside, g.astype(np.float64), 0)
    expected = passed * scale + passed.mean(axis=(1, 2), keepdims=True) * (1 - scale)
    magnitude = abs(passed) * scale + abs(passed).mean(axis=(1, 2), keepdims=True) * (1 + scale)
    dx = reference.adjust_tone_gradient(g, x, contrast, shift, low, high)
    assert dx.dtype == dtype
    assert_sum(dx, expected, magnitude, 40)


def test_a_nan_stays_one(way):
    x = np.ones((1, 2, 2, 1))
    x[0, 1, 1] = np.nan
    flat = np.zeros((1, 1)), np.array([0.0]), np.array([2.0])
    for module in (augmentation, reference):
        y = module.adjust_tone(x, np.ones(1), *flat)
        assert np.isnan(y[0, 1, 1, 0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise(dtype):
    x = np.full((3, 200, 100, 1), 5, dtype)
    seeds = np.array([7, 8, 7], np.uint64)
    y = augmentation.gaussian_noise(x, 3.0, seeds)
    np.testing.assert_array_equal(y, reference.gaussian_noise(x, 3.0, seeds))
    assert y.dtype == dtype
    np.testing.assert_array_equal(y[0], y[2])
    assert abs(np.corrcoef(y[0].ravel(), y[1].ravel())[0, 1]) < 5 / np.sqrt(20000)
    z = (y[0].astype(np.float64) - 5) / 3
    assert abs(z.mean()) < 5 / np.sqrt(z.size) and abs(z.std() - 1) < 5 / np.sqrt(2 * z.size)


def test_no_bit_depends_on_the_threads():
    rng = np.random.default_rng(4)
    x, m = normal(rng, (5, 90, 80, 3), "f"), random_maps(rng, 5, 60)
    tone = normal(rng, 5), normal(rng, (5, 3)), -np.ones(3), np.ones(3)
    before = threads.thread_count()

    def results():
        y = kernels.affine_transform(x, m, (90, 80), "bilinear", "reflect", np.zeros(3))
        return [
            y,
            kernels.affine_transform_gradient(y, m, (90, 80), "bilinear", "reflect"),
            kernels.adjust_tone(x, *tone),
            kernels.adjust_tone_gradient(y, x, *tone),
            kernels.gaussian_noise(x, 1.0, np.arange(5, dtype=np.uint64)),
        ]

    try:
        threads.set_thread_count(1)
        alone = results()
        for count in (2, 3, 8):
            threads.set_thread_count(count)
            for a, b in zip(results(), alone, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        threads.set_thread_count(before)


def test_coordinates_are_computed_in_double():
    """A shift of 1/4 at the far end of a large image: float32 would know it to 1/16 only."""
    x = np.arange(300_000, dtype=np.float64).reshape(1, 1, -1, 1)
    m = np.array([[[1.0, 0, 0], [0, 1, -0.25]]])
    y = kernels.affine_transform(x, m, (1, 300_000), "bilinear", "nearest", np.zeros(1))
    expected = np.maximum(np.arange(300_000) - 0.25, 0)
    np.testing.assert_allclose(y.ravel(), expected, rtol=gamma(4, np.float64))
