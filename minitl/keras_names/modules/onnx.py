"""`minitl.onnx`, as scripts of November 2026 have it: see `minitl.applications.onnx`."""

from minitl.naming import attributes_of

__getattr__ = attributes_of(__name__, {"read_initializers": "minitl.applications.onnx"})
