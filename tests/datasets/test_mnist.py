"""MNIST's files, in the true format: what is read, and what is refused in which words."""

import gzip
import struct

import numpy as np
import pytest

from minitl.datasets import DataFileError, fashion_mnist, mnist
from minitl.datasets.mnist import read_idx

rng = np.random.default_rng(0)
IMAGES = rng.integers(0, 256, (7, 28, 28), dtype=np.uint8)
LABELS = rng.integers(0, 10, 7, dtype=np.uint8)


def idx(array, code=8):
    """The bytes of an IDX file."""
    header = struct.pack(">BBBB", 0, 0, code, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_set(folder, packed=True, **changed):
    """The four files; `changed` replaces the contents of one."""
    contents = {
        "train-images-idx3-ubyte": idx(IMAGES),
        "train-labels-idx1-ubyte": idx(LABELS),
        "t10k-images-idx3-ubyte": idx(IMAGES[:3]),
        "t10k-labels-idx1-ubyte": idx(LABELS[:3]),
    }
    contents |= {name.replace("_", "-"): data for name, data in changed.items()}
    for name, data in contents.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
    return folder


@pytest.mark.parametrize("module", [mnist, fashion_mnist])
@pytest.mark.parametrize("packed", [True, False])
def test_the_four_files(tmp_path, module, packed):
    (x, y), (x_test, y_test) = module.load_data(write_set(tmp_path, packed))
    assert np.array_equal(x, IMAGES) and np.array_equal(y, LABELS)
    assert np.array_equal(x_test, IMAGES[:3]) and np.array_equal(y_test, LABELS[:3])
    assert x.dtype == y.dtype == np.uint8
    x += 1  # an array of the user's own
    assert len(module.CLASS_NAMES) == 10


def test_names_that_unpackers_write(tmp_path):
    for path in write_set(tmp_path, packed=False).iterdir():
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(mnist.load_data(tmp_path)[0][0]) == 7


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")]
)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0, 28, 28)])
def test_every_type_and_shape(tmp_path, code, dtype, shape):
    array = np.asarray(rng.standard_normal(shape) * 50).astype(dtype)
    (tmp_path / "a").write_bytes(idx(array, code))
    found = read_idx(tmp_path / "a")
    assert found.dtype == np.dtype(dtype) and found.dtype.isnative
    assert np.array_equal(found, array) and found.shape == shape


GOOD = idx(IMAGES)
HUGE = struct.pack(">BBBB4I", 0, 0, 8, 4, 2**32 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1)
BROKEN = {
    "empty": (b"", "is not an IDX file: it begins with b''"),
    "a web page": (b"<html>", "is not an IDX file: it begins with b'<htm'"),
    "wrong type": (b"\0\0\x07\x03" + GOOD[4:], "is not an IDX file"),
    "wrong magic": (b"\x01" + GOOD[1:], "is not an IDX file"),
    "half a header": (GOOD[:10], "ends within its header"),
    "one byte short": (GOOD[:-1], "truncated"),
    "one byte long": (GOOD + b"\0", r"is longer than its shape \(7, 28, 28\) says"),
    "declares too much": (HUGE, "more than the file can hold"),
}


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("what", BROKEN)
def test_broken_files(tmp_path, what, packed):
    data, message = BROKEN[what]
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(DataFileError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_broken_archives(tmp_path):
    path, packed = tmp_path / "images.gz", gzip.compress(GOOD)
    for data, message in (
        (packed[: len(packed) // 2], "is truncated"),
        (packed[:-4], "is truncated"),  # within the checksum's block
        (packed[:60] + bytes(40) + packed[100:], "is damaged"),
        (packed[:-8] + bytes(8), "is damaged .*CRC"),
        (packed[:3], "is truncated"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataFileError, match=message):
            read_idx(path)


def test_a_random_byte_never_crashes(tmp_path):
    """Bit flips: an array of the right kind, or a DataFileError."""
    path = tmp_path / "images"
    for packed in (GOOD, gzip.compress(GOOD[:2000], mtime=0)):
        for _ in range(100):
            data = bytearray(packed)
            data[rng.integers(0, 40)] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(data))
            try:
                read_idx(path)
            except DataFileError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train_labels_idx1_ubyte": idx(LABELS[:5])}, "has 7 images, but .* 5 labels"),
        ({"train_labels_idx1_ubyte": idx(LABELS + 10)}, "expected labels 0 to 9, found 1[0-9]"),
        ({"train_images_idx3_ubyte": idx(IMAGES[:, :20])}, r"found uint8 \(7, 20, 28\)"),
        ({"t10k_labels_idx1_ubyte": idx(IMAGES)}, r"expected uint8 \(N,\), found uint8 \(7, 28"),
    ],
)
def test_files_that_do_not_belong_together(tmp_path, changed, message):
    with pytest.raises(DataFileError, match=message):
        mnist.load_data(write_set(tmp_path, **changed))


def test_missing_files_are_named_with_where_to_get_them(tmp_path):
    (write_set(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError) as caught:
        mnist.load_data(tmp_path)
    text = str(caught.value)
    assert "lacks t10k-labels-idx1-ubyte.gz of MNIST; found t10k-images-idx3-ubyte.gz" in text
    assert (
        "cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz (md5 ec29112dd5afa0611ce80d1b7f02629c)"
        in text
    )
    with pytest.raises(NotADirectoryError, match=r"expected one with train-images-idx3-ubyte.gz"):
        mnist.load_data(tmp_path / "nowhere")
