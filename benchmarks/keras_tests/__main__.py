"""The table of how Keras's tests ended, file by file; `--show` lists the tests of some kinds."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.keras_tests import sorting

KINDS = {
    "passed": "as they stand",
    "other words": "but for the words of an error",
    "refused": "an error of minitl's own words",
    "bare": "an error of Python's or NumPy's",
    "different": "another result",
    "does not apply": "by the rules in sorting.py, or skipped by Keras",
}


def run(checkout: Path, file: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.keras_tests.child", str(checkout), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    name = str(file.relative_to(checkout / "keras" / "src"))
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found = [{"file": name, **json.loads(line)} for line in lines]
    if done.returncode:
        text = done.stderr.strip().splitlines()[-1:]
        found.append({"file": name, "test": "(end)", "outcome": "bare", "error": str(text)})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.keras_tests", description=__doc__)
    parser.add_argument("checkout", type=Path, help="a checkout of Keras's repository (3.15.1)")
    parser.add_argument("--only", default="", help="files whose path has this in it")
    parser.add_argument("--jobs", type=int, default=1, help="files at a time")
    parser.add_argument("--show", nargs="*", default=[], choices=KINDS, help="list these tests")
    parser.add_argument("--json", type=Path, help="write all outcomes here")
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    files = [
        f for f in sorting.files(checkout) if any(o in str(f) for o in options.only.split(","))
    ]
    if not files:
        parser.error(f"no test files of Keras's under {checkout}")
    found: list[dict[str, Any]] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for file, several in zip(files, pool.map(lambda f: run(checkout, f), files), strict=True):
            counts = Counter(each["outcome"] for each in several)
            told = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
            print(f"{file.relative_to(checkout / 'keras' / 'src')}: {told}", flush=True)
            found += several
    for each in found:
        if each["outcome"] in options.show:
            where = f"{each['outcome']}: {each['file']} {each['test']}"
            print(f"{where}\n    {each.get('error', each.get('why', ''))}")
            for place in each.get("place", ()):
                print(f"    {place}")
    counts = Counter(each["outcome"] for each in found)
    print(f"\n{sum(counts.values()) - counts['does not apply']} tests apply")
    for kind, words in KINDS.items():
        print(f"{counts[kind]:6}  {kind}: {words}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
