"""The frozen part of a model: found, and cut off where that is cheapest.

What lies below the first layer that learns (or, in training, is random) gives the same for an
image in every epoch. It need run once only: what it gives is kept, F, and the rest of the model
trains on F.

Where to cut? A frozen layer above the cut runs at every step, and costs its multiply-adds; a value
at the cut is read back at every step, and costs its bytes. The cheapest cut is a minimum cut of
the graph in the sense of Ford & Fulkerson (1956), and it answers by itself what one would want:
behind a pool or a Flatten rather than before, before a padding rather than behind, several values
where branches are frozen, and none at all where nothing would be saved.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from minitl.autograd import Tensor
from minitl.layers.base import Call, Layer, SymbolicTensor
from minitl.layers.randomness import view_seeds
from minitl.models.graph import Graph, numbers, open_up, work
from minitl.storage.digests import arrays_digest

# Multiply-adds that take as long as reading one kept number: 1 ns (gathering rows of F from
# memory), against 100 to 180 multiply-adds a nanosecond of a convolution on two cores.
NUMBER = 100


class Cut:
    """A model in two parts: `below` runs once a sample, `above` in every step.

    Attributes:
        kept: the values at the cut, each of which a sample has.
        inputs: which of the model's inputs `above` reads as well.
        saved, work: multiply-adds a sample that `above` does not make, and of the whole model.
    """

    def __init__(self, whole: Graph, kept: list[SymbolicTensor], training: bool, views: bool):
        self.training, self.kept, self.whole = training, kept, whole
        self.above = whole.between([*whole.inputs, *kept], whole.outputs)
        read = {id(t) for t in self.above.inputs}
        self.inputs = [i for i, t in enumerate(whole.inputs) if id(t) in read]
        # The order in which `above` is given its values: inputs first, as `between` keeps it.
        self.kept = [t for t in kept if id(t) in read]
        self._below = whole.between(whole.inputs, self.kept)
        self.sources = [i for i, t in enumerate(whole.inputs) if t in self._below.inputs]
        place = {id(call): i for i, call in enumerate(whole.calls)}
        self.views = views and any(_drawn(call, training, True) for call in self._below.calls)
        calls = [
            _seeded(call, place[id(call)], training) if self.views else call
            for call in self._below.calls
        ]
        self.below = Graph(self._below.inputs, calls, self.kept)
        above = {id(call) for call in self.above.calls}
        self.work = sum(map(work, whole.calls))
        self.saved = sum(work(call) for call in whole.calls if id(call) not in above)
        self.layers = self._below.layers
        self._state = self._look()
        self._described = whole.architecture()

    @property
    def shapes(self) -> list[tuple[Any, ...]]:
        """Of each kept value, without the axis of samples."""
        return [t.shape[1:] for t in self.kept]

    @property
    def width(self) -> int:
        """D: the numbers that are kept of one sample."""
        return sum(map(numbers, self.kept))

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.kept[0].dtype)

    def holds(self) -> bool:
        """Whether what was computed below is still right: nothing was written or unfrozen."""
        return self._state == self._look()

    def fits(self, model: Any) -> bool:
        """The same, and whether the model still is what was cut. Takes some milliseconds."""
        if model.as_graph() is None or not self.holds():
            return False
        whole = open_up(model, [t.shape for t in self.whole.inputs])
        layers = [id(call.layer) for call in self.whole.calls]
        return [
            id(call.layer) for call in whole.calls
        ] == layers and whole.architecture() == self._described

    def _look(self) -> list[Any]:
        return [
            (layer.trainable, [(v.version, v.trainable) for v in layer.weights])
            for layer in self.layers
        ]

    def same_as(self, other: Cut) -> bool:
        """Whether both keep the same values of the same samples."""
        return (
            [id(layer) for layer in self.layers] == [id(layer) for layer in other.layers]
            and self._state == other._state
            and self.views == other.views
            and self.shapes == other.shapes
            and self._below.architecture() == other._below.architecture()
        )

    def key(self) -> dict[str, str]:
        """What F depends on beside the images, each under a name that an error can show."""
        return {
            "architecture": self._below.architecture(),
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
    model: Any,
    training: bool = True,
    shapes: Sequence[Any] | None = None,
    views: bool = False,
) -> Cut | None:
    """The cheapest cut of the model, or None when there is nothing worth keeping.

    Args:
        training: whether the rest runs in training, where some layers are random.
        shapes: of the inputs; those of the model when None.
        views: whether augmentation counts as frozen, because each of its views is kept.
    """
    if model.as_graph() is None:
        return None
    whole = open_up(model, shapes)
    frozen = {id(t) for t in whole.inputs}
    calls = []
    for call in whole.calls:
        mode = training if call.training is None else call.training
        if all(id(t) in frozen for t in call.inputs) and (
            call.layer.fixed(mode) or _drawn(call, training, views)
        ):
            calls.append(call)
            frozen.update(id(t) for t in call.outputs)
    kept = _cheapest(whole, calls)
    if not kept:
        return None
    cut = Cut(whole, kept, training, views)
    return cut if cut.saved else None


def first_random(model: Any) -> str | None:
    """The name of a layer that is random in training and stands before most of what is frozen."""
    if model.as_graph() is None:
        return None
    measuring, training = find_cut(model, False), find_cut(model, True)
    if measuring is None or (training is not None and 2 * training.saved > measuring.saved):
        return None
    drawn = [n for n in measuring.whole.calls if not n.layer.fixed(True)]
    return drawn[0].layer.name if drawn else None


def _cheapest(whole: Graph, frozen: list[Call]) -> list[SymbolicTensor]:
    """The frozen values to keep, so that recomputing what is not kept and reading what is kept
    cost least; of equally cheap ways the one that recomputes least.

    The network: from the source to every frozen call an edge with its multiply-adds, from a call
    to each of its values an edge with what reading it costs, from a value to the calls that read
    it edges without a limit, and from there to the sink where the reader is not frozen. Calls on
    the sink's side of the minimum cut are made above, values whose edge is cut are kept.
    """
    inside = {id(call) for call in frozen}
    room: dict[Any, dict[Any, float]] = {"source": {}, "sink": {}}

    def edge(a: Any, b: Any, capacity: float) -> None:
        room.setdefault(a, {})[b] = room.setdefault(a, {}).get(b, 0) + capacity
        room.setdefault(b, {}).setdefault(a, 0)

    makers: dict[int, tuple[Call, SymbolicTensor]] = {}
    for call in frozen:
        edge("source", id(call), work(call))
        for t in call.outputs:
            edge(id(call), id(t), numbers(t) * NUMBER)
            makers[id(t)] = call, t
    for call in whole.calls:
        for t in call.inputs:
            if id(t) in makers:
                edge(id(t), id(call) if id(call) in inside else "sink", float("inf"))
    for t in whole.outputs:
        if id(t) in makers:
            edge(id(t), "sink", float("inf"))
    while path := _path(room):
        flow = min(room[a][b] for a, b in path)
        for a, b in path:
            room[a][b] -= flow
            room[b][a] += flow
    behind, queue = {"sink"}, deque(["sink"])  # from where the sink can still be reached
    while queue:
        b = queue.popleft()
        for a in room[b]:
            if a not in behind and room[a][b] > 0:
                behind.add(a)
                queue.append(a)
    return [t for call, t in makers.values() if id(t) in behind and id(call) not in behind]


def _path(room: dict[Any, dict[Any, float]]) -> list[tuple[Any, Any]]:
    """The shortest way from the source to the sink along edges that have room."""
    came: dict[Any, Any] = {"source": None}
    queue = deque(["source"])
    while queue:
        a = queue.popleft()
        for b, left in room[a].items():
            if left > 0 and b not in came:
                came[b] = a
                queue.append(b)
    if "sink" not in came:
        return []
    path, b = [], "sink"
    while came[b] is not None:
        path.append((came[b], b))
        b = came[b]
    return path


# --- Augmentation as a part of what is kept -------------------------------------------------------


class Views:
    """Which views of which samples: random layers take it for a generator, each its own seeds.

    A seed depends on the fit's seed, the view, the sample's number and the layer's place only.
    """

    def __init__(self, seed: int, view: int, samples: np.ndarray):
        self.seed, self.view, self.samples = seed, view, samples

    def seeds(self, place: int) -> np.ndarray:
        """(N,) uint64."""
        return view_seeds(self.seed, self.view, self.samples, place)

    def tags(self) -> list[bytes]:
        """What tells these views of the samples from others."""
        return [f"{self.seed} {self.view} {int(i)}".encode() for i in self.samples]


def _drawn(call: Call, training: bool, views: bool) -> bool:
    """Whether the call is an augmentation whose views can be kept."""
    mode = training if call.training is None else call.training
    return bool(views and mode and call.layer.random and hasattr(call.layer, "with_seeds"))


def _seeded(call: Call, place: int, training: bool) -> Call:
    """The same call, told its seeds; other calls as they are."""
    if not _drawn(call, training, True):
        return call
    layer: Any = call.layer

    def draw(x: Any, training: bool, rng: Views) -> Tensor:
        x = layer.as_input(x)
        return Tensor(np.asarray(layer.with_seeds(x.storage, rng.seeds(place)), layer.dtype))

    drawing: Any = _Drawing(layer, draw)
    seeded = Call(drawing, call.inputs, call.training, call.as_list)
    seeded.outputs = call.outputs
    return seeded


class _Drawing:
    """A random layer that draws with given seeds."""

    def __init__(self, layer: Layer, draw: Any):
        self.layer, self.draw = layer, draw

    def __call__(self, x: Any, training: bool, rng: Any) -> Tensor:
        return self.draw(x, training, rng)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)
