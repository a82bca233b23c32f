"""Layers around layers: TimeDistributed applies one to every step, Bidirectional reads both ways.

The layer inside may be a whole model, a frozen base on images, say. Its weights are those of the
wrapper, and its description stands within the wrapper's, as Keras writes it.
"""

from collections.abc import Iterable
from inspect import signature
from typing import Any, Literal

from minitl import ops
from minitl.autograd import Tensor, is_recording
from minitl.layers.base import Layer, Rng, Shape
from minitl.layers.sequences.recurrent import Recurrent
from minitl.naming import part
from minitl.ops import arrays

# Bytes that a step of the inner layer may read and write in predicting; more are not faster.
MEMORY = 256 * 2**20


class _Wrapper(Layer, supports_masking=True):
    """A layer whose configuration holds other layers."""

    inner: tuple[str, ...] = ("layer",)

    def sublayers(self) -> Iterable[Layer]:
        return [getattr(self, name) for name in self.inner]

    @property
    def random(self) -> bool:  # type: ignore[override]
        return any(getattr(layer, "random", False) for layer in self.sublayers())

    def get_config(self) -> dict[str, Any]:
        """With the layers inside as Keras 3 reads them, and only it writes: with a module, and with
        the places of a single input or output without a list around them."""
        settings = super().get_config()
        described = (v for v in settings.values() if isinstance(v, dict) and "class_name" in v)
        for inner in described:
            inner["module"] = "keras" if inner["class_name"] == "Sequential" else "keras.layers"
            if inner["class_name"] == "Model":
                inner |= {"class_name": "Functional", "module": "keras.src.models.functional"}
                for what in ("input_layers", "output_layers"):
                    places = inner["config"][what]
                    inner["config"][what] = places[0] if len(places) == 1 else places
        return settings

    @classmethod
    def from_config(cls, settings: dict[str, Any]) -> Layer:
        layer_from = part("files").layer_from
        for name, value in settings.items():
            if isinstance(value, dict) and "class_name" in value and name != "dtype":
                settings = settings | {name: layer_from(value["class_name"], value["config"])}
        return super().from_config(settings)


class TimeDistributed(_Wrapper):
    """One layer, or a whole model, applied to every step of a sequence: (N, T, ...) -> (N, T, ...).

    The steps become samples, (N*T, ...), and come back as steps. `TimeDistributed(base)` with a
    network on images makes (N, T, H, W, C) into (N, T, OH, OW, F), or (N, T, D) for a base that
    ends in a pooling. Where the base is frozen, frames run through it a few at a time, so memory
    does not grow with T. In training, what keeps moving averages (BatchNormalization) sees a step
    at a time, as in Keras. The layer has one input and one output.
    """

    def __init__(self, layer: Layer, *, dtype: str | None = None, **kwargs: Any):
        super().__init__(dtype=dtype or layer.dtype, **kwargs)
        self.layer = layer

    def build(self, input_shape: Shape) -> None:
        self._frame_shapes(input_shape)

    def call(self, x: Tensor, training: bool = False, rng: Rng = None, mask: Any = None) -> Any:
        n, steps = x.shape[:2]
        if mask is not None and mask.shape[:2] != (n, steps):
            raise ValueError(f"{self}: a mask begins with {(n, steps)}, as x does: {mask.shape}")
        if mask is not None and mask.ndim > 2 and "mask" in signature(self.layer.call).parameters:
            raise NotImplementedError(f"{self} hands no mask to the layer inside: {mask.shape}")
        if training and _keeps_averages(self.layer):
            found = [self.layer(x[:, t], training=True, rng=rng) for t in range(steps)]
            return arrays.concatenate([ops.reshape(y, (n, 1, *y.shape[1:])) for y in found], axis=1)
        frames = ops.reshape(x, (n * steps, *x.shape[2:]))
        shape, _ = self._frame_shapes(x.shape)
        each = self.layer.largest_step([shape]) * x.dtype.itemsize
        at_once = max(1, MEMORY // max(each, 1))
        if is_recording() and (x.requires_grad or self.layer.trainable_weights):
            at_once = len(frames)  # all is kept anyway
        pieces = [
            self.layer(frames[i : i + at_once], training=training, rng=rng)
            for i in range(0, max(len(frames), 1), max(at_once, 1))
        ]
        y = pieces[0] if len(pieces) == 1 else arrays.concatenate(pieces, axis=0)
        return ops.reshape(y, (n, steps, *y.shape[1:]))

    def _frame_shapes(self, input_shape: Shape) -> tuple[Shape, Shape]:
        """What the inner layer takes and gives, batch axis first; builds it if it is not built."""
        if len(input_shape) < 3:
            expected = "a sequence (N, T, ...) of at least 3 axes"
            raise ValueError(f"{self} takes {expected}, got shape {input_shape}")
        shape = (None, *input_shape[2:])
        self.layer.prepare(shape)
        found = self.layer.compute_output_shape(shape)
        if isinstance(found, list):
            given = f"{self.layer.name!r} has {len(found)}"
            raise ValueError(f"{self} needs a layer of one output; {given}")
        return shape, found

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:2], *self._frame_shapes(input_shape)[1][1:])

    def multiply_adds(self, input_shape: Shape) -> int:
        return (input_shape[1] or 1) * self.layer.multiply_adds((None, *input_shape[2:]))


def _keeps_averages(layer: Layer) -> bool:
    """Whether something in it learns without gradients, as an unfrozen BatchNormalization does."""
    own = layer.trainable and any(not v.learnable for v in layer.own_weights)
    return own or any(_keeps_averages(inner) for inner in layer.sublayers())


class Bidirectional(_Wrapper, inner=("forward_layer", "backward_layer")):
    """A recurrent layer forwards, and one like it backwards, side by side.

    Args:
        layer: an LSTM or GRU. Two fresh layers are made from its configuration, 'forward_...' and
            'backward_...', the second with `go_backwards`; its output is turned round in time.
        merge_mode: how the two outputs become one: 'concat' (2U numbers), 'sum', 'mul', 'ave', or
            None for a list of both.
        backward_layer: taken for the way back instead.

    With `return_state` a list: the output, the states of the forward, then of the backward layer.
    Schuster & Paliwal 1997.
    """

    def __init__(
        self,
        layer: Recurrent,
        merge_mode: Literal["concat", "sum", "mul", "ave"] | None = "concat",
        *,
        backward_layer: Recurrent | None = None,
        dtype: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(dtype=dtype or layer.dtype, **kwargs)
        self.merge_mode = merge_mode
        self.forward_layer = _again(layer, "forward_", layer.go_backwards)
        self.backward_layer = backward_layer or _again(layer, "backward_", True)
        for what in ("return_sequences", "return_state"):
            if getattr(self.backward_layer, what) != getattr(self.forward_layer, what):
                raise ValueError(f"Bidirectional needs two layers of the same {what}")
        if self.forward_layer.go_backwards == self.backward_layer.go_backwards:
            raise ValueError("Bidirectional needs two layers of which one has go_backwards=True")
        for each in (self.forward_layer, self.backward_layer):
            each.zeros_where_masked = each.return_sequences  # as in Keras

    @property
    def layer(self) -> Any:
        return self.forward_layer

    def build(self, input_shape: Shape) -> None:
        for layer in self.sublayers():
            layer.prepare(input_shape)

    def call(self, x: Tensor, training: bool = False, rng: Rng = None) -> Any:
        y, *states = _listed(self.forward_layer(x, training=training, rng=rng))
        back, *more = _listed(self.backward_layer(x, training=training, rng=rng))
        if self.forward_layer.return_sequences:
            back = back[:, ::-1]
        merge = MERGING[self.merge_mode]
        outputs = [y, back] if merge is None else [merge(y, back)]
        return outputs + states + more if states or merge is None else outputs[0]

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Those of the layers inside, for each output and state."""
        y, *states = _listed(self.forward_layer.compute_mask(inputs, mask))
        outputs = [y, y] if self.merge_mode is None else [y]
        return outputs + states + states if states or len(outputs) > 1 else y

    def compute_output_shape(self, input_shape: Shape) -> Any:
        y, *states = _listed(self.forward_layer.compute_output_shape(input_shape))
        if self.merge_mode == "concat":
            y = (*y[:-1], 2 * y[-1])
        outputs = [y, y] if self.merge_mode is None else [y]
        return outputs + states + states if states or len(outputs) > 1 else y

    def multiply_adds(self, input_shape: Shape) -> int:
        return sum(layer.multiply_adds(input_shape) for layer in self.sublayers())


MERGING: dict[str | None, Any] = {
    "concat": lambda *both: arrays.concatenate(both, -1),
    "sum": ops.add,
    "mul": ops.multiply,
    "ave": lambda a, b: (a + b) / 2,
    None: None,
}


def _again(layer: Any, prefix: str, go_backwards: bool) -> Any:
    """A fresh layer of the same configuration."""
    changed = {"name": prefix + layer.name.removeprefix(prefix), "go_backwards": go_backwards}
    return type(layer).from_config(layer.get_config() | changed)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
