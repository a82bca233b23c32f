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
from minitl.autograd import Array, Tensor, Vjp, as_tensor, record

# --- Activations ---------------------------------------------------------------------------------


class Formula(NamedTuple):
    """An activation y = f(x) on arrays, and its derivative written with y: dL/dx = vjp(g, y)."""

    f: Callable[[Array], Array]
    vjp: Callable[[Array, Array], Array]


def _sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x) = (1 + tanh(x / 2)) / 2, which never overflows (and is 3 times as fast)."""
    half = x.dtype.type(0.5)
    return half * np.tanh(half * x) + half


# In a loop over time only activations will do whose derivative follows from the output, so that
# one array a gate need be kept.
FORMULAS: dict[Callable, Formula] = {
    ops.tanh: Formula(np.tanh, lambda g, y: g * (1 - y * y)),
    ops.sigmoid: Formula(_sigmoid, lambda g, y: g * y * (1 - y)),
    ops.relu: Formula(lambda x: np.maximum(x, 0), lambda g, y: g * (y > 0)),
    ops.linear: Formula(lambda x: x, lambda g, y: g),
    ops.softmax: Formula(kernels.softmax, kernels.softmax_gradient),
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

        da_o = s'(dh * act(c[t]))           dc  += act'(dh * o)
        da_i = s'(dc * k)                   da_k = act'(dc * i)
        da_f = s'(dc * c[t-1])              dc[t-1] = dc * f
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
    shown = np.empty((steps, n, units), a.dtype)  # act(c[t])
    for t in range(steps):
        before = (a[t] + _recur(h[t], r, masks)).reshape(n, 4, units)
        gates[t, :, :2] = s.f(before[:, :2])
        gates[t, :, 2] = act.f(before[:, 2])
        gates[t, :, 3] = s.f(before[:, 3])
        i, f, k, o = (gates[t, :, gate] for gate in range(4))
        c[t + 1] = f * c[t] + i * k
        shown[t] = act.f(c[t + 1])
        h[t + 1] = o * shown[t]

    @_once
    def through_time(g: Array) -> Array:
        da = np.empty_like(gates)
        dh, dc = np.zeros_like(h[0]), g[steps]
        for t in reversed(range(steps)):
            i, f, k, o = (gates[t, :, gate] for gate in range(4))
            dh = dh + g[t]
            dc = dc + act.vjp(dh * o, shown[t])
            da[t, :, 0] = s.vjp(dc * k, i)
            da[t, :, 1] = s.vjp(dc * c[t], f)
            da[t, :, 2] = act.vjp(dc * i, k)
            da[t, :, 3] = s.vjp(dh * shown[t], o)
            dc = dc * f
            dh = _recur_input_gradient(da[t].reshape(n, -1), r, masks)
        return da.reshape(a.shape)

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
    reset_after: bool = True,
    masks: Array | None = None,
) -> Tensor:
    """Gated recurrent unit: the state is a mixture of itself and a candidate.

        u = s(z_u + h[t-1] R_u + b_u)       update gate, s: recurrent_activation
        r = s(z_r + h[t-1] R_r + b_r)       reset gate
        k = act(z_k + r * (h[t-1] R_k + b_k))      the candidate, with reset_after
        k = act(z_k + (r * h[t-1]) R_k)            without; then there is no b
        h[t] = u * h[t-1] + (1 - u) * k

    and backwards, dh being what has arrived at h[t] and q = h[t-1] R_k + b_k:

        da_u = s'(dh * (h[t-1] - k))        da_k = act'(dh * (1 - u))
        da_r = s'(da_k * q)                 the product with R receives (da_u, da_r, da_k * r)
        dh[t-1] = dh * u + (da_u, da_r, da_k * r) R^T

    (without reset_after, with p = da_k R_k^T:  da_r = s'(p * h[t-1]),
    dh[t-1] = dh * u + p * r + (da_u, da_r) R_ur^T).

    Args:
        z: (T, N, 3U), the input's share x[t] K + b of the gates, in the order u, r, k.
        recurrent_kernel: R (U, 3U).
        recurrent_bias: b (3U,), or None.
        activation, recurrent_activation: functions of `ops` that stand in `FORMULAS`.
        reset_after: whether the reset gate acts after the product with R_k, or before it.
        masks: (3, N, U) or None: factors of h[t-1] on its way into each gate's product.

    Returns h[1] ... h[T], (T, N, U).

    Cho et al. 2014 (arXiv 1406.1078, first version: before; third: after).
    """
    z = as_tensor(z)
    a, r_kernel = z.storage, recurrent_kernel.storage
    steps, n, units = _check("gru", z, recurrent_kernel, 3)
    bias = 0 if recurrent_bias is None else recurrent_bias.storage
    act, s = FORMULAS[activation], FORMULAS[recurrent_activation]
    first, last = np.s_[..., : 2 * units], np.s_[..., 2 * units :]  # of u and r; of k
    if not reset_after and recurrent_bias is not None:
        raise ValueError("gru has no recurrent_bias when the reset gate comes before the product")
    # The kernel's columns, and the masks, of what is multiplied together.
    whole, of_gates, of_candidate = (
        (np.ascontiguousarray(r_kernel[part]), None if masks is None else masks[which])
        for part, which in ((np.s_[...], np.s_[:]), (first, np.s_[:2]), (last, np.s_[2:]))
    )
    h = np.zeros((steps + 1, n, units), a.dtype)
    gates = np.empty((steps, n, 2, units), a.dtype)
    candidates = np.empty((steps, n, units), a.dtype)
    reset = np.empty((steps, n, units), a.dtype)  # q with reset_after, r * h[t-1] without
    for t in range(steps):
        if reset_after:
            inner = _recur(h[t], *whole) + bias
        else:
            inner = _recur(h[t], *of_gates)
        gates[t] = s.f((a[t][first] + inner[first]).reshape(n, 2, units))
        u, r = gates[t, :, 0], gates[t, :, 1]
        if reset_after:
            reset[t] = inner[last]
            candidates[t] = act.f(a[t][last] + r * reset[t])
        else:
            reset[t] = r * h[t]
            candidates[t] = act.f(a[t][last] + _recur(reset[t], *of_candidate))
        h[t + 1] = u * h[t] + (1 - u) * candidates[t]

    @_once
    def through_time(g: Array) -> tuple[Array, Array]:
        """The gradients for z, and for what the products with R gave (with reset_after)."""
        da = np.empty((steps, n, 3, units), a.dtype)
        inner = da.copy() if reset_after else da
        dh = np.zeros_like(h[0])
        for t in reversed(range(steps)):
            u, r, k = gates[t, :, 0], gates[t, :, 1], candidates[t]
            dh = dh + g[t]
            da[t, :, 0] = s.vjp(dh * (h[t] - k), u)
            da[t, :, 2] = act.vjp(dh * (1 - u), k)
            if reset_after:
                da[t, :, 1] = s.vjp(da[t, :, 2] * reset[t], r)
                inner[t, :, :2] = da[t, :, :2]
                inner[t, :, 2] = da[t, :, 2] * r
                dh = dh * u + _recur_input_gradient(inner[t].reshape(n, -1), *whole)
            else:
                p = _recur_input_gradient(np.ascontiguousarray(da[t, :, 2]), *of_candidate)
                da[t, :, 1] = s.vjp(p * h[t], r)
                both = np.ascontiguousarray(da[t, :, :2]).reshape(n, -1)
                dh = dh * u + p * r + _recur_input_gradient(both, *of_gates)
        return da.reshape(a.shape), inner.reshape(a.shape)

    def kernel_gradient(g: Array) -> Array:
        inner = through_time(g)[1]
        if reset_after:
            return _recur_kernel_gradient(h[:-1], inner, whole[1])
        parts = ((h[:-1], inner[first], of_gates[1]), (reset, inner[last], of_candidate[1]))
        return np.concatenate([_recur_kernel_gradient(*part) for part in parts], axis=1)

    return record(
        "gru",
        h[1:],
        (z, lambda g: through_time(g)[0]),
        (recurrent_kernel, kernel_gradient),
        (recurrent_bias, lambda g: kernels.bias_gradient(through_time(g)[1])),
    )


# --- The product with the recurrent kernel -------------------------------------------------------


def _recur(h: Array, kernel: Array, masks: Array | None) -> Array:
    """h (N, U) @ kernel (U, G*U) -> (N, G*U); with masks, each gate g reads h * masks[g]."""
    if masks is None:
        return kernels.dense(h, kernel, None)
    pieces = _pieces(kernel, masks)
    return np.concatenate([kernels.dense(h * m, k, None) for m, k in pieces], axis=1)


def _recur_input_gradient(g: Array, kernel: Array, masks: Array | None) -> Array:
    """The gradient of `_recur` for h (N, U), from g (N, G*U)."""
    if masks is None:
        return kernels.dense_input_gradient(g, kernel)
    total = np.zeros_like(masks[0])
    shares = np.split(g, len(masks), axis=1)
    for (m, k), share in zip(_pieces(kernel, masks), shares, strict=True):
        total += m * kernels.dense_input_gradient(np.ascontiguousarray(share), k)
    return total


def _recur_kernel_gradient(h: Array, g: Array, masks: Array | None) -> Array:
    """The gradient of `_recur` for the kernel, of all steps: h (T, N, U), g (T, N, G*U)."""
    g = g.reshape(-1, g.shape[-1])
    if masks is None:
        return kernels.dense_kernel_gradient(h.reshape(len(g), -1), np.ascontiguousarray(g))
    shares = np.split(g, len(masks), axis=1)
    return np.concatenate(
        [
            kernels.dense_kernel_gradient((h * m).reshape(len(g), -1), np.ascontiguousarray(share))
            for m, share in zip(masks, shares, strict=True)
        ],
        axis=1,
    )


def _pieces(kernel: Array, masks: Array) -> list[tuple[Array, Array]]:
    """The mask and the columns of the kernel of each gate."""
    columns = np.split(kernel, len(masks), axis=1)
    return [(m, np.ascontiguousarray(k)) for m, k in zip(masks, columns, strict=True)]


def _check(op: str, z: Tensor, kernel: Tensor, gates: int) -> tuple[int, int, int]:
    """(T, N, U); ValueError where the shapes do not fit: the kernels check nothing."""
    units = kernel.shape[0]
    if z.ndim != 3 or kernel.shape != (units, gates * units) or z.shape[2] != gates * units:
        raise ValueError(
            f"{op} takes z (T, N, {gates}U) and a recurrent kernel (U, {gates}U), got {z.shape} "
            f"and {kernel.shape}"
        )
    return z.shape[0], z.shape[1], units


def _once(f: Callable) -> Vjp:
    """f, called for the first edge that asks; the other edges of the node get the same result."""
    found: list = []

    def vjp(g: Array) -> Array:
        if not found:
            found.append(f(g))
        return found[0]

    return vjp
