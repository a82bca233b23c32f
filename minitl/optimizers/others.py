"""AdamW and RMSprop. `optimizers/__init__.py` says what an optimizer is, and has SGD and Adam."""

from typing import Any

import numpy as np

from minitl.autograd import Array
from minitl.naming import Fraction, NotNegative, Share
from minitl.optimizers import TABLE, Adam, Optimizer, Rate, moment


class AdamW(Adam):
    """Adam with decoupled weight decay on by default (Loshchilov & Hutter 2019)."""

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        weight_decay: NotNegative = 0.004,
        beta_1: Fraction = 0.9,
        beta_2: Fraction = 0.999,
        epsilon: NotNegative = 1e-7,
        amsgrad: bool = False,
        *args: Any,
        **kwargs: Any,
    ):
        adam = (learning_rate, beta_1, beta_2, epsilon, amsgrad)
        super().__init__(*adam, weight_decay, *args, **kwargs)


class RMSprop(Optimizer):
    """Each gradient is divided by the root of the running mean of its square.

        v <- rho v + (1 - rho) g^2
        step = rate * g / sqrt(v + epsilon)
        w <- w - step                         without momentum
        b <- momentum * b + step;  w <- w - b     with momentum

    `centered` subtracts the square of the gradient's running mean from v, which makes it a
    variance. Tieleman & Hinton 2012 (Coursera, lecture 6e); centred: Graves 2013 (arXiv 1308.0850).
    """

    def __init__(
        self,
        learning_rate: Rate = 0.001,
        rho: Fraction = 0.9,
        momentum: Share = 0.0,
        epsilon: NotNegative = 1e-7,
        centered: bool = False,
        *args: Any,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, *args, **kwargs)
        self.rho, self.momentum, self.epsilon, self.centered = rho, momentum, epsilon, centered

    def update(self, w: Array, g: Array, state: dict[str, Array], rate: float) -> None:
        v = moment(state, "velocity", w)
        v *= self.rho
        v += (1 - self.rho) * g * g
        spread = v
        if self.centered:
            mean = moment(state, "average_gradient", w)
            mean *= self.rho
            mean += (1 - self.rho) * g
            spread = v - mean * mean
        step = rate * g / np.sqrt(spread + self.epsilon)
        if self.momentum:
            b = moment(state, "momentum", w)
            b *= self.momentum
            b += step
            step = b
        w -= step


TABLE.register(RMSprop, adamw=AdamW, rmsprop=RMSprop)
