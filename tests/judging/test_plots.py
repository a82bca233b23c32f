import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from minitl.judging import plots as report
from minitl.judging.rate_range import RateTest

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("matplotlib.figure")

RNG = np.random.default_rng(0)
HISTORY = {
    "loss": [1.0, 0.6, 0.4],
    "val_loss": [1.1, 0.7, 0.8],
    "accuracy": [0.5, 0.7, 0.8],
    "val_accuracy": [0.5, 0.75, 0.7],
}


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, kept for a look at what stands in them."""
    kept = []
    real = matplotlib.figure.Figure.savefig

    def savefig(figure, *arguments, **options):
        kept.append(figure)
        real(figure, *arguments, **options)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", savefig)
    return kept


def texts(figure):
    return [t.get_text() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]


def assert_picture(path, least=400):
    with Image.open(path) as img:
        assert min(img.size) >= least
        pixels = np.asarray(img.convert("L"))
    assert pixels.std() > 10, "something is drawn"
    inside = pixels[10:-10, 10:-10]
    assert (pixels < 255).sum() == (inside < 255).sum(), "a margin all around: nothing is cut off"


def test_learning_curves(tmp_path, figures):
    path = tmp_path / "curves.png"
    report.learning_curves(HISTORY, path)
    assert_picture(path)
    loss, acc = figures[0].axes
    assert [loss.get_title(), acc.get_title()] == ["loss", "accuracy"]
    assert loss.get_xlabel() == "epoch"
    np.testing.assert_array_equal(loss.lines[0].get_xdata(), [1, 2, 3])
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), HISTORY["loss"])
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), HISTORY["val_loss"])
    legend = [t.get_text() for t in loss.get_legend().get_texts()]
    assert legend == ["training", "validation", "best: 0.7, epoch 2"]
    assert acc.get_legend().get_texts()[2].get_text() == "best: 0.75, epoch 2"


def test_learning_curves_of_stages(tmp_path, figures):
    second = {"loss": [0.3, 0.2], "accuracy": [0.9, 0.95], "learning_rate": [1e-5, 1e-5]}
    fit_result = types.SimpleNamespace(history=second)
    report.learning_curves([("head", HISTORY), ("block5 unfrozen", fit_result)], tmp_path / "a.png")
    loss, _, rate = figures[0].axes
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [1.0, 0.6, 0.4, 0.3, 0.2])
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), [1.1, 0.7, 0.8, np.nan, np.nan])
    np.testing.assert_array_equal(rate.lines[0].get_ydata(), [np.nan] * 3 + [1e-5] * 2)
    boundaries = [line.get_xdata()[0] for line in loss.lines if line.get_linestyle() == ":"]
    assert boundaries == [3.5]
    assert {"head", "block5 unfrozen"} <= set(texts(figures[0]))


def test_learning_curves_of_one_epoch_of_nan_and_of_none(tmp_path):
    report.learning_curves({"loss": [1.0], "val_loss": [float("nan")]}, tmp_path / "a.png")
    assert_picture(tmp_path / "a.png")
    for empty in ({}, {"loss": []}, [("head", {})]):
        with pytest.raises(ValueError, match="no epoch: nothing to draw"):
            report.learning_curves(empty, tmp_path / "b.png")


@pytest.mark.parametrize("classes", [2, 10, 25])
def test_confusion_matrix_plot(tmp_path, figures, classes):
    matrix = RNG.integers(0, 50, (classes, classes))
    names = [f"class number {i}" for i in range(classes)]
    report.confusion_matrix_plot(matrix, names, tmp_path / "a.png", title="Title")
    assert_picture(tmp_path / "a.png")
    axes = figures[0].axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    if classes == 2:
        share = matrix[0, 1] / matrix[0].sum()
        position = {t.get_position(): t.get_text() for t in axes.texts}
        assert position[(1, 0)] == f"{matrix[0, 1]}\n{share:.0%}"  # x is the predicted class
    assert set(names) <= set(texts(figures[0]))


def test_the_labels_of_a_small_matrix_are_not_cut_off(tmp_path):
    names = ["sound", "defective"]
    report.confusion_matrix_plot([[420, 31], [52, 153]], names, tmp_path / "a.png", "656 cells")
    assert_picture(tmp_path / "a.png")


def test_confusion_matrix_plot_with_an_empty_row_and_bad_input(tmp_path):
    report.confusion_matrix_plot([[0, 0], [1, 3]], ["a", "b"], tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"square, \(m, m\), got shape \(2, 3\)"):
        report.confusion_matrix_plot(np.ones((2, 3), int), ["a", "b"], tmp_path / "b.png")
    with pytest.raises(ValueError, match="1 class names for 2 classes"):
        report.confusion_matrix_plot([[1, 0], [0, 1]], ["a"], tmp_path / "b.png")


def test_prediction_sheet_marks_what_is_wrong(tmp_path, figures):
    images = RNG.integers(0, 256, (3, 20, 30)).astype(np.uint8)
    p = [[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]]
    report.prediction_sheet(images, [0, 0, 0], p, ["sound", "defective"], tmp_path / "a.png")
    assert_picture(tmp_path / "a.png", least=200)
    titles = [axes.get_title() for axes in figures[0].axes]
    assert titles == ["sound 90%", "✗ defective 70%", "sound 60%"]
    assert [axes.get_xlabel() for axes in figures[0].axes] == ["true: sound"] * 3
    widths = [axes.spines["top"].get_linewidth() for axes in figures[0].axes]
    assert widths[1] > widths[0] == widths[2]
    assert "2 of 3 right; wrong ones framed, with ✗" in texts(figures[0])
    drawn = figures[0].axes[1].images[0].get_array()
    np.testing.assert_array_equal(drawn, np.repeat(images[1][..., np.newaxis], 3, axis=2))


def test_prediction_sheet_draws_a_seeded_sample(tmp_path, figures):
    images = np.arange(50, dtype=np.uint8).repeat(64).reshape(50, 8, 8)
    p = np.full(50, 0.9)
    shown = []
    for seed in (0, 0, 1):
        report.prediction_sheet(images, np.ones(50), p, ["a", "b"], tmp_path / "a.png", 7, seed)
        shown.append([int(a.images[0].get_array()[0, 0, 0]) for a in figures[-1].axes])
    assert len(shown[0]) == 7 and shown[0] == shown[1] != shown[2]
    assert "7 of 7 right" in texts(figures[0])


@pytest.mark.parametrize("scale", [1, 255])
def test_prediction_sheet_takes_floats(tmp_path, figures, scale):
    images = np.full((1, 8, 8, 3), 0.2 * scale, np.float32)
    report.prediction_sheet(images, [1], [0.9], ["a", "b"], tmp_path / "a.png")
    assert np.unique(figures[0].axes[0].images[0].get_array()).tolist() == [51]


def test_prediction_sheet_refuses_preprocessed_and_misaligned_images(tmp_path):
    names = ["a", "b"]
    with pytest.raises(ValueError, match=r"got -103.9 to -103.9; give the images as they were"):
        report.prediction_sheet(
            np.full((1, 8, 8, 3), -103.9), [0], [0.5], names, tmp_path / "a.png"
        )
    with pytest.raises(ValueError, match="2 images for 1 predictions"):
        report.prediction_sheet(np.zeros((2, 8, 8, 3)), [0], [0.5], names, tmp_path / "a.png")
    with pytest.raises(ValueError, match="1 class names for 2 classes"):
        report.prediction_sheet(np.zeros((1, 8, 8, 3)), [0], [0.5], ["a"], tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("diverged", [False, True])
def test_rate_test_plot(tmp_path, figures, diverged):
    rates = np.geomspace(1e-4, 1, 9)
    losses = np.array([2, 2, 1.9, 1.5, 1, 0.8, 1.2, 5, 500])
    report.rate_test_plot(RateTest(rates, losses, losses, 4e-3, diverged), tmp_path / "rates.png")
    axes = figures[0].axes[0]
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "learning rate"
    low, high = axes.get_ylim()
    assert low <= 0.8 and 2 < high < 5  # where it runs away must not flatten the rest
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "suggested: 4.0e-03" in texts
    assert (figures[0].get_suptitle() == "the loss ran away") is diverged


def test_a_plot_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("before")

    def interrupted(self, name, **options):
        with open(name, "w") as file:
            file.write("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        report.learning_curves(HISTORY, path)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_a_folder_that_is_not_there_is_made(tmp_path):
    report.learning_curves(HISTORY, tmp_path / "new" / "a.png")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


def test_without_matplotlib_the_error_says_what_to_install(tmp_path, monkeypatch):
    for module in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'minitl\[plot\]'"):
        report.learning_curves(HISTORY, tmp_path / "a.png")


def test_pyplot_and_the_users_settings_are_left_alone(tmp_path):
    code = (
        "import sys, matplotlib\n"
        # a look at 'backend' would choose one, and import pyplot
        "look = lambda: {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if k != 'backend'}"
        "\nbefore = look()\n"
        "from minitl.judging import plots as report\n"
        f"report.learning_curves({HISTORY!r}, {str(tmp_path / 'a.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert look() == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_these_modules_loads_nothing_heavy():
    code = (
        "import sys\n"
        "import minitl.judging.plots, minitl.judging.evaluation\n"
        "import minitl.utils, minitl.data.elpv, minitl.data.splits\n"
        # Pillow and tqdm are needed in any case, and are quickly there.
        "heavy = {'matplotlib', 'scipy', 'numba', 'h5py', 'elpv_dataset'}\n"
        "found = heavy & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_augmentation_sheet(tmp_path, figures):
    images = RNG.integers(0, 256, (3, 12, 10, 3)).astype(np.uint8)
    views = [images[:, ::-1], images[:, :8].astype(np.float32) * 3 - 200]
    path = tmp_path / "sheet.png"
    report.augmentation_sheet(images, views, path)
    assert_picture(path)
    cells = figures[0].axes
    assert [axes.get_title() for axes in cells[:3]] == ["original", "view 0", "view 1"]
    assert len(cells) == 9
    shown = [np.asarray(axes.images[0].get_array()) for axes in cells]
    np.testing.assert_array_equal(shown[3], images[1])
    np.testing.assert_array_equal(shown[4], images[1, ::-1])
    np.testing.assert_array_equal(shown[8], np.clip(views[1][2], 0, 255))


def test_augmentation_sheet_of_gray_and_scaled_images(tmp_path, figures):
    gray = RNG.random((1, 6, 6)).astype(np.float32)
    report.augmentation_sheet(gray, [gray * 2, gray[..., np.newaxis] - 0.5], tmp_path / "a.png")
    first, second, third = (np.asarray(a.images[0].get_array()) for a in figures[0].axes)
    np.testing.assert_array_equal(second[..., 0], np.rint(np.minimum(gray[0] * 2, 1) * 255))
    np.testing.assert_array_equal(third[..., 2], np.rint(np.maximum(gray[0] - 0.5, 0) * 255))
    assert first.shape == (6, 6, 3)


def test_augmentation_sheet_needs_something_to_draw(tmp_path):
    images = np.zeros((2, 5, 5, 3))
    with pytest.raises(ValueError, match="2 images and 0 views: nothing to draw"):
        report.augmentation_sheet(images, [], tmp_path / "a.png")
    with pytest.raises(ValueError, match="view 1 has 1 images, of 2"):
        report.augmentation_sheet(images, [images, images[:1]], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_notebook_shows_a_figure_that_pyplot_does_not_know():
    figure = report.learning_curves({"loss": [1.0, 0.5]})
    assert figure._repr_png_().startswith(b"\x89PNG")
