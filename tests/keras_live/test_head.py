"""100 Adam steps of the worked example's head, Dense(1024) and Dense(10) on real F, in float32: the
loss at every step, minitl beside Keras.

    python -m tests.keras_live.test_head 224          # as in the example
    python -m tests.keras_live.test_head 64 --scaled  # F divided by its standard deviation
    python -m tests.keras_live.test_head 224 --rate 1e-5

Rounding differs (1e-7 a step), and the training amplifies that, as much as Keras amplifies its own.
The largest relative difference from Keras's losses, among those above 0.01, of minitl; of Keras
with the columns of F and the hidden units in another order; and of Keras compiled by XLA:

    F of 64 pixels, scaled, rate 1e-3     5.2e-6    5.0e-6    5.8e-6
    F of 224 pixels, rate 1e-5            1.2e-5    1.4e-5    1.4e-4
    F of 224 pixels, scaled, rate 1e-3    2.6e-5    1.4e-4    1.9e-4
    F of 224 pixels, rate 1e-4            1.3e-4    1.9e-4    4.8e-4
    F of 64 pixels, rate 1e-3             1.8e-3    4.4e-3    2.0e-3
    F of 224 pixels, rate 1e-3            0.063     0.057     0.30

The last two are trainings that nobody would wish for: F up to 377, a first loss of 35, then 125.
For so much to be equal, minitl adds up exponentials in TensorFlow's order (`kernels.reference`):
where p is nearly 1, the gradient p - 1 is a few last bits, and Adam divides gradients by their own
size. What is left is the order of sums in the matrix products.
"""

import argparse

import numpy as np
import pytest

import minitl
from minitl.applications import weights as pretrained
from minitl.applications.vgg16 import VGG16, preprocess_input
from tests.tolerances import HEAD_LOSS, SMALL_LOSS

STEPS, BATCH, SAMPLES = 100, 32, 128


def features(size, scaled):
    """F (SAMPLES, D) of crops of photographs, and one-hot labels by photograph and brightness."""
    from tests.keras_live.test_mission import crops

    weights = str(pretrained.fetch("vgg16", include_top=False))
    x = preprocess_input(crops(SAMPLES, size))
    base = VGG16(include_top=False, weights=weights, input_shape=(size, size, 3))
    brightness = np.argsort(np.argsort(x.mean(axis=(1, 2, 3)))) * 3 // SAMPLES
    labels = (np.arange(SAMPLES) % 3) * 3 + brightness
    f = base.predict(x, batch_size=8, verbose=0).reshape(SAMPLES, -1)
    return f / (f.std() if scaled else 1), np.eye(10, dtype=np.float32)[labels]


def train(k, f, y, start, rate=1e-3, **settings):
    """The loss of every step, and the weights at the end."""
    layers = [k.Input(f.shape[1:]), k.layers.Dense(1024, "relu"), k.layers.Dense(10, "softmax")]
    model = k.Sequential(layers)
    model.set_weights(start)
    model.compile(k.optimizers.Adam(rate), "categorical_crossentropy", **settings)
    losses = []
    for step in range(STEPS):
        rows = np.arange(step * BATCH, (step + 1) * BATCH) % SAMPLES
        history = model.fit(f[rows], y[rows], batch_size=BATCH, shuffle=False, verbose=0)
        losses.append(history.history["loss"][0])
    return np.array(losses), model.get_weights()


def shuffled(f, start):
    """The same training with columns of F and hidden units in another order: all sums have the
    same terms, so whatever differs is rounding."""
    rng = np.random.default_rng(0)
    columns, units = rng.permutation(f.shape[1]), rng.permutation(1024)
    kernel, bias, head, head_bias = start
    return f[:, columns], [kernel[columns][:, units], bias[units], head[units], head_bias]


def start_of(f):
    minitl.utils.set_random_seed(1)
    layers = [minitl.Input(f.shape[1:]), minitl.layers.Dense(1024), minitl.layers.Dense(10)]
    return minitl.Sequential(layers).get_weights()


@pytest.mark.weights
def test_100_adam_steps_of_the_head(keras, compiled):
    f, y = features(64, scaled=True)
    start = start_of(f)
    (mine, _), (theirs, _) = (train(k, f, y, start) for k in (minitl, keras))
    assert theirs[-1] < theirs[0] / 10
    wrong = np.abs(mine - theirs) > HEAD_LOSS * np.maximum(theirs, SMALL_LOSS)
    first = int(wrong.argmax())
    assert not wrong.any(), f"step {first + 1}: {mine[first]}, Keras {theirs[first]}"


def main():
    import keras

    parser = argparse.ArgumentParser()
    parser.add_argument("size", type=int)
    parser.add_argument("--scaled", action="store_true")
    parser.add_argument("--rate", type=float, default=1e-3)
    options = parser.parse_args()
    f, y = features(options.size, options.scaled)
    start = start_of(f)
    mine, weights = train(minitl, f, y, start, options.rate)
    theirs, their_weights = train(keras, f, y, start, options.rate)
    again, other = shuffled(f, start)
    others = {
        "minitl": mine,
        "Keras, shuffled": train(keras, again, y, other, options.rate)[0],
        "Keras, by XLA": train(keras, f, y, start, options.rate, jit_compile=True)[0],
    }
    for step in (1, 2, 5, 10, 20, 50, 100):
        print(f"step {step:3}: {mine[step - 1]:.8f}, Keras {theirs[step - 1]:.8f}")
    for least in (0.01, 1e-7):
        for name, loss in others.items():
            off = np.where(theirs > least, np.abs(loss - theirs) / np.maximum(theirs, least), 0)
            print(
                f"losses above {least:g} ({(theirs > least).sum()} of {STEPS}): {name} is "
                f"off by at most {off.max():.1e} relative, at step {off.argmax() + 1}"
            )
    for a, b in zip(weights, their_weights, strict=True):
        print(f"weight {b.shape}: {np.linalg.norm(a - b) / np.linalg.norm(b):.1e} in relative L2")


if __name__ == "__main__":
    main()
