"""The process in which a learner's file runs: see `process.py`."""

import sys
from pathlib import Path

from minitl.study.process import inside

if __name__ == "__main__":  # the reference in docs/ imports every file
    number, folder, language = sys.argv[1:4]
    sys.exit(inside(int(number), Path(folder), "--only-checks" not in sys.argv, language))
