"""Tensors that remember how they were computed, and `backward`, which walks back along that memory.

Every differentiable function computes an array and calls `record`, which wraps it in a `Tensor`
with one *edge* for each input: the input, and the function that turns dL/d(output) into
dL/d(input) (the vector-Jacobian product, or vjp). Edges to inputs that need no gradient are not
kept. That is all there is to freezing: for a weight without an edge nothing is stored or computed.

This file knows nothing of layers or kernels. Read `ops/__init__.py` next.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

import numpy as np

Array = np.ndarray
Vjp = Callable[[Array], Array]

_recording: ContextVar[bool] = ContextVar("recording", default=True)


class Symbolic:
    """Base of what stands for a tensor that is not there yet (`layers/base.py`)."""

    __slots__ = ()
    __array_ufunc__ = None  # so that `array * symbolic` asks the latter, not NumPy


class Tensor:
    """An array and, when a gradient must flow through it, the record of how it was made.

    Args:
        data: anything `numpy.asarray` takes; stored C-contiguous.
        requires_grad: whether gradients with respect to this tensor will be asked for. Only for
            leaves; a computed tensor requires a gradient when one of its inputs does.

    Arithmetic (`+ - * / ** @`, indexing, `sum`, `mean`, `reshape`) is added by `ops/__init__.py`.

    >>> a = Tensor([1.0, 2.0], requires_grad=True)
    >>> backward((a * a).sum(), [a])[0]
    array([2., 4.])
    """

    if TYPE_CHECKING:  # given by ops
        __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = cast(Any, None)
        __truediv__ = __rtruediv__ = __neg__ = __pow__ = __matmul__ = cast(Any, None)
        __lt__ = __le__ = __gt__ = __ge__ = __float__ = cast(Any, None)
        __getitem__ = sum = mean = reshape = cast(Any, None)

    __slots__ = ("node", "origin", "requires_grad", "storage")
    __array_priority__ = 100  # so that `array * tensor` asks the tensor, not NumPy

    def __init__(self, data: Any, requires_grad: bool = False):
        data = np.array(data) if requires_grad else data  # the caller may change an array
        if type(data) is not Array or not data.flags.c_contiguous:
            data = np.ascontiguousarray(data).reshape(np.shape(data))
        self.storage: Array = data
        self.node: Node | None = None
        self.requires_grad = requires_grad  # of a Variable: whether it is trainable
        # What it was made from, where a later operation may look beneath: ("softmax", logits).
        self.origin: tuple[str, Tensor] | None = None
        if requires_grad and self.storage.dtype.kind != "f":
            raise TypeError(f"requires_grad: only floats have gradients, not {self.storage.dtype}")

    @property
    def data(self) -> Array:
        """The array, to look at."""
        return self.storage

    shape = property(lambda self: self.storage.shape)
    ndim = property(lambda self: self.storage.ndim)
    dtype = property(lambda self: self.storage.dtype)

    def numpy(self) -> Array:
        """A copy of the array."""
        return self.storage.copy()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.storage, dtype=dtype)

    def __len__(self) -> int:
        return len(self.storage)

    __hash__ = object.__hash__  # `==` compares numbers

    def __format__(self, form: str) -> str:
        return format(self.storage.item(), form) if form else str(self)

    def __repr__(self) -> str:
        made_by = f", op={self.node.op!r}" if self.node else ""
        return f"{type(self).__name__}({self.storage!r}{made_by})"


class Variable(Tensor):
    """A tensor that outlives a computation: a weight.

    Its `data` is a read-only view. It is written by `assign` or inside `with variable.writing()`,
    and both empty `cache`, so whatever a kernel derived from the old values (the transformed
    filters of a convolution, say) can never be served for the new ones. `version` counts how
    often it was written, for those who keep what follows from several weights.
    """

    __slots__ = ("cache", "learnable", "name", "rate_multiplier", "version")
    trainable: Any = vars(Tensor)["requires_grad"]  # one flag: what is frozen has no gradient

    def __init__(
        self,
        data: Any,
        name: str = "variable",
        learnable: bool = True,
        copy: bool = True,
        dtype: Any = None,
        trainable: bool = True,
    ):
        super().__init__(np.array(data, dtype) if copy else data)
        self.name = name
        self.learnable = learnable = learnable and trainable  # by gradients; no moving average is
        self.trainable = learnable  # what they do update: not while the layer is frozen
        self.rate_multiplier = 1.0  # how far they move it, as a multiple of the optimizer's rate
        self.cache: dict = {}  # what kernels derived from this array
        self.version = 0

    value = property(lambda self: self)  # Keras's name of the numbers

    @property
    def data(self) -> Array:
        view = self.storage.view()
        view.flags.writeable = False
        return view

    def writing(self) -> "Variable":
        """`with variable.writing() as w`: the array itself, to be written in place."""
        return self

    def __enter__(self) -> Array:
        return self.storage

    def __exit__(self, *_: Any) -> None:
        self.cache = {}
        self.version += 1

    def assign(self, value: Any) -> None:
        """Copy `value`, an array of exactly this shape, into the variable."""
        value = np.asarray(value)
        if value.shape != self.shape:
            given = f"a value of shape {value.shape}"
            raise ValueError(f"cannot assign {given} to {self.name!r} of {self.shape}")
        with self.writing() as storage:
            storage[...] = value

    def assign_add(self, value: Any) -> None:
        self.assign(self.storage + np.asarray(value))

    def assign_sub(self, value: Any) -> None:
        self.assign(self.storage - np.asarray(value))

    def __repr__(self) -> str:
        frozen = "" if self.trainable else ", frozen"
        return f"Variable({self.name!r}, shape={self.shape}, dtype={self.dtype}{frozen})"


class Node:
    """How a tensor was made: the name of the operation, and an edge for each differentiable input.

    `edges` is None once `backward` has used the node; what the edges kept alive is then free.
    """

    __slots__ = ("edges", "op")

    def __init__(self, op: str, edges: tuple[tuple[Tensor, Vjp], ...]):
        self.op = op
        self.edges: tuple[tuple[Tensor, Vjp], ...] | None = edges


def record(op: str, data: Array, *edges: tuple[Tensor | None, Vjp]) -> Tensor:
    """Wrap what `op` computed in a Tensor that remembers its edges (input, vjp).

    Only edges whose input requires a gradient are kept; when there is none (or inside `no_grad`)
    the result is a plain constant. An input of None (an absent bias) is skipped.
    """
    out = Tensor(data)
    if _recording.get():
        kept = tuple([(t, vjp) for t, vjp in edges if t is not None and t.requires_grad])
        if kept:
            out.node, out.requires_grad = Node(op, kept), True
    return out


def recording(*inputs: Tensor | None) -> bool:
    """Whether an operation on these inputs would be recorded now."""
    return _recording.get() and any(t is not None and t.requires_grad for t in inputs)


@contextmanager
def no_grad() -> Iterator[None]:
    """Compute without recording: nothing is kept for a backward pass that will not come."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


def is_recording() -> bool:
    """Whether operations are recorded now: not inside `no_grad`."""
    return _recording.get()


def as_tensor(value: Any, dtype: Any = None) -> Tensor:
    """`value` if it is a Tensor, else a constant: a copy where a gradient may need it later."""
    if isinstance(value, Tensor):
        return value
    return Tensor((np.array if _recording.get() else np.asarray)(value, dtype=dtype))


def backward(y: Tensor, inputs: Sequence[Tensor], cotangent: Any = None) -> list[Array]:
    """Gradients of <cotangent, y> with respect to each of `inputs`, in one walk back from y.

    Why must tensors be visited in topological order? Take

    >>> a = Tensor(3.0, requires_grad=True)
    >>> b = a + a
    >>> c = b + b
    >>> backward(c, [a])
    [array(4.)]

    c sends a gradient to b twice. If b passed the first one on as soon as it came, a would see
    b's gradient before it is complete, and every path would be walked anew: exponential work, or
    a wrong sum. So consumers are counted first, and a tensor waits until all have sent their share.

    Args:
        y: the tensor to start from.
        inputs: tensors with `requires_grad`; those that y does not depend on get zeros.
        cotangent: dL/dy, of y's shape; 1 when y is a scalar.

    The record is used up: what each step kept is released as soon as it has been used, so the
    peak of memory is that of the forward pass. To differentiate again, compute again.
    Raises ValueError for a cotangent of another shape, a missing one, an input that does not
    require a gradient, a record that is used up, or a vjp that returns the wrong shape or dtype
    (naming the operation and the input).
    """
    for i, tensor in enumerate(inputs):
        if not tensor.requires_grad:
            raise ValueError(f"input {i} of backward does not require a gradient: {tensor!r}")
    gradients: dict[int, Array] = {id(y): _first_cotangent(y, cotangent)}
    made_here: set[int] = set()  # ids whose array was allocated here, and may be added into
    waiting_for = _count_consumers(y)
    wanted = {id(tensor) for tensor in inputs}
    ready = [y]
    while ready:
        tensor = ready.pop()
        if tensor.node is None:
            continue
        key = id(tensor)
        g = gradients[key] if key in wanted else gradients.pop(key)
        edges, tensor.node.edges = tensor.node.edges, None
        assert edges is not None  # _count_consumers has looked
        for number, (source, vjp) in enumerate(edges):
            share = _fit(vjp(g), source, tensor.node.op, number)
            key = id(source)
            if key not in gradients:
                gradients[key] = share
            elif key in made_here:
                gradients[key] += share
            else:  # the first share may be an array that somebody else still reads
                gradients[key] = gradients[key] + share
                made_here.add(key)
            waiting_for[key] -= 1
            if waiting_for[key] == 0:
                ready.append(source)
    # Zeros are made only where they are needed: of a large Dense they take as long as its product.
    return [
        np.asarray(gradients[id(t)] if id(t) in gradients else np.zeros_like(t.storage))
        for t in inputs
    ]


def _first_cotangent(y: Tensor, cotangent: Any) -> Array:
    if cotangent is None:
        if y.storage.size != 1:
            needs = f"backward from a tensor of shape {y.shape} needs a cotangent of that shape"
            raise ValueError(f"{needs}; only a scalar has a default")
        return np.ones_like(y.storage)
    cotangent = np.asarray(cotangent, dtype=y.dtype, order="C")
    if cotangent.shape != y.shape:
        raise ValueError(f"cotangent has shape {cotangent.shape}, but y has shape {y.shape}")
    return cotangent


def _count_consumers(y: Tensor) -> dict[int, int]:
    """For every tensor that y depends on, the number of edges that lead to it."""
    counts: dict[int, int] = {}
    stack = [y]
    while stack:
        tensor = stack.pop()
        if tensor.node is None:
            continue
        if tensor.node.edges is None:
            used = f"the record of {tensor.node.op!r} has been used up by an earlier backward"
            raise ValueError(f"{used}; compute the result again to differentiate it again")
        for source, _ in tensor.node.edges:
            seen_before = id(source) in counts
            counts[id(source)] = counts.get(id(source), 0) + 1
            if not seen_before:
                stack.append(source)
    return counts


def _fit(gradient: Array, source: Tensor, op: str, number: int) -> Array:
    """Undo broadcasting, and make sure that the gradient is one for `source`."""
    shape = source.storage.shape
    if gradient.shape != shape:
        extra = gradient.ndim - len(shape)
        stretched = tuple(range(max(extra, 0))) + tuple(
            extra + i for i, n in enumerate(shape) if extra >= 0 and n == 1
        )
        if stretched:
            gradient = gradient.sum(axis=stretched, keepdims=True)
            gradient = gradient.reshape(gradient.shape[max(extra, 0) :])
    if gradient.shape != shape or gradient.dtype != source.storage.dtype:
        given = f"{op!r} returned a gradient of shape {gradient.shape}, {gradient.dtype}"
        needed = f"for its differentiable input {number}, which has shape {shape}, {source.dtype}"
        raise ValueError(f"{given} {needed}")
    return gradient
