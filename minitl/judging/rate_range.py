"""The learning-rate range test: which rates does this model bear? (Smith 2017, arXiv 1506.01186)

A short training in which the rate grows from step to step, by the same factor each time. While it
is too small the loss stands still, then it falls, then it rises and runs away; a good rate lies
well below that at which it was lowest. The plot is `report.rate_test_plot`.

The test changes nothing. It trains the model itself, with a clone of its optimizer, and puts back
what it moved, also after an error, and after Ctrl-C at any moment.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minitl import config
from minitl.models import Model
from minitl.models.batches import is_stream
from minitl.models.prediction import source_of
from minitl.models.training import TrainingDiverged, snapshot, train_step
from minitl.naming import check_keywords
from minitl.transfer.feature_cache import Caching

SMOOTHING = 0.9  # how much of the running mean of losses is kept at each step
MARGIN = 10.0  # by which the suggestion stays below the rate of the lowest loss
RUNAWAY = 4.0  # the test ends when the smoothed loss is so many times the lowest


class RateTest(NamedTuple):
    """What `learning_rate_range_test` found."""

    rates: np.ndarray  # (steps,), of those steps that were made
    losses: np.ndarray  # (steps,), of each batch before the step at that rate
    smoothed: np.ndarray  # (steps,), running mean of the losses
    suggestion: float  # a tenth of the rate at which the smoothed loss was lowest
    diverged: bool  # whether the loss ran away before the last step


@check_keywords
def learning_rate_range_test(
    model: Model,
    x: Any,
    y: Any = None,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 100,
    batch_size: int | None = None,
    sample_weight: Any = None,
    seed: int = 0,
    cache_features: bool = True,
) -> RateTest:
    """Train for a moment at growing rates, and leave the model as it was.

        rate(k) = lowest * (highest / lowest)^(k / (steps - 1))

    Args:
        model: compiled and built. Layers with a `rate_multiplier` have their multiple of rate(k).
        x, y, sample_weight, batch_size: as for `fit`; data are gone through as often as needed.
        lowest, highest: rates, positive.
        steps: at most so many; it ends earlier when the loss runs away.
        seed: of the order of the data, of dropout and so on.
        cache_features: as for `fit`.

    Weights, optimizer, history and the random numbers to come are the same bits afterwards as
    before. Raises ValueError for rates or steps that make no test.
    """
    model.need_compile("learning_rate_range_test")
    if not model.outputs:
        raise ValueError(f"{model.name!r} has no shapes yet: build it first")
    if not 0 < lowest < highest < np.inf:
        raise ValueError(f"rates grow from lowest to highest, got {lowest!r} to {highest!r}")
    if not isinstance(steps, (int, np.integer)) or steps < 3:
        raise ValueError(f"steps must be an integer of at least 3, got {steps!r}")
    data = source_of(model, x, y, sample_weight, batch_size)
    rates = np.geomspace(lowest, highest, steps)
    losses: list[float] = []
    smoothed: list[float] = []

    def run() -> bool:
        """Train; returns whether the loss ran away."""
        model.optimizer = model.optimizer.clone()
        caching = Caching(model, cache_features, None, epochs=2, say=None)
        walk = caching.wrap(data, training=True)
        mean, epoch = 0.0, 0
        try:
            caching.begin(seed, epoch)
            while True:
                rng = np.random.default_rng((seed, epoch))
                walk.epoch = epoch
                order = None if walk.samples is None else rng.permutation(walk.samples)
                for batch in walk.batches(order):
                    k = len(losses)
                    model.optimizer.learning_rate = float(rates[k])
                    loss = train_step(model, batch, rng, f"step {k + 1}")[0][0]
                    mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
                    losses.append(loss)
                    smoothed.append(mean / (1 - SMOOTHING ** (k + 1)))
                    if smoothed[-1] > RUNAWAY * min(smoothed):
                        return True
                    if k + 1 == steps:
                        return False
                epoch += 1
        except TrainingDiverged:
            return True
        finally:
            caching.end()

    diverged = _undone(model, run, keep_features=not is_stream(x))
    count = len(losses)
    if count < 3:
        raise ValueError(
            f"the loss ran away after {count} steps: lowest={lowest:g} is too high already"
        )
    suggestion = float(rates[int(np.argmin(smoothed))]) / MARGIN
    return RateTest(rates[:count], np.array(losses), np.array(smoothed), suggestion, diverged)


def _undone(model: Model, run: Callable[[], Any], keep_features: bool) -> Any:
    """run(); then weights, optimizer and random numbers are as before, whatever happened.

    What `fit` will not compute again, F of the same images, may stay.
    """
    names = ["optimizer", "history", "stop_training", "fitting"]
    kept = {name: getattr(model, name) for name in names + ["kept_features"] * (not keep_features)}
    weights = snapshot(model)
    generator = config.random_state()
    drawn = generator.bit_generator.state

    def put_back() -> None:
        for variable, values in weights:
            variable.assign(values)
        for name, value in kept.items():
            setattr(model, name, value)
        generator.bit_generator.state = drawn
        config.set_random_state(generator)

    before, raised = signal.getsignal(signal.SIGINT), False
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        return _and_then(run, put_back)  # no signal will come here

    def interrupt(number: int, frame: Any) -> None:
        nonlocal raised
        if not raised:
            raised = True
            before(number, frame)  # raises KeyboardInterrupt, as a rule

    def listen() -> Any:
        signal.signal(signal.SIGINT, interrupt)
        return _and_then(run, put_back)

    return _and_then(listen, lambda: signal.signal(signal.SIGINT, before))


def _and_then(run: Callable[[], Any], clean: Callable[[], Any]) -> Any:
    """run(), then clean(), twice: Ctrl-C, which is heard once, may break off one of the two."""
    try:
        try:
            return run()
        finally:
            clean()
    finally:
        clean()
