"""From a frozen base to a model that ends in the best head there is for what the base sees.

A *block* is what one layer of the base gives, pooled over its places: "block5_pool avg" holds a
number per channel. `candidates_for` says which blocks are worth trying side by side;
`block_extractor` computes all of them in one pass of the base, and `in_blocks` takes F apart again.
What `choosing.py` chose and solved on them becomes a model again with `with_head`: base, poolings,
Concatenate and a Dense layer with softmax, as Keras has them, and as any of its readers opens.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from minitl.layers import Concatenate, Dense, Flatten, GlobalAveragePooling2D, GlobalMaxPooling2D
from minitl.models import Model
from minitl.models.arguments import guard
from minitl.transfer.choosing import Weights
from minitl.transfer.optimum import Head

OF_B0 = ("block4a_expand_activation", "block6a_expand_activation", "top_activation")
# From below upwards: edges and textures, parts, objects.
LEVELS = {
    "vgg16": ("block3_pool", "block4_pool", "block5_pool"),
    "vgg19": ("block3_pool", "block4_pool", "block5_pool"),
    "resnet50": ("conv3_block4_out", "conv4_block6_out", "conv5_block3_out"),
    "mobilenet_v2": ("block_6_expand_relu", "block_13_expand_relu", "out_relu"),
    "efficientnet_b0": OF_B0,
}
POOLS = {"avg": GlobalAveragePooling2D, "max": GlobalMaxPooling2D, "flat": Flatten}
POOLING = ("auto", "avg", "max", "avg+max", "flat")


def candidates_for(
    base: str, layers: Sequence[str] = (), pooling: str = "auto"
) -> dict[str, Weights]:
    """{name: {block: weight}} for a base by its name, or for `layers` of it.

    What stands lower counts for less in some: photographs of things are told apart at the top,
    textures (cells, cracks) below it. `pooling` is one of POOLING; with 'auto' several are tried.
    """
    low, middle, top = LEVELS[base]
    poolings = ("avg", "max", "avg+max") if pooling == "auto" else (pooling,)
    if layers or pooling == "flat":
        chosen = layers or (top,)
        return {
            f"{'+'.join(chosen)} {how}": {f"{at} {p}": 1.0 for at in chosen for p in how.split("+")}
            for how in poolings
        }
    pair = {f"{top} avg": 1.0, f"{top} max": 1.0}
    below = {f"{low} avg": 0.3, f"{middle} avg": 0.3, f"{middle} max": 0.3}
    textures = dict.fromkeys(below, 1.0) | dict.fromkeys(pair, 0.3)
    every: dict[str, Weights] = {
        top: {f"{top} avg": 1.0},
        f"{top}, two poolings": pair,
        f"{top}, a little of {middle} and {low}": below | pair,
        f"{top} and {middle}": {f"{middle} avg": 1.0} | pair,
        f"{middle} and {low}, a little of {top}": textures,
    }
    if pooling in ("avg", "max"):
        every = {
            name: found
            for name, weights in every.items()
            if (found := {b: w for b, w in weights.items() if b.endswith(pooling)})
        }
    return every


def blocks_of(candidates: Iterable[Weights]) -> list[str]:
    """The blocks that candidates are made of, each once."""
    return list(dict.fromkeys(block for weights in candidates for block in weights))


def block_extractor(base: Model, blocks: Sequence[str]) -> Model:
    """The model from the base's inputs to F (N, D), the blocks side by side.

    Raises ValueError for a layer that the base does not have, showing the nearest name.
    """
    return Model(base.input, _joined(base, blocks), name="features")


def in_blocks(f: np.ndarray, base: Model, blocks: Sequence[str]) -> dict[str, np.ndarray]:
    """{block: its columns (N, D_b)} of F (N, D)."""
    ends = np.cumsum([_pooled(base, block).shape[1] for block in blocks])
    return dict(zip(blocks, np.split(f, ends[:-1], axis=1), strict=True))


def with_head(base: Model, blocks: Sequence[str], head: Head) -> Model:
    """The model from the base's inputs to probabilities (N, m): W and b of `head` are those of a
    Dense layer on these blocks."""
    dense = Dense(len(head.bias), activation="softmax", name="head")
    model = Model(base.input, dense(_joined(base, blocks)), name="trained")
    dense.set_weights([head.kernel, head.bias])
    return model


def with_features(model: Model) -> Model:
    """The model with two outputs: F (N, D), what its last layer with weights is given, and what it
    gives itself. Raises ValueError where F would be no rows."""
    calls = [call for call in model.graph.calls if call.layer.weights and call.inputs[0].ndim == 2]
    if not calls:
        raise ValueError(f"{model.name!r} has no layer on features (N, D): there is no F to show")
    return Model(model.input, [calls[-1].inputs[0], model.output], name=model.name)


def _pooled(base: Model, block: str) -> Any:
    layer, _, pooling = block.rpartition(" ")
    return POOLS[pooling](name=f"{layer}_{pooling}")(base.get_layer(layer).output)


def _joined(base: Model, blocks: Sequence[str]) -> Any:
    pooled = [_pooled(base, block) for block in blocks]
    return pooled[0] if len(pooled) == 1 else Concatenate(name="F")(pooled)


guard(globals())
