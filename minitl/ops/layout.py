"""Keras's functions that put numbers in other places, and those that gather many into one.

What only moves numbers is told by places: NumPy's own function is asked where each number of the
result comes from, and the gradient goes back there (`_moved`). Sums of many are put together from
the ops that are there.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from minitl.autograd import Array, Tensor, as_tensor, record
from minitl.ops import Axes, arrays, log, mean, multiply, reshape, subtract, together
from minitl.ops import sum as summed
from minitl.ops.arrays import concatenate, exp, sqrt
from minitl.ops.elementwise import convert_to_tensor, floats, square
from minitl.ops.symbols import all_symbolic_too


def _moved(name: str, x: Any, places: Any) -> Tensor:
    """x's numbers from `places(indices)`, a function of x's own indices, which says what becomes of
    them. A number that comes several times gets the sum of its gradients."""
    x = convert_to_tensor(x)
    index = np.asarray(places(np.arange(x.storage.size).reshape(x.shape)))

    def vjp(g: Array) -> Array:
        summed = np.bincount(index.ravel(), g.ravel(), minlength=x.storage.size)
        return summed.reshape(x.shape).astype(x.dtype)

    return record(name, x.storage.ravel()[index], (x, vjp))


def getitem(x: Any, index: Any) -> Tensor:
    """y = x[index], for slices, integers and integer arrays. Repeated places add up."""
    x = as_tensor(x)
    shape, dtype = x.shape, x.dtype
    parts = index if isinstance(index, tuple) else (index,)
    simple = all(isinstance(part, (int, slice)) for part in parts)  # no place comes twice
    if not simple:  # what the user may change before the backward pass is copied
        index = tuple(np.array(p) if hasattr(p, "__array__") else p for p in parts)

    def vjp(g: Array) -> Array:
        dx = np.zeros(shape, dtype)
        if simple:
            dx[index] = g
        else:
            np.add.at(dx, index, g)
        return dx

    return record("getitem", np.asarray(x.storage[index]), (x, vjp))


def expand_dims(x: Any, axis: Any) -> Tensor:
    """A new axis of size 1, or several."""
    x = convert_to_tensor(x)
    return reshape(x, np.expand_dims(x.storage, axis).shape)


def squeeze(x: Any, axis: Any = None) -> Tensor:
    """Without the axes of size 1, or those that `axis` says."""
    x = convert_to_tensor(x)
    return reshape(x, x.storage.squeeze(axis).shape)


def ravel(x: Any) -> Tensor:
    """All numbers in one axis."""
    return reshape(convert_to_tensor(x), (-1,))


def swapaxes(x: Any, axis1: int, axis2: int) -> Tensor:
    """x with two axes exchanged."""
    x = convert_to_tensor(x)
    return arrays.transpose(x, _order(x.ndim, axis1, axis2))


def _order(rank: int, a: int, b: int) -> list[int]:
    order = list(range(rank))
    order[a], order[b] = order[b], order[a]
    return order


def moveaxis(x: Any, source: Any, destination: Any) -> Tensor:
    """x with axes in other places."""
    return _moved("moveaxis", x, lambda i: np.moveaxis(i, source, destination))


def flip(x: Any, axis: Any = None) -> Tensor:
    """x backwards along an axis, or all."""
    return _moved("flip", x, lambda i: np.flip(i, axis))


def roll(x: Any, shift: Any, axis: Any = None) -> Tensor:
    """x moved along an axis; what falls off comes in at the other end."""
    return _moved("roll", x, lambda i: np.roll(i, shift, axis))


def repeat(x: Any, repeats: Any, axis: int | None = None) -> Tensor:
    """Every number several times, one beside the other."""
    return _moved("repeat", x, lambda i: np.repeat(i, np.asarray(repeats), axis))


def tile(x: Any, repeats: Any) -> Tensor:
    """x several times, one after the other."""
    return _moved("tile", x, lambda i: np.tile(i, repeats))


def broadcast_to(x: Any, shape: Any) -> Tensor:
    """x in a larger shape."""
    return _moved("broadcast_to", x, lambda i: np.broadcast_to(i, shape))


def take(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """The parts of x at these indices along an axis (of all numbers, if None)."""
    at = np.asarray(indices).astype(np.int64)
    return _moved("take", x, lambda i: np.take(i, at, axis))


def take_along_axis(x: Any, indices: Any, axis: int | None = None) -> Tensor:
    """For each place of `indices` the number of x that it says, along an axis."""
    at = np.asarray(indices).astype(np.int64)
    return _moved("take_along_axis", x, lambda i: np.take_along_axis(i, at, axis))


def diagonal(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    """The numbers on a diagonal of two axes."""
    return _moved("diagonal", x, lambda i: np.diagonal(i, offset, axis1, axis2))


def diag(x: Any, k: int = 0) -> Tensor:
    """A matrix's diagonal, or the matrix with this diagonal."""
    x = convert_to_tensor(x)
    if x.ndim == 2:
        return diagonal(x, k)
    n = len(x) + (k if k > 0 else -k)
    return expand_dims(pad(x, ((max(-k, 0), max(k, 0)),)), -1) * Tensor(
        np.eye(n, k=k, dtype=x.dtype)
    )


def sort(x: Any, axis: int = -1) -> Tensor:
    """x in rising order along an axis."""
    x = convert_to_tensor(x)
    return take_along_axis(x, np.argsort(x.storage, axis, kind="stable"), axis)


def top_k(x: Any, k: int, sorted: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest along the last axis, and where they are."""
    x = convert_to_tensor(x)
    at = np.argsort(-x.storage, -1, kind="stable")[..., :k]
    return take_along_axis(x, at, -1), Tensor(at.astype(np.int32))


def split(x: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    """x in several pieces along an axis: so many of one size, or cut before these indices."""
    x = convert_to_tensor(x)
    pieces = np.split(np.arange(x.shape[axis]), np.asarray(indices_or_sections).tolist())
    place = (slice(None),) * (axis % x.ndim)
    ends = [(int(p[0]), int(p[-1]) + 1) if len(p) else (0, 0) for p in pieces]
    return [x[(*place, slice(*each))] for each in ends]


def stack(x: Sequence[Any], axis: int = 0) -> Tensor:
    """The tensors along a new axis."""
    return concatenate([expand_dims(each, axis) for each in x], axis)


def unstack(x: Any, num: int | None = None, axis: int = 0) -> list[Tensor]:
    """The parts of x along an axis, without it."""
    x = convert_to_tensor(x)
    return [take(x, i, axis) for i in range(x.shape[axis])]


def append(x1: Any, x2: Any, axis: int | None = None) -> Tensor:
    """x2 after x1 along an axis, or both as one row."""
    if axis is None:
        return concatenate([ravel(x1), ravel(x2)], 0)
    return concatenate([x1, x2], axis)


def hstack(xs: Sequence[Any]) -> Tensor:
    """The tensors side by side."""
    return concatenate(xs, 0 if convert_to_tensor(xs[0]).ndim == 1 else 1)


def vstack(xs: Sequence[Any]) -> Tensor:
    """The tensors one below the other."""
    return concatenate([x if np.ndim(x) > 1 else expand_dims(x, 0) for x in xs], 0)


def pad(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = None) -> Tensor:
    """x with more numbers around: a constant (0), or its own by one of NumPy's modes."""
    x, modes = convert_to_tensor(x), ("constant", "edge", "reflect", "symmetric", "wrap")
    if mode not in modes:
        raise ValueError(f"pad: mode is one of {', '.join(modes)}, got {mode!r}")
    if mode != "constant":
        how: Any = mode
        return _moved("pad", x, lambda i: np.pad(i, pad_width, how))
    y = np.pad(x.storage, pad_width, constant_values=constant_values or 0)
    pairs = np.broadcast_to(np.asarray(pad_width), (x.ndim, 2))
    inside = tuple(slice(int(a), int(a) + n) for (a, _), n in zip(pairs, x.shape, strict=True))
    return record("pad", y, (x, lambda g: np.ascontiguousarray(g[inside])))


def tril(x: Any, k: int = 0) -> Tensor:
    """The lower triangle; zeros above."""
    x = convert_to_tensor(x)
    return multiply(x, np.tri(x.shape[-2], x.shape[-1], k, dtype=x.dtype))


def triu(x: Any, k: int = 0) -> Tensor:
    """The upper triangle; zeros below."""
    x = convert_to_tensor(x)
    return multiply(x, 1 - np.tri(x.shape[-2], x.shape[-1], k - 1, dtype=x.dtype))


def meshgrid(*x: Any, indexing: Any = "xy") -> list[Tensor]:
    """NumPy's `meshgrid`."""
    found = np.meshgrid(*(np.asarray(each) for each in x), indexing=indexing)
    return [Tensor(each) for each in found]


# --- Many into one --------------------------------------------------------------------------------


def min(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """y = minimum of x over `axis`; the gradient as of `max`."""
    return -arrays.max(-convert_to_tensor(x), axis, keepdims)


amin = min


def prod(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """y = product of x over `axis`."""
    x = convert_to_tensor(x)
    a = x.storage
    y = np.asarray(a.prod(axis=axis, keepdims=True))

    def vjp(g: Array) -> Array:
        safe = np.where(a == 0, 1, a)
        zeros = (a == 0).sum(axis=axis, keepdims=True)
        alone = safe.prod(axis=axis, keepdims=True)  # of the numbers that are not 0
        others = np.where(a == 0, np.where(zeros == 1, alone, 0), np.where(zeros == 0, y / safe, 0))
        return (g.reshape(y.shape) * others).astype(a.dtype)

    return record("prod", np.asarray(a.prod(axis=axis, keepdims=keepdims)), (x, vjp))


def var(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """y = mean of (x - mean)^2 over `axis`."""
    x = floats(x)
    return mean(square(subtract(x, mean(x, axis, True))), axis, keepdims)


def std(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """y = the root of the variance over `axis`."""
    return sqrt(var(x, axis, keepdims))


def average(x: Any, axis: Axes = None, weights: Any = None) -> Tensor:
    """The mean over `axis`, with weights."""
    if weights is None:
        return mean(x, axis)
    w = floats(weights)
    return summed(floats(x) * w, axis) / summed(w * np.ones(np.shape(x), w.dtype), axis)


def logsumexp(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """y = ln of the sum of e^x over `axis`, without overflow."""
    x = floats(x)
    top = Tensor(x.storage.max(axis=axis, keepdims=True))
    y = log(summed(exp(x - top), axis, True)) + top
    return y if keepdims else reshape(y, x.storage.max(axis=axis).shape)


def cumsum(x: Any, axis: int | None = None, dtype: Any = None) -> Tensor:
    """The sums of x up to each place along an axis."""
    x = convert_to_tensor(x)
    flat = x if axis is not None else ravel(x)
    at = -1 if axis is None else axis
    vjp = lambda g: np.flip(np.cumsum(np.flip(g, at), at), at)  # noqa: E731
    return record("cumsum", np.cumsum(flat.storage, at, dtype=x.dtype), (flat, vjp))


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The Euclidean length over `axis`; other orders: 1, and infinity."""
    x = floats(x)
    if ord in (1, np.inf):
        gather: Any = summed if ord == 1 else arrays.max
        return gather(arrays.absolute(x), axis, keepdims)
    if ord not in (None, 2, "euclidean", "fro"):
        raise ValueError(f"norm takes ord=None, 1, 2 or inf, got {ord!r}")
    return sqrt(summed(square(x), axis, keepdims))


def dot(x1: Any, x2: Any) -> Tensor:
    """x1 x2: of vectors their scalar product, of matrices the matrix product."""
    a, b = together(convert_to_tensor(x1), convert_to_tensor(x2))
    if a.ndim == 0 or b.ndim == 0:
        return multiply(a, b)
    letters = "abcdefghijklm"
    left = letters[: a.ndim]
    right = "nopqrstuvwxyz"[: b.ndim]
    right = right.replace(right[-2] if b.ndim > 1 else right[-1], left[-1])
    return einsum(f"{left},{right}->{(left + right).replace(left[-1], '')}", a, b)


def tensordot(x1: Any, x2: Any, axes: Any = 2) -> Tensor:
    """NumPy's `tensordot`."""
    a, b = convert_to_tensor(x1), convert_to_tensor(x2)
    if isinstance(axes, int):
        axes = (list(range(a.ndim - axes, a.ndim)), list(range(axes)))
    first, second = (np.atleast_1d(each).tolist() for each in axes)
    left = [chr(97 + i) for i in range(a.ndim)]
    right = [chr(110 + i) for i in range(b.ndim)]
    for i, j in zip(first, second, strict=True):
        right[j] = left[i]
    out = [c for c in left + right if not (c in left and c in right)]
    return einsum(f"{''.join(left)},{''.join(right)}->{''.join(out)}", a, b)


def outer(x1: Any, x2: Any) -> Tensor:
    """All products of a number of x1 and one of x2."""
    return multiply(expand_dims(ravel(x1), 1), expand_dims(ravel(x2), 0))


def einsum(subscripts: str, *operands: Any, **_: Any) -> Tensor:
    """NumPy's `einsum`: 'ij,jk->ik' is the matrix product. A letter comes once per operand."""
    tensors = [convert_to_tensor(each) for each in operands]
    inputs, arrow, output = subscripts.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if "." in subscripts or any(len(set(term)) < len(term) for term in terms):
        raise ValueError(f"einsum takes one letter per axis, each once, got {subscripts!r}")
    if not arrow:
        every = inputs.replace(",", "")
        output = "".join(c for c in sorted(set(every)) if every.count(c) == 1)
    sizes = {
        c: n for t, x in zip(terms, tensors, strict=True) for c, n in zip(t, x.shape, strict=True)
    }

    def of(i: int) -> Any:
        others = [x.storage for j, x in enumerate(tensors) if j != i]
        known = [output, *(t for j, t in enumerate(terms) if j != i)]
        there = [c for c in terms[i] if any(c in t for t in known)]

        def vjp(g: Array) -> Array:
            found = np.einsum(f"{','.join(known)}->{''.join(there)}", g, *others)
            shape = [sizes[c] if c in there else 1 for c in terms[i]]
            full = np.broadcast_to(found.reshape(shape), tensors[i].shape)
            return np.ascontiguousarray(full, tensors[i].dtype)

        return vjp

    y = np.einsum(f"{inputs}->{output}", *(x.storage for x in tensors))
    return record("einsum", np.asarray(y), *((x, of(i)) for i, x in enumerate(tensors)))


def map(f: Any, xs: Any) -> Any:
    """f of each part of xs along its first axis, stacked."""
    parts = xs if isinstance(xs, (list, tuple)) else [xs[i] for i in range(len(xs))]
    return stack([f(each) for each in parts])


vectorized_map = map


all_symbolic_too(globals())
