"""The matrices of Winograd's convolution, from the points at which it evaluates polynomials.

`winograd.py` derives them; `winograd_tiles.py` makes compiled code of them. M is the size of a tile
of outputs, P = M + 2 the number of points.
"""

import numpy as np

from minitl.kernels.geometry import Array

POINTS = {  # by M; and infinity, the last row of G and A and column of B
    4: (0, 5 / 8, -5 / 8, 3 / 2, -3 / 2),
    6: (0, 1 / 2, -1 / 2, 1, -1, 2, -2),
}


def winograd_matrices(points: tuple[float, ...]) -> tuple[Array, Array, Array]:
    """G (P, 3), A (P, M), B (P, P): values of k and g at the points, coefficients from values."""
    P, M = len(points) + 1, len(points) - 1
    G, A, B = np.zeros((P, 3)), np.zeros((P, M)), np.zeros((P, P))
    for row, point in enumerate(points):
        others = [other for other in points if other != point]
        G[row] = point ** np.arange(3) / np.prod([point - other for other in others])
        A[row] = point ** np.arange(M)
        B[:-1, row] = np.poly(others)[::-1]  # coefficients of prod (z - other), lowest first
    G[-1, -1] = A[-1, -1] = 1
    B[:, -1] = np.poly(points)[::-1]
    return G, A, B


def edge_matrices(size: int, count: int) -> tuple[Array, Array]:
    """A (P, M) and B (P, P) where only `count` of a tile's M = size outputs are wanted.

    The filters are those of whole tiles. The points after the first count + 1 are left out: their
    rows of A and columns of B are zeros, and so is what lies behind the outputs and inputs used.
    """
    kept, left_out = POINTS[size][: count + 1], POINTS[size][count + 1 :]
    places = [*range(count + 1), size + 1]
    A, B = np.zeros((size + 2, size)), np.zeros((size + 2, size + 2))
    _, A[places, :count], B[: count + 2, places] = winograd_matrices(kept)
    B[:, : count + 1] *= [np.prod([point - other for other in left_out]) for point in kept]
    return A, B
