"""Transfer learning, third kind: fine-tuning, the head first, then blocks from the top.

VGG16 is one layer of the new model. With all of it frozen, the head is trained to convergence;
then block5 is unfrozen at a fraction of the head's rate, then block4 at a fraction of that. What
does not improve on the best validation loss so far is undone.

    python examples/fine_tuning.py [--images 80] [--epochs 3] [--curves curves.png]

Needs the extra `demo` for the images.
"""

import argparse

from minitl import Model
from minitl.applications.vgg16 import VGG16, preprocess_input
from minitl.data import elpv, resize_images, to_rgb
from minitl.data.splits import stratified_split, stratified_subset
from minitl.judging import plots as report
from minitl.layers import BatchNormalization, Dense, GlobalAveragePooling2D, Input
from minitl.optimizers import Adam
from minitl.transfer.stages import fine_tune
from minitl.utils import set_random_seed, to_categorical

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--images", type=int, default=80, help="default: %(default)s")
parser.add_argument("--epochs", type=int, default=3, help="of a stage; default: %(default)s")
parser.add_argument("--curves", help="draw the learning curves into this file")
arguments = parser.parse_args()

set_random_seed(0)
cells, probability, _ = elpv.load_data()
labels = elpv.labels(probability)
chosen = stratified_subset(labels, arguments.images, seed=0)
y = to_categorical(labels[chosen], 2)
x = preprocess_input(resize_images(to_rgb(cells[chosen]), (96, 96), antialias=True))
train, held_out = stratified_split(labels[chosen], 0.25, seed=0)

vgg16 = VGG16(weights="imagenet", include_top=False, input_shape=(96, 96, 3))
images = Input((96, 96, 3))
f = BatchNormalization(name="standardise")(GlobalAveragePooling2D()(vgg16(images)))
model = Model(images, Dense(2, activation="softmax", name="head")(f))
model.compile(Adam(1e-3), "categorical_crossentropy", metrics=["accuracy"])

stages = fine_tune(
    model, (x[train], y[train]), (x[held_out], y[held_out]), stages=["block5", "block4"],
    head_epochs=30, epochs=arguments.epochs, learning_rate=1e-5, batch_size=16, verbose=2,
    prove=True,
)  # fmt: skip
for name, history in stages:
    print(f"{name:18} best held-out loss {min(history.history['val_loss']):.4f}")
loss, accuracy = model.evaluate(x[held_out], y[held_out], verbose=0)
print(f"in the end: held-out loss {loss:.4f}, accuracy {accuracy:.3f}")
if arguments.curves:
    report.learning_curves(stages, arguments.curves)
