"""Why names of Keras's are not there, and where others are: two files, each read once.

A paragraph of `not_here.txt` holds for names of a package, or for attributes of a kind of object:
`Layer` (models among them), `Optimizer`, `Metric`, `Loss`.
"""

import functools
import re
from pathlib import Path


@functools.cache
def not_here() -> dict[tuple[str, str], str]:
    """{(package, name): reason} of what Keras has alone; '' is minitl itself."""
    found: dict[tuple[str, str], str] = {}
    packages, reason = [""], ""
    for line in (Path(__file__).parent / "not_here.txt").read_text("utf-8").splitlines():
        if line.startswith("    "):
            found |= {(package, name): reason for package in packages for name in line.split()}
        elif ":" in line and not line.startswith("#"):
            head, _, reason = line.partition(": ")
            packages = [each.strip(".") for each in head.split()]
    return found


@functools.cache
def elsewhere() -> list[tuple[str, str, list[str]]]:
    """(package, module, names) of each line of `elsewhere.txt`."""
    text = (Path(__file__).parent / "elsewhere.txt").read_text("utf-8")
    found = re.findall(r"^(\S+) (\S+): (.*)", text, re.M)
    return [(a.strip("."), b.strip("."), names.split()) for a, b, names in found]
