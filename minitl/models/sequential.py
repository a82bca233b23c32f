"""`Sequential`: a Model whose graph is a chain of layers."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np

from minitl.layers.base import Layer, SymbolicTensor, ticks
from minitl.layers.core import Input, InputLayer
from minitl.models.batches import check_shape
from minitl.models.model import Model
from minitl.naming import refuse_foreign, told, unique_name


class Sequential(Model):
    """A chain of layers.

    Args:
        layers: in order. Shapes are known at once if the first is an Input, else from first data.
    """

    def __init__(
        self, layers: Sequence[Any] | None = None, trainable: bool = True, name: str | None = None
    ):
        Layer.__init__(self, name=name, trainable=trainable)
        self.start_empty()
        self._chain: list[Layer] = []
        self._path: list[SymbolicTensor] = []  # the input, then the output of each layer
        for layer in layers or []:
            self._append(layer)
        self._connect_chain()

    def add(self, layer: Any) -> None:
        """Append a layer."""
        self._append(layer)
        self._connect_chain()

    def _append(self, layer: Any) -> None:
        if isinstance(layer, SymbolicTensor):
            layer = layer.call.layer
        if not isinstance(layer, Layer):
            refuse_foreign(layer, "a layer of a Sequential must be a Layer")
            raise TypeError(f"a layer of a Sequential must be a Layer, got {layer!r}")
        if isinstance(layer, InputLayer):
            if self._chain or self._path:
                raise ValueError("an Input comes first in a Sequential")
            self._path = list(layer.symbolic_calls[0].outputs)
            return
        if any(layer.name == other.name for other in self._chain):
            raise ValueError(f"the Sequential already has a layer named {layer.name!r}")
        if not self._path and not self._chain and isinstance(layer, Model) and layer.inputs:
            self._path = [Input(layer.input_shape[1:], dtype=layer.inputs[0].dtype)]
        elif not self._path and not self._chain and (shape := vars(layer).get("first_shape")):
            self._path = [Input(shape, dtype=layer.dtype)]
        if self._path:
            self._path.append(layer(self._path[-1]))
        self._chain.append(layer)

    def pop(self) -> Layer:
        """Remove the last layer and return it."""
        if not self._chain:
            raise ValueError("there are no layers to remove")
        layer = self._chain.pop()
        if self._path:
            self._path.pop()
        self._connect_chain()
        return layer

    def _connect_chain(self) -> None:
        if self._path and self._chain:
            self.connect_graph(self._path[0], self._path[-1])
            # Keras makes a functional model inside at this point; it takes one of the names.
            unique_name("functional")
        else:  # no shapes yet
            self.inputs, self.outputs = [], []
            self.all_layers = list(self._chain)

    def build(self, input_shape: Any = None) -> None:
        """Fix the input's shape (batch axis first, may be None) and make the weights."""
        if self._path:
            return
        if input_shape is None:
            raise ValueError(f"{self.name!r} needs an input shape: start it with an Input")
        path = [Input(tuple(input_shape)[1:], dtype=self._chain[0].dtype)]
        for layer in self._chain:
            path.append(layer(path[-1]))
        self._path = path
        self._connect_chain()

    def unbuild(self) -> None:
        super().unbuild()
        self._path = []
        self._connect_chain()

    # The layers, without the input, as in Keras.
    layers = Model.layers.getter(lambda self: list(self._chain))  # type: ignore[attr-defined]

    def compute_output_shape(self, input_shape: Any) -> Any:
        for layer in self._chain:
            input_shape = layer.compute_output_shape(input_shape)
        return input_shape

    @property
    def start(self) -> SymbolicTensor | None:
        """The symbolic input, once it is known."""
        return self._path[0] if self._path else None

    def __call__(self, x: Any = None, *more: Any, **named: Any) -> Any:
        if isinstance(x, dict) or (isinstance(x, list) and hasattr(x[0], "shape")):
            several = "several: call its layers one by one, or make a Model of inputs by name"
            raise TypeError(f"a Sequential has one input, {self.name!r} was given {several}")
        begun = next(ticks)
        try:
            if not self._path and self._chain:
                self.build(x.shape if hasattr(x, "shape") else np.shape(x))
            if not self.outputs:
                raise ValueError(f"the Sequential {self.name!r} has no layers yet")
            return super().__call__(x, *more, **named)
        except BaseException:
            self.undo_builds(begun)
            raise


_build = Sequential.build


def build(model: Sequential, input_shape: Any = None) -> None:
    """As above; ValueError for another shape than it has, and for layers of several arguments."""
    if model.start is not None and input_shape is not None:
        check_shape(tuple(input_shape), model.start.shape, model.name)
    for layer in model.layers if model.start is None else ():
        given = signature(layer.call).parameters.values()
        if layer.users and len([p for p in given if p.default is p.empty and p.kind < 2]) > 1:
            raise ValueError(f"{layer} is called on several arguments, within a Sequential on one")
    _build(model, input_shape)


Sequential.build = told(build)  # type: ignore[method-assign, assignment]
