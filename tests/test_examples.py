"""The examples run, on small settings, and say what they should."""

import re
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


@pytest.mark.weights
def test_feature_extraction():
    pytest.importorskip("elpv_dataset")
    said = run("feature_extraction.py", "--images", "40")
    assert "F: 40 images, D = 1024" in said and "macro mean" in said
    assert len(re.findall(r"gradient left \de-(09|1\d)", said)) == 4


@pytest.mark.weights
def test_parameter_sharing():
    pytest.importorskip("elpv_dataset")
    said = run("parameter_sharing.py", "--images", "24", "--epochs", "1")
    assert said.count(" same\n") == 10 and "CHANGED" not in said
    assert "block4_pool (6, 6, 512) is computed once for each of 24 samples" in said
    assert float(said.split("at most ")[1]) > 0


@pytest.mark.weights
def test_fine_tuning(tmp_path):
    pytest.importorskip("elpv_dataset")
    curves = tmp_path / "curves.png"
    said = run("fine_tuning.py", "--images", "24", "--epochs", "1", "--curves", str(curves))
    assert said.count(" same\n") == 13 + 10 + 7 and "CHANGED" not in said
    assert re.search(r"block4 unfrozen +best held-out loss", said)
    assert curves.read_bytes().startswith(b"\x89PNG")
