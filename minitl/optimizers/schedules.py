"""Learning rates that change with the step.

A schedule is called with the number of steps done so far and returns the rate of the next. An
optimizer takes any such function as its learning_rate; only those here can be saved in a file.
"""

import math
from collections.abc import Sequence

from minitl import naming
from minitl.naming import Configurable, Count, Natural, NotNegative, Positive, with_fields
from minitl.optimizers import SCHEDULES

__getattr__ = naming.attributes_of(__name__)


class LearningRateSchedule(Configurable):
    """Base class: `schedule(step)` is the rate of that step, counted from 0."""

    def __call__(self, step: int) -> float:
        raise NotImplementedError


@with_fields
class ExponentialDecay(LearningRateSchedule):
    """initial * decay_rate ^ (step / decay_steps); `staircase` rounds the exponent down."""

    initial_learning_rate: NotNegative
    decay_steps: Count
    decay_rate: NotNegative
    staircase: bool = False

    def decays(self, step: int) -> float:
        """How many times the rate has decayed before this step."""
        done = step / self.decay_steps
        return math.floor(done) if self.staircase else done

    def __call__(self, step: int) -> float:
        return self.initial_learning_rate * self.decay_rate ** self.decays(step)


class InverseTimeDecay(ExponentialDecay):
    """initial / (1 + decay_rate * step / decay_steps); `staircase` rounds the quotient down."""

    def __call__(self, step: int) -> float:
        return self.initial_learning_rate / (1 + self.decay_rate * self.decays(step))


@with_fields
class PolynomialDecay(LearningRateSchedule):
    """From initial to end in decay_steps, along (1 - step/decay_steps)^power; then stays."""

    initial_learning_rate: NotNegative
    decay_steps: Count
    end_learning_rate: NotNegative = 0.0001
    power: Positive = 1.0
    cycle: bool = False

    def __call__(self, step: int) -> float:
        length: float = self.decay_steps
        if self.cycle:  # start again from a smaller rate each time the end is reached
            length *= max(1, math.ceil(step / self.decay_steps))
        else:
            step = min(step, self.decay_steps)
        fraction = (1 - step / length) ** self.power
        fall = self.initial_learning_rate - self.end_learning_rate
        return fall * fraction + self.end_learning_rate


class PiecewiseConstantDecay(LearningRateSchedule):
    """values[i] up to and including step boundaries[i]; the last value after that."""

    def __init__(self, boundaries: Sequence[float], values: Sequence[float]):
        got = len(values), len(boundaries)
        if got[0] != got[1] + 1:
            raise ValueError("there is one value more than boundaries; got {} and {}".format(*got))
        self.boundaries, self.values = list(boundaries), list(values)

    def __call__(self, step: int) -> float:
        ends = (*self.boundaries, math.inf)
        return next((v for end, v in zip(ends, self.values, strict=True) if step <= end), math.nan)


class CosineDecay(LearningRateSchedule):
    """Half a cosine, `decay_steps` long, from the initial rate to `alpha` times it.

    If there is a `warmup_target`, the cosine starts from it instead, after `warmup_steps` along a
    straight line from the initial rate. Loshchilov & Hutter 2017 (arXiv 1608.03983).
    """

    def __init__(
        self,
        initial_learning_rate: NotNegative,
        decay_steps: Count,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: NotNegative | None = None,
        warmup_steps: Natural = 0,
    ):
        self.initial_learning_rate, self.decay_steps = initial_learning_rate, decay_steps
        self.alpha, self.warmup_target, self.warmup_steps = alpha, warmup_target, warmup_steps

    def __call__(self, step: int) -> float:
        top = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return top + (self.warmup_target - top) * step / self.warmup_steps
            top, step = self.warmup_target, step - self.warmup_steps
        fraction = min(step, self.decay_steps) / self.decay_steps
        cosine = 0.5 * (1 + math.cos(math.pi * fraction))
        return top * ((1 - self.alpha) * cosine + self.alpha)


SCHEDULES.register(ExponentialDecay, InverseTimeDecay, PolynomialDecay)
SCHEDULES.register(PiecewiseConstantDecay, CosineDecay)
