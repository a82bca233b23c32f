"""The reference: a page for each room, with every public name, its signature and its docstring.

minitl's docstrings are plain text: paragraphs, and indented lines that are equations, shapes or
arguments. They are shown so, without being read as another markup. The pages are written into
`docs/api/` when the build begins; the directive `room` in them fills them.
"""

import importlib
import inspect
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

from minitl import naming

PACKAGE = Path(naming.__file__).parent
NOT_SHOWN = ("__main__", "keras_names", "cli")
ALONE = ("naming", "config")  # whose names are said by `__all__` or stand in the file


def rooms():
    """The rooms that have public names, by name: what stands at minitl's top."""
    there = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    return sorted(name for name in there if name[0] != "_" and name not in NOT_SHOWN)


def names_of(room):
    """{name: class or function} of a room; other names of one thing are left out."""
    found = naming.public_names(f"minitl.{room}")
    place = importlib.import_module(f"minitl.{room}")
    for name, value in vars(place).items():  # of a package, what its `__init__` itself defines
        if getattr(value, "__module__", "") == place.__name__ and name[0] != "_":
            found.setdefault(name, value)
    shown = {}
    for name, value in sorted(found.items(), key=lambda pair: pair[0].lower()):
        if callable(value) and getattr(value, "__name__", name) == name:
            shown[name] = value
    return shown


def text_nodes(text):
    """Nodes of a line of prose, in which `letters like these` are literal."""
    parts = re.split(r"`+([^`]+)`+", text)
    return [nodes.literal(p, p) if i % 2 else nodes.Text(p) for i, p in enumerate(parts) if p]


def docstring_nodes(thing):
    """A docstring as paragraphs, and as it stands where lines are indented or are an example."""
    found = []
    for block in re.split(r"\n\s*\n", inspect.getdoc(thing) or ""):
        lines = block.splitlines()
        plain = all(not line.startswith((" ", ">>>")) for line in lines)
        if plain:
            found.append(nodes.paragraph("", "", *text_nodes(" ".join(lines))))
        else:
            found.append(nodes.literal_block(block, block, language="text"))
    return found


def signature(name, thing):
    """How it is called, one line where that fits, else one line per argument."""
    try:
        parameters = inspect.signature(thing)
    except (TypeError, ValueError):
        return name
    line = re.sub(r"minitl\.[\w.]*\.", "", f"{name}{parameters}")
    if len(line) > 88:
        inner = ",\n    ".join(str(p) for p in parameters.parameters.values())
        line = re.sub(r"minitl\.[\w.]*\.", "", f"{name}(\n    {inner},\n)")
    return re.sub(r"<(?:class|function) '?([\w.]+)[^>]*>", r"\1", line)


class Room(Directive):
    """All public names of one room of minitl."""

    required_arguments = 1

    def run(self):
        room = self.arguments[0]
        found = []
        for name, thing in names_of(room).items():
            where = f"minitl.{room}.{name}"
            part = nodes.section("", nodes.title("", "", nodes.literal(name, name)), ids=[where])
            how = signature(name, thing)
            part += nodes.literal_block(how, how, language="python")
            part += docstring_nodes(thing)
            for method, value in vars(thing).items() if inspect.isclass(thing) else ():
                if method[0] != "_" and inspect.isfunction(value) and value.__doc__:
                    how = signature(method, value)
                    part += nodes.literal_block(how, how, language="python")
                    part += nodes.block_quote("", *docstring_nodes(value))
            found.append(part)
        return found


def write_pages(app):
    """One page per room, and the list of them; files are touched only where they change."""
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    pages = {}
    for room in rooms():
        if not names_of(room):
            continue
        about = inspect.getdoc(importlib.import_module(f"minitl.{room}")) or ""
        first = about.split("\n\n")[0].replace("\n", " ")
        pages[room] = f"# minitl.{room}\n\n{first}\n\n```{{room}} {room}\n```\n"
    listed = "\n".join(pages)
    tree = f"```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    pages["index"] = f"# Reference\n\nEvery public name, room by room.\n\n{tree}"
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()


def setup(app):
    app.add_directive("room", Room)
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True}
