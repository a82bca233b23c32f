"""Weight files: what is written is read, what does not fit is told, what is hostile is refused."""

import itertools
import os
import random
import struct
import subprocess
import sys
import tracemalloc
import zipfile

import h5py
import numpy as np
import pytest

from minitl.storage import keras_files as hdf5
from minitl.storage.keras_files import WeightFileError, plan, read_weights, write_weights


def live_keras():
    """Keras, which must be there under CI."""
    if os.environ.get("CI") == "true":
        import keras
    else:
        keras = pytest.importorskip("keras")
    return keras


def inventory(seed=0):
    """Four layers: a convolution, a pool, a nested model with two layers, a dense layer."""
    rng = np.random.default_rng(seed)

    def array(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return [
        ("conv", [("conv/kernel", array(3, 3, 2, 4)), ("conv/bias", array(4))]),
        ("pool", []),
        (
            "head",
            [
                ("head/dense/kernel", array(4, 5)),
                ("head/dense/bias", array(5)),
                ("head/dense_1/kernel", array(5, 5)),
                ("head/dense_1/bias", array(5)),
            ],
        ),
        ("out", [("out/kernel", array(5, 2)), ("out/bias", array(2))]),
    ]


def slots(layers):
    """The same inventory with shapes for arrays."""
    return [(name, [(weight, array.shape) for weight, array in ws]) for name, ws in layers]


def assert_same(found, expected):
    assert [(n, [w for w, _ in ws]) for n, ws in found] == [
        (n, [w for w, _ in ws]) for n, ws in expected
    ]
    for (_, mine), (_, theirs) in zip(found, expected, strict=True):
        for (_, a), (_, b) in zip(mine, theirs, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.h5"
    write_weights(path, inventory())
    return path


# ------------------------------------------------------------------------ reading, writing


def test_round_trip_is_bit_identical_and_keeps_order(tmp_path):
    layers = inventory()[::-1]
    path = tmp_path / "w.h5"
    write_weights(path, layers, {"licence": "CC BY 4.0", "epoch": 7, "config": "x" * 100_000})
    file = read_weights(path)
    assert_same(file.layers, layers)
    assert file.layout == "legacy"
    assert file.attributes["licence"] == "CC BY 4.0" and file.attributes["epoch"] == 7
    assert len(file.attributes["config"]) == 100_000
    assert os.listdir(tmp_path) == ["w.h5"]


def test_the_same_weights_make_the_same_file(tmp_path):
    for name in "ab":
        write_weights(tmp_path / name, inventory(), {"licence": "x"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_names_past_the_limit_of_an_attribute_are_split(tmp_path):
    layers = [(f"layer_{i:04}_{'x' * 60}", [("w", np.float32([i]))]) for i in range(2000)]
    write_weights(tmp_path / "w.h5", layers)
    with h5py.File(tmp_path / "w.h5") as file:
        assert "layer_names" not in file.attrs
        pieces = [file.attrs[f"layer_names{i}"] for i in range(3)]
        assert all(piece.nbytes <= 64512 for piece in pieces)
    assert_same(read_weights(tmp_path / "w.h5").layers, layers)


@pytest.mark.parametrize("strings", ["bytes", "str"])
@pytest.mark.parametrize("nested", [False, True], ids=["root", "model_weights"])
def test_old_official_style(tmp_path, strings, nested):
    """Old names, both kinds of strings, with or without the group `model_weights`."""
    kernel = np.arange(54, dtype=np.float32).reshape(3, 3, 2, 3)
    names = ["block1_conv1_W_1:0", "block1_conv1_b_1:0"]
    with h5py.File(tmp_path / "old.h5", "w") as file:
        root = file.create_group("model_weights") if nested else file
        encode = (lambda s: s.encode()) if strings == "bytes" else str
        root.attrs["layer_names"] = [encode("input_1"), encode("block1_conv1")]
        root.create_group("input_1").attrs["weight_names"] = []
        group = root.create_group("block1_conv1")
        group.attrs["weight_names"] = [encode(n) for n in names]
        group[names[0]], group[names[1]] = kernel, np.zeros(3, ">f4")
    layers = read_weights(tmp_path / "old.h5").layers
    assert [(n, [w for w, _ in ws]) for n, ws in layers] == [
        ("input_1", []),
        ("block1_conv1", names),
    ]
    np.testing.assert_array_equal(layers[1][1][0][1], kernel)
    assert layers[1][1][1][1].dtype == np.dtype("=f4")
    model = [("block1_conv1", [("kernel", (3, 3, 2, 3)), ("bias", (3,))])]
    pairs = plan(layers, model)
    np.testing.assert_array_equal(pairs[0][1], kernel)


def test_weights_of_the_model_itself_are_not_lost(tmp_path, good):
    with h5py.File(good, "a") as file:
        group = file.create_group("top_level_model_weights")
        group.attrs["weight_names"] = [b"scale"]
        group["scale"] = np.float32([2.0])
    assert read_weights(good).layers[-1][0] == "top_level_model_weights"
    with pytest.raises(WeightFileError, match=r"'top_level_model_weights': found .* not in the"):
        plan(read_weights(good).layers, slots(inventory()))


def test_a_failing_write_leaves_the_old_file(tmp_path, good, monkeypatch):
    before = good.read_bytes()
    calls = itertools.count()
    create = h5py.Group.create_dataset

    def fails(self, *args, **kwargs):
        if next(calls) == 3:
            raise OSError("No space left on device")
        return create(self, *args, **kwargs)

    monkeypatch.setattr(h5py.Group, "create_dataset", fails)
    with pytest.raises(OSError, match="No space"):
        write_weights(good, inventory(1))
    assert good.read_bytes() == before
    assert os.listdir(tmp_path) == ["good.h5"]


@pytest.mark.skipif(os.name != "posix", reason="limits of a process")
@pytest.mark.parametrize("name", ["m.h5", "m.keras", "m.weights.h5"])
@pytest.mark.parametrize("room", [0, 100, 3000, 9000, 12000])
def test_a_disk_that_is_full_is_told_and_nothing_crashes(tmp_path, name, room):
    """HDF5's library ends the process with SIGSEGV where it is told that a write has failed."""
    program = """
import resource, sys, minitl
model = minitl.Sequential([minitl.Input((5,)), minitl.layers.Dense(500)])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
try:
    (model.save_weights if "weights" in sys.argv[1] else model.save)(sys.argv[1])
except OSError as error:
    print(error.strerror)
"""
    command = [sys.executable, "-c", program, str(tmp_path / name), str(room)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "File too large\n", "")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_told_at_once(tmp_path):
    bad = [
        ("a", [("kernel", np.float32([1, np.nan])), ("bias", np.float32([np.inf]))]),
        ("b//c", [("kernel", np.array(["text"]))]),
    ]
    with pytest.raises(WeightFileError) as caught:
        write_weights(tmp_path / "w.h5", bad)
    assert len(caught.value.problems) == 4
    assert "a: kernel: expected finite numbers, found 1 of 2" in str(caught.value)
    assert "'b//c' cannot be a name" in str(caught.value)
    with pytest.raises(WeightFileError, match="the same layer twice: 'a'"):
        write_weights(tmp_path / "w.h5", [("a", []), ("a", [])])
    assert not os.listdir(tmp_path)


# -------------------------------------------------------------------------- files that are not


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "it is empty"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"\x80\x02}q", "pickle"),
        (b"\x93NUMPY\x01\x00", "NumPy array"),
        (b"hello world", "begins with b'hello wo'"),
        (b"PK\x03\x04 and no more", "damaged zip archive"),
    ],
)
def test_foreign_file(tmp_path, contents, message):
    path = tmp_path / "w.h5"
    path.write_bytes(contents)
    with pytest.raises(WeightFileError, match=message):
        read_weights(path)


def test_missing_file_and_folder(tmp_path, good):
    with pytest.raises(FileNotFoundError, match=r"no weight file .*goood.h5; is it 'good.h5'\?"):
        read_weights(tmp_path / "goood.h5")
    with pytest.raises(FileNotFoundError, match="nor a folder"):
        read_weights(tmp_path / "nowhere" / "w.h5")
    with pytest.raises(WeightFileError, match="is a folder"):
        read_weights(tmp_path)


def test_zip_without_weights(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(WeightFileError, match=r"without 'model.weights.h5'"):
        read_weights(tmp_path / "x.keras")


def test_zip_bomb(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("model.weights.h5", "w") as member,
    ):
        for _ in range(250):
            member.write(bytes(1_000_000))
    with pytest.raises(WeightFileError, match=r"declares 250,000,000 bytes of model\.weights\.h5"):
        read_weights(tmp_path / "x.keras")


def test_a_bomb_of_a_description(tmp_path):
    """JSON takes 25 times its size when it is read, so 20 MB of it are too many."""
    with zipfile.ZipFile(tmp_path / "x.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", b"")
        archive.writestr("config.json", "[" + "[]," * 6_600_000 + "1]")
    with pytest.raises(WeightFileError, match=r"declares 19,800,003 bytes of config\.json"):
        read_weights(tmp_path / "x.keras")


@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.999])
def test_truncated(good, part):
    data = good.read_bytes()
    good.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(WeightFileError, match=f"truncated: expected {len(data):,} bytes, found"):
        read_weights(good)


def test_hdf5_without_weights(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["measurements"] = np.zeros(3)
    with pytest.raises(WeightFileError, match=r"not one of Keras's weights.*'measurements'"):
        read_weights(tmp_path / "w.h5")


# ------------------------------------------------------------------------------------ hostile


def spoil(path, how):
    """Replace conv/bias by what `how(file, group)` puts in its place."""
    with h5py.File(path, "a") as file:
        group = file["conv/conv"]
        del group["bias"]
        how(file, group)


def external_link(file, group):
    other = file.filename + ".other"
    with h5py.File(other, "w") as target:
        target["secret"] = np.float32([1, 2, 3, 4])
    group["bias"] = h5py.ExternalLink(other, "/secret")


def soft_link(file, group):
    group["bias"] = h5py.SoftLink("/out/out/bias")


def external_data(file, group):
    raw = file.filename + ".raw"
    np.zeros(4, np.float32).tofile(raw)
    group.create_dataset("bias", (4,), np.float32, external=[(raw, 0, 16)])


def virtual(file, group):
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource(file.filename + ".other", "secret", (4,), np.float32)
    group.create_virtual_dataset("bias", layout)


def huge_chunked(file, group):
    group.create_dataset("bias", (10**6, 10**6), np.float32, chunks=(64, 64))


def huge_contiguous(file, group):
    """Nothing is stored until something is written, so the file stays small."""
    group.create_dataset("bias", (10**9,), np.float32)


def compressed(file, group):
    group.create_dataset("bias", data=np.zeros(4, np.float32), compression="gzip")


def strings(file, group):
    group["bias"] = "text"


def a_group(file, group):
    group.create_group("bias")


def missing(file, group):
    pass


def no_values(file, group):
    group["bias"] = h5py.Empty("f4")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (external_link, "link to somewhere else"),
        (soft_link, "link to somewhere else"),
        (external_data, "keeps its values in another file"),
        (virtual, "keeps its values in another file"),
        (huge_chunked, "is kept in chunks"),
        (huge_contiguous, r"declares 4,000,000,000 bytes \(shape \(1000000000,\)\)"),
        (compressed, "h5repack -f NONE"),
        (strings, "expected an array of numbers"),
        (a_group, "is not an array"),
        (missing, "expected 'conv/bias' in /conv, found nothing"),
        (no_values, "has no values"),
    ],
)
def test_hostile_array(good, how, message):
    spoil(good, how)
    with pytest.raises(WeightFileError, match=message):
        read_weights(good)


def test_many_names_for_one_array_take_no_more_memory_than_the_file(good):
    """400 hard links to 1 MB would be 400 MB out of a file of 1 MB."""
    with h5py.File(good, "a") as file:
        group = file["conv"]
        group["big"] = np.zeros(250_000, np.float32)
        for i in range(400):
            group[f"link{i}"] = group["big"]
        group.attrs["weight_names"] = [f"link{i}".encode() for i in range(400)]
    with pytest.raises(WeightFileError, match="/conv/link1 is reached twice"):
        read_weights(good)


def test_layer_that_is_an_external_link(good):
    with h5py.File(good, "a") as file:
        del file["conv"]
        file["conv"] = h5py.ExternalLink(str(good) + ".other", "/conv")
    with pytest.raises(WeightFileError, match="link to somewhere else"):
        read_weights(good)


def test_cyclic_groups_are_harmless_in_the_legacy_layout(good):
    with h5py.File(good, "a") as file:
        file["conv/conv/up"] = file["/"]
        file["conv/self"] = file["conv"]
    assert_same(read_weights(good).layers, inventory())


def test_cyclic_groups_are_refused_where_groups_are_walked(tmp_path):
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        group = file.create_group("layers/dense")
        group.create_group("vars").attrs["name"] = "dense"
        group["again"] = file["layers/dense"]
    with pytest.raises(WeightFileError, match="is reached twice"):
        read_weights(tmp_path / "w.weights.h5")


@pytest.mark.parametrize("names", [3, [1.5], ["conv", "conv"], ["con\udcff"]])
def test_layer_names_that_are_no_names(good, names):
    with h5py.File(good, "a") as file:
        del file.attrs["layer_names"]
        if isinstance(names, list) and "con\udcff" in names:
            names = [b"con\xff"]
        file.attrs["layer_names"] = names
    with pytest.raises(WeightFileError):
        read_weights(good)


def test_attributes_of_other_types_are_left_alone(good):
    """Reading a damaged list of variable length crashes the library; flipped bits make one."""
    with h5py.File(good, "a") as file:
        file.attrs["list"] = np.array([1, 2, 3])
        lists = np.empty(1, object)
        lists[0] = np.int32([1, 2])
        file.attrs.create("vlen", lists, dtype=h5py.vlen_dtype(np.int32))
        file.attrs["nothing"] = h5py.Empty("f4")
        file.attrs["flag"] = True
        file.attrs["half"] = 0.5
    attributes = read_weights(good).attributes
    expected = {"backend": "tensorflow", "keras_version": "3.0.0", "flag": True, "half": 0.5}
    assert attributes == expected
    with h5py.File(good, "a") as file:
        del file["conv"].attrs["weight_names"]
        file["conv"].attrs.create("weight_names", lists, dtype=h5py.vlen_dtype(np.int32))
    with pytest.raises(WeightFileError, match="'weight_names' of /conv: expected strings"):
        read_weights(good)


def heap_of(path):
    """(contents of a file with a string of variable length, where its first heap begins)"""
    with h5py.File(path, "a") as file:
        file.attrs["version"] = "a string of variable length"
    data = bytearray(path.read_bytes())
    return data, data.index(b"GCOL")


def test_a_string_heap_on_which_the_hdf5_library_would_hang(good):
    """A free space of no size; found by flipping bits. The library never gets past it."""
    data, heap = heap_of(good)
    free = heap + 16
    while data[free]:  # objects have an index; free space has index 0
        size = int.from_bytes(data[free + 8 : free + 16], "little")
        free += 16 + -(-size // 8) * 8
    data[free + 8 : free + 16] = bytes(8)
    good.write_bytes(data)
    assert read_weights(good).attributes["version"] == "a string of variable length"


def test_a_string_for_which_the_hdf5_library_would_take_4_gigabytes(good):
    """It takes memory for the length that a reference names before it looks at the string."""
    data, heap = heap_of(good)
    reference = data.index(heap.to_bytes(8, "little")) - 4
    text = int.from_bytes(data[reference : reference + 4], "little")
    assert 0 < text < 40
    for length, at in ((2**32 - 1, heap), (text, len(data) - 8), (text, 0x20), (text, 2**63)):
        data[reference : reference + 12] = length.to_bytes(4, "little") + at.to_bytes(8, "little")
        good.write_bytes(data)
        with pytest.raises(WeightFileError, match=r"damaged|outside|expected GCOL"):
            read_weights(good)


def most_memory(run):
    """The most bytes that Python held at a time while `run` failed with a WeightFileError."""
    tracemalloc.start()
    try:
        with pytest.raises(WeightFileError, match="leads around"):
            run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_thousand_strings_that_lie_on_one_place(tmp_path):
    """Each reference is 16 bytes, and the text that it stands for would be taken anew for each."""
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["b" * 10**6] + ["a" * 30] * 1000
    data = bytearray(path.read_bytes())
    # References: length, address of the heap, number in it. The short ones follow the long one.
    heap = data.index(b"GCOL").to_bytes(8, "little")
    second = data.index((30).to_bytes(4, "little") + heap)
    long = data[second - 16 : second]
    assert long[:4] == (10**6).to_bytes(4, "little")
    data[second : second + 16 * 1000] = long * 1000
    path.write_bytes(data)
    assert most_memory(lambda: read_weights(path)) < 2 * len(data) + 50e6


def test_names_without_an_end(tmp_path):
    """Each name then goes on to the end of the last: 600 names of 5 kB become 1.5 MB each."""
    path = tmp_path / "w.h5"
    with h5py.File(path, "w") as file:
        for i in range(600):
            file.create_group(f"{i:05}" + "n" * 5000)
    data = path.read_bytes().replace(b"n\0\0\0", b"nnnn").replace(b"n\0", b"nn")
    path.write_bytes(data)
    assert most_memory(lambda: read_weights(path)) < 2 * len(data) + 50e6


def test_a_header_of_a_hundred_thousand_messages(tmp_path):
    """A message of nothing has 8 bytes, and would take 150 in Python."""
    count = 100_000
    path, end = tmp_path / "w.h5", 64 + 8 * count
    start = b"\x89HDF\r\n\x1a\n\2\x08\x08\0" + struct.pack("<4QI", 0, 2**64 - 1, end, 48, 0)
    header = struct.pack("<BxHIIxxxx", 1, 0, 1, 8 * count)
    path.write_bytes(start + header + struct.pack("<HHBxxx", 0x0C, 0, 0) * count)
    with pytest.raises(WeightFileError, match="leads around"):
        read_weights(path)


def test_a_header_that_goes_on_for_less_than_nothing(tmp_path):
    """A piece of 1 byte cannot hold its signature and checksum, 8 bytes."""
    more = struct.pack("<BHBQQ", 0x10, 16, 0, 48, 1)
    start = b"\x89HDF\r\n\x1a\n\2\x08\x08\0" + struct.pack("<4QI", 0, 2**64 - 1, 84, 48, 0)
    path = tmp_path / "w.h5"
    path.write_bytes(start + b"OHDR\2\0" + bytes([len(more)]) + more + bytes(20))
    with pytest.raises(WeightFileError, match="points outside itself: to -7 bytes"):
        read_weights(path)


@pytest.mark.parametrize(("axes", "value"), [(1, 2**64 - 5), (2, 2**62)])
def test_empty_arrays_of_a_shape_that_numpy_refuses(good, axes, value):
    spoil(good, lambda file, group: group.create_dataset("bias", (0,) + (123456789,) * axes, "f4"))
    old, new = ((n).to_bytes(8, "little") for n in (123456789, value))
    good.write_bytes(good.read_bytes().replace(old, new))
    with pytest.raises(WeightFileError, match=r"no array has the shape \(0, "):
        read_weights(good)


def test_bit_flips_raise_weight_file_errors_or_give_plain_arrays(good):
    """120 files with one to eight flipped bits, half of them in the structure at the start."""
    data, flipped = good.read_bytes(), good.with_name("flipped.h5")
    rng = random.Random(7)
    refused = 0
    for case in range(120):
        spoiled = bytearray(data)
        reach = len(data) if case % 2 else min(len(data), 4096)
        for _ in range(rng.randint(1, 8)):
            spoiled[rng.randrange(reach)] ^= 1 << rng.randrange(8)
        flipped.write_bytes(spoiled)
        try:
            layers = read_weights(flipped).layers
        except WeightFileError:
            refused += 1
        else:
            assert sum(a.nbytes for _, ws in layers for _, a in ws) <= 2 * len(data)
    assert refused > 20


# ----------------------------------------------------------------------------------- planning


def changed(layers, layer, i, array):
    """A copy of the inventory with one array replaced (None: taken away)."""
    copy = [(name, list(weights)) for name, weights in layers]
    for name, weights in copy:
        if name == layer and array is None:
            del weights[i]
        elif name == layer:
            weights[i] = (weights[i][0], array)
    return copy


def problems(*args, **kwargs):
    with pytest.raises(WeightFileError, match=r"do not fit the model; nothing was changed") as e:
        plan(*args, **kwargs)
    return e.value.problems


def test_plan_pairs_by_layer_name_whatever_the_order():
    layers = inventory()
    pairs = plan(layers[::-1], slots(layers))
    expected = [(a.shape, a) for _, ws in layers for _, a in ws]
    assert len(pairs) == len(expected)
    for (slot, array), (shape, wanted) in zip(pairs, expected, strict=True):
        assert slot == shape
        np.testing.assert_array_equal(array, wanted)


def test_plan_matches_inside_a_layer_by_position_when_names_differ():
    layers = inventory()
    model = [("conv", [("W", (3, 3, 2, 4)), ("b", (4,))])]
    pairs = plan(layers[:2], model)
    np.testing.assert_array_equal(pairs[0][1], layers[0][1][0][1])


def test_plan_sorts_a_nested_model_by_owner():
    """Keras moves a frozen inner layer's weights behind the others; equal shapes hide the swap."""
    layers = inventory()
    head = layers[2][1]
    frozen_first = [("head", [head[2], head[3], head[0], head[1]])]
    same_shapes = [(n, a) for n, a in frozen_first[0][1]]
    model = [("head", [(name, array.shape) for name, array in head])]
    for file_layers in ([("head", head)], [("head", same_shapes)]):
        pairs = dict(zip(["k", "b", "k1", "b1"], plan(file_layers, model), strict=True))
        np.testing.assert_array_equal(pairs["b"][1], head[1][1])
        np.testing.assert_array_equal(pairs["b1"][1], head[3][1])


def test_plan_tells_everything_in_one_error():
    layers = inventory()
    layers = changed(layers, "conv", 0, layers[0][1][0][1].transpose(3, 2, 0, 1))
    layers = changed(layers, "conv", 1, np.arange(4))
    layers = changed(layers, "out", 0, np.full((5, 2), np.nan, np.float32))
    layers = changed(layers, "head", 3, None)
    layers.append(("surplus", [("surplus/kernel", np.zeros((2, 2), np.float32))]))
    model = [*slots(inventory()), ("missing", [("missing/kernel", (2, 2))])]
    text = "\n".join(found := problems(layers, model, source="x.h5"))
    assert len(found) == 6
    assert "layer 'missing': expected in the file ((2, 2)), found nothing" in text
    assert "layer 'surplus': found in the file ((2, 2)), not in the model" in text
    assert "conv: conv/kernel: expected shape (3, 3, 2, 4), found (4, 2, 3, 3) (OIHW" in text
    assert "conv: conv/bias: expected floating-point numbers, found int64" in text
    assert "out: out/kernel: expected finite numbers, found 10 of 10 that are not" in text
    assert "layer 'head': expected 4 weights (head/dense/kernel (4, 5)" in text


@pytest.mark.parametrize(
    ("expected", "found", "cause"),
    [
        ((8, 3), (3, 8), "transposed, as PyTorch keeps dense kernels"),
        ((8, 3), (9, 3), "another input_shape"),
        ((8, 3), (8, 10), "units or classes"),
        ((3, 3, 1, 8), (3, 3, 3, 8), "the input has 1 channels here, 3 in the file"),
        ((3, 3, 2, 8), (8, 2, 3, 3), "OIHW"),
    ],
)
def test_plan_names_the_likely_cause_of_a_shape(expected, found, cause):
    [problem] = problems([("a", [("w", np.zeros(found, "f4"))])], [("a", [("w", expected)])])
    assert f"expected shape {expected}, found {found}" in problem and cause in problem


def test_plan_does_not_broadcast():
    [problem] = problems([("a", [("w", np.zeros((1,), "f4"))])], [("a", [("w", (64,))])])
    assert problem == "a: w: expected shape (64,), found (1,)"


def test_plan_names_include_top():
    conv = ("block5_conv3", [("w", np.zeros((3, 3, 2, 2), "f4"))])
    top = [(name, [("w", np.zeros((2, 2), "f4"))]) for name in ("fc1", "fc2", "predictions")]
    found = problems([conv, *top], slots([conv]))
    assert "include_top=False" in found[-1]
    assert "pass by_name=True" in found[-1]
    assert len(plan([conv, *top], slots([conv]), by_name=True)) == 1
    found = problems([conv], slots([conv, *top]))
    assert "the file has no classifier on top" in found[-1]
    assert len(plan([conv], slots([conv, *top]), by_name=True)) == 1


def test_plan_near_misses_and_rename():
    layers = inventory()
    layers[0] = ("conv_1", layers[0][1])
    text = "\n".join(problems(layers, slots(inventory())))
    assert "found nothing; is it 'conv_1'?" in text
    assert len(plan(layers, slots(inventory()), rename={"conv_1": "conv"})) == 8


def test_plan_by_name_as_in_keras():
    layers = inventory()
    model = [*slots(layers[:1]), ("new", [("kernel", (7, 7))])]
    assert [slot for slot, _ in plan(layers, model, by_name=True)] == [(3, 3, 2, 4), (4,)]
    [problem] = problems(layers, [("new", [("kernel", (7, 7))])], by_name=True)
    assert problem == "not one layer of the file is in the model"
    problems(changed(layers, "conv", 1, np.zeros(9, "f4")), model, by_name=True)


def test_plan_converts_to_the_dtype_of_the_slot_and_sees_overflow():
    slot = np.zeros(2, np.float32)
    [(same, array)] = plan([("a", [("w", np.array([1.0, 2.0]))])], [("a", [("w", slot)])])
    assert same is slot and array.dtype == np.float32
    [problem] = problems([("a", [("w", np.array([1.0, 1e300]))])], [("a", [("w", slot)])])
    assert "found 1 of 2 that are not (the first, inf, at (1,))" in problem


# --------------------------------------------------------------------------- live with Keras


@pytest.fixture(scope="module")
def keras_model():
    """Layers of every kind that stores weights in its own way; random weights, odd names."""
    keras = live_keras()
    keras.utils.set_random_seed(3)
    layers = keras.layers
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="z_conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(4, 3)(x)
    x = layers.Reshape((4, 4))(x)
    x = layers.LSTM(5, name="lstm")(x)
    x = layers.Dropout(0.5)(x)
    inner = keras.Sequential(
        [keras.Input((5,)), layers.Dense(5), layers.BatchNormalization(), layers.Dense(5)],
        name="head",
    )
    model = keras.Model(inputs, layers.Dense(2, name="a_out")(inner(x)))
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_normal(w.shape).astype("f4") for w in model.get_weights()])
    return model


def keras_slots(model):
    """The inventory that minitl would have of a Keras model: names and variables, in order."""
    return [
        (layer.name, [(v.path, np.asarray(v)) for v in layer.weights]) for layer in model.layers
    ]


@pytest.mark.keras
@pytest.mark.parametrize("ending", [".h5", ".weights.h5", ".keras", "weights-in-.h5"])
@pytest.mark.parametrize("frozen", [False, True], ids=["", "frozen"])
def test_what_keras_writes_is_read(tmp_path, keras_model, ending, frozen):
    path = tmp_path / f"w{ending}"
    inner = keras_model.get_layer("head")
    keras_model.get_layer("z_conv").trainable = inner.layers[0].trainable = not frozen
    try:
        if ending == ".weights.h5":
            keras_model.save_weights(path)
        elif ending == "weights-in-.h5":
            from keras.src.legacy.saving import legacy_h5_format

            with h5py.File(path, "w") as file:
                legacy_h5_format.save_weights_to_hdf5_group(file, keras_model)
        else:
            keras_model.save(path)
    finally:
        keras_model.get_layer("z_conv").trainable = inner.layers[0].trainable = True
    file = read_weights(path)
    model = keras_slots(keras_model)
    pairs = plan(file.layers, model)
    assert len(pairs) == len(keras_model.get_weights())
    for slot, array in pairs:
        np.testing.assert_array_equal(array, slot)
    # Layers with weights come in the model's order, so the file can be written for Keras.
    order = [name for name, weights in file.layers if weights]
    assert order == [name for name, weights in model if weights]


@pytest.mark.keras
def test_what_minitl_writes_keras_loads(tmp_path, keras_model):
    keras = live_keras()
    rng = np.random.default_rng(1)
    model = keras.models.clone_model(keras_model)
    layers = [
        (layer, [(n, rng.standard_normal(a.shape).astype("f4")) for n, a in weights])
        for layer, weights in keras_slots(model)
    ]
    # Keras's legacy order is trainable first, then the rest, within the nested model.
    inner = model.get_layer("head")
    order = [v.path for v in inner.trainable_weights + inner.non_trainable_weights]
    layers = [
        (n, sorted(ws, key=lambda w: order.index(w[0])) if n == "head" else ws) for n, ws in layers
    ]
    write_weights(tmp_path / "w.h5", layers)
    model.load_weights(tmp_path / "w.h5")
    expected = {name: array for _, weights in layers for name, array in weights}
    for variable in model.weights:
        np.testing.assert_array_equal(np.asarray(variable), expected[variable.path])


@pytest.mark.keras
def test_keras_vgg16_and_minitl_read_one_file(tmp_path):
    """`keras.applications.VGG16(weights=<our file>)`, with random weights of the right shapes."""
    keras = live_keras()
    rng = np.random.default_rng(2)
    layers = []
    sizes = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), *[(256, 256)] * 2]
    sizes += [(256, 512), *[(512, 512)] * 5]
    names = [f"block{b}_conv{c}" for b, n in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, n + 1)]
    for name, (c, f) in zip(names, sizes, strict=True):
        kernel = rng.standard_normal((3, 3, c, f), dtype=np.float32)
        bias = rng.standard_normal(f, dtype=np.float32)
        layers.append((name, [(f"{name}/kernel", kernel), (f"{name}/bias", bias)]))
    write_weights(tmp_path / "w.h5", layers)
    model = keras.applications.VGG16(weights=str(tmp_path / "w.h5"), include_top=False)
    arrays = [array for _, weights in layers for _, array in weights]
    for ours, theirs in zip(arrays, model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.keras
def test_keras_reads_split_names(tmp_path):
    keras = live_keras()
    names = [f"layer_{i:04}_{'x' * 250}" for i in range(300)]
    layers = [(n, [(f"{n}/kernel", np.full((1, 1), i, "f4"))]) for i, n in enumerate(names)]
    write_weights(tmp_path / "w.h5", layers)
    dense = [keras.layers.Dense(1, use_bias=False, name=name) for name in names]
    model = keras.Sequential([keras.Input((1,)), *dense])
    model.load_weights(tmp_path / "w.h5")
    assert [float(w[0, 0]) for w in model.get_weights()] == list(range(300))


def test_module_needs_h5py_only_when_used():
    assert "h5py" not in vars(hdf5)
