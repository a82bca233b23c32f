"""Callbacks: what else happens while `fit` runs.

`fit` calls each callback's methods at fixed moments with `logs`, a dictionary of the numbers so
far. A callback may read and change the model (`self.model`), stop the training
(`self.model.stop_training = True`), or just look.
"""

from minitl.callbacks.backup import BackupAndRestore
from minitl.callbacks.base import Callback, CallbackList, History, LambdaCallback
from minitl.callbacks.control import (
    EarlyStopping,
    LearningRateScheduler,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from minitl.callbacks.loggers import CSVLogger, ProgbarLogger, format_logs

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
    "format_logs",
]
