"""Recurrence: the operations that walk along time, LSTM and GRU.

A recurrent layer reads a sequence step by step and carries a state h from each step to the next:

    h[t] = step(x[t] K + b, h[t-1])                t = 1 ... T,   h[0] = 0

What does not depend on the state, x[t] K + b, is one `ops.dense` for all steps together; its
result, z (T, N, G*U), is what the functions here start from. They loop over time and keep what each
step computed. Their gradient is the same loop backwards (*backpropagation through time*): at step t
the gradient of h[t] is what the output at t receives plus what step t + 1 hands back, and the
step's own formulas turn it into gradients for z[t] and h[t-1]. The gradient for the recurrent
kernel is again one product for all steps together. `Walk` has what the walks share.

Letters: N samples, T steps, D numbers per step, U units, G gates (4 in an LSTM, 3 in a GRU).
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np

from minitl import kernels, ops
from minitl.autograd import Array, Tensor, as_tensor, record
from minitl.ops.arrays import sigmoid, tanh


class Formula(NamedTuple):
    """An activation y = f(x) on arrays, and its derivative dy/dx = slope(y), written with y."""

    f: Callable[[Array], Array]
    slope: Callable[[Array], Array]


def _sigmoid(x: Array) -> Array:
    """1 / (1 + e^-x) = (1 + tanh(x / 2)) / 2, which never overflows (and is 3 times as fast)."""
    half = x.dtype.type(0.5)
    return half * np.tanh(half * x) + half


# Only activations whose slope follows from the output: then one array per gate need be kept.
FORMULAS: dict[Callable, Formula] = {
    tanh: Formula(np.tanh, lambda y: 1 - y * y),
    sigmoid: Formula(_sigmoid, lambda y: y * (1 - y)),
    ops.relu: Formula(lambda x: np.maximum(x, 0), lambda y: (y > 0).astype(y.dtype)),
    ops.linear: Formula(lambda x: x, np.ones_like),
}


class Walk:
    """A recurrence on arrays. A subclass says how a step goes forward, and how gradients go back.

    Args:
        z: (T, N, G*U), the input's share x[t] K + b of the gates.
        kernel: R (U, G*U).
        bias: (G*U,), added to the product with R; None but for `gru`.
        activation, recurrent_activation: functions of `ops` that stand in `FORMULAS`.
        masks: (G, N, U) or None: factors of h[t-1] into each gate (dropout), the same at each step.
        counting: (T, N, 1) or None: where a step does not count (False), the state stays as it is.

    Attributes:
        h: (T + 1, N, U), the states; h[0] = 0. c: the same of an LSTM's memory.
        parts: (T, N, kept, U), what each step computed on the way.
        dz: (T, N, G, U), dL/dz, once `backward` has run.
        dq: the same for what the product with R was added to; here it is dz itself.
    """

    gates: ClassVar[int]
    kept: ClassVar[int]
    usual: bool = True  # whether there may be a compiled loop for it
    forward: Callable[[], None]  # fills h and parts, step by step
    backward: Callable[[Array], None]  # makes dz and dq of g, for `output`, from the last step on

    def __init__(
        self,
        z: Array,
        kernel: Array,
        bias: Array | None,
        activation: Callable = tanh,
        recurrent_activation: Callable = sigmoid,
        masks: Array | None = None,
        counting: Array | None = None,
    ):
        self.z, self.kernel, self.masks, self.counting = z, kernel, masks, counting
        self.bias: Any = 0 if bias is None else bias
        self.act, self.s = FORMULAS[activation], FORMULAS[recurrent_activation]
        self.usual = self.usual and activation is tanh and recurrent_activation is sigmoid
        (self.steps, self.n, _), self.units = z.shape, len(kernel)
        self.h = self._states()
        self.c = self._states() if self.gates == 4 else z[:0]
        self.parts = kernels.empty((self.steps, self.n, self.kept, self.units), z.dtype)

    def _states(self) -> Array:
        states = kernels.empty((self.steps + 1, self.n, self.units), self.z.dtype)
        states[0] = 0
        return states

    def output(self) -> Array:
        return self.h[1:]

    def stay(self, t: int, *pairs: tuple[Array, Array]) -> None:
        """Of each pair (new, old) the new state becomes the old one where step t does not count."""
        if self.counting is not None:
            for new, old in pairs:
                np.copyto(new, old, where=~self.counting[t])

    def passing(self, t: int, *gradients: Array) -> list[tuple[Array, Any]]:
        """Each gradient in two: what goes through step t, and what passes it by."""
        if self.counting is None:
            return [(g, 0) for g in gradients]
        counts = self.counting[t]
        return [(np.where(counts, g, 0), np.where(counts, 0, g)) for g in gradients]

    def kernel_gradient(self) -> Array:
        """dL/dR, from h and dq."""
        return _recur_kernel_gradient(self.h[:-1], self.dq, self.masks)

    def room_for_dz(self) -> Array:
        shape = self.steps, self.n, self.gates, self.units
        self.dz = self.dq = kernels.empty(shape, self.z.dtype)
        return self.dz


def _operation(
    op: str, kind: type[Walk], z: Tensor, kernel: Tensor, bias: Any, *args: Any, **how: Any
) -> Tensor:
    """The record of a walk; ValueError where the shapes do not fit, since kernels check nothing."""
    z, gates = as_tensor(z), kind.gates
    width = gates * kernel.shape[0]
    if z.ndim != 3 or kernel.shape[1:] != (width,) or z.shape[2] != width:
        takes = f"{op} takes z (T, N, {gates}U) and a recurrent kernel (U, {gates}U)"
        raise ValueError(f"{takes}, got {z.shape} and {kernel.shape}")
    walk = kind(z.storage, kernel.storage, None if bias is None else bias.storage, *args, **how)
    kernels.walk_forward(walk)

    @ops.once
    def back(g: Array) -> Walk:
        kernels.walk_backward(walk, g)
        return walk

    dz = (z, lambda g: back(g).dz.reshape(z.shape))
    dr = (kernel, lambda g: back(g).kernel_gradient())
    db = (bias, lambda g: kernels.bias_gradient(back(g).dq.reshape(z.shape)))
    return record(op, walk.output(), dz, dr, db)


def lstm(z: Tensor, recurrent_kernel: Tensor, *args: Any, **how: Any) -> Tensor:
    """The steps of `LSTMWalk`: z (T, N, 4U), recurrent_kernel (U, 4U) -> (T + 1, N, U), which are
    h[1] ... h[T], and then c[T]. The other arguments are those of `Walk`."""
    return _operation("lstm", LSTMWalk, z, recurrent_kernel, None, *args, **how)


def gru(
    z: Tensor, recurrent_kernel: Tensor, recurrent_bias: Any = None, *args: Any, **how: Any
) -> Tensor:
    """The steps of `GRUWalk`: z (T, N, 3U), recurrent_kernel (U, 3U), recurrent_bias (3U,) or None.
    Returns h[1] ... h[T], (T, N, U). The other arguments are those of `Walk`."""
    return _operation("gru", GRUWalk, z, recurrent_kernel, recurrent_bias, *args, **how)


def gru_reset_before(z: Tensor, recurrent_kernel: Tensor, *args: Any, **how: Any) -> Tensor:
    """`gru` by the steps of `ResetBeforeWalk`, without a second bias: Keras's reset_after=False."""
    return _operation("gru", ResetBeforeWalk, z, recurrent_kernel, None, *args, **how)


class LSTMWalk(Walk):
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

    Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000.
    """

    gates, kept = 4, 5  # i, f, k, o, act(c)

    def forward(self) -> None:
        h, s, act = self.h, self.s, self.act
        c = self.c
        i, f, k, o, shown = (self.parts[:, :, part] for part in range(5))
        for t in range(self.steps):
            before = self.z[t] + _recur(h[t], self.kernel, self.masks)
            before = before.reshape(self.n, 4, self.units)
            self.parts[t, :, :2] = s.f(before[:, :2])
            k[t] = act.f(before[:, 2])
            o[t] = s.f(before[:, 3])
            c[t + 1] = f[t] * c[t] + i[t] * k[t]
            shown[t] = act.f(c[t + 1])
            h[t + 1] = o[t] * shown[t]
            self.stay(t, (c[t + 1], c[t]), (h[t + 1], h[t]))

    def output(self) -> Array:
        return np.concatenate([self.h[1:], self.c[self.steps :]])

    def backward(self, g: Array) -> None:
        s, act, da = self.s, self.act, self.room_for_dz()
        i, f, k, o, shown = (self.parts[:, :, part] for part in range(5))
        # All factors that do not depend on what arrives, for all steps at once.
        da[:, :, 0] = k * s.slope(i)
        da[:, :, 1] = self.c[:-1] * s.slope(f)
        da[:, :, 2] = i * act.slope(k)
        da[:, :, 3] = shown * s.slope(o)
        to_memory = o * act.slope(shown)
        dh, dc = np.zeros_like(self.h[0]), g[self.steps]
        for t in reversed(range(self.steps)):
            (dh, dh_by), (dc, dc_by) = self.passing(t, dh + g[t], dc)
            dc = dc + dh * to_memory[t]
            da[t, :, :3] *= dc[:, np.newaxis]
            da[t, :, 3] *= dh
            dc = dc * f[t] + dc_by
            back = _recur_input_gradient(da[t].reshape(self.n, -1), self.kernel, self.masks)
            dh = back + dh_by


class GRUWalk(Walk):
    """Gated recurrent unit: the state becomes a mixture of itself and a candidate.

        q    = h[t-1] R + b                 three parts (q_u, q_r, q_k), each (N, U)
        u, r = s(z_u + q_u), s(z_r + q_r)   update and reset gate, s: recurrent_activation
        k    = act(z_k + r * q_k)           the candidate
        h[t] = u * h[t-1] + (1 - u) * k

    and backwards, with dh for the gradient that has arrived at h[t]:

        dz_u = dh * (h[t-1] - k) * s'(u)    dz_k = dh * (1 - u) * act'(k)
        dz_r = dz_k * q_k * s'(r)           dq   = (dz_u, dz_r, dz_k * r)
        dh[t-1] = dh * u + dq R^T           dR   = sum over t of h[t-1]^T dq[t]

    Cho et al. 2014 (arXiv 1406.1078), the reset gate after the product: one does for all three.
    """

    gates, kept = 3, 4  # u, r, k, q_k

    def room_for_dz(self) -> Array:
        dz = super().room_for_dz()
        self.dq = kernels.empty(dz.shape, dz.dtype)
        return dz

    def forward(self) -> None:
        h = self.h
        u, r, k, q_k = (self.parts[:, :, part] for part in range(4))
        for t in range(self.steps):
            q = _recur(h[t], self.kernel, self.masks) + self.bias
            q, given = (a.reshape(self.n, 3, self.units) for a in (q, self.z[t]))
            self.parts[t, :, :2] = self.s.f(given[:, :2] + q[:, :2])
            q_k[t] = q[:, 2]
            k[t] = self.act.f(given[:, 2] + r[t] * q_k[t])
            h[t + 1] = u[t] * h[t] + (1 - u[t]) * k[t]
            self.stay(t, (h[t + 1], h[t]))

    def backward(self, g: Array) -> None:
        h, s, dz, dq = self.h, self.s, self.room_for_dz(), self.dq
        u, r, k, q_k = (self.parts[:, :, part] for part in range(4))
        # First the factors of dh, for all steps at once.
        dz[:, :, 0] = (h[:-1] - k) * s.slope(u)
        dz[:, :, 2] = (1 - u) * self.act.slope(k)
        dz[:, :, 1] = dz[:, :, 2] * q_k * s.slope(r)
        dq[:, :, :2] = dz[:, :, :2]
        dq[:, :, 2] = dz[:, :, 2] * r
        dh = np.zeros_like(h[0])
        for t in reversed(range(self.steps)):
            ((dh, by),) = self.passing(t, dh + g[t])
            dz[t] *= dh[:, np.newaxis]
            dq[t] *= dh[:, np.newaxis]
            back = _recur_input_gradient(dq[t].reshape(self.n, -1), self.kernel, self.masks)
            dh = dh * u[t] + back + by


class ResetBeforeWalk(Walk):
    """`GRUWalk` with the reset gate before the product with R_k, the published form.

        u, r = s(z_u + h[t-1] R_u), s(z_r + h[t-1] R_r)
        k    = act(z_k + (r * h[t-1]) R_k)
        h[t] = u * h[t-1] + (1 - u) * k

    and backwards, with p = dz_k R_k^T for what arrives at r * h[t-1]:

        dz_u = dh * (h[t-1] - k) * s'(u)    dz_k = dh * (1 - u) * act'(k)
        dz_r = p * h[t-1] * s'(r)           dh[t-1] = dh * u + p * r + (dz_u, dz_r) R_ur^T
    """

    gates, kept, usual = 3, 3, False  # u, r, k

    def forward(self) -> None:
        h, n, units = self.h, self.n, self.units
        of_gates, of_candidate = self.halves()
        u, r, k = (self.parts[:, :, part] for part in range(3))
        for t in range(self.steps):
            given, q = self.z[t].reshape(n, 3, units), _recur(h[t], *of_gates)
            self.parts[t, :, :2] = self.s.f(given[:, :2] + q.reshape(n, 2, units))
            k[t] = self.act.f(given[:, 2] + _recur(r[t] * h[t], *of_candidate))
            h[t + 1] = u[t] * h[t] + (1 - u[t]) * k[t]
            self.stay(t, (h[t + 1], h[t]))

    def halves(self) -> list[tuple[Array, Array | None]]:
        """(R, masks) of the two gates, and of the candidate."""
        middle = 2 * self.units
        columns = self.kernel[:, :middle], self.kernel[:, middle:]
        masks = (None, None) if self.masks is None else (self.masks[:2], self.masks[2:])
        return [(np.ascontiguousarray(c), m) for c, m in zip(columns, masks, strict=True)]

    def backward(self, g: Array) -> None:
        h, s, dz = self.h, self.s, self.room_for_dz()
        of_gates, of_candidate = self.halves()
        u, r, k = (self.parts[:, :, part] for part in range(3))
        dz[:, :, 0] = (h[:-1] - k) * s.slope(u)
        dz[:, :, 1] = h[:-1] * s.slope(r)
        dz[:, :, 2] = (1 - u) * self.act.slope(k)
        dh = np.zeros_like(h[0])
        for t in reversed(range(self.steps)):
            ((dh, by),) = self.passing(t, dh + g[t])
            dz[t, :, ::2] *= dh[:, np.newaxis]
            p = _recur_input_gradient(dz[t, :, 2], *of_candidate)
            dz[t, :, 1] *= p
            both = dz[t, :, :2].reshape(self.n, -1)
            dh = dh * u[t] + p * r[t] + _recur_input_gradient(both, *of_gates) + by

    def kernel_gradient(self) -> Array:
        (_, first), (_, last) = self.halves()
        before = self.h[:-1]
        of_gates = _recur_kernel_gradient(before, self.dz[:, :, :2], first)
        reset = self.parts[:, :, 1] * before
        of_candidate = _recur_kernel_gradient(reset, self.dz[:, :, 2:], last)
        return np.concatenate([of_gates, of_candidate], axis=1)


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
    """The gradient of `_recur` for the kernel, of all steps: h (T, N, U), g (T, N, G, U)."""
    rows, units = g.shape[0] * g.shape[1], h.shape[2]
    if masks is None:
        return kernels.dense_kernel_gradient(h.reshape(rows, units), g.reshape(rows, -1))
    parts = [
        kernels.dense_kernel_gradient((h * m).reshape(rows, units), share.reshape(rows, units))
        for m, share in zip(masks, np.split(g, len(masks), axis=2), strict=True)
    ]
    return np.concatenate(parts, axis=1)
