"""The learning-rate range test: what it finds, and that it leaves everything as it was."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from minitl import Model, Sequential, config
from minitl.autograd import Variable
from minitl.callbacks import LambdaCallback
from minitl.judging.rate_range import learning_rate_range_test
from minitl.layers import BatchNormalization, Dense, Dropout, Input, Layer
from minitl.optimizers import SGD, Adam

rng = np.random.default_rng(0)
X = rng.standard_normal((40, 6)).astype(np.float32)
Y = np.eye(3, dtype=np.float32)[(X @ rng.standard_normal((6, 3))).argmax(axis=1)]


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C as in a terminal; a shell lets it be ignored in what it runs in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Trap(Layer):
    """Passes its input on, and does something at a given call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.count, self.at, self.action = 0, None, None

    def call(self, x, training=False):
        self.count += 1
        if self.count == self.at:
            self.action()
        return x


def network(optimizer=None):
    """Everything that has a state: weights, averages, moments, dropout; trained for a moment."""
    config.set_random_seed(3)
    trap = Trap(name="trap")
    first = Input((6,))
    x = Dense(5, activation="relu", name="frozen", trainable=False)(first)
    x = BatchNormalization(name="norm")(Dense(5, activation="relu", name="hidden")(trap(x)))
    model = Model(first, Dense(3, activation="softmax", name="head")(Dropout(0.3)(x)))
    model.get_layer("hidden").rate_multiplier = 0.5
    model.compile(optimizer or Adam(0.01), "categorical_crossentropy", metrics=["accuracy"])
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    return model, trap


def state(model):
    """All that a later training depends on, as bytes."""
    optimizer = model.optimizer
    return (
        [w.tobytes() for w in model.get_weights()],
        id(optimizer),
        optimizer.iterations,
        optimizer.learning_rate,
        [{k: a.tobytes() for k, a in optimizer.state_of(v).items()} for v in model.weights],
        str(config._seeds.bit_generator.state),
        id(model.history),
        model.stop_training,
    )


def go_on(model):
    """What further training gives."""
    history = model.fit(X, Y, batch_size=8, epochs=2, validation_data=(X, Y), verbose=0)
    return [w.tobytes() for w in model.get_weights()], history.history


@pytest.mark.parametrize("make", [lambda: SGD(0.1, 0.9), lambda: Adam(0.01)])
def test_nothing_has_changed(make):
    model, _ = network(make())
    before = state(model)
    found = learning_rate_range_test(model, X, Y, 1e-4, 10.0, steps=30, batch_size=8)
    assert state(model) == before
    assert len(found.rates) == len(found.losses) == len(found.smoothed) > 20
    after = go_on(model)
    assert after == go_on(network(make())[0])


def test_an_error_leaves_everything_as_it_was():
    model, trap = network()
    before = state(model)

    def fail():
        raise OSError("no more disk")

    trap.at, trap.action = trap.count + 7, fail
    with pytest.raises(OSError, match="no more disk"):
        learning_rate_range_test(model, X, Y, batch_size=8)
    assert state(model) == before
    after = go_on(model)
    assert after == go_on(network()[0])


def test_ctrl_c_leaves_everything_as_it_was():
    model, trap = network()
    before, handler = state(model), signal.getsignal(signal.SIGINT)
    trap.at, trap.action = trap.count + 7, lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        learning_rate_range_test(model, X, Y, batch_size=8)
    assert state(model) == before and signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize("step", range(8))
def test_ctrl_c_while_weights_are_put_back(step, monkeypatch):
    """Twice: at one weight, and again at a later one."""
    model, _ = network()
    before, handler, calls = state(model), signal.getsignal(signal.SIGINT), []
    assign = Variable.assign

    def interrupted(variable, values):
        calls.append(variable)
        if len(calls) in (step + 1, step + 4):
            os.kill(os.getpid(), signal.SIGINT)
        assign(variable, values)

    monkeypatch.setattr(Variable, "assign", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learning_rate_range_test(model, X, Y, steps=5, batch_size=8)
    assert state(model) == before and signal.getsignal(signal.SIGINT) is handler


def test_random_numbers_that_a_layer_draws_are_not_missed():
    model, trap = network()
    before = state(model)
    trap.at, trap.action = trap.count + 2, config.next_seed
    learning_rate_range_test(model, X, Y, steps=5, batch_size=8)
    assert state(model) == before
    trap.at, trap.action = trap.count + 2, lambda: config.set_random_seed(1)
    learning_rate_range_test(model, X, Y, steps=5, batch_size=8)
    assert state(model) == before


def test_ctrl_c_at_any_moment():
    """Somebody leans on the keyboard: signals at random, many at once, also while cleaning up."""
    model, _ = network()
    before, handler = state(model), signal.getsignal(signal.SIGINT)
    learning_rate_range_test(model, X, Y, steps=20, batch_size=8)
    moments = np.random.default_rng(1).uniform(0, 0.02, 60)
    stopped = 0
    for moment in moments:
        done = threading.Event()

        def lean(moment=moment, done=done):
            time.sleep(moment)
            for _ in range(20):
                if done.is_set():
                    return
                os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=lean)
        while True:  # outside the test itself the signals are the harness's to bear
            try:
                thread.start() if thread.ident is None else None
                learning_rate_range_test(model, X, Y, steps=20, batch_size=8)
                break
            except KeyboardInterrupt:
                stopped += 1
                break
        while thread.is_alive():
            try:
                done.set()
                thread.join()
            except KeyboardInterrupt:
                pass
        assert state(model) == before and signal.getsignal(signal.SIGINT) is handler
    assert stopped > 10


def test_in_another_thread():
    model, _ = network()
    before, found = state(model), []
    run = threading.Thread(
        target=lambda: found.append(learning_rate_range_test(model, X, Y, batch_size=8))
    )
    run.start()
    run.join()
    assert found and state(model) == before


def test_the_rates_and_losses_are_those_of_training():
    """Step by step what an optimizer does that is set to these rates."""
    model, other = (Sequential([Input((6,)), Dense(3, activation="softmax")]) for _ in "ab")
    other.set_weights(model.get_weights())
    for each in (model, other):
        each.compile(SGD(1.0, momentum=0.5), "categorical_crossentropy")
    found = learning_rate_range_test(model, X, Y, 1e-3, 1.0, steps=4, batch_size=40)
    np.testing.assert_allclose(found.rates, [1e-3, 1e-2, 1e-1, 1], rtol=1e-12)
    losses = []
    for rate in found.rates:
        other.optimizer.learning_rate = rate
        losses.append(other.fit(X, Y, batch_size=40, verbose=0, shuffle=False).history["loss"][0])
    np.testing.assert_allclose(found.losses, losses, rtol=1e-5)
    np.testing.assert_allclose(found.smoothed[0], losses[0], rtol=1e-5)
    mean = (0.09 * losses[0] + 0.1 * losses[1]) / 0.19
    np.testing.assert_allclose(found.smoothed[1], mean, rtol=1e-5)
    assert not found.diverged


def test_it_stops_where_the_loss_runs_away_and_suggests_less():
    model = Sequential([Input((6,)), Dense(1)])
    model.compile(SGD(), "mse")
    y = X @ np.ones((6, 1), np.float32)
    found = learning_rate_range_test(model, X, y, 1e-4, 1e4, steps=100, batch_size=8)
    assert found.diverged and len(found.rates) < 100
    # The loss is a parabola, of curvature 2 in the mean: it explodes from a rate of about 1 on.
    assert found.suggestion == pytest.approx(found.rates[found.smoothed.argmin()] / 10)
    assert 0.01 < found.suggestion < 0.2 < found.rates[-1]
    assert learning_rate_range_test(model, X, y, 1e-4, 1e4, batch_size=8).suggestion == (
        found.suggestion
    )


def test_batches_from_a_data_set():
    model, _ = network()
    before = state(model)
    batches = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 40, 8)]

    class Data:
        def __iter__(self):
            return iter(batches)

    found = learning_rate_range_test(model, Data(), steps=12)
    assert len(found.rates) == 12 and state(model) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lowest": 0}, "lowest must be a finite number above 0, got 0"),
        ({"lowest": 2}, "rates grow from lowest to highest, got 2 to 1.0"),
        ({"steps": 2}, "steps must be an integer of at least 3, got 2"),
        ({"lowest": 1e20, "highest": 1e30}, "lowest=1e.20 is too high already"),
    ],
)
def test_what_is_wrong(arguments, message):
    model = Sequential([Input((6,)), Dense(3)])
    model.compile("sgd", "mse")
    before = state(model)
    with pytest.raises(ValueError, match=message), np.errstate(all="ignore"):
        learning_rate_range_test(model, X, Y, **arguments)
    assert state(model)[0] == before[0]


def test_a_model_that_cannot_be_tested():
    model = Sequential([Dense(3)], name="net")
    with pytest.raises(RuntimeError, match="learning_rate_range_test needs a compiled model"):
        learning_rate_range_test(model, X, Y)
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="'net' has no shapes yet: build it first"):
        learning_rate_range_test(model, X, Y)
    with pytest.raises(TypeError, match=r"has no argument 'step'. Did you mean 'steps'"):
        learning_rate_range_test(model, X, Y, step=3)


def test_it_runs_inside_a_callback_s_view_of_nothing():
    """`fit` afterwards calls its callbacks as if there had been no test."""
    model, _ = network()
    learning_rate_range_test(model, X, Y, steps=5)
    epochs = []
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[LambdaCallback(
        on_epoch_begin=lambda epoch, logs: epochs.append(epoch))])  # fmt: skip
    assert epochs == [0, 1]
