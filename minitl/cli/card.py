"""The model card: what somebody who is handed a model should know, as Markdown.

`model_card` puts what the file says of itself into `card.md`: what the model tells apart, how it
sees a picture, what it was trained on, which figures were measured, and what it must not be
believed for. The headings are those of Mitchell et al. 2019 ("Model Cards for Model Reporting",
arXiv 1810.03993), as far as the file has an answer.
"""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minitl.cli.reports import words
from minitl.models import Model
from minitl.storage.atomic import visible

WEIGHTS = (
    "The base's weights are VGG's, made at the University of Oxford (Simonyan and Zisserman 2015, "
    "arXiv 1409.1556), under CC BY 4.0."
)


def model_card(path: Path, model: Model, about: Mapping[str, Any]) -> str:
    """A Markdown text about the model in the file `path`, whose metadata are `about`."""
    came = dict(about.get("provenance") or {})
    measured = {key: came.pop(key) for key in list(came) if isinstance(came[key], Mapping)}
    counts = measured.pop("images", {})
    details, data = (
        [f"- {_text(key)}: {_text(words(value))}" for key, value in each.items()]
        for each in (came, counts)
    )
    if "vgg" in str(came.get("base", "")):
        details.append(f"- {WEIGHTS}")
    return (
        Path(__file__)
        .with_name("card.md")
        .read_text("utf-8")
        .format(
            title=_text(path.stem),
            name=_text(path.name),
            file=shlex.quote(visible(path.name)),
            count=len(about["class_names"]),
            classes=", ".join(map(_text, about["class_names"])),
            parameters=f"{model.count_params():,}",
            height=about["size"][0],
            width=about["size"][1],
            resizing=about["resizing"],
            preprocessing=about["preprocessing"],
            details="\n".join(details),
            data="\n".join(data) or "The file does not say.",
            figures="\n".join(_rows(measured)) or "| | none was measured | |",
        )
    )


def _rows(measured: Mapping[str, Any], of: str = "") -> Iterator[str]:
    """A table row per number, of dictionaries in dictionaries."""
    for key, value in measured.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{of} {key}".strip())
        else:
            yield f"| {_text(of)} | {_text(key)} | {_text(words(value))} |"


def _text(value: Any) -> str:
    """Text from a file, so that it cannot pass for Markdown or HTML, nor command a terminal."""
    text = visible(str(value)).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in text)
