"""Transfer learning: F of a frozen base, kept and never stale; unfreezing in stages."""

from minitl.naming import attributes_of

__getattr__ = attributes_of(__name__)
