"""Pages of the site that show the repository's files, and the links to them.

A page of `docs/` links `../minitl/autograd.py`, as a reader of the repository wants it. On the site
there is a page of each such file, with its lines numbered, and the link leads there; a link to a
folder leads to its `__init__.py`, or to its name in the list of the folder's files.
"""

import html
import re
from pathlib import Path

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename

ROOT = Path(__file__).parents[2]
FOLDERS = ("minitl", "benchmarks", "examples", "tests", "weights")
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<style>body {{ margin: 1rem; font: 15px/1.45 sans-serif }} pre {{ margin: 0; line-height: 1.4 }}
.linenos {{ color: #666; padding-right: 1em; user-select: none }} td {{ vertical-align: top }}
{style}</style><p><a href="{top}index.html">minitl</a> / {name}</p>{body}</html>
"""


def show_sources(app, exception):
    """Write a page for every file of FOLDERS, and for those at the top, once the build is done."""
    if exception or app.builder.name != "html":
        return
    style = HtmlFormatter(linenos="table").get_style_defs()
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    for path in [*files, *ROOT.glob("*.md"), *ROOT.glob("*.cfg")]:
        if path.suffix not in (".py", ".txt", ".md", ".cfg") or "__pycache__" in path.parts:
            continue
        name = path.relative_to(ROOT).as_posix()
        lexer = get_lexer_for_filename(name)
        how = HtmlFormatter(linenos="table", lineanchors="line", wrapcode=True)
        body = highlight(path.read_text("utf-8"), lexer, how)
        out = Path(app.outdir) / "source" / f"{name}.html"
        out.parent.mkdir(parents=True, exist_ok=True)
        top = "../" * (name.count("/") + 1)
        page = PAGE.format(name=html.escape(name), style=style, top=top, body=body)
        out.write_text(page, "utf-8")


def lead_to_sources(app, docname, source):
    """In a page as it is read: links to files of the repository become links to their pages."""
    here = (Path(app.srcdir) / docname).parent

    def lead(match):
        text, target, anchor = match.groups()
        path = (here / target).resolve()
        inside = path.is_relative_to(ROOT) and not path.is_relative_to(app.srcdir)
        if not inside or "://" in target or not path.exists():
            return match.group()
        if path.is_dir():
            path = path / "__init__.py" if (path / "__init__.py").exists() else path / "README.md"
        name = path.relative_to(ROOT).as_posix()
        up = "../" * docname.count("/")
        label = re.sub(r"`([^`]*)`", r"<code>\1</code>", text)
        return f'<a href="{up}source/{name}.html{anchor or ""}">{label}</a>'

    source[0] = re.sub(r"\[([^\]]+)\]\(([^)\s#]+)(#[\w-]+)?\)", lead, source[0])


def setup(app):
    app.connect("source-read", lead_to_sources)
    app.connect("build-finished", show_sources)
    return {"parallel_read_safe": True}
