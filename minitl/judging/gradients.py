"""Are the gradients right? `backward` beside finite differences, and the tape printed.

Whoever adds an op or a layer checks it with `check_gradients(f, inputs)`, where f takes Tensors and
gives a Tensor. All compute in float64. How `backward` works stands in `minitl/autograd.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minitl.autograd import Array, Tensor, backward, no_grad
from minitl.models.arguments import guard
from minitl.naming import Natural, Positive


def gradient_errors(
    f: Callable[..., Tensor], inputs: Sequence[Array], seed: Natural = 0, step: Positive = 1e-5
) -> list[float]:
    """How far `backward` is from a central difference, for each input of f.

    For a random cotangent c and a random unit direction d the two sides of

        <vjp(c), d>  =  d/dh <c, f(x + h d)>   at h = 0

    are computed in float64, the right one as a central difference with `step`; returned is
    |left - right| / (|c| |f(x + h d) - f(x - h d)| / 2h), the gap relative to the size of what is
    compared. A cotangent of ones cannot see a gradient whose entries are permuted.
    """
    arrays = [np.array(a, dtype=np.float64) for a in inputs]
    rng = np.random.default_rng(seed)
    tensors = [Tensor(a, requires_grad=True) for a in arrays]
    y = f(*tensors)
    cotangent = rng.standard_normal(y.shape)
    gradients = backward(y, tensors, cotangent)
    errors = []
    for i, gradient in enumerate(gradients):
        direction = rng.standard_normal(arrays[i].shape)
        direction /= np.linalg.norm(direction)
        moved = []
        for h in (step, -step):
            with no_grad():
                y = f(*(Tensor(a + direction * h if j == i else a) for j, a in enumerate(arrays)))
            moved.append(y.storage)
        change = (moved[0] - moved[1]) / (2 * step)
        expected, got = np.vdot(cotangent, change), np.vdot(gradient, direction)
        scale = np.linalg.norm(cotangent) * np.linalg.norm(change)
        errors.append(float(abs(got - expected) / max(scale, np.finfo(np.float64).tiny)))
    return errors


def check_gradients(
    f: Callable[..., Tensor], inputs: Sequence[Array], seed: Natural = 0, tolerance: Positive = 1e-6
) -> None:
    """Raise AssertionError, naming the input, unless all `gradient_errors` are within tolerance.

    >>> check_gradients(lambda a, b: a * b, [np.array([1.0, 2.0]), np.array([3.0, 4.0])])
    """
    for i, error in enumerate(gradient_errors(f, inputs, seed)):
        if not error <= tolerance:
            what = f"the gradient for input {i} is off by {error:.2e} (relative)"
            raise AssertionError(f"{what}; allowed are {tolerance:.0e}")


def tape(y: Tensor) -> Iterator[tuple[Tensor, str, list[int]]]:
    """What y was computed from, every tensor after those it depends on and y last: (tensor, the
    name of its op, the numbers of its inputs in this order)."""
    numbers: dict[int, int] = {}
    stack: list[tuple[Tensor, bool]] = [(y, False)]
    while stack:
        tensor, inputs_done = stack.pop()
        if id(tensor) in numbers:
            continue
        edges = (tensor.node.edges or ()) if tensor.node else ()
        if not inputs_done:
            stack.append((tensor, True))
            stack.extend((source, False) for source, _ in reversed(edges))
            continue
        numbers[id(tensor)] = len(numbers)
        name = tensor.node.op if tensor.node else getattr(tensor, "name", "leaf")
        yield tensor, name, [numbers[id(source)] for source, _ in edges]


def print_graph(y: Tensor, file: Any = None) -> None:
    """Print how y was computed, one line per tensor, every tensor after those it depends on.

    >>> a = Tensor([1.0, 2.0], requires_grad=True)
    >>> print_graph((a * a).sum())
    #0 leaf (2,)
    #1 multiply (2,) <- #0, #0
    #2 sum () <- #1
    """
    for number, (tensor, name, inputs) in enumerate(tape(y)):
        line = f"#{number} {name} {tensor.shape}"
        if inputs:
            line += " <- " + ", ".join(f"#{source}" for source in inputs)
        elif tensor.node and tensor.node.edges is None:
            line += " (used up)"
        print(line, file=file)


guard(globals())
