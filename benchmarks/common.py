"""What every benchmark shares: the machine, the statistics, the report on screen and as JSON.

A benchmark is a module with `measure(options) -> Report`. A report has rows (a case, a contender,
the values that were measured) and claims (a ratio of medians, with the goal it was built to).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from minitl import __version__

PACKAGES = (
    *("numpy", "numba", "scipy", "h5py"),
    *("onnxruntime", "openvino", "torch", "keras", "tensorflow", "tensorflow-cpu"),
)


@dataclass(frozen=True)
class Options:
    """How much to measure. `quick` only shows that a benchmark works; its times mean nothing."""

    quick: bool = False

    def pick(self, full: Any, quick: Any) -> Any:
        return quick if self.quick else full

    @property
    def size(self) -> int:
        """Height and width of images."""
        return self.pick(224, 64)


# --- The report ----------------------------------------------------------------------------------


@dataclass
class Row:
    """What was measured of one contender in one case. `values` in the order of measuring."""

    case: str
    contender: str
    unit: str
    values: list[float]
    note: str = ""

    @property
    def median(self) -> float:
        return median(self.values)

    def spread(self) -> dict[str, float]:
        """Smallest, largest, and the quartiles if there are enough values to speak of them."""
        found = {"min": min(self.values), "max": max(self.values)}
        if len(self.values) >= 5:
            first, _, third = quantiles(self.values, n=4, method="inclusive")
            found |= {"first quartile": first, "third quartile": third}
        return found


@dataclass
class Claim:
    """One number that says how good it is, and the goal: at most or at least so much."""

    case: str
    what: str
    value: float
    goal: float | None = None
    bound: str = "at most"

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value <= self.goal if self.bound == "at most" else self.value >= self.goal


@dataclass
class Report:
    """Everything that one benchmark found, and under which conditions."""

    name: str
    question: str
    settings: dict[str, Any] = field(default_factory=dict)  # batch, warm-up, repetitions ...
    rows: list[Row] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # contenders that are not installed

    def add(
        self, case: str, contender: str, unit: str, values: Sequence[float], note: str = ""
    ) -> None:
        self.rows.append(Row(case, contender, unit, [float(v) for v in values], note))

    def find(self, case: str, contender: str) -> Row | None:
        for row in self.rows:
            if (row.case, row.contender) == (case, contender):
                return row
        return None

    def compare(
        self, case: str, ours: str, *theirs: str, goal: float | None = None, bound: str = "at most"
    ) -> None:
        """Claim the ratio of medians, ours to the fastest of `theirs` that is there."""
        mine = self.find(case, ours)
        found = [row for name in theirs if (row := self.find(case, name))]
        if mine and found:
            best = min(found, key=lambda row: row.median)
            what = f"{ours} / {best.contender}"
            self.claims.append(Claim(case, what, mine.median / best.median, goal, bound))

    def limit(self, case: str, contender: str, goal: float) -> None:
        """Claim that a median is at most `goal`."""
        if row := self.find(case, contender):
            what = f"{contender}, {row.unit}" if row.unit else contender
            self.claims.append(Claim(case, what, row.median, goal))

    def print(self, quick: bool = False) -> None:
        machine = describe_machine()
        print(f"\n{self.name}: {self.question}")
        print(
            f"  {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, load "
            f"{machine['load']} before; {machine['os']}; Python {machine['python']}"
        )
        print(f"  {', '.join(f'{name} {version}' for name, version in versions().items())}")
        settings = {"threads": cores(), **self.settings}
        print(f"  {', '.join(f'{name}: {value}' for name, value in settings.items())}")
        if self.missing:
            print(f"  not installed: {', '.join(self.missing)} (pip install -e '.[bench]')")
        case_width = max([len(row.case) for row in self.rows], default=0)
        width = max([len(row.contender) for row in self.rows], default=0)
        for row in self.rows:
            spread = ""
            if len(row.values) > 1:
                low, high = list(row.spread().values())[-2:]  # quartiles if there are any
                spread = f"  ({number(low)} - {number(high)})"
            note = f"  {row.note}" if row.note else ""
            value = f"{number(row.median):>9} {row.unit}{spread}"
            print(f"  {row.case:{case_width}}  {row.contender:{width}} {value}{note}")
        for claim in self.claims:
            goal = ""
            if claim.goal is not None and not quick:
                word = "" if claim.met else ", MISSED"
                goal = f"  (goal: {claim.bound} {number(claim.goal)}{word})"
            print(f"  {claim.case:{case_width}}  {claim.what} = {number(claim.value)}{goal}")
        sys.stdout.flush()

    def as_json(self, options: Options) -> dict[str, Any]:
        return {
            "question": self.question,
            "date": time.strftime("%Y-%m-%d"),
            "quick": options.quick,
            "machine": describe_machine(),
            "versions": versions(),
            "settings": {"threads": cores(), **self.settings},
            "missing": self.missing,
            "rows": [
                {
                    "case": row.case,
                    "contender": row.contender,
                    "unit": row.unit,
                    "median": row.median,
                    **row.spread(),
                    "values": row.values,
                    "note": row.note,
                }
                for row in self.rows
            ],
            "claims": [
                {
                    "case": claim.case,
                    "what": claim.what,
                    "value": claim.value,
                    "bound": claim.bound,
                    "goal": claim.goal,
                    "met": None if options.quick else claim.met,
                }
                for claim in self.claims
            ],
        }


def number(value: float) -> str:
    """Three significant digits: 0.00000234 -> '2.34e-06', 18.62 -> '18.6', 1234.5 -> '1234'."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2e}" if abs(value) < 1e-2 else f"{value:.3g}"


# --- The machine ---------------------------------------------------------------------------------


def cores() -> int:
    """How many cores this process may use: the number of threads that everybody gets."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def describe_machine() -> dict[str, Any]:
    return {
        "cpu": _cpu_name(),
        "cores": cores(),
        "memory_gib": _memory_gib(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "os": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():  # Linux
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, ValueError, OSError):  # Windows
        return float("nan")


@cache
def versions() -> dict[str, str]:
    """Of minitl and all packages of `PACKAGES` that are installed."""
    found = {"minitl": __version__}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


# --- Running one, or several ---------------------------------------------------------------------


def arguments_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny settings: shows that it works, times mean nothing",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the results; other results in it are kept"
    )
    return parser


def run(measurements: Mapping[str, Callable[[Options], Report]], arguments: Any) -> None:
    """Measure, print, and write each result as soon as it is there."""
    options = Options(arguments.quick)
    load = describe_machine()["load"]  # before we make some ourselves
    if load is not None and load > 0.5:
        print(f"the load of this machine is {load}: something else runs, times are not to be used")
    for name, measure in measurements.items():
        report = measure(options)
        report.print(options.quick)
        if arguments.json:
            known = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
            known[name] = report.as_json(options)
            arguments.json.write_text(json.dumps(known, indent=1) + "\n")


def main(
    measure: Callable[[Options], Report], plot: Callable[[Report, Path], None] | None = None
) -> None:
    """The command line of one benchmark: `python -m benchmarks.<name>`; `plot` draws its report."""
    module = sys.modules[measure.__module__]
    spec = module.__spec__
    name = spec.name.rpartition(".")[2] if spec else module.__name__
    parser = arguments_parser(module.__doc__ or "")
    if plot is None:
        run({name: measure}, parser.parse_args())
        return
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it: .png, .svg or .pdf")
    arguments = parser.parse_args()

    def measure_and_plot(options: Options) -> Report:
        report = measure(options)
        if arguments.plot:
            plot(report, arguments.plot)
        return report

    run({name: measure_and_plot}, arguments)
