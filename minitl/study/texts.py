"""The texts of the stages: `stages/NN-name.md`, which this file reads and knows nothing else of.

The first line is the title; then come sections. What each is for:

    ## Task        what is asked; opens the learner's file
    ## File        Python: signatures, docstrings with an example to check by hand, no solution
    ## Hints       a list, given one after the other
    ## Symptoms    a list of `result = wrong version`: what is told to whose result equals that

`NN-name.zh.md` has task and hints in Chinese, `messages.zh.md` what checks say (`said`).
"""

import ast
import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path

FOLDER = Path(__file__).parent / "stages"


@dataclass(frozen=True)
class Text:
    """One stage's text: its number, name and title, and its sections by their names."""

    number: int
    name: str
    title: str
    sections: dict[str, str]

    @property
    def code(self) -> str:
        """The Python of the file that the learner gets, '' if there is none."""
        return re.sub(r"(?s)^```python\n|```$", "", self.sections.get("File", ""))

    @property
    def hints(self) -> list[str]:
        return re.findall(r"(?m)^- (.*)$", self.sections.get("Hints", ""))

    @property
    def symptoms(self) -> list[tuple[str, str, str]]:
        """(result, wrong version, what is told)."""
        rows = self.sections.get("Symptoms", "")
        return re.findall(r"(?m)^- `(\w+) = (.*?)`: (.*)$", rows)

    def examples(self, function: str) -> str:
        """The docstring of one function of the code, which has its examples."""
        for node in ast.parse(self.code).body:
            if isinstance(node, ast.FunctionDef) and node.name == function:
                return ast.get_docstring(node) or ""
        return ""

    def file(self) -> str:
        """What the learner starts from: the task as the module's docstring, then the code."""
        task = self.sections["Task"].replace("\\", "\\\\")
        return (
            f'"""{self.number}. {self.title}\n\n{task}\n"""\n\nimport numpy as np\n\n\n{self.code}'
        )


def read_text(path: Path) -> Text:
    """The text that stands in a file."""
    number, _, name = path.name.split(".")[0].partition("-")
    title, *sections = re.split(r"(?m)^## ", path.read_text("utf-8"))
    found = dict(section.split("\n", 1) for section in sections)
    title = re.sub(r"(?s)^.*?# \d+\. (.*?)\n.*$", r"\1", title)
    return Text(int(number), name, title, {key: body.strip() for key, body in found.items()})


@functools.cache
def all_texts(language: str = "en") -> dict[int, Text]:
    """The texts of a language by their numbers; English ones where there is no other."""
    found = [read_text(path) for path in sorted(FOLDER.glob("??-*.md")) if ".zh" not in path.name]
    texts = {text.number: text for text in found}
    if language != "en":
        for path in FOLDER.glob(f"??-*.{language}.md"):
            other = read_text(path)
            # Code and what is recognised are the same in all languages.
            texts[other.number] = replace(
                other, sections=texts[other.number].sections | other.sections
            )
    return texts


def said(text: str, language: str = "en") -> str:
    """What a check says, in another language; as it is where there is no translation."""
    for pattern, other in _messages(language):
        if found := pattern.fullmatch(text):
            return other.format(**{n: said(v, language) for n, v in found.groupdict().items()})
    return text


@functools.cache
def _messages(language: str) -> list[tuple[re.Pattern[str], str]]:
    path = FOLDER / f"messages.{language}.md"
    text = path.read_text("utf-8") if path.exists() else ""
    found = []
    for row in re.findall(r"(?m)^- (.*?) => (.*)$", text):
        english, other = (part.replace("\\n", "\n") for part in row)
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(english))
        found.append((re.compile(pattern, re.S), other))
    return found
