"""A graph of calls: found by walking back from its outputs, and run in order.

Every model is run by `Graph.run`: a dictionary from symbolic tensor to value is filled call by
call, and a value is dropped as soon as its last reader has read it. `graph_between` finds the
calls that lead from some symbolic tensors to others. A `Model` is a layer around a Graph.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from minitl.autograd import Tensor, as_tensor
from minitl.kernels import current_kernels
from minitl.layers.base import Call, Layer, SymbolicTensor, listed
from minitl.naming import part


class Graph:
    """Calls between `inputs` and `outputs`, each after those whose outputs it reads.

    `readers` counts who reads a symbolic tensor's value, by its id; the graph's end reads outputs.
    """

    def __init__(
        self,
        inputs: Sequence[SymbolicTensor],
        calls: Sequence[Call],
        outputs: Sequence[SymbolicTensor],
    ):
        self.inputs, self.calls, self.outputs = list(inputs), list(calls), list(outputs)
        self.readers = Counter(id(t) for call in self.calls for t in call.inputs)
        self.readers.update(id(t) for t in self.outputs)
        self.together: Any = None  # which calls `models/fusing.py` puts together
        self._planned: tuple[Any, list[Any]] = (None, [])  # steps, and what `_plan` made of them
        self._largest_steps: dict[tuple[Any, ...], int] = {}  # found so far

    def steps(self) -> Sequence[Any]:
        """The calls, or what runs in their place: some at once. (`models/chains.py` says which.)"""
        return self.calls if current_kernels() == "reference" else part("chains").chained(self)

    def _plan(self) -> list[tuple[Any, list[tuple[int, bool]], list[int | None]]]:
        """For each step: the id of each input, with whether it is read for the last time; the id
        of each output, or None if nobody reads it. Made once."""
        steps, (planned, plan) = self.steps(), self._planned
        if planned is not steps:
            inputs, plan = [t for step in steps for t in step.inputs], []
            unread = Counter(id(t) for t in (*inputs, *self.outputs))
            for step in steps:
                reads = []
                for t in step.inputs:
                    unread[id(t)] -= 1
                    reads.append((id(t), not unread[id(t)]))
                plan.append((step, reads, [id(t) if unread[id(t)] else None for t in step.outputs]))
            self._planned = steps, plan
        return plan

    def run(
        self, given: Sequence[Any], training: bool | None = False, rng: Any = None
    ) -> list[Tensor]:
        """The outputs for these inputs; `training` and `rng` are handed to every layer."""
        pairs = zip(self.inputs, given, strict=True)
        values: dict[int | None, Any] = {id(t): as_tensor(value, t.dtype) for t, value in pairs}
        for call, reads, writes in self._plan():
            arguments = [values.pop(key) if last else values[key] for key, last in reads]
            mode = training if call.training is None else call.training
            # A name for the result would keep it alive while the next layer runs.
            values |= zip(writes, listed(call.run(arguments, mode, rng)), strict=True)
            values.pop(None, None)
        return [values[id(t)] for t in self.outputs]

    def shapes(self, input_shapes: Sequence[Any]) -> dict[int, Any]:
        """The shape of every symbolic tensor, by id, for inputs of these shapes."""
        shapes: dict[int, Any] = {}
        for tensor, shape in zip(self.inputs, input_shapes, strict=True):
            shapes[id(tensor)] = tuple(shape)
        for call in self.calls:
            given = call.shaped([shapes[id(t)] for t in call.inputs])
            found = call.layer.compute_output_shape(given)
            shapes.update((id(t), s) for t, s in zip(call.outputs, listed(found), strict=True))
        return shapes

    def largest_step(self, input_shapes: Sequence[Any] | None = None) -> int:
        """The numbers that one call reads and writes, for one sample, where it is most."""
        of_inputs = input_shapes or [t.shape for t in self.inputs]
        sample = tuple(tuple(shape[1:]) for shape in of_inputs)
        if sample not in self._largest_steps:
            shapes = self.shapes(of_inputs)
            given = ((call, [shapes[id(t)] for t in call.inputs]) for call in self.calls)
            steps = [c.layer.largest_step(c.shaped(s) if c.form else s) for c, s in given]
            self._largest_steps[sample] = max(steps, default=1)
        return self._largest_steps[sample]


def graph_between(
    inputs: Sequence[SymbolicTensor], starts: Sequence[Layer], outputs: Sequence[SymbolicTensor]
) -> tuple[Graph, list[Layer]]:
    """The graph between symbolic tensors, and its layers, those farthest from the outputs first.

    Args:
        inputs: where the graph starts.
        starts: for each of them the InputLayer that stands there.
        outputs: where the walk back begins.

    Raises ValueError where an output depends on an input that is not given, or none on a given one.
    """
    given = {id(t): start for t, start in zip(inputs, starts, strict=True)}
    order: list[Call] = []
    met: dict[int, Layer] = {}  # in the order in which the walk meets them
    done: set[int] = set()
    stack = [(t, False) for t in reversed(outputs)]
    while stack:
        tensor, inputs_done = stack.pop()
        call = tensor.call
        if id(tensor) in given:
            met.setdefault(id(given[id(tensor)]), given[id(tensor)])
        elif inputs_done:
            done.add(id(call))
            order.append(call)
        elif id(call) not in done:
            if not call.inputs:
                missing = f"graph disconnected: an output depends on the input {call.layer.name!r}"
                there = f"which is not among the model's inputs {[t.name for t in inputs]}"
                raise ValueError(f"{missing}, {there}")
            met.setdefault(id(call.layer), call.layer)
            stack.append((tensor, True))
            stack.extend((t, False) for t in reversed(call.inputs))
    for t in inputs:
        if id(given[id(t)]) not in met:
            raise ValueError(f"graph disconnected: no output depends on the input {t.name!r}")
    depth = _depths(given, order)
    layers = sorted(met.values(), key=lambda layer: -depth.get(id(layer), 0))
    return Graph(inputs, order, outputs), layers


def _depths(given: dict[int, Layer], order: list[Call]) -> dict[int, int]:
    """How far each layer is from the outputs, by id: what Keras orders weight files by.

    A call's depth is the longest way from it to an output; a layer's is that of its deepest call.
    """
    depth: dict[int, int] = {}
    of_layer: dict[int, int] = {}
    makers = {id(t): call for call in order for t in call.outputs}
    for call in reversed(order):
        d = max(depth.get(id(call), 0), of_layer.get(id(call.layer), 0))
        depth[id(call)] = of_layer[id(call.layer)] = d
        for tensor in call.inputs:
            before = given[id(tensor)] if id(tensor) in given else makers[id(tensor)]
            known = of_layer if id(tensor) in given else depth
            known[id(before)] = max(known.get(id(before), 0), d + 1)
    return of_layer
