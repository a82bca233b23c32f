"""The plain part of HDF5, read byte by byte: groups, arrays, and attributes of numbers and strings.

Weight files come from strangers, and the HDF5 library trusts what it reads: flipped bits make it
crash or hang, a crafted string makes it take gigabytes, a link leads it to another file. So it is
never shown them. `File(source).root` is the first group; groups have `links`, arrays `read()`, both
have `attributes`. Read is what h5py writes unless told otherwise; the rest is refused by name. The
format's specification, version 3.0, in short:

    superblock          sizes, and the address of the root's header
    object header       messages: where a group's links are; an array's type, shape and place;
                        attributes
    group               a B-tree of nodes of (name, address), and a heap with the names; or, in
                        newer files, one message per link
    many links          more than eight links, or attributes, are messages in a 'fractal heap'; a
                        B-tree of another kind lists where in it
    string attribute    fixed length, or a reference (length, address, index) into a 'global heap'

Nothing is read outside the file, no memory taken for more than it holds, and what is read in all
has a limit, so that a file cannot send the reader around for ever. All numbers are little-endian.
"""

from __future__ import annotations

import functools
import math
import struct
from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np

from minitl.storage.door import SPARE

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Bytes that may be read of all but the arrays, if that is less than four times the file's size.
STRUCTURE = 2**26
CHECKED = 2**20  # bytes that are compared with checksums: 0.5 s of Python
THING = 64  # bytes that a message or a name counts beside its own: about what Python takes
NOWHERE = 2**64 - 1  # the address of what has no place
# Kinds of messages in a header.
DATASPACE, LINK_INFO, DATATYPE, LINK, EXTERNAL, LAYOUT = 0x01, 0x02, 0x03, 0x06, 0x07, 0x08
FILTERS, ATTRIBUTE, CONTINUED, SYMBOL_TABLE, ATTRIBUTE_INFO = 0x0B, 0x0C, 0x10, 0x11, 0x15
# Classes of types. A floating-point type of some bytes says where its number begins, and its bits;
# where its exponent and its mantissa are, and the bits of each; its bias; and where its sign is.
INTEGER, FLOAT, STRING, ENUM, VARIABLE = 0, 1, 3, 8, 9
IEEE = {
    2: (0, 16, 10, 5, 0, 10, 15, 15),
    4: (0, 32, 23, 8, 0, 23, 127, 31),
    8: (0, 64, 52, 11, 0, 52, 1023, 63),
}
# By version, what follows of a superblock: sizes, base and end, up to the address of the root.
SUPERBLOCK = ("4x2s9xQ8xQ16x", "4x2s13xQ8xQ16x", "2sxQ8xQ", "2sxQ8xQ")


class Hdf5Error(ValueError):
    """A file that is damaged, or that uses more of HDF5 than is read here."""


class _Bytes:
    """A piece of the file, taken from the front."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        if count < 0 or self.at > len(self.data):
            raise Hdf5Error("a piece of it is shorter than it says")
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def fields(self, layout: str) -> tuple[Any, ...]:
        """Values, as `struct` writes their sizes: B is 1 byte, H 2, I 4, Q 8, x one to skip."""
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}")))

    @property
    def left(self) -> int:
        return len(self.data) - self.at


class File:
    """An open file; `root` is its first group. Raises Hdf5Error, as all that comes from it does.
    With `checked`, only the newer form is read, and the checksums of the superblock and of every
    header are compared."""

    def __init__(self, source: IO[bytes], checked: bool = False):
        self.source, self.checked = source, checked
        self.size = source.seek(0, 2)
        self._left = {"arrays": self.size + SPARE, "headers": CHECKED}
        self._left["structure"] = min(4 * self.size, STRUCTURE) + 2**16
        self._heaps: dict[int, dict[int, bytes]] = {}
        start = self.piece(0, min(self.size, 128))
        if start.take(8) != SIGNATURE:
            raise Hdf5Error("it does not begin as an HDF5 file")
        version = start.number(1)
        if version > 3:
            raise Hdf5Error(f"its superblock has version {version}; known are 0 to 3")
        sizes, base, end = start.fields(SUPERBLOCK[version])
        if checked:
            if version < 2:
                raise Hdf5Error(f"its superblock has version {version}, without a checksum")
            self.check(0, 44, "superblock")
        if sizes != b"\x08\x08" or base != 0:
            raise Hdf5Error("expected offsets and lengths of 8 bytes from its beginning on")
        if end > self.size:
            raise Hdf5Error(f"truncated: expected {end:,} bytes, found {self.size:,}")
        self.root = Object(self, start.number(8), "/")

    def read(self, at: int, count: int, what: str = "structure") -> bytes:
        if count == 0:  # an empty array has no place
            return b""
        if count < 0 or at + count > self.size:
            raise Hdf5Error(f"it points outside itself: to {count:,} bytes at {at:,}")
        self.spend(count, what)
        self.source.seek(at)
        return self.source.read(count)

    def spend(self, count: int, what: str = "structure") -> None:
        """Take `count` bytes from what may be read in all."""
        self._left[what] -= count
        if self._left[what] < 0:
            size = f"its {what} would be larger than its {self.size:,} bytes"
            raise Hdf5Error(f"{size}: it leads around")

    def check(self, at: int, count: int, what: str) -> None:
        """Compare the checksum of these bytes with the one that stands behind them."""
        piece = self.piece(at, count + 4)
        self.spend(count, "headers")
        if checksum(piece.take(count)) != piece.number(4):
            raise Hdf5Error(f"the checksum of its {what} at byte {at:,} does not fit")

    def text(self, raw: bytes) -> str:
        """A name or a string. It is paid for: a thousand of them can lie on one place."""
        self.spend(THING + len(raw))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise Hdf5Error(f"expected a name, found {raw[:40]!r}") from None

    def piece(self, at: int, count: int, signature: bytes = b"") -> _Bytes:
        found = _Bytes(self.read(at, count))
        if found.take(len(signature)) != signature:
            raise Hdf5Error(f"expected {signature.decode()} at byte {at:,}")
        return found

    def heap_string(self, reference: _Bytes) -> bytes:
        """What a reference to a string of any length stands for."""
        length, at, index = reference.fields("IQI")
        if at in (0, NOWHERE):
            return b""
        if at not in self._heaps:
            found: dict[int, bytes] = {}
            heap = self.piece(at, self.piece(at + 8, 8).number(8), b"GCOL")
            heap.take(12)
            while heap.left >= 16:
                number, size = heap.fields("H6xQ")
                if number == 0:
                    break  # the rest is free
                found[number] = heap.take(size)
                heap.take(min(-size % 8, heap.left))
            self._heaps[at] = found
        string = self._heaps[at].get(index)
        if string is None or length > len(string):
            raise Hdf5Error(f"the string at byte {at:,}, number {index}, is damaged")
        return string[:length]


class Object:
    """A group or an array: what its header says. `path` is how it was reached."""

    def __init__(self, file: File, address: int, path: str):
        self.file, self.address, self.path = file, address, path
        self.messages: dict[int, list[tuple[bytes, bool]]] = {}  # by kind; whether it is shared
        for kind, shared, data in _messages(file, address):
            self.messages.setdefault(kind, []).append((data, shared))

    @property
    def is_array(self) -> bool:
        return LAYOUT in self.messages

    def _only(self, kind: int, what: str) -> _Bytes:
        found = self.messages.get(kind, [])
        if len(found) != 1 or found[0][1]:
            raise Hdf5Error(f"{self.path} has no {what} of its own")
        return _Bytes(found[0][0])

    @functools.cached_property
    def links(self) -> dict[str, int]:
        """Name: address of the header, or NOWHERE for a link to elsewhere. Sorted by name."""
        if self.is_array:
            raise Hdf5Error(f"{self.path} is not a group")
        found = self._symbols() if SYMBOL_TABLE in self.messages else self._linked()
        return dict(sorted(dict(found).items()))

    def __contains__(self, name: str) -> bool:
        return not self.is_array and name in self.links

    def __getitem__(self, path: str) -> Object:
        """A member, one step at a time, and only along links that stay in this file."""
        here = self
        for step in path.split("/"):
            where = f"{here.path.rstrip('/')}/{step}"
            if here.is_array or step not in here.links:
                raise Hdf5Error(f"expected {path!r} in {self.path}, found nothing there")
            if here.links[step] == NOWHERE:
                raise Hdf5Error(f"{where} is a link to somewhere else; links are not followed")
            here = Object(self.file, here.links[step], where)
        return here

    def _symbols(self) -> Iterator[tuple[str, int]]:
        """The links of a group that keeps them in a B-tree."""
        table = self._only(SYMBOL_TABLE, "table of links")
        tree, heap = table.fields("QQ")
        length, start = self.file.piece(heap, 32, b"HEAP").fields("4xQ8xQ")
        names = self.file.read(start, length)
        seen, nodes = set[int](), [tree]
        while nodes:
            if (at := nodes.pop()) in seen:
                raise Hdf5Error(f"the links of {self.path} run in a circle")
            seen.add(at)
            if self.file.read(at, 4) == b"TREE":
                (count,) = self.file.piece(at, 8, b"TREE").fields("2xH")
                # Pairs of a key and a child; the order of names is not needed.
                children = self.file.read(at + 24, 8 + 16 * count)
                nodes += [child for (child,) in struct.iter_unpack("<8xQ", children[: 16 * count])]
                continue
            count = self.file.piece(at + 6, 2).number(2)
            node = self.file.piece(at, 8 + 40 * count, b"SNOD")
            for name, address, kind in struct.iter_unpack("<QQI20x", node.data[8:]):
                text = names[name : names.find(b"\0", name)]
                yield self.file.text(text), NOWHERE if kind == 2 else address

    def _linked(self) -> Iterator[tuple[str, int]]:
        for data in self._few_or_many(LINK, LINK_INFO, 8):
            link = _Bytes(data)
            (flags,) = link.fields("xB")
            kind = link.number(1) if flags & 8 else 0
            link.take((8 if flags & 4 else 0) + (1 if flags & 16 else 0))
            name = self.file.text(link.take(link.number(1 << (flags & 3))))
            yield name, link.number(8) if kind == 0 else NOWHERE

    def _few_or_many(self, kind: int, info_kind: int, counter: int) -> Iterator[bytes]:
        """Messages of a kind that are in the header while they are few, then in a fractal heap.
        The message about it may begin with a number of `counter` bytes."""
        yield from (data for data, _ in self.messages.get(kind, []))
        for data, _ in self.messages.get(info_kind, []):
            info = _Bytes(data)
            info.take(counter if info.fields("xB")[0] & 1 else 0)
            heap, tree = info.fields("QQ")
            if heap != NOWHERE:
                skipped = 4 if kind == LINK else 0
                records = (record[skipped:] for record in _records(self.file, tree))
                yield from _pieces(self.file, heap, records)

    @property
    def attributes(self) -> dict[str, np.ndarray | None]:
        """The attributes by name, as 1-D arrays of numbers or str; None for other types."""
        return dict(map(self._attribute, self._few_or_many(ATTRIBUTE, ATTRIBUTE_INFO, 2)))

    def _attribute(self, data: bytes) -> tuple[str, np.ndarray | None]:
        message = _Bytes(data)
        version, shared, *sizes = message.fields("BBHHH")
        message.take(1 if version == 3 else 0)
        padded = [-(-n // 8) * 8 if version == 1 else n for n in sizes]
        name, kind, space = (message.take(n) for n in padded)
        text = self.file.text(name[: sizes[0]].rstrip(b"\0"))
        dtype, shape = _datatype(_Bytes(kind)), _dataspace(_Bytes(space))
        if dtype is None or shape is None or (shared & 3 and version > 1):
            return text, None
        count = math.prod(shape)
        if dtype == "string":
            if count * 16 > message.left:
                raise Hdf5Error(f"attribute {text!r} of {self.path} is shorter than it says")
            values: Any = (self.file.heap_string(message) for _ in range(count))
        else:
            values = np.frombuffer(message.take(count * dtype.itemsize), dtype)
            if dtype.kind != "S":
                return text, values.astype(dtype.newbyteorder("="))
        return text, np.array([self.file.text(value) for value in values], dtype=object)

    def shape_and_dtype(self) -> tuple[tuple[int, ...], np.dtype]:
        if not self.is_array:
            raise Hdf5Error(f"{self.path} is not an array")
        dtype = _datatype(self._only(DATATYPE, "type"))
        if not isinstance(dtype, np.dtype) or dtype.kind == "S":
            raise Hdf5Error(f"{self.path}: expected an array of numbers")
        shape = _dataspace(self._only(DATASPACE, "shape"))
        if shape is None:
            raise Hdf5Error(f"{self.path} has no values")
        return shape, dtype

    def read(self) -> np.ndarray:
        """The array, in the byte order of this machine."""
        shape, dtype = self.shape_and_dtype()
        place, declared, data = self._whole(shape, dtype)
        if place is not None:
            data = self.file.read(place, declared, "arrays")
        if len(data) < math.prod(shape) * dtype.itemsize:
            raise Hdf5Error(f"{self.path} is shorter than it says")
        values = np.frombuffer(bytearray(data), dtype, math.prod(shape)).reshape(shape)
        return np.asarray(values, dtype.newbyteorder("="))

    def place(self) -> int:
        """Where in the file the array begins, which lies there whole and in one piece."""
        place, _, _ = self._whole(*self.shape_and_dtype())
        if place is None:
            raise Hdf5Error(f"{self.path} has no place of its own")
        return place

    def _whole(self, shape: tuple[int, ...], dtype: np.dtype) -> tuple[int | None, int, bytes]:
        """Where the array is and its number of bytes; or None, and the bytes from the header."""
        layout = self._only(LAYOUT, "place")
        version, kind = layout.fields("BB")
        if EXTERNAL in self.messages or kind == 3:
            where = "in another file (a virtual or external data set)"
            raise Hdf5Error(f"{self.path} keeps its values {where}; expected the values themselves")
        if FILTERS in self.messages:  # inflating can take a thousand times the file's size
            remedy = "unpack the file with: h5repack -f NONE in.h5 out.h5"
            raise Hdf5Error(f"{self.path} is compressed; {remedy}")
        if version not in (3, 4) or kind > 1:
            remedy = "put it together with: h5repack -l CONTI in.h5 out.h5"
            raise Hdf5Error(f"{self.path} is kept in chunks; {remedy}")
        if kind == 0:
            place, stored, data = 0, layout.number(2), layout.data[layout.at :]
        else:
            (place, stored), data = layout.fields("QQ"), b""
            stored = 0 if place == NOWHERE else min(stored, max(self.file.size - place, 0))
        declared = math.prod(shape) * dtype.itemsize
        if declared > stored:
            size = f"{declared:,} bytes (shape {shape})"
            raise Hdf5Error(f"{self.path} declares {size}, but the file holds {stored:,} of them")
        return (place if kind and declared else None), declared, data[:declared]


def _pieces(file: File, address: int, records: Iterable[bytes]) -> Iterator[bytes]:
    """The pieces of a fractal heap; each record begins with an identifier: offset and length.
    Blocks of the heap stand in rows of `width`; those of the first two rows are of size `start`,
    of each row after that twice as large. Blocks of more than `largest` are tables of such rows
    themselves. Offsets count through all blocks in order.
    """
    header = file.piece(address, 144, b"FRHP").fields("xHH101xHQQH2xQH")
    id_size, filtered, width, start, largest, offset_bits, root, root_rows = header
    offset_size = -(-offset_bits // 8)
    if filtered or not 0 < width <= 1024 or not 0 < start <= largest < 2**32:
        raise Hdf5Error(f"the heap at byte {address:,} is of a kind that is not read here")

    def step(table: int, rows: int, offset: int) -> tuple[int, int, int]:
        """The block of a table that has this offset: its address, its rows, the offset in it."""
        for row in range(min(rows, 64)):
            size = start << max(row - 1, 0)
            if offset < width * size:
                column, inside = divmod(offset, size)
                at = table + 13 + offset_size + 8 * (row * width + column)
                inner = (size // (start * width)).bit_length() if size > largest else 0
                return file.piece(at, 8).number(8), inner, inside
            offset -= width * size
        raise Hdf5Error("a fractal heap has no such piece")

    for record in records:
        identifier = _Bytes(record[:id_size])
        if identifier.number(1) & 0x30:
            raise Hdf5Error("a piece of a fractal heap is too large to be read here")
        offset, length = identifier.number(offset_size), identifier.number(identifier.left)
        block, rows, steps = root, root_rows, 0
        while rows:  # else it is no table, but the block itself
            block, rows, offset = step(block, rows, offset)
            steps += 1
            if steps == 64:
                raise Hdf5Error("a fractal heap runs in a circle")
        yield file.read(block + offset, length)


def _records(file: File, tree: int) -> Iterator[bytes]:
    """All records of a B-tree of the second version."""
    header = file.piece(tree, 38, b"BTHD").fields("2xIHH2xQH")
    node_size, size, depth, root, root_records = header
    nodes = [(root, root_records, depth)]
    if not 0 < size < node_size - 10 or node_size > 2**20 or depth > 16:
        raise Hdf5Error(f"the B-tree at byte {tree:,} is damaged")
    # Records in a node of each level, alone and with those below, and bytes such a number takes.
    most = [below := (node_size - 10) // size]
    counter, totals = max(1, -(-below.bit_length() // 8)), [0]
    for _ in range(depth):
        pointer = 8 + counter + totals[-1]
        most.append(max((node_size - 10 - pointer) // (size + pointer), 0))
        below = (most[-1] + 1) * below + most[-1]
        totals.append(max(1, -(-below.bit_length() // 8)))
    seen: set[int] = set()
    while nodes:
        at, count, level = nodes.pop()
        if at in seen or count > most[level]:
            raise Hdf5Error(f"the B-tree at byte {tree:,} is damaged")
        seen.add(at)
        node = file.piece(at, node_size, b"BTIN" if level else b"BTLF")
        node.take(2)
        yield from [node.take(size) for _ in range(count)]
        for _ in range(count + 1 if level else 0):
            child, records = node.number(8), node.number(counter)
            node.take(totals[level - 1])
            nodes.append((child, records, level - 1))


def _messages(file: File, address: int) -> Iterator[tuple[int, bool, bytes]]:
    """(kind, whether it only points to a shared one, contents) of an object header's messages."""
    if file.read(address, 4) == b"OHDR":
        start = file.piece(address, min(64, file.size - address), b"OHDR")
        (flags,) = start.fields("xB")
        start.take((16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0))
        length = start.number(1 << (flags & 3))
        chunks, new, ordered = [(address + start.at, length)], True, flags & 4
        if file.checked:
            file.check(address, start.at + length, "header")
    elif file.checked:
        raise Hdf5Error(f"expected a header with a checksum at byte {address:,}")
    else:
        version, length = file.piece(address, 16).fields("B7xI4x")
        if version != 1:
            raise Hdf5Error(f"expected an object's header at byte {address:,}")
        chunks, new, ordered = [(address + 16, length)], False, 0
    seen: set[int] = set()
    while chunks:
        at, length = chunks.pop(0)
        if at in seen:
            raise Hdf5Error(f"the header at byte {address:,} runs in a circle")
        seen.add(at)
        chunk = file.piece(at, length)
        while chunk.left >= (4 if new else 8):
            kind, size, flags = chunk.fields("BHB" if new else "HHB3x")
            chunk.take(2 if ordered else 0)
            if size > chunk.left:
                raise Hdf5Error(f"a message of the header at byte {address:,} is too long")
            message = chunk.take(size)
            file.spend(THING)
            if kind == CONTINUED:
                place, count = _Bytes(message).fields("QQ")
                # A new-style chunk has a signature before and a checksum after its messages.
                if file.checked:
                    file.check(place, count - 4, "header")
                chunks.append((place + 4, count - 8) if new else (place, count))
            else:
                yield kind, bool(flags & 2), message


def checksum(data: bytes) -> int:
    """Of HDF5's headers: lookup3, which Bob Jenkins put into the public domain (2006)."""

    def turned(n: int, by: int) -> int:  # 32 bits, to the left
        return (n << by | n >> 32 - by) & 0xFFFFFFFF

    a = b = c = 0xDEADBEEF + len(data)
    words = [int(w) for w in np.frombuffer(data + bytes(-len(data) % 12), "<u4")]
    for i in range(0, len(words), 3):
        a, b, c = (n & 0xFFFFFFFF for n in (a + words[i], b + words[i + 1], c + words[i + 2]))
        if i + 3 < len(words):
            for turn in (4, 6, 8, 16, 19, 4):
                a = (a - c & 0xFFFFFFFF) ^ turned(c, turn)
                a, b, c = b, c + b & 0xFFFFFFFF, a
    for turn in (14, 11, 25, 16, 4, 14, 24) if words else ():
        c = (c ^ b) - turned(b, turn) & 0xFFFFFFFF
        a, b, c = b, c, a
    return b & 0xFFFFFFFF


def _datatype(message: _Bytes) -> Any:
    """A NumPy dtype, 'string' for strings of any length, None for what is not read here."""
    head, size = message.fields("II")
    kind, bits = head & 15, head >> 8
    order = ">" if bits & 1 else "<"
    if kind == INTEGER and size in (1, 2, 4, 8):
        usual = message.fields("HH") == (0, 8 * size)
        return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}") if usual else None
    if kind == FLOAT and size in IEEE:
        layout = (*message.fields("HHBBBBI"), bits >> 8 & 255)
        mixed_order = bits & 64
        return np.dtype(f"{order}f{size}") if layout == IEEE[size] and not mixed_order else None
    if kind == STRING and 0 < size < 2**16:
        return np.dtype(f"S{size}")
    if kind == ENUM and message.left and message.data[message.at] & 15 == INTEGER:  # h5py's bool
        return _datatype(message)
    return "string" if kind == VARIABLE and bits & 15 == 1 else None


def _dataspace(message: _Bytes) -> tuple[int, ...] | None:
    """The shape; None for an object without values."""
    version, rank, kind = message.fields("BBxB")
    if version == 1:
        message.take(4)
    elif version != 2 or kind == 2:
        return None
    if rank > 32:
        raise Hdf5Error(f"expected at most 32 axes, found {rank}")
    shape = message.fields(f"{rank}Q")
    if math.prod(n or 1 for n in shape) >= 2**59:  # NumPy refuses it, even where an axis is 0
        raise Hdf5Error(f"no array has the shape {shape}")
    return shape
