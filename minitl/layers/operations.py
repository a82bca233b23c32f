"""Arithmetic in a model's graph: `x / 127.5 - 1`, `a + b`, `x[:, 1:]`, `ops.mean(x, axis=1)`.

An op that is called on symbolic tensors becomes a call of an `Operation`, a layer without weights
that calls the op on numbers when there are some. Its settings are the op's name and what it was
given beside tensors, so that a saved model has it again.
"""

from collections.abc import Callable
from typing import Any

from minitl import ops
from minitl.autograd import Symbolic, Tensor, as_tensor
from minitl.layers.base import Layer
from minitl.naming import elsewhere, part, refuse_foreign, unique_name

__all__ = ["Operation"]


class Operation(Layer, several_inputs=None):
    """Calls the op of that name. In its arguments {'tensor': i} stands for the i-th input."""

    compute_output_shape = elsewhere("own layers", "output_shape")

    def __init__(self, op: str, arguments: Any, keywords: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.op, self.arguments, self.keywords = op, arguments, keywords or {}
        self._function = getattr(ops, op)

    def as_input(self, x: Any) -> Tensor:
        return as_tensor(x)  # of any dtype

    def call(self, x: Any) -> Any:
        inputs = x if isinstance(x, list) else [x]

        def filled(value: Any) -> Any:
            if isinstance(value, dict):
                if "tensor" in value:
                    return inputs[value["tensor"]]
                if "slice" in value:
                    return slice(*value["slice"])
                if "tuple" in value:
                    return tuple(filled(each) for each in value["tuple"])
                if "ellipsis" in value:
                    return ...
            return [filled(each) for each in value] if isinstance(value, list) else value

        return self._function(
            *filled(list(self.arguments)), **{k: filled(v) for k, v in self.keywords.items()}
        )


OPERATORS = {"sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power"}
OPERATORS |= {"neg": "negative", "lt": "less", "le": "less_equal", "gt": "greater"}
OPERATORS |= {"ge": "greater_equal"}


def operate(operator: str, *given: Any) -> Any:
    """What an operator of Python's does: 'add', or 'radd' where the symbolic tensor is right."""
    if operator[0] == "r":
        operator, given = operator[1:], given[::-1]
    return getattr(ops, OPERATORS.get(operator, operator))(*given)


# Keras's names of the layers that operators make.
NAMES = {"divide": "true_divide", "getitem": "get_item"}


def write_down(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """The symbolic result of an op on these arguments, some of which are symbolic tensors."""
    inputs: list[Any] = []
    name = function.__name__

    def described(value: Any) -> Any:
        if isinstance(value, Symbolic):
            inputs.append(value)
            return {"tensor": len(inputs) - 1}
        if isinstance(value, slice):
            return {"slice": [value.start, value.stop, value.step]}
        if isinstance(value, tuple):
            return {"tuple": [described(each) for each in value]}
        if value is ...:
            return {"ellipsis": True}
        if isinstance(value, list):
            return [described(each) for each in value]
        refuse_foreign(value, name)
        if hasattr(value, "__array__"):
            return part("settings").serialize(value.tolist() if hasattr(value, "tolist") else value)
        return value

    given = described(list(args)), {key: described(value) for key, value in kwargs.items()}
    layer = Operation(name, *given, name=unique_name(NAMES.get(name, name)))
    return layer(inputs if len(inputs) > 1 else inputs[0])
