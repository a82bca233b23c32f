"""`minitl.files`, as scripts of November 2026 have it: see `minitl.storage.atomic`."""

from minitl.storage.atomic import locked as locked
from minitl.storage.atomic import replacing as replacing
