"""The door through which files come in: regular files, counted before they are taken."""

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import zipfile

import pytest

import minitl
from minitl.applications.onnx import read_initializers
from minitl.datasets import cifar10, mnist
from minitl.datasets.sources import DataFileError
from minitl.storage import door, keras_config
from minitl.storage.atomic import locked, visible
from minitl.storage.keras_files import WeightFileError, read_weights
from minitl.storage.state import DamagedState, read_state
from minitl.transfer.feature_file import FeatureFileError, read_layout

READERS = {
    "weights": read_weights,
    "a model": minitl.models.load_model,
    "a backup": read_state,
    "features": read_layout,
    "IDX": mnist.read_idx,
    "ONNX": read_initializers,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="FIFOs of POSIX")
@pytest.mark.parametrize("kind, what", [("fifo", "is a FIFO"), ("zero", "is a device")])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_regular_file_is_not_read(tmp_path, reader, kind, what):
    path = tmp_path / "x.h5"
    os.mkfifo(path) if kind == "fifo" else path.symlink_to("/dev/zero")
    with pytest.raises((OSError, ValueError), match=what):
        READERS[reader](path)


def test_a_piece_and_the_whole_are_counted(monkeypatch):
    monkeypatch.setattr(door, "PIECE", 10)
    stream = door.Bounded(io.BytesIO(bytes(100)), 25)
    assert len(stream.read(10)) == len(stream.read(10)) == 10
    with pytest.raises(OSError, match="more than 10 bytes"):
        stream.read(11)
    with pytest.raises(OSError, match="more than 10 bytes"):
        stream.read()
    stream = door.Bounded(io.BytesIO(bytes(100)), 25)
    with pytest.raises(OSError, match="far larger than it is"):
        [stream.read(10) for _ in range(3)]


def test_json_of_too_many_parts_or_too_deep():
    assert door.read_json('{"a": [1, "b"]}') == json.loads(b'{"a": [1, "b"]}')
    with pytest.raises(ValueError, match="nested too deeply"):
        door.read_json("[" * 100_000 + "]" * 100_000)
    with pytest.raises(ValueError, match="a description of 3,500,001 parts"):
        door.read_json("[" + "[]," * 3_499_999 + "[]]")


def test_what_is_visible():
    assert visible("a\x1b[2J\nb\x9b\u202eé", keep="\n") == r"a\x1b[2J" + "\n" + r"b\x9b\u202eé"
    out = io.StringIO()
    print("\x07a\r\tb", file=door.Visible(out))
    assert out.getvalue() == "\\x07a\r\tb\n"


# --- What is packed ------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """As if 100 kB were the most that may be unpacked beyond a file's size."""
    for module in (
        "minitl.datasets.sources",
        "minitl.datasets.cifar10",
        "minitl.storage.keras_files",
    ):
        monkeypatch.setattr(f"{module}.SPARE", 100_000)


def test_idx_that_would_unpack_to_too_much(tmp_path, small):
    def packed(images):
        head = b"\0\0\x08\3" + struct.pack(">III", images, 28, 28)
        (tmp_path / "x.gz").write_bytes(gzip.compress(head + bytes(images * 784)))
        return tmp_path / "x.gz"

    assert mnist.read_idx(packed(100)).shape == (100, 28, 28)
    with pytest.raises(DataFileError, match="declares 156,800 bytes"):
        mnist.read_idx(packed(200))


def test_cifar_archives_that_would_unpack_to_too_much(tmp_path, small):
    def archive(*members):
        with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as file:
            for info, data in members:
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
        return tmp_path / "x.tar.gz"

    pax, sparse = tarfile.TarInfo("x"), tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    pax.type = tarfile.XHDTYPE
    for path in (archive((pax, bytes(300_000))), archive((sparse, bytes(3073 * 100)))):
        with pytest.raises(DataFileError, match="far larger than it is"):
            cifar10.load_data(path)
    many = [(tarfile.TarInfo(f"{i}"), b"") for i in range(1500)]
    with pytest.raises(DataFileError, match=r"more than 1000 files|far larger"):
        cifar10.load_data(archive(*many))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_keras_archives_that_would_unpack_to_too_much(tmp_path, small, method):
    with zipfile.ZipFile(tmp_path / "m.keras", "w", method) as file:
        file.writestr("model.weights.h5", bytes(300_000))
    with pytest.raises(WeightFileError, match=r"declares 300,000 bytes|Keras does not use"):
        read_weights(tmp_path / "m.keras")


def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


@pytest.mark.parametrize(
    "tensor, text",
    [
        (field(1, varint(2**63) * 300_000), "more than 32 axes"),
        (field(1, varint(2**64 - 1) + b"\0"), "not a whole ONNX model"),
        (b"\x18\0" * 1_000_001, "more than 1,000,000 fields"),
    ],
    ids=str,
)
def test_onnx_that_would_take_for_ever(tensor, text):
    tensor += b"\x10\x01" + field(8, b"a") + field(9, b"")
    with pytest.raises(ValueError, match=text):
        read_initializers(field(7, field(5, tensor)))


# --- Models --------------------------------------------------------------------------------------


def chain(count, backwards):
    layers = [{"class_name": "InputLayer", "name": "x", "inbound_nodes": []}]
    layers[0]["config"] = {"name": "x", "batch_shape": [None, 4]}
    for i in range(count):
        config = {"name": f"a{i}", "activation": "relu"}
        inbound = [[[f"a{i - 1}" if i else "x", 0, 0, {}]]]
        layers.append({"class_name": "Activation", "name": f"a{i}", "inbound_nodes": inbound})
        layers[-1]["config"] = config
    ends = {"input_layers": [["x", 0, 0]], "output_layers": [[f"a{count - 1}", 0, 0]]}
    return {"name": "m", "layers": layers[::-1] if backwards else layers, **ends}


def test_the_order_of_layers_in_a_file_costs_nothing(monkeypatch):
    looked, inputs = [], keras_config._Call.inputs
    monkeypatch.setattr(keras_config._Call, "inputs", lambda *a: looked.append(a) or inputs(*a))
    for backwards in (False, True):
        model = keras_config.model_from_config(chain(300, backwards))
        assert [layer.name for layer in model.layers] == ["x", *(f"a{i}" for i in range(300))]
    assert len(looked) == 4 * 300


def test_a_model_of_too_many_layers_and_one_whose_inputs_are_missing(monkeypatch):
    described = chain(5, True)
    described["layers"] = [each for each in described["layers"] if each["name"] != "a2"]
    with pytest.raises(ValueError, match="no inputs for the layers a3, a4"):
        keras_config.model_from_config(described)
    monkeypatch.setattr(keras_config, "MOST", 5)
    with pytest.raises(ValueError, match="a model of 6 layers, more than 5"):
        keras_config.model_from_config(chain(5, False))


# --- Locks ---------------------------------------------------------------------------------------

HOLD = """
import sys
from minitl.storage.atomic import locked
with locked("cache/training", busy="another process is at it"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(os.name != "posix", reason="folders that are removed while they are open")
def test_a_lock_that_refuses_and_one_whose_folder_was_removed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cache").mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"held\n"
    with (
        pytest.raises(OSError, match="another process is at it"),
        locked("cache/training", busy="another process is at it"),
    ):
        raise AssertionError
    holder.communicate()
    with pytest.raises(FileNotFoundError, match="of the block"), locked("cache/training"):
        (tmp_path / "cache" / ".training.lock").unlink()
        with locked("cache/training", busy="no"):  # another file by now
            raise FileNotFoundError("of the block")


@pytest.mark.parametrize(
    "reader, error", [(read_state, DamagedState), (read_layout, FeatureFileError)]
)
def test_an_empty_file(tmp_path, reader, error):
    (tmp_path / "x").touch()
    with pytest.raises(error, match=str(tmp_path)):
        reader(tmp_path / "x")
