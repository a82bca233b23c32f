"""`minitl study`: the course in which the learner builds minitl's functions themselves.

The work is done in `minitl/study`; here are the options, and what is printed.
"""

import argparse
from typing import Any

from minitl import study


def add_to(commands: Any) -> None:
    about = "Build it yourself: 23 functions of minitl, checked, and put into the real VGG16."
    parser = commands.add_parser("study", help=about, description=about)
    parser.set_defaults(run=show)


def show(arguments: argparse.Namespace) -> None:
    """List the stages."""
    for number, text in study.all_texts().items():
        print(f"{number:>2}  {text.title}")
