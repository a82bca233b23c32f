"""Which steps of a sequence count: `Embedding` and `Masking` say it, LSTM and GRU go by it.

Shorter sequences are filled up, with zeros say, and a mask (N, T) is True where a step counts. It
hangs on the array of a Tensor, by the array's identity. Layers that support masking hand it on
(`compute_mask`) or use it: a recurrent layer's state stays as it is where a step does not count, a
mean and a loss leave such steps out. A layer that can do neither warns, as Keras's does.

Nothing of this is looked at before a layer that makes masks has been made (`begin`).
"""

import functools
import inspect
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from minitl import initializers, ops
from minitl.autograd import Array, Tensor
from minitl.layers.base import Layer, Shape, listed, regularizer
from minitl.layers.pooling import positive
from minitl.losses import Loss
from minitl.naming import Count, Named

__all__ = ["Embedding", "Masking"]

# {id of an array: (its mask, what removes this when the array is gone)}
MASKS: dict[int, tuple[Tensor, Any]] = {}


def put(x: Tensor, mask: Any) -> Tensor:
    """x, with this mask."""
    key, forget = id(x.storage), lambda _: MASKS.pop(key, None)
    MASKS[key] = Tensor(np.asarray(mask, bool)), weakref.ref(x.storage, forget)
    begin()
    return x


def mask_of(x: Any) -> Tensor | None:
    """The mask of a Tensor, or of its array."""
    found = MASKS.get(id(getattr(x, "storage", x)))
    return found and found[0]


def begin() -> None:
    """From now on layers and losses look for masks."""
    if Layer.with_masks is None:
        Layer.with_masks, Loss.counted = called, staticmethod(counted)
        Tensor._keras_mask = property(mask_of)  # type: ignore[attr-defined]


@functools.cache
def _takes_mask(cls: type[Layer]) -> bool:
    return "mask" in inspect.signature(cls.call).parameters


def called(layer: Layer, *args: Any, **named: Any) -> Any:
    """`layer.call`, told the mask if it takes one; what comes out has the one that is handed on."""
    x: Any = args[0] if args else None
    several = isinstance(x, (list, tuple))
    masks: Any = [mask_of(each) for each in x] if several else mask_of(x)
    if named.get("mask") is not None:
        masks = named["mask"]
    elif _takes_mask(type(layer)):
        named["mask"] = masks
    found = layer.call(*args, **named)
    if layer.supports_masking:
        tensors = listed(found)
        handed_on = layer.compute_mask(x, masks)
        if handed_on is None or any(mask_of(each) is not None for each in tensors):
            return found
        one = not isinstance(handed_on, (list, tuple))
        for tensor, mask in zip(tensors, [handed_on] if one else handed_on, strict=False):
            if mask is not None:
                put(tensor, mask)
    elif any(m is not None for m in (masks if several else [masks])) and layer.as_graph() is None:
        lost = f"{layer} was passed an input with a mask, which it does not support"
        warnings.warn(f"{lost}: layers after it will not see the mask", UserWarning, stacklevel=5)
    return found


def compute_mask(layer: Layer, inputs: Any, previous_mask: Any = None) -> Any:
    """The mask of the layer's output: that of its input."""
    return previous_mask


def of_several(layer: Layer, inputs: Any, mask: Any = None) -> Any:
    """`compute_mask` of layers that merge: a step counts where it does in any input, if each of
    them has a mask."""
    if mask is None:
        return None
    for what, given in (("inputs", inputs), ("mask", mask)):
        if not isinstance(given, (list, tuple)) or len(given) != len(inputs):
            raise ValueError(f"{layer}: {what} is a list, with a mask or None for each input")
    return None if any(m is None for m in mask) else functools.reduce(ops.logical_or, mask)


def merged(combine: Any, xs: Sequence[Tensor]) -> Tensor:
    """The inputs combined one after the other; where one does not count, by what the other is."""
    y, where = xs[0], mask_of(xs[0])
    for x in xs[1:]:
        mask = mask_of(x)
        first = y if where is None else ops.where(spread_mask(where, y), y, x)
        y = combine(first, x if mask is None else ops.where(spread_mask(mask, x), x, y))
        where = None if mask is None or where is None else ops.logical_or(where, mask)
    return y


def ones_outside(multiply: Any, xs: Sequence[Tensor]) -> Tensor:
    """The product of the inputs, in which what does not count is 1; 0 where none of them counts."""
    masks = [mask_of(x) for x in xs]
    if all(m is None for m in masks):
        return multiply(xs)
    pairs = zip(xs, masks, strict=True)
    one = [
        x if m is None else ops.where(spread_mask(m, x), x, np.ones((), x.dtype)) for x, m in pairs
    ]
    y = multiply(one)
    if any(m is None for m in masks):
        return y
    return y * spread_mask(functools.reduce(ops.logical_or, masks), y).astype(y.dtype)


def spread_mask(mask: Any, x: Any) -> Array:
    """A mask (N, T) as one of x's shape (N, T, ...)."""
    mask = np.asarray(mask)
    if mask.ndim == len(x.shape):  # as it is, of a symbolic x say
        return mask
    return np.broadcast_to(mask.reshape(mask.shape + (1,) * (np.ndim(x) - mask.ndim)), np.shape(x))


def counted(y_pred: Any, sample_weight: Any, reduction: str | None = None) -> Any:
    """Sample weights in which steps that do not count weigh 0. Where the reduction is a mean, the
    others weigh more, so that it is theirs."""
    mask = mask_of(y_pred)
    if mask is None:
        return sample_weight
    weights = mask.storage.astype(np.float64)
    if reduction == "sum_over_batch_size":
        weights *= weights.size / max(weights.sum(), 1)
    if sample_weight is None:
        return weights
    given = np.asarray(sample_weight)
    if given.ndim == weights.ndim + 1 and given.shape[-1] == 1:
        given = given[..., 0]
    return weights * given.reshape(given.shape + (1,) * (weights.ndim - given.ndim))


class Masking(Layer, supports_masking=True):
    """y = x, of sequences (N, T, D); steps that are `mask_value` in every place do not count."""

    def __init__(self, mask_value: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.mask_value = mask_value
        begin()

    def call(self, x: Tensor) -> Tensor:
        return ops.where(spread_mask(self.compute_mask(x), x), x, np.zeros((), x.dtype))

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return ops.any(ops.not_equal(inputs, self.mask_value), axis=-1)

    def fixed(self, training: bool) -> bool:
        return False  # what a cache keeps of it would have no mask


class Embedding(Layer):
    """Integers from 0 to input_dim - 1 as vectors that are learned: (N, ...) -> (N, ..., D).

    The weight `embeddings` is (input_dim, output_dim). With `mask_zero` a 0 is no word: its step
    does not count in the LSTM or GRU that follows.
    """

    def __init__(
        self,
        input_dim: Count,
        output_dim: Count,
        embeddings_initializer: Named = "uniform",
        embeddings_regularizer: Named | None = None,
        *,
        mask_zero: bool = False,
        weights: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.input_dim = positive(input_dim, "input_dim")
        self.output_dim = positive(output_dim, "output_dim")
        self.embeddings_initializer = initializers.get(embeddings_initializer)
        self.embeddings_regularizer = regularizer(embeddings_regularizer)
        self.mask_zero = self.supports_masking = bool(mask_zero)
        if mask_zero:
            begin()
        self.embeddings: Any = None
        if weights is not None:
            self.build(())
            self.built = True
            self.set_weights(weights if isinstance(weights, list) else [weights])

    def get_config(self) -> dict[str, Any]:
        """Without the weights that it may have been given, which are in the file as others are."""
        return {name: v for name, v in super().get_config().items() if name != "weights"}

    def build(self, input_shape: Shape) -> None:
        self.embeddings = self.add_weight(
            "embeddings",
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
        )

    def prepare(self, shape: Any) -> None:
        self._channels = None  # the last axis is time, of any length
        super().prepare(shape)

    def call(self, x: Tensor) -> Tensor:
        index = x.storage.astype("int64")
        if index.size and not (index.min() >= 0 and index.max() < self.input_dim):
            found = f"integers from {index.min()} to {index.max()}"
            raise ValueError(f"{self} takes integers from 0 to {self.input_dim - 1}, got {found}")
        return ops.take(self.embeddings, index, 0)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return ops.not_equal(inputs, 0) if self.mask_zero else None

    def fixed(self, training: bool) -> bool:
        return not self.mask_zero and super().fixed(training)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.output_dim)
