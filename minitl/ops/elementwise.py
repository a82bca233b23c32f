"""Keras's functions of single numbers, comparisons, and arrays made from nothing.

Most are NumPy's function and its derivative, a line each. What tells or counts (comparisons,
argmax, rounding) has no derivative, and gives Tensors without a record. Arrays from Python's
numbers are float32 and int32, as Keras's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minitl import config, ops
from minitl.autograd import Array, Tensor, as_tensor, record
from minitl.ops import clip, log, together
from minitl.ops.arrays import sigmoid_cross_entropy
from minitl.ops.symbols import all_symbolic_too


def convert_to_tensor(x: Any, dtype: Any = None) -> Tensor:
    """x as a Tensor: Python's numbers as float32 or int32, arrays as they are."""
    if isinstance(x, Tensor):
        return x if dtype is None else cast(x, dtype)
    if isinstance(x, (list, tuple)) and [each for each in x if isinstance(each, Tensor)]:
        x = np.stack([np.asarray(each) for each in x])
    found = np.asarray(x)
    while isinstance(x, (list, tuple)) and x:
        x = x[0]
    if dtype is None and not isinstance(x, (np.ndarray, np.generic)):
        default = {"f": config.floatx(), "i": "int32"}
        dtype = default.get(found.dtype.kind)
    return Tensor(found if dtype is None else found.astype(dtype))


array = convert_to_tensor


def convert_to_numpy(x: Any) -> Array:
    """A copy of the numbers."""
    return np.array(x)


def cast(x: Any, dtype: Any) -> Tensor:
    """The same numbers in another dtype; the gradient comes back in x's."""
    x = as_tensor(x)
    y = x.storage.astype(dtype, copy=False)
    if y.dtype.kind != "f":
        return Tensor(y)
    return record("cast", y, (x, lambda g: g.astype(x.dtype, copy=False)))


def shape(x: Any) -> tuple[int, ...]:
    """The sizes of x's axes."""
    return tuple(x.shape if hasattr(x, "shape") else np.shape(x))


def ndim(x: Any) -> int:
    """The number of x's axes."""
    return len(shape(x))


def size(x: Any) -> int:
    """How many numbers x has."""
    return int(np.prod(shape(x)))


def is_tensor(x: Any) -> bool:
    """Whether x is a Tensor."""
    return isinstance(x, Tensor)


def stop_gradient(x: Any) -> Tensor:
    """The same numbers, through which no gradient passes."""
    return Tensor(as_tensor(x).storage)


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    """x where the condition holds, else y; without them, the places where it does."""
    c = np.asarray(condition).astype(bool)
    if x is None:
        return tuple(Tensor(places) for places in np.nonzero(c))
    a, b = together(floats(x) if np.ndim(x) == 0 else x, y)
    data = np.where(c, a.storage, b.storage)

    def side(here: Array) -> Callable[[Array], Array]:
        return lambda g: np.where(here, g, np.zeros((), g.dtype))

    return record("where", data, (a, side(c)), (b, side(~c)))


def floats(x: Any) -> Tensor:
    """x as a Tensor of floats: numbers of other kinds become floatx."""
    x = convert_to_tensor(x)
    return x if x.dtype.kind == "f" else Tensor(x.storage.astype(config.floatx()))


def _elementwise(name: str, f: Any, slope: Callable[[Array, Array], Any], text: str) -> Any:
    def function(x: Any) -> Tensor:
        x = floats(x)
        a = x.storage
        y = f(a)
        return record(name, y, (x, lambda g: (g * slope(a, y)).astype(a.dtype, copy=False)))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"y = {text}, number by number."
    return function


square = _elementwise("square", np.square, lambda x, y: 2 * x, "x^2")
rsqrt = _elementwise("rsqrt", lambda x: 1 / np.sqrt(x), lambda x, y: -y / (2 * x), "1 / sqrt(x)")
reciprocal = _elementwise("reciprocal", lambda x: 1 / x, lambda x, y: -y * y, "1 / x")
log1p = _elementwise("log1p", np.log1p, lambda x, y: 1 / (1 + x), "ln(1 + x)")
log2 = _elementwise("log2", np.log2, lambda x, y: 1 / (x * np.log(2)), "log2(x)")
log10 = _elementwise("log10", np.log10, lambda x, y: 1 / (x * np.log(10)), "log10(x)")
expm1 = _elementwise("expm1", np.expm1, lambda x, y: y + 1, "e^x - 1")
sin = _elementwise("sin", np.sin, lambda x, y: np.cos(x), "sin x")
cos = _elementwise("cos", np.cos, lambda x, y: -np.sin(x), "cos x")
tan = _elementwise("tan", np.tan, lambda x, y: 1 + y * y, "tan x")
arctan = _elementwise("arctan", np.arctan, lambda x, y: 1 / (1 + x * x), "arctan x")
sinh = _elementwise("sinh", np.sinh, lambda x, y: np.cosh(x), "sinh x")
cosh = _elementwise("cosh", np.cosh, lambda x, y: np.sinh(x), "cosh x")


def erf(x: Any) -> Tensor:
    """The error function, number by number."""
    from scipy.special import erf as function

    return _elementwise("erf", function, lambda a, y: 2 / np.pi**0.5 * np.exp(-a * a), "erf x")(x)


def gelu(x: Any, approximate: bool = True) -> Tensor:
    """`activations.gelu`, whose default is the exact one, as in Keras."""
    return ops.activation("gelu")(x, approximate)


def binary_crossentropy(target: Any, output: Any, from_logits: bool = False) -> Tensor:
    """-(t log p + (1 - t) log(1 - p)), number by number; the loss of that name takes a mean."""
    y = floats(output)
    t = cast(target, y.dtype)
    if from_logits:
        return sigmoid_cross_entropy(y, t.storage)
    p = clip(y, 1e-7, 1 - 1e-7)
    return -(t * log(p) + (1 - t) * log(1 - p))


def power(x: Any, exponent: Any) -> Tensor:
    """y = x ** exponent; dy/dx = exponent x^(exponent - 1), dy/dexponent = y ln x."""
    number = isinstance(exponent, (int, float, np.integer, np.floating))
    x, e = (as_tensor(x), None) if number else together(x, exponent)
    a, n = x.storage, exponent if e is None else e.storage
    y = np.asarray(a**n)

    def vjp(g: Array) -> Array:  # an exponent of 0 apart: at x = 0 the formula says 0 * inf
        if e is None:
            return g * n * a ** (n - 1) if n else np.zeros_like(g)
        return g * np.where(n == 0, 0, n * np.where(n == 0, 1, a) ** (n - 1))

    return record("power", y, (x, vjp), (e, lambda g: g * y * np.log(np.where(a > 0, a, 1))))


def minimum(x1: Any, x2: Any) -> Tensor:
    """y = the smaller of x1 and x2, with broadcasting. Of equals, x1 gets the gradient."""
    a, b = together(x1, x2)
    first = a.storage <= b.storage
    y = np.where(first, a.storage, b.storage)
    return record("minimum", y, (a, lambda g: g * first), (b, lambda g: g * ~first))


# --- Without a derivative -------------------------------------------------------------------------


def _told(name: str, as_keras: str | None = None) -> Any:
    """NumPy's function of that name, on Tensors; `as_keras`: the dtype that it gives in Keras."""
    of_numpy = getattr(np, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        arrays = [a.storage if isinstance(a, Tensor) else a for a in args]
        found = np.asarray(of_numpy(*arrays, **kwargs))
        return Tensor(found.astype(as_keras or found.dtype, copy=False))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"NumPy's `{name}`."
    return function


TOLD = "equal not_equal less less_equal greater greater_equal isclose logical_and logical_or"
TOLD += " logical_not logical_xor isnan isinf isfinite sign floor ceil round mod floor_divide"
for _name in f"{TOLD} any all isin histogram".split():
    globals()[_name] = _told(_name)
PLACES = "argmax argmin argsort searchsorted bincount count_nonzero digitize"
globals().update({name: _told(name, "int32") for name in PLACES.split()})


def _made(name: str) -> Any:
    """NumPy's function of that name, which makes an array; floats are floatx unless told."""
    of_numpy = getattr(np, name)

    def function(*args: Any, dtype: Any = None, **kwargs: Any) -> Tensor:
        plain = [np.asarray(a) if isinstance(a, Tensor) else a for a in args]
        found = np.asarray(of_numpy(*plain, **kwargs))
        if dtype is None:
            dtype = config.floatx() if found.dtype.kind == "f" else "int32"
        return Tensor(found.astype(dtype, copy=False))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"NumPy's `{name}`, in floatx or int32 unless told."
    return function


zeros, ones, eye, linspace = _made("zeros"), _made("ones"), _made("eye"), _made("linspace")
identity = _made("identity")
arange, full, logspace = _made("arange"), _made("full"), _made("logspace")


def zeros_like(x: Any, dtype: Any = None) -> Tensor:
    """Zeros of x's shape and dtype."""
    return full_like(x, 0, dtype)


def ones_like(x: Any, dtype: Any = None) -> Tensor:
    """Ones of x's shape and dtype."""
    return full_like(x, 1, dtype)


def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Tensor:
    """The value in x's shape and dtype."""
    return Tensor(np.full_like(convert_to_tensor(x).storage, np.asarray(fill_value), dtype=dtype))


def one_hot(x: Any, num_classes: int, axis: int = -1, dtype: Any = None) -> Tensor:
    """Integers (...) as rows (..., num_classes) with a 1 each; those outside have none."""
    labels = np.asarray(x).astype(np.int64)
    hot = (labels[..., None] == np.arange(num_classes)).astype(dtype or config.floatx())
    return Tensor(np.moveaxis(hot, -1, axis))


def cond(pred: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]) -> Any:
    """What one of two functions returns."""
    return true_fn() if bool(np.asarray(pred)) else false_fn()


all_symbolic_too(globals())
