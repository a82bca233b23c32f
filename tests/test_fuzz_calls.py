"""A few of the bad calls of `tests/fuzz_calls.py`: none may change anything or hang."""

import re

import numpy as np
import pytest

import minitl
from minitl import callbacks, data, layers, metrics, optimizers, sklearn
from minitl.applications import vgg16
from minitl.judging.sheets import filter_sheet
from minitl.report import Report
from tests import fuzz_calls

X = np.zeros((6, 8, 8, 3), "f4")


@pytest.mark.parametrize("only", ["w.model", "layers.R", "minitl.metrics", "callbacks.E"])
def test_bad_calls_change_nothing(only, capsys):
    failures = fuzz_calls.main(["--seed", "7", "--calls", "25", "--only", only])
    assert [f for f in failures if not f[0].startswith("bare")] == [], capsys.readouterr().out
    assert len(failures) <= 4, capsys.readouterr().out


def mistaken_calls():
    layer, early = layers.Dense(3, name="d"), callbacks.EarlyStopping()
    scaling, best = layers.Normalization(), callbacks.ModelCheckpoint("m.h5")
    yield lambda: layer(7), "Dense 'd' takes an array with an axis of samples, got one number"
    yield lambda: layer.build(7), "(in Dense.build(input_shape=7))"
    yield lambda: layer.add_weight(shape="2"), "shape must be integers of at least 0"
    yield lambda: scaling.adapt(X, batch_size=[1]), "adapt: batch_size must be a positive integer"
    yield lambda: layers.Add()([X, X[:2]]), "(in Add(x=a list of 2 (ndarray (6, 8, 8, 3) of floa"
    yield lambda: optimizers.Adam().apply([1], [2]), "gradients and variables must be lists"
    yield lambda: optimizers.CosineDecay(0.1, 5)([1]), "(in CosineDecay(step=[1]))"
    yield lambda: metrics.F1Score().update_state(0, X), "(in F1Score.update_state(y_true=0, "
    yield lambda: early.on_epoch_end(0, (0, 0)), "logs must be a dictionary"
    yield lambda: early.set_state((1, 2)), "state must be a dictionary"
    yield lambda: best.on_epoch_end(0, X), "logs must be a dictionary"
    yield lambda: minitl.Tensor(X).sum(axis="x"), "(in sum(x=Tensor (6, 8, 8, 3) of float32, ax"
    yield lambda: minitl.ops.outer(np.array([None]), 2.0), "(in outer(x1=ndarray (1,) of object"
    yield lambda: minitl.models.clone_model(3), "clone_model: model must be a Model, got 3"
    yield lambda: metrics.F1Score().update_state(0, np.ndarray), "y_pred=<class 'numpy.ndarray'>"
    yield lambda: optimizers.PiecewiseConstantDecay(list, [1]), "boundaries must be a list or"
    yield lambda: minitl.Variable(X).assign([[1], [1, 2]]), "(in Variable.assign(value="
    yield lambda: minitl.Variable(X[:2]).assign_add(X), "(in Variable.assign_add(value=ndarray ("
    yield lambda: minitl.GradientTape().gradient(3, []), "gradient: target must be a Tensor"
    yield lambda: vgg16.preprocess_input(set()), "(in preprocess_input(x=set()))"
    yield lambda: vgg16.preprocess_input("channels_last", X), "data_format must be a string or"
    pairs = data.Dataset.from_tensor_slices((X, X))
    yield lambda: pairs.batch("2"), "batch: batch_size must be a positive integer, got '2'"
    yield lambda: pairs.shuffle([], seed=["x"]), "shuffle: buffer_size must be a positive integer"
    yield lambda: pairs.take(1.0), "take: count must be an integer, got 1.0"
    yield lambda: data.Dataset.from_generator(iter([])), "generator must be a function"
    yield lambda: data.Dataset.from_tensor_slices((X, X[:2])), "tensors must be of one length"
    yield lambda: data.ImageDataset(labels=1j), "(in ImageDataset(labels=1j))"
    yield (
        lambda: sklearn.SoftmaxHead().fit(X[0, :, :, 0], [1, 2]),
        "X=ndarray (8, 8) of float32, y=",
    )
    yield lambda: sklearn.SoftmaxHead("x").fit(X, X), "SoftmaxHead: l2 must be a finite number of"
    yield lambda: sklearn.FeatureExtractor(value_range=9).fit(X), "value_range must be 2 values"


@pytest.mark.parametrize("call, said", [*mistaken_calls()])
def test_methods_tell_of_their_arguments_too(call, said):
    before = minitl.config.random_state().bit_generator.state
    with pytest.raises((TypeError, ValueError), match=re.escape(said)):
        call()
    assert minitl.config.random_state().bit_generator.state == before


STEPS = np.zeros((2, 3, 6, 6, 3), "f4")


def first_calls():
    """A layer that is not built, a call that it refuses, and one that it takes."""
    numbers = np.full((2, 5), 3.0, "f4")
    yield lambda: layers.Embedding(5, 2), lambda b: b(numbers * 9), lambda b: b(numbers)
    yield lambda: layers.Add(), lambda b: b([X, X[:, :2]]), lambda b: b([X, X])
    yield lambda: layers.Dense(2), lambda b: b(layers.Input((None,))), lambda b: b(X)
    yield lambda: layers.BatchNormalization(), lambda b: b(X[:0], training=True), lambda b: b(X)
    yield fuzz_calls.Composite, lambda b: b(numbers), lambda b: b(X)
    yield (
        fuzz_calls.Composite,
        lambda b: b(layers.Input((5,))),
        lambda b: b(layers.Input((6, 6, 3))),
    )
    within = lambda: layers.TimeDistributed(fuzz_calls.Composite())  # noqa: E731
    yield within, lambda b: b(STEPS[:, :, 0]), lambda b: b(STEPS)
    chain = lambda: minitl.Sequential([layers.Dense(3), layers.Conv2D(2, 3)])  # noqa: E731
    yield chain, lambda b: b(numbers), lambda b: b(X)
    yield (
        lambda: minitl.Sequential([chain(), layers.Dense(2)]),
        lambda b: b(numbers),
        lambda b: b(X),
    )
    late = lambda: minitl.Sequential([layers.Embedding(5, 3), layers.Flatten()])  # noqa: E731
    yield late, lambda b: b.predict(numbers * 9, verbose=0), lambda b: b.predict(numbers, verbose=0)

    def trained(model, y):
        model.compile("sgd", "mse")
        model.fit(X, y, verbose=0)

    yield chain, lambda b: trained(b, X[:2]), lambda b: trained(b, np.zeros((6, 6, 6, 2)))


@pytest.mark.parametrize("make, wrong, right", [*first_calls()])
def test_a_refused_first_call_has_built_nothing(make, wrong, right):
    """Neither it nor what is inside it; nor has it drawn from the seeds."""

    def told():
        state = [(x.built, len(x.own_weights), len(x.symbolic_calls)) for x in layer.inside()]
        return state, minitl.config.random_state().bit_generator.state

    layer = make()
    before = told()
    with pytest.raises((TypeError, ValueError)):
        wrong(layer)
    assert told() == before
    right(layer)
    built = told()[0]
    with pytest.raises((TypeError, ValueError)):
        wrong(layer)
    assert told()[0] == built  # what is there stays


def test_one_hot_takes_no_more_than_it_gives():
    assert minitl.ops.one_hot(np.zeros(0), 10**9).shape == (0, 10**9)
    found = minitl.ops.one_hot([[0, 2], [-1, 3]], 3, axis=0).numpy()
    assert found[:, 0].tolist() == [[1, 0], [0, 0], [0, 1]]
    assert not found[:, 1].any()  # those outside have none


def test_sums_take_no_argument_that_numpy_has_not():
    with pytest.raises(TypeError, match="'f'"):
        minitl.Tensor(X).sum(f=1)


@pytest.mark.parametrize("batches", [[X], [], [(X, X, X, X)], [(X, X[:2])]])
def test_a_refused_fit_on_a_generator_has_changed_nothing(batches):
    """What it yields is seen when a seed is drawn and the new history is in its place."""
    model = minitl.Sequential([layers.Input((8, 8, 3)), layers.Dense(3)])
    model.compile("sgd", "mse")
    before = model.fit(X, X, verbose=0)
    state = minitl.config.random_state().bit_generator.state
    with pytest.raises((TypeError, ValueError)):
        model.fit(iter(batches), verbose=0)
    assert model.history is before
    assert minitl.config.random_state().bit_generator.state == state


def test_a_refused_plot_leaves_no_folder(tmp_path):
    layer = layers.Conv2D(2, 3)
    layer(X)
    with pytest.raises(ValueError, match="'h5' is not supported"):
        filter_sheet(layer, tmp_path / "a" / "b" / "x.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_report_takes_up_predictions_whole_or_not_at_all():
    report = Report("r")
    with pytest.raises(ValueError, match="paths must be 2, one for each picture, got 1"):
        report.add_predictions([1, 1], [[0.9, 0.1], [0.8, 0.2]], ["a", "b"], ["x"], lambda i: X[0])
    assert (report.evaluation, report.wrong, report.wrong_count) == (None, [], 0)
    with pytest.raises(ValueError, match="features must be F"):
        report.add_map(np.zeros(9), None, ["a"], lambda i: X[0])


def test_pages_and_data_files_say_what_their_arguments_are():
    page = minitl.report.Report("t")
    with pytest.raises(ValueError, match=r"write: path must be a string or a path, got None"):
        page.write(None)
    with pytest.raises(ValueError, match=r"add_map: read must be a function, got 5"):
        page.add_map(np.zeros((4, 3)), [0, 1, 0, 1], ["a", "b"], 5)
    with pytest.raises(ValueError, match=r"read_idx: path must be a string or a path, got 5"):
        minitl.datasets.mnist.read_idx(5)
