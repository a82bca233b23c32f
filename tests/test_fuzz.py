"""The fuzzers, briefly and with fixed seeds; a long run has a command of its own (see each)."""

import json
import os
import shutil
import subprocess
import sys

import pytest


def fuzz(program, *arguments):
    command = [sys.executable, "-m", f"tests.{program}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def test_spoiled_files_of_every_format():
    done = fuzz("fuzz_files", "--cases", "800", "--seed", "11")
    assert done.returncode == 0, done.stdout[-6000:]
    assert done.stdout.count("refused") >= 18


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that are killed as POSIX does")
@pytest.mark.parametrize(
    "arguments",
    [
        ("--cases", "14"),
        pytest.param(
            ("--cases", "4", "--faults"),
            marks=pytest.mark.skipif(not shutil.which("strace"), reason="no strace here"),
        ),
    ],
)
def test_trainings_that_are_interrupted(arguments):
    done = fuzz("fuzz_kills", "--seed", "4", *arguments)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1])["interrupted"] > 0
