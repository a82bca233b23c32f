"""A small model behind a server on this machine, in a thread, on a port that is free."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from minitl import Input, Model, serve
from minitl.config import set_random_seed
from minitl.data.pictures import READING
from minitl.layers import Conv2D, Dense, GlobalAveragePooling2D

NAMES = ["<b>red</b>", '"green"', "蓝"]


@pytest.fixture(scope="session")
def model():
    """Tells which colour is the strongest; its layers are there for Grad-CAM."""
    set_random_seed(0)
    x = inputs = Input((24, 32, 3))
    x = Conv2D(3, 1, use_bias=False, activation="relu", name="maps")(x)
    outputs = Dense(3, "softmax", use_bias=False)(GlobalAveragePooling2D()(x))
    model = Model(inputs, outputs, name="colours")
    model.set_weights([np.eye(3)[None, None] / 64, np.eye(3) * 4])
    model.metadata = {"class_names": NAMES, "size": [24, 32], **READING}
    return model


def same(x):
    return np.asarray(x, np.float32)


class Running:
    """A server, its address, and what went wrong inside it."""

    def __init__(self, model, **limits):
        self.limits = serve.Limits(**limits)
        self.app = serve.create_app(model, model.metadata, same, self.limits)
        self.ready, self.address = threading.Event(), ""
        self.thread = threading.Thread(target=self.work, daemon=True)

    def work(self):
        serve.run(self.app, "127.0.0.1", 0, self.limits, self.started)

    def started(self, address, stop):
        self.address, self.stop = address, stop
        self.ready.set()

    def __enter__(self):
        self.thread.start()
        assert self.ready.wait(60)
        return self

    def __exit__(self, *_):
        self.stop()
        self.thread.join(30)
        assert not self.thread.is_alive()


def picture(colour, size=(40, 30), kind="PNG", **how):
    """The bytes of a picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, kind, **how)
    return file.getvalue()


@pytest.fixture(scope="session")
def server(model):
    with Running(model) as running:
        yield running


RED, GREEN, BLUE = (picture(c) for c in ("red", "lime", "blue"))
