"""How far a result may be from the truth, and why: the only place with such numbers.

Sums are judged by the bound that holds for every order of their terms (Higham, Accuracy and
Stability of Numerical Algorithms, 2nd edition, section 3.1): a sum of K products, computed in
arithmetic with unit roundoff u, differs from the exact one by at most

    gamma_K * sum |a_i * b_i|        gamma_K = K*u / (1 - K*u)

The magnitude sum |a_i * b_i| is the same kernel applied to absolute values. It is rigorous, so a
correct kernel cannot fail by bad luck; and it is elementwise, so a wrong one cannot hide behind
large neighbours.
"""

import numpy as np

UNIT_ROUNDOFF = {np.dtype(np.float32): 2.0**-24, np.dtype(np.float64): 2.0**-53}

# Gradients in float64 against central differences with a step of 1e-6: the truncation error is
# about step^2, the rounding error about 1e-16 / step, both relative to values around one.
FINITE_DIFFERENCE_STEP = 1e-6
FINITE_DIFFERENCE = 1e-8

# <g, K x> against <K^T g, x> in float64: two sums of at most some 1e4 products of numbers around
# one, relative to the magnitude of the sum (see assert_adjoint).
ADJOINT_TERMS = 10**5


def gamma(terms, dtype):
    """Higham's gamma_K for K = `terms`."""
    ku = terms * UNIT_ROUNDOFF[np.dtype(dtype)]
    return ku / (1 - ku)


def assert_sum(actual, exact, magnitude, terms):
    """`actual` is a sum of `terms` products; `exact` was computed in float64, `magnitude` from
    absolute values. Allowed are the rounding of the one and of the other."""
    allowed = (gamma(terms, actual.dtype) + gamma(terms, np.float64)) * magnitude
    assert actual.shape == exact.shape
    error = np.abs(actual.astype(np.float64) - exact)
    # `not <=` rather than `>`, so that a NaN fails.
    bad = ~(error <= allowed)
    assert not bad.any(), (
        f"{bad.sum()} of {bad.size} beyond the bound; worst: error {error[bad].max():.3g}, "
        f"allowed {np.asarray(np.broadcast_to(allowed, bad.shape))[bad].min():.3g}"
    )


def assert_ulps(actual, exact, roundings, scale=None):
    """`actual` comes from about `roundings` operations in a row, each right to u relative to
    `scale` (by default |exact|: no cancellation)."""
    u = UNIT_ROUNDOFF[actual.dtype]
    scale = np.abs(exact) if scale is None else scale
    error = np.abs(actual.astype(np.float64) - exact)
    assert actual.shape == np.shape(exact)
    assert (error <= roundings * u * scale + np.finfo(actual.dtype).tiny).all(), error.max()


def assert_adjoint(g, y, back, x):
    """<g, y> = <back, x> for y = K x and back = K^T g: float64, random g and x."""
    left, right = np.vdot(g, y), np.vdot(back, x)
    magnitude = np.vdot(np.abs(g), np.abs(y)) + np.vdot(np.abs(back), np.abs(x))
    assert abs(left - right) <= gamma(ADJOINT_TERMS, np.float64) * magnitude


# --- Against Keras -------------------------------------------------------------------------------

# Both in float64 and by the same formula, so that only the order of additions differs. gamma_K for
# sums of up to 1e4 terms, relative to the largest number involved.
SAME_FORMULA = gamma(10**4, np.float64)  # 1.1e-12

# Both in float32, elementwise functions and short sums (at most some hundred terms) of numbers
# around one: gamma_100 for each side.
SAME_FORMULA_FLOAT32 = 2 * gamma(100, np.float32)  # 1.2e-5

# A float32 convolution that a Winograd kernel may serve (3x3, stride 1): its error is relative to
# the largest number in the tile, not to the number itself. Measured on whole VGG16 at 1.8e-6.
WINOGRAD = 1e-5

# Images of up to 30 pixels a side and values 0-255, seen through a map: TensorFlow computes places
# in float32, right to some 4 roundings of 2e-6, and from pixel to pixel a value changes by at most
# 255 in each of two directions.
RESAMPLED = 4 * 2e-6 * 2 * 255  # 4e-3

# Metrics of Keras are float32 sums over the whole stream.
METRIC = 2 * gamma(1000, np.float32)  # 1.2e-4: bound for a stream of 1000 numbers

# Means and variances of 10**5 random numbers: five standard errors.
STATISTICS = 5.0

# Whole VGG16, real weights, real photographs: the bars of the project, as fractions of the maximum.
PHOTOGRAPHS = 3e-6
# Whole networks with random weights, as fractions of the maximum: the bar of the project for
# outputs; gradients in float64, through up to 53 layers and as many sums.
NETWORK = 1e-5
NETWORK_GRADIENTS = 1e-9
# The mission's script after every epoch: relative for the loss, absolute for probabilities.
SCRIPT_LOSS = 1e-3
SCRIPT_PREDICTIONS = 1e-3

# Whole trainings in float32: rounding (6e-8) grows from step to step with the curvature of the
# loss. After 20 steps of the small networks here in float64 the same runs agree to 1e-9, which
# shows that the rest is rounding; so 1e-4 for losses and 1e-3 of the largest weight in float32.
TRAINING_FLOAT64 = 1e-9
TRAINING_LOSS_FLOAT32 = 1e-4
TRAINING_WEIGHTS_FLOAT32 = 1e-3

# 100 Adam steps of the head on real F, the loss at every step: the bar of the project, relative.
HEAD_LOSS = 1e-4
SMALL_LOSS = 1e-6  # of smaller losses, that of this one
