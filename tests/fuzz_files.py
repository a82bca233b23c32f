"""Files of every format that minitl reads, spoiled at random: no crash, no hang, no bare error.

    python -m tests.fuzz_files --cases 10000 --seed 1
    python -m tests.fuzz_files --seed 1 --only backup --case 17       # that one again

Each file is read in a process that is watched. Allowed is a result, or an error in words: of the
kinds that the format's reader raises, and naming the file. What has checksums (features, backups)
must moreover give what was written, or say that it does not. Not allowed: the process ends, SECONDS
pass, memory grows by more than MEGABYTES beyond the file, or anything else is raised. The file of
such a case is kept, and the command printed that reads it again. `tests/hostile.py` has the ways to
spoil bytes, and looks at Keras's files more closely.
"""

import argparse
import collections
import gzip
import hashlib
import io
import json
import os
import random
import resource
import runpy
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from minitl.applications.onnx import read_initializers
from minitl.cli import main as command
from minitl.data.pictures import read_picture
from minitl.datasets import cifar10, mnist
from minitl.models import load_model
from minitl.storage.keras_files import read_weights
from minitl.storage.state import DamagedState, read_state, write_state
from minitl.transfer.feature_file import FeatureFile, FeatureFileError
from tests import hostile

SECONDS, MEGABYTES = 10, 300
F = np.arange(40, dtype="f4").reshape(10, 4) / 7
DIGESTS = np.arange(160, dtype=np.uint8).reshape(10, 16)
KEY = {"kind": "test", "weights": "0123456789abcdef"}
STATE = {"a": [1, 2.5, None, {"b": (True, "x")}], "w": F, "rng": np.random.default_rng(3)}


CONVERTER = runpy.run_path(str(Path(__file__).parents[1] / "weights" / "convert_pytorch.py"))


class Wrong(AssertionError):
    """Something was believed that is not so."""


# --- Formats: what a good file is, and what reading it must do -----------------------------------


def features(folder):
    with FeatureFile(folder / "good", 4, "f4", KEY, rows=10) as file:
        file.write(0, F, DIGESTS)
    return (folder / "good").read_bytes()


def read_features(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged rows are told so
        with FeatureFile(path, 4, "f4", KEY, rows=10) as file:
            there = file.there.copy()
            if not np.array_equal(np.array(file.mapped())[there], F[there]):
                raise Wrong("rows that are there are not those that were written")
            if not np.array_equal(
                file.images[there].reshape(-1), np.arange(160).reshape(10, 16)[there].reshape(-1)
            ):
                raise Wrong("digests of images are not those that were written")


def backup(folder):
    write_state(folder / "good", STATE)
    return (folder / "good").read_bytes()


def read_backup(path):
    found = read_state(path)
    same = found["a"] == STATE["a"] and np.array_equal(found["w"], F)
    if not same or found["rng"].random() != np.random.default_rng(3).random():
        raise Wrong("the state is not the one that was written")


def read_forged(path):
    """A backup with a digest that fits: any plain value may come of it."""
    read_state(path)
    command(["info", str(path)])


def keras_file(name):
    def good(folder):
        _, paths = hostile.good_files(folder)
        return next(p for p in paths if p.name == name).read_bytes()

    return good


def varint(n):
    return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def onnx(folder):
    tensors = []
    for name in (b"block1_conv1/kernel", b"block1_conv1/bias"):
        dims = b"".join(b"\x08" + varint(n) for n in F.shape)
        tensors.append(field(5, dims + b"\x10\x01" + field(8, name) + field(9, F.tobytes())))
    return b"\x08\x07" + field(7, b"".join(tensors))


def idx(folder):
    return b"\0\0\x08\3" + struct.pack(">III", 5, 28, 28) + bytes(range(196)) * 20


def cifar(folder):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as file:
        for name in cifar10.FILES:
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = 2 * 3073
            file.addfile(info, io.BytesIO(bytes(2 * 3073)))
    return out.getvalue()


def picture(kind):
    def good(folder):
        out = io.BytesIO()
        pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)
        Image.fromarray(pixels).save(out, kind)
        return out.getvalue()

    return good


def read_image(path):
    read_picture(path, (8, 8))


def packed(function):
    return lambda folder: gzip.compress(function(folder), mtime=0)


def state_dict(folder):
    np.savez(folder / "good.npz", **{"features.0.weight": F, "features.0.bias": F[0]})
    return (folder / "good.npz").read_bytes()


def read_state_dict(path):
    """As the program does; only a state dict of no VGG may come of it, or words and 1."""
    if CONVERTER["main"]([str(path), str(path.with_suffix(".h5"))]) not in (0, 1):
        raise Wrong("neither done nor refused")


PICTURES = ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM")
# Name: a good file's bytes, its ending, what reads it, and what that may raise.
FORMATS = {
    "features": (features, ".h5", read_features, (FeatureFileError,)),
    "backup": (backup, ".backup", read_backup, (DamagedState,)),
    "forged": (backup, ".backup", read_forged, (DamagedState,)),
    "model.h5": (keras_file("model.h5"), ".h5", load_model, (ValueError,)),
    "model.keras": (keras_file("model.keras"), ".keras", load_model, (ValueError,)),
    "newest.h5": (keras_file("newest.h5"), ".h5", read_weights, (ValueError,)),
    "vlen.h5": (keras_file("vlen.h5"), ".h5", read_weights, (ValueError,)),
    "weights.h5": (keras_file("weights.h5"), ".h5", read_weights, (ValueError,)),
    "npz": (state_dict, ".npz", read_state_dict, ()),
    "onnx": (onnx, ".onnx", read_initializers, (ValueError,)),
    "idx": (idx, "", mnist.read_idx, (ValueError,)),
    "idx.gz": (packed(idx), ".gz", mnist.read_idx, (ValueError,)),
    "cifar": (cifar, ".tar.gz", cifar10.load_data, (ValueError,)),
    **{
        kind: (picture(kind), "", read_image, (OSError,)) for kind in ("PNG", "JPEG", "GIF", "TIFF")
    },
    **{kind: (picture(kind), "", read_image, (OSError,)) for kind in ("BMP", "WEBP", "PPM")},
}

# --- Ways to spoil -------------------------------------------------------------------------------


def grown(data, rng):
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 8, 1000))) + data[at:]


def zeros(data, rng):
    """As a disk leaves it after a power cut: pages of zeros."""
    at, size = rng.randrange(len(data)), rng.choice((1, 16, 512, 4096))
    return data[:at] + bytes(len(data[at : at + size])) + data[at + size :]


def forge(data, rng):
    """Another header of a backup, and a digest that fits."""
    at = data.index(b"\n") + 1
    size = int.from_bytes(data[at : at + 8], "little")
    header, rest = data[at + 8 : at + 8 + size], data[at + 8 + size : -32]
    if rng.random() < 0.5:
        tree = json.loads(header)
        values = [
            None,
            10**30,
            -1,
            [],
            {"_": "array", "at": 99},
            {"_": "set", "of": [[]]},
            "\x1b[2J",
        ]
        values += [
            {"_": "generator", "state": {"bit_generator": "PCG64"}},
            {"_": "dict", "of": [1]},
        ]
        key = rng.choice(list(tree["tree"]))
        if rng.random() < 0.5:
            tree["tree"][key] = rng.choice(values)
        else:
            shape = [rng.choice((2**62, -1, 0, "x", 10**9))] * rng.choice((1, 2, 40))
            tree["arrays"][0] = [rng.choice(("<f4", "|O", "<U9", "x", ">f8", None)), shape]
        header = json.dumps(tree).encode()
    else:
        header = rng.choice((hostile.flips, hostile.cut, zeros))(header, rng)
    length = len(header) if rng.random() < 0.9 else rng.getrandbits(64)
    body = data[:at] + length.to_bytes(8, "little") + header + rest
    return body + hashlib.sha256(body).digest()


# But `addresses`, which are HDF5's, and those that make whole files.
WAYS = (*hostile.WAYS[:5], *hostile.WAYS[6:8], grown, zeros)


def spoiled(name, data, rng):
    if name == "forged":
        return forge(data, rng)
    ways = [*WAYS, hostile.rewritten, hostile.lying] if name.startswith("model") else WAYS
    if name in ("idx.gz", "cifar") and rng.random() < 0.7:  # inside the packing
        return gzip.compress(rng.choice(ways)(gzip.decompress(data), rng), 1, mtime=0)
    if data.startswith(b"\x89HDF") and rng.random() < 0.2:
        return hostile.addresses(data, rng)
    return rng.choice(ways)(data, rng)


# --- Running -------------------------------------------------------------------------------------


def repeat(name, seed, case):
    return f"python -m tests.fuzz_files --seed {seed} --only {name} --case {case}"


def run(name, seed, cases, note):
    """Spoil and read, in this process; `note` is told which case is next."""
    make, ending, read, allowed = FORMATS[name]
    counts = collections.Counter()

    def too_long(*_):
        raise Wrong(f"it takes more than {SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    with tempfile.TemporaryDirectory() as folder:
        good, path = make(Path(folder)), Path(folder) / f"spoiled{ending}"
        path.write_bytes(good)
        read(path)
        quiet = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for case in cases:
            rng = random.Random(f"{name}/{seed}/{case}")
            data = spoiled(name, good, rng)
            path.write_bytes(data)
            note(case, data)
            signal.alarm(SECONDS)
            try:
                read(path)
                counts["read"] += 1
            except allowed as error:
                if not str(error):
                    raise Wrong("an error without words") from error
                counts["refused"] += 1
            finally:
                signal.alarm(0)
            grown_by = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - quiet) / 1024
            if grown_by > MEGABYTES + len(data) / 1e6:
                raise Wrong(f"it takes {grown_by:.0f} MB")
            for left in path.parent.glob(f".{path.name}*"):
                left.unlink()
    return counts


def worker(options):
    """One format, whose case of the moment is kept where the one who watches finds it."""
    kept = Path(options.kept)

    def note(case, data):
        Path(f"{kept}.case").write_text(str(case))
        kept.write_bytes(data)

    cases = range(options.cases) if options.case is None else [options.case]
    with open(os.devnull, "w") as nowhere:
        out, sys.stdout = sys.stdout, nowhere  # what `minitl info` says
        err = sys.stderr if options.case is not None else nowhere
        try:
            sys.stderr, before = err, sys.stderr
            counts = run(options.only, options.seed, cases, note)
        finally:
            sys.stdout, sys.stderr = out, before
    print(json.dumps(counts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=1000, help="of all formats together")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--only", choices=FORMATS)
    parser.add_argument("--case", type=int)
    parser.add_argument("--kept", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kept:
        return worker(options)
    failed = 0
    for name in [options.only] if options.only else FORMATS:
        kept = Path(tempfile.gettempdir()) / f"minitl-fuzz-{os.getpid()}-{name}"
        share = options.cases if options.only else -(-options.cases // len(FORMATS))
        arguments = ["--seed", str(options.seed), "--only", name, "--kept", str(kept)]
        arguments += (
            ["--cases", str(share)] if options.case is None else ["--case", str(options.case)]
        )
        program = [sys.executable, "-m", "tests.fuzz_files", *arguments]
        done = subprocess.run(program, capture_output=True, text=True)
        if done.returncode:
            failed += 1
            case = Path(f"{kept}.case").read_text() if kept.exists() else "0"
            print(done.stderr[-3000:] or f"the process ended with {done.returncode}")
            print(f"{name}: FAILED at case {case}; the file is {kept}; again:")
            print(f"    {repeat(name, options.seed, case)}")
        else:
            print(f"{name}: {done.stdout.strip()}")
            kept.unlink(missing_ok=True)
            Path(f"{kept}.case").unlink(missing_ok=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
