"""The optimum of the softmax head: against scikit-learn, its gradient, and the gap to it."""

import os
import subprocess
import sys

import numpy as np
import pytest

from minitl import Model, Sequential
from minitl.layers import Dense, Dropout, GlobalAveragePooling2D, Input
from minitl.optimizers import SGD, Adam
from minitl.regularizers import L2
from minitl.transfer.optimum import OptimumGap, head_loss, solve_head

rng = np.random.default_rng(0)


def features(n, d, m, seed=0):
    """F as of a network, positive and of very different sizes, and labels that it half tells."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, 5))
    f = np.maximum(hidden @ rng.standard_normal((5, d)) + rng.standard_normal((n, d)), 0)
    f *= rng.lognormal(0, 1.5, d)
    y = (hidden @ rng.standard_normal((5, m)) + rng.standard_normal((n, m))).argmax(axis=1)
    return f.astype(np.float32), y


def gradient(f, y, head, l2, weights):
    """Of L(W, b), from the formulas, and L itself: float64."""
    f, t = f.astype(float), np.eye(len(head.bias))[y]
    z = f @ head.kernel + head.bias
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    g = weights[:, None] * (p - t) / len(f)
    loss = -(weights * np.log((p * t).sum(axis=1))).mean() + l2 * (head.kernel**2).sum()
    return loss, f.T @ g + 2 * l2 * head.kernel, g.sum(axis=0)


SHAPES = [(80, 12, 3), (30, 200, 4), (600, 40, 2), (20, 20, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("l2", [1.0, 1e-3, 1e-5])
def test_the_gradient_is_gone(shape, l2):
    f, y = features(*shape)
    weights = rng.uniform(0, 2, len(f))
    head = solve_head(f, y, l2, weights)
    loss, dw, db = gradient(f, y, head, l2, weights)
    start = np.abs(f).mean()  # the size of a gradient that is not gone
    assert np.abs(dw).max() < 1e-9 * start and np.abs(db).max() < 1e-10
    assert head.loss == pytest.approx(loss, rel=1e-9)
    assert head.gradient_norm <= 1e-8 * start
    assert abs(head.bias.mean()) < 1e-12 * max(1, np.abs(head.bias).max())
    assert head_loss(f, y, *head[:2], l2, weights) == pytest.approx(loss, rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.parametrize("weighted", [False, True])
def test_as_scikit_learn(shape, weighted):
    from sklearn.linear_model import LogisticRegression

    f, y = features(*shape, seed=1)
    f /= f.std(axis=0) + 1  # scikit-learn's solver needs columns of one size
    weights = rng.uniform(0.5, 2, len(f)) if weighted else None
    l2 = 1e-3
    ours = solve_head(f, y, l2, weights)
    c = 1 / (2 * l2 * len(f))
    precise = {"solver": "newton-cg", "tol": 1e-12, "max_iter": 10_000}
    theirs = LogisticRegression(C=c, **precise).fit(f.astype(float), y, weights)
    if len(theirs.coef_) == 1:  # of two classes it fits the difference, at half the penalty
        half = LogisticRegression(C=2 * c, **precise)
        theirs = half.fit(f.astype(float), y, weights)
        kernel = theirs.coef_.T * [[-0.5, 0.5]]
    else:
        kernel = theirs.coef_.T
    np.testing.assert_allclose(ours.kernel, kernel, atol=1e-6 * np.abs(kernel).max())
    np.testing.assert_allclose(ours.predict(f), theirs.predict_proba(f.astype(float)), atol=1e-6)


def test_standardised_is_the_same_as_on_standardised_features():
    f, y = features(60, 8, 3)
    f[:, 3] = 7.0  # a column that says nothing
    z = f.astype(float) - f.mean(axis=0, dtype=float)
    deviation = f.std(axis=0, dtype=float)
    z /= np.where(deviation > 0, deviation, 1)
    ours, plain = solve_head(f, y, 0.01, standardize=True), solve_head(z, y, 0.01)
    assert ours.loss == pytest.approx(plain.loss, rel=1e-12)
    np.testing.assert_allclose(ours.predict(f), plain.predict(z), atol=1e-9)


def test_labels_one_hot_and_probabilities():
    f, y = features(50, 6, 3)
    one_hot = np.eye(3)[y]
    first = solve_head(f, y, 0.01)
    for other in (one_hot, y.astype(float), y[:, None]):
        np.testing.assert_allclose(solve_head(f, other, 0.01).kernel, first.kernel, rtol=1e-12)
    soft = solve_head(f, 0.8 * one_hot + 0.2 / 3, 0.01)
    assert soft.loss > first.loss


def test_more_features_than_rows_is_the_same_problem():
    """Zero columns make D > N of the same F; the way through F F^T must not be seen."""
    f, y = features(40, 30, 3)
    wide = np.concatenate([f, np.zeros((40, 50), np.float32)], axis=1)
    a, b = (solve_head(x, y, 1e-3, tolerance=1e-13) for x in (f, wide))
    np.testing.assert_allclose(b.kernel[:30], a.kernel, atol=1e-9 * np.abs(a.kernel).max())
    assert np.abs(b.kernel[30:]).max() == 0 and b.loss == pytest.approx(a.loss, rel=1e-12)


PROGRAM = """
import hashlib
import numpy as np
from minitl import kernels
from minitl.transfer.optimum import solve_head

kernels.dense(np.ones((2, 2)), np.ones((2, 2)), None)  # BLAS is looked for before SciPy is there
rng = np.random.default_rng(0)
f = rng.standard_normal((400, 900)).astype(np.float32)
head = solve_head(f, rng.integers(0, 40, 400), 1e-3, standardize=True)
print(hashlib.sha256(head.kernel.tobytes() + head.bias.tobytes()).hexdigest())
"""


def test_no_bit_depends_on_the_number_of_threads():
    def run(threads):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"OPENBLAS_NUM_THREADS": threads},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    assert run("1") == run("2")


def test_what_it_says_when_iterations_run_out():
    f, y = features(200, 50, 4)
    with pytest.warns(UserWarning, match=r"solve_head stopped after \d+ iterations at a gradient"):
        solve_head(f, y, 1e-6, max_iterations=3)


F, LABELS = features(30, 4, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((F, LABELS, 0), "l2 must be positive, got 0: without it there need not be an optimum"),
        ((F, LABELS, float("nan")), "l2 must be a finite number of at least 0, got nan"),
        ((F[:, 0], LABELS, 1), r"F is a matrix \(N, D\) of numbers, got float32 \(30,\)"),
        ((F, LABELS[:9], 1), r"y has one row for each of F's: got shapes \(9,\) and \(30, 4\)"),
        ((F, LABELS - 1, 1), "labels are whole numbers from 0"),
        ((F, LABELS + 0.5, 1), "labels are whole numbers from 0"),
        ((F, np.zeros(30), 1), "at least two classes"),
        ((F, LABELS, 1, np.ones(3)), "sample_weight has one finite number"),
        ((F, LABELS, 1, -np.ones(30)), "sample_weight has one finite number"),
        ((np.where(F > 0, np.nan, F), LABELS, 1), "F has NaN or infinite numbers"),
    ],
)
def test_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        solve_head(*arguments)


# --- The gap -------------------------------------------------------------------------------------


def head_model(l2=0.01, optimizer=None, loss="sparse_categorical_crossentropy"):
    layer = Dense(3, activation="softmax", kernel_regularizer=L2(l2), name="head")
    model = Sequential([Input((4,)), layer])
    model.compile(optimizer or SGD(0.2, momentum=0.9), loss)
    return model


def test_the_loss_is_that_of_fit():
    weights = rng.uniform(0, 2, 30)
    model = head_model()
    kernel, bias = model.get_weights()
    found = head_loss(F, LABELS, kernel, bias, 0.01, weights)
    assert model.evaluate(F, LABELS, sample_weight=weights, verbose=0) == pytest.approx(found)
    optimum = solve_head(F, LABELS, 0.01, weights)
    model.set_weights(optimum[:2])
    found = model.evaluate(F, LABELS, sample_weight=weights, verbose=0)
    assert found == pytest.approx(optimum.loss, rel=1e-5)
    np.testing.assert_allclose(model.predict(F, verbose=0), optimum.predict(F), atol=1e-5)


@pytest.mark.parametrize("optimizer", [lambda: SGD(0.1, 0.9), lambda: Adam(0.05)])
def test_the_gap_closes(optimizer):
    f = F / F.std(axis=0)
    model, gap = head_model(optimizer=optimizer()), OptimumGap(f, LABELS)
    history = model.fit(f, LABELS, epochs=150, verbose=0, callbacks=[gap]).history["gap"]
    assert len(history) == 150 and history[0] > 0.05
    assert -1e-7 < history[-1] < 1e-3 * history[0]  # the optimum is one: nobody gets below it
    assert min(history) > -1e-7


def test_the_gap_above_a_frozen_base(capsys):
    first = Input((4, 4, 3))
    base = Dense(5, activation="relu", name="pixelwise")
    pooled = GlobalAveragePooling2D()(base(first))
    head = Dense(3, activation="softmax", kernel_regularizer=L2(0.01))
    model = Model(first, head(pooled))
    base.trainable = False
    model.compile("adam", "categorical_crossentropy")
    x = rng.standard_normal((30, 4, 4, 3)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[LABELS]
    gap = OptimumGap(x, y, verbose=1)
    history = model.fit(x, y, epochs=2, verbose=0, callbacks=[gap])
    f = Model(first, pooled).predict(x, verbose=0)
    best = solve_head(f, LABELS, 0.01).loss
    assert gap.optimum.loss == pytest.approx(best)
    expected = model.evaluate(x, y, verbose=0) - best
    assert history.history["gap"][-1] == pytest.approx(expected, abs=1e-6)
    assert f"Optimum of the head: loss {best:.6f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "lacks"),
    [
        (lambda: head_model(loss="mse"), "the loss categorical_crossentropy, with its defaults"),
        (
            lambda: Sequential([Input((4,)), Dense(4), *head_model().layers]),
            "nothing else that learns",
        ),
        (
            lambda: Sequential([Input((4,)), Dense(3, activation="softmax")]),
            r"a kernel_regularizer L2\(l2\) on it",
        ),
        (
            lambda: Sequential([*head_model().layers, Dropout(0.5)]),
            r"Dense\(m, activation='softmax'\) at its end",
        ),
    ],
)
def test_without_a_known_optimum_there_is_no_gap(model, lacks):
    model = model()
    model.build((None, 4))
    if model.optimizer is None:
        model.compile("sgd", "sparse_categorical_crossentropy")
    labels = F[:, :3] if lacks.startswith("the loss") else LABELS
    with pytest.raises(ValueError, match=f"lacks {lacks}"):
        model.fit(F, labels, verbose=0, callbacks=[OptimumGap(F, LABELS)])
