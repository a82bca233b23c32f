"""Freezing up to a layer, and fine-tuning in stages, on inlined and on nested bases."""

import numpy as np
import pytest

from minitl import Model, Sequential, config
from minitl.callbacks import BackupAndRestore, Callback, LambdaCallback
from minitl.layers import (
    LSTM,
    Add,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePooling2D,
    Input,
    MaxPooling2D,
    TimeDistributed,
)
from minitl.models import load_model
from minitl.optimizers import SGD, Adam, schedules
from minitl.transfer.stages import (
    Stage,
    fine_tune,
    freeze_until,
    frozen_digests,
    proof_of_freezing,
    training_work,
    unfreeze_from,
)

rng = np.random.default_rng(0)
X = rng.standard_normal((12, 8, 8, 3)).astype(np.float32)
Y = np.eye(3, dtype=np.float32)[np.arange(12) % 3]
BLOCKS = [f"block{b}_conv{c}" for b in (1, 2, 3) for c in (1, 2)]


def base(norm=False):
    """Three blocks of two convolutions, as VGG's, after each (if asked for) a normalisation."""
    x = first = Input((8, 8, 3), name="pixels")
    for b in (1, 2, 3):
        for c in (1, 2):
            x = Conv2D(4, 3, padding="same", activation="relu", name=f"block{b}_conv{c}")(x)
            if norm:
                x = BatchNormalization(name=f"block{b}_norm{c}")(x)
        x = MaxPooling2D(2, name=f"block{b}_pool")(x)
    return Model(first, x, name="base")


def classifier(nested=False, norm=False, optimizer=None, dropout=0.0):
    """The base and a head, compiled. With nested=True the base is one layer of the model."""
    config.set_random_seed(1)
    net = base(norm)
    start = Input((8, 8, 3), name="images") if nested else net.input
    x = GlobalAveragePooling2D(name="gap")(net(start) if nested else net.output)
    x = Dense(5, activation="relu", name="hidden")(x)
    x = Dropout(dropout, name="dropout")(x)
    model = Model(start, Dense(3, activation="softmax", name="head")(x), name="net")
    model.compile(optimizer or Adam(0.01), "categorical_crossentropy", metrics=["accuracy"])
    return net, model


def every(layer):
    """The layer and what is inside it."""
    yield layer
    for inner in layer.sublayers():
        yield from every(inner)


def learning(model):
    """The names of layers with weights that learn."""
    return {
        each.name for each in every(model) if not list(each.sublayers()) and each.trainable_weights
    }


def same(a, b):
    return all(p.tobytes() == q.tobytes() for p, q in zip(a, b, strict=True))


# --- Freezing up to a layer ----------------------------------------------------------------------


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("at", ["block3_conv1", "block3", "block2_pool"])
def test_freeze_until_freezes_what_comes_before(nested, at):
    _, model = classifier(nested)
    frozen = freeze_until(model, at)
    assert {layer.name for layer in frozen} >= set(BLOCKS[:4])
    assert learning(model) == {*BLOCKS[4:], "hidden", "head"}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("at", ["block2_conv2", "block3", "block2_pool"])
def test_unfreeze_from_unfreezes_the_rest(nested, at):
    net, model = classifier(nested)
    model.trainable = False
    names = {layer.name for layer in unfreeze_from(model, at)}
    assert (
        names == learning(model) == {*BLOCKS[3 if at == "block2_conv2" else 4 :], "hidden", "head"}
    )
    assert model.trainable and (net.trainable or not nested)  # what holds them is not frozen


def test_both_at_one_layer_leave_no_layer_out():
    for name in [*BLOCKS, "hidden", "head", "block1", "block2"]:
        _, model = classifier(nested=True)
        frozen = {layer.name for layer in model.freeze_until(name) if layer.weights}
        model.trainable = False
        assert {layer.name for layer in model.unfreeze_from(name)} | frozen == {
            *BLOCKS,
            "hidden",
            "head",
        }
        assert not frozen & learning(model)


def test_a_base_or_a_layer_itself_can_be_named():
    net, model = classifier(nested=True)
    freeze_until(model, net.get_layer("block1_conv2"))
    assert learning(model) == {*BLOCKS[1:], "hidden", "head"}
    model.trainable = False
    unfreeze_from(model, "base")
    assert learning(model) == {*BLOCKS, "hidden", "head"}
    freeze_until(model, "gap")
    assert learning(model) == {"hidden", "head"} and not frozen_digests(model).keys() & {"head"}


def residual():
    """Two blocks with a shortcut each, and a side input that joins at the end."""
    x = first = Input((4, 4, 3))
    for b in (1, 2):
        y = Conv2D(4, 3, padding="same", name=f"conv{b}_1")(x)
        y = Conv2D(4, 3, padding="same", name=f"conv{b}_2")(y)
        x = Add(name=f"add{b}")([y, Conv2D(4, 1, name=f"conv{b}_0")(x)])
    side = Input((2,))
    joined = Concatenate()([GlobalAveragePooling2D()(x), Dense(2, name="side")(side)])
    return Model([first, side], Dense(2, name="out")(joined))


def test_before_is_told_by_the_graph():
    """Beside the main way are a shortcut and another input: they are not before it."""
    model = residual()
    freeze_until(model, "conv2_1")
    assert learning(model) == {"conv2_0", "conv2_1", "conv2_2", "side", "out"}
    model.trainable = False
    unfreeze_from(model, "conv2")
    assert learning(model) == {"conv2_0", "conv2_1", "conv2_2", "side", "out"}


def test_a_layer_that_is_called_before_itself():
    shared = Dense(2, name="shared")
    first = Input((2,))
    model = Model(first, Dense(1, name="out")(shared(Dense(2, name="mid")(shared(first)))))
    freeze_until(model, "shared")
    assert learning(model) == {"shared", "out"}
    freeze_until(model, "out")
    assert learning(model) == {"out"}


def test_a_sequential_that_has_no_shapes_yet():
    model = Sequential([Conv2D(2, 3, name="a"), Conv2D(2, 3, name="b"), Flatten(), Dense(2)])
    freeze_until(model, "b")
    model.build((None, 8, 8, 1))
    assert "a" not in learning(model) and "b" in learning(model)


def test_a_base_that_reads_a_sequence():
    """Inside TimeDistributed, too, before a layer is what it is computed from."""
    net = base()
    frames = Input((4, 8, 8, 3))
    x = LSTM(3, name="lstm")(TimeDistributed(Flatten())(TimeDistributed(net, name="each")(frames)))
    model = Model(frames, Dense(2, name="head")(x), name="net")
    freeze_until(model, "block3")
    assert learning(model) == {*BLOCKS[4:], "lstm", "head"}
    model.trainable = False
    unfreeze_from(model, "block2_conv2")
    assert learning(model) == {*BLOCKS[3:], "lstm", "head"}
    freeze_until(model, "lstm")
    assert learning(model) == {"lstm", "head"}


def test_batch_normalization_stays_frozen_unless_asked_for():
    net, model = classifier(nested=True, norm=True)
    net.trainable = False
    unfreeze_from(model, "block3")
    assert learning(model) == {*BLOCKS[4:], "hidden", "head"}
    unfreeze_from(model, "block3", batch_norm=True)
    assert learning(model) == {*BLOCKS[4:], "block3_norm1", "block3_norm2", "hidden", "head"}


@pytest.mark.parametrize("call", [freeze_until, unfreeze_from])
def test_names_that_are_not_there(call):
    _, model = classifier(nested=True)
    with pytest.raises(
        ValueError, match=r"'net' has no layer or block 'block3_cnov1'. .*'block3_conv1'"
    ):
        call(model, "block3_cnov1")
    with pytest.raises(ValueError, match=r"has no layer or block 'blok3'\. Did you mean 'block3'"):
        call(model, "blok3")
    with pytest.raises(ValueError, match="is no layer of 'net', nor of a model inside it"):
        call(model, Dense(2, name="stranger"))


def test_a_name_that_is_there_twice():
    first = Input((2,))
    inner = [Sequential([Input((2,)), Dense(2, name="d")], name=n) for n in "ab"]
    model = Model(first, inner[1](inner[0](first)), name="twins")
    with pytest.raises(ValueError, match="2 layers inside 'twins' are named 'd': give the layer"):
        freeze_until(model, "d")
    freeze_until(model, inner[1].layers[0])
    assert [layer.trainable for layer in inner[0].layers + inner[1].layers] == [False, True]


# --- Rates ---------------------------------------------------------------------------------------


def test_a_model_s_multiplier_is_that_of_all_layers_inside():
    net, model = classifier(nested=True)
    net.rate_multiplier = 0.5
    assert {v.rate_multiplier for v in net.weights} == {0.5}
    assert model.get_layer("head").kernel.rate_multiplier == 1
    net.get_layer("block1_conv1").rate_multiplier = 0
    before = model.get_weights()
    model.fit(X, Y, verbose=0)
    still = [p.tobytes() == q.tobytes() for p, q in zip(before, model.get_weights(), strict=True)]
    assert still == [True] * 2 + [False] * (len(still) - 2)


def test_a_layer_that_is_built_later_keeps_its_multiplier():
    layer = Dense(2)
    layer.rate_multiplier = 0.25
    layer(np.ones((1, 3)))
    assert layer.kernel.rate_multiplier == layer.bias.rate_multiplier == 0.25


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "fast"])
def test_a_multiplier_is_a_number(value):
    with pytest.raises(ValueError, match="a rate_multiplier is a number of at least 0"):
        Dense(2).rate_multiplier = value


def test_multipliers_are_saved(tmp_path):
    net, model = classifier(nested=True)
    net.get_layer("block2_conv1").rate_multiplier = 0.125
    model.save(tmp_path / "m.h5")
    again = load_model(tmp_path / "m.h5")
    assert again.get_layer("base").get_layer("block2_conv1").kernel.rate_multiplier == 0.125
    assert {v.rate_multiplier for v in again.weights} == {0.125, 1.0}


# --- Proof ---------------------------------------------------------------------------------------


def test_the_proof_shows_digests_and_work():
    net, model = classifier(nested=True, norm=True)
    net.trainable = False
    said = []
    with proof_of_freezing(model, said.append):
        model.fit(X, Y, verbose=0)
    lines = said[0].splitlines()
    digests = frozen_digests(model)
    assert len(digests) == 12 and "base/block1_norm1" in digests
    for (name, digest), line in zip(digests.items(), lines[1:-1], strict=True):
        words = line.split()
        assert words[0] == name and words[2] == words[3] == digest[:16] and words[4] == "same"
    assert "million multiply-adds a sample" in lines[-1] and "saved" in lines[-1]


def test_the_proof_fails_when_something_frozen_moves():
    net, model = classifier()
    net.trainable = False
    said = []

    def meddle(epoch, logs):
        with net.get_layer("block2_conv2").bias.writing() as b:
            b[0] += 1

    with (
        pytest.raises(RuntimeError, match="frozen, and yet changed: block2_conv2"),
        proof_of_freezing(model, said.append),
    ):
        model.fit(X, Y, verbose=0, callbacks=[LambdaCallback(on_epoch_end=meddle)])
    assert said[0].count("CHANGED") == 1


def test_work_of_a_step():
    """3x3 convolutions 16 -> 2 -> 2 on 4x4 maps, then 32 -> 5: by hand."""
    first = Input((4, 4, 16))
    x = Conv2D(2, 3, padding="same", name="a")(first)
    x = Conv2D(2, 3, padding="same", name="b")(x)
    model = Model(first, Dense(5, name="c")(Flatten()(x)))
    a, b, c = 16 * 9 * 16 * 2, 16 * 9 * 2 * 2, 32 * 5
    assert training_work(model) == {
        "forward": (a + b + c, a + b + c),
        "gradients to inputs": (b + c, b + c),
        "gradients to weights": (a + b + c, a + b + c),
    }
    freeze_until(model, "b")
    now = {part: counts[0] for part, counts in training_work(model).items()}
    assert now["gradients to inputs"] == c and now["gradients to weights"] == b + c
    assert now["forward"] == b + c  # what `a` gives is kept


# --- Stages --------------------------------------------------------------------------------------

QUIET = {"verbose": 0, "batch_size": 4}


@pytest.mark.parametrize("nested", [False, True])
def test_stages_go_from_the_top(nested):
    net, model = classifier(nested)
    start = model.get_weights()
    seen = []
    spy = LambdaCallback(
        on_train_begin=lambda logs: seen.append(
            (learning(model), net.get_weights(), {v.name: 0 for v in model.trainable_weights})
        )
    )
    if not nested:
        net.trainable = False
    histories = fine_tune(
        model, (X, Y), stages=["block3", "block2_conv2"], head_epochs=2, epochs=3, callbacks=spy,
        patience=9, **QUIET,
    )  # fmt: skip
    assert [name for name, _ in histories] == ["head", "block3 unfrozen", "block2_conv2 unfrozen"]
    assert [len(h.epoch) for _, h in histories] == [2, 3, 3]
    top = {"hidden", "head"}
    assert [s[0] for s in seen] == [top, top | set(BLOCKS[4:]), top | set(BLOCKS[3:])]
    # What each stage had frozen is what it was, to the bit; what learned has moved.
    weights = net.get_weights()
    assert same(seen[1][1], seen[0][1])
    assert same(seen[2][1][:8], seen[0][1][:8]) and not same(seen[2][1][8:10], seen[0][1][8:10])
    assert same(weights[:6], seen[0][1][:6]) and not same(weights[6:8], seen[0][1][6:8])
    assert not same(model.get_weights()[-2:], start[-2:])


def test_rates_of_the_stages():
    """A linear warm-up to the rate, half a cosine to nothing, and blocks at their multiples."""
    net, model = classifier(optimizer=SGD(0.5))
    net.trainable = False
    rates = {}

    def note(batch, logs):
        rates.setdefault(len(learning(model)), []).append(model.optimizer.learning_rate)

    spy = LambdaCallback(on_train_batch_begin=note)
    stages = [
        Stage("block3", epochs=5),
        Stage("block2", 1, learning_rate=schedules.ExponentialDecay(0.1, 1, 0.5), multiplier=0.01),
    ]
    fine_tune(
        model, (X, Y), stages=stages, head_epochs=1, learning_rate=0.2, warmup=0.2, patience=9,
        rate_decay=0.5, callbacks=[spy], **QUIET,
    )  # fmt: skip
    assert rates[2] == [0.5] * 3  # the head: as compiled
    up = 3  # a fifth of 5 epochs of 3 steps
    cosine = [0.1 * (1 + np.cos(np.pi * k / 12)) for k in range(12)]
    climb = [0.05 + 0.05 * k for k in range(up)]
    np.testing.assert_allclose(rates[4], climb + cosine, rtol=1e-12)
    np.testing.assert_allclose(rates[6], [0.1, 0.05, 0.025], rtol=1e-12)
    found = {layer.name: layer.rate_multiplier for layer in model.layers if layer.weights}
    assert found == dict.fromkeys(BLOCKS[:2] + ["hidden", "head"], 1.0) | dict.fromkeys(
        BLOCKS[2:4], 0.01
    ) | dict.fromkeys(BLOCKS[4:], 0.5)  # fmt: skip


def test_a_stage_starts_afresh_and_ends_at_its_rate():
    net, model = classifier(optimizer=Adam(0.01, beta_1=0.8))
    compiled = model.optimizer
    model.fit(X, Y, verbose=0, batch_size=4)
    fine_tune(
        model, (X, Y), stages=["block3"], base=net, head_epochs=1, epochs=2, learning_rate=0.002,
        **QUIET,
    )  # fmt: skip
    assert model.optimizer is not compiled and compiled.iterations == 3
    assert (model.optimizer.iterations, model.optimizer.beta_1) == (6, 0.8)
    assert model.optimizer.learning_rate == 0.002


def test_the_same_seed_gives_the_same_bits():
    def run(seed):
        net, model = classifier(dropout=0.5)
        config.set_random_seed(seed)
        histories = fine_tune(
            model, (X, Y), (X, Y), stages=["block3", "block1"], base=net, head_epochs=2, epochs=2,
            **QUIET,
        )  # fmt: skip
        return model.get_weights(), [h.history for _, h in histories]

    first, again, other = run(5), run(5), run(6)
    assert same(first[0], again[0]) and first[1] == again[1]
    assert not same(first[0], other[0])


def test_a_stage_that_makes_it_worse_is_undone(capsys):
    net, model = classifier(optimizer=SGD(0.05))
    weights = []
    spy = LambdaCallback(on_train_begin=lambda logs: weights.append(model.get_weights()))
    wild = Stage("block3", learning_rate=schedules.ExponentialDecay(30.0, 1, 1.0))
    fine_tune(
        model, (X, Y), (X, Y), stages=[wild],
        base=net, head_epochs=3, epochs=2, batch_size=4, verbose=2, callbacks=[spy],
    )  # fmt: skip
    assert same(model.get_weights(), weights[1])
    said = capsys.readouterr().out
    assert "Stage 1, head: 43 parameters learn." in said
    assert "Stage 2, block3 unfrozen: 339 parameters learn." in said
    assert "val_loss did not get better than" in said and "the stage is undone" in said


@pytest.mark.parametrize("split", [False, True])
def test_a_head_that_was_trained_before_is_not_lost_in_a_worse_stage(capsys, split):
    net, model = classifier(optimizer=SGD(0.05))
    net.trainable = False
    model.fit(X, Y, epochs=3, **QUIET)
    before = model.get_weights()
    wild = Stage("block3", learning_rate=schedules.ExponentialDecay(30.0, 1, 1.0))
    held_out = {"validation_split": 0.5} if split else {"validation_data": (X, Y)}
    fine_tune(
        model, (X, Y), stages=[wild], base=net, head_epochs=0, epochs=2, batch_size=4, verbose=2,
        **held_out,
    )  # fmt: skip
    assert same(model.get_weights(), before)
    assert "val_loss did not get better than" in capsys.readouterr().out


def test_the_best_weights_are_those_in_the_end():
    net, model = classifier(optimizer=SGD(0.05))
    histories = fine_tune(
        model, (X, Y), (X, Y), stages=["block3"], base=net, head_epochs=4, epochs=4,
        learning_rate=0.05, **QUIET,
    )  # fmt: skip
    best = min(v for _, h in histories for v in h.history["val_loss"])
    assert model.evaluate(X, Y, verbose=0)[0] == pytest.approx(best, rel=1e-6)


def test_the_head_stops_when_it_has_converged():
    net, model = classifier(optimizer=SGD(0.0))
    histories = fine_tune(
        model, (X, Y), (X, Y), stages=[], base=net, head_epochs=50, patience=3, **QUIET
    )
    assert len(histories[0][1].epoch) == 4


def test_normalisation_of_the_base_stays_in_inference_mode():
    net, model = classifier(nested=True, norm=True)
    norm = [layer for layer in net.layers if isinstance(layer, BatchNormalization)]
    before = [w for layer in norm for w in layer.get_weights()]
    fine_tune(model, (X, Y), stages=["block2"], head_epochs=1, epochs=1, **QUIET)
    assert same([w for layer in norm for w in layer.get_weights()], before)
    fine_tune(model, (X, Y), stages=["block2"], head_epochs=0, epochs=1, batch_norm=True, **QUIET)
    changed = [
        not same(layer.get_weights(), before[4 * i : 4 * i + 4]) for i, layer in enumerate(norm)
    ]
    assert changed == [False] * 2 + [True] * 4


class Killed(BaseException):
    pass


class KillAt(Callback):
    """Ends everything at the n-th batch that it sees."""

    def __init__(self, n):
        self.n, self.seen = n, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.n:
            raise Killed

    def get_state(self):
        return {}


def test_a_fine_tuning_that_was_killed_goes_on(tmp_path):
    """Killed again and again, within the head's stage and within both others."""

    def run(kill_at=None):
        net, model = classifier(dropout=0.5)
        config.set_random_seed(7)
        callbacks = [KillAt(kill_at), BackupAndRestore(tmp_path / "backup", save_freq=2)]
        histories = fine_tune(
            model, (X, Y), (X, Y), stages=["block3", "block1"], base=net, head_epochs=3, epochs=2,
            learning_rate=0.01, callbacks=callbacks, **QUIET,
        )  # fmt: skip
        return model.get_weights(), [h.history for _, h in histories]

    whole = run()
    assert not (tmp_path / "backup").exists()
    kills = 0
    while kills < 20:
        try:
            found = run(kill_at=5)
            break
        except Killed:
            kills += 1
    assert kills >= 4
    assert same(found[0], whole[0]) and found[1] == whole[1]
    assert not (tmp_path / "backup").exists()


def test_a_stage_of_nothing_but_normalisation_unfreezes_nothing():
    _, model = classifier(nested=True, norm=True)
    with pytest.raises(ValueError, match="the stage 'block3_norm1' unfreezes no layer"):
        fine_tune(model, (X, Y), stages=["block3_conv2", "block3_norm1"])


def test_sample_weights_among_the_arguments_of_fit():
    net, model = classifier()
    start = model.get_weights()
    fine_tune(
        model, (X, Y), stages=["block3"], base=net, head_epochs=1, epochs=1,
        sample_weight=np.zeros(12), **QUIET,
    )  # fmt: skip
    assert same(start, model.get_weights())


def test_proofs_are_printed_on_request(capsys):
    net, model = classifier()
    fine_tune(
        model, (X, Y), stages=["block3"], base=net, head_epochs=1, epochs=1, prove=True, **QUIET
    )
    said = capsys.readouterr().out
    assert said.count("frozen layer") == 2 and said.count(" same") == 6 + 4


def test_data_sets_and_sample_weights():
    batches = _Stream([(X[:5], Y[:5]), (X[5:], Y[5:])])
    net, model = classifier()
    fine_tune(model, batches, stages=["block3"], base=net, epochs=1, head_epochs=1, verbose=0)
    assert model.optimizer.learning_rate == 1e-5
    other_net, other = classifier()
    zero = np.zeros(12)
    start = other.get_weights()
    fine_tune(
        other, (X, Y, zero), stages=["block3"], base=other_net, head_epochs=1, epochs=1, **QUIET
    )
    assert same(start, other.get_weights())


class _Stream:
    """An iterable of batches whose length is not known."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"stages": ["blok3"]}, ValueError, "no layer or block 'blok3'. Did you mean 'block3'"),
        ({"stages": ["block2", "block3"]}, ValueError, "'block3' unfreezes no layer .* top down"),
        ({"stages": ["head"]}, ValueError, "the stage 'head' unfreezes no layer of the base"),
        ({"base": "bse"}, ValueError, "no layer or block 'bse'"),
        ({"base": base}, ValueError, "does not have the base's layers block1_conv1"),
        ({"warmup": 1}, ValueError, "warmup must be in \\[0, 1\\), got"),
        ({"head_epoch": 3}, TypeError, r"fine_tune\(\) has no .* Did you mean 'head_epochs'"),
        ({"batchsize": 3}, TypeError, r"fine_tune\(\) has no argument 'batchsize'. .*'batch_size'"),
        ({"data": (X,)}, ValueError, r"data must be \(x, y\)"),
        ({"epochs": 0}, ValueError, "epochs must be a positive integer, got 0"),
        ({"head_epochs": 1.5}, ValueError, "head_epochs must be an integer of at least 0, got 1.5"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_has_changed(arguments, kind, message):
    net, model = classifier()
    before, optimizer = model.get_weights(), model.optimizer
    if arguments.get("base") is base:
        arguments = {"base": base()}
    with pytest.raises(kind, match=message):
        fine_tune(model, **{"data": (X, Y), "stages": ["block3"], "base": net} | arguments)
    assert same(before, model.get_weights()) and model.optimizer is optimizer
    assert learning(model) == {*BLOCKS, "hidden", "head"}


def test_a_stage_s_own_settings():
    with pytest.raises(ValueError, match=r"multiplier must be a finite number of .*, got -1"):
        Stage("block3", multiplier=-1)
    with pytest.raises(ValueError, match="epochs must be a positive integer or None, got 0"):
        Stage("block3", epochs=0)
    with pytest.raises(TypeError, match=r"Stage\(\) has no argument 'rate'"):
        Stage("block3", rate=0.1)


def test_a_base_that_cannot_be_told():
    _, model = classifier()
    with pytest.raises(ValueError, match="cannot tell what is pretrained: pass base="):
        fine_tune(model, (X, Y), stages=["block3"])
    net = base()
    net.compile("sgd", "mse")
    with pytest.raises(ValueError, match="all layers of 'base' are the base's: there is no head"):
        fine_tune(net, (X, Y), stages=["block3"], base=net)
    with pytest.raises(RuntimeError, match="fine_tune needs a compiled model"):
        fine_tune(base(), (X, Y), stages=["block3"])
