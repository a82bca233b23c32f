"""Weight files as somebody would make them who wishes ill, or a disk that is failing.

    python -m tests.hostile --files 5000 --seed 1

reads so many, in one process, and reports what it took. Used by `test_hostile.py`.
"""

import argparse
import contextlib
import io
import json
import random
import resource
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np

import minitl
from minitl.storage.keras_files import WeightFileError


def network():
    minitl.utils.clear_session()
    minitl.utils.set_random_seed(0)
    k = minitl.layers
    x = a = minitl.Input((8, 8, 2))
    x = k.BatchNormalization()(k.Conv2D(4, 3)(x))
    inner = minitl.Sequential([minitl.Input((6, 6, 4)), k.Conv2D(4, 3), k.Dense(3)])
    x = k.GlobalAveragePooling2D()(inner(x))
    return minitl.Model(a, k.Dense(5, name="out")(x))


def good_files(folder):
    """One of each form, and the legacy form with every string of variable length."""
    model = network()
    for name in ("weights.h5", "legacy.h5"):
        model.save_weights(folder / name)
    for name in ("model.h5", "model.keras"):
        model.save(folder / name)
    model.save_weights(folder / "vlen.h5")
    with h5py.File(folder / "vlen.h5", "a") as file:
        file.attrs["layer_names"] = [name.decode() for name in file.attrs["layer_names"]]
        for group in file.values():
            names = [name.decode() for name in group.attrs["weight_names"]]
            group.attrs.create("weight_names", names, dtype=h5py.string_dtype())
    # The newest form, in which many members are kept in fractal heaps.
    with (
        h5py.File(folder / "legacy.h5") as old,
        h5py.File(folder / "newest.h5", "w", libver="latest") as new,
    ):
        for name in old:
            old.copy(name, new)
        for name, value in old.attrs.items():
            new.attrs[name] = value
        for i in range(30):
            new.create_group(f"more {i}")
            new.attrs[f"more {i}"] = "text"
    names = ("weights.h5", "legacy.h5", "model.h5", "model.keras", "vlen.h5", "newest.h5")
    return model, [folder / name for name in names]


# --- Ways to spoil one: each takes the bytes and a generator, and gives bytes --------------------


def flips(data, rng):
    """A few bits, half of the time near the beginning, where the structure is."""
    data = bytearray(data)
    reach = len(data) if rng.random() < 0.5 else min(len(data), 4096)
    for _ in range(rng.randint(1, 12)):
        data[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    return bytes(data)


def extremes(data, rng):
    """Fields of 1 to 8 bytes become 0, all ones, or large: lengths, addresses, counts."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, size = rng.randrange(0, len(data) - 8), rng.choice((1, 2, 4, 8))
        value = rng.choice((0, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), rng.getrandbits(8 * size)))
        data[at : at + size] = value.to_bytes(size, "little")
    return bytes(data)


def addresses(data, rng):
    """Some number that looks like an address of this file becomes another such: circles."""
    data = bytearray(data)
    fields = [
        at
        for at in range(0, len(data) - 8, 8)
        if 0 < int.from_bytes(data[at : at + 8], "little") < len(data)
    ]
    known = [data[at : at + 8] for at in fields]
    for _ in range(rng.randint(1, 3)):
        at = rng.choice(fields)
        data[at : at + 8] = rng.choice(known)
    return bytes(data)


def cut(data, rng):
    return data[: rng.randrange(len(data))]


def shuffled(data, rng):
    """A block is written over another."""
    data = bytearray(data)
    size = rng.choice((16, 64, 512))
    a, b = (rng.randrange(max(1, len(data) - size)) for _ in range(2))
    data[a : a + size] = data[b : b + size]
    return bytes(data)


def rewritten(data, rng):
    """Valid HDF5 that leads out, around, or promises what it does not hold."""
    if not data.startswith(b"\x89HDF"):
        return flips(data, rng)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        path.write_bytes(data)
        with h5py.File(path, "a") as file:
            places = []
            file.visititems(lambda n, v: places.append(n) if isinstance(v, h5py.Dataset) else None)
            groups = ["/"]
            file.visititems(lambda n, v: groups.append(n) if isinstance(v, h5py.Group) else None)
            place = rng.choice(places)
            parent, name = place.rpartition("/")[::2]
            group = file[parent or "/"]
            shape, kind = file[place].shape, rng.randrange(10)
            del group[name]
            if kind == 0:
                group[name] = h5py.ExternalLink("/etc/passwd", "/")
            elif kind == 1:
                group[name] = h5py.SoftLink("/" + rng.choice(places))
            elif kind == 2:
                group.create_dataset(name, shape, "f4", external=[("/etc/passwd", 0, 4096)])
            elif kind == 3:
                layout = h5py.VirtualLayout(shape, "f4")
                layout[...] = h5py.VirtualSource("/etc/passwd", "x", shape, "f4")
                group.create_virtual_dataset(name, layout)
            elif kind == 4:
                group.create_dataset(name, (10**9, 10**6), "f4", chunks=(64, 64))
            elif kind == 5:
                group.create_dataset(name, (10 ** rng.randint(6, 15),), "f4")
            elif kind == 6:
                group.create_dataset(name, (1000, 1000, 100), "f4", compression="gzip")
            elif kind == 7:
                group[name] = file[rng.choice(groups)]  # a circle
            elif kind == 8:
                group[name] = ["text"] * 3
            else:
                group.attrs["weight_names"] = ["same", "same"]
        return path.read_bytes()


def lying(data, rng):
    """A description of a model that asks for more than is there, or for nonsense."""
    config = json.loads(network().to_json())
    layer = rng.choice(config["config"]["layers"])["config"]
    key = rng.choice(list(layer) or ["units"])
    layer[key] = rng.choice([10**9, -1, None, [], {"a": 1}, "x" * 1000, 1e308, [10**8, 10**8]])
    if "filters" in layer and rng.random() < 0.5:
        layer["filters"] = 10**9
    text = json.dumps(config)
    if rng.random() < 0.1:
        text = "[" * 100_000
    if data.startswith(b"PK"):
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
            for name in old.namelist():
                new.writestr(name, text if name == "config.json" else old.read(name))
        return out.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        path.write_bytes(data)
        with h5py.File(path, "a") as file:
            file.attrs.create("model_config", text, dtype=h5py.string_dtype())
        return path.read_bytes()


def bomb(data, rng):
    """A zip that inflates to far more than it is."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        name = rng.choice(("model.weights.h5", "config.json"))
        with archive.open(name, "w") as member:
            for _ in range(250):
                member.write(bytes(10**6))
        if name == "config.json":
            archive.writestr("model.weights.h5", data)
    return out.getvalue()


WAYS = (flips, flips, flips, extremes, extremes, addresses, cut, shuffled, rewritten, lying, bomb)


def read(path, model):
    """'read' or 'refused': the weights are asked for, then the whole model. A model is unchanged
    unless it read all."""
    before = [w.copy() for w in model.get_weights()]
    try:
        model.load_weights(path)
    except WeightFileError:
        assert all(map(np.array_equal, model.get_weights(), before)), "the model has changed"
        outcome = "refused"
    else:
        assert all(np.isfinite(w).all() for w in model.get_weights())
        model.set_weights(before)
        outcome = "read"
    with contextlib.suppress(WeightFileError):
        minitl.models.load_model(path)
    return outcome


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    counts, slowest = {}, 0.0
    with tempfile.TemporaryDirectory() as folder:
        model, good = good_files(Path(folder))
        sources = [path.read_bytes() for path in good]
        for path in good:
            assert read(path, model) == "read", path
        path = Path(folder) / "spoiled.h5"
        quiet = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for case in range(options.files):
            way = WAYS[case % len(WAYS)]
            path.write_bytes(way(rng.choice(sources), rng))
            begin = time.perf_counter()
            try:
                outcome = read(path, model)
            except Exception as error:
                keep = Path(tempfile.gettempdir()) / f"hostile-{options.seed}-{case}.h5"
                keep.write_bytes(path.read_bytes())
                error.add_note(f"case {case} ({way.__name__}), kept as {keep}")
                raise
            slowest = max(slowest, time.perf_counter() - begin)
            key = f"{way.__name__}: {outcome}"
            counts[key] = counts.get(key, 0) + 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - quiet) / 1024
    found = {"counts": counts, "slowest": round(slowest, 2), "megabytes": round(grown, 1)}
    print(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
    sys.exit(0)
