"""Recurrence: the two functions of `ops.py`'s kind that walk along time, LSTM and GRU.

A recurrent layer reads a sequence step by step and carries a state h from each step to the next:

    h[t] = step(x[t] K + b, h[t-1])                t = 1 ... T,   h[0] = 0

What does not depend on the state, x[t] K + b, is one matrix product for all steps together, an
ordinary `ops.dense`; its result, z (T, N, G*U), is what the functions here start from. They loop
over time and keep what each step computed. Their gradient is the same loop backwards
(*backpropagation through time*): at step t the gradient of h[t] is what the output at t receives
plus what step t + 1 hands back, and the step's own formulas turn it into gradients for z[t] and
h[t-1]. The gradient for the recurrent kernel is again one product for all steps together.

Letters: N samples, T steps, D numbers a step, U units, G gates (4 in an LSTM, 3 in a GRU).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minitl import kernels, ops
from minitl.autograd import Array, Tensor, as_tensor, record

# --- Activations ---------------------------------------------------------------------------------


class Formula(NamedTuple):
    """An activation y = f(x) on arrays, and its derivative dy/dx = slope(y), written with y."""

    f: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def _sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x) = (1 + tanh(x / 2)) / 2, which never overflows (and is 3 times as fast)."""
    half = x.dtype.type(0.5)
    return half * np.tanh(half * x) + half


# Only activations whose slope follows from the output: then one array a gate need be kept.
FORMULAS: dict[Callable, Formula] = {
    ops.tanh: Formula(np.tanh, lambda y: 1 - y * y),
    ops.sigmoid: Formula(_sigmoid, lambda y: y * (1 - y)),
    ops.relu: Formula(lambda x: np.maximum(x, 0), lambda y: (y > 0).astype(y.dtype)),
    ops.linear: Formula(lambda x: x, np.ones_like),
}

# --- LSTM ----------------------------------------------------------------------------------------


def lstm(
    z: Tensor,
    recurrent_kernel: Tensor,
    activation: Callable = ops.tanh,
    recurrent_activation: Callable = ops.sigmoid,
    masks: Array | None = None,
) -> Tensor:
    """Long short-term memory: a state c that gates decide to forget, to add to, and to show.

        a    = z[t] + h[t-1] R              four gates a = (i, f, k, o), each (N, U)
        i, f, o = s(a_i), s(a_f), s(a_o)    input, forget and output gate, s: recurrent_activation
        k    = act(a_k)                     the candidate
        c[t] = f * c[t-1] + i * k           the memory: a sum, so gradients live through many steps
        h[t] = o * act(c[t])                what is shown

    and backwards, with dh and dc for the gradients that have arrived at h[t] and c[t]:

        dc  += dh * o * act'(c[t])          da_k = dc * i * act'(a_k)
        da_i = dc * k * s'(a_i)             da_f = dc * c[t-1] * s'(a_f)
        da_o = dh * act(c[t]) * s'(a_o)     dc[t-1] = dc * f
        dh[t-1] = da R^T                    dR = sum over t of h[t-1]^T da[t]

    Args:
        z: (T, N, 4U), the input's share x[t] K + b of the gates.
        recurrent_kernel: R (U, 4U).
        activation, recurrent_activation: functions of `ops` that stand in `FORMULAS`.
        masks: (4, N, U) or None: factors of h[t-1] on its way into each gate (dropout), the same
            at every step.

    Returns (T + 1, N, U): h[1] ... h[T], and then c[T].

    Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """
    z = as_tensor(z)
    a, r = z.storage, recurrent_kernel.storage
    steps, n, units = _check("lstm", z, recurrent_kernel, 4)
    act, s = FORMULAS[activation], FORMULAS[recurrent_activation]
    h, c = (np.zeros((steps + 1, n, units), a.dtype) for _ in range(2))
    gates = np.empty((steps, n, 4, units), a.dtype)
    i, f, k, o = (gates[:, :, gate] for gate in range(4))
    shown = np.empty((steps, n, units), a.dtype)  # act(c[t])

    def forward() -> None:
        for t in range(steps):
            before = (a[t] + _recur(h[t], r, masks)).reshape(n, 4, units)
            gates[t, :, :2] = s.f(before[:, :2])
            k[t] = act.f(before[:, 2])
            o[t] = s.f(before[:, 3])
            c[t + 1] = f[t] * c[t] + i[t] * k[t]
            shown[t] = act.f(c[t + 1])
            h[t + 1] = o[t] * shown[t]

    def backward(g: Array, da: Array) -> None:
        # All factors that do not depend on what arrives, for all steps at once.
        da[:, :, 0] = k * s.slope(i)
        da[:, :, 1] = c[:-1] * s.slope(f)
        da[:, :, 2] = i * act.slope(k)
        da[:, :, 3] = shown * s.slope(o)
        to_memory = o * act.slope(shown)
        dh, dc = np.zeros_like(h[0]), g[steps]
        for t in reversed(range(steps)):
            dh = dh + g[t]
            dc = dc + dh * to_memory[t]
            da[t, :, :3] *= dc[:, np.newaxis]
            da[t, :, 3] *= dh
            dc = dc * f[t]
            dh = _recur_input_gradient(da[t].reshape(n, -1), r, masks)

    @ops.once
    def through_time(g: Array) -> Array:
        da = np.empty_like(gates)
        kernels.on_one_core(lambda: backward(g, da))
        return da.reshape(a.shape)

    kernels.on_one_core(forward)
    return record(
        "lstm",
        np.concatenate([h[1:], c[steps:]]),
        (z, through_time),
        (
            recurrent_kernel,
            lambda g: _recur_kernel_gradient(h[:-1], through_time(g), masks),
        ),
    )


# --- GRU -----------------------------------------------------------------------------------------


def gru(
    z: Tensor,
    recurrent_kernel: Tensor,
    recurrent_bias: Tensor | None = None,
    activation: Callable = ops.tanh,
    recurrent_activation: Callable = ops.sigmoid,
    masks: Array | None = None,
) -> Tensor:
    """Gated recurrent unit: the state becomes a mixture of itself and a candidate.

        q    = h[t-1] R + b                 three parts (q_u, q_r, q_k), each (N, U)
        u, r = s(z_u + q_u), s(z_r + q_r)   update and reset gate, s: recurrent_activation
        k    = act(z_k + r * q_k)           the candidate
        h[t] = u * h[t-1] + (1 - u) * k

    and backwards, with dh for the gradient that has arrived at h[t]:

        dz_u = dh * (h[t-1] - k) * s'(u)    dz_k = dh * (1 - u) * act'(k)
        dz_r = dz_k * q_k * s'(r)           dq   = (dz_u, dz_r, dz_k * r)
        dh[t-1] = dh * u + dq R^T           dR   = sum over t of h[t-1]^T dq[t]

    Args:
        z: (T, N, 3U), the input's share x[t] K + b of the gates, in the order u, r, k.
        recurrent_kernel: R (U, 3U).
        recurrent_bias: b (3U,), or None.
        activation, recurrent_activation: functions of `ops` that stand in `FORMULAS`.
        masks: (3, N, U) or None: factors of h[t-1] on its way into each part of q.

    Returns h[1] ... h[T], (T, N, U).

    Cho et al. 2014 (arXiv 1406.1078); the reset gate acts after the product with R, which lets
    one product do for all three.
    """
    z = as_tensor(z)
    a, kernel = z.storage, recurrent_kernel.storage
    steps, n, units = _check("gru", z, recurrent_kernel, 3)
    bias = 0 if recurrent_bias is None else recurrent_bias.storage
    act, s = FORMULAS[activation], FORMULAS[recurrent_activation]
    h = np.zeros((steps + 1, n, units), a.dtype)
    gates = np.empty((steps, n, 4, units), a.dtype)
    u, r, k, q_k = (gates[:, :, gate] for gate in range(4))

    def forward() -> None:
        for t in range(steps):
            q = (_recur(h[t], kernel, masks) + bias).reshape(n, 3, units)
            given = a[t].reshape(n, 3, units)
            gates[t, :, :2] = s.f(given[:, :2] + q[:, :2])
            q_k[t] = q[:, 2]
            k[t] = act.f(given[:, 2] + r[t] * q_k[t])
            h[t + 1] = u[t] * h[t] + (1 - u[t]) * k[t]

    def backward(g: Array, dz: Array, dq: Array) -> None:
        # First the factors of dh, for all steps at once.
        dz[:, :, 0] = (h[:-1] - k) * s.slope(u)
        dz[:, :, 2] = (1 - u) * act.slope(k)
        dz[:, :, 1] = dz[:, :, 2] * q_k * s.slope(r)
        dq[:, :, :2] = dz[:, :, :2]
        dq[:, :, 2] = dz[:, :, 2] * r
        dh = np.zeros_like(h[0])
        for t in reversed(range(steps)):
            dh = dh + g[t]
            dz[t] *= dh[:, np.newaxis]
            dq[t] *= dh[:, np.newaxis]
            dh = dh * u[t] + _recur_input_gradient(dq[t].reshape(n, -1), kernel, masks)

    @ops.once
    def through_time(g: Array) -> tuple[Array, Array]:
        dz, dq = (np.empty((steps, n, 3, units), a.dtype) for _ in range(2))
        kernels.on_one_core(lambda: backward(g, dz, dq))
        return dz.reshape(a.shape), dq.reshape(a.shape)

    kernels.on_one_core(forward)
    return record(
        "gru",
        h[1:],
        (z, lambda g: through_time(g)[0]),
        (
            recurrent_kernel,
            lambda g: _recur_kernel_gradient(h[:-1], through_time(g)[1], masks),
        ),
        (recurrent_bias, lambda g: kernels.bias_gradient(through_time(g)[1])),
    )


def gru_reset_before(
    z: Tensor,
    recurrent_kernel: Tensor,
    activation: Callable = ops.tanh,
    recurrent_activation: Callable = ops.sigmoid,
    masks: Array | None = None,
) -> Tensor:
    """`gru` with the reset gate before the product with R_k, and without a second bias.

        u, r = s(z_u + h[t-1] R_u), s(z_r + h[t-1] R_r)
        k    = act(z_k + (r * h[t-1]) R_k)
        h[t] = u * h[t-1] + (1 - u) * k

    and backwards, with p = dz_k R_k^T for what arrives at r * h[t-1]:

        dz_u = dh * (h[t-1] - k) * s'(u)    dz_k = dh * (1 - u) * act'(k)
        dz_r = p * h[t-1] * s'(r)           dh[t-1] = dh * u + p * r + (dz_u, dz_r) R_ur^T

    Arguments and result are those of `gru`. This is the published form, Keras's
    `reset_after=False`.
    """
    z = as_tensor(z)
    a, kernel = z.storage, recurrent_kernel.storage
    steps, n, units = _check("gru", z, recurrent_kernel, 3)
    act, s = FORMULAS[activation], FORMULAS[recurrent_activation]
    of_gates, of_candidate = (
        (np.ascontiguousarray(columns), None if masks is None else masks[gates])
        for columns, gates in (
            (kernel[:, : 2 * units], slice(0, 2)),
            (kernel[:, 2 * units :], slice(2, 3)),
        )
    )
    h = np.zeros((steps + 1, n, units), a.dtype)
    gates = np.empty((steps, n, 3, units), a.dtype)
    u, r, k = (gates[:, :, gate] for gate in range(3))

    def forward() -> None:
        for t in range(steps):
            given = a[t].reshape(n, 3, units)
            gates[t, :, :2] = s.f(given[:, :2] + _recur(h[t], *of_gates).reshape(n, 2, units))
            k[t] = act.f(given[:, 2] + _recur(r[t] * h[t], *of_candidate))
            h[t + 1] = u[t] * h[t] + (1 - u[t]) * k[t]

    def backward(g: Array, dz: Array) -> None:
        dz[:, :, 0] = (h[:-1] - k) * s.slope(u)
        dz[:, :, 1] = h[:-1] * s.slope(r)
        dz[:, :, 2] = (1 - u) * act.slope(k)
        dh = np.zeros_like(h[0])
        for t in reversed(range(steps)):
            dh = dh + g[t]
            dz[t, :, ::2] *= dh[:, np.newaxis]
            p = _recur_input_gradient(dz[t, :, 2], *of_candidate)
            dz[t, :, 1] *= p
            both = dz[t, :, :2].reshape(n, -1)
            dh = dh * u[t] + p * r[t] + _recur_input_gradient(both, *of_gates)

    @ops.once
    def through_time(g: Array) -> Array:
        dz = np.empty_like(gates)
        kernels.on_one_core(lambda: backward(g, dz))
        return dz.reshape(a.shape)

    def kernel_gradient(g: Array) -> Array:
        dz = through_time(g)
        first = _recur_kernel_gradient(h[:-1], dz[..., : 2 * units], of_gates[1])
        last = _recur_kernel_gradient(r * h[:-1], dz[..., 2 * units :], of_candidate[1])
        return np.concatenate([first, last], axis=1)

    kernels.on_one_core(forward)
    return record("gru", h[1:], (z, through_time), (recurrent_kernel, kernel_gradient))


# --- The product with the recurrent kernel -------------------------------------------------------


def _recur(h: Array, kernel: Array, masks: Array | None) -> Array:
    """h (N, U) @ kernel (U, G*U) -> (N, G*U); with masks, each gate reads h * its own mask."""
    if masks is None:
        return h @ kernel
    columns = np.split(kernel, len(masks), axis=1)
    return np.concatenate([(h * m) @ k for m, k in zip(masks, columns, strict=True)], axis=1)


def _recur_input_gradient(g: Array, kernel: Array, masks: Array | None) -> Array:
    """The gradient of `_recur` for h (N, U), from g (N, G*U)."""
    if masks is None:
        return g @ kernel.T
    parts = zip(masks, *(np.split(whole, len(masks), axis=1) for whole in (g, kernel)), strict=True)
    return sum(m * (share @ k.T) for m, share, k in parts)


def _recur_kernel_gradient(h: Array, g: Array, masks: Array | None) -> Array:
    """The gradient of `_recur` for the kernel, of all steps: h (T, N, U), g (T, N, G*U)."""
    rows, units = g.shape[0] * g.shape[1], h.shape[2]
    if masks is None:
        return kernels.dense_kernel_gradient(h.reshape(rows, units), g.reshape(rows, -1))
    shares = np.split(g, len(masks), axis=2)
    return np.concatenate(
        [
            kernels.dense_kernel_gradient((h * m).reshape(rows, units), share.reshape(rows, units))
            for m, share in zip(masks, shares, strict=True)
        ],
        axis=1,
    )


def _check(op: str, z: Tensor, kernel: Tensor, gates: int) -> tuple[int, int, int]:
    """(T, N, U); ValueError where the shapes do not fit: the kernels check nothing."""
    units = kernel.shape[0]
    if z.ndim != 3 or kernel.shape != (units, gates * units) or z.shape[2] != gates * units:
        raise ValueError(
            f"{op} takes z (T, N, {gates}U) and a recurrent kernel (U, {gates}U), got {z.shape} "
            f"and {kernel.shape}"
        )
    return z.shape[0], z.shape[1], units
