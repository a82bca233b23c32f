"""Transfer learning, second kind: a part of the pretrained parameters goes on learning.

The new network shares VGG16's parameters: blocks 1 to 4 as they are, block5 as a start. It and
the new head are trained together, at one small rate. What is frozen runs once over every image,
since `fit` keeps what it gives; the proof in the end shows that not a bit of it has moved.

    python examples/parameter_sharing.py [--images 80] [--epochs 4]

Needs the extra `demo` for the images.
"""

import argparse

import numpy as np

from minitl import Model
from minitl.applications.vgg16 import VGG16, preprocess_input
from minitl.data import elpv, resize_images, to_rgb
from minitl.data.splits import stratified_split, stratified_subset
from minitl.layers import Dense, GlobalAveragePooling2D
from minitl.optimizers import Adam
from minitl.transfer.stages import proof_of_freezing
from minitl.utils import set_random_seed, to_categorical

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--images", type=int, default=80, help="default: %(default)s")
parser.add_argument("--epochs", type=int, default=4, help="default: %(default)s")
arguments = parser.parse_args()

set_random_seed(0)
cells, probability, _ = elpv.load_data()
labels = elpv.labels(probability)
chosen = stratified_subset(labels, arguments.images, seed=0)
y = to_categorical(labels[chosen], 2)
x = preprocess_input(resize_images(to_rgb(cells[chosen]), (96, 96), antialias=True))
train, test = stratified_split(labels[chosen], 0.25, seed=0)

vgg16 = VGG16(weights="imagenet", include_top=False, input_shape=(96, 96, 3))
f = GlobalAveragePooling2D()(vgg16.output)
model = Model(vgg16.input, Dense(2, activation="softmax", name="head")(f))

frozen = model.freeze_until("block5")
print(f"frozen: {', '.join(layer.name for layer in frozen if layer.weights)}")
model.compile(Adam(1e-4), "categorical_crossentropy", metrics=["accuracy"])
block5 = vgg16.get_layer("block5_conv3").kernel.numpy()
with proof_of_freezing(model):
    model.fit(
        x[train], y[train], batch_size=16, epochs=arguments.epochs, verbose=2,
        validation_data=(x[test], y[test]),
    )  # fmt: skip
moved = np.abs(vgg16.get_layer("block5_conv3").kernel.numpy() - block5).max()
print(f"block5_conv3 has moved by at most {moved:.1e}")
