"""The arrays of an ONNX file, read without the onnx package.

An ONNX file is one protobuf message: a row of fields, each a key, (number << 3 | wire type), and a
value. Wire type 0 is a varint (7 bits per byte, lowest first, the high bit says that more follow),
1 is 8 bytes, 5 is 4 bytes, and 2 is a length and so many bytes: a string, raw data, or another
message. Three messages are on the way to a weight, with these field numbers (onnx.proto):

    ModelProto.graph = 7 -> GraphProto.initializer = 5 -> TensorProto: dims = 1, data_type = 2,
    float_data = 4, name = 8, raw_data = 9, double_data = 10, data_location = 14

All else is stepped over. A length that leads out of its message is an error, never a read.
"""

import itertools
import math
import os
from collections.abc import Iterator

import numpy as np

from minitl.storage.door import open_regular

MOST_FIELDS = 1_000_000  # that are looked at: a large network has some ten thousand
MOST_AXES = 32
# TensorProto.DataType -> little-endian dtype; initializers of other types are no weights.
DTYPES: dict[int, np.dtype] = {1: np.dtype("<f4"), 10: np.dtype("<f2"), 11: np.dtype("<f8")}


def read_initializers(source: str | os.PathLike[str] | bytes) -> dict[str, np.ndarray]:
    """The floating-point initializers of an ONNX model, by name, as ONNX keeps them (OIHW), from a
    path or bytes. Raises ValueError for no ONNX model, one cut short, or arrays in other files."""
    if isinstance(source, bytes):
        data, what, verb = source, "these bytes", "are"
    else:
        with open_regular(source) as file:
            data, what, verb = file.read(), os.fspath(source), "is"
    arrays: dict[str, np.ndarray] = {}
    try:
        fields = itertools.count(1)
        for graph in _messages(memoryview(data), 7, fields):
            for tensor in _messages(graph, 5, fields):
                name, array = _tensor(tensor, fields)
                if array is not None:
                    arrays[name] = array
    except (ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"{what} {verb} not a whole ONNX model: {error}") from error
    if not arrays:
        raise ValueError(f"{what}: expected an ONNX model with weights, found no weights")
    return arrays


def _messages(data: memoryview, wanted: int, fields: Iterator[int]) -> Iterator[memoryview]:
    for number, value in _fields(data, fields):
        if number == wanted and isinstance(value, memoryview):
            yield value


def _fields(data: memoryview, fields: Iterator[int]) -> Iterator[tuple[int, int | memoryview]]:
    """The fields of one message: (number, integer or bytes). `fields` counts those of all."""
    at = 0
    while at < len(data):
        if next(fields) > MOST_FIELDS:
            raise ValueError(f"more than {MOST_FIELDS:,} fields")
        key, at = _varint(data, at)
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            integer, at = _varint(data, at)
            yield number, integer
            continue
        if wire_type not in (1, 2, 5):
            raise ValueError(f"wire type {wire_type} at byte {at}")
        length, at = _varint(data, at) if wire_type == 2 else (8 if wire_type == 1 else 4, at)
        if length > len(data) - at:
            raise ValueError(f"a field of {length:,} bytes where {len(data) - at:,} are left")
        yield number, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """An integer of at most 64 bits and the place behind it; IndexError past the end."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"an integer of more than ten bytes at byte {at}")


def _tensor(data: memoryview, fields: Iterator[int]) -> tuple[str, np.ndarray | None]:
    """Name and array of one TensorProto; None for integers, strings and the like."""
    name, shape, contents = "", list[int](), memoryview(b"")
    dtype: np.dtype | None = None
    for number, value in _fields(data, fields):
        if number == 1:
            at = 0  # a single value, or several packed into bytes
            shape += [value] if isinstance(value, int) else []
            while isinstance(value, memoryview) and at < len(value) and len(shape) <= MOST_AXES:
                integer, at = _varint(value, at)
                shape.append(integer)
            if len(shape) > MOST_AXES:
                raise ValueError(f"an array of more than {MOST_AXES} axes")
        elif number == 2:
            dtype = DTYPES.get(value) if isinstance(value, int) else None
        elif number == 8 and isinstance(value, memoryview):
            name = str(value, "utf-8", "replace")
        elif number in (4, 9, 10) and isinstance(value, memoryview):
            contents = value  # packed little-endian numbers, in each of the three fields
        elif number == 14 and value == 1:
            raise ValueError(f"{name or 'an array'} is kept in another file (external data)")
    if dtype is None:
        return name, None
    expected, found = math.prod(shape) * dtype.itemsize, len(contents)
    if found != expected:
        sizes = f"expected {expected:,} bytes for shape {tuple(shape)}, found {found:,}"
        raise ValueError(f"{name}: {sizes}")
    return name, np.frombuffer(contents, dtype).reshape(shape)
