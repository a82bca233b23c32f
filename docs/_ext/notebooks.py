"""A page as a notebook: its ```python blocks are cells, the rest is text between them."""

import jupytext


def read(text):
    """The notebook of a page's text; MyST-NB calls this for every `.md`."""
    notebook = jupytext.reads(text, fmt="md")
    python = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["kernelspec"] = python
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    return notebook
