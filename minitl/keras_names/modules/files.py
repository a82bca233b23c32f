"""`minitl.files`, as scripts of November 2026 have it: see `minitl.storage.atomic`."""

from minitl.naming import attributes_of

OLD = {name: "minitl.storage.atomic" for name in ("locked", "replacing")}
__getattr__ = attributes_of(__name__, OLD)
