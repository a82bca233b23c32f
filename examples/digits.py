"""Transfer from one digit task to another, on real data that needs no network.

A small network learns to tell 0, 1, 2, 3, 4 apart, from some 900 images. Then it is frozen, and
shall help to tell 5, 6, 7, 8, 9 apart, which it has never seen, from a handful of each. Compared
are, with the same few images:

    pixels     a softmax head on the pixels themselves
    scratch    the same network, trained from random weights
    features   a softmax head on what the frozen network says

    python examples/digits.py [--shots 5] [--draws 10]

The images (8 x 8, gray) come with scikit-learn: `pip install 'minitl[sklearn]'`.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits

from minitl.layers import Conv2D, Dense, Flatten, Input, MaxPooling2D
from minitl.models import Model, Sequential
from minitl.sklearn import FeatureExtractor, SoftmaxHead
from minitl.utils import set_random_seed


def network():
    return Sequential(
        [
            Input((8, 8, 1)),
            Conv2D(32, 3, padding="same", activation="relu"),
            Conv2D(32, 3, padding="same", activation="relu"),
            MaxPooling2D(),
            Flatten(name="features"),
            Dense(64, activation="relu"),
            Dense(5, activation="softmax"),
        ]
    )


def trained(model, x, y, epochs):
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--shots", type=int, default=5, help="of each new digit; default: %(default)s")
parser.add_argument("--draws", type=int, default=10, help="of those; default: %(default)s")
arguments = parser.parse_args()
set_random_seed(0)
x, y = load_digits(return_X_y=True)
x = (x / 16).astype(np.float32).reshape(-1, 8, 8, 1)
old, new = y < 5, y >= 5

source = trained(network(), x[old], y[old], epochs=15)
base = Model(source.input, source.get_layer("features").output)
base.trainable = False
F = FeatureExtractor(base, pooling=None).fit_transform(x[new])
x, y = x[new], y[new] - 5
print(f"{len(x)} images of new digits; F has {F.shape[1]} features")

scores = {"pixels": [], "scratch": [], "features": []}
for draw in range(arguments.draws):
    rng = np.random.default_rng(draw)
    few = np.concatenate(
        [rng.permutation(np.flatnonzero(y == c))[: arguments.shots] for c in range(5)]
    )
    others = np.setdiff1d(np.arange(len(y)), few)
    pixels = x.reshape(len(x), -1)
    for what, rows in (("pixels", pixels), ("features", F)):
        head = SoftmaxHead(l2=1e-3).fit(rows[few], y[few])
        scores[what].append(head.score(rows[others], y[others]))
    scratch = trained(network(), x[few], y[few], epochs=60)
    scores["scratch"].append(scratch.evaluate(x[others], y[others], verbose=0)[1])
for what, found in scores.items():
    print(f"{what:<9} accuracy {np.mean(found):.3f} +- {np.std(found):.3f}")
