"""F in R^(N x D): what a frozen network says about N images, one row an image.

Features are the outputs of one or several layers, flattened or pooled over places, and put side
by side. Everything above the layers asked for is not computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minitl.batches import is_stream
from minitl.feature_file import FeatureFile, feature_key
from minitl.layers import (
    Concatenate,
    Flatten,
    GlobalAveragePooling2D,
    GlobalMaxPooling2D,
    Layer,
    SymbolicTensor,
)
from minitl.models import Model
from minitl.naming import check_keywords

POOLING = {None: Flatten, "avg": GlobalAveragePooling2D, "max": GlobalMaxPooling2D}


@check_keywords
def extract_features(
    model: Model,
    images: Any,
    layers: str | Layer | Sequence[str | Layer] | None = None,
    pooling: str | None = None,
    batch_size: int = 32,
    verbose: Any = "auto",
    preprocess: Callable[[np.ndarray], np.ndarray] | None = None,
    out: str | Path | None = None,
) -> np.ndarray:
    """F (N, D): the model's features of `images`, computed in batches with a progress bar.

    Args:
        model: e.g. VGG16(include_top=False).
        images: (N, H, W, C), preprocessed for the model unless `preprocess` is given; or an
            iterable of batches.
        layers: names of layers, or layers; several are put side by side. The output when None.
        pooling: for maps (N, H, W, C): None keeps every place (D = H*W*C), 'avg' and 'max' keep
            one number a channel (D = C).
        batch_size: images at a time; no effect on the result beyond rounding.
        verbose: 0 hides the bar.
        preprocess: applied to each batch of images, so that they need not all be converted at
            once: memory beyond `images` and F does not grow with N.
        out: path of a feature file. F is written there as it is computed; an interrupted
            extraction goes on where it was, a finished one is not repeated, and F is returned as
            a read-only map of the file. See `feature_file.py`.

    Raises ValueError for an unknown layer (showing the nearest) or pooling, and when `out` holds
    the features of something else.

    >>> base = VGG16(include_top=False, input_shape=(224, 224, 3))          # doctest: +SKIP
    >>> extract_features(base, images, layers=["block4_pool", "block5_pool"],
    ...                  pooling="avg").shape                               # doctest: +SKIP
    (600, 1024)
    """
    if not isinstance(batch_size, (int, np.integer)) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}")
    model._build_for(images)
    extractor = feature_model(model, layers, pooling)
    if is_stream(images):
        if out is not None:
            raise ValueError("out needs images as an array: a stream cannot be taken up again")
        ready = images if preprocess is None else map(preprocess, images)
        return extractor.predict(ready, verbose=verbose)
    images = np.asarray(images)
    if len(images) == 0:
        raise ValueError(f"there are no images: shape {images.shape}")

    def features(i: int) -> np.ndarray:
        batch = images[i * batch_size : (i + 1) * batch_size]
        batch = batch if preprocess is None else preprocess(batch)
        return extractor.predict(batch, batch_size=batch_size, verbose=0)

    count = -(-len(images) // batch_size)
    d = extractor.output_shape[1]
    if d is None:  # an open input shape: the images decide
        d = features(0).shape[1]
    shape = (len(images), d)
    with tqdm_for(verbose)(total=len(images), desc="features", unit="image") as bar:
        if out is None:
            f = np.empty(shape, extractor.dtype)
            for i in range(count):
                rows = features(i)
                f[i * batch_size : i * batch_size + len(rows)] = rows
                bar.update(len(rows))
            return f
        key = feature_key(extractor, images, preprocess, batch_size)
        with FeatureFile(out, shape, key, batch_size) as file:
            for i in range(count):
                if not file.has(i):
                    file.write(i, features(i))
                bar.update(min(batch_size, len(images) - i * batch_size))
            return file.mapped()


def tqdm_for(verbose: Any) -> Any:
    """tqdm, or a silent one."""
    from tqdm import tqdm

    return partial(tqdm, disable=verbose in (0, False), leave=verbose not in ("auto",))


def feature_model(
    model: Model,
    layers: str | Layer | Sequence[str | Layer] | None = None,
    pooling: str | None = None,
) -> Model:
    """The model from the same inputs to rows of features; shares the layers and their weights."""
    if len(model.inputs) != 1:
        raise ValueError(f"features need a model of one input, {model.name!r} has {model.inputs}")
    if pooling not in POOLING:
        raise ValueError(f"pooling must be None, 'avg' or 'max', got {pooling!r}")
    if layers is None:
        outputs = list(model.outputs)
    else:
        chosen = [layers] if isinstance(layers, (str, Layer)) else list(layers)
        if not chosen:
            raise ValueError("layers is empty: name at least one layer, or leave it out")
        outputs = [_output_in(model, layer) for layer in chosen]
    rows = [_as_rows(t, pooling) for t in outputs]
    name = f"{model.name}_features"
    joined = rows[0] if len(rows) == 1 else Concatenate(name=name)(rows)
    return Model(model.input, joined, name=name)


def _output_in(model: Model, layer: str | Layer) -> SymbolicTensor:
    """The output of the layer's (last) call within this model."""
    found = model.get_layer(layer if isinstance(layer, str) else layer.name)
    if isinstance(layer, Layer) and layer is not found:
        raise ValueError(f"{layer!r} is not the layer of that name in {model.name!r}")
    calls = [node for node in model._nodes_in_order if node.layer is found]
    if not calls:
        raise ValueError(f"{found.name!r} is an input: there is nothing to extract from it")
    return calls[-1].outputs[0]


def _as_rows(t: SymbolicTensor, pooling: str | None) -> SymbolicTensor:
    if t.ndim == 2:
        return t
    if t.ndim != 4 and pooling is not None:
        raise ValueError(f"pooling={pooling!r} needs maps (N, H, W, C); {t.name!r} is {t.shape}")
    return POOLING[pooling](name=f"{t.name}_rows")(t)
