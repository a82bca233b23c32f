"""Stages 1 to 12, arithmetic on arrays: minitl's right functions, and cases to try them on.

Where a stage asks for the very function that minitl has, `right` is that function. Where it asks
for another form (a gradient that comes as a function, say), minitl's is brought into it here.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minitl import autograd, ops
from minitl.autograd import Tensor
from minitl.kernels import reference
from minitl.kernels.geometry import Geometry, sliding
from minitl.study.results import Array, Case, Part, WrongNumber

Rng = np.random.Generator

# --- Random cases ---------------------------------------------------------------------------------

WINDOWS = (  # N H W C F, the window, its strides, padding
    (1, 4, 4, 1, 1, (1, 1), (1, 1), "valid"),
    (1, 5, 5, 1, 1, (3, 3), (1, 1), "same"),
    (2, 5, 6, 3, 4, (3, 3), (1, 1), "same"),
    (2, 6, 5, 2, 3, (3, 2), (1, 1), "valid"),
    (1, 7, 8, 2, 3, (3, 3), (2, 2), "same"),
    (3, 8, 7, 1, 2, (2, 3), (2, 1), "same"),
    (2, 6, 6, 3, 1, (2, 2), (2, 2), "valid"),
    (2, 7, 6, 2, 2, (4, 3), (1, 2), "same"),
    (1, 6, 7, 4, 2, (1, 3), (1, 1), "same"),
    (5, 9, 9, 2, 3, (3, 3), (3, 3), "valid"),  # more images than places in a row or column
    (3, 5, 5, 3, 3, (3, 3), (1, 1), "same"),
    (2, 6, 6, 2, 2, (3, 3), (2, 1), "same"),
)


def windows(*wanted: str) -> Callable[[Rng], Iterator[Case]]:
    """Cases of sliding windows, of the arguments that are wanted, in this order."""

    def cases(rng: Rng) -> Iterator[Case]:
        for number, (n, h, w, c, f, window, strides, padding) in enumerate(WINDOWS):
            geometry = sliding((h, w), window, strides, padding)
            dtype = np.float32 if number == 2 else np.float64
            shapes = {
                "x": (n, h, w, c),
                "kernel": (*window, c, f),
                "bias": (f,),
                "g": (n, *geometry.out_size, f),
            }
            drawn: dict[str, Any] = {
                key: rng.standard_normal(shape).astype(dtype) for key, shape in shapes.items()
            }
            drawn["bias"] = None if number % 4 == 3 else drawn["bias"]
            yield "", {key: (drawn | {"geometry": geometry})[key] for key in wanted}

    return cases


def parameters(formula: Any) -> list[str]:
    """The arguments of a formula that have no default: what a learner's function takes."""
    known = inspect.signature(formula).parameters.values()
    return [p.name for p in known if p.default is p.empty]


def normal(*shapes: dict[str, Any]) -> Callable[[Rng], Iterator[Case]]:
    """Cases of normal numbers in arrays of these shapes; what is no tuple is given as it is."""

    def cases(rng: Rng) -> Iterator[Case]:
        for case in shapes:
            given = dict(case)
            label = given.pop("label", "")
            kind = np.float32 if label == "float32" else np.float64
            for name, value in case.items():
                if type(value) is tuple:
                    given[name] = rng.standard_normal(value).astype(kind)
            yield label, given

    return cases


# --- 1 to 4 ---------------------------------------------------------------------------------------


def multiply(a: Array, b: Array) -> tuple[Array, Callable[[Array], Any]]:
    tensors = [Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)]
    y = ops.multiply(*tensors)
    return y.data, lambda g: autograd.backward(y, tensors, g)


def gradients_too(function: Any, *, g: Array, **given: Any) -> tuple[Any, ...]:
    """y of a function that returns (y, gradient), and what gradient(g) gives."""
    found = function(*given.values())
    if not isinstance(found, (tuple, list)):
        raise WrongNumber("returned one result, expected y and a function `gradient`")
    return found[0], *found[-1](g)


def on_tape(function: Any, tape: Callable[..., Tensor], a: Array, b: Array) -> tuple[Any, ...]:
    inputs = [Tensor(a, requires_grad=True), Tensor(b, requires_grad=True)]
    if tape is TAPES[FROM_RESULT]:
        inputs[0] = inputs[0] * 1.0
    y: Any = tape(*inputs)
    node, edges = y.node, y.node.edges
    found = tuple(function(y, inputs))
    if function is not autograd.backward and (y.node is not node or node.edges is not edges):
        raise WrongNumber(
            "returned the gradients, but y.node is not what it was: do not change tensors"
        )
    return found


def repeated(step: Callable[[Tensor], Tensor], times: int) -> Callable[..., Tensor]:
    def tape(a: Tensor, b: Tensor) -> Tensor:
        for _ in range(times):
            a = step(a)
        return (a * b).sum()

    return tape


def _diamond(a: Tensor, b: Tensor) -> Tensor:
    c = a * b
    d = c + c
    return (d * c + d).sum()


FROM_RESULT = "a is no leaf, but a result itself"
TAPES: dict[str, Callable[..., Tensor]] = {
    "y = sum of a * b": lambda a, b: (a * b).sum(),
    "a is used twice: a + a": lambda a, b: (a + a + b).sum(),
    "one gradient for two inputs: a + b": lambda a, b: ((a + b) + a * b).sum(),
    "a result is used by several": _diamond,
    "y does not depend on b": lambda a, b: (a * 3.0).sum(),
    "constants take part": lambda a, b: (a * np.ones((3, 4)) - b / 2.0).sum(),
    FROM_RESULT: lambda a, b: (a * b + a).sum(),
    "25 doublings: 2^25 ways, if what is not complete is passed on": repeated(
        lambda x: 0.5 * (x + x), 25
    ),
    "a chain of 3,000 steps": repeated(lambda x: x + 0.001, 3000),
}


def probabilities(rng: Rng) -> Iterator[Case]:
    for n, m, size, label in (
        (1, 2, 1, ""),
        (4, 3, 1, ""),
        (3, 3, 1, "soft targets"),
        (5, 10, 3, ""),
        (2, 4, 1000, "logits of 1,000"),
        (3, 4, -1000, "logits of -1,000"),
        (3, 4, 1, "rows that are 1,000 apart"),
        (3, 5, 1, "float32"),
    ):
        logits = rng.standard_normal((n, m))
        logits = logits * size if size > 0 else logits + size
        if "apart" in label:
            logits += 1000 * np.arange(n)[:, np.newaxis]
        targets = np.eye(m)[rng.integers(0, m, n)]
        if label == "soft targets":
            targets = rng.dirichlet(np.ones(m), n)
        kind = np.float32 if label == "float32" else np.float64
        yield label, {"logits": logits.astype(kind), "targets": targets.astype(kind)}


DENSE = ((1, 2, 3), (4, 3, 2), (3, 3, 3), (5, 7, 4), (6, 1, 2))
PAIRS = (
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((3, 4), (3, 1)),
    ((2, 3, 4), (1, 4)),
    ((1, 4), (3, 1)),
    ((4,), (2, 3, 4)),
    ((3, 3), (3, 3)),
    ((3, 4), ()),
    ((2, 1, 4), (3, 1)),
)

# --- 8, 10, 11, 12 --------------------------------------------------------------------------------


def columns(x: Array, geometry: Geometry) -> Array:
    padded = reference.pad(x, geometry)
    places = reference.window_places(geometry)
    seen = [reference.seen_from(padded, geometry, *place) for place in places]
    return np.stack(seen, axis=3).reshape(len(x) * seen[0].shape[1] * seen[0].shape[2], -1)


def correlate(padded: Array, kernel: Array, sh: int, sw: int) -> Array:
    geometry = sliding(padded.shape[1:3], kernel.shape[:2], (sh, sw), "valid")
    return reference.conv2d(padded, kernel, None, geometry)


def compiled(function: Any, **given: Any) -> tuple[Any, Array]:
    done = function is correlate or hasattr(function, "py_func")
    return function(*given.values()), np.array(done)


class Counted:
    """A number that counts how often one of d was multiplied by one of g."""

    __array_ufunc__ = None
    products = 0

    def __init__(self, value: Any, kind: str):
        self.value, self.kind = value, kind

    def _with(self, other: Any, value: Any) -> "Counted":
        kinds = {self.kind, getattr(other, "kind", self.kind)}
        return Counted(value, self.kind if len(kinds) == 1 else "y")

    def __add__(self, other: Any) -> "Counted":
        return self._with(other, self.value + getattr(other, "value", other))

    def __sub__(self, other: Any) -> "Counted":
        return self._with(other, self.value - getattr(other, "value", other))

    def __rsub__(self, other: Any) -> "Counted":
        return Counted(other - self.value, self.kind)

    def __mul__(self, other: Any) -> "Counted":
        if isinstance(other, Counted):
            Counted.products += 1
            if (self.kind, other.kind) != ("d", "g"):
                raise TypeError(
                    f"{self.kind}'s side * {other.kind}'s side, not d's side * g's side"
                )
            matrices = np.ndim(self.value) == 2
            return Counted(self.value @ other.value if matrices else self.value * other.value, "y")
        return Counted(self.value * other, self.kind)

    def __truediv__(self, other: Any) -> "Counted":
        return Counted(self.value / other, self.kind)

    def __neg__(self) -> "Counted":
        return Counted(-self.value, self.kind)

    __radd__, __rmul__ = __add__, __mul__


def counted(values: Any, kind: str) -> Array:
    """An array (4,) or (4, 4) of numbers, or of arrays at its further axes, as `Counted`."""
    axes = 1 if np.ndim(values) in (1, 3) else 2
    found = np.empty(values.shape[:axes], object)
    for place in np.ndindex(found.shape):
        found[place] = Counted(values[place], kind)
    return found


def counting(function: Any, d: Array, g: Array) -> tuple[Array, Array, Array]:
    """y, how many products it took, and the factor of each d * g in each number of y."""

    def y_of(d: Array, g: Array) -> Array:
        given = counted(d, "d"), counted(g, "g")
        before = [*given[0].flat, *given[1].flat]
        y = np.asarray(function(*given), object)
        if any(a is not b for a, b in zip(before, [*given[0].flat, *given[1].flat], strict=True)):
            raise WrongNumber("changed its argument d or g, which belongs to the caller")
        return np.vectorize(lambda one: float(one.value))(y)

    def units(like: Array) -> Array:
        return np.eye(like.size).reshape(like.size, *like.shape)

    Counted.products = 0
    y, products = y_of(d, g), np.array(Counted.products)
    terms = np.array([[y_of(one, other).ravel() for other in units(g)] for one in units(d)])
    return y, products, terms


def winograd(d: Array, g: Array) -> Array:
    y = np.empty((len(d) - 2,) * d.ndim, object)
    for place in np.ndindex(y.shape):
        seen = d[tuple(slice(i, i + 3) for i in place)]
        products = (a.value * b.value for a, b in zip(seen.flat, g.flat, strict=True))
        y[place] = Counted(sum(products), "y")
    Counted.products = 4**d.ndim
    return y


# --- The stages -----------------------------------------------------------------------------------

PAIR_CASES: list[dict[str, Any]] = [
    {"a": a, "b": b, "g": np.broadcast_shapes(a, b), "label": "float32" * (b == (3, 4))}
    for a, b in PAIRS
]
TAPE_CASES = [{"label": n, "tape": t, "a": (3, 4), "b": (3, 4)} for n, t in TAPES.items()]
DENSE_CASES = [
    {"x": (n, d), "kernel": (d, m), "bias": None if n == 5 else (m,), "g": (n, m)}
    | {"label": "float32" * (n == 6)}
    for n, d, m in DENSE
]
G_SHAPES = ((3, 3), (4, 2), (2, 3, 4, 5), (1, 6), (2, 1, 5, 3))
G_CASES: list[dict[str, Any]] = [{"g": shape} for shape in G_SHAPES]
G_CASES += [{"g": (4, 3), "label": "float32"}]


def of_dense(*names: str) -> Callable[[Rng], Iterator[Case]]:
    return normal(*({name: case[name] for name in (*names, "label")} for case in DENSE_CASES))


def of_winograd(axes: int, meaning: str) -> Part:
    cases = normal(*[{"d": (4,) * axes, "g": (3,) * axes}] * (5 - 2 * axes))
    outputs = {"y": "", "products": "", "terms": ""}
    return Part(
        "winograd",
        winograd,
        cases,
        outputs,
        counting,
        meaning={"terms": meaning},
        source="kernels/fast/winograd_matrices.py winograd_matrices",
    )


def in_windows(rng: Rng) -> Iterator[Case]:
    for label, given in windows("x", "kernel", "geometry")(rng):
        padded = reference.pad(given["x"], given["geometry"])
        sh, sw = given["geometry"].strides
        yield label, {"padded": padded, "kernel": given["kernel"], "sh": sh, "sw": sw}


def pooled(rng: Rng) -> Iterator[Case]:
    for number, (_, given) in enumerate(windows("x", "geometry")(rng)):
        if number % 3 == 1:
            given["x"] = np.round(given["x"])
        yield "equal numbers under a window" * (number % 3 == 1), given
    yield (
        "numbers below zero, with padding",
        {"x": -1 - rng.random((2, 5, 5, 3)), "geometry": sliding((5, 5), (3, 3), (2, 2), "same")},
    )


def won(rng: Rng) -> Iterator[Case]:
    for label, given in pooled(rng):
        y, winners = reference.max_pool2d_with_winners(**given)
        g = rng.standard_normal(y.shape).astype(y.dtype)
        yield label, {"g": g, "winners": winners, "geometry": given["geometry"]}


def kernel(name: str, cases: Any, outputs: dict[str, str], **more: Any) -> Part:
    """A part that is a kernel of minitl's, with its name and arguments."""
    return Part(name, getattr(reference, name), cases, outputs, **more)


OF_A_CONVOLUTION = windows("x", "kernel", "bias", "geometry")
_found = {"y": "", "da": "", "db": ""}
_how: Any = {"source": ops.multiply}
_multiply = Part("multiply", multiply, normal(*PAIR_CASES), _found, gradients_too, **_how)
_found, _how = {"columns": "N*OH*OW KH*KW*C"}, {"source": "kernels/fast/im2col.py conv2d"}
_im2col = Part("im2col", columns, windows("x", "geometry"), _found, **_how)
_found = {"y": "N OH OW F", "compiled": ""}
_how = {"source": "kernels/fast/few_channels.py conv2d"}
_correlate = Part("correlate", correlate, in_windows, _found, compiled, **_how)
PARTS: dict[int, tuple[Part, ...]] = {
    1: (_multiply,),
    2: (Part("backward", autograd.backward, normal(*TAPE_CASES), {"da": "", "db": ""}, on_tape),),
    3: (kernel("softmax_cross_entropy", probabilities, {"losses": "N", "p": "N m"}),),
    4: (
        kernel("dense", of_dense("x", "kernel", "bias"), {"y": "N m"}),
        kernel("dense_input_gradient", of_dense("g", "kernel"), {"dx": "N D"}),
        kernel("dense_kernel_gradient", of_dense("x", "g"), {"dkernel": "D m"}),
        kernel("bias_gradient", normal(*G_CASES), {"db": "F"}),
    ),
    5: (kernel("conv2d", OF_A_CONVOLUTION, {"y": "N OH OW F"}),),
    6: (kernel("conv2d_input_gradient", windows("g", "kernel", "geometry"), {"dx": "N H W C"}),),
    7: (kernel("conv2d_kernel_gradient", windows("x", "g", "geometry"), {"dkernel": "KH KW C F"}),),
    8: (_im2col,),
    9: (
        kernel("max_pool2d_with_winners", pooled, {"y": "N OH OW C", "winners": "N OH OW C"}),
        kernel("max_pool2d_gradient", won, {"dx": "N H W C"}),
    ),
    10: (_correlate,),
    11: (of_winograd(1, "terms[i, k, o] is the factor of d[i] * g[k] in y[o]"),),
    12: (of_winograd(2, "terms[4*i + j, 3*k + l, 2*a + b]: of d[i, j] * g[k, l] in y[a, b]"),),
}
