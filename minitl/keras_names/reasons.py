"""Why names of Keras's are not there: `not_here.txt`, read once.

A paragraph of it holds for names of a package, or for attributes of a kind of object: `Layer`
(models among them), `Optimizer`, `Metric`, `Loss`.
"""

import functools
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
