"""Modules that Keras has at its top and scripts import: `minitl/__init__.py` looks here too."""
