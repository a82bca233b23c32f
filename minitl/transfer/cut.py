"""Where a model is cut, so that its frozen part need not run again.

What lies below the first layer that learns (or, in training, is random) gives the same for an
image in every epoch: F, which `feature_cache.py` keeps. `find_cut` returns a `Cut`, the two parts
as graphs. A frozen layer above the cut costs its multiply-adds at every step, a value at the cut
its bytes, so the cheapest is a minimum cut of the graph (Ford & Fulkerson 1956): behind a pool or a
Flatten, before a padding, and none at all where nothing would be saved.
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
import warnings
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from minitl.autograd import Tensor
from minitl.layers.base import Call, Layer, SymbolicTensor
from minitl.layers.regularization import view_seeds
from minitl.models.arguments import guard
from minitl.models.graph import Graph
from minitl.models.opened import OpenedGraph, numbers, open_up, work
from minitl.storage.digests import arrays_digest, digest_of

# Multiply-adds that take as long as reading a kept number, 1 ns: 100 to 180 on two cores.
NUMBER = 100
UNKNOWABLE = "cannot be known"


class Cut:
    """A model in two parts: `below` runs once per sample, `above` in every step.

    Attributes:
        kept: the symbolic tensors at the cut, whose values are kept for each sample.
        inputs, sources: which of the model's inputs `above` reads, before `kept`, and `below`.
        views: whether `below` augments, so that it must be told which `Views` to draw.
        shapes, width, dtype, row_bytes: of what is kept of one sample.
        work, saved: multiply-adds per sample of the whole model, and those that `above` saves.
    """

    def __init__(self, whole: OpenedGraph, kept: list[SymbolicTensor], training: bool, views: bool):
        self.whole = whole
        self.above = whole.between([*whole.inputs, *kept], whole.outputs)
        read = {id(t) for t in self.above.inputs}
        self.inputs = [i for i, t in enumerate(whole.inputs) if id(t) in read]
        self.kept = [t for t in kept if id(t) in read]
        self._below = whole.between(whole.inputs, self.kept)
        self.sources = [i for i, t in enumerate(whole.inputs) if t in self._below.inputs]
        place = {id(call): i for i, call in enumerate(whole.calls)}
        calls = [copy.copy(call) for call in self._below.calls]
        for call, told in zip(calls, self._below.calls, strict=True):
            if views and _augments(call, training):  # the same call, drawing with seeds
                call.layer = SeededLayer(told.layer, place[id(told)])
        self.below = OpenedGraph(self._below.inputs, calls, self.kept)
        self.views = any(isinstance(layer, SeededLayer) for layer in self.below.layers)
        self.work = sum(map(work, whole.calls))
        self.saved = self.work - sum(map(work, self.above.calls))
        self.shapes: list[tuple[Any, ...]] = [t.shape[1:] for t in self.kept]
        self.width = sum(map(numbers, self.kept))
        self.dtype = np.dtype(self.kept[0].dtype)
        self.row_bytes = self.width * self.dtype.itemsize
        self._layers = self._below.layers
        self._state = self._look()
        self._architectures = architecture(self._below), architecture(whole)

    def holds(self) -> bool:
        """Whether what was computed below is still right: nothing was written or unfrozen."""
        return self._state == self._look()

    def _look(self) -> list[Any]:
        weights = [[(v.version, v.trainable) for v in layer.weights] for layer in self._layers]
        return [*weights, [(id(layer), layer.trainable) for layer in self._layers]]

    def fits(self, model: Any) -> bool:
        """The same, and whether the model still is what was cut. Takes some milliseconds."""
        if model.as_graph() is None or not self.holds():
            return False
        now = open_up(model, [t.shape for t in self.whole.inputs])
        before, after = ([id(call.layer) for call in g.calls] for g in (self.whole, now))
        return before == after and architecture(now) == self._architectures[1]

    def same_as(self, other: Cut) -> bool:
        """Whether both keep the same values of the same samples."""
        same = self._state == other._state and self._architectures[0] == other._architectures[0]
        return same and (self.shapes, self.views) == (other.shapes, other.views)

    def key(self) -> dict[str, str]:
        """What F depends on beside the images, each under a name that an error can show."""
        return {
            "architecture": self._architectures[0],
            "weights": arrays_digest(v.storage for v in self._below.weights),
            "dtype": str(self.dtype),
        }

    def describe(self) -> str:
        """'block5_pool (7, 7, 512)'"""
        return " and ".join(f"{t.name} {t.shape[1:]}" for t in self.kept)

    def share(self) -> str:
        """'99.8 %', of the forward multiply-adds."""
        return f"{100 * self.saved / self.work:.1f} %"


def find_cut(
    model: Any, training: bool = True, shapes: Sequence[Any] | None = None, views: bool = False
) -> Cut | None:
    """The cheapest cut of the model, or None when there is nothing worth keeping.

    `training`: whether the rest runs in training, where some layers are random. `shapes` of the
    inputs are the model's when None. With `views`, augmentation counts as frozen: each is kept.
    """
    if model.as_graph() is None:
        return None
    whole = open_up(model, shapes)
    frozen, calls = {id(t) for t in whole.inputs}, []
    for call in whole.calls:
        mode = training if call.training is None else call.training
        fixed = call.layer.fixed(mode) or (views and _augments(call, training))
        if fixed and all(id(t) in frozen for t in call.inputs):
            calls.append(call)
            frozen.update(id(t) for t in call.outputs)
    kept = _cheapest(whole, calls)
    cut = Cut(whole, kept, training, views) if kept else None
    return cut if cut is not None and cut.saved else None


def first_random(model: Any) -> str | None:
    """The name of a layer that is random in training and stands before most of what is frozen."""
    measuring, training = find_cut(model, False), find_cut(model, True)
    if measuring is None or (training is not None and 2 * training.saved > measuring.saved):
        return None
    return next((c.layer.name for c in measuring.whole.calls if not c.layer.fixed(True)), None)


def _cheapest(whole: Graph, frozen: list[Call]) -> list[SymbolicTensor]:
    """The frozen values to keep, so that recomputing what is not kept and reading what is kept
    cost least; of equally cheap ways the one that recomputes least.

    The network: from the source to every frozen call an edge with its multiply-adds, from a call
    to each of its values an edge with what reading it costs, from a value to the calls that read
    it edges without a limit, to the sink where the reader is not frozen. Calls on the sink's side
    of the minimum cut are made above, values whose edge is cut are kept.
    """
    inside = {id(call) for call in frozen}
    room: dict[Any, dict[Any, float]] = defaultdict(dict)  # that is left on each edge

    def edge(a: Any, b: Any, capacity: float) -> None:
        room[a][b] = room[a].get(b, 0) + capacity
        room[b].setdefault(a, 0)

    makers: dict[int, tuple[Call, SymbolicTensor]] = {}
    for call in frozen:
        edge("source", id(call), work(call))
        for t in call.outputs:
            edge(id(call), id(t), numbers(t) * NUMBER)
            makers[id(t)] = call, t
    readers = [(t, id(call)) for call in whole.calls for t in call.inputs]
    for t, reader in [*readers, *((t, None) for t in whole.outputs)]:
        if id(t) in makers:
            edge(id(t), reader if reader in inside else "sink", float("inf"))
    while True:
        ways: dict[Any, Any] = {"sink": None}  # {from where it can be reached: the next step}
        queue = deque(["sink"])
        while queue:
            b = queue.popleft()
            for a in room[b]:  # every edge has one back, if without room
                if a not in ways and room[a][b] > 0:
                    ways[a] = b
                    queue.append(a)
        if "source" not in ways:
            return [t for call, t in makers.values() if id(t) in ways and id(call) not in ways]
        path, a = [], "source"
        while a != "sink":
            path.append((a, ways[a]))
            a = ways[a]
        flow = min(room[a][b] for a, b in path)
        for a, b in path:
            room[a][b] -= flow
            room[b][a] += flow


class Views:
    """Which views of which samples: augmentation below a cut takes it for its generator. A seed
    depends on the fit's seed, the view, the sample's number and the layer's place only."""

    def __init__(self, seed: int, view: int, samples: np.ndarray):
        self.seed, self.view, self.samples = seed, view, samples

    def __getitem__(self, which: Any) -> Views:
        """The same views of some of the samples."""
        return Views(self.seed, self.view, self.samples[which])

    def seeds(self, place: int) -> np.ndarray:
        """(N,) uint64."""
        return view_seeds(self.seed, self.view, self.samples, place)

    def tags(self) -> list[bytes]:
        """What tells these views of the samples from others."""
        return [f"{self.seed} {self.view} {int(i)}".encode() for i in self.samples]


def _augments(call: Call, training: bool) -> bool:
    """Whether the call is an augmentation whose views can be kept."""
    mode = training if call.training is None else call.training
    return bool(mode and call.layer.random and hasattr(call.layer, "with_seeds"))


class SeededLayer(Layer):
    """An augmentation layer that draws for each sample what `Views` say, given as `rng`."""

    def __init__(self, layer: Any, place: int):
        super().__init__(name=layer.name, dtype=layer.dtype)
        self.layer, self.place = layer, place

    def call(self, x: Tensor, rng: Any = None) -> Tensor:
        drawn = self.layer.with_seeds(x.storage, rng.seeds(self.place))
        return Tensor(np.asarray(drawn, self.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return self.layer.compute_output_shape(input_shape)


# Settings that layers did not have when the first feature files were written, as they were then:
# these are left out, so that the files outlive them.
LATER = {"dilation_rate": (1, 1), "groups": 1, "noise_shape": None, "zero_output_for_mask": False}


def architecture(graph: Graph) -> str:
    """Hexadecimal digest of layers' settings and connections, without names, weights, freezing."""
    place = {id(t): i for i, t in enumerate(graph.inputs)}
    described: list[Any] = [[t.shape for t in graph.inputs]]
    for call in graph.calls:
        where = [place[id(t)] for t in call.inputs]
        described.append([settings_of(call.layer), where, call.as_list, call.training])
        for t in call.outputs:
            place[id(t)] = len(place)
    unknown: list[str] = []
    outputs = [place[id(t)] for t in graph.outputs]
    return digest_of([described, outputs], unknown) + unknowable(unknown)


def unknowable(reasons: list[str]) -> str:
    """'' without reasons; else text that is never the same, after a warning that says why."""
    if not reasons:
        return ""
    what = "whether it is what it was cannot be known, so what was kept of it is computed anew"
    warnings.warn(f"{reasons[0]}: {what}", UserWarning, stacklevel=2)
    return f" {UNKNOWABLE} {os.urandom(8).hex()}"


def settings_of(layer: Layer) -> Any:
    """A layer's class, its settings, its layers."""
    if (inner := layer.as_graph()) is not None:
        return architecture(open_up(inner))
    settings = {n: getattr(layer, n) for n in _settings(type(layer)) if hasattr(layer, n)}
    plain = {n: v for n, v in settings.items() if not isinstance(v, Layer)}
    plain = {n: v for n, v in plain.items() if n not in LATER or v != LATER[n]}
    return [type(layer), plain, [settings_of(each) for each in layer.sublayers()]]


@functools.cache
def _settings(layer: type[Layer]) -> list[str]:
    """The constructor's arguments that say what the layer computes."""
    given = sorted(inspect.signature(layer.__init__).parameters)
    idle = ("_initializer", "_regularizer")
    return [n for n in given if n not in ("name", "trainable") and not n.endswith(idle)]


guard(globals())
