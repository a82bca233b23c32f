"""Convolution onto something: its formula. Twin: `fast/convolution.py`."""

from minitl.kernels import switching
from minitl.kernels.geometry import Array, Geometry
from minitl.kernels.reference import bias_and_activation, conv2d


@switching
def conv2d_onto(
    added: Array,
    x: Array,
    kernel: Array,
    bias: Array | None,
    geometry: Geometry,
    activation: str | None = None,
    cache: dict | None = None,
) -> Array:
    """activation(added + conv2d(x, kernel, bias)): the end of a residual block, y = relu(x + f(x)).

    added (N, OH, OW, F) is not changed; the others as for `reference.conv2d`.
    """
    return bias_and_activation(added + conv2d(x, kernel, bias, geometry), None, activation)
