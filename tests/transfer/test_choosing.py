"""The head's settings by cross-validation: which features, which penalty, and folds on F."""

import numpy as np
import pytest

from minitl.transfer import choosing


def rows(n=120, seed=0, noise=40):
    """F (n, 10 + noise): two columns tell three classes, noise is noise; sizes differ."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    angle = 2 * np.pi * y / 3
    good = np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(0, 0.5, (n, 2))
    f = np.concatenate([good, rng.normal(size=(n, noise + 8))], axis=1)
    return (f * rng.lognormal(0, 0.5, f.shape[1])).astype(np.float32), y


def log_loss(p, y):
    return -np.log(p[np.arange(len(y)), y]).mean()


def test_the_features_that_tell_are_chosen():
    f, y = rows()
    blocks = {"good": f[:, :2], "bad": f[:, 2:]}
    candidates = {
        "all": {"good": 1, "bad": 1},
        "few": {"good": 1, "bad": 0.01},
        "noise": {"bad": 1},
    }
    choice = choosing.choose_head(blocks, y, candidates)
    assert choice.name == "few" and choice.log_loss["noise"] > 1
    assert choice.log_loss["few"] == pytest.approx(log_loss(choice.p, y), rel=1e-6)
    assert choice.p.shape == (120, 3) and (choice.p.argmax(1) == y).mean() > 0.8
    head = choosing.solve_chosen(blocks, y, choice.strength, candidates["few"])
    assert (head.predict(f).argmax(1) == y).mean() > 0.8


def test_the_penalty_is_nearly_the_best_for_new_rows():
    f, y = rows(seed=2)
    scale = np.random.default_rng(0).lognormal(0, 1, f.shape[1])
    strength = choosing.choose_head(f, y).strength
    rng = np.random.default_rng(5)
    order = rng.permutation(len(y))
    train, test = order[:80], order[80:]
    losses = {}
    for s in (1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0, strength):
        p = choosing.solve_chosen(f[train] * scale, y[train], s).predict(f[test] * scale)
        losses[s] = log_loss(p, y[test])
    assert losses[strength] < 1.1 * min(losses.values())


def test_scikit_learn_finds_the_same_head():
    linear = pytest.importorskip("sklearn.linear_model")
    f, y = rows(60)
    head = choosing.solve_chosen(f, y, 5.0)
    scaled = (f * choosing.scales(f).astype(np.float32)).astype(float)
    theirs = linear.LogisticRegression(C=1 / 10.0, tol=1e-10, max_iter=5000).fit(scaled, y)
    np.testing.assert_allclose(head.predict(f), theirs.predict_proba(scaled), atol=1e-5)


def test_a_channel_that_hardly_ever_fires_drowns_nothing():
    f, y = rows()
    f[:, 5] = 0
    f[0, 5] = 1e-3
    head = choosing.solve_chosen(f, y, 1.0)
    new = f[:1].copy()
    new[0, 5] = f.std()  # as large as others are
    assert np.abs(head.predict(new) - head.predict(f[:1])).max() < 0.2
    assert (choosing.scales(np.ones((4, 3), np.float32)) == 1).all()


def test_out_of_fold_is_what_heads_say_that_have_not_seen_the_row():
    f, y = rows(60)
    f = f[:, :2]
    wrong = y.copy()
    wrong[7] = (y[7] + 1) % 3
    p = choosing.out_of_fold(f, wrong, 3.0, repeats=2)
    assert p.shape == (2, 60, 3)
    np.testing.assert_allclose(p.sum(axis=2), 1)
    assert (p[:, 7].argmax(axis=1) == y[7]).all() and not np.array_equal(p[0], p[1])
    np.testing.assert_array_equal(p, choosing.out_of_fold(f, wrong, 3.0, repeats=2))


def test_views_are_held_out_with_their_picture():
    rng = np.random.default_rng(0)
    y = np.arange(40) % 2
    f = rng.normal(size=(40, 30)).astype(np.float32)  # pure noise: nothing to be learned
    same = np.tile(f, (3, 1))
    loss = choosing.choose_head(same, y, views=3).log_loss["F"]
    assert loss > 0.6  # with a picture's twins in the training it would be far below
    one, three = choosing.solve_chosen(f, y, 5.0), choosing.solve_chosen(same, y, 5.0, views=3)
    np.testing.assert_allclose(one.kernel, three.kernel, atol=1e-5)
    with pytest.raises(ValueError, match="F has 40 rows for 40 labels and 2 views of each"):
        choosing.choose_head(f, y, views=2)


def test_groups_stay_together():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 6)
    y = np.repeat(np.arange(20) % 2, 6)
    f = (rng.normal(size=(20, 30))[groups] + 0.1 * rng.normal(size=(120, 30))).astype(np.float32)
    alone, grouped = (choosing.choose_head(f, y, groups=g).log_loss["F"] for g in (None, groups))
    assert alone < 0.1 and grouped > 0.5  # a new group's class cannot be told


def test_a_class_that_a_fold_lacks_is_survived_and_one_class_is_refused():
    f, y = rows(30)
    y[:] = np.arange(30) % 2
    y[4] = 2  # a single row
    choice = choosing.choose_head(f, y)
    assert choice.p[4, 2] < 1e-6 and choice.log_loss["F"] < 2
    with pytest.raises(ValueError, match="one class left to learn from"):
        choosing.choose_head(f[:8], np.arange(8) // 4, groups=np.arange(8) // 4, folds=2)


def test_bits_do_not_depend_on_the_number_of_threads():
    from minitl.kernels.machine import threads

    f, y = rows(60)
    before, found = threads.thread_count(), []
    for count in (1, 2):
        threads.set_thread_count(count)
        found.append(choosing.choose_head(f, y).p)
    threads.set_thread_count(before)
    np.testing.assert_array_equal(*found)
