"""All benchmarks, or those that are named: `python -m benchmarks --help`."""

from __future__ import annotations

import importlib
from types import ModuleType

import benchmarks
from benchmarks.common import arguments_parser, run

NAMES = (
    "forward",
    "networks",
    "layers",
    "training_step",
    "fine_tuning",
    "frozen_base",
    "mission_script",
    "dense_head",
    "dense_products",
    "recurrent",
    "optimizer",
    "augmentation",
    "from_files",
    "startup",
    "memory",
    "accuracy",
    "compare_keras",
    "readable",
    "threads",
    "elpv",
    "kills",
    "scaling",
)
LONG = ("elpv",)  # run only when named: an hour and more


def main() -> None:
    parser = arguments_parser((benchmarks.__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only",
        nargs="+",
        choices=NAMES,
        default=[name for name in NAMES if name not in LONG],
        metavar="NAME",
        help="see --list",
    )
    parser.add_argument("--list", action="store_true", help="show the names and their questions")
    arguments = parser.parse_args()
    if arguments.list:
        for name in NAMES:
            print(f"{name:14} {(_module(name).__doc__ or '').splitlines()[0]}")
    else:
        run({name: _module(name).measure for name in arguments.only}, arguments)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{name}")


if __name__ == "__main__":
    main()
