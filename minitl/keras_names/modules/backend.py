"""`minitl.backend`, `K` in scripts: settings of `minitl.config`, functions of `minitl.ops`."""

from minitl.naming import attributes_of

__getattr__ = attributes_of("minitl.backend", {})
