"""`minitl.explain`, as scripts of November 2026 have it: see `minitl.judging.grad_cam`."""

from minitl.naming import attributes_of

__getattr__ = attributes_of(__name__, {"grad_cam": "minitl.judging.grad_cam"})
