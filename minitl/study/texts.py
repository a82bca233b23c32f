"""The texts of the stages: `stages/NN-name.md`, which this file reads and knows nothing else of.

The first line is the title; then come sections. What each is for:

    ## Task        what is asked; opens the learner's file
    ## File        Python: signatures, docstrings with an example to check by hand, no solution
    ## Hints       a list, given one after the other
    ## Symptoms    a list of `wrong version`: what the learner is told whose result equals its
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "stages"


@dataclass(frozen=True)
class Text:
    """One stage's text: its number, name and title, and its sections by their names."""

    number: int
    name: str
    title: str
    sections: dict[str, str]


def read_text(path: Path) -> Text:
    """The text that stands in a file."""
    number, _, name = path.name.split(".")[0].partition("-")
    title, *sections = re.split(r"(?m)^## ", path.read_text("utf-8"))
    found = dict(section.split("\n", 1) for section in sections)
    title = re.sub(r"(?s)^.*?# \d+\. (.*?)\n.*$", r"\1", title)
    return Text(int(number), name, title, {key: body.strip() for key, body in found.items()})


@functools.cache
def all_texts() -> dict[int, Text]:
    """The English texts by their numbers."""
    found = [read_text(path) for path in sorted(FOLDER.glob("??-*.md")) if ".zh" not in path.name]
    return {text.number: text for text in found}
