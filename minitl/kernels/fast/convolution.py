"""The fast convolutions, and which of them suits which shapes.

one_by_one    1x1: a matrix product, nothing copied
winograd      3x3, stride 1: a quarter of the multiplications or less, but there are transforms
few_channels  few channels: no columns, which would cost more; no gradient to the input
im2col        everything else: columns of what each window sees, and a matrix product by BLAS
"""

from types import ModuleType

from minitl.kernels import current_kernels, twin
from minitl.kernels.fast import few_channels, gemm, im2col, one_by_one, winograd
from minitl.kernels.fast.activations import relu6
from minitl.kernels.fast.pointwise import add_onto
from minitl.kernels.fast.pooling import max_pool2d
from minitl.kernels.geometry import Geometry, sliding
from minitl.kernels.machine.compiling import compiled
from minitl.kernels.machine.memory import empty
from minitl.kernels.machine.threads import over_rows


def choose(
    images: int, geometry: Geometry, channels: int, filters: int, gradient: str | None = None
) -> ModuleType:
    """The module to take for conv2d, or for its gradient to the 'input' or the 'kernel'.

    1x1 windows hand gradients back by the product that they came by, unless there are strides.
    Winograd's gradients transform the filters each time, so they want 64 tiles or more; a map one
    or two places wide has half tiles only. The kernel's gradient of few channels goes by images.
    """
    if current_kernels() == "direct":
        return im2col
    (oh, ow), window = geometry.out_size, geometry.window
    plain = window == (3, 3) and geometry.strides == (1, 1)
    if plain and min(oh, ow) > 2 and min(channels, filters) >= 8:
        tiles = images * -(-oh // 4) * -(-ow // 4)
        if tiles >= 64 or gradient is None:
            return winograd
    there = gradient is None or (gradient == "input" and geometry.strides == (1, 1))
    if window == (1, 1) and there and not any(geometry.pads):
        return one_by_one
    few = channels <= 16 and window[1] > 1
    if few and (gradient is None or (gradient == "kernel" and oh * ow >= 64)):
        return few_channels
    return im2col


@twin
def conv2d(x, kernel, bias, geometry, activation=None, cache=None, recorded=False, precise=False):
    way = choose(len(x), geometry, *kernel.shape[2:])
    precise = precise or (recorded and current_kernels() == "precise")
    later = activation == "relu6" and way not in (one_by_one, few_channels)  # whose products end so
    own = None if later else activation
    y = way.conv2d(x, kernel, bias, geometry, own, cache, recorded, precise)
    return relu6(y, y) if later else y


@twin
def conv2d_max_pool2d(x, kernel, bias, geometry, activation=None, cache=None):
    way = choose(len(x), geometry, *kernel.shape[2:])
    if way is winograd:
        return winograd.conv2d_max_pool2d(x, kernel, bias, geometry, activation, cache)
    y = way.conv2d(x, kernel, bias, geometry, activation, cache)
    return max_pool2d(y, sliding(geometry.out_size, (2, 2), (2, 2), "valid"))


@twin
def conv2d_onto(added, x, kernel, bias, geometry, activation=None, cache=None):
    way = choose(len(x), geometry, *kernel.shape[2:])
    if way is one_by_one:  # on the way from the registers to memory
        return way.conv2d(x, kernel, bias, geometry, activation, cache, added=added)
    y = way.conv2d(x, kernel, bias, geometry, None, cache)
    add_onto(y, added, activation)
    return y


@twin
def conv2d_input_gradient(g, kernel, geometry, cache=None):
    way = choose(len(g), geometry, kernel.shape[2], kernel.shape[3], "input")
    if way is one_by_one:  # the same product, with the kernel turned around
        (channels, filters), width = kernel.shape[2:], gemm.panel_width(g.dtype)
        panels = empty((-(-channels // width), filters, width), g.dtype)
        over_rows(lambda *part: _turn(kernel[0, 0], panels, *part), len(panels), filters * width)
        kept = {("panels", g.dtype): panels}
        return one_by_one.conv2d(g, kernel.swapaxes(2, 3), None, geometry, cache=kept)
    return way.conv2d_input_gradient(g, kernel, geometry, cache)


@compiled
def _turn(kernel, panels, first, last):
    """kernel.T in panels first ... last-1: of 512 x 2048 by NumPy, half of the product's time."""
    for p in range(first, last):
        for j in range(panels.shape[2]):
            c = p * panels.shape[2] + j
            for f in range(panels.shape[1]):
                panels[p, f, j] = kernel[c, f] if c < len(kernel) else 0


@twin
def conv2d_kernel_gradient(x, g, geometry):
    way = choose(len(x), geometry, x.shape[3], g.shape[3], "kernel")
    return way.conv2d_kernel_gradient(x, g, geometry)
