"""The process in which a learner's file runs: see `process.py`."""

import sys
from pathlib import Path

from minitl.study.process import inside

if __name__ == "__main__":  # the reference in docs/ imports every file
    sys.exit(inside(int(sys.argv[1]), Path(sys.argv[2]), "--only-checks" not in sys.argv))
