"""`--help` of every command: it comes from the docstring of the function that runs it."""

import logging
import subprocess
import sys

import pytest

import minitl
from minitl.cli import main

COMMANDS = [
    "demo",
    "train",
    "extract",
    "evaluate",
    "predict",
    "export",
    "info",
    "augment",
    "serve",
    "study",
    "warmup",
    "completion",
]
ACTIONS = ["list", "fetch", "path", "verify"]


def helped(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--help"])
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [[n] for n in COMMANDS] + [["weights", a] for a in ACTIONS])
def test_every_command_says_what_it_does(capsys, words):
    """The same sentence in the list of commands and at the head of the command's own help."""
    usage, description, *_ = helped(capsys, *words).split("\n\n")
    assert usage.startswith(f"usage: minitl {' '.join(words)} ")
    sentence = " ".join(description.split()).split(". ")[0]
    assert len(sentence.split()) > 3
    assert sentence in " ".join(helped(capsys, *words[:-1]).split())


def test_an_example_stands_below_the_options_and_defaults_beside_them(capsys):
    text = helped(capsys, "train")
    assert "None" not in text
    text = " ".join(text.split())
    assert "at most (default: 50)" in text and "(default: 224)" in text
    assert "example: minitl train photos/ -o model.h5" in text.split("(default: reflect)")[1]


def test_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"minitl {minitl.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_learns_commands_and_options(capsys, shell):
    assert main(["completion", shell]) == 0
    lines = capsys.readouterr().out
    assert all(command in lines for command in COMMANDS) and "fine-tune-epochs" in lines
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=lines, text=True).returncode == 0


def test_completion_without_its_library_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert "pip install 'minitl[completion]'" in capsys.readouterr().err


def test_what_is_logged_is_told_on_stderr_once(capsys, monkeypatch, tmp_path):
    logger = logging.getLogger("minitl.somewhere")
    monkeypatch.setattr("minitl.cli.warm_up", lambda dtype: logger.warning("going on"))
    assert main(["warmup"]) == 0
    assert capsys.readouterr().err == "minitl: going on\n" * 2
    assert logging.getLogger("minitl").handlers == []


def test_without_docstrings_the_commands_still_run():
    command = [sys.executable, "-OO", "-m", "minitl", "weights", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
