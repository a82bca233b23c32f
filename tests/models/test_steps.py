"""Models that a user wrote: a `call` of their own, and steps that they override."""

import numpy as np
import pytest

import minitl
from minitl import GradientTape, Input, Model, Sequential, backward, layers, losses, metrics
from minitl.layers import BatchNormalization, Dense, Dropout
from minitl.optimizers import SGD

X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
Y = (X @ np.array([[1.0], [-2.0], [0.5], [1.0]], np.float32)).astype(np.float32)


class Net(Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = Dense(8, activation="relu")
        self.blocks = [Dense(8), BatchNormalization()]
        self.drop = Dropout(0.5)
        self.out = Dense(1)

    def call(self, inputs, training=False):
        x = self.hidden(inputs)
        for block in self.blocks:
            x = block(x)
        return self.out(self.drop(x))


def test_a_model_with_a_call_does_what_models_do(tmp_path):
    minitl.utils.set_random_seed(0)
    model = Net(name="net")
    model.compile(SGD(0.05), "mse", metrics=["mae"])
    history = model.fit(X, Y[:, 0], epochs=20, batch_size=8, validation_data=(X, Y), verbose=0)
    assert sorted(history.history) == ["loss", "mae", "val_loss", "val_mae"]
    assert history.history["loss"][-1] < history.history["loss"][0] / 2
    assert model.count_params() == (4 * 8 + 8) + (8 * 8 + 8) + 4 * 8 + 9
    assert model.layers[0] is model.hidden
    assert model.predict(X, verbose=0).shape == (24, 1)
    assert model(X).shape == (24, 1)
    told = []
    model.summary(print_fn=told.append)
    assert model.hidden.name in "\n".join(told)
    path = tmp_path / "net.weights.h5"
    model.save_weights(path)
    other = Net(name="net")
    other.build((None, 4))
    other.load_weights(path)
    np.testing.assert_array_equal(other.predict(X, verbose=0), model.predict(X, verbose=0))


def test_a_call_that_is_not_there():
    class Nothing(Model):
        pass

    with pytest.raises(NotImplementedError, match="Nothing"):
        Nothing().predict(X, verbose=0)


def test_several_inputs_and_outputs_by_name():
    class Named(Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = Dense(1), Dense(2)

        def call(self, inputs):
            return {"one": self.a(inputs["left"]), "two": self.b(inputs["right"])}

    model = Named()
    model.compile("sgd", {"one": "mse", "two": "mae"}, metrics={"one": ["mae"], "two": []})
    data = {"left": X, "right": X[:, :2]}
    history = model.fit(data, {"one": Y, "two": X[:, :2]}, verbose=0).history
    assert sorted(history) == ["loss", "one_loss", "one_mae", "two_loss"]
    found = model.predict(data, verbose=0)
    assert {name: a.shape for name, a in found.items()} == {"one": (24, 1), "two": (24, 2)}


def test_outputs_of_a_graph_by_name():
    x = Input((4,))
    model = Model(x, {"b": Dense(2)(x), "a": Dense(1)(x)})
    model.compile("sgd", {"a": "mse", "b": "mse"})
    assert sorted(model.fit(X, {"a": Y, "b": X[:, :2]}, verbose=0).history) == [
        "a_loss",
        "b_loss",
        "loss",
    ]
    assert {n: a.shape[1] for n, a in model.predict(X, verbose=0).items()} == {"a": 1, "b": 2}
    assert sorted(model(X)) == ["a", "b"]


def net(cls=Model, **kwargs):
    minitl.utils.set_random_seed(0)
    x = Input((4,))
    return cls(x, Dense(1, name="out")(Dense(3, activation="tanh", name="in")(x)), **kwargs)


def fitted(model, **kwargs):
    minitl.utils.set_random_seed(1)
    history = model.fit(X, Y, epochs=3, batch_size=8, verbose=0, **kwargs).history
    return history, model.get_weights()


def same(one, other):
    assert one[0].keys() == other[0].keys()
    for name in one[0]:
        np.testing.assert_allclose(one[0][name], other[0][name], rtol=1e-5)
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


class ByBackward(Model):
    def train_step(self, data):
        x, y = data
        y_pred = self(x, training=True)
        loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(backward(loss, variables), variables, strict=True))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss, len(x))
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


class ByTape(Model):
    def train_step(self, data):
        x, y = data
        with GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(y=y, y_pred=y_pred)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.metrics[0].update_state(loss, len(x))
        return self.compute_metrics(x, y, y_pred)


class BySuper(Model):
    def train_step(self, data):
        return super().train_step(data)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return super().compute_loss(x, y, y_pred, sample_weight)

    def test_step(self, data):
        return super().test_step(data)


@pytest.mark.parametrize("cls", [ByBackward, ByTape, BySuper])
def test_a_step_of_ones_own_is_the_step_of_minitl(cls):
    results = []
    for each in (Model, cls):
        model = net(each)
        model.compile(SGD(0.1), "mse", metrics=["mae"])
        results.append(fitted(model, validation_data=(X, Y)))
    same(*results)
    assert model.evaluate(X, Y, verbose=0, return_dict=True).keys() == {"loss", "mae"}


def test_own_metrics_and_no_call_at_all():
    class Pair(Model):
        """As generative networks have it: two models, two optimizers, no `call`."""

        def __init__(self, one, two):
            super().__init__()
            self.one, self.two = one, two
            self.tracker = metrics.Mean(name="both")

        def compile(self, one_optimizer, two_optimizer, loss_fn):
            super().compile()
            self.one_optimizer, self.two_optimizer = one_optimizer, two_optimizer
            self.loss_fn = loss_fn

        @property
        def metrics(self):
            return [self.tracker]

        def train_step(self, data):
            x = data[0] if isinstance(data, tuple) else data
            for model, optimizer in (
                (self.one, self.one_optimizer),
                (self.two, self.two_optimizer),
            ):
                loss = self.loss_fn(np.zeros((len(x), 1), np.float32), model(x, training=True))
                variables = model.trainable_weights
                optimizer.apply(backward(loss, variables), variables)
                self.tracker.update_state(loss)
            return {"both": self.tracker.result()}

    one, two = (Sequential([Input((4,)), Dense(1)]) for _ in range(2))
    pair = Pair(one, two)
    pair.compile(SGD(0.1), SGD(0.1), losses.MeanSquaredError())
    before = [one.get_weights()[0].copy(), two.get_weights()[0].copy()]
    history = pair.fit(X, epochs=2, verbose=0).history
    assert list(history) == ["both"] and history["both"][1] < history["both"][0]
    assert not np.array_equal(before[0], one.get_weights()[0])
    assert not np.array_equal(before[1], two.get_weights()[0])


def test_predict_step_and_what_a_step_must_return():
    class Own(Model):
        def predict_step(self, data):
            return self(data, training=False) * 2

        def train_step(self, data):
            return None

    model = net(Own)
    np.testing.assert_allclose(model.predict(X, verbose=0), 2 * model(X).numpy())
    model.compile("sgd", "mse")
    with pytest.raises(TypeError, match="train_step returns a dict of numbers by name, got None"):
        model.fit(X, Y, verbose=0)


def test_layers_in_a_step_of_ones_own_are_told_of_training():
    class Own(Model):
        def train_step(self, data):
            self.seen = self(data[0], training=True).numpy()
            return {"loss": 0.0}

    x = Input((4,))
    model = Own(x, layers.Dropout(0.5)(x))
    model.compile("sgd", "mse")
    model.fit(np.ones((50, 4)), np.ones((50, 4)), batch_size=50, verbose=0)
    assert 0.2 < (model.seen == 0).mean() < 0.8
