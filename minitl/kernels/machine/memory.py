"""Memory that kernels write into: aligned to cache lines, and used again.

Fresh memory is dear: the system hands it out as pages full of zeros, one page fault at a time. And
NumPy's large arrays begin 16 bytes after the start of a page, so that every 64-byte vector that is
loaded or stored lies in two cache lines.

So kernels take their outputs from `empty`. Large ones are views of a `_Block`; when the last view
of it is gone, Python deletes the block, and its memory waits here for the next caller. At most
256 MB wait: a step of training VGG16 on 16 images then needs 1.6 GB, and with all that it uses
waiting 2.2 GB, while it is hardly faster. `release` gives all of it back. The system is also asked
for pages of 2 MB, which makes the first writing four times as fast.
"""

from __future__ import annotations

import math
import mmap
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from minitl.kernels import twin
from minitl.kernels.geometry import Array

ALIGNMENT = 64  # bytes, a cache line
LARGE = 2**18  # bytes; smaller arrays are NumPy's own, which are quick to get
SMALL = 2**15  # bytes; below that, finding the cache line takes longer than it brings

_scratch = threading.local()


class _Block(np.ndarray):
    """Memory that is put back when the last array in it is gone."""

    waiting: ClassVar[list[mmap.mmap]] = []  # the longest waiting first
    kept = 2**28  # bytes that may wait
    memory: mmap.mmap | None = None

    @classmethod
    def of(cls, nbytes: int, zeros: bool = False, most: int | None = None) -> _Block:
        """A block in memory of at least so many bytes: the best fit of what waits, or new. What
        waits may have `most` bytes, by default twice as many as wanted."""
        waiting = cls._waiting_for(nbytes, most or 2 * nbytes)
        memory = waiting or _mapped(nbytes)
        # Views of the block have it as their base, because the block's own base is no array: NumPy
        # skips a base whose base is one, and the block would be deleted too early.
        block = cls(nbytes, np.uint8, memory)
        block.memory = memory
        if zeros and waiting:
            block[...] = 0
        return block

    @classmethod
    def _waiting_for(cls, nbytes: int, most: int) -> mmap.mmap | None:
        fits = [memory for memory in cls.waiting.copy() if nbytes <= len(memory) <= most]
        for memory in sorted(fits, key=len):
            try:
                cls.waiting.remove(memory)
                return memory
            except ValueError:  # another thread was faster
                continue
        return None

    def __del__(self) -> None:
        if self.memory is not None:  # it is None in views that have this type
            self.waiting.append(self.memory)
            while sum(map(len, self.waiting)) > self.kept:
                self.waiting.pop(0)


def _mapped(nbytes: int) -> mmap.mmap:
    """New memory of this process alone: a forked one gets a copy, as of any other."""
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows
        return mmap.mmap(-1, nbytes)
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):  # Linux, which has these for private memory only
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class Routine:
    """Kernels in the order in which one thread calls them within `with`, on memory that is theirs
    alone: so `team.again` can call them once more, for other numbers in the same places."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], Any]] = []
        self.whole = True  # nothing was done beside `team.together`
        self.blocks: Any = type("_Own", (_Block,), {"waiting": [], "kept": math.inf})

    def __enter__(self) -> Routine:
        doing.routine = self
        return self

    def __exit__(self, *error: object) -> None:
        doing.routine = None

    def fixed(self, value: Any) -> Any:
        """Arguments of a kernel, of which the arrays do not keep memory from who comes after."""
        if type(value) is tuple:
            return tuple(map(self.fixed, value))
        block: Any = getattr(value, "base", None)
        while isinstance(block, np.ndarray) and type(block) is not self.blocks:
            block = block.base
        if type(block) is not self.blocks:
            return value
        place = value.ctypes.data - block.ctypes.data
        return np.ndarray(value.shape, value.dtype, block.memory, place)


class _Doing(threading.local):
    routine: Routine | None = None  # of this thread, while it is written down


doing = _Doing()


@twin
def empty(shape: int | tuple[int, ...], dtype: np.dtype, lasting: bool = False) -> Array:
    """Beginning at a cache line unless it is SMALL, in memory that may have been used before. For
    what is `lasting` no larger block is taken, of which the rest would be idle."""
    shape = (shape,) if isinstance(shape, int) else shape
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    if doing.routine is not None and nbytes and not lasting:
        return np.ndarray(shape, dtype, doing.routine.blocks.of(nbytes))
    if nbytes >= LARGE:
        return np.ndarray(shape, dtype, _Block.of(nbytes, most=nbytes if lasting else None))
    if nbytes < SMALL:
        return np.empty(shape, dtype)
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes].view(dtype).reshape(shape)


@twin
def copy(a: Array) -> Array:
    if a.nbytes < LARGE:
        return np.array(a, order="C")
    new = empty(a.shape, a.dtype)
    new[...] = a
    return new


@twin
def zeros_like(a: Array) -> Array:
    """New memory is zeroed by the system when somebody first writes there, here on all cores."""
    if a.nbytes < LARGE:
        return np.zeros_like(a)
    return np.ndarray(a.shape, a.dtype, _Block.of(a.nbytes, zeros=True))


def scratch(size: int, dtype: np.dtype) -> Array:
    """A flat array of this thread to compute in, with any content, until the next call."""
    nbytes = size * dtype.itemsize
    if doing.routine is not None:
        return empty(size, dtype)
    if getattr(_scratch, "buffer", None) is None or _scratch.buffer.nbytes < nbytes:
        _scratch.buffer = None
        _scratch.buffer = empty(nbytes, np.dtype(np.uint8))
    return _scratch.buffer[:nbytes].view(dtype)


def scratch_arrays(dtype: np.dtype, *shapes: tuple[int, ...]) -> tuple[Array, ...]:
    """Arrays of these shapes and any content, one after the other in `scratch`."""
    flat, arrays = scratch(sum(map(math.prod, shapes)), dtype), []
    for shape in shapes:
        arrays.append(flat[: math.prod(shape)].reshape(shape))
        flat = flat[math.prod(shape) :]
    return tuple(arrays)


def release() -> None:
    """Give what waits back to the system."""
    _Block.waiting.clear()
