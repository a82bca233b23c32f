"""Which of the fast convolutions suits which shapes.

winograd   3x3, stride 1: a quarter of the multiplications or less, but the tiles, and for training
           the filters, have to be transformed
implicit   few channels: no columns, which would cost more than the product; it has no gradient
           to the input
direct     everything else: im2col, and a matrix product by BLAS
"""

from __future__ import annotations

from minitl.kernels.geometry import Geometry


def choose(
    images: int, geometry: Geometry, channels: int, filters: int, gradient: str | None = None
) -> str:
    """'winograd', 'few_channels' or 'im2col': for conv2d, or its gradient to 'input' or 'kernel'.

    Measured, milliseconds of one core for winograd, implicit and direct (of gradients: winograd and
    direct), 3x3 with stride 1:

        N, H = W, C -> F         conv2d               input gradient   kernel gradient
        8,    56,   4 ->   4      1.8,   1.3,   1.4      1.5,  1.9        1.5,  1.2
        8,    56,   8 ->   8      1.1,   2.1,   1.8      1.5,  2.7        1.5,  1.8
        8,    56,  64 ->  64      9.4,  30.5,  28.1      9.0, 32.0       10.4, 29.4
        8,    14, 256 -> 256     10.7,  30.0,  27.9     12.7, 23.2       27.7, 33.9
        8,     7, 512 -> 512     11.7,  38.0,  30.2     27.9, 27.4       40.2, 38.5
        1,    14, 512 -> 512      6.8,  23.8,  16.5     22.8, 14.1       33.5, 21.9

    (Winograd's in tiles of 4x4.) The gradients pay for the transform of the filters each time, so
    they want 64 tiles or more. A map only one or two places wide has half tiles only: 24
    multiplications for 8 places.
    Few channels with another window, 8 images, implicit and direct: 224x224, 7x7 with stride 2,
    3 -> 64: 4.3, 9.5; 112x112, 5x5, 16 -> 32: 3.8, 7.4; 112x112, 1x1, 4 -> 32: 0.21, 0.19. The
    gradient to the kernel, an image of 16 on two cores: 224x224, 3x3, 3 -> 64: 2.0, 3.6; with 7x7
    and stride 2: 1.4, 3.9; 112x112, 5x5, 16 -> 32: 1.5, 4.0. It is made image by image, so small
    ones do not pay: 64 images of 5x5, 5x5 valid, 16 -> 120, one core, 1.3, 0.24.
    """
    (oh, ow), window = geometry.out_size, geometry.window
    plain = window == (3, 3) and geometry.strides == (1, 1)
    if plain and min(oh, ow) > 2 and min(channels, filters) >= 8:
        tiles = images * -(-oh // 4) * -(-ow // 4)
        if tiles >= 64 or gradient is None:
            return "winograd"
    few = channels <= 16 and window[1] > 1
    if few and (gradient is None or (gradient == "kernel" and oh * ow >= 64)):
        return "few_channels"
    return "im2col"
