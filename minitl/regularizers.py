"""Penalties on large weights, added to the loss."""

from typing import Literal

import numpy as np

from minitl import ops
from minitl.autograd import Tensor
from minitl.layers.base import REGULARIZERS, regularizer
from minitl.naming import Configurable, NotNegative, attributes_of
from minitl.ops import arrays

__getattr__ = attributes_of(__name__)


class L1L2(Configurable):
    """l1 * sum |w| + l2 * sum w^2."""

    def __init__(self, l1: NotNegative = 0.0, l2: NotNegative = 0.0):
        self.l1, self.l2 = float(l1), float(l2)

    def __call__(self, weight: Tensor) -> Tensor:
        terms = []
        if self.l1 or not self.l2:
            terms.append(arrays.absolute(weight).sum() * self.l1)
        if self.l2:
            terms.append((weight * weight).sum() * self.l2)
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]


class L1(L1L2):
    """l1 * sum |w|: pulls every weight towards zero at the same speed, many of them all the way."""

    def __init__(self, l1: NotNegative = 0.01):
        super().__init__(l1=l1)


class L2(L1L2):
    """l2 * sum w^2: pulls every weight towards zero in proportion to its size."""

    def __init__(self, l2: NotNegative = 0.01):
        super().__init__(l2=l2)


class OrthogonalRegularizer(Configurable):
    """factor * the mean of |cos| over all pairs of a matrix's rows, or columns: how far they are
    from standing upright on one another."""

    def __init__(self, factor: NotNegative = 0.01, mode: Literal["rows", "columns"] = "rows"):
        self.factor, self.mode = float(factor), mode

    def __call__(self, weight: Tensor) -> Tensor:
        if weight.ndim != 2:
            raise ValueError(f"OrthogonalRegularizer takes a matrix, got shape {weight.shape}")
        rows = ops.normalize(weight if self.mode == "rows" else ops.transpose(weight))
        n = len(rows)
        upright = Tensor(1 - np.eye(n, dtype=weight.dtype))
        cosines = arrays.absolute(ops.matmul(rows, ops.transpose(rows)) * upright)
        return cosines.sum() * (self.factor / (n * (n - 1)))


REGULARIZERS.register(L1, L2, L1L2, OrthogonalRegularizer, l1_l2=L1L2)
get = regularizer  # by name, configuration, or itself
