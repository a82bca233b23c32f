"""More than one process, or machine: Dask shares the pictures out, minitl computes what it shares.

`extract_features` and `predict` take the arguments of their namesakes, and a cluster; without one
they start worker processes on this machine (`cluster.py`). F comes in parts, each a feature file,
and `Rows` shows them as one array (`rows.py`), which `fit` reads as it goes. `solve_head` finds the
head's optimum on a Dask array (`optimum.py`). Needs `pip install 'minitl[distributed]'`.
"""

from minitl.distributed.cluster import extract_features, predict
from minitl.distributed.optimum import solve_head
from minitl.distributed.rows import Rows

__all__ = ["Rows", "extract_features", "predict", "solve_head"]
