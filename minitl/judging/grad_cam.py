"""Grad-CAM: where in an image a network saw what made it decide for a class.

For class c with logit z_c, and the maps A (h, w, K) of a layer (Selvaraju et al. 2017, arXiv
1610.02391, equations 1 and 2):

    alpha_k = mean over places of dz_c / dA_k
    heat    = max(0, sum over k of alpha_k A_k)

The layer may stand anywhere, also in a base that is one layer of the model. Nothing has to be
unfrozen: its maps are taken for a leaf of the record, and `backward` starts and ends there.
"""

from typing import Any

import numpy as np

from minitl.autograd import Tensor, backward, no_grad
from minitl.data.images import resize_images
from minitl.layers import Layer
from minitl.layers.base import SymbolicTensor
from minitl.models import Model
from minitl.models.arguments import guard
from minitl.models.opened import OpenedGraph, open_up
from minitl.naming import Count
from minitl.transfer.stages import find_layers


def grad_cam(
    model: Model,
    x: Any,
    classes: Any = None,
    layer: str | Layer | None = None,
    batch_size: Count = 16,
) -> np.ndarray:
    """Heat maps (N, H, W) of images (N, H, W, C), each from 0 to 1, as large as the images.

    Args:
        model: of one input and one output (N, m): a softmax, a sigmoid, or numbers as they are.
        x: images, preprocessed for the model.
        classes: which output to explain: one integer, or (N,); the largest of each row when None.
        layer: whose maps; when None, the last ones (N, h, w, K) with h and w above 1.
        batch_size: images at a time.

    An image in which nothing speaks for the class has zeros. Raises ValueError for a layer that
    is not there (showing the nearest) or does not give maps, and for classes out of range.
    """
    x = np.asarray(x)
    m = model.output_shape[-1]
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.output_shape) != 2:
        raise ValueError(f"grad_cam takes a model of one input and one output (N, m): {model!r}")
    if classes is not None:
        classes = np.broadcast_to(np.asarray(classes), (len(x),))
        if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= m:
            raise ValueError(f"classes are integers from 0 to {m - 1}, got {classes}")
    whole = open_up(model, [x.shape])
    maps = _maps_of(model, whole, layer)
    ahead = [maps, *_beside(whole, maps)]
    below, above = whole.between(whole.inputs, ahead), whole.between(ahead, whole.outputs)
    if above.inputs[:1] != [maps]:
        raise ValueError(f"the output does not depend on {maps.name!r}")
    heats = []
    for start in range(0, len(x), batch_size):
        part = slice(start, start + batch_size)
        images = Tensor(x[part].astype(model.inputs[0].dtype))
        with no_grad():
            first, *others = below.run([images][: len(below.inputs)])
            a = Tensor(first.storage, requires_grad=True)  # (N, h, w, K)
        given = {id(t): value for t, value in zip(ahead, [a, *others], strict=True)}
        y = above.run([given[id(t)] for t in above.inputs])[0]
        z = y.origin[1] if y.origin else y  # the logits beneath a softmax or sigmoid
        chosen = y.storage.argmax(axis=1) if classes is None else classes[part]
        unit = np.eye(m, dtype=z.dtype)[chosen]
        alpha = backward(z, [a], unit)[0].mean(axis=(1, 2), keepdims=True)
        heats.append(np.maximum((alpha * a.storage).sum(axis=-1), 0))
    heat = resize_images(np.concatenate(heats)[..., np.newaxis], x.shape[1:3])[..., 0]
    top = heat.max(axis=(1, 2), keepdims=True)
    return heat / np.where(top > 0, top, 1)


def _beside(whole: OpenedGraph, maps: SymbolicTensor) -> list[SymbolicTensor]:
    """Values that do not depend on the maps, yet are read where the maps count: of a head that
    reads several layers, say. Each is there once."""
    after, read = {id(maps)}, []
    for call in whole.calls:
        if any(id(t) in after for t in call.inputs):
            after.update(id(t) for t in call.outputs)
            read += call.inputs
    return list({id(t): t for t in read if id(t) not in after}.values())


def _maps_of(model: Model, whole: Any, layer: str | Layer | None) -> Any:
    """The value in the opened graph that holds the layer's maps."""
    calls = whole.calls
    if layer is not None:
        chosen = {id(each) for each in find_layers(model, layer)}
        calls = [call for call in calls if id(call.layer) in chosen]
    values = [t for call in calls for t in call.outputs]
    maps = [t for t in values if t.ndim == 4 and (layer is not None or min(t.shape[1:3]) > 1)]
    if not maps:
        what = "no layer" if layer is None else repr(layer)
        raise ValueError(f"{what} of {model.name!r} gives maps (N, h, w, K)")
    return maps[-1]


guard(globals())
