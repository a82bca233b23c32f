"""How Sphinx makes a site of these pages: `sphinx-build -W docs build/site`.

A page is Markdown; its ```python blocks are cells of a notebook (Jupytext), which the build runs
from top to bottom and whose outputs it puts below them. A cell that raises ends the build. `_ext/`
has what is minitl's own: the reference of all public names, and the pages that show source files.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "minitl"
author = "the minitl authors"
copyright = author
extensions = ["myst_nb", "reference", "sources"]

root_doc = "index"
source_suffix = {".md": "myst-nb"}
exclude_patterns = ["_ext", "_static", "README.md"]
nb_custom_formats = {".md": ["notebooks.read", {}]}
nb_execution_mode = "force"
nb_execution_timeout = 1800  # a busy machine is no error
nb_execution_raise_on_error = True
nb_execution_in_temp = True
# The first has whole files as cells, which tests/test_docs.py runs; the Chinese chapters have the
# code of the English ones.
nb_execution_excludepatterns = ["extending.md", "zh/*"]
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["colon_fence", "dollarmath", "html_image"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "minitl"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_copy_source = False
html_show_sphinx = False
