"""What runs without Python between: steps in a row whose kernels are noted and called again.

Python takes 30 to 100 us from one kernel to the next, more the larger the arrays are, for by then
its own data have left the caches: a fifth of MobileNetV2's time for one image, a tenth of that of
ResNet50 for eight. So where the same comes for the second time, the compiled kernels and what they
are called with are noted (`memory.Routine`), on memory of their own; and from then on new numbers
are put into the same places and the kernels called in a row, until a weight is written, or shapes,
kernels or threads are others. Only one routine is kept for a chain, and its arrays may take 128 MB:
who predicts meanwhile in another thread goes step by step.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from minitl import kernels
from minitl.autograd import Tensor, recording
from minitl.kernels.machine import memory, team, threads
from minitl.layers.base import Layer, around
from minitl.layers.convolution import MaxPooling2D
from minitl.models.fusing import Step, steps
from minitl.models.graph import Graph


class Chain:
    """Steps in a row, run as one."""

    training = None  # each call has its own
    fewest, most = 8, 2**27  # steps; bytes that all of their arrays may take

    def __init__(self, steps: list[Step], read: Counter[int]):
        inside = Counter(id(t) for step in steps for t in step.inputs)
        made = {id(t): t for step in steps for t in step.outputs}
        needed = {id(t): t for step in steps for t in step.inputs if id(t) not in made}
        self.inputs, self.steps = [*needed.values()], steps
        self.outputs = [made[key] for key in (read - inside).keys() & made.keys()]
        self.graph = Graph(self.inputs, [], self.outputs)
        self.graph.together, _chained[self.graph] = steps, (steps, steps)
        self.last: Any = None  # the state in which it ran
        self.noted: Any = None  # a state, the routine if there can be one, its inputs and outputs
        self.at_work = threading.Lock()

    def run(self, arguments: list[Any], training: bool | None, rng: Any) -> Any:
        """By what was noted, or step by step."""
        told = around.get()[0] if training is None else training
        weights = [v for step in self.steps for v in step.weights()]
        if told or recording(*arguments, *weights) or not self.at_work.acquire(blocking=False):
            return self.graph.run(arguments, training, rng)
        try:
            versions, shapes = [v.version for v in weights], [(t.shape, t.dtype) for t in arguments]
            state = Layer.times_set, kernels.chosen.get(), threads.thread_count(), shapes, versions
            again, self.last = state == self.last, state
            if self.noted is None or self.noted[0] != state:
                self.noted = (state, *self._written(arguments)) if again else None
            elif self.noted[1] is not None:
                for a, t in zip(self.noted[2], arguments, strict=True):
                    np.copyto(a, t.storage)
                team.again(self.noted[1].calls)
            if self.noted is not None and self.noted[1] is not None:
                return [Tensor(kernels.copy(a)) for a in self.noted[3]]
        finally:
            self.at_work.release()
        return self.graph.run(arguments, training, rng)

    def _written(self, arguments: list[Any]) -> Any:
        """The routine, or None; arrays for the inputs, and those with the outputs."""
        with memory.Routine() as routine:
            copies = [kernels.copy(t.storage) for t in arguments]
            found = self.graph.run([*map(Tensor, copies)])
            given = [routine.fixed(a) for a in copies]
            results = [routine.fixed(t.storage) for t in found]
        del copies, found
        small = sum(map(len, routine.blocks.waiting)) <= self.most
        return (routine, given, results) if routine.whole and small else (None, [], [])


_chained = WeakKeyDictionary[Graph, tuple[Any, list[Any]]]()


def chained(graph: Graph) -> list[Any]:
    """`steps`, with a `Chain` in the place of many in a row."""
    found = steps(graph)
    if graph not in _chained or _chained[graph][0] is not found:
        read, parts = Counter(id(t) for step in found for t in step.inputs), list[Any]()
        read.update(id(t) for t in graph.outputs)
        for fits, some in itertools.groupby(found, _fits):
            row = list(some)
            parts += [Chain(row, read)] if fits and len(row) >= Chain.fewest else row
        _chained[graph] = found, parts
    return _chained[graph][1]


def _fits(step: Any) -> bool:
    """Whether it may be part of a `Chain`."""
    return type(step) is Step and type(step.calls[-1].layer) is not MaxPooling2D
