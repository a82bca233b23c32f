"""The kernels, and the ONE place that chooses between a formula and its fast twin.

A kernel is plain arithmetic on arrays. Each has a formula: those that VGG16 needs stand in
`reference.py`, the others in files beside it. Most have a twin of the same name and parameters in
`fast/`, made of compiled loops; `@twin` registers it. What this package exports under the name is a
switch: it calls the twin, or the formula after `use_kernels("reference")`. The twins are imported
when the first is called: `import minitl` need not wait for Numba. Read `reference.py` next.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from minitl.kernels import reference

if TYPE_CHECKING:
    from minitl.kernels.activations import *
    from minitl.kernels.average_pooling import *
    from minitl.kernels.depthwise import *
    from minitl.kernels.images import *
    from minitl.kernels.normalization import *
    from minitl.kernels.recurrence import *
    from minitl.kernels.residual import *

P = ParamSpec("P")
R = TypeVar("R")

KERNELS = ("reference", "fast", "direct", "precise")
Functions = dict[str, Callable[..., Any]]
# Of each thread its own: one of KERNELS, and the functions of the user's own by their names.
chosen: ContextVar[tuple[str, Functions]] = ContextVar("kernels", default=("fast", {}))
# Whether a row of a product may have other last bits beside other rows, which takes less time.
rows_apart = ContextVar("rows_apart", default=False)
TWINS: Functions = {}  # filled as the files of `fast/` are imported


def current_kernels() -> str:
    """Which kernels run now, in this thread: one of KERNELS."""
    return chosen.get()[0]


class use_kernels:
    """Switch all kernels of this thread: 'reference', 'fast', 'direct', or 'precise'; or put in
    functions of one's own, `use_kernels(conv2d=mine)` (`own.py` says what they are called with).

    'direct' is 'fast' with im2col for every convolution, to see what the other algorithms bring.

    'precise' is 'fast' with float64 inside every convolution of which a gradient will be asked:
    its outputs decide what passes ReLU, and what is the largest under a window. Where all of VGG16
    is trained, its gradients then differ from those of float64 by 1e-5, instead of 3e-4, and a step
    takes 1.3 times as long. All else is computed as with 'fast'.

    As a plain call it holds until the next; as a context manager, until the block is left. A word
    takes all own functions out. Each thread, and task of asyncio, has a choice: at first 'fast'.

    Raises ValueError for any other word, for a kernel that there is not, and a wrong signature.

    >>> with use_kernels("reference"):
    ...     current_kernels()
    'reference'
    """

    def __init__(self, which: str | None = None, **functions: Callable[..., Any]) -> None:
        if which not in (None, *KERNELS):
            raise ValueError(f"kernels are {', '.join(map(repr, KERNELS))}, got {which!r}")
        self._before = before, own = chosen.get()
        if functions:
            functions = importlib.import_module("minitl.kernels.own").fitted(functions)
        chosen.set((which or before, functions if which else own | functions))

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        chosen.set(self._before)


def twin(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: this is the fast twin of the kernel of its name."""
    TWINS[function.__name__] = function
    return function


def switching(formula: Callable[P, R], room: str = "minitl.kernels.fast") -> Callable[P, R]:
    """The kernel of a formula (kernel.formula): it calls the twin, which `room` registers."""
    name = formula.__name__

    @functools.wraps(formula)
    def kernel(*args: P.args, **kwargs: P.kwargs) -> R:
        which, own = chosen.get()
        if which == "reference" or name in own:
            return own.get(name, formula)(*args, **kwargs)
        if name not in TWINS:
            importlib.import_module(room)
        return TWINS.get(name, formula)(*args, **kwargs)

    kernel.formula = formula  # type: ignore[attr-defined]
    return kernel


conv2d = switching(reference.conv2d)
conv2d_input_gradient = switching(reference.conv2d_input_gradient)
conv2d_kernel_gradient = switching(reference.conv2d_kernel_gradient)
conv2d_max_pool2d = switching(reference.conv2d_max_pool2d)
max_pool2d = switching(reference.max_pool2d)
max_pool2d_with_winners = switching(reference.max_pool2d_with_winners)
max_pool2d_gradient = switching(reference.max_pool2d_gradient)
dense = switching(reference.dense)
dense_input_gradient = switching(reference.dense_input_gradient)
dense_kernel_gradient = switching(reference.dense_kernel_gradient)
bias_gradient = switching(reference.bias_gradient)
relu = switching(reference.relu)
relu_gradient = switching(reference.relu_gradient)
bias_relu_gradient = switching(reference.bias_relu_gradient)
sgd_update = switching(reference.sgd_update)
adam_update = switching(reference.adam_update)
all_finite = switching(reference.all_finite)


softmax = switching(reference.softmax)
softmax_cross_entropy = switching(reference.softmax_cross_entropy)
softmax_gradient = switching(reference.softmax_gradient)  # the formula is fast enough: no twin

# These twins need no Numba, which making a model must not wait for.
empty = switching(reference.empty, "minitl.kernels.machine.memory")
copy = switching(reference.copy, "minitl.kernels.machine.memory")
zeros_like = switching(reference.zeros_like, "minitl.kernels.machine.memory")


@functools.cache
def __getattr__(name: str) -> Any:
    """A kernel whose formula has a file of its own: found there when it is first asked for."""
    for file in pkgutil.iter_modules(__path__, f"{__name__}."):  # noqa: F405
        if not file.ispkg and not name.startswith("_"):
            found = getattr(importlib.import_module(file.name), name, None)
            if getattr(found, "__module__", "") == file.name:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
