"""Sheets show what the network computes, checked by the numbers that stand in the figures."""

import numpy as np
import pytest

from minitl import kernels
from minitl.judging import sheets
from minitl.kernels.geometry import sliding
from minitl.layers import Conv2D, Dense, GlobalAveragePooling2D, Input
from minitl.models import Model
from minitl.transfer.optimum import head_loss, solve_head

pytest.importorskip("matplotlib")


@pytest.fixture
def model():
    inputs = Input((8, 8, 3))
    x = Conv2D(5, 3, name="first", activation="relu")(inputs)
    x = GlobalAveragePooling2D()(Conv2D(4, 3, name="second", activation="relu")(x))
    return Model(inputs, Dense(2, activation="softmax", name="head")(x))


def pixels_of(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes]


def test_a_tile_ends_with_what_the_formula_gives():
    rng = np.random.default_rng(0)
    d, k = rng.standard_normal((6, 6)), rng.standard_normal((3, 3))
    *_, last = pixels_of(sheets.tile_picture(d, k))
    geometry = sliding((6, 6), (3, 3), (1, 1), "valid")
    y = kernels.conv2d.formula(d[None, ..., None], k[..., None, None], None, geometry)[0, ..., 0]
    np.testing.assert_allclose(last, (y - y.min()) / (y.max() - y.min()), atol=1e-9)


def test_filters_of_three_channels_are_shown_in_their_colours(model):
    first, *others = pixels_of(sheets.filter_sheet(model.get_layer("first")))
    kernel = np.asarray(model.get_layer("first").weights[0].data)[..., 0]
    red = kernel[..., 2] - kernel.min()  # VGG16's channels are blue, green, red
    np.testing.assert_allclose(first[..., 0], red / np.ptp(kernel), atol=1e-6)
    assert len(others) == 4 and first.shape == (3, 3, 3)
    assert pixels_of(sheets.filter_sheet(model.get_layer("second")))[0].shape == (3, 3)
    with pytest.raises(ValueError, match="Dense 'head' has no filters"):
        sheets.filter_sheet(model.get_layer("head"))


def test_the_brightest_maps_come_first(model):
    x = np.random.default_rng(0).standard_normal((8, 8, 3)).astype(np.float32)
    found = pixels_of(sheets.map_sheet(model, x, ["first", "second"], count=3))
    assert [a.shape for a in found] == [(6, 6)] * 3 + [(4, 4)] * 3
    assert found[0].mean() >= found[1].mean() >= found[2].mean()
    with pytest.raises(ValueError, match="no layer 'third' that gives maps"):
        sheets.map_sheet(model, x, ["third"])


def test_heat_lies_over_each_picture(model):
    seen = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3))
    figure = sheets.heat_sheet(model, seen.astype(np.float32), seen, classes=1)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 2, 2]


def test_the_plane_of_features_keeps_what_varies_most():
    rng = np.random.default_rng(0)
    f = rng.standard_normal((60, 5)) * [9, 1e-3, 4, 1e-3, 1e-3]
    figure = sheets.feature_plane({"F": f}, np.arange(60) % 3, ["a", "b", "c"])
    assert figure.axes[0].get_title() == "F: 100% of the variance"
    rows = np.vstack([c.get_offsets() for c in figure.axes[0].collections])
    np.testing.assert_allclose(rows.std(axis=0), f[:, [0, 2]].std(axis=0), rtol=1e-2)


def test_both_paths_lead_down_to_the_optimum():
    rng = np.random.default_rng(0)
    f = rng.standard_normal((60, 3))
    y = (f @ rng.standard_normal((3, 3)) + 0.3 * rng.standard_normal((60, 3))).argmax(axis=1)
    best = solve_head(f, y, 0.05).loss
    for way in sheets.head_paths(f, y, 0.05, steps=150).values():
        ends = [
            head_loss(f, y, w.reshape(4, 3)[:3], w.reshape(4, 3)[3], 0.05) for w in way[[0, -1]]
        ]
        assert 0 <= ends[1] - best < 0.02 * (ends[0] - best)
    figure = sheets.loss_surface(f, y, 0.05)
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].lines}
    assert lines["SGD"].shape == lines["Adam"].shape == (61, 2)
    np.testing.assert_allclose(lines["SGD"][0], lines["Adam"][0], atol=1e-12)
    np.testing.assert_array_equal(lines["optimum"], [[0, 0]])
