"""Kernels of the user's own: what `use_kernels(conv2d=mine)` does with `mine`.

`mine` takes the arrays and the geometry that the formula takes, in its order: `conv2d(x, kernel,
bias, geometry)`. What else the formula can be told (`cache`, say) is passed on if `mine` has a
parameter of that name. If it has none, a fused activation is applied to its result, hints are left
out, and anything else that is asked for is an error. A kernel that is made of others, such as the
convolution with a pool behind it, is made of one's own where it has a part that is.
"""

import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any

from minitl import kernels
from minitl.kernels.geometry import Array, Geometry, sliding
from minitl.kernels.reference import bias_and_activation

__all__: list[str] = []
HINTS = ("cache", "recorded", "precise", "lasting")  # that change no result beyond rounding


def conv2d_max_pool2d(
    x: Array, kernel: Array, bias: Array | None, geometry: Geometry, activation: str | None, *_: Any
) -> Array:
    y = kernels.conv2d(x, kernel, bias, geometry, activation)
    return kernels.max_pool2d(y, sliding(geometry.out_size, (2, 2), (2, 2), "valid"))


def max_pool2d(x: Array, geometry: Geometry) -> Array:
    return kernels.max_pool2d_with_winners(x, geometry)[0]


def bias_relu_gradient(g: Array, y: Array) -> tuple[Array, Array]:
    dz = kernels.relu_gradient(g, y)
    return dz, kernels.bias_gradient(dz)


MADE_OF = {
    conv2d_max_pool2d: ("conv2d", "max_pool2d", "max_pool2d_with_winners"),
    max_pool2d: ("max_pool2d_with_winners",),
    bias_relu_gradient: ("relu_gradient", "bias_gradient"),
}


def fitted(functions: kernels.Functions) -> kernels.Functions:
    """The functions as they can be called in the kernels' places, and those made of them.

    Raises ValueError for a name that no kernel has, and for a function of other arguments.
    """
    found = {name: _fit(name, function) for name, function in functions.items()}
    for whole, parts in MADE_OF.items():
        if functions.keys() & set(parts):
            found.setdefault(whole.__name__, whole)  # type: ignore[arg-type]
    return found


def _fit(name: str, mine: Callable[..., Any]) -> Callable[..., Any]:
    formula = getattr(getattr(kernels, name, None), "formula", None)
    if formula is None:
        names = [n for n in dir(kernels) if hasattr(getattr(kernels, n), "formula")]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(names)}."
        raise ValueError(f"there is no kernel {name!r} to put a function in for. {hint}")
    if not callable(mine):
        raise ValueError(f"{name}={mine!r}: a function was expected")
    signature = inspect.signature(formula)
    arrays = [p.name for p in signature.parameters.values() if p.default is p.empty]
    own = inspect.signature(getattr(mine, "py_func", mine))  # what Numba compiled has one
    by_name = [n for n in own.parameters if n in signature.parameters and n not in arrays]
    try:
        own.bind(*arrays, **dict.fromkeys(by_name))
    except TypeError as error:
        takes = f"it is called with ({', '.join(arrays)}), but yours takes {own}"
        raise ValueError(f"your function for {name} does not fit: {takes} ({error})") from None
    takes_all = any(p.kind is p.VAR_KEYWORD for p in own.parameters.values())

    @functools.wraps(formula)
    def called(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        first = [given.pop(a) for a in arrays]
        known = {n: given.pop(n) for n in list(given) if takes_all or n in by_name}
        activation = given.pop("activation", None)
        for n in given.keys() - set(HINTS):
            if given[n] != signature.parameters[n].default:
                what = f"{n}={given[n]!r} is asked of {name}"
                raise ValueError(f"{what}, but your function for it has no argument {n!r}")
        y = mine(*first, **known)
        return bias_and_activation(y, None, activation)

    return called
