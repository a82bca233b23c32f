"""From large JPEG files to F, whole processes: does decoding keep up with the network?

N photographs of 4000 x 3000 pixels, of a generator with seeds, go through VGG16 without top at
224 x 224 and become means (N, 512). Contenders: `minitl extract`; PyTorch with a DataLoader of as
many workers as there are cores, channels last; tf.data and Keras. Each decodes as its users do:
Pillow with `draft` (minitl), Pillow (PyTorch), TensorFlow's decoder. A process is timed from its
start to its end, and they take turns. The bound is what decoding and network cost the cores when
nothing waits: processor seconds of each, alone, shared out over the cores. Peak memory beside it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from benchmarks.common import Options, Report, cores, main
from benchmarks.peers import NEEDS
from minitl.applications import VGG16, weights

COUNT, HEIGHT, WIDTH, SIDE = 120, 3000, 4000, 224

MINITL = """
import sys
from minitl.cli import main
photos, _, _, weights, out = sys.argv[1:]
sys.exit(main(["extract", photos, "-o", out, "--weights", weights]))
"""
TORCH = """
import os, sys, numpy, torch
from pathlib import Path
from PIL import Image
from torch import nn
files, weights = sorted(Path(sys.argv[1]).rglob('*.jpg')), numpy.load(sys.argv[2])
class Files(torch.utils.data.Dataset):
    def __len__(self): return len(files)
    def __getitem__(self, i):
        x = numpy.array(Image.open(files[i]).convert('RGB').resize((224, 224), Image.BILINEAR))
        bgr = x[..., ::-1].astype('float32') - numpy.float32([103.939, 116.779, 123.68])
        return torch.from_numpy(bgr.transpose(2, 0, 1).copy())
layers, channels = [], 3
for block, (width, convs) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
    for i in range(1, convs + 1):
        conv = nn.Conv2d(channels, width, 3, padding=1)
        kernel = weights[f'block{block}_conv{i}/0'].transpose(3, 2, 0, 1)
        conv.weight.data = torch.from_numpy(kernel.copy())
        conv.bias.data = torch.from_numpy(weights[f'block{block}_conv{i}/1'])
        layers += [conv, nn.ReLU()]
        channels = width
    layers.append(nn.MaxPool2d(2))
model = nn.Sequential(*layers).eval().to(memory_format=torch.channels_last)
loader = torch.utils.data.DataLoader(Files(), 16, num_workers=os.cpu_count())
with torch.inference_mode():
    rows = [model(x.to(memory_format=torch.channels_last)).mean((2, 3)).numpy() for x in loader]
numpy.save(sys.argv[3], numpy.concatenate(rows))
"""
KERAS = """
import sys, numpy, tensorflow as tf, keras
weights = numpy.load(sys.argv[2])
base = keras.applications.VGG16(include_top=False, weights=None, pooling='avg')
for layer in base.layers:
    if layer.weights: layer.set_weights([weights[f'{layer.name}/0'], weights[f'{layer.name}/1']])
def read(path):
    x = tf.io.decode_jpeg(tf.io.read_file(path), 3)
    return keras.applications.vgg16.preprocess_input(tf.image.resize(x, (224, 224)))
from pathlib import Path
files = [str(p) for p in sorted(Path(sys.argv[1]).rglob('*.jpg'))]
data = tf.data.Dataset.from_tensor_slices(files).map(read, tf.data.AUTOTUNE).batch(16)
numpy.save(sys.argv[3], base.predict(data.prefetch(tf.data.AUTOTUNE), verbose=0))
"""
DECODING = """
import sys, pathlib
from minitl.data import read_picture
for path in sorted(pathlib.Path(sys.argv[1]).rglob('*.jpg')): read_picture(path, 224)
"""
NETWORK = """
import sys, numpy
from pathlib import Path
from minitl.cli.train import frozen_base
from minitl.transfer.features import extract_features
n = len(list(Path(sys.argv[1]).rglob('*.jpg')))
x = numpy.random.default_rng(0).integers(0, 256, (16, 224, 224, 3)).astype('float32')
base = frozen_base((224, 224), sys.argv[4])
extract_features(base, (x[: min(16, n - i)] for i in range(0, n, 16)), pooling='avg')
"""


def measure(options: Options) -> Report:
    count, rounds = options.pick((COUNT, 3), (2, 1))
    told = {"pictures": count, "pixels": f"{WIDTH} x {HEIGHT}", "rounds": rounds}
    report = Report("from_files", (__doc__ or "").splitlines()[0], told)
    programs = {"minitl": MINITL, "PyTorch": TORCH, "Keras": KERAS}
    for name in ("PyTorch", "Keras"):
        if any(importlib.util.find_spec(package) is None for package in NEEDS[name]):
            report.missing.append(name)
            del programs[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        draw(folder / "photos", count)
        write_weights(folder)
        runs: dict[str, list[Run]] = {name: [] for name in programs}
        features: dict[str, np.ndarray] = {}
        for _ in range(rounds):
            for name, code in programs.items():
                runs[name].append(run(code, folder))
                features[name] = read_features(folder, name)
        for name, f in features.items():  # decoders and resizing differ: nearly the same is asked
            alike = np.corrcoef(f.ravel(), features["minitl"].ravel())[0, 1]
            if not alike > 0.9:
                raise RuntimeError(f"{name}: F has a correlation of {alike:.3f} with minitl's")
        alone = [run(code, folder) for code in (DECODING, NETWORK)]
    for name, found in runs.items():
        report.add("whole process", name, "ms", [1e3 * r.seconds / count for r in found])
        report.add("peak memory", name, "MB", [r.megabytes for r in found])
    least = 1e3 * sum(r.processor for r in alone) / cores() / count
    report.add("whole process", "nothing waits", "ms", [least], "decoding and network, alone")
    report.compare("whole process", "minitl", "PyTorch", goal=0.33)
    report.compare("whole process", "minitl", "Keras", goal=0.4)
    report.compare("whole process", "minitl", "nothing waits", goal=1.2)
    return report


def draw(folder: Path, count: int) -> None:
    """JPEG files with the size and noise of photographs: smooth shapes, and grain."""
    from PIL import Image

    (folder / "all").mkdir(parents=True)
    for i in range(count):
        rng = np.random.default_rng(i)
        coarse = rng.integers(0, 256, (30, 40, 3)).astype(np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), 3)).astype(np.int16)
        smooth += rng.integers(-12, 13, (HEIGHT, WIDTH, 1), dtype=np.int16)
        picture = Image.fromarray(smooth.clip(0, 255).astype(np.uint8))
        picture.save(folder / "all" / f"{i:04d}.jpg", quality=88)


def write_weights(folder: Path) -> None:
    """VGG16's weights without top as w.npz and w.h5: ImageNet's if they are here, else drawn."""
    here = weights.find("vgg16", False)
    model = VGG16(include_top=False, weights=str(here) if here else None)
    arrays: dict[str, Any] = {
        f"{la.name}/{i}": w for la in model.layers for i, w in enumerate(la.get_weights())
    }
    np.savez(folder / "w.npz", **arrays)
    model.save_weights(folder / "w.weights.h5")


def read_features(folder: Path, name: str) -> np.ndarray:
    if name != "minitl":
        return np.load(folder / "F.npy")
    with h5py.File(folder / "F.h5") as file:
        return file["F"][:]


class Run(NamedTuple):
    seconds: float  # from its start to its end
    processor: float  # seconds, of all cores
    megabytes: float  # at its peak


def run(code: str, folder: Path) -> Run:
    """A process of its own, which is told the folder, the weights and where F is to go."""
    (folder / "F.h5").unlink(missing_ok=True)
    names = ("photos", "w.npz", "F.npy", "w.weights.h5", "F.h5")
    command = [sys.executable, "-c", code, *(str(folder / name) for name in names)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    started = time.perf_counter()
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError((folder / "log").read_text(errors="replace")[-2000:])
    return Run(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


if __name__ == "__main__":
    main(measure)
