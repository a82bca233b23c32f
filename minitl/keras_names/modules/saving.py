"""`minitl.saving`: what scripts take from `keras.saving`; `minitl.utils` has all of it too."""

from minitl import utils
from minitl.storage.keras_models import load_model, load_weights, save_model, save_weights
from minitl.utils import custom_object_scope, get_custom_objects, register_keras_serializable

__all__ = ["custom_object_scope", "get_custom_objects", "load_model", "load_weights"]
__all__ += ["register_keras_serializable", "save_model", "save_weights"]


def __getattr__(name: str) -> object:
    return getattr(utils, name)
