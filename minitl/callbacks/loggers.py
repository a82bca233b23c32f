"""Callbacks that show or write down how a training goes."""

import csv
import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from minitl.callbacks import Callback, Logs

__all__ = ["CSVLogger", "ProgbarLogger", "format_logs"]


def with_bar(source: Any, what: str) -> Any:
    """The batches of a source, with a progress bar."""
    how = {"desc": what, "unit": "batch", "leave": False, "disable": None}
    return tqdm(source.batches(), total=len(source) or None, **how)


class ProgbarLogger(Callback):
    """`verbose=1`: a progress bar per epoch; `verbose=2`: one printed line per epoch.

    Where stderr is no terminal, a log file say, a bar would be thousands of lines: there is one per
    epoch, as with 2.
    """

    bar: Any = None

    def __init__(self, verbose: bool | int = 1):
        self.verbose = verbose

    def get_state(self) -> dict[str, Any]:
        return {}

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        params = self.params or {}
        self.title = f"Epoch {epoch + 1}/{params.get('epochs')}"
        if self.verbose == 1 and sys.stderr.isatty():
            self.bar = tqdm(total=params.get("steps"), desc=self.title, leave=True)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self.bar is not None:
            self.bar.update(batch + 1 - self.bar.n)
            self.bar.set_postfix_str(format_logs(logs), refresh=False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(format_logs(logs))
            self.on_train_end()
        elif self.verbose:
            print(f"{self.title} - {format_logs(logs)}", flush=True)

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def format_logs(logs: Logs | None) -> str:
    """'accuracy: 0.9100 - loss: 0.2500'"""

    def short(value: Any) -> str:
        if np.ndim(value):
            return "[" + " ".join(map(short, np.asarray(value))) + "]"
        return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.3e}"

    return " - ".join(f"{name}: {short(value)}" for name, value in (logs or {}).items())


class CSVLogger(Callback):
    """One line per epoch in a CSV file: its number, from 0, then all logs by name.

    The columns are those of the first epoch; if it was not validated, columns 'val_...' are added
    for what comes later, and 'NA' stands where there is no value. `append` goes on after the file.
    """

    def __init__(self, filename: str | Path, separator: str = ",", append: bool = False):
        self.filename, self.separator, self.append = Path(filename), separator, append
        self.file: Any = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.file = open(self.filename, "ab" if self.append else "wb")  # noqa: SIM115
        self.before, self.text = self.file.tell(), ""  # bytes of earlier trainings, lines of this
        self.keys: list[str] | None = None
        self.epoch: int | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if self.file is None or self.file.closed:
            raise RuntimeError("CSVLogger takes an epoch between on_train_begin and on_train_end")
        logs, self.epoch = logs or {}, epoch
        if self.keys is None:
            self.keys = sorted(logs)
            if not any(k.startswith("val_") for k in self.keys):
                self.keys += [f"val_{k}" for k in self.keys]
            if not self.before:
                self._write(["epoch", *self.keys])
        # Several numbers stand in brackets (with Keras's quotes around them).
        cells = (logs.get(k, "NA") for k in self.keys)
        several = '"[{}]"'.format
        self._write([epoch, *(several(", ".join(map(str, c))) if np.ndim(c) else c for c in cells)])

    def on_train_end(self, logs: Logs | None = None) -> None:
        history = getattr(self.model, "history", None)
        if history and history.epoch and history.epoch[-1] != self.epoch:  # one that diverged
            known = {n: v[-1] for n, v in history.history.items() if len(v) == len(history.epoch)}
            self.on_epoch_end(history.epoch[-1], known)
        if self.file is not None:
            self.file.close()

    def _write(self, cells: list[Any]) -> None:
        line = io.StringIO()
        csv.writer(line, delimiter=self.separator).writerow(cells)
        self.text += line.getvalue()
        self.file.write(line.getvalue().encode())
        self.file.flush()

    def get_state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("before", "text", "keys", "epoch")}

    def set_state(self, state: dict[str, Any]) -> None:
        """The file becomes what it was: an interruption may have added lines or lost some."""
        super().set_state(state)
        self.file.truncate(min(self.before, self.file.seek(0, os.SEEK_END)))
        self.file.seek(0, os.SEEK_END)
        self.file.write(self.text.encode())
        self.file.flush()
