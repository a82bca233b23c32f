"""Modules that Keras has at its top and scripts import: `from minitl.saving import load_model`.

`minitl/__init__.py` looks for modules here as well.
"""
