"""Models: a graph of layer calls, and how it predicts and learns."""

from minitl.layers.core import Input
from minitl.models.model import Model, Sequential, class_name, load_model, model_from_json

__all__ = ["Input", "Model", "Sequential", "class_name", "load_model", "model_from_json"]
