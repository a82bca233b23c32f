"""Penalties on large weights, added to the loss."""

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


REGULARIZERS.register(L1, L2, L1L2, l1_l2=L1L2)
get = regularizer  # by name, configuration, or itself
