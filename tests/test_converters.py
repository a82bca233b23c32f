"""The scripts in weights/: small files in, Keras's layout out; and what they refuse."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minitl.storage.keras_files import read_weights, write_weights
from tests.applications.test_onnx import model, tensor
from tests.storage.test_keras_files import assert_same, inventory

FOLDER = Path(__file__).parent.parent / "weights"


def run(script, *arguments):
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def torch_state(top=True, width=2, side=2, units=5):
    """A VGG16 of torchvision's names with few channels, and its activations' sizes."""
    rng = np.random.default_rng(0)
    state, channels = {}, 3
    for n in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28):
        state[f"features.{n}.weight"] = rng.standard_normal((width, channels, 3, 3))
        state[f"features.{n}.bias"] = rng.standard_normal(width)
        channels = width
    for n, d in ((0, width * side * side), (3, units), (6, units)) if top else ():
        state[f"classifier.{n}.weight"] = rng.standard_normal((units, d))
        state[f"classifier.{n}.bias"] = rng.standard_normal(units)
    return {name: array.astype("f4") for name, array in state.items()}


@pytest.mark.parametrize("script", ["convert_keras.py", "convert_onnx.py", "convert_pytorch.py"])
def test_help_and_errors(script, tmp_path):
    done = run(script, "--help")
    assert done.returncode == 0 and f"weights/{script}" in done.stdout
    done = run(script, tmp_path / "nix", tmp_path / "out.h5")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith(script[:-3])
    assert not (tmp_path / "out.h5").exists()


def test_keras(tmp_path):
    write_weights(tmp_path / "in.h5", inventory())
    done = run("convert_keras.py", tmp_path / "in.h5", tmp_path / "out.h5")
    assert done.returncode == 0 and "8 arrays, from the legacy layout" in done.stdout
    assert_same(read_weights(tmp_path / "out.h5").layers, inventory())


def test_onnx(tmp_path):
    kernel, bias = np.arange(54, dtype="f4").reshape(3, 2, 3, 3), np.arange(3, dtype="f4")
    data = model(tensor("a/block1_conv1/b", bias), tensor("a/block1_conv1/k", kernel))
    (tmp_path / "in.onnx").write_bytes(data)
    done = run("convert_onnx.py", tmp_path / "in.onnx", tmp_path / "out.h5")
    assert done.returncode == 0
    assert "1 layers, other weights than the published VGG16" in done.stdout
    [(name, weights)] = read_weights(tmp_path / "out.h5").layers
    assert name == "block1_conv1"
    np.testing.assert_array_equal(weights[0][1], kernel.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(weights[1][1], bias)


def test_pytorch_npz(tmp_path):
    state = torch_state()
    np.savez(tmp_path / "in.npz", **state)
    done = run("convert_pytorch.py", tmp_path / "in.npz", tmp_path / "out.h5")
    assert done.returncode == 0 and "16 layers, with top" in done.stdout, done.stderr
    layers = dict(read_weights(tmp_path / "out.h5").layers)
    names = "block1_conv1 block1_conv2 block2_conv1 block2_conv2 block3_conv1 block3_conv2"
    assert list(layers)[:6] == names.split()
    assert list(layers)[-3:] == ["fc1", "fc2", "predictions"]
    expected = state["features.28.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(layers["block5_conv3"][0][1], expected)
    np.testing.assert_array_equal(layers["predictions"][0][1], state["classifier.6.weight"].T)
    # The flattened maps run over C, H, W in PyTorch and over H, W, C here: same product.
    maps = np.random.default_rng(1).standard_normal((2, 2, 2)).astype("f4")  # C H W
    theirs = state["classifier.0.weight"] @ maps.ravel()
    ours = maps.transpose(1, 2, 0).ravel() @ layers["fc1"][0][1]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_pytorch_without_top_and_other_networks(tmp_path):
    np.savez(tmp_path / "in.npz", **torch_state(top=False))
    done = run("convert_pytorch.py", tmp_path / "in.npz", tmp_path / "out.h5")
    assert "13 layers, without top" in done.stdout
    state = torch_state(top=False)
    for change, message in (
        (lambda s: s.pop("features.0.bias"), "missing ['features.0.bias'], surplus []"),
        (lambda s: s.update({"features.1.running_mean": np.zeros(2)}), "surplus ['features.1.run"),
        (lambda s: s.pop("features.0.weight"), "found 12"),
        (lambda s: s.update({"features.0.bias": np.zeros(9)}), "bias (9,) do not belong"),
    ):
        changed = dict(state)
        change(changed)
        np.savez(tmp_path / "bad.npz", **changed)
        done = run("convert_pytorch.py", tmp_path / "bad.npz", tmp_path / "bad.h5")
        assert done.returncode == 1 and message in done.stderr
    assert not (tmp_path / "bad.h5").exists()


def test_pytorch_pth_is_read_and_pickles_are_not_run(tmp_path):
    torch = pytest.importorskip("torch")
    state = torch_state(top=False)
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    torch.save(tensors, tmp_path / "in.pth")
    done = run("convert_pytorch.py", tmp_path / "in.pth", tmp_path / "out.h5")
    assert done.returncode == 0, done.stderr
    layers = read_weights(tmp_path / "out.h5").layers
    np.testing.assert_array_equal(layers[0][1][1][1], state["features.0.bias"])

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "touched",)

    torch.save({"features.0.weight": Evil()}, tmp_path / "evil.pth")
    done = run("convert_pytorch.py", tmp_path / "evil.pth", tmp_path / "evil.h5")
    assert done.returncode == 1 and not (tmp_path / "touched").exists()
