"""A second process compiles what a model will call; without one, results are the same."""

import os
import subprocess
import sys
import time

import numba
import pytest

from minitl.kernels.machine import ahead

JIT = not numba.config.DISABLE_JIT  # type: ignore[attr-defined]
needs_two = pytest.mark.skipif(not JIT or sys.platform == "win32", reason="nothing is shared out")

# A model of two kernels. Printed: what this process compiled itself, and a digest of the outputs.
PROGRAM = """
import hashlib, time
import numpy as np
import minitl
from minitl.kernels.machine import ahead
from minitl.layers import *
from numba.core import event

def {function}
compiled = []
class Noted(event.Listener):
    def on_start(self, what): compiled.append(what.data["dispatcher"].py_func.__name__)
    def on_end(self, what): pass
event.register("numba:compile", Noted())
x = Input((16, 16, 32))
model = minitl.Model(x, DepthwiseConv2D(3)(Conv2D(32, 1, kernel_initializer="ones")(x)))
model.layers[-1].set_weights([np.linspace(-1, 1, 288).reshape(3, 3, 32, 1), np.zeros(32)])
before()
a = np.random.default_rng(0).standard_normal((1, 16, 16, 32))
y = model.predict(a, verbose=0)
print(*sorted({{"_multiply", "_all_lines"}} & set(compiled)))
print(hashlib.sha256(y.tobytes()).hexdigest(), len(ahead._helpers))
"""
NOTHING = "before(): pass"
NO_PROCESS = """before():
    def refused(*args, **kwargs):
        raise OSError("no more processes")
    ahead.subprocess.Popen = refused
"""
KILLED = """before():
    class Killed(ahead.subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.kill()
            self.wait()
    ahead.subprocess.Popen = Killed
"""
# It holds all locks until it ends, in the midst of it; and leaves files that are no code.
ENDS = """before():
    ahead.PROGRAM = '''
import json, sys
path, calls = json.loads(sys.stdin.readline())
sys.path[:] = path
import os
from minitl.kernels.machine import ahead, compiling
def half(self, name, data):
    self.place.with_name(name).write_bytes(b"half")
    if name.endswith("nbc"):
        os._exit(1)
compiling._Files._save_data = half
ahead.compile_all(calls)
'''
"""


def run(function, folder, threads="2"):
    """The first prediction where nothing has been compiled yet."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "NUMBA_NUM_THREADS": threads}
    command = [sys.executable, "-c", PROGRAM.format(function=function)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    own, results = done.stdout.splitlines()
    return own.split(), *results.split()


@needs_two
def test_a_second_process_compiles_what_comes_last(tmp_path):
    own, digest, helpers = run(NOTHING, tmp_path / "two")
    assert (own, helpers) == (["_multiply"], "1")
    assert not list(tmp_path.rglob("*.lock"))
    # The second time, all is there.
    assert run(NOTHING, tmp_path / "two") == ([], digest, "0")
    both = ["_all_lines", "_multiply"]
    # With one core, and where no process can be started or it comes to nothing.
    assert run(NOTHING, tmp_path / "one", threads="1") == (both, digest, "0")
    assert run(NO_PROCESS, tmp_path / "none") == (both, digest, "0")
    assert run(KILLED, tmp_path / "killed")[:2] == (both, digest)
    assert run(ENDS, tmp_path / "ends") == (both, digest, "1")


@pytest.fixture
def holder(tmp_path):
    """A process that holds a lock."""
    place = tmp_path / "kernel.lock"
    program = "import sys, pathlib\nfrom minitl.kernels.machine.ahead import Turn\n"
    program += "turn = Turn(pathlib.Path(sys.argv[1])); turn.wait(); print(flush=True); input()"
    command = [sys.executable, "-c", program, str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield place, process
        process.kill()


@needs_two
def test_what_another_process_compiles_is_waited_for(holder, monkeypatch):
    place, process = holder
    monkeypatch.setattr(ahead, "helping", True)
    with pytest.raises(ahead.Elsewhere):
        ahead.Turn(place).wait()
    monkeypatch.setattr(ahead, "helping", False)
    monkeypatch.setattr(ahead, "PATIENCE", 0.3)  # it stands still
    begun = time.monotonic()
    ahead.Turn(place).wait()
    assert time.monotonic() - begun > 0.3
    monkeypatch.setattr(ahead, "PATIENCE", 1e9)
    process.kill()  # and the system drops its lock
    ahead.Turn(place).wait()
