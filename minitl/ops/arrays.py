"""Arithmetic that the main job does without: extremes, roots, and arrays turned or joined."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minitl.autograd import Array, Tensor, as_tensor, record
from minitl.ops import Axes, together


def exp(x: Any) -> Tensor:
    """y = e^x."""
    x = as_tensor(x)
    y = np.exp(x.storage)
    return record("exp", y, (x, lambda g: g * y))


def sqrt(x: Any) -> Tensor:
    """y = sqrt(x)."""
    x = as_tensor(x)
    y = np.sqrt(x.storage)
    return record("sqrt", y, (x, lambda g: g / (2 * y)))


def maximum(a: Any, b: Any) -> Tensor:
    """y = the larger of a and b, with broadcasting. The gradient goes to it; of equals, to a."""
    a, b = together(a, b)
    first = a.storage >= b.storage
    y = np.where(first, a.storage, b.storage)
    return record("maximum", y, (a, lambda g: g * first), (b, lambda g: g * ~first))


def max(x: Any, axis: Axes = None) -> Tensor:
    """y = maximum of x over `axis`. Where several places tie, they share the gradient equally."""
    x = as_tensor(x)
    a = x.storage
    y = a.max(axis=axis, keepdims=True)

    def vjp(g: Array) -> Array:
        winners = (a == y).astype(a.dtype)
        winners /= winners.sum(axis=axis, keepdims=True)
        return g.reshape(y.shape) * winners

    return record("max", np.asarray(a.max(axis=axis)), (x, vjp))


def concatenate(tensors: Sequence[Any], axis: int = -1) -> Tensor:
    """The tensors one after the other along `axis`."""
    tensors = [as_tensor(t) for t in tensors]
    ends = np.cumsum([t.shape[axis] for t in tensors])
    y = np.concatenate([t.storage for t in tensors], axis=axis)

    def piece(i: int) -> Any:
        where = [slice(None)] * y.ndim
        where[axis] = slice(ends[i] - tensors[i].shape[axis], ends[i])
        return lambda g: np.ascontiguousarray(g[tuple(where)])

    return record("concatenate", y, *((t, piece(i)) for i, t in enumerate(tensors)))


def transpose(x: Any, axes: Sequence[int]) -> Tensor:
    """The same numbers with the axes in another order: y.shape[i] = x.shape[axes[i]]."""
    x = as_tensor(x)
    back = np.argsort(axes)
    y = np.ascontiguousarray(x.storage.transpose(axes))
    return record("transpose", y, (x, lambda g: np.ascontiguousarray(g.transpose(back))))


def along_last(function: Callable[[Tensor], Tensor], x: Tensor, axis: int) -> Tensor:
    """A function of the last axis, applied along another one."""
    order = list(range(x.ndim))
    order[axis], order[-1] = order[-1], order[axis]  # its own inverse
    return transpose(function(transpose(x, order)), order)


def absolute(x: Any) -> Tensor:
    """y = |x|. The derivative at 0 is taken as 0."""
    x = as_tensor(x)
    a = x.storage
    return record("absolute", np.abs(a), (x, lambda g: g * np.sign(a)))
