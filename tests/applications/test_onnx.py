"""The ONNX reader, on files made byte by byte here, and on damaged ones."""

import random

import numpy as np
import pytest

from minitl.applications.onnx import read_initializers


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number, value):
    """One protobuf field: an integer as a varint, bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name, array, kind=1, raw=True, packed=False):
    dims = list(array.shape)
    shape = field(1, b"".join(map(varint, dims))) if packed else b"".join(field(1, d) for d in dims)
    data = field(9 if raw else 4, array.tobytes())
    # Fields may come in any order; the real files have the name behind the data type.
    return field(5, shape + field(2, kind) + field(8, name.encode()) + data)


def model(*tensors):
    graph = field(1, b"a node") + b"".join(tensors) + field(2, b"graph")
    odd_ends = varint(60 << 3 | 5) + b"four" + varint(61 << 3 | 1) + b"eight..."
    return field(1, 7) + odd_ends + field(7, graph) + field(8, b"")


def test_reads_every_way_of_keeping_an_array(tmp_path):
    kernel = np.arange(54, dtype="<f4").reshape(3, 2, 3, 3)
    data = model(
        tensor("raw", kernel),
        tensor("floats", kernel, raw=False, packed=True),
        tensor("half", kernel.astype("<f2"), kind=10),
        tensor("double", kernel.astype("<f8"), kind=11),
        tensor("integers", np.arange(3), kind=7),
        tensor("scalar", np.float32(5)),
    )
    (tmp_path / "m.onnx").write_bytes(data)
    for source in (data, tmp_path / "m.onnx"):
        arrays = read_initializers(source)
        assert list(arrays) == ["raw", "floats", "half", "double", "scalar"]
        for name in ("raw", "floats", "half", "double"):
            np.testing.assert_array_equal(arrays[name], kernel)
        assert arrays["scalar"] == 5 and arrays["scalar"].shape == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "found no weights"),
        (model(), "found no weights"),
        (b"hello, world", "not a whole ONNX model"),
        (b"\x89HDF\r\n\x1a\n", "not a whole ONNX model"),
        (model(field(5, field(1, 2**40) + field(2, 1))), "expected 4,398,046,511,104 bytes"),
        (model(field(5, field(2, 1) + field(8, b"w") + field(14, 1))), "w is kept in another file"),
        (b"\xff" * 20, "an integer of more than ten bytes"),
        (varint(7 << 3 | 2) + varint(2**60) + b"x", "1,152,921,504,606,846,976 bytes where 1"),
    ],
)
def test_what_is_no_model(data, message):
    with pytest.raises(ValueError, match=message):
        read_initializers(data)


def test_every_truncation_is_an_error():
    data = model(tensor("w", np.arange(6, dtype="<f4").reshape(2, 3)))
    whole = len(data) - 2  # the last field is empty and behind the graph
    for length in range(1, whole):
        with pytest.raises(ValueError):
            read_initializers(data[:length])
    assert read_initializers(data[:whole])["w"].shape == (2, 3)


def test_flipped_bits_raise_value_errors_or_give_arrays_of_the_files_size():
    data = model(tensor("a", np.arange(6, dtype="<f4")), tensor("b", np.zeros((2, 2), "<f4")))
    rng, refused = random.Random(1), 0
    for _ in range(500):
        spoiled = bytearray(data)
        spoiled[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            arrays = read_initializers(bytes(spoiled))
        except ValueError:
            refused += 1
        else:
            assert sum(array.nbytes for array in arrays.values()) <= len(data)
    assert 100 < refused < 450


def test_equals_the_onnx_package():
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    expected = {f"w{i}": rng.standard_normal((i, 3)).astype("f4") for i in range(1, 5)}
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in expected.items()]
    graph = onnx.helper.make_graph([], "g", [], [], tensors)
    arrays = read_initializers(onnx.helper.make_model(graph).SerializeToString())
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array)
