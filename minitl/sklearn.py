"""For scikit-learn: F from a frozen network in any pipeline, grid search or SVM.

    pipeline = make_pipeline(FeatureExtractor("vgg16", pooling="avg"), StandardScaler(), SVC())

Both, `FeatureExtractor` and `SoftmaxHead`, pass its own `check_estimator`. An extra: `sklearn`.
"""

from __future__ import annotations

import functools
import inspect
import sys
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minitl.naming import Count, NotNegative, Positive
from minitl.storage.door import extra

with extra("minitl.sklearn needs scikit-learn 1.6 or newer", "sklearn"):
    from sklearn import base
    from sklearn.utils.class_weight import compute_class_weight
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from minitl import applications
from minitl.data.found import open_folder
from minitl.data.images import resize_images, to_rgb
from minitl.models import Model, arguments
from minitl.naming import did_you_mean
from minitl.transfer.features import extract_features, feature_model
from minitl.transfer.optimum import softmax, solve_head


@arguments.check_methods
@dataclass(eq=False, repr=False)
class FeatureExtractor(
    base.ClassNamePrefixFeaturesOutMixin, base.TransformerMixin, base.BaseEstimator
):
    """Images to F (N, D), float32: what a frozen network says about each.

    Nothing is learned from the data: `fit` looks at their shape only. In a grid search F is the
    same for every candidate; `Pipeline(..., memory=folder)` computes it once.

    Args:
        model: 'vgg16', 'mobilenet_v2' or another network's name (with ImageNet weights; loaded
            once per process), or a Model on images.
        layers, pooling, batch_size: as for `extract_features`.
        image_shape: X may be names of picture files (a list, a column, or a DataFrame with the
            column 'path'), read as `minitl train` reads them; or images, (N, H, W) gray or
            (N, H, W, C); or rows of pixels, as scikit-learn's data sets have them: then this says
            (H, W) or (H, W, C), where one size may be -1, as in `reshape`.
        value_range: (black, white), the numbers in X that become 0 and 255; None leaves them.
        size: (H, W) that images are resized to; None for 224 x 224 with a named model, and for no
            resizing with one's own.
        preprocess: 'auto' (the named model's `preprocess_input`), a function of batches, or None.

    `fit` raises ValueError for images that do not fit the model, and what fetching weights raises.
    """

    model: Any = "vgg16"
    _: KW_ONLY
    layers: Any = None
    pooling: str | None = "avg"
    image_shape: tuple[int, ...] | None = None
    value_range: tuple[float, float] | None = None
    size: tuple[int, int] | None = None
    preprocess: Any = "auto"
    batch_size: Count = 32

    def fit(self, X: Any, y: Any = None) -> FeatureExtractor:
        """Check that the images fit the model; returns self."""
        _check_settings(self)
        X = self._checked(X, True)
        network, _ = self._network()
        shape = self._images(X[:1], network).shape
        expected = network.input_shape
        sizes = zip(shape[1:], expected[1:], strict=True)
        if len(expected) != 4 or any(e not in (None, n) for n, e in sizes):
            raise ValueError(f"{network.name!r} takes images {expected}, these are {shape}")
        features = feature_model(network, self.layers, self.pooling)
        self.n_features_out_ = features.compute_output_shape((None, *shape[1:]))[1]
        self._n_features_out = self.n_features_out_  # for get_feature_names_out
        return self

    def transform(self, X: Any) -> np.ndarray:
        """F (N, D) float32."""
        check_is_fitted(self)
        X = self._checked(X, False)
        network, own = self._network()

        def prepared(batch: np.ndarray) -> np.ndarray:
            images = self._images(batch, network)
            return images if own is None else own(images)

        settings = (self.layers, self.pooling, self.batch_size)
        try:
            f = extract_features(network, X, *settings, verbose=0, preprocess=prepared)
        except ValueError:
            if not getattr(X, "faults", None):
                raise
        if faults := list(getattr(X, "faults", {}).values()):  # one row per name, or none at all
            raise OSError(f"{len(faults)} of {len(X)} pictures cannot be read: {faults[0]}")
        return f

    def _checked(self, X: Any, reset: bool) -> Any:
        """X as an array of numbers; or, of names of files, pictures that are read when used."""
        columns = getattr(X, "columns", None)
        paths = X if columns is None else X["path"] if "path" in columns else X.iloc[:, 0]
        paths = np.asarray(paths, object) if not hasattr(paths, "dtype") else np.asarray(paths)
        kinds = {type(each) for each in paths.ravel()[:1]} if paths.dtype == object else set()
        if paths.dtype.kind not in "UT" and not any(issubclass(k, (str, Path)) for k in kinds):
            return validate_data(self, X, reset=reset, allow_nd=True, dtype="numeric")
        names = [str(path) for path in paths.ravel()]
        if len(names) != len(X):
            raise ValueError(f"X has {len(names)} names of files in {len(X)} rows: give one a row")
        if reset:
            self.n_features_in_ = 1
        network = self.model if isinstance(self.model, Model) else None
        own = None if network is None else network.input_shape[1:3]
        size = self.size or (own if own and None not in own else (224, 224))
        return open_folder(names, size)

    def _network(self) -> tuple[Model, Any]:
        """The network, and its preprocessing or None."""
        own = self.preprocess
        if isinstance(self.model, Model):
            return self.model, None if own == "auto" else own
        known = {name.lower(): name for name in applications.__all__ if name[0].isupper()}
        name = str(self.model).lower().replace("_", "")
        if name not in known:
            raise ValueError(f"model {self.model!r} is unknown. {did_you_mean(name, known)}")
        if isinstance(own, str) and own == "auto":
            network = getattr(applications, known[name])
            own = sys.modules[network.__module__].preprocess_input
        return _published(known[name], tuple(self.size or (224, 224))), own

    def _images(self, X: np.ndarray, network: Model) -> np.ndarray:
        """X as images (N, H, W, C) of 0-255, in the network's number of channels, and resized."""
        if X.ndim == 2:
            if self.image_shape is None:
                text = "image_shape must say which height and width (and channels) they are"
                raise ValueError(f"X has rows of {X.shape[1]} numbers: {text}")
            try:
                X = X.reshape(len(X), *self.image_shape)
            except ValueError:
                message = f"rows of {X.shape[1]} numbers are no images of {self.image_shape}"
                raise ValueError(message) from None
        images = X.astype(np.float32)
        if self.value_range is not None:
            black, white = self.value_range
            images = (images - np.float32(black)) * np.float32(255 / (white - black))
        if images.ndim == 3:
            images = images[..., np.newaxis]
        if images.shape[-1] == 1 and network.input_shape[-1] == 3:
            images = to_rgb(images)
        size = self.size or (None if isinstance(self.model, Model) else (224, 224))
        return images if size is None else resize_images(images, size)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags


def _check_settings(estimator: Any) -> None:
    """Of the constructor's arguments, in `fit`, as scikit-learn has it."""
    made = type(estimator).__init__
    rules = arguments.Rules(made, inspect.signature(made).parameters, None)
    rules.check(type(estimator).__name__, (), estimator.get_params(deep=False))


@functools.lru_cache(maxsize=2)
def _published(name: str, size: tuple[int, int]) -> Model:
    """A network with its ImageNet weights, one for all estimators: none of them changes it."""
    maker = getattr(applications, name)
    return maker(weights="imagenet", include_top=False, input_shape=(*size, 3))


@arguments.check_methods
@dataclass(eq=False, repr=False)
class SoftmaxHead(base.ClassifierMixin, base.BaseEstimator):
    """P = softmax(W^T F + b), at the optimum of its loss.

        L(W, b) = sum_n w_n * cross_entropy(y_n, P_n) / sum_n w_n  +  l2 * sum(W^2)

    is convex, so there is one optimum and `solve_head` finds it: no learning rate, no
    epochs, no seed. It is what Dense(m, activation='softmax', kernel_regularizer=L2(l2)) comes to
    on F, and scikit-learn's LogisticRegression with C = 1 / (2 * l2 * N). `tolerance` is the
    gradient's norm at the end, as a share of that at the start; beyond `max_iter` steps it warns.
    `class_weight` multiplies w_n by that of the row's class: {class: weight}, 1 for those that
    are not in it, or 'balanced', N / (m * rows of the class).

    After `fit`: `classes_` (m,), `kernel_` W (D, m), `bias_` b (m,), `loss_`, `n_iter_`.
    """

    l2: NotNegative = 1e-3
    _: KW_ONLY
    tolerance: Positive = 1e-10
    max_iter: Count = 5000
    class_weight: Any = None

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SoftmaxHead:
        """Find W and b for F = X (N, D) and classes y (N,); returns self."""
        _check_settings(self)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            only = self.classes_[:1].tolist()[0]
            raise ValueError(f"a head tells classes apart; here is one class, {only!r}")
        if sample_weight is not None or self.class_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
            by_class = {"classes": self.classes_, "y": y}
            if self.class_weight == "balanced":  # by the rows' weights, as scikit-learn has it
                by_class["sample_weight"] = sample_weight
            weights = compute_class_weight(self.class_weight, **by_class)
            sample_weight = sample_weight * weights[labels]
            sample_weight = sample_weight * (len(X) / sample_weight.sum())
        options: dict[str, Any] = {"tolerance": self.tolerance, "max_iterations": self.max_iter}
        head = solve_head(X, labels, self.l2, sample_weight, **options)
        self.kernel_, self.bias_ = head.kernel, head.bias
        self.loss_, self.n_iter_ = head.loss, head.iterations
        return self

    def _logits(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return X @ self.kernel_ + self.bias_

    def decision_function(self, X: Any) -> np.ndarray:
        """W^T F + b, (N, m); with two classes the difference, (N,), as scikit-learn has it."""
        z = self._logits(X)
        return z[:, 1] - z[:, 0] if len(self.classes_) == 2 else z

    def predict_proba(self, X: Any) -> np.ndarray:
        """P (N, m), the columns in the order of `classes_`."""
        return softmax(self._logits(X))[0]

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """log P (N, m), exact also where P is too small to be a number."""
        z = self._logits(X)
        return z - softmax(z)[1]

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class of each row, (N,)."""
        winners = self._logits(X).argmax(axis=1)  # first, because it checks that there was a fit
        return self.classes_[winners]
