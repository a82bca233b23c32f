"""Iterables of batches: an epoch of fewer steps goes on within a walk."""

import numpy as np
import pytest

from minitl import Input, Sequential, layers
from minitl.data.streams import StreamData
from minitl.optimizers import SGD


class Batches:
    """Six batches of the numbers 0 to 5, and how often they were walked over."""

    def __init__(self):
        self.walks = 0

    def __len__(self):
        return 6

    def __iter__(self):
        self.walks += 1
        for i in range(6):
            yield np.full((2, 1), i, np.float32), np.zeros((2, 1))


def losses(data, steps, epochs, **more):
    model = Sequential([Input((1,)), layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model.compile(SGD(0.0), "mae")
    return model.fit(data, steps_per_epoch=steps, epochs=epochs, verbose=0, **more).history


@pytest.mark.parametrize(
    ("steps", "epochs", "expected", "walks"),
    [
        (2, 5, [0.5, 2.5, 4.5, 0.5, 2.5], 2),
        (4, 3, [1.5, 4.5, 1.5], 2),  # the rest of a walk is an epoch, as in Keras
        (6, 2, [2.5, 2.5], 2),
        (None, 2, [2.5, 2.5], 2),
    ],
)
def test_an_epoch_goes_on_where_the_last_one_stopped(steps, epochs, expected, walks):
    data = Batches()
    assert losses(data, steps, epochs)["loss"] == pytest.approx(expected)
    assert data.walks == walks


def test_validation_begins_anew():
    history = losses(Batches(), 6, 3, validation_data=Batches(), validation_steps=2)
    assert history["val_loss"] == pytest.approx([0.5] * 3)


def test_a_walk_is_taken_up_where_a_backup_left_it():
    first = StreamData(Batches(), 2)
    first.goes_on = True
    first.follow()
    seen = [float(b.x[0][0, 0]) for _ in range(2) for b in first.batches()]
    again = StreamData(Batches(), 2)
    again.goes_on = True
    again.follow()
    again.restore(first.state())
    assert seen == [0, 1, 2, 3]
    assert [float(b.x[0][0, 0]) for b in again.batches()] == [4, 5]


def test_looking_at_the_first_batch_takes_nothing():
    for data in (Batches(), iter(Batches())):
        stream = StreamData(data, None)
        assert stream.peek()[0][0, 0] == 0
        assert [float(b.x[0][0, 0]) for b in stream.batches()] == [0, 1, 2, 3, 4, 5]
