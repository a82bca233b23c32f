"""The model card: what somebody who is handed a model should know, as Markdown.

`model_card` puts together what the file says of itself: what the model tells apart, how it sees a
picture, what it was trained on, which figures were measured, and what it must not be believed for.
The headings are those of Mitchell et al. 2019 ("Model Cards for Model Reporting", arXiv
1810.03993), as far as the file has an answer.
"""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minitl.models import Model
from minitl.storage.atomic import visible

WEIGHTS = (
    "The base's weights are VGG's, made at the University of Oxford (Simonyan and Zisserman 2015, "
    "arXiv 1409.1556), under CC BY 4.0."
)


def model_card(path: Path, model: Model, about: Mapping[str, Any]) -> str:
    """A Markdown text about the model in the file `path`, whose metadata are `about`."""
    file = shlex.quote(visible(path.name))
    name, came = path.name, dict(about.get("provenance") or {})
    classes = ", ".join(map(_text, about["class_names"]))
    height, width = about["size"]
    measured = {key: came.pop(key) for key in list(came) if isinstance(came[key], Mapping)}
    counts = measured.pop("images", {})
    lines = [
        *(f"# {_text(path.stem)}", "", "## Model details", ""),
        f"- An image classifier of {len(about['class_names'])} classes: {classes}.",
        f"- {model.count_params():,} parameters; the file is `{_text(name)}`.",
        f"- It sees {height} x {width} pixels (resizing: {about['resizing']}), RGB, preprocessed",
        f"  as '{about['preprocessing']}'; the file says so to the commands below.",
        *(f"- {_text(key)}: {_text(_flat(value))}" for key, value in came.items()),
    ]
    if "vgg" in str(came.get("base", "")):
        lines += [f"- {WEIGHTS}"]
    lines += ["", "## Training data", ""]
    lines += [f"- {_text(key)}: {_text(_flat(value))}" for key, value in counts.items()]
    lines += [] if counts else ["The file does not say."]
    lines += ["", "## Figures", "", "| on | figure | value |", "|---|---|---:|"]
    rows = list(_rows(measured))
    lines += rows or ["| | none was measured | |"]
    lines += [
        *("", "## Intended use, and limits", ""),
        "The model chooses one of its classes for every picture, also for one of none of them. Its",
        "figures hold for pictures like those it was trained on: same kind of camera, subject and",
        "choice. Measure it on your own (`minitl evaluate`) before anything depends on it.",
        *("", "## How to use it", "", "```sh"),
        *(f"minitl {how}" for how in (f"evaluate {file} FOLDER", f"predict {file} IMAGE ...")),
        f"minitl serve {file}",
        *("```", ""),
    ]
    return "\n".join(lines)


def _rows(measured: Mapping[str, Any], of: str = "") -> Iterator[str]:
    """A table row per number, of dictionaries in dictionaries."""
    for key, value in measured.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{of} {key}".strip())
        else:
            yield f"| {_text(of)} | {_text(key)} | {_text(_flat(value))} |"


def _flat(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_flat, value)) or "none"
    return "" if value is None else str(value)


def _text(value: Any) -> str:
    """Text from a file, so that it cannot pass for Markdown or HTML, nor command a terminal."""
    text = visible(str(value)).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else c for c in text)
