"""`--help` of every command: it comes from the docstring of the function that runs it."""

import subprocess
import sys

import pytest

from minitl.cli import main

COMMANDS = ["demo", "train", "extract", "evaluate", "predict", "info", "augment", "warmup"]
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


def test_without_docstrings_the_commands_still_run():
    command = [sys.executable, "-OO", "-m", "minitl", "weights", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
