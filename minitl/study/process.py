"""A learner's file, run in a process of its own, so that nothing of it can stay or hang.

`check_file` starts the process, which prints what it finds, and ends it when its time is over;
`inside` is what runs there: first the checks of the functions, then the real network with them.
What a learner has done is a folder of files, and `done.json` in it.
"""

import ast
import hashlib
import inspect
import json
import linecache
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minitl.storage.atomic import writing
from minitl.study import arithmetic, network, training
from minitl.study.checks import check, told
from minitl.study.results import Part
from minitl.study.texts import Text, all_texts, said

PARTS = arithmetic.PARTS | training.PARTS
# Seconds of computing. In both kernels may have to be compiled first; `network.SECONDS`
# bounds what a learner's slow function takes of it.
FOR_CHECKS, FOR_NETWORK = 60, 240
LONGEST = 600  # seconds by the clock, for what does not even compute


class OutOfTime(BaseException):
    """Raised in the learner's code where it was when its time was over."""


def file_of(folder: Path, text: Text) -> Path:
    """The learner's file of a stage."""
    return folder / f"{text.number:02}_{text.name.replace('-', '_')}.py"


def done(folder: Path) -> dict[int, bool]:
    """The stages whose check has passed, and whether their files are still what they were."""
    texts, kept = all_texts(), _kept(folder)
    return {int(n): _digest(file_of(folder, texts[int(n)])) == d for n, d in kept.items()}


def _kept(folder: Path) -> dict[str, str]:
    """What `done.json` holds: stages and the digests of their files."""
    try:
        kept = json.loads((folder / "done.json").read_text("utf-8"))
        return {n: d for n, d in kept.items() if int(n) in all_texts()}
    except (OSError, ValueError, AttributeError):
        return {}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def check_file(folder: Path, number: int, run_network: bool = True, language: str = "en") -> bool:
    """Check a stage's file in a process of its own; whether all is right."""
    path = file_of(folder, all_texts()[number])
    if number in PARTS and not path.exists():
        raise FileNotFoundError(f"{path} is not there: `minitl study start {number}` writes it")
    command = [sys.executable, "-m", "minitl.study", str(number), str(folder), language]
    sys.stdout.flush()
    process = subprocess.Popen([*command, *["--only-checks"] * (not run_network)])
    try:
        code = process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        print("it was stopped: it did not end in time. Is there an endless loop?")
        code = 1
    finally:
        process.kill()
        process.wait()
    if code == 0:
        with writing(folder / "done.json") as file:  # whole: other checks may read it
            json.dump(_kept(folder) | {str(number): _digest(path)}, file)
    return code == 0


def inside(number: int, folder: Path, run_network: bool = True, language: str = "en") -> int:
    """Check the functions, then run the network; print what is found; 0 when all is right."""
    text = all_texts()[number]

    def say(line: str, mark: str = "") -> None:
        print(mark + said(line, language).replace("\n", "\n" + " " * len(mark)), flush=True)

    try:
        _limit(FOR_CHECKS)
        names = _everything(folder) if number not in PARTS else load(file_of(folder, text))
        wrong = False
        for part in PARTS.get(number, ()):
            with np.errstate(all="ignore"):
                found = check(part, names, text.examples(part.name), text.symptoms)
            say(f"{part.name}: {'WRONG' if found else 'right'}")
            for finding in found:
                say(finding, "  - ")
            wrong = wrong or bool(found)
        if wrong or not run_network:
            return int(wrong)
        _limit(FOR_NETWORK)
        for line in network.judge(number, names):
            say(line)
    except OutOfTime as error:
        say(" ".join([f"stopped: {told(error)}", *getattr(error, "__notes__", ())]))
        return 1
    except (Exception, SystemExit) as error:
        say(f"wrong: {told(error)}")
        return 1
    finally:
        _limit(0)
    return 0


def place_of(part: Part) -> tuple[Path, int, str]:
    """File, line and name of minitl's own solution."""
    if isinstance(part.source, str):
        file, name = part.source.split()
        path = Path(__file__).parents[1] / file
        body = ast.parse(path.read_text("utf-8")).body
        found = [n for n in body if getattr(n, "name", "") == name]
        return path, found[0].lineno, name
    function = inspect.unwrap(part.source or part.right)
    path = Path(inspect.getsourcefile(function) or "")
    return path, inspect.getsourcelines(function)[1], function.__qualname__


def load(path: Path) -> dict[str, Any]:
    """What a learner's file defines."""
    linecache.checkcache(str(path))
    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    exec(compile(path.read_text("utf-8"), str(path), "exec"), names)
    return names


def _everything(folder: Path) -> dict[str, Any]:
    """What the files of all stages define that have passed; by stage where names are the same."""
    names: dict[str, Any] = {}
    for number, holds in done(folder).items():
        if holds and number in PARTS:
            own = load(file_of(folder, all_texts()[number]))
            names |= {part.name: own[part.name] for part in PARTS[number]}
    return names


def _limit(seconds: int) -> None:
    """Raise OutOfTime after so many seconds of computing, however busy the machine is."""
    if not hasattr(signal, "SIGPROF"):  # the process is then ended from outside
        return

    def stop(*_: object) -> None:
        raise OutOfTime(f"this did not end within {seconds} s; is it a loop without an end?")

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
