"""The examples run, on small settings, and say what they should."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_digits():
    pytest.importorskip("sklearn")
    said = dict(
        line.split(" accuracy ") for line in run("digits.py", "--draws", "1").splitlines()[1:]
    )
    found = {what.strip(): float(value.split()[0]) for what, value in said.items()}
    assert found["features of output"] > found["pixels"] + 0.05


@pytest.mark.weights
def test_sequence():
    pytest.importorskip("elpv_dataset")
    said = run("sequence.py", "--cells", "6", "--epochs", "1")
    assert "6 sweeps of 9 frames, 512 features each" in said
    assert "LSTM: accuracy" in said and "GRU: accuracy" in said and "P(defective)" in said
