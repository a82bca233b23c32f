"""F in R^(N x D): what a frozen network says about N images, one row per image.

`extract_features` takes a model and images. F is the outputs of one or several layers, flattened or
pooled over places, put side by side; what lies above these layers is not computed. With `out`, F
goes to a file (`feature_file.py`). A head is then trained on F: see `optimum.py`.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minitl import layers as kinds
from minitl.layers import Layer
from minitl.models import Model
from minitl.models.arguments import guard
from minitl.models.batches import is_stream
from minitl.models.opened import open_up
from minitl.naming import Count, Verbose
from minitl.storage.atomic import progress_bar
from minitl.storage.digests import arrays_digest, digest_of, sample_digests
from minitl.transfer.cut import UNKNOWABLE, architecture, unknowable
from minitl.transfer.feature_file import FeatureFile, FeatureFileError

Chosen = str | Layer | Sequence[str | Layer] | None  # layers, by themselves or by their names
POOLING = {None: "Flatten", "avg": "GlobalAveragePooling2D", "max": "GlobalMaxPooling2D"}


def extract_features(
    model: Model,
    images: Any,
    layers: Chosen = None,
    pooling: str | None = None,
    batch_size: Count = 32,
    verbose: Verbose = "auto",
    preprocess: Callable[[np.ndarray], np.ndarray] | None = None,
    out: str | Path | None = None,
) -> np.ndarray:
    """F (N, D): the model's features of `images`, computed in batches with a progress bar.

    Args:
        model: e.g. VGG16(include_top=False).
        images: (N, H, W, C), preprocessed for the model unless `preprocess` is given: an array, a
            memory map or a data set of an HDF5 file; or an iterable of batches x or (x, y); or
            `Pictures` (`minitl.data.open_folder`): then F has rows for those of them that can be
            read, `images.readable()`, and a bar says how far it is.
        layers: names of layers, or layers; several are put side by side. The output when None.
        pooling: for maps (N, H, W, C): None keeps every place (D = H*W*C), 'avg' and 'max' keep
            one number per channel (D = C).
        batch_size, verbose: images at a time (the result is the same to rounding); 0 hides the bar.
        preprocess: applied batch by batch, so that not all images need be converted at once.
        out: path of a feature file. F is written there as it is computed, resumed after an
            interruption, and returned as a read-only map. Memory does not grow with N.

    Raises ValueError for an unknown layer or pooling, or if `out` holds something else's features.
    """
    images = images.in_order() if hasattr(images, "in_order") else images
    chunks = _chunks(images, batch_size)
    if out is not None and True in (getattr(images, n, 0) for n in ("reshuffled", "shuffle")):
        why = "so that the rows of F keep the order of its labels"
        what = "the images come in a new order every time: make the data set with shuffle=False"
        raise ValueError(f"{what}, {why}")
    model.build_for(images)
    extractor = feature_model(model, layers, pooling)
    total = None if is_stream(images) else len(images)
    if (first := next(chunks, None)) is None:
        found = "the stream is empty" if total is None else f"shape {np.shape(images)}"
        raise ValueError(f"there are no images: {found}")
    with progress_bar(total, "features", hidden=verbose in (0, False), unit="image") as bar:
        chunks = _counted(itertools.chain([first], chunks), bar)
        if out is None:
            prepared = (_prepared(preprocess, chunk) for chunk in chunks)
            return extractor.predict(prepared, verbose=0)
        key = feature_key(extractor, layers, pooling, preprocess, first)
        if hasattr(images, "readable"):
            key, total = key | {"pictures": images.identity()}, None
        return _to_file(out, extractor, preprocess, chunks, total, first, key)


def _to_file(
    out: str | Path,
    extractor: Model,
    preprocess: Any,
    chunks: Iterable[np.ndarray],
    total: int | None,
    first: np.ndarray,
    key: dict[str, str],
) -> np.ndarray:
    """F as a map of the feature file: what is not there yet is computed and written."""

    def features(batch: np.ndarray) -> np.ndarray:
        return extractor.predict(_prepared(preprocess, batch), batch_size=len(batch), verbose=0)

    # Where the input shape is open, the images decide.
    d = extractor.output_shape[1] or features(first[:1]).shape[1]
    about = {
        "model": extractor.name.removesuffix("_features"),
        "images": f"{first.shape[1:]} {first.dtype}",
        "preprocess": getattr(preprocess, "__name__", str(preprocess)),
        "made by": "extract_features",
    }
    at = 0
    anew = any(UNKNOWABLE in value for value in key.values())
    with FeatureFile(out, d, extractor.dtype, key, total, about=about, rebuild=anew) as file:
        for chunk in chunks:
            digests = sample_digests([chunk])
            there = file.there[at : at + len(chunk)]
            known = file.images[at : at + len(chunk)]
            other = there & (known != digests[: len(known)]).any(axis=1)
            if other.any():
                found = f"other images, first number {at + int(other.argmax())}"
                what = f"{file.path} holds features of something else: {found}"
                raise FeatureFileError(f"{what}. Delete it, or give another path.")
            if len(there) < len(chunk) or not there.all():
                file.write(at, features(chunk), digests)
            at += len(chunk)
        file.finish(at)
        return file.mapped()


def feature_key(
    extractor: Model, layers: Any, pooling: str | None, preprocess: Any, first: np.ndarray
) -> dict[str, str]:
    """What the rows of a feature file depend on beside the images, each under a name that an
    error can show. The preprocessing is told apart by its code, and all that it refers to, and by
    what it makes of noise and of the first image."""
    graph, prepared = open_up(extractor), {"preprocessing": "none"}
    if preprocess is not None:
        noise = np.random.default_rng(0).integers(0, 256, (2, *first.shape[1:]))
        tried = [_prepared(preprocess, each) for each in (noise.astype(first.dtype), first[:1])]
        unknown: list[str] = []
        of_noise, of_first = (arrays_digest([each])[:32] for each in tried)
        code = f"{digest_of(preprocess, unknown)[:32]} {of_noise}{unknowable(unknown)}"
        prepared = {"preprocessing": code, "first of the images, preprocessed": of_first}
    chosen = layers if isinstance(layers, (list, tuple)) else [layers]
    names = [layer.name if isinstance(layer, Layer) else str(layer) for layer in chosen]
    return {
        "kind": "rows in order",
        "architecture": architecture(graph),
        "layers": ", ".join(names) if layers is not None else "output",
        "pooling": str(pooling),
        "weights": arrays_digest(v.storage for v in graph.weights),
    } | prepared


def _prepared(preprocess: Any, batch: np.ndarray) -> np.ndarray:
    """What preprocess gives for a batch: as many images. Raises ValueError if not."""
    if preprocess is None:
        return batch
    found = np.asarray(preprocess(batch))
    if found.ndim == 0 or len(found) != len(batch):
        what = f"preprocess was given {len(batch)} images and returned an array of {found.shape}"
        raise ValueError(f"{what}: it must return as many as it is given")
    return found


def _chunks(images: Any, size: int) -> Iterator[np.ndarray]:
    """The images, `size` at a time and the rest at the end. Only these are in memory."""
    if hasattr(images, "readable"):
        yield from (pixels for _, pixels in images.batches(size))
    elif not is_stream(images):
        whole = images if hasattr(images, "shape") else np.asarray(images)
        for start in range(0, len(whole), size):
            yield np.asarray(whole[start : start + size])
    else:
        yield from _of_size(images, size)


def _of_size(batches: Iterable[Any], size: int) -> Iterator[np.ndarray]:
    """Batches of a stream, x or (x, y), as chunks of x of `size`, and the rest."""
    waiting: list[np.ndarray] = []
    for batch in batches:
        waiting.append(np.asarray(batch[0] if isinstance(batch, tuple) else batch))
        while sum(map(len, waiting)) >= size:
            joined = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
            yield joined[:size]
            waiting = [joined[size:]] if len(joined) > size else []
    if waiting:
        yield np.concatenate(waiting)


def _counted(chunks: Iterable[np.ndarray], bar: Any) -> Iterator[np.ndarray]:
    """The chunks; the bar moves on when one is done."""
    for chunk in chunks:
        yield chunk
        bar.update(len(chunk))


def feature_model(model: Model, layers: Chosen = None, pooling: str | None = None) -> Model:
    """The model from the same inputs to rows of features, with the same layers; where one is called
    several times, its last call counts. Raises ValueError as `extract_features`."""
    if len(model.inputs) != 1:
        raise ValueError(f"features need a model of one input, {model.name!r} has {model.inputs}")
    if pooling not in POOLING:
        raise ValueError(f"pooling must be None, 'avg' or 'max', got {pooling!r}")
    chosen = [layers] if isinstance(layers, (str, Layer)) else layers
    outputs = list(model.outputs) if chosen is None else []
    for layer in chosen or ():
        found = model.get_layer(layer if isinstance(layer, str) else layer.name)
        if isinstance(layer, Layer) and layer is not found:
            raise ValueError(f"{layer!r} is not the layer of that name in {model.name!r}")
        calls = [call for call in model.graph.calls if call.layer is found]
        if not calls:
            raise ValueError(f"{found.name!r} is an input: there is nothing to extract from it")
        outputs.append(calls[-1].outputs[0])
    if not outputs:
        raise ValueError("layers is empty: name at least one layer, or leave it out")
    rows, name = [], f"{model.name}_features"
    for t in outputs:
        if t.ndim not in (2, 4) and pooling is not None:
            what = f"pooling={pooling!r} needs maps (N, H, W, C)"
            raise ValueError(f"{what}; {t.name!r} is {t.shape}")
        pool = getattr(kinds, POOLING[pooling])
        rows.append(t if t.ndim == 2 else pool(name=f"{t.name}_rows")(t))
    joined = rows[0] if len(rows) == 1 else kinds.Concatenate(name=name)(rows)
    return Model(model.input, joined, name=name)


guard(globals())
