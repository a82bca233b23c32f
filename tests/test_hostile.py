"""500 hostile weight files: none crashes or hangs, takes memory, or changes the model."""

import json
import subprocess
import sys


def test_hostile_files():
    command = [sys.executable, "-m", "tests.hostile", "--files", "500", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["counts"].values()) == 500
    assert found["slowest"] < 5  # seconds; measured: 0.05
    assert found["megabytes"] < 200  # of growth; measured: 2
    refused = sum(n for way, n in found["counts"].items() if way.endswith("refused"))
    assert 250 < refused < 500  # what is spoiled in the arrays themselves is read
