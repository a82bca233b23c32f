"""Render results as the README's tables: `python -m benchmarks.table results.json`.

What stands between the two markers in README.md is replaced. Results of `--quick` are refused.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.common import number

START, END = "<!-- benchmarks:start -->", "<!-- benchmarks:end -->"
RACES = (
    *("forward", "networks", "training_step", "fine_tuning", "mission_script"),
    *("frozen_base", "dense_head", "recurrent", "optimizer"),
)
COLUMNS = ("minitl", "ONNX Runtime", "OpenVINO", "Keras", "PyTorch")
TITLES = {
    "forward": "VGG16 without top, {case}",
    "networks": "{case}",
    "training_step": "training step, {case}",
    "fine_tuning": "fine-tuning step, {case}",
    "mission_script": "the tutorial's script, {case}",
    "frozen_base": "frozen base, {case}",
    "dense_head": "step of a head on features, {case}",
    "recurrent": "{case}",
    "optimizer": "{case}, {weights:,} weights",
    "startup": "{case}",
    "memory": "peak memory, {case}",
    "accuracy": "{case}",
    "compare_keras": "VGG16 beside Keras's, {case}",
    "threads": "{case}",
}
SINGLES = ("startup", "memory", "accuracy", "compare_keras", "threads")  # of these, what has a goal


def render(results: dict[str, Any]) -> str:
    """Two tables, times beside the peers' and single figures, and how they were measured."""
    quick = [name for name, result in results.items() if result["quick"]]
    if quick:
        raise ValueError(f"results of --quick mean nothing: {', '.join(quick)}")
    return "\n\n".join(filter(None, [_races(results), _singles(results), _conditions(results)]))


def _races(results: dict[str, Any]) -> str:
    """Medians: a line for each case, a column for each contender, the fastest in bold."""
    lines = []
    for name in RACES:
        cases: dict[str, dict[str, Any]] = {}
        for row in results.get(name, {}).get("rows", []):
            if row["contender"] in COLUMNS:
                cases.setdefault(row["case"], {})[row["contender"]] = row
        for case, rows in cases.items():
            best = min(rows.values(), key=lambda row: row["median"])
            cells = [f"{_title(name, case, results)}, {best['unit']}"]
            for column in COLUMNS:
                median = number(rows[column]["median"]) if column in rows else ""
                cells.append(f"**{median}**" if best["contender"] == column else median)
            lines.append(cells)
    return _markdown(["", *COLUMNS], lines) if lines else ""


def _singles(results: dict[str, Any]) -> str:
    """What has a goal, a line each; what the peers need or get wrong, beside it."""
    lines = []
    for name in SINGLES:
        for claim in results.get(name, {}).get("claims", []):
            if claim["goal"] is not None:
                title = f"{_title(name, claim['case'], results)} ({claim['what']})"
                peers = [
                    f"{row['contender']} {number(row['median'])}"
                    for row in results[name]["rows"]
                    if row["case"] == claim["case"] and row["contender"] in COLUMNS[1:]
                ]
                lines.append([title, number(claim["value"]), ", ".join(peers)])
    return _markdown(["", "measured", "others"], lines) if lines else ""


def _title(name: str, case: str, results: dict[str, Any]) -> str:
    return TITLES[name].format(**{**results[name]["settings"], "case": case})


def _conditions(results: dict[str, Any]) -> str:
    """One sentence for each machine that took part; normally there is one."""
    sentences = []
    for result in results.values():
        machine, versions = result["machine"], result["versions"]
        packages = ", ".join(f"{name} {version}" for name, version in versions.items())
        sentences.append(
            f"Medians, contenders in turns, each in its own process with all cores, after checking "
            f"that they agree. {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gib']} GiB; Python {machine['python']}, {packages}; "
            f"{result['date']}."
        )
    return "\n\n".join(dict.fromkeys(sentences))


def _markdown(head: list[str], lines: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *lines])


def replace(text: str, table: str) -> str:
    """The README's text with `table` between its markers. ValueError if it has none."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"the README has no place for the table: {START} ... {END}")
    return f"{before}{START}\n{table}\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="what `python -m benchmarks --json` wrote")
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    arguments = parser.parse_args()
    table = render(json.loads(arguments.results.read_text()))
    text = arguments.readme.read_text(encoding="utf-8")
    arguments.readme.write_text(replace(text, table), encoding="utf-8")


if __name__ == "__main__":
    main()
