"""scikit-learn's own checks of our estimators, and what they are for: pipelines and searches."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import minitl
from minitl import layers

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from minitl.sklearn import FeatureExtractor, SoftmaxHead


def small_network():
    """A frozen network on images of any size."""
    minitl.utils.set_random_seed(3)
    x = layers.Input((None, None, 1))
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv")(x)
    model = minitl.Model(x, layers.MaxPooling2D(name="pool")(y), name="small")
    model.trainable = False
    return model


# scikit-learn's checks that cannot hold here, each with its reason.
EXPECTED_TO_FAIL: dict[str, dict[str, str]] = {"SoftmaxHead": {}, "FeatureExtractor": {}}


@parametrize_with_checks(
    [
        SoftmaxHead(),
        # Rows of any length are images of one line, made larger, so that convolutions apply.
        FeatureExtractor(small_network(), image_shape=(1, -1), size=(8, 8)),
    ],
    expected_failed_checks=lambda e: EXPECTED_TO_FAIL[type(e).__name__],
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


# --- The head ------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_is_logistic_regression(classes):
    x, y = load_iris(return_X_y=True)
    x, y = x[y < classes], y[y < classes]
    weight = np.random.default_rng(0).uniform(0.5, 2, len(x))
    l2 = 0.01
    for w, total in ((None, len(x)), (weight, weight.sum())):
        mine = SoftmaxHead(l2).fit(x, y, w)
        if classes == 2:  # one vector w1 - w0, and |w1|^2 + |w0|^2 is half of |w1 - w0|^2
            c = 1 / (l2 * total)
        else:
            c = 1 / (2 * l2 * total)
        theirs = LogisticRegression(C=c, tol=1e-12, max_iter=10**5).fit(x, y, w)
        p = theirs.predict_proba(x)
        np.testing.assert_allclose(mine.predict_proba(x), p, atol=1e-4)
        assert np.array_equal(mine.predict(x), theirs.predict(x))
        z = theirs.decision_function(x)
        np.testing.assert_allclose(
            np.diff(np.atleast_2d(mine.decision_function(x)), axis=1) if classes == 3 else 0,
            np.diff(z, axis=1) if classes == 3 else 0,
            atol=2e-3,
        )
        assert mine.decision_function(x).shape == z.shape


def test_classes_of_any_kind():
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    head = SoftmaxHead().fit(x, names)
    assert head.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert head.score(x, names) > 0.95
    assert head.kernel_.shape == (4, 3) and head.bias_.shape == (3,)
    with pytest.raises(ValueError, match="here is one class, 'setosa'"):
        SoftmaxHead().fit(x[:50], names[:50])
    with pytest.raises(ValueError, match="l2 must be positive, got 0"):
        SoftmaxHead(0).fit(x, y)


# --- The extractor -------------------------------------------------------------------------------


def digits():
    x, y = load_digits(return_X_y=True)
    return x[:150], y[:150]


def test_rows_and_images_give_the_same_features():
    x, _ = digits()
    network = small_network()
    rows = FeatureExtractor(network, image_shape=(8, 8), value_range=(0, 16)).fit_transform(x)
    images = (x.reshape(-1, 8, 8) / 16 * 255).astype(np.float32)
    gray = FeatureExtractor(network).fit_transform(images)
    channels = FeatureExtractor(network).fit_transform(images[..., None])
    expected = minitl.extract_features(network, images[..., None], pooling="avg", verbose=0)
    assert rows.dtype == np.float32 and rows.shape == (150, 4)
    for found in (rows, gray, channels):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
    both = FeatureExtractor(network, layers=["conv", "pool"], pooling="max").fit(images)
    assert both.transform(images).shape == (150, 8)
    assert both.get_feature_names_out()[0] == "featureextractor0"
    halved = FeatureExtractor(network, preprocess=lambda batch: batch / 2).fit_transform(images)
    assert not np.allclose(halved, expected, rtol=0.01)


def test_into_an_svm_a_head_and_a_grid_search():
    x, y = digits()
    extractor = FeatureExtractor(
        small_network(), image_shape=(8, 8), value_range=(0, 1), pooling=None
    )
    for last in (SVC(), SoftmaxHead(1e-2, tolerance=1e-5)):
        scores = cross_val_score(make_pipeline(extractor, StandardScaler(), last), x, y, cv=2)
        assert scores.min() > 0.8
    pipeline = Pipeline(
        [("f", extractor), ("scale", StandardScaler()), ("head", SoftmaxHead(tolerance=1e-5))]
    )
    grid = {"f__pooling": [None, "avg"], "head__l2": [1e-2, 1e-1]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(x, y)
    assert search.best_params_["f__pooling"] is None and search.best_score_ > 0.8


def test_in_other_processes():
    """As `n_jobs=2` sends it: the estimator and its model, pickled."""
    x, _ = digits()
    extractor = FeatureExtractor(small_network(), image_shape=(8, 8)).fit(x)
    again = pickle.loads(pickle.dumps(extractor))
    assert np.array_equal(again.transform(x), extractor.transform(x))
    assert clone(extractor).model is not extractor.model


def test_models_are_copied_whole():
    model = small_network()
    model.metadata["note"] = 1
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.metadata == {"note": 1} and not again.trainable_weights
        assert all(map(np.array_equal, again.get_weights(), model.get_weights()))
        again.layers[1].kernel.assign(0 * again.layers[1].kernel.storage)
    assert model.get_weights()[0].any()


@pytest.mark.parametrize(
    ("settings", "x", "message"),
    [
        ({"model": "vgg61"}, np.ones((2, 32, 32)), r"'vgg61' is unknown. Did you mean 'vgg1[69]'"),
        ({}, np.ones((2, 64)), "X has rows of 64 numbers: image_shape must say which"),
        ({"image_shape": (8, 9)}, np.ones((2, 64)), r"64 numbers are no images of \(8, 9\)"),
        (
            {},
            np.ones((2, 8, 8, 3)),
            r"takes images \(None, None, None, 1\), these are \(1, 8, 8, 3",
        ),
        ({"pooling": "mean"}, np.ones((2, 8, 8)), "pooling must be None, 'avg' or 'max'"),
        ({"layers": "cnv"}, np.ones((2, 8, 8)), "Did you mean 'conv'"),
    ],
)
def test_what_does_not_fit_is_said_by_fit(settings, x, message):
    with pytest.raises(ValueError, match=message):
        FeatureExtractor(**{"model": small_network()} | settings).fit(x)


@pytest.mark.weights
def test_the_real_network():
    x = np.random.default_rng(0).integers(0, 256, (2, 40, 40), dtype=np.uint8)
    extractor = FeatureExtractor(size=(32, 32), layers=["block2_pool", "block3_pool"])
    found = extractor.fit_transform(x)
    from minitl.applications.vgg16 import VGG16, preprocess_input
    from minitl.data import resize_images, to_rgb

    network = VGG16(include_top=False, input_shape=(32, 32, 3))
    images = preprocess_input(resize_images(to_rgb(x), (32, 32)))
    expected = minitl.extract_features(
        network, images, ["block2_pool", "block3_pool"], "avg", verbose=0
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    assert len(pickle.dumps(extractor)) < 10_000  # a name, not 60 MB


def test_without_scikit_learn():
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "try:\n    import minitl.sklearn\nexcept ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == (
        "minitl.sklearn needs scikit-learn 1.6 or newer: python -m pip install 'minitl[sklearn]'"
    )


def test_class_weights_and_log_probabilities_as_logistic_regression():
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    y = np.where(x[:, 0] + rng.normal(0, 1, 60) > 0.8, "b", "a")
    weights = rng.uniform(0.5, 2, 60)
    for given in ("balanced", {"a": 1, "b": 4.0}, {"b": 3}, None):
        for w in (None, weights):
            head = SoftmaxHead(0.01, class_weight=given).fit(x, y, w)
            same = np.ones(60) if w is None else w
            from sklearn.utils.class_weight import compute_class_weight

            more = {"sample_weight": same} if given == "balanced" else {}
            by_class = compute_class_weight(given, classes=head.classes_, y=y, **more)
            total = same * by_class[(y == "b").astype(int)]
            # Of two classes scikit-learn has the difference, at half the penalty.
            regression = linear.LogisticRegression(C=1 / 0.01, tol=1e-12, max_iter=9999)
            regression.fit(x, y, total / total.sum())
            difference = head.kernel_[:, 1] - head.kernel_[:, 0]
            np.testing.assert_allclose(difference, regression.coef_[0], atol=1e-4)
    np.testing.assert_allclose(head.predict_log_proba(x), np.log(head.predict_proba(x)))
    far = head.predict_log_proba(x * 1e5)
    assert np.isfinite(far).all() and far.min() < -1000
    with pytest.raises(ValueError, match="class_weight"):
        SoftmaxHead(class_weight="balancd").fit(x, y)


def test_names_of_files_are_read(tmp_path):
    pandas = pytest.importorskip("pandas")
    from PIL import Image

    from minitl.layers import Conv2D, Input

    inputs = Input((16, 16, 3))
    model = minitl.Model(inputs, Conv2D(5, 3)(inputs))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    extractor = FeatureExtractor(model)
    expected = extractor.fit_transform(images.astype(np.float32))
    names = list(map(str, paths))
    table = pandas.DataFrame({"label": list("abab"), "path": names})
    for given in (names, paths, np.array(names), table, table[["path"]], table.path):
        np.testing.assert_allclose(extractor.fit_transform(given), expected, rtol=1e-6)
    with pytest.raises(OSError, match=r"gone\.png"):
        extractor.transform([str(tmp_path / "gone.png")])
    with pytest.raises(OSError, match="1 of 2 pictures cannot be read"):
        extractor.transform([names[0], str(tmp_path / "gone.png")])
