"""Compiling: what takes time once, and is said when it takes long.

Numba compiles a kernel when it is first called with a dtype, and keeps the machine code on disk
(beside the source, or in the user's cache folder where that cannot be written; `NUMBA_CACHE_DIR`
overrides). A second process starts warm. `minitl warmup` compiles everything ahead.
"""

from __future__ import annotations

import sys
import time

PATIENCE = 2.0  # seconds of compiling before something is said


def announce() -> None:
    """Say what is going on, once, when compiling takes longer than `PATIENCE`."""
    from numba.core import event

    class Notice(event.Listener):
        spent = 0.0
        depth = 0
        said = False

        def on_start(self, what: event.Event) -> None:
            if self.depth == 0:
                self.started = time.perf_counter()
            self.depth += 1

        def on_end(self, what: event.Event) -> None:
            self.depth -= 1
            if self.depth == 0:
                self.spent += time.perf_counter() - self.started
            if self.spent > PATIENCE and not self.said:
                self.said = True
                print(
                    "minitl: compiling its kernels; they are kept, so this happens once "
                    "(`minitl warmup` does it ahead)",
                    file=sys.stderr,
                    flush=True,
                )

    event.register("numba:compile", Notice())
