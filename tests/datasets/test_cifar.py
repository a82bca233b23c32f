"""CIFAR's binary files, in the archive and unpacked."""

import io
import tarfile

import numpy as np
import pytest

from minitl.datasets import DataFileError, cifar10, cifar100

rng = np.random.default_rng(0)


def records(images, *labels):
    """The bytes of a file: label bytes, then the planes of red, green and blue."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([*(y[:, None] for y in labels), planes], axis=1).astype("u1").tobytes()


IMAGES = rng.integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
TEN = rng.integers(0, 10, 12)
COARSE, FINE = rng.integers(0, 20, 12), rng.integers(0, 100, 12)
CONTENTS = {
    cifar10: {
        f"cifar-10-batches-bin/{name}": records(IMAGES[2 * i : 2 * i + 2], TEN[2 * i : 2 * i + 2])
        for i, name in enumerate(cifar10.FILES)
    }
    | {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n"},
    cifar100: {
        "cifar-100-binary/train.bin": records(IMAGES[:9], COARSE[:9], FINE[:9]),
        "cifar-100-binary/test.bin": records(IMAGES[9:], COARSE[9:], FINE[9:]),
    },
}
both = pytest.mark.parametrize("module", [cifar10, cifar100], ids=lambda m: m.__name__[-8:])


def pack(path, contents, kind="w:gz"):
    with tarfile.open(path, kind) as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def unpack(folder, contents):
    for name, data in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@both
@pytest.mark.parametrize("where", ["archive", "folder of the archive", "unpacked", "inner folder"])
def test_wherever_the_files_are(tmp_path, module, where):
    contents = CONTENTS[module]
    if "archive" in where:
        path = pack(tmp_path / next(iter(module.SOURCE.files)), contents)
        path = path if where == "archive" else tmp_path
    else:
        path = unpack(tmp_path, contents)
        path = path if where == "unpacked" else tmp_path / next(iter(contents)).split("/")[0]
    (x, y), (x_test, y_test) = module.load_data(path=path)
    cut = 10 if module is cifar10 else 9
    assert np.array_equal(x, IMAGES[:cut]) and np.array_equal(x_test, IMAGES[cut:])
    labels = TEN if module is cifar10 else FINE
    assert y.tolist() == labels[:cut, None].tolist()
    assert y_test.tolist() == labels[cut:, None].tolist()
    assert x.dtype == y.dtype == np.uint8 and x.flags.c_contiguous
    x[0], y[0] = 0, 0  # arrays of the user's own


def test_coarse_labels(tmp_path):
    unpack(tmp_path, CONTENTS[cifar100])
    (_, y), (_, y_test) = cifar100.load_data("coarse", tmp_path)
    assert y.tolist() == COARSE[:9, None].tolist() and y_test.tolist() == COARSE[9:, None].tolist()
    with pytest.raises(ValueError, match="label_mode must be one of 'fine', 'coarse'; got 'both'"):
        cifar100.load_data("both", tmp_path)


def test_class_names():
    assert len(cifar10.CLASS_NAMES) == 10
    for names, count in ((cifar100.CLASS_NAMES, 100), (cifar100.COARSE_NAMES, 20)):
        assert len(set(names)) == count
    assert list(cifar100.CLASS_NAMES) == sorted(cifar100.CLASS_NAMES)


@both
def test_files_that_are_no_records(tmp_path, module):
    name = list(CONTENTS[module])[1]
    good = CONTENTS[module][name]
    for data, message in (
        (good[:-1], "expected a multiple of 3,07[34], the size of a record: it is truncated"),
        (b"", "has 0 bytes; expected a multiple"),
        (b"\xff" * len(good), "expected labels 0 to [0-9]+, found 255"),
    ):
        contents = CONTENTS[module] | {name: data}
        with pytest.raises(DataFileError, match=message):
            module.load_data(path=pack(tmp_path / "a.tar.gz", contents))
        with pytest.raises(DataFileError, match=message):
            module.load_data(path=unpack(tmp_path, contents))


@both
def test_broken_archives(tmp_path, module):
    path = pack(tmp_path / "a.tar.gz", CONTENTS[module])
    whole = path.read_bytes()
    for data, message in (
        (whole[: len(whole) // 2], "is truncated"),
        (whole[:2000] + bytes(100) + whole[2100:], "is damaged"),
        (b"", "is damaged"),
        (b"<html>not found</html>" * 100, "is damaged"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataFileError, match=message):
            module.load_data(path=path)


def test_an_archive_that_declares_too_much(tmp_path):
    """The size is refused before anything is read: the archive holds none of it."""
    member = tarfile.TarInfo("train.bin")
    member.size = 3074 * 10**9
    (tmp_path / "a.tar").write_bytes(member.tobuf() + bytes(1024))
    with pytest.raises(DataFileError, match=r"train.bin in .*a.tar has 3,074,000,000,000 bytes"):
        cifar100.load_data(path=tmp_path / "a.tar")


def test_links_and_paths_in_an_archive_lead_nowhere(tmp_path):
    (tmp_path / "secret.bin").write_bytes(CONTENTS[cifar100]["cifar-100-binary/train.bin"])
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("train.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret.bin")
        archive.addfile(link)
    with pytest.raises(DataFileError, match=r"does not hold train.bin, test.bin"):
        cifar100.load_data(path=path)
    before = sorted(tmp_path.iterdir())
    contents = {f"../../{k}": v for k, v in CONTENTS[cifar100].items()}
    cifar100.load_data(path=pack(path, contents, "w"))
    assert sorted(tmp_path.iterdir()) == before


@both
def test_missing_files_are_named(tmp_path, module):
    (tmp_path / "data_batch_1.bin").write_bytes(b"")
    with pytest.raises(FileNotFoundError) as caught:
        module.load_data(path=tmp_path)
    text = str(caught.value)
    (archive,) = module.SOURCE.files
    assert f"(or {archive})" in text and "found data_batch_1.bin" in text
    assert f"https://www.cs.toronto.edu/~kriz/{archive} (md5 " in text
