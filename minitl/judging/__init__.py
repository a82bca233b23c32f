"""Judging a model: numbers, plots, where it looked, which rates it bears."""

from minitl.naming import attributes_of

__getattr__ = attributes_of(__name__)
