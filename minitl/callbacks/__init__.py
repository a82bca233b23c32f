"""Callbacks: what else happens while `fit` runs, under Keras's names.

What a callback is stands in `models/callbacks.py`. `control.py` has those that act on a training,
`loggers.py` those that show it, `backup.py` the one that lets it go on after a power cut.
"""

from typing import TYPE_CHECKING

from minitl.models.callbacks import Callback, CallbackList, History, Logs
from minitl.naming import attributes_of

if TYPE_CHECKING:
    from minitl.callbacks.backup import *
    from minitl.callbacks.control import *
    from minitl.callbacks.loggers import *

__getattr__ = attributes_of(__name__)
