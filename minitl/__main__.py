"""`python -m minitl` is the command `minitl`."""

import sys

from minitl.cli import main

sys.exit(main())
