"""A sequence of images as VGG16 features, read by an LSTM and by a GRU.

A camera sweeps over a solar cell in three lines, as one reads a page but turning round at the end
of each, and sees a ninth of the cell at a time. Is the cell sound or defective?

    frames (N, 9, 100, 100, 3)  --TimeDistributed(VGG16, frozen)-->  F (N, 9, 512)
                                --LSTM or GRU, softmax-->            P (N, 2)

    python examples/sequence.py [--cells 240] [--epochs 15]

VGG16 is frozen, so F is computed once and both heads learn on it. At the end base and head are one
model, from frames to classes. Needs the extra `demo` for the images (300 x 300, gray); of these
only cells are taken of which the experts were sure, as many sound as defective ones.
"""

import argparse

import numpy as np

from minitl.applications.vgg16 import VGG16, preprocess_input
from minitl.data import elpv, to_rgb
from minitl.data.splits import stratified_split
from minitl.layers import GRU, LSTM, BatchNormalization, Dense, Input, TimeDistributed
from minitl.models import Model, Sequential
from minitl.utils import set_random_seed

PATH = [(0, 0), (0, 1), (0, 2), (1, 2), (1, 1), (1, 0), (2, 0), (2, 1), (2, 2)]


def swept_cells(count, seed):
    """Frames (N, 9, 100, 100, 3), preprocessed, and labels (N,): 1 is defective."""
    cells, probability, _ = elpv.load_data()
    rng = np.random.default_rng(seed)
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(probability == p))[: count // 2] for p in (0, 1)]
    )
    crops = [cells[chosen, 100 * i : 100 * i + 100, 100 * j : 100 * j + 100] for i, j in PATH]
    frames = np.stack(crops, axis=1)  # (N, 9, 100, 100)
    return preprocess_input(to_rgb(frames.reshape(-1, 100, 100))).reshape(
        *frames.shape, 3
    ), elpv.labels(probability[chosen])


def head_of(kind, steps, features):
    """F (N, T, D) to P (N, 2)."""
    return Sequential(
        [
            Input((steps, features)),
            BatchNormalization(momentum=0.9),
            kind(32, dropout=0.5),
            Dense(2, activation="softmax"),
        ]
    )


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--cells", type=int, default=240, help="default: %(default)s")
parser.add_argument("--epochs", type=int, default=15, help="default: %(default)s")
parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
arguments = parser.parse_args()
set_random_seed(arguments.seed)
frames, y = swept_cells(arguments.cells, arguments.seed)
train, test = stratified_split(y, 0.25, seed=arguments.seed)

base = VGG16(weights="imagenet", include_top=False, input_shape=(100, 100, 3), pooling="avg")
base.trainable = False
sweep = Input(frames.shape[1:])
reader = Model(sweep, TimeDistributed(base)(sweep))
F = reader.predict(frames)
print(f"{len(F)} sweeps of {F.shape[1]} frames, {F.shape[2]} features each")

for kind in (LSTM, GRU):
    head = head_of(kind, *F.shape[1:])
    head.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    head.fit(F[train], y[train], epochs=arguments.epochs, verbose=0)
    loss, accuracy = head.evaluate(F[test], y[test], verbose=0)
    print(f"{kind.__name__}: accuracy {accuracy:.3f}, loss {loss:.3f} on {len(test)} other cells")

# From frames to classes, in one model: the same answers.
model = Model(sweep, head(reader(sweep)))
model.summary()
p = model.predict(frames[test[:4]], verbose=0)
print("P(defective) of four cells:", np.round(p[:, 1], 3), "labels:", y[test[:4]])
assert np.allclose(p, head.predict(F[test[:4]], verbose=0), atol=1e-3)
