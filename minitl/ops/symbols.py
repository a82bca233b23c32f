"""Functions of this folder become steps of a model's graph on symbolic tensors: all public ones.

A file calls this at its end, with its globals. `layers/operations.py` has the steps.
"""

from typing import Any

from minitl.ops import symbolic_too

__all__: list[str] = []


def all_symbolic_too(names: dict[str, Any]) -> None:
    """`symbolic_too` for all public functions of a file, whose globals these are."""
    for name, function in list(names.items()):
        own = getattr(function, "__module__", "") == names["__name__"]
        if own and callable(function) and not isinstance(function, type) and name[0] != "_":
            names[name] = symbolic_too(function)
