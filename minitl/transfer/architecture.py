"""A digest of what a model computes, whatever its weights are: whether two parts are the same.

Layers' settings and how they are connected count; names, and what is frozen, do not. F that was
computed by one architecture is never taken for F of another (`transfer/feature_file.py`).
"""

import functools
import inspect
from typing import Any

from minitl.layers.base import Layer
from minitl.models.graph import Graph
from minitl.models.opened import open_up
from minitl.storage.digests import digest_of


def architecture(graph: Graph) -> str:
    """Hexadecimal digest of the graph's calls: their layers' settings and their connections."""
    place = {id(t): i for i, t in enumerate(graph.inputs)}
    described: list[Any] = [[t.shape for t in graph.inputs]]
    for call in graph.calls:
        where = [place[id(t)] for t in call.inputs]
        described.append([settings_of(call.layer), where, call.as_list, call.training])
        for t in call.outputs:
            place[id(t)] = len(place)
    return digest_of([described, [place[id(t)] for t in graph.outputs]])


def settings_of(layer: Layer) -> Any:
    """What a layer computes, except for its weights: its class, its settings, its layers."""
    inner = layer.as_graph()
    if inner is not None:
        return architecture(open_up(inner))
    settings = {n: getattr(layer, n) for n in _settings(type(layer)) if hasattr(layer, n)}
    plain = {n: v for n, v in settings.items() if not isinstance(v, Layer)}
    return [type(layer), plain, [settings_of(each) for each in layer.sublayers()]]


@functools.cache
def _settings(layer: type[Layer]) -> list[str]:
    """The constructor's arguments that say what the layer computes."""
    given = sorted(inspect.signature(layer.__init__).parameters)
    idle = ("_initializer", "_regularizer")
    return [n for n in given if n not in ("name", "trainable") and not n.endswith(idle)]
