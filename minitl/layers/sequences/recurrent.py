"""LSTM and GRU: layers that read a sequence (N, T, D) and carry a state from step to step.

The mathematics, and its gradient, are in `minitl/ops/recurrence.py`. What is here makes the
weights, in Keras's layout and order, and arranges the axes. A sequence of images becomes one of
rows for these layers by `TimeDistributed(base)`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from minitl import initializers, ops
from minitl.autograd import Array, Tensor
from minitl.layers.base import Rng, Shape, regularizer
from minitl.layers.regularization import RandomLayer
from minitl.naming import Count, Fraction, Named, Natural
from minitl.ops import recurrence

__all__ = ["GRU", "LSTM"]


class Recurrent(RandomLayer, input_rank=3, supports_masking=True):
    """What LSTM and GRU share: arguments, weights, dropout, and the way in and out.

    Args:
        units: U.
        activation: of the candidate and of what is shown: 'tanh', 'sigmoid', 'relu' or 'linear'.
        recurrent_activation: of the gates, one of the same.
        use_bias: whether there is a b.
        kernel_initializer, recurrent_initializer, bias_initializer: how the weights start.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: penalties, e.g. 'l2'.
        dropout: in training, the rate at which numbers of the input are dropped, in [0, 1); the
            same numbers at every step of a sequence (Gal & Ghahramani 2016, arXiv 1512.05287).
        recurrent_dropout: the same for the state on its way to the next step.
        seed: for calls outside `fit`, as in Dropout.
        return_sequences: return h of all steps, (N, T, U).
        return_state: return a list: the output, and the last states (N, U): h, and an LSTM's c.
        go_backwards: read from the last step to the first (and return them in that order).
        stateful: only False.
        unroll: of no effect; the loop over time is Python's anyway.

    A step that does not count by the input's mask (`masking.py`) leaves the state as it is; its
    output is the one before, or 0 with `zero_output_for_mask`. Differs from Keras: every sequence
    starts from a state of zeros (no initial_state), and there are four activations.
    """

    gates: int = 0
    # From z (T, N, G*U) and masks of the state: h of all steps (T, N, U), and the last states.
    _loop: Callable[..., tuple[Tensor, list[Tensor]]]
    _bias: Callable[[], tuple[tuple[int, ...], Any]]  # b's shape, and its initializer
    idle_settings = frozenset({"implementation", "use_cudnn"})  # how Keras computes it

    def __init__(
        self,
        units: Count,
        activation: Named | None = "tanh",
        recurrent_activation: Named | None = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Named = "glorot_uniform",
        recurrent_initializer: Named = "orthogonal",
        bias_initializer: Named = "zeros",
        kernel_regularizer: Named | None = None,
        recurrent_regularizer: Named | None = None,
        bias_regularizer: Named | None = None,
        *,
        dropout: Fraction = 0.0,
        recurrent_dropout: Fraction = 0.0,
        seed: Natural | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ):
        super().__init__(seed, **kwargs)
        self.zero_output_for_mask = self.zeros_where_masked = zero_output_for_mask
        self.units, self.use_bias = int(units), use_bias
        self.activation = ops.activation(activation)
        self.recurrent_activation = ops.activation(recurrent_activation)
        for what in ("activation", "recurrent_activation"):
            if getattr(self, what) not in recurrence.FORMULAS:
                known = ", ".join(repr(f.__name__) for f in recurrence.FORMULAS)
                raise ValueError(f"{what} within a recurrent layer must be one of {known}")
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.recurrent_initializer = initializers.get(recurrent_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizer(kernel_regularizer)
        self.recurrent_regularizer = regularizer(recurrent_regularizer)
        self.bias_regularizer = regularizer(bias_regularizer)
        self.dropout, self.recurrent_dropout = dropout, recurrent_dropout
        if stateful:
            what = "minitl's recurrent layers start every batch from a state of zeros"
            raise ValueError(f"{what}: stateful=True is not there")
        self.return_sequences, self.return_state = return_sequences, return_state
        self.go_backwards, self.stateful, self.unroll = go_backwards, False, unroll
        self.kernel: Any = None
        self.recurrent_kernel: Any = None
        self.bias: Any = None

    @property
    def random(self) -> bool:  # type: ignore[override]
        return bool(self.dropout or self.recurrent_dropout)

    def fixed(self, training: bool) -> bool:
        return super().fixed(training and self.random)  # only dropout behaves otherwise in training

    def __call__(
        self,
        x: Any = None,
        *more: Any,
        training: bool | None = None,
        rng: Any = None,
        **others: Any,
    ) -> Any:
        if others.pop("initial_state", None) is not None:
            zeros = f"{self} takes no 'initial_state': it starts from a state of zeros"
            raise TypeError(f"{zeros}. Let each step see that state: RepeatVector, Concatenate")
        others = {name: value for name, value in others.items() if value is not None}
        return super().__call__(x, *more, training=training, rng=rng, **others)

    def build(self, input_shape: Shape) -> None:
        d, u, g = input_shape[-1], self.units, self.gates
        if d is None:
            raise ValueError(f"{self} needs inputs (N, T, D) with a known D, got {input_shape}")
        for name, rows, of in (("kernel", d, "kernel"), ("recurrent_kernel", u, "recurrent")):
            start, penalty = getattr(self, f"{of}_initializer"), getattr(self, f"{of}_regularizer")
            setattr(self, name, self.add_weight(name, (rows, g * u), start, regularizer=penalty))
        if self.use_bias:
            shape, start = self._bias()
            self.bias = self.add_weight("bias", shape, start, regularizer=self.bias_regularizer)

    def call(self, x: Tensor, training: bool = False, rng: Rng = None, mask: Any = None) -> Any:
        n, steps, d = x.shape
        if steps == 0:
            raise ValueError(f"{self.name!r} got sequences without a single step: shape {x.shape}")
        counting = None if mask is None else np.asarray(mask, bool).T[..., None]  # (T, N, 1)
        masks = self._masks(n, d, x.dtype, rng) if training and self.random else [None, None]
        x = ops.transpose(x, (1, 0, 2))  # (T, N, D): a step is then one piece of memory
        x = x[::-1] if self.go_backwards else x
        if counting is not None and self.go_backwards:
            counting = counting[::-1]
        h, states = self._loop(self._input_share(x, masks[0]), masks[1], counting)
        if self.zeros_where_masked and counting is not None:
            h = h * counting.astype(h.dtype)
        y = ops.transpose(h, (1, 0, 2)) if self.return_sequences else h[steps - 1]
        return [y, *states] if self.return_state else y

    def _input_share(self, x: Tensor, masks: Array | None) -> Tensor:
        """x K + b for all steps: (T, N, D) -> (T, N, G*U); with masks, gate g reads x * mask g."""
        bias = self._input_bias()
        steps, n, d = x.shape
        if masks is None or len(masks) == 1:
            x = x if masks is None else x * Tensor(masks[0])
            z = ops.dense(ops.reshape(x, (steps * n, d)), self.kernel, bias)
            return ops.reshape(z, (steps, n, -1))
        parts = []
        for gate, mask in enumerate(masks):
            columns = slice(gate * self.units, (gate + 1) * self.units)
            rows = ops.reshape(x * Tensor(mask), (steps * n, d))
            kernel = self.kernel[:, columns]
            parts.append(ops.dense(rows, kernel, None if bias is None else bias[columns]))
        return ops.reshape(ops.concatenate(parts, -1), (steps, n, -1))

    def _masks(self, n: int, d: int, dtype: np.dtype, rng: Rng) -> list[Array | None]:
        """Factors for the input (1 or G, N, D) and for the state (G, N, U): Keras's dropout.

        One draw per sequence, the same at all its steps. Without recurrent_dropout all gates see
        one mask of the input; with it, each gate has masks of its own.
        """
        rng = self.generator(rng)

        def mask(rate: Fraction, *shape: int) -> Array | None:
            return ops.dropout(np.ones(shape, dtype), rate, rng).storage if rate else None

        of_input = mask(self.dropout, self.gates if self.recurrent_dropout else 1, n, d)
        return [of_input, mask(self.recurrent_dropout, self.gates, n, self.units)]

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """That of the input, where there is still one output per step."""
        mask = mask if self.return_sequences else None
        return [mask, *[None] * (2 if self.gates == 4 else 1)] if self.return_state else mask

    def compute_output_shape(self, input_shape: Shape) -> Any:
        n, steps, _ = input_shape
        y = (n, steps, self.units) if self.return_sequences else (n, self.units)
        states = [(n, self.units)] * (2 if self.gates == 4 else 1)
        return [y, *states] if self.return_state else y

    def multiply_adds(self, input_shape: Shape) -> int:
        _, steps, d = input_shape
        return (steps or 1) * ((d or 1) + self.units) * self.gates * self.units

    def _input_bias(self) -> Any:
        """The bias of the input's share, x K + b."""
        return self.bias


class LSTM(Recurrent, gates=4):
    """Long short-term memory over a sequence (N, T, D); the formulas are in `ops.lstm`.

    kernel (D, 4U), recurrent_kernel (U, 4U) and bias (4U,) hold the gates side by side: input,
    forget, candidate, output. `unit_forget_bias` starts the forget gate's bias at 1, so that at
    first all is remembered; the others are those of `Recurrent`. Returns the last h (N, U).
    """

    def __init__(
        self,
        units: Count,
        activation: Named | None = "tanh",
        recurrent_activation: Named | None = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Named = "glorot_uniform",
        recurrent_initializer: Named = "orthogonal",
        bias_initializer: Named = "zeros",
        unit_forget_bias: bool = True,
        *args: Any,
        **kwargs: Any,
    ):
        first = (units, activation, recurrent_activation, use_bias)
        starts = (kernel_initializer, recurrent_initializer, bias_initializer)
        super().__init__(*first, *starts, *args, **kwargs)
        self.unit_forget_bias = unit_forget_bias

    def _bias(self) -> tuple[tuple[int, ...], Any]:
        def start(shape: tuple[int, ...], dtype: str) -> Array:
            values = self.bias_initializer(shape, dtype)
            if self.unit_forget_bias:
                values[self.units : 2 * self.units] = 1
            return values

        return (4 * self.units,), start

    def _loop(self, z: Tensor, *masks: Array | None) -> tuple[Tensor, list[Tensor]]:
        steps = z.shape[0]
        how = (self.activation, self.recurrent_activation, *masks)
        y = recurrence.lstm(z, self.recurrent_kernel, *how)
        return y[:steps], [y[steps - 1], y[steps]] if self.return_state else []


class GRU(Recurrent, gates=3):
    """Gated recurrent unit over a sequence (N, T, D); the formulas are in `ops.gru`.

    kernel (D, 3U) and recurrent_kernel (U, 3U) hold the gates side by side: update, reset,
    candidate. bias is (2, 3U), for the input and for the state, or (3U,) without `reset_after`:
    whether the reset gate acts after the product of the state with its kernel. The other arguments
    are those of `Recurrent`. Returns the last h (N, U).
    """

    def __init__(self, *args: Any, reset_after: bool = True, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.reset_after = reset_after

    def _bias(self) -> tuple[tuple[int, ...], Any]:
        return (*((2,) if self.reset_after else ()), 3 * self.units), self.bias_initializer

    def _input_bias(self) -> Any:
        return self.bias[0] if self.use_bias and self.reset_after else self.bias

    def _loop(self, z: Tensor, *masks: Array | None) -> tuple[Tensor, list[Tensor]]:
        how = (self.activation, self.recurrent_activation, *masks)
        if self.reset_after:
            bias = self.bias[1] if self.use_bias else None
            h = recurrence.gru(z, self.recurrent_kernel, bias, *how)
        else:
            h = recurrence.gru_reset_before(z, self.recurrent_kernel, *how)
        return h, [h[z.shape[0] - 1]] if self.return_state else []
