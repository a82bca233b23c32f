"""The reader of plain HDF5 against the HDF5 library, on files that h5py writes in many ways."""

import io
import struct

import h5py
import numpy as np
import pytest

from minitl.storage.hdf5_reader import File, Hdf5Error, checksum

DTYPES = ["f2", "f4", "f8", ">f4", ">f8", "i1", "u1", "i2", ">i4", "u8"]


def write(path, rng, **settings):
    """Groups within groups, many members, arrays and attributes of all kinds, deletions."""
    with h5py.File(path, "w", **settings) as file:
        groups = [file]
        for i in range(int(rng.integers(1, 40))):
            group = groups[int(rng.integers(len(groups)))]
            if rng.random() < 0.3:
                groups.append(group.create_group(f"group {i} \u00e4"))
                continue
            shape = tuple(int(n) for n in rng.integers(0, 5, int(rng.integers(0, 4))))
            dtype = DTYPES[int(rng.integers(len(DTYPES)))]
            group[f"array {i}"] = rng.integers(0, 100, shape).astype(dtype)
            if rng.random() < 0.2:
                del group[f"array {i}"]
        for group in groups:
            for i in range(int(rng.integers(0, 7))):
                group.attrs[f"a{i}"] = [
                    "text of any length" * i,
                    [b"fixed", b"strings"],
                    ["any", "", "length", "\u00e9"],
                    np.float32(i),
                    np.arange(i),
                    True,
                    h5py.Empty("f4"),
                ][int(rng.integers(7))]


def compare(mine, theirs):
    assert list(mine.links) == sorted(theirs)
    for name, value in theirs.attrs.items():
        found = mine.attributes[name]
        if isinstance(value, h5py.Empty):
            assert found is None
            continue
        expected = [v.decode() if isinstance(v, bytes) else v for v in np.atleast_1d(value)]
        assert list(found) == expected
    for name, child in theirs.items():
        if isinstance(child, h5py.Group):
            compare(mine[name], child)
        else:
            array = mine[name].read()
            assert array.dtype == child.dtype.newbyteorder("=") and array.flags.writeable
            np.testing.assert_array_equal(array, child[()])


@pytest.mark.parametrize("seed", range(30))
def test_what_h5py_writes(tmp_path, seed):
    rng = np.random.default_rng(seed)
    write(tmp_path / "x.h5", rng)
    with h5py.File(tmp_path / "x.h5") as theirs, open(tmp_path / "x.h5", "rb") as source:
        compare(File(source).root, theirs)


@pytest.mark.parametrize("seed", range(10))
def test_what_h5py_writes_in_the_newest_form(tmp_path, seed):
    """Which will be h5py's default one day: groups of many members are kept in other ways."""
    rng = np.random.default_rng(seed)
    write(tmp_path / "x.h5", rng, libver="latest")
    with h5py.File(tmp_path / "x.h5") as theirs, open(tmp_path / "x.h5", "rb") as source:
        compare(File(source).root, theirs)


@pytest.mark.parametrize("libver", ["earliest", "latest", ("v108", "v108")], ids=str)
@pytest.mark.parametrize("members", [9, 500, 6000])
def test_thousands_of_members_and_of_strings(tmp_path, libver, members):
    """B-trees of several levels; attributes of 60,000 bytes; heaps of several collections."""
    with h5py.File(tmp_path / "x.h5", "w", libver=libver) as file:
        for i in range(members):
            file[f"array {i}"] = np.float32([i])
        for i in range(members // 5):
            file["array 0"].attrs[f"a{i}"] = f"number {i}" * (i % 50)
        file.attrs["fixed"] = np.array([b"x" * 600] * 100)
        file.attrs["any"] = ["y" * i for i in range(2000)]
    with h5py.File(tmp_path / "x.h5") as theirs, open(tmp_path / "x.h5", "rb") as source:
        compare(File(source).root, theirs)


@pytest.mark.parametrize("seed", range(5))
def test_checksums_of_headers(tmp_path, seed):
    """Those of the library fit, and a bit that is flipped in any header does not."""
    rng = np.random.default_rng(seed)
    path = tmp_path / "x.h5"
    write(path, rng, libver="latest")
    with h5py.File(path) as theirs, open(path, "rb") as source:
        compare(File(source, checked=True).root, theirs)
    data = path.read_bytes()
    first = data.index(b"OHDR")
    for at in (*rng.choice(48, 4), *rng.integers(first, first + 30, 4)):
        spoiled = bytearray(data)
        spoiled[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(Hdf5Error):
            File(io.BytesIO(spoiled), checked=True)


def test_checksum():
    """The values that Jenkins's lookup3.c gives for these."""
    assert checksum(b"") == 0xDEADBEEF
    assert checksum(b"Four score and seven years ago") == 0x17770551


def test_files_without_checksums(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.zeros(2)
    with open(tmp_path / "x.h5", "rb") as source, pytest.raises(Hdf5Error, match="checksum"):
        File(source, checked=True)


def test_groups_in_a_circle(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b/c"] = np.zeros(2)
        file["a/b/up"] = file["a"]
    with open(tmp_path / "x.h5", "rb") as source:
        root = File(source).root
        assert root["a/b/up/b/up/b/c"].read().shape == (2,)  # harmless to whoever does not walk
        with pytest.raises(Hdf5Error, match="leads around"):
            root["a" + "/b/up" * 10_000]


def test_strings_that_lie_on_one_place_are_paid_for(tmp_path):
    """2,000 references to one string of 1 MB: 2 GB, if each were read."""
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.attrs["names"] = ["b" * 1_000_000] + ["a" * 30] * 2000
    raw = bytearray(path.read_bytes())
    first = raw.find(struct.pack("<I", 1_000_000))
    while raw[first + 16 : first + 20] != struct.pack("<I", 30):
        first = raw.find(struct.pack("<I", 1_000_000), first + 1)
    for at in range(first, first + 16 * 2001, 16):  # (length, address, number) of each
        raw[at : at + 16] = raw[first : first + 16]
    path.write_bytes(raw)
    with open(path, "rb") as source, pytest.raises(Hdf5Error, match="leads around"):
        File(source).root.attributes  # noqa: B018


@pytest.mark.parametrize("shape", [(0, 2**64 - 5), (0, 2**62, 2**62)])
def test_shapes_that_numpy_refuses(tmp_path, shape):
    path = tmp_path / "x.h5"
    told = (0, *[123_456_789] * (len(shape) - 1))
    with h5py.File(path, "w") as file:
        file.create_dataset("x", told, "f4")
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<Q", told[1]), struct.pack("<Q", shape[1])))
    with open(path, "rb") as source, pytest.raises(Hdf5Error, match="no array has the shape"):
        File(source).root["x"].read()
