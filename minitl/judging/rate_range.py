"""The learning-rate range test: which rates does this model bear? (Smith 2017, arXiv 1506.01186)

A short training in which the rate grows from step to step, by the same factor each time: the loss
stands still, then falls, then runs away; a good rate lies well below that at which it was lowest.
The test trains the model itself, with a clone of its optimizer, and puts back what it moved, also
after an error or Ctrl-C at any moment. `plots.rate_test_plot` draws what is returned.
"""

import itertools
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NamedTuple

import numpy as np

from minitl import config
from minitl.models import Model
from minitl.models.arguments import guard
from minitl.models.batches import Batch, is_stream
from minitl.models.prediction import source_of
from minitl.models.training import TrainingDiverged, snapshot, train_step
from minitl.naming import Count, Natural, Positive
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


def learning_rate_range_test(
    model: Model,
    x: Any,
    y: Any = None,
    lowest: Positive = 1e-6,
    highest: Positive = 1.0,
    steps: Annotated[int, "an integer of at least 3"] = 100,
    batch_size: Count | None = None,
    sample_weight: Any = None,
    seed: Natural = 0,
    cache_features: bool = True,
) -> RateTest:
    """Train for a moment at growing rates, and leave the model as it was.

        rate(k) = lowest * (highest / lowest)^(k / (steps - 1))

    Args:
        model: compiled and built. Layers with a `rate_multiplier` have their multiple of rate(k).
        x, y, sample_weight, batch_size, cache_features: as for `fit`; data are gone through as
            often as needed.
        lowest, highest, steps: positive rates, at most so many; the loss may run away earlier.
        seed: of the order of the data, of dropout and so on.

    Weights, optimizer, history and the random numbers to come are the same bits afterwards as
    before. Raises ValueError for rates or steps that make no test.
    """
    model.need_compile("learning_rate_range_test")
    if not model.outputs:
        raise ValueError(f"{model.name!r} has no shapes yet: build it first")
    if not 0 < lowest < highest < np.inf:
        raise ValueError(f"rates grow from lowest to highest, got {lowest!r} to {highest!r}")
    data = source_of(model, x, y, sample_weight, batch_size)
    rates = np.geomspace(lowest, highest, steps)
    keep = not is_stream(x)
    return _undone(lambda: _train(model, data, rates, seed, cache_features), model, keep)


def _train(model: Model, data: Any, rates: np.ndarray, seed: int, cache_features: bool) -> RateTest:
    """Train one step at each rate, until the loss runs away."""
    losses: list[float] = []
    smoothed: list[float] = []
    mean, diverged = 0.0, False
    model.optimizer = model.optimizer.clone()
    caching = Caching(model, cache_features, None, epochs=2, say=None)
    batches = _endless(caching.wrap(data, training=True), seed)
    try:
        caching.begin(seed, 0)
        for rate, (batch, rng) in zip(rates, batches, strict=False):
            model.optimizer.replace_rate(float(rate))
            losses.append(train_step(model, batch, rng, f"step {len(losses) + 1}")[0][0])
            mean = SMOOTHING * mean + (1 - SMOOTHING) * losses[-1]
            smoothed.append(mean / (1 - SMOOTHING ** len(losses)))
            if diverged := smoothed[-1] > RUNAWAY * min(smoothed):
                break
    except TrainingDiverged:
        diverged = True
    finally:
        caching.end()
    n = len(losses)
    if n < 3:
        why = f"lowest={rates[0]:g} is too high already"
        raise ValueError(f"the loss ran away after {n} steps: {why}")
    suggestion = float(rates[int(np.argmin(smoothed))]) / MARGIN
    return RateTest(rates[:n], np.array(losses), np.array(smoothed), suggestion, diverged)


def _endless(walk: Any, seed: Natural) -> Iterator[tuple[Batch, np.random.Generator]]:
    """The batches of one epoch after another, with the random numbers of the epoch."""
    for epoch in itertools.count():
        rng = np.random.default_rng((seed, epoch))
        walk.epoch = epoch
        order = None if walk.samples is None else rng.permutation(walk.samples)
        yield from ((batch, rng) for batch in walk.batches(order))


def _undone(run: Callable[[], Any], model: Model, keep_features: bool) -> Any:
    """run(), and then, whatever happened, weights, optimizer and random numbers as before; F of the
    same images, which `fit` will then not compute again, may stay. Ctrl-C breaks off run(), but
    never that: it is heard once while `armed`, and then again when all is as it was."""
    optimizer, features, weights = model.optimizer, model.kept_features, snapshot(model)
    generator = config.random_state()
    drawn = generator.bit_generator.state
    before: Any = signal.getsignal(signal.SIGINT)
    hears = threading.current_thread() is threading.main_thread() and callable(before)
    armed, late = True, []

    def interrupt(*signal_and_frame: Any) -> None:
        nonlocal armed
        if armed:
            armed = False
            before(*signal_and_frame)  # raises KeyboardInterrupt, as a rule
        else:
            late.append(signal_and_frame)

    try:
        try:
            if hears:
                signal.signal(signal.SIGINT, interrupt)
            return run()
        finally:
            armed = False  # if Ctrl-C comes just before, this is left out, and done all the same
    finally:
        for variable, values in weights:
            variable.assign(values)
        model.optimizer = optimizer
        if not keep_features:
            model.kept_features = features
        generator.bit_generator.state = drawn
        config.set_random_state(generator)
        if hears:
            signal.signal(signal.SIGINT, before)
        if late:
            before(*late[0])


guard(globals())
