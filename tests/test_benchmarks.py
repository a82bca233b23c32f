"""The benchmarks run, compare only what agrees, and become the README's table."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common import Options, Report
from benchmarks.compare_keras import LayerReport, compare
from benchmarks.contest import Contender, Disagreement, Ready, alone, contest
from benchmarks.table import END, START, render, replace

ROOT = Path(__file__).parent.parent


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )


def sleeper(seconds: float, value: float, folder: str) -> Ready:
    """A contender that takes `seconds`, and leaves a mark in `folder` for each of its calls."""

    def run() -> float:
        number = len(os.listdir(folder))
        Path(folder, f"{number:03} {value:.6f} {os.getpid()}").touch()
        time.sleep(seconds)
        return value

    return Ready(run, "sleeps")


def failing() -> Ready:
    raise ZeroDivisionError("in the other process")


def dying() -> Ready:
    os._exit(3)


def peak_of(megabytes: int) -> float:
    return np.ones(megabytes * 2**20 // 8).sum()


def test_contenders_run_in_turns_in_processes_of_their_own(tmp_path):
    def contender(name, seconds, value):
        return Contender(name, sleeper, {"seconds": seconds, "value": value, "folder": tmp_path})

    found, missing = contest([contender("a", 0.3, 1.0), contender("b", 0.4, 1.000001)], 2, 1)
    assert missing == []
    assert [(result.name, result.note) for result in found] == [("a", "sleeps"), ("b", "sleeps")]
    for result, seconds in zip(found, (0.3, 0.4), strict=True):
        assert len(result.seconds) == 2
        assert min(result.seconds) == pytest.approx(seconds, abs=0.1)
    marks = [name.split()[1:] for name in sorted(os.listdir(tmp_path))]
    turns = [value for value, _ in marks[4:]]  # after the two calls of each in the warm-up
    assert turns == ["1.000000", "1.000001"] * 2
    assert len({process for _, process in marks}) == 2
    assert str(os.getpid()) not in {process for _, process in marks}


def test_no_times_when_outputs_differ(tmp_path):
    settings = {"seconds": 0.0, "folder": tmp_path}
    contenders = [
        Contender("a", sleeper, settings | {"value": 1.0}),
        Contender("b", sleeper, settings | {"value": 1.001}),
    ]
    with pytest.raises(Disagreement, match=r"b differs from the first contender's by 1.0e-03"):
        contest(contenders, 1)


def test_a_missing_peer_is_said_to_be_missing(tmp_path):
    settings = {"seconds": 0.0, "value": 1.0, "folder": tmp_path}
    contenders = [
        Contender("here", sleeper, settings),
        Contender("away", failing, needs=("no_such_package_anywhere",)),
    ]
    found, missing = contest(contenders, 1)
    assert [result.name for result in found] == ["here"]
    assert missing == ["away"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [(failing, "ZeroDivisionError: in the other process"), (dying, "x died with exit code 3")],
)
def test_a_contender_that_fails_is_an_error(prepare, message):
    with pytest.raises(RuntimeError, match=message):
        contest([Contender("x", prepare)], 1)


def test_peak_memory_is_that_of_the_process_alone():
    parent = np.ones(600 * 2**20 // 8)  # held here, and not to be counted there
    _, small = alone(peak_of, megabytes=1)
    _, large = alone(peak_of, megabytes=300)
    assert parent.sum() > 0
    assert 250e6 < large - small < 400e6
    assert small < 400e6


def test_claims_are_ratios_of_medians_to_the_fastest_peer():
    report = Report("name", "question?")
    report.add("case", "minitl", "ms", [1, 2, 30])
    report.add("case", "Keras", "ms", [8, 9, 7])
    report.add("case", "PyTorch", "ms", [5, 5, 5])
    report.compare("case", "minitl", "Keras", "PyTorch", "absent", goal=0.3)
    report.compare("case", "minitl", "absent", goal=0.3)
    (claim,) = report.claims
    assert (claim.what, claim.value, claim.met) == ("minitl / PyTorch", 2 / 5, False)


def test_the_command_measures_and_writes_json(tmp_path):
    file = tmp_path / "results.json"
    file.write_text('{"other": {"kept": true}}')
    done = python("benchmarks", "--quick", "--only", "optimizer", "readable", "--json", str(file))
    assert done.returncode == 0, done.stderr
    assert "How long does a step of Adam take" in done.stdout
    assert "threads: " in done.stdout and "warm-up: 3" in done.stdout
    results = json.loads(file.read_text())
    assert results.pop("other") == {"kept": True}
    assert list(results) == ["optimizer", "readable"]
    rows = {row["contender"]: row for row in results["optimizer"]["rows"]}
    assert {"minitl", "the same bytes"} <= rows.keys()
    assert rows["minitl"]["min"] <= rows["minitl"]["median"] <= rows["minitl"]["max"]
    assert results["optimizer"]["machine"]["cores"] >= 1
    with pytest.raises(ValueError, match="--quick mean nothing: optimizer, readable"):
        render(results)


def test_the_list_names_every_question():
    done = python("benchmarks", "--list")
    names = [line.split()[0] for line in done.stdout.splitlines()]
    helpers = {"__init__", "__main__", "algorithms", "common", "contenders", "contest", "peers"}
    helpers |= {"torch_graph"}
    files = {path.stem for path in (ROOT / "benchmarks").glob("*.py")} - helpers - {"table"}
    assert set(names) == files


def test_the_first_wrong_layer_is_named(capsys):
    rng = np.random.default_rng(0)
    exact = {name: rng.standard_normal((2, 3, 3, 4)) for name in ("conv1", "conv2", "pool")}
    keras = {name: y.astype(np.float32) for name, y in exact.items()}
    wrong = {name: y + 3e-5 * (name != "conv1") for name, y in keras.items()}
    for outputs, first in (({"minitl": keras}, "none"), ({"minitl": wrong}, "conv2")):
        for others, against in (({}, "float64"), ({"Keras": keras}, "Keras")):
            report = LayerReport("compare_keras", "question?")
            compare(report, outputs | others, exact)
            report.print()
            line = capsys.readouterr().out.splitlines()[-1]
            told = first if first == "none" else f"{first} (against {against})"
            assert line == f"  the first layer that does more than round: {told}"
            assert [claim.met for claim in report.claims][-1] == (first == "none")
            assert report.find("pool", "minitl - float64, relative L2").median < 1e-4


def test_the_table_shows_medians_and_conditions():
    report = Report("forward", "How long?", {"image": 224})
    report.add("batch 8", "minitl", "ms/image", [80, 81, 90])
    report.add("batch 8", "Keras", "ms/image", [230, 231, 229])
    report.add("batch 8", "minitl, im2col", "ms/image", [240, 240, 240])
    threads = Report("threads", "What?", {})
    threads.add("forward", "1 thread", "s", [2.0])
    threads.add("forward", "2 threads", "s", [1.0])
    threads.compare("forward", "1 thread", "2 threads", goal=1.8, bound="at least")
    results = {r.name: r.as_json(Options()) for r in (report, threads)}
    table = render(results)
    assert "| VGG16 without top, batch 8, ms/image | **81** |  |  | 230 |  |" in table
    assert "| forward (1 thread / 2 threads) | 2 |" in table
    assert table.count(results["forward"]["date"]) == 1
    text = f"before\n{START}\nold\n{END}\nafter\n"
    assert replace(text, "new") == f"before\n{START}\nnew\n{END}\nafter\n"
    with pytest.raises(ValueError, match="no place for the table"):
        replace("nothing", "new")
