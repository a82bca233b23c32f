"""`minitl.saving`: what scripts take from `keras.saving` is in `minitl.utils` as well."""

from minitl import utils


def __getattr__(name: str) -> object:
    return getattr(utils, name)
