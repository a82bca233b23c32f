"""Models: a graph of layer calls (`graph`), how it predicts and how it learns (`model`)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitl.layers.core import Input
from minitl.models.model import Model
from minitl.naming import attributes_of, part

if TYPE_CHECKING:
    from minitl.models.sequential import Sequential

__all__ = ["Input", "Model", "Sequential", "load_model", "model_from_json"]
__getattr__ = attributes_of(__name__, {"Sequential": "minitl.models.sequential"})


def load_model(filepath: str | Path, custom_objects: Any = None, compile: bool = True) -> Model:
    """A model from a file that `Model.save` wrote (or Keras's `model.save('x.h5')`)."""
    return part("files").load_model(filepath, custom_objects, compile)


def model_from_json(json_string: str, custom_objects: Any = None) -> Model:
    """The architecture that `Model.to_json` wrote, with fresh weights."""
    return part("files").from_json(json_string, custom_objects)
