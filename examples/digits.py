"""Transfer from one digit task to another, on real data that needs no network.

A small network learns which digit it sees, from one half of scikit-learn's images. Then it is
frozen, and shall help with another question about images that it has never seen, the other half:
is the digit odd? For this there are but a few labelled images. Compared are, with the same few:

    pixels     a softmax head on the pixels themselves
    scratch    the same network, trained from random weights
    features   a softmax head on F, what a layer of the frozen network says

    python examples/digits.py [--shots 20] [--draws 5]

The later the layer, the better it has sorted the digits; were the new question about digits that
the network never saw, the early layers would be the better ones (Yosinski et al. 2014, arXiv
1411.1792). The images (8 x 8, gray) come with scikit-learn: `pip install 'minitl[sklearn]'`.
"""

import argparse

import numpy as np
from sklearn.datasets import load_digits

from minitl.layers import Conv2D, Dense, Flatten, Input, MaxPooling2D
from minitl.models import Sequential
from minitl.sklearn import FeatureExtractor, SoftmaxHead
from minitl.utils import set_random_seed


def network(classes):
    return Sequential(
        [
            Input((8, 8, 1)),
            Conv2D(32, 3, padding="same", activation="relu", name="conv1"),
            Conv2D(32, 3, padding="same", activation="relu", name="conv2"),
            MaxPooling2D(),
            Flatten(),
            Dense(64, activation="relu", name="hidden"),
            Dense(classes, activation="softmax", name="output"),
        ]
    )


def trained(model, x, y, epochs):
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=epochs, verbose=0)
    return model


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--shots", type=int, default=20, help="images per class; default: %(default)s")
parser.add_argument("--draws", type=int, default=5, help="of those; default: %(default)s")
arguments = parser.parse_args()
set_random_seed(0)
x, digit = load_digits(return_X_y=True)
x = (x / 16).astype(np.float32).reshape(-1, 8, 8, 1)
first, second = np.split(np.random.default_rng(0).permutation(len(x)), [len(x) // 2])

base = trained(network(10), x[first], digit[first], epochs=15)
base.trainable = False
x, odd = x[second], digit[second] % 2
rows = {"pixels": x.reshape(len(x), -1)}
for layer in ("conv1", "conv2", "hidden", "output"):
    rows[f"features of {layer}"] = FeatureExtractor(base, layers=layer, pooling=None).fit_transform(
        x
    )

scores = {what: [] for what in (*rows, "scratch")}
for draw in range(arguments.draws):
    rng = np.random.default_rng(draw)
    few = np.concatenate(
        [rng.permutation(np.flatnonzero(odd == c))[: arguments.shots] for c in (0, 1)]
    )
    others = np.setdiff1d(np.arange(len(x)), few)
    for what, F in rows.items():
        head = SoftmaxHead(l2=1e-3, tolerance=1e-6).fit(F[few], odd[few])
        scores[what].append(head.score(F[others], odd[others]))
    scratch = trained(network(2), x[few], odd[few], epochs=40)
    scores["scratch"].append(scratch.evaluate(x[others], odd[others], verbose=0)[1])
print(f"odd or even, from {arguments.shots} images of each, on {len(others)} others:")
for what, found in scores.items():
    print(f"  {what:<19} accuracy {np.mean(found):.3f} +- {np.std(found):.3f}")
