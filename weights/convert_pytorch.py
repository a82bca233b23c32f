"""A state dict of torchvision's VGG16 or VGG19 -> legacy HDF5, which Keras and minitl read.

    python weights/convert_pytorch.py vgg16-397923af.pth weights.h5

Reads .npz (no PyTorch needed), .safetensors (needs safetensors) and .pth or .pt (needs PyTorch,
which is told to load nothing but weights). Without the `classifier` entries the file is one
without top.

Mind that torchvision's own ImageNet weights are not Keras's: they were trained on RGB divided by
255, minus [0.485, 0.456, 0.406], divided by [0.229, 0.224, 0.225]. Preprocess accordingly.
"""

import argparse
import os
import re
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from minitl.storage.door import SPARE, Bounded, open_regular
from minitl.storage.keras_files import write_weights

# torchvision numbers a convolution and its ReLU, and each pool, in one row: features.0, .2, .5 ...
CONVOLUTIONS = {13: (2, 2, 3, 3, 3), 16: (2, 2, 4, 4, 4)}  # layers in each block
CLASSIFIER = {"classifier.0": "fc1", "classifier.3": "fc2", "classifier.6": "predictions"}


def convert(state: Mapping[str, np.ndarray]) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
    """The inventory of a VGG from torchvision's names and layouts.

    features.N.weight   (F, C, KH, KW) -> block<b>_conv<c>/kernel (KH, KW, C, F)
    classifier.N.weight (m, D)         -> kernel (D, m); for fc1 D runs over C, H, W in PyTorch
                                          and over H, W, C here, so its rows change places

    Raises ValueError when an array is missing, surplus or of another shape than a VGG's.
    """
    matches = (re.fullmatch(r"features\.(\d+)\.weight", key) for key in state)
    numbers = sorted(int(match[1]) for match in matches if match)
    if len(numbers) not in CONVOLUTIONS:
        raise ValueError(
            f"expected 13 (VGG16) or 16 (VGG19) entries 'features.<n>.weight', found {len(numbers)}"
        )
    blocks = CONVOLUTIONS[len(numbers)]
    names = [f"block{b}_conv{c}" for b, count in enumerate(blocks, 1) for c in range(1, count + 1)]
    theirs = {f"features.{n}": name for n, name in zip(numbers, names, strict=True)}
    if any(key.startswith("classifier.") for key in state):
        theirs |= CLASSIFIER
    expected = {f"{key}.{kind}" for key in theirs for kind in ("weight", "bias")}
    if expected != set(state):
        missing, surplus = sorted(expected - set(state)), sorted(set(state) - expected)
        raise ValueError(f"not a plain VGG: missing {missing or 'nothing'}, surplus {surplus}")
    layers = []
    for key, name in theirs.items():
        weight, bias = np.asarray(state[f"{key}.weight"]), np.asarray(state[f"{key}.bias"])
        dimensions = 4 if key.startswith("features") else 2
        if weight.ndim != dimensions or bias.shape != weight.shape[:1]:
            raise ValueError(f"{key}: weight {weight.shape} and bias {bias.shape} do not belong")
        if dimensions == 4:
            kernel = weight.transpose(2, 3, 1, 0)
        elif name == "fc1":
            units, channels = len(weight), np.asarray(state[f"features.{numbers[-1]}.bias"]).size
            side = int((weight.shape[1] // channels) ** 0.5)
            if weight.shape[1] != side * side * channels:
                raise ValueError(f"{key}: {weight.shape[1]} inputs are not {channels} square maps")
            kernel = weight.reshape(units, channels, side, side).transpose(2, 3, 1, 0)
            kernel = kernel.reshape(-1, units)
        else:
            kernel = weight.T
        kernel, bias = (np.ascontiguousarray(a, dtype=np.float32) for a in (kernel, bias))
        layers.append((name, [(f"{name}/kernel", kernel), (f"{name}/bias", bias)]))
    return layers


def read_state(path: str) -> dict[str, np.ndarray]:
    """A state dict as plain arrays. Nothing is unpickled beyond what PyTorch calls safe."""
    ending = Path(path).suffix
    with open_regular(path) as file:
        if zipfile.is_zipfile(file):  # .npz, and .pth of today; a few bytes can be gigabytes
            packed = sum(member.file_size for member in zipfile.ZipFile(Bounded(file)).infolist())
            if packed > os.path.getsize(path) + SPARE:
                raise ValueError(f"{path} would unpack to {packed:,} bytes")
    if ending == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    try:
        if ending == ".safetensors":
            from safetensors.numpy import load_file

            return load_file(path)
        if ending in (".pth", ".pt"):
            import torch

            state = torch.load(path, map_location="cpu", weights_only=True)
            return {name: tensor.detach().numpy() for name, tensor in state.items()}
    except ImportError as error:
        raise ValueError(f"reading {ending} needs the package {error.name}") from error
    raise ValueError(f"{path}: expected .npz, .safetensors, .pth or .pt")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="the state dict")
    parser.add_argument("target", help="the HDF5 file to write")
    arguments = parser.parse_args(argv)
    try:
        layers = convert(read_state(arguments.source))
        write_weights(arguments.target, layers, {"source": Path(arguments.source).name})
    except Exception as error:  # torch and safetensors raise exceptions of their own
        what = str(error) or f"{arguments.source} is damaged ({type(error).__name__})"
        print(f"convert_pytorch: {what}", file=sys.stderr)
        return 1
    top = "with" if layers[-1][0] == "predictions" else "without"
    print(f"{arguments.target}: {len(layers)} layers, {top} top")
    return 0


if __name__ == "__main__":
    sys.exit(main())
