"""The main job, written with the spine alone: the files that `minitl/spine.txt` lists.

    python examples/spine.py DATA.npz --out P.npz [--full]

DATA holds x (N, H, W, 3), uint8 RGB, and y (N,), labels from 0. A quarter of the images is held
out. VGG16's ImageNet weights come from minitl's cache folder (`minitl weights fetch vgg16`).

P gets `F` (N, D), `head_loss` and `fine_tune_loss` (one number per epoch), `predictions` (N, m),
and of the images held out `accuracy` and `f1` (the mean over the classes). Every run gives the same
numbers. `--full` does the same with the whole package and its fast kernels: the two agree.
"""

import argparse

import numpy as np

import minitl
from minitl import config
from minitl.applications.vgg16 import VGG16, preprocess_input
from minitl.layers import Dense, Flatten, Input
from minitl.models import Model
from minitl.optimizers import SGD, Adam


def main(data: str, out: str, full: bool) -> None:
    minitl.use_kernels("fast" if full else "reference")
    config.set_random_seed(0)
    with np.load(data) as arrays:
        images, y = arrays["x"], arrays["y"]
    order = np.random.default_rng(0).permutation(len(y))
    test, train = np.split(order, [len(y) // 4])

    # 1. F in R^(N x D), from the frozen base.
    x = preprocess_input(images)
    base = VGG16(weights="imagenet", include_top=False, input_shape=x.shape[1:])
    base.trainable = False
    if full:
        F = minitl.extract_features(base, x, verbose=0)
    else:
        F = base.predict(x, verbose=0).reshape(len(x), -1)
    print(f"F: {F.shape}")

    # 2. The head P = softmax(W^T F + b), by Adam.
    softmax = Dense(int(y.max()) + 1, activation="softmax")
    rows = Input((F.shape[1],))
    head = Model(rows, softmax(rows))
    head.compile(Adam(1e-4), "sparse_categorical_crossentropy")
    settings = {"batch_size": 16, "verbose": 0, "cache_features": full}
    head_loss = head.fit(F[train], y[train], epochs=20, **settings).history["loss"]
    print(f"head: loss {head_loss[0]:.4f} -> {head_loss[-1]:.4f}")

    # 3. The same head on the base; block5 unfrozen, at a smaller rate.
    model = Model(base.inputs[0], softmax(Flatten()(base.outputs[0])))
    for layer in base.layers:
        layer.trainable = layer.name.startswith("block5")
    model.compile(SGD(1e-5, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    fine_tune_loss = model.fit(x[train], y[train], epochs=5, **settings).history["loss"]
    print(f"block5 unfrozen: loss {fine_tune_loss[0]:.4f} -> {fine_tune_loss[-1]:.4f}")

    # 4. What it is worth, on images that it has not seen.
    loss, accuracy = model.evaluate(x[test], y[test], verbose=0)
    predictions = model.predict(x, verbose=0)
    f1 = macro_f1(y[test], predictions[test].argmax(axis=1), predictions.shape[1])
    print(f"held out: loss {loss:.4f}, accuracy {accuracy:.3f}, F1 {f1:.3f}")
    np.savez(
        out,
        F=F,
        head_loss=head_loss,
        fine_tune_loss=fine_tune_loss,
        predictions=predictions,
        accuracy=accuracy,
        f1=f1,
    )


def macro_f1(truth: np.ndarray, guess: np.ndarray, classes: int) -> float:
    """The mean over the classes of F1 = 2 P R / (P + R) = 2 TP / (2 TP + FP + FN); 0 for 0/0."""
    scores = []
    for c in range(classes):
        hits = np.sum((truth == c) & (guess == c))
        scores.append(2 * hits / max(np.sum(truth == c) + np.sum(guess == c), 1))
    return float(np.mean(scores))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", help="an .npz file of x (N, H, W, 3) uint8 RGB and y (N,)")
    parser.add_argument("--out", required=True, help="the .npz file to write")
    parser.add_argument("--full", action="store_true", help="the whole package, fast kernels")
    arguments = parser.parse_args()
    main(arguments.data, arguments.out, arguments.full)
