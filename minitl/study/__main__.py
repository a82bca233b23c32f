"""The process in which a learner's file runs: see `process.py`."""

import sys
from pathlib import Path

from minitl.study.process import inside

sys.exit(inside(int(sys.argv[1]), Path(sys.argv[2]), "--only-checks" not in sys.argv))
