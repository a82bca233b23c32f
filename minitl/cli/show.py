"""`minitl show`: pictures of what a network computes, drawn by `judging/sheets.py`.

Each kind takes what it needs of the options and says so where something is missing. Without a
picture, those that want one take a photograph that scikit-learn ships.
"""

import argparse
from typing import Any

import numpy as np

from minitl import data
from minitl.applications.vgg16 import VGG16, preprocess_input
from minitl.cli.folders import check_output
from minitl.cli.options import add_command, flag, option, size
from minitl.cli.trained import PREPARE, trained_model
from minitl.data.images import resize_images
from minitl.data.pictures import read_picture
from minitl.judging import diagrams, sheets
from minitl.models import Model
from minitl.transfer.features import extract_features
from minitl.transfer.solved import with_features

MAPS = "block1_conv2,block2_conv2,block3_conv3,block4_conv3,block5_conv3"


def add_to(commands: Any) -> None:
    parser = add_command(commands, show)
    parser.add_argument("kind", choices=list(KINDS), help="what to draw")
    what = "pictures; for features and loss a folder with one sub-folder per class"
    parser.add_argument("paths", nargs="*", metavar="PATH", help=what)
    option(parser, "--output", "FILE", "the picture: .png, .svg or .pdf", "shown.png")
    option(parser, "--model", "FILE", "a model of `minitl train`, where not VGG16 is meant")
    option(parser, "--size", "HxW", "to which pictures are scaled", "224", type=size)
    option(parser, "--layer", "NAMES", "whose filters, maps or features, by commas")
    option(parser, "--weights", "FILE", "of VGG16: a file, 'imagenet', 'none'", "imagenet")
    flag(parser, "--text", "of a graph: print it as Mermaid, draw nothing")


def show(arguments: argparse.Namespace) -> None:
    """Draw what a network computes: filters, maps, graph, gradcam, features, loss, tile.

    filters   of a convolution of VGG16 (block1_conv1)
    maps      of one picture, the brightest ones of some layers
    graph     the calls of a model's layers, and where its gradients stop
    gradcam   where a --model looked in pictures
    features  F of a folder of pictures in the plane in which it varies most; with --model, also
              that model's, which was fine-tuned
    loss      of a softmax head on F of a folder: its surface, and the paths of SGD and Adam
    tile      one tile of Winograd's convolution, in the middle of a picture

    example: minitl show maps photo.jpg --output maps.png
    """
    if not arguments.text:
        check_output(arguments.output, (".png", ".svg", ".pdf"))
    KINDS[arguments.kind](arguments)
    if not (arguments.text and arguments.kind == "graph"):
        print(f"{arguments.kind}: {arguments.output}")


def network(arguments: argparse.Namespace) -> Model:
    """VGG16 without top, as the options say."""
    weights = None if arguments.weights == "none" else arguments.weights
    return VGG16(weights=weights, include_top=False, input_shape=(*arguments.size, 3))


def photographs(arguments: argparse.Namespace, shape: Any = None) -> np.ndarray:
    """The pictures (N, H, W, 3), 0-255: those given, or the one that scikit-learn ships."""
    if arguments.paths:
        return np.stack([read_picture(path, shape or arguments.size) for path in arguments.paths])
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        text = "name a picture; the one that is taken without needs scikit-learn"
        raise ImportError(f"{text}: pip install 'minitl[sklearn]'") from error
    first = load_sample_images().images[0][np.newaxis, :, 100:527]
    return resize_images(first, shape or arguments.size)


def filters(arguments: argparse.Namespace) -> None:
    layer = network(arguments).get_layer(arguments.layer or "block1_conv1")
    sheets.filter_sheet(layer, arguments.output)


def maps(arguments: argparse.Namespace) -> None:
    x = preprocess_input(photographs(arguments))[0]
    names = (arguments.layer or MAPS).split(",")
    sheets.map_sheet(network(arguments), x, names, arguments.output)


def graph(arguments: argparse.Namespace) -> None:
    model = trained_model(arguments.model)[0] if arguments.model else network(arguments)
    diagram = diagrams.call_diagram(model)
    if arguments.text:
        print(diagram.mermaid())
    else:
        diagram.draw(arguments.output)


def gradcam(arguments: argparse.Namespace) -> None:
    if not (arguments.model and arguments.paths):
        raise ValueError("gradcam needs --model FILE, of `minitl train`, and pictures")
    model, about = trained_model(arguments.model)
    seen = photographs(arguments, about["size"])
    x = PREPARE[about["preprocessing"]](seen)
    sheets.heat_sheet(model, x, seen, path=arguments.output)


def rows(arguments: argparse.Namespace, model: Model | None = None) -> Any:
    """F and the labels of a folder of pictures, and the names of its classes."""
    if len(arguments.paths) != 1:
        raise ValueError(f"{arguments.kind} needs one folder with a sub-folder per class")
    pictures = data.open_folder(arguments.paths[0], size=arguments.size)
    model = model or network(arguments)
    layers = arguments.layer and arguments.layer.split(",")
    how: Any = {"pooling": "avg"} if len(model.output_shape) == 4 or layers else {}
    f = extract_features(model, pictures, layers, preprocess=preprocess_input, **how)
    labels = np.asarray(pictures.labels)[pictures.readable()]
    return f, labels, pictures.class_names


def features(arguments: argparse.Namespace) -> None:
    f, labels, names = rows(arguments)
    panels = {"VGG16, as published": f}
    if arguments.model:
        trained, about = trained_model(arguments.model)
        arguments.size, arguments.layer = about["size"], None
        inner = with_features(trained)
        panels["fine-tuned"] = rows(arguments, Model(inner.inputs, inner.outputs[0]))[0]
    sheets.feature_plane(panels, labels, names, arguments.output)


def loss(arguments: argparse.Namespace) -> None:
    f, labels, _ = rows(arguments)
    sheets.loss_surface((f - f.mean(axis=0)) / (f.std() or 1), labels, path=arguments.output)


def tile(arguments: argparse.Namespace) -> None:
    gray = photographs(arguments)[0].mean(axis=-1)
    top, left = (n // 2 - 3 for n in gray.shape)
    kernel = network(arguments).layers[1].weights[0].data[:, :, 1, 0]
    sheets.tile_picture(gray[top : top + 6, left : left + 6], kernel, arguments.output)


KINDS = {
    "filters": filters,
    "maps": maps,
    "graph": graph,
    "gradcam": gradcam,
    "features": features,
    "loss": loss,
    "tile": tile,
}
