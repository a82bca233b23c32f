"""Compiled code on disk: used again, and thrown away when what it is made of changes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minitl
from minitl.kernels.machine import compiling

KERNELS = Path(minitl.__file__).parent / "kernels"
PROGRAM = """
import numpy as np
from minitl.kernels.fast import dense, gemm, pointwise, updates
a = np.ones((2, 2), "f4")
pointwise._add_bias(a, a[0], True, 0, 2, 0, 2)
updates.sgd_update(a[0], a[1], None, 0.1)
rows = gemm.Rows(np.zeros(64, "f4"), np.arange(2), 1, 1, 0)
dense._lines_by_panels(rows, gemm.pack(a), a.reshape(-1), 2)
for kernel in (pointwise._add_bias, updates._sgd, dense._lines_by_panels):
    print(sum(kernel.stats.cache_hits.values()))
"""


@pytest.fixture
def hits(tmp_path):
    """Which of three kernels a new process finds compiled: one of `pointwise.py`, one of
    `updates.py`, and one of `dense.py`, which is made of others."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(KERNELS.parent, tmp_path / "minitl", ignore=ignored)

    def run():
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        environment.pop("NUMBA_CACHE_DIR", None)
        command = [sys.executable, "-c", PROGRAM]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        return [int(line) for line in done.stdout.split()]

    return run


def test_compiled_code_is_kept_as_long_as_nothing_it_is_made_of_changes(hits, tmp_path):
    def change(name):
        file = tmp_path / "minitl" / "kernels" / name
        file.write_text(file.read_text() + "\n# changed\n")

    assert hits() == [0, 0, 0]
    assert hits() == [1, 1, 1]
    change("fast/gemm.py")  # of which only `dense` is made
    assert hits() == [1, 1, 0]
    change("machine/simd.py")  # by way of `gemm`; and of `team`, which `updates` is made of
    assert hits() == [1, 0, 0]
    change("fast/updates.py")
    assert hits() == [1, 0, 1]
    change("geometry.py")  # all import it
    assert hits() == [0, 0, 0]
    assert hits() == [1, 1, 1]


def test_compiled_code_that_is_damaged_is_compiled_anew(hits, tmp_path):
    assert hits() == [0, 0, 0]
    kept = {kind: sorted(tmp_path.rglob(f"*._sgd*.{kind}"))[0] for kind in ("nbi", "nbc")}
    for path in kept.values():
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1  # within the machine code
        for spoiled in (b"", whole[: len(whole) // 2], bytes(flipped)):
            path.write_bytes(spoiled)
            assert hits() == [1, 0, 1]
            assert hits() == [1, 1, 1]
    # As after two processes that wrote at once: the code of another function.
    kept["nbc"].write_bytes(next(tmp_path.rglob("*._add_bias*.nbc")).read_bytes())
    assert hits() == [1, 0, 1]


def test_without_a_place_for_compiled_code_it_is_compiled_in_memory(tmp_path, monkeypatch):
    def no_place(self, function):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(compiling.FunctionCache, "__init__", no_place)
    kernel = compiling.compiled(lambda a: a + 1)
    assert kernel(np.float32(1)) == 2


def test_what_a_file_needs():
    def names(file):
        return {str(each.relative_to(KERNELS)) for each in compiling.needed(KERNELS / file)}

    assert {"fast/winograd.py", "fast/gemm.py", "machine/simd.py", "geometry.py"} <= names(
        "fast/winograd.py"
    )
    assert not {"fast/gemm.py", "machine/simd.py", "fast/winograd.py"} & names("fast/pointwise.py")
    for file in (KERNELS / "fast").glob("*.py"):  # no import escapes
        text = file.read_text()
        assert "import minitl.kernels" not in text and "from ." not in text


# All kinds of convolutions, a step of training, and recurrence; then what was compiled meanwhile.
SECOND = """
import numpy as np
from numba.core import event
import minitl
from minitl.layers import *

compiled = []
class Noted(event.Listener):
    def on_start(self, what): compiled.append(what.data["dispatcher"].py_func.__name__)
    def on_end(self, what): pass
event.register("numba:compile", Noted())

x = Input((16, 16, 3))
y = Conv2D(16, 3, padding="same", activation="relu")(x)
y = MaxPooling2D()(Conv2D(16, 3, padding="same", activation="relu")(y))
y = ReLU(6)(BatchNormalization()(DepthwiseConv2D(3, padding="same")(Conv2D(32, 1)(y))))
y = LSTM(4)(Reshape((4, 128))(AveragePooling2D(2)(y)))
model = minitl.Model(x, Dense(2, activation="softmax")(y))
model.compile("adam", "sparse_categorical_crossentropy")
a = np.zeros((2, 16, 16, 3), "f4")
model.fit(a, np.array([0, 1]), verbose=0)
model.predict(a, verbose=0)
print(compiled)
"""


def test_a_second_process_compiles_nothing():
    # A loop that is no part of what is kept was compiled in every process: 0.5 s each time.
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", SECOND], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
