"""`minitl.saving`: what scripts take from `keras.saving` is in `minitl.utils` as well."""

from minitl import utils

__getattr__ = lambda name: getattr(utils, name)  # noqa: E731
