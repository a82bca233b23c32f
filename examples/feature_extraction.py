"""Transfer learning, first kind: the pretrained network only looks, a head learns.

VGG16 is run once over photographs of solar cells; what it says about them is F in R^(N x D). On F
the best softmax head P = softmax(W^T F + b) is no matter of luck: its loss is convex, and
`solve_head` goes to the minimum. How strongly to hold W back, l2, is chosen on held-out cells.

    python examples/feature_extraction.py [--images 120]

Needs the extra `demo` for the images.
"""

import argparse

from minitl import extract_features
from minitl.applications.vgg16 import VGG16, preprocess_input
from minitl.data import elpv, resize_images, to_rgb
from minitl.data.splits import stratified_split, stratified_subset
from minitl.judging.evaluation import evaluate_predictions
from minitl.transfer.optimum import head_loss, solve_head

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--images", type=int, default=120, help="default: %(default)s")
arguments = parser.parse_args()

cells, probability, _ = elpv.load_data()
labels = elpv.labels(probability)
chosen = stratified_subset(labels, arguments.images, seed=0)
labels = labels[chosen]
x = preprocess_input(resize_images(to_rgb(cells[chosen]), (96, 96), antialias=True))
rest, test = stratified_split(labels, 0.25, seed=0)
inner, held_out = (rest[part] for part in stratified_split(labels[rest], 0.25, seed=1))

base = VGG16(weights="imagenet", include_top=False, input_shape=(96, 96, 3))
F = extract_features(base, x, layers=["block4_pool", "block5_pool"], pooling="avg")
print(f"F: {F.shape[0]} images, D = {F.shape[1]}")

losses = {}
for l2 in (0.01, 0.1, 1.0, 10.0):
    head = solve_head(F[inner], labels[inner], l2, standardize=True)
    losses[l2] = head_loss(F[held_out], labels[held_out], head.kernel, head.bias)
    print(
        f"l2 = {l2:5}: optimum {head.loss:.6f}, gradient left {head.gradient_norm:.0e} "
        f"after {head.iterations} steps; held-out loss {losses[l2]:.4f}"
    )
best = min(losses, key=lambda l2: losses[l2])
head = solve_head(F[rest], labels[rest], best, standardize=True)
print(f"\nl2 = {best}, trained on all but the test cells:")
print(evaluate_predictions(labels[test], head.predict(F[test]), elpv.CLASS_NAMES[2]))
