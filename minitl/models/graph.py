"""A graph of calls: running it, and taking it apart.

`run_calls` is the loop that runs every model: a dictionary from symbolic tensor to value, filled
in order. A `Graph` is such a list of calls with nested models opened up, so that it can be cut
anywhere, also in the middle of a base that is one layer of a larger model.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from minitl.autograd import Tensor, Variable, as_tensor, recording
from minitl.layers.base import Call, Layer, SymbolicTensor
from minitl.layers.convolution import Conv2D
from minitl.storage.digests import digest_of


def find_pools(calls: Sequence[Call], readers: Counter[int]) -> dict[int, Call]:
    """The pool after each convolution that can do the pooling itself: by the latter's call."""
    made_by = {id(t): call for call in calls for t in call.outputs}
    found = {}
    for call in calls:
        before = made_by.get(id(call.inputs[0])) if len(call.inputs) == 1 else None
        if before is None or not isinstance(before.layer, Conv2D) or call.as_list:
            continue
        if readers[id(call.inputs[0])] == 1 and call.layer.fused_after(before.layer):
            found[id(before)] = call
    return found


def run_calls(
    calls: Iterable[Call],
    readers: Counter[int],
    pools: dict[int, Call],
    values: dict[int, Any],
    training: bool | None,
    rng: Any,
) -> None:
    """Call the layers in order. `values` has the inputs, by id of their symbolic tensor, and in
    the end the outputs; a value is dropped as soon as the last of its `readers` has read it."""
    unread = readers.copy()
    pooled: set[int] = set()  # calls of pools that were computed with the convolution before
    for call in calls:
        if id(call) in pooled:
            continue
        arguments = []
        for tensor in call.inputs:
            unread[id(tensor)] -= 1
            last = unread[id(tensor)] == 0
            arguments.append(values.pop(id(tensor)) if last else values[id(tensor)])
        pool = pools.get(id(call))
        convolution: Any = call.layer
        if pool and not recording(arguments[0], *convolution.trainable_weights):
            values[id(pool.outputs[0])] = convolution.call_pooled(arguments.pop())
            pooled.add(id(pool))
            continue
        mode = training if call.training is None else call.training
        # No name here for what the layer returns: it would hold what the next one is to drop.
        values |= _still_read(
            call.layer(arguments if call.as_list else arguments.pop(), training=mode, rng=rng),
            call.outputs,
            unread,
        )


def _still_read(result: Any, outputs: Sequence[Any], unread: Counter[int]) -> dict[int, Any]:
    """What a layer returned, by id of its symbolic tensors: those that somebody will read."""
    results = result if isinstance(result, list) else [result]
    return {id(t): value for t, value in zip(outputs, results, strict=True) if unread[id(t)]}


class Graph:
    """Calls between `inputs` and `outputs`, each after those whose outputs it reads."""

    def __init__(
        self,
        inputs: Sequence[SymbolicTensor],
        calls: Sequence[Call],
        outputs: Sequence[SymbolicTensor],
    ):
        self.inputs, self.calls, self.outputs = list(inputs), list(calls), list(outputs)
        self.readers = Counter(id(t) for call in self.calls for t in call.inputs)
        self.readers.update(id(t) for t in self.outputs)
        self._pools = find_pools(self.calls, self.readers)

    def run(
        self, given: Sequence[Any], training: bool | None = False, rng: Any = None
    ) -> list[Tensor]:
        """The outputs for these inputs."""
        values: dict[int, Any] = {}
        for tensor, value in zip(self.inputs, given, strict=True):
            values[id(tensor)] = as_tensor(value, tensor.dtype)
        run_calls(self.calls, self.readers, self._pools, values, training, rng)
        return [values[id(t)] for t in self.outputs]

    def between(self, inputs: Sequence[SymbolicTensor], outputs: Sequence[SymbolicTensor]) -> Graph:
        """The part that leads from `inputs` to `outputs`; of the inputs only those it reads."""
        given = {id(t) for t in inputs}
        makers = {id(t): call for call in self.calls for t in call.outputs}
        needed: set[int] = set()
        read: set[int] = set()
        stack = list(outputs)
        while stack:
            tensor = stack.pop()
            read.add(id(tensor))
            call = makers.get(id(tensor))
            if id(tensor) in given or call is None or id(call) in needed:
                continue
            needed.add(id(call))
            stack += call.inputs
        calls = [call for call in self.calls if id(call) in needed]
        return Graph([t for t in inputs if id(t) in read], calls, outputs)

    @property
    def layers(self) -> list[Layer]:
        """Each layer once, in the order of its first call."""
        return list({id(call.layer): call.layer for call in self.calls}.values())

    @property
    def weights(self) -> list[Variable]:
        """Each weight once, in the order of the layers."""
        return list({id(v): v for layer in self.layers for v in layer.weights}.values())

    def largest_step(self, input_shapes: Any = None) -> int:
        """The numbers that one call reads and writes, for one sample, where it is most."""
        steps = [call.layer.largest_step([t.shape for t in call.inputs]) for call in self.calls]
        return max(steps, default=1)

    def architecture(self) -> str:
        """A digest of what is computed, except for the weights' values: the layers' settings and
        how they are connected. Names, and what is frozen, do not count."""
        place = {id(t): i for i, t in enumerate(self.inputs)}
        described: list[Any] = [[t.shape for t in self.inputs]]
        for call in self.calls:
            where = [place[id(t)] for t in call.inputs]
            described.append([settings_of(call.layer), where, call.as_list, call.training])
            for t in call.outputs:
                place[id(t)] = len(place)
        return digest_of([described, [place[id(t)] for t in self.outputs]])


def open_up(model: Any, input_shapes: Sequence[Any] | None = None) -> Graph:
    """The model's graph, nested models opened up, with its shapes for inputs of `input_shapes`.

    The symbolic tensors and calls are new ones: the layers know nothing of them.
    """
    calls: list[Call] = []

    def repeat(
        layer: Layer, inputs: list[SymbolicTensor], as_list: bool, training: bool | None
    ) -> list[SymbolicTensor]:
        inner = layer.as_graph()
        if inner is not None:
            return enter(inner, inputs, training)
        call = Call(layer, inputs, training, as_list)
        shapes = [t.shape for t in inputs]
        found = layer.compute_output_shape(shapes if as_list else shapes[0])
        call.outputs += [
            SymbolicTensor(tuple(shape), layer.dtype, call, i)
            for i, shape in enumerate(found if isinstance(found, list) else [found])
        ]
        calls.append(call)
        return call.outputs

    def enter(
        inner: Any, inputs: list[SymbolicTensor], training: bool | None
    ) -> list[SymbolicTensor]:
        tensors = {}
        for symbolic, start, given in zip(inner.inputs, inner.input_layers, inputs, strict=True):
            tensors[id(symbolic)] = repeat(start, [given], False, None)[0]
        for call in inner.graph.calls:
            made = repeat(
                call.layer,
                [tensors[id(t)] for t in call.inputs],
                call.as_list,
                training if call.training is None else call.training,
            )
            tensors.update((id(t), s) for t, s in zip(call.outputs, made, strict=True))
        return [tensors[id(t)] for t in inner.outputs]

    roots = []
    shapes = input_shapes or [t.shape for t in model.inputs]
    for start, shape in zip(model.input_layers, shapes, strict=True):
        call = Call(start, [])
        call.outputs.append(SymbolicTensor((None, *shape[1:]), start.dtype, call))
        roots += call.outputs
    outputs = enter(model, roots, None)
    return Graph(roots, calls, outputs)


def settings_of(layer: Layer) -> Any:
    """What a layer computes, except for its weights: its class, its settings, its layers."""
    inner = layer.as_graph()
    if inner is not None:
        return open_up(inner).architecture()
    settings = {n: getattr(layer, n) for n in _settings(type(layer)) if hasattr(layer, n)}
    plain = {n: v for n, v in settings.items() if not isinstance(v, Layer)}
    return [type(layer), plain, [settings_of(each) for each in layer.sublayers()]]


@functools.cache
def _settings(layer: type[Layer]) -> list[str]:
    """The constructor's arguments that say what the layer computes."""
    given = sorted(inspect.signature(layer.__init__).parameters)
    idle = ("_initializer", "_regularizer")
    return [n for n in given if n not in ("name", "trainable") and not n.endswith(idle)]


def numbers(tensor: SymbolicTensor) -> int:
    """How many numbers one sample of the tensor has; sizes that are not known count 1."""
    return math.prod(n or 1 for n in tensor.shape[1:])


def multiply_adds(call: Call) -> int:
    """Multiply-adds of the call for one sample, as far as its layer says."""
    shapes = [t.shape for t in call.inputs]
    return call.layer.multiply_adds(shapes if call.as_list else shapes[0])


def work(call: Call) -> int:
    """Multiply-adds of the call for one sample; of a layer of the user's that does not say, one
    for each of its weights."""
    found = multiply_adds(call)
    if not found and type(call.layer).multiply_adds is Layer.multiply_adds:
        return call.layer.count_params()
    return found
