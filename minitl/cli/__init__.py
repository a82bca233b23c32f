"""The command line: `minitl <command> ...`.

`main` reads the arguments, runs one command and returns the exit code: 0 done, 1 an error, 2 wrong
usage, 130 interrupted, 141 when whoever reads the output went away. An error in the user's world (a
missing file, no network) is printed without a traceback. In each file `add_to` says what options
its commands have, and a function that takes the parsed arguments does the work. `demo.py` is the
whole job in one command; `train.py` does it with your own pictures.
"""

import argparse
import contextlib
import io
import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Iterator, Sequence

from minitl.cli import check, commands, demo, serving, show, study, train, weights
from minitl.cli.options import add_command
from minitl.cli.warmup import warm_up
from minitl.storage.door import Visible, extra


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that it cannot write ends nothing
            stream.reconfigure(errors="backslashreplace")
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = all_commands().parse_args(given)
    arguments.command = shlex.join(["minitl", *given])
    # What a command prints may come from a stranger's file: nothing that a terminal would obey.
    shown = contextlib.redirect_stdout(Visible(sys.stdout))
    with shown, contextlib.redirect_stderr(Visible(sys.stderr)):
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    try:
        with warnings.catch_warnings(), _log_on_stderr():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # they do not say of which file
            warnings.showwarning = lambda message, *_, **__: _tell(message)
            arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    except BrokenPipeError:  # `minitl ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as of a program that the signal ended: not all was done
    except (OSError, ValueError, ImportError, ArithmeticError, MemoryError) as error:
        _tell(error)
        return 1
    return 0


def all_commands() -> argparse.ArgumentParser:
    """The parser of all commands and their options."""
    parser = argparse.ArgumentParser(
        prog="minitl", description="Transfer learning in NumPy and Numba, with Keras's API."
    )
    version = sys.modules["minitl"].__version__
    parser.add_argument("--version", action="version", version=f"minitl {version}")
    names = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for file in (demo, train, check, commands, show, serving, study, weights):
        file.add_to(names)
    add_command(names, warmup)
    what = "whose lines are wanted"
    add_command(names, completion).add_argument("shell", choices=("bash", "zsh", "tcsh"), help=what)
    return parser


def _tell(what: object) -> None:
    print(f"minitl: {what}", file=sys.stderr)


@contextlib.contextmanager
def _log_on_stderr() -> Iterator[None]:
    """What minitl logs (a download, a compilation, somebody waited for) is told as `_tell` does."""
    logger, handler = logging.getLogger("minitl"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("minitl: %(message)s"))
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def completion(arguments: argparse.Namespace) -> None:
    """Print lines that teach a shell to complete minitl's commands and options.

    Needs `pip install 'minitl[completion]'`.

    example: minitl completion bash > ~/.local/share/bash-completion/completions/minitl
    """
    with extra("completion needs shtab", "completion"):
        import shtab
    print(shtab.complete(all_commands(), arguments.shell))


def warmup(arguments: argparse.Namespace) -> None:
    """Compile the kernels ahead of their first use.

    All are compiled now and kept, so that the first training or prediction need not do it.
    """
    started = time.perf_counter()
    for dtype in ("float32", "float64"):
        warm_up(dtype)
    print(f"the kernels are compiled ({time.perf_counter() - started:.1f} s)")
