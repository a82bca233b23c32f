"""Optimizers: how gradients move weights. SGD and Adam, by Keras's formulae.

`fit` gives an optimizer the gradients of a batch and the weights that they belong to (`apply`).
What it remembers of a weight (velocity, moments) is made when that weight is first updated.
Freezing or unfreezing layers between two calls of `fit` therefore needs nothing: a weight that was
seen before goes on with its state, a new one starts with zeros. `others.py` has AdamW and RMSprop,
`schedules.py` rates that change with the step; the arithmetic of a step is in `kernels/`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minitl import kernels, naming
from minitl.autograd import Array, Variable
from minitl.naming import Configurable, Fraction, NotNegative, Positive, Registry, Share, part

if TYPE_CHECKING:
    from minitl.optimizers.others import *

__getattr__ = naming.attributes_of(__name__)

SCHEDULES = Registry(f"{__name__}.schedules")  # which fills it
Rate: TypeAlias = NotNegative | Callable[..., float] | str | dict[str, Any]


class Optimizer(Configurable):
    """Base class: the rate, clipping, weight decay, and the count of steps.

    `learning_rate` is a number, or a schedule: a function of the number of steps done, or of
    nothing. A LearningRateSchedule is not set to a number later: TypeError. The rate of
    a weight is that times the `rate_multiplier` of its layer. It is the rate that is scaled, not
    the gradient, to which Adam's step is all but indifferent. At 0 weight and state stay alone.

    Before each step the gradients are clipped: each scaled down to at most the L2 norm `clipnorm`,
    or all together to `global_clipnorm`, or each number held within [-clipvalue, clipvalue]. Then
    every weight is shrunk by w -= rate * weight_decay * w (decoupled decay: Loshchilov & Hutter
    2019, arXiv 1711.05101).
    """

    def __init__(
        self,
        learning_rate: Rate,
        weight_decay: NotNegative | None = None,
        clipnorm: Positive | None = None,
        clipvalue: Positive | None = None,
        global_clipnorm: Positive | None = None,
        *,
        name: str | None = None,
    ):
        learning_rate = _rate_of(learning_rate)
        given = [c for c in (clipnorm, clipvalue, global_clipnorm) if c is not None]
        if len(given) > 1:
            raise ValueError("give only one of clipnorm, clipvalue and global_clipnorm")
        self._rate, self.weight_decay = learning_rate, weight_decay
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self.name = name or naming.unique_name(naming.snake_case(type(self).__name__))
        self._steps = 0
        self.states: dict[Variable, dict[str, Array]] = {}  # of the weights that have moved

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        rate = self._rate(self._steps) if callable(self._rate) else self._rate
        return part("settings").settable(float(rate), self, "learning_rate")

    @learning_rate.setter
    def learning_rate(self, value: Rate) -> None:
        part("settings").refuse_schedule(self._rate, value)
        self.replace_rate(value)

    def replace_rate(self, value: Rate) -> None:
        """Set the rate, whatever it follows now."""
        self._rate = _rate_of(value)

    @property
    def iterations(self) -> int:
        """The number of steps done."""
        return part("settings").settable(self._steps, self, "iterations")

    @iterations.setter
    def iterations(self, value: int) -> None:
        self._steps = int(value)

    def apply(self, gradients: Sequence[Array], variables: Sequence[Variable]) -> None:
        """One step: move each variable, in place, by its gradient."""
        shapes = [getattr(v, "shape", 1) for v in variables] if type(variables) is list else None
        if not isinstance(gradients, list) or [getattr(g, "shape", 0) for g in gradients] != shapes:
            gradients = part("clipping").one_each(gradients, variables)
        rate = float(self._rate(self._steps) if callable(self._rate) else self._rate)
        for variable, gradient in zip(variables, self._clipped(gradients), strict=True):
            if variable.rate_multiplier == 0:
                continue
            own_rate = rate * variable.rate_multiplier
            with variable.writing() as w:
                if self.weight_decay:
                    w *= w.dtype.type(1 - own_rate * self.weight_decay)
                self.update(w, gradient, self.state_of(variable), own_rate)
        self._steps += 1

    apply_gradients = naming.elsewhere("settings", "apply_gradients")

    def update(self, w: Array, g: Array, state: dict[str, Array], rate: float) -> None:
        """Move w in place by its gradient g."""
        raise NotImplementedError

    def state_of(self, variable: Variable) -> dict[str, Array]:
        """This variable's arrays (velocity, moments); empty before its first step."""
        return self.states.setdefault(variable, {})

    def forget(self) -> None:
        """Drop all state: the next step is a first step."""
        self.states.clear()
        self._steps = 0

    clone = naming.elsewhere("settings", "clone_optimizer")

    def _clipped(self, gradients: Sequence[Array]) -> Sequence[Array]:
        if (self.clipnorm, self.clipvalue, self.global_clipnorm) == (None, None, None):
            return gradients
        return part("clipping").clipped(self, gradients)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"learning_rate": part("settings").serialize(self._rate)}


def _rate_of(value: Any) -> Any:
    numeric = hasattr(value, "__float__")
    rate = value if numeric else naming.look_up(value, SCHEDULES, "learning rate schedule")
    if callable(rate):
        return part("settings").of_steps(rate)
    if not 0 <= (rate := float(rate)) < np.inf:
        raise ValueError(f"learning_rate must be finite and not negative, got {value!r}")
    return rate


def moment(state: dict[str, Array], name: str, w: Array) -> Array:
    """The array `name` of a weight's state, full of zeros before its first step."""
    if name not in state:
        state[name] = kernels.zeros_like(w)
    return state[name]


class SGD(Optimizer):
    """Gradient descent, with momentum if asked for.

        w <- w - rate * g                                   without momentum
        v <- momentum * v - rate * g;   w <- w + v          with momentum
                                        w <- w + momentum * v - rate * g     Nesterov's

    Sutskever et al. 2013, section 2. Defaults are Keras's; further arguments are `Optimizer`'s.
    """

    def __init__(
        self,
        learning_rate: Rate = 0.01,
        momentum: Share = 0.0,
        nesterov: bool = False,
        *args: Any,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, *args, **kwargs)
        self.momentum, self.nesterov = momentum, nesterov

    def update(self, w: Array, g: Array, state: dict[str, Array], rate: float) -> None:
        velocity = moment(state, "velocity", w) if self.momentum else state.get("velocity")
        kernels.sgd_update(w, g, velocity, rate, self.momentum, self.nesterov)


class Adam(Optimizer):
    """Each number has its own rate, from running means of its gradient and its square.

        m <- m + (1 - beta_1) (g - m)
        v <- v + (1 - beta_2) (g^2 - v)
        w <- w - rate * sqrt(1 - beta_2^t) / (1 - beta_1^t) * m / (sqrt(v) + epsilon)

    t counts this weight's steps from 1, so the moments of a weight that is unfrozen late are
    corrected as those of a first step should be. With `amsgrad` the largest v so far takes v's
    place (Reddi et al. 2018, arXiv 1904.09237). This is the form at the end of section 2 of
    Kingma & Ba 2015 (arXiv 1412.6980), where epsilon stands beside the uncorrected sqrt(v)
    ('epsilon hat'), as in Keras. Defaults are Keras's; further arguments are `Optimizer`'s.
    """

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        beta_1: Fraction = 0.9,
        beta_2: Fraction = 0.999,
        epsilon: NotNegative = 1e-7,
        amsgrad: bool = False,
        *args: Any,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, *args, **kwargs)
        self.beta_1, self.beta_2, self.epsilon, self.amsgrad = beta_1, beta_2, epsilon, amsgrad

    def update(self, w: Array, g: Array, state: dict[str, Array], rate: float) -> None:
        m, v = moment(state, "momentum", w), moment(state, "velocity", w)
        if "steps" not in state:
            state["steps"] = np.zeros((), np.int64)
        state["steps"] += 1
        rate = _corrected(w.dtype, rate, self.beta_1, self.beta_2, int(state["steps"]))
        if not self.amsgrad:
            kernels.adam_update(w, g, m, v, rate, self.beta_1, self.beta_2, self.epsilon)
            return
        m += (g - m) * (1 - self.beta_1)
        v += (g * g - v) * (1 - self.beta_2)
        largest = moment(state, "velocity_hat", w)
        np.maximum(largest, v, out=largest)
        w -= rate * m / (np.sqrt(largest) + self.epsilon)


@functools.lru_cache(16)  # weights of one age have one rate
def _corrected(dtype: np.dtype, rate: float, beta_1: float, beta_2: float, t: int) -> float:
    """rate * sqrt(1 - beta_2^t) / (1 - beta_1^t), in the weights' own dtype, as Keras computes it.

    In float32 the rounding of beta_2 makes the first steps differ by 7e-6 from those of exact
    arithmetic, for both alike."""
    r, b1, b2, t = map(dtype.type, (rate, beta_1, beta_2, t))
    return float(r * np.sqrt(1 - b2**t) / (1 - b1**t))


TABLE = Registry(__name__, SGD, Adam)


def get(identifier: Any) -> Optimizer:
    """An optimizer from its name, class, configuration or itself."""
    optimizer = naming.look_up(identifier, TABLE, "optimizer")
    if not isinstance(optimizer, Optimizer):
        raise ValueError(f"not an optimizer: {identifier!r}")
    return optimizer
